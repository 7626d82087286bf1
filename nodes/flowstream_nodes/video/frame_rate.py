"""Give a video stream a steady frame rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil, floor

from flowstream import NS_PER_S, Caps, Config, Emit, Input, Output, Transform, VideoCaps, VideoFrame, live, period_ns

_LONGEST_FILL_NS = NS_PER_S
# A frame is this much of a period nearer to the slot before it: halfway between two, the jitter of times would else
# send it to one or the other as it comes.
_BIAS = 1 / 32


class FrameRateConfig(Config):
    """How many frames, and whether some are made up."""

    fps: float = live(gt=0, le=240, description="Output rate, in frames per second.", unit="frames per second")
    repeat: bool = live(
        default=True,
        description="Whether frames are repeated where too few come, so that the rate is exactly `fps`; without, it is "
        "at most that.",
    )


class FrameRate(Transform[FrameRateConfig], type="frame-rate"):
    """Drop and repeat frames so that exactly ``fps`` come out in a second, evenly spaced in media time.

    A frame goes out at once, at the place in the grid that is nearest to its own time; one that finds its place taken
    is dropped. Places that were left empty get the frame before them when the next one comes, or when the stream ends.
    A silence of more than a second is filled for its first second and stays silent after that. Nothing waits for a
    clock, so a live stream is not delayed.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, fps: 24, duration: 2s}
      steady: {type: frame-rate, from: pattern, fps: 30}
      nowhere: {type: discard, from: steady}
    ```
    """

    frames = Input(VideoFrame, follows={"size"}, doc="Frames at any rate, or at none.")
    steady = Output(VideoFrame, like=frames, doc="Frames on an even grid.")

    _last: VideoFrame | None = None  # as it came in
    _base_ns = 0  # of the grid
    _slot = 0  # that was given last
    _fps = 0.0  # of the grid
    _repeated = 0
    _dropped = 0
    _reported_ns = 0

    @classmethod
    def negotiate(cls, config: FrameRateConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """What comes in, at this rate."""
        frames = incoming.get("frames")
        given = frames if isinstance(frames, VideoCaps) else VideoCaps()
        if config.repeat:
            return {"steady": replace(given, fps=config.fps)}
        known = isinstance(given.fps, int | float)
        return {"steady": replace(given, fps=min(given.fps, config.fps) if known else None)}  # type: ignore[type-var]

    def process(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame]]:
        """Gives the frame its place, and the places before it the frame that was."""
        last = self._last
        if last is None or last.time_ns - frame.time_ns > _LONGEST_FILL_NS:  # a jump back begins anew
            self._begin(frame.time_ns)
        else:
            if self.config.fps != self._fps:
                self._begin(self._time_of(self._slot))
            slot = floor((frame.time_ns - self._base_ns) * self._fps / NS_PER_S + 0.5 - _BIAS)
            if slot <= self._slot:
                self._dropped += 1
                self._last = last if frame.time_ns < last.time_ns else frame
                self._report(frame.time_ns)
                return
            yield from self._fill(last, slot)
            self._slot = slot
        self._last = frame
        yield self._placed(frame, self._slot)
        self._report(frame.time_ns)

    def finish(self) -> Iterator[Emit[VideoFrame]]:
        """Shows the last frame for as long as it lasts."""
        last = self._last
        if last is not None and last.duration_ns:
            end = (last.time_ns + last.duration_ns - self._base_ns) * self._fps / NS_PER_S
            yield from self._fill(last, floor(end + 0.5 - _BIAS))
        if last is not None:
            self._report(None)

    def _begin(self, time_ns: int) -> None:
        self._base_ns, self._slot, self._fps = time_ns, 0, self.config.fps

    def _fill(self, frame: VideoFrame, end: int) -> Iterator[Emit[VideoFrame]]:
        """Repeats a frame from the place after the last one up to another, for a second at most."""
        if self.config.repeat:
            first = self._slot + 1
            for slot in range(first, min(end, first + ceil(self._fps * _LONGEST_FILL_NS / NS_PER_S))):
                self._repeated += 1
                yield self._placed(frame, slot)

    def _placed(self, frame: VideoFrame, slot: int) -> Emit[VideoFrame]:
        time_ns, duration_ns = self._time_of(slot), period_ns(self._fps)
        if (frame.time_ns, frame.duration_ns) == (time_ns, duration_ns):
            return self.steady(frame)
        return self.steady(frame.replace(time_ns=time_ns, duration_ns=duration_ns))

    def _time_of(self, slot: int) -> int:
        return self._base_ns + round(slot * NS_PER_S / self._fps)

    def _report(self, time_ns: int | None) -> None:
        if time_ns is None or not 0 <= time_ns - self._reported_ns < NS_PER_S:
            self._reported_ns = time_ns or 0
            self.ctx.report(repeated=self._repeated, dropped=self._dropped)
