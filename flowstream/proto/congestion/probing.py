"""Short trains of packets that are sent faster than the estimate, to find out whether the path carries more.

A train tells the bandwidth by how fast it arrives (libwebrtc's ProbeBitrateEstimator does the same). At the beginning
there are trains at three and at six times the first rate, and twice as fast again while they come through; later one
now and then while the path shows no queue, the more seldom the less they find.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flowstream.proto.congestion.sent import Arrival

NS_PER_S: Final = 1_000_000_000
MS: Final = 1_000_000

FIRST_FACTORS: Final = (3, 6)
LATER_FACTOR: Final = 1.5
LEAST_PACKETS: Final = 5
LEAST_NS: Final = 15 * MS
"""A train is at least this long and has at least so many packets, or its rate would be no more than a guess."""

LEAST_BPS: Final = 250_000
"""Below this estimate there are no trains but the first ones, as long as something is sent: five packets would fill
the path for a tenth of a second, and it takes only seconds to find out by sending more."""

WORTH: Final = 1.05
"""Times the estimate: for less no later train is sent, and trains that find less become more seldom."""

_PACKET = 1200
_GIVEN_UP_NS = NS_PER_S  # after this a train that did not arrive has failed
_CAME_THROUGH = 0.9  # of the rate it was sent with: the path was not full
_ENOUGH_ARRIVED = 0.8
_GOES_ON = 0.7  # of its rate: worth a faster one at once
_OF_MEASURED = 0.95  # what is used of a rate that a train was held back to
_FIRST_PAUSE_NS, _LONGEST_PAUSE_NS = NS_PER_S // 2, 2 * NS_PER_S
_MORE_WHERE_ENOUGH_NS = 6 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Probe:
    """A train to send: ``size`` bytes at ``bps``, its packets marked with ``number``."""

    number: int
    bps: int
    size: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a train found: the path carries ``bps``. ``is_bound`` says that it held the train back, so not more."""

    bps: int
    is_bound: bool


@dataclass(slots=True)
class _Train:
    probe: Probe
    begun_ns: int
    packets: int = 0
    size: int = 0
    first_sent_ns: int = 0
    last_sent_ns: int = 0
    last_sent_size: int = 0
    first_arrived_ns: int = 0
    first_arrived_size: int = 0
    last_arrived_ns: int = 0


