"""Frames into a graph and out of it: what waits, what is dropped, what becomes of them at a reload and at the end."""

from __future__ import annotations

import gc
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

import flowstream
from flowstream import (
    AudioFrame,
    EncodedCaps,
    EncodedPacket,
    EndedError,
    FlowstreamError,
    Graph,
    NodeError,
    Run,
    VideoFrame,
    edge,
)
from tests.api.graphs import PATIENCE_S, picture, shown, through, ticking, until, until_received

pytestmark = pytest.mark.anyio


def levels(frames: list[VideoFrame]) -> list[int]:
    return [int(frame.array("gray")[0, 0]) for frame in frames]


async def push_all(run: Run, count: int) -> None:
    for value in range(count):
        await run.push("in", picture(value))
    await run.end("in")


# --- what is pushed -------------------------------------------------------------------------------------------------


async def test_pictures_come_out_as_they_went_in_and_in_order() -> None:
    async with flowstream.open(through()) as run, anyio.create_task_group() as tasks:
        tasks.start_soon(push_all, run, 50)
        frames = [frame async for frame in run.frames("out")]
        assert levels(frames) == list(range(50))
        assert {(frame.format, frame.width, frame.height) for frame in frames} == {("bgr24", 160, 90)}
        times = [frame.time_ns for frame in frames]
        assert times == sorted(set(times))
        await run.wait()
        status = run.status().nodes
        assert (status["in"].facts, status["out"].facts) == ({"pushed": 50}, {"read": 50})


async def test_the_array_is_the_programs_own_again_when_push_returns() -> None:
    array = picture(1)
    async with flowstream.open(through()) as run:
        frames = run.frames("out")
        await run.push("in", array)
        array[:] = 9
        assert levels([await anext(frames)]) == [1]


@pytest.mark.parametrize(
    ("settings", "array", "format", "shape"),
    [
        ({}, np.zeros((90, 160, 3), np.uint8), "bgr24", (90, 160)),
        ({}, np.zeros((90, 160, 4), np.uint8), "bgra", (90, 160)),
        ({}, np.zeros((90, 160), np.uint8), "gray", (90, 160)),
        ({"format": "rgb24"}, np.zeros((90, 160, 3), np.uint8), "rgb24", (90, 160)),
        ({"format": "yuv420p"}, np.zeros((135, 160), np.uint8), "yuv420p", (90, 160)),
    ],
)
async def test_an_array_is_the_picture_that_its_shape_or_the_setting_says(
    settings: dict[str, Any], array: np.ndarray[Any, Any], format: str, shape: tuple[int, int]
) -> None:
    async with flowstream.open(through(**settings)) as run:
        frames = run.frames("out")
        await run.push("in", array)
        frame = await anext(frames)
        assert (frame.format, (frame.height, frame.width)) == (format, shape)


async def test_pictures_follow_one_another_by_their_frame_rate_in_a_graph_that_waits() -> None:
    async with flowstream.open(through(fps=25)) as run, anyio.create_task_group() as tasks:
        tasks.start_soon(push_all, run, 5)
        frames = [frame async for frame in run.frames("out")]
        assert {b.time_ns - a.time_ns for a, b in pairwise(frames)} == {40_000_000}
        assert {frame.duration_ns for frame in frames} == {40_000_000}


