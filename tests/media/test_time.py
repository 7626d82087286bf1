"""Exact conversions between nanoseconds and ticks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import NS_PER_S, period_ns, ticks_of, time_of

RATES = (1000, 8000, 44_100, 48_000, 90_000)


@pytest.mark.parametrize(
    ("time_ns", "rate", "ticks"),
    [(0, 90_000, 0), (NS_PER_S, 90_000, 90_000), (33_333_333, 90_000, 3000), (5, 10**8, 1), (4, 10**8, 0),
     (-NS_PER_S, 48_000, -48_000)],
)  # fmt: skip
def test_nearest_tick(time_ns: int, rate: int, ticks: int) -> None:
    assert ticks_of(time_ns, rate) == ticks


@given(st.integers(-(10**15), 10**15), st.sampled_from(RATES))
def test_a_tick_survives_the_way_to_nanoseconds_and_back(ticks: int, rate: int) -> None:
    assert ticks_of(time_of(ticks, 1, rate), rate) == ticks


@given(st.integers(0, 10**17), st.sampled_from(RATES))
def test_rounding_is_within_half_a_tick(time_ns: int, rate: int) -> None:
    assert abs(ticks_of(time_ns, rate) * NS_PER_S - time_ns * rate) * 2 <= NS_PER_S


def test_period() -> None:
    assert period_ns(30.0) == 33_333_333
    assert period_ns(25) == 40_000_000
