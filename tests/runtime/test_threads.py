"""Threads of nodes and the loop they share: who uses how much, who holds up the others, what is left behind."""

import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flowstream import Context, Emit, Input, Node, Output, PeerError, Record, Source, Transform
from flowstream.graph.plan import Plan, Restart
from flowstream.runtime import runner as runner_module
from flowstream.runtime.engine import Engine
from flowstream.runtime.ensemble import FAILURES_KEPT
from flowstream.runtime.events import CallLeftBehind, Event, NodeFailed, NodeRestarted, NodeSlow
from flowstream.runtime.meter import EVERY, Meter
from flowstream.runtime.stalls import Stalls
from flowstream.runtime.stats import Statistics
from flowstream.testing.clock import VirtualClock
from tests.runtime import parts
from tests.runtime.parts import Add, HoldConfig, Keep, plan, run, run_real

pytestmark = pytest.mark.usefixtures("backend")


def spin(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


class Heavy(Transform, type="test/heavy"):
    """Computes for 2 ms."""

    numbers = Input(Record)
    sums = Output(Record)

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        spin(0.002)
        yield self.sums(item)


class HeavyThread(Heavy, type="test/heavy-thread"):
    """The same on a thread."""

    thread = True


class Sleepy(Add, type="test/sleepy"):
    """Keeps the loop to itself for a tenth of a second at number 3 and number 5."""

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        if item.value in (3, 5):
            spin(0.1)
        yield self.sums(item)


class Host(Node[HoldConfig], type="test/host"):
    """Holds something whose task computes for 2 ms each 10 ms."""

    numbers = Input(Record)

    async def run(self, ctx: Context) -> None:
        @asynccontextmanager
        async def session(holding: Any) -> AsyncIterator[None]:
            async def compute() -> None:
                while True:
                    spin(0.002)
                    await anyio.sleep(0.01)

            holding.start_soon(compute)
            yield

        async with ctx.hold("session", session):
            ctx.ready()
            async for _ in ctx.stream(self.numbers):
                pass


class Deaf(Source, type="test/deaf"):
    """Gives one number; the next never comes, nor does the call return before it is let go."""

    is_live = True
    out = Output(Record)
    gate = threading.Event()
    instances = 0

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        Deaf.instances += 1
        self.given = False

    def capture(self) -> list[Emit[Record[int]]]:
        if self.given:
            self.ctx._runner.on_loop(lambda: self.ctx._runner.fail(PeerError("silent")))  # type: ignore[attr-defined]
            Deaf.gate.wait(60)
        self.given = True
        return [self.out(Record(0, 0))]


class Clumsy(Add, type="test/clumsy"):
    """Fails with something large in its hands."""

    thread = True
    held: list[weakref.ref[Any]] = []

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        picture = Record([item], 0)
        Clumsy.held.append(weakref.ref(picture))
        if picture.value:
            raise PeerError("dropped it")
        yield self.sums(item)


@pytest.fixture(autouse=True)
def types(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (Heavy, HeavyThread, Sleepy, Host, Deaf, Clumsy):
        monkeypatch.setitem(parts.TYPES, each.type_id, each)
    Deaf.gate.clear()
    Deaf.instances = 0


def chain(type_id: str, count: int = 30) -> Any:
    return plan(
        {"count": ("test/counter", {"count": count}), "work": (type_id, {}), "keep": ("test/keep", {})},
        {"work.numbers": "count.out", "keep.numbers": "work.sums"},
    )


@pytest.mark.parametrize("type_id", ["test/heavy", "test/heavy-thread"])
def test_processor_time_is_told_of_the_node_that_uses_it(type_id: str) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        statistics = Statistics(engine)
        await engine.start(chain(type_id))
        statistics.follow(clock.now_ns())
        await engine.wait()
        used_ns = {id: runner.cpu_ns for id, runner in engine.runners.items()}
        assert used_ns["work"] > 40_000_000
        assert used_ns["work"] > 5 * used_ns["keep"] > 0
        statistics.tick(clock.now_ns())
        stats = statistics.snapshot()
        told = {node.id: node for node in stats.nodes}
        assert {id: node.cpu_ns for id, node in told.items()} == {
            id: runner.cpu_ns for id, runner in engine.runners.items()
        }
        assert told["work"].cpu * stats.span_ns == pytest.approx(told["work"].cpu_ns, rel=0.1)

    run(main)


def test_processor_time_of_what_is_held_is_counted_once_through_reloads() -> None:
    def host(title: str) -> Any:
        return plan(
            {"count": ("test/counter", {}), "host": ("test/host", {"title": title})}, {"host.numbers": "count.out"}
        )

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        statistics = Statistics(engine)
        await engine.start(host("a"))
        statistics.follow(clock.now_ns())
        seen: list[int] = []
        for title in "bcd":
            await anyio.sleep(1)
            statistics.tick(clock.now_ns())
            seen.append(statistics.nodes["host"].cpu_ns)
            await engine.apply(host(title))
        await anyio.sleep(0.05)
        statistics.tick(clock.now_ns())
        seen.append(statistics.nodes["host"].cpu_ns)
        assert seen == sorted(seen)
        assert seen[0] > 150_000_000  # a hundred times 2 ms
        assert seen[3] - seen[2] < 60_000_000  # five times, not all of three seconds again

    run(main)


def test_a_thread_that_waits_uses_nothing() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain("test/threaded-add", count=0))
        await anyio.sleep(0.055)
        runner = engine.runners["work"]
        assert runner._thread is not None
        await runner._thread.call(lambda: None)
        before_ns = runner._thread.cpu_ns
        assert 0 < before_ns < 20_000_000
        assert runner._thread.cpu_ns == before_ns

    run(main)


def test_a_meter_counts_what_runs_and_not_what_waits_and_passes_everything_on() -> None:
    async def main() -> None:
        meter = Meter()

        async def work() -> str:
            for _ in range(5 * EVERY):
                await anyio.lowlevel.checkpoint()
            await anyio.sleep(0.2)
            try:
                with anyio.fail_after(0):
                    await anyio.sleep(1)
            except TimeoutError:
                return "done"
            return "not cancelled"

        assert await meter.along(work()) == "done"
        assert 0 < meter.ns < 150_000_000

        async def fail() -> None:
            await anyio.lowlevel.checkpoint()
            raise LookupError("no")

        with pytest.raises(LookupError):
            await meter.along(fail())
        with anyio.move_on_after(0.01) as scope:
            await meter.along(anyio.sleep_forever())
        assert scope.cancelled_caught

    run_real(main)


def test_threads_are_named_after_their_nodes_and_there_are_no_others() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        before = set(threading.enumerate())
        await engine.start(chain("test/threaded-add", count=0))
        await anyio.sleep(0.05)
        assert [thread.name for thread in threading.enumerate() if thread not in before] == ["flowstream work"]

    run(main)


@pytest.mark.parametrize("restart", [None, Restart("any", first_ns=1_000_000, max_ns=1_000_000)])
def test_of_a_failure_nothing_is_kept_alive_once_there_is_another_instance(restart: Restart | None) -> None:
    def failing(add: int) -> Plan:
        node: Any = ("test/clumsy", {"kind": str(add)}, *([restart] if restart else []))
        return plan({"count": ("test/counter", {}), "work": node}, {"work.numbers": "count.out"})

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        Clumsy.held.clear()
        await engine.start(failing(0))
        await anyio.sleep(1)
        before = len(Clumsy.held)
        assert before > (30 if restart else 0)
        await engine.apply(failing(1))
        await anyio.sleep(1)
        assert len(Clumsy.held) > before
        events.clear()  # whose listeners may keep what they are told
        gc.collect()
        assert [each() for each in Clumsy.held[:before]] == [None] * before

    run(main)


def test_of_failures_without_end_the_last_ones_are_kept() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        for number in range(FAILURES_KEPT + 5):
            failing = plan({"count": ("test/counter", {"fail_at": 0, "step": number + 1}), "keep": ("test/keep", {})},
                           {"keep.numbers": "count.out"})  # fmt: skip
            await (engine.apply(failing) if number else engine.start(failing))
            await anyio.sleep(0.1)
        assert len(engine.failures) <= FAILURES_KEPT

    run(main)


def test_inline_everything_runs_on_the_loop() -> None:
    async def main() -> None:
        async with Engine.open(is_inline=True) as engine:
            before = set(threading.enumerate())
            await engine.start(chain("test/heavy-thread", count=5))
            await engine.wait()
            assert set(threading.enumerate()) <= before
            assert engine.runners["work"].cpu_ns > 5_000_000
            assert Keep.kept["keep"] == [0, 1, 2, 3, 4]

    run_real(main)


def test_a_failure_inline_is_the_failure_of_its_node() -> None:
    async def main() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(HeavyThread, "process", lambda self, item: [1 // 0])
            async with Engine.open(is_inline=True) as engine:
                await engine.start(chain("test/heavy-thread", count=5))
                await engine.wait()
                assert [str(each) for each in engine.failures] == [
                    "work (test/heavy-thread): ZeroDivisionError: integer division or modulo by zero"
                ]

    run_real(main)


@pytest.mark.alone
def test_a_node_that_keeps_the_loop_to_itself_is_named_once_a_minute() -> None:
    async def main() -> None:
        events: list[Event] = []
        async with Engine.open() as engine:
            engine.listen(events.append)
            stalls = Stalls(Statistics(engine))
            await engine.start(chain("test/sleepy", count=12))
            await engine.wait()
            await anyio.sleep(0.1)
            (cause,) = (each for each in stalls.causes() if each.kind == "held-loop" and each.node == "work")
            assert "work kept everything waiting for " in cause.sentence
            assert cause.sentence.endswith("thread = True in its class gives it a thread of its own")
        slow = [event for event in events if isinstance(event, NodeSlow) and event.node == "work"]
        assert len(slow) == 1
        assert slow[0].type == "test/sleepy"
        assert slow[0].held_ns > 20_000_000

    run_real(main)


def test_a_node_that_held_the_loop_is_a_cause_until_it_is_replaced_or_has_long_behaved() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        stalls = Stalls(Statistics(engine))
        statistics = stalls.statistics

        def held() -> list[str]:
            return [cause.node for cause in stalls.causes() if cause.kind == "held-loop"]

        def named(name: str, kind: str = "a") -> Any:
            made = plan(
                {"count": ("test/counter", {}), name: ("test/add", {"kind": kind}), "keep": ("test/keep", {})},
                {f"{name}.numbers": "count.out", "keep.numbers": f"{name}.sums"},
            )
            return replace(made, nodes={**made.nodes, name: replace(made.nodes[name], was="work")})

        await engine.start(named("work"))
        statistics.follow(clock.now_ns())
        engine.node_was_slow(engine.runners["work"], 103_000_000)
        assert held() == ["work"]
        await engine.apply(named("sum"))
        assert held() == ["sum"]
        await anyio.sleep(80)
        assert held() == ["sum"]
        engine.node_was_slow(engine.runners["sum"], 103_000_000)
        await anyio.sleep(20)
        assert held() == ["sum"]
        await anyio.sleep(75)
        assert held() == []
        engine.node_was_slow(engine.runners["sum"], 103_000_000)
        await engine.apply(named("sum", "b"))
        assert held() == []

    run(main)


def test_a_capture_that_never_returns_is_left_behind_and_after_a_few_the_node_stays_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner_module, "CLOSE_SECONDS", 0.05)

    async def main() -> None:
        events: list[Event] = []
        async with Engine.open() as engine:
            engine.listen(events.append)
            restart = Restart("any", first_ns=1_000_000, max_ns=1_000_000)
            await engine.start(
                plan({"deaf": ("test/deaf", {}, restart), "keep": ("test/keep", {})}, {"keep.numbers": "deaf.out"})
            )
            with anyio.fail_after(20):
                await engine.wait()
            left = [event.count for event in events if isinstance(event, CallLeftBehind)]
            assert left == [1, 2, 3]
            assert len([event for event in events if isinstance(event, NodeRestarted)]) == 2
            assert "3 earlier calls of it have not returned" in engine.failures[-1].message
            assert [event.retry_in_ns is None for event in events if isinstance(event, NodeFailed)][-1]
            assert Keep.kept["keep"] == [0, 0, 0]
        Deaf.gate.set()

    async def and_a_while() -> None:
        try:
            await main()
        finally:
            Deaf.gate.set()
        with anyio.fail_after(10):
            while any(thread.name == "flowstream deaf" for thread in threading.enumerate()):
                await anyio.lowlevel.checkpoint()

    run_real(and_a_while)
