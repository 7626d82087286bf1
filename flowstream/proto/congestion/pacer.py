"""When each packet leaves: in bursts of a few milliseconds, the urgent ones first, and never later than it is of use.

A burst is small enough not to fill a queue on the path and large enough for the kernel to send it in one call.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, islice
from typing import Final, Generic, Literal, NamedTuple, TypeVar

from flowstream.proto.congestion.probing import Probe

MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000

BURST_NS: Final = 5 * MS
"""What is sent at once is at most what the pacing rate allows in this time, or one packet."""

FACTOR: Final = 1.5
"""Times the target rate: a picture larger than others is sent in less than the time to the next."""

CALM_FACTOR: Final = 2.5
"""The same where the path carries far more than is sent, as libwebrtc has it everywhere: most pictures are one burst
then."""

MOST_FACTOR: Final = 3.0
"""As far as it goes up to send what waits within `DRAINS_IN_NS`: a keyframe on a slow path would be late else."""

DRAINS_IN_NS: Final = 300 * MS

PACKET: Final = 1280
"""Bytes of padding are sent by as many at least, unless less is left of a probe: no packet is larger."""

OPENING_BPS: Final = 20_000_000
"""The rate of what is sent first, up to the pacer's ``opening``: nothing is known of the path yet, and a first keyframe
that takes its time keeps the viewer waiting. An initial window (RFC 9002 section 7.2), spread."""

_LEAST_LEFT_NS = 50 * MS

STARTED_NS: Final = 2_000 * MS
"""What has been sent in part is dropped only after this: the part would have been for nothing."""

T = TypeVar("T")


class Urgency(IntEnum):
    """The order in which what waits is sent."""

    AUDIO = 0
    RETRANSMISSION = 1
    VIDEO = 2


Cause = Literal["late", "full"]
"""Why something is dropped: it has waited too long, or too much waits."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What may wait: for how long, and how many bytes."""

    time_ns: int
    size: int


LIMITS: Final[dict[Urgency, Limit]] = {
    Urgency.AUDIO: Limit(200 * MS, 50_000),
    Urgency.RETRANSMISSION: Limit(300 * MS, 400_000),
    Urgency.VIDEO: Limit(600 * MS, 4_000_000),
}


class Burst(NamedTuple, Generic[T]):
    """Packets ``first`` to ``end`` of ``item`` are to be sent now; ``probe`` is 0 or the probe that they belong to."""

    item: T
    first: int
    end: int
    probe: int


class Padding(NamedTuple):
    """About ``size`` bytes are to be sent now for ``probe``, of what was sent before (RTX), headers included.

    There is a packet's worth of them, or what is left of the probe: on a slow path that takes some of its time.
    """

    size: int
    probe: int


@dataclass(frozen=True, slots=True)
class Dropped(Generic[T]):
    """Packets from ``first`` on of ``item`` will not be sent; 0 is all of them.

    ``breaks`` says that pictures after it cannot be shown without it: the next one to be sent must be a keyframe.
    """

    item: T
    first: int
    urgency: Urgency
    cause: Cause
    breaks: bool


@dataclass(slots=True)
class _Waiting(Generic[T]):
    item: T
    ends: Sequence[int]  # of each packet, in bytes from the first one's beginning
    since_ns: int
    is_droppable: bool
    next: int = 0
    sent: int = 0  # bytes

    @property
    def left(self) -> int:
        return self.ends[-1] - self.sent