async def test_a_media_time_that_is_given_counts() -> None:
    async with flowstream.open(through(fps=25)) as run:
        frames = run.frames("out")
        await run.push("in", picture(), time_ns=7_000_000_000)
        await run.push("in", picture())
        await run.push("in", VideoFrame.from_array(picture(), time_ns=9_000_000_000))
        await run.push("in", VideoFrame.from_array(picture(), time_ns=9_000_000_000), time_ns=10_000_000_000)
        assert [(await anext(frames)).time_ns // 1_000_000 for _ in range(4)] == [7000, 7040, 9000, 10_000]


async def test_sound_follows_on_without_gaps() -> None:
    graph = Graph()
    program = graph.add("app-in", id="in", layout="mono")
    graph.add("app-out", id="out", from_=program["audio"])
    async with flowstream.open(graph) as run:
        frames = run.frames("out", AudioFrame)
        for _ in range(3):
            await run.push("in", np.zeros(480, np.float32))
        await run.push("in", np.zeros((1, 960), np.int16))
        got = [await anext(frames) for _ in range(4)]
        assert [frame.format for frame in got] == ["fltp"] * 3 + ["s16p"]
        assert [(frame.time_ns - got[0].time_ns) // 1_000_000 for frame in got] == [0, 10, 20, 30]


async def test_packets_pass_as_they_are() -> None:
    graph = Graph()
    program = graph.add("app-in", id="in", codec="opus")
    graph.add("app-out", id="out", from_=program["packets"])
    packet = EncodedPacket(EncodedCaps(codec="opus", rate=48_000, layout="stereo"), b"sound", 5)
    async with flowstream.open(graph) as run:
        frames = run.frames("out", EncodedPacket)
        await run.push("in", packet)
        assert await anext(frames) == packet


@pytest.mark.parametrize(
    ("settings", "payload", "error", "said"),
    [
        ({}, "text", TypeError, "in takes an array, a VideoFrame, an AudioFrame or an EncodedPacket, not str"),
        (
            {"size": "160x90"},
            np.zeros((45, 80, 3), np.uint8),
            ValueError,
            "in: its width is 160, what",
        ),
        ({"format": "bgr24"}, np.zeros((90, 160), np.uint8), ValueError, "bgr24 takes an array of uint8 of shape"),
        ({"format": "gray"}, VideoFrame.from_array(picture(), time_ns=0), ValueError, "its format is gray"),
        ({}, np.zeros((2, 480), np.float32), ValueError, "nothing takes from in.audio; connect it in the graph"),
        ({}, np.zeros((3, 480), np.float32), ValueError, "the array has 3 channels"),
        ({}, np.zeros((2, 480), np.float64), ValueError, "fltp takes float32"),
    ],
)
async def test_what_the_settings_do_not_allow_is_refused_and_the_graph_goes_on(
    settings: dict[str, Any], payload: Any, error: type[Exception], said: str
) -> None:
    async with flowstream.open(through(**settings)) as run:
        with pytest.raises(error) as raised:
            await run.push("in", payload)
        assert said in str(raised.value)
        assert run.status().nodes["in"].state == "running"
        frames = run.frames("out")
        await run.push("in", np.zeros((90, 160) if settings.get("format") == "gray" else (90, 160, 3), np.uint8))
        await anext(frames)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("inn", "there is no node inn (did you mean in?)"),
        ("out", "out (app-out) takes nothing from the program (in does)"),
    ],
)
async def test_pushing_where_nothing_is_taken_is_told(node: str, said: str) -> None:
    async with flowstream.open(through()) as run:
        with pytest.raises(FlowstreamError) as raised:
            await run.push(node, picture())
        assert str(raised.value) == said


async def test_reading_where_nothing_is_given_is_told() -> None:
    async with flowstream.open(shown(), serve=False) as run:
        with pytest.raises(FlowstreamError, match=r"encode \(hw-encode\) gives nothing to the program"):
            run.frames("encode")


async def test_payloads_of_another_class_than_asked_for_are_told() -> None:
    graph = Graph()
    graph.add("app-out", id="out", from_=graph.add("tone"))
    async with flowstream.open(graph) as run:
        with pytest.raises(TypeError, match=r"not VideoFrame; ask for it: frames\('out', AudioFrame\)"):
            await anext(run.frames("out"))


# --- backpressure ---------------------------------------------------------------------------------------------------


