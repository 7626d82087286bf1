"""Rungs of a ladder: placed for the viewers that are there, and no other placing is better."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowstream.proto.ladder import MOST_RUNGS, Rung, candidates, fit, taken, worth

K = 1_000
M = 1_000_000
LOW, MIDDLE, HIGH = Rung("low", 150 * K, 600 * K), Rung("middle", 400 * K, 1_500 * K), Rung("high", M, 4 * M)
LADDER = (LOW, MIDDLE, HIGH)
ONE = (Rung("encode", 300 * K, 4 * M),)


def total(rates: dict[str, int], budgets: list[int]) -> int:
    return sum(taken(rates.values(), budget) for budget in budgets)


def value(rates: list[int], budgets: list[int], least: int) -> float:
    return sum(worth(taken(rates, budget), least) for budget in budgets)


# --- by hand --------------------------------------------------------------------------------------------------------


def test_one_viewer_gets_what_its_link_carries_by_one_encoder() -> None:
    assert fit(ONE, [1_234_567]) == {"encode": 1_234_567}
    assert fit(LADDER, [2 * M]) == {"high": 2 * M}
    assert fit(LADDER, [700 * K]) == {"middle": 700 * K}


def test_the_larger_picture_is_taken_where_a_rate_is_worth_both() -> None:
    assert fit(LADDER, [500 * K]) == {"middle": 500 * K}
    assert fit(LADDER, [1_200 * K]) == {"high": 1_200 * K}


def test_each_group_of_viewers_gets_a_rung() -> None:
    assert fit(LADDER, [3 * M, 3_200 * K, 900 * K, 300 * K]) == {"low": 300 * K, "middle": 900 * K, "high": 3 * M}


def test_what_nobody_takes_is_not_encoded() -> None:
    assert fit(LADDER, [3 * M, 3 * M]) == {"high": 3 * M}
    assert fit(LADDER, []) == {}


def test_with_one_rung_everybody_is_served_unless_some_may_be_left_out() -> None:
    viewers = [3 * M] * 9 + [400 * K]
    assert fit(ONE, viewers) == {"encode": 400 * K}
    assert fit(ONE, viewers, leave_out=0.1) == {"encode": 3 * M}
    assert fit(ONE, viewers, leave_out=0.09) == {"encode": 400 * K}


def test_a_link_that_carries_less_than_the_least_gets_the_least() -> None:
    assert fit(ONE, [10 * K]) == {"encode": 300 * K}


def test_fewer_rungs_when_no_more_can_be_encoded() -> None:
    viewers = [3 * M, 3 * M, 900 * K, 300 * K]
    assert len(fit(LADDER, viewers, most=2)) == 2
    assert fit(LADDER, viewers, most=1) == {"low": 300 * K}


def test_the_uplink_is_shared() -> None:
    assert fit(ONE, [3 * M, 3 * M], uplink_bps=4 * M) == {"encode": 2 * M}
    rates = fit(LADDER, [4 * M] * 10, uplink_bps=20 * M)
    assert rates == {"high": 2 * M}


def test_an_uplink_that_carries_the_least_to_nobody_gives_the_least() -> None:
    assert fit(LADDER, [3 * M] * 10, uplink_bps=M) == {"low": 150 * K}


def test_five_hundred_viewers_are_a_small_matter() -> None:
    viewers = [200 * K + 7_919 * index for index in range(500)]
    assert len(fit(LADDER, viewers)) == 3
    rates = fit(LADDER, viewers, uplink_bps=200 * M)
    assert 190 * M < total(rates, viewers) <= 200 * M


@pytest.mark.parametrize("count", [0, MOST_RUNGS + 1])
def test_a_ladder_that_is_none(count: int) -> None:
    with pytest.raises(ValueError, match=f"a ladder has 1 to 6 rungs, not {count}"):
        fit([Rung(f"rung-{index}", M, M) for index in range(count)], [M])


def test_a_rung_that_is_none() -> None:
    with pytest.raises(ValueError, match="high: no rate is from 2 to 1 bits per second"):
        Rung("high", 2, 1)


# --- against every other choice -------------------------------------------------------------------------------------

rates_of_rungs = st.lists(st.integers(100, 3_000), min_size=2, max_size=2).map(sorted)
ladders = st.lists(rates_of_rungs, min_size=1, max_size=3).map(
    lambda pairs: [Rung(f"rung-{index}", low, high) for index, (low, high) in enumerate(sorted(pairs))]
)
budgets_of_viewers = st.lists(st.integers(50, 4_000), min_size=1, max_size=6)


def every_choice(tried: list[list[int]]) -> list[list[int]]:
    """All rates that go up from rung to rung, of any of the rungs."""
    found = []
    for length in range(1, len(tried) + 1):
        for used in combinations(tried, length):
            found += [list(rates) for rates in product(*used) if list(rates) == sorted(set(rates))]
    return found


@given(ladders, budgets_of_viewers, st.one_of(st.none(), st.integers(300, 12_000)), st.sampled_from([0.0, 0.34]))
@settings(max_examples=150, deadline=None)
def test_no_other_choice_of_rates_is_worth_more(
    rungs: list[Rung], budgets: list[int], uplink: int | None, leave_out: float
) -> None:
    least = min(rung.min_bps for rung in rungs)
    clamped = sorted(max(least, budget) for budget in budgets)
    rates = fit(rungs, budgets, uplink_bps=uplink, leave_out=leave_out)
    given_rates = list(rates.values())

    def is_allowed(choice: list[int]) -> bool:
        served = [taken(choice, budget) for budget in clamped]
        return served.count(0) <= int(len(served) * leave_out) and (uplink is None or sum(served) <= uplink)

    allowed = [choice for choice in every_choice(candidates(rungs, clamped)) if is_allowed(choice)]
    if allowed:
        assert is_allowed(given_rates)
        best = max(value(choice, clamped, least) for choice in allowed)
        assert value(given_rates, clamped, least) >= best - 1e-6
    by_name = {rung.encoder: rung for rung in rungs}
    assert all(by_name[name].min_bps <= rate <= by_name[name].max_bps for name, rate in rates.items())


@given(ladders, budgets_of_viewers)
@settings(max_examples=60, deadline=None)
def test_nor_is_one_between_them_while_the_uplink_does_not_matter(rungs: list[Rung], budgets: list[int]) -> None:
    least = min(rung.min_bps for rung in rungs)
    clamped = sorted(max(least, budget) for budget in budgets)
    given_rates = list(fit(rungs, budgets).values())
    fine = [sorted({*range(rung.min_bps, rung.max_bps + 1, 163), rung.max_bps}) for rung in rungs]
    for choice in every_choice(fine):
        if all(taken(choice, budget) for budget in clamped):
            assert value(choice, clamped, least) <= value(given_rates, clamped, least) + 1e-6
