"""Records: timed values that travel beside media: reports, targets, statistics, detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

V_co = TypeVar("V_co", covariant=True)


# Without slots: a frozen slotted generic dataclass cannot be made as ``Record[V](...)`` before Python 3.13.
@dataclass(frozen=True)
class Record(Generic[V_co]):
    """A value at a media time. ``capture_ns`` is the now at which its cause was captured, when there is one."""

    value: V_co
    time_ns: int
    capture_ns: int | None = None

    @property
    def size_bytes(self) -> int:
        """Records are small and bounded in number; they count as nothing towards a limit in bytes."""
        return 0
