"""A stage for viewers: the real sockets, sessions and page, fed with packets that were encoded beforehand."""

from __future__ import annotations

import asyncio
import fractions
import functools
import itertools
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from anyio.abc import TaskGroup

from flowstream import EncodedCaps, EncodedPacket, ViewerRegistry
from flowstream.control.tokens import TokenStore
from flowstream.proto.admission import Approval
from flowstream.proto.ice_servers import IceServer
from flowstream.proto.sdp import Kind
from flowstream_nodes.codec._scheduling import kept_scheduling
from flowstream_nodes.webrtc._gathering import Reach
from flowstream_nodes.webrtc._viewers import Feeder, Viewers, open_viewers
from flowstream_nodes.webrtc._whep import About, make_app, read_page
from tests.nodes.webrtc.player import LoopbackViewer

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
    with kept_scheduling():
        encoder.open()
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
    approval: Approval = "none"
    events: list[Any] = field(default_factory=list)
    tokens: TokenStore = field(init=False)
    servers: tuple[IceServer, ...] = ()
    reach: Reach = field(default_factory=Reach)
    requests: list[int] = field(default_factory=list)
    picture: tuple[EncodedPacket, ...] = ()
    position: int = 0
    age_ns: int | None = None  # of a picture when it is sent; None says nothing of that
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
        if self.age_ns is not None:
            packet = replace(packet, capture_ns=self.clock.now_ns() - self.age_ns)
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
async def serve(app: Any, port: int, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """An HTTP server with the application at its root."""
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning", lifespan="off", ws="none"))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()
    main_loop = asyncio.ensure_future(server.main_loop())
    try:
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await main_loop
        await server.shutdown()


@asynccontextmanager
async def open_stage(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    kinds: frozenset[Kind] = frozenset({"video", "audio"}),
    reach: Reach | None = None,
    http: str = "127.0.0.1",
) -> AsyncIterator[Stage]:
    """A stage that is ready for viewers; nothing is sent before the test says so. ``http`` is where the page is."""
    clock = Clock()
    async with anyio.create_task_group() as tasks:
        holding = StageHolding(tasks, clock)
        registry = ViewerRegistry(clock.now_ns, clock.wallclock_ns)
        async with open_viewers(holding, registry, host=host, port=port or free_port()) as viewers:
            feeder = Feeder(
                lambda: kinds,
                lambda: stage.most,
                lambda index: stage.ask_keyframe(),
                lambda: None,
                lambda: stage.approval,
                reach=lambda: stage.reach,
            )
            stage = Stage(viewers, feeder, clock, "", tasks, clock.now_ns(), picture=encoded_video())
            if reach is not None:
                stage.reach, stage.servers = reach, reach.servers
            tokens = TokenStore(None, clock.wallclock_ns)
            registry.attend(node=lambda: "out", tell=stage.events.append, tokens=tokens)
            stage.tokens = tokens
            app = make_app(
                viewers,
                about=lambda: About(stage.title, "video" in kinds, "audio" in kinds, stage.origins, stage.servers),
                page=read_page(),
            )
            with viewers.feeding(feeder, media_ns=stage.media_ns()):
                async with serve(app, port, http) as stage.url:
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


@pytest.fixture
async def stage(stage_of: Callable[..., Any]) -> AsyncIterator[Stage]:
    """A stage that is open."""
    async with stage_of() as stage:
        yield stage


@pytest.fixture
async def http(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the stage's server."""
    async with httpx.AsyncClient(base_url=stage.url) as client:
        yield client
