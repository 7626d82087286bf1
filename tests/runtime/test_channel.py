"""Edges at work: whatever happens to them, everything that went in came out, was counted as lost, or waits."""

import sys
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowstream import Config, Context, EncodedPacket, KeyframeRequest, Output, Record, Source
from flowstream import field as setting
from flowstream.graph.plan import Edge
from flowstream.proto.overflow import POLICIES, Limit
from flowstream.runtime.channel import MOST_FEEDS, Channel, Inbox, Outlet, wait_for_room
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Event
from flowstream.runtime.wakeup import Turns
from flowstream.testing.clock import VirtualClock, run_virtual
from tests.runtime import parts
from tests.runtime.parts import H264, Keep, Loop, plan, run

pytestmark = pytest.mark.usefixtures("backend")

EDGE = Edge("out", "items", "in", "out", "block", Limit(2))


@dataclass
class Emitting:
    number: int
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    is_done: bool = False


class Rig:
    """One edge, its consumer and whoever gives at the moment; producers that wait are tasks."""

    def __init__(self, edge: Edge, tasks: Any) -> None:
        self.turns = Turns()
        self.inbox = Inbox(self.turns)
        self.channel: Channel = self.inbox.open(edge)
        self.edge = edge
        self.tasks = tasks
        self.asked = 0
        self.given = 0
        self.got: list[int] = []
        self.emitting: list[Emitting] = []
        self.outlet = self.replace()

    def replace(self) -> Outlet:
        """Another producer in the place of this one, which has nothing more to give."""
        before = self.channel.feeds[-1] if self.channel.feeds else None
        self.outlet = Outlet("out", (Record, EncodedPacket), self._request)
        self.channel.attach(self.outlet)
        if before is not None:
            before.outlet.hand_over()
        return self.outlet

    def _request(self, output: str, signal: KeyframeRequest) -> None:
        self.asked += 1

    def change(self, edge: Edge) -> None:
        """The same producer with other options, as at a reload."""
        for feed in list(self.channel.feeds):
            feed.close()
        self.channel.rewire(edge)
        self.channel.attach(self.outlet, continues=True)

    async def emit(self, payload: Any = None, scope: anyio.CancelScope | None = None) -> None:
        number, self.given = self.given, self.given + 1
        emitting = Emitting(number, scope or anyio.CancelScope())
        self.emitting.append(emitting)
        payload = payload or Record(number, number)
        feeds = self.outlet.offer(payload)
        with emitting.scope:
            if feeds is not None:
                await wait_for_room(feeds, payload)
        emitting.is_done = True
        self.emitting.remove(emitting)

    def poll(self) -> bool:
        got = self.inbox.poll()
        if got is not None:
            self.got.append(got[1].time_ns)
        return got is not None

    def check(self) -> None:
        counts = self.channel.counts()
        assert counts["received"] == self.given
        assert counts["received"] == counts["delivered"] + counts["dropped"] + counts["queued"]
        assert counts["delivered"] == len(self.got)
        assert len(self.channel.feeds) <= MOST_FEEDS


limits = st.builds(Limit, items=st.integers(1, 3), bytes=st.none() | st.just(40), time_ns=st.none() | st.integers(0, 4))
edges = st.builds(lambda policy, limit: replace(EDGE, overflow=policy, limit=limit), st.sampled_from(POLICIES), limits)
steps = st.lists(
    st.sampled_from(["emit", "emit", "emit", "poll", "poll", "cancel", "replace", "settle"]) | edges, max_size=40
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edge=edges, schedule=steps, ends=st.booleans())
def test_what_goes_in_comes_out_or_is_counted_or_waits(edge: Edge, schedule: list[Any], ends: bool) -> None:
    async def main(clock: VirtualClock) -> None:
        async with anyio.create_task_group() as tasks:
            rig = Rig(edge, tasks)
            for step in schedule:
                if step == "emit":
                    tasks.start_soon(rig.emit)
                elif step == "poll":
                    rig.poll()
                elif step == "cancel" and rig.emitting:
                    rig.emitting[0].scope.cancel()
                elif step == "replace":
                    rig.replace()
                elif isinstance(step, Edge):
                    rig.change(step)
                if step != "emit":
                    await anyio.wait_all_tasks_blocked()
                    rig.check()
            await anyio.wait_all_tasks_blocked()
            if ends:
                rig.channel.close("node-ended")
                await anyio.wait_all_tasks_blocked()
            while rig.poll():
                await anyio.wait_all_tasks_blocked()
            rig.check()
            assert not rig.emitting, "nobody waits for ever"
            assert rig.channel.counts()["queued"] == 0
            assert len(set(rig.got)) == len(rig.got)
            policies = {edge.overflow, *(step.overflow for step in schedule if isinstance(step, Edge))}
            if policies == {"block"} and not ends and "cancel" not in schedule and schedule.count("replace") < 3:
                assert sorted(rig.got) == list(range(rig.given)), "block loses nothing"

    run_virtual(main, backend=Loop.backend)


@pytest.mark.parametrize("storm", ["limits", "producers"])
def test_a_consumer_that_stands_still_gathers_nothing_over_a_storm_of_reloads(storm: str) -> None:
    async def main(clock: VirtualClock) -> None:
        async with anyio.create_task_group() as tasks:
            rig = Rig(EDGE, tasks)

            async def give(outlet: Outlet) -> None:
                while rig.outlet is outlet:
                    await rig.emit()

            tasks.start_soon(give, rig.outlet)
            most = 0
            for number in range(100):
                await anyio.wait_all_tasks_blocked()
                if storm == "limits":
                    rig.change(replace(EDGE, limit=Limit(1 + number % 2)))
                else:
                    tasks.start_soon(give, rig.replace())
                most = max(most, rig.channel.counts()["queued"])
            assert most <= MOST_FEEDS * (EDGE.limit.items + 1)
            assert storm == "producers" or most == EDGE.limit.items + 1
            rig.check()
            tasks.cancel_scope.cancel()

    run_virtual(main, backend=Loop.backend)


