"""The pacer on a scripted clock."""

from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.congestion.pacer import (
    BURST_NS,
    CALM_FACTOR,
    FACTOR,
    Burst,
    Dropped,
    Limit,
    Pacer,
    Padding,
    Urgency,
)
from flowstream.proto.congestion.probing import Probe

MS = 1_000_000
VIDEO, AUDIO, AGAIN = Urgency.VIDEO, Urgency.AUDIO, Urgency.RETRANSMISSION


def drain(pacer: Pacer[str], *, until_ms: int, since_ms: int = 0) -> list[tuple[int, str, int, int]]:
    sent = []
    for now_ms in range(since_ms, until_ms):
        due_ns = pacer.next_ns()
        if due_ns is None or due_ns > now_ms * MS:
            continue
        bursts, dropped = pacer.poll(now_ns=now_ms * MS)
        assert dropped == []
        sent += [(now_ms, each.item, each.first, each.end) for each in bursts if isinstance(each, Burst)]
    return sent


def test_a_picture_leaves_in_bursts_of_five_milliseconds_at_the_pacing_rate() -> None:
    pacer: Pacer[str] = Pacer(now_ns=0, bps=3_200_000)  # 1.5 times that are 3000 bytes in 5 ms
    pacer.enqueue("picture", [1000] * 9, VIDEO, now_ns=0)
    assert drain(pacer, until_ms=100) == [(0, "picture", 0, 3), (5, "picture", 3, 6), (10, "picture", 6, 9)]
    assert pacer.is_empty
    assert pacer.next_ns() is None


def test_on_a_slow_path_packets_leave_one_by_one_and_far_apart() -> None:
    pacer: Pacer[str] = Pacer(now_ns=0, bps=160_000)  # 1000 bytes take 33 ms
    pacer.enqueue("picture", [1000] * 3, VIDEO, now_ns=0)
    assert [when for when, *_ in drain(pacer, until_ms=200)] == [0, 34, 68]


def test_sound_goes_first_and_never_waits_then_what_was_lost_then_pictures() -> None:
    pacer: Pacer[str] = Pacer(now_ns=0, bps=1_600_000)
    pacer.enqueue("picture", [1000] * 4, VIDEO, now_ns=0)
    pacer.enqueue("lost", [1000], AGAIN, now_ns=0)
    pacer.enqueue("sound", [200], AUDIO, now_ns=0)
    bursts, _ = pacer.poll(now_ns=0)
    assert [each.item for each in bursts if isinstance(each, Burst)] == ["sound", "lost", "picture"]
    pacer.enqueue("sound", [200], AUDIO, now_ns=1 * MS)
    bursts, _ = pacer.poll(now_ns=1 * MS)
    assert bursts == [Burst("sound", 0, 1, 0)]


def test_a_large_keyframe_is_sent_faster_but_not_more_than_three_times_the_rate() -> None:
    pacer: Pacer[str] = Pacer(now_ns=0, bps=800_000)
    pacer.enqueue("keyframe", [1000] * 60, VIDEO, now_ns=0)  # 600 ms at the rate
    sent = drain(pacer, until_ms=1000)
    assert 200 <= sent[-1][0] <= 310


def test_the_first_bytes_of_pictures_go_quickly_whatever_the_rate_is_taken_to_be() -> None:
    pacer: Pacer[str] = Pacer(now_ns=0, bps=600_000, opening=15_000)
    pacer.enqueue("keyframe", [1000] * 40, VIDEO, now_ns=0)
    sent = drain(pacer, until_ms=1000)
    opening = [each for each in sent if each[2] < 15]
    assert [(when, end - first) for when, _, first, end in opening] == [(0, 13), (6, 2)], "5 ms of 20 Mbit/s"
    assert sent[-1][0] > 80, "then as ever"
    before_ms = sent[-1][0]
    pacer.enqueue("another", [1000] * 10, VIDEO, now_ns=before_ms * MS)
    assert drain(pacer, since_ms=before_ms, until_ms=2000)[-1][0] - before_ms > 30


