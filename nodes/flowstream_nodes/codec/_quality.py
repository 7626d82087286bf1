"""Presets of ``hw-encode``, and what its pictures seem to show."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowstream import NS_PER_S, Size, VideoFrame
from flowstream_nodes.codec.encoders import Content, Speed

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Preset:
    """What a preset stands for: bounds of size and rate, in pixels and frames per second, and bits per second."""

    size: Size | None
    fps: float | None
    bitrate_bps: int
    speed: Speed

    def __str__(self) -> str:
        size, fps = self.size or "any size", f"{self.fps:g} fps" if self.fps else "any rate"
        return f"{size}, {fps}, {self.bitrate_bps / 1e6:g}M, {self.speed}"


PRESETS: dict[str, Preset] = {
    "off": Preset(None, None, 2_500_000, "superfast"),
    "low": Preset(Size(640, 360), 15.0, 400_000, "veryfast"),
    "medium": Preset(Size(1280, 720), 30.0, 2_000_000, "superfast"),
    "high": Preset(Size(1920, 1080), 30.0, 5_000_000, "superfast"),
    "ultra": Preset(Size(2560, 1440), 60.0, 14_000_000, "superfast"),
}

KEYFRAME_NS: dict[Content, int] = {"motion": 2 * NS_PER_S, "camera": 2 * NS_PER_S, "text": 4 * NS_PER_S}
"""Longest time between keyframes by content: text stands still, and a keyframe of it is large."""

_LOOK_EVERY_NS = NS_PER_S * 95 // 1000  # so that every third picture of thirty a second is one
_LOOKS = 20
_SAME_SHARE = 0.5
_STILL_LOOKS = 0.8


class ContentSense:
    """Tells text from what a camera sees: of a screen most pixels stay exactly as they are, a camera's never do.

    ``content`` is None until 20 pictures, looked at every 100 ms, agree; it keeps its last answer while they do not.
    A look costs 20 us at 1080p.
    """

    def __init__(self) -> None:
        self.content: Content | None = None
        self._before: np.ndarray[Any, Any] | None = None
        self._before_ns: int | None = None
        self._still: deque[bool] = deque(maxlen=_LOOKS)

    def look(self, frame: VideoFrame) -> None:
        """Compares the frame with the one looked at before."""
        import numpy as np

        if self._before_ns is not None and 0 <= frame.time_ns - self._before_ns < _LOOK_EVERY_NS:
            return
        self._before_ns = frame.time_ns
        plane = frame.planes[0]
        height = frame.height - 1  # of the last row, a plane need not have what pads it
        rows = np.frombuffer(memoryview(plane.data), np.uint8)[: plane.stride * height].reshape(height, plane.stride)
        sample = rows[:: max(1, height // 64)]
        before, self._before = self._before, sample.copy()
        if before is None or before.shape != sample.shape:
            self._still.clear()
            return
        self._still.append(float(np.mean(before == sample)) >= _SAME_SHARE)
        if len(self._still) == _LOOKS:
            share = sum(self._still) / _LOOKS
            if share >= _STILL_LOOKS:
                self.content = "text"
            elif share <= 1 - _STILL_LOOKS:
                self.content = "camera"
