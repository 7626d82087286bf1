"""The rules for a graph as a whole: loops, missing and doubled inputs, options and outputs without use."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

from flowstream.graph.diagnostics import Findings, listed
from flowstream.graph.policy import LIVE, kind_of
from flowstream.graph.resolve import ResolvedEdge, named, payload_names
from flowstream.graph.spec import EdgeSpec, GraphSpec, NodeSpec
from flowstream.media.packets import EncodedPacket
from flowstream.media.records import Record
from flowstream.node.base import Node, Sink

Types = dict[str, type[Node[Any]]]


def media_order(spec: GraphSpec, types: Types, findings: Findings) -> list[str]:
    """The enabled nodes, producers before consumers along media edges, else as in the file.

    A loop is reported; its nodes come last then.
    """
    enabled = [node for node in spec.nodes.values() if node.enabled]
    rank = {node.id: index for index, node in enumerate(enabled)}
    ids = list(rank)
    media: dict[tuple[str, str], EdgeSpec] = {}
    for node in enabled:
        for edge in node.edges:
            if edge.producer in rank and _is_media(edge, types):
                media.setdefault((edge.producer, edge.consumer), edge)
    waits_for = dict.fromkeys(ids, 0)
    consumers: dict[str, list[str]] = {id_: [] for id_ in ids}
    for producer, consumer in media:
        waits_for[consumer] += 1
        consumers[producer].append(consumer)
    ready = [rank[id_] for id_ in ids if not waits_for[id_]]
    order: list[str] = []
    while ready:
        order.append(ids[heapq.heappop(ready)])
        for consumer in consumers[order[-1]]:
            waits_for[consumer] -= 1
            if not waits_for[consumer]:
                heapq.heappush(ready, rank[consumer])
    if len(order) < len(ids):
        _report_loops(rank, media, findings)
        done = set(order)
        order += [id_ for id_ in ids if id_ not in done]
    return order


def _is_media(edge: EdgeSpec, types: Types) -> bool:
    consumer = types.get(edge.consumer)
    if consumer is None:
        return False
    if edge.input is None:
        return any(not port.feedback for port in consumer.inputs.values())
    port = consumer.inputs.get(edge.input)
    return port is not None and not port.feedback


def _report_loops(rank: dict[str, int], media: dict[tuple[str, str], EdgeSpec], findings: Findings) -> None:
    import networkx as nx  # a third of the time that a check takes, and graphs with a loop are rare

    graph: nx.DiGraph[str] = nx.DiGraph(media.keys())
    for component in nx.strongly_connected_components(graph):
        first = min(component, key=rank.__getitem__)
        if len(component) == 1 and not graph.has_edge(first, first):
            continue
        loop = [producer for producer, _ in nx.find_cycle(graph.subgraph(component), first)]
        start = loop.index(min(loop, key=rank.__getitem__))
        loop = loop[start:] + loop[:start]
        pairs = list(zip(loop, [*loop[1:], loop[0]], strict=True))
        said = f"media goes round: {' -> '.join([*loop, loop[0]])}" if len(loop) > 1 else f"{first} takes from itself"
        findings.add(
            "FS309", media[pairs[-1]].span, said, "take one of these edges out; only feedback inputs close loops",
            [(media[pair].span, f"{pair[1]} takes from {pair[0]}") for pair in pairs[:-1][:8]],
        )  # fmt: skip


def check_inputs(spec: GraphSpec, types: Types, edges: Iterable[ResolvedEdge], findings: Findings) -> None:
    """Every input that a node cannot do without has an edge, and none has more than it takes."""
    by_input: dict[tuple[str, str], list[ResolvedEdge]] = {}
    for edge in edges:
        by_input.setdefault((edge.spec.consumer, edge.input.name), []).append(edge)
    resolved: dict[str, int] = {}
    for (consumer, name), group in by_input.items():
        resolved[consumer] = resolved.get(consumer, 0) + len(group)
        if len(group) > 1 and not group[0].input.many:
            findings.add(
                "FS308", group[1].spec.span, f"{consumer}.{name} takes one edge, but {len(group)} come in: "
                f"{listed([f'{e.spec.producer}.{e.output.name}' for e in group])}", "keep one of them",
                [(group[0].spec.span, "the first one")],
            )  # fmt: skip
    for id_, node_type in types.items():
        node = spec.nodes[id_]
        if node.broken or resolved.get(id_, 0) < len(node.edges):
            continue
        missing = [p for p in node_type.inputs.values() if not p.optional and (id_, p.name) not in by_input]
        for port in missing:
            media = [p for p in node_type.inputs.values() if not p.feedback]
            how = "from: NODE" if len(media) == 1 else f"inputs: {{{port.name}: NODE}}"
            fitting = _fitting(port, spec, types, id_)
            payloads = payload_names(port.payloads)
            findings.add(
                "FS307", node.span, f"{named(id_, node_type)} needs {payloads} on its input {port.name}",
                f"add {how.replace('NODE', fitting or 'NODE')}",
            )  # fmt: skip


def _fitting(port: Any, spec: GraphSpec, types: Types, consumer: str) -> str | None:
    """The one node before it that could feed an input."""
    found = []
    for id_ in spec.nodes:
        if id_ == consumer:
            break
        if id_ in types and any(port.takes(p) for o in types[id_].outputs.values() for p in o.payloads):
            found.append(id_)
    return found[-1] if found else None


def check_renames(spec: GraphSpec, findings: Findings) -> None:
    """``was`` names an id that is free."""
    taken: dict[str, NodeSpec] = {}
    for node in spec.nodes.values():
        if node.was is None:
            continue
        old = str(node.was.value)
        if old in spec.nodes:
            findings.add("FS313", node.was.span, f"{node.id} cannot have been {old}: the graph has a node {old}",
                         "take was: out, or rename the other node",
                         [(spec.nodes[old].span, f"{old} is here")] if old != node.id else [])  # fmt: skip
        elif old in taken:
            findings.add("FS313", node.was.span, f"both {taken[old].id} and {node.id} say that they were {old}",
                         "one of them can have been that")  # fmt: skip
        taken.setdefault(old, node)


def check_use(spec: GraphSpec, types: Types, findings: Findings) -> None:
    """Warns of nodes that give something nobody takes."""
    producers = {edge.producer for node in spec.nodes.values() for edge in node.edges if node.enabled}
    for id_, node_type in types.items():
        if id_ in producers or issubclass(node_type, Sink):
            continue
        media = [o for o in node_type.outputs.values() if not all(issubclass(p, Record) for p in o.payloads)]
        if media:
            findings.add(
                "FS322", spec.nodes[id_].span, f"nothing takes what {id_} gives "
                f"({listed([each.name for each in media])})", f"take from it (from: {id_}), or set enabled: false",
            )  # fmt: skip


def check_options(edges: Iterable[ResolvedEdge], is_live: bool, findings: Findings) -> None:
    """Warns of edge options that change nothing, and of one consumer that can stop the others."""
    by_output: dict[tuple[str, str], list[ResolvedEdge]] = {}
    for edge in edges:
        spec = edge.spec
        by_output.setdefault((spec.producer, edge.output.name), []).append(edge)
        name = f"{spec.consumer}.{edge.input.name}"
        if edge.input.feedback:
            for key, span in (*spec.limit_spans.items(), *([("overflow", spec.overflow_span)] * bool(spec.overflow))):
                if span is not None and not (key == "overflow" and spec.overflow == "latest"):
                    findings.add("FS320", span, f"{name} is a feedback input: it always holds the latest value only",
                                 f"take {key} out")  # fmt: skip
            continue
        if spec.overflow == "latest":
            for key, span in spec.limit_spans.items():
                findings.add("FS320", span, f"overflow: latest holds one item, so {key} limits nothing",
                             f"take {key} out")  # fmt: skip
        if spec.overflow in ("drop-oldest", "drop-newest", "latest") and kind_of(edge) == "encoded video":
            findings.add("FS323", spec.overflow_span, f"{spec.overflow} loses pictures that later ones need",
                         "write overflow: drop-to-keyframe, or block")  # fmt: skip
        if spec.overflow == "drop-to-keyframe" and spec.overflow_span and edge.carried is not None:
            payloads = edge.carried.payloads
            if not any(issubclass(p, EncodedPacket) or issubclass(EncodedPacket, p) for p in payloads):
                findings.add(
                    "FS320", spec.overflow_span, f"{name} takes {payloads[0].__name__}, which has no keyframes to "
                    "drop to", "write overflow: drop-oldest",
                )  # fmt: skip
    if not is_live:
        return
    for (producer, output), group in by_output.items():
        media = [edge for edge in group if not edge.input.feedback]
        blocking = [edge for edge in media if edge.spec.overflow == "block"]
        if blocking and len(blocking) < len(media):
            others = [edge.spec.consumer for edge in media if edge.spec.overflow != "block"]
            edge = blocking[0]
            findings.add(
                "FS321", edge.spec.overflow_span, f"when {edge.spec.consumer} is slow, {producer}.{output} waits for "
                f"it, and {listed(others)} with it", f"give it another overflow, such as {LIVE[kind_of(edge)][0]}",
            )  # fmt: skip
