"""Everybody who watches one output: admits them, feeds them, and asks for keyframes on behalf of all."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio

from flowstream import Caller, EncodedPacket, Holding, ResourceBusy, Seat, ViewerRegistry, ViewerReport, ticks_of
from flowstream.proto.admission import Approval
from flowstream.proto.h264 import packetize, profile_level_id, split_annex_b
from flowstream.proto.keyframe import KeyframeRequests
from flowstream.proto.sdp import Kind, Stream, Transport, agree, parse_offer, write_answer
from flowstream_nodes.webrtc._mux import UdpMux
from flowstream_nodes.webrtc._seats import Covers, Seated
from flowstream_nodes.webrtc._session import ViewerSession

MAX_PAYLOAD: Final = 1160
"""Bytes of media in a packet: with RTP header and extensions, RTX, SRTP, UDP and IPv6 below the 1280 that every path
carries."""

CLOCK_RATES: Final[dict[Kind, int]] = {"video": 90_000, "audio": 48_000}

TICK_S: Final = 0.1
"""How often the sessions' clocks are looked at."""

CLOSE_S: Final = 2.0
"""How long the end of all sessions may take."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a new viewer is told."""

    session_id: str
    etag: str
    answer: str


@dataclass(eq=False, slots=True)
class Feeder:
    """A node that feeds the viewers, and how it is reached.

    ``kinds`` says what it has inputs for, ``most`` how many viewers may be there, ``approval`` who may come in;
    ``ask_keyframe`` sends a request upstream, ``on_change`` is called when a count has changed.
    """

    kinds: Callable[[], frozenset[Kind]]
    most: Callable[[], int]
    ask_keyframe: Callable[[], None]
    on_change: Callable[[], None]
    approval: Callable[[], Approval] = lambda: "none"


class _Timeline:
    """RTP time of one kind, from media time: never back and never twice the same, whatever feeds it."""

    def __init__(self, clock_rate: int) -> None:
        self.clock_rate = clock_rate
        self._last: int | None = None

    @property
    def last(self) -> int | None:
        """The position that was given out last."""
        return self._last

    def advance(self, time_ns: int) -> int:
        ticks = ticks_of(time_ns, self.clock_rate)
        if self._last is not None and ticks <= self._last:
            ticks = self._last + 1
        self._last = ticks
        return ticks


