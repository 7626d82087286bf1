"""What type checkers have to refuse: each line marked ``refused`` is an error to mypy and to pyright."""

from collections.abc import Iterator

from flowstream import (
    AudioFrame,
    Config,
    Context,
    Emit,
    Graph,
    Input,
    Node,
    Output,
    Record,
    Transform,
    VideoFrame,
    edge,
    live,
    node,
)


class ThinConfig(Config):
    max_fps: float = live(gt=0, description="Rate.")
    worse: int = live(default="three", description="A text is no number.")  # refused


class WrongPayload(Transform, type="acme/wrong-payload"):
    """Emits sound where pictures belong."""

    video = Input(VideoFrame)
    audio = Output(AudioFrame)
    notes = Output(Record[str])

    def process(self, frame: VideoFrame) -> Iterator[Emit[AudioFrame | Record[str]]]:
        yield self.audio(frame)  # refused
        yield self.notes(Record(3, frame.time_ns))  # refused


class WrongLike(Transform, type="acme/wrong-like"):
    """An output that carries what an input carries."""

    video = Input(VideoFrame)
    out = Output(like=video)

    def process(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame]]:
        yield self.out("frame")  # refused


class WrongReturn(Transform, type="acme/wrong-return"):
    """Gives the payload itself."""

    video = Input(VideoFrame)
    out = Output(VideoFrame)

    def process(self, frame: VideoFrame) -> Iterator[VideoFrame]:  # refused
        yield frame


class WrongConfig(Transform[ThinConfig], type="acme/wrong-config"):
    """Asks for a field that is not there."""

    video = Input(VideoFrame)
    out = Output(VideoFrame)

    def process(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame]]:
        if self.config.min_fps > 1:  # refused
            yield self.out(frame)


class WrongReceive(Node, type="acme/wrong-receive"):
    """Takes one payload for another."""

    video = Input(VideoFrame)

    async def run(self, ctx: Context) -> None:
        sound: AudioFrame = await ctx.receive(self.video)  # refused
        async for frame in ctx.stream(self.video):
            sound = frame  # refused
        ctx.log.info("%s", sound)


@node("acme/half")
def half(frame: VideoFrame, *, factor: float = live(0.5, description="Factor.")) -> VideoFrame:
    """Changes nothing."""
    return frame


def use(frame: VideoFrame, sound: AudioFrame) -> None:
    ThinConfig()  # refused
    ThinConfig(max_fps=1.0, extra=3)  # refused
    half(sound)  # refused
    half(frame, factor="much")  # refused
    half(frame, 0.5)  # refused
    WrongConfig(3)  # refused


def desk(graph: Graph) -> None:
    graph.add(5)  # refused
    screen = graph.add("screen", fps=object())  # refused
    graph.add("scale", from_=3)  # refused
    graph.add("scale", inputs=["a"])  # refused
    graph.add("scale", path=screen)  # refused
    graph.add("scale", convert="sometimes")  # refused
    edge(screen, overflow="drop")  # refused
    edge(screen, items="many")  # refused
    screen[0]  # refused