async def test_push_waits_for_an_edge_that_blocks() -> None:
    graph = Graph()
    graph.add("app-out", id="out", from_=edge(graph.add("app-in", id="in"), overflow="block", items=2))
    async with flowstream.open(graph) as run:
        await run.push("in", picture(0))
        await run.push("in", picture(1))
        with anyio.move_on_after(0.05) as scope:
            await run.push("in", picture(2))
        assert scope.cancelled_caught
        frames = run.frames("out")
        assert levels([await anext(frames) for _ in range(2)]) == [0, 1]
        await run.push("in", picture(3))
        last = [await anext(frames)]
        assert levels(last) in ([2], [3])
        assert run.status().nodes["out"].dropped == {}


async def test_push_does_not_wait_for_an_edge_that_drops_and_what_is_dropped_is_counted() -> None:
    graph = Graph()
    graph.add("app-out", id="out", from_=edge(graph.add("app-in", id="in"), overflow="drop-oldest", items=2))
    async with flowstream.open(graph) as run:
        with anyio.fail_after(PATIENCE_S):
            for value in range(10):
                await run.push("in", picture(value))
        frames = run.frames("out")
        assert levels([await anext(frames) for _ in range(2)]) == [8, 9]
        assert run.status().nodes["out"].dropped == {"overflow": 8}


async def test_several_who_push_take_turns() -> None:
    async with flowstream.open(through()) as run, anyio.create_task_group() as tasks:
        frames = run.frames("out")
        for value in range(8):
            tasks.start_soon(run.push, "in", picture(value))
        assert levels([await anext(frames) for _ in range(8)]) == list(range(8))


async def test_a_push_that_is_cancelled_before_its_turn_pushes_nothing() -> None:
    graph = Graph()
    graph.add("app-out", id="out", from_=edge(graph.add("app-in", id="in"), overflow="block", items=1))
    async with flowstream.open(graph) as run, anyio.create_task_group() as tasks:
        await run.push("in", picture(0))
        tasks.start_soon(run.push, "in", picture(1))  # the node has it, and waits for the edge
        await until(lambda: run.status().nodes["in"].emitted["video"] == 2)
        with anyio.move_on_after(0.05):
            await run.push("in", picture(2))
        frames = run.frames("out")
        assert levels([await anext(frames) for _ in range(2)]) == [0, 1]
        await run.push("in", picture(3))
        assert levels([await anext(frames)]) == [3]


async def test_a_program_too_slow_for_a_live_graph_loses_the_oldest_counted() -> None:
    async with flowstream.open(ticking()) as run:
        frames = run.frames("out")
        first = await anext(frames)
        await until_received(run, "nowhere", run.status().nodes["nowhere"].received + 20)
        second = await anext(frames)
        dropped = run.status().nodes["out"].dropped["overflow"]
        assert dropped >= 15
        assert second.time_ns - first.time_ns >= dropped * 9_000_000
        assert run.status().nodes["nowhere"].dropped == {}


async def test_a_live_graph_does_not_wait_for_a_program_that_reads_nothing() -> None:
    async with flowstream.open(ticking(duration="300ms")) as run:
        with anyio.fail_after(PATIENCE_S):
            await run.wait()
        assert run.status().nodes["out"].facts["unread"] == run.status().nodes["out"].received > 0


async def test_a_graph_that_waits_loses_nothing_before_the_program_reads() -> None:
    async with flowstream.open(through()) as run, anyio.create_task_group() as tasks:
        tasks.start_soon(push_all, run, 20)
        await until(lambda: run.status().nodes["in"].emitted["video"] > 4)
        assert levels([frame async for frame in run.frames("out")]) == list(range(20))


async def test_who_stops_reading_is_not_waited_for() -> None:
    async with flowstream.open(through()) as run, anyio.create_task_group() as tasks:
        tasks.start_soon(push_all, run, 20)
        async for frame in run.frames("out"):
            if levels([frame]) == [3]:
                break
        gc.collect()
        with anyio.fail_after(PATIENCE_S):
            await run.wait()
        assert run.status().nodes["out"].facts == {"read": 4, "unread": 16}