class Viewers:
    """The viewers of one output, their sockets and their certificate: what outlives the node that feeds them.

    A node feeds them inside `feeding`. At a reload there are two for a moment, the old and the new.
    """

    def __init__(self, holding: Holding, registry: ViewerRegistry, mux: UdpMux, certificate: Any) -> None:
        self.registry = registry
        self.sessions: dict[str, ViewerSession] = {}
        self._seated: dict[str, Seated] = {}
        self._covers = Covers(max_size=MAX_PAYLOAD, log=holding.log)
        self._uncovered = anyio.Event()
        self._holding = holding
        self._mux = mux
        self._certificate = certificate
        self._cname = secrets.token_hex(6)
        self._timelines: dict[Kind, _Timeline] = {kind: _Timeline(rate) for kind, rate in CLOCK_RATES.items()}
        self._requests = KeyframeRequests()
        self._profile: str | None = None
        self._feeders: list[Feeder] = []
        self._current: dict[Kind, Feeder] = {}
        self._epoch_ns: int | None = None
        self._is_closing = False
        self._none_left = anyio.Event()
        registry.follow(approval=self._approval, most=self._most, on_change=self._tell_change)

    @property
    def connected(self) -> int:
        """How many are connected and may watch."""
        return self.registry.watching

    def seat(self, session_id: str) -> Seat | None:
        """The place of a session, while there is one."""
        seated = self._seated.get(session_id)
        return None if seated is None else seated.seat

    @property
    def unsent_packets(self) -> int:
        """Packets that the kernel had no room for."""
        return self._mux.unsent_packets

    def reports(self) -> tuple[ViewerReport, ...]:
        """What is known of the links of those who are connected and may watch."""
        there = [seated for seated in self._seated.values() if seated.session.connected and seated.seat.is_admitted]
        return tuple(
            replace(seated.session.report(), viewer=seated.seat.viewer, cap_bps=seated.seat.shown.cap_bps)
            for seated in there
        )

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """Where joins and leaves are written."""
        return self._holding.log

    @contextmanager
    def feeding(self, feeder: Feeder, *, media_ns: int) -> Iterator[None]:
        """``feeder`` may send while the block lasts; ``media_ns`` is the timeline's position right now."""
        if self._epoch_ns is None:
            # One epoch for both streams and for good: what ties them together in the viewers' sender reports.
            self._epoch_ns = self._holding.wallclock_ns() - media_ns
        self._feeders.append(feeder)
        self.registry.settings_changed()
        try:
            yield
        finally:
            self._feeders.remove(feeder)

    def admit(self, offer_text: str, caller: Caller) -> Admitted:
        """Answers an offer and waits for the viewer to connect, to watch or to be let in.

        Raises:
            DoorClosed: it may not come in, or there is no place.
            SdpError: the offer cannot be answered; NothingInCommonError if for want of a format.
        """
        ticket = self.registry.knock(caller)
        kinds = frozenset[Kind]().union(*(feeder.kinds() for feeder in self._feeders))
        agreement = agree(parse_offer(offer_text), needed=kinds, profile_level_id=self._profile)
        seat = self.registry.seat(ticket)
        streams = _draw_ssrcs({track.kind: track.rtx_payload_type is not None for track in agreement.tracks.values()})
        session = ViewerSession(
            session_id=secrets.token_urlsafe(16),
            agreement=agreement,
            streams=streams,
            certificate=self._certificate,
            cname=self._cname,
            mux=self._mux,
            clock=self._holding,
            log=self.log,
            want_keyframe=self._want_keyframe,
            on_change=seat.connected,
        )
        seated = Seated(
            session,
            seat,
            self._covers,
            self._holding,
            newest=lambda: self._timelines["video"].last,
            on_uncovered=self._uncovered.set,
        )
        seat.sit(seated)
        fingerprint = next(f for f in self._certificate.getFingerprints() if f.algorithm == "sha-256")
        transport = Transport(
            ufrag=session.ice.ufrag,
            password=session.password,
            fingerprint=(fingerprint.algorithm, fingerprint.value),
            candidates=self._mux.candidates(),
        )
        answer = write_answer(agreement, transport, streams, session_id=secrets.randbits(62), cname=self._cname)
        self.sessions[session.id] = session
        self._seated[session.id] = seated
        self._holding.start_soon(self._live, session)
        return Admitted(session.id, session.etag, answer)

    def dismiss(self, session_id: str, reason: str = "it said goodbye") -> bool:
        """Ends one session; whether there was one."""
        session = self.sessions.get(session_id)
        if session is None:
            return False
        session.close(reason)
        return True

    def send_video(self, packet: EncodedPacket, feeder: Feeder) -> None:
        """One access unit of H.264 (Annex B) to everybody who has had a keyframe, or is getting one."""
        if self._is_superseded(feeder, "video"):
            return
        ticks = self._timelines["video"].advance(packet.time_ns)
        units: list[bytes] | None = None
        now_ns = self._holding.now_ns()
        if packet.keyframe:
            self._requests.arrived()
            self._covers.fit(packet.caps)
            units = split_annex_b(packet.data)
            self._profile = profile_level_id(units) or self._profile
        size, is_keyframe = len(packet.data), packet.keyframe
        receivers = [
            each.session
            for each in self._seated.values()
            if each.takes_video(size, is_keyframe=is_keyframe, now_ns=now_ns)
        ]
        if receivers:
            payloads = packetize(units or split_annex_b(packet.data), max_size=MAX_PAYLOAD)
            for session in receivers:
                session.send("video", payloads, ticks=ticks, now_ns=now_ns)

    def send_audio(self, packet: EncodedPacket, feeder: Feeder) -> None:
        """One Opus packet to everybody; it is one RTP payload (RFC 7587)."""
        if self._is_superseded(feeder, "audio"):
            return
        ticks = self._timelines["audio"].advance(packet.time_ns)
        now_ns = self._holding.now_ns()
        for session in self.sessions.values():
            session.send("audio", (packet.data,), ticks=ticks, now_ns=now_ns)

    async def tick_forever(self) -> None:
        """Looks at every clock from time to time; runs as long as the viewers are held."""
        unsent_packets = 0
        while True:
            await anyio.sleep(TICK_S)
            self._tick()
            self._poll_requests()
            if self.unsent_packets != unsent_packets:
                unsent_packets = self.unsent_packets
                self._tell_change()

    async def cover_forever(self) -> None:
        """Makes black pictures when they are wanted; runs as long as the viewers are held."""
        while True:
            await self._uncovered.wait()
            self._uncovered = anyio.Event()
            if await self._covers.make():
                for seated in list(self._seated.values()):
                    seated.cover()

    def _tick(self) -> None:  # by itself: what the loop has looked at last is not kept until the next time
        now_ns = self._holding.now_ns()
        for session in list(self.sessions.values()):
            session.tick(now_ns=now_ns, ticks_at=self._ticks_at)
            self._seated[session.id].cover()
        self.registry.tick()

    async def close(self) -> None:
        """Says goodbye to everybody and closes the sockets."""
        self._is_closing = True
        for session in self.sessions.values():
            session.close("the stream's server stopped")
        if self.sessions:
            with anyio.move_on_after(CLOSE_S, shield=True):
                await self._none_left.wait()
        self._mux.close()

    async def _live(self, session: ViewerSession) -> None:
        try:
            await session.run()
        finally:
            del self.sessions[session.id]
            self._seated.pop(session.id).seat.leave(session.closed_because or "it ended")
            if self._is_closing and not self.sessions:
                self._none_left.set()

    def _is_superseded(self, feeder: Feeder, kind: Kind) -> bool:
        """Whether a newer node has begun to send: the tail of the old one would only spoil its keyframe."""
        current = self._current.get(kind)
        if current in self._feeders and self._feeders.index(current) > self._feeders.index(feeder):
            return True
        self._current[kind] = feeder
        return False

    def _approval(self) -> Approval:
        return self._feeders[-1].approval() if self._feeders else "manual"

    def _most(self) -> int:
        return self._feeders[-1].most() if self._feeders and not self._is_closing else 0

    def _tell_change(self) -> None:
        for feeder in self._feeders:
            feeder.on_change()

    def _want_keyframe(self) -> None:
        self._requests.want()
        self._poll_requests()

    def _poll_requests(self) -> None:
        feeders = [feeder for feeder in self._feeders if "video" in feeder.kinds()]
        if feeders and self._requests.poll(now_ns=self._holding.now_ns()):
            for feeder in feeders:
                feeder.ask_keyframe()

    def _ticks_at(self, kind: Kind, wallclock_ns: int) -> int:
        assert self._epoch_ns is not None, "nothing is sent before somebody feeds"
        return ticks_of(wallclock_ns - self._epoch_ns, CLOCK_RATES[kind])


