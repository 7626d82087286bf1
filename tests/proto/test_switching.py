"""Changing rungs and leaving out layers: whatever comes, what goes out can be decoded."""

import random
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from flowstream.proto.switching import LAYERS, Picture, RungSwitch


def key(rung: str, number: int, ticks: int | None = None) -> Picture:
    return Picture(rung, number, 3000 * number if ticks is None else ticks, is_keyframe=True)


def delta(rung: str, number: int, layer: int = 0, **what: bool) -> Picture:
    return Picture(rung, number, 3000 * number, temporal_id=layer, **what)


def test_it_begins_with_a_keyframe_and_changes_at_one() -> None:
    switch = RungSwitch(wanted="low")
    assert switch.needs_keyframe == "low"
    assert switch.offer(delta("low", 0)) is None
    assert switch.offer(key("high", 0)) is None
    assert switch.offer(key("low", 1)) == 3000
    assert (switch.current, switch.needs_keyframe) == ("low", None)
    switch.want("high")
    assert switch.needs_keyframe == "high"
    assert switch.offer(delta("high", 2)) is None
    assert switch.offer(delta("low", 2)) == 6000
    assert switch.offer(key("high", 3)) == 9000
    assert switch.offer(delta("low", 3)) is None
    assert (switch.current, switch.needs_keyframe, switch.switches) == ("high", None, 1)


def test_a_rung_that_lags_comes_right_after_the_last_picture() -> None:
    switch = RungSwitch(wanted="low")
    assert switch.offer(key("low", 5)) == 15_000
    switch.want("high")
    assert switch.offer(key("high", 3)) == 15_001
    assert switch.offer(delta("high", 4)) == 15_002
    assert switch.offer(delta("high", 6)) is None, "number 5 was lost"
    assert switch.offer(key("high", 7)) == 21_000


def test_who_takes_all_of_a_rung_can_be_told_later() -> None:
    told, offered = RungSwitch(wanted="low"), RungSwitch(wanted="low")
    for switch in (told, offered):
        assert not switch.is_next("low", 5, after_ticks=-1)
        switch.offer(key("low", 4))
        assert switch.is_next("low", 5, after_ticks=12_000)
        assert not switch.is_next("low", 5, after_ticks=11_999), "it might have to come right after the last one"
        assert not switch.is_next("low", 6, after_ticks=12_000)
        assert not switch.is_next("high", 5, after_ticks=12_000)
    told.passed(delta("low", 7), count=3)
    for number in (5, 6, 7):
        offered.offer(delta("low", number))
    assert vars(told) == vars(offered)
    told.offer(delta("low", 9))
    assert not told.is_next("low", 10, after_ticks=27_000), "it misses one"


def test_nothing_goes_out_while_nothing_is_wanted() -> None:
    switch = RungSwitch(wanted="low")
    switch.offer(key("low", 0))
    switch.want(None)
    assert switch.offer(key("low", 1)) is None
    assert (switch.current, switch.needs_keyframe) == (None, None)
    switch.want("low")
    assert switch.offer(delta("low", 2)) is None
    assert switch.offer(key("low", 3)) == 9000
    assert switch.switches == 0


def test_who_goes_back_before_the_change_just_goes_on() -> None:
    switch = RungSwitch(wanted="low")
    switch.offer(key("low", 0))
    switch.want("high")
    switch.want("low")
    assert switch.needs_keyframe is None
    assert switch.offer(delta("low", 1)) == 3000


def test_layers_are_left_out_and_come_back_where_they_may() -> None:
    switch = RungSwitch(wanted="a")
    switch.offer(key("a", 0))
    assert switch.offer(delta("a", 1, 2)) is not None
    switch.most_temporal_id = 0
    assert switch.offer(delta("a", 2, 1)) is None
    assert switch.offer(delta("a", 3, 0)) is not None
    switch.most_temporal_id = LAYERS - 1
    assert switch.offer(delta("a", 4, 1)) is None, "it may need number 2"
    assert switch.offer(delta("a", 5, 2, is_switch_up=True)) is None, "it may need number 4"
    assert switch.offer(delta("a", 6, 1, is_switch_up=True)) is not None
    assert switch.offer(delta("a", 7, 2, is_switch_up=True)) is not None
    assert switch.offer(delta("a", 8, 1)) is not None
    assert switch.needs_keyframe is None


