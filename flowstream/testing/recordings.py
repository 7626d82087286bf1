"""Recordings in tests: what they hold as a node's input, runs that make them, and runs held against them.

::

    def test_the_bug_is_gone(tmp_path):
        record_graph("graph.yaml", ["encode"], tmp_path / "now.fsrec", replay={"camera": "bug.fsrec"})
        assert_recorded(tmp_path / "now.fsrec", "good.fsrec", "encode.packets")

    def test_the_node_alone(harness):
        harness(Overlay).play(*gives("bug.fsrec", "camera.video"), Expect("11s", emitted=300))
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from flowstream.graph.diagnostics import listed
from flowstream.media.recording import Arrived, Contents, Header, Lost, Reader, RecordingError, difference
from flowstream.node.ports import Input
from flowstream.runtime.clock import Clock
from flowstream.runtime.engine import Engine
from flowstream.runtime.recording import Recorder
from flowstream.runtime.replay import contents_of, open_file, replays_of
from flowstream.testing.clock import run_virtual
from flowstream.testing.script import Give

if TYPE_CHECKING:
    from flowstream.graph.plan import Plan

Path_ = str | os.PathLike[str]

MOST_BYTES = 1024 * 1024 * 1024
"""How much a run in a test may record."""


def payloads_of(path: Path_, what: str = "") -> list[Any]:
    """The payloads of one output of a recording (``camera.video``), in order; of the only one where none is named.

    ``capture_ns`` counts from the beginning of the recording. Raises RecordingError for a file that is none, is cut
    off, or has no such output.
    """
    return [each.payload() for each in items_of(path, what)]


def gives(path: Path_, what: str = "", port: str | Input[Any] | None = None) -> list[Give]:
    """Steps of a script that give a node what a recording has of one output, when it came then; the first at once.

    ``port`` is the input, which may be left out when there is one. Raises as ``payloads_of``.
    """
    items = items_of(path, what)
    return [Give(each.at_ns - items[0].at_ns, each.payload(), port) for each in items]


def items_of(path: Path_, what: str = "") -> list[Arrived]:
    """The same, as they stand in the file."""
    with open_file(os.fspath(path)) as file:
        return _items(Reader(file.read, os.fspath(path)), what, os.fspath(path))


def _items(reader: Reader, what: str, name: str, *, is_growing: bool = False) -> list[Arrived]:
    source = _source(reader.header, what, name)
    found: list[Arrived] = []
    for item in reader:
        if isinstance(item, Lost) and item.stream.source == source:
            raise RecordingError(f"{name} is not exact: {item.count} of {source} were lost ({item.cause})")
        if isinstance(item, Arrived) and item.stream.source == source:
            found.append(item)
    if reader.problem and not is_growing:
        raise RecordingError(f"{name}: {reader.problem}")
    return found


def _source(header: Header, what: str, name: str) -> str:
    """The output that is meant, by its own name or by what it was asked for as."""
    known = [stream.source for stream in header.streams]
    if not what and len(known) == 1:
        return known[0]
    for stream in header.streams:
        if what in (stream.source, stream.name):
            return stream.source
    said = f"has nothing of {what}" if what else "has several outputs, so one has to be named"
    raise RecordingError(f"{name} {said}", hint=f"it has {listed(known)}")


def record_graph(
    graph: Path_,
    what: Sequence[str],
    path: Path_,
    *,
    replay: Mapping[str, Path_] | None = None,
    sets: Mapping[str, str] | None = None,
    layers: Iterable[Path_] = (),
    nodes: Iterable[Path_] = (),
    seconds: float | None = None,
) -> Contents:
    """Runs a graph's file in virtual time, to its end or for so many seconds, and records outputs of it to a file.

    ``what`` are outputs, edges or nodes as for ``flowstream record``, from the first payload on; ``replay`` has
    recordings in the place of nodes, each taken as fast as it goes. ``nodes`` are folders with node types. Gives what
    was recorded. Raises GraphError, NodeError, RecordingError, TapError.
    """
    from flowstream.control.files import GraphFile
    from flowstream.graph.replays import require_replays

    replays = replays_of([f"{node}={os.fspath(each)}" for node, each in (replay or {}).items()], "max")
    file = GraphFile(
        os.fspath(graph), tuple(Path(each) for each in nodes), sets or {},
        layers=tuple(os.fspath(each) for each in layers), replays=replays,
    )  # fmt: skip
    plan = file.compile()
    require_replays(plan, replays)
    run_virtual(lambda clock: _record(plan, what, Path(path), seconds, clock))
    return contents_of(os.fspath(path))


async def _record(plan: Plan, what: Sequence[str], path: Path, seconds: float | None, clock: Clock) -> None:
    async with Engine.open(clock=clock) as engine:
        await engine.start(plan)
        with Recorder(engine, what, as_is=True) as recorder, path.open("wb") as file:
            await recorder.write(file, seconds=seconds, max_bytes=MOST_BYTES)
        await engine.stop()  # what lies behind the recorded outputs takes what has come, and finishes its files
        if engine.failures:
            raise engine.failures[0]


def assert_recorded(found: Path_, wanted: Path_, what: str = "") -> None:
    """Raises AssertionError when an output has not given the same in two recordings, with the first difference.

    Media times, caps, flags and every byte count; when something came, or was captured, does not.
    """
    if said := difference(items_of(found, what), items_of(wanted, what)):
        raise AssertionError(f"{what or os.fspath(found)} is not as in {os.fspath(wanted)}: {said}")


class Watched:
    """What some outputs of a graph that runs have given so far."""

    def __init__(self, settled: Callable[[], Awaitable[None]]) -> None:
        self._settled: Callable[[], Awaitable[None]] = settled
        self._file: bytearray = bytearray()

    def add(self, data: bytes) -> None:
        """More of the recording has come."""
        self._file += data

    async def items(self, what: str) -> list[Arrived]:
        """All that has come so far of one of them."""
        await self._settled()
        begin = 0

        def read(count: int) -> bytes:
            nonlocal begin
            begin += count
            return bytes(self._file[begin - count : begin])

        return _items(Reader(read), what, "what was recorded", is_growing=True)


async def _gather(watched: Watched, recorder: Recorder) -> None:
    async with aclosing(recorder.pieces(max_bytes=MOST_BYTES)) as made:
        async for pieces in made:
            watched.add(b"".join(pieces))


@asynccontextmanager
async def watching(engine: Engine, outputs: Sequence[str]) -> AsyncIterator[Watched]:
    """Records outputs while the block lasts, from now on. Raises TapError when there is no such output."""
    if not outputs:
        yield Watched(anyio.lowlevel.checkpoint)
        return
    with Recorder(engine, outputs, as_is=True) as recorder:
        watched = Watched(recorder.settled)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_gather, watched, recorder)
            yield watched
            tasks.cancel_scope.cancel()