def test_what_waits_too_long_is_dropped_and_told_up_to_the_next_keyframe() -> None:
    pacer: Pacer[str] = Pacer(now_ns=0, bps=80_000)
    pacer.enqueue("first", [1000] * 2, VIDEO, now_ns=0)
    pacer.enqueue("second", [1000], VIDEO, now_ns=0)
    pacer.poll(now_ns=0)
    _, dropped = pacer.poll(now_ns=700 * MS)
    assert dropped == [Dropped("second", 0, VIDEO, "late", True)]
    refused = pacer.enqueue("third", [1000], VIDEO, now_ns=700 * MS)
    assert refused == [Dropped("third", 0, VIDEO, "full", True)]
    assert pacer.enqueue("keyframe", [1000], VIDEO, now_ns=700 * MS, is_keyframe=True) == []
    assert pacer.enqueue("fourth", [1000], VIDEO, now_ns=700 * MS) == []


def test_pictures_on_which_nothing_depends_are_dropped_first_and_alone() -> None:
    pacer: Pacer[str] = Pacer(now_ns=0, bps=80_000, limits={**_limits(), VIDEO: Limit(10_000 * MS, 3000)})
    pacer.enqueue("base", [1000], VIDEO, now_ns=0)
    pacer.enqueue("between", [1000], VIDEO, now_ns=0, is_droppable=True)
    pacer.enqueue("base", [1000], VIDEO, now_ns=0)
    dropped = pacer.enqueue("newest", [1000], VIDEO, now_ns=0)
    assert dropped == [Dropped("between", 0, VIDEO, "full", False)]
    assert pacer.enqueue("one more", [1000], VIDEO, now_ns=0, is_droppable=True)[-1].breaks is False
    assert pacer.waiting_bytes == 3000


def test_a_picture_that_is_sent_in_part_is_finished() -> None:
    pacer: Pacer[str] = Pacer(now_ns=0, bps=80_000)
    pacer.enqueue("begun", [1000] * 3, VIDEO, now_ns=0, is_droppable=True)
    pacer.poll(now_ns=0)
    bursts, dropped = pacer.poll(now_ns=1000 * MS)
    assert dropped == []
    assert bursts == [Burst("begun", 1, 2, 0)]
    assert pacer.poll(now_ns=2001 * MS)[1] == [Dropped("begun", 2, VIDEO, "late", True)]


def test_old_sound_and_old_retransmissions_go_one_by_one() -> None:
    pacer: Pacer[str] = Pacer(now_ns=0, bps=80_000)
    pacer.enqueue("old", [100], AGAIN, now_ns=0)
    pacer.enqueue("sound", [100], AUDIO, now_ns=0)
    pacer.enqueue("new", [100], AGAIN, now_ns=250 * MS)
    bursts, dropped = pacer.poll(now_ns=310 * MS)
    assert [(each.item, each.cause, each.breaks) for each in dropped] == [
        ("sound", "late", False),
        ("old", "late", False),
    ]
    assert [each.item for each in bursts if isinstance(each, Burst)] == ["new"]
    full: Pacer[str] = Pacer(now_ns=0, bps=80_000, limits={**_limits(), AGAIN: Limit(1000 * MS, 250)})
    for name in ("a", "b", "c"):
        dropped = full.enqueue(name, [100], AGAIN, now_ns=0)
    assert [each.item for each in dropped] == ["a"]


def test_a_probe_is_sent_at_its_rate_media_first_then_padding() -> None:
    pacer: Pacer[str] = Pacer(now_ns=0, bps=1_000_000)
    pacer.enqueue("picture", [1000] * 2, VIDEO, now_ns=0)
    pacer.start_probe(Probe(3, 8_000_000, 15_000))
    media = padding = 0
    times = []
    for now_ms in range(100):
        due_ns = pacer.next_ns()
        if due_ns is None or due_ns > now_ms * MS:
            continue
        times.append(now_ms)
        for each in pacer.poll(now_ns=now_ms * MS)[0]:
            assert each.probe == 3
            if isinstance(each, Padding):
                padding += each.size
            else:
                media += 1000 * (each.end - each.first)
    assert (media, padding) == (2000, 13_000)
    assert times == [0, 5, 10]
    assert pacer.is_empty


def test_a_slow_probe_is_padded_by_whole_packets_at_its_rate() -> None:
    pacer: Pacer[str] = Pacer(now_ns=0, bps=150_000)
    pacer.start_probe(Probe(1, 256_000, 5000))  # 1280 bytes take 40 ms
    padding: list[tuple[int, int]] = []
    for now_ms in range(300):
        due_ns = pacer.next_ns()
        if due_ns is not None and due_ns <= now_ms * MS:
            bursts, _ = pacer.poll(now_ns=now_ms * MS)
            padding += [(now_ms, each.size) for each in bursts if isinstance(each, Padding)]
    assert [size for _, size in padding] == [1280, 1280, 1280, 1160]
    assert all(at_ms >= 40 * index - 6 for index, (at_ms, _) in enumerate(padding))
    assert pacer.is_empty


