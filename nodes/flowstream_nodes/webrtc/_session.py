"""One viewer: its ICE and DTLS, its RTP streams, and the feedback that it sends."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from flowstream import ViewerReport
from flowstream.proto import stun
from flowstream.proto.allocator import Choice, Demand
from flowstream.proto.candidates import read_candidates
from flowstream.proto.ice import (
    Check,
    Credentials,
    Expired,
    Forgotten,
    IceLite,
    Outcome,
    Pair,
    Reply,
    Retired,
    Selected,
    Verified,
)
from flowstream.proto.ice_agent import MAX_REMOTES, IceAgent
from flowstream.proto.rtcp import (
    Bye,
    FullIntraRequest,
    Nack,
    PictureLossIndication,
    ReceiverEstimate,
    ReceiverReport,
    ReportBlock,
    RtcpError,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    TransportFeedback,
    is_report_alone,
    looks_like_rtcp,
    pack_compound,
    parse_compound,
    read_whole_feedback,
)
from flowstream.proto.sdp import Agreement, Kind, Stream
from flowstream.proto.sdpfrag import Fragment
from flowstream.proto.switching import Picture, RungSwitch
from flowstream_nodes.webrtc._layout import AccessUnit
from flowstream_nodes.webrtc._protection import Protection, ProtectionError, Unprotection
from flowstream_nodes.webrtc._sender import Sender
from flowstream_nodes.webrtc._stream import RtpStream
from flowstream_nodes.webrtc._wakeups import Wakeups

if TYPE_CHECKING:
    from flowstream_nodes.webrtc._mux import UdpMux
    from flowstream_nodes.webrtc._outbox import Outbox
    from flowstream_nodes.webrtc._unison import Owed, Voice

SETUP_S: Final = 15.0
"""A viewer that is not connected this long after its offer is given up."""

SETTLES_S: Final = 0.01
"""Our end of the handshake has its keys before the viewer's has: what is sent at once, some players cannot read yet.
So long it takes at most, less where a viewer says something under its keys before."""

SELDOM_NS: Final = 90_000_000
"""A link that carries more than enough is looked at so seldom, not at every tick."""

REPORT_INTERVAL_NS: Final = 1_000_000_000
"""Between sender reports (RFC 3550 allows less than its 5 s for video of some rate)."""

MAX_PENDING_DTLS: Final = 64
"""Datagrams that wait for the handshake; more are dropped and repeated by the peer."""

MOST_CHECKS: Final = 512
"""Connectivity checks that are remembered, so that they count only where they first came in: twenty minutes of them."""

APPLICATION_DATA: Final = 23
"""First byte of a DTLS record that is no part of a handshake (RFC 6347 section 4.1)."""

MOST_PUT_OFF: Final = 4
"""Reports that wait for the next `ViewerSession.tick` where nothing depends on them. More are taken at once."""

MAX_SRTCP: Final = 1400
"""Longest protected RTCP packet that is looked at, in bytes."""


class Clock(Protocol):
    """Monotonic and wall time."""

    def now_ns(self) -> int:
        """Monotonic, in ns."""

    def wallclock_ns(self) -> int:
        """UTC, in ns."""


class _DtlsPath:
    """What aiortc's DTLS sees of our transport: it takes the place of an RTCIceTransport."""

    role = "controlled"
    state = "completed"

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send_now = send
        self._pending: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_PENDING_DTLS)
        self._is_closed = False

    def put(self, data: bytes) -> None:
        if not self._is_closed and not self._pending.full():
            self._pending.put_nowait(data)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._pending.full():
            self._pending.get_nowait()
        self._pending.put_nowait(None)

    async def _recv(self) -> bytes:
        data = await self._pending.get()
        if data is None:
            self._pending.put_nowait(None)
            raise ConnectionError("closed")
        return data

    async def _send(self, data: bytes) -> None:
        self._send_now(data)


