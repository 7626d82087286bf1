"""What is remembered of sent packets, and the receiver's record of arrivals: each tells the other's story."""

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from flowstream.proto.congestion.arrivals import Arrivals
from flowstream.proto.congestion.sent import SPAN, Arrival, SentPackets
from flowstream.proto.rtcp import TransportFeedback, WholeFeedback, parse_compound

MS = 1_000_000


def one_by_one(arrivals: list[Arrival]) -> list[Arrival]:
    return [
        Arrival.alone(arrived_ns, each.sent_ns, size, each.probe)
        for each in arrivals
        for arrived_ns, size in zip(each.times_ns, each.sizes, strict=True)
    ]


def feedback(base: int, deltas: tuple[int | None, ...], *, reference: int = 0) -> TransportFeedback:
    return TransportFeedback(1, 2, base & 0xFFFF, reference, 0, deltas)


def test_feedback_says_what_arrived_when_and_what_did_not() -> None:
    packets = SentPackets()
    packets.add([100, 200], now_ns=10 * MS)
    packets.add([300], now_ns=20 * MS, probe=7)
    assert (packets.next_number, packets.in_flight_bytes) == (3, 600)
    told = packets.take(feedback(0, (4, None, 8), reference=1), now_ns=50 * MS)
    assert told.arrivals == [Arrival.alone(65 * MS, 10 * MS, 100, 0), Arrival.alone(67 * MS, 20 * MS, 300, 7)]
    assert (told.lost, told.late, told.round_trip_ns) == (1, 0, 30 * MS)
    assert packets.in_flight_bytes == 0


def test_what_was_told_counts_once_and_a_late_packet_is_taken_back() -> None:
    packets = SentPackets()
    packets.add([100, 100], now_ns=0)
    packets.take(feedback(0, (0, None)), now_ns=MS)
    again = packets.take(feedback(0, (0, 40)), now_ns=2 * MS)
    assert again.arrivals == [Arrival.alone(10 * MS, 0, 100, 0)]
    assert (again.lost, again.late) == (0, 1)
    assert packets.take(feedback(0, (0, 40)), now_ns=3 * MS).arrivals == []


def test_arrivals_come_in_their_order_in_time() -> None:
    packets = SentPackets()
    packets.add([1, 2], now_ns=0)
    told = packets.take(feedback(0, (100, -40)), now_ns=MS)
    assert [each[2] for each in told.arrivals] == [2, 1]


def test_packets_whose_feedback_was_lost_are_neither_lost_nor_in_flight() -> None:
    packets = SentPackets()
    packets.add([100] * 4, now_ns=0)
    told = packets.take(feedback(2, (0, 0)), now_ns=MS)
    assert (told.lost, told.received, packets.in_flight_bytes) == (0, 2, 0)


def test_feedback_on_what_was_never_sent_is_ignored() -> None:
    packets = SentPackets()
    packets.add([100], now_ns=0)
    told = packets.take(feedback(0, (0, 0, 0)), now_ns=MS)
    assert told.received == 1
    assert packets.take(feedback(40_000, (0,)), now_ns=MS).arrivals == []
    assert SentPackets().take(feedback(5, (1, None)), now_ns=MS).lost == 0


def test_memory_is_bounded_and_the_oldest_are_given_up() -> None:
    packets = SentPackets()
    for _ in range(3):
        packets.add([10] * SPAN, now_ns=0)
    assert packets.in_flight_bytes == 10 * SPAN
    assert packets.take(feedback(0, (0,)), now_ns=MS).arrivals == []
    packets.forget()
    assert packets.in_flight_bytes == 0