def test_nothing_is_left_after_clearing_and_a_keyframe_begins_anew() -> None:
    pacer: Pacer[str] = Pacer(now_ns=0, bps=80_000)
    pacer.enqueue("picture", [1000], VIDEO, now_ns=0)
    pacer.start_probe(Probe(1, 100_000, 1000))
    assert [each.item for each in pacer.clear()] == ["picture"]
    assert pacer.is_empty
    assert pacer.enqueue("next", [1000], VIDEO, now_ns=0)[0].breaks
    assert pacer.enqueue("keyframe", [1000], VIDEO, now_ns=0, is_keyframe=True) == []


def _limits() -> dict[Urgency, Limit]:
    return dict.fromkeys(Urgency, Limit(10_000 * MS, 1_000_000))


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("give"),
            st.sampled_from(Urgency),
            st.lists(st.integers(50, 1400), max_size=12),
            st.booleans(),
            st.booleans(),
        ),
        st.tuples(st.just("wait"), st.integers(0, 400)),
        st.tuples(st.just("probe"), st.integers(50_000, 5_000_000), st.integers(1, 20_000)),
        st.tuples(st.just("rate"), st.integers(50_000, 5_000_000)),
    ),
    max_size=60,
)


@given(STEPS)
def test_every_byte_is_sent_in_order_or_told_to_be_dropped(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    limits = {each: Limit(300 * MS, 20_000) for each in Urgency}
    pacer: Pacer[int] = Pacer(now_ns=0, bps=500_000, limits=limits)
    sizes: dict[int, tuple[Urgency, list[int]]] = {}
    next_packet: dict[int, int] = {}
    dropped: dict[int, Dropped[int]] = {}
    now_ns = paid_ns = number = 0
    is_broken = False
    newest_sent = dict.fromkeys(Urgency, -1)

    def note(told: list[Dropped[int]]) -> None:
        nonlocal is_broken
        for each in told:
            assert each.item not in dropped
            assert each.first == next_packet[each.item]
            dropped[each.item] = each
            is_broken = is_broken or each.breaks

    for step in steps:
        if step[0] == "give":
            _, urgency, packets, is_droppable, is_keyframe = step
            sizes[number], next_packet[number] = (urgency, packets), 0
            was_broken = is_broken
            told = pacer.enqueue(
                number, packets, urgency, now_ns=now_ns, is_droppable=is_droppable, is_keyframe=is_keyframe
            )
            if urgency == VIDEO and is_keyframe:
                is_broken = False
            note(told)
            if urgency == VIDEO and was_broken and not is_keyframe:
                assert number in dropped, "nothing follows a gap but a keyframe"
            number += 1
        elif step[0] == "wait":
            now_ns += step[1] * MS
        elif step[0] == "rate":
            pacer.bps = step[1]
        else:
            pacer.start_probe(Probe(1, step[1], step[2]))
        due_ns = pacer.next_ns()
        if due_ns is not None and due_ns <= now_ns:
            bursts, told = pacer.poll(now_ns=now_ns)
            note(told)
            for each in bursts:
                if isinstance(each, Burst):
                    urgency = sizes[each.item][0]
                    assert each.first == next_packet[each.item] < each.end
                    assert each.item >= newest_sent[urgency]
                    assert each.item not in dropped
                    newest_sent[urgency] = each.item
                    next_packet[each.item] = each.end
            paid_ns += 1
        waiting = sum(sum(packets[next_packet[item] :]) for item, (_, packets) in sizes.items() if item not in dropped)
        assert pacer.waiting_bytes == waiting
        assert waiting <= 60_000


@given(rate=st.integers(100_000, 20_000_000), pictures=st.lists(st.integers(1, 12), min_size=2, max_size=30))
def test_no_burst_is_larger_than_what_five_milliseconds_carry(rate: int, pictures: list[int]) -> None:
    pacer: Pacer[int] = Pacer(now_ns=0, bps=rate)
    for index, count in enumerate(pictures):
        now_ns = index * 33 * MS
        pacer.enqueue(index, [1200] * count, VIDEO, now_ns=now_ns)
        for at_ns in range(now_ns, now_ns + 33 * MS, MS):
            due_ns = pacer.next_ns()
            if due_ns is None or due_ns > at_ns:
                continue
            is_late = pacer.waits_ns(VIDEO, now_ns=at_ns) > 33 * MS or pacer.waiting_bytes * 8e9 > rate * 250 * MS
            most = rate * (3 if is_late else FACTOR)
            bursts, _ = pacer.poll(now_ns=at_ns)
            size = sum(1200 * (each.end - each.first) for each in bursts if isinstance(each, Burst))
            assert size <= most * BURST_NS / 8e9 + 1200


@given(
    rate=st.integers(50_000, 30_000_000),
    pictures=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 1200)), min_size=1, max_size=20),
    gap_ms=st.integers(0, 50),
)
def test_what_passes_at_once_would_have_left_at_once_and_counts_as_much(
    rate: int, pictures: list[tuple[int, int]], gap_ms: int
) -> None:
    short: Pacer[int] = Pacer(now_ns=0, bps=rate)
    long: Pacer[int] = Pacer(now_ns=0, bps=rate)
    for index, (count, last) in enumerate(pictures):
        now_ns = index * gap_ms * MS
        sizes = [1200] * (count - 1) + [last]
        passes = short.passes(sum(sizes), last, now_ns=now_ns)
        long.enqueue(index, sizes, VIDEO, now_ns=now_ns)
        bursts, _ = long.poll(now_ns=now_ns)
        if not passes:
            break
        assert short.is_empty
        assert bursts == [Burst(index, 0, count, 0)]
        assert long.is_empty


