"""The planes of a picture as arrays to compute with, and back to a frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowstream import VideoFrame

Array = np.ndarray[Any, Any]

BLACK = {"yuv420p": (16, 128, 128), "nv12": (16, 128)}
"""The value that makes each plane black, BT.601 limited range; other formats are black at 0."""


def split(frame: VideoFrame) -> list[Array]:
    """Views of the planes: of ``yuv420p`` Y, U, V; of ``nv12`` Y and (h/2, w/2, 2); else the one array.

    Raises ValueError for a format or size without an array form.
    """
    if frame.format == "yuv420p" and len(frame.planes) == 3:
        width, height = frame.width, frame.height
        shapes = [(height, width), ((height + 1) // 2, (width + 1) // 2), ((height + 1) // 2, (width + 1) // 2)]
        return [
            np.lib.stride_tricks.as_strided(
                np.frombuffer(memoryview(plane.data), np.uint8), shape, (plane.stride, 1), writeable=False
            )
            for plane, shape in zip(frame.planes, shapes, strict=True)
        ]
    return views(frame.array(), frame.format)


def views(array: Array, format: str) -> list[Array]:
    """Views of the planes in an array as ``VideoFrame.array`` gives it; what is written to them is in the array."""
    if format not in BLACK:
        return [array]
    height, width = array.shape[0] * 2 // 3, array.shape[1]
    chroma = array[height:]
    if format == "nv12":
        return [array[:height], chroma.reshape(height // 2, width // 2, 2)]
    blue, red = chroma.reshape(2, height // 2, width // 2)
    return [array[:height], blue, red]


def blank(format: str, width: int, height: int, like: Array) -> Array:
    """An array of a black picture."""
    if format not in BLACK:
        return np.zeros((height, width, *like.shape[2:]), np.uint8)
    array = np.empty((height * 3 // 2, width), np.uint8)
    for plane, value in zip(views(array, format), BLACK[format], strict=True):
        plane[...] = value
    return array
