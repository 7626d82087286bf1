"""What losses say about the bandwidth: a path that loses its share at any rate is told from one that is too narrow.

Losses are taken to be ``p`` at any rate, and beyond a bandwidth ``b`` all that exceeds it: at the rate ``r`` the share
``p + (1 - p) * max(0, (r - b) / r)``. Among a few candidates for ``b``, that under which the last seconds are most
likely is taken; this is the idea of libwebrtc's loss-based estimate of 2021 (LossBasedBweV2), which replaces the fixed
2 % and 10 % of draft-ietf-rmcat-gcc-02 section 6.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

NS_PER_S: Final = 1_000_000_000
WINDOW_NS: Final = 250_000_000
"""Losses are counted over stretches of this length."""

_FEWEST = 20  # packets in a stretch
_STRETCHES = 20
_FADES = 0.9  # weight of a stretch relative to the one after it
_FACTORS = (1.04, 1.0, 0.95, 0.85)
_MOST_INHERENT = 0.25
_LEAST_LIKELY = 1e-4
_FORGIVES = 1.5  # units of log-likelihood, for each doubling: bandwidths that are about as likely are taken for higher
_HARMLESS = 0.02
_RISE_PER_S = 1.3
_CLEAN_NS = 3 * NS_PER_S
_PACKET = 1200


@dataclass(frozen=True, slots=True)
class _Stretch:
    rate_bps: float
    received: int
    lost: int


class LossMeter:
    """The share that is lost, and the bandwidth that explains it (`limit_bps`; None while losses say nothing)."""

    def __init__(self) -> None:
        self.limit_bps: int | None = None
        self.inherent: float = 0.0
        self._stretches: deque[_Stretch] = deque(maxlen=_STRETCHES)
        self._since_ns: int | None = None
        self._clean_since_ns: int | None = None
        self._received = 0
        self._lost = 0
        self._bytes = 0
        self._packet_bytes = float(_PACKET)  # of the last that came, on average

    @property
    def share(self) -> float:
        """The share of packets that were lost in the last second or so, 0 to 1."""
        last = list(self._stretches)[-4:]
        lost = sum(stretch.lost for stretch in last) + self._lost
        seen = sum(stretch.received for stretch in last) + self._received + lost
        return max(0.0, lost / seen) if seen else 0.0

    def add(self, *, received: int, lost: int, size: int, estimate_bps: int, least_bps: int, now_ns: int) -> bool:
        """Takes what one feedback told: ``size`` bytes in ``received`` packets, and ``lost`` ones beside them.

        Says whether a stretch is complete, so that `limit_bps` is new. ``lost`` is negative when packets came after
        all.
        """
        if self._since_ns is None:
            self._since_ns = now_ns
        self._received += received
        self._lost += lost
        self._bytes += size
        elapsed_ns = now_ns - self._since_ns
        if elapsed_ns < WINDOW_NS or self._received + self._lost < _FEWEST:
            return False
        lost = max(0, self._lost)
        # What was lost was sent too; its packets were about as large as those that came, be it before.
        if self._received and self._bytes:
            self._packet_bytes = self._bytes / self._received
        sent = self._packet_bytes * (self._received + lost)
        self._stretches.append(_Stretch(sent * 8e9 / elapsed_ns, self._received, lost))
        self._since_ns, self._received, self._lost, self._bytes = now_ns, 0, 0, 0
        self._judge(estimate_bps, least_bps, elapsed_ns, now_ns)
        return True

    def reset(self) -> None:
        """The path is another one, or was dead."""
        self.limit_bps = None
        self._stretches.clear()
        self._since_ns = self._clean_since_ns = None
        self._received = self._lost = self._bytes = 0

    def lift(self, bps: int) -> None:
        """More came through than the losses had let expect."""
        if self.limit_bps is not None and bps > self.limit_bps:
            self.limit_bps = bps

    def _judge(self, estimate_bps: int, least_bps: int, elapsed_ns: int, now_ns: int) -> None:
        if self._stretches[-1].lost == 0:
            self._clean_since_ns = now_ns - elapsed_ns if self._clean_since_ns is None else self._clean_since_ns
        else:
            self._clean_since_ns = None
        if not any(stretch.lost for stretch in self._stretches) or (
            self._clean_since_ns is not None and now_ns - self._clean_since_ns >= _CLEAN_NS
        ):
            self.limit_bps = None
            self.inherent = 0.0
            return
        current = self.limit_bps or estimate_bps
        newest = self._stretches[-1]
        passed_bps = newest.rate_bps * newest.received / max(1, newest.received + newest.lost)
        candidates = {max(float(least_bps), current * factor) for factor in _FACTORS}
        candidates |= {max(float(least_bps), passed_bps), float(estimate_bps)}
        if self.share < _HARMLESS:
            # So few may be chance in the one stretch in which a little more was sent.
            candidates = {each for each in candidates if each >= current}
        best, self.inherent, best_score = float(current), 0.0, -math.inf
        for candidate in candidates:
            inherent, score = self._score(candidate)
            if score > best_score:
                best, self.inherent, best_score = candidate, inherent, score
        highest = current * _RISE_PER_S ** (elapsed_ns / NS_PER_S)
        best = min(best, max(highest, passed_bps))
        # As far as the other estimate goes, losses do not hold anything back.
        self.limit_bps = None if best >= estimate_bps and self.limit_bps is None else int(best)

    def _score(self, bps: float) -> tuple[float, float]:
        lost = seen = 0.0
        weight = 1.0
        for stretch in reversed(self._stretches):
            if stretch.rate_bps <= bps:
                lost += weight * stretch.lost
                seen += weight * (stretch.lost + stretch.received)
            weight *= _FADES
        inherent = min(lost / seen, _MOST_INHERENT) if seen else self.inherent
        score = _FORGIVES * math.log2(bps)
        weight = 1.0
        for stretch in reversed(self._stretches):
            excess = max(0.0, (stretch.rate_bps - bps) / stretch.rate_bps)
            share = min(max(inherent + (1 - inherent) * excess, _LEAST_LIKELY), 1 - _LEAST_LIKELY)
            score += weight * (stretch.lost * math.log(share) + stretch.received * math.log(1 - share))
            weight *= _FADES
        return inherent, score
