"""Measures over time in fixed memory: how they are spread, and what they add up to over the last seconds or minutes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

_BITS = 5
_FINE = 1 << _BITS
"""Buckets for each doubling: a quantile is never more than 1/32 above the exact one."""

_TOP_BITS = 44  # 4.9 hours in nanoseconds; larger values share the last buckets


class Sketch:
    """How values are spread: quantiles to within 1/32 above the exact one, the maximum exactly.

    Values are whole and not negative (a negative one counts as 0). There are never more than 1300 buckets.
    """

    __slots__ = ("_buckets", "count", "max", "total")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.count: int = 0
        self.max: int = 0
        self.total: int = 0

    def add(self, value: int) -> None:
        """Counts a value."""
        value = max(value, 0)
        self.count += 1
        self.total += value
        self.max = max(self.max, value)
        bucket = _bucket(value)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def merge(self, other: Sketch) -> None:
        """Counts all values of another one."""
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    def quantile(self, share: float) -> int:
        """The smallest value that at least this share (0 to 1) of all values does not exceed; 0 when there is none."""
        rank = max(1, math.ceil(share * self.count))
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return min(_top_of(bucket), self.max)
        return 0

    def __len__(self) -> int:
        """How many buckets are in use."""
        return len(self._buckets)


def _bucket(value: int) -> int:
    value = min(value, (1 << _TOP_BITS) - 1)
    exponent = max(0, value.bit_length() - _BITS - 1)
    return (exponent << _BITS) + (value >> exponent)


def _top_of(bucket: int) -> int:
    """The largest value of a bucket."""
    exponent = max(0, (bucket >> _BITS) - 1)
    return ((bucket - (exponent << _BITS) + 1) << exponent) - 1


@dataclass(slots=True)
class Slot:
    """What was counted from ``begin_ns`` to ``end_ns``."""

    begin_ns: int
    end_ns: int
    counts: dict[str, int] = field(default_factory=dict)
    spread: Sketch = field(default_factory=Sketch)

    def take(self, counts: Mapping[str, int], spread: Sketch | None) -> None:
        """Adds what was counted elsewhere."""
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        if spread is not None:
            self.spread.merge(spread)

    def per_second(self, name: str) -> float:
        """How often something was counted."""
        span_ns = self.end_ns - self.begin_ns
        return self.counts.get(name, 0) * 1e9 / span_ns if span_ns > 0 else 0.0


class Window:
    """The last ``short`` slots as they came, and before them ``long`` slots of ``short`` each.

    With a slot a second: the last minute by seconds, the last hour by minutes.
    """

    def __init__(self, begin_ns: int, *, short: int = 60, long: int = 60) -> None:
        self.end_ns: int = begin_ns
        self._each = short
        self._short: deque[Slot] = deque(maxlen=short)
        self._long: deque[Slot] = deque(maxlen=long)
        self._newest = Slot(begin_ns, begin_ns)  # of the long ones: not yet full
        self._filled = 0

    def add(self, now_ns: int, counts: Mapping[str, int], spread: Sketch | None = None) -> None:
        """Puts in what was counted since the last time."""
        slot = Slot(self.end_ns, now_ns)
        slot.take(counts, spread)
        self._short.append(slot)
        self._newest.take(counts, spread)
        self._newest.end_ns = self.end_ns = now_ns
        self._filled += 1
        if self._filled == self._each:
            self._long.append(self._newest)
            self._newest = Slot(now_ns, now_ns)
            self._filled = 0

    def over(self, span_ns: int) -> Slot:
        """What was counted in the last ``span_ns``: of the slots that reach back so far, or of all there are."""
        since_ns = self.end_ns - span_ns
        if self._short and (self._short[0].begin_ns <= since_ns or not self._long):
            slots = list(self._short)
        else:
            slots = [*self._long, self._newest]
        total = Slot(self.end_ns, self.end_ns)
        for slot in reversed(slots):
            if total.begin_ns <= since_ns:
                break
            total.take(slot.counts, slot.spread)
            total.begin_ns = slot.begin_ns
        return total
