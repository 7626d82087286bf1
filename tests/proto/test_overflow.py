"""The queue of an edge: every policy, every bound, and conservation."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.overflow import POLICIES, Limit, Offered, OverflowQueue


@dataclass(frozen=True)
class Item:
    time_ns: int
    size_bytes: int = 10
    keyframe: bool = True


def times(queue: OverflowQueue[Item]) -> list[int]:
    taken = []
    while (item := queue.poll()) is not None:
        taken.append(item.time_ns)
    return taken


def filled(policy: str, limit: Limit, *items: Item) -> OverflowQueue[Item]:
    queue: OverflowQueue[Item] = OverflowQueue(policy, limit)  # type: ignore[arg-type]
    for item in items:
        queue.offer(item)
    return queue


def test_block_takes_nothing_when_full_and_loses_nothing() -> None:
    queue = filled("block", Limit(2), Item(1), Item(2))
    assert queue.offer(Item(3)) == Offered.FULL
    assert (len(queue), len(queue.waiting)) == (2, 1)
    assert times(queue) == [1, 2, 3]
    assert queue.offer(Item(4)) == Offered.TAKEN
    assert not queue.drops


def test_who_waits_is_let_in_in_order_and_nobody_gets_past() -> None:
    queue = filled("block", Limit(9, bytes=100), Item(1, size_bytes=60), Item(2, size_bytes=90), Item(3))
    assert [item.time_ns for item in queue.waiting] == [2, 3]
    queue.poll()
    assert [item.time_ns for item in queue.waiting] == []
    assert times(queue) == [2, 3]


def test_what_is_withdrawn_is_counted_and_what_was_let_in_is_not() -> None:
    first, second = Item(2), Item(2)
    queue = filled("block", Limit(1), Item(1), first, second)
    assert queue.withdraw(second, "cancelled")
    assert queue.waiting[0] is first
    queue.poll()
    assert not queue.withdraw(first, "cancelled")
    assert queue.drops == {"cancelled": 1}


def test_another_policy_takes_what_waits_its_own_way() -> None:
    queue = filled("block", Limit(2), Item(1), Item(2), Item(3), Item(4))
    queue.change("drop-oldest", Limit(3))
    assert not queue.waiting
    assert times(queue) == [2, 3, 4]
    assert queue.drops == {"overflow": 1}


def test_a_consumer_that_stands_still_asks_for_one_keyframe_and_for_another_when_it_goes_on() -> None:
    queue = filled("drop-to-keyframe", Limit(1), Item(1))
    assert queue.offer(Item(2, keyframe=False)) == Offered.WANTS_KEYFRAME
    for number in range(3, 9, 2):
        queue.offer(Item(number))
        assert queue.offer(Item(number + 1, keyframe=False)) == Offered.DROPPED
    assert queue.wants_keyframe
    assert queue.poll() is None
    queue.offer(Item(9))
    assert times(queue) == [9]
    queue.offer(Item(10))
    assert queue.offer(Item(11, keyframe=False)) == Offered.WANTS_KEYFRAME


def test_time_that_steps_back_does_not_make_room() -> None:
    queue = filled("drop-oldest", Limit(9, time_ns=100), Item(5000))
    assert queue.offer(Item(10)) == Offered.DROPPED
    assert times(queue) == [10]


def test_drop_oldest_keeps_the_newest() -> None:
    queue = filled("drop-oldest", Limit(2), Item(1), Item(2))
    assert queue.offer(Item(3)) == Offered.DROPPED
    assert times(queue) == [2, 3]
    assert queue.drops == {"overflow": 1}


def test_drop_newest_keeps_the_oldest() -> None:
    queue = filled("drop-newest", Limit(2), Item(1), Item(2), Item(3))
    assert times(queue) == [1, 2]
    assert queue.drops == {"overflow": 1}


def test_latest_keeps_one_whatever_the_limit() -> None:
    queue = filled("latest", Limit(9), Item(1), Item(2), Item(3))
    assert times(queue) == [3]
    assert queue.drops == {"overflow": 2}


def test_drop_to_keyframe_never_passes_a_packet_whose_reference_was_dropped() -> None:
    queue = filled("drop-to-keyframe", Limit(2), Item(1), Item(2, keyframe=False))
    assert queue.offer(Item(3, keyframe=False)) == Offered.WANTS_KEYFRAME
    assert queue.offer(Item(4, keyframe=False)) == Offered.DROPPED
    assert queue.offer(Item(5)) == Offered.TAKEN
    assert queue.offer(Item(6, keyframe=False)) == Offered.TAKEN
    assert times(queue) == [5, 6]
    assert queue.drops == {"overflow": 3, "waiting-for-keyframe": 1}


def test_drop_to_keyframe_starts_afresh_at_a_keyframe_that_comes_when_full() -> None:
    queue = filled("drop-to-keyframe", Limit(2), Item(1), Item(2, keyframe=False))
    assert queue.offer(Item(3)) == Offered.DROPPED
    assert times(queue) == [3]


@pytest.mark.parametrize(
    ("limit", "second"),
    [(Limit(9, bytes=15), Item(2)), (Limit(9, time_ns=5), Item(9)), (Limit(1), Item(2))],
    ids=["bytes", "time", "items"],
)
def test_each_bound_by_itself_fills_the_queue(limit: Limit, second: Item) -> None:
    assert filled("block", limit, Item(1)).offer(second) == Offered.FULL


def test_one_item_passes_however_large_it_is() -> None:
    assert filled("block", Limit(1, bytes=5)).offer(Item(1, size_bytes=1_000)) == Offered.TAKEN


def test_a_queue_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 item, not 0"):
        OverflowQueue("block", Limit(0))


items = st.builds(Item, time_ns=st.integers(0, 1000), size_bytes=st.integers(0, 200), keyframe=st.booleans())
limits = st.builds(
    Limit,
    items=st.integers(1, 5),
    bytes=st.none() | st.integers(1, 500),
    time_ns=st.none() | st.integers(0, 500),
)


@given(
    policy=st.sampled_from(POLICIES),
    limit=limits,
    calls=st.lists(
        st.one_of(
            items, st.just("poll"), st.just("flush"), st.just("require"), st.tuples(st.sampled_from(POLICIES), limits)
        ),
        max_size=60,
    ),
)
def test_conservation_and_bounds_hold_after_every_call(policy, limit, calls) -> None:  # type: ignore[no-untyped-def]
    queue: OverflowQueue[Item] = OverflowQueue(policy, limit)
    offered = 0
    for call in calls:
        if call == "poll":
            queue.poll()
        elif call == "flush":
            queue.flush("reload")
        elif call == "require":
            queue.require_keyframe()
        elif isinstance(call, tuple):
            queue.change(*call)
            limit = Limit(max(limit.items, call[1].items))  # of what was there before
        else:
            outcome = queue.offer(call)
            assert outcome != Offered.FULL or queue.policy == "block"
            offered += 1
        assert queue.received == queue.delivered + sum(queue.drops.values()) + len(queue) + len(queue.waiting)
        assert len(queue) or not queue.waiting
        assert len(queue) <= limit.items
        assert len(queue) <= 1 or limit.bytes is None or queue.size_bytes <= limit.bytes
    assert queue.received == offered


@given(
    limit=st.builds(Limit, items=st.integers(1, 4)),
    calls=st.lists(st.sampled_from(["key", "delta", "poll"]), max_size=80),
)
def test_what_drop_to_keyframe_delivers_can_always_be_decoded(limit, calls) -> None:  # type: ignore[no-untyped-def]
    """A packet may be delivered only right after its predecessor, unless it is a keyframe."""
    queue: OverflowQueue[Item] = OverflowQueue("drop-to-keyframe", limit)
    queue.require_keyframe()
    number, last = 0, None
    for call in calls:
        if call == "poll":
            if (item := queue.poll()) is not None:
                assert item.keyframe or last == item.time_ns - 1
                last = item.time_ns
        else:
            queue.offer(Item(number, keyframe=call == "key"))
            number += 1


@given(
    policy=st.sampled_from(POLICIES),
    limit=limits,
    calls=st.lists(st.integers(0, 300) | st.just("poll"), max_size=60),
)
def test_as_time_goes_on_no_more_of_it_waits_than_the_limit_says(policy, limit, calls) -> None:  # type: ignore[no-untyped-def]
    queue: OverflowQueue[Item] = OverflowQueue(policy, limit)
    now_ns = 0
    for call in calls:
        if call == "poll":
            queue.poll()
        else:
            now_ns += call
            queue.offer(Item(now_ns))
        assert limit.time_ns is None or queue.span_ns <= limit.time_ns
