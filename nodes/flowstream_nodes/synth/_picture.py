"""The picture of ``test-pattern``: painted once, moved cheaply. Planar 4:2:0, BT.601 limited range, numpy only."""

from __future__ import annotations

import itertools
from math import pi, sin
from typing import Any

import numpy as np

from flowstream import Size
from flowstream.proto.barcode import COLUMNS, ROW_FRACTION, ROWS, cells_of
from flowstream_nodes.synth import _glyphs

Array = np.ndarray[Any, Any]

_BLACK, _WHITE = 16, 235
_PANEL = 30  # luma of the panel that the digits stand on
_BARS = ((200, 200, 200), (200, 196, 40), (36, 190, 196), (44, 186, 70), (190, 60, 186), (204, 48, 52), (44, 66, 200))
_SWEEP_S = 4  # the ball crosses the picture and comes back
_BEAT_S = 0.1  # how long the ball lights up where it lands


def _yuv(rgb: Array) -> tuple[Array, Array, Array]:
    """BT.601 limited range of (..., 3) floats in 0..255 (ITU-R BT.601-7, section 2.5)."""
    r, g, b = rgb[..., 0] / 255, rgb[..., 1] / 255, rgb[..., 2] / 255
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return (16 + 219 * y, 128 + 224 * (b - y) / 1.772, 128 + 224 * (r - y) / 1.402)


def _rounded(values: Array) -> Array:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _hues(count: int) -> Array:
    """(count, 3) colours once around the wheel."""
    phase = np.arange(count)[:, None] / count * 2 * pi + np.array([0, 4 * pi / 3, 2 * pi / 3])
    hues: Array = 128 + 100 * np.cos(phase)
    return hues


