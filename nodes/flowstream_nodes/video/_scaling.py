"""Pictures in another size: by OpenCV where it loads, else by swscale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from flowstream import Size, VideoFrame
from flowstream_nodes.video import _planes
from flowstream_nodes.video._formats import PLANAR, has_arrays, with_arrays

Array = np.ndarray[Any, Any]
Region = tuple[int, int, int, int]
"""x, y, width and height in pixels."""

Fit = Literal["stretch", "contain", "cover"]


class Scaler:
    """Scales pictures; those without plain arrays are first made into some that have them.

    ``without_opencv`` is why OpenCV does not load, if it does not.
    """

    def __init__(self) -> None:
        self.without_opencv: ImportError | None = None
        self._resize: Callable[[Array, int, int], Array] = _resize_by_opencv
        try:
            import cv2  # noqa: F401
        except ImportError as error:
            self.without_opencv = error
            self._resize = _resize_by_swscale

    def scaled(self, frame: VideoFrame, size: Size, fit: Fit) -> VideoFrame:
        """The picture in that size, in its own format where that has plain arrays; the same object if it fits."""
        if (frame.width, frame.height) == size:
            return frame
        if not has_arrays(frame.format, frame.width, frame.height):
            frame = frame.writable(with_arrays(frame.width, frame.height))
        if not has_arrays(frame.format, *size):
            frame = frame.writable(with_arrays(*size))
        step = 2 if frame.format in PLANAR else 1
        width, height = size
        taken, given = regions(Size(frame.width, frame.height), size, fit, step)
        planes = _planes.split(frame)
        format = frame.format
        if given == (0, 0, width, height):
            shape = (height * 3 // 2, width) if format in PLANAR else (height, width, *planes[0].shape[2:])
            array = np.empty(shape, np.uint8)
        else:
            array = _planes.blank(format, width, height, planes[0])
            if format in PLANAR and frame.caps.full_range:
                _planes.views(array, format)[0][...] = 0
        for index, (source, target) in enumerate(zip(planes, _planes.views(array, format), strict=True)):
            share = 2 if index else 1
            x, y, w, h = (side // share for side in given)
            target[y : y + h, x : x + w] = self._resize(_cut(source, taken, share), w, h)
        return VideoFrame.from_array(array, like=frame, format=format)


def regions(source: Size, target: Size, fit: Fit, step: int) -> tuple[Region, Region]:
    """What of the source is taken, and where in the target it goes, in whole steps of pixels."""
    taken, given = (0, 0, source.width, source.height), (0, 0, target.width, target.height)
    if fit == "contain":
        factor = min(target.width / source.width, target.height / source.height)
        given = _centred(target, source.width * factor, source.height * factor, step)
    elif fit == "cover":
        factor = max(target.width / source.width, target.height / source.height)
        taken = _centred(source, target.width / factor, target.height / factor, step)
    return taken, given


def _centred(outer: Size, width: float, height: float, step: int) -> Region:
    inner = Size(min(outer.width, _whole(width, step)), min(outer.height, _whole(height, step)))
    x, y = ((outer[side] - inner[side]) // (2 * step) * step for side in (0, 1))
    return x, y, inner.width, inner.height


def _whole(side: float, step: int) -> int:
    return max(step, round(side / step) * step)


def _cut(plane: Array, region: Region, share: int) -> Array:
    x, y, w, h = (side // share for side in region)
    return plane[y : y + h, x : x + w]


def _resize_by_opencv(plane: Array, width: int, height: int) -> Array:
    import cv2

    # By area it is slower but free of moiré, which shows from half the size on; close to it linear is as good.
    shrinks = plane.shape[1] >= 2 * width or plane.shape[0] >= 2 * height
    resized: Array = cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized


def _resize_by_swscale(plane: Array, width: int, height: int) -> Array:
    """One plane as greys, or as colours where it has several channels."""
    from av import VideoFrame as AvFrame

    channels = plane.shape[2] if plane.ndim == 3 else 1
    if channels == 2:  # nv12's interleaved chroma has no packed format of its own
        return np.stack([_resize_by_swscale(plane[..., i], width, height) for i in range(2)], axis=2)
    format = {1: "gray", 3: "bgr24", 4: "bgra"}[channels]
    scaled = AvFrame.from_ndarray(np.ascontiguousarray(plane), format=format).reformat(width=width, height=height)
    return scaled.to_ndarray()
