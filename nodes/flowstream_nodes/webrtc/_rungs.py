"""The renditions of the picture that come in, and which viewer gets which of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from flowstream import EncodedPacket, Limit, Size, ticks_of
from flowstream.proto.allocator import RISE, SLACK, Allocator, Choice
from flowstream.proto.allocator import Rung as Rate
from flowstream.proto.congestion.shared import Bound, Flow, SharedUplink
from flowstream.proto.keyframe import SPACING_NS, KeyframeRequests
from flowstream.proto.switching import Picture
from flowstream_nodes.webrtc._codecs import codec_of, profile_of
from flowstream_nodes.webrtc._rate import RateMeter

if TYPE_CHECKING:
    from flowstream_nodes.webrtc._session import ViewerSession

MAX_PAYLOAD: Final = 1160
"""Bytes of media in a packet: with RTP header and extensions, RTX, SRTP, UDP and IPv6 below the 1280 that every path
carries."""

CLOCK_RATE: Final = 90_000

ON_THE_WIRE: Final = 1.06
"""Times what the encoder makes: with headers, protection, UDP and IP."""


OF_SHARE: Final = 1.25
"""Times what a viewer could get of a bounded uplink, or its next rung: what its link must be seen to carry for that.

More than is needed to rise (`RISE`), by more than what no train is sent for (`WORTH`)."""

RECENT_NS: Final = SPACING_NS
"""So long a keyframe, and what has come since, is good for a viewer who comes: then another one may be asked for."""

MOST_RECENT_BYTES: Final = 400_000


class Timeline:
    """RTP time of one stream, from media time: never back and never twice the same, whatever feeds it."""

    def __init__(self, clock_rate: int) -> None:
        self.clock_rate = clock_rate
        self._last: int | None = None

    @property
    def last(self) -> int | None:
        """The position that was given out last."""
        return self._last

    def advance(self, time_ns: int) -> int:
        """The position of a media time."""
        ticks = ticks_of(time_ns, self.clock_rate)
        if self._last is not None and ticks <= self._last:
            ticks = self._last + 1
        self._last = ticks
        return ticks


@dataclass(eq=False, slots=True)
class Rung:
    """One rendition. ``index`` is that of the edge by which it comes, ``name`` the id of the node that makes it."""

    index: int
    name: str
    meter: RateMeter = field(default_factory=RateMeter)
    requests: KeyframeRequests = field(default_factory=KeyframeRequests)
    timeline: Timeline = field(default_factory=lambda: Timeline(CLOCK_RATE))
    codec: str | None = None
    profile: str | None = None
    size: Size | None = None
    recent: list[tuple[EncodedPacket, Picture]] = field(default_factory=list)
    """The last keyframe and what has come since, while that is little: a viewer who comes is begun with it."""
    number: int = 0
    """That of the last picture."""
    _picture_bytes: int = 0
    _recent_ns: int = 0
    _recent_bytes: int = 0

    @property
    def key(self) -> str:
        """What it is called among rungs: its edge, which stays when another node feeds it."""
        return str(self.index)

    def take(self, packet: EncodedPacket, *, now_ns: int) -> Picture:
        """The next picture of it."""
        self.number += 1
        self.meter.add(len(packet.data), now_ns=now_ns)
        if not packet.keyframe:
            self._picture_bytes = len(packet.data)
        else:
            self.requests.arrived()
            self.codec = codec_of(packet)
            self.profile = (profile_of(packet) or self.profile) if self.codec == "h264" else None
        width, height = packet.caps.width, packet.caps.height
        if isinstance(width, int) and isinstance(height, int):
            self.size = Size(width, height)
        picture = Picture(
            rung=self.key,
            number=self.number,
            ticks=self.timeline.advance(packet.time_ns),
            is_keyframe=packet.keyframe,
        )
        self._keep(packet, picture, now_ns)
        return picture

    @property
    def picture_bytes(self) -> int:
        """How large the last picture was on the wire, but for keyframes."""
        return int(self._picture_bytes * ON_THE_WIRE)

    def is_fresh(self, *, now_ns: int) -> bool:
        """Whether a viewer can be begun with what was kept."""
        return bool(self.recent) and now_ns - self._recent_ns <= RECENT_NS

    def _keep(self, packet: EncodedPacket, picture: Picture, now_ns: int) -> None:
        if packet.keyframe:
            self.recent, self._recent_ns, self._recent_bytes = [], now_ns, 0
        elif not self.recent:
            return
        self._recent_bytes += len(packet.data)
        if now_ns - self._recent_ns > RECENT_NS or self._recent_bytes > MOST_RECENT_BYTES:
            self.recent = []
        else:
            self.recent.append((packet, picture))


def _chosen(session: ViewerSession) -> str:
    """The rung that was decided on last, which may still wait for its keyframe; empty for none."""
    return "" if session.choice is None or session.choice.rung is None else session.choice.rung


class Rungs:
    """All renditions there are, and the choice for each viewer."""

    def __init__(self) -> None:
        self.found_bps: int | None = None
        """What the uplink was found to carry for all, where that is less than was said of it."""
        self._rungs: dict[int, Rung] = {}
        self._allocator = Allocator()
        self._uplink = SharedUplink()
        self._shares_bps: dict[str, int] = {}
        self.sharing: int = 0
        """How many viewers there are to share the uplink."""

    def __iter__(self) -> Iterator[Rung]:
        return iter(self._rungs.values())

    @property
    def profile(self) -> str | None:
        """The profile of the first rung that has shown one."""
        return next((rung.profile for rung in self if rung.profile is not None), None)

    @property
    def codecs(self) -> tuple[str, ...]:
        """The codecs that rungs have, as far as they have shown it; none while one of them has shown nothing."""
        codecs = [rung.codec for rung in self]
        return () if None in codecs else tuple(dict.fromkeys(codec for codec in codecs if codec is not None))

    @property
    def newest_ticks(self) -> int | None:
        """How far the furthest has come on the timeline."""
        known = [rung.timeline.last for rung in self if rung.timeline.last is not None]
        return max(known, default=None)

    def follow(self, names: Mapping[int, str]) -> None:
        """These come in now, by the index of their edge."""
        if {index: rung.name for index, rung in self._rungs.items()} == names:
            return
        for index in self._rungs.keys() - names.keys():
            del self._rungs[index]
        for index in sorted(names):
            self.at(index).name = names[index]

    def at(self, index: int) -> Rung:
        """The rung of an edge."""
        rung = self._rungs.get(index)
        if rung is None:
            rung = Rung(index, str(index))
            # In the order in which they are named, whichever gives its first picture first.
            self._rungs = dict(sorted([*self._rungs.items(), (index, rung)]))
        return rung

    def find(self, key: str | None) -> Rung | None:
        """The rung that is called so."""
        return next((rung for rung in self if rung.key == key), None)

    def rates(self, *, now_ns: int) -> list[Rate]:
        """What each takes on the wire; without those that nothing comes of now.

        While nothing has come of any, the first one named is taken to be the largest.
        """
        measured = [(rung, rung.meter.bps_at(now_ns)) for rung in self]
        coming = [Rate(rung.key, int(bps * ON_THE_WIRE)) for rung, bps in measured if bps]
        return coming or [Rate(rung.key, len(measured) - place) for place, (rung, _) in enumerate(measured)]

    def decide(
        self, sessions: Sequence[ViewerSession], *, uplink_bps: int | None, sound_bps: int, now_ns: int
    ) -> Mapping[str, Choice]:
        """Tells each viewer's session which rung it gets; gives all choices."""
        rates = self.rates(now_ns=now_ns)
        bound = self._follow_uplink(sessions, rates, sound_bps, now_ns)
        if bound is not None and (uplink_bps is None or bound.bps < uplink_bps):
            uplink_bps = bound.bps
        else:
            bound = None
        self._allocator.uplink_bps = uplink_bps
        demands = [each.demand(sound_bps=sound_bps, playable=self._playable(each)) for each in sessions]
        self.sharing = sum(not demand.is_paused for demand in demands)
        choices = self._allocator.decide(rates, demands, now_ns=now_ns, is_tight=self._uplink.is_tight)
        if bound is not None and not bound.is_found:
            choices = {
                name: replace(choice, reason="settling") if choice.reason == "uplink" else choice
                for name, choice in choices.items()
            }
        self.found_bps = bound.bps if bound is not None and bound.is_found else None
        for session in sessions:
            session.aim(choices[session.id])
        self._shares_bps = {} if uplink_bps is None else self._share(choices, uplink_bps, sound_bps, now_ns)
        return choices

    def _follow_uplink(
        self, sessions: Sequence[ViewerSession], rates: Sequence[Rate], sound_bps: int, now_ns: int
    ) -> Bound | None:
        """What all viewers may get together, by what is seen of their links; None while there is nothing to send."""
        if not any(rung.meter.bps for rung in self):
            return None
        takes = {rate.name: rate.bitrate_bps for rate in rates}
        ladder = sorted(takes.values())
        flows = [
            Flow(
                sound_bps + max(takes.get(session.switch.current or "", 0), takes.get(_chosen(session), 0), ladder[0]),
                session.sender.estimator.received_bps,
                session.sender.estimator.is_held_up,
            )
            for session in sessions
        ]
        # The allocator leaves some of every bound: what grows must do so by more than that.
        step_bps = max((above - below for below, above in pairwise(ladder)), default=0)
        step_bps = int((step_bps + SLACK * sum(flow.bitrate_bps for flow in flows)) / (1 - SLACK)) + 1
        return self._uplink.follow(flows, step_bps=step_bps, now_ns=now_ns)

    def share_bps(self, session: ViewerSession) -> int | None:
        """The most that a viewer could have of the uplink, others being there; None where that has no bound."""
        return self._shares_bps.get(session.id)

    def _share(self, choices: Mapping[str, Choice], uplink_bps: int, sound_bps: int, now_ns: int) -> dict[str, int]:
        rates = {rate.name: rate.bitrate_bps for rate in self.rates(now_ns=now_ns)}
        spent = {name: rates.get(choice.rung or "", 0) for name, choice in choices.items()}
        spare_bps = max(0, uplink_bps - sum(spent.values()) - sound_bps * len(spent))
        shares = {}
        for name, bps in spent.items():
            next_bps = min((rate for rate in rates.values() if rate > bps), default=bps)
            shares[name] = int(OF_SHARE * (sound_bps + max(bps + spare_bps, next_bps)))
        return shares

    def limit(self, session: ViewerSession, *, uplink_bps: int | None, sound_bps: int, now_ns: int) -> Limit | None:
        """What keeps a viewer from a better picture, since the last decision."""
        choice = session.choice
        if choice is None or choice.reason == "best":
            return None
        above = self.find(choice.above)
        above_bps = next((rate.bitrate_bps for rate in self.rates(now_ns=now_ns) if rate.name == choice.above), None)
        rate_bps: int | None = None
        if choice.reason == "uplink":
            rate_bps = self.found_bps or uplink_bps
        elif choice.reason == "cap":
            rate_bps = session.cap_bps
        elif choice.reason == "link":
            rate_bps = session.picture_bps(sound_bps=sound_bps)
            above_bps = None if above_bps is None else int(above_bps * RISE)
        return Limit(
            by=choice.reason,
            rate_bps=rate_bps,
            sharing=self.sharing,
            above=None if above is None else above.name,
            above_bps=above_bps,
        )

    def first_for(self, session: ViewerSession, *, now_ns: int) -> Rung | None:
        """The rung that a viewer is begun with of whose link nothing is known: the lowest that it can play."""
        playable = self._playable(session)
        rates = [rate for rate in self.rates(now_ns=now_ns) if rate.name in playable]
        return self.find(min(rates, key=lambda rate: rate.bitrate_bps).name) if rates else None

    def _playable(self, session: ViewerSession) -> frozenset[str]:
        """The rungs that a viewer can play; those that have shown nothing yet may be."""
        return frozenset(rung.key for rung in self if rung.codec is None or session.can_play(rung.codec))
