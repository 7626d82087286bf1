"""A graph beside a program without async."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import flowstream
from flowstream import (
    Applied,
    EndedError,
    FlowstreamError,
    GraphError,
    NodeError,
    SyncRun,
    VideoFrame,
)
from flowstream.api import blocking
from tests.api.graphs import PATIENCE_S, picture, shown, through, ticking
from tests.api.test_frames import levels


def push_all(run: SyncRun, count: int) -> None:
    for value in range(count):
        run.push("in", picture(value))
    run.end("in")


def test_frames_in_and_out_from_two_threads() -> None:
    with flowstream.open_sync(through()) as run:
        pushing = threading.Thread(target=push_all, args=(run, 30))
        pushing.start()
        frames: list[VideoFrame] = list(run.frames("out"))
        pushing.join()
        run.wait()
        assert run.status().state == "ended"
    assert levels(frames) == list(range(30))


def test_everything_that_the_other_can_do(tmp_path: Path) -> None:
    file = tmp_path / "graph.yaml"
    file.write_text(shown().to_yaml())
    with flowstream.open_sync(file, serve="127.0.0.1:0", control=tmp_path / "run.sock") as run:
        assert run.control == tmp_path / "run.sock"
        assert len(run.links) == 1
        events = run.events()
        revisions: list[str] = []
        forget = run.on(Applied, lambda event: revisions.append(event.revision))
        assert run.set("encode.bitrate", "500k").of("encode").action == "update"
        forget()
        file.write_text(shown(viewers={"max": 3}).to_yaml())
        assert run.reload().of("out").action == "update"
        assert run.status().nodes["encode"].config["bitrate"] == "500k"
        assert len(revisions) == 1
        with pytest.raises(FlowstreamError, match="there is no node"):
            run.set("nobody.x", 1)
        assert run.stop(drain=1)
        run.wait()
    assert [type(event) for event in events] == [Applied, Applied]


def test_events_are_iterated_to_the_end_of_the_run() -> None:
    run = flowstream.open_sync(ticking())
    seen: list[Any] = []
    listening = threading.Thread(target=lambda events: seen.extend(map(type, events)), args=(run.events(),))
    listening.start()
    run.set("pattern.fps", 50)
    run.stop(drain=0)
    listening.join(PATIENCE_S)
    run.close()
    assert seen == [Applied]


def test_who_stops_reading_is_not_waited_for() -> None:
    with flowstream.open_sync(through()) as run:
        pushing = threading.Thread(target=push_all, args=(run, 20))
        pushing.start()
        for frame in run.frames("out"):
            if levels([frame]) == [3]:
                break
        run.wait()
        pushing.join()


def test_errors_come_as_they_are_and_leave_no_thread(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="there is no such file"):
        flowstream.open_sync(tmp_path / "missing.yaml")
    graph = ticking()
    graph.add("discard", id="last", from_=graph.add("file", path=str(tmp_path / "missing.mp4")))
    with pytest.raises(NodeError, match="missing"):
        flowstream.open_sync(graph)


def test_an_exception_in_the_block_ends_the_run() -> None:
    with pytest.raises(KeyError), flowstream.open_sync(ticking()) as run:
        raise KeyError("mine")
    assert run._run.status().state == "ended"


def test_closed_twice_it_is_closed_and_says_so() -> None:
    run = flowstream.open_sync(ticking())
    frames = run.frames("out")
    run.close()
    run.close()
    with pytest.raises(EndedError, match="the run is closed"):
        run.status()
    assert list(frames) == []


def test_two_runs_at_once() -> None:
    with flowstream.open_sync(through()) as one, flowstream.open_sync(through()) as two:
        for run, value in ((one, 1), (two, 2)):
            run.push("in", picture(value))
        assert levels([next(one.frames("out")), next(two.frames("out"))]) == [1, 2]


INTERRUPTED = """
import sys, threading
import flowstream
from flowstream import Graph

graph = Graph()
graph.add("app-out", id="out", from_=graph.add("app-in", id="in"))
with flowstream.open_sync(graph) as run:
    print("running", flush=True)
    {call}
