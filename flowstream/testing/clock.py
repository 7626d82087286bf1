"""Virtual time: an hour of sleeps in milliseconds, with exact times, on asyncio and on trio.

The event loop moves a virtual clock instead of waiting. While a worker thread is at work the clock stands still, so
that real work takes no virtual time.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import anyio

if TYPE_CHECKING:
    from trio.testing import MockClock

R = TypeVar("R")

Backend = Literal["asyncio", "trio"]

EPOCH_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z


class VirtualClock:
    """A clock that moves only when everybody waits; a flowstream.runtime.clock.Clock.

    Begins at ``now_ns`` 1 s, wallclock at the start of 2026.
    """

    def __init__(self) -> None:
        self._now_ns = 1_000_000_000
        self._held = 0

    def now_ns(self) -> int:
        """The monotonic clock."""
        return self._now_ns

    def wallclock_ns(self) -> int:
        """UTC, since 1970."""
        return EPOCH_NS + self.now_ns()

    async def sleep_until_ns(self, now_ns: int) -> None:
        """Waits until the clock has got there."""
        await anyio.sleep(max(0, now_ns - self.now_ns()) / 1e9)

    def hold(self) -> None:
        """Keeps the clock from moving: a worker is at work. May be called several times."""
        self._held += 1

    def release(self) -> None:
        """Takes one ``hold`` back."""
        self._held -= 1

    @property
    def is_held(self) -> bool:
        """Whether a worker is at work."""
        return self._held > 0

    def _options(self) -> dict[str, Any]:
        """What makes a loop go by it, for anyio."""
        return {"loop_factory": lambda: VirtualLoop(self)}

    def advance(self, seconds: float) -> None:
        """Moves time on; for the event loop, and for code that is driven by hand."""
        self._now_ns += round(seconds * 1e9)


class _VirtualSelector(selectors.DefaultSelector):
    """Moves the clock instead of waiting, unless a worker is at work or there is nothing to wait for but I/O."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self._clock.is_held:
            return super().select(None if timeout is None or timeout > 0 else 0)
        ready = super().select(0)
        if not ready and timeout > 0:
            self._clock.advance(max(timeout, 1e-9))  # a deadline within the nanosecond would be waited for for ever
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on a virtual clock."""

    def __init__(self, clock: VirtualClock) -> None:
        self._virtual_clock = clock
        super().__init__(_VirtualSelector(clock))

    def time(self) -> float:
        return self._virtual_clock.now_ns() / 1e9


class TrioVirtualClock(VirtualClock):
    """A virtual clock that goes by trio's; an inner clock of trio's own makes it jump."""

    def __init__(self, trio_clock: MockClock) -> None:
        super().__init__()
        self._trio_clock = trio_clock
        self._begin_ns = self._now_ns

    def now_ns(self) -> int:
        return self._begin_ns + round(self._trio_clock.current_time() * 1e9)

    def _options(self) -> dict[str, Any]:
        return {"clock": self._trio_clock}

    def hold(self) -> None:
        super().hold()
        self._trio_clock.autojump_threshold = math.inf

    def release(self) -> None:
        super().release()
        if not self.is_held:
            self._trio_clock.autojump_threshold = 0

    def advance(self, seconds: float) -> None:
        self._trio_clock.jump(seconds)


def run_virtual(main: Callable[[VirtualClock], Awaitable[R]], *, backend: Backend = "asyncio") -> R:
    """Runs ``main(clock)`` on a virtual loop and gives what it returns. ``trio`` needs trio to be installed."""
    clock = clock_for(backend)
    result: R = run_on(clock, lambda: main(clock), backend=backend)
    return result


def clock_for(backend: Backend) -> VirtualClock:
    """A virtual clock for one kind of event loop. Raises ValueError for a kind that there is not."""
    if backend not in get_args(Backend):
        raise ValueError(f"there is no event loop {backend!r}, only {' and '.join(get_args(Backend))}")
    if backend == "trio":
        from trio.testing import MockClock

        return TrioVirtualClock(MockClock(autojump_threshold=0))
    return VirtualClock()


def run_on(clock: VirtualClock, main: Callable[[], Awaitable[R]], *, backend: Backend) -> R:
    """Runs ``main()`` on a loop that goes by a clock which was made for its kind."""

    async def call() -> Any:
        return await main()

    result: R = anyio.run(call, backend=backend, backend_options=clock._options())
    return result
