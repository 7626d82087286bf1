"""What goes through a graph: rates, latencies, queues, drops and processor time, of every node and every edge.

The queues and outputs count by themselves, and threads what they give one another, which is added up before anybody
looks (``Engine.count``); a ``tick`` a second reads the counters. Of the payloads that are taken from an edge only some
are looked at one by one, at most about SAMPLES a second, for their latency.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flowstream.errors import PeerError
from flowstream.graph.plan import Edge
from flowstream.media.records import Record
from flowstream.proto.window import Sketch, Window
from flowstream.runtime.channel import Channel
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Applied, Event, NodeFailed, NodeRestarted
from flowstream.runtime.runner import Runner

SAMPLES = 64
"""How many payloads a second and edge are looked at for their latency; below that rate, all."""

SECOND_NS = 1_000_000_000
DEFAULT_SPAN_NS = 10 * SECOND_NS
FAILURES_KEPT = 32


@dataclass(frozen=True, slots=True)
class Latency:
    """From the capture of a picture or sound to where it is now, over ``count`` payloads that were looked at.

    The quantiles are at most 1/32 above the exact ones.
    """

    count: int
    p50_ns: int
    p95_ns: int
    max_ns: int


@dataclass(frozen=True, slots=True)
class Fill:
    """What waits on an edge, and how much may: in payloads, bytes and nanoseconds of media (None: unbounded).

    ``items`` counts the payloads that producers wait with too.
    """

    items: int
    bytes: int
    time_ns: int
    most_items: int
    most_bytes: int | None
    most_time_ns: int | None


@dataclass(frozen=True, slots=True)
class EdgeStats:
    """An edge. Counters are over its life: ``received`` = ``delivered`` + all ``dropped`` + ``queue.items``.

    ``rate`` is deliveries a second and ``drop_rate`` losses a second, lately; ``idle_ns`` how long ago the last payload
    was taken (None: none yet). ``taken_latency`` is the latency's count and sum over its life.
    """

    name: str
    producer: str
    output: str
    consumer: str
    overflow: str
    feedback: bool
    received: int
    delivered: int
    dropped: dict[str, int]
    rate: float
    drop_rate: float
    latency: Latency | None
    queue: Fill
    idle_ns: int | None
    latency_count: int
    latency_sum_ns: int


@dataclass(frozen=True, slots=True)
class NodeStats:
    """A node. ``received`` and ``emitted`` count payloads of the instance that runs; rates are per second, lately.

    ``latency`` is that of what it took, ``cpu`` its share of one processor, lately, and ``cpu_ns`` its processor time
    over its life: on its thread, and of its tasks and holdings on the loop. ``memory_bytes`` is what waits for it.
    """

    id: str
    type: str
    state: str
    received: int
    emitted: dict[str, int]
    rate_in: float
    rates_out: dict[str, float]
    latency: Latency | None
    cpu: float
    cpu_ns: int
    memory_bytes: int
    queued: int
    dropped: int
    drop_rate: float
    restarts: int


@dataclass(frozen=True, slots=True)
class RunStats:
    """A whole graph, over the last ``span_ns``. ``cpu`` is the process's share of one processor, peak memory in bytes.

    ``wallclock_ns`` is when, in UTC.
    """

    graph: str
    state: str
    wallclock_ns: int
    up_ns: int
    span_ns: int
    cpu: float
    cpu_ns: int
    peak_memory_bytes: int
    threads: int
    nodes: tuple[NodeStats, ...]
    edges: tuple[EdgeStats, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values; nodes and edges by name."""
        values = asdict(self)
        for kind, key in (("nodes", "id"), ("edges", "name")):
            values[kind] = {each.pop(key): each for each in values[kind]}
        return values


