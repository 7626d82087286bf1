"""A stage for viewers: the real sockets, sessions and page, fed with packets that were encoded beforehand."""

from __future__ import annotations

import asyncio
import fractions
import functools
import itertools
import logging
import re
import secrets
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import pytest
import uvicorn
from anyio.abc import TaskGroup

from flowstream import EncodedCaps, EncodedPacket
from flowstream.proto import stun
from flowstream.proto.rtcp import RtcpPacket, looks_like_rtcp, pack_compound, parse_compound
from flowstream.proto.rtp import RtpPacket
from flowstream.proto.sdp import Kind
from flowstream_nodes.webrtc._viewers import Feeder, Viewers, open_viewers
from flowstream_nodes.webrtc._whep import About, Relay, make_app, read_page

FPS = 30
VIDEO = EncodedCaps(codec="h264", width=640, height=360)
AUDIO = EncodedCaps(codec="opus", rate=48_000, layout="stereo")


ENCODERS = {
    "h264": ("libx264", {"preset": "superfast", "tune": "zerolatency"}),
    "vp8": ("libvpx", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
    "av1": ("libsvtav1", {"preset": "12", "svtav1-params": "pred-struct=1:rc=2"}),
}


@functools.cache
def encoded_video(
    size: tuple[int, int] = (640, 360), seconds: int = 2, *, gop: int = FPS // 2, codec: str = "h264"
) -> tuple[EncodedPacket, ...]:
    """A moving test picture, a keyframe every ``gop`` pictures, times from zero."""
    import av

    graph = av.filter.Graph()
    source = graph.add("testsrc2", f"size={size[0]}x{size[1]}:rate={FPS}")
    pixels, sink = graph.add("format", "yuv420p"), graph.add("buffersink")
    source.link_to(pixels)
    pixels.link_to(sink)
    graph.configure()
    name, options = ENCODERS[codec]
    encoder = av.CodecContext.create(name, "w")
    encoder.width, encoder.height = size
    encoder.pix_fmt, encoder.framerate = "yuv420p", fractions.Fraction(FPS)
    encoder.time_base, encoder.bit_rate, encoder.gop_size = fractions.Fraction(1, FPS), 1_000_000, gop
    if codec == "h264":
        encoder.profile = "Baseline"
    encoder.options = options
    packets: list[EncodedPacket] = []
    for index in range(FPS * seconds):
        frame = graph.pull()
        assert isinstance(frame, av.VideoFrame)
        frame.pts, frame.time_base = index, fractions.Fraction(1, FPS)
        frame.pict_type = av.video.frame.PictureType.NONE  # the source marks every picture as one to decode by itself
        (packet,) = encoder.encode(frame)
        caps = replace(VIDEO, codec=codec, width=size[0], height=size[1])
        packets.append(EncodedPacket(caps, bytes(packet), time_ns=index * 10**9 // FPS, keyframe=packet.is_keyframe))
    return tuple(packets)


@functools.cache
def encoded_audio() -> tuple[EncodedPacket, ...]:
    """One second of a 440 Hz tone in packets of 20 ms."""
    import av

    graph = av.filter.Graph()
    source = graph.add("sine", "frequency=440:sample_rate=48000:samples_per_frame=960")
    shape = graph.add("aformat", "sample_fmts=flt:channel_layouts=stereo")
    sink = graph.add("abuffersink")
    source.link_to(shape)
    shape.link_to(sink)
    graph.configure()
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "stereo", "flt"
    encoder.bit_rate = 64_000
    packets: list[bytes] = []
    while len(packets) < 50:
        frame = graph.pull()
        assert isinstance(frame, av.AudioFrame)
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return tuple(EncodedPacket(AUDIO, data, time_ns=20_000_000 * n) for n, data in enumerate(packets))


@dataclass
class Clock:
    """Real time, which a test may move on."""

    skipped_ns: int = 0

    def now_ns(self) -> int:
        return time.monotonic_ns() + self.skipped_ns

    def wallclock_ns(self) -> int:
        return time.time_ns() + self.skipped_ns

    def skip(self, seconds: float) -> None:
        self.skipped_ns += round(seconds * 1e9)


class StageHolding:
    """A holding as the engine gives it, on a task group of the test."""

    def __init__(self, tasks: TaskGroup, clock: Clock) -> None:
        self._tasks = tasks
        self.log = logging.LoggerAdapter(logging.getLogger("flowstream.test"), {})
        self.now_ns = clock.now_ns
        self.wallclock_ns = clock.wallclock_ns

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        self._tasks.start_soon(function, *args)


@dataclass
class Stage:
    """Viewers with a feeder, an HTTP server in front, and what they asked for."""

    viewers: Viewers
    feeder: Feeder
    clock: Clock
    url: str
    tasks: TaskGroup
    start_ns: int
    title: str = "Test pattern"
    most: int = 10
    origins: tuple[str, ...] = ()
    relays: tuple[Relay, ...] = ()
    requests: list[int] = field(default_factory=list)
    picture: tuple[EncodedPacket, ...] = ()
    position: int = 0
    is_paused: bool = False

    def media_ns(self) -> int:
        return self.clock.now_ns() - self.start_ns

    def ask_keyframe(self) -> None:
        """What an encoder does: the next picture is a keyframe."""
        self.requests.append(self.clock.now_ns())
        while not self.picture[self.position].keyframe:
            self.position = (self.position + 1) % len(self.picture)

    def send_picture(self) -> EncodedPacket:
        """Sends the next picture at its time on the timeline."""
        packet = replace(self.picture[self.position], time_ns=self.media_ns())
        self.position = (self.position + 1) % len(self.picture)
        self.viewers.send_video(packet, self.feeder)
        return packet

    async def play(self) -> None:
        """Sends picture and sound in real time until cancelled."""
        sound = encoded_audio()
        start_ns, start_s = self.media_ns(), anyio.current_time()
        for tick in itertools.count():
            await anyio.sleep_until(start_s + tick / 100)
            if self.is_paused:
                continue
            if tick % 2 == 0:
                time_ns = start_ns + tick * 10_000_000
                self.viewers.send_audio(replace(sound[tick // 2 % len(sound)], time_ns=time_ns), self.feeder)
            if self.picture and tick % 10 in (0, 3, 7):
                self.send_picture()


def free_port() -> int:
    """A port that is free for TCP and UDP on loopback right now."""
    with socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        return int(tcp.getsockname()[1])


@asynccontextmanager
async def serve(app: Any, port: int) -> AsyncIterator[str]:
    """An HTTP server on loopback with the application at its root."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off", ws="none")
    )
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()
    main_loop = asyncio.ensure_future(server.main_loop())
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await main_loop
        await server.shutdown()


@asynccontextmanager
async def open_stage(
    *, host: str = "127.0.0.1", port: int = 0, kinds: frozenset[Kind] = frozenset({"video", "audio"})
) -> AsyncIterator[Stage]:
    """A stage that is ready for viewers; nothing is sent before the test says so."""
    clock = Clock()
    async with anyio.create_task_group() as tasks:
        async with open_viewers(StageHolding(tasks, clock), host=host, port=port or free_port()) as viewers:
            feeder = Feeder(lambda: kinds, lambda: stage.most, lambda: stage.ask_keyframe(), lambda: None)
            stage = Stage(viewers, feeder, clock, "", tasks, clock.now_ns(), picture=encoded_video())
            app = make_app(
                viewers,
                about=lambda: About(stage.title, "video" in kinds, "audio" in kinds, stage.origins, stage.relays),
                page=read_page(),
            )
            with viewers.feeding(feeder, media_ns=stage.media_ns()):
                async with serve(app, port) as stage.url:
                    yield stage
        tasks.cancel_scope.cancel()


@pytest.fixture
def stage_of() -> Callable[..., Any]:
    """Opens a stage: ``async with stage_of() as stage``."""
    return open_stage


@pytest.fixture
def pictures() -> Callable[..., tuple[EncodedPacket, ...]]:
    """Encodes a test picture: ``pictures((320, 180))``."""
    return encoded_video


class LoopbackViewer:
    """A WHEP player of a few lines: one UDP socket, checks with nomination, DTLS as client, no decoder."""

    def __init__(self) -> None:
        self.rtp: list[RtpPacket] = []
        self.rtcp: list[RtcpPacket] = []
        self.ufrag, self.password = secrets.token_hex(4), secrets.token_hex(16)
        self._news = asyncio.Event()
        self._pending: asyncio.Queue[bytes] = asyncio.Queue()
        self._transactions: set[bytes] = set()
        self.checked = asyncio.Event()
        self.role, self.state = "controlling", "completed"
        self.lose: Callable[[RtpPacket], bool] = lambda packet: False  # asked before its payload is decrypted

    def offer(self, *, rtx: bool = True, audio: bool = True) -> str:
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
        if rtx:
            text += "a=rtpmap:97 rtx/90000\na=fmtp:97 apt=96\n"
        if audio:
            text += f"m=audio 9 UDP/TLS/RTP/SAVPF 111\na=mid:1\n{transport}a=rtpmap:111 opus/48000/2\n"
        return text

    async def connect(self, answer: str, *, prefer: str = "") -> None:
        """Runs the checks and the handshake against the first candidate that begins with ``prefer``."""
        from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport

        self.answer = answer
        self.peer_ufrag = re.findall(r"a=ice-ufrag:(\S+)", answer)[0]
        self.peer_password = re.findall(r"a=ice-pwd:(\S+)", answer)[0]
        candidates = re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host", answer)
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
        self.dtls._set_role("client")
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

    def _readable(self) -> None:
        while True:
            try:
                data = self.socket.recv(2048)
            except OSError:  # nothing there, or the other end has closed
                break
            if stun.looks_like_stun(data):
                message = stun.Message.parse(data)
                if message.kind is stun.Class.SUCCESS and message.verify(self.peer_password.encode()):
                    assert message.transaction_id in self._transactions
                    self.checked.set()
            elif 20 <= data[0] <= 63:
                self._pending.put_nowait(data)
            elif self.dtls._rx_srtp is None:  # the other end has the keys a moment earlier
                continue
            elif looks_like_rtcp(data):
                self.rtcp += parse_compound(self.dtls._rx_srtp.unprotect_rtcp(data))
            else:
                if not self.lose(RtpPacket.parse(data)):
                    self.rtp.append(RtpPacket.parse(self.dtls._rx_srtp.unprotect(data)))
        self._news.set()


@pytest.fixture
async def make_viewer() -> AsyncIterator[Callable[[], LoopbackViewer]]:
    """Makes players, and ends them with the test."""
    made: list[LoopbackViewer] = []

    def make() -> LoopbackViewer:
        made.append(LoopbackViewer())
        return made[-1]

    yield make
    for viewer in made:
        if hasattr(viewer, "dtls"):
            await viewer.leave()
        if hasattr(viewer, "socket") and viewer.socket.fileno() >= 0:
            viewer.vanish()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"
