"""The one place that reads time."""

from __future__ import annotations

import time
from typing import Protocol

import anyio


class Clock(Protocol):
    """What the runtime knows of time. Reading is for any thread, sleeping for the event loop."""

    def now_ns(self) -> int:
        """The monotonic clock."""
        ...

    def wallclock_ns(self) -> int:
        """UTC, since 1970."""
        ...

    async def sleep_until_ns(self, now_ns: int) -> None:
        """Waits until the monotonic clock reads ``now_ns``."""

    def hold(self) -> None:
        """Real work outside the loop began: a virtual clock stands still until as many ``release``."""

    def release(self) -> None:
        """Real work outside the loop ended."""


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def wallclock_ns(self) -> int:
        return time.time_ns()

    async def sleep_until_ns(self, now_ns: int) -> None:
        await anyio.sleep(max(0, now_ns - time.monotonic_ns()) / 1e9)

    def hold(self) -> None:
        pass

    def release(self) -> None:
        pass
