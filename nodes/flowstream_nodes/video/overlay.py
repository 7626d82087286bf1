"""Text, clock and picture on top of a video."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from flowstream import (
    Caps,
    Config,
    Emit,
    Input,
    Need,
    Output,
    Percentage,
    Transform,
    VideoCaps,
    VideoFrame,
    field,
    live,
)
from flowstream_nodes.video._formats import RGB_ORDER, with_arrays

if TYPE_CHECKING:
    from flowstream_nodes.video._drawing import Label, Sprite

Position = Literal[
    "top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right"
]  # fmt: skip

COLOURS = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "red": (220, 40, 40),
    "orange": (240, 140, 20),
    "yellow": (250, 220, 40),
    "green": (50, 190, 80),
    "cyan": (40, 200, 210),
    "blue": (50, 100, 230),
    "magenta": (220, 60, 200),
}
_HEX = re.compile(r"#?[0-9A-Fa-f]{6}")
_CLOCK = re.compile(r"%[aAbBdHIjmMpSyYfF%]")


def colour_of(text: str) -> tuple[int, int, int]:
    """Red, green, blue of a colour's name or of ``rrggbb``. Raises ValueError."""
    if text in COLOURS:
        return COLOURS[text]
    if not _HEX.fullmatch(text):
        raise ValueError(f"{text!r} is no colour; write six hex digits such as ffaa00, or {', '.join(COLOURS)}")
    return tuple(bytes.fromhex(text.removeprefix("#")))  # type: ignore[return-value]


class OverlayConfig(Config):
    """What stands where."""

    text: str = live(
        default="",
        max_length=500,
        description="What is written. %H:%M:%S and the other fields of strftime are filled in; %f is milliseconds; "
        "%% is a percent sign.",
        examples=["Studio 1  %H:%M:%S"],
    )
    position: Position = live(default="bottom-left", description="Where the text stands.")
    height: Percentage = live(
        default=0.05, ge=0.01, le=0.5, description="Height of a line of text, 1% to 50% of the picture's height."
    )
    colour: str = live(default="white", description="Of the text: a name, or six hex digits such as ffaa00.")
    box: Percentage = live(default=0.5, le=1, description="How dark the box behind the text is; 0% is none.")
    zone: Literal["local", "utc"] = live(default="local", description="The time zone of the clock.")
    image: str = field(default="", description="A picture file to put on top (PNG with transparency, JPEG, WebP).")
    image_position: Position = live(default="top-right", description="Where the image stands.")
    image_height: Percentage = live(
        default=0.15, ge=0.01, le=1, description="Height of the image, 1% to 100% of the picture's height."
    )
    image_opacity: Percentage = live(default=1.0, le=1, description="How much the image covers; 0% hides it.")
    margin: Percentage = live(
        default=0.03, le=0.4, description="Distance from the edges, up to 40% of the picture's height."
    )

    @field_validator("colour")
    @classmethod
    def _is_colour(cls, colour: str) -> str:
        colour_of(colour)
        return colour


class Overlay(Transform[OverlayConfig], type="overlay"):
    """Writes text, a running clock or an image over the pictures; everything but the image file changes while it runs.

    Only what is covered is touched. Pictures in ``yuv420p``, ``bgr24``, ``rgb24``, ``bgra`` and ``rgba`` keep their
    format; others leave as ``yuv420p``.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 1280x720, duration: 2s}
      titled: {type: overlay, from: pattern, text: "Studio 1  %H:%M:%S", position: top-left, height: 6%}
      nowhere: {type: discard, from: titled}
    ```
    """

    thread = True
    needs = (Need("cv2", "opencv-python"),)

    video = Input(VideoFrame, follows={"size"}, doc="Pictures of any size and format.")
    titled = Output(VideoFrame, doc="The same pictures with text and image on top.")

    _label: Label
    _image: Sprite | None = None

    @classmethod
    def negotiate(cls, config: OverlayConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """What comes in; where something is drawn, in a format that it can be drawn on."""
        video = incoming.get("video")
        if not isinstance(video, VideoCaps):
            return {}
        is_drawn_on = config.text or (config.image and config.image_opacity > 0)
        if not is_drawn_on or video.format in RGB_ORDER:
            return {"titled": video}
        format = with_arrays(video.width, video.height)
        return {"titled": VideoCaps(format=format, width=video.width, height=video.height, fps=video.fps)}

    def open(self) -> None:
        """Reads the image. Raises FlowstreamError for one that cannot be read."""
        from flowstream_nodes.video import _drawing

        self._label = _drawing.Label()
        if self.config.image:
            self._image = _drawing.Sprite(_drawing.read_image(self.config.image))

    def process(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame]]:
        """Draws on a copy; a picture that nothing stands on passes as it is."""
        from flowstream_nodes.video import _drawing

        config = self.config
        image = self._image if config.image_opacity > 0 else None
        text = self._written()
        if not text and image is None:
            yield self.titled(frame)
            return
        canvas = _drawing.Canvas(frame)
        margin = round(config.margin * frame.height)
        if image is not None:
            sprite = image.patch(config.image_height * frame.height, config.image_opacity, canvas.frame)
            canvas.put(sprite, config.image_position, margin)
        if text:
            colour = colour_of(config.colour)
            label = self._label.patch(text, config.height * frame.height, colour, config.box, canvas.frame)
            canvas.put(label, config.position, margin)
        yield self.titled(canvas.frame)

    def _written(self) -> str:
        text = self.config.text
        if "%" not in text:
            return text
        wallclock_ns = self.ctx.wallclock_ns()
        moment: Any = datetime.fromtimestamp(wallclock_ns // 1_000_000_000, UTC)
        if self.config.zone == "local":
            moment = moment.astimezone()
        ms = f"{wallclock_ns // 1_000_000 % 1000:03}"
        return _CLOCK.sub(lambda part: ms if part[0] == "%f" else moment.strftime(part[0]), text)
