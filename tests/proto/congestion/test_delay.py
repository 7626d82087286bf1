"""Queues and trends from hand-made arrivals."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.congestion.delay import DelayMeter
from flowstream.proto.congestion.sent import TICK_NS, Arrival

MS = 1_000_000


def arrive(
    meter: DelayMeter, delays_ms: list[float], *, since_ms: int = 0, every_ms: int = 10, size: int = 1000
) -> None:
    """A packet every 10 ms, each with its one-way delay; the receiver's clock is an hour ahead."""
    ahead_ns = 3600 * 1_000_000_000
    meter.add(
        [
            Arrival.alone(
                round((since_ms + every_ms * index + delay) * MS) + ahead_ns,
                (since_ms + every_ms * index) * MS,
                size,
                0,
            )
            for index, delay in enumerate(delays_ms)
        ]
    )


def test_a_steady_delay_is_no_queue_whatever_the_clocks_say() -> None:
    meter = DelayMeter()
    arrive(meter, [40] * 100)
    assert meter.trend.usage == "normal"
    assert meter.queue_ns == 0


def test_a_growing_delay_is_a_queue_and_a_shrinking_one_ends_it() -> None:
    meter = DelayMeter()
    arrive(meter, [40] * 50)
    arrive(meter, [40 + index for index in range(50)], since_ms=500)
    assert meter.trend.usage == "over"
    assert meter.queue_ns == pytest.approx(48 * MS, abs=2 * MS)
    arrive(meter, [max(40.0, 90 - 2 * index) for index in range(30)], since_ms=1000)
    assert meter.trend.usage == "under"
    arrive(meter, [40] * 60, since_ms=1300)
    assert meter.trend.usage == "normal"
    assert meter.queue_ns == 0


def test_what_stands_is_the_least_that_was_waited_lately() -> None:
    meter = DelayMeter()
    assert meter.standing_ns(span_ns=200 * MS) is None
    arrive(meter, [40, *[70, 60, 80, 70] * 5, 40, *[70, 60, 80, 70] * 5], every_ms=20)
    assert meter.queue_ns > 20 * MS
    # Those of 40 ms came at 40 and 460 ms, the latter in one burst with the one before; the newest at 890.
    assert meter.standing_ns(span_ns=800 * MS) == 20 * MS
    assert meter.standing_ns(span_ns=900 * MS) == 0
    assert meter.standing_ns(span_ns=100 * MS, ago_ns=300 * MS) == 20 * MS
    assert meter.standing_ns(span_ns=100 * MS, ago_ns=800 * MS) == 0
    assert meter.standing_ns(span_ns=100 * MS, ago_ns=900 * MS) is None


def test_what_comes_through_a_busy_path_is_measured_while_the_queue_lasts() -> None:
    meter = DelayMeter()
    arrive(meter, [40] * 60, every_ms=10)  # 800 kbit/s without a queue
    assert meter.busy_bps(span_ns=200 * MS, waited_ns=6 * MS) is None
    assert meter.received_bps(span_ns=500 * MS) == 800_000
    # From now on a packet takes 15 ms on the wire: 533 kbit/s.
    arrive(meter, [40 + 5 * index for index in range(30)], since_ms=600)
    busy_bps = meter.busy_bps(span_ns=200 * MS, waited_ns=6 * MS)
    assert busy_bps == pytest.approx(533_333, rel=0.01)


def test_a_slow_drift_of_the_clocks_is_forgotten_with_the_least_delay() -> None:
    meter = DelayMeter()
    for second in range(120):
        arrive(meter, [40 + second * 0.1] * 20, since_ms=1000 * second, every_ms=50)
        assert meter.queue_ns <= 4.1 * MS


def test_packets_that_come_in_bursts_are_one_group() -> None:
    meter = DelayMeter()
    arrivals = []
    for burst in range(50):  # everything of 40 ms comes at once, as Wi-Fi gives it
        arrivals += [
            Arrival.alone((burst * 40 + 80) * MS, (burst * 40 + 10 * index) * MS, 1000, 0) for index in range(4)
        ]
    meter.add(arrivals)
    assert meter.trend.usage == "normal"
    assert len(meter.done) == 49


def test_a_jump_of_a_clock_starts_anew() -> None:
    meter = DelayMeter()
    arrive(meter, [40] * 50)
    arrive(meter, [10_000] * 50, since_ms=500)
    assert meter.trend.usage == "normal"
    assert meter.queue_ns == 0


@given(
    st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(1, 1500)), max_size=60),
    st.booleans(),
)
def test_any_arrivals_are_taken(raw: list[tuple[int, int, int]], is_sorted: bool) -> None:
    meter = DelayMeter()
    arrivals = [Arrival.alone(arrived, sent, size, 0) for arrived, sent, size in raw]
    meter.add(sorted(arrivals) if is_sorted else arrivals)
    assert meter.queue_ns >= 0
    assert len(meter.done) <= 256
    for value in (meter.busy_bps(span_ns=MS, waited_ns=0), meter.received_bps(span_ns=MS)):
        assert value is None or value >= 0


@given(
    bursts=st.lists(
        st.tuples(
            st.integers(0, 12),
            st.integers(-90, 30),
            st.lists(st.integers(0, 24), min_size=1, max_size=6),
            st.booleans(),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_bursts_say_the_same_as_their_packets(bursts: list[tuple[int, int, list[int], bool]]) -> None:
    together, one_by_one = DelayMeter(), DelayMeter()
    sent_ns = arrived_ns = 0
    for after_ms, waits, gaps, is_overtaken in bursts:
        sent_ns += after_ms * MS
        arrived_ns = max(0, max(arrived_ns, sent_ns) + waits * TICK_NS)  # feedback that comes late tells of before
        ticks = list(accumulate(gaps[1:], initial=0))
        sizes = [100 + gap for gap in gaps]
        sent = max(0, sent_ns - 20 * MS) if is_overtaken else sent_ns
        last_ns = arrived_ns + ticks[-1] * TICK_NS
        burst = Arrival(arrived_ns, sent, sum(sizes), 0, last_ns, sizes, ticks)
        together.add([burst])
        one_by_one.add([Arrival.alone(t, sent, s, 0) for t, s in zip(burst.times_ns, sizes, strict=True)])
        arrived_ns = last_ns
    assert together.queue_ns == one_by_one.queue_ns
    assert list(together.done) == list(one_by_one.done)
    assert together.trend.slope == one_by_one.trend.slope


@pytest.mark.parametrize("skips", [False, True])
def test_what_does_not_follow_what_came_before_is_not_compared_with_it(skips: bool) -> None:
    meter = DelayMeter()
    arrive(meter, [40] * 100)
    threshold = meter.trend.threshold
    if skips:
        meter.skip()
        assert meter.received_bps(span_ns=100 * MS) is None
    arrive(meter, [42] * 30, since_ms=60_000)
    assert (meter.trend.slope == 0) == skips
    assert meter.trend.threshold <= threshold
    arrive(meter, [42 + index for index in range(50)], since_ms=60_300)
    assert meter.trend.usage == "over", "but a queue after it is seen"
    assert meter.queue_ns >= 40 * MS
