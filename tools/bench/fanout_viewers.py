"""Who watches in the fan-out benchmark, whoever sends: ICE, DTLS, receiver reports and feedback, and no decoder.

Media is counted, not decrypted, so that many viewers fit on what the sender leaves of the machine.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

from flowstream.proto.rtcp import ReceiverReport, ReportBlock, SenderReport, looks_like_rtcp
from flowstream_nodes.webrtc._aside import SO_TIMESTAMPNS
from tests.nodes.webrtc.player import LoopbackViewer, parse_protected

BEAT_S: Final = 0.01
TELLS_EVERY: Final = 10
"""Beats between feedback on packets: about as often as Chromium sends it at this rate."""

REPORTS_EVERY: Final = 100
CHECKS_EVERY: Final = 250
"""Consent is kept up every 2.5 s, as by Chromium."""

RECEIVE_BUFFER: Final = 1 << 20
NUMBERS: Final = 6
"""The id of the transport-wide number in the offer of `LoopbackViewer`."""

_TIME: Final = struct.Struct("=qq")
_RSA: Final = b":ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-SHA"


def accept_rsa() -> None:
    """Let aiortc's DTLS shake hands with certificates of RSA, which GStreamer makes."""
    from aiortc.rtcdtlstransport import RTCCertificate

    create = RTCCertificate._create_ssl_context
    ciphers = b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA" + _RSA

    def create_with_rsa(self: Any, srtp_profiles: Any) -> Any:
        context = create(self, srtp_profiles)
        context.set_cipher_list(ciphers)
        return context

    RTCCertificate._create_ssl_context = create_with_rsa


class CountingViewer(LoopbackViewer):
    """Counts what comes, and tells of it."""

    def __init__(self) -> None:
        super().__init__()
        self.received = 0
        """Packets of media; what is sent again or to fill the path is none."""
        self._buffer = bytearray(2048)
        self._number_at: dict[int, int | None] = {}  # by the length of the header's extension
        self._highest = 0
        self._reported = (0, 0.0)  # middle of the last sender report's time, and when it came
        self._payload_type = 96

    def answer_to(self, offer: str) -> str:
        """Answers an offer of H.264 that has been made, as a viewer that does nothing about congestion."""
        from aiortc.rtcdtlstransport import RTCCertificate

        self.certificate = RTCCertificate.generateCertificate()
        digest = next(f.value for f in self.certificate.getFingerprints() if f.algorithm == "sha-256")
        self._payload_type = int(re.findall(r"a=rtpmap:(\d+) H264/90000", offer)[0])
        (mid,) = re.findall(r"a=mid:(\S+)", offer)
        lines = [
            "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", f"a=group:BUNDLE {mid}",
            f"m=video 9 UDP/TLS/RTP/SAVPF {self._payload_type}", "c=IN IP4 127.0.0.1", f"a=mid:{mid}", "a=recvonly",
            f"a=ice-ufrag:{self.ufrag}", f"a=ice-pwd:{self.password}", f"a=fingerprint:sha-256 {digest}",
            "a=setup:active", "a=rtcp-mux", f"a=rtpmap:{self._payload_type} H264/90000",
            f"a=rtcp-fb:{self._payload_type} nack", f"a=rtcp-fb:{self._payload_type} nack pli", "",
        ]  # fmt: skip
        return "\r\n".join(lines)

    async def connect(self, answer: str, *, prefer: str = "") -> None:
        """As its base, with a buffer that holds what comes while others are served."""
        await super().connect(answer, prefer=prefer)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        # The kernel says when a packet came: how busy this process is must not look like a queue on the path.
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def report(self, now_s: float) -> None:
        """Sends a receiver report without losses."""
        last, came_s = self._reported
        delay = int((now_s - came_s) * 65_536) if last else 0
        self.send_rtcp(ReceiverReport(1, (ReportBlock(self.ssrcs[0], 0, 0, self._highest, 0, last, delay),)))

    def _readable(self) -> None:
        receive, buffer = self.socket.recvmsg_into, self._buffer
        while True:
            try:
                size, notes, _, _ = receive((buffer,), 64)
            except OSError:
                return
            if buffer[0] >> 6 == 2 and not 192 <= buffer[1] <= 223:
                self._count(buffer, size, notes[0][2] if notes else b"")
            else:
                data = bytes(buffer[:size])
                self._handle(data)
                if looks_like_rtcp(data):
                    self._note_report()

    def _count(self, buffer: bytearray, size: int, came: bytes) -> None:
        if buffer[1] & 0x7F == self._payload_type:
            self.received += 1
            self._highest = buffer[2] << 8 | buffer[3]
        if not buffer[0] & 0x10:
            return
        words = buffer[15]
        place = self._number_at.get(words, -1)
        if place == -1:
            place = self._number_at[words] = self._find_number(bytes(buffer[:size]))
        if place is not None:
            seconds, rest_ns = _TIME.unpack(came) if came else divmod(time.time_ns(), 1_000_000_000)
            self._arrivals.add(buffer[place] << 8 | buffer[place + 1], now_ns=seconds * 1_000_000_000 + rest_ns)

    def _find_number(self, data: bytes) -> int | None:
        """Where the transport-wide number stands in a packet like this one."""
        extensions = parse_protected(data).extensions
        place = 16
        for number, value in extensions:
            if number == NUMBERS and len(value) == 2:
                return place + 1
            place += 1 + len(value)
        return None

    def _note_report(self) -> None:
        for packet in self.rtcp:
            if isinstance(packet, SenderReport):
                self._reported = (packet.ntp_time >> 16 & 0xFFFFFFFF, time.monotonic())
        self.rtcp.clear()


async def tell_forever(viewers: Sequence[CountingViewer]) -> None:
    """What viewers send: feedback and reports, and the checks that keep their consent; each at moments of its own."""
    for beat in count():
        await asyncio.sleep(BEAT_S)
        now_s = time.monotonic()
        for viewer in viewers[beat % TELLS_EVERY :: TELLS_EVERY]:
            viewer.tell()
        for viewer in viewers[beat % REPORTS_EVERY :: REPORTS_EVERY]:
            if viewer.ssrcs:
                viewer.report(now_s)
        for viewer in viewers[beat % CHECKS_EVERY :: CHECKS_EVERY]:
            viewer.check()
