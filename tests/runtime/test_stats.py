"""Numbers of a running graph: exact on virtual time, and nothing is lost from them, whatever becomes of the nodes."""

import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from flowstream.graph.plan import Edge, Plan
from flowstream.proto.overflow import POLICIES, Limit, Overflow
from flowstream.runtime.engine import Engine
from flowstream.runtime.stats import SAMPLES, SECOND_NS, EdgeStats, RunStats, Statistics
from flowstream.testing.clock import VirtualClock, run_virtual
from tests.runtime.flows import SOON, flow
from tests.runtime.parts import Busy, Loop

pytestmark = pytest.mark.usefixtures("backend")

S = SECOND_NS
WIRES = {"encode.video": "screen.out", "out.video": "encode.out"}
NODES = {"screen": ("test/pictures", {}), "encode": ("test/relay", {}), "out": ("test/taker", {})}


def count(plan: Plan, main: Callable[[Engine, Statistics], Awaitable[None]]) -> None:
    async def call(clock: VirtualClock) -> None:
        async with Engine.open(clock=clock) as engine, anyio.create_task_group() as tasks:
            statistics = Statistics(engine)
            await engine.start(plan)
            statistics.follow(clock.now_ns())

            async def tick() -> None:
                while True:
                    await anyio.sleep(1)
                    statistics.tick(clock.now_ns())
                    conserved(statistics.snapshot())

            tasks.start_soon(tick)
            await main(engine, statistics)
            await engine.stop(drain_seconds=0)
            tasks.cancel_scope.cancel()

    Busy.holder = None
    run_virtual(call, backend=Loop.backend)


def conserved(stats: RunStats) -> None:
    for edge in stats.edges:
        assert edge.received == edge.delivered + sum(edge.dropped.values()) + edge.queue.items, edge


def edge_of(statistics: Statistics, name: str, span_ns: int = 10 * S) -> EdgeStats:
    return next(edge for edge in statistics.snapshot(span_ns).edges if edge.name == name)


def test_rates_and_latencies_of_a_graph_that_flows() -> None:
    async def main(engine: Engine, statistics: Statistics) -> None:
        await anyio.sleep(20.5)
        stats = statistics.snapshot()
        assert (stats.graph, stats.state, stats.span_ns) == ("flow", "running", 10 * S)
        assert stats.up_ns == 20_500_000_000
        screen, encode, out = stats.nodes
        assert (screen.rates_out, screen.rate_in, screen.latency) == ({"out": 50.0}, 0.0, None)
        assert (encode.rate_in, encode.rates_out) == (50.0, {"out": 50.0})
        assert (out.rate_in, out.dropped, out.restarts) == (50.0, 0, 0)
        assert out.received in (1025, 1026)  # one is due at this very moment
        edge = stats.edges[1]
        assert (edge.name, edge.producer, edge.output, edge.consumer) == ("out.video", "encode", "out", "out")
        assert (edge.rate, edge.drop_rate) == (50.0, 0.0)
        assert edge.idle_ns in (0, 20_000_000)
        assert edge.latency is not None
        assert edge.latency.count == 500, "below the bound every payload is looked at"
        assert edge.latency.max_ns == 3_000_000
        assert edge.latency.p50_ns == edge.latency.p95_ns == 3_000_000
        assert edge.queue == dataclasses.replace(edge.queue, items=0, bytes=0, time_ns=0, most_items=4)
        assert statistics.snapshot(60 * S).span_ns == 20 * S, "as far as it was watched"

    count(flow(NODES, WIRES), main)


@pytest.mark.parametrize("overflow", POLICIES)
@pytest.mark.parametrize("each_ms", [0, 15, 70, 1500])
def test_what_came_was_taken_lost_or_waits(overflow: Overflow, each_ms: int) -> None:
    async def main(engine: Engine, statistics: Statistics) -> None:
        await anyio.sleep(15)
        edge = edge_of(statistics, "out.video", 60 * S)
        taken = min(50.0, 1000 / each_ms if each_ms else 50.0)
        assert edge.rate == pytest.approx(taken, rel=0.3)
        if overflow == "block":
            assert edge.dropped == {}
        else:
            assert (edge.drop_rate > 0) == (each_ms > 20)
        assert edge.queue.items <= (5 if overflow == "block" else 4), "with the one that the producer waits with"

    nodes = {**NODES, "out": ("test/taker", {"each_ms": each_ms})}
    count(flow(nodes, WIRES, overflow=overflow), main)


def test_a_full_queue_in_all_three_bounds() -> None:
    async def main(engine: Engine, statistics: Statistics) -> None:
        await anyio.sleep(10)
        edge = edge_of(statistics, "out.video")
        assert (edge.queue.items, edge.queue.bytes, edge.queue.time_ns) == (4, 400, 60_000_000)
        assert (edge.queue.most_items, edge.queue.most_bytes, edge.queue.most_time_ns) == (9, 1000, 60_000_000)
        assert edge.idle_ns is not None
        assert edge.idle_ns > 7 * S
        out = statistics.snapshot().nodes[-1]
        assert (out.memory_bytes, out.queued, out.dropped) == (400, 4, edge.dropped["overflow"])

    plan = flow({**NODES, "out": ("test/taker", {"stall_at": 100})}, WIRES)
    limited = tuple(dataclasses.replace(edge, limit=Limit(9, 1000, 60_000_000)) for edge in plan.edges)
    count(dataclasses.replace(plan, edges=limited), main)


