"""What may be sent to one viewer: follows its link, at once when that carries less, in steps when it carries more.

Where the report has an estimate of the bandwidth, that counts; what is lost is sent again over the same link, so that
much of it is kept free. Without one, the budget follows the share that is lost, as the loss-based controller of
draft-ietf-rmcat-gcc-02 (section 6) does.
"""

from __future__ import annotations

from typing import Final

NS_PER_S: Final = 1_000_000_000
DOUBLES_IN_NS: Final = 400_000_000
"""How fast a budget rises towards an estimate: twice as much in this time."""

RISES_AFTER_NS: Final = 300_000_000
"""How long after a fall it does not rise."""

MOST_LOSS: Final = 0.3
"""Share of losses up to which room is kept for sending again; a link that loses more needs another remedy."""

_FALL = 0.8  # to less than this share of what was sent: something happened, and a rise right after it would be a guess
_DEADBAND = 0.02  # rises smaller than this share are not worth telling an encoder
_FULL_MS, _EMPTY_MS = 150, 50  # queue delays, in milliseconds, at which draining begins and ends
_DRAINING = 0.8  # share that is sent while a queue drains
_DRAINS_FOR_NS = 2 * NS_PER_S  # a queue that stays longer is not ours
_RESTS_FOR_NS = 10 * NS_PER_S  # before another attempt to drain it
_FEW, _MANY = 0.02, 0.10  # losses below which a rate without an estimate rises, and above which it falls
_RISE_PER_S = 1.08


class Budget:
    """Bits per second of media for one viewer, from reports in the order of ``now_ns``.

    ``headroom`` is the share of the bandwidth that headers and the estimate's own error take.
    """

    def __init__(self, *, start_bps: int, headroom: float) -> None:
        self.bps: int = start_bps
        self._headroom = headroom
        self._is_new = True
        self._now_ns = 0
        self._fell_ns: int | None = None
        self._drains_since_ns: int | None = None
        self._rests_until_ns = 0

    def handle(
        self, *, bandwidth_bps: int | None, loss: float, queue_delay_ms: float, most_bps: int, now_ns: int
    ) -> int:
        """Takes a report and gives the budget; it is at most ``most_bps``."""
        since_ns = 0 if self._is_new else now_ns - self._now_ns
        if bandwidth_bps is None:
            self._follow_loss(loss, since_ns, now_ns)
        else:
            wanted = bandwidth_bps * (1 - min(loss, MOST_LOSS)) * (1 - self._headroom)
            if self._drains(queue_delay_ms, now_ns):
                wanted *= _DRAINING
            self._approach(max(1, int(wanted)), since_ns, now_ns)
        self.bps = min(self.bps, most_bps)
        self._is_new, self._now_ns = False, now_ns
        return self.bps

    def _approach(self, wanted_bps: int, since_ns: int, now_ns: int) -> None:
        if self._is_new or wanted_bps <= self.bps:
            if wanted_bps < self.bps * _FALL:
                self._fell_ns = now_ns
            self.bps = wanted_bps
        elif (self._fell_ns is None or now_ns - self._fell_ns >= RISES_AFTER_NS) and (
            wanted_bps > self.bps * (1 + _DEADBAND)
        ):
            self.bps = min(wanted_bps, int(self.bps * 2 ** (since_ns / DOUBLES_IN_NS)) + 1)

    def _follow_loss(self, loss: float, since_ns: int, now_ns: int) -> None:
        if loss > _MANY:
            if self._fell_ns is None or now_ns - self._fell_ns >= NS_PER_S:
                self.bps = max(1, int(self.bps * (1 - 0.5 * min(loss, 1.0))))
                self._fell_ns = now_ns
        elif loss < _FEW:
            self.bps = int(self.bps * _RISE_PER_S ** (since_ns / NS_PER_S))

    def _drains(self, queue_delay_ms: float, now_ns: int) -> bool:
        if self._drains_since_ns is None:
            if queue_delay_ms < _FULL_MS or now_ns < self._rests_until_ns:
                return False
            self._drains_since_ns = now_ns
            return True
        if queue_delay_ms > _EMPTY_MS and now_ns - self._drains_since_ns < _DRAINS_FOR_NS:
            return True
        if queue_delay_ms > _EMPTY_MS:
            self._rests_until_ns = now_ns + _RESTS_FOR_NS
        self._drains_since_ns = None
        return False
