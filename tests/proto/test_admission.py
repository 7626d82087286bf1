"""Who comes in, how often somebody may knock, and how a rate is held."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.admission import (
    MOST_WAITING,
    MOST_WAITING_OF_NETWORK,
    Approval,
    JoinLimit,
    Knock,
    RateCap,
    Room,
    decide,
)
from flowstream.proto.hosts import is_loopback, is_wildcard, network_of

FREE = Room(0, 10)
STRANGER = Knock()
approvals = st.sampled_from(get_args(Approval))
knocks = st.builds(Knock, *[st.booleans()] * 5)
rooms = st.builds(Room, *[st.integers(0, 40)] * 4)


@pytest.mark.parametrize(
    ("approval", "knock", "verdict"),
    [
        ("none", STRANGER, "admit"),
        ("token", STRANGER, "token"),
        ("manual", STRANGER, "wait"),
        ("token", Knock(is_invited=True), "admit"),
        ("manual", Knock(is_invited=True), "admit"),
        ("token", Knock(is_vouched_for=True), "admit"),
        ("manual", Knock(is_vouched_for=True), "wait"),
        ("manual", Knock(is_approved=True), "admit"),
        ("token", Knock(is_approved=True), "admit"),
        ("none", Knock(is_suspect=True), "wait"),
        ("token", Knock(is_suspect=True), "token"),
        ("token", Knock(is_suspect=True, is_invited=True), "wait"),
        ("none", Knock(is_suspect=True, is_approved=True), "admit"),
        ("none", Knock(is_barred=True, is_approved=True, is_invited=True), "barred"),
    ],
)
def test_who_comes_in(approval: Approval, knock: Knock, verdict: str) -> None:
    assert decide(approval, knock, FREE) == verdict


def test_a_place_is_needed_to_watch_and_none_to_wait() -> None:
    assert decide("none", STRANGER, Room(9, 10)) == "admit"
    assert decide("none", STRANGER, Room(10, 10)) == "full"
    assert decide("manual", STRANGER, Room(10, 10)) == "wait"
    assert decide("manual", STRANGER, Room(0, 10, waiting=MOST_WAITING)) == "crowded"
    assert decide("manual", STRANGER, Room(0, 10, 9, MOST_WAITING_OF_NETWORK)) == "crowded"


@given(approvals, knocks, rooms)
def test_nobody_watches_who_may_not(approval: Approval, knock: Knock, room: Room) -> None:
    if decide(approval, knock, room) == "admit":
        assert not knock.is_barred
        assert room.watching < room.most
        assert knock.is_approved or not knock.is_suspect
        if approval == "manual":
            assert knock.is_approved or knock.is_invited
        if approval == "token":
            assert knock.is_approved or knock.is_invited or knock.is_vouched_for


# --- how often ------------------------------------------------------------------------------------------------------


def test_a_network_that_comes_too_often_waits_and_others_do_not() -> None:
    limit = JoinLimit(burst=3, per_second=2)
    assert [limit.take("a", now_ns=0) for _ in range(4)] == [0, 0, 0, 500_000_000]
    assert limit.take("b", now_ns=0) == 0
    assert limit.take("a", now_ns=499_999_000) > 0
    assert limit.take("a", now_ns=500_000_000) == 0


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    limit = JoinLimit(burst=1, per_second=1)
    assert limit.take("a", now_ns=10**9) == 0
    assert limit.take("a", now_ns=0) == 10**9


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10**9)), max_size=200))
def test_over_any_time_no_more_come_than_burst_and_rate(knocks: list[tuple[int, int]]) -> None:
    limit, now_ns, taken = JoinLimit(burst=5, per_second=1, networks=100), 0, dict[str, int]()
    for network, step_ns in knocks:
        now_ns += step_ns
        if limit.take(str(network), now_ns=now_ns) == 0:
            taken[str(network)] = taken.get(str(network), 0) + 1
    assert all(count <= 5 + now_ns / 1e9 for count in taken.values())


def test_only_so_many_networks_are_remembered() -> None:
    limit = JoinLimit(burst=1, networks=10)
    for index in range(1000):
        limit.take(str(index), now_ns=0)
    assert len(limit._left) == 10


# --- how much -------------------------------------------------------------------------------------------------------


@given(
    st.integers(100_000, 5_000_000),
    st.lists(st.tuples(st.integers(100, 100_000), st.booleans()), min_size=1, max_size=300),
)
def test_a_cap_holds_over_time_and_leaves_out_whole_groups(rate: int, pictures: list[tuple[int, bool]]) -> None:
    cap, now_ns, sent, is_whole = RateCap(rate), 0, 0, True
    for size, is_keyframe in pictures:
        now_ns += 33_000_000
        passes = cap.passes(is_keyframe=is_keyframe, now_ns=now_ns)
        if passes:
            assert is_whole or is_keyframe  # after a gap nothing comes before a keyframe
            cap.spend(size)
            sent += size
        is_whole = passes
    assert sent * 8 <= rate * (now_ns / 1e9 + 2) + 8 * 100_000


def test_a_stream_below_the_cap_is_left_alone() -> None:
    cap = RateCap(1_000_000)
    for index in range(1000):
        assert cap.passes(is_keyframe=index % 30 == 0, now_ns=index * 33_333_333)
        cap.spend(4000)
        assert not cap.wants_keyframe


def test_a_capped_stream_asks_for_a_keyframe_when_it_may_go_on() -> None:
    cap = RateCap(8000)
    assert cap.passes(is_keyframe=True, now_ns=0)
    cap.spend(3000)
    assert not cap.passes(is_keyframe=False, now_ns=1)
    assert not cap.wants_keyframe
    assert not cap.passes(is_keyframe=False, now_ns=2_001_000_000)
    assert cap.wants_keyframe
    assert cap.passes(is_keyframe=True, now_ns=2_001_000_001)


# --- hosts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("", ""),
        ("x" * 100, "x" * 64),
    ],
)
def test_networks(address: str, network: str) -> None:
    assert network_of(address) == network


def test_what_a_host_says_about_itself() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "a.localhost")] == [True] * 5
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.0.2.1", "studio.example", ""))
    assert [is_wildcard(host) for host in ("0.0.0.0", "::")] == [True, True]
    assert not any(is_wildcard(host) for host in ("127.0.0.1", "localhost", ""))
