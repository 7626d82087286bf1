"""Digits drawn as strokes, anti-aliased, at any size; numpy is all they need."""

from __future__ import annotations

import itertools
from functools import lru_cache
from math import cos, radians, sin
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Point = tuple[float, float]
Stroke = list[Point]

STROKE_WIDTH = 0.135
"""Of a glyph's height."""


def _arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> Stroke:
    """Points on an ellipse, in degrees clockwise from the right, y pointing down."""
    steps = 24
    angles = [radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(x + rx * cos(a), y + ry * sin(a)) for a in angles]


# Name -> (width, strokes), in units of the glyph's height; (0, 0) is its top left.
_GLYPHS: dict[str, tuple[float, list[Stroke]]] = {
    "0": (0.56, [[*_arc(0.28, 0.28, 0.28, 0.28, 180, 360), *_arc(0.28, 0.72, 0.28, 0.28, 0, 180), (0, 0.28)]]),
    "1": (0.56, [[(0.08, 0.2), (0.32, 0), (0.32, 1)]]),
    "2": (0.56, [[*_arc(0.28, 0.28, 0.28, 0.28, 190, 390), (0, 1), (0.56, 1)]]),
    "3": (0.56, [[*_arc(0.27, 0.25, 0.25, 0.25, 200, 440), *_arc(0.27, 0.73, 0.29, 0.27, 280, 520)]]),
    "4": (0.56, [[(0.42, 1), (0.42, 0), (0, 0.68), (0.58, 0.68)]]),
    "5": (0.56, [[(0.5, 0), (0.08, 0), (0.04, 0.45), *_arc(0.26, 0.69, 0.3, 0.31, 225, 510)]]),
    "6": (0.56, [_arc(0.28, 0.71, 0.28, 0.29, 0, 360), [(0.42, 0), (0.12, 0.4), (0.02, 0.6), (0, 0.71)]]),
    "7": (0.56, [[(0, 0), (0.56, 0), (0.2, 1)]]),
    "8": (0.56, [_arc(0.28, 0.25, 0.24, 0.25, 0, 360), _arc(0.28, 0.74, 0.28, 0.26, 0, 360)]),
    "9": (0.56, [_arc(0.28, 0.29, 0.28, 0.29, 0, 360), [(0.14, 1), (0.44, 0.6), (0.54, 0.4), (0.56, 0.29)]]),
    ":": (0.06, [[(0.03, 0.3), (0.03, 0.3)], [(0.03, 0.78), (0.03, 0.78)]]),
    ".": (0.06, [[(0.03, 1), (0.03, 1)]]),
}
_DOT = 1.25  # a dot is this much wider than a stroke


@lru_cache(maxsize=256)
def glyph(character: str, height: int) -> np.ndarray[Any, Any]:
    """Coverage 0..1 of a digit, ``:`` or ``.`` whose strokes are ``height`` pixels tall; float32 with room around.

    Raises KeyError for another character.
    """
    import numpy as np

    width, strokes = _GLYPHS[character]
    radius = STROKE_WIDTH / 2 * (_DOT if character in ":." else 1)
    inner = height * (1 - STROKE_WIDTH)  # the strokes' middle lines, so that their rims span the height
    room = round(height * STROKE_WIDTH)
    columns = round(width * inner) + 2 * room
    rows = round(inner) + 2 * room
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    x = (x - room) / inner
    y = (y - room) / inner
    nearest = np.full((rows, columns), 9.0, np.float32)
    for stroke in strokes:
        for (x0, y0), (x1, y1) in itertools.pairwise(stroke):
            dx, dy = x1 - x0, y1 - y0
            length2 = dx * dx + dy * dy
            along = np.clip(((x - x0) * dx + (y - y0) * dy) / length2, 0, 1) if length2 else np.zeros_like(x)
            nearest = np.minimum(nearest, np.hypot(x - x0 - along * dx, y - y0 - along * dy))
    coverage: np.ndarray[Any, Any] = np.clip((radius - nearest) * inner + 0.5, 0, 1).astype(np.float32)
    return coverage


def advance(character: str, height: int) -> int:
    """Pixels from the start of a character to that of the next."""
    width, _ = _GLYPHS[character]
    return round((width + STROKE_WIDTH * 1.9) * height * (1 - STROKE_WIDTH))


def width_of(text: str, height: int) -> int:
    """Pixels that a text takes."""
    return sum(advance(character, height) for character in text)
