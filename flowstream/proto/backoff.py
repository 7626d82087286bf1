"""How long to wait before the next attempt."""

from __future__ import annotations


class Backoff:
    """Waits that double from ``first_ns`` to ``max_ns``; a success for ``max_ns`` starts over.

    ``limit`` bounds the attempts in a row; None does not.
    """

    def __init__(self, *, first_ns: int, max_ns: int, limit: int | None = None) -> None:
        self._first_ns = first_ns
        self._max_ns = max_ns
        self._limit = limit
        self.attempts: int = 0
        self._started_ns: int | None = None

    def started(self, *, now_ns: int) -> None:
        """An attempt began to work."""
        self._started_ns = now_ns

    def failed(self, *, now_ns: int) -> int | None:
        """The wait before the next attempt in nanoseconds; None when the limit is reached."""
        if self._started_ns is not None and now_ns - self._started_ns >= self._max_ns:
            self.attempts = 0
        self._started_ns = None
        if self._limit is not None and self.attempts >= self._limit:
            return None
        wait_ns = min(self._max_ns, self._first_ns << min(self.attempts, 40))
        self.attempts += 1
        return wait_ns
