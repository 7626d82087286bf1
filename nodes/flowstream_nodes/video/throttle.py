"""Thin out a video stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from flowstream import Caps, Config, Emit, Input, Output, Transform, VideoCaps, VideoFrame, live


class ThrottleConfig(Config):
    """How many frames may pass."""

    max_fps: float = live(
        gt=0, le=240, description="Upper bound on the output rate, in frames per second.", unit="frames per second"
    )


class Throttle(Transform[ThrottleConfig], type="throttle"):
    """Pass at most ``max_fps`` frames per second, judged by presentation time.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, fps: 30, duration: 2s}
      calm: {type: throttle, from: pattern, max_fps: 10}
      nowhere: {type: discard, from: calm}
    ```
    """

    frames = Input(VideoFrame, follows={"size"}, doc="Frames at any rate.")
    kept = Output(VideoFrame, like=frames, doc="Those that passed.")

    @classmethod
    def negotiate(cls, config: ThrottleConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """What comes in, at the lower of the two rates; an unknown rate stays unknown."""
        frames = incoming.get("frames")
        if not isinstance(frames, VideoCaps) or not isinstance(frames.fps, int | float):
            return {}
        return {"kept": replace(frames, fps=min(frames.fps, config.max_fps))}

    _due_ns = 0  # when the next frame may pass
    _last_ns: int | None = None

    def process(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame]]:
        """Keeps the beat while frames come on time, and starts it anew after a gap or a jump back."""
        period_ns = round(1e9 / self.config.max_fps)
        if self._last_ns is not None and frame.time_ns < self._last_ns:
            self._due_ns = frame.time_ns
        self._last_ns = frame.time_ns
        # Half a millisecond of grace: sources round their times, and the beat is kept from the due time anyway.
        late_ns = frame.time_ns - self._due_ns + 500_000
        if late_ns >= 0:
            self._due_ns = (self._due_ns if late_ns < period_ns else frame.time_ns) + period_ns
            yield self.kept(frame)
