"""A clock for one node under test: it stands still, and jumps to the next sleeper when nobody has anything to do."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections.abc import Callable

START_NS = 1_000_000_000_000
WALLCLOCK_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z


class FakeClock:
    """Stands still until told otherwise. ``start_ns`` is the first now; media time began then."""

    def __init__(self, start_ns: int = START_NS, wallclock_ns: int = WALLCLOCK_NS) -> None:
        self._start_ns = start_ns
        self._wallclock_ns = wallclock_ns
        self._now_ns = start_ns
        self._count = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ns(self) -> int:
        """The monotonic clock."""
        return self._now_ns

    def wallclock_ns(self) -> int:
        """UTC, since 1970."""
        return self._wallclock_ns + self._now_ns - self._start_ns

    def media_ns(self) -> int:
        """The graph's running time."""
        return self._now_ns - self._start_ns

    def step(self, duration_ns: int) -> None:
        """Lets time pass without waking anybody: what a slow call would take. Raises ValueError for a step back."""
        if duration_ns < 0:
            raise ValueError(f"time does not go back by {-duration_ns} ns")
        self._now_ns += duration_ns

    async def sleep_until_ns(self, now_ns: int) -> None:
        """Waits until the harness has moved the clock there."""
        if now_ns > self._now_ns:
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._sleepers, (now_ns, next(self._count), woken))
            await woken

    def jump(self, until_ns: int | None) -> bool:
        """Moves to the next sleeper due by ``until_ns`` (None: whenever) and wakes it; whether there was one."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        if not self._sleepers or (until_ns is not None and self._sleepers[0][0] > until_ns):
            return False
        due_ns, _, woken = heapq.heappop(self._sleepers)
        self._now_ns = max(self._now_ns, due_ns)
        woken.set_result(None)
        return True


class IdleSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type, unused-ignore]
    """Tells when the loop would wait although no thread is at work."""

    def __init__(self) -> None:
        super().__init__()
        self.is_busy: Callable[[], bool] = lambda: False
        self.on_idle: Callable[[], bool] = lambda: False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Ready events; instead of waiting idly, lets the harness go on."""
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if not self.is_busy() and self.on_idle():
            return []
        return super().select(timeout)
