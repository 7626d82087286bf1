"""Nodes that fail, hang or refuse at the worst moment: nothing is lost, nothing is left behind, nothing is silent."""

import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from flowstream import Context, Emit, Input, Node, Output, PeerError, Record, Sink, Transform
from flowstream.graph.plan import Plan, PlannedNode, Restart
from flowstream.runtime.engine import Engine, ReloadError
from flowstream.runtime.events import Applied, Event, NodeFailed
from flowstream.testing.clock import VirtualClock
from tests.runtime import parts
from tests.runtime.parts import Add, AddConfig, Busy, Counter, Hold, HoldConfig, Keep, Watch, plan, run, run_real

pytestmark = pytest.mark.usefixtures("backend")


class OneWay(Add, type="test/one-way"):
    """Does not take 66, and does not go back from 5."""

    def reconfigured(self, old: AddConfig) -> None:
        if self.config.add == 66 or old.add == 5:
            raise RuntimeError("no way")


class FailsLater(Add, type="test/fails-later"):
    """Fails at 12, on a thread of its own."""

    thread = True

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        if item.value == 12:
            raise RuntimeError("a bug")
        yield self.sums(item)


class Hangs(Add, type="test/hangs"):
    """Does not return from number 3 before it is let go."""

    thread = True
    hangs = threading.Event()
    gate = threading.Event()

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        if item.value == 3:
            Hangs.hangs.set()
            Hangs.gate.wait(10)
        yield self.sums(item)


class SlowToOpen(Sink, type="test/slow-to-open"):
    """Takes 0.2 s to be ready."""

    numbers = Input(Record)

    async def open(self) -> None:
        await anyio.sleep(0.2)

    def consume(self, item: Record[int]) -> None:
        pass


class SlowToKeep(Sink, type="test/slow-to-keep"):
    """Takes 50 ms for each."""

    numbers = Input(Record)

    async def consume(self, item: Record[int]) -> None:
        await anyio.sleep(0.05)
        Keep.kept.setdefault(self.ctx.name, []).append(item.value)


class Unmade(Add, type="test/unmade"):
    """Cannot even be made."""

    def __init__(self, config: AddConfig | None = None) -> None:
        super().__init__(config)
        raise RuntimeError("not today")


class Unsure(Add, type="test/unsure"):
    """Fails when it is asked what it takes."""

    def accepts(self, config: AddConfig) -> None:
        raise KeyError("add")


class BadEnd(Sink, type="test/bad-end"):
    """Fails when it finishes."""

    numbers = Input(Record)

    def consume(self, item: Record[int]) -> None:
        pass

    def finish(self) -> None:
        raise RuntimeError("the trailer could not be written")


class SlowToClose(Node[HoldConfig], type="test/slow-to-close"):
    """Holds something that takes 0.5 s to close."""

    numbers = Input(Record)
    got: list[bool] = []

    async def run(self, ctx: Context) -> None:
        @asynccontextmanager
        async def session(holding: Any) -> Any:
            state = {"open": True}
            try:
                yield state
            finally:
                state["open"] = False
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.5)

        async with ctx.hold("session", session) as held:
            SlowToClose.got.append(held["open"])
            ctx.ready()
            async for _ in ctx.stream(self.numbers):
                pass


class Flaky(Counter, type="test/flaky"):
    """Loses its other side at once, the first time."""

    instances = 0

    async def run(self, ctx: Context) -> None:
        Flaky.instances += 1
        if Flaky.instances == 1:
            raise PeerError("not yet")
        await super().run(ctx)


class Listens(Node, type="test/listens"):
    """Takes feedback and nothing else."""

    reports = Input(Record, feedback=True)
    heard: list[int] = []

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        async for report in ctx.stream(self.reports):
            Listens.heard.append(report.value)


