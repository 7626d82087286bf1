"""The rate of a stream as it comes, as the allocation of links needs it: what it takes, not what it is meant to."""

from __future__ import annotations

from collections import deque
from typing import Final

SPAN_NS: Final = 2_000_000_000
"""Over so long: keyframes are spread, and a change of the encoder's rate is seen within seconds."""

_LEAST_NS: Final = 250_000_000


class RateMeter:
    """Bits per second over the last two seconds. ``now_ns`` does not go back."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def add(self, size: int, *, now_ns: int) -> None:
        """So many bytes came now."""
        self._seen.append((now_ns, size))
        self._bytes += size
        while self._seen[0][0] < now_ns - SPAN_NS:
            self._bytes -= self._seen.popleft()[1]

    def bps_at(self, now_ns: int) -> int:
        """As `bps`; 0 when nothing has come for so long."""
        return self.bps if self._seen and now_ns - self._seen[-1][0] <= SPAN_NS else 0

    @property
    def bps(self) -> int:
        """What came, by the time from the first to the last that counts; 0 while too little has come to tell."""
        if not self._seen:
            return 0
        span_ns = self._seen[-1][0] - self._seen[0][0]
        if span_ns < _LEAST_NS:
            return 0
        # The last one is as long as the others are on average.
        span_ns += span_ns // (len(self._seen) - 1)
        return self._bytes * 8 * 1_000_000_000 // span_ns
