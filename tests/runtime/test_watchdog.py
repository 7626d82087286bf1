"""For whom the event loop works right now, as another thread sees it."""

import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

import flowstream
from flowstream import Context, Emit, Input, KeyframeRequest, Node, Output, Record
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Event
from flowstream.runtime.watchdog import Watchdog, work_for, working_for
from tests.runtime import parts
from tests.runtime.parts import Add, AddConfig, plan, run_real

pytestmark = pytest.mark.usefixtures("backend")


def from_another_thread(function: Callable[[], Any]) -> Any:
    """What a function gives on a thread, while the caller waits and lets nobody else go on."""
    given: list[Any] = []
    thread = threading.Thread(target=lambda: given.append(function()))
    thread.start()
    while thread.is_alive():
        pass  # to wait for it would be taken for a mistake of the one who waits
    return given[0]


class Asking(Add, type="test/asking"):
    """Asks in whatever is called of it for whom the loop works."""

    engine: ClassVar[Engine]
    told: ClassVar[dict[str, str | None]] = {}

    def ask(self, where: str) -> None:
        runner = from_another_thread(Asking.engine.at_work)
        Asking.told.setdefault(f"{self.ctx.name}.{where}", None if runner is None else runner.planned.id)

    def open(self) -> None:
        self.ask("open")

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        self.ask("process")
        return super().process(item)

    async def accepts(self, config: AddConfig) -> None:
        self.ask("accepts")
        await anyio.sleep(0.001)
        self.ask("accepts later")

    async def reconfigured(self, old: AddConfig) -> None:
        self.ask("reconfigured")
        await anyio.sleep(0.001)
        self.ask("reconfigured later")

    def requested(self, port: str, signal: KeyframeRequest) -> None:
        self.ask("requested")

    def close(self) -> None:
        self.ask("close")


class AskingThread(Asking, type="test/asking-thread"):
    """The same on a thread, unless inline."""

    thread = True

    def accepts(self, config: AddConfig) -> None:  # type: ignore[override]
        pass

    def reconfigured(self, old: AddConfig) -> None:  # type: ignore[override]
        pass


class AskingTasks(Node, type="test/asking-tasks"):
    """Asks in a task that it has started, and in one of what it holds."""

    numbers = Input(Record)
    sums = Output(Record)
    serve: ClassVar[Callable[[Any], Awaitable[None]]]

    async def run(self, ctx: Context) -> None:
        def ask(where: str) -> None:
            runner = from_another_thread(Asking.engine.at_work)
            Asking.told[f"{ctx.name}.{where}"] = None if runner is None else runner.planned.id

        async def work(where: str) -> None:
            await anyio.sleep(0.001)
            ask(where)

        @asynccontextmanager
        async def session(holding: Any) -> AsyncIterator[Any]:
            holding.start_soon(work, "held")
            yield holding

        async with ctx.hold("session", session) as holding, anyio.create_task_group() as tasks:
            ctx.ready()
            tasks.start_soon(work, "task")
            async with ctx.mount(lambda scope, receive, send: work("mounted")):
                mount = Asking.engine.mounts.find(f"/{ctx.name}/")
                assert mount is not None
                await AskingTasks.serve(mount.app)
            holding.start_soon(work, "held from here")
            async for _ in ctx.stream(self.numbers):
                ask("run")


@pytest.fixture(autouse=True)
def types(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (Asking, AskingThread, AskingTasks):
        monkeypatch.setitem(parts.TYPES, each.type_id, each)
    monkeypatch.setattr(Asking, "told", {})


def asking(type_id: str, **config: Any) -> Any:
    return plan(
        {"count": ("test/counter", {"count": 3}), "first": (type_id, config), "then": ("test/asking", {})},
        {"first.numbers": "count.out", "then.numbers": "first.sums"},
    )


def test_whatever_is_called_of_a_node_on_the_loop_is_its_work() -> None:
    async def main() -> None:
        async with Engine.open() as engine:
            Asking.engine = engine
            await engine.start(asking("test/asking"))
            await engine.apply(asking("test/asking", add=1))
            engine.runners["then"].request("numbers", KeyframeRequest())
            await engine.wait()
            assert from_another_thread(engine.at_work) is None
        assert all(told == where.partition(".")[0] for where, told in Asking.told.items())
        called = {where.partition(".")[2] for where in Asking.told}
        assert called == {
            "open", "process", "accepts", "accepts later", "reconfigured", "reconfigured later", "requested", "close",
        }  # fmt: skip

    run_real(main)


def test_inline_so_is_what_it_does_on_its_thread() -> None:
    async def main() -> None:
        async with Engine.open(is_inline=True) as engine:
            Asking.engine = engine
            await engine.start(asking("test/asking-thread"))
            await engine.wait()
        assert {where: told for where, told in Asking.told.items() if where.startswith("first")} == {
            "first.open": "first",
            "first.process": "first",
            "first.close": "first",
        }
        assert Asking.told["then.process"] == "then"

    run_real(main)


def test_a_nodes_own_tasks_are_its_work_and_those_of_what_it_holds_nobodys() -> None:
    async def main() -> None:
        async with anyio.create_task_group() as server, Engine.open() as engine:

            async def serve(app: Any) -> None:
                """In a task that is none of the node's."""
                served = anyio.Event()

                async def call() -> None:
                    work_for(None)
                    await app({}, None, None)
                    served.set()

                server.start_soon(call)
                await served.wait()

            Asking.engine = engine
            AskingTasks.serve = serve
            await engine.start(asking("test/asking-tasks"))
            await engine.wait()
        assert Asking.told["first.run"] == Asking.told["first.task"] == Asking.told["first.mounted"] == "first"
        assert Asking.told["first.held"] is Asking.told["first.held from here"] is None

    run_real(main)


class Somebody:
    """Whom a loop may work for."""


def test_the_innermost_visit_counts_before_the_task() -> None:
    async def main() -> None:
        task, another, outer, inner = (Somebody() for _ in range(4))
        visits: list[Somebody] = []
        watchdog = Watchdog(lambda whom, held_ns: None, visits)

        def who() -> Any:
            return from_another_thread(watchdog.who)

        try:
            assert who() is None
            work_for(task)
            assert who() is task
            with working_for(another):
                assert who() is another
                visits += [outer, inner]
                assert who() is inner
                visits.clear()
            assert who() is task
            watchdog.stop()
            assert who() is task, "what does not end is still to be named"
            del task
            gc.collect()
            assert who() is None, "a context keeps nobody"
        finally:
            watchdog.stop()
            watchdog.close()

    run_real(main)


def test_of_two_engines_on_a_loop_each_tells_of_its_own_nodes() -> None:
    async def main() -> None:
        async with Engine.open() as other, Engine.open() as engine:
            events: list[Event] = []
            other.listen(events.append)
            Asking.engine = other
            await engine.start(asking("test/asking"))
            runner = engine.runners["first"]
            await engine.wait()
            other.node_was_slow(runner, 10**9)
            assert events == []
        assert set(Asking.told.values()) == {None}

    run_real(main)


def test_frames_of_other_threads_are_not_looked_at() -> None:
    """Python 3.11 does not survive it, see the module."""
    for path in Path(flowstream.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert "_current_frames" not in text, path
        assert "f_locals" not in text, path