class Probing:
    """When to probe how fast, and what came of it."""

    def __init__(self, *, start_bps: int) -> None:
        self._wanted = [start_bps * factor for factor in FIRST_FACTORS]
        self._trains: dict[int, _Train] = {}
        self._numbers = 0
        self._next_ns: int | None = None
        self._pause_ns = _FIRST_PAUSE_NS

    @property
    def is_open(self) -> bool:
        """Whether a train is on its way."""
        return bool(self._trains)

    def ask(self, bps: int) -> None:
        """A train at this rate, as soon as it can be sent."""
        if not self._wanted:
            self._wanted.append(bps)

    def poll(
        self,
        *,
        estimate_bps: int,
        most_bps: int,
        is_quiet: bool,
        now_ns: int,
        is_idle: bool = False,
        is_enough: bool = False,
    ) -> Probe | None:
        """The train to send now.

        ``is_quiet`` says that the path has no queue and a faster one does no harm, ``is_idle`` that little or nothing
        is sent, so that nothing but a train can find out anything, ``is_enough`` that what is known will do, so that
        nobody waits to learn of more.
        """
        for number in [each for each, train in self._trains.items() if now_ns - train.begun_ns > _GIVEN_UP_NS]:
            del self._trains[number]
            self._pause_ns = min(2 * self._pause_ns, _LONGEST_PAUSE_NS)
        if self._trains:
            return None
        if self._next_ns is None:
            self._next_ns = now_ns + self._pause_ns
        if self._wanted:
            wanted = self._wanted.pop(0)
        elif (
            is_quiet
            and now_ns >= self._next_ns + (_MORE_WHERE_ENOUGH_NS if is_enough else 0)
            and self._is_worth(estimate_bps, most_bps, is_idle=is_idle)
        ):
            wanted = int(estimate_bps * LATER_FACTOR)
        else:
            return None
        bps = min(wanted, most_bps)
        if bps <= estimate_bps:
            self._wanted.clear()
            return None
        self._next_ns = now_ns + self._pause_ns
        self._numbers += 1
        probe = Probe(self._numbers, bps, max(LEAST_PACKETS * _PACKET, bps * LEAST_NS // 8 // NS_PER_S))
        self._trains[probe.number] = _Train(probe, now_ns)
        return probe

    def sooner(self) -> None:
        """The path has changed: what earlier trains found says little about it."""
        self._pause_ns = _FIRST_PAUSE_NS
        self._next_ns = None

    def restart(self) -> None:
        """The path is another one, or is there again: nothing will come of the trains that are on their way."""
        self._trains.clear()
        self.sooner()

    def failed(self) -> None:
        """What a train had found did not hold."""
        self._pause_ns = min(2 * self._pause_ns, _LONGEST_PAUSE_NS)
        self._wanted.clear()

    def add(self, arrivals: list[Arrival], *, estimate_bps: int) -> Found | None:
        """Takes what one feedback told; gives what the train has found that is complete by it."""
        found: Found | None = None
        if not self._trains:
            return None
        for arrival in arrivals:
            number, sent_ns = arrival.probe, arrival.sent_ns
            if not number:
                continue
            for arrived_ns, size in zip(arrival.times_ns, arrival.sizes, strict=True):
                train = self._trains.get(number)
                if train is None:
                    break
                if not train.packets:
                    train.first_sent_ns = sent_ns
                    train.first_arrived_ns = arrived_ns
                    train.first_arrived_size = size
                train.packets += 1
                train.size += size
                train.last_sent_ns, train.last_sent_size = sent_ns, size
                train.last_arrived_ns = arrived_ns
                if train.packets >= LEAST_PACKETS and train.size >= _ENOUGH_ARRIVED * train.probe.size:
                    del self._trains[number]
                    found = _measure(train) or found
                    self._follow(train.probe, found, estimate_bps)
        return found

    def _is_worth(self, estimate_bps: int, most_bps: int, *, is_idle: bool) -> bool:
        return (is_idle or estimate_bps >= LEAST_BPS) and estimate_bps * WORTH < most_bps

    def _follow(self, probe: Probe, found: Found | None, estimate_bps: int) -> None:
        if found is None or found.bps <= estimate_bps * WORTH:
            self._pause_ns = min(2 * self._pause_ns, _LONGEST_PAUSE_NS)
            return
        self._pause_ns = _FIRST_PAUSE_NS
        if found.bps > _GOES_ON * probe.bps and not found.is_bound:
            self._wanted = self._wanted or [int(found.bps * LATER_FACTOR)]
        elif found.is_bound:
            self._wanted.clear()


def _measure(train: _Train) -> Found | None:
    send_ns = train.last_sent_ns - train.first_sent_ns
    receive_ns = train.last_arrived_ns - train.first_arrived_ns
    if receive_ns <= 0 or send_ns > NS_PER_S or receive_ns > NS_PER_S:
        return None
    # The last packet left when the time ends that is measured at the sender, the first had come before it begins at
    # the receiver. Bursts make the ends uncertain, but never is a path proved to carry more than was tried.
    tried_bps = train.probe.bps
    if send_ns > 0:
        tried_bps = min(tried_bps, (train.size - train.last_sent_size) * 8 * NS_PER_S // send_ns)
    received_bps = (train.size - train.first_arrived_size) * 8 * NS_PER_S // receive_ns
    if received_bps < _CAME_THROUGH * tried_bps:
        return Found(int(_OF_MEASURED * received_bps), True)
    return Found(min(tried_bps, received_bps), False)
