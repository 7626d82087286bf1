"""Who gets which rung: patience on one link, and fairness on the shared uplink."""

from itertools import pairwise, product

from hypothesis import given, settings
from hypothesis import strategies as st

from flowstream.proto.allocator import (
    MOST_PATIENCE_NS,
    SETTLES_NS,
    SLACK,
    Allocator,
    Choice,
    Demand,
    Rung,
)

MS = 1_000_000
S = 1000 * MS
LADDER = [Rung("high", 2_500_000), Rung("low", 300_000), Rung("mid", 1_000_000)]


def play(
    allocator: Allocator, demands: list[Demand], *, since_s: float, seconds: float, rungs: list[Rung] = LADDER
) -> dict[str, list[tuple[float, str | None]]]:
    """Decides every 100 ms; gives for each viewer when it got another rung."""
    changes: dict[str, list[tuple[float, str | None]]] = {demand.viewer: [] for demand in demands}
    for tick in range(round(seconds * 10)):
        now_s = since_s + tick / 10
        for viewer, choice in allocator.decide(rungs, demands, now_ns=round(now_s * S)).items():
            seen = changes[viewer]
            if not seen or seen[-1][1] != choice.rung:
                seen.append((now_s, choice.rung))
    return changes


def test_a_viewer_begins_with_what_its_link_carries_and_rises_after_two_seconds() -> None:
    allocator = Allocator()
    assert play(allocator, [Demand("a", 1_200_000)], since_s=0, seconds=5)["a"] == [(0, "mid")]
    assert play(allocator, [Demand("a", 2_600_000)], since_s=5, seconds=5)["a"] == [(5, "mid")], "not 15 % more"
    assert play(allocator, [Demand("a", 3_000_000)], since_s=10, seconds=5)["a"] == [(10, "mid"), (12, "high")]


def test_nothing_known_is_the_lowest_rung_and_what_was_known_stays() -> None:
    allocator = Allocator()
    assert allocator.decide(LADDER, [Demand("a")], now_ns=0)["a"] == Choice("low", "unknown", "low", "mid")
    play(allocator, [Demand("a", 5_000_000)], since_s=0, seconds=3)
    assert allocator.decide(LADDER, [Demand("a")], now_ns=4 * S)["a"].rung == "high"


def test_it_falls_at_once_when_far_too_much_is_sent_and_after_a_second_else() -> None:
    allocator = Allocator()
    play(allocator, [Demand("a", 5_000_000)], since_s=0, seconds=1)
    assert play(allocator, [Demand("a", 2_300_000)], since_s=1, seconds=2)["a"] == [(1, "high"), (2, "mid")]
    assert play(allocator, [Demand("a", 600_000)], since_s=3, seconds=1)["a"] == [(3, "low")]


def test_a_short_dip_changes_nothing() -> None:
    allocator = Allocator()
    play(allocator, [Demand("a", 5_000_000)], since_s=0, seconds=1)
    play(allocator, [Demand("a", 2_300_000)], since_s=1, seconds=0.9)
    assert play(allocator, [Demand("a", 2_600_000)], since_s=1.9, seconds=5)["a"] == [(1.9, "high")]


def test_a_picture_is_paused_when_even_the_lowest_rung_is_not_carried_and_comes_back() -> None:
    allocator = Allocator()
    play(allocator, [Demand("a", 5_000_000)], since_s=0, seconds=1)
    changes = play(allocator, [Demand("a", 100_000)], since_s=1, seconds=5)["a"]
    assert changes == [(1, "low"), (3, None)]
    assert allocator.decide(LADDER, [Demand("a", 100_000)], now_ns=6 * S)["a"] == Choice(None, "link", None, "low")
    assert play(allocator, [Demand("a", 400_000)], since_s=6, seconds=5)["a"] == [(6, None), (6.5, "low")]


def test_a_picture_that_comes_again_begins_low_and_rises_with_patience() -> None:
    allocator = Allocator()
    play(allocator, [Demand("a", 100_000)], since_s=0, seconds=5)
    changes = play(allocator, [Demand("a", 5_000_000)], since_s=5, seconds=5)["a"]
    assert changes == [(5, None), (5.5, "low"), (7.6, "high")]


