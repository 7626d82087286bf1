"""Spreads against exact quantiles, windows against what was put in."""

import math

from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.window import Sketch, Window

values = st.lists(st.integers(0, (1 << 44) - 1) | st.integers(0, 200), min_size=1, max_size=200)


def exact(given: list[int], share: float) -> int:
    return sorted(given)[max(1, math.ceil(share * len(given))) - 1]


@given(values, st.floats(0, 1))
def test_a_quantile_is_at_most_a_thirty_second_above_the_exact_one(given: list[int], share: float) -> None:
    sketch = Sketch()
    for value in given:
        sketch.add(value)
    wanted = exact(given, share)
    assert wanted <= sketch.quantile(share) <= wanted + wanted // 32
    assert (sketch.count, sketch.max, sketch.total) == (len(given), max(given), sum(given))
    assert sketch.quantile(1) == max(given)


@given(values, values)
def test_merging_is_counting_together(some: list[int], others: list[int]) -> None:
    one, two, both = Sketch(), Sketch(), Sketch()
    for sketch, given_ in ((one, some), (two, others), (both, some + others)):
        for value in given_:
            sketch.add(value)
    one.merge(two)
    for share in (0.1, 0.5, 0.95, 1.0):
        assert one.quantile(share) == both.quantile(share)
    assert (one.count, one.max, one.total) == (both.count, both.max, both.total)


def test_a_spread_takes_bounded_memory_whatever_it_counts() -> None:
    sketch = Sketch()
    for bits in range(80):
        for step in range(64):
            sketch.add((1 << bits) + (step << bits >> 6))
    sketch.add(-5)
    assert len(sketch) <= 1300
    assert sketch.quantile(0.0) == 0
    assert Sketch().quantile(0.5) == 0


slots = st.lists(st.tuples(st.integers(1, 5_000), st.integers(0, 100)), min_size=1, max_size=120)


@given(slots, st.integers(1, 100_000), st.integers(1, 6), st.integers(1, 6))
def test_a_window_counts_exactly_what_lies_in_the_time_it_names(
    given: list[tuple[int, int]], span: int, short: int, long: int
) -> None:
    window = Window(0, short=short, long=long)
    ends, now = [], 0
    for gap, count in given:
        now += gap
        spread = Sketch()
        spread.add(count)
        window.add(now, {"items": count}, spread)
        ends.append((now, gap, count))
    found = window.over(span)
    inside = [(end, gap, count) for end, gap, count in ends if end > found.begin_ns]
    assert found.end_ns == now
    assert found.counts == {"items": sum(count for *_, count in inside)}
    assert found.spread.count == len(inside)
    # It reaches back far enough, unless that was forgotten, and one slot further at most.
    kept = len(given) // short
    is_all = found.begin_ns == 0
    assert found.begin_ns <= now - span or is_all or kept >= long
    if found.begin_ns <= now - span and inside:
        width = inside[0][1] if len(inside) <= short else sum(gap for _, gap, _ in inside[:short])
        assert found.begin_ns + width >= now - span


def test_an_hour_of_seconds_takes_a_hundred_and_twenty_slots() -> None:
    window = Window(0)
    for second in range(1, 3 * 3600):
        window.add(second * 10**9, {"items": 30})
    assert window.over(10 * 10**9).per_second("items") == 30
    assert window.over(60 * 10**9).counts == {"items": 1800}
    hour = window.over(3600 * 10**9)
    assert hour.per_second("items") == 30
    assert 3600 * 10**9 <= hour.end_ns - hour.begin_ns < 3660 * 10**9
    assert len(window._short) + len(window._long) == 120


def test_nothing_counted_is_nothing_a_second() -> None:
    assert Window(5).over(10).per_second("items") == 0.0