class Picture:
    """Renders frames of one size; each gets an array of its own. Serves one thread."""

    def __init__(self, size: Size) -> None:
        self._width, self._height = size
        width, height = size
        self._background = np.empty((height * 3 // 2, width), np.uint8)
        self._bars_end = self._even(0.52)
        self._band = slice(self._bars_end, self._even(0.60))
        self._panel_top = self._even(0.64)
        self._code_top = round(height * (1 - ROWS / ROW_FRACTION))
        self._paint_background()
        self._paint_band()
        self._digits_height = max(8, int(min(0.15 * height, 0.0715 * width)))
        self._tiles = {character: self._tile(character) for character in "0123456789:."}
        self._paint_ball()
        rows = [round(height * (1 - (ROWS - row) / ROW_FRACTION)) for row in range(ROWS + 1)]
        self._code_rows = [slice(a, b) for a, b in itertools.pairwise(rows)]
        self._code_columns = np.diff([round(column * width / COLUMNS) for column in range(COLUMNS + 1)])

    def render(self, frame: int, second: float, wallclock_ns: int) -> Array:
        """The picture numbered ``frame``, at media time ``second``: (height * 3 / 2, width) uint8."""
        picture = self._background.copy()
        y, u, v = self._planes(picture)
        self._move_band(y, u, v, second)
        self._move_ball(y, u, v, second)
        middle = (self._panel_top + self._code_top - self._digits_height) // 2
        margin = self._width // 32
        self._write(y, f"{frame % 1_000_000:06}", margin, middle)
        clock = _clock(wallclock_ns)
        self._write(y, clock, self._width - margin - _glyphs.width_of(clock, self._digits_height), middle)
        cells = np.array(cells_of(frame, wallclock_ns // 1_000_000)).reshape(ROWS, COLUMNS)
        lumas = np.where(cells, _WHITE, _BLACK).astype(np.uint8)
        for rows, luma in zip(self._code_rows, lumas, strict=True):
            y[rows] = np.repeat(luma, self._code_columns)
        return picture

    def _even(self, fraction: float) -> int:
        return int(self._height * fraction) // 2 * 2

    def _planes(self, picture: Array) -> tuple[Array, Array, Array]:
        width, height = self._width, self._height
        chroma = picture[height:].reshape(2, height // 2, width // 2)
        return picture[:height], chroma[0], chroma[1]

    def _paint_background(self) -> None:
        width, height = self._width, self._height
        y, u, v = self._planes(self._background)
        rgb = np.zeros((height, width, 3), np.float32)
        bar = np.minimum(np.arange(width) * len(_BARS) // width, len(_BARS) - 1)
        shade = np.linspace(1.0, 0.62, self._bars_end, dtype=np.float32)[:, None, None]
        rgb[: self._bars_end] = np.array(_BARS, np.float32)[bar][None] * shade
        rgb[self._band.stop : self._panel_top] = np.linspace(0, 255, width, dtype=np.float32)[None, :, None]
        luma, blue, red = _yuv(rgb)
        luma[self._panel_top :] = _PANEL
        y[:] = _rounded(luma)
        for plane, values in ((u, blue), (v, red)):
            plane[:] = _rounded(values.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)))

    def _paint_band(self) -> None:
        """Two turns of the colour wheel side by side, so that any offset is one slice."""
        luma, blue, red = _yuv(_hues(self._width // 2))
        self._wheel = tuple(np.tile(_rounded(values), 2) for values in (luma, blue, red))

    def _move_band(self, y: Array, u: Array, v: Array, second: float) -> None:
        half = self._width // 2
        offset = int(second / _SWEEP_S * half) % half
        luma, blue, red = (wheel[offset : offset + half] for wheel in self._wheel)
        y[self._band] = np.repeat(luma, 2)
        rows = slice(self._band.start // 2, self._band.stop // 2)
        u[rows] = blue
        v[rows] = red

    def _paint_ball(self) -> None:
        side = max(8, self._height // 8 // 4 * 4)
        at = (np.arange(side) + 0.5) / side * 2 - 1
        distance = np.hypot(at[:, None], at[None, :])
        alpha = np.clip((1 - distance) * side / 2, 0, 1)
        light = np.clip(1.15 - 0.5 * np.hypot(at[:, None] + 0.35, at[None, :] + 0.4), 0.3, 1.1)[..., None]
        self._ball_side = side
        self._balls = [
            _premultiplied(np.clip(np.array(colour, np.float32) * light, 0, 255), alpha)
            for colour in ((238, 130, 40), (255, 255, 255))
        ]

    def _move_ball(self, y: Array, u: Array, v: Array, second: float) -> None:
        side = self._ball_side
        swing = abs(second / _SWEEP_S * 2 % 2 - 1)
        left = int(swing * (self._width - side)) // 2 * 2
        floor = self._bars_end - side
        top = int(floor - abs(sin(pi * second)) * floor * 0.92) // 2 * 2
        ball = self._balls[1 if second % 1 < _BEAT_S else 0]
        for plane, step, (colour, rest) in zip((y, u, v), (1, 2, 2), ball, strict=True):
            region = plane[top // step : (top + side) // step, left // step : (left + side) // step]
            region[:] = colour + (region * rest >> 8).astype(np.uint8)

    def _tile(self, character: str) -> Array:
        coverage = _glyphs.glyph(character, self._digits_height)
        return _rounded(_PANEL + (_WHITE - _PANEL) * coverage)

    def _write(self, y: Array, text: str, left: int, top: int) -> None:
        room = round(self._digits_height * _glyphs.STROKE_WIDTH)
        for character in text:
            tile = self._tiles[character]
            region = y[top - room // 2 :, max(0, left - room // 2) :][: tile.shape[0], : tile.shape[1]]
            np.maximum(region, tile[: region.shape[0], : region.shape[1]], out=region)
            left += _glyphs.advance(character, self._digits_height)


def _premultiplied(rgb: Array, alpha: Array) -> list[tuple[Array, Array]]:
    """For each plane, colour times coverage (uint8) and what is left of the background (uint16, 0..256)."""
    half = alpha.reshape(alpha.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))
    small = rgb.reshape(rgb.shape[0] // 2, 2, rgb.shape[1] // 2, 2, 3).mean(axis=(1, 3))
    luma, (_, blue, red) = _yuv(rgb)[0], _yuv(small)
    return [
        (np.floor(values * cover).astype(np.uint8), np.floor((1 - cover) * 256).astype(np.uint16))
        for values, cover in ((luma, alpha), (blue, half), (red, half))
    ]


def _clock(wallclock_ns: int) -> str:
    """``23:59:59.999`` of the day, in UTC."""
    ms = wallclock_ns // 1_000_000 % 86_400_000
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}.{ms % 1000:03}"
