"""What people save: graphs with their parts, layers, node sources and links; whole, in place, twice, half-way."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from flowstream.control.files import GraphFile
from flowstream.graph.plan import Plan
from flowstream.runtime import reload as reload_module
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Applied, Event, Refused
from flowstream.runtime.reload import Reloader, Revisions, digest, folders_of, watch_folders, watching
from flowstream.testing.clock import VirtualClock
from tests.runtime.parts import Hold, Keep, run, run_real

pytestmark = pytest.mark.usefixtures("backend")

SOURCE = '''
from tests.runtime.parts import {base}


class {name}({base}, type="acme/{id}"):
    """Is {base} under development."""
{more}
'''

GRAPH = """
nodes:
  count: {type: acme/count}
  add: {type: acme/add, from: count, add: 100}
  keep: {type: acme/keep, from: add}
"""


def source(base: str, id: str, more: str = "") -> str:
    return SOURCE.format(base=base, name=f"My{base}", id=id, more=more)


class Desk:
    """A folder with a graph, a part and node sources; ``save`` is what an editor does."""

    def __init__(self, folder: Path, clock: VirtualClock) -> None:
        self.folder = folder
        self.clock = clock
        self.watched: list[frozenset[Path]] = []
        self._told = anyio.Event()
        self.write("acme/count.py", source("Counter", "count"))
        self.write("acme/add.py", source("Add", "add"))
        self.write("acme/keep.py", source("Keep", "keep"))
        self.write("acme/hold.py", source("Hold", "hold"))
        self.write("graph.yaml", GRAPH)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def tell(self) -> None:
        self._told.set()

    async def save(self, name: str, text: str) -> None:
        await self.write_in_thread(name, text)
        self.tell()
        await anyio.sleep(0.1)

    async def write_in_thread(self, name: str, text: str) -> None:
        self.clock.hold()  # else it may move on to when an empty file counts, while the thread writes
        try:
            await anyio.to_thread.run_sync(self.write, name, text)
        finally:
            self.clock.release()

    async def watch(self, folders: frozenset[Path]) -> AsyncGenerator[None, None]:
        self.watched.append(folders)
        while True:
            await self._told.wait()
            self._told = anyio.Event()
            yield


Main = Callable[[Engine, Desk, Reloader, list[Event]], Awaitable[None]]


def at_desk(
    tmp_path: Path, main: Main, *, layers: tuple[str, ...] = (), before: Callable[[Desk], None] | None = None
) -> None:
    """Runs ``main`` beside an engine that follows the graph of a desk."""

    async def call(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        desk = Desk(tmp_path, clock)
        if before is not None:
            before(desk)
        file = GraphFile(
            str(tmp_path / "graph.yaml"),
            folders=(tmp_path / "acme",),
            layers=tuple(str(tmp_path / each) for each in layers),
        )
        plan = await anyio.to_thread.run_sync(file.compile)
        await engine.start(plan)
        reloader = Reloader(
            engine, file.compile, Revisions(plan.revision, plan.revision), clock=clock, watch=desk.watch
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reloader.run)
            await anyio.sleep(0.05)
            await main(engine, desk, reloader, events)
            tasks.cancel_scope.cancel()

    run(call)


def kinds(events: list[Event]) -> list[type]:
    return [type(event) for event in events]


def actions(event: Event) -> dict[str, str]:
    assert isinstance(event, Applied), event
    return {each.node: each.action for each in event.patch.changes}


# --- node types under development -------------------------------------------------------------------------------------


def test_an_edited_node_source_replaces_its_nodes_and_nothing_else(tmp_path: Path) -> None:
    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        count, keep = engine.runners["count"], engine.runners["keep"]
        doubled = "\n    def process(self, item):\n        yield self.sums(type(item)(item.value * 2, item.time_ns))\n"
        await desk.save("acme/add.py", source("Add", "add", doubled))
        assert actions(events[0]) == {"count": "keep", "add": "replace", "keep": "keep"}
        assert (engine.runners["count"], engine.runners["keep"]) == (count, keep)
        values = [value for value in Keep.kept["keep"] if value >= 0]
        turn = next(n for n, value in enumerate(values) if value != 100 + n)
        assert values[turn:] == [2 * (turn + n) for n in range(len(values) - turn)]

    at_desk(tmp_path, main)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def broken(:", "invalid syntax"),
        ("import no_such_thing", "No module named 'no_such_thing'"),
        (source("Add", "add", "    process = 3\n"), "add"),
    ],
)
def test_a_node_source_that_does_not_load_is_refused_and_mending_it_is_a_save(
    tmp_path: Path, text: str, reason: str
) -> None:
    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        runners = dict(engine.runners)
        await desk.save("acme/add.py", text)
        (refused,) = events
        assert isinstance(refused, Refused)
        told = refused.reason + " ".join(f"{each.message} {each.title}" for each in refused.diagnostics)
        assert reason in told
        assert engine.runners == runners
        await desk.save("acme/add.py", source("Add", "add", "\n    mended = True\n"))
        assert kinds(events) == [Refused, Applied]
        assert engine.runners["add"].node.mended  # type: ignore[attr-defined]

    at_desk(tmp_path, main)


def test_a_node_source_that_is_new_in_the_folder_is_a_save(tmp_path: Path) -> None:
    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        await desk.save("graph.yaml", GRAPH.replace("acme/add", "acme/sum"))
        assert kinds(events) == [Refused]
        await desk.save("acme/sum.py", source("Add", "sum"))
        assert kinds(events) == [Refused, Applied]
        assert engine.status()["add"].type == "acme/sum"

    at_desk(tmp_path, main)


# --- parts, layers, names ---------------------------------------------------------------------------------------------

PART = """
inputs: {numbers: add.numbers}
outputs: {sums: add.sums}
vars: {more: 100}
nodes:
  add: {type: acme/add, add: $(more)}