class Steered(Transform, type="test/steered"):
    """Passes numbers on and takes feedback."""

    numbers = Input(Record)
    reports = Input(Record, feedback=True)
    out = Output(Record)

    @numbers.handler
    def on_number(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        yield self.out(item)

    @reports.handler
    def on_report(self, item: Record[int]) -> None:
        pass


@pytest.fixture(autouse=True)
def types(monkeypatch: pytest.MonkeyPatch) -> None:
    more = (
        OneWay, FailsLater, Hangs, SlowToOpen, SlowToKeep, Unmade, Unsure, BadEnd, SlowToClose, Flaky, Listens, Steered,
    )  # fmt: skip
    for each in more:
        monkeypatch.setitem(parts.TYPES, each.type_id, each)
    SlowToClose.got.clear()
    Listens.heard.clear()
    Flaky.instances = 0


def chain(middle: str, config: dict[str, Any], *, count: dict[str, Any] | None = None, items: int = 4) -> Plan:
    return plan(
        {"count": ("test/counter", count or {}), "add": (middle, config), "keep": ("test/keep", {})},
        {"add.numbers": "count.out", "keep.numbers": "add.sums"},
        items=items,
    )


def with_counter(**others: tuple[str, dict[str, Any]]) -> Plan:
    """A counter, a keep and other consumers of the counter."""
    return plan(
        {"count": ("test/counter", {}), "keep": ("test/keep", {}), **others},
        {"keep.numbers": "count.out", **{f"{id}.numbers": "count.out" for id in others}},
    )


# --- edges ----------------------------------------------------------------------------------------------------------


def test_a_new_producer_is_not_held_up_by_a_consumer_that_has_failed() -> None:
    def two(fail_at: int) -> Plan:
        return plan(
            {
                "count": ("test/counter", {"fail_at": fail_at}),
                "bad": ("test/keep", {"fail_at": 3}),
                "good": ("test/keep", {}),
            },
            {"bad.numbers": "count.out", "good.numbers": "count.out"},
        )

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(two(-1))
        await anyio.sleep(0.095)
        await engine.apply(two(-5))
        await anyio.sleep(1)
        assert len(Keep.kept["good"]) > 100

    run(main)


@pytest.mark.parametrize(("before", "after"), [((1, "a"), (3, "a")), ((1, "a"), (1, "b"))])
def test_a_reload_loses_nothing_of_what_a_producer_waits_with(before: tuple[int, str], after: tuple[int, str]) -> None:
    def slow(items: int, kind: str) -> Plan:
        return plan(
            {
                "count": ("test/counter", {"count": 50}),
                "add": ("test/add", {"kind": kind}),
                "keep": ("test/slow-to-keep", {}),
            },
            {"add.numbers": "count.out", "keep.numbers": "add.sums"},
            items=items,
        )

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(slow(*before))
        await anyio.sleep(0.52)
        await engine.apply(slow(*after))
        await engine.wait()
        assert [value for value in Keep.kept["keep"] if value >= 0] == list(range(50))

    run(main)


def test_a_replaced_consumer_gets_what_its_replaced_producer_finishes_with() -> None:
    def both(kind: str, fail_at: int) -> Plan:
        return plan(
            {
                "count": ("test/counter", {}),
                "add": ("test/add", {"kind": kind}),
                "keep": ("test/keep", {"fail_at": fail_at}),
            },
            {"add.numbers": "count.out", "keep.numbers": "add.sums"},
        )

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(both("a", -2))
        await anyio.sleep(0.095)
        await engine.apply(both("b", -3))
        await anyio.sleep(0.1)
        assert Keep.kept["keep"].count(-1) == 1
        assert sorted(Keep.kept["keep"])[1:21] == list(range(20))

    run(main)


def test_another_limit_on_an_edge_does_not_wait_for_a_keyframe() -> None:
    def limited(items: int) -> Plan:
        return plan(
            {"count": ("test/counter", {}), "encode": ("test/encode", {}), "watch": ("test/watch", {})},
            {"encode.numbers": "count.out", "watch.packets": "encode.packets"},
            items=items,
            overflow="drop-to-keyframe",
        )

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(limited(10))
        await anyio.sleep(0.095)
        await engine.apply(limited(20))
        await anyio.sleep(0.1)
        assert [packet.data for packet in Watch.seen["watch"]] == [f"a{n}".encode() for n in range(20)]
        assert [packet.keyframe for packet in Watch.seen["watch"]] == [True] + [False] * 19

    run(main)


def test_a_node_that_takes_feedback_only_lives_as_long_as_who_gives_it() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        both = plan(
            {
                "count": ("test/counter", {"count": 10}),
                "listens": ("test/listens", {}),
                "steered": ("test/steered", {}),
                "keep": ("test/keep", {}),
            },
            {
                "listens.reports": "count.out",
                "steered.numbers": "count.out",
                "steered.reports": "count.out",
                "keep.numbers": "steered.out",
            },
        )
        edges = tuple(replace(edge, feedback=edge.input == "reports") for edge in both.edges)
        await engine.start(replace(both, edges=edges))
        await anyio.sleep(0.055)
        assert engine.status()["listens"].state == "running"
        await engine.wait()
        assert Listens.heard == list(range(10))
        assert Keep.kept["keep"] == list(range(10))

    run(main)


def test_a_consumer_waits_for_a_producer_that_is_to_be_restarted() -> None:
    def kept(source: str) -> Plan:
        return plan(
            {
                "flaky": ("test/flaky", {}, Restart("peer", first_ns=1_000_000_000)),
                "count": ("test/counter", {}),
                "keep": ("test/keep", {}),
                "rest": ("test/keep", {}),
            },
            {"keep.numbers": source, "rest.numbers": "count.out"},
        )

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(kept("count.out"))
        await anyio.sleep(0.095)
        assert engine.status()["flaky"].state == "restarting"
        await engine.apply(kept("flaky.out"))
        await anyio.sleep(1)
        assert engine.status()["keep"].state == "running"
        assert Keep.kept["keep"][:13] == [*range(10), 0, 1, 2]

    run(main)


# --- a reload that does not succeed ---------------------------------------------------------------------------------


def test_a_device_is_given_back_when_the_reload_is_refused_after_it_was_taken() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain("test/busy", {"kind": "a"}, count={"fail_step": 9}))
        await anyio.sleep(0.095)
        with pytest.raises(ReloadError, match="cannot step so"):
            await engine.apply(chain("test/busy", {"kind": "b"}, count={"fail_step": 9, "step": 9}))
        count = len(Keep.kept["keep"])
        await anyio.sleep(0.2)
        assert len(Keep.kept["keep"]) >= count + 19
        assert engine.state == "running"

    run(main)


