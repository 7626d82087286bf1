"""The bounded queue of an edge, as a pure machine: items in, outcomes out.

Bounded in items, bytes and milliseconds of media at once; every drop is counted with its cause, so that
``received = delivered + dropped + queued + waiting`` always holds.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar, get_args

Overflow = Literal["block", "drop-oldest", "drop-newest", "latest", "drop-to-keyframe"]
"""What an edge does when it is full.

``block`` makes the producer wait; ``drop-oldest`` and ``drop-newest`` lose one; ``latest`` keeps the newest only;
``drop-to-keyframe`` loses everything up to the next keyframe and asks for one.
"""

POLICIES: tuple[Overflow, ...] = get_args(Overflow)


class Item(Protocol):
    """What the queue needs to know of a payload."""

    @property
    def time_ns(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...


T = TypeVar("T", bound=Item)


@dataclass(frozen=True, slots=True)
class Limit:
    """How much may wait on an edge; None leaves that measure unbounded, ``items`` always bounds."""

    items: int
    bytes: int | None = None
    time_ns: int | None = None

    def __str__(self) -> str:
        parts = [f"{self.items} items"]
        if self.bytes is not None:
            parts.append(f"{self.bytes} B")
        if self.time_ns is not None:
            parts.append(f"{self.time_ns / 1e6:g} ms")
        return ", ".join(parts)


class Offered:
    """Outcomes of ``offer``."""

    TAKEN = 1
    DROPPED = 2  # this one, or others to make room
    FULL = 3  # block: it waits before the queue, and so should the producer, until there is room
    WANTS_KEYFRAME = 4  # dropped, and the producer should be asked for a keyframe


_TAKEN = Offered.TAKEN  # a name of the module is looked up in half the time


class OverflowQueue(Generic[T]):
    """The queue of one edge. ``items`` is what it holds, oldest first, to look at; ``drops`` counts losses by cause.

    ``waiting`` are the items that producers wait with, in order: they are let in as soon as there is room.
    ``needs_keyframe`` says that everything but a keyframe is being dropped, ``wants_keyframe`` that one should be asked
    for now that the consumer looks for something again.
    """

    __slots__ = (
        "_bytes", "_counts_bytes", "_has_asked", "delivered", "drops", "items", "limit", "needs_keyframe",
        "policy", "received", "waiting", "wants_keyframe",
    )  # fmt: skip

    def __init__(self, policy: Overflow, limit: Limit) -> None:
        if limit.items < 1:
            raise ValueError(f"a queue holds at least 1 item, not {limit.items}")
        self.policy: Overflow = policy
        self.limit: Limit = limit
        self.received: int = 0
        self.delivered: int = 0
        self.drops: Counter[str] = Counter()
        self.items: deque[T] = deque()
        self._counts_bytes = limit.bytes is not None  # only where they decide: a picture adds up its planes
        self._bytes = 0
        self.needs_keyframe: bool = False
        self._has_asked = False  # for a keyframe, and nothing was delivered since
        self.waiting: deque[T] = deque()
        self.wants_keyframe: bool = False

    def __len__(self) -> int:
        return len(self.items)

    @property
    def size_bytes(self) -> int:
        """Bytes waiting."""
        return sum(item.size_bytes for item in self.items)

    @property
    def span_ns(self) -> int:
        """Media time between the oldest and the newest that wait."""
        return self.items[-1].time_ns - self.items[0].time_ns if len(self.items) > 1 else 0

    def require_keyframe(self) -> None:
        """Lets nothing in before the next keyframe: at the start, or when the producer changed."""
        self.needs_keyframe = True

    def offer(self, item: T) -> int:
        """Takes an item or says why not; one of the constants of Offered."""
        if not self.items and not self.needs_keyframe:  # the usual case; one item fits, however large
            self.received += 1
            self.items.append(item)
            if self._counts_bytes:
                self._bytes += item.size_bytes
            return _TAKEN
        if self.needs_keyframe:
            if not getattr(item, "keyframe", True):
                self.received += 1
                self.drops["waiting-for-keyframe"] += 1
                return Offered.DROPPED
            self.needs_keyframe = False
        if not self.waiting and self._fits(item):
            self._take(item)
            return Offered.TAKEN
        policy = self.policy
        self.received += 1
        if policy == "block":
            self.waiting.append(item)
            return Offered.FULL
        if policy == "drop-newest":
            self.drops["overflow"] += 1
            return Offered.DROPPED
        if policy == "drop-to-keyframe":
            return self._drop_to_keyframe(item)
        while self.items and not self._fits(item):
            dropped = self.items.popleft()
            if self._counts_bytes:
                self._bytes -= dropped.size_bytes
            self.drops["overflow"] += 1
        self.received -= 1
        self._take(item)
        return Offered.DROPPED

    def _drop_to_keyframe(self, item: T) -> int:
        """Full: what waits is packets that build on each other, so all of it goes; a keyframe starts afresh."""
        self.drops["overflow"] += len(self.items)
        self.items.clear()
        self._bytes = 0
        if getattr(item, "keyframe", True):
            self.received -= 1
            self._take(item)
            return Offered.DROPPED
        self.drops["overflow"] += 1
        self.needs_keyframe = True
        if self._has_asked:  # a consumer that stands still would have the encoder make nothing but keyframes
            self.wants_keyframe = True
            return Offered.DROPPED
        self._has_asked = True
        return Offered.WANTS_KEYFRAME

    def _fits(self, item: T) -> bool:
        items, limit = self.items, self.limit
        if not items:  # one item always fits, however large: nothing would ever pass otherwise
            return True
        if self.policy == "latest" or len(items) >= limit.items:
            return False
        if limit.bytes is not None and self._bytes + item.size_bytes > limit.bytes:
            return False
        return limit.time_ns is None or abs(item.time_ns - items[0].time_ns) <= limit.time_ns

    def _take(self, item: T) -> None:
        self.received += 1
        self.items.append(item)
        if self._counts_bytes:
            self._bytes += item.size_bytes

    def withdraw(self, item: T, cause: str) -> bool:
        """Drops an item that still waits, counted under ``cause``; false when it was let in."""
        for index, each in enumerate(self.waiting):
            if each is item:
                del self.waiting[index]
                self.drops[cause] += 1
                return True
        return False

    def change(self, policy: Overflow, limit: Limit) -> None:
        """Goes on with another policy and limit; what waits is offered anew."""
        waiting, self.waiting = self.waiting, deque()
        self.policy, self.limit = policy, limit
        self._counts_bytes = limit.bytes is not None
        self._bytes = self.size_bytes if self._counts_bytes else 0
        for item in waiting:
            self.received -= 1
            if self.offer(item) == Offered.WANTS_KEYFRAME:
                self.wants_keyframe = True

    def poll(self) -> T | None:
        """The oldest item, or None when nothing waits."""
        items = self.items
        if not items:
            return None
        item = items.popleft()
        if self._counts_bytes:
            self._bytes -= item.size_bytes
        self.delivered += 1
        self._has_asked = False
        while self.waiting and self._fits(self.waiting[0]):
            self.received -= 1
            self._take(self.waiting.popleft())
        return item

    def passed(self, number: int) -> None:
        """Counts items that went by, since nothing waited and the consumer was there to take them."""
        self.received += number
        self.delivered += number

    def flush(self, cause: str) -> int:
        """Throws away what waits, counted under ``cause``; gives how many that were."""
        count = len(self.items) + len(self.waiting)
        if count:
            self.drops[cause] += count
            self.items.clear()
            self.waiting.clear()
            self._bytes = 0
        return count
