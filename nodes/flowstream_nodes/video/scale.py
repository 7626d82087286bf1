"""Change the size of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from flowstream import Config, Emit, Input, Output, PictureSize, Size, Transform, VideoFrame, live

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    Array = np.ndarray[Any, Any]

Region = tuple[int, int, int, int]
"""x, y, width and height in even pixels."""

FORMATS = ("yuv420p", "nv12", "bgr24", "rgb24", "bgra", "rgba", "bgr0", "gray")


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

    video = Input(VideoFrame, follows={"size"}, doc="Pictures of any size and format.")
    scaled = Output(VideoFrame, doc="The same pictures in the size asked for.")

    _resize: Callable[[Array, int, int], Array]

    def open(self) -> None:
        """Chooses what scales: OpenCV where it loads, else swscale."""
        try:
            import cv2  # noqa: F401
        except ImportError as error:
            self.ctx.log.info("scaling by swscale, which takes longer, since OpenCV does not load: %s", error)
            self._resize = _resize_by_swscale
        else:
            self._resize = _resize_by_opencv

    def process(self, frame: VideoFrame) -> tuple[Emit[VideoFrame]]:
        """One picture in, one out."""
        if (frame.width, frame.height) == self.config.size:
            return (self.scaled(frame),)
        if frame.format not in FORMATS or (frame.format in FORMATS[:2] and (frame.width % 2 or frame.height % 2)):
            frame = _plain(frame)
        return (self.scaled(self._scale(frame)),)

    def _scale(self, frame: VideoFrame) -> VideoFrame:
        import numpy as np

        from flowstream_nodes.video import _planes

        width, height = self.config.size
        taken, given = _regions(Size(frame.width, frame.height), self.config.size, self.config.fit)
        planes = _planes.split(frame)
        format = frame.format
        if given == (0, 0, width, height):
            shape = (height * 3 // 2, width) if format in _planes.BLACK else (height, width, *planes[0].shape[2:])
            array = np.empty(shape, np.uint8)
        else:
            array = _planes.blank(format, width, height, planes[0])
        for index, (source, target) in enumerate(zip(planes, _planes.views(array, format), strict=True)):
            step = 2 if index else 1
            x, y, w, h = (side // step for side in given)
            target[y : y + h, x : x + w] = self._resize(_cut(source, taken, step), w, h)
        return VideoFrame.from_array(array, like=frame, format=format)


def _regions(source: Size, target: Size, fit: str) -> tuple[Region, Region]:
    """What of the source is taken, and where in the target it goes."""
    taken, given = (0, 0, source.width, source.height), (0, 0, target.width, target.height)
    if fit == "contain":
        factor = min(target.width / source.width, target.height / source.height)
        given = _centred(target, source.width * factor, source.height * factor)
    elif fit == "cover":
        factor = max(target.width / source.width, target.height / source.height)
        taken = _centred(source, target.width / factor, target.height / factor)
    return taken, given


def _centred(outer: Size, width: float, height: float) -> Region:
    inner = Size(min(outer.width, _even(width)), min(outer.height, _even(height)))
    x, y = (outer.width - inner.width) // 4 * 2, (outer.height - inner.height) // 4 * 2
    return x, y, inner.width, inner.height


def _even(side: float) -> int:
    return max(2, round(side / 2) * 2)


def _cut(plane: Array, region: Region, step: int) -> Array:
    x, y, w, h = (side // step for side in region)
    return plane[y : y + h, x : x + w]


def _plain(frame: VideoFrame) -> VideoFrame:
    """The picture in a format with plain arrays."""
    even = frame.width % 2 == 0 and frame.height % 2 == 0
    return frame.writable("yuv420p" if even else "bgr24")


def _resize_by_opencv(plane: Array, width: int, height: int) -> Array:
    import cv2

    # By area it is slower but free of moiré, which shows from half the size on; close to it linear is as good.
    shrinks = plane.shape[1] >= 2 * width or plane.shape[0] >= 2 * height
    resized: Array = cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized


def _resize_by_swscale(plane: Array, width: int, height: int) -> Array:
    """One plane as greys, or as colours where it has several channels."""
    import numpy as np
    from av import VideoFrame as AvFrame

    channels = plane.shape[2] if plane.ndim == 3 else 1
    if channels == 2:  # nv12's interleaved chroma has no packed format of its own
        return np.stack([_resize_by_swscale(plane[..., i], width, height) for i in range(2)], axis=2)
    format = {1: "gray", 3: "bgr24", 4: "bgra"}[channels]
    scaled = AvFrame.from_ndarray(np.ascontiguousarray(plane), format=format).reformat(width=width, height=height)
    return scaled.to_ndarray()
