"""Moving colours with a frame counter and a clock, readable by eye and by machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import field_validator

from flowstream import (
    Caps,
    Config,
    Context,
    Duration,
    Output,
    PictureSize,
    Size,
    Snapshot,
    Source,
    VideoCaps,
    VideoFrame,
    field,
    live,
)

if TYPE_CHECKING:
    from flowstream_nodes.synth._picture import Picture


class PatternConfig(Config):
    """Size, speed and length of the pattern."""

    size: PictureSize = field(
        default=Size(1280, 720), description="Width and height in pixels, both even, from 160x90 on."
    )
    fps: float = live(
        default=30.0, gt=0, le=240, description="Frame rate, in frames per second.", unit="frames per second"
    )
    duration: Duration = field(default=0, description="How long it lasts; 0s is for ever.", examples=["10s"])

    @field_validator("size")
    @classmethod
    def _fits(cls, size: Size) -> Size:
        if size.width % 2 or size.height % 2:
            even = Size(size.width // 2 * 2, size.height // 2 * 2)
            raise ValueError(f"{size} has an odd side, which 4:2:0 colour cannot have; write {even}")
        if size.width < 160 or size.height < 90:
            raise ValueError(f"{size} is too small for the counter; 160x90 is the smallest")
        return size


class TestPattern(Source[PatternConfig], type="test-pattern"):
    """Colour bars, a bouncing ball, a frame counter and the time of day (UTC), as a camera would deliver them.

    The ball lands and lights up at every full second of media time, together with the accent of ``tone``. The cells
    along the bottom hold counter and capture time for ``flowstream.testing.read_counter``. When rendering is late,
    frames are skipped and counted, and the beat is kept. A pattern that replaces another at a reload counts on.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, fps: 30, duration: 2s}
      nowhere: {type: discard, from: pattern}
    ```
    """

    __test__ = False  # pytest would take the name for a class of tests

    is_live = True
    thread = True
    restores = (1,)

    video = Output(VideoFrame, caps=VideoCaps(format="yuv420p"), main=True, doc="The picture, planar 4:2:0.")

    _picture: Picture
    _restart = False
    _next = 0  # number of the next frame

    @classmethod
    def negotiate(cls, config: PatternConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """Everything: the picture is as it is configured."""
        width, height = config.size
        return {"video": VideoCaps(format="yuv420p", width=width, height=height, fps=config.fps)}

    def open(self) -> None:
        """Paints what does not move."""
        from flowstream_nodes.synth._picture import Picture

        self._picture = Picture(self.config.size)

    def reconfigured(self, old: PatternConfig) -> None:
        """The next frame starts a new beat."""
        self._restart = True

    def snapshot(self) -> Snapshot:
        return Snapshot(1, {"next": self._next})

    def restore(self, snapshot: Snapshot, /) -> None:
        self._next = snapshot.values["next"]

    async def run(self, ctx: Context) -> None:
        """Emits a frame for each slot of the beat, at absolute deadlines."""
        ctx.ready()
        start_ns = now_ns = ctx.now_ns()
        media_offset_ns = ctx.media_ns() - now_ns
        end_ns = start_ns + self.config.duration
        beat_ns, slot, skipped = start_ns, 0, 0
        while True:
            due_ns = beat_ns + round(slot * 1e9 / self.config.fps)
            if self.config.duration and due_ns >= end_ns:
                return
            await ctx.sleep_until_ns(due_ns)
            picture = await ctx.in_thread(self._render, self._next, due_ns + media_offset_ns)
            self._next += 1
            await ctx.emit(self.video(picture))
            if self._restart:
                self._restart = False
                beat_ns, slot = due_ns, 0
            late = max(0, int((ctx.now_ns() - beat_ns) * self.config.fps / 1e9) - slot - 1)
            if late:
                skipped += late
                ctx.report(skipped=skipped)
            slot += 1 + late
            self._next += late

    def _render(self, frame: int, time_ns: int) -> VideoFrame:
        array = self._picture.render(frame, time_ns / 1e9, self.ctx.wallclock_ns())
        return VideoFrame.from_array(
            array,
            format="yuv420p",
            time_ns=time_ns,
            duration_ns=round(1e9 / self.config.fps),
            capture_ns=self.ctx.now_ns(),
        )