class Pacer(Generic[T]):
    """What waits to be sent to one viewer. ``now_ns`` does not go back.

    An item is a run of packets that belong together, such as a picture. Of pictures those go first on which nothing
    depends (``is_droppable``); if that is not enough all that wait go, and what follows is refused up to the next
    keyframe. Every one that goes is told.
    """

    def __init__(self, *, now_ns: int, bps: int, opening: int = 0, limits: dict[Urgency, Limit] | None = None) -> None:
        """``opening`` bytes of pictures are sent at `OPENING_BPS` at least, before anything else."""
        self._opening = opening
        self.waiting_bytes: int = 0
        self.bps: int = bps
        """The target rate."""
        self.is_calm: bool = False
        """Whether the path carries far more than is sent."""
        # By urgency; lists, because a member of an enumeration is slow to hash.
        self._queues: list[deque[_Waiting[T]]] = [deque() for _ in Urgency]
        self._audio, self._retransmissions, self._video = self._queues
        self._bytes = [0] * len(Urgency)
        wanted = LIMITS if limits is None else limits
        self._limits = [wanted[urgency] for urgency in Urgency]
        self._free_ns = now_ns  # when all that was sent will have passed at the pacing rate
        self._probe: Probe | None = None
        self._probe_left = 0
        self._is_broken = False  # a picture was dropped that the next ones need

    @classmethod
    def slowest(cls, pacers: Sequence[Pacer[T]]) -> Pacer[T]:
        """One by which nothing `passes` but what would by all of these; each of them `is_free`."""
        slowest = min(pacers, key=lambda pacer: pacer.usual_bps)
        found = cls(now_ns=max([each._free_ns for each in pacers]), bps=slowest.bps)
        found.is_calm = slowest.is_calm
        return found

    @property
    def usual_bps(self) -> int:
        """The rate at which pictures are sent that are not late."""
        return int((CALM_FACTOR if self.is_calm else FACTOR) * self.bps) or 1

    @property
    def is_free(self) -> bool:
        """Whether nothing waits, no probe either, and nothing has to go before what comes next."""
        return self.is_empty and not self._is_broken and self._opening <= 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, no probe either."""
        return not self.waiting_bytes and self._probe is None

    def next_ns(self) -> int | None:
        """When `poll` has something to send: now, if that has passed; None while nothing waits."""
        if self.is_empty:
            return None
        return self._free_ns

    def waits_ns(self, urgency: Urgency, *, now_ns: int) -> int:
        """How long the oldest that waits has waited."""
        queue = self._queues[urgency]
        return now_ns - queue[0].since_ns if queue else 0

    def enqueue(
        self,
        item: T,
        sizes: Sequence[int],
        urgency: Urgency,
        *,
        now_ns: int,
        is_droppable: bool = False,
        is_keyframe: bool = False,
    ) -> list[Dropped[T]]:
        """Packets of ``sizes`` bytes as on the wire; gives what had to be dropped for them, maybe themselves."""
        total = sum(sizes)
        limit = self._limits[urgency]
        is_video = urgency == Urgency.VIDEO
        dropped: list[Dropped[T]] = []
        is_expendable = is_video and is_droppable
        if self._bytes[urgency] + total > limit.size and not is_expendable:
            dropped = self._make_room(urgency, total, limit.size)
        if is_video and is_keyframe:
            self._is_broken = False
        if self._bytes[urgency] + total > limit.size or (is_video and self._is_broken):
            breaks = is_video and not is_expendable
            self._is_broken = self._is_broken or breaks
            return [*dropped, Dropped(item, 0, urgency, "full", breaks)]
        if not sizes:
            return dropped
        self._queues[urgency].append(_Waiting(item, list(accumulate(sizes)), now_ns, is_droppable))
        self._bytes[urgency] += total
        self.waiting_bytes += total
        return dropped

    def passes(self, size: int, last: int, *, now_ns: int) -> bool:
        """Whether a run of packets leaves at once, without waiting in here; it counts as sent then.

        ``size`` is that of all, ``last`` of the last one. Where something waits, or it does not fit one burst, it is
        for `enqueue` and `poll`.
        """
        if not self.is_free:
            return False
        bps = self.usual_bps
        free_ns = max(self._free_ns, now_ns)
        if (size - last) * 8 * NS_PER_S > (now_ns + BURST_NS - free_ns) * bps:
            return False
        self._free_ns = free_ns + size * 8 * NS_PER_S // bps
        return True

    def carries(self, size: int) -> bool:
        """Whether ``size`` bytes fit one burst."""
        return size * 8 * NS_PER_S <= BURST_NS * self.usual_bps

    def passed(self, size: int, *, now_ns: int) -> None:
        """``size`` bytes have left that another pacer let pass: one by which nothing passes that would not by this."""
        self._free_ns = max(self._free_ns, now_ns) + size * 8 * NS_PER_S // self.usual_bps

    def start_probe(self, probe: Probe) -> None:
        """What is sent next is sent at the probe's rate, with padding as far as nothing waits."""
        self._probe, self._probe_left = probe, probe.size

    def poll(self, *, now_ns: int) -> tuple[list[Burst[T] | Padding], list[Dropped[T]]]:
        """What is to be sent now, in this order, and what is dropped because it has become too late."""
        dropped = self._drop_late(now_ns) if self._has_waited_long(now_ns) else []
        out: list[Burst[T] | Padding] = []
        probe = self._probe
        is_opening = self._opening > 0
        bps = self._pacing_bps(now_ns)
        horizon_ns = now_ns + BURST_NS
        free_ns = max(self._free_ns, now_ns)
        # Sound is never held back; it counts towards what may follow.
        while self._audio:
            free_ns += self._send(0, self._audio, 1 << 30, out) * 8 * NS_PER_S // bps
        while free_ns < horizon_ns:
            room = (horizon_ns - free_ns) * bps // 8 // NS_PER_S
            if probe is not None:
                room = min(room, self._probe_left)
            if self._retransmissions:
                size = self._send(1, self._retransmissions, room, out)
            elif self._video:
                if is_opening:
                    room = min(room, self._opening)
                size = self._send(2, self._video, room, out)
                self._opening -= size
            elif probe is not None:
                size = min(max(PACKET, room), self._probe_left)
                out.append(Padding(size, probe.number))
                self._spend_probe(size)
            else:
                break
            free_ns += size * 8 * NS_PER_S // bps
            if probe is not self._probe or is_opening != (self._opening > 0):
                probe, is_opening = self._probe, self._opening > 0
                bps = self._pacing_bps(now_ns)
        self._free_ns = free_ns
        return out, dropped

    def clear(self) -> list[Dropped[T]]:
        """Drops all that waits; the next picture must be a keyframe."""
        self._probe = None
        self._is_broken = True
        return [self._drop_first(urgency, "full") for urgency in Urgency for _ in range(len(self._queues[urgency]))]

    # --- inside -----------------------------------------------------------------------------------------------------

    def _pacing_bps(self, now_ns: int) -> int:
        if self._probe is not None:
            return max(1, self._probe.bps)
        bps = self.usual_bps
        if self._video and self._opening > 0:
            return max(bps, OPENING_BPS)
        if self._video:
            left_ns = max(DRAINS_IN_NS - (now_ns - self._video[0].since_ns), _LEAST_LEFT_NS)
            drains_bps = self.waiting_bytes * 8 * NS_PER_S // left_ns
            if drains_bps > bps:
                return min(drains_bps, int(MOST_FACTOR * self.bps) or 1)
        return bps

    def _send(self, urgency: int, queue: deque[_Waiting[T]], room: int, out: list[Burst[T] | Padding]) -> int:
        """Takes packets of the first that waits, as many as begin within ``room`` bytes; gives their size."""
        waiting = queue[0]
        first, ends = waiting.next, waiting.ends
        end = min(bisect_left(ends, waiting.sent + room, first) + 1, len(ends))
        size = ends[end - 1] - waiting.sent
        if end == len(ends):
            queue.popleft()
        else:
            waiting.next = end
            waiting.sent += size
        self._bytes[urgency] -= size
        self.waiting_bytes -= size
        probe = 0
        if self._probe is not None:
            probe = self._probe.number
            self._spend_probe(size)
        out.append(Burst(waiting.item, first, end, probe))
        return size

    def _spend_probe(self, size: int) -> None:
        self._probe_left -= size
        if self._probe_left < PACKET // 4:  # no packet is that small
            self._probe = None

    def _has_waited_long(self, now_ns: int) -> bool:
        """Whether anything may be late: the oldest of each have waited longest."""
        for queue, limit in zip(self._queues, self._limits, strict=True):
            if queue and now_ns - queue[0].since_ns > limit.time_ns:
                return True
        return False

    def _drop_late(self, now_ns: int) -> list[Dropped[T]]:
        dropped: list[Dropped[T]] = []
        for urgency, queue in ((Urgency.AUDIO, self._audio), (Urgency.RETRANSMISSION, self._retransmissions)):
            while queue and self._is_late(queue[0], urgency, now_ns):
                dropped.append(self._drop_first(urgency, "late"))
        if self._has_late_video(now_ns):
            dropped += self._drop_droppable("late")
            if self._has_late_video(now_ns):
                dropped += self._drop_video("late", now_ns)
        return dropped

    def _has_late_video(self, now_ns: int) -> bool:
        """Whether a picture is late; behind one that is sent in part, the next has waited longest."""
        queue = self._video
        if not queue or now_ns - queue[0].since_ns <= self._limits[Urgency.VIDEO].time_ns:
            return False
        return any(self._is_late(waiting, Urgency.VIDEO, now_ns) for waiting in islice(queue, 2))

    def _is_late(self, waiting: _Waiting[T], urgency: Urgency, now_ns: int) -> bool:
        limit_ns = self._limits[urgency].time_ns
        return now_ns - waiting.since_ns > (max(STARTED_NS, limit_ns) if waiting.next else limit_ns)

    def _make_room(self, urgency: Urgency, size: int, limit: int) -> list[Dropped[T]]:
        dropped: list[Dropped[T]] = []
        if urgency == Urgency.VIDEO:
            dropped += self._drop_droppable("full")
            if self._bytes[urgency] + size > limit:
                dropped += self._drop_video("full", None)
        else:
            while self._queues[urgency] and self._bytes[urgency] + size > limit:
                dropped.append(self._drop_first(urgency, "full"))
        return dropped

    def _drop_droppable(self, cause: Cause) -> list[Dropped[T]]:
        """Drops the pictures on which nothing depends, but for one that is sent in part: its rest belongs to it."""
        queue = self._video
        dropped: list[Dropped[T]] = []
        for _ in range(len(queue)):
            if queue[0].is_droppable and not queue[0].next:
                dropped.append(self._drop_first(Urgency.VIDEO, cause))
            else:
                queue.rotate(-1)
        return dropped

    def _drop_video(self, cause: Cause, now_ns: int | None) -> list[Dropped[T]]:
        """Drops all pictures that wait; one that is sent in part only when it is too late itself."""
        queue = self._video
        kept: _Waiting[T] | None = None
        if queue and queue[0].next and not (now_ns is not None and self._is_late(queue[0], Urgency.VIDEO, now_ns)):
            kept = queue.popleft()
        dropped: list[Dropped[T]] = []
        while queue:
            dropped.append(self._drop_first(Urgency.VIDEO, cause))
        if kept is not None:
            queue.append(kept)
        return dropped

    def _drop_first(self, urgency: Urgency, cause: Cause) -> Dropped[T]:
        waiting = self._queues[urgency].popleft()
        self._bytes[urgency] -= waiting.left
        self.waiting_bytes -= waiting.left
        breaks = urgency == Urgency.VIDEO and not (waiting.is_droppable and not waiting.next)
        self._is_broken = self._is_broken or breaks
        return Dropped(waiting.item, waiting.next, urgency, cause, breaks)