"""

WITH_PART = """
nodes:
  count: {type: acme/count}
  part: {use: part.yaml, from: count}
  keep: {type: acme/keep, from: part.sums}
"""


def test_an_edited_part_is_a_save(tmp_path: Path) -> None:
    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        desk.write("parts/part.yaml", PART)
        await desk.save("graph.yaml", WITH_PART.replace("part.yaml", "parts/part.yaml"))
        assert actions(events[0]) == {"count": "keep", "part/add": "add", "keep": "rewire", "add": "remove"}
        await desk.save("parts/part.yaml", PART.replace("100", "2000"))
        assert actions(events[1]) == {"count": "keep", "part/add": "update", "keep": "keep"}
        assert Keep.kept["keep"][-1] > 2000
        await desk.save("parts/part.yaml", PART.replace("sums: add", "sums: ad"))
        assert kinds(events) == [Applied, Applied, Refused]

    at_desk(tmp_path, main)


def test_an_edited_layer_is_a_save(tmp_path: Path) -> None:
    def write(desk: Desk) -> None:
        desk.write("over.yaml", "nodes: {add: {add: 1000}}")

    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        assert engine.status()["add"].config["add"] == 1000
        await desk.save("over.yaml", "nodes: {add: {add: 2000}}")
        assert actions(events[0]) == {"count": "keep", "add": "update", "keep": "keep"}
        await desk.save("over.yaml", "nodes: {add: null, keep: {from: count}}")
        assert actions(events[1]) == {"count": "keep", "keep": "rewire", "add": "remove"}

    at_desk(tmp_path, main, layers=("over.yaml",), before=write)


HELD = """
nodes:
  count: {type: acme/count}
  hold: {type: acme/hold, from: count}
"""

HELD_IN_PART = """
nodes:
  count: {type: acme/count}
  group: {use: part.yaml, from: count}
"""


def test_a_node_that_moves_into_a_part_and_out_again_is_the_same_node(tmp_path: Path) -> None:
    def write(desk: Desk) -> None:
        desk.write("graph.yaml", HELD)
        desk.write("part.yaml", "inputs: {numbers: hold.numbers}\nnodes:\n  hold: {type: acme/hold, was: /hold}\n")

    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        runner = engine.runners["hold"]
        await desk.save("graph.yaml", HELD_IN_PART)
        assert engine.runners["group/hold"] is runner
        await desk.save("part.yaml", "inputs: {numbers: page.numbers}\nnodes:\n  page: {type: acme/hold, was: hold}\n")
        assert engine.runners["group/page"] is runner
        await desk.save("part.yaml", "inputs: {numbers: page.numbers}\nnodes:\n  page: {type: acme/hold}\n")
        await desk.save("graph.yaml", HELD_IN_PART.replace("group: {", "crowd: {was: group, "))
        assert engine.runners["crowd/page"] is runner
        await desk.save("graph.yaml", HELD.replace("acme/hold", "acme/hold, was: crowd/page"))
        assert engine.runners["hold"] is runner
        assert kinds(events) == [Applied] * 5
        assert Hold.log.count("open") == 1

    at_desk(tmp_path, main, before=write)


# --- how editors write ------------------------------------------------------------------------------------------------


def test_a_file_that_is_emptied_and_then_written_is_one_save(tmp_path: Path) -> None:
    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        await desk.save("graph.yaml", "")
        assert events == []
        await desk.save("graph.yaml", GRAPH.replace("100", "500"))
        await anyio.sleep(0.5)
        assert kinds(events) == [Applied]
        assert engine.status()["add"].config["add"] == 500

    at_desk(tmp_path, main)


def test_a_file_that_stays_empty_is_refused(tmp_path: Path) -> None:
    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        await desk.save("graph.yaml", "")
        await anyio.sleep(0.5)
        assert kinds(events) == [Refused]

    at_desk(tmp_path, main)


def test_a_save_is_not_missed_that_comes_while_the_one_before_is_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a part that belongs to the graph only by what is being applied."""
    apply, hold = Engine.apply, [anyio.Event()]

    async def slowly(self: Engine, plan: Plan) -> Any:
        await hold[0].wait()
        return await apply(self, plan)

    monkeypatch.setattr(Engine, "apply", slowly)

    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        hold[0] = anyio.Event()
        await desk.save("graph.yaml", WITH_PART)
        assert events == []
        await desk.write_in_thread("part.yaml", PART.replace("100", "2000"))  # nobody has seen it yet
        hold[0].set()
        await anyio.sleep(0.1)
        assert engine.status()["part/add"].config["add"] == 100
        desk.tell()
        await anyio.sleep(0.1)
        assert engine.status()["part/add"].config["add"] == 2000
        assert kinds(events) == [Applied, Applied]

    at_desk(tmp_path, main, before=lambda desk: desk.write("part.yaml", PART))


