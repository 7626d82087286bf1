"""A fault in every step of the life of every kind of node, at the start, at a reload, at the stop.

Whatever it is: it is over in bounded time, somebody is told, a reload that fails changes nothing, and a chain beside it
is not touched.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from flowstream import (
    Config,
    Context,
    Emit,
    Input,
    Node,
    NodeError,
    Output,
    Record,
    Sink,
    Snapshot,
    Source,
    Transform,
    live,
)
from flowstream import field as config_field
from flowstream.graph.plan import Plan
from flowstream.runtime.engine import Engine, ReloadError
from flowstream.runtime.events import Event, NodeFailed
from flowstream.testing.leaks import Open
from tests.runtime import parts
from tests.runtime.parts import Keep, Loop, plan

READY, TAKE, CLOSE, DRAIN, HANDOVER = 0.4, 0.15, 0.15, 0.3, 0.1

pytestmark = pytest.mark.usefixtures("backend")

BOUND_SECONDS = 3.0
"""More than any of these takes; a machine that is busy with other tests needs some of it."""


class FaultConfig(Config):
    fault: str = config_field(default="", description="Step and way: open:raise.")
    value: int = live(default=0, description="9 sets off what a change of live values is to set off.")
    kind: str = config_field(default="a", description="Any change of it makes another node.")


class Trap:
    """Breaks where it is told to, on the loop or on a thread."""

    config: FaultConfig
    gate = threading.Event()
    sprung: list[str] = []

    def _is_set(self, step: str) -> str:
        where, _, way = self.config.fault.partition(":")
        return way if where == step else ""

    def spring(self, step: str) -> None:
        way = self._is_set(step)
        if way:
            Trap.sprung.append(step)
            if way == "hang":
                Trap.gate.wait(20)
            else:
                raise RuntimeError(f"{step} went wrong")

    async def spring_here(self, step: str) -> None:
        way = self._is_set(step)
        if way:
            Trap.sprung.append(step)
            if way == "hang":
                await anyio.sleep_forever()
            raise RuntimeError(f"{step} went wrong")


class OnThread(Trap):
    """Hooks of a node that works on a thread."""

    thread = True
    restores = (1,)

    def open(self) -> None:
        self.spring("open")

    def close(self) -> None:
        self.spring("close")

    def snapshot(self) -> Snapshot:
        self.spring("snapshot")
        return Snapshot(1, {})

    def restore(self, snapshot: Snapshot) -> None:
        self.spring("restore")

    def accepts(self, config: FaultConfig) -> None:
        if config.value == 9:
            self.spring("accepts")

    def reconfigured(self, old: FaultConfig) -> None:
        if self.config.value == 9:
            self.spring("reconfigured")

    def finish(self) -> None:
        self.spring("finish")


class OnLoop(OnThread):
    """Hooks of a node on the loop, where what may take long is async."""

    thread = False

    async def open(self) -> None:  # type: ignore[override]
        await self.spring_here("open")

    async def close(self) -> None:  # type: ignore[override]
        await self.spring_here("close")

    async def reconfigured(self, old: FaultConfig) -> None:  # type: ignore[override]
        if self.config.value == 9:
            await self.spring_here("reconfigured")


class LoopSource(OnLoop, Source[FaultConfig], type="test/fault-source"):
    """A source with a run of its own."""

    out = Output(Record)

    async def run(self, ctx: Context) -> None:
        await self.spring_here("payload")
        while True:
            await ctx.emit(self.out(Record(1, ctx.media_ns())))
            await anyio.sleep(0.005)


class ThreadSource(OnThread, Source[FaultConfig], type="test/fault-capture"):
    """A source that blocks."""

    out = Output(Record)

    def capture(self) -> list[Emit[Record[int]]]:
        self.spring("payload")
        time.sleep(0.005)
        return [self.out(Record(1, self.ctx.media_ns()))]


class LoopTransform(OnLoop, Transform[FaultConfig], type="test/fault-transform"):
    """A transform on the loop."""

    numbers = Input(Record)
    out = Output(Record)

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        self.spring("payload")
        yield self.out(item)


class ThreadTransform(OnThread, Transform[FaultConfig], type="test/fault-threaded"):
    """A transform on a thread."""

    numbers = Input(Record)
    out = Output(Record)

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        self.spring("payload")
        yield self.out(item)


class LoopSink(OnLoop, Sink[FaultConfig], type="test/fault-sink"):
    """A sink on the loop."""

    numbers = Input(Record)

    async def consume(self, item: Record[int]) -> None:
        await self.spring_here("payload")


class ThreadSink(OnThread, Sink[FaultConfig], type="test/fault-threaded-sink"):
    """A sink on a thread."""

    numbers = Input(Record)

    def consume(self, item: Record[int]) -> None:
        self.spring("payload")


class LoopNode(OnLoop, Node[FaultConfig], type="test/fault-node"):
    """A node with a life of its own."""

    numbers = Input(Record)
    out = Output(Record)

    async def run(self, ctx: Context) -> None:
        await self.spring_here("ready")
        ctx.ready()
        async for item in ctx.stream(self.numbers):
            await self.spring_here("payload")
            await ctx.emit(self.out(item))
        self.spring("finish")


class ThreadNode(LoopNode, type="test/fault-node-in-thread"):
    """A node with a life of its own that does its work on a thread."""

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        async for item in ctx.stream(self.numbers):
            await ctx.in_thread(self.spring, "payload")
            await ctx.emit(self.out(item))


KINDS = {
    t.type_id: t
    for t in (
        LoopSource, ThreadSource, LoopTransform, ThreadTransform, LoopSink, ThreadSink, LoopNode, ThreadNode,
    )
}  # fmt: skip

AT_START = ("open", "ready", "payload")
AT_UPDATE = ("accepts", "reconfigured")
AT_END = ("finish", "snapshot", "close")


def cases() -> list[tuple[str, str, str, str]]:
    """Kind, step, way and moment of every fault that can be had; a call that blocks the loop itself is not one."""
    found = []
    for type_id, kind in KINDS.items():
        is_async = {"open", "close", "reconfigured", *({"payload"} if kind is not LoopTransform else ()), "ready"}
        for step in (*AT_START, *AT_UPDATE, *AT_END, "restore"):
            if step == "ready" and kind is not LoopNode:
                continue
            if step == "finish" and (issubclass(kind, Source) or kind is ThreadNode):
                continue
            for way in ("raise", "hang"):
                if way == "hang" and not kind.thread and step not in is_async:
                    continue
                moments: tuple[str, ...] = ("start", "reload", "stop")
                if step in (*AT_UPDATE, "restore"):
                    moments = ("reload",)
                elif step in AT_END:
                    moments = ("reload", "stop")
                found += [(type_id, step, way, moment) for moment in moments]
    return found


def of_each_step(found: list[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    """One way and moment for every step of every kind; half of them raise, as far as they can be had."""
    chance = random.Random(4)
    steps: dict[tuple[str, str], list[tuple[str, str, str, str]]] = {}
    for case in found:
        steps.setdefault(case[:2], []).append(case)
    chosen = []
    for number, choices in enumerate(steps.values()):
        wanted = [case for case in choices if case[2] == ("raise", "hang")[number % 2]]
        chosen.append(chance.choice(wanted or choices))
    return chosen


ALL = cases()
CHOSEN = [
    pytest.param(*case, marks=[pytest.mark.alone] if case[2] == "hang" else [])  # it has a fraction of a second to end
    for case in (ALL if os.environ.get("FLOWSTREAM_FUZZ") else of_each_step(ALL))
]


def graph(type_id: str, **config: Any) -> Plan:
    """A chain that is never touched, and beside it one with the node in question."""
    kind = KINDS[type_id]
    nodes: dict[str, Any] = {
        "count": ("test/counter", {}),
        "fixed": ("test/keep", {}),
        "bad": (type_id, config),
    }
    edges = {"fixed.numbers": "count.out"}
    if "numbers" in kind.inputs:
        edges["bad.numbers"] = "count.out"
    if "out" in kind.outputs:
        nodes["end"] = ("test/keep", {})
        edges["end.numbers"] = "bad.out"
    return plan(nodes, edges, overflow="drop-oldest", items=8)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS.values():
        monkeypatch.setitem(parts.TYPES, kind.type_id, kind)
    monkeypatch.setattr("flowstream.runtime.ensemble.READY_SECONDS", READY)
    monkeypatch.setattr("flowstream.runtime.ensemble.DRAIN_SECONDS", DRAIN)
    for module in ("ensemble", "runner", "switching"):
        monkeypatch.setattr(f"flowstream.runtime.{module}.HANDOVER_SECONDS", HANDOVER)
    monkeypatch.setattr("flowstream.runtime.switching.TAKE_SECONDS", TAKE)
    monkeypatch.setattr("flowstream.runtime.runner.CLOSE_SECONDS", CLOSE)
    Trap.gate.clear()
    Trap.sprung.clear()
    Keep.kept.clear()


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        while not holds():  # noqa: ASYNC110 - it may come about on another thread
            await anyio.sleep(0.005)


@pytest.mark.parametrize(("type_id", "step", "way", "moment"), CHOSEN)
def test_a_fault_is_bounded_told_and_rolled_back(
    type_id: str, step: str, way: str, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    opened = Open.now()
    fault = f"{step}:{way}"
    events: list[Event] = []

    def is_told() -> bool:
        return any(isinstance(event, NodeFailed) and event.node == "bad" for event in events) or any(
            getattr(record, "node", "") == "bad" and record.levelno >= logging.WARNING for record in caplog.records
        )

    async def start(engine: Engine) -> None:
        """The fault is there from the beginning."""
        if step in ("open", "ready"):
            with pytest.raises(NodeError, match="bad"):
                await engine.start(graph(type_id, fault=fault))
            assert engine.runners == {}
            assert not engine.ensemble.alive
            return
        await engine.start(graph(type_id, fault=fault))
        await until(lambda: step in Trap.sprung)
        if way == "raise":
            await until(is_told)
            assert engine.state == "degraded"
        await untouched(engine)

    async def untouched(engine: Engine) -> None:
        before = len(Keep.kept["fixed"])
        await until(lambda: len(Keep.kept["fixed"]) > before + 2)
        assert engine.status()["fixed"].state == "running"
        assert Keep.kept["fixed"] == list(range(len(Keep.kept["fixed"])))

    async def reload(engine: Engine) -> None:
        """The fault comes with a save, or makes itself known at one."""
        if step in (*AT_UPDATE, *AT_END):
            running = graph(type_id, fault=fault)
            after = graph(type_id, fault=fault, value=9) if step in AT_UPDATE else graph(type_id, kind="b")
        else:
            running, after = graph(type_id), graph(type_id, fault=fault)
        await engine.start(running)
        await anyio.sleep(0.05)
        old, fixed = engine.runners["bad"], engine.runners["fixed"]
        refusal: ReloadError | None = None
        try:
            await engine.apply(after)
        except ReloadError as error:
            refusal = error
        if step in ("open", "ready"):
            assert refusal is not None
        if refusal is not None:
            assert "bad" in str(refusal)
            assert engine.plan is running
            assert engine.runners["bad"] is old
            assert old.state == "running"
            assert old.planned.config == running.nodes["bad"].config
            Trap.gate.set()  # a call that comes back after it was given up leaves nothing behind
            await until(lambda: old.node.config.value == 0)
        else:
            await until(lambda: step in Trap.sprung)
        if step in AT_END:
            await until(lambda: old.is_over and is_told())
            await until(lambda: engine.runners["bad"].state == "running")
        elif refusal is None and way == "raise":
            await until(is_told)
        assert engine.runners["fixed"] is fixed
        await untouched(engine)

    async def stop(engine: Engine) -> None:
        """The fault is there when it is stopped, or only then."""
        await engine.start(graph(type_id, fault=fault)) if step not in ("open", "ready") else await engine.start(
            graph(type_id)
        )
        if step in ("open", "ready"):  # a save is being prepared meanwhile

            async def apply() -> None:
                with pytest.raises(ReloadError):
                    await engine.apply(graph(type_id, fault=fault))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(apply)
                await until(lambda: step in Trap.sprung)
                await engine.stop(drain_seconds=DRAIN)
        else:
            if step == "payload":
                await until(lambda: step in Trap.sprung)
            await engine.stop(drain_seconds=DRAIN)
        assert engine.state == "ended"
        assert all(runner.is_over for runner in engine.runners.values())

    async def main() -> None:
        with anyio.fail_after(4 * BOUND_SECONDS):
            async with Engine.open() as engine:
                engine.listen(events.append)
                await {"start": start, "reload": reload, "stop": stop}[moment](engine)
                began = time.monotonic()
                await engine.stop(drain_seconds=DRAIN)
            assert time.monotonic() - began < BOUND_SECONDS
        Trap.gate.set()

    try:
        anyio.run(main, backend=Loop.backend)
    finally:
        Trap.gate.set()
    assert opened.left() == []
