"""One viewer: its ICE and DTLS, its RTP streams, and the feedback that it sends."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from flowstream import ViewerReport
from flowstream.proto import stun
from flowstream.proto.ice import Expired, Forgotten, IceLite, Outcome, Pair, Reply, Retired, Selected, Verified
from flowstream.proto.retransmit import History, SentPacket, wrap
from flowstream.proto.rtcp import (
    Bye,
    FullIntraRequest,
    Nack,
    PictureLossIndication,
    ReceiverReport,
    ReportBlock,
    RtcpError,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    looks_like_rtcp,
    pack_compound,
    parse_compound,
    to_ntp,
)
from flowstream.proto.rtp import HeaderWriter, pack_playout_delay
from flowstream.proto.sdp import Agreement, Kind, Stream, Track

if TYPE_CHECKING:
    from flowstream_nodes.webrtc._mux import UdpMux

SETUP_S: Final = 15.0
"""A viewer that is not connected this long after its offer is given up."""

REPORT_INTERVAL_NS: Final = 1_000_000_000
"""Between sender reports (RFC 3550 allows less than its 5 s for video of some rate)."""

MAX_PENDING_DTLS: Final = 64
"""Datagrams that wait for the handshake; more are dropped and repeated by the peer."""

MAX_SRTCP: Final = 1400
"""Longest protected RTCP packet that is looked at, in bytes."""

PLAYOUT_DELAY: Final = pack_playout_delay(min_ms=0, max_ms=400)
"""The receiver may show a frame as soon as it is decoded, and may hold back up to 400 ms when packets must be sent
again: two round trips of a bad link. Up to 500 ms Chromium keeps to its path for live pictures, which adds no delay."""


class Clock(Protocol):
    """Monotonic and wall time."""

    def now_ns(self) -> int:
        """Monotonic, in ns."""

    def wallclock_ns(self) -> int:
        """UTC, in ns."""


class RtpStream:
    """Numbers and headers of one stream to one viewer; what is needed to send parts of it again.

    Packets come out unprotected. Sequence numbers and timestamps go on whatever feeds the stream.
    """

    def __init__(self, track: Track, ssrcs: Stream) -> None:
        self.kind: Kind = track.kind
        self.ssrc = ssrcs.ssrc
        self.rtx_ssrc = ssrcs.rtx_ssrc
        self.packets_sent = 0
        self.octets_sent = 0
        self.packets_resent = 0
        self.last_report: ReportBlock | None = None
        extensions: list[tuple[int, bytes]] = []
        if track.mid_extension is not None:
            extensions.append((track.mid_extension, track.mid.encode()))
        if track.playout_delay_extension is not None:
            extensions.append((track.playout_delay_extension, PLAYOUT_DELAY))
        self._track = track
        self._extensions = tuple(extensions)
        self.codec: str | None = None
        self._header: HeaderWriter | None = None
        self._rtx_header: HeaderWriter | None = None
        self._history: History | None = None
        # A first number below 2**15 keeps both ends' rollover counters the same when early packets are lost.
        self._sequence_number = secrets.randbelow(1 << 15)
        self._rtx_sequence_number = secrets.randbelow(1 << 15)
        self._timestamp_offset = secrets.randbits(32)

    def timestamp_at(self, ticks: int) -> int:
        """The RTP timestamp of a position on the timeline, in ticks of the stream's clock."""
        return (self._timestamp_offset + ticks) & 0xFFFFFFFF

    def can_send(self, codec: str) -> bool:
        """Whether the viewer takes a codec."""
        return self._track.choice(codec) is not None

    def packets(self, payloads: Sequence[bytes], *, codec: str, ticks: int, now_ns: int) -> list[bytes]:
        """RTP packets of one access unit; the last of a picture carries the marker."""
        if codec != self.codec:
            self._change_codec(codec)
        assert self._header is not None
        timestamp = self.timestamp_at(ticks)
        number = self._sequence_number
        last = len(payloads) - 1 if self.kind == "video" else -1
        history, pack = self._history, self._header.pack
        packets: list[bytes] = []
        for index, payload in enumerate(payloads):
            marker = index == last
            packets.append(pack(sequence_number=number, timestamp=timestamp, marker=marker) + payload)
            if history is not None:
                history.store(SentPacket(number, timestamp, marker, payload), now_ns=now_ns)
            self.octets_sent += len(payload)
            number = (number + 1) & 0xFFFF
        self._sequence_number = number
        self.packets_sent += len(payloads)
        return packets

    def _change_codec(self, codec: str) -> None:
        choice = self._track.choice(codec)
        assert choice is not None, "whoever sends has asked can_send()"
        self.codec = codec
        self._header = HeaderWriter(
            payload_type=choice.format.payload_type, ssrc=self.ssrc, extensions=self._extensions
        )
        self._rtx_header = None
        if choice.rtx_payload_type is not None and self.rtx_ssrc is not None:
            self._rtx_header = HeaderWriter(
                payload_type=choice.rtx_payload_type, ssrc=self.rtx_ssrc, extensions=self._extensions
            )
        # What was sent in another codec would go out under the wrong payload type, and is not needed after a keyframe.
        self._history = History() if "nack" in choice.format.feedback else None

    def resend(self, sequence_numbers: Sequence[int], *, now_ns: int, round_trip_ns: int) -> list[bytes]:
        """What can be sent again of ``sequence_numbers``: on the retransmission stream, else the very same bytes.

        The same bytes again are safe under SRTP: the same index then protects the same plaintext.
        """
        if self._history is None or self._header is None:
            return []
        packets: list[bytes] = []
        for number in sequence_numbers:
            sent = self._history.take(number, now_ns=now_ns, round_trip_ns=round_trip_ns)
            if sent is None:
                continue
            if self._rtx_header is None:
                header = self._header.pack(sequence_number=number, timestamp=sent.timestamp, marker=sent.marker)
                packets.append(header + sent.payload)
                continue
            header = self._rtx_header.pack(
                sequence_number=self._rtx_sequence_number, timestamp=sent.timestamp, marker=sent.marker
            )
            packets.append(header + wrap(sent))
            self._rtx_sequence_number = (self._rtx_sequence_number + 1) & 0xFFFF
        self.packets_resent += len(packets)
        return packets

    def sender_report(self, *, ticks: int, wallclock_ns: int) -> SenderReport:
        """A report that ties the timeline position ``ticks`` to the wallclock."""
        return SenderReport(
            ssrc=self.ssrc,
            ntp_time=to_ntp(wallclock_ns),
            rtp_timestamp=self.timestamp_at(ticks),
            packet_count=self.packets_sent & 0xFFFFFFFF,
            octet_count=self.octets_sent & 0xFFFFFFFF,
        )


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
        clock: Clock,
        log: logging.LoggerAdapter[logging.Logger],
        want_keyframe: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        """``certificate`` is an aiortc RTCCertificate. ``want_keyframe`` is called whenever this viewer cannot go on
        without one, ``on_change`` when it has connected."""
        from aiortc import rtcdtlstransport as dtls

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
        self.ice = IceLite(
            ufrag=secrets.token_hex(8), password=self.password, peer_ufrag=agreement.ufrag, now_ns=clock.now_ns()
        )
        self.streams = {track.kind: RtpStream(track, streams[track.kind]) for track in agreement.tracks.values()}
        self._by_ssrc = {stream.ssrc: stream for stream in self.streams.values()}
        self.awaits_keyframe = True
        self._cname = cname
        self._mux = mux
        self._clock = clock
        self._log = log
        self._want_keyframe = want_keyframe
        self._on_change = on_change
        self._selected = asyncio.Event()
        self._closed = asyncio.Event()
        self._next_report_ns = 0
        self._path = _DtlsPath(self._send_plain)
        self._dtls = dtls.RTCDtlsTransport(self._path, [certificate])  # type: ignore[arg-type]
        # As server the handshake is one flight shorter, and ours is the choice of cipher.
        self._dtls._set_role("server")
        self._dtls_parameters = dtls.RTCDtlsParameters(
            fingerprints=[dtls.RTCDtlsFingerprint(algorithm, value) for algorithm, value in agreement.fingerprints]
        )
        self._srtp_error: type[Exception] = ValueError
        self._protect: Callable[[bytes], bytes] | None = None
        self._protect_rtcp: Callable[[bytes], bytes] | None = None
        self._unprotect_rtcp: Callable[[bytes], bytes] | None = None
        mux.register(self.ice.ufrag, self)

    async def run(self) -> None:
        """The viewer's life; returns when it has ended."""
        try:
            try:
                with anyio.fail_after(SETUP_S):
                    await self._connect()
            except TimeoutError:
                stage = "its DTLS handshake did not end" if self._selected.is_set() else "no ICE check came in"
                self.close(f"not connected within {SETUP_S:.0f} s: {stage}")
            await self._closed.wait()
        except Exception as error:  # noqa: BLE001
            # Whatever one peer provokes, the others must not notice.
            self._log.exception("viewer %s failed", self.id)
            self.close(f"failed: {error}")
        finally:
            self.close("the stream's server stopped")
            with anyio.CancelScope(shield=True):
                await self._shut_down()

    def close(self, reason: str) -> None:
        """Ends the session; the first reason counts."""
        if self.closed_because is None:
            self.closed_because = reason
            self.connected = False
            self._closed.set()
            self._selected.set()
            if self._protect is None:  # else the last words go out before the path closes
                self._path.close()

    def handle_datagram(self, data: bytes, pair: Pair) -> None:
        """Takes one datagram of this viewer: STUN, DTLS or RTCP (RFC 7983)."""
        if self.closed_because is not None:
            return
        if stun.looks_like_stun(data):
            self._handle_ice(data, pair)
        elif 20 <= data[0] <= 63:
            self._path.put(data)
        elif looks_like_rtcp(data):
            self._handle_rtcp(data)

    def restart_ice(self, peer_ufrag: str) -> None:
        """New credentials and a new tag; media goes on where it goes until the peer nominates a pair under them."""
        self.etag = secrets.token_urlsafe(9)
        self.password = _draw_password()
        self.peer_ufrag = peer_ufrag
        outcomes = self.ice.restart(ufrag=secrets.token_hex(8), password=self.password, peer_ufrag=peer_ufrag)
        self._mux.register(self.ice.ufrag, self)
        self._follow(outcomes)

    def tick(self, *, now_ns: int, ticks_at: Callable[[Kind, int], int]) -> None:
        """What is due by the clock: consent, and sender reports.

        ``ticks_at`` gives the timeline position of a wallclock time in ticks of a kind's clock.
        """
        if any(isinstance(outcome, Expired) for outcome in self.ice.handle_deadline(now_ns=now_ns)):
            self.close("it was silent for 30 s")
        if not self.connected or now_ns < self._next_report_ns:
            return
        wallclock_ns = self._clock.wallclock_ns()
        active = [stream for stream in self.streams.values() if stream.packets_sent]
        if active:
            self._next_report_ns = now_ns + REPORT_INTERVAL_NS
            reports = [
                stream.sender_report(ticks=ticks_at(stream.kind, wallclock_ns), wallclock_ns=wallclock_ns)
                for stream in active
            ]
            self._send_rtcp([*reports, SourceDescription(tuple((each.ssrc, self._cname) for each in active))])

    def takes_video(self, codec: str, *, is_keyframe: bool) -> bool:
        """Whether a picture may go to this viewer: never a dependent one before its first keyframe, nor before the
        first of another codec. A viewer that lacks the codec is let go: a player that comes again is told why."""
        stream = self.streams.get("video")
        if not self.connected or stream is None:
            return False
        if not stream.can_send(codec):
            self.close(f"the stream is {codec} now, which it does not play")
            return False
        if is_keyframe:
            self.awaits_keyframe = False
        elif self.awaits_keyframe or codec != stream.codec:
            return False
        return True

    def report(self) -> ViewerReport:
        """What the receiver reports of this viewer tell of its link (RFC 3550 section 6.4.1)."""
        stream = self.streams.get("video") or next(iter(self.streams.values()))
        block = stream.last_report
        return ViewerReport(
            viewer=self.name,
            loss=block.fraction_lost / 256 if block is not None else 0.0,
            rtt_ms=self.round_trip_ns / 1e6,
        )

    def send(self, kind: Kind, payloads: Sequence[bytes], *, codec: str, ticks: int, now_ns: int) -> None:
        """Sends one access unit at a position of the timeline."""
        stream = self.streams.get(kind)
        if stream is not None and self.connected:
            self._send_rtp(stream.packets(payloads, codec=codec, ticks=ticks, now_ns=now_ns))

    async def _connect(self) -> None:
        import pylibsrtp

        await self._selected.wait()
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
        self._srtp_error = pylibsrtp.Error
        self._protect = self._dtls._tx_srtp.protect
        self._protect_rtcp = self._dtls._tx_srtp.protect_rtcp
        self._unprotect_rtcp = self._dtls._rx_srtp.unprotect_rtcp
        self.connected = True
        self._on_change()
        if "video" in self.streams:
            self._want_keyframe()

    async def _shut_down(self) -> None:
        if self._protect_rtcp is not None and self.streams:
            ssrcs = tuple(stream.ssrc for stream in self.streams.values())
            description = SourceDescription(tuple((ssrc, self._cname) for ssrc in ssrcs))
            self._send_rtcp([ReceiverReport(ssrcs[0]), description, Bye(ssrcs)])
        pump = self._dtls._task
        self._dtls.remove_all_listeners()
        await self._dtls.stop()
        self._path.close()
        if pump is not None:
            await asyncio.wait([pump])
        self._mux.forget(self.ice.ufrags, self.ice.pairs, self)

    def _handle_ice(self, data: bytes, pair: Pair) -> None:
        self._follow(self.ice.handle_datagram(data, pair, now_ns=self._clock.now_ns()))

    def _follow(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            match outcome:
                case Reply(reply, where):
                    self._mux.send((reply,), where)
                case Verified(where):
                    self._mux.claim(where, self)
                case Forgotten(where):
                    self._mux.release(where, self)
                case Selected():
                    self._selected.set()
                case Retired(ufrag):
                    self._mux.forget((ufrag,), (), self)
                case Expired():
                    self.close("it was silent for 30 s")

    def _handle_rtcp(self, data: bytes) -> None:
        if self._unprotect_rtcp is None or len(data) > MAX_SRTCP:
            return
        try:
            packets = parse_compound(self._unprotect_rtcp(data))
        except (self._srtp_error, RtcpError):
            self.damaged_datagrams += 1
            return
        for packet in packets:
            self._handle_feedback(packet)

    def _handle_feedback(self, packet: RtcpPacket) -> None:
        match packet:
            case Nack(_, media_ssrc, lost):
                stream = self._by_ssrc.get(media_ssrc)
                if stream is not None:
                    now_ns = self._clock.now_ns()
                    self._send_rtp(stream.resend(lost, now_ns=now_ns, round_trip_ns=self.round_trip_ns))
            case PictureLossIndication() | FullIntraRequest():
                self._want_keyframe()
            case ReceiverReport(_, blocks) | SenderReport(reports=blocks):
                for block in blocks:
                    self._handle_report(block)
            case _:
                pass

    def _handle_report(self, block: ReportBlock) -> None:
        stream = self._by_ssrc.get(block.ssrc)
        if stream is None:
            return
        stream.last_report = block
        round_trip_ns = block.round_trip_ns(wallclock_ns=self._clock.wallclock_ns())
        if round_trip_ns is not None:
            self.round_trip_ns = min(round_trip_ns, 1_000_000_000)

    def _send_plain(self, data: bytes) -> None:
        if self.ice.selected is not None:
            self._mux.send((data,), self.ice.selected)

    def _send_rtcp(self, packets: Sequence[RtcpPacket]) -> None:
        if self._protect_rtcp is not None:
            self._send_protected([pack_compound(packets)], self._protect_rtcp)

    def _send_rtp(self, packets: Sequence[bytes]) -> None:
        if self._protect is not None:
            self._send_protected(packets, self._protect)

    def _send_protected(self, packets: Sequence[bytes], protect: Callable[[bytes], bytes]) -> None:
        if self.ice.selected is None or not packets:
            return
        try:
            protected = [protect(packet) for packet in packets]
        except self._srtp_error as error:
            self.close(f"its packets cannot be protected: {error}")
            return
        self._mux.send(protected, self.ice.selected)


def _draw_password() -> str:
    """32 characters that ICE allows."""
    return secrets.token_urlsafe(24).replace("-", "+").replace("_", "/")
