"""throttle: which frames pass."""

from hypothesis import given
from hypothesis import strategies as st

from flowstream.testing import Harness, check_node, make_frame
from flowstream_nodes.video.throttle import Throttle


def test_conformance() -> None:
    check_node(Throttle, {"max_fps": 10.0})


def passed(max_fps: float, times_ns: list[int]) -> list[int]:
    with Harness(Throttle, {"max_fps": max_fps}) as throttle:
        for time_ns in times_ns:
            throttle.push(make_frame(width=2, height=2, time_ns=time_ns))
        return [frame.time_ns for frame in throttle.payloads()]


def test_every_second_frame_of_thirty() -> None:
    times = [round(n * 1e9 / 30) for n in range(60)]
    assert passed(15.0, times) == times[::2]


def test_the_average_is_kept_where_rates_do_not_divide() -> None:
    times = [round(n * 1e9 / 30) for n in range(301)]
    assert len(passed(20.0, times)) == 201
    assert len(passed(24.0, times)) == 241


def test_slower_streams_pass_whole() -> None:
    times = [n * 100_000_000 for n in range(20)]
    assert passed(10.0, times) == times
    assert passed(60.0, times) == times


def test_after_a_gap_the_beat_begins_anew() -> None:
    times = [0, 50_000_000, 5_033_000_000, 5_080_000_000, 5_133_000_000]
    assert passed(10.0, times) == [0, 5_033_000_000, 5_133_000_000]


def test_a_jump_back_does_not_hold_up_the_stream() -> None:
    times = [10_000_000_000, 0, 50_000_000, 100_000_000]
    assert passed(10.0, times) == [10_000_000_000, 0, 100_000_000]


def test_the_rate_changes_while_it_runs() -> None:
    with Harness(Throttle, {"max_fps": 10.0}) as throttle:
        for n in range(30):
            throttle.push(make_frame(n, width=2, height=2))
        assert len(throttle.payloads()) == 10
        throttle.reconfigure(max_fps=30.0)
        for n in range(30, 60):
            throttle.push(make_frame(n, width=2, height=2))
        assert 28 <= len(throttle.payloads()) - 10 <= 30


def test_frames_are_passed_untouched() -> None:
    frame = make_frame()
    with Harness(Throttle, {"max_fps": 1.0}) as throttle:
        assert throttle.push(frame)[0] is frame


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60), st.floats(0.5, 240))
def test_never_more_than_asked_for(steps: list[int], max_fps: float) -> None:
    times, now = [], 0
    for step in steps:
        now += step
        times.append(now)
    kept = passed(max_fps, times)
    assert kept[0] == times[0]
    assert len(kept) - 1 <= (now - times[0] + 500_000) * max_fps / 1e9 + 1
