"""Who comes in: decisions about viewers at the door, and how often somebody may knock. Bounded, without a clock."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

Approval = Literal["none", "token", "manual"]
"""Whoever comes may watch, whoever has a token, or whoever the owner lets in."""

Refusal = Literal["barred", "token", "full", "crowded"]
"""Why nobody is let in: this one was sent away, has no token, all places are taken, or too many wait already."""

Verdict = Literal["admit", "wait"] | Refusal

MOST_WAITING = 32
"""How many may wait to be let in; each has a connection, and has shown nothing that vouches for it."""

MOST_WAITING_OF_NETWORK = 8
"""How many of them may be of one network."""


@dataclass(frozen=True, slots=True)
class Knock:
    """What is known of somebody at the door.

    ``is_invited``: it has a token of the owner's. ``is_vouched_for``: the program around says that it may pass.
    ``is_approved``: the owner let it in before. ``is_barred``: the owner sent it away. ``is_suspect``: somebody of its
    network was sent away a short time ago, so who has no place of its own waits, whatever it shows.
    """

    is_invited: bool = False
    is_vouched_for: bool = False
    is_approved: bool = False
    is_barred: bool = False
    is_suspect: bool = False


@dataclass(frozen=True, slots=True)
class Room:
    """How full it is. ``waiting_of_network`` counts those of the network that somebody knocks from."""

    watching: int
    most: int
    waiting: int = 0
    waiting_of_network: int = 0


def decide(approval: Approval, knock: Knock, room: Room) -> Verdict:
    """What becomes of somebody who knocks.

    A token of the owner's is as good as being let in by hand. What a program vouches for stands for a token, but where
    the owner lets people in, that is the owner's word all the same.
    """
    if knock.is_barred:
        return "barred"
    may_enter = knock.is_approved or (
        not knock.is_suspect
        and (approval == "none" or knock.is_invited or (approval == "token" and knock.is_vouched_for))
    )
    if may_enter:
        return "admit" if room.watching < room.most else "full"
    if approval == "token" and not (knock.is_invited or knock.is_vouched_for):
        return "token"
    if room.waiting >= MOST_WAITING or room.waiting_of_network >= MOST_WAITING_OF_NETWORK:
        return "crowded"
    return "wait"


class JoinLimit:
    """How often each network may knock: a token bucket for each, of which the ones not used for longest are forgotten.

    A network that is forgotten begins with a full bucket, so ``networks`` at a time are held back.
    """

    def __init__(self, *, burst: int = 40, per_second: float = 1.0, networks: int = 1024) -> None:
        self.burst: int = burst
        self.per_second: float = per_second
        self._networks = networks
        self._left: OrderedDict[str, tuple[float, int]] = OrderedDict()  # what was left, and when

    def take(self, network: str, *, now_ns: int) -> int:
        """Counts a knock, and gives 0; or how many ns the network has to wait before the next one is listened to."""
        left, at_ns = self._left.get(network, (float(self.burst), now_ns))
        left = min(self.burst, left + max(0, now_ns - at_ns) / 1e9 * self.per_second)
        waits = left < 1
        self._left[network] = (left if waits else left - 1, now_ns)
        self._left.move_to_end(network)
        while len(self._left) > self._networks:
            self._left.popitem(last=False)
        return max(1, round((1 - left) / self.per_second * 1e9)) if waits else 0


class RateCap:
    """Holds a stream to a rate by leaving out whole groups of pictures: a bucket of ``seconds`` at that rate.

    What begins with a keyframe is sent while there is something in the bucket, and may overdraw it by one picture;
    after that nothing is until it is at least half full again and the next keyframe comes.
    """

    def __init__(self, rate_bps: int, *, seconds: float = 2.0) -> None:
        self.rate_bps: int = rate_bps
        self._most = rate_bps * seconds / 8
        self._left = self._most
        self._at_ns: int | None = None
        self.is_holding: bool = False

    def passes(self, *, is_keyframe: bool, now_ns: int) -> bool:
        """Whether a picture may be sent now; ``spend`` says that it was."""
        if self._at_ns is not None:
            self._left = min(self._most, self._left + max(0, now_ns - self._at_ns) * self.rate_bps / 8e9)
        self._at_ns = now_ns
        if self.is_holding and is_keyframe and self._left >= self._most / 2:
            self.is_holding = False
        elif not self.is_holding and self._left <= 0:
            self.is_holding = True
        return not self.is_holding

    def spend(self, size: int) -> None:
        """So many bytes were sent."""
        self._left -= size

    @property
    def wants_keyframe(self) -> bool:
        """Whether it goes on with the next keyframe."""
        return self.is_holding and self._left >= self._most / 2