def test_the_lowest_rung_stays_where_the_link_almost_carries_it_or_others_take_what_there_is() -> None:
    allocator = Allocator()
    play(allocator, [Demand("a", 5_000_000)], since_s=0, seconds=1)
    assert play(allocator, [Demand("a", 250_000)], since_s=1, seconds=5)["a"] == [(1, "low")]
    for tick in range(50):
        choices = allocator.decide(LADDER, [Demand("a", 50_000)], now_ns=(60 + tick) * S // 10, is_tight=True)
        assert choices["a"].rung == "low"


def test_rises_that_do_not_last_make_it_wait_longer_each_time() -> None:
    allocator = Allocator()
    demand = Demand("a", 1_200_000)
    play(allocator, [demand], since_s=0, seconds=1)
    now_s, waits = 1.0, []
    for _ in range(8):
        began_s = now_s
        while allocator.decide(LADDER, [Demand("a", 3_000_000)], now_ns=round(now_s * S))["a"].rung != "high":
            now_s += 0.1
        waits.append(now_s - began_s)
        allocator.decide(LADDER, [demand], now_ns=round((now_s + 0.5) * S))
        now_s += 0.6
    assert all(later >= earlier - 0.15 for earlier, later in pairwise(waits))
    assert MOST_PATIENCE_NS / S - 1 <= waits[-1] <= MOST_PATIENCE_NS / S + 1
    # One that lasted makes up for all.
    play(allocator, [Demand("a", 3_000_000)], since_s=now_s, seconds=80)
    allocator.decide(LADDER, [demand], now_ns=round((now_s + 81) * S))
    assert play(allocator, [Demand("a", 3_000_000)], since_s=now_s + 82, seconds=4)["a"][-1][0] < now_s + 85


def test_cap_choice_codec_and_pause_bound_what_the_link_carries() -> None:
    demands = [
        Demand("best", 9_000_000),
        Demand("capped", 9_000_000, cap_bps=1_500_000),
        Demand("capped low", 9_000_000, cap_bps=100_000),
        Demand("chose", 9_000_000, chosen="mid"),
        Demand("chose best", 9_000_000, chosen="high"),
        Demand("chose too much", 400_000, chosen="high"),
        Demand("paused", 9_000_000, is_paused=True),
        Demand("other codec", 9_000_000, playable=frozenset()),
        Demand("some", 9_000_000, playable=frozenset({"low", "mid"})),
    ]
    choices = Allocator().decide(LADDER, demands, now_ns=0)
    assert {name: (choice.rung, choice.reason) for name, choice in choices.items()} == {
        "best": ("high", "best"),
        "capped": ("mid", "cap"),
        "capped low": ("low", "cap"),
        "chose": ("mid", "choice"),
        "chose best": ("high", "best"),
        "chose too much": ("low", "link"),
        "paused": (None, "paused"),
        "other codec": (None, "codec"),
        "some": ("mid", "best"),
    }
    assert choices["paused"].why() == "no picture is sent: the viewer is paused"
    assert all(choice.why() for choice in choices.values())


def test_a_rung_that_is_gone_is_replaced_at_once() -> None:
    allocator = Allocator()
    play(allocator, [Demand("a", 3_000_000)], since_s=0, seconds=1)
    choice = allocator.decide(LADDER[1:], [Demand("a", 3_000_000)], now_ns=2 * S)["a"]
    assert (choice.rung, choice.reason) == ("mid", "best")


def test_the_uplink_is_shared_and_named() -> None:
    allocator = Allocator(uplink_bps=4_000_000)
    demands = [Demand(name, 9_000_000) for name in "abcd"]
    choices = allocator.decide(LADDER, demands, now_ns=0)
    assert [choice.rung for choice in choices.values()] == ["mid", "mid", "mid", "low"]
    assert {choice.reason for choice in choices.values()} == {"uplink"}
    assert choices["d"].why(uplink_bps=4_000_000) == "low is sent: the uplink of 4 Mbit/s has no more for this viewer"


def test_priority_decides_who_gets_more_and_who_gets_none() -> None:
    demands = [Demand("guest", 9_000_000), Demand("host", 9_000_000, priority=1)]
    assert _rungs(Allocator(uplink_bps=3_000_000), demands) == {"guest": "low", "host": "high"}
    assert _rungs(Allocator(uplink_bps=500_000), demands) == {"guest": None, "host": "low"}


def test_who_joins_gets_the_lowest_rung_from_those_who_have_more() -> None:
    allocator = Allocator(uplink_bps=2_900_000)
    assert _rungs(allocator, [Demand("a", 9_000_000)]) == {"a": "high"}
    demands = [Demand("a", 9_000_000), Demand("b", 9_000_000)]
    assert _rungs(allocator, demands, now_ns=S) == {"a": "mid", "b": "mid"}
    demands.append(Demand("c", 9_000_000))
    assert _rungs(allocator, demands, now_ns=2 * S) == {"a": "mid", "b": "mid", "c": "low"}
    # Who leaves makes room, but not before things have settled.
    assert _rungs(allocator, demands[:1], now_ns=3 * S) == {"a": "mid"}
    assert _rungs(allocator, demands[:1], now_ns=7 * S) == {"a": "high"}


def test_rates_that_waver_around_the_uplink_do_not_make_viewers_jump() -> None:
    allocator = Allocator(uplink_bps=2_100_000)
    demands = [Demand("a", 9_000_000), Demand("b", 9_000_000)]
    changes = 0
    before: dict[str, str | None] = {}
    for tick in range(600):
        mid = 1_000_000 + (60_000 if tick % 7 < 3 else -20_000)
        rungs = _rungs(allocator, demands, now_ns=tick * 100 * MS, ladder=[Rung("low", 300_000), Rung("mid", mid)])
        changes += sum(before.get(name) != rung for name, rung in rungs.items())
        before = rungs
    assert changes <= 2 + 60 * 2 * S / SETTLES_NS


def _rungs(
    allocator: Allocator, demands: list[Demand], *, now_ns: int = 0, ladder: list[Rung] = LADDER
) -> dict[str, str | None]:
    return {name: choice.rung for name, choice in allocator.decide(ladder, demands, now_ns=now_ns).items()}


RATES = st.lists(st.integers(100_000, 5_000_000), min_size=1, max_size=4, unique=True)


@settings(max_examples=200)
@given(
    rates=RATES,
    links=st.lists(st.integers(50_000, 6_000_000), min_size=1, max_size=4),
    uplink_bps=st.integers(100_000, 20_000_000),
)
def test_no_other_division_is_fairer(rates: list[int], links: list[int], uplink_bps: int) -> None:
    """Against all divisions: none leaves more viewers with a picture, and of those none gives the least more."""
    ladder = [Rung(f"r{rate}", rate) for rate in sorted(rates)]
    demands = [Demand(str(index), link) for index, link in enumerate(links)]
    choices = Allocator(uplink_bps=uplink_bps).decide(ladder, demands, now_ns=0)
    names = [rung.name for rung in ladder]
    levels = [-1 if choice.rung is None else names.index(choice.rung) for choice in choices.values()]
    limits = [
        max([index for index, rung in enumerate(ladder) if rung.bitrate_bps <= link], default=0) for link in links
    ]

    def cost(division: tuple[int, ...] | list[int]) -> int:
        return sum(ladder[level].bitrate_bps for level in division if level >= 0)

    room = (1 - SLACK) * uplink_bps
    possible = [division for division in product(*(range(-1, limit + 1) for limit in limits)) if cost(division) <= room]
    assert cost(levels) <= room
    assert all(level <= limit for level, limit in zip(levels, limits, strict=True))
    most = max(sum(level >= 0 for level in division) for division in possible)
    assert sum(level >= 0 for level in levels) == most
    fairest = max(min(division) for division in possible if sum(level >= 0 for level in division) == most)
    assert min(levels) == fairest
    # Nothing is left with which somebody could get one rung more.
    for index, level in enumerate(levels):
        if level < limits[index]:
            assert cost([*levels[:index], level + 1, *levels[index + 1 :]]) > room


VIEWERS = st.builds(
    Demand,
    viewer=st.sampled_from("abcdef"),
    bandwidth_bps=st.none() | st.integers(1, 6_000_000),
    priority=st.integers(0, 2),
    cap_bps=st.none() | st.integers(1, 6_000_000),
    playable=st.none() | st.sets(st.sampled_from(["low", "mid", "high"])).map(frozenset),
    chosen=st.none() | st.sampled_from(["low", "mid", "high", "gone"]),
    is_paused=st.booleans(),
)


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 5000),
            st.lists(VIEWERS, max_size=6, unique_by=lambda demand: demand.viewer),
            st.sets(st.sampled_from(LADDER)),
            st.none() | st.integers(1, 12_000_000),
        ),
        max_size=25,
    )
)
def test_whatever_happens_bounds_hold_and_nobody_starves(
    steps: list[tuple[int, list[Demand], set[Rung], int | None]],
) -> None:
    allocator = Allocator()
    now_ns = 0
    for wait_ms, demands, rungs, uplink_bps in steps:
        now_ns += wait_ms * MS
        allocator.uplink_bps = uplink_bps
        choices = allocator.decide(list(rungs), demands, now_ns=now_ns)
        assert list(choices) == [demand.viewer for demand in demands]
        rates = {rung.name: rung.bitrate_bps for rung in rungs}
        total = sum(rates[choice.rung] for choice in choices.values() if choice.rung is not None)
        assert uplink_bps is None or total <= uplink_bps
        has_more = False
        for demand in demands:
            choice = choices[demand.viewer]
            assert choice.why()
            mine = [name for name in rates if demand.playable is None or name in demand.playable]
            if choice.rung is None:
                continue
            assert choice.rung in mine
            assert not demand.is_paused
            lowest = min(mine, key=lambda name: rates[name])
            has_more = has_more or choice.rung != lowest
            if demand.cap_bps is not None:
                assert rates[choice.rung] <= max(demand.cap_bps, rates[lowest])
        for demand in demands:
            choice = choices[demand.viewer]
            if choice.rung is None and choice.reason == "uplink":
                mine = [rates[name] for name in rates if demand.playable is None or name in demand.playable]
                used = sum(
                    min(rates[name] for name in rates if other.playable is None or name in other.playable)
                    for other in demands
                    if choices[other.viewer].rung is not None
                )
                assert uplink_bps is not None
                assert used + min(mine) > (1 - SLACK) * uplink_bps, "others had more than the lowest rung meanwhile"
