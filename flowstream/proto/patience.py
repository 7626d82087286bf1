"""When to try for more: after it has been possible for long enough, and later each time that it did not last."""

from __future__ import annotations


class Patience:
    """Waits ``first_ns``; twice as long, up to ``longest_ns``, after each try that lasted less than ``lasts_ns``."""

    def __init__(self, first_ns: int, *, longest_ns: int, lasts_ns: int) -> None:
        self._first_ns = first_ns
        self._longest_ns = longest_ns
        self._lasts_ns = lasts_ns
        self._wait_ns = first_ns
        self._since_ns: int | None = None
        self._tried_ns: int | None = None

    def is_due(self, is_possible: bool, *, now_ns: int) -> bool:
        """Whether it is to be tried now; a moment in which it is not possible begins the wait anew."""
        if not is_possible:
            self._since_ns = None
            return False
        if self._since_ns is None:
            self._since_ns = now_ns
        if now_ns - self._since_ns < self._wait_ns:
            return False
        self._since_ns, self._tried_ns = None, now_ns
        return True

    def undone(self, *, now_ns: int) -> None:
        """It had to be taken back."""
        self._since_ns = None
        if self._tried_ns is not None:
            is_short = now_ns - self._tried_ns < self._lasts_ns
            self._wait_ns = min(2 * self._wait_ns, self._longest_ns) if is_short else self._first_ns
            self._tried_ns = None
