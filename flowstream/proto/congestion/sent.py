"""Transport-wide sequence numbers, and what is remembered of each packet until the receiver has told of it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, NamedTuple, cast

from flowstream.proto.rtcp import TransportFeedback
from flowstream.proto.rtp import Unwrapper

SPAN: Final = 4096
"""Packets remembered: more than two seconds at 20 Mbit/s. Feedback on older ones is ignored."""

_TICK_NS: Final = 250_000
_TICKS_PER_REFERENCE: Final = 256  # 64 ms
_IN_FLIGHT, _ARRIVED, _LOST, _UNKNOWN = range(4)


Arrival = tuple[int, int, int, int]
"""A packet that arrived: when, on the receiver's clock, and when it was sent, on ours, both in ns; its size in bytes;
and the number of the probe that it belongs to, 0 for none."""


class Told(NamedTuple):
    """What one feedback says that was not known yet.

    ``arrivals`` are in the order of arrival and have ``size`` bytes together. ``lost`` counts packets that had not
    arrived, ``late`` those that count as lost before and have arrived after all. ``round_trip_ns`` is that of the
    newest packet that arrived, with the time that the receiver took to tell; None when none did.
    """

    arrivals: list[Arrival]
    lost: int
    late: int
    round_trip_ns: int | None
    size: int


class SentPackets:
    """Numbers the packets of one transport, audio and video alike, and remembers the last `SPAN` of them."""

    def __init__(self) -> None:
        self.in_flight_bytes: int = 0
        self._next = 0  # not wrapped
        # Of `SPAN` from the first packet on: who never connects takes no room.
        self._sent_ns = array("q")
        self._sizes = array("q")
        self._probes = array("q")
        self._states = bytearray([_ARRIVED]) * SPAN
        self._told_to = 0  # all below are told of, or never will be
        self._reference = Unwrapper(24)

    @property
    def next_number(self) -> int:
        """The 16-bit number that the next packet carries."""
        return self._next & 0xFFFF

    def add(self, sizes: Sequence[int], *, now_ns: int, probe: int = 0) -> int:
        """Packets that were sent just now, numbered from `next_number` on; ``sizes`` in bytes as on the wire.

        Gives the sum of them.
        """
        if not self._sent_ns:
            self._sent_ns, self._sizes, self._probes = (array("q", bytes(8 * SPAN)) for _ in range(3))
        first, count = self._next % SPAN, len(sizes)
        end = first + count
        if end > SPAN:
            room = SPAN - first
            return sum(self.add(some, now_ns=now_ns, probe=probe) for some in (sizes[:room], sizes[room:]) if some)
        states = self._states
        if states.find(_IN_FLIGHT, first, end) >= 0:
            self._give_up(self._next - SPAN, self._next - SPAN + count)
        states[first:end] = bytes(count)
        self._sent_ns[first:end] = array("q", (now_ns,)) * count
        self._sizes[first:end] = array("q", sizes)
        self._probes[first:end] = array("q", (probe,)) * count
        self._next += count
        total = sum(sizes)
        self.in_flight_bytes += total
        return total

    def take(self, feedback: TransportFeedback, *, now_ns: int) -> Told:
        """What a feedback tells; packets that were never sent, or that it told of before, are left out."""
        number = self._next - ((self._next - feedback.base_number) & 0xFFFF)
        oldest = max(0, self._next - SPAN)
        arrived_ns = self._reference.unwrap(feedback.reference_time & 0xFFFFFF) * _TICKS_PER_REFERENCE * _TICK_NS
        self._give_up(max(oldest, self._told_to), min(number, self._next))
        told = self._take_whole(number, feedback.deltas, arrived_ns, now_ns)
        if told is not None:
            return told
        arrivals: list[Arrival] = []
        lost = late = size = 0
        newest_sent_ns: int | None = None
        in_order = True
        states, kept, probes = self._states, self._sizes, self._probes
        for delta in feedback.deltas:
            if delta is not None:
                arrived_ns += delta * _TICK_NS
                in_order = in_order and delta >= 0
            if oldest <= number < self._next:
                slot = number % SPAN
                state = states[slot]
                if delta is None:
                    if not state:
                        states[slot] = _LOST
                        self.in_flight_bytes -= kept[slot]
                        lost += 1
                elif state != _ARRIVED:
                    if not state:
                        self.in_flight_bytes -= kept[slot]
                    elif state == _LOST:
                        late += 1
                    states[slot] = _ARRIVED
                    newest_sent_ns = self._sent_ns[slot]
                    size += kept[slot]
                    arrivals.append((arrived_ns, newest_sent_ns, kept[slot], probes[slot]))
            number += 1
        self._told_to = max(self._told_to, min(number, self._next))
        if not in_order:
            arrivals.sort()
        return Told(arrivals, lost, late, None if newest_sent_ns is None else max(0, now_ns - newest_sent_ns), size)

    def _take_whole(self, number: int, deltas: Sequence[int | None], arrived_ns: int, now_ns: int) -> Told | None:
        """The same for nearly all feedback: all has arrived, in order, and none of it was told before. None for other.

        ``number`` is that of the first packet; ``arrived_ns`` is what the first delta counts from.
        """
        first, count = number % SPAN, len(deltas)
        end = first + count
        is_known = max(0, self._next - SPAN) <= number and number + count <= self._next and end <= SPAN
        if not is_known or not count or self._states.count(_IN_FLIGHT, first, end) != count:
            return None
        if None in deltas:
            return None
        steps = cast("Sequence[int]", deltas)
        if min(steps) < 0:
            return None
        sizes, sent_ns = self._sizes[first:end], self._sent_ns[first:end]
        times = [arrived_ns + ticks * _TICK_NS for ticks in accumulate(steps)]
        arrivals = list(zip(times, sent_ns, sizes, self._probes[first:end], strict=True))
        self._states[first:end] = bytes((_ARRIVED,)) * count
        size = sum(sizes)
        self.in_flight_bytes -= size
        self._told_to = max(self._told_to, number + count)
        return Told(arrivals, 0, 0, max(0, now_ns - sent_ns[-1]), size)

    def forget(self) -> None:
        """Nothing counts as in flight any more: the path was dead, or is another one."""
        self._give_up(max(0, self._next - SPAN), self._next)

    def _give_up(self, first: int, end: int) -> None:
        """Packets of which nothing was told (the feedback was lost) are neither lost nor in flight."""
        for number in range(first, end):
            slot = number % SPAN
            if not self._states[slot]:
                self._states[slot] = _UNKNOWN
                self.in_flight_bytes -= self._sizes[slot]
