"""Transport-wide sequence numbers, and what is remembered of each packet until the receiver has told of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final, NamedTuple, Self, cast

from flowstream.proto.rtcp import TransportFeedback, WholeFeedback
from flowstream.proto.rtp import Unwrapper

SPAN: Final = 4096
"""Packets remembered: more than two seconds at 20 Mbit/s. Feedback on older ones is ignored."""

TICK_NS: Final = 250_000
"""What feedback counts time in."""

_TICKS_PER_REFERENCE: Final = 256  # 64 ms
_IN_FLIGHT, _ARRIVED, _LOST, _UNKNOWN = range(4)


class Arrival(NamedTuple):
    """Packets that were sent together, one behind the other, and arrived so; times are in ns.

    The first of them arrived at ``arrived_ns``, the last at ``last_ns``, by the receiver's clock; all were sent at
    ``sent_ns``, by ours. They have ``size`` bytes together and ``sizes`` each. ``probe`` is the number of the probe
    that they belong to, 0 for none. ``ticks`` are when each arrived, in `TICK_NS` from any beginning.
    """

    arrived_ns: int
    sent_ns: int
    size: int
    probe: int
    last_ns: int
    sizes: Sequence[int]
    ticks: Sequence[int]

    @classmethod
    def alone(cls, arrived_ns: int, sent_ns: int, size: int, probe: int) -> Self:
        """That of one packet."""
        return cls(arrived_ns, sent_ns, size, probe, arrived_ns, (size,), (0,))

    @property
    def times_ns(self) -> list[int]:
        """When each arrived."""
        return [self.arrived_ns + (ticks - self.ticks[0]) * TICK_NS for ticks in self.ticks]


class Glance(NamedTuple):
    """What `SentPackets.glance` sees: packets that all arrived, the first of them ``number`` (not wrapped).

    ``deltas`` are between their arrivals, in `TICK_NS`, the first since ``reference_ns`` by the receiver's clock.
    ``arrived_ns`` is when that came which was sent last, ``sent_ns`` when it was sent (if that was several packets, the
    first of them); they all have ``size`` bytes together.
    """

    number: int
    deltas: bytes
    reference_ns: int
    arrived_ns: int
    sent_ns: int
    size: int


class Told(NamedTuple):
    """What one feedback says that was not known yet.

    ``arrivals`` are in the order of arrival; they are of ``received`` packets, which have ``size`` bytes together.
    ``lost`` counts packets that had not arrived, ``late`` those that count as lost before and have arrived after all.
    ``round_trip_ns`` is that of the newest packet that arrived, with the time that the receiver took to tell; None when
    none did.
    """

    arrivals: list[Arrival]
    received: int
    lost: int
    late: int
    round_trip_ns: int | None
    size: int


_Run = tuple[int, int, Sequence[int], int, int, int]
"""Packets that were sent together: the number of the first (not wrapped), when they were sent, their sizes, the sum of
these, the probe that they belong to, and the sum of all that was sent before. (A plain tuple: one is made for each
burst to each viewer.)"""

_TOLD: Final[_Run] = (0, 0, (), 0, 0, 0)
"""In the place of a run whose packets have arrived: nothing more is to be known of them."""


class SentPackets:
    """Numbers the packets of one transport, audio and video alike, and remembers the last `SPAN` of them.

    Little of those that have arrived, unless they were passed over at a glance; of those of which nothing is told, as
    much as 200 bytes for each run.
    """

    def __init__(self) -> None:
        self.in_flight_bytes: int = 0
        self._next = 0  # not wrapped
        self._bytes = 0  # of all that was sent
        self._runs: list[_Run] = []  # that of each packet: `SPAN` of them from the first on
        self._states = bytearray([_ARRIVED]) * SPAN
        self._told_to = 0  # all below are told of, or never will be
        self._reference = Unwrapper(24)

    @property
    def next_number(self) -> int:
        """The 16-bit number that the next packet carries."""
        return self._next & 0xFFFF

    def add(self, sizes: Sequence[int], *, now_ns: int, probe: int = 0) -> int:
        """Packets that were sent at ``now_ns``, numbered from `next_number` on; gives the sum of their sizes.

        ``sizes`` are in bytes as on the wire, and must not change any more.
        """
        if not self._runs:
            self._runs = [_TOLD] * SPAN  # who never connects takes no room
        number, count = self._next, len(sizes)
        first = number % SPAN
        end = first + count
        if end > SPAN:
            room = SPAN - first
            return sum(self.add(some, now_ns=now_ns, probe=probe) for some in (sizes[:room], sizes[room:]) if some)
        states = self._states
        if states.find(_IN_FLIGHT, first, end) >= 0:
            self._give_up(number - SPAN, number - SPAN + count)
        states[first:end] = bytes(count)
        size = sum(sizes)
        self._runs[first:end] = [(number, now_ns, sizes, size, probe, self._bytes)] * count
        self._next = number + count
        self._bytes += size
        self.in_flight_bytes += size
        return size

    def take(self, feedback: TransportFeedback, *, now_ns: int) -> Told:
        """What a feedback tells; packets that were never sent, or that it told of before, are left out."""
        number = self._next - ((self._next - feedback.base_number) & 0xFFFF)
        oldest = max(0, self._next - SPAN)
        arrived_ns = self._reference.unwrap(feedback.reference_time & 0xFFFFFF) * _TICKS_PER_REFERENCE * TICK_NS
        self._give_up(max(oldest, self._told_to), min(number, self._next))
        told = self._take_whole(number, feedback.deltas, arrived_ns, now_ns)
        if told is not None:
            return told
        arrivals: list[Arrival] = []
        lost = late = 0
        newest_sent_ns: int | None = None
        in_order = True
        states, runs = self._states, self._runs
        for delta in feedback.deltas:
            if delta is not None:
                arrived_ns += delta * TICK_NS
                in_order = in_order and delta >= 0
            if oldest <= number < self._next:
                slot = number % SPAN
                state = states[slot]
                if delta is None:
                    if not state:
                        states[slot] = _LOST
                        first, _, sizes, _, _, _ = runs[slot]
                        self.in_flight_bytes -= sizes[number - first]
                        lost += 1
                elif state != _ARRIVED:
                    first, sent_ns, sizes, _, probe, _ = runs[slot]
                    size = sizes[number - first]
                    if not state:
                        self.in_flight_bytes -= size
                    elif state == _LOST:
                        late += 1
                    states[slot], runs[slot] = _ARRIVED, _TOLD
                    newest_sent_ns = sent_ns
                    arrivals.append(Arrival.alone(arrived_ns, sent_ns, size, probe))
            number += 1
        self._told_to = max(self._told_to, min(number, self._next))
        if not in_order:
            arrivals.sort()
        round_trip_ns = None if newest_sent_ns is None else max(0, now_ns - newest_sent_ns)
        return Told(arrivals, len(arrivals), lost, late, round_trip_ns, sum(each.size for each in arrivals))

    def _take_whole(self, number: int, deltas: Sequence[int | None], arrived_ns: int, now_ns: int) -> Told | None:
        """The same for nearly all feedback: all has arrived, in order, and none of it was told before. None for other.

        ``number`` is that of the first packet; ``arrived_ns`` is what the first delta counts from.
        """
        count = len(deltas)
        if not self._is_news(number, count) or None in deltas:
            return None
        steps = cast("Sequence[int]", deltas)
        if min(steps) < 0:
            return None
        arrivals = self._arrivals(number, steps, arrived_ns)
        first = number % SPAN
        self._states[first : first + count] = bytes((_ARRIVED,)) * count
        self.let_go(number, count)
        size = sum([arrival.size for arrival in arrivals])
        self.in_flight_bytes -= size
        self._told_to = max(self._told_to, number + count)
        return Told(arrivals, count, 0, 0, max(0, now_ns - arrivals[-1].sent_ns), size)

    def glance(self, feedback: WholeFeedback) -> Glance | None:
        """What a feedback tells, by its end alone; nothing counts as told before `pass_over`.

        None if it is not just what was to be told next, and for one of every `SPAN` packets: where they are on both
        sides of the end of what is remembered, which is a ring.
        """
        number, deltas = self._told_to, feedback.deltas
        count = len(deltas)
        if feedback.base_number != number & 0xFFFF or not self._is_news(number, count):
            return None
        reference_ns = self._reference.unwrap(feedback.reference_time & 0xFFFFFF) * _TICKS_PER_REFERENCE * TICK_NS
        place, runs = number % SPAN, self._runs
        begun, _, sizes, _, _, before = runs[place]
        last, sent_ns, last_sizes, last_size, _, last_before = runs[place + count - 1]
        if begun != number:
            before += sum(sizes[: number - begun])
        if last + len(last_sizes) != number + count:
            last_size = sum(last_sizes[: number + count - last])
        arrived_ns = reference_ns + sum(deltas[: max(last - number, 0) + 1]) * TICK_NS
        return Glance(number, deltas, reference_ns, arrived_ns, sent_ns, last_before + last_size - before)

    def pass_over(self, seen: Glance) -> None:
        """What was just seen is told. It is still remembered how it was sent, until `let_go`."""
        count = len(seen.deltas)
        first = seen.number % SPAN
        self._states[first : first + count] = bytes((_ARRIVED,)) * count
        self.in_flight_bytes -= seen.size
        self._told_to = seen.number + count

    def look_back(self, seen: Glance) -> list[Arrival]:
        """The arrivals of what was passed over; none if too much was sent since."""
        if seen.number < self._next - SPAN:
            return []
        return self._arrivals(seen.number, seen.deltas, seen.reference_ns)

    def let_go(self, number: int, count: int) -> None:
        """Nothing more is to be known of packets that have arrived, from this number (not wrapped) on."""
        if number >= self._next - SPAN:
            first = number % SPAN
            self._runs[first : first + count] = [_TOLD] * count

    def _is_news(self, number: int, count: int) -> bool:
        """Whether packets were sent and nothing was told of them, and they lie one behind the other."""
        first = number % SPAN
        end = first + count
        is_known = max(0, self._next - SPAN) <= number and number + count <= self._next and end <= SPAN
        return is_known and count > 0 and self._states.count(_IN_FLIGHT, first, end) == count

    def _arrivals(self, number: int, steps: Sequence[int], arrived_ns: int) -> list[Arrival]:
        """Those of packets that lie one behind the other; ``arrived_ns`` is what the first step counts from."""
        ticks = list(accumulate(steps))
        arrivals: list[Arrival] = []
        runs, first, count, place = self._runs, number % SPAN, len(steps), 0
        while place < count:
            run_first, sent_ns, sizes, size, probe, _ = runs[first + place]
            begin = number + place - run_first
            until = min(begin + count - place, len(sizes))
            if until - begin < len(sizes):
                sizes = sizes[begin:until]
                size = sum(sizes)
            some = ticks[place : place + until - begin]
            arrivals.append(
                Arrival(
                    arrived_ns + some[0] * TICK_NS, sent_ns, size, probe, arrived_ns + some[-1] * TICK_NS, sizes, some
                )
            )
            place += until - begin
        return arrivals

    def forget(self) -> None:
        """Nothing counts as in flight any more: the path was dead, or is another one."""
        self._give_up(max(0, self._next - SPAN), self._next)

    def _give_up(self, first: int, end: int) -> None:
        """Packets of which nothing was told (the feedback was lost) are neither lost nor in flight."""
        for number in range(first, end):
            slot = number % SPAN
            if not self._states[slot]:
                self._states[slot] = _UNKNOWN
                begin, _, sizes, _, _, _ = self._runs[slot]
                self.in_flight_bytes -= sizes[number - begin]