def test_a_restart_is_counted_and_loses_no_numbers() -> None:
    async def main(engine: Engine, statistics: Statistics) -> None:
        await anyio.sleep(10.5)  # 2 s of pictures, 2 s of waiting, and again
        screen = statistics.snapshot().nodes[0]
        assert screen.restarts == 2
        edge = edge_of(statistics, "encode.video")
        assert edge.received > 200
        assert statistics.snapshot(60 * S).nodes[0].rates_out["out"] == pytest.approx(25, rel=0.3)

    count(flow({**NODES, "screen": ("test/pictures", {"fail_after": 100}, SOON)}, WIRES), main)


def test_a_replaced_consumer_goes_on_counting() -> None:
    async def main(engine: Engine, statistics: Statistics) -> None:
        await anyio.sleep(5.5)
        before = edge_of(statistics, "out.video")
        await engine.apply(flow({**NODES, "out": ("test/taker", {"each_ms": 1})}, WIRES))
        conserved(statistics.snapshot())
        await anyio.sleep(5)
        after = edge_of(statistics, "out.video")
        assert after.received >= before.received + 240
        assert after.rate == pytest.approx(50, rel=0.1)

    count(flow(NODES, WIRES), main)


def test_a_renamed_node_keeps_its_past_and_a_removed_one_is_forgotten() -> None:
    async def main(engine: Engine, statistics: Statistics) -> None:
        await anyio.sleep(5.5)
        plan = flow({"screen": NODES["screen"], "codec": NODES["encode"]}, {"codec.video": "screen.out"})
        codec = dataclasses.replace(plan.nodes["codec"], was="encode")
        await engine.apply(dataclasses.replace(plan, nodes={**plan.nodes, "codec": codec}))
        await anyio.sleep(1)
        stats = statistics.snapshot(60 * S)
        assert [node.id for node in stats.nodes] == ["screen", "codec"]
        assert [edge.name for edge in stats.edges] == ["codec.video"]
        assert stats.edges[0].received > 300
        assert stats.edges[0].rate == pytest.approx(50, rel=0.05)
        assert set(statistics.nodes) == {"screen", "codec"}
        assert len(statistics.edges) == 1

    count(flow(NODES, WIRES), main)


def test_a_fast_edge_is_sampled() -> None:
    async def main(engine: Engine, statistics: Statistics) -> None:
        await anyio.sleep(10.5)
        edge = edge_of(statistics, "fast.video", 5 * S)
        assert edge.rate == pytest.approx(1000, rel=0.01)
        assert edge.latency is not None
        assert SAMPLES * 5 <= edge.latency.count <= SAMPLES * 6
        assert edge.latency_count < 3_000

    pictures = ("test/pictures", {"each_us": 1000})
    count(flow({"screen": pictures, "fast": NODES["out"]}, {"fast.video": "screen.out"}), main)


def test_a_stream_that_becomes_slow_is_seen_at_once() -> None:
    """The looks were far apart; when a stream slows down they must not stay so."""

    async def main(engine: Engine, statistics: Statistics) -> None:
        await anyio.sleep(10)
        edge: Edge = engine.plan.edges[0]  # type: ignore[union-attr]
        last_ns = statistics.edges[edge.key].last_ns
        assert last_ns is not None
        assert engine.clock.now_ns() - last_ns <= S

    pictures = ("test/pictures", {"each_us": 1000, "pause_at": 3000, "pause": 1, "slow_us": 1_000_000})
    count(flow({"screen": pictures, "fast": NODES["out"]}, {"fast.video": "screen.out"}), main)


def test_it_is_json() -> None:
    async def main(engine: Engine, statistics: Statistics) -> None:
        await anyio.sleep(3.5)
        values: dict[str, Any] = json.loads(json.dumps(statistics.snapshot().to_json()))
        assert list(values["nodes"]) == ["screen", "encode", "out"]
        edge = values["edges"]["out.video"]
        assert edge["queue"]["most_items"] == 4
        assert edge["latency"]["p50_ns"] == 3_000_000
        assert values["edges"]["encode.video"]["dropped"] == {}

    count(flow(NODES, WIRES), main)


def test_nothing_runs_yet() -> None:
    async def call(clock: VirtualClock) -> None:
        async with Engine.open(clock=clock) as engine:
            statistics = Statistics(engine)
            statistics.tick(clock.now_ns() + S)
            stats = statistics.snapshot()
            assert (stats.state, stats.nodes, stats.edges) == ("starting", (), ())

    run_virtual(call, backend=Loop.backend)