def test_two_producers_that_wait_each_get_their_turn_in_order() -> None:
    async def main(clock: VirtualClock) -> None:
        async with anyio.create_task_group() as tasks:
            rig = Rig(replace(EDGE, limit=Limit(1)), tasks)
            for _ in range(6):
                tasks.start_soon(rig.emit)
                await anyio.wait_all_tasks_blocked()
            assert [each.number for each in rig.emitting] == [1, 2, 3, 4, 5]
            rig.poll()
            await anyio.wait_all_tasks_blocked()
            assert [each.number for each in rig.emitting] == [2, 3, 4, 5]
            while rig.poll():
                pass
            assert rig.got == [0, 1, 2, 3, 4, 5]

    run_virtual(main, backend=Loop.backend)


def test_a_payload_that_was_given_up_is_counted_and_never_comes() -> None:
    async def main(clock: VirtualClock) -> None:
        async with anyio.create_task_group() as tasks:
            rig = Rig(replace(EDGE, limit=Limit(1)), tasks)
            await rig.emit()
            with anyio.move_on_after(1):
                payload = Record(1, 1)
                feeds = rig.outlet.offer(payload)
                assert feeds is not None
                await wait_for_room(feeds, payload)
            rig.given += 1
            assert rig.channel.losses() == {"cancelled": 1}
            assert rig.poll()
            assert not rig.poll()
            rig.check()

    run_virtual(main, backend=Loop.backend)


def test_a_keyframe_is_asked_for_once_however_long_the_consumer_stands_still() -> None:
    async def main(clock: VirtualClock) -> None:
        async with anyio.create_task_group() as tasks:
            rig = Rig(replace(EDGE, overflow="drop-to-keyframe", limit=Limit(5)), tasks)
            for number in range(1000):
                await rig.emit(EncodedPacket(H264, b"x", number, keyframe=number % 20 == 0))
            assert rig.asked == 1
            while rig.poll():
                pass
            assert rig.asked == 2, "now that it goes on"
            await rig.emit(EncodedPacket(H264, b"x", 1000, keyframe=False))
            await rig.emit(EncodedPacket(H264, b"x", 1001, keyframe=True))
            rig.poll()
            assert rig.asked == 2
            assert rig.got[-1] == 1001

    run_virtual(main, backend=Loop.backend)


def test_a_sibling_is_delayed_only_by_who_asked_to_block_and_only_past_its_bound() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        both = plan(
            {
                "count": ("test/counter", {}),
                "slow": ("test/keep", {"slow": True}),
                "quick": ("test/keep", {}),
            },
            {"slow.numbers": "count.out", "quick.numbers": "count.out"},
        )
        await engine.start(replace(both, edges=tuple(
            edge if edge.consumer == "slow" else replace(edge, overflow="drop-oldest", limit=Limit(1))
            for edge in both.edges
        )))  # fmt: skip
        await anyio.sleep(0.045)
        assert Keep.kept["quick"] == [0, 1, 2, 3, 4], "as they come"
        await anyio.sleep(5)
        assert Keep.kept["quick"] == [0, 1, 2, 3, 4, 5], "one in hand, four on the edge; the sixth has to wait"
        assert engine.runners["slow"].inbox.channels["numbers", 0].counts()["queued"] == 5

    run(main)


class FloodConfig(Config):
    count: int = setting(description="How many to give.")
    looks: int = setting(default=10, description="How often to look at the memory.")


class Flood(Source[FloodConfig], type="test/flood"):
    """Gives numbers as fast as it can; the others are let in after each few."""

    is_live = True
    out = Output(Record)
    blocks: list[int] = []

    async def run(self, ctx: Context) -> None:
        for number in range(self.config.count):
            if number % (self.config.count // self.config.looks) == 0:
                Flood.blocks.append(sys.getallocatedblocks())
            await ctx.emit(self.out(Record(number, number)))
            if number % 8 == 7:
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("overflow", ["block", "drop-oldest", "drop-newest", "latest"])
def test_memory_is_flat_while_a_graph_is_stalled_and_goes_on(overflow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parts.TYPES, "test/flood", Flood)
    Flood.blocks.clear()
    count, seen = 8_000, 0

    async def consume(self: Keep, item: Record[int]) -> None:
        nonlocal seen
        seen += 1
        for _ in range(100 if seen % 500 == 0 else 0):
            await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(Keep, "consume", consume)

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        flood = plan(
            {"flood": ("test/flood", {"count": count}), "add": ("test/add", {}), "keep": ("test/keep", {})},
            {"add.numbers": "flood.out", "keep.numbers": "add.sums"},
            overflow=overflow,
            items=8,
        )
        await engine.start(flood)
        await engine.wait()
        status = engine.status()
        lost = sum(status["add"].dropped.values()) + sum(status["keep"].dropped.values())
        assert seen + lost == count + 1
        assert lost == 0 if overflow == "block" else lost > 0

    run(main)
    settled = Flood.blocks[2:]
    assert max(settled) - min(settled) < 500
