"""When which viewer has something to send: one timer for all, and one wake-up for all that are due together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final

TOGETHER_NS: Final = 1_000_000
"""Who is due within this is called with the others: a millisecond is what the loop's own timer can tell apart."""


class Wakeups:
    """Calls back at times of a monotonic clock; needs a running asyncio loop when something is asked for.

    The bursts of many viewers fall together, so that the loop wakes up as often for fifty of them as for one.
    """

    def __init__(
        self, now_ns: Callable[[], int], together: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """Those who are due at the same time are called within ``together``."""
        self.now_ns = now_ns
        """The clock itself."""
        self._together = together
        self._due_ns: dict[Callable[[int], None], int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0

    def ask(self, callback: Callable[[int], None], due_ns: int, *, now_ns: int) -> None:
        """``callback(now_ns)`` is called once, at ``due_ns`` or soon after; the last time that was asked for counts."""
        self._due_ns[callback] = due_ns
        if self._timer is None or due_ns < self._timer_ns:
            self._set(due_ns, now_ns)

    def forget(self, callback: Callable[[int], None]) -> None:
        """It is not called any more."""
        self._due_ns.pop(callback, None)

    def close(self) -> None:
        """Calls nobody any more."""
        self._due_ns.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, due_ns: int, now_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = due_ns
        delay_s = max(0, due_ns - now_ns) / 1e9
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        now_ns = self.now_ns()
        until_ns = now_ns + TOGETHER_NS
        try:
            with self._together():
                for callback in [each for each, due_ns in self._due_ns.items() if due_ns <= until_ns]:
                    if self._due_ns.pop(callback, None) is not None:
                        callback(now_ns)
        finally:  # whoever fails, the others have their turn
            if self._due_ns:
                next_ns = min(self._due_ns.values())
                if self._timer is None or next_ns < self._timer_ns:
                    self._set(next_ns, now_ns)