class ViewerSession:
    """A viewer from its offer to its end.

    `run` is its life; it ends, and `closed_because` says why, when the viewer leaves, is silent for 30 s, does not
    connect in time, or `close` is called. No failure of one viewer gets out of here.
    """

    def __init__(
        self,
        *,
        session_id: str,
        agreement: Agreement,
        streams: dict[Kind, Stream],
        certificate: Any,
        cname: str,
        mux: UdpMux,
        outbox: Outbox,
        wakeups: Wakeups,
        start_bps: int,
        clock: Clock,
        log: logging.LoggerAdapter[logging.Logger],
        want_keyframe: Callable[[ViewerSession], None],
        on_reached: Callable[[ViewerSession], None],
        on_change: Callable[[], None],
        make_ice: Callable[[Credentials, Agreement], IceLite | IceAgent],
    ) -> None:
        """``certificate`` is an aiortc RTCCertificate, ``start_bps`` the rate of what is sent first.

        ``want_keyframe`` is called whenever this viewer cannot go on without one, ``on_reached`` when it can be reached
        and will be connected soon, ``on_change`` when it has connected.
        """
        from aiortc import rtcdtlstransport as dtls

        from flowstream_nodes.webrtc._association import Association

        self.id = session_id
        self.name = secrets.token_hex(4)  # for those who are told of it: the id lets its owner end the session
        self.etag = secrets.token_urlsafe(9)
        self.connected = False
        self.closed_because: str | None = None
        self.round_trip_ns = 0
        self.damaged_datagrams = 0
        self.agreement = agreement
        self.password = _draw_password()
        self.peer_ufrag = agreement.ufrag
        self.ice = make_ice(
            Credentials(secrets.token_hex(8), self.password.encode(), agreement.ufrag, agreement.password.encode()),
            agreement,
        )
        self.streams = {track.kind: RtpStream(track, streams[track.kind]) for track in agreement.tracks.values()}
        self.sender = Sender(
            self.streams,
            mux=mux,
            outbox=outbox,
            wakeups=wakeups,
            start_bps=start_bps,
            now_ns=clock.now_ns(),
            on_break=self._start_anew,
            on_failure=self._fail,
        )
        video = self.streams.get("video")
        self._plays = frozenset[str]() if video is None else video.codecs
        self._checks: dict[bytes, Pair] = {}  # by transaction: where each check came in
        self._tells_of_packets = any(
            track.transport_number_extension is not None for track in agreement.tracks.values()
        )
        self._by_ssrc = {stream.ssrc: stream for stream in self.streams.values()}
        self.awaits_keyframe = True
        self.choice: Choice | None = None
        self.chosen: str | None = None
        """The rung that the viewer asked for; None for the best."""
        self.switch = RungSwitch()
        self.cap_bps: int | None = None
        self.priority = 0
        self._withheld: frozenset[Kind] = frozenset()
        self._shows_pictures = video is not None
        self._cname = cname
        self._mux = mux
        self._clock = clock
        self._log = log
        self._want_keyframe = want_keyframe
        self._on_change = on_change
        self._on_reached = on_reached
        self._reached = asyncio.Event()
        self._has_keys = asyncio.Event()
        self._closed = asyncio.Event()
        self._next_report_ns = 0
        self._next_look_ns = 0
        self._path = _DtlsPath(self._send_plain)
        self._dtls = dtls.RTCDtlsTransport(self._path, [certificate])  # type: ignore[arg-type]
        # As server the handshake is one flight shorter, and ours is the choice of cipher.
        self._dtls._set_role("server")
        self.association: Association | None = None
        if agreement.data is not None:
            self.association = Association(self._dtls, agreement.data, now_ns=clock.now_ns, log=log, viewer=session_id)
        self._shown: tuple[int, int] | None = None  # the position of a picture, and when it was captured
        self._dtls_parameters = dtls.RTCDtlsParameters(
            fingerprints=[dtls.RTCDtlsFingerprint(algorithm, value) for algorithm, value in agreement.fingerprints]
        )
        self._protection: Protection | None = None
        self._unprotect_rtcp: Callable[[bytes], bytes] | None = None
        self._put_off: list[tuple[bytes, int]] = []  # with when it came
        self._looked_ns = 0  # at what time the sender was told something last: for it, time does not go back
        mux.register(self.ice.ufrag, self)
        if self.ice.tag is not None:
            mux.expect(self.ice.tag, self)

    async def run(self) -> None:
        """The viewer's life; returns when it has ended."""
        try:
            self._follow(self.ice.handle_deadline(now_ns=self._clock.now_ns()))
            try:
                with anyio.fail_after(SETUP_S):
                    await self._connect()
            except TimeoutError:
                stage = "its DTLS handshake did not end" if self._reached.is_set() else "no ICE check came in"
                if stage.startswith("no") and self.ice.pairs:
                    stage = "no ICE check went through in both directions"
                self.close(f"not connected within {SETUP_S:.0f} s: {stage}")
            await self._closed.wait()
        except Exception as error:  # noqa: BLE001
            # Whatever one peer provokes, the others must not notice.
            self._give_up(error)
        finally:
            self.close("the stream's server stopped")
            with anyio.CancelScope(shield=True):
                await self._shut_down()

    def close(self, reason: str) -> None:
        """Ends the session; the first reason counts."""
        if self.closed_because is None:
            self.sender.go_alone()
            self.closed_because = reason
            self.connected = False
            self._closed.set()
            self._reached.set()
            if self._protection is None:  # else the last words go out before the path closes
                self._path.close()

    def _give_up(self, error: Exception) -> None:
        self._log.error("viewer %s failed", self.id, exc_info=error)
        self.close(f"failed: {error}")

    def handle_datagram(self, data: bytes, pair: Pair) -> None:
        """Takes one datagram of this viewer: STUN, DTLS or RTCP (RFC 7983)."""
        if self.closed_because is not None:
            return
        if stun.looks_like_stun(data):
            self._handle_ice(data, pair)
        elif 20 <= data[0] <= 63:
            self._reach(pair)
            self._path.put(data)
            if data[0] == APPLICATION_DATA and self._protection is not None:
                self._has_keys.set()
        elif looks_like_rtcp(data):
            self._mux.take_reports_before(pair)
            self._handle_rtcp(data, self._clock.now_ns(), is_report=is_report_alone(data))

    def handle_reports(self, data: bytes, pair: Pair, *, waited_ns: int) -> None:
        """Takes RTCP of nothing but feedback or receiver reports that came in a while ago."""
        if self.closed_because is None:
            self._handle_rtcp(data, self._clock.now_ns() - waited_ns, is_report=True)

    @property
    def reports_can_wait(self) -> bool:
        """Whether nothing depends on when is looked at what this viewer reports of its packets."""
        return not self.connected or not self._tells_of_packets or self.sender.is_calm

    @property
    def is_calm(self) -> bool:
        """Whether it watches by a way that has been found, and its link carries more than enough."""
        return self.connected and self.sender.is_calm and self.ice.is_settled

    def restart_ice(self, said: Fragment) -> None:
        """New credentials and a new tag; media goes on where it goes until the peer nominates a pair under them."""
        self.etag = secrets.token_urlsafe(9)
        self.password = _draw_password()
        self.peer_ufrag = said.ufrag
        credentials = Credentials(secrets.token_hex(8), self.password.encode(), said.ufrag, said.password.encode())
        if isinstance(self.ice, IceAgent):
            remotes = read_candidates(said.candidates, most=MAX_REMOTES)
            outcomes = self.ice.restart(credentials, remotes, now_ns=self._clock.now_ns())
        else:
            outcomes = self.ice.restart(credentials)
        self._mux.register(self.ice.ufrag, self)
        self._follow(outcomes)

    def hear_candidates(self, said: Fragment) -> None:
        """Further addresses of the peer; a lite agent answers from wherever a check comes and has no use for them."""
        if isinstance(self.ice, IceAgent):
            self.ice.add_remotes(read_candidates(said.candidates, most=MAX_REMOTES))
            self._follow(self.ice.handle_deadline(now_ns=self._clock.now_ns()))

    def tick(
        self,
        *,
        now_ns: int,
        ticks_at: Callable[[Kind, int], int],
        stream_bps: int = 0,
        least_bps: int = 0,
        share_bps: int | None = None,
    ) -> None:
        """What is due by the clock: consent, ICE credentials, reports that wait, the estimate, and sender reports.

        The estimate is looked at seldom while the link carries more than enough.

        ``ticks_at`` gives the timeline position of a wallclock time in ticks of a kind's clock; ``stream_bps`` is the
        most that could be sent to this viewer now, ``least_bps`` the least, ``share_bps`` what it could have of an
        uplink that others use too.
        """
        try:
            self._catch_up()
            self._looked_ns = now_ns
            if outcomes := self.ice.handle_deadline(now_ns=now_ns):
                self._follow(outcomes)
            if not self.connected:
                return
            if now_ns >= self._next_look_ns or not self.sender.is_calm:
                self._next_look_ns = now_ns + SELDOM_NS
                self.sender.tick(stream_bps=stream_bps, least_bps=least_bps, share_bps=share_bps, now_ns=now_ns)
            if now_ns >= self._next_report_ns:
                self._send_reports(ticks_at, now_ns)
        except Exception as error:  # noqa: BLE001
            # As in `run`: this is called for one viewer after the other.
            self._give_up(error)

    def _send_reports(self, ticks_at: Callable[[Kind, int], int], now_ns: int) -> None:
        wallclock_ns = self._clock.wallclock_ns()
        active = [stream for stream in self.streams.values() if stream.packets_sent]
        if active:
            self._next_report_ns = now_ns + REPORT_INTERVAL_NS
            reports = [
                stream.sender_report(ticks=ticks_at(stream.kind, wallclock_ns), wallclock_ns=wallclock_ns)
                for stream in active
            ]
            self._send_rtcp([*reports, SourceDescription(tuple((each.ssrc, self._cname) for each in active))])

    @property
    def sent_bytes(self) -> int:
        """Bytes of media sent so far."""
        self.sender.settle()
        return sum(stream.octets_sent for stream in self.streams.values())

    def can_play(self, codec: str) -> bool:
        """Whether the viewer takes a picture codec."""
        return codec in self._plays

    def picture_bps(self, *, sound_bps: int) -> int | None:
        """What the link carries beside the sound; None while nothing is known."""
        bandwidth_bps = self.sender.bandwidth_bps
        if bandwidth_bps is not None and "audio" in self.streams:
            bandwidth_bps = max(1, bandwidth_bps - sound_bps)
        return bandwidth_bps

    def demand(self, *, sound_bps: int, playable: frozenset[str] | None = None) -> Demand:
        """What this viewer's link carries for the picture, and what it may get; ``playable`` are the rungs whose codec
        it has."""
        return Demand(
            self.id,
            self.picture_bps(sound_bps=sound_bps),
            priority=self.priority,
            cap_bps=self.cap_bps,
            playable=playable,
            chosen=self.chosen,
            is_paused="video" in self._withheld or "video" not in self.streams,
        )

    def aim(self, choice: Choice) -> None:
        """This rung is for it from now on."""
        if self.choice is None or choice.rung != self.choice.rung:
            self.sender.go_alone()
            self.switch.want(choice.rung)
        self.choice = choice

    @property
    def wants_keyframe(self) -> bool:
        """Whether it cannot go on, or not change to what it is to get, and has room for a keyframe."""
        sender = self.sender
        is_ready = self.connected and not sender.is_broken and not sender.is_dead
        return is_ready and self.switch.needs_keyframe is not None

    def offer(self, picture: Picture) -> int | None:
        """The position on the timeline at which a picture goes to this viewer; None if it does not.

        None goes out that needs one that did not.
        """
        if not self.connected or not self._shows_pictures:
            return None
        if self.awaits_keyframe and not picture.is_keyframe:
            return None
        ticks = self.switch.offer(picture)
        if ticks is not None and picture.is_keyframe:
            self.awaits_keyframe = False
        return ticks

    def report(self, rung: str | None = None) -> ViewerReport:
        """What is known of this viewer's link, by the estimate and by its receiver reports (RFC 3550 section 6.4.1).

        ``rung`` is the name of what it gets.
        """
        stream = self.streams.get("video") or next(iter(self.streams.values()))
        block, estimate = stream.last_report, self.sender.estimate()
        return ViewerReport(
            viewer=self.name,
            bandwidth_bps=estimate.bandwidth_bps if estimate is not None else None,
            loss=block.fraction_lost / 256 if block is not None else 0.0,
            rtt_ms=self.round_trip_ns / 1e6,
            queue_delay_ms=estimate.queue_delay_ns / 1e6 if estimate is not None else 0.0,
            rung=rung,
            cap_bps=self.cap_bps,
        )

    def send_picture(self, unit: AccessUnit, picture: Picture, *, ticks: int, now_ns: int) -> None:
        """Sends a picture at the position of the timeline that `offer` gave, as soon as the link has room for it."""
        if not self.sender.send("video", unit, ticks=ticks, now_ns=now_ns):
            self.switch.dropped(picture)
            self.awaits_keyframe = True
        if unit.captured_ns is not None:
            self._shown = (ticks, unit.captured_ns)

    def voice(self, rung: str, number: int, *, codec: str, size: int, after_ticks: int) -> Voice | None:
        """What the next packets to it are made of, as long as nothing else is sent to it.

        Picture ``number`` of a rung must be the next one that goes out, of about ``size`` bytes on the wire, at a
        position above ``after_ticks``. None while it has to be looked after by itself.
        """
        if not self.is_calm or not self._shows_pictures or self.awaits_keyframe:
            return None
        if self.switch.needs_keyframe or not self.switch.is_next(rung, number, after_ticks=after_ticks):
            return None
        kinds = [kind for kind in self.streams if kind not in self._withheld]
        return self.sender.voice(self, rung, number, codec=codec, size=size, kinds=kinds)

    def keeps_on(self, size: int) -> bool:
        """Whether a voice of it is good still, but for what was put down since; pictures are of about this size, in
        bytes on the wire."""
        return self.connected and self._shows_pictures and not self.awaits_keyframe and self.sender.keeps_on(size)

    def put_down(self, owed: Owed, place: int) -> None:
        """This has left to it in unison with others."""
        try:
            self.sender.put_down(owed, place)
            if owed.picture is not None:
                self.switch.passed(owed.picture, count=owed.pictures)
                self._shown = owed.shown or self._shown
        except Exception as error:  # noqa: BLE001
            # As in `tick`: the others are next. Nothing more leaves, since it is not known under which number.
            self.sender.close()
            self._give_up(error)

    def send_sound(self, unit: AccessUnit, *, ticks: int, now_ns: int) -> None:
        """Sends sound at a position of the timeline."""
        if self.connected and "audio" in self.streams and "audio" not in self._withheld:
            self.sender.send("audio", unit, ticks=ticks, now_ns=now_ns)

    @property
    def captured(self) -> tuple[int, int] | None:
        """The RTP timestamp of the last picture that says so, and when it was captured: UTC in ns."""
        self.sender.settle()
        if self._shown is None:
            return None
        ticks, captured_ns = self._shown
        return self.streams["video"].timestamp_at(ticks), captured_ns

    def withhold(self, kinds: frozenset[Kind]) -> None:
        """Sends nothing of these kinds from now on, not even what was sent before; the picture then begins anew."""
        self.sender.go_alone()
        may_again = "video" in self._withheld - kinds
        self._withheld = kinds
        self._shows_pictures = "video" in self.streams and "video" not in kinds
        self.sender.may_repeat = "video" not in kinds
        if "video" in kinds:
            self.sender.clear()
            self.awaits_keyframe = True
        elif may_again:
            self.ask_keyframe()

    def send_cover(self, payloads: Sequence[bytes], *, ticks: int, now_ns: int) -> None:
        """Sends one picture, of H.264, in the place of those that are withheld; nothing to a viewer that lacks it."""
        if self.connected and self.can_play("h264"):
            self.sender.send("video", AccessUnit(payloads, "h264", is_keyframe=True), ticks=ticks, now_ns=now_ns)

    def ask_keyframe(self) -> None:
        """Asks for a keyframe, when this viewer may have one and can be reached."""
        if self.connected and "video" in self.streams and "video" not in self._withheld and not self.sender.is_dead:
            self._want_keyframe(self)

    async def _connect(self) -> None:
        await self._reached.wait()
        if self._closed.is_set():
            return

        def changed() -> None:
            if self._dtls.state in ("closed", "failed"):
                self.close("the viewer left" if self.connected else "its DTLS handshake failed")

        self._dtls.on("statechange", changed)
        await self._dtls.start(self._dtls_parameters)
        if self._closed.is_set() or self._dtls.state != "connected":
            self.close("its DTLS handshake failed")
            return
        self._protection = Protection(self._dtls._tx_srtp)
        self.sender.open(self._protection)
        self._unprotect_rtcp = Unprotection(self._dtls._rx_srtp).unprotect_rtcp
        with anyio.move_on_after(SETTLES_S):
            await self._has_keys.wait()
        if self._closed.is_set():
            return
        self.connected = True
        self._on_change()
        self.ask_keyframe()
        if self.association is not None:
            await self.association.start()

    async def _shut_down(self) -> None:
        self.sender.close()
        if self._protection is not None and self.streams:
            ssrcs = tuple(stream.ssrc for stream in self.streams.values())
            description = SourceDescription(tuple((ssrc, self._cname) for ssrc in ssrcs))
            self._send_rtcp([ReceiverReport(ssrcs[0]), description, Bye(ssrcs)])
        if self.association is not None:
            await self.association.stop("the session ended")
        pump = self._dtls._task
        self._dtls.remove_all_listeners()
        await self._dtls.stop()
        self._path.close()
        if pump is not None:
            await asyncio.wait([pump])
        self._mux.forget(self.ice.ufrags, self.ice.pairs, self)
        if self.ice.tag is not None:
            self._mux.expect_no_more(self.ice.tag)

    def _handle_ice(self, data: bytes, pair: Pair) -> None:
        self._mux.take_reports_before(pair)
        self._catch_up()  # what was told is of the path before this
        transaction = stun.transaction_of(data)
        if self._checks.get(transaction, pair) != pair:
            return  # somebody who has seen it sends it again: it says nothing of where the viewer is
        self._follow(self.ice.handle_datagram(data, pair, now_ns=self._clock.now_ns()))
        if pair in self.ice.pairs:
            self._checks[transaction] = pair
            if len(self._checks) > MOST_CHECKS:
                del self._checks[next(iter(self._checks))]

    def _follow(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            match outcome:
                case Reply(data, where) | Check(data, where):
                    self._mux.send((data,), where)
                case Verified(where):
                    self._mux.claim(where, self)
                    if self.sender.pair is None:
                        self._reach(where)
                case Forgotten(where):
                    self._mux.release(where, self)
                case Selected(pair):
                    self.sender.go_by(pair, now_ns=self._clock.now_ns())
                    self._reached.set()
                case Retired(ufrag):
                    self._mux.forget((ufrag,), (), self)
                    self.sender.look_anew(now_ns=self._clock.now_ns())
                case Expired():
                    self.close("it was silent for 30 s")

    def _reach(self, pair: Pair) -> None:
        """The viewer answers to checks on a pair: what has to be said before it nominates one goes there.

        A browser nominates after another round of checks, and its handshake need not wait for that.
        """
        if self.ice.selected is None and pair != self.sender.pair:
            self.sender.go_by(pair, now_ns=self._clock.now_ns())
            if not self._reached.is_set():
                self._reached.set()
                self._on_reached(self)

    def _handle_rtcp(self, data: bytes, came_ns: int, *, is_report: bool) -> None:
        if self._unprotect_rtcp is None or len(data) > MAX_SRTCP:
            return
        # Many viewers tell of their packets at moments of their own. Where nothing depends on it the loop does not work
        # on each by itself: looking after one viewer after the other takes half the time.
        if is_report and len(self._put_off) < MOST_PUT_OFF and self.sender.is_calm:
            self._put_off.append((data, came_ns))
            return
        try:
            self._catch_up()
            self._take_rtcp(data, came_ns)
        except Exception as error:  # noqa: BLE001
            # As in `tick`: what others say may be taken along with it.
            self._give_up(error)

    def _catch_up(self) -> None:
        """Makes up for what was put off."""
        self.sender.settle()
        if self._put_off:
            put_off, self._put_off = self._put_off, []
            for data, came_ns in put_off:
                self._take_rtcp(data, came_ns)

    def _take_rtcp(self, data: bytes, now_ns: int) -> None:
        assert self._unprotect_rtcp is not None
        now_ns = self._looked_ns = max(now_ns, self._looked_ns)
        estimator = self.sender.estimator
        try:
            data = self._unprotect_rtcp(data)
            if estimator.is_quiet:
                whole = read_whole_feedback(data)
                if whole is not None and estimator.handle_whole(whole, now_ns=now_ns):
                    return
            packets = parse_compound(data)
        except (ProtectionError, RtcpError):
            self.damaged_datagrams += 1
            return
        for packet in packets:
            self._handle_feedback(packet, now_ns)

    def _handle_feedback(self, packet: RtcpPacket, now_ns: int) -> None:
        match packet:
            case Nack(_, media_ssrc, lost):
                stream = self._by_ssrc.get(media_ssrc)
                if stream is not None and stream.kind not in self._withheld:
                    self.sender.resend(stream, lost, round_trip_ns=self.round_trip_ns, now_ns=now_ns)
            case TransportFeedback() | ReceiverEstimate():
                self.sender.handle_feedback(packet, now_ns=now_ns)
            case PictureLossIndication() | FullIntraRequest():
                self.ask_keyframe()
            case ReceiverReport(_, blocks) | SenderReport(reports=blocks):
                for block in blocks:
                    self._handle_report(block, now_ns)
            case _:
                pass

    def _handle_report(self, block: ReportBlock, now_ns: int) -> None:
        stream = self._by_ssrc.get(block.ssrc)
        if stream is None:
            return
        # No share can be lost without the count of losses having grown; some players send what was in memory.
        before = stream.last_report.packets_lost if stream.last_report is not None else 0
        if block.fraction_lost and block.packets_lost <= before:
            block = replace(block, fraction_lost=0)
        stream.last_report = block
        ago_ns = self._clock.now_ns() - now_ns
        round_trip_ns = block.round_trip_ns(wallclock_ns=self._clock.wallclock_ns() - ago_ns)
        if round_trip_ns is not None:
            self.round_trip_ns = min(round_trip_ns, 1_000_000_000)
        self.sender.handle_report(loss=block.fraction_lost / 256, round_trip_ns=round_trip_ns, now_ns=now_ns)

    def _send_plain(self, data: bytes) -> None:
        pair = self.ice.selected or self.sender.pair
        if pair is not None:
            self._mux.send((data,), pair)

    def _send_rtcp(self, packets: Sequence[RtcpPacket]) -> None:
        if self._protection is None:
            return
        try:
            data = self._protection.protect_rtcp(pack_compound(packets))
        except ProtectionError as error:
            self._fail(error)
        else:
            self._send_plain(data)

    def _fail(self, error: ProtectionError) -> None:
        self.close(f"its packets cannot be protected: {error}")

    def _start_anew(self) -> None:
        """Pictures were given up; there is room for a keyframe now."""
        self.awaits_keyframe = True
        self.ask_keyframe()


def _draw_password() -> str:
    """32 characters that ICE allows."""
    return secrets.token_urlsafe(24).replace("-", "+").replace("_", "/")
