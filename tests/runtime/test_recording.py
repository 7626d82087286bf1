"""Recording takes everything, in order and bit for bit, disturbs nobody, and tells what it could not take."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from flowstream.graph.plan import Plan
from flowstream.media.byte_form import ByteFormError
from flowstream.media.recording import Arrived, Ended, Lost, Reader, Tick, contents
from flowstream.media.signals import KeyframeRequest
from flowstream.proto.overflow import Limit
from flowstream.runtime.engine import Engine
from flowstream.runtime.recording import TOO_SLOW, UNSEEN, Recorder
from flowstream.runtime.tap import TapError
from flowstream.testing.clock import VirtualClock, run_virtual
from tests.runtime.flows import SOON, flow
from tests.runtime.parts import Loop

pytestmark = pytest.mark.usefixtures("backend")

NODES: dict[str, tuple[Any, ...]] = {
    "screen": ("test/pictures", {}),
    "encode": ("test/relay", {}),
    "out": ("test/taker", {}),
}
WIRES = {"encode.video": "screen.out", "out.video": "encode.out"}


def recorded(plan: Plan, main: Callable[[Engine], Awaitable[None]]) -> None:
    async def call(clock: VirtualClock) -> None:
        async with Engine.open(clock=clock) as engine:
            await engine.start(plan)
            await main(engine)

    run_virtual(call, backend=Loop.backend)


async def file_of(recorder: Recorder, **limits: Any) -> bytes:
    file = io.BytesIO()
    await recorder.write(file, **limits)
    return file.getvalue()


def items_of(data: bytes) -> list[Any]:
    reader = Reader(io.BytesIO(data).read)
    found = list(reader)
    assert reader.problem == ""
    return found


def times(items: list[Any], source: str) -> list[int]:
    return [each.time_ns for each in items if isinstance(each, Arrived) and each.stream.source == source]


def test_everything_comes_in_the_order_in_which_it_was_given_and_nobody_is_held_up() -> None:
    async def main(engine: Engine) -> None:
        with Recorder(engine, ["screen", "out.video"]) as recorder:
            data = await file_of(recorder, seconds=10)
        found = contents(io.BytesIO(data).read)
        assert found.is_exact
        assert [(each.stream.name, each.stream.source, each.count) for each in found.streams] == [
            ("screen.out", "screen.out", 500), ("out.video", "encode.out", 500),
        ]  # fmt: skip
        items = items_of(data)
        assert times(items, "screen.out") == [each * 20_000_000 for each in range(500)]
        assert times(items, "encode.out") == times(items, "screen.out")
        sources = [each.stream.source for each in items if isinstance(each, Arrived)]
        assert sources == ["screen.out", "encode.out"] * 500
        assert all(each.at_ns == each.time_ns for each in items if isinstance(each, Arrived))
        assert {each.payload().capture_ns - each.time_ns for each in items if isinstance(each, Arrived)} == {-3_000_000}
        assert items[-1] == Ended("10 s were asked for", 10_000_000_000)
        status = engine.status()
        assert not status["encode"].dropped
        assert not status["out"].dropped
        for id in ("screen", "encode"):
            assert len(engine.runners[id].outlets["out"].feeds) == 1, "nobody is left behind"
        assert engine._listeners == []

    recorded(flow(NODES, WIRES), main)


def test_a_slow_file_loses_what_it_cannot_take_and_says_where() -> None:
    """A tenth of what comes is written: the graph does not notice, the file is marked."""

    async def main(engine: Engine) -> None:
        file: list[bytes] = []
        with Recorder(engine, ["encode.out"], as_is=True, queue=Limit(items=8)) as recorder:
            async for pieces in recorder.pieces(seconds=10):
                file.append(b"".join(pieces))
                await anyio.sleep(0.2)
            assert engine.status()["out"].received >= 500
            assert not engine.status()["out"].dropped
            lost = recorder.lost
        data = b"".join(file)
        found = contents(io.BytesIO(data).read)
        assert not found.is_exact
        (stream,) = found.streams
        items = items_of(data)
        gaps = [each for each in items if isinstance(each, Lost)]
        assert {each.cause for each in gaps} == {TOO_SLOW}
        assert stream.lost == {TOO_SLOW: sum(each.count for each in gaps)}
        assert lost >= stream.lost[TOO_SLOW] > 300
        number = 0
        for each in items:  # each gap stands exactly where payloads are missing, with their number
            if isinstance(each, Lost):
                number += each.count
            elif isinstance(each, Arrived):
                assert each.time_ns == number * 20_000_000
                number += 1
        assert number == pytest.approx(500, abs=12)

    recorded(flow(NODES, WIRES), main)


def test_the_queue_is_bounded_in_bytes_too() -> None:
    async def main(engine: Engine) -> None:
        with Recorder(engine, ["screen"], queue=Limit(items=1000, bytes=1000), as_is=True) as recorder:
            await anyio.sleep(1.01)
            assert recorder.lost == 51 - 10
            data = await file_of(recorder, seconds=1.01)
        assert times(items_of(data), "screen.out") == [each * 20_000_000 for each in range(10)]

    recorded(flow(NODES, WIRES), main)


def test_a_size_that_is_not_to_be_passed() -> None:
    async def main(engine: Engine) -> None:
        with Recorder(engine, ["screen"]) as recorder:
            data = await file_of(recorder, max_bytes=20_000)
        assert len(data) < 20_200
        assert items_of(data)[-1].reason == "it has the 20kB that it may have"
        assert contents(io.BytesIO(data).read).is_exact

    recorded(flow(NODES, WIRES), main)


def test_silence_is_told() -> None:
    async def main(engine: Engine) -> None:
        with Recorder(engine, ["screen"]) as recorder:
            data = await file_of(recorder, seconds=10)
        ticks = [each.at_ns for each in items_of(data) if isinstance(each, Tick)]
        assert len(ticks) == 5
        assert all(1e9 < each < 7e9 for each in ticks)

    recorded(flow({**NODES, "screen": ("test/pictures", {"pause_at": 50, "pause": 5})}, WIRES), main)


def test_it_ends_with_what_it_records() -> None:
    async def main(engine: Engine) -> None:
        with Recorder(engine, ["screen", "encode"]) as recorder:
            data = await file_of(recorder)
        assert items_of(data)[-1].reason == "screen and encode ended"
        assert [each.count for each in contents(io.BytesIO(data).read).streams] == [100, 100]

    recorded(flow({**NODES, "screen": ("test/pictures", {"count": 100})}, WIRES), main)


def test_nothing_is_missed_when_a_node_is_replaced_or_started_again() -> None:
    async def main(engine: Engine) -> None:
        with Recorder(engine, ["screen.out"]) as recorder:
            file = io.BytesIO()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: recorder.write(file, seconds=20))
                await anyio.sleep(9)
                assert engine.status()["screen"].restarts == 2
                await engine.apply(flow({**NODES, "screen": ("test/pictures", {"each_us": 10_000})}, WIRES))
            assert recorder.lost == 0
        found = contents(io.BytesIO(file.getvalue()).read)
        assert found.is_exact
        emitted = engine.runners["screen"].outlets["out"].emitted
        assert found.streams[0].count == pytest.approx(250 + emitted, abs=2)

    recorded(flow({**NODES, "screen": ("test/pictures", {"fail_after": 100}, SOON)}, WIRES), main)


def test_what_a_new_instance_gave_unseen_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recorder, "_heard", lambda *_: None)

    async def main(engine: Engine) -> None:
        with Recorder(engine, ["screen.out"]) as recorder:
            file = io.BytesIO()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: recorder.write(file, seconds=5))
                await anyio.sleep(1)
                await engine.apply(flow({**NODES, "screen": ("test/pictures", {"each_us": 10_000})}, WIRES))
        (stream,) = contents(io.BytesIO(file.getvalue()).read).streams
        assert 0 < stream.lost[UNSEEN] <= 26
        assert stream.count + stream.lost[UNSEEN] == pytest.approx(440, abs=2)

    recorded(flow({**NODES, "screen": ("test/pictures", {"pause_at": 40})}, WIRES), main)


def test_pictures_begin_at_a_keyframe_that_is_asked_for_unless_they_are_wanted_as_they_come() -> None:
    asked: list[str] = []

    def hear(engine: Engine) -> None:
        node = engine.runners["screen"].node

        def requested(port: str, signal: KeyframeRequest, /) -> None:
            asked.append(signal.reason)

        node.requested = requested  # type: ignore[method-assign]

    async def main(engine: Engine) -> None:
        hear(engine)
        with Recorder(engine, ["screen"], as_is=True) as recorder:
            await file_of(recorder, seconds=1)
        assert asked == []
        with Recorder(engine, ["screen"]) as recorder:
            await file_of(recorder, seconds=1)
        assert asked == ["screen.out is recorded"]

    recorded(flow(NODES, WIRES), main)


def test_what_cannot_be_written_is_missing_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(payload: object, origin_ns: int) -> None:
        raise ByteFormError("a Smell has no form in bytes")

    monkeypatch.setattr("flowstream.media.recording.to_bytes", refuse)

    async def main(engine: Engine) -> None:
        with Recorder(engine, ["screen"]) as recorder:
            data = await file_of(recorder, seconds=0.1)
            assert recorder.lost == 5
        (stream,) = contents(io.BytesIO(data).read).streams
        assert (stream.count, stream.lost) == (0, {"a Smell has no form in bytes": 5})

    recorded(flow(NODES, WIRES), main)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "nothing to record was named (name an output like camera.video, an edge, or a node)"),
        (["scren"], "there is no edge or output 'scren'; an edge is named by its consumer and input, like out.video, "
                    "an output by its node, like camera.video (did you mean screen?)"),
        (["screen", "out.vdeo"],
         "there is no edge or output 'out.vdeo'; an edge is named by its consumer and input, like out.video, an output "
         "by its node, like camera.video (did you mean out.video?)"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_not_recorded(names: list[str], said: str) -> None:
    async def main(engine: Engine) -> None:
        with pytest.raises(TapError) as refused:
            Recorder(engine, names)
        assert str(refused.value) == said

    recorded(flow(NODES, WIRES), main)


def test_one_output_is_recorded_once_whatever_it_is_called() -> None:
    async def main(engine: Engine) -> None:
        recorder = Recorder(engine, ["out.video", "encode.out", "encode", "out"])
        assert [each.source for each in recorder.header.streams] == ["encode.out"]

    recorded(flow(NODES, WIRES), main)


def test_nobody_runs_yet() -> None:
    async def call(clock: VirtualClock) -> None:
        async with Engine.open(clock=clock) as engine:
            with pytest.raises(TapError, match="the graph is not running yet"):
                Recorder(engine, ["screen"])

    run_virtual(call, backend=Loop.backend)
