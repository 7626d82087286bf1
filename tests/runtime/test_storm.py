"""A storm of edits ends as a fresh start of the last good plan would; what did not change was not touched."""

import os
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest

from flowstream import Config, Context, Emit, Input, Node, Output, PeerError, Record, Snapshot, Transform, field, live
from flowstream.graph.patch import Patch
from flowstream.graph.plan import Plan
from flowstream.runtime.engine import Engine, ReloadError
from flowstream.runtime.events import Event
from flowstream.testing.clock import VirtualClock
from flowstream.testing.leaks import Open
from tests.runtime import parts
from tests.runtime.parts import Keep, plan, run

pytestmark = pytest.mark.usefixtures("backend")

EDITS = 1000  # on each of the two kinds of event loop
SEEDS = range(20 if os.environ.get("FLOWSTREAM_FUZZ") else 1)


class ChangeConfig(Config):
    add: int = live(default=0, description="What to add; 9 is refused, 8 fails.")
    kind: str = field(default="a", description="Any change of it makes another node; 'bad' fails to open.")


class Passes(Node[ChangeConfig], type="test/passes"):
    """Passes numbers on, with a life of its own."""

    numbers = Input(Record)
    sums = Output(Record)

    async def open(self) -> None:
        await anyio.sleep(0.003)
        if self.config.kind == "bad":
            raise PeerError("cannot open")

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        async for item in ctx.stream(self.numbers):
            await ctx.emit(self.sums(item))

    def accepts(self, config: ChangeConfig) -> None:
        if config.add == 9:
            raise ValueError("not nine")

    def reconfigured(self, old: ChangeConfig) -> None:
        if self.config.add == 8:
            raise RuntimeError("not eight")


class Owns(Transform[ChangeConfig], type="test/owns"):
    """Has a device for itself, and counts what it ever passed."""

    numbers = Input(Record)
    sums = Output(Record)
    restores = (1,)
    owners: list["Owns"] = []
    passed = 0

    @classmethod
    def exclusive(cls, config: ChangeConfig) -> str:
        return "device one"

    def open(self) -> None:
        assert not Owns.owners, "somebody has it already"
        if self.config.kind == "bad":
            raise PeerError("the device is gone")
        Owns.owners.append(self)

    def close(self) -> None:
        if self in Owns.owners:
            Owns.owners.remove(self)

    def snapshot(self) -> Snapshot:
        return Snapshot(1, {"passed": self.passed})

    def restore(self, snapshot: Snapshot) -> None:
        self.passed = snapshot.values["passed"]

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        self.passed += 1
        yield self.sums(item)


