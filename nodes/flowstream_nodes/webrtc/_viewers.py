"""Everybody who watches one output: admits them, feeds them, and asks for keyframes on behalf of all."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio

from flowstream import EncodedPacket, Holding, ResourceBusy, ViewerReport, ticks_of
from flowstream.proto.keyframe import KeyframeRequests
from flowstream.proto.sdp import Kind, Stream, Transport, agree, parse_offer, write_answer
from flowstream.proto.sdpfrag import Fragment, write_fragment
from flowstream_nodes.webrtc._codecs import payloads_of, profile_of
from flowstream_nodes.webrtc._mux import UdpMux
from flowstream_nodes.webrtc._session import ViewerSession

MAX_PAYLOAD: Final = 1160
"""Bytes of media in a packet: with RTP header and extensions, RTX, SRTP, UDP and IPv6 below the 1280 that every path
carries."""

CLOCK_RATES: Final[dict[Kind, int]] = {"video": 90_000, "audio": 48_000}

TICK_S: Final = 0.1
"""How often the sessions' clocks are looked at."""

CLOSE_S: Final = 2.0
"""How long the end of all sessions may take."""


class NothingShownError(Exception):
    """There is nothing to watch right now: no node feeds the viewers, or they are being sent away."""


class FullError(Exception):
    """There are as many viewers as may be."""

    def __init__(self, most: int) -> None:
        super().__init__("the only place is taken" if most == 1 else f"all {most} places are taken")


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a new viewer is told."""

    session_id: str
    etag: str
    answer: str


@dataclass(eq=False, slots=True)
class Feeder:
    """A node that feeds the viewers, and how it is reached.

    ``kinds`` says what it has inputs for, ``most`` how many viewers may be there; ``ask_keyframe`` sends a request
    upstream, ``on_change`` is called when a count has changed.
    """

    kinds: Callable[[], frozenset[Kind]]
    most: Callable[[], int]
    ask_keyframe: Callable[[], None]
    on_change: Callable[[], None]


class _Timeline:
    """RTP time of one kind, from media time: never back and never twice the same, whatever feeds it."""

    def __init__(self, clock_rate: int) -> None:
        self.clock_rate = clock_rate
        self._last: int | None = None

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

    def __init__(self, holding: Holding, mux: UdpMux, certificate: Any) -> None:
        self.sessions: dict[str, ViewerSession] = {}
        self._holding = holding
        self._mux = mux
        self._certificate = certificate
        self._cname = secrets.token_hex(6)
        self._timelines: dict[Kind, _Timeline] = {kind: _Timeline(rate) for kind, rate in CLOCK_RATES.items()}
        self._requests = KeyframeRequests()
        self._codec: str | None = None
        self._profile: str | None = None
        self._feeders: list[Feeder] = []
        self._current: dict[Kind, Feeder] = {}
        self._epoch_ns: int | None = None
        self._is_closing = False
        self._none_left = anyio.Event()

    @property
    def connected(self) -> int:
        """How many are connected."""
        return sum(session.connected for session in self.sessions.values())

    @property
    def unsent_packets(self) -> int:
        """Packets that the kernel had no room for."""
        return self._mux.unsent_packets

    def reports(self) -> tuple[ViewerReport, ...]:
        """What is known of the links of those who are connected."""
        return tuple(session.report() for session in self.sessions.values() if session.connected)

    @property
    def wallclock_ms(self) -> int:
        """UTC by the clock that the sender reports tell, in ms."""
        return self._holding.wallclock_ns() // 1_000_000

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
        try:
            yield
        finally:
            self._feeders.remove(feeder)

    def admit(self, offer_text: str) -> Admitted:
        """Answers an offer and waits for the viewer to connect.

        Raises:
            NothingShownError: nobody feeds the viewers now.
            FullError: there are as many as may be.
            SdpError: the offer cannot be answered; NothingInCommonError if for want of a format.
        """
        if self._is_closing or not self._feeders:
            raise NothingShownError("there is nothing to watch right now")
        kinds = frozenset[Kind]().union(*(feeder.kinds() for feeder in self._feeders))
        agreement = agree(
            parse_offer(offer_text), needed=kinds, video_codec=self._codec, profile_level_id=self._profile
        )
        most = self._feeders[-1].most()
        if len(self.sessions) >= most:
            raise FullError(most)
        streams = _draw_ssrcs({track.kind: track.has_rtx for track in agreement.tracks.values()})
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
            on_change=self._changed,
        )
        transport = self._transport(session)
        answer = write_answer(agreement, transport, streams, session_id=secrets.randbits(62), cname=self._cname)
        self.sessions[session.id] = session
        self._holding.start_soon(self._live, session)
        return Admitted(session.id, session.etag, answer)

    def restart(self, session: ViewerSession, fragment: Fragment) -> str:
        """New ICE credentials for a session whose peer has new ones; gives the fragment that tells them."""
        session.restart_ice(fragment.ufrag)
        return write_fragment(session.agreement, self._transport(session))

    def dismiss(self, session_id: str, reason: str = "it said goodbye") -> bool:
        """Ends one session; whether there was one."""
        session = self.sessions.get(session_id)
        if session is None:
            return False
        session.close(reason)
        return True

    def send_video(self, packet: EncodedPacket, feeder: Feeder) -> None:
        """One access unit to everybody who has had a keyframe, or is getting one; what cannot be sent is left out."""
        if self._is_superseded(feeder, "video"):
            return
        ticks = self._timelines["video"].advance(packet.time_ns)
        codec = packet.caps.codec
        assert isinstance(codec, str), "packets have one codec"
        if packet.keyframe:
            self._requests.arrived()
            self._codec = codec
            self._profile = (profile_of(packet) or self._profile) if codec == "h264" else None
        receivers = [
            each for each in list(self.sessions.values()) if each.takes_video(codec, is_keyframe=packet.keyframe)
        ]
        if receivers:
            payloads = payloads_of(packet, max_size=MAX_PAYLOAD)
            now_ns = self._holding.now_ns()
            for session in receivers:
                session.send("video", payloads, codec=codec, ticks=ticks, now_ns=now_ns)

    def send_audio(self, packet: EncodedPacket, feeder: Feeder) -> None:
        """One Opus packet to everybody; it is one RTP payload (RFC 7587)."""
        if self._is_superseded(feeder, "audio"):
            return
        ticks = self._timelines["audio"].advance(packet.time_ns)
        now_ns = self._holding.now_ns()
        for session in self.sessions.values():
            session.send("audio", (packet.data,), codec="opus", ticks=ticks, now_ns=now_ns)

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

    def _tick(self) -> None:  # by itself: what the loop has looked at last is not kept until the next time
        now_ns = self._holding.now_ns()
        for session in list(self.sessions.values()):
            session.tick(now_ns=now_ns, ticks_at=self._ticks_at)

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
            self.log.info("viewer left (%s), %s now", session.closed_because, _count(self.connected))
            if self._is_closing and not self.sessions:
                self._none_left.set()
            self._tell_change()

    def _transport(self, session: ViewerSession) -> Transport:
        fingerprint = next(f for f in self._certificate.getFingerprints() if f.algorithm == "sha-256")
        return Transport(
            ufrag=session.ice.ufrag,
            password=session.password,
            fingerprint=(fingerprint.algorithm, fingerprint.value),
            candidates=self._mux.candidates(),
        )

    def _is_superseded(self, feeder: Feeder, kind: Kind) -> bool:
        """Whether a newer node has begun to send: the tail of the old one would only spoil its keyframe."""
        current = self._current.get(kind)
        if current in self._feeders and self._feeders.index(current) > self._feeders.index(feeder):
            return True
        self._current[kind] = feeder
        return False

    def _changed(self) -> None:
        self.log.info("viewer joined, %s now", _count(self.connected))
        self._tell_change()

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
async def open_viewers(holding: Holding, *, host: str, port: int) -> AsyncIterator[Viewers]:
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
    viewers = Viewers(holding, mux, RTCCertificate.generateCertificate())
    try:
        holding.start_soon(viewers.tick_forever)
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


def _count(viewers: int) -> str:
    return "1 viewer" if viewers == 1 else f"{viewers} viewers"