@pytest.mark.parametrize("first", [SPAN - 20, SPAN - 402])
def test_feedback_on_whole_bursts_tells_as_much_as_packet_by_packet(first: int) -> None:
    whole, single = SentPackets(), SentPackets()
    for packets in (whole, single):
        for burst in range(SPAN // 8 + 3):  # beyond the end of what is remembered, and on from its beginning
            packets.add([100] * 5 + [burst % 90 + 1], now_ns=burst * MS, probe=burst % 3)
            packets.add([7] * 2, now_ns=burst * MS + 1)
    count = 36
    deltas = tuple(range(count))
    told = whole.take(feedback(first, deltas), now_ns=10**9)
    reference, arrivals = 0, []
    for index in range(count):
        reference += deltas[index]
        arrivals += single.take(feedback(first + index, (reference,)), now_ns=10**9).arrivals
    assert len(told.arrivals) == (count if first + count > SPAN else 10)
    assert one_by_one(told.arrivals) == one_by_one(arrivals)
    assert (told.received, told.size) == (count, sum(each.size for each in arrivals))
    assert len(arrivals) == count
    assert whole.in_flight_bytes == single.in_flight_bytes
    assert whole.take(feedback(first, deltas), now_ns=10**9).arrivals == []
    others = [each.take(feedback(first - 10, (0,) * 20), now_ns=10**9).received for each in (whole, single)]
    assert others == [10, 10]


def test_the_reference_time_wraps() -> None:
    packets = SentPackets()
    packets.add([1, 1], now_ns=0)
    (before,) = packets.take(feedback(0, (0,), reference=(1 << 23) - 1), now_ns=0).arrivals
    (after,) = packets.take(feedback(1, (0,), reference=-(1 << 23)), now_ns=0).arrivals
    assert after[0] - before[0] == 64 * MS


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 0xFFFF), st.lists(st.none() | st.integers(-9, 300), max_size=40)),
        max_size=30,
    )
)
def test_any_feedback_leaves_the_books_in_order(steps: list[tuple[int, int, list[int | None]]]) -> None:
    packets = SentPackets()
    sent = told = 0
    for index, (count, base, deltas) in enumerate(steps):
        packets.add([100] * count, now_ns=index * MS)
        sent += count
        outcome = packets.take(feedback(base % 50, tuple(deltas)), now_ns=index * MS)
        told += outcome.received
        assert told <= sent
        assert 0 <= packets.in_flight_bytes <= 100 * sent
        assert [each.arrived_ns for each in one_by_one(outcome.arrivals)] == sorted(
            a.arrived_ns for a in one_by_one(outcome.arrivals)
        )
    packets.forget()
    assert packets.in_flight_bytes == 0


@given(
    fates=st.lists(st.tuples(st.booleans(), st.integers(0, 200), st.booleans()), min_size=1, max_size=300),
    first=st.sampled_from([0, 0xFFF0]),
)
def test_the_sender_learns_each_arrival_that_the_receiver_recorded(
    fates: list[tuple[bool, int, bool]], first: int
) -> None:
    packets = SentPackets()
    packets.add([1] * first, now_ns=0)
    arrivals = Arrivals(ssrc=1)
    now_ns, expected, learned = 64 * MS, [], []

    def tell() -> None:
        while (told := arrivals.take(media_ssrc=2)) is not None:
            (read,) = parse_compound(told.to_bytes())
            assert isinstance(read, TransportFeedback)
            learned.extend(each.arrived_ns for each in one_by_one(packets.take(read, now_ns=now_ns).arrivals))

    for arrives, later_ms, tells in fates:
        number = packets.next_number
        packets.add([100], now_ns=now_ns)
        now_ns += later_ms * MS
        if arrives:
            arrivals.add(number, now_ns=now_ns)
            expected.append(now_ns)
        if tells:
            tell()
    tell()
    assert learned == expected


def test_gaps_of_seconds_and_numbers_are_split_over_feedbacks() -> None:
    arrivals = Arrivals(ssrc=1)
    arrivals.add(0, now_ns=0)
    arrivals.add(1, now_ns=20_000 * MS)
    arrivals.add(3000, now_ns=20_001 * MS)
    told = []
    while (each := arrivals.take(media_ssrc=2)) is not None:
        told.append(each)
    assert [each.feedback_count for each in told] == list(range(len(told)))
    assert sum(delta is not None for each in told for delta in each.deltas) == 3
    assert max(len(each.to_bytes()) for each in told) < 1400


def test_the_record_is_bounded() -> None:
    arrivals = Arrivals(ssrc=1)
    for number in range(20_000):
        arrivals.add(number, now_ns=number)
    count = 0
    while (told := arrivals.take(media_ssrc=2)) is not None:
        count += sum(delta is not None for delta in told.deltas)
    assert count == 4096


