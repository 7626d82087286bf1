"""Node types for the tests of the graph language; none of them ever runs."""

import enum
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from flowstream import (
    AudioCaps,
    AudioFrame,
    Bitrate,
    ByteSize,
    Caps,
    Config,
    Context,
    Duration,
    Emit,
    EncodedCaps,
    EncodedPacket,
    Input,
    Need,
    Node,
    Output,
    Percentage,
    PictureSize,
    Record,
    Sink,
    Size,
    Source,
    Transform,
    VideoCaps,
    VideoFrame,
    field,
    live,
)


class Capturing(Source[Any]):
    def capture(self) -> Iterable[Emit[Any]] | None:
        return None


class PatternConfig(Config):
    size: PictureSize = field(default=Size(1280, 720), description="Picture size.")
    fps: float = field(default=30, gt=0, le=240, unit="frames per second", description="Frame rate.")
    text: str = live(default="", max_length=20, description="What is written on it.")
    style: Literal["bars", "ramp"] = live(default="bars", description="What is drawn.")
    seed: int = field(default=0, ge=0, description="Where the noise starts.")
    duration: Literal["forever"] | Duration = field(default="forever", description="How long it lasts.")


class Pattern(Capturing, Source[PatternConfig], type="pattern"):
    """Draw a moving picture."""

    is_live = True
    video = Output(VideoFrame, caps=VideoCaps(format="yuv420p"))


class Tone(Capturing, Source, type="tone"):
    """Make a tone."""

    is_live = True
    audio = Output(AudioFrame)


class FilmConfig(Config):
    path: str = field(min_length=1, description="File to read.")
    paced: bool = field(default=False, description="Read at its own speed.")


class Film(Capturing, Source[FilmConfig], type="film"):
    """Read a file."""

    video = Output(EncodedPacket, caps=EncodedCaps(codec=("h264", "vp8")))
    audio = Output(EncodedPacket, caps=EncodedCaps(codec=("opus", "aac")))

    @classmethod
    def live_with(cls, config: FilmConfig, /) -> bool:
        return config.paced


class Views(Capturing, Source, type="views"):
    """Give the same scene twice."""

    left = Output(VideoFrame, caps=VideoCaps(format="yuv420p"))
    right = Output(VideoFrame, caps=VideoCaps(format="yuv420p"))


class Area(Config):
    at: PictureSize = live(default=Size(64, 64), description="Where.")
    opacity: float = live(default=1.0, ge=0, le=1, description="How much shows.")


class BlurConfig(Config):
    radius: int = live(default=5, ge=1, le=99, unit="pixels", description="How far it reaches.")
    area: Area = live(default_factory=lambda: Area.model_validate({}), description="Part of the picture.")
    marks: list[Area] = field(default_factory=list, max_length=2, description="More parts.")
    names: tuple[str, ...] = field(default_factory=tuple, description="What to call it.")


