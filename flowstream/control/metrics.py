"""The numbers of a run in the text format of Prometheus, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flowstream.runtime.cause import Cause
from flowstream.runtime.stats import EdgeStats, NodeStats, RunStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Sample = tuple[str, dict[str, str], float]
"""What is put behind the name of the family (``_sum``), the labels and the value."""


def to_text(stats: RunStats, causes: Iterable[Cause] = (), *, is_refused: bool = False) -> str:
    """Every family with its samples; times in seconds, sizes in bytes."""
    graph = {"graph": stats.graph}
    lines: list[str] = []
    for name, kind, help, samples in _families(stats, causes, is_refused):
        lines += [f"# HELP flowstream_{name} {help}", f"# TYPE flowstream_{name} {kind}"]
        lines += [f"flowstream_{name}{end}{_labels(graph | labels)} {_number(value)}" for end, labels, value in samples]
    return "\n".join(lines) + "\n"


_Family = tuple[str, str, str, list[_Sample]]


def _families(stats: RunStats, causes: Iterable[Cause], is_refused: bool) -> Iterator[_Family]:
    yield "run_up_seconds", "gauge", "How long the run has been up.", [("", {}, stats.up_ns / 1e9)]
    yield "run_state", "gauge", "1 for the state that the run is in.", [("", {"state": stats.state}, 1)]
    help = "1 while the file holds a revision that was refused."
    yield "run_file_refused", "gauge", help, [("", {}, int(is_refused))]
    help = "1 for each thing that is wrong now; see flowstream why."
    found = {(cause.kind, cause.node): cause for cause in causes}
    yield "run_cause", "gauge", help, [("", {"kind": kind, "node": node}, 1) for kind, node in found]
    yield "process_cpu_seconds_total", "counter", "Processor time of the process.", [("", {}, stats.cpu_ns / 1e9)]
    help = "The most memory that the process has had."
    yield "process_peak_memory_bytes", "gauge", help, [("", {}, stats.peak_memory_bytes)]
    yield "process_threads", "gauge", "Threads of the process.", [("", {}, stats.threads)]
    yield from _of_nodes(stats.nodes)
    yield from _of_edges(stats.edges)


def _of_nodes(nodes: tuple[NodeStats, ...]) -> Iterator[_Family]:
    def each(values: Iterable[tuple[NodeStats, float]]) -> list[_Sample]:
        return [("", {"node": node.id, "type": node.type}, value) for node, value in values]

    states: list[_Sample] = [("", {"node": node.id, "type": node.type, "state": node.state}, 1) for node in nodes]
    yield "node_state", "gauge", "1 for the state that the node is in.", states
    help = "How often the node was started again."
    yield "node_restarts_total", "counter", help, each((node, node.restarts) for node in nodes)
    help = "Payloads that the node has taken since it was started."
    yield "node_received_total", "counter", help, each((node, node.received) for node in nodes)
    emitted: list[_Sample] = [
        ("", {"node": node.id, "type": node.type, "output": output}, count)
        for node in nodes
        for output, count in node.emitted.items()
    ]
    yield "node_emitted_total", "counter", "Payloads that the node has given since it was started.", emitted
    cpu = each((node, node.cpu_ns / 1e9) for node in nodes)
    yield "node_cpu_seconds_total", "counter", "Processor time of the node since it was started.", cpu
    yield "node_buffer_bytes", "gauge", "Bytes that wait for the node.", each((n, n.memory_bytes) for n in nodes)


def _of_edges(edges: tuple[EdgeStats, ...]) -> Iterator[_Family]:
    def labels(edge: EdgeStats, **more: str) -> dict[str, str]:
        return {"edge": edge.name, "producer": edge.producer, "consumer": edge.consumer, **more}

    def each(values: Iterable[tuple[EdgeStats, float | None]]) -> list[_Sample]:
        return [("", labels(edge), value) for edge, value in values if value is not None]

    def seconds(value_ns: int | None) -> float | None:
        return None if value_ns is None else value_ns / 1e9

    help = "Payloads that were put on the edge."
    yield "edge_received_total", "counter", help, each((edge, edge.received) for edge in edges)
    help = "Payloads that were taken from the edge."
    yield "edge_delivered_total", "counter", help, each((edge, edge.delivered) for edge in edges)
    drops: list[_Sample] = [
        ("", labels(edge, cause=cause), count) for edge in edges for cause, count in edge.dropped.items()
    ]
    yield "edge_dropped_total", "counter", "Payloads that were lost on the edge, by cause.", drops
    yield "edge_queue_items", "gauge", "Payloads that wait on the edge.", each((e, e.queue.items) for e in edges)
    yield "edge_queue_bytes", "gauge", "Bytes that wait on the edge.", each((e, e.queue.bytes) for e in edges)
    help = "Media time that waits on the edge."
    yield "edge_queue_seconds", "gauge", help, each((e, seconds(e.queue.time_ns)) for e in edges)
    help = "How many payloads may wait on the edge."
    yield "edge_queue_limit_items", "gauge", help, each((e, e.queue.most_items) for e in edges)
    help = "How many bytes may wait on the edge, where that is bounded."
    yield "edge_queue_limit_bytes", "gauge", help, each((e, e.queue.most_bytes) for e in edges)
    help = "How much media time may wait on the edge, where that is bounded."
    yield "edge_queue_limit_seconds", "gauge", help, each((e, seconds(e.queue.most_time_ns)) for e in edges)
    help = "How long ago a payload was taken from the edge."
    yield "edge_idle_seconds", "gauge", help, each((e, seconds(e.idle_ns)) for e in edges)
    latencies: list[_Sample] = []
    for edge in edges:
        if edge.latency is not None:
            latencies.append(("", labels(edge, quantile="0.5"), edge.latency.p50_ns / 1e9))
            latencies.append(("", labels(edge, quantile="0.95"), edge.latency.p95_ns / 1e9))
        if edge.latency_count:
            latencies.append(("_sum", labels(edge), edge.latency_sum_ns / 1e9))
            latencies.append(("_count", labels(edge), edge.latency_count))
    yield "edge_latency_seconds", "summary", "From capture to where the edge is taken from, of samples.", latencies
    help = "The longest latency lately."
    longest = each((edge, seconds(edge.latency.max_ns)) for edge in edges if edge.latency is not None)
    yield "edge_latency_max_seconds", "gauge", help, longest


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
