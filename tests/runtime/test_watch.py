"""A watched file: what is saved is applied or refused, and the last save wins."""

import shutil
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from flowstream.errors import Diagnostic, GraphError
from flowstream.graph.plan import Plan
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Applied, Event, Refused
from flowstream.runtime.reload import Reloader, Revisions, digest, in_thread_until, watch_folders
from flowstream.testing.clock import VirtualClock
from tests.runtime.parts import Keep, plan, run, run_real

pytestmark = pytest.mark.usefixtures("backend")


class Saves:
    """Stands for the file system: ``save`` writes the file and tells the watcher."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._told = anyio.Event()

    def save(self, text: str) -> None:
        self.file.write_text(text)
        self._told.set()

    async def watch(self, folders: frozenset[Path]) -> AsyncGenerator[None, None]:
        while True:
            await self._told.wait()
            self._told = anyio.Event()
            yield


def compiled(file: Path) -> Plan:
    """A plan of a file that says how much to add, or ``stuck``, or anything else for a mistake."""
    from dataclasses import replace

    text = file.read_text()
    if text == "stuck":
        made = plan(
            {"stuck": ("test/stuck", {}), "add": ("test/add", {}), "keep": ("test/keep", {})},
            {"add.numbers": "stuck.out", "keep.numbers": "add.sums"},
        )
    elif not text.lstrip("-").isdigit():
        raise GraphError([Diagnostic("FS999", "no number", f"{text!r} is no number")])
    else:
        made = plan(
            {"count": ("test/counter", {}), "add": ("test/add", {"add": int(text)}), "keep": ("test/keep", {})},
            {"add.numbers": "count.out", "keep.numbers": "add.sums"},
        )
    return replace(made, files=(str(file),), revision=text)


Main = Callable[[Engine, Saves, Reloader, list[Event]], Awaitable[None]]


def watching(tmp_path: Path, main: Main) -> None:
    """Runs ``main`` beside an engine that follows a file which begins as ``0``."""
    file = tmp_path / "graph.yaml"
    file.write_text("0")

    async def call(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        saves = Saves(file)

        def compile() -> Plan:
            return compiled(file)

        await engine.start(compile())
        reloader = Reloader(engine, compile, Revisions("0", "0"), clock=clock, watch=saves.watch)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reloader.run)
            await anyio.sleep(0.01)
            await main(engine, saves, reloader, events)
            tasks.cancel_scope.cancel()

    run(call)


def test_a_save_is_applied(tmp_path: Path) -> None:
    async def main(engine: Engine, saves: Saves, reloader: Reloader, events: list[Event]) -> None:
        saves.save("1000")
        await anyio.sleep(0.1)
        assert Keep.kept["keep"][-1] > 1000
        assert reloader.revisions == Revisions("1000", "1000")
        assert [type(event) for event in events] == [Applied]

    watching(tmp_path, main)


def test_a_broken_save_changes_nothing_and_both_revisions_are_known(tmp_path: Path) -> None:
    async def main(engine: Engine, saves: Saves, reloader: Reloader, events: list[Event]) -> None:
        running = engine.plan
        saves.save("nonsense")
        await anyio.sleep(0.1)
        assert engine.plan is running
        (event,) = events
        assert isinstance(event, Refused)
        assert event.diagnostics[0].code == "FS999"
        assert reloader.revisions.running == "0"
        assert reloader.revisions.file == await anyio.to_thread.run_sync(digest, [str(saves.file)])
        assert reloader.revisions.refused == "1 finding in the file"

    watching(tmp_path, main)


def test_mending_a_broken_save_clears_the_refusal_even_when_the_text_is_the_running_one(tmp_path: Path) -> None:
    async def main(engine: Engine, saves: Saves, reloader: Reloader, events: list[Event]) -> None:
        saves.save("nonsense")
        await anyio.sleep(0.1)
        saves.save("0")
        await anyio.sleep(0.1)
        assert reloader.revisions == Revisions("0", "0")
        assert [type(event) for event in events] == [Refused, Applied]

    watching(tmp_path, main)


def test_the_last_save_wins_while_an_earlier_one_is_still_being_prepared(tmp_path: Path) -> None:
    async def main(engine: Engine, saves: Saves, reloader: Reloader, events: list[Event]) -> None:
        saves.save("stuck")
        await anyio.sleep(5)
        saves.save("7")
        await anyio.sleep(0.1)
        assert reloader.revisions == Revisions("7", "7")
        assert engine.status()["add"].config["add"] == 7
        assert [type(event) for event in events] == [Applied]

    watching(tmp_path, main)


def test_saving_the_same_text_again_does_nothing(tmp_path: Path) -> None:
    async def main(engine: Engine, saves: Saves, reloader: Reloader, events: list[Event]) -> None:
        saves.save("0")
        await anyio.sleep(0.1)
        assert events == []

    watching(tmp_path, main)


def test_a_storm_of_saves_ends_with_the_last(tmp_path: Path) -> None:
    async def main(engine: Engine, saves: Saves, reloader: Reloader, events: list[Event]) -> None:
        for number in range(100):
            saves.save("broken" if number % 7 == 3 else str(number))
            await anyio.sleep(0.001 * (number % 3))
        await anyio.sleep(0.1)
        assert engine.status()["add"].config["add"] == 99
        assert reloader.revisions == Revisions("99", "99")

    watching(tmp_path, main)


def test_what_grows_beside_the_graph_does_not_hold_up_what_is_being_prepared(tmp_path: Path) -> None:
    async def main(engine: Engine, saves: Saves, reloader: Reloader, events: list[Event]) -> None:
        for _ in range(40):  # as a recording in the same folder makes the watcher speak
            saves.save("stuck")
            await anyio.sleep(1)
        (event,) = events
        assert isinstance(event, Refused)
        assert "was not ready within 30 s" in event.reason

    watching(tmp_path, main)


def test_a_file_that_is_gone_is_refused_with_its_name(tmp_path: Path) -> None:
    async def main(engine: Engine, saves: Saves, reloader: Reloader, events: list[Event]) -> None:
        saves.file.unlink()
        reloader.changed()
        await anyio.sleep(0.5)
        (event,) = events
        assert isinstance(event, Refused)
        assert "graph.yaml" in event.reason

    watching(tmp_path, main)


@pytest.mark.real
@pytest.mark.parametrize("way", ["in place", "rename"])
def test_the_real_watcher_sees_every_way_of_saving(tmp_path: Path, way: str) -> None:
    file = tmp_path / "graph.yaml"
    file.write_text("0")

    def save(text: str) -> None:
        if way == "rename":
            beside = tmp_path / "graph.yaml~"
            beside.write_text(text)
            beside.rename(file)
        else:
            file.write_text(text)

    async def main() -> None:
        seen = anyio.Event()

        async def watch() -> None:
            nonlocal seen
            async for _ in watch_folders(frozenset({tmp_path})):
                seen.set()

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch)
                for number in range(3):
                    seen = anyio.Event()
                    while not seen.is_set():  # the first save may come before the watcher is up
                        save(str(number))
                        with anyio.move_on_after(1):
                            await seen.wait()
                tasks.cancel_scope.cancel()

    run_real(main)


def test_what_watches_is_told_to_end_when_it_is_cancelled() -> None:
    stop = threading.Event()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(in_thread_until, stop, lambda: stop.wait(60))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    run_real(main)
    assert stop.is_set()


def test_what_watches_is_closed_when_it_is_left_while_the_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its thread and its handle of the system stay until somebody collects them as garbage."""
    looks, closed = anyio.Event(), []

    async def look(self: Reloader) -> None:
        looks.set()
        await anyio.sleep_forever()

    async def watch(folders: frozenset[Path]) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            closed.append(folders)

    monkeypatch.setattr(Reloader, "_look", look)

    async def call(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        file = tmp_path / "graph.yaml"
        await anyio.to_thread.run_sync(file.write_text, "0")
        await engine.start(compiled(file))
        async with anyio.create_task_group() as tasks:
            reloader = Reloader(engine, lambda: compiled(file), Revisions("0", "0"), clock=clock, watch=watch)
            tasks.start_soon(reloader.run)
            await looks.wait()
            assert closed == []
            tasks.cancel_scope.cancel()
        assert closed == [frozenset([tmp_path])]

    run(call)


def test_files_in_other_folders_are_watched_once_a_save_includes_them(tmp_path: Path) -> None:
    """Also those of a save that was refused: mending the included file is a save."""
    from dataclasses import replace

    file, part = tmp_path / "graph.yaml", tmp_path / "parts" / "part.yaml"
    part.parent.mkdir()
    file.write_text("0")
    watched: list[frozenset[Path]] = []
    told: list[anyio.Event] = []

    async def watch(folders: frozenset[Path]) -> AsyncGenerator[None, None]:
        watched.append(folders)
        while True:
            told.append(anyio.Event())
            await told[-1].wait()
            yield

    def compile() -> Plan:
        if file.read_text() != "part":
            return compiled(file)
        files = (str(file), str(part))
        try:
            return replace(compiled(part), files=files)
        except GraphError as error:
            raise GraphError(error.diagnostics, files=files) from error

    async def call(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        async def save(where: Path, text: str) -> None:
            await anyio.to_thread.run_sync(where.write_text, text)
            told[-1].set()
            await anyio.sleep(0.1)

        await engine.start(compile())
        reloader = Reloader(engine, compile, Revisions("0", "0"), clock=clock, watch=watch)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reloader.run)
            await anyio.sleep(0.01)
            await save(part, "nonsense")  # not among the files yet
            assert events == []
            await save(file, "part")
            assert [type(event) for event in events] == [Refused]
            assert watched == [frozenset([tmp_path]), frozenset([tmp_path, part.parent])]
            await save(part, "2000")
            assert [type(event) for event in events] == [Refused, Applied]
            assert Keep.kept["keep"][-1] > 2000
            await save(part, "3000")
            assert Keep.kept["keep"][-1] > 3000
            await save(file, "7")
            assert watched[-1] == frozenset([tmp_path])
            tasks.cancel_scope.cancel()

    run(call)


def test_a_folder_that_is_missing_goes_away_or_comes_back_is_followed(tmp_path: Path) -> None:
    """The run goes on meanwhile, also when the folder goes away just before it would have been watched."""
    from dataclasses import replace

    file, part = tmp_path / "graph.yaml", tmp_path / "parts" / "deep" / "part.yaml"
    file.write_text("0")
    watched: list[frozenset[Path]] = []
    told: list[anyio.Event] = []
    is_late = [False]

    async def watch(folders: frozenset[Path]) -> AsyncGenerator[None, None]:
        if is_late[0]:
            is_late[0] = False
            raise FileNotFoundError("No path was found.")
        watched.append(folders)
        while True:
            told.append(anyio.Event())
            await told[-1].wait()
            yield

    def compile() -> Plan:
        if file.read_text() != "part":
            return compiled(file)
        files = (str(file), str(part))
        if not part.exists():
            raise GraphError([Diagnostic("FS130", "file not found", str(part))], files=files)
        return replace(compiled(part), files=files)

    async def call(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        async def does(*calls: Callable[[], object]) -> None:
            for each in calls:
                await anyio.to_thread.run_sync(each)
            told[-1].set()
            await anyio.sleep(1)

        await engine.start(compile())
        reloader = Reloader(engine, compile, Revisions("0", "0"), clock=clock, watch=watch)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reloader.run)
            await anyio.sleep(0.01)
            await does(lambda: file.write_text("part"))
            assert [type(event) for event in events] == [Refused]
            assert watched == [frozenset([tmp_path])]
            await does(part.parent.parent.mkdir)
            assert watched[-1] == frozenset([tmp_path, part.parent.parent])
            is_late[0] = True
            await does(part.parent.mkdir, lambda: part.write_text("2000"))
            assert watched[-1] == frozenset([tmp_path, part.parent])
            assert [type(event) for event in events] == [Refused, Applied]
            await does(lambda: shutil.rmtree(part.parent))
            assert watched[-1] == frozenset([tmp_path, part.parent.parent])
            assert [type(event) for event in events] == [Refused, Applied, Refused]
            await does(part.parent.mkdir, lambda: part.write_text("3000"))
            assert watched[-1] == frozenset([tmp_path, part.parent])
            assert Keep.kept["keep"][-1] > 3000
            tasks.cancel_scope.cancel()

    run(call)
