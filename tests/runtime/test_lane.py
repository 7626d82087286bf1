"""Nodes with a thread of their own between other nodes: order, waiting, failures, ends."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from flowstream import Config, Emit, Input, Output, Record, Transform, field
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Event, NodeFailed
from flowstream.testing.clock import VirtualClock
from tests.runtime.parts import TYPES, Counter, Keep, plan, run

pytestmark = pytest.mark.usefixtures("backend")


class RepeatConfig(Config):
    times: int = field(default=1, description="How often to give each.")
    fail_at: int = field(default=-2, description="Number at which to fail.")
    stray_at: int = field(default=-2, description="Number at which to emit to an output of another node.")


class Repeat(Transform[RepeatConfig], type="test/repeat"):
    """Gives each number several times, on a thread of its own."""

    thread = True
    numbers = Input(Record)
    copies = Output(Record)

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        if item.value == self.config.fail_at:
            raise RuntimeError("cannot repeat that")
        if item.value == self.config.stray_at:
            yield Counter.out(item)
        for _ in range(self.config.times):
            yield self.copies(item)

    def finish(self) -> Iterator[Emit[Record[int]]]:
        yield self.copies(Record(-1, 0))


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TYPES, "test/repeat", Repeat)


async def through(engine: Engine, *, count: int, items: int = 4, passes: int = 1, **config: Any) -> list[int]:
    """What comes out of a row of ``Repeat`` nodes that ``count`` numbers go into."""
    row = ["count", *(f"repeat-{number}" for number in range(passes)), "keep"]
    nodes: dict[str, Any] = dict.fromkeys(row[1:-1], ("test/repeat", config))
    nodes |= {"count": ("test/counter", {"count": count}), "keep": ("test/keep", {})}
    outputs = {"count": "count.out"} | {id: f"{id}.copies" for id in row[1:-1]}
    edges = {f"{to}.numbers": outputs[of] for of, to in itertools.pairwise(row)}
    await engine.start(plan(nodes, edges, items=items))
    await engine.wait()
    return Keep.kept["keep"]


def test_a_row_of_threads_keeps_the_order_and_loses_nothing() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        assert await through(engine, count=40, passes=3) == [*range(40), -1, -1, -1]

    run(main)


def test_one_call_may_give_more_than_the_edge_takes() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        kept = await through(engine, count=5, items=1, passes=2, times=7)
        assert kept == [number for number in range(5) for _ in range(49)] + [-1] * 8
        assert engine.status()["keep"].dropped == {}

    run(main)


@pytest.mark.parametrize(
    ("config", "said"),
    [({"fail_at": 3}, "cannot repeat that"), ({"stray_at": 3}, "which is not one of its outputs")],
)
def test_a_failure_ends_the_node_with_what_came_before_delivered(config: dict[str, int], said: str) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await through(engine, count=6, **config)
        failed = [event for event in events if isinstance(event, NodeFailed)]
        assert [event.node for event in failed] == ["repeat-0"]
        assert said in failed[0].error.message
        assert Keep.kept["keep"] == [0, 1, 2]
        assert engine.status()["repeat-0"].state == "failed"

    run(main)


def test_a_stop_while_the_thread_works_ends_it() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        nodes: dict[str, Any] = {
            "count": ("test/counter", {}),
            "repeat": ("test/repeat", {"times": 3}),
            "keep": ("test/keep", {"slow": True}),
        }
        await engine.start(plan(nodes, {"repeat.numbers": "count.out", "keep.numbers": "repeat.copies"}, items=1))
        await clock.sleep_until_ns(clock.now_ns() + 1_000_000_000)
        assert not await engine.stop(drain_seconds=1)
        assert {status.state for status in engine.status().values()} == {"stopped"}

    run(main)