def test_what_nobody_needs_may_be_missing() -> None:
    switch = RungSwitch(wanted="a", most_temporal_id=0)
    switch.offer(key("a", 0))
    assert switch.offer(delta("a", 1, 1, is_droppable=True)) is None
    switch.most_temporal_id = 1
    assert switch.offer(delta("a", 2, 1, is_droppable=True)) is not None


def test_what_was_dropped_on_the_way_out_needs_a_keyframe_if_others_need_it() -> None:
    switch = RungSwitch(wanted="a")
    switch.offer(key("a", 0))
    enhancement = delta("a", 1, 1)
    switch.offer(enhancement)
    switch.dropped(enhancement)
    assert switch.needs_keyframe is None
    base = delta("a", 2, 0)
    switch.offer(base)
    switch.dropped(base)
    assert switch.needs_keyframe == "a"
    assert switch.offer(delta("a", 3)) is None
    assert switch.offer(delta("a", 4, 0, is_switch_up=True)) is None
    assert switch.offer(key("a", 5)) is not None
    switch.dropped(delta("b", 1))
    assert switch.needs_keyframe is None


@dataclass
class Rung:
    """A stream whose pictures need any of those that their layer lets them need."""

    name: str
    pictures: list[tuple[Picture, frozenset[int]]]


def make(name: str, chance: random.Random) -> Rung:
    pictures: list[tuple[Picture, frozenset[int]]] = []
    for number in range(chance.randrange(1, 60)):
        is_keyframe = chance.random() < 0.12
        layer = 0 if is_keyframe else chance.randrange(4)
        is_switch_up = layer > 0 and chance.random() < 0.5
        is_droppable = not is_keyframe and chance.random() < 0.2
        candidates: list[int] = []
        closed = layer if is_switch_up else LAYERS  # of this layer and above nothing is needed from here backwards
        for before, _ in [] if is_keyframe else reversed(pictures):
            if before.temporal_id <= layer and before.temporal_id < closed and not before.is_droppable:
                candidates.append(before.number)
            if before.is_switch_up:
                closed = min(closed, before.temporal_id)
            if before.is_keyframe:
                break
        needs = frozenset(each for each in candidates if chance.random() < 0.5)
        pictures.append((Picture(name, number, 3000 * number, is_keyframe, layer, is_switch_up, is_droppable), needs))
    return Rung(name, pictures)


@settings(max_examples=300)
@given(st.integers(0, 1 << 32))
def test_no_picture_goes_out_whose_reference_did_not_and_time_rises(seed: int) -> None:
    chance = random.Random(seed)
    streams = {name: make(name, chance) for name in ("low", "high")}
    switch = RungSwitch(wanted="low")
    positions = dict.fromkeys(streams, 0)
    sent: dict[str, set[int]] = {name: set() for name in streams}
    ticks: list[int] = []
    current: str | None = None
    while any(positions[name] < len(rung.pictures) for name, rung in streams.items()):
        step = chance.choice(["give"] * 12 + ["lose", "want", "layers", "drop"])
        if step == "want":
            switch.want(chance.choice(["low", "high", "low", "high", None]))
            continue
        if step == "layers":
            switch.most_temporal_id = chance.randrange(4)
            continue
        name = chance.choice([each for each in streams if positions[each] < len(streams[each].pictures)])
        picture, needs = streams[name].pictures[positions[name]]
        positions[name] += 1
        if step == "lose":
            continue
        given_ticks = switch.offer(picture)
        if given_ticks is None:
            continue
        ticks.append(given_ticks)
        if step == "drop":
            switch.dropped(picture)
            continue
        if switch.current != current or picture.is_keyframe:
            assert picture.is_keyframe
            current = switch.current
            sent[name] = set()
        assert name == current
        assert needs <= sent[name], f"{picture} needs {needs - sent[name]}"
        assert picture.temporal_id <= switch.most_temporal_id
        sent[name].add(picture.number)
    assert all(after > before for before, after in pairwise(ticks))
