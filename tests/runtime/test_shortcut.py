"""From thread to thread past the loop: nothing is lost, overtakes, or goes uncounted, whatever is done to the edges."""

import itertools
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest

from flowstream import Config, Context, Emit, Input, Output, Record, Sink, Source, Transform, field
from flowstream.graph.plan import Edge
from flowstream.media.signals import KeyframeRequest
from flowstream.proto.overflow import Limit
from flowstream.runtime.channel import MOST_FEEDS, Channel, Feed, Inbox, Outlet
from flowstream.runtime.clock import SystemClock
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Event, NodeFailed
from flowstream.runtime.executor import NodeThread
from flowstream.runtime.lane import ThreadLane
from flowstream.runtime.shortcut import MOST_LOOKS, Look, Shortcut
from flowstream.runtime.stalls import Stalls
from flowstream.runtime.stats import Statistics
from flowstream.runtime.tap import Tap
from flowstream.runtime.wakeup import Turns
from flowstream.testing.clock import VirtualClock
from tests.runtime import parts
from tests.runtime.parts import Keep, Loop, plan, run

pytestmark = pytest.mark.usefixtures("backend")

MS = 1_000_000


class PaceConfig(Config):
    count: int = field(default=10, description="How many numbers to give.")
    every: int = field(default=1, description="How many to give at a time, a millisecond apart.")


