"""How long to wait before the next attempt."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

JITTER = 0.25
"""How much of a wait chance may take away, so that many who lost the same peer do not all come back at once."""


class Backoff:
    """Waits that double from ``first_ns`` to ``max_ns``; a success for ``max_ns`` starts over.

    ``limit`` bounds the attempts in a row, or those within any ``window_ns`` where that is given; None does not bound
    them. ``chance`` gives numbers from 0 up to 1 and shortens waits by up to a quarter; without it they are exact.
    """

    def __init__(
        self,
        *,
        first_ns: int,
        max_ns: int,
        limit: int | None = None,
        window_ns: int | None = None,
        chance: Callable[[], float] | None = None,
    ) -> None:
        self._first_ns = first_ns
        self._max_ns = max_ns
        self._limit = limit
        self._window_ns = window_ns
        self._chance = chance
        self.attempts: int = 0
        self._started_ns: int | None = None
        self._failed_ns: deque[int] = deque()  # within the window

    def started(self, *, now_ns: int) -> None:
        """An attempt began to work."""
        self._started_ns = now_ns

    def failed(self, *, now_ns: int) -> int | None:
        """The wait before the next attempt in nanoseconds; None when the limit is reached."""
        if self._started_ns is not None and now_ns - self._started_ns >= self._max_ns:
            self.attempts = 0
        self._started_ns = None
        if self._limit is not None and self._count(now_ns) >= self._limit:
            return None
        wait_ns = min(self._max_ns, self._first_ns << min(self.attempts, 40))
        self.attempts += 1
        if self._limit is not None and self._window_ns is not None:
            self._failed_ns.append(now_ns)
        return wait_ns if self._chance is None else round(wait_ns * (1 - JITTER * self._chance()))

    def _count(self, now_ns: int) -> int:
        """The attempts that count against the limit."""
        if self._window_ns is None:
            return self.attempts
        while self._failed_ns and now_ns - self._failed_ns[0] >= self._window_ns:
            self._failed_ns.popleft()
        return len(self._failed_ns)
