"""Packed pictures to I420 by libyuv, where the system has it: twice as fast as OpenCV, ten times as fast as swscale.

It is a shared library that many systems have for their players (Debian: ``libyuv0``), and no Python package. Its
conversion is that of OpenCV, BT.601 with limited range.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import numpy as np

# Its names are those of words in memory, backwards: ARGB is blue, green, red, alpha. Channels of each, behind the name.
_FUNCTIONS = {
    "bgr24": ("RGB24ToI420", 3),
    "rgb24": ("RAWToI420", 3),
    "bgra": ("ARGBToI420", 4),
    "bgr0": ("ARGBToI420", 4),
    "rgba": ("ABGRToI420", 4),
}
_NAMES = {"linux": ("libyuv.so.0", "libyuv.so"), "darwin": ("libyuv.dylib",)}

Pixels = np.ndarray[Any, Any]


class Libyuv:
    """The library, loaded. Raises OSError when it is not there, or lacks a function."""

    def __init__(self, *names: str) -> None:
        loaded: ctypes.CDLL | None = None
        for name in names:
            try:
                loaded = ctypes.CDLL(name)
                break
            except OSError:
                continue
        if loaded is None:
            raise OSError(f"there is no {' or '.join(names) or 'libyuv for this system'}")
        self._functions: dict[str, tuple[Any, int]] = {}
        for format, (name, channels) in _FUNCTIONS.items():
            try:
                function = getattr(loaded, name)
            except AttributeError as error:
                raise OSError(f"libyuv has no {name}") from error
            # Source, then Y, U and V, each with its stride; width and height.
            function.argtypes = [*4 * (ctypes.c_void_p, ctypes.c_int), ctypes.c_int, ctypes.c_int]
            function.restype = ctypes.c_int
            self._functions[format] = function, channels

    def convert(self, pixels: Pixels, format: str, i420: Pixels) -> bool:
        """Writes a packed picture of even size into an array (height * 3 / 2, width); False when it does not lie so."""
        height, width = pixels.shape[:2]
        function, channels = self._functions[format]
        if pixels.strides[1:] != (channels, 1) or pixels.strides[0] < width * channels:
            return False
        luma = i420.ctypes.data
        blue, half = luma + width * height, width // 2
        red = blue + half * (height // 2)
        source = pixels.ctypes.data
        done: int = function(source, pixels.strides[0], luma, width, blue, half, red, half, width, height)
        return done == 0


@cache
def libyuv() -> Libyuv | None:
    """The library of this system, loaded once; None where there is none."""
    try:
        return Libyuv(*_NAMES.get(sys.platform, ()))
    except OSError:
        return None
