"""What a sender keeps to answer NACK with (RFC 4585), and the retransmission stream that carries it (RFC 4588)."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_PACKETS: Final = 1024
"""Packets kept: what libsrtp's replay window lets a sender protect again when the peer has no RTX."""

RTX_HEADER: Final = 2
"""Bytes before the payload of what is sent again: its first sequence number (RFC 4588 section 4)."""

MAX_PACKETS_BY_RTX: Final = 8192
"""The same where the peer has RTX: `MAX_AGE_NS` at 75 Mbit/s. Payloads are shared by all viewers of a stream."""

MAX_AGE_NS: Final = 1_000_000_000
"""Older packets are not sent again: their frame has been given up by then."""

MIN_INTERVAL_NS: Final = 10_000_000
"""A packet that was sent again is not sent once more sooner than this, nor than one round trip, after that."""

BURST: Final = 512
"""Packets that may be sent again at once after a quiet time."""


_SPARE: Final = 64
_SELDOM: Final = 1.25  # times their age at which old ones are put away, many at a time; `take` gives none of them


@dataclass(frozen=True, slots=True)
class SentPacket:
    """An RTP packet as it was sent, without what the stream makes of it (header, protection)."""

    sequence_number: int
    timestamp: int
    marker: bool
    payload: bytes


Run = tuple[int, int, Sequence[bytes], bool]
"""Packets that were sent together: when, their timestamp less that of the stream's beginning, their payloads, and
whether the last one carries the marker. Payloads must not change any more. (A plain tuple: there is one for each burst,
be it for many viewers together.)"""


class History:
    """The last packets of one stream.

    Bounded in count and in time; how much is sent again is bounded too: in the long run half of what was sent, so that
    a peer cannot turn its requests into a flood.
    """

    def __init__(
        self,
        *,
        max_packets: int = MAX_PACKETS,
        max_age_ns: int = MAX_AGE_NS,
        burst: int = BURST,
        timestamp_offset: int = 0,
    ) -> None:
        """``timestamp_offset`` is the timestamp of the stream's beginning."""
        if not 1 <= max_packets <= 0x8000:
            raise ValueError(f"a history of {max_packets} packets is not 1 to 32768")
        self._max_packets = max_packets
        self._max_age_ns = max_age_ns
        self._burst = burst
        self._timestamp_offset = timestamp_offset
        self._credit = float(burst)
        # Runs of packets, oldest first from _start on, by the number of their first packet (not wrapped).
        self._firsts: list[int] = []
        self._runs: list[Run] = []
        self._start = 0
        self._skipped = 0  # packets at the beginning of the oldest run that are too many
        self._next = 0
        self._count = 0
        self._resent_ns: dict[int, int] = {}
        self._needed_from = 0

    def __len__(self) -> int:
        return self._count

    def store(self, packet: SentPacket, *, now_ns: int) -> None:
        """Keep a packet that was sent just now; its sequence number must be above those kept."""
        ticks = packet.timestamp - self._timestamp_offset
        self.store_runs(packet.sequence_number, [(now_ns, ticks, (packet.payload,), packet.marker)])

    def store_runs(self, first_number: int, runs: Sequence[Run]) -> None:
        """Keep packets that were sent lately, numbered from ``first_number`` on; their numbers are above those kept."""
        number = first = self._next + ((first_number - self._next) & 0xFFFF)
        now_ns, firsts = 0, self._firsts
        for run in runs:
            now_ns, _, payloads, _ = run
            if payloads:
                firsts.append(number)
                self._runs.append(run)
                number += len(payloads)
        if number == first:
            return
        count = number - first
        self._next = number
        self._count += count
        if self._credit < self._burst:
            self._credit = min(self._credit + 0.5 * count, float(self._burst))
        age_ns = now_ns - self._runs[self._start][0]
        if self._count > self._max_packets or age_ns > _SELDOM * self._max_age_ns:
            self._expire(now_ns)

    def take(self, sequence_number: int, *, now_ns: int, round_trip_ns: int = 0) -> SentPacket | None:
        """The packet to send again, or None: it is not kept, was just sent, or enough has been sent again."""
        self._expire(now_ns)
        if self._credit < 1:
            return None
        number = self._next - 1 - ((self._next - 1 - sequence_number) & 0xFFFF)
        packet = self._find(number)
        if packet is None:
            return None
        resent_ns = self._resent_ns.get(number)
        if resent_ns is not None and now_ns - resent_ns < max(MIN_INTERVAL_NS, round_trip_ns):
            return None
        self._resent_ns[number] = now_ns
        self._credit -= 1
        return packet

    def clear(self) -> None:
        """Forgets what is kept: it is of no use to the peer any more."""
        self._firsts.clear()
        self._runs.clear()
        self._resent_ns.clear()
        self._start = self._skipped = self._count = 0
        self._needed_from = self._next

    def begin_keyframe(self) -> None:
        """What is kept next begins a keyframe: nobody needs what was sent before."""
        self._needed_from = self._next

    def is_gone(self, sequence_number: int, *, now_ns: int) -> bool:
        """Whether a packet was sent since the last keyframe began, and is not kept any more: the peer cannot go on."""
        self._expire(now_ns)
        number = self._next - 1 - ((self._next - 1 - sequence_number) & 0xFFFF)
        oldest = self._firsts[self._start] + self._skipped if self._count else self._next
        return self._needed_from <= number < oldest

    def newest(self, size: int, *, overhead: int = 0) -> list[SentPacket]:
        """The last packets, newest first, together at most ``size`` bytes of payload: what probes are padded with.

        ``overhead`` is what each takes besides.
        """
        found: list[SentPacket] = []
        number = self._next - 1
        while (packet := self._find(number)) is not None:
            size -= max(1, len(packet.payload) + overhead)
            if size < 0:
                break
            found.append(packet)
            number -= 1
        return found

    def _find(self, number: int) -> SentPacket | None:
        index = bisect_right(self._firsts, number, self._start) - 1
        if index < self._start:
            return None
        _, ticks, payloads, marks_last = self._runs[index]
        offset = number - self._firsts[index]
        if offset >= len(payloads) or (index == self._start and offset < self._skipped):
            return None
        marker = marks_last and offset == len(payloads) - 1
        timestamp = (self._timestamp_offset + ticks) & 0xFFFFFFFF
        return SentPacket(number & 0xFFFF, timestamp, marker, payloads[offset])

    def _expire(self, now_ns: int) -> None:
        runs = self._runs
        while self._count and (self._count > self._max_packets or now_ns - runs[self._start][0] > self._max_age_ns):
            left = len(runs[self._start][2]) - self._skipped
            is_old = now_ns - runs[self._start][0] > self._max_age_ns
            gone = left if is_old else min(left, self._count - self._max_packets)
            if self._resent_ns:
                first = self._firsts[self._start] + self._skipped
                for number in range(first, first + gone):
                    self._resent_ns.pop(number, None)
            self._count -= gone
            if gone < left:
                self._skipped += gone
            else:
                self._start += 1
                self._skipped = 0
        if self._start > _SPARE and self._start * 2 > len(runs):
            del self._firsts[: self._start], runs[: self._start]
            self._start = 0


def wrap(packet: SentPacket) -> bytes:
    """The payload that carries a packet on a retransmission stream: its sequence number, then its payload ."""
    return packet.sequence_number.to_bytes(2, "big") + packet.payload
