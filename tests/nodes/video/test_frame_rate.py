"""frame-rate: what comes out of any times that come in."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import VideoFrame
from flowstream.graph import compile_graph
from flowstream.node.registry import Registry
from flowstream.runtime.engine import Engine
from flowstream.testing import Harness, check_node, make_frame
from flowstream.testing.clock import VirtualClock, run_virtual
from flowstream_nodes.video.frame_rate import FrameRate

SECOND_NS = 1_000_000_000


def at(times_ns: Iterable[int], *, duration_ns: int | None = None) -> list[VideoFrame]:
    """Frames that are told apart by when they were captured."""
    return [
        make_frame(width=2, height=2, time_ns=time_ns, capture_ns=index).replace(duration_ns=duration_ns)
        for index, time_ns in enumerate(times_ns)
    ]


def every(fps: float, count: int, *, start_ns: int = 0) -> list[int]:
    return [start_ns + round(n * 1e9 / fps) for n in range(count)]


def given_for(frames: Iterable[VideoFrame], *, finish: bool = True, **config: Any) -> list[VideoFrame]:
    with Harness(FrameRate, config) as rate:
        for frame in frames:
            rate.push(frame)
        if finish:
            rate.finish()
        return rate.payloads()


def shown(frames: Iterable[VideoFrame]) -> list[int | None]:
    """Which of the frames that came in each is."""
    return [frame.capture_ns for frame in frames]


def test_conformance() -> None:
    check_node(FrameRate, {"fps": 30.0})
    check_node(FrameRate, {"fps": 30.0, "repeat": False})


@pytest.mark.parametrize("fps_in", [5.0, 10.0, 15.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0, 120.0])
@pytest.mark.parametrize("fps", [10.0, 24.0, 25.0, 29.97, 30.0, 60.0])
def test_exactly_so_many_come_out_evenly(fps_in: float, fps: float) -> None:
    seconds = 10
    frames = at(every(fps_in, round(fps_in * seconds)), duration_ns=round(1e9 / fps_in))
    out = given_for(frames, fps=fps)
    assert [frame.time_ns for frame in out] == every(fps, len(out))
    assert abs(len(out) - fps * seconds) <= 1
    assert all(frame.duration_ns == round(1e9 / fps) for frame in out)
    # Each picture is shown near to when it was there: a little more than half a period before at most.
    times = [frame.time_ns for frame in frames]
    for frame in out:
        assert frame.capture_ns is not None
        off_ns = frame.time_ns - times[frame.capture_ns]
        assert -SECOND_NS / fps * (1 / 2 + 1 / 32) - 2 <= off_ns <= SECOND_NS / fps + SECOND_NS / fps_in


def test_half_as_many_are_every_second_one_whatever_the_jitter() -> None:
    jitter = [0, 700_000, -500_000, 300_000, -900_000]
    times = [time_ns + jitter[n % 5] for n, time_ns in enumerate(every(60, 60))]
    assert shown(given_for(at(times), fps=30.0)) == list(range(0, 60, 2))


def test_twice_as_many_are_each_one_twice() -> None:
    frames = at(every(15, 4), duration_ns=round(1e9 / 15))
    assert shown(given_for(frames, fps=30.0)) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_frame_is_not_held_up() -> None:
    with Harness(FrameRate, {"fps": 30.0}) as rate:
        for n, frame in enumerate(at(every(10, 5))):
            assert rate.push(frame)[-1].capture_ns == n


def test_frames_that_are_right_pass_untouched() -> None:
    frames = at(every(30, 10), duration_ns=round(1e9 / 30))
    out = given_for(frames, fps=30.0)
    assert all(ours is theirs for ours, theirs in zip(out, frames, strict=True))


def test_a_gap_is_filled_for_a_second_and_then_stays_silent() -> None:
    out = given_for(at([0, 600_000_000, 4_000_000_000, 4_100_000_000]), fps=10.0)
    assert [frame.time_ns for frame in out] == [*every(10, 17), 4_000_000_000, 4_100_000_000]
    assert shown(out) == [0] * 6 + [1] * 11 + [2, 3]


def test_at_the_end_the_last_frame_stands_as_long_as_it_says() -> None:
    assert len(given_for(at([0], duration_ns=500_000_000), fps=10.0)) == 5
    assert len(given_for(at([0], duration_ns=5_000_000_000), fps=10.0)) == 11
    assert len(given_for(at([0]), fps=10.0)) == 1
    assert given_for([], fps=10.0) == []


def test_without_repeating_there_are_never_more_than_come_in() -> None:
    frames = at([0, 100_000_000, 110_000_000, 1_000_000_000, 9_000_000_000], duration_ns=2_000_000_000)
    out = given_for(frames, fps=10.0, repeat=False)
    assert shown(out) == [0, 1, 3, 4]
    assert [frame.time_ns for frame in out] == [0, 100_000_000, 1_000_000_000, 9_000_000_000]


def test_the_rate_changes_from_the_last_frame_on() -> None:
    with Harness(FrameRate, {"fps": 10.0}) as rate:
        for frame in at(every(10, 11)):
            rate.push(frame)
        rate.reconfigure(fps=20.0)
        for frame in at(every(10, 11, start_ns=1_100_000_000)):
            rate.push(frame)
        times = [frame.time_ns for frame in rate.payloads()]
    assert times == every(10, 11) + every(20, 22, start_ns=1_050_000_000)


def test_a_jump_back_begins_anew_and_a_small_step_back_is_left_out() -> None:
    out = given_for(at([10_000_000_000, 10_100_000_000, 10_050_000_000, 10_200_000_000, 0, 100_000_000]), fps=10.0)
    assert shown(out) == [0, 1, 3, 4, 5]
    assert [frame.time_ns for frame in out][-2:] == [0, 100_000_000]


def test_status_says_what_was_made_up_and_left_out() -> None:
    with Harness(FrameRate, {"fps": 10.0}) as rate:
        for frame in at([0, 300_000_000, 310_000_000]):
            rate.push(frame)
        rate.finish()
        assert rate.facts == {"repeated": 2, "dropped": 1}


@given(st.lists(st.integers(0, 3 * SECOND_NS), min_size=1, max_size=60), st.floats(1, 240))
def test_any_times(steps: list[int], fps: float) -> None:
    times, now = [], 0
    for step in steps:
        now += step
        times.append(now)
    out = given_for(at(times), fps=fps)
    slots = [(frame.time_ns - times[0]) * fps / SECOND_NS for frame in out]
    assert all(abs(slot - round(slot)) <= fps * 1e-9 for slot in slots), "on the grid"
    assert all(b.time_ns > a.time_ns for a, b in pairwise(out))
    assert all(b >= a for a, b in pairwise(frame.capture_ns or 0 for frame in out))
    assert len(out) <= len(times) * (fps + 2)


@pytest.mark.parametrize("fps", [15.0, 60.0])
def test_in_a_live_graph(fps: float) -> None:
    text = f"""
    flowstream: 1
    nodes:
      pattern: {{type: test-pattern, size: 160x90, fps: 30, duration: 2s}}
      steady: {{type: frame-rate, from: pattern, fps: {fps:g}}}
      probe: {{type: probe, from: steady}}
      nowhere: {{type: discard, from: probe}}
    """
    plan = compile_graph(
        "rate.yaml",
        read=lambda path: text.encode(),
        environ={},
        registry=Registry.installed(),
        wallclock=datetime(2026, 1, 1, tzinfo=UTC),
    )

    async def run(clock: VirtualClock) -> None:
        async with Engine.open(clock=clock) as engine:
            await engine.start(plan)
            await engine.wait()
            assert engine.failures == []
            assert engine.status()["nowhere"].received == fps * 2
            assert engine.status()["probe"].facts["gaps"] == 0

    run_virtual(run)