def test_a_device_that_does_not_come_back_is_a_failure_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain("test/busy", {"kind": "a"}))
        opened = Busy.open

        def gone(self: Busy) -> None:
            if Busy.holder is None:
                raise PeerError("the adder is gone for good")
            opened(self)

        monkeypatch.setattr(Busy, "open", gone)
        with pytest.raises(ReloadError, match="gone for good"):
            await engine.apply(chain("test/busy", {"kind": "b"}))
        assert engine.state == "degraded"
        assert [str(event.error) for event in events if isinstance(event, NodeFailed)] == [
            "add (test/busy): the adder is gone for good"
        ]
        monkeypatch.undo()

    run(main)


def test_what_only_a_discarded_node_held_is_closed() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(with_counter())
        with pytest.raises(ReloadError, match="the adder is broken"):
            await engine.apply(with_counter(hold=("test/hold", {}), bad=("test/busy", {"kind": "broken"})))
        assert (Hold.log[0], Hold.log[-1]) == ("open", "close")

    run(main)


def test_what_a_node_of_another_type_held_under_the_same_name_is_closed() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(with_counter(node=("test/hold", {})))
        await engine.apply(with_counter(node=("test/keep", {})))
        await anyio.sleep(0.1)
        assert Hold.log[-1] == "close"

    run(main)


def test_what_is_being_closed_is_not_held_again() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(with_counter(hold=("test/slow-to-close", {})))
        await engine.apply(with_counter())
        await anyio.sleep(0.1)
        await engine.apply(with_counter(hold=("test/slow-to-close", {})))
        assert SlowToClose.got == [True, True]

    run(main)


def test_values_are_refused_by_a_node_that_failed_while_others_were_prepared() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(with_counter(add=("test/fails-later", {})))
        with pytest.raises(ReloadError, match="add did not take its new values"):
            await engine.apply(with_counter(add=("test/fails-later", {"add": 1}), slow=("test/slow-to-open", {})))
        assert "slow" not in engine.runners

    run(main)


def test_a_node_that_does_not_go_back_to_its_old_values_has_failed() -> None:
    def two(first: int, second: int) -> Plan:
        return with_counter(first=("test/one-way", {"add": first}), second=("test/one-way", {"add": second}))

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(two(0, 0))
        with pytest.raises(ReloadError, match="second did not take its new values: no way"):
            await engine.apply(two(5, 66))
        await anyio.sleep(0.1)
        assert {id: each.state for id, each in engine.status().items()} == {
            "count": "running", "keep": "running", "first": "failed", "second": "running",
        }  # fmt: skip

    run(main)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, {"x": ("test/unmade", {})}, "x \\(test/unmade\\): RuntimeError: not today"),
        ({"x": ("test/unsure", {})}, {"x": ("test/unsure", {"add": 1})}, "x cannot say what it takes: KeyError: 'add'"),
    ],
)
def test_a_bug_in_a_node_refuses_the_reload(before: dict[str, Any], after: dict[str, Any], message: str) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(with_counter(**before))
        with pytest.raises(ReloadError, match=message):
            await engine.apply(with_counter(**after))
        assert engine.state == "running"

    run(main)


