"""Where the renditions of a picture are placed, so that the viewers who are there get the most of it.

Every viewer takes the highest rung that its link carries. What a rate is worth to a viewer grows with its logarithm
(proportional fairness, Kelly 1997: a doubling is worth the same everywhere), and being served at all is worth a
doubling. `fit` finds the rates for which the sum over all viewers is greatest, exactly, by dynamic programming.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MOST_RUNGS: Final = 6
MOST_BUDGETS: Final = 40
"""Rates that are tried because some viewer's link carries just them; of more, these many are spread over all."""

_GRID: Final = 1.12  # ratio of neighbouring rates that are tried beside the viewers' own when the uplink is too small


@dataclass(frozen=True, slots=True)
class Rung:
    """An encoder, and the rates in bits per second that its picture is worth. Raises ValueError for no range."""

    encoder: str
    min_bps: int
    max_bps: int

    def __post_init__(self) -> None:
        if not 0 < self.min_bps <= self.max_bps:
            raise ValueError(f"{self.encoder}: no rate is from {self.min_bps} to {self.max_bps} bits per second")


_Partial = tuple[int, float, int, tuple[int, ...], tuple[int, ...]]
"""Rungs from the lowest up, viewers below the last one counted in: cost in bits per second, worth below zero, number of
rungs, their indices below zero, their rates. In this order the cheap come first, then the good, then the few, then
those of the larger pictures."""


def worth(rate_bps: int, least_bps: int) -> float:
    """What a rate is worth to a viewer; 0 for nothing, 1 for the least there is."""
    return 1 + math.log2(rate_bps / least_bps) if rate_bps else 0.0


def taken(rates: Iterable[int], budget_bps: int) -> int:
    """The rate that a viewer with this budget takes; 0 when all are too high for it."""
    return max((rate for rate in rates if rate <= budget_bps), default=0)


def fit(
    rungs: Sequence[Rung],
    budgets: Iterable[int],
    *,
    uplink_bps: int | None = None,
    leave_out: float = 0.0,
    most: int = MOST_RUNGS,
) -> dict[str, int]:
    """The rate of each encoder that is to run, by its name; those that are left out are of no use to anybody.

    ``rungs`` go from the lowest to the highest, ``budgets`` are what each viewer's link carries, in bits per second.
    All viewers together get no more than ``uplink_bps``. At most the share ``leave_out`` of them may be left with a
    link that carries less than the lowest rung; a budget below the least rate that there is counts as that. Without
    viewers nothing runs. When the uplink does not even carry the least rate to all, that is what all get.

    Raises ValueError without rungs, or with more than `MOST_RUNGS`.
    """
    if not 1 <= len(rungs) <= MOST_RUNGS:
        raise ValueError(f"a ladder has 1 to {MOST_RUNGS} rungs, not {len(rungs)}")
    least = min(rung.min_bps for rung in rungs)
    ordered = sorted(max(least, budget) for budget in budgets)
    if not ordered:
        return {}
    may_miss = int(len(ordered) * leave_out)
    chosen = _best(rungs, ordered, candidates(rungs, ordered), None, may_miss, most)
    if uplink_bps is not None and (chosen is None or chosen[0] > uplink_bps):
        wider = candidates(rungs, ordered, has_grid=True)
        chosen = _best(rungs, ordered, wider, uplink_bps, may_miss, most)
    if chosen is None:
        lowest = min(rungs, key=lambda rung: rung.min_bps)
        return {lowest.encoder: lowest.min_bps}
    rates = {rungs[-index].encoder: rate for index, rate in zip(chosen[3], chosen[4], strict=True)}
    return _filled(rates, {rung.encoder: rung for rung in rungs}, ordered, uplink_bps)


