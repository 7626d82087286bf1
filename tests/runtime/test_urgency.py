"""Threads that work on pictures give way, so that encoding starves neither sound nor the event loop."""

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

import flowstream
from flowstream import Graph
from flowstream.runtime.clock import SystemClock
from flowstream.runtime.executor import GIVES_WAY_BY, NodeThread
from flowstream.runtime.runner import works_on_pictures
from flowstream_nodes.codec.decode import Decode
from flowstream_nodes.codec.hw_encode import HwEncode
from flowstream_nodes.codec.opus_encode import OpusEncode
from flowstream_nodes.record.recorder import Recorder
from flowstream_nodes.synth.test_pattern import TestPattern
from flowstream_nodes.video.scale import Scale

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
PATIENCE_S = 30


def nice_of(native_id: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, native_id)


def native_ids() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/task")}


@contextmanager
def on_one_processor() -> Iterator[None]:
    """The calling thread, and those that it starts, have one processor between them."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def graph(*, size: str, fps: int, **encoder: Any) -> Graph:
    """Pictures and sound, each encoded and counted."""
    made = Graph()
    pattern = made.add("test-pattern", id="pattern", size=size, fps=fps)
    encode = made.add("hw-encode", id="encode", from_=pattern, **encoder)
    made.add("discard", id="shown", from_=encode)
    voice = made.add("opus-encode", id="voice", from_=made.add("tone", id="tone"))
    made.add("discard", id="heard", from_=voice)
    return made


async def until(condition: Callable[[], object]) -> None:
    for _ in range(PATIENCE_S * 100):
        if condition():
            return
        await anyio.sleep(0.01)
    pytest.fail(f"not within {PATIENCE_S} s")


def test_what_works_on_pictures_is_told_by_its_ports() -> None:
    types = (HwEncode, Decode, Scale, OpusEncode, Recorder, TestPattern)
    assert [each for each in types if works_on_pictures(each)] == [HwEncode, Decode, Scale]


@on_linux
def test_an_encoder_and_the_threads_of_its_library_are_less_urgent_than_all_others() -> None:
    async def main() -> None:
        usual = nice_of(0)
        before = native_ids()
        async with flowstream.open(graph(size="640x360", fps=30, bitrate="500k", threads=4), serve=False) as run:
            await until(lambda: run.status().nodes["shown"].received > 3 and run.status().nodes["heard"].received > 3)
            known = {thread.native_id or 0: thread.name for thread in threading.enumerate()}
            nice = {name: nice_of(id) for id, name in known.items() if name.startswith("flowstream ")}
            of_libraries = [nice_of(id) for id in native_ids() - before - known.keys()]
        less = min(usual + GIVES_WAY_BY, 19)
        assert nice == {
            "flowstream watchdog": usual, "flowstream pattern": usual, "flowstream voice": usual,
            "flowstream encode": less,
        }  # fmt: skip
        assert of_libraries.count(less) >= 3  # of x264, which encodes slices on the thread that gives it a picture too
        assert set(of_libraries) <= {less, usual}
        assert nice_of(0) == usual

    anyio.run(main)


@on_linux
def test_where_both_want_a_processor_the_one_that_gives_way_gets_the_smaller_part() -> None:
    data = bytes(1 << 20)
    stop = threading.Event()

    def work() -> float:
        while not stop.is_set():
            hashlib.sha256(data).digest()  # without Python's lock
        return time.thread_time()

    async def main() -> None:
        used: dict[bool, float] = {}
        with on_one_processor():
            threads = {gives: NodeThread("work", SystemClock(), print, gives_way=gives) for gives in (False, True)}

        async def share(gives: bool) -> None:
            used[gives] = await threads[gives].call(work)

        async with anyio.create_task_group() as tasks:
            for gives in threads:
                tasks.start_soon(share, gives)
            await anyio.sleep(1)
            stop.set()
        for thread in threads.values():
            thread.end()
            assert await thread.join(PATIENCE_S)
        assert used[False] > 1.5 * used[True] > 0

    anyio.run(main)


def test_no_sound_is_lost_beside_an_encoder_that_takes_all_there_is() -> None:
    async def main() -> None:
        flooded = graph(size="1280x720", fps=120, bitrate="8M", speed="medium")
        async with flowstream.open(flooded, serve=False) as run:
            await until(lambda: run.status().nodes["heard"].received > 100)
            nodes = run.status().nodes
        assert sum(nodes["encode"].dropped.values()) + int(nodes["pattern"].facts.get("skipped") or 0) > 10
        assert not sum(nodes["voice"].dropped.values()) + sum(nodes["heard"].dropped.values())
        assert not nodes["tone"].facts.get("skipped")

    with on_one_processor():
        anyio.run(main)
