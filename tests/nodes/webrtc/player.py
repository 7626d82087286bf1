"""A WHEP player for tests and measurements, on a real socket."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import struct
import time
from collections.abc import Callable

from flowstream.proto import stun
from flowstream.proto.congestion.arrivals import Arrivals
from flowstream.proto.rtcp import RtcpPacket, looks_like_rtcp, pack_compound, parse_compound
from flowstream.proto.rtp import RtpPacket

PADDED = 0x20
"""In the first byte of RTP: the packet ends with padding (RFC 3550 section 5.1)."""


def parse_protected(data: bytes) -> RtpPacket:
    """The header of a packet that is still encrypted: its last byte is no length of padding, whatever the header says.

    Raises RtpError where it is none.
    """
    return RtpPacket.parse(bytes([data[0] & ~PADDED]) + data[1:])


class LoopbackViewer:
    """A WHEP player of a few lines: one UDP socket, checks with nomination, DTLS as client, no decoder."""

    def __init__(self) -> None:
        self.rtp: list[RtpPacket] = []
        self.rtcp: list[RtcpPacket] = []
        self.ufrag, self.password = secrets.token_hex(4), secrets.token_hex(16)
        self._arrivals = Arrivals(ssrc=1)
        self._news = asyncio.Event()
        self._pending: asyncio.Queue[bytes] = asyncio.Queue()
        self._transactions: set[bytes] = set()
        self.checked = asyncio.Event()
        self.role, self.state = "controlling", "completed"
        self.lose: Callable[[RtpPacket], bool] = lambda packet: False  # asked before its payload is decrypted

    def offer(self, *, rtx: bool = True, audio: bool = True, numbers: bool = False) -> str:
        """``numbers``: with transport-wide numbers, feedback on them, REMB, and capture times."""
        from aiortc.rtcdtlstransport import RTCCertificate

        self.certificate = RTCCertificate.generateCertificate()
        digest = next(f.value for f in self.certificate.getFingerprints() if f.algorithm == "sha-256")
        transport = (
            f"a=ice-ufrag:{self.ufrag}\na=ice-pwd:{self.password}\na=fingerprint:sha-256 {digest}\n"
            "a=setup:actpass\na=rtcp-mux\na=recvonly\na=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\n"
        )
        text = "v=0\no=- 1 1 IN IP4 0.0.0.0\ns=-\nt=0 0\n" + f"a=group:BUNDLE 0{' 1' if audio else ''}\n"
        text += f"m=video 9 UDP/TLS/RTP/SAVPF 96{' 97' if rtx else ''}\na=mid:0\n{transport}"
        text += "a=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1;profile-level-id=42e01f\n"
        text += "a=rtcp-fb:96 nack\na=rtcp-fb:96 nack pli\na=rtcp-fb:96 ccm fir\n"
        text += "a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\n"
        more = "a=extmap:6 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\n"
        more += "a=extmap:7 http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time\n"
        if numbers:
            text += more + "a=rtcp-fb:96 transport-cc\na=rtcp-fb:96 goog-remb\n"
        if rtx:
            text += "a=rtpmap:97 rtx/90000\na=fmtp:97 apt=96\n"
        if audio:
            text += f"m=audio 9 UDP/TLS/RTP/SAVPF 111\na=mid:1\n{transport}a=rtpmap:111 opus/48000/2\n"
            text += more + "a=rtcp-fb:111 transport-cc\n" if numbers else ""
        return text

    async def connect(self, answer: str, *, prefer: str = "") -> None:
        """Runs the checks and the handshake against the first candidate that begins with ``prefer``."""
        from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport

        self.answer = answer
        self.peer_ufrag = re.findall(r"a=ice-ufrag:(\S+)", answer)[0]
        self.peer_password = re.findall(r"a=ice-pwd:(\S+)", answer)[0]
        candidates = re.findall(r"a=candidate:\S+ 1 (?:udp|UDP) \d+ (\S+) (\d+) typ host", answer)
        host, port = next(each for each in candidates if each[0].startswith(prefer))
        self.remote = (host, int(port))
        self.ssrcs = [int(ssrc) for ssrc in re.findall(r"a=ssrc:(\d+) cname", answer)]
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect(self.remote)
        asyncio.get_running_loop().add_reader(self.socket, self._readable)
        self.check()
        await self.checked.wait()
        self.dtls = RTCDtlsTransport(self, [self.certificate])  # type: ignore[arg-type]
        self.dtls._set_role("server" if "a=setup:active" in answer else "client")
        value = re.findall(r"a=fingerprint:sha-256 (\S+)", answer)[0]
        await self.dtls.start(RTCDtlsParameters(fingerprints=[RTCDtlsFingerprint("sha-256", value)]))
        assert self.dtls.state == "connected"

    def restart(self, answer: str, ufrag: str) -> None:
        """Goes on from another socket under new credentials, as a phone that changes its network; the check is sent."""
        self.vanish()
        self.ufrag = ufrag
        self.peer_ufrag = re.findall(r"a=ice-ufrag:(\S+)", answer)[0]
        self.peer_password = re.findall(r"a=ice-pwd:(\S+)", answer)[0]
        self.socket = socket.socket(socket.AF_INET6 if ":" in self.remote[0] else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect(self.remote)
        asyncio.get_running_loop().add_reader(self.socket, self._readable)
        self.checked.clear()
        self.check()

    def check(self, *, nominate: bool = True, password: str = "") -> None:
        """Sends one connectivity check."""
        self.socket.send(self.request(nominate=nominate, password=password))

    def request(self, *, nominate: bool = True, password: str = "") -> bytes:
        """One connectivity check."""
        transaction = secrets.token_bytes(12)
        self._transactions.add(transaction)
        attributes = [
            (stun.USERNAME, f"{self.peer_ufrag}:{self.ufrag}".encode()),
            (stun.PRIORITY, struct.pack("!I", 1)),
            (stun.ICE_CONTROLLING, bytes(8)),
        ]
        if nominate:
            attributes.append((stun.USE_CANDIDATE, b""))
        message = stun.Message(stun.BINDING, stun.Class.REQUEST, transaction, tuple(attributes))
        return message.to_bytes((password or self.peer_password).encode())

    def send_rtcp(self, *packets: RtcpPacket, before: bytes = b"") -> None:
        self.socket.send(self.dtls._tx_srtp.protect_rtcp(before + pack_compound(packets)))

    def tell(self) -> None:
        """Sends feedback on what has arrived since the last time."""
        while (feedback := self._arrivals.take(media_ssrc=self.ssrcs[0])) is not None:
            self.send_rtcp(feedback)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until what has arrived fulfils a condition."""
        while not condition():
            self._news.clear()
            await self._news.wait()

    async def leave(self) -> None:
        """Ends as a browser that is closed: with a DTLS alert."""
        pump = self.dtls._task
        await self.dtls.stop()
        if pump is not None:
            await asyncio.wait([pump])

    def vanish(self) -> None:
        """Ends without a word."""
        asyncio.get_running_loop().remove_reader(self.socket)
        self.socket.close()

    async def _recv(self) -> bytes:
        return await self._pending.get()

    async def _send(self, data: bytes) -> None:
        self.socket.send(data)

    def _seen_at(self) -> tuple[tuple[int, bytes], ...]:
        """The address that the other end has shown (RFC 8489 section 14.2); IPv4."""
        host, port = self.remote
        cookie = stun.MAGIC_COOKIE.to_bytes(4, "big")
        address = bytes(a ^ b for a, b in zip(socket.inet_aton(host), cookie, strict=True))
        return ((stun.XOR_MAPPED_ADDRESS, struct.pack("!BBH", 0, 1, port ^ (stun.MAGIC_COOKIE >> 16)) + address),)

    def _take(self, packet: RtpPacket) -> None:
        self.rtp.append(packet)
        number = dict(packet.extensions).get(6)
        if number is not None:
            self._arrivals.add(int.from_bytes(number, "big"), now_ns=time.monotonic_ns())

    def _readable(self) -> None:
        while True:
            try:
                data = self.socket.recv(2048)
            except OSError:  # nothing there, or the other end has closed
                break
            self._handle(data)
        self._news.set()

    def _handle(self, data: bytes) -> None:
        if stun.looks_like_stun(data):
            message = stun.Message.parse(data)
            if message.kind is stun.Class.SUCCESS and message.verify(self.peer_password.encode()):
                assert message.transaction_id in self._transactions
                self.checked.set()
            elif message.kind is stun.Class.REQUEST:
                reply = stun.Message(stun.BINDING, stun.Class.SUCCESS, message.transaction_id, self._seen_at())
                self.socket.send(reply.to_bytes(self.password.encode()))
        elif 20 <= data[0] <= 63:
            self._pending.put_nowait(data)
        elif looks_like_rtcp(data):
            if self.dtls.state == "connected":  # it may overtake the end of the handshake
                self.rtcp += parse_compound(self.dtls._rx_srtp.unprotect_rtcp(data))
        elif self.dtls.state == "connected" and not self.lose(parse_protected(data)):
            self._take(RtpPacket.parse(self.dtls._rx_srtp.unprotect(data)))  # media may overtake it, too