async def test_a_read_that_is_cancelled_loses_nothing() -> None:
    async with flowstream.open(through()) as run:
        frames = run.frames("out")
        with anyio.move_on_after(0.02):
            await anext(frames)
        await run.push("in", picture(1))
        await run.push("in", picture(2))
        assert levels([await anext(frames), await anext(frames)]) == [1, 2]


async def test_two_who_read_share_what_there_is() -> None:
    got: list[VideoFrame] = []

    async def read(run: Run) -> None:
        async for frame in run.frames("out"):
            got.append(frame)
            await anyio.lowlevel.checkpoint()

    async with flowstream.open(through()) as run, anyio.create_task_group() as tasks:
        tasks.start_soon(read, run)
        tasks.start_soon(read, run)
        await anyio.lowlevel.checkpoint()
        await push_all(run, 20)
    assert sorted(levels(got)) == list(range(20))


# --- reload ---------------------------------------------------------------------------------------------------------


async def test_a_reload_beside_it_keeps_both_ends() -> None:
    graph = through()
    async with flowstream.open(graph) as run:
        frames = run.frames("out")
        await run.push("in", picture(1))
        graph.add("discard", from_="in")
        await run.reload(graph)
        await run.push("in", picture(2))
        assert levels([await anext(frames), await anext(frames)]) == [1, 2]


async def test_a_successor_and_a_renamed_node_go_on_where_the_old_one_was() -> None:
    async with flowstream.open(through(fps=25)) as run:
        frames = run.frames("out")
        await run.push("in", picture(1))
        assert (await run.reload(through(fps=50))).of("in").action == "replace"
        await run.push("in", picture(2))
        renamed = Graph()
        pictures = renamed.add("app-in", id="pictures", was="in", fps=50)
        renamed.add("app-out", id="program", was="out", from_=pictures)
        await run.reload(renamed)
        await run.push("pictures", picture(3))
        assert levels([await anext(frames) for _ in range(3)]) == [1, 2, 3]
        with pytest.raises(FlowstreamError, match="there is no node in"):
            await run.push("in", picture())


async def test_a_push_that_waits_during_a_reload_reaches_the_successor() -> None:
    async with flowstream.open(through(fps=25)) as run, anyio.create_task_group() as tasks:
        frames = run.frames("out")
        for value in range(8):
            tasks.start_soon(run.push, "in", picture(value))
        await run.reload(through(fps=50))
        with anyio.fail_after(PATIENCE_S):
            got = levels([await anext(frames) for _ in range(8)])
        assert got == list(range(8))


async def test_a_node_that_comes_by_a_reload_meets_the_program_too() -> None:
    graph = Graph()
    # So slow that none of its pictures is under way during the reload, which would bring it to its end first.
    graph.add("app-out", id="out", from_=graph.add("test-pattern", id="pattern", size="160x90", fps=0.1))
    async with flowstream.open(graph) as run:
        await until_received(run, "out")
        await run.reload(through())
        frames = run.frames("out")
        await run.push("in", picture(5))
        assert levels([await anext(frames)]) == [5]


async def test_a_node_that_leaves_lets_go_of_the_program() -> None:
    async with flowstream.open(through()) as run, anyio.create_task_group() as tasks:
        seen: list[Any] = []

        async def read() -> None:
            seen.extend([frame async for frame in run.frames("out")])
            seen.append("end")

        tasks.start_soon(read)
        await anyio.lowlevel.checkpoint()
        await run.reload(Graph.from_yaml("nodes: {p: {type: tone}, d: {type: discard, from: p}}"))
        await until(lambda: seen == ["end"])


# --- the end --------------------------------------------------------------------------------------------------------