@asynccontextmanager
async def open_viewers(holding: Holding, registry: ViewerRegistry, *, host: str, port: int) -> AsyncIterator[Viewers]:
    """Binds the sockets and makes the certificate; ends every session on the way out.

    Raises:
        ResourceBusy: no address can be bound.
    """
    from aiortc.rtcdtlstransport import RTCCertificate

    mux = UdpMux(host, port, log=holding.log)
    try:
        await mux.open()
    except OSError as error:
        raise ResourceBusy(f"viewers cannot be served on UDP at {host}: {error}") from error
    viewers = Viewers(holding, registry, mux, RTCCertificate.generateCertificate())
    try:
        holding.start_soon(viewers.tick_forever)
        holding.start_soon(viewers.cover_forever)
        yield viewers
    finally:
        await viewers.close()


def _draw_ssrcs(kinds: dict[Kind, bool]) -> dict[Kind, Stream]:
    """Distinct synchronization sources for each kind, a second one where its packets can be sent again."""
    drawn: set[int] = set()

    def draw() -> int:
        while (ssrc := secrets.randbits(32)) in drawn or ssrc == 0:
            pass
        drawn.add(ssrc)
        return ssrc

    return {kind: Stream(draw(), draw() if has_rtx else None) for kind, has_rtx in kinds.items()}
