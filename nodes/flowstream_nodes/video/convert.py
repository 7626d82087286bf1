"""Change the pixel format and the size of a picture to what the next node takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from flowstream import (
    Caps,
    Config,
    Emit,
    FlowstreamError,
    Input,
    Need,
    Output,
    PictureSize,
    Size,
    Transform,
    VideoCaps,
    VideoFrame,
    live,
)
from flowstream_nodes.video._formats import BYTES, has_arrays

if TYPE_CHECKING:
    from flowstream_nodes.video._pixels import PixelConverter
    from flowstream_nodes.video._scaling import Scaler

AS_IS: Literal["as-is"] = "as-is"


class ConvertConfig(Config):
    """What pictures are to be."""

    format: str | Annotated[list[str], Field(min_length=1)] = live(
        default=AS_IS,
        description="Pixel format under FFmpeg's name, such as bgr24 or yuv420p, or a list of those that will do, the "
        "best first; as-is leaves it.",
        examples=["bgr24", ["yuv420p", "nv12"]],
    )
    size: Literal["as-is"] | PictureSize = live(
        default=AS_IS,
        description="Width and height in pixels; as-is leaves them. A picture of another shape gets black bars.",
    )

    @field_validator("format")
    @classmethod
    def _names(cls, format: str | list[str]) -> str | list[str]:
        for name in [format] if isinstance(format, str) else format:
            if name == AS_IS and isinstance(format, list):
                raise ValueError("as-is stands alone: write format: as-is, or a list of formats")
            if name != AS_IS and not (name.isalnum() and name.islower() and name.isascii()):
                raise ValueError(f"{name!r} is no pixel format; write FFmpeg's name, such as bgr24 or yuv420p")
            if name.startswith("yuvj"):
                raise ValueError(f"{name} is an old name; write yuv{name[4:]}, whatever its range")
        return format

    def format_for(self, given: str) -> str:
        """The format that a picture in the given one leaves in."""
        if isinstance(self.format, str):
            return given if self.format == AS_IS else self.format
        return given if given in self.format else self.format[0]


class Convert(Transform[ConvertConfig], type="convert"):
    """Gives pictures the pixel format and the size that the next node takes.

    A picture that fits already passes untouched. A change of what comes in is followed without an interruption. Colours
    stay what they are: YUV keeps its matrix and range, and YUV made of RGB is BT.601 in limited range.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, duration: 2s}
      pixels: {type: convert, from: pattern, format: bgr24, size: 320x180}
      nowhere: {type: discard, from: pixels}
    ```
    """

    thread = True
    needs = (Need("av"), Need("cv2", "opencv-python", optional=True))

    video = Input(VideoFrame, follows={"format", "size"}, doc="Pictures of any size and format.")
    converted = Output(VideoFrame, doc="The same pictures in the format and size asked for.")

    _pixels: PixelConverter
    _scaler: Scaler

    @classmethod
    def negotiate(cls, config: ConvertConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """What is asked for; for the rest, what comes in."""
        video = incoming.get("video")
        given = video if isinstance(video, VideoCaps) else VideoCaps()
        width, height = config.size if isinstance(config.size, Size) else (given.width, given.height)
        if isinstance(config.format, str):
            format = given.format if config.format == AS_IS else config.format
        elif isinstance(given.format, str):
            format = config.format_for(given.format)
        else:
            format = config.format[0] if len(config.format) == 1 else tuple(config.format)
        if format == given.format:
            return {"converted": replace(given, width=width, height=height)}
        return {"converted": VideoCaps(format=format, width=width, height=height, fps=given.fps)}

    def open(self) -> None:
        """Raises FlowstreamError for a format that FFmpeg does not know."""
        from flowstream_nodes.video._pixels import PixelConverter
        from flowstream_nodes.video._scaling import Scaler

        try:
            _require_known(self.config)
        except ValueError as error:
            raise FlowstreamError(str(error), hint="`ffmpeg -pix_fmts` lists them all") from error
        self._pixels = PixelConverter()
        self._scaler = Scaler()

    def accepts(self, config: ConvertConfig, /) -> None:
        _require_known(config)

    def process(self, frame: VideoFrame) -> tuple[Emit[VideoFrame]]:
        """One picture in, one out."""
        format = self.config.format_for(frame.format)
        if isinstance(self.config.size, Size):
            frame = self._resized(frame, self.config.size, format)
        return (self.converted(self._pixels.converted(frame, format)),)

    def _resized(self, frame: VideoFrame, size: Size, format: str) -> VideoFrame:
        """The picture in that size, scaled in whichever of its format and the one asked for is the less work."""
        sides = frame.width, frame.height
        if sides != size and has_arrays(format, *sides):
            grows = size.width * size.height > frame.width * frame.height
            is_less = not has_arrays(frame.format, *sides) or BYTES[format] < BYTES[frame.format]
            if grows or is_less:
                frame = self._pixels.converted(frame, format)
        return self._scaler.scaled(frame, size, "contain")


def _require_known(config: ConvertConfig) -> None:
    """Raises ValueError for a pixel format that FFmpeg does not know or cannot make."""
    from av import VideoFormat

    for name in [config.format] if isinstance(config.format, str) else config.format:
        if name != AS_IS:
            try:
                VideoFormat(name)
            except ValueError as error:
                raise ValueError(f"FFmpeg has no pixel format {name}") from error