@given(
    rates=st.lists(st.tuples(st.integers(50_000, 30_000_000), st.booleans()), min_size=1, max_size=5),
    before=st.lists(st.integers(1, 20_000), max_size=5),
    pictures=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 1200)), min_size=1, max_size=20),
    gap_ms=st.integers(0, 50),
)
def test_what_passes_by_the_slowest_passes_by_all_and_counts_as_much(
    rates: list[tuple[int, bool]], before: list[int], pictures: list[tuple[int, int]], gap_ms: int
) -> None:
    pacers, told = ([Pacer[int](now_ns=0, bps=bps) for bps, _ in rates] for _ in range(2))
    for pacer, other, (_, is_calm) in zip(pacers, told, rates, strict=True):
        pacer.is_calm = other.is_calm = is_calm
        for size in before:
            pacer.passed(size, now_ns=0)
            other.passed(size, now_ns=0)
    slowest = Pacer.slowest(pacers)
    for index, (count, last) in enumerate(pictures):
        now_ns, size = index * gap_ms * MS, 1200 * (count - 1) + last
        if slowest.passes(size, last, now_ns=now_ns):
            assert False not in [pacer.passes(size, last, now_ns=now_ns) for pacer in pacers]
            for other in told:
                other.passed(size, now_ns=now_ns)
    assert [pacer._free_ns for pacer in pacers] == [other._free_ns for other in told]


def test_where_the_path_carries_far_more_a_picture_of_one_burst_may_be_larger() -> None:
    pacer: Pacer[str] = Pacer(now_ns=0, bps=10**7)
    fits = int(BURST_NS * FACTOR * 10**7 / 8e9)
    assert pacer.carries(fits)
    assert not pacer.carries(fits + 1)
    assert not pacer.passes(fits + 2000, 1000, now_ns=0)
    pacer.is_calm = True
    assert pacer.carries(int(BURST_NS * CALM_FACTOR * 10**7 / 8e9))
    assert pacer.passes(fits + 2000, 1000, now_ns=0)


def test_nothing_passes_what_waits_a_probe_or_a_missing_keyframe() -> None:
    pacer: Pacer[str] = Pacer(now_ns=0, bps=10**7)
    assert pacer.passes(1200, 1200, now_ns=0)
    pacer.enqueue("large", [1200] * 30, VIDEO, now_ns=0)
    assert not pacer.passes(100, 100, now_ns=0)
    pacer.clear()
    assert not pacer.passes(100, 100, now_ns=100 * MS)
    pacer.enqueue("keyframe", [100], VIDEO, now_ns=100 * MS, is_keyframe=True)
    assert pacer.poll(now_ns=100 * MS) == ([Burst("keyframe", 0, 1, 0)], [])
    assert pacer.passes(100, 100, now_ns=200 * MS)
    pacer.start_probe(Probe(1, 10**7, 5000))
    assert not pacer.passes(100, 100, now_ns=300 * MS)
    assert not Pacer(now_ns=0, bps=10**7, opening=1).passes(100, 100, now_ns=0)
