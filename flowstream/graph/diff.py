"""Two plans to a patch: what a reload must do to each node and edge, and because of what.

Identity is a node's id (or the id it ``was``), its type and its implementation; an edge is its consumer's port. A node
is *kept* when neither it nor its edges changed, *updated* when only live settings did, *rewired* when an edge into it
comes from elsewhere or waits otherwise, and *replaced* otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from flowstream.graph.described import limit_text
from flowstream.graph.following import reaction
from flowstream.graph.patch import EFFECTS, INTERRUPTED, Action, Change, EdgeChange, Patch
from flowstream.graph.plan import Edge, Plan, PlannedNode
from flowstream.media.packets import EncodedPacket
from flowstream.media.records import Record
from flowstream.node.config import is_live

DEFAULT_GAP_NS = 500_000_000
"""How long what is exclusive is taken to be gone, where no running instance has told how long it takes to open."""


def diff(old: Plan, new: Plan) -> Patch:
    """What must be done to a running ``old`` so that it is ``new``."""
    origin = _origins(old, new)  # new id -> old id
    renamed = {before: now for now, before in origin.items() if before != now}
    old_edges = {_moved(edge, renamed).key: edge for edge in old.edges}
    new_edges = {edge.key: edge for edge in new.edges}
    edges = _edge_changes(old_edges, new_edges, renamed)
    touched: dict[str, list[EdgeChange]] = {}
    for change in edges:
        touched.setdefault(change.key[0], []).append(change)
    changes = []
    for id_, node in new.nodes.items():
        if id_ in origin:
            changes.append(_change(old.nodes[origin[id_]], node, touched.get(id_, []), renamed))
        else:
            changes.append(Change(id_, "add", effect=EFFECTS["add"], new=node))
    gone = set(old.nodes) - set(origin.values())
    changes += [Change(i, "remove", effect=EFFECTS["remove"], old=n) for i, n in old.nodes.items() if i in gone]
    felt = _with_encoded_output(new)
    replaced = [each.node for each in changes if each.action == "replace"]
    reacting = [_with_reaction(each, old, new, replaced) for each in changes]
    final = _with_breaks([_with_effect(each, new, felt, touched) for each in reacting])
    return Patch(final, edges, new.name, new.serve, new.log, new.is_live, old.serve, old.log)


def _origins(old: Plan, new: Plan) -> dict[str, str]:
    origin = {id_: id_ for id_ in new.nodes if id_ in old.nodes}
    for id_, node in new.nodes.items():
        is_free = node.was in old.nodes and node.was not in new.nodes and node.was not in origin.values()
        if id_ not in origin and is_free:
            origin[id_] = node.was
    return origin


def _moved(edge: Edge, renamed: Mapping[str, str]) -> Edge:
    consumer, producer = renamed.get(edge.consumer, edge.consumer), renamed.get(edge.producer, edge.producer)
    if consumer == edge.consumer and producer == edge.producer:
        return edge
    return replace(edge, consumer=consumer, producer=producer)


def _edge_changes(
    old: Mapping[tuple[str, str, int], Edge], new: Mapping[tuple[str, str, int], Edge], renamed: Mapping[str, str]
) -> tuple[EdgeChange, ...]:
    changes = []
    for key, edge in new.items():
        if key not in old:
            changes.append(EdgeChange("added", new=edge))
        elif _moved(old[key], renamed) != edge:
            changes.append(EdgeChange("changed", old=old[key], new=edge))
    changes += [EdgeChange("removed", old=_moved(edge, renamed)) for key, edge in old.items() if key not in new]
    return tuple(changes)


def _change(old: PlannedNode, new: PlannedNode, edges: list[EdgeChange], renamed: Mapping[str, str]) -> Change:
    was = old.id if old.id != new.id else ""
    causes: list[str] = []
    fields: tuple[str, ...] = ()
    action: Action = "keep"
    if was:
        causes.append(f"was {was}")
        action = "update"
    if old.type_id != new.type_id:
        causes.append(f"type {old.type_id} -> {new.type_id}")
        action = "replace"
    elif old.implementation != new.implementation or old.node_type is not new.node_type:
        causes.append("its code changed")
        action = "replace"
    else:
        changed = _changed_fields(old, new)
        fields = tuple(changed)
        causes += [f"{path} {before} -> {after}" for path, (before, after, _) in changed.items()]
        if changed:
            action = "update" if all(live for _, _, live in changed.values()) else "replace"
        if changed and action == "update":
            verdict = new.node_type.updates_in_place(old.opened or old.config, new.config)
            if verdict is not True:
                action = "replace"
                causes += [verdict] if isinstance(verdict, str) and verdict else []
        if old.label != new.label:
            causes.append(f"label {old.label or old.id} -> {new.label or new.id}")
        if old.restart != new.restart:
            causes.append("restart")
        if action == "keep" and (old.label != new.label or old.restart != new.restart):
            action = "update"
    if edges:
        causes += [_edge_cause(each, renamed) for each in edges]
        action = action if action == "replace" else "rewire"
    return Change(new.id, action, tuple(causes), fields, was=was, old=old, new=new)


def _changed_fields(old: PlannedNode, new: PlannedNode) -> dict[str, tuple[str, str, bool]]:
    """Dotted path of each setting that differs, with both values as people write them, and whether it is live."""
    if old.config == new.config:
        return {}
    found: dict[str, tuple[str, str, bool]] = {}
    _compare(old.config, new.config, _dumped(old.config), _dumped(new.config), "", None, old, new, found)
    return found


def _dumped(config: BaseModel) -> dict[str, Any]:
    return config.model_dump(mode="json", fallback=str)


def _compare(
    before: BaseModel,
    after: BaseModel,
    shown_before: Mapping[str, Any],
    shown_after: Mapping[str, Any],
    prefix: str,
    live: bool | None,
    old: PlannedNode,
    new: PlannedNode,
    found: dict[str, tuple[str, str, bool]],
) -> None:
    for name, info in type(before).model_fields.items():
        a, b = getattr(before, name), getattr(after, name)
        if a == b and type(a) is type(b):
            continue
        path = f"{prefix}{name}"
        changes_in_place = is_live(info) if live is None else live
        if isinstance(a, BaseModel) and type(a) is type(b):
            _compare(a, b, shown_before[name], shown_after[name], f"{path}.", changes_in_place, old, new, found)
            continue
        said = _shown(path, shown_before[name], old.written), _shown(path, shown_after[name], new.written)
        if said[0] == said[1]:
            said = said[0], "another value"
        found[path] = (said[0], said[1], changes_in_place)


def _shown(path: str, value: Any, written: Mapping[str, str]) -> str:
    if path in written:
        return written[path]
    if any(each.startswith(f"{path}.") for each in written):
        return "(holds a secret)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "unset"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _edge_cause(change: EdgeChange, renamed: Mapping[str, str]) -> str:
    edge = change.new or change.old
    assert edge is not None
    name = edge.input + (f"[{edge.index}]" if edge.index else "")
    if change.old is None:
        return f"{name} from {_output(edge)}"
    if change.new is None:
        return f"{name} no longer from {_output(change.old)}"
    before, after = _moved(change.old, renamed), change.new
    if (before.producer, before.output) != (after.producer, after.output):
        return f"{name} from {_output(change.old)} -> {_output(after)}"
    if before.overflow != after.overflow:
        return f"{name} overflow {before.overflow} -> {after.overflow}"
    return f"{name} limit {limit_text(before)} -> {limit_text(after)}"


def _output(edge: Edge) -> str:
    return f"{edge.producer}.{edge.output}"


def _gives_packets(node: PlannedNode, output: str) -> bool:
    port = node.node_type.outputs.get(output)
    return port is not None and any(issubclass(each, EncodedPacket) for each in port.payloads)


def _with_encoded_output(plan: Plan) -> set[str]:
    """Nodes whose replacement is felt until the next keyframe: they encode, or something after them does.

    Edges that carry records carry no pictures, and feedback carries neither.
    """
    felt: set[str] = set()
    for id_ in reversed(tuple(plan.nodes)):
        for edge in plan.outputs_of(id_):
            node = plan.nodes[id_]
            if edge.feedback or _carries_records(plan, edge):
                continue
            if _gives_packets(node, edge.output) or edge.consumer in felt:
                felt.add(id_)
    return felt


def _with_effect(change: Change, new: Plan, felt: set[str], touched: Mapping[str, list[EdgeChange]]) -> Change:
    """A replaced node interrupts what is encoded from it; a consumer of packets from elsewhere waits for a keyframe."""
    is_cut = change.action == "replace" and change.node in felt
    is_switched = change.action == "rewire" and any(_switches_packets(each, new) for each in touched[change.node])
    effect = INTERRUPTED if is_cut or is_switched else EFFECTS[change.action]
    if change.action != "replace" and not is_switched:
        return replace(change, effect=effect)
    ends, encoders = _downstream(change.node, new)
    if is_switched:
        encoders |= {each.new.producer for each in touched[change.node] if each.new is not None}
    intervals = [getattr(new.nodes[id_].config, "keyframe_interval", None) for id_ in encoders]
    known = [each for each in intervals if isinstance(each, int)]
    at_most_ns = max(known) if known and len(known) == len(intervals) and effect == INTERRUPTED else None
    return replace(change, effect=effect, felt_by=ends, at_most_ns=at_most_ns)


def _with_reaction(change: Change, old: Plan, new: Plan, replaced: list[str]) -> Change:
    if change.action not in ("keep", "update", "rewire"):
        return change
    before, after = old.inputs_of(change.was or change.node), new.inputs_of(change.node)
    return replace(change, reaction=reaction(change, before, after, replaced, new))


def _with_breaks(changes: list[Change]) -> tuple[Change, ...]:
    """Says which nodes have to end before others can open, because both need what is exclusive."""
    taken = {key: each.old for each in changes if each.action in ("replace", "remove") and (key := _key(each.old))}
    final = []
    for each in changes:
        key = _key(each.new) if each.action in ("replace", "add") else None
        owner = taken.get(key) if key is not None else None
        if owner is not None:
            gap_ns = DEFAULT_GAP_NS if owner.ready_in_ns is None else owner.ready_in_ns
            final.append(replace(each, breaks=(owner.id,), gap_ns=gap_ns))
        else:
            final.append(each)
    return tuple(final)


def _key(node: PlannedNode | None) -> str | None:
    return exclusive_key(node) if node is not None else None


def exclusive_key(node: PlannedNode) -> str | None:
    """What only one instance of the node can have open at a time, by name; None for nothing."""
    return node.node_type.exclusive(node.opened or node.config)


def _downstream(id_: str, plan: Plan) -> tuple[tuple[str, ...], set[str]]:
    """The nodes at the ends of all media that come from a node, itself included, and the encoders on the way."""
    ends: list[str] = []
    encoders: set[str] = set()
    seen = {id_}
    waiting = [id_]
    while waiting:
        here = waiting.pop()
        media = [edge for edge in plan.outputs_of(here) if not edge.feedback and not _carries_records(plan, edge)]
        if not media:
            ends.append(here)
        if any(_gives_packets(plan.nodes[here], edge.output) for edge in media):
            encoders.add(here)
        for edge in media:
            if edge.consumer not in seen:
                seen.add(edge.consumer)
                waiting.append(edge.consumer)
    order = {each: index for index, each in enumerate(plan.nodes)}
    return tuple(sorted(ends, key=order.__getitem__)), encoders


def _carries_records(plan: Plan, edge: Edge) -> bool:
    port = plan.nodes[edge.producer].node_type.outputs[edge.output]
    return all(issubclass(each, Record) for each in port.payloads)


def _switches_packets(change: EdgeChange, new: Plan) -> bool:
    edge = change.new
    return (
        edge is not None
        and not edge.feedback
        and change.old is not None
        and (change.old.producer, change.old.output) != (edge.producer, edge.output)
        and _gives_packets(new.nodes[edge.producer], edge.output)
    )


def apply(old: Plan, patch: Patch) -> Plan:
    """The plan that a patch leads to: what it keeps is the old plan's, the rest the patch's."""
    nodes: dict[str, PlannedNode] = {}
    for change in patch.changes:
        if change.action == "keep":
            nodes[change.node] = old.nodes[change.node]
        elif change.new is not None:
            nodes[change.node] = change.new
    renamed = patch.renamed
    edges = {moved.key: moved for moved in (_moved(edge, renamed) for edge in old.edges)}
    for each in patch.edges:
        if each.new is None:
            del edges[each.key]
        else:
            edges[each.key] = each.new
    rank = {id_: index for index, id_ in enumerate(nodes)}
    ordered = sorted(edges.values(), key=lambda edge: (rank[edge.consumer], edge.input, edge.index))
    return Plan(patch.name, nodes, tuple(ordered), patch.serve, patch.is_live, patch.log)
