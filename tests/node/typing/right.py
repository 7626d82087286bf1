"""What type checkers have to accept."""

from collections.abc import Iterator
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

from flowstream import (
    AudioFrame,
    Config,
    Context,
    Emit,
    EncodedPacket,
    Graph,
    GraphNode,
    Input,
    Node,
    Output,
    Record,
    Sink,
    Source,
    Transform,
    VideoFrame,
    edge,
    field,
    live,
    node,
)


class ThinConfig(Config):
    max_fps: float = live(gt=0, description="Rate.")
    name: str = field(default="x", description="Name.")
    level: int = field(default=3, description="Level.")
    tags: list[str] = field(default_factory=list, description="Tags.")


class Thin(Transform[ThinConfig], type="acme/thin"):
    """One input, one output."""

    frames = Input(VideoFrame)
    kept = Output(VideoFrame, like=frames)

    def process(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame]]:
        if self.config.max_fps > 1.5:
            yield self.kept(frame)


class Mix(Transform, type="acme/mix"):
    """Two inputs, two outputs."""

    video = Input(VideoFrame)
    audio = Input(AudioFrame, EncodedPacket)
    out = Output(like=video)
    notes = Output(Record[str])

    @video.handler
    def on_video(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame | Record[str]]]:
        yield self.out(frame)
        yield self.notes(Record("seen", frame.time_ns))

    @audio.handler
    def on_audio(self, payload: AudioFrame | EncodedPacket) -> None: ...


class Save(Sink, type="acme/save"):
    """A sink that waits."""

    video = Input(VideoFrame)

    async def consume(self, frame: VideoFrame) -> None: ...


class Beat(Source, type="acme/beat"):
    """A source with a life of its own."""

    out = Output(VideoFrame)

    async def run(self, ctx: Context) -> None:
        while True:
            await ctx.emit(self.out(await ctx.in_thread(self._frame, 3)))

    def _frame(self, number: int) -> VideoFrame:
        raise NotImplementedError(number)


class Route(Node, type="acme/route"):
    """Reads as it likes."""

    video = Input(VideoFrame)
    reports = Input(Record[int], feedback=True)
    anything = Input(VideoFrame, AudioFrame, EncodedPacket, Record, optional=True)
    out: Output[Any] = Output(like=anything)

    async def run(self, ctx: Context) -> None:
        frame: VideoFrame = await ctx.receive(self.video)
        newest: Record[int] | None = ctx.latest(self.reports)
        async for each in ctx.stream(self.video):
            frame = each
        async for port, payload in ctx.merge(self.video, self.anything):
            ctx.log.info("%s", (port, payload, newest, frame))


@node("acme/half")
def half(frame: VideoFrame, *, factor: float = live(0.5, description="Factor.")) -> VideoFrame:
    """Changes nothing."""
    return frame


def use(frame: VideoFrame) -> VideoFrame:
    ThinConfig(max_fps=3.0, level=1)
    Thin(ThinConfig(max_fps=3.0, level=2, name="y"))
    return half(frame, factor=0.25)


def desk(given: dict[str, Any], viewers: dict[str, int], tags: tuple[str, ...]) -> Graph:
    graph = Graph(Path("desk.yaml"))
    rate: str = graph.var("bitrate", "2.5M", description="Rate.")
    screen: GraphNode = graph.add("screen", fps=30)
    encode = graph.add("hw-encode", id="encode", from_=[screen["video"], edge(screen, overflow="latest")], bitrate=rate)
    graph.add("webrtc-out", inputs={"video": encode, "audio": "voice.packets"}, viewers=viewers, restart={"on": "any"})
    graph.add("overlay", from_=screen, wait=timedelta(seconds=1), aspect=Fraction(16, 9), image=Path("x"), tags=tags)
    graph.use("lib/ladder.yaml", from_=edge(encode, items=3), settings=given, **given).set(top="4M", low=None)
    graph.connect(encode["reports"], "abr.reports")
    return graph
