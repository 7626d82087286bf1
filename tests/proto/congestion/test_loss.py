"""A path that loses its share at any rate is told from one that is too narrow."""

import random

import pytest

from flowstream.proto.congestion.loss import LossMeter

MS = 1_000_000


def play(
    meter: LossMeter, *, seconds: int, rate_bps: int, lost: float, narrow_bps: int | None = None, since_ms: int = 0
) -> int:
    """Sends at a rate that the meter bounds; what is beyond ``narrow_bps`` is lost. Gives the rate at the end."""
    chance = random.Random(1)
    current = min(rate_bps, meter.limit_bps or rate_bps)
    for now_ms in range(since_ms, since_ms + 1000 * seconds, 50):
        count = max(1, current // 8 // 20 // 1200)
        excess = max(0.0, (current - narrow_bps) / current) if narrow_bps else 0.0
        gone = sum(chance.random() < lost + (1 - lost) * excess for _ in range(count))
        meter.add(
            received=count - gone,
            lost=gone,
            size=1200 * (count - gone),
            estimate_bps=rate_bps,
            least_bps=50_000,
            now_ns=now_ms * MS,
        )
        current = min(rate_bps, meter.limit_bps or rate_bps)
    return current


def test_nothing_lost_bounds_nothing() -> None:
    meter = LossMeter()
    assert play(meter, seconds=5, rate_bps=2_000_000, lost=0) == 2_000_000
    assert (meter.limit_bps, meter.share) == (None, 0.0)


@pytest.mark.parametrize("lost", [0.01, 0.05, 0.10])
def test_chance_losses_do_not_bring_the_rate_down(lost: float) -> None:
    meter = LossMeter()
    assert play(meter, seconds=30, rate_bps=2_000_000, lost=lost) >= 0.75 * 2_000_000
    assert meter.share == pytest.approx(lost, abs=0.08)


@pytest.mark.parametrize("lost", [0.0, 0.02])
def test_a_narrow_path_does(lost: float) -> None:
    meter = LossMeter()
    assert 600_000 <= play(meter, seconds=10, rate_bps=2_000_000, lost=lost, narrow_bps=1_000_000) <= 1_200_000


def test_a_path_on_which_nothing_arrives_any_more() -> None:
    meter = LossMeter()
    play(meter, seconds=3, rate_bps=2_000_000, lost=0)
    assert play(meter, seconds=3, rate_bps=2_000_000, lost=1, since_ms=3000) < 600_000
    assert meter.share == 1
    never = LossMeter()
    assert play(never, seconds=3, rate_bps=2_000_000, lost=1) < 600_000


def test_a_path_that_is_clean_again_is_free() -> None:
    meter = LossMeter()
    play(meter, seconds=10, rate_bps=2_000_000, lost=0, narrow_bps=500_000)
    assert meter.limit_bps is not None
    assert play(meter, seconds=10, rate_bps=2_000_000, lost=0, since_ms=10_000) == 2_000_000


def test_what_came_through_lifts_the_bound() -> None:
    meter = LossMeter()
    play(meter, seconds=10, rate_bps=2_000_000, lost=0, narrow_bps=500_000)
    meter.lift(1_500_000)
    assert meter.limit_bps == 1_500_000
    meter.reset()
    assert (meter.limit_bps, meter.share) == (None, 0.0)


def test_packets_that_come_after_all_make_up_for_those_counted() -> None:
    meter = LossMeter()
    meter.add(received=10, lost=5, size=12_000, estimate_bps=10**6, least_bps=50_000, now_ns=0)
    assert meter.share == pytest.approx(5 / 15)
    meter.add(received=5, lost=-5, size=6_000, estimate_bps=10**6, least_bps=50_000, now_ns=MS)
    assert meter.share == 0