async def test_the_end_of_the_stream_comes_through_and_the_graph_ends() -> None:
    async with flowstream.open(through()) as run:
        frames = run.frames("out")
        await run.push("in", picture(1))
        await run.end("in")
        assert levels([frame async for frame in frames]) == [1]
        with anyio.fail_after(PATIENCE_S):
            await run.wait()
        with pytest.raises(EndedError, match="nothing more comes"):
            await run.push("in", picture())
        assert [frame async for frame in run.frames("out")] == []


async def test_who_reads_and_who_pushes_when_the_run_is_stopped_comes_to_an_end() -> None:
    ended: list[str] = []
    graph = Graph()
    graph.add("app-out", id="out", from_=edge(graph.add("app-in", id="in"), overflow="block", items=1))
    graph.add("app-out", id="other", from_="in")

    async def read(run: Run) -> None:
        async for _ in run.frames("other"):
            pass
        ended.append("read")

    async def push(run: Run) -> None:
        with pytest.raises(EndedError):  # noqa: PT012
            while True:
                await run.push("in", picture())
        ended.append("push")

    async with flowstream.open(graph) as run, anyio.create_task_group() as tasks:
        tasks.start_soon(read, run)
        tasks.start_soon(push, run)
        await until_received(run, "other")
        with anyio.fail_after(PATIENCE_S):
            await run.stop()
    assert sorted(ended) == ["push", "read"]


async def test_leaving_the_block_does_not_wait_for_who_does_not_read() -> None:
    with anyio.fail_after(5):
        async with flowstream.open(through()) as run:
            frames = run.frames("out")
            await run.push("in", picture(1))
            await run.push("in", picture(2))
    assert [frame async for frame in frames] == []


async def test_a_failure_reaches_who_pushes_and_who_reads() -> None:
    async with flowstream.open(through()) as run:
        runner = run._engine.runners["in"]
        runner.fail(RuntimeError("a bug"))
        await until(lambda: run.status().nodes["in"].state == "failed")
        with pytest.raises(NodeError, match=r"in \(app-in\): RuntimeError: a bug"):
            await run.push("in", picture())


async def test_a_push_waits_for_a_node_that_is_started_anew() -> None:
    graph = through(restart={"on": "any", "backoff": {"first": "20ms", "max": "20ms"}})
    async with flowstream.open(graph) as run:
        frames = run.frames("out")
        run._engine.runners["in"].fail(RuntimeError("a bug"))
        with anyio.fail_after(PATIENCE_S):
            await run.push("in", picture(7))
            assert levels([await anext(frames)]) == [7]
        assert run.status().nodes["in"].restarts == 1


async def test_a_node_that_failed_takes_again_after_a_reload() -> None:
    def graph(fps: int) -> Graph:
        made = ticking()
        made.add("app-out", id="back", from_=made.add("app-in", id="in", fps=fps))
        return made

    async with flowstream.open(graph(10)) as run:
        frames = run.frames("back")
        run._engine.runners["in"].fail(RuntimeError("a bug"))
        await until(lambda: run.status().nodes["in"].state == "failed")
        with pytest.raises(NodeError, match="a bug"):
            await run.push("in", picture())
        await run.reload(graph(20))
        await run.push("in", picture(3))
        assert levels([await anext(frames)]) == [3]


async def test_frames_without_a_program_are_thrown_away_and_a_push_without_one_is_a_clear_failure() -> None:
    from flowstream.runtime.engine import Engine

    async with Engine.open() as engine:
        await engine.start(through().plan())
        with anyio.fail_after(PATIENCE_S):
            await engine.wait()
        (failure,) = engine.failures
        assert str(failure).endswith(
            "in (app-in): no program pushes anything here (run this graph from Python: flowstream.open(...))"
        )
    async with Engine.open() as engine:
        await engine.start(ticking(duration="200ms").plan())
        with anyio.fail_after(PATIENCE_S):
            await engine.wait()
        assert engine.status()["out"].facts["unread"] == engine.status()["out"].received
