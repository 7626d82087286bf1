"""What may be sent to a viewer, on a scripted clock."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.budget import MOST_LOSS, Budget

MS = 1_000_000
S = 1_000 * MS
MANY = 100_000_000


class Viewer:
    """A budget with a clock: each report comes 200 ms after the one before."""

    def __init__(self, start_bps: int = 1_000_000, headroom: float = 0.0) -> None:
        self.budget = Budget(start_bps=start_bps, headroom=headroom)
        self.now_ns = 0

    def report(
        self, bandwidth_bps: int | None, *, loss: float = 0.0, queue_ms: float = 0.0, most_bps: int = MANY
    ) -> int:
        given_bps = self.budget.handle(
            bandwidth_bps=bandwidth_bps, loss=loss, queue_delay_ms=queue_ms, most_bps=most_bps, now_ns=self.now_ns
        )
        self.now_ns += 200 * MS
        return given_bps


def test_the_first_estimate_counts_at_once() -> None:
    assert Viewer().report(3_000_000) == 3_000_000
    assert Viewer().report(200_000) == 200_000


def test_room_is_kept_for_headers_and_for_what_is_sent_again() -> None:
    assert Viewer(headroom=0.05).report(1_000_000, loss=0.1) == int(1_000_000 * 0.9 * 0.95)
    assert Viewer().report(1_000_000, loss=0.9) == int(1_000_000 * (1 - MOST_LOSS))


def test_it_falls_at_once() -> None:
    viewer = Viewer()
    viewer.report(3_000_000)
    assert viewer.report(500_000) == 500_000


def test_it_rises_by_steps_and_a_moment_after_a_fall() -> None:
    viewer = Viewer()
    viewer.report(3_000_000)
    viewer.report(500_000)
    risen = [viewer.report(3_000_000) for _ in range(7)]
    assert risen[0] == 500_000, "200 ms after the fall it would be a guess"
    assert risen == sorted(risen)
    assert risen[-1] == 3_000_000
    assert all(after <= 1.45 * before for before, after in pairwise(risen))


def test_a_small_rise_is_not_worth_a_change() -> None:
    viewer = Viewer()
    viewer.report(1_000_000)
    assert viewer.report(1_015_000) == 1_000_000
    assert viewer.report(1_050_000) == 1_050_000


def test_a_cap_bounds_it() -> None:
    viewer = Viewer()
    assert viewer.report(3_000_000, most_bps=800_000) == 800_000
    assert viewer.report(3_000_000) > 800_000


def test_a_queue_is_drained_for_two_seconds_and_then_left_to_those_who_fill_it() -> None:
    viewer = Viewer()
    viewer.report(1_000_000)
    given = [viewer.report(1_000_000, queue_ms=300) for _ in range(30)]
    assert given[:10] == [800_000] * 10
    assert given[-1] == 1_000_000
    viewer = Viewer()
    viewer.report(1_000_000)
    assert viewer.report(1_000_000, queue_ms=300) == 800_000
    viewer.report(1_000_000, queue_ms=20)
    assert viewer.report(1_000_000, queue_ms=20) == 1_000_000


def test_without_an_estimate_it_follows_losses() -> None:
    viewer = Viewer(start_bps=1_000_000)
    viewer.report(None)
    one_second = [viewer.report(None) for _ in range(5)]
    assert 1_079_000 < one_second[-1] < 1_081_000
    before = viewer.budget.bps
    assert viewer.report(None, loss=0.05) == before
    assert viewer.report(None, loss=0.4) == int(before * 0.8)
    assert viewer.report(None, loss=0.4) == int(before * 0.8), "the same losses count once a second"


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(1, 2**40)),
            st.floats(0, 1),
            st.floats(0, 10_000),
            st.integers(1, 50_000_000),
        ),
        max_size=40,
    )
)
def test_it_is_always_a_rate_within_the_cap(reports: list[tuple[int | None, float, float, int]]) -> None:
    viewer = Viewer()
    for bandwidth, loss, queue_ms, most in reports:
        assert 1 <= viewer.report(bandwidth, loss=loss, queue_ms=queue_ms, most_bps=most) <= most
