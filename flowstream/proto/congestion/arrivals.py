"""The receiver's side of transport-wide congestion control: when packets arrived, and the feedback that says so."""

from __future__ import annotations

from typing import Final

from flowstream.proto.rtcp import TransportFeedback
from flowstream.proto.rtp import Unwrapper

MOST_PACKETS: Final = 1000
"""Packets that one feedback tells of: it fits a datagram whatever their times are."""

REMEMBERED: Final = 4096
"""Arrivals kept until they are told; more push out the oldest."""

_TICK_NS: Final = 250_000
_REFERENCE_TICKS: Final = 256
_DELTAS_SIZE: Final = 1000  # bytes of deltas in a feedback


class Arrivals:
    """Records the transport-wide numbers of what arrives, and tells of each once; of what came late, again."""

    def __init__(self, *, ssrc: int) -> None:
        """``ssrc`` is the receiver's own."""
        self._ssrc = ssrc
        self._numbers = Unwrapper(16)
        self._ticks: dict[int, int] = {}
        self._next: int | None = None  # the first number that was not told of
        self._count = 0

    def add(self, number: int, *, now_ns: int) -> None:
        """A packet with this 16-bit number arrived; a second copy of it changes nothing."""
        unwrapped = self._numbers.unwrap(number)
        if self._next is None:
            self._next = unwrapped
        elif unwrapped < self._next - REMEMBERED:
            return
        if unwrapped not in self._ticks:
            self._ticks[unwrapped] = now_ns // _TICK_NS
            self._next = min(self._next, unwrapped)
            if len(self._ticks) > REMEMBERED:
                del self._ticks[min(self._ticks)]

    def take(self, *, media_ssrc: int) -> TransportFeedback | None:
        """Feedback on what has arrived since the last one, None when nothing has; call again until it is None."""
        if not self._ticks or self._next is None:
            return None
        newest = max(self._ticks)
        first = max(self._next, min(self._ticks) - MOST_PACKETS // 2)
        base_ticks = self._ticks[min(self._ticks)]
        reference = base_ticks // _REFERENCE_TICKS
        before = reference * _REFERENCE_TICKS
        deltas: list[int | None] = []
        size = 0
        for number in range(first, min(newest + 1, first + MOST_PACKETS)):
            ticks = self._ticks.get(number)
            if ticks is None:
                deltas.append(None)
                continue
            delta = ticks - before
            if size >= _DELTAS_SIZE or not -0x8000 <= delta <= 0x7FFF:
                break
            size += 1 if 0 <= delta <= 0xFF else 2
            deltas.append(delta)
            del self._ticks[number]
            before = ticks
        self._next = first + len(deltas)
        feedback = TransportFeedback(
            sender_ssrc=self._ssrc,
            media_ssrc=media_ssrc,
            base_number=first & 0xFFFF,
            reference_time=(reference & 0xFFFFFF) - ((reference & 0x800000) << 1),
            feedback_count=self._count & 0xFF,
            deltas=tuple(deltas),
        )
        self._count += 1
        return feedback
