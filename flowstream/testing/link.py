"""A network link as a machine without I/O: datagrams and now in, datagrams with their times out.

One direction of one link. What happens to a datagram on its way: it is lost at once while the link is ``down``; it
waits in a queue of bounded length for the transmitter, which sends at ``rate``; having used the wire it may be lost, by
chance or in a burst; it travels for ``delay`` and up to ``jitter`` more; it may arrive twice. Datagrams keep their
order, also when the delay changes, except for the share that is held back by ``reorder``.

The same seed and the same calls give the same result, and a change of conditions does not shift the dice::

    link = Link({"rate": "2M", "delay": "40ms", "loss": "1%"}, seed=7, script=[Change("10s", rate="500k")])
    link.send(datagram, now_ns)
    for delivery in link.poll(now_ns):
        ...
    wake_at_ns = link.next_ns()
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as member
from typing import Any, Literal

from flowstream.node.config import Config, field
from flowstream.node.quantities import Bitrate, ByteSize, Duration, Percentage, parse_duration

Fate = Literal["queued", "overflow", "down"]
"""What becomes of a datagram when it is sent: it waits its turn, the queue is full, the link is down."""

UNLIMITED = 0
MAX_INSIDE = 100_000
"""Datagrams that a link holds at most, whatever its conditions say; more overflow."""


class LinkConditions(Config):
    """How a link behaves. Written as in a graph (``"2M"``, ``"40ms"``, ``"1%"``) or in bits per second, ns, shares."""

    rate: Bitrate = field(default=UNLIMITED, ge=0, description="What the wire carries; 0 is unlimited.")
    delay: Duration = field(default=0, ge=0, description="How long a datagram travels.")
    jitter: Duration = field(default=0, ge=0, description="How much longer at most; evenly distributed.")
    loss: Percentage = field(default=0.0, ge=0, le=1, description="Share that is lost, each by itself.")
    burst_enter: Percentage = field(
        default=0.0, ge=0, le=1, description="Chance per datagram that a burst of losses begins (Gilbert-Elliott)."
    )
    burst_leave: Percentage = field(
        default=1.0, gt=0, le=1, description="Chance per datagram that a burst ends; its mean length is the inverse."
    )
    burst_loss: Percentage = field(default=1.0, ge=0, le=1, description="Share that is lost within a burst.")
    duplicate: Percentage = field(default=0.0, ge=0, le=1, description="Share that arrives twice.")
    reorder: Percentage = field(
        default=0.0, ge=0, le=1, description="Share that is held back, so that others overtake."
    )
    reorder_by: Duration = field(default=10_000_000, ge=0, description="How long it is held back.")
    queue_bytes: ByteSize = field(default=0, ge=0, description="What may wait for the wire; 0 is unlimited.")
    queue_time: Duration = field(
        default=0, ge=0, description="How long a datagram may have to wait for the wire; 0 is unlimited."
    )
    overhead: ByteSize = field(default=28, ge=0, description="What each datagram takes besides its data: IP and UDP.")
    down: Literal["no", "losing", "holding"] = field(
        default="no",
        description="A blackout: losing drops what is sent, holding keeps it waiting in the queue.",
    )


@dataclass(frozen=True, slots=True)
class Change:
    """Conditions that change at a time: ``Change("10s", rate="500k")``; what is not named stays as it was.

    ``at`` is a duration or nanoseconds, from the moment that the link is first used.
    """

    at: int | str
    changes: Mapping[str, Any]

    def __init__(self, at: int | str, **changes: Any) -> None:
        object.__setattr__(self, "at", at)
        object.__setattr__(self, "changes", changes)

    @property
    def at_ns(self) -> int:
        """When, in nanoseconds. Raises ValueError for a text that is no duration."""
        return self.at if isinstance(self.at, int) else parse_duration(self.at)


@dataclass(frozen=True, slots=True, order=True)
class Delivery:
    """A datagram that arrives at ``at_ns``; ``number`` counts what was sent, a second copy ``is_duplicate``.

    ``tag`` is what it was sent with.
    """

    at_ns: int
    number: int
    is_duplicate: bool
    sent_ns: int
    data: bytes
    tag: Any = member(default=None, compare=False)


@dataclass(slots=True)
class _Waiting:
    number: int
    sent_ns: int
    data: bytes
    size: int
    tag: Any


class Link:
    """One direction of a link. ``now_ns`` must not go back; between two calls everything due happens in its order.

    ``counts`` has ``sent``, ``delivered``, ``duplicated``; and by cause ``lost``, ``burst``, ``overflow``, ``down``.
    At every moment ``sent + duplicated == delivered + lost + burst + overflow + down + inside``.
    """

    def __init__(
        self,
        conditions: LinkConditions | Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
        script: Iterable[Change] = (),
    ) -> None:
        self.conditions: LinkConditions = (
            conditions if isinstance(conditions, LinkConditions) else LinkConditions.model_validate(conditions or {})
        )
        self.counts: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._script = deque(sorted(script, key=lambda change: change.at_ns))
        current = self.conditions
        for change in self._script:  # a mistake in a script shows at once, not in the middle of a test
            current = _changed(current, change)
        self._begin_ns: int | None = None
        self._now_ns = 0
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._on_wire: tuple[int, _Waiting] | None = None  # when its last bit leaves
        self._travelling: list[Delivery] = []
        self._last_arrival_ns = 0
        self._in_burst = False

    @property
    def inside(self) -> int:
        """Datagrams that are on their way: waiting, on the wire, travelling."""
        return len(self._queue) + (self._on_wire is not None) + len(self._travelling)

    def set(self, now_ns: int, **changes: Any) -> None:
        """Changes the conditions now. Raises ValueError (pydantic's) for what no link can have."""
        self._advance(now_ns)
        self.conditions = _changed(self.conditions, Change(0, **changes))
        self._advance(now_ns)

    def send(self, data: bytes, now_ns: int, tag: Any = None) -> Fate:
        """Puts a datagram on the link, and says what became of it at its entrance; ``tag`` comes out with it."""
        self._advance(now_ns)
        number = self.counts["sent"]
        self.counts["sent"] += 1
        conditions = self.conditions
        if conditions.down == "losing":
            self.counts["down"] += 1
            return "down"
        waiting = _Waiting(number, now_ns, data, len(data) + conditions.overhead, tag)
        if not self._has_room(waiting, now_ns):
            self.counts["overflow"] += 1
            return "overflow"
        self._queue.append(waiting)
        self._queued_bytes += waiting.size
        self._advance(now_ns)
        return "queued"

    def poll(self, now_ns: int) -> list[Delivery]:
        """What has arrived by now, in the order of arrival."""
        self._advance(now_ns)
        arrived: list[Delivery] = []
        while self._travelling and self._travelling[0].at_ns <= now_ns:
            arrived.append(heapq.heappop(self._travelling))
        self.counts["delivered"] += len(arrived)
        return arrived

    def next_ns(self) -> int | None:
        """When something happens next; None when nothing will before the next ``send``."""
        due = [each for each in (self._next_inside_ns(), self._next_change_ns()) if each is not None]
        if self._travelling:
            due.append(self._travelling[0].at_ns)
        return min(due, default=None)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _has_room(self, waiting: _Waiting, now_ns: int) -> bool:
        conditions = self.conditions
        if self.inside >= MAX_INSIDE:
            return False
        if conditions.queue_bytes and self._queued_bytes + waiting.size > conditions.queue_bytes:
            return False
        if conditions.queue_time and conditions.rate:
            busy_ns = max(0, self._on_wire[0] - now_ns) if self._on_wire else 0
            return busy_ns + _wire_ns(self._queued_bytes, conditions.rate) <= conditions.queue_time
        return True

    def _next_inside_ns(self) -> int | None:
        return self._on_wire[0] if self._on_wire else None

    def _next_change_ns(self) -> int | None:
        if not self._script or self._begin_ns is None:
            return None
        return self._begin_ns + self._script[0].at_ns

    def _advance(self, now_ns: int) -> None:
        """Everything that happens by now, in its order: changes of the script, and datagrams leaving the wire."""
        if self._begin_ns is None:
            self._begin_ns = self._now_ns = now_ns
        if now_ns < self._now_ns:
            raise ValueError(f"time does not go back by {self._now_ns - now_ns} ns")
        while True:
            self._fill_wire()
            change_ns, leave_ns = self._next_change_ns(), self._next_inside_ns()
            if change_ns is not None and change_ns <= now_ns and (leave_ns is None or change_ns <= leave_ns):
                self._now_ns = max(self._now_ns, change_ns)
                self.conditions = _changed(self.conditions, self._script.popleft())
            elif leave_ns is not None and leave_ns <= now_ns:
                self._now_ns = max(self._now_ns, leave_ns)
                assert self._on_wire is not None
                left, self._on_wire = self._on_wire[1], None
                self._leave(left, leave_ns)
            else:
                break
        self._now_ns = now_ns

    def _fill_wire(self) -> None:
        """Begins with the next datagram that waits; the rate of that moment holds until its last bit."""
        if self._on_wire is not None or not self._queue or self.conditions.down == "holding":
            return
        waiting = self._queue.popleft()
        self._queued_bytes -= waiting.size
        rate = self.conditions.rate
        self._on_wire = (self._now_ns + (_wire_ns(waiting.size, rate) if rate else 0), waiting)

    def _leave(self, waiting: _Waiting, leave_ns: int) -> None:
        """The last bit is on its way. Six throws for every datagram, whatever the conditions."""
        burst, in_burst, loss, twice, back, late = (self._chance.random() for _ in range(6))
        conditions = self.conditions
        self._in_burst = burst >= conditions.burst_leave if self._in_burst else burst < conditions.burst_enter
        if self._in_burst and in_burst < conditions.burst_loss:
            self.counts["burst"] += 1
            return
        if loss < conditions.loss:
            self.counts["lost"] += 1
            return
        at_ns = leave_ns + conditions.delay + round(late * conditions.jitter)
        if back < conditions.reorder:
            at_ns += conditions.reorder_by
        else:
            at_ns = self._last_arrival_ns = max(at_ns, self._last_arrival_ns)
        self._travel(Delivery(at_ns, waiting.number, False, waiting.sent_ns, waiting.data, waiting.tag))
        if twice < conditions.duplicate:
            self.counts["duplicated"] += 1
            self._travel(Delivery(at_ns, waiting.number, True, waiting.sent_ns, waiting.data, waiting.tag))

    def _travel(self, delivery: Delivery) -> None:
        heapq.heappush(self._travelling, delivery)


def _wire_ns(size: int, rate: int) -> int:
    return -(-size * 8 * 1_000_000_000 // rate)


def _changed(conditions: LinkConditions, change: Change) -> LinkConditions:
    old = {name: getattr(conditions, name) for name in LinkConditions.model_fields}
    return LinkConditions.model_validate({**old, **change.changes})
