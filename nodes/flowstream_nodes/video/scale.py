"""Change the size of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import field_validator

from flowstream import (
    Caps,
    Config,
    Emit,
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
from flowstream_nodes.video._formats import has_arrays, with_arrays

if TYPE_CHECKING:
    from flowstream_nodes.video._scaling import Scaler


class ScaleConfig(Config):
    """What size, and what becomes of another shape."""

    size: PictureSize = live(description="Width and height in pixels, both even.")
    fit: Literal["stretch", "contain", "cover"] = live(
        default="contain",
        description="A picture of another shape is distorted (stretch), gets black bars (contain) or loses its "
        "edges (cover).",
    )

    @field_validator("size")
    @classmethod
    def _is_even(cls, size: Size) -> Size:
        if size.width % 2 or size.height % 2:
            even = Size(size.width // 2 * 2, size.height // 2 * 2)
            raise ValueError(f"{size} has an odd side, which 4:2:0 colour cannot have; write {even}")
        return size


class Scale(Transform[ScaleConfig], type="scale"):
    """Gives every picture one size. A change of the size, here or of the source, is followed without an interruption.

    Pictures keep their pixel format; one that has no plain arrays leaves as ``yuv420p``. A picture that has the size
    already passes untouched.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 1280x720, duration: 2s}
      small: {type: scale, from: pattern, size: 640x360}
      nowhere: {type: discard, from: small}
    ```
    """

    thread = True
    needs = (Need("cv2", "opencv-python", optional=True),)

    video = Input(VideoFrame, follows={"size"}, doc="Pictures of any size and format.")
    scaled = Output(VideoFrame, doc="The same pictures in the size asked for.")

    _scaler: Scaler

    @classmethod
    def negotiate(cls, config: ScaleConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """The size, and the format that comes in where it is known to be kept."""
        video = incoming.get("video")
        given = video if isinstance(video, VideoCaps) else VideoCaps()
        width, height = config.size
        if (given.width, given.height) == (width, height):
            return {"scaled": given}
        is_kept = has_arrays(given.format, given.width, given.height)
        if is_kept:
            return {"scaled": replace(given, width=width, height=height)}
        format = None if is_kept is None else with_arrays(given.width, given.height)
        return {"scaled": VideoCaps(format=format, width=width, height=height, fps=given.fps)}

    def open(self) -> None:
        """Chooses what scales: OpenCV where it loads, else swscale."""
        from flowstream_nodes.video._scaling import Scaler

        self._scaler = Scaler()
        if (error := self._scaler.without_opencv) is not None:
            self.ctx.log.info("scaling by swscale, which takes longer, since OpenCV does not load: %s", error)

    def process(self, frame: VideoFrame) -> tuple[Emit[VideoFrame]]:
        """One picture in, one out."""
        return (self.scaled(self._scaler.scaled(frame, self.config.size, self.config.fit)),)