def test_the_last_save_wins_while_what_was_replaced_still_finishes(tmp_path: Path) -> None:
    slow = "\n    async def close(self):\n        await anyio.sleep(2)\n"
    text = "import anyio\n" + source("Add", "add", slow)

    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        for number in (500, 600, 700):
            await desk.save("graph.yaml", GRAPH.replace("add: 100", f"add: {number}, kind: k{number}"))
            assert engine.state == "running"
            assert sum(runner.planned.id == "add" for runner in engine.ensemble.alive) > 1, "older ones end still"
        await anyio.sleep(20)
        assert kinds(events) == [Applied] * 3
        assert [runner.node.config.add for runner in engine.ensemble.alive if runner.planned.id == "add"] == [700]
        assert Keep.kept["keep"][-1] > 700

    at_desk(tmp_path, main, before=lambda desk: desk.write("acme/add.py", text))


def test_a_save_while_the_graph_drains_is_refused(tmp_path: Path) -> None:
    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.stop)
            await anyio.lowlevel.checkpoint()
            await desk.save("graph.yaml", GRAPH.replace("100", "500"))
        (refused,) = events
        assert isinstance(refused, Refused)
        assert refused.reason == "the graph is not running"

    at_desk(tmp_path, main)


# --- links and mounts -------------------------------------------------------------------------------------------------


def config_map(folder: Path, number: int, text: str) -> None:
    """What Kubernetes does when a ConfigMap that is mounted changes."""
    data = folder / f"..2026_{number}"
    data.mkdir(parents=True)
    (data / "graph.yaml").write_text(text)
    link = folder / "..data_tmp"
    link.symlink_to(data.name)
    link.rename(folder / "..data")
    if not (folder / "graph.yaml").is_symlink():
        (folder / "graph.yaml").symlink_to("..data/graph.yaml")
    old = folder / f"..2026_{number - 1}"
    if old.is_dir():
        (old / "graph.yaml").unlink()
        old.rmdir()


def test_the_folders_of_every_link_on_the_way_to_a_file_are_watched(tmp_path: Path) -> None:
    config_map(tmp_path / "map", 1, "0")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "graph.yaml").symlink_to("../map/graph.yaml")
    found = {folder.resolve() for folder in folders_of([str(tmp_path / "here" / "graph.yaml")])}
    assert found == {tmp_path / "here", tmp_path / "map", tmp_path / "map" / "..2026_1"}
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert folders_of([str(tmp_path / "a")])  # it comes to an end
    assert set(folders_of([str(tmp_path / "gone" / "deep" / "graph.yaml")])) == {tmp_path}


@pytest.mark.real
@pytest.mark.parametrize("mode", ["on", "poll"])
def test_a_swapped_link_is_seen(tmp_path: Path, mode: reload_module.WatchMode) -> None:
    config_map(tmp_path, 1, "1")
    file = str(tmp_path / "graph.yaml")

    async def main() -> None:
        seen: list[str] = []

        async def follow() -> None:
            while True:
                folders = frozenset(await anyio.to_thread.run_sync(folders_of, [file]))
                async with aclosing(watching(mode)(folders)) as changes:
                    async for _ in changes:
                        found = await anyio.to_thread.run_sync(digest, [file])
                        if [found] != seen[-1:]:
                            seen.append(found)
                            break

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                for number in range(2, 5):
                    while len(seen) < number - 1:  # noqa: ASYNC110 - the file system tells nobody else
                        await anyio.sleep(0.02)
                    await anyio.to_thread.run_sync(config_map, tmp_path, number, str(number))
                while len(seen) < 4:  # noqa: ASYNC110
                    await anyio.sleep(0.02)
                tasks.cancel_scope.cancel()

    run_real(main)


def test_watching_that_is_off_says_nothing_and_a_reload_that_is_asked_for_is_made(tmp_path: Path) -> None:
    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        async with anyio.create_task_group() as tasks:
            other = Reloader(engine, reloader.compile, reloader.revisions, clock=reloader.clock, watch=watching("off"))
            tasks.start_soon(other.run)
            await anyio.sleep(0.05)
            await desk.write_in_thread("graph.yaml", GRAPH.replace("100", "500"))
            await anyio.sleep(5)
            assert events == []
            other.changed()
            await anyio.sleep(0.5)
            assert kinds(events) == [Applied]
            tasks.cancel_scope.cancel()

    assert watching("on") is watch_folders
    at_desk(tmp_path, main)
