"""The rules for a graph as a whole: loops, missing and doubled inputs, options and outputs without use."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

from flowstream.graph.diagnostics import Findings, Span, listed
from flowstream.graph.policy import LIVE, kind_of
from flowstream.graph.resolve import ResolvedEdge, named, payload_names
from flowstream.graph.spec import EdgeSpec, Export, GraphSpec, GroupSpec, Leaf, NodeSpec, Reference
from flowstream.media.packets import EncodedPacket
from flowstream.media.records import Record
from flowstream.node.base import Node, Sink
from flowstream.node.ports import Input

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
            if not _is_media(edge, types):
                continue
            for leaf in (edge.producer,) if edge.producer in rank else _leaves(edge, spec, types):
                if leaf in rank:
                    media.setdefault((leaf, edge.consumer), edge)
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


def _leaves(edge: EdgeSpec, spec: GraphSpec, types: Types) -> list[str]:
    """The nodes in a subgraph that an edge from it may take from, but for outputs that no edge of its kind means."""
    leaves = spec.leaves(edge.producer, edge.output)
    return [leaf.node for leaf in leaves if edge.output is not None or not _gives_records_only(leaf, types)]


def _gives_records_only(leaf: Leaf, types: Types) -> bool:
    node_type = types.get(leaf.node)
    if node_type is None:
        return False
    outputs = [port for name, port in node_type.outputs.items() if leaf.output in (None, name)]
    return all(issubclass(each, Record) for port in outputs for each in port.payloads)


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


def check_inputs(
    spec: GraphSpec, types: Types, edges: Iterable[ResolvedEdge], findings: Findings, *, is_part: bool
) -> None:
    """Every input that a node cannot do without has an edge, and none has more than it takes.

    In a part, the inputs that it offers to other graphs may be open.
    """
    offered = _offered(spec, types)
    by_input: dict[tuple[str, str], list[ResolvedEdge]] = {}
    for edge in edges:
        by_input.setdefault((edge.spec.consumer, edge.input.name), []).append(edge)
    resolved: dict[str, int] = {}
    for (consumer, name), group in by_input.items():
        findings.about = consumer
        resolved[consumer] = resolved.get(consumer, 0) + len(group)
        if len(group) > 1 and not group[0].input.many:
            findings.add(
                "FS308", group[1].spec.span, f"{consumer}.{name} takes one edge, but {len(group)} come in: "
                f"{listed([f'{e.producer}.{e.output.name}' for e in group])}", "keep one of them",
                [(group[0].spec.span, "the first one")],
            )  # fmt: skip
    for id_, node_type in types.items():
        node = spec.nodes[id_]
        findings.about = id_
        if node.broken or resolved.get(id_, 0) < len(node.edges):
            continue
        missing = [p for p in node_type.inputs.values() if not p.optional and (id_, p.name) not in by_input]
        for port in missing:
            if (export := offered.get((id_, port.name))) is not None:
                if not is_part:
                    findings.add(
                        "FS314", export.span, f"{export.name} is for graphs that use this one, so nothing comes in at "
                        f"{id_}.{port.name}", "run a graph that has a node with use: of this file",
                    )  # fmt: skip
                continue
            if _is_group_input(id_, port, spec, types, findings):
                continue
            media = [p for p in node_type.inputs.values() if not p.feedback]
            how = "from: NODE" if len(media) == 1 else f"inputs: {{{port.name}: NODE}}"
            fitting = _fitting(port, spec, types, id_)
            payloads = payload_names(port.payloads)
            findings.add(
                "FS307", node.span, f"{named(id_, node_type)} needs {payloads} on its input {port.name}",
                f"add {how.replace('NODE', fitting or 'NODE')}",
            )  # fmt: skip


def _offered(spec: GraphSpec, types: Types) -> dict[tuple[str, str], Export]:
    """Node and input of everything that the file's own ``inputs:`` stand for."""
    found: dict[tuple[str, str], Export] = {}
    for export in spec.inputs.values():
        for target in spec.entrances(export.targets):
            if target.node in types:
                ports = types[target.node].inputs
                names = [target.port] if target.port else [n for n, port in ports.items() if not port.feedback]
                found.update({(target.node, name): export for name in names})
    return found


def check_exports(spec: GraphSpec, types: Types, findings: Findings) -> None:
    """What ``inputs:`` and ``outputs:`` of each file name, is there."""
    files: list[tuple[str, GraphSpec | GroupSpec]] = [("", spec), *spec.groups.items()]
    for id_, group in files:
        findings.about = id_
        scope = f"{id_}/" if id_ else ""
        for kind, exports in (("input", group.inputs), ("output", group.outputs)):
            for export in exports.values():
                for target in export.targets:
                    _check_export(kind, target, scope, spec, types, findings)


def _check_export(
    kind: str, target: Reference, scope: str, spec: GraphSpec, types: Types, findings: Findings
) -> None:
    group, node_type = spec.groups.get(target.node), types.get(target.node)
    name = target.node.removeprefix(scope)
    if group is not None:
        known = list(group.inputs if kind == "input" else group.outputs)
        said = f"{name} ({group.file})"
    elif node_type is not None:
        known = list(node_type.inputs if kind == "input" else node_type.outputs)
        said = named(name, node_type)
    else:
        if target.node not in spec.nodes:
            beside = [each.removeprefix(scope) for each in (*spec.nodes, *spec.groups) if each.startswith(scope)]
            close = findings.guess(name, beside)
            findings.add("FS301", target.span, f"there is no node {name}", f"did you mean {close}?" if close else None)
        return
    if target.port is not None and target.port not in known:
        close = findings.guess(target.port, known)
        findings.add(
            "FS303" if kind == "input" else "FS302", target.span, f"{said} has no {kind} {target.port}",
            f"did you mean {name}.{close}?" if close else f"it has {listed(known) or 'none'}",
        )  # fmt: skip
    elif not known:
        findings.add("FS303" if kind == "input" else "FS302", target.span, f"{said} has no {kind}s")
    elif group is not None and kind == "input" and target.port is None and len(known) > 1:
        findings.add("FS311", target.span, f"{name} has several inputs: {listed(known)}", f"write {name}.{known[0]}")


