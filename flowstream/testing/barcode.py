"""Reads the counter that ``test-pattern`` puts into its pictures. ``tests/e2e/barcode.js`` is its twin for a canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowstream.media.frames import VideoFrame
from flowstream.proto.barcode import COLUMNS, ROW_FRACTION, ROWS, Counter, counter_of

if TYPE_CHECKING:
    import numpy as np

DARKEST_WHITE = 150
LIGHTEST_BLACK = 106


def read_counter(picture: VideoFrame | np.ndarray[Any, Any]) -> Counter | None:
    """The counter in a picture, or None when none can be read with certainty.

    ``picture`` is a frame, or an array of uint8: (height, width) of luma or grey, or (height, width, 3 or 4) in which
    the first three channels are colours in any order. The picture must be whole: scaled, but not cropped or padded.
    """
    import numpy as np

    if isinstance(picture, VideoFrame):
        grey = picture.array()[: picture.height] if picture.format in ("yuv420p", "nv12") else picture.array("gray")
    else:
        grey = picture if picture.ndim == 2 else picture[..., :3].mean(axis=2)
    height, width = grey.shape
    cells: list[bool] = []
    for row in range(ROWS):
        top = height * (1 - (ROWS - row) / ROW_FRACTION)
        rows = _middle(top, height / ROW_FRACTION)
        for column in range(COLUMNS):
            columns = _middle(column * width / COLUMNS, width / COLUMNS)
            mean = float(np.mean(grey[rows, columns]))
            if LIGHTEST_BLACK < mean < DARKEST_WHITE:
                return None
            cells.append(mean >= DARKEST_WHITE)
    return counter_of(cells)


def _middle(start: float, length: float) -> slice:
    """The middle half of a cell, at least one sample: its rim is smeared by scaling and encoding."""
    first = int(start + length / 4)
    return slice(first, max(first + 1, int(start + length * 3 / 4)))