class Blur(Transform[BlurConfig], type="blur"):
    """Blur pictures."""

    frames = Input(VideoFrame)
    blurred = Output(VideoFrame, like=frames)

    @classmethod
    def negotiate(cls, config: BlurConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        return {"blurred": incoming["frames"]} if "frames" in incoming else {}

    def process(self, frame: VideoFrame) -> Iterable[Emit[VideoFrame]]:
        return [self.blurred(frame)]


class Pass(Transform, type="pass"):
    """Pass on whatever comes."""

    anything = Input(VideoFrame, AudioFrame, EncodedPacket)
    same = Output(like=anything)

    def process(self, payload: Any) -> None:
        return None


class EncodeConfig(Config):
    bitrate: Bitrate = live(description="Wanted rate, in bits per second.")
    max: Literal["auto"] | Bitrate = field(default="auto", description="Highest rate.")
    codec: Literal["h264", "vp8"] = field(default="h264", description="What to encode to.")
    keyframe_interval: Duration = live(default=2_000_000_000, description="Longest time between keyframes.")


class Encode(Node[EncodeConfig], type="encode"):
    """Encode pictures."""

    video = Input(VideoFrame, caps=VideoCaps(format=("yuv420p", "nv12")))
    targets = Input(Record, feedback=True)
    packets = Output(EncodedPacket, caps=EncodedCaps(codec="h264"), main=True)
    statistics = Output(Record)

    @classmethod
    def updates_in_place(cls, old: EncodeConfig, new: EncodeConfig, /) -> bool | str:
        if new.bitrate > 2 * old.bitrate:
            return "more than the encoder was opened for"
        return True

    async def run(self, ctx: Context) -> None:
        ctx.ready()


class Sound(Transform, type="sound-encode"):
    """Encode sound."""

    audio = Input(AudioFrame)
    packets = Output(EncodedPacket, caps=EncodedCaps(codec="opus"))

    def process(self, frame: AudioFrame) -> None:
        return None


class Abr(Node, type="abr"):
    """Steer encoders."""

    reports = Input(Record, feedback=True)
    targets = Output(Record)

    async def run(self, ctx: Context) -> None:
        ctx.ready()


class Viewers(Config):
    max: int = live(default=10, ge=1, le=1000, description="How many at once.")
    idle: Duration = live(default=60_000_000_000, description="How long one may be silent.")


class ShowConfig(Config):
    title: str = live(default="", description="Title of the page.")
    viewers: Viewers = live(default_factory=lambda: Viewers.model_validate({}), description="Who may watch.")
    token: str = live(default="", description="What viewers must know.")
    port: int = field(default=0, ge=0, le=65535, description="UDP port.")


class Show(Node[ShowConfig], type="show"):
    """Show a stream to viewers."""

    video = Input(EncodedPacket, caps=EncodedCaps(codec="h264"), optional=True)
    audio = Input(EncodedPacket, caps=EncodedCaps(codec="opus"), optional=True)
    reports = Output(Record)

    async def run(self, ctx: Context) -> None:
        ctx.ready()


class TapeConfig(Config):
    path: str = field(description="Where to write, such as recordings/tape.mp4.", examples=["recordings/tape.mp4"])
    keep: ByteSize = live(default=50_000_000_000, description="How much to keep.")
    first: int = field(default=0, description="First part.")
    last: int = field(default=9, description="Last part.")

    @model_validator(mode="after")
    def is_ordered(self) -> "TapeConfig":
        if self.first > self.last:
            raise ValueError(f"first ({self.first}) comes after last ({self.last}) in {self.path}")
        return self


class Tape(Node[TapeConfig], type="tape"):
    """Record a stream."""

    video = Input(EncodedPacket, optional=True)
    audio = Input(EncodedPacket, caps=EncodedCaps(codec=("opus", "aac")), optional=True)

    async def run(self, ctx: Context) -> None:
        ctx.ready()


class Mix(Node, type="mix"):
    """Mix sounds."""

    sounds = Input(AudioFrame, many=True)
    mixed = Output(AudioFrame)

    async def run(self, ctx: Context) -> None:
        ctx.ready()


class Drop(Sink, type="discard"):
    """Take whatever comes."""

    anything = Input(object)

    def consume(self, payload: object) -> None:
        return None


class Door(Sink, type="door"):
    """Compare two pictures."""

    front = Input(VideoFrame)
    back = Input(VideoFrame)

    @front.handler
    def on_front(self, frame: VideoFrame) -> None:
        return None

    @back.handler
    def on_back(self, frame: VideoFrame) -> None:
        return None


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class OddConfig(Config):
    colour: Colour = field(description="Which colour.")
    name: str = field(pattern="^[a-z]+$", examples=["desk"], description="NAME of it.")
    code: str = field(default="A1", pattern="^[A-Z][0-9]$", description="Code.")
    level: Literal["auto"] | Annotated[int, Field(ge=1, le=9)] = live(default="auto", description="How much.")
    share: float | int = live(default=0.5, gt=0, lt=1, description="Part of it.")
    count: int = field(ge=3, description="How many.")
    loud: bool = field(description="Whether it is loud.")
    extra: dict[str, int] = field(default_factory=dict, description="Whatever else.")
    where: Path = field(default=Path("here"), description="Where it is.")
    tags: list[str] = field(default_factory=list, min_length=0, max_length=3, description="Words.")
    secret: str = live(default="", min_length=0, description="A secret.")
    loss: Percentage = live(default=0.0, le=0.5, description="How much is lost.")

    @field_validator("code")
    @classmethod
    def is_not_z(cls, value: str) -> str:
        assert not value.startswith("Z"), "codes begin with A to Y"
        return value


class Odd(Capturing, Source[OddConfig], type="odd"):
    """Have settings of every kind."""

    video = Output(VideoFrame)


class Exotic(Sink, type="exotic"):
    """Need what nobody has."""

    needs = (Need("no_such_library_of_anyone", "no-such-library"),)
    video = Input(VideoFrame)

    def consume(self, frame: VideoFrame) -> None:
        return None


class ConvertConfig(Config):
    format: str | list[str] = live(default="as-is", description="Pixel format, or several to choose from.")
    size: Literal["as-is"] | PictureSize = live(default="as-is", description="Picture size.")


class Convert(Transform[ConvertConfig], type="convert"):
    """Bring pictures into a format and a size."""

    video = Input(VideoFrame)
    converted = Output(VideoFrame)

    def process(self, frame: VideoFrame) -> None:
        return None


class RateConfig(Config):
    fps: float = live(gt=0, description="Frame rate.")


class FrameRate(Transform[RateConfig], type="frame-rate"):
    """Bring pictures to a frame rate."""

    video = Input(VideoFrame)
    steady = Output(VideoFrame)

    def process(self, frame: VideoFrame) -> None:
        return None


class ResampleConfig(Config):
    rate: Literal["as-is"] | int | list[int] = live(default="as-is", description="Samples per second.")
    layout: str | list[str] = live(default="as-is", description="Channels.")
    format: str | list[str] = live(default="as-is", description="Sample format.")


class Resample(Transform[ResampleConfig], type="resample"):
    """Bring sound into a form."""

    audio = Input(AudioFrame)
    resampled = Output(AudioFrame)

    def process(self, frame: AudioFrame) -> None:
        return None


class Decode(Transform, type="decode"):
    """Decode whatever comes."""

    packets = Input(EncodedPacket)
    video = Output(VideoFrame)
    audio = Output(AudioFrame)

    def process(self, packet: EncodedPacket) -> None:
        return None


class ShrinkConfig(Config):
    size: PictureSize = live(description="Picture size.")


class Shrink(Transform[ShrinkConfig], type="shrink"):
    """Make pictures smaller."""

    video = Input(VideoFrame)
    small = Output(VideoFrame)

    @classmethod
    def negotiate(cls, config: ShrinkConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        if config.size.width == 666:
            raise ValueError("the beast")
        before = incoming.get("video")
        format_ = before.format if isinstance(before, VideoCaps) else None
        return {"small": VideoCaps(format=format_, width=config.size.width, height=config.size.height)}

    def process(self, frame: VideoFrame) -> None:
        return None


class Picky(Sink, type="picky"):
    """Take pictures of one kind only."""

    video = Input(VideoFrame, caps=VideoCaps(format=("bgr24", "rgb24"), width=640, height=480, fps=25.0))

    def consume(self, frame: VideoFrame) -> None:
        return None


class Ear(Sink, type="ear"):
    """Take sound of one kind only."""

    audio = Input(AudioFrame, caps=AudioCaps(format="fltp", rate=48_000, layout="mono"))

    def consume(self, frame: AudioFrame) -> None:
        return None


class Stack(Node, type="stack"):
    """Put pictures beside one another."""

    pictures = Input(VideoFrame, many=True)
    stacked = Output(VideoFrame)

    async def run(self, ctx: Context) -> None:
        ctx.ready()


__all__ = [
    "Abr", "Blur", "Convert", "Decode", "Door", "Drop", "Ear", "Encode", "Exotic", "Film", "FrameRate", "Mix", "Odd",
    "Pass", "Pattern", "Picky", "Resample", "Show", "Shrink", "Sound", "Stack", "Tape", "Tone", "Views",
]  # fmt: skip