def candidates(rungs: Sequence[Rung], ordered: Sequence[int], *, has_grid: bool = False) -> list[list[int]]:
    """The rates tried for each rung: those at which a viewer is just carried, and the rung's least.

    No other rate can be better while the uplink does not matter: any other could be raised without losing a viewer.
    """
    found = []
    budgets = _spread(ordered)
    for rung in rungs:
        rates = {rung.min_bps, *(min(budget, rung.max_bps) for budget in budgets if budget >= rung.min_bps)}
        if has_grid:
            rate = float(rung.min_bps)
            while rate < rung.max_bps:
                rates.add(int(rate))
                rate *= _GRID
            rates.add(rung.max_bps)
        found.append(sorted(rates))
    return found


def _spread(ordered: Sequence[int]) -> list[int]:
    distinct = sorted(set(ordered))
    if len(distinct) <= MOST_BUDGETS:
        return distinct
    return [distinct[index * len(distinct) // MOST_BUDGETS] for index in range(MOST_BUDGETS)]


def _best(
    rungs: Sequence[Rung],
    ordered: Sequence[int],
    tried: Sequence[Sequence[int]],
    uplink_bps: int | None,
    may_miss: int,
    most: int,
) -> _Partial | None:
    """Rung by rung, for each number of rungs and each last rate what no other choice beats in cost and value."""
    least = min(rung.min_bps for rung in rungs)
    count = len(ordered)
    limit = math.inf if uplink_bps is None else uplink_bps
    below = {rate: bisect.bisect_left(ordered, rate) for rates in tried for rate in rates}
    values = {rate: worth(rate, least) for rate in below}
    states: dict[tuple[int, int], list[_Partial]] = {}
    for index, rates in enumerate(tried):
        more: dict[tuple[int, int], list[_Partial]] = {}
        for rate in rates:
            if below[rate] <= may_miss:
                more.setdefault((1, rate), []).append((0, 0.0, 1, (-index,), (rate,)))
        for (length, last), partials in states.items():
            if length >= most:
                continue
            for rate in rates[bisect.bisect_right(rates, last) :]:
                between = below[rate] - below[last]
                cost, gain = between * last, between * values[last]
                more.setdefault((length + 1, rate), []).extend(
                    (spent + cost, value - gain, length + 1, (*used, -index), (*chosen, rate))
                    for spent, value, _, used, chosen in partials
                    if spent + cost <= limit
                )
        for state, found in more.items():
            states[state] = _unbeaten([*states.get(state, []), *found], is_bounded=uplink_bps is not None)
    ends: list[_Partial] = []
    for (_, last), partials in states.items():
        above = count - below[last]
        cost, gain = above * last, above * values[last]
        ends += [
            (spent + cost, value - gain, length, used, chosen)
            for spent, value, length, used, chosen in partials
            if spent + cost <= limit
        ]
    return min(ends, key=_goodness, default=None)


def _goodness(partial: _Partial) -> tuple[float, _Partial]:
    # Sums of the same values in another order differ in their last digits, which is no reason for another rung.
    return round(partial[1], 9), partial


def _unbeaten(partials: list[_Partial], *, is_bounded: bool) -> list[_Partial]:
    if not is_bounded:
        return [min(partials, key=_goodness)]
    partials.sort()
    kept = partials[:1]
    for each in partials:
        if each[1] < kept[-1][1] - 1e-9:
            kept.append(each)
    return kept


def _filled(
    rates: Mapping[str, int], rungs: Mapping[str, Rung], ordered: Sequence[int], uplink_bps: int | None
) -> dict[str, int]:
    """Raises each rung to what all who take it can take, within what is left of the uplink; the lowest comes first."""
    filled = dict(rates)
    left = math.inf if uplink_bps is None else uplink_bps - sum(taken(rates.values(), budget) for budget in ordered)
    for encoder, rate in sorted(rates.items(), key=lambda item: item[1]):
        takers = [budget for budget in ordered if taken(rates.values(), budget) == rate]
        if not takers:
            continue
        limit = min(takers[0], rungs[encoder].max_bps)
        raised = limit if left == math.inf else min(limit, rate + int(left) // len(takers))
        filled[encoder] = max(rate, raised)
        left -= (filled[encoder] - rate) * len(takers)
    return filled