@pytest.fixture(autouse=True)
def types(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (Passes, Owns):
        monkeypatch.setitem(parts.TYPES, each.type_id, each)
    Owns.owners.clear()


def edited(chance: random.Random | None) -> Plan:
    """A plan at random; a chain that is the same in all of them is part of it."""
    nodes: dict[str, Any] = {
        "fixed-count": ("test/counter", {}),
        "fixed-add": ("test/threaded-add", {}),
        "fixed-keep": ("test/keep", {}),
    }
    edges = {"fixed-add.numbers": "fixed-count.out", "fixed-keep.numbers": "fixed-add.sums"}
    outputs = ["fixed-count.out", "fixed-add.sums"]
    if chance is None:
        return plan(nodes, edges)
    for id in chance.sample(("s1", "s2"), chance.randint(0, 2)):
        nodes[id] = ("test/counter", {"step": chance.choice((1, 2)), "fail_at": chance.choice((-1, -1, -2, 3))})
        outputs.append(f"{id}.out")
    owned = False
    for id in chance.sample(("m1", "m2", "m3", "m4"), chance.randint(0, 4)):
        type_id = chance.choice(("test/add", "test/threaded-add", "test/passes", "test/owns"))
        if type_id == "test/owns" and owned:
            type_id = "test/passes"
        owned = owned or type_id == "test/owns"
        kinds = ("a", "a", "b", "c", "bad") if type_id in ("test/passes", "test/owns") else ("a", "b")
        nodes[id] = (type_id, {"add": chance.choice((0, 0, 1, 8, 9)), "kind": chance.choice(kinds)})
        edges[f"{id}.numbers"] = chance.choice(outputs)
        outputs.append(f"{id}.sums")
    for id in chance.sample(("k1", "k2", "h1"), chance.randint(0, 3)):
        nodes[id] = ("test/hold", {"title": chance.choice("ab")}) if id == "h1" else ("test/keep", {})
        edges[f"{id}.numbers"] = chance.choice(outputs)
    return plan(nodes, edges, overflow=chance.choice(("block", "drop-oldest")), items=chance.choice((2, 8)))


def with_fixed_edges(made: Plan) -> Plan:
    """The same, with the edges of the chain that never changes as they always are."""
    fixed = plan({"count": ("test/counter", {}), "keep": ("test/keep", {})}, {"keep.numbers": "count.out"}).edges[0]
    return replace(made, edges=tuple(
        replace(edge, overflow=fixed.overflow, limit=fixed.limit) if edge.consumer.startswith("fixed") else edge
        for edge in made.edges
    ))  # fmt: skip


def shape(engine: Engine) -> dict[str, Any]:
    """What runs and how it is wired, without what counts up."""
    assert engine.plan is not None
    by_outlet = {id_of: f"{id}.{name}" for id, r in engine.runners.items() for name, id_of in r.outlets.items()}
    return {
        "states": {id: runner.state for id, runner in engine.runners.items()},
        "configs": {id: runner.node.config for id, runner in engine.runners.items()},
        "types": {id: type(runner.node) for id, runner in engine.runners.items()},
        "in": {
            channel.edge.name: [by_outlet.get(feed.outlet) for feed in channel.feeds if not feed.closed]
            for runner in engine.runners.values() for channel in runner.inbox.channels.values()
        },
        "out": {by_outlet[o]: len(o.feeds) for runner in engine.runners.values() for o in runner.outlets.values()},
        "threads": sorted(t.name for t in threading.enumerate() if t.name.startswith("flowstream ")),
        "alive": {runner.planned.id for runner in engine.ensemble.alive},
        "holdings": sorted(engine.ensemble.holdings._entries),
        "supervised": list(engine.ensemble.supervisors) and set(engine.ensemble.supervisors),
    }  # fmt: skip


async def edit(engine: Engine, wanted: Plan, chance: random.Random) -> bool:
    """Applies a plan, sometimes given up half-way for a newer one; what was not to be touched was not."""
    before, old_plan = dict(engine.runners), engine.plan
    patch: Patch | None = None
    with anyio.move_on_after(chance.choice((0.001, 0.002, 60, 60, 60, 60))):
        try:
            patch = await engine.apply(wanted)
        except ReloadError:
            pass
    if patch is None:
        assert engine.plan is old_plan
        assert all(engine.runners[id] is runner for id, runner in before.items() if type(runner.node) is not Owns)
        return False
    assert engine.plan is wanted
    for change in patch.changes:
        if change.action == "keep":
            assert engine.runners[change.node] is before[change.node], change.node
    return True


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_storm_of_edits_the_graph_is_as_if_the_last_good_one_had_been_started(seed: int) -> None:
    chance = random.Random(seed)
    ended: list[dict[str, Any]] = []
    last: list[Plan] = []
    opened = Open.now()

    async def storm(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        first = with_fixed_edges(edited(None))
        await engine.start(first)
        fixed = {id: engine.runners[id] for id in ("fixed-count", "fixed-add", "fixed-keep")}
        begun_ns, applied = clock.now_ns(), 0
        last.append(first)
        for _ in range(EDITS):
            wanted = with_fixed_edges(edited(chance))
            if await edit(engine, wanted, chance):
                applied += 1
                last[0] = wanted
            await anyio.sleep(chance.choice((0, 0, 0.004, 0.03)))
        await anyio.sleep(20)
        count = (clock.now_ns() - begun_ns) // 10_000_000
        assert EDITS / 10 < applied < EDITS
        assert {id: engine.runners[id] for id in fixed} == fixed
        kept = Keep.kept["fixed-keep"]
        assert kept == list(range(len(kept)))
        assert count - 2 <= len(kept) <= count + 2
        for runner in engine.runners.values():
            for channel in runner.inbox.channels.values():
                counts = channel.counts()
                assert counts["received"] == counts["delivered"] + counts["dropped"] + counts["queued"]
        ended.append(shape(engine))

    async def fresh(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(last[0])
        await anyio.sleep(20)
        ended.append(shape(engine))

    run(storm)
    run(fresh)
    assert ended[0] == ended[1]
    assert opened.left() == []
