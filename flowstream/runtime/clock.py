"""The one place that reads time."""

from __future__ import annotations

import time
from typing import Protocol

import anyio

from flowstream.runtime.alarm import Alarm, has_alarms
from flowstream.runtime.wakeup import is_on_trio


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
    """The machine's clocks, for one event loop at a time."""

    def __init__(self) -> None:
        self._alarm = Alarm() if has_alarms() else None

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def wallclock_ns(self) -> int:
        return time.time_ns()

    async def sleep_until_ns(self, now_ns: int) -> None:
        left_ns = now_ns - time.monotonic_ns()
        if left_ns > 0 and self._alarm is not None and not is_on_trio():
            await self._alarm.sleep_until_ns(now_ns)
        else:
            await anyio.sleep(max(0, left_ns) / 1e9)

    def hold(self) -> None:
        pass

    def release(self) -> None:
        pass
