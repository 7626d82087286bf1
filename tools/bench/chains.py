"""Chains of passes that something goes through 1000 times a second: ours, and GStreamer's ``queue`` elements.

What one pass costs is the difference between a chain of some and a chain of none, so that source, sink and start-up
cancel out.
"""

from __future__ import annotations

import itertools
import time

import anyio
from measuring import cpu_of

from flowstream import Config, Context, Emit, Input, Node, Output, Record, Sink, Source, Transform, field
from flowstream.graph.plan import Edge, Plan, PlannedNode
from flowstream.proto.overflow import Limit
from flowstream.runtime.engine import Engine
from flowstream.runtime.stalls import Stalls
from flowstream.runtime.stats import Statistics

RATE_HZ = 1000


class BeatConfig(Config):
    """Config of ``bench/beat``."""

    count: int = field(ge=1, description="How many to give.")


class Beat(Source[BeatConfig], type="bench/beat"):
    """Gives a record every millisecond."""

    is_live = True
    out = Output(Record)

    async def run(self, ctx: Context) -> None:
        """Keep the beat; what comes late does not delay the rest."""
        begin_ns = ctx.now_ns()
        for number in range(self.config.count):
            await ctx.emit(self.out(Record(number, number)))
            await ctx.sleep_until_ns(begin_ns + (number + 1) * 1_000_000_000 // RATE_HZ)


class Pass(Node, type="bench/pass"):
    """Passes on what it gets, in a task of its own."""

    items = Input(Record)
    out = Output(like=items)

    async def run(self, ctx: Context) -> None:
        """Pass on to the end."""
        ctx.ready()
        async for item in ctx.stream(self.items):
            await ctx.emit(self.out(item))


class ThreadPass(Transform, type="bench/thread-pass"):
    """Passes on what it gets, on a thread of its own."""

    thread = True
    items = Input(Record)
    out = Output(like=items)

    def process(self, item: Record[int]) -> list[Emit[Record[int]]]:
        """Pass on."""
        return [self.out(item)]


class Count(Sink, type="bench/count"):
    """Counts what comes."""

    items = Input(Record)
    seen = 0

    def consume(self, item: Record[int]) -> None:
        """Count."""
        Count.seen += 1


def plan(node_type: type[Node], passes: int, items: int) -> Plan:
    """Return the plan of a beat, so many passes and a count, in a row; nothing is dropped."""
    row: list[tuple[str, type[Node], Config]] = [("beat", Beat, BeatConfig(count=items))]
    row += [(f"pass-{number}", node_type, node_type.config_class()) for number in range(passes)]
    row.append(("count", Count, Count.config_class()))
    nodes = {id: PlannedNode(id, each.type_id, each, config) for id, each, config in row}
    edges = tuple(
        Edge(consumer, "items", producer, "out", "block", Limit(items=8))
        for (producer, *_), (consumer, *_) in itertools.pairwise(row)
    )
    return Plan("chain", nodes, edges, is_live=True)


def ours(node_type: type[Node], passes: int, items: int) -> float:
    """Run such a chain in a real engine, in this process, and return its CPU time in seconds.

    Everything is counted and looked at that is in a run: rates, latencies, queues, processor time, stalls.
    """

    async def run() -> float:
        async with Engine.open() as engine, anyio.create_task_group() as tasks:
            before = time.process_time()
            await engine.start(plan(node_type, passes, items))
            tasks.start_soon(Stalls(Statistics(engine)).run)
            await engine.wait()
            tasks.cancel_scope.cancel()
            return time.process_time() - before

    Count.seen = 0
    seconds = anyio.run(run)
    if Count.seen != items:
        raise RuntimeError(f"{Count.seen} of {items} came through")
    return seconds


def gstreamer(queues: int, items: int) -> float:
    """Run a chain of queue elements and return the CPU time of its process, in seconds."""
    source = f"fakesrc num-buffers={items} format=time sizetype=fixed sizemax=64 datarate={64 * RATE_HZ}"
    chain = " ! ".join([source, "identity sync=true", *["queue"] * queues, "fakesink sync=false"])
    return cpu_of(["gst-launch-1.0", "--quiet", *chain.split()])
