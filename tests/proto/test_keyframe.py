"""Coalescing of keyframe requests on a scripted clock."""

from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.keyframe import PATIENCE_NS, SPACING_NS, KeyframeRequests

MS = 1_000_000


def test_the_first_want_is_asked_at_once_and_the_next_ones_ride_along() -> None:
    requests = KeyframeRequests()
    assert requests.deadline_ns is None
    requests.want()
    assert requests.poll(now_ns=5 * MS)
    for now_ns in range(6 * MS, 400 * MS, 10 * MS):
        requests.want()
        assert not requests.poll(now_ns=now_ns)
    requests.arrived()
    assert not requests.poll(now_ns=2 * PATIENCE_NS)


def test_a_want_soon_after_a_keyframe_waits_for_the_spacing() -> None:
    requests = KeyframeRequests()
    requests.want()
    assert requests.poll(now_ns=0)
    requests.arrived()
    requests.want()
    assert requests.deadline_ns == SPACING_NS
    assert not requests.poll(now_ns=SPACING_NS - 1)
    assert requests.poll(now_ns=SPACING_NS)


def test_a_keyframe_that_comes_by_itself_settles_a_waiting_want() -> None:
    requests = KeyframeRequests()
    requests.want()
    requests.poll(now_ns=0)
    requests.arrived()
    requests.want()
    requests.arrived()
    assert requests.deadline_ns is None


def test_an_unanswered_request_is_repeated() -> None:
    requests = KeyframeRequests()
    requests.want()
    assert requests.poll(now_ns=0)
    assert not requests.poll(now_ns=PATIENCE_NS - 1)
    assert requests.poll(now_ns=PATIENCE_NS)


@given(st.lists(st.tuples(st.sampled_from(["want", "arrived", "poll"]), st.integers(0, 400 * MS)), max_size=100))
def test_requests_keep_their_distance_and_no_want_is_lost(steps: list[tuple[str, int]]) -> None:
    requests = KeyframeRequests()
    now_ns, asked_ns, is_wanted = 0, None, False
    for action, wait_ns in steps:
        now_ns += wait_ns
        if action == "want":
            requests.want()
            is_wanted = True
        elif action == "arrived":
            requests.arrived()
            is_wanted = False
        elif requests.poll(now_ns=now_ns):
            assert is_wanted
            assert asked_ns is None or now_ns - asked_ns >= SPACING_NS
            asked_ns = now_ns
    if is_wanted:
        assert requests.deadline_ns is not None
        assert requests.deadline_ns <= now_ns + PATIENCE_NS
