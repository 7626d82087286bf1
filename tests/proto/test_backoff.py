"""Waits before the next attempt: doubling, starting over, limits, chance."""

from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.backoff import JITTER, Backoff

S = 1_000_000_000


def waits(backoff: Backoff, *at_s: float) -> list[float | None]:
    found = [backoff.failed(now_ns=round(each * S)) for each in at_s]
    return [None if wait is None else wait / S for wait in found]


def test_waits_double_up_to_the_longest() -> None:
    assert waits(Backoff(first_ns=S, max_ns=5 * S), 0, 1, 3, 7, 12) == [1, 2, 4, 5, 5]


def test_a_success_that_lasts_starts_over_and_a_short_one_does_not() -> None:
    backoff = Backoff(first_ns=S, max_ns=8 * S)
    assert waits(backoff, 0, 1) == [1, 2]
    backoff.started(now_ns=3 * S)
    assert waits(backoff, 10) == [4]
    backoff.started(now_ns=14 * S)
    assert waits(backoff, 22) == [1]


def test_a_limit_counts_failures_in_a_row() -> None:
    backoff = Backoff(first_ns=S, max_ns=4 * S, limit=2)
    assert waits(backoff, 0, 1, 3) == [1, 2, None]
    for at_s in (10, 20, 30, 40, 50):
        backoff.started(now_ns=at_s * S)
        assert waits(backoff, at_s + 5) == [1]


def test_a_window_counts_failures_however_well_it_went_between() -> None:
    backoff = Backoff(first_ns=S, max_ns=4 * S, limit=3, window_ns=60 * S)
    found: list[float | None] = []
    for at_s in (0, 15, 30, 45):
        found += waits(backoff, at_s)
        backoff.started(now_ns=(at_s + 1) * S)
    assert found == [1, 1, 1, None]
    assert waits(backoff, 60) == [1], "the first is forgotten by now"


def test_a_window_lets_slow_failures_go_on_for_ever() -> None:
    backoff = Backoff(first_ns=S, max_ns=30 * S, limit=5, window_ns=60 * S)
    assert None not in waits(backoff, *range(0, 3000, 30))


@given(chance=st.floats(0, 1, exclude_max=True), failures=st.integers(1, 60))
def test_chance_shortens_a_wait_by_a_quarter_at_most(chance: float, failures: int) -> None:
    exact = Backoff(first_ns=S, max_ns=30 * S)
    spread = Backoff(first_ns=S, max_ns=30 * S, chance=lambda: chance)
    for _ in range(failures):
        longest, wait = exact.failed(now_ns=0), spread.failed(now_ns=0)
        assert longest is not None
        assert wait is not None
        assert longest * (1 - JITTER) - 1 <= wait <= longest
