"""Node types that go wrong in the ways that node types do, for the soak."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Literal

from flowstream import (
    Config,
    Emit,
    Input,
    Output,
    PeerError,
    Record,
    Source,
    Transform,
    VideoFrame,
    field,
    live,
)

HANG_SECONDS = 6.5
"""Longer than a run waits for a call that must end, so that its thread is left behind for a while."""

HOLD_SECONDS = 0.06

Way = Literal["fine", "raise", "peer", "hang", "slow"]


class BreaksConfig(Config):
    """What goes wrong, and when."""

    way: Way = live(default="fine", description="What happens.")
    after: int = live(default=0, ge=0, description="Number of payloads that go well before.")
    opens: bool = field(default=True, description="Whether it opens at all.")
    takes: bool = live(default=True, description="Whether it takes changed values; its failing to rolls a reload back.")


class Breaks(Transform[BreaksConfig], type="wear/breaks"):
    """Passes pictures on, on a thread of its own, until something goes wrong."""

    thread = True
    video = Input(VideoFrame, follows={"size", "format"})
    passed = Output(VideoFrame, like=video)
    count = 0

    def open(self) -> None:
        """Opens, or does not."""
        if not self.config.opens:
            raise PeerError("the device is not there")

    def reconfigured(self, old: BreaksConfig) -> None:
        """Takes new values, or fails to."""
        if not self.config.takes:
            raise RuntimeError("these values do not suit it")

    def process(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame]]:
        """Passes on, or goes wrong."""
        self.count += 1
        if self.count > self.config.after:
            misbehave(self.config.way)
        yield self.passed(frame)


class Holds(Transform[BreaksConfig], type="wear/holds"):
    """The same on the event loop, which it keeps to itself when it is slow."""

    video = Input(VideoFrame, follows={"size", "format"})
    passed = Output(VideoFrame, like=video)
    count = 0

    def process(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame]]:
        """Passes on, or goes wrong."""
        self.count += 1
        if self.count > self.config.after:
            misbehave("slow" if self.config.way == "hang" else self.config.way)
        yield self.passed(frame)


class CountsConfig(Config):
    """How it ends."""

    way: Literal["fine", "raise", "peer", "hang", "slow", "end"] = live(default="fine", description="What happens.")
    after: int = live(default=0, ge=0, description="Number of payloads that go well before.")


class Counts(Source[CountsConfig], type="wear/counts"):
    """A device that gives a number twenty times a second, until it is gone."""

    is_live = True
    numbers = Output(Record)
    count = 0

    def capture(self) -> list[Emit[Record[int]]] | None:
        """Gives the next number."""
        time.sleep(0.05)
        self.count += 1
        if self.count > self.config.after:
            if self.config.way == "end":
                return None
            misbehave(self.config.way)
        return [self.numbers(Record(self.count, self.ctx.media_ns()))]


def misbehave(way: str) -> None:
    """Goes wrong, or takes its time."""
    if way == "raise":
        raise RuntimeError("broken on purpose")
    if way == "peer":
        raise PeerError("the other side is gone, on purpose")
    if way == "hang":
        threading.Event().wait(HANG_SECONDS)
    if way == "slow":
        time.sleep(HOLD_SECONDS)