def _is_group_input(id_: str, port: Input[Any], spec: GraphSpec, types: Types, findings: Findings) -> bool:
    """Whether a missing input is one of the subgraph's that the node stands in: said once, where that is used."""
    owner = id_.rpartition("/")[0]
    group = spec.groups.get(owner)
    while group is not None:
        for export in group.inputs.values():
            for target in export.targets:
                if target.node == id_ and target.port in (None, port.name):
                    if not group.node.broken:
                        only = len(group.inputs) == 1
                        findings.add(
                            "FS307", group.node.span, f"{owner} ({group.file}) needs {payload_names(port.payloads)} on "
                            f"its input {export.name}",
                            f"add {'from: NODE' if only else f'inputs: {{{export.name}: NODE}}'}",
                        )  # fmt: skip
                    return True
        owner = owner.rpartition("/")[0]
        group = spec.groups.get(owner)
    return False


def _fitting(port: Any, spec: GraphSpec, types: Types, consumer: str) -> str | None:
    """The last node before it, of those beside it, that could feed an input."""
    scope = spec.scope(consumer)
    found = None
    for id_ in spec.nodes:
        if id_ == consumer:
            break
        if id_ not in types or spec.scope(id_) != scope:
            continue
        if any(port.takes(p) for o in types[id_].outputs.values() for p in o.payloads):
            found = id_.removeprefix(scope)
    return found


def check_renames(spec: GraphSpec, findings: Findings) -> None:
    """``was`` names an id that is free."""
    taken: dict[str, NodeSpec] = {}
    groups = {group.node.was.span: group.node for group in spec.groups.values() if group.node.was}
    for node in spec.nodes.values():
        if node.was is None:
            continue
        findings.about = node.id
        old = str(node.was.value).lstrip("/")
        if old in spec.nodes:
            this, other = node, spec.nodes[old]
            if (group := groups.get(node.was.span)) is not None:  # said once, of the subgraph that says it
                inner = node.id.removeprefix(group.id)
                there = spec.groups.get(old.removesuffix(inner))
                this, other = group, there.node if there is not None and old.endswith(inner) else other
            findings.add(
                "FS313", node.was.span, f"{this.id} cannot have been {other.id}: the graph has a node {other.id}",
                "take was: out, or rename the other node",
                [(other.span, f"{other.id} is here")] if other.id != this.id else [],
            )  # fmt: skip
        elif old in taken:
            findings.add("FS313", node.was.span, f"both {taken[old].id} and {node.id} say that they were {old}",
                         "one of them can have been that")  # fmt: skip
        taken.setdefault(old, node)


def check_placement(spec: GraphSpec, findings: Findings) -> None:
    """``placement:`` names nodes that there are, each once. That it is not used here is said in one note."""
    placed: dict[str, Span] = {}
    first: Span | None = None
    for worker in spec.workers.values():
        first = first or worker.span
        for ref in worker.nodes:
            if ref.node not in spec.nodes and ref.node not in spec.groups:
                close = findings.guess(ref.node, (*spec.nodes, *spec.groups))
                findings.add("FS301", ref.span, f"there is no node {ref.node}",
                             f"did you mean {close}?" if close else None)  # fmt: skip
            elif ref.port is not None:
                findings.add("FS312", ref.span, f"{ref.node}.{ref.port} is a port; a worker takes whole nodes",
                             f"write {ref.node}")  # fmt: skip
            elif ref.node in placed:
                findings.add("FS315", ref.span, f"{ref.node} has a worker already", "keep one of them",
                             [(placed[ref.node], "the first one")])  # fmt: skip
            placed.setdefault(ref.node, ref.span)
    for node in (*spec.nodes.values(), *(group.node for group in spec.groups.values())):
        if node.placement is None:
            continue
        first = first or node.placement.span
        name = str(node.placement.value)
        if name not in spec.workers:
            close = findings.guess(name, spec.workers)
            findings.add("FS301", node.placement.span, f"there is no worker {name}",
                         f"did you mean {close}?" if close else f"name it: placement: {{{name}: {{}}}}")  # fmt: skip
        elif node.id in placed:
            findings.add("FS315", node.placement.span, f"{node.id} has a worker already", "keep one of them",
                         [(placed[node.id], "the first one")])  # fmt: skip
    if first is not None:
        findings.add("FS316", first, "every node runs on this machine, whatever placement says")


def check_use(spec: GraphSpec, types: Types, edges: Iterable[ResolvedEdge], findings: Findings) -> None:
    """Warns of nodes that give something nobody takes."""
    producers = {edge.producer for edge in edges}
    for export in spec.outputs.values():
        for target in export.targets:
            producers.update(leaf.node for leaf in spec.leaves(target.node, target.port))
    for group in spec.groups.values():
        for export in group.outputs.values():  # which of them is used is for the graph around it to decide
            for target in export.targets:
                producers.update(leaf.node for leaf in spec.leaves(target.node, target.port))
    for id_, node_type in types.items():
        if id_ in producers or issubclass(node_type, Sink):
            continue
        findings.about = id_
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
        by_output.setdefault((edge.producer, edge.output.name), []).append(edge)
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
        drops = spec.overflow in ("drop-oldest", "drop-newest", "latest")
        if drops and not edge.steps and kind_of(edge) == "encoded video":  # behind a decoder it drops whole pictures
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
