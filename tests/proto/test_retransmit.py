"""The sender's history on a scripted clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.retransmit import History, SentPacket, wrap

MS = 1_000_000


def packet(number: int) -> SentPacket:
    return SentPacket(sequence_number=number & 0xFFFF, timestamp=3000 * number, marker=False, payload=b"p%d" % number)


def test_a_packet_can_be_sent_again_at_once_and_then_after_a_round_trip() -> None:
    history = History()
    history.store(packet(7), now_ns=0)
    assert history.take(7, now_ns=1) == packet(7)
    assert history.take(7, now_ns=9 * MS, round_trip_ns=0) is None
    assert history.take(7, now_ns=49 * MS, round_trip_ns=50 * MS) is None
    assert history.take(7, now_ns=51 * MS, round_trip_ns=50 * MS) == packet(7)
    assert history.take(8, now_ns=51 * MS) is None


def test_a_run_of_packets_is_kept_at_once() -> None:
    history = History(max_packets=4)
    history.store_runs(0xFFFE, [(0, 90, (b"a", b"b", b"c"), True)])
    assert history.take(0xFFFF, now_ns=0) == SentPacket(0xFFFF, 90, False, b"b")
    assert history.take(0, now_ns=0) == SentPacket(0, 90, True, b"c")
    history.store_runs(1, [(0, 93, (b"d", b"e"), False)])
    assert history.take(0xFFFE, now_ns=0) is None, "the oldest is one too many"
    assert history.take(2, now_ns=0) == SentPacket(2, 93, False, b"e")
    history.store_runs(3, [(0, 96, (), True)])
    assert len(history) == 4


def test_runs_of_several_pictures_are_kept_at_once_with_the_timestamps_of_their_stream() -> None:
    one, many = (History(max_packets=5, timestamp_offset=0xFFFFFFFF) for _ in range(2))
    runs = [(0, 3, (b"a", b"b"), True), (MS, 6, (), True), (2 * MS, 9, (b"c", b"d", b"e", b"f"), False)]
    many.store_runs(0xFFFF, runs)
    number = 0xFFFF
    for run in runs:
        one.store_runs(number & 0xFFFF, [run])
        number += len(run[2])
    for history in (one, many):
        assert len(history) == 5
        assert history.take(0xFFFF, now_ns=2 * MS) is None, "the oldest is one too many"
        assert history.take(0, now_ns=2 * MS) == SentPacket(0, 2, True, b"b")
        assert history.take(4, now_ns=2 * MS) == SentPacket(4, 8, False, b"f")
    one.store(SentPacket(5, 100, True, b"g"), now_ns=2 * MS)
    assert one.take(5, now_ns=2 * MS) == SentPacket(5, 100, True, b"g")


def test_the_newest_packets_pad_probes_and_cost_no_credit() -> None:
    history = History(burst=1)
    assert history.newest(1000) == []
    history.store_runs(7, [(0, 90, (b"x" * 1000, b"y" * 1000), True)])
    assert [each.sequence_number for each in history.newest(2000)] == [8, 7]
    assert [each.sequence_number for each in history.newest(1999)] == [8]
    assert [each.sequence_number for each in history.newest(2100, overhead=51)] == [8]
    assert history.newest(999) == []
    assert len(history.newest(1_000_000)) == 2
    assert history.take(7, now_ns=0) is not None


def test_old_packets_are_forgotten_by_time() -> None:
    history = History(max_age_ns=1000 * MS)
    history.store(packet(1), now_ns=0)
    history.store(packet(2), now_ns=600 * MS)
    assert history.take(1, now_ns=1001 * MS) is None
    assert history.take(2, now_ns=1001 * MS) == packet(2)
    assert len(history) == 1


def test_old_packets_are_forgotten_by_count() -> None:
    history = History(max_packets=3)
    for number in range(5):
        history.store(packet(number), now_ns=0)
    assert [history.take(number, now_ns=0) is not None for number in range(5)] == [False, False, True, True, True]


def test_requests_cannot_make_a_flood() -> None:
    history = History(burst=10)
    for number in range(100):
        history.store(packet(number), now_ns=0)
    sent = sum(
        history.take(number, now_ns=now) is not None for now in range(0, 900 * MS, 20 * MS) for number in range(100)
    )
    assert sent == 10
    for number in range(100, 110):
        history.store(packet(number), now_ns=900 * MS)
    sent = sum(history.take(number, now_ns=901 * MS) is not None for number in range(100, 110))
    assert sent == 5


def test_a_history_has_a_sensible_size() -> None:
    with pytest.raises(ValueError, match="0 packets"):
        History(max_packets=0)


def test_a_wrapped_packet_begins_with_its_number() -> None:
    assert wrap(packet(0x1234)) == b"\x12\x34p4660"


@given(
    steps=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 300 * MS), st.integers(0, 60)), max_size=120),
    max_packets=st.integers(1, 40),
    first=st.integers(0, 0xFFFF),
)
def test_runs_give_back_what_single_packets_do(steps: list[tuple[int, int, int]], max_packets: int, first: int) -> None:
    whole, single = History(max_packets=max_packets, burst=50), History(max_packets=max_packets, burst=50)
    now_ns, number = 0, first
    for count, wait_ns, back in steps:
        now_ns += wait_ns
        payloads = [b"p%d" % (number + index) for index in range(count)]
        whole.store_runs(number & 0xFFFF, [(now_ns, number, payloads, True)])
        for index, payload in enumerate(payloads):
            last = index == count - 1
            single.store(SentPacket((number + index) & 0xFFFF, number, last, payload), now_ns=now_ns)
        number += count
        wanted = (number - back) & 0xFFFF
        assert whole.take(wanted, now_ns=now_ns) == single.take(wanted, now_ns=now_ns)
        assert len(whole) == len(single) <= max_packets


@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 300 * MS), st.integers(0, 40)), max_size=80),
    max_packets=st.integers(1, 20),
)
def test_it_gives_back_what_was_stored_and_stays_within_bounds(
    steps: list[tuple[bool, int, int]], max_packets: int
) -> None:
    history = History(max_packets=max_packets)
    now_ns, number = 0, 0
    stored: dict[int, int] = {}
    for is_store, wait_ns, back in steps:
        now_ns += wait_ns
        if is_store:
            history.store(packet(number), now_ns=now_ns)
            stored[number] = now_ns
            number += 1
        else:
            wanted = number - back
            found = history.take(wanted & 0xFFFF, now_ns=now_ns)
            if found is not None:
                assert found == packet(wanted)
                assert now_ns - stored[wanted] <= 1000 * MS
                assert number - wanted <= max_packets
        assert len(history) <= max_packets