def test_a_node_that_hangs_is_replaced_rather_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowstream.runtime.switching.TAKE_SECONDS", 0.1)
    Hangs.gate.clear()
    Hangs.hangs.clear()

    async def main() -> None:
        async with Engine.open() as engine:
            await engine.start(with_counter(add=("test/hangs", {})))
            hung = engine.runners["add"]
            assert await anyio.to_thread.run_sync(Hangs.hangs.wait, 5)
            with anyio.fail_after(5):
                patch = await engine.apply(with_counter(add=("test/hangs", {"add": 1})))
            assert patch.of("add").action == "update"
            assert engine.runners["add"] is not hung
            Hangs.gate.set()

    run_real(main)


def test_a_node_that_hangs_does_not_hold_up_its_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowstream.runtime.ensemble.HANDOVER_SECONDS", 0.1)
    Hangs.gate.clear()
    Hangs.hangs.clear()
    Keep.kept.clear()

    async def main() -> None:
        async with Engine.open() as engine:
            await engine.start(chain("test/hangs", {}))
            assert await anyio.to_thread.run_sync(Hangs.hangs.wait, 5)
            await engine.apply(chain("test/add", {"add": 1000}))
            keep = engine.runners["keep"]
            with anyio.fail_after(3):
                while keep.received < 20:  # noqa: ASYNC110 - the node tells nobody
                    await anyio.sleep(0.01)
            assert Keep.kept["keep"][:3] == [0, 1, 2]
            assert Keep.kept["keep"][3] > 1000
            Hangs.gate.set()

    run_real(main)


# --- stopping -------------------------------------------------------------------------------------------------------


def test_a_node_that_waits_for_its_restart_does_not_hold_up_the_end() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        gone = ("test/counter", {"fail_at": 3, "peer": True}, Restart("peer", first_ns=60_000_000_000))
        await engine.start(plan({"gone": gone, "keep": ("test/keep", {})}, {"keep.numbers": "gone.out"}))
        await anyio.sleep(0.1)
        assert engine.status()["gone"].state == "restarting"
        before_ns = clock.now_ns()
        assert await engine.stop()
        assert clock.now_ns() - before_ns < 10_000_000

    run(main)


def test_a_graph_that_is_stopping_takes_no_new_plan() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(with_counter())

        async def apply() -> None:
            with pytest.raises(ReloadError, match="the graph is stopping"):
                await engine.apply(with_counter(slow=("test/slow-to-open", {})))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(apply)
            await anyio.sleep(0.05)
            await engine.stop()
        assert set(engine.runners) == {"count", "keep"}
        assert not any(isinstance(event, Applied) for event in events)

    run(main)


def test_a_node_that_was_removed_still_finishes_when_the_graph_is_stopped() -> None:
    def slow(**others: tuple[str, dict[str, Any]]) -> Plan:
        return replace(with_counter(**others), edges=tuple(
            replace(edge, overflow="drop-oldest", limit=replace(edge.limit, items=20))
            for edge in with_counter(**others).edges
        ))  # fmt: skip

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(slow(tape=("test/slow-to-keep", {})))
        await anyio.sleep(0.5)
        await engine.apply(slow())
        before = len(Keep.kept["tape"])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.stop)
            await engine.wait()
            tasks.cancel_scope.cancel()
        assert len(Keep.kept["tape"]) >= before + 20

    run(main)


def test_the_failure_of_a_node_that_was_removed_is_told() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(with_counter(tape=("test/bad-end", {})))
        await anyio.sleep(0.05)
        await engine.apply(with_counter())
        await anyio.sleep(0.05)
        assert [str(event.error) for event in events if isinstance(event, NodeFailed)] == [
            "tape (test/bad-end): RuntimeError: the trailer could not be written"
        ]

    run(main)


class HangsInClose(Sink, type="test/hangs-in-close"):
    """Its close waits until the test lets it go on."""

    thread = True
    numbers = Input(Record)
    let_go = threading.Event()

    def consume(self, item: Record[int]) -> None:
        pass

    def close(self) -> None:
        HangsInClose.let_go.wait(20)


def test_the_thread_of_a_close_that_hung_ends_when_the_close_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowstream.runtime.runner.CLOSE_SECONDS", 0.05)
    HangsInClose.let_go.clear()
    threads: list[threading.Thread] = []

    async def main() -> None:
        async with Engine.open() as engine:
            node = PlannedNode("stuck", "test/hangs-in-close", HangsInClose, HangsInClose.config_class())
            await engine.start(Plan("test", {"stuck": node}, (), is_live=True))
            threads.extend(t for t in threading.enumerate() if t.name == "flowstream stuck")
            await engine.stop(drain_seconds=0)

    async def and_a_while() -> None:
        await main()
        HangsInClose.let_go.set()
        with anyio.fail_after(10):
            while threads[0].is_alive():
                await anyio.lowlevel.checkpoint()

    run_real(and_a_while)
    assert not threads[0].is_alive()
