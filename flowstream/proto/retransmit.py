"""What a sender keeps to answer NACK with (RFC 4585), and the retransmission stream that carries it (RFC 4588)."""

from collections import deque
from dataclasses import dataclass
from typing import Final

MAX_PACKETS: Final = 1024
"""Packets kept: what libsrtp's replay window lets a sender protect again when the peer has no RTX."""

MAX_AGE_NS: Final = 1_000_000_000
"""Older packets are not sent again: their frame has been given up by then."""

MIN_INTERVAL_NS: Final = 10_000_000
"""A packet that was sent again is not sent once more sooner than this, nor than one round trip, after that."""

BURST: Final = 512
"""Packets that may be sent again at once after a quiet time."""


@dataclass(frozen=True, slots=True)
class SentPacket:
    """An RTP packet as it was sent, without what the stream makes of it (header, protection)."""

    sequence_number: int
    timestamp: int
    marker: bool
    payload: bytes


class History:
    """The last packets of one stream.

    Bounded in count and in time; how much is sent again is bounded too: in the long run half of what was sent, so that
    a peer cannot turn its requests into a flood.
    """

    def __init__(self, *, max_packets: int = MAX_PACKETS, max_age_ns: int = MAX_AGE_NS, burst: int = BURST) -> None:
        if not 1 <= max_packets <= 0x8000:
            raise ValueError(f"a history of {max_packets} packets is not 1 to 32768")
        self._max_packets = max_packets
        self._max_age_ns = max_age_ns
        self._burst = burst
        self._credit = float(burst)
        self._order: deque[tuple[int, int]] = deque()  # (sent at, sequence number), oldest first
        self._kept: dict[int, SentPacket] = {}
        self._resent_ns: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def store(self, packet: SentPacket, *, now_ns: int) -> None:
        """Keep a packet that was sent just now; its sequence number must not be among those kept."""
        self._order.append((now_ns, packet.sequence_number))
        self._kept[packet.sequence_number] = packet
        self._credit = min(self._credit + 0.5, float(self._burst))
        self._expire(now_ns)

    def take(self, sequence_number: int, *, now_ns: int, round_trip_ns: int = 0) -> SentPacket | None:
        """The packet to send again, or None: it is not kept, was just sent, or enough has been sent again."""
        self._expire(now_ns)
        packet = self._kept.get(sequence_number)
        if packet is None or self._credit < 1:
            return None
        resent_ns = self._resent_ns.get(sequence_number)
        if resent_ns is not None and now_ns - resent_ns < max(MIN_INTERVAL_NS, round_trip_ns):
            return None
        self._resent_ns[sequence_number] = now_ns
        self._credit -= 1
        return packet

    def _expire(self, now_ns: int) -> None:
        while self._order and (len(self._order) > self._max_packets or now_ns - self._order[0][0] > self._max_age_ns):
            _, sequence_number = self._order.popleft()
            del self._kept[sequence_number]
            self._resent_ns.pop(sequence_number, None)


def wrap(packet: SentPacket) -> bytes:
    """The payload that carries a packet on a retransmission stream: its sequence number, then its payload ."""
    return packet.sequence_number.to_bytes(2, "big") + packet.payload