class Pace(Source[PaceConfig], type="test/pace"):
    """Gives numbers, some at a time, at rest between."""

    is_live = True
    out = Output(Record)

    async def run(self, ctx: Context) -> None:
        begin_ns = ctx.now_ns()
        for number in range(self.config.count):
            if not number % self.config.every:
                await ctx.sleep_until_ns(begin_ns + number // self.config.every * MS)
            await ctx.emit(self.out(Record(number, number * MS)))


class StepConfig(Config):
    kind: str = field(default="a", description="Any change of it makes another node.")
    fail_at: int = field(default=-1, description="Number at which to fail.")
    skip: int = field(default=0, description="Gives nothing of every so many; 0 gives all.")


class Step(Transform[StepConfig], type="test/step"):
    """Passes numbers on, on a thread, of which it notes the name."""

    thread = True
    numbers = Input(Record)
    out = Output(Record)
    threads: set[str] = set()

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        Step.threads.add(threading.current_thread().name)
        if item.value == self.config.fail_at:
            raise RuntimeError("cannot step there")
        if not self.config.skip or item.value % self.config.skip:
            yield self.out(item)


class Last(Sink, type="test/last"):
    """Keeps numbers, on a thread."""

    thread = True
    numbers = Input(Record)
    got: list[int] = []

    def consume(self, item: Record[int]) -> None:
        Last.got.append(item.value)


class Gifts:
    """What threads gave one another, and what they would have."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given = self.refused = 0
        give = Shortcut.give

        def counted(shortcut: Shortcut, payload: Any) -> bool:
            is_given = give(shortcut, payload)
            self.given += is_given
            self.refused += not is_given
            return is_given

        monkeypatch.setattr(Shortcut, "give", counted)


@pytest.fixture
def gifts(monkeypatch: pytest.MonkeyPatch) -> Gifts:
    for each in (Pace, Step, Last):
        monkeypatch.setitem(parts.TYPES, each.type_id, each)
    Step.threads.clear()
    Last.got.clear()
    return Gifts(monkeypatch)


def row(
    steps: int = 3,
    *,
    last: str = "test/keep",
    overflow: str = "block",
    items: int = 4,
    configs: dict[str, Any] | None = None,
    **pace: int,
) -> Any:
    """A plan of a source, so many steps and an end, in a row; ``configs`` are those of steps."""
    ids = ["pace", *(f"step-{number}" for number in range(steps)), "last"]
    nodes: dict[str, Any] = {id: ("test/step", (configs or {}).get(id, {})) for id in ids}
    nodes |= {"pace": ("test/pace", pace), "last": (last, {})}
    edges = {f"{to}.numbers": f"{of}.out" for of, to in itertools.pairwise(ids)}
    return plan(nodes, edges, overflow=overflow, items=items)


def assert_counted(engine: Engine, statistics: Statistics, count: int) -> None:
    """What went into every node, over every edge and out again."""
    for id, status in engine.status().items():
        assert status.received == (0 if id == "pace" else count), id
        assert set(status.emitted.values()) <= {count}, id
        assert status.dropped == {}, id
    statistics.tick(engine.clock.now_ns())
    for edge in statistics.snapshot().edges:
        assert (edge.received, edge.delivered, edge.queue.items) == (count, count, 0), edge.name


@pytest.mark.parametrize("last", ["test/keep", "test/last"])
@pytest.mark.parametrize("every", [1, 2, 7])
def test_numbers_keep_their_order_and_every_one_is_counted(gifts: Gifts, every: int, last: str) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        statistics = Statistics(engine)
        await engine.start(row(last=last, count=70, every=every))
        statistics.follow(clock.now_ns())
        await engine.wait()
        assert (Last.got or Keep.kept["last"]) == list(range(70))
        assert_counted(engine, statistics, 70)

    run(main)
    assert Step.threads == {"flowstream step-0", "flowstream step-1", "flowstream step-2"}
    assert gifts.given > (100 if every == 1 else 0)


def test_every_edge_is_measured_as_if_it_came_by_the_loop(gifts: Gifts) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        statistics = Statistics(engine)
        await engine.start(row(count=50))
        statistics.follow(clock.now_ns())
        await engine.wait()
        meters = {edge.consumer: statistics.edges[edge.key] for edge in engine.plan.edges} if engine.plan else {}
        ends = {id: meter.last_ns for id, meter in meters.items()}
        assert set(ends) == {"step-0", "step-1", "step-2", "last"}
        assert set(ends.values()) == {ends["step-0"]}  # all in the same instant of virtual time

    run(main)
    assert gifts.given


def test_who_asks_why_is_told_of_what_went_past_the_loop_just_now(gifts: Gifts) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        statistics = Statistics(engine)
        await engine.start(row(count=60))
        statistics.follow(clock.now_ns())
        statistics.tick(clock.now_ns())
        await clock.sleep_until_ns(clock.now_ns() + 40 * MS)
        given = gifts.given
        ends = {edge.name: edge.last_ns for edge in Stalls(statistics).view().edges}
        assert given
        assert all(end is not None and clock.now_ns() - end <= 2 * MS for end in ends.values()), ends
        await engine.stop(drain_seconds=1)

    run(main)


@pytest.mark.parametrize("overflow", ["latest", "drop-oldest", "drop-newest", "drop-to-keyframe"])
def test_what_is_lost_is_lost_on_the_edges_and_counted(gifts: Gifts, overflow: str) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(row(last="test/last", overflow=overflow, items=2, count=60, every=5))
        await engine.wait()
        status = engine.status()
        assert Last.got == sorted(set(Last.got))
        came = 60
        for id in ("step-0", "step-1", "step-2", "last"):
            lost = sum(status[id].dropped.values())
            assert status[id].received == came - lost
            came -= lost
        assert len(Last.got) == came

    run(main)


def test_what_a_node_swallows_is_counted_too(gifts: Gifts) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(row(last="test/last", configs={"step-1": {"skip": 3}}, count=30))
        await engine.wait()
        assert Last.got == [number for number in range(30) if number % 3]
        assert [engine.status()[f"step-{number}"].received for number in range(3)] == [30, 30, 20]

    run(main)
    assert gifts.given


def test_a_failure_ends_the_node_and_nothing_before_it_is_lost(gifts: Gifts) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(row(configs={"step-2": {"fail_at": 12}}, count=20))
        await engine.wait()
        (failed,) = [event for event in events if isinstance(event, NodeFailed)]
        assert failed.node == "step-2"
        assert "cannot step there" in failed.error.message
        assert Keep.kept["last"] == list(range(12))
        assert engine.status()["step-2"].received == 13

    run(main)
    assert gifts.given


def test_an_edge_that_comes_while_threads_give_gets_what_follows_and_the_other_everything(gifts: Gifts) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        before = row(count=60)
        await engine.start(before)
        await clock.sleep_until_ns(clock.now_ns() + 20 * MS)
        given = gifts.given
        nodes = {id: (each.type_id, each.config.model_dump()) for id, each in before.nodes.items()}
        edges = {f"{each.consumer}.{each.input}": f"{each.producer}.{each.output}" for each in before.edges}
        await engine.apply(plan({**nodes, "more": ("test/keep", {})}, {**edges, "more.numbers": "step-0.out"}))
        await engine.wait()
        assert given
        assert Keep.kept["last"] == list(range(60))
        assert Keep.kept["more"] == list(range(60))[-len(Keep.kept["more"]) :]
        assert 30 <= len(Keep.kept["more"]) < 60
        assert engine.status()["step-0"].emitted == {"out": 60}

    run(main)


def test_a_tap_sees_what_goes_by_while_it_is_there(gifts: Gifts) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(row(count=60))
        await clock.sleep_until_ns(clock.now_ns() + 10 * MS)
        given = gifts.given
        assert given
        seen: list[int] = []
        with Tap(engine, "step-1.out") as tap:
            while len(seen) < 10:
                payload = await tap.next(1)
                assert payload is not None
                seen.append(payload.value)
        assert seen == list(range(seen[0], seen[0] + 10))
        await engine.wait()
        assert gifts.given > given + 20  # it goes past the loop again
        assert Keep.kept["last"] == list(range(60))

    run(main)


@pytest.mark.parametrize("seed", range(6))
def test_steps_replaced_at_random_lose_nothing_and_keep_the_order(gifts: Gifts, seed: int) -> None:
    chance = random.Random(seed)

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        made = row(4, last="test/last", count=400, every=chance.choice([1, 1, 2]))
        await engine.start(made)
        for number in range(12):
            await clock.sleep_until_ns(clock.now_ns() + chance.randrange(1, 12) * MS)
            nodes: dict[str, Any] = {id: (each.type_id, each.config.model_dump()) for id, each in made.nodes.items()}
            id = f"step-{chance.randrange(4)}"
            nodes[id] = ("test/step", {"kind": f"kind-{number}"})
            edges = {f"{each.consumer}.{each.input}": f"{each.producer}.{each.output}" for each in made.edges}
            made = plan(nodes, edges)
            await engine.apply(made)
        await engine.wait()
        assert Last.got == list(range(400))
        assert engine.status()["last"].received == 400

    run(main)
    assert gifts.given > 100


def test_a_stop_in_between_ends_within_its_time_with_what_was_under_way(gifts: Gifts) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(row(last="test/last", count=10_000))
        await clock.sleep_until_ns(clock.now_ns() + 30 * MS)
        assert await engine.stop(drain_seconds=1)
        assert Last.got == list(range(len(Last.got)))
        assert len(Last.got) >= 30

    run(main)
    assert gifts.given


def test_inline_there_is_no_shortcut(gifts: Gifts) -> None:
    async def main() -> None:
        parts.forget()
        async with Engine.open(is_inline=True) as engine:
            await engine.start(row(count=5))
            await engine.wait()
            assert Keep.kept["last"] == list(range(5))

    anyio.run(main, backend=Loop.backend)
    assert not gifts.given + gifts.refused


def test_a_bell_that_is_rung_late_rings_nobody_elses() -> None:
    """A thread may still have to ring another that has ended meanwhile: its bell is there until then."""

    async def main() -> None:
        errors: list[BaseException] = []
        giver, taker = (NodeThread(name, SystemClock(), errors.append) for name in ("giver", "taker"))
        has_left, may_ring = threading.Event(), threading.Event()

        def give() -> None:
            taker.jobs.leave_after(giver.bells, lambda: None, ())
            has_left.set()
            may_ring.wait()

        giver.post(give)
        await anyio.to_thread.run_sync(has_left.wait)
        taker.end()
        taker.jobs._ring()  # as another one does, who has left a call as well
        assert await taker.join(10)
        may_ring.set()
        with anyio.fail_after(10):
            assert await giver.call(lambda: "alive") == "alive"
        giver.end()
        assert await giver.join(10)
        assert errors == []

    parts.run_real(main)


def a_thread(**more: Any) -> NodeThread:
    """What shortcuts and lanes ask of one."""
    jobs = SimpleNamespace(leave_after=lambda bells, job, args: None)
    return cast("NodeThread", SimpleNamespace(jobs=jobs, bells=[], **more))


class Free(list[None]):
    """Always has one more."""

    def pop(self, index: Any = -1) -> None:
        pass


class Taken:
    """Takes everything that is given."""

    def __init__(self) -> None:
        self.thread = a_thread()
        self.free = Free()

    def do(self, port: str, payload: Any) -> None:
        raise AssertionError("there is no thread that calls it")

    def leave_free(self, thread: NodeThread) -> None:
        raise AssertionError("it is always free")

    def count(self, feed: Feed, number: int, looks: Iterable[Look]) -> None:
        feed.channel.passed(feed, number, looks)


def shortened(inbox: Inbox, thread: NodeThread | None = None) -> tuple[Channel, Outlet, Shortcut]:
    """An edge with a shortcut."""
    channel = inbox.open(Edge("taker", "numbers", "giver", "out", "block", Limit(4)))
    outlet = Outlet("out", (Record,), lambda output, signal: None)
    channel.attach(outlet)
    outlet.shorten(SimpleNamespace(thread=thread or a_thread(), now_ns=lambda: 7))
    assert outlet.shortcut is not None
    return channel, outlet, outlet.shortcut


def on_loop(main: Callable[[], None]) -> None:
    """Calls it where there is a loop."""

    async def call() -> None:
        main()

    parts.run_real(call)


def test_what_was_given_is_counted_once_by_a_feed_that_is_given_up() -> None:
    def main() -> None:
        inbox = Inbox(Turns())
        inbox.taker = Taken()
        channel, outlet, shortcut = shortened(inbox)
        for number in range(3):
            assert shortcut.give(Record(number, number))
        for _ in range(MOST_FEEDS):
            channel.attach(Outlet("out", (Record,), lambda output, signal: None))
        assert outlet.emitted == 3
        assert channel.counts() == {"received": 3, "delivered": 3, "queued": 0, "dropped": 0}
        assert not shortcut.give(Record(3, 3))

    on_loop(main)


def test_of_what_threads_give_one_another_as_many_are_looked_at_as_the_meter_wants_and_few_are_kept() -> None:
    def main() -> None:
        inbox = Inbox(Turns())
        inbox.taker = Taken()
        channel, _, shortcut = shortened(inbox)
        seen: list[tuple[int | None, int | None]] = []
        stride = 1

        def see(captured_ns: int | None, taken_ns: int | None) -> int:
            seen.append((captured_ns, taken_ns))
            return stride

        def give(count: int) -> list[int | None]:
            seen.clear()
            for number in range(count):
                assert shortcut.give(SimpleNamespace(capture_ns=number))
            shortcut.count()
            assert all(taken_ns == 7 for _, taken_ns in seen)
            return [captured_ns for captured_ns, _ in seen]

        assert give(5) == []  # nobody wants to see any
        channel.watch(see)
        assert give(4) == [0, 1, 2, 3]
        stride = 3
        give(1)
        assert give(7) == [0, 3, 6]
        assert give(7) == [2, 5]
        stride = 1
        give(10)
        assert give(10 * MOST_LOOKS) == list(range(9 * MOST_LOOKS, 10 * MOST_LOOKS))
        assert channel.counts()["delivered"] == 5 + 4 + 1 + 7 + 7 + 10 + 10 * MOST_LOOKS

    on_loop(main)


def test_a_payload_of_other_caps_is_for_the_loop_even_if_they_change_while_it_comes() -> None:
    def main() -> None:
        inbox = Inbox(Turns())
        told: list[Any] = []
        thread, giver = a_thread(hands_on=True), a_thread(tell_after=told.append)
        lane = ThreadLane(
            inbox, {}, {}, thread,
            caps_changed=lambda port, caps: None, took=lambda channel, payload: None, count=lambda number: None,
            now_ns=lambda: 0, offer=lambda item: None, emit=cast("Any", None),
        )  # fmt: skip
        inbox.taker = lane

        class Late(list[None]):
            def pop(self, index: Any = -1) -> None:  # after the loop has given the node something else
                channel.caps = object()
                super().pop(index)

        lane.free = Late([None])
        channel, _, shortcut = shortened(inbox, giver)
        channel.caps = before = object()
        assert not shortcut.give(SimpleNamespace(caps=before))
        assert lane.free == [None]  # the node's turn was given back
        assert told == []
        lane._is_wanted = True  # by the loop, which could not have it in between
        channel.caps = before
        assert not shortcut.give(SimpleNamespace(caps=before))
        assert told == [lane._look]

    on_loop(main)


def test_requests_go_up_where_payloads_come_down_past_the_loop(gifts: Gifts, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Asks(Sink, type="test/asks"):
        """Asks for a keyframe."""

        thread = True
        numbers = Input(Record)

        def consume(self, item: Record[int]) -> None:
            if item.value == 5:
                self.ctx.request(type(self).numbers, KeyframeRequest("five"))

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(row(1, last="test/asks", count=10))
        engine.runners["step-0"].node.requested = lambda output, signal: asked.append(signal.reason)  # type: ignore[method-assign]
        await engine.wait()

    monkeypatch.setitem(parts.TYPES, "test/asks", Asks)
    run(main)
    assert asked == ["five"]
    assert gifts.given