def test_a_second_copy_changes_nothing() -> None:
    arrivals = Arrivals(ssrc=1)
    arrivals.add(5, now_ns=MS)
    arrivals.add(5, now_ns=9 * MS)
    told = arrivals.take(media_ssrc=2)
    assert told is not None
    assert told.deltas == (4,)
    assert arrivals.take(media_ssrc=2) is None


@pytest.mark.parametrize("late", [1, 2])
def test_a_packet_that_comes_late_is_told_after_all(late: int) -> None:
    arrivals = Arrivals(ssrc=1)
    for number in {0, 1, 2, 3} - {late}:
        arrivals.add(number, now_ns=MS)
    first = arrivals.take(media_ssrc=2)
    assert first is not None
    assert first.deltas[late] is None
    arrivals.add(late, now_ns=5 * MS)
    second = arrivals.take(media_ssrc=2)
    assert second is not None
    assert (second.base_number, second.deltas) == (late, (20,))


@given(
    st.integers(0, SPAN + 100),
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 1500), st.integers(0, 40)), min_size=1, max_size=30),
    st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=40), min_size=1, max_size=12),
)
def test_at_a_glance_the_same_is_told(before: int, runs: list[tuple[int, int, int]], told: list[list[int]]) -> None:
    """Whatever is sent in between, and wherever a feedback begins and ends."""
    at_length, at_a_glance = SentPackets(), SentPackets()
    number = before
    for packets in (at_length, at_a_glance):
        if before:
            packets.add([1] * min(before, SPAN - 1), now_ns=0)
            packets.add([1] * (before - min(before, SPAN - 1)), now_ns=0)
            for first in range(0, before, 500):
                packets.take(feedback(first, (0,) * min(500, before - first)), now_ns=MS)
    sent = list(runs)
    glances = 0
    for deltas in told:
        for count, size, wait_ms in sent[:3]:
            for packets in (at_length, at_a_glance):
                packets.add(range(size, size + count), now_ns=wait_ms * MS)
        del sent[:3]
        expected = at_length.take(feedback(number, tuple(deltas), reference=number), now_ns=50 * MS)
        seen = at_a_glance.glance(WholeFeedback(number & 0xFFFF, number, bytes(deltas)))
        if seen is None:
            assert at_a_glance.take(feedback(number, tuple(deltas), reference=number), now_ns=50 * MS) == expected
        else:
            glances += 1
            in_flight = at_a_glance.in_flight_bytes
            at_a_glance.pass_over(seen)
            assert seen.size == expected.size == in_flight - at_a_glance.in_flight_bytes
            newest = expected.arrivals[-1]
            assert (seen.arrived_ns, seen.sent_ns) == (newest.arrived_ns, newest.sent_ns)
            assert at_a_glance.look_back(seen) == expected.arrivals
            at_a_glance.let_go(seen.number, len(seen.deltas))
        assert at_a_glance.in_flight_bytes == at_length.in_flight_bytes
        assert at_a_glance._runs == at_length._runs
        assert at_a_glance._states == at_length._states
        number += expected.received
    event(f"{glances > 0}")


def test_a_glance_sees_nothing_but_what_was_to_be_told_next() -> None:
    packets = SentPackets()
    packets.add([100] * 4, now_ns=0)
    for first, count in [(1, 2), (0, 5), (0xFFFF, 2)]:
        assert packets.glance(WholeFeedback(first, 0, bytes(count))) is None
    seen = packets.glance(WholeFeedback(0, 0, bytes(2)))
    assert seen is not None
    packets.pass_over(seen)
    assert packets.glance(WholeFeedback(0, 0, bytes(2))) is None
    packets.forget()
    assert packets.glance(WholeFeedback(2, 0, bytes(2))) is None


def test_who_looks_back_too_late_sees_nothing() -> None:
    packets = SentPackets()
    packets.add([100] * 4, now_ns=0)
    seen = packets.glance(WholeFeedback(0, 0, bytes(4)))
    assert seen is not None
    packets.pass_over(seen)
    packets.add([100] * (SPAN - 4), now_ns=MS)
    assert packets.look_back(seen) != []
    packets.add([200], now_ns=MS)
    assert packets.look_back(seen) == []
    packets.let_go(seen.number, 4)
    assert packets.take(feedback(SPAN, (0,)), now_ns=MS).size == 200