"""


def interrupted(program: str) -> subprocess.CompletedProcess[str]:
    """What a program says that gets a Ctrl-C when it has said that it is running."""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess((), process.returncode, said, complained)


@pytest.mark.parametrize("call", ["run.wait()", "next(run.frames('out'))", "next(run.events())"])
def test_ctrl_c_ends_it_whatever_it_waits_for(call: str) -> None:
    done = interrupted(INTERRUPTED.format(call=call))
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"
    assert "Task exception" not in done.stderr
    assert done.returncode in (-signal.SIGINT, 130, 1)


def test_no_condition_is_waited_for_where_ctrl_c_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a call: one that comes when a condition has given up its lock and not got it back becomes a RuntimeError."""
    wait = threading.Condition.wait

    def waited(condition: threading.Condition, timeout: float | None = None) -> bool:
        assert threading.current_thread() is not threading.main_thread()
        return wait(condition, timeout)

    with flowstream.open_sync(through()) as run, monkeypatch.context() as patched:
        patched.setattr(threading.Condition, "wait", waited)
        events = run.events()
        run.push("in", picture(1))
        assert levels([next(run.frames("out"))]) == [1]
        run.end("in")
        run.wait()
        assert list(events) == []
        assert run.status().state == "ended"


def test_a_callback_that_asks_the_run_is_refused() -> None:
    refused: list[str] = []

    def ask(event: Applied) -> None:
        with pytest.raises(RuntimeError) as told:
            run.status()
        refused.append(str(told.value))

    with flowstream.open_sync(ticking()) as run:
        run.on(Applied, ask)
        run.set("pattern.fps", 50)
        run.status()
    assert refused == [
        "a callback is called on the thread of the run and cannot wait for the run: have another thread ask it"
    ]


class InterruptedLock:
    """What a call waits for: a Ctrl-C comes as soon as ``may_come`` is set."""

    may_come: threading.Event

    def __init__(self) -> None:
        self._is_held = False

    def acquire(self) -> None:
        if self._is_held:
            assert self.may_come.wait(PATIENCE_S)
            raise KeyboardInterrupt
        self._is_held = True

    def release(self) -> None:
        pass


def test_what_is_shielded_comes_to_its_end_when_the_call_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []
    InterruptedLock.may_come = threading.Event()
    has_ended = threading.Event()

    async def update() -> None:
        try:
            with anyio.CancelScope(shield=True):
                InterruptedLock.may_come.set()
                await cancelled.wait()
                did.append("shielded")
            await anyio.sleep_forever()
        finally:
            did.append("ended")
            has_ended.set()

    with flowstream.open_sync(through()) as run:
        cancelled = run._loop.call(anyio.Event)
        with monkeypatch.context() as patched:
            patched.setattr(blocking, "Lock", InterruptedLock)
            with pytest.raises(KeyboardInterrupt):
                run._loop.call(update)
        run._loop.tell(cancelled.set)
        assert has_ended.wait(PATIENCE_S)
    assert did == ["shielded", "ended"]


def test_who_waits_for_the_end_when_another_closes_it_is_told_of_the_end() -> None:
    run = flowstream.open_sync(through())
    said: list[str] = []
    waits = threading.Event()

    async def wait() -> str:
        waits.set()
        await run._run.wait()
        return "ended"

    waiting = threading.Thread(target=lambda: said.append(run._loop.call(wait)), daemon=True)
    waiting.start()
    assert waits.wait(PATIENCE_S)
    run.close()
    waiting.join(PATIENCE_S)
    assert said == ["ended"]
    run._loop._thread = threading.get_ident()  # such a number is given again when the thread has ended
    with pytest.raises(EndedError, match="the run is closed"):
        run.status()


def test_what_is_posted_while_something_is_posted_is_no_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector may find frames that are to be closed, or a signal come, within a call."""
    did: list[str] = []
    with flowstream.open_sync(through()) as run:
        loop = run._loop
        soon = loop._soon

        def collected(function: Callable[[], object]) -> object:
            monkeypatch.setattr(loop, "_soon", soon)
            loop.tell(lambda: did.append("told"))
            return soon(function)

        monkeypatch.setattr(loop, "_soon", collected)
        assert run.status().state == "running"
    assert did == ["told"]


UNCLOSED = """
import flowstream
from flowstream import Graph

graph = Graph()
graph.add("app-out", id="out", from_=graph.add("app-in", id="in"))
run = flowstream.open_sync(graph)
run.on(flowstream.Applied, print)
print("running")
"""


def test_a_run_that_nobody_closes_does_not_keep_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNCLOSED], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "running\n", "")
