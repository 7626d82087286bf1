"""An encoder that does not keep up: how much it may be given, apart from what the network carries."""

from __future__ import annotations

from typing import Final

from flowstream.proto.patience import Patience

NS_PER_S: Final = 1_000_000_000

ACTS_AFTER_NS: Final = 800_000_000
"""How long an overload has to last, unless the mean of all pictures is too slow: single slow ones are none."""

RECOVERS_NS: Final = 10 * NS_PER_S
"""How long there has to be time to spare before more is given; twice as long each time that it was too much."""

_LONGEST_NS = 160 * NS_PER_S
_REST_NS = 2 * NS_PER_S  # after less was given, until that shows in the measurements
_LASTS_NS = 30 * NS_PER_S  # more that is given for less than this was too much
_AIM = 0.75  # share of the time between two pictures that encoding may take
_MOST_CUT, _LEAST_CUT = 0.35, 0.8
_WORTH = 1.2  # times as much as now, at least, before more is tried


class Overload:
    """Finds how many pixels per second an encoder gets through; ``most_pixels_per_s`` is None while that is enough."""

    def __init__(self) -> None:
        self.most_pixels_per_s: float | None = None
        self._since_ns: int | None = None
        self._cut_ns: int | None = None
        self._patience = Patience(RECOVERS_NS, longest_ns=_LONGEST_NS, lasts_ns=_LASTS_NS)

    def handle(
        self,
        *,
        is_overloaded: bool,
        encode_ms: float,
        budget_ms: float,
        pixels_per_s: float,
        whole_pixels_per_s: float,
        now_ns: int,
    ) -> bool:
        """Takes a measurement; whether there is to be less, or more, from now on.

        ``encode_ms`` is the mean time of a picture, ``budget_ms`` the time between two, ``pixels_per_s`` what was
        encoded, ``whole_pixels_per_s`` what would be without a limit.
        """
        if is_overloaded:
            self._patience.is_due(False, now_ns=now_ns)
            return self._handle_too_much(encode_ms, budget_ms, pixels_per_s, now_ns)
        self._since_ns = None
        if self.most_pixels_per_s is None or budget_ms <= 0:
            return False
        fits = pixels_per_s * _AIM * budget_ms / max(encode_ms, 0.01)
        is_more = fits >= min(whole_pixels_per_s, self.most_pixels_per_s * _WORTH)
        if not self._patience.is_due(is_more, now_ns=now_ns):
            return False
        self.most_pixels_per_s = None if fits >= whole_pixels_per_s else fits
        return True

    def _handle_too_much(self, encode_ms: float, budget_ms: float, pixels_per_s: float, now_ns: int) -> bool:
        if self._cut_ns is not None and now_ns - self._cut_ns < _REST_NS:
            return False
        if self._since_ns is None:
            self._since_ns = now_ns
        if encode_ms < budget_ms and now_ns - self._since_ns < ACTS_AFTER_NS:
            return False
        aim = _AIM * budget_ms / encode_ms if encode_ms > 0 else _LEAST_CUT
        self.most_pixels_per_s = pixels_per_s * min(_LEAST_CUT, max(_MOST_CUT, aim))
        self._patience.undone(now_ns=now_ns)
        self._cut_ns, self._since_ns = now_ns, None
        return True