class EdgeMeter:
    """Follows one edge through reloads and restarts."""

    def __init__(self, engine: Engine, now_ns: int) -> None:
        self.begun_ns = now_ns
        self.last_ns: int | None = None  # when a payload was taken last
        self.usual_ns: int | None = None  # between two, lately
        self.blocked_since_ns: int | None = None  # since when its producer waits, at every look
        self.window = Window(now_ns)
        self.channels: list[Channel] = []  # the newest last; others are drained by nodes that were replaced
        self.all_latencies = Sketch()  # its count and sum; never cut off
        self._now_ns = engine.clock.now_ns
        self._fresh = Sketch()
        self._stride = 1
        self._last_before_ns: int | None = None  # at the last tick
        self._gone: Counter[str] = Counter()  # counts of channels that are over, drops as "dropped CAUSE"
        self._before: Counter[str] = Counter()

    def see(self, captured_ns: int | None, taken_ns: int | None) -> int:
        """A payload was taken at a time, or is now; gives how many to leave alone until the next look."""
        now_ns = self._now_ns() if taken_ns is None else taken_ns
        if self.last_ns is None or now_ns > self.last_ns:  # what threads looked at is told later
            self.last_ns = now_ns
        if captured_ns is not None:
            self._fresh.add(now_ns - captured_ns)
        return self._stride

    def follow(self, channel: Channel) -> None:
        """Takes the edge's channel as it is now."""
        if channel not in self.channels:
            if not self.channels:  # what went before is no rate of now
                self._before = _counts(channel)
                self.last_ns = self.begun_ns if self._before["delivered"] else None
            self.channels.append(channel)
            self.blocked_since_ns = None
        if channel.meter != self.see:
            channel.watch(self.see)

    def counts(self) -> Counter[str]:
        """``received``, ``delivered`` and ``dropped CAUSE`` over the edge's life."""
        total = Counter(self._gone)
        for channel in self.channels:
            total += _counts(channel)
        return total

    def tick(self, now_ns: int, *, is_blocked: bool) -> None:
        """Reads the counters."""
        if now_ns <= self.window.end_ns:
            return
        counts = self.counts()
        delta = {name: count - self._before[name] for name, count in counts.items()}
        self._before = counts
        for channel in self.channels[:-1]:
            if channel.ended:
                self.channels.remove(channel)
                self._gone += _counts(channel)
        delivered = delta.get("delivered", 0)
        if delivered and (self.last_ns is None or self.last_ns < self.window.end_ns):
            self.last_ns = now_ns  # the look was too far apart for a stream that has become slow
        if delivered and self.last_ns is not None:
            if self._last_before_ns is not None:
                gap_ns = (self.last_ns - self._last_before_ns) // delivered
                self.usual_ns = gap_ns if self.usual_ns is None else (4 * self.usual_ns + gap_ns) // 5
            self._last_before_ns = self.last_ns
        span_ns = now_ns - self.window.end_ns
        self._stride = max(1, delivered * SECOND_NS // span_ns // SAMPLES)
        if self.channels:
            newest = self.channels[-1]
            newest.countdown, newest.stride = min(newest.countdown, self._stride), self._stride
        self.all_latencies.count += self._fresh.count
        self.all_latencies.total += self._fresh.total
        self.window.add(now_ns, delta, self._fresh)
        self._fresh = Sketch()
        if not is_blocked:
            self.blocked_since_ns = None
        elif self.blocked_since_ns is None:
            self.blocked_since_ns = now_ns


def _counts(channel: Channel) -> Counter[str]:
    counts = channel.counts()
    total = Counter({"received": counts["received"], "delivered": counts["delivered"]})
    for cause, count in channel.losses().items():
        total[f"dropped {cause}"] = count
    return total


@dataclass(slots=True)
class NodeMeter:
    """Follows one node through reloads and restarts. ``failures`` are moments, ``error`` is the last failure.

    ``cpu_ns`` is the processor time of all its instances.
    """

    state: str
    since_ns: int
    window: Window
    runner: Runner
    restarts: int = 0
    failures: deque[int] = field(default_factory=lambda: deque(maxlen=FAILURES_KEPT))
    error: str | None = None
    is_peer_error: bool = False
    retry_at_ns: int | None = None
    cpu_ns: int = field(init=False)
    before: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.cpu_ns, self.before = self.runner.cpu_ns, _counted(self.runner)

    def tick(self, now_ns: int, runner: Runner) -> None:
        """Reads the counters; those of another instance begin at zero, those of what it took over go on."""
        if now_ns <= self.window.end_ns:
            return
        counts = _counted(runner)
        before = self.before if runner is self.runner else Counter({"held": self.before["held"]})
        delta = {name: max(0, count - before[name]) for name, count in counts.items()}
        delta["cpu"] = delta.pop("own") + delta.pop("held")
        self.cpu_ns += delta["cpu"]
        self.window.add(now_ns, delta)
        self.before, self.runner = counts, runner


def _counted(runner: Runner) -> Counter[str]:
    held_ns = runner.held_cpu_ns
    counts = Counter({"in": runner.received, "own": runner.cpu_ns - held_ns, "held": held_ns})
    for name, outlet in runner.outlets.items():
        counts[f"out {name}"] = outlet.emitted
    return counts


class Statistics:
    """Keeps the numbers of a running graph. For the loop of its engine; ``tick`` is called once a second."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.begun_ns = engine.clock.now_ns()
        self.nodes: dict[str, NodeMeter] = {}
        self.edges: dict[tuple[str, str, int], EdgeMeter] = {}
        self._process = Window(self.begun_ns)
        self._process_cpu_ns = time.process_time_ns()
        engine.listen(self._heard)

    def tick(self, now_ns: int) -> None:
        """Reads all counters. A node or an edge that came since the last time begins here."""
        cpu_ns = time.process_time_ns()
        self._process.add(now_ns, {"cpu": cpu_ns - self._process_cpu_ns})
        self._process_cpu_ns = cpu_ns
        self.engine.count()
        self.follow(now_ns)
        for id, runner in self.engine.runners.items():
            self.nodes[id].tick(now_ns, runner)
        for meter in self.edges.values():
            is_blocked = bool(meter.channels) and meter.channels[-1].makes_wait
            meter.tick(now_ns, is_blocked=is_blocked)

    def follow(self, now_ns: int) -> None:
        """Begins with nodes and edges that are new, and ends with those that are gone."""
        plan = self.engine.plan
        if plan is None:
            return
        for id, runner in self.engine.runners.items():
            meter = self.nodes.get(id)
            if meter is None:
                meter = self.nodes[id] = NodeMeter(runner.state, now_ns, Window(now_ns), runner)
            elif meter.state != runner.state:
                meter.state, meter.since_ns = runner.state, now_ns
        for id in [id for id in self.nodes if id not in self.engine.runners]:
            del self.nodes[id]
        for edge in plan.edges:
            channel = self.channel(edge)
            if channel is not None:
                if edge.key not in self.edges:
                    self.edges[edge.key] = EdgeMeter(self.engine, now_ns)
                self.edges[edge.key].follow(channel)
        keys = {edge.key for edge in plan.edges}
        for key in [key for key in self.edges if key not in keys]:
            del self.edges[key]

    def channel(self, edge: Edge) -> Channel | None:
        """The consumer's end of an edge, as it is now."""
        runner = self.engine.runners.get(edge.consumer)
        return runner.inbox.channels.get((edge.input, edge.index)) if runner else None

    def _heard(self, event: Event) -> None:
        now_ns = self.engine.clock.now_ns()
        if isinstance(event, Applied) and event.patch.renamed:
            renamed = event.patch.renamed
            self.nodes = {renamed.get(id, id): meter for id, meter in self.nodes.items()}
            self.edges = {(renamed.get(key[0], key[0]), *key[1:]): meter for key, meter in self.edges.items()}
        if isinstance(event, NodeFailed | NodeRestarted | Applied):
            self.follow(now_ns)
        if isinstance(event, NodeFailed) and event.node in self.nodes:
            node, cause = self.nodes[event.node], event.error.__cause__
            node.failures.append(now_ns)
            node.error = getattr(cause, "message", None) or f"{type(cause).__name__}: {cause}"
            node.is_peer_error = isinstance(cause, PeerError)
            node.retry_at_ns = None if event.retry_in_ns is None else now_ns + event.retry_in_ns
            node.state, node.since_ns = "failed" if event.retry_in_ns is None else "restarting", now_ns
        if isinstance(event, NodeRestarted) and event.node in self.nodes:
            node = self.nodes[event.node]
            node.restarts += 1
            node.retry_at_ns = None
            node.state, node.since_ns = "running", now_ns

    # --- what is told -----------------------------------------------------------------------------------------------

    def snapshot(self, span_ns: int = DEFAULT_SPAN_NS) -> RunStats:
        """Everything as it is now; rates and latencies over the last ``span_ns``, as far as that was watched."""
        engine, plan = self.engine, self.engine.plan
        engine.count()
        edges = tuple(self._edge(edge, span_ns) for edge in plan.edges if edge.key in self.edges) if plan else ()
        process = self._process.over(span_ns)
        return RunStats(
            graph=plan.name if plan else "",
            state=engine.state,
            wallclock_ns=engine.clock.wallclock_ns(),
            up_ns=engine.clock.now_ns() - self.begun_ns,
            span_ns=process.end_ns - process.begin_ns,
            cpu=process.per_second("cpu") / 1e9,
            cpu_ns=time.process_time_ns(),
            peak_memory_bytes=_peak_memory_bytes(),
            threads=threading.active_count(),
            nodes=tuple(
                self._node(id, runner, [edge for edge in edges if edge.consumer == id], span_ns)
                for id, runner in engine.runners.items()
                if id in self.nodes
            ),
            edges=edges,
        )

    def _node(self, id: str, runner: Runner, inputs: list[EdgeStats], span_ns: int) -> NodeStats:
        meter = self.nodes[id]
        lately = meter.window.over(span_ns)
        spread = Sketch()
        for key, edge in self.edges.items():
            if key[0] == id:
                spread.merge(edge.window.over(span_ns).spread)
        return NodeStats(
            id=id,
            type=runner.planned.type_id,
            state=runner.state,
            received=runner.received,
            emitted={name: outlet.emitted for name, outlet in runner.outlets.items()},
            rate_in=lately.per_second("in"),
            rates_out={name: lately.per_second(f"out {name}") for name in runner.outlets},
            latency=_latency(spread),
            cpu=lately.per_second("cpu") / 1e9,
            cpu_ns=meter.cpu_ns,
            memory_bytes=sum(edge.queue.bytes for edge in inputs),
            queued=sum(edge.queue.items for edge in inputs),
            dropped=sum(sum(edge.dropped.values()) for edge in inputs),
            drop_rate=sum(edge.drop_rate for edge in inputs if edge.overflow != "latest"),
            restarts=meter.restarts,
        )

    def _edge(self, edge: Edge, span_ns: int) -> EdgeStats:
        meter = self.edges[edge.key]
        lately = meter.window.over(span_ns)
        counts = meter.counts()
        queues = [feed.queue for channel in meter.channels for feed in channel.feeds]
        span = [queue.span_ns for queue in queues]
        return EdgeStats(
            name=edge.name,
            producer=edge.producer,
            output=edge.output,
            consumer=edge.consumer,
            overflow=edge.overflow,
            feedback=edge.feedback,
            received=counts["received"],
            delivered=counts["delivered"],
            dropped=dict(_drops(counts)),
            rate=lately.per_second("delivered"),
            drop_rate=sum(lately.per_second(name) for name in lately.counts if name.startswith("dropped ")),
            latency=_latency(lately.spread),
            queue=Fill(
                sum(channel.counts()["queued"] for channel in meter.channels),
                sum(queue.size_bytes for queue in queues),
                max(span, default=0),
                edge.limit.items,
                edge.limit.bytes,
                edge.limit.time_ns,
            ),
            idle_ns=None if meter.last_ns is None else self.engine.clock.now_ns() - meter.last_ns,
            latency_count=meter.all_latencies.count,
            latency_sum_ns=meter.all_latencies.total,
        )


def carries_records(runner: Runner, output: str) -> bool:
    """Whether what goes out there is no media: such things come when there is something to say."""
    return all(issubclass(each, Record) for each in runner.outlets[output].payloads)


def _drops(counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    return ((name.removeprefix("dropped "), count) for name, count in counts.items() if name.startswith("dropped "))


def _latency(spread: Sketch) -> Latency | None:
    if not spread.count:
        return None
    return Latency(spread.count, spread.quantile(0.5), spread.quantile(0.95), spread.max)


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
