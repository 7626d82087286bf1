"""The link emulator: what goes in comes out or is counted, the rate holds, order holds, the seed decides."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flowstream.testing import Change, Delivery, Link, LinkConditions

MS = 1_000_000
S = 1_000_000_000


def drained(link: Link, now_ns: int) -> list[Delivery]:
    """Everything that still arrives, each polled when it is due."""
    arrived: list[Delivery] = []
    while (due_ns := link.next_ns()) is not None:
        now_ns = max(now_ns, due_ns)
        arrived += link.poll(now_ns)
    return arrived


def driven(link: Link, sends: Sequence[tuple[int, int]]) -> list[Delivery]:
    """Sends ``(pause_ns, size)`` one after another, polls when something is due, and lets the link run dry."""
    now_ns, arrived = 0, []
    for pause_ns, size in sends:
        until_ns = now_ns + pause_ns
        while (due_ns := link.next_ns()) is not None and due_ns <= until_ns:
            arrived += link.poll(max(due_ns, now_ns))
        now_ns = until_ns
        link.send(bytes(size), now_ns)
    return arrived + drained(link, now_ns)


shares = st.sampled_from([0.0, 0.1, 0.5, 1.0])
conditions = st.fixed_dictionaries(
    {
        "rate": st.sampled_from([0, 64_000, 2_000_000]),
        "delay": st.integers(0, 100 * MS),
        "jitter": st.integers(0, 50 * MS),
        "loss": shares,
        "burst_enter": shares,
        "burst_leave": st.sampled_from([0.1, 0.5, 1.0]),
        "burst_loss": shares,
        "duplicate": shares,
        "reorder": shares,
        "queue_bytes": st.sampled_from([0, 3000]),
        "queue_time": st.sampled_from([0, 30 * MS]),
        "down": st.sampled_from(["no", "no", "losing"]),
    }
)
sends = st.lists(st.tuples(st.integers(0, 20 * MS), st.integers(0, 1400)), max_size=40)
scripts = st.lists(
    st.builds(lambda at, changes: Change(at, **changes), st.integers(0, 400 * MS), conditions), max_size=3
)


@given(conditions, sends, scripts, st.integers(0, 3))
def test_what_goes_in_comes_out_or_is_counted(
    given_: dict[str, Any], sends: list[tuple[int, int]], script: list[Change], seed: int
) -> None:
    link = Link(given_, seed=seed, script=script)
    arrived = driven(link, sends)
    counts = link.counts
    assert link.inside == 0
    assert counts["delivered"] == len(arrived)
    assert counts["sent"] == len(sends)
    assert counts["sent"] + counts["duplicated"] == sum(
        counts[name] for name in ("delivered", "lost", "burst", "overflow", "down")
    )
    copies = [(each.number, each.is_duplicate) for each in arrived]
    assert len(set(copies)) == len(copies), "each copy arrives once"
    assert [each.at_ns for each in arrived] == sorted(each.at_ns for each in arrived)


@given(conditions, sends, scripts, st.integers(0, 3))
def test_order_holds_unless_it_is_asked_not_to(
    given_: dict[str, Any], sends: list[tuple[int, int]], script: list[Change], seed: int
) -> None:
    quiet = [Change(each.at, **{**each.changes, "reorder": 0.0}) for each in script]
    arrived = driven(Link({**given_, "reorder": 0.0}, seed=seed, script=quiet), sends)
    numbers = [each.number for each in arrived]
    assert numbers == sorted(numbers)


@given(conditions, sends, scripts, st.integers(0, 3))
def test_the_same_seed_gives_the_same(
    given_: dict[str, Any], sends: list[tuple[int, int]], script: list[Change], seed: int
) -> None:
    first, second = (driven(Link(given_, seed=seed, script=script), sends) for _ in range(2))
    assert first == second


@given(st.sampled_from([64_000, 1_000_000]), sends, st.integers(0, 3), shares)
def test_the_rate_is_held(rate: int, sends: list[tuple[int, int]], seed: int, loss: float) -> None:
    arrived = driven(Link({"rate": rate, "delay": "5ms", "loss": loss}, seed=seed), sends)
    for first in range(len(arrived)):
        carried = 0
        for each in arrived[first:]:
            carried += (len(each.data) + 28) * 8
            span_ns = each.at_ns - arrived[first].at_ns + (len(arrived[first].data) + 28) * 8 * S // rate
            assert carried * S <= rate * (span_ns + len(arrived)), "no stretch of time carries more than the rate"


@given(sends, st.integers(0, 3))
def test_nothing_arrives_before_it_can(sends: list[tuple[int, int]], seed: int) -> None:
    link = Link({"rate": "1M", "delay": "20ms", "jitter": "10ms"}, seed=seed)
    for each in driven(link, sends):
        wire_ns = (len(each.data) + 28) * 8 * S // 1_000_000
        assert each.at_ns - each.sent_ns >= 20 * MS + wire_ns


def test_without_conditions_it_is_a_wire() -> None:
    link = Link()
    assert link.send(b"a", 5) == "queued"
    assert link.poll(5) == [Delivery(5, 0, False, 5, b"a")]
    assert link.next_ns() is None


def test_a_change_in_the_script_counts_from_the_first_use() -> None:
    link = Link({"delay": "10ms"}, script=[Change("1s", delay="100ms"), Change("2s", delay="0ms")])
    begin_ns = 50 * S
    sent = [0, 999 * MS, 1000 * MS, 1990 * MS, 2500 * MS]
    arrived = []
    for each in sent:
        arrived += link.poll(begin_ns + each)
        link.send(b"x", begin_ns + each)
    arrived += drained(link, begin_ns + sent[-1])
    delays = [(each.at_ns - each.sent_ns) // MS for each in arrived]
    assert delays == [10, 10, 100, 100, 0]


def test_what_waits_is_sent_at_the_rate_of_its_turn() -> None:
    link = Link({"rate": "800k", "overhead": 0}, script=[Change("1ms", rate="8M")])
    for _ in range(3):
        link.send(bytes(1000), 0)
    arrived = drained(link, 0)
    assert [each.at_ns // MS for each in arrived] == [10, 11, 12]


def test_the_queue_is_bounded_in_bytes_and_in_time() -> None:
    link = Link({"rate": "800k", "overhead": 0, "queue_bytes": 2000})
    fates = [link.send(bytes(1000), 0) for _ in range(4)]
    assert fates == ["queued", "queued", "queued", "overflow"], "one is on the wire, two wait"
    link = Link({"rate": "800k", "overhead": 0, "queue_time": "15ms"})
    fates = [link.send(bytes(1000), 0) for _ in range(4)]
    assert fates == ["queued", "queued", "overflow", "overflow"], "the third would have to wait 20 ms"
    assert link.send(bytes(1000), 10 * MS) == "queued"


def test_a_blackout_loses_or_holds() -> None:
    link = Link({"rate": "8M"}, script=[Change("10ms", down="losing"), Change("20ms", down="no")])
    fates = [link.send(b"x", at * MS) for at in (0, 15, 25)]
    assert fates == ["queued", "down", "queued"]
    link = Link(script=[Change("10ms", down="holding"), Change("20ms", down="no")])
    link.send(b"x", 0)
    link.send(b"y", 15 * MS)
    assert [each.at_ns // MS for each in drained(link, 15 * MS)] == [0, 20]


def test_conditions_change_by_hand_too() -> None:
    link = Link({"down": "holding"})
    link.send(b"x", 0)
    assert link.next_ns() is None
    link.set(7 * MS, down="no", delay="1ms")
    assert [each.at_ns // MS for each in drained(link, 7 * MS)] == [8]


def test_bernoulli_loses_its_share_and_bursts_come_together() -> None:
    chance = Link({"loss": "20%"}, seed=1)
    for number in range(10_000):
        chance.send(b"", number)
    assert 1800 < chance.counts["lost"] < 2200
    bursts = Link({"burst_enter": "1%", "burst_leave": "25%"}, seed=1)
    for number in range(20_000):
        bursts.send(b"", number)
    arrived = [each.number for each in drained(bursts, 20_000)]
    gaps = [after - before - 1 for before, after in itertools.pairwise(arrived) if after > before + 1]
    share = bursts.counts["burst"] / 20_000
    assert 0.03 < share < 0.05, "1 / (1 + 25) of the time is spent in bursts"
    assert 3.3 < sum(gaps) / len(gaps) < 4.7, "of four on average"


def test_reordering_holds_some_back() -> None:
    link = Link({"reorder": "10%", "reorder_by": "5ms"}, seed=3)
    arrived = driven(link, [(1 * MS, 10)] * 200)
    numbers = [each.number for each in arrived]
    assert numbers != sorted(numbers)
    assert sorted(numbers) == list(range(200))
    late = [each for each in arrived if each.at_ns > each.sent_ns]
    assert 8 < len(late) < 35
    assert {each.at_ns - each.sent_ns for each in late} == {5 * MS}


def test_conditions_do_not_shift_the_dice() -> None:
    plain = [each.number for each in driven(Link({"loss": "30%"}, seed=5), [(MS, 10)] * 100)]
    busy = Link({"loss": "30%", "jitter": "3ms", "duplicate": "20%", "rate": "1M"}, seed=5)
    assert [each.number for each in driven(busy, [(MS, 10)] * 100) if not each.is_duplicate] == plain


def test_what_no_link_can_have_is_said_at_once() -> None:
    with pytest.raises(ValidationError, match="loss"):
        Link({"loss": 2.0})
    with pytest.raises(ValidationError, match="speed"):
        Link(script=[Change("1s", speed="2M")])
    late = Link(LinkConditions())
    late.poll(5)
    with pytest.raises(ValueError, match="time does not go back by 1 ns"):
        late.send(b"", 4)


def test_it_never_holds_more_than_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowstream.testing.link.MAX_INSIDE", 3)
    link = Link({"down": "holding"})
    assert [link.send(b"x", 0) for _ in range(4)] == ["queued"] * 3 + ["overflow"]
