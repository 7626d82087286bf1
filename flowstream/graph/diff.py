"""Two plans to a patch: what a reload must do to each node and edge, and because of what.

Identity is a node's id (or the id it ``was``), its type and its implementation; an edge is its consumer's port. A node
is *kept* when neither it nor its edges changed, *updated* when only live settings did, *rewired* when an edge into it
comes from elsewhere or waits otherwise, and *replaced* otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel

from flowstream.graph.carried import carried_text
from flowstream.graph.diagnostics import listed
from flowstream.graph.plan import Edge, Log, Plan, PlannedNode, Serve
from flowstream.media.packets import EncodedPacket
from flowstream.media.records import Record
from flowstream.node.config import is_live
from flowstream.node.quantities import format_bytes, format_duration

DEFAULT_GAP_NS = 500_000_000
"""How long what is exclusive is taken to be gone, where no running instance has told how long it takes to open."""

Action = Literal["keep", "update", "rewire", "replace", "add", "remove"]

INTERRUPTED = "interrupted until the next keyframe"
EFFECTS: Mapping[Action, str] = {
    "keep": "kept",
    "update": "changed in place",
    "rewire": "rewired",
    "replace": "replaced",
    "add": "added",
    "remove": "removed",
}


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one node.

    ``node`` is its id in the new plan (in the old one for ``remove``); ``was`` its old id when it was renamed.
    ``causes`` say why, one per line; ``fields`` are the dotted paths of settings that changed. An update without fields
    is one of label, restart policy or id only: the node itself is not told. A rewired node may have live settings that
    changed too. ``effect`` says what people notice, ``felt_by`` names the nodes at the end whose viewers, files or
    windows notice it, and ``at_most_ns`` for how long, where that is known: until the next keyframe, for which the
    encoder is asked at once. ``breaks`` are the running nodes, by their ids there, that have to end before this one can
    open (``break-before-make``), and ``gap_ns`` about how long that takes.
    """

    node: str
    action: Action
    causes: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    effect: str = ""
    was: str = ""
    old: PlannedNode | None = None
    new: PlannedNode | None = None
    felt_by: tuple[str, ...] = ()
    at_most_ns: int | None = None
    breaks: tuple[str, ...] = ()
    gap_ns: int | None = None


@dataclass(frozen=True, slots=True)
class EdgeChange:
    """What becomes of one edge. ``changed``: same consumer port, other producer, policy or limit."""

    kind: Literal["added", "removed", "changed"]
    old: Edge | None = None
    new: Edge | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """The edge's key in the new plan; in the old one when it was removed."""
        edge = self.new or self.old
        assert edge is not None
        return edge.key


@dataclass(frozen=True, slots=True)
class Patch:
    """What leads from one plan to another: every node in the new plan's order, then those that leave.

    ``edges`` holds only those that changed; their keys are the new plan's, where a renamed node has its new id.
    """

    changes: tuple[Change, ...]
    edges: tuple[EdgeChange, ...]
    name: str
    serve: Serve | None
    log: Log | None
    is_live: bool
    old_serve: Serve | None = None
    old_log: Log | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all changes."""
        is_same = self.serve == self.old_serve and self.log == self.old_log
        return is_same and not self.edges and all(each.action == "keep" for each in self.changes)

    def of(self, node: str) -> Change:
        """The change of a node. Raises KeyError when it is in neither plan."""
        for each in self.changes:
            if each.node == node:
                return each
        raise KeyError(node)

    @property
    def renamed(self) -> Mapping[str, str]:
        """Old id to new id of the nodes that were renamed."""
        return {each.was: each.node for each in self.changes if each.was}


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
    final = _with_breaks([_with_effect(each, new, felt, touched) for each in changes])
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
        found[path] = (*said, changes_in_place)


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


def limit_text(edge: Edge) -> str:
    """An edge's limit as people write it: ``120 items, 16MiB, 2s``."""
    limit = edge.limit
    parts = [f"{limit.items} item{'' if limit.items == 1 else 's'}"]
    parts += [format_bytes(limit.bytes)] if limit.bytes is not None else []
    parts += [format_duration(limit.time_ns)] if limit.time_ns is not None else []
    return ", ".join(parts)


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


def describe(patch: Patch) -> list[str]:
    """The patch in lines for a terminal: each node, what becomes of it, and why."""
    width = max((len(each.node) for each in patch.changes), default=0)
    lines = []
    for each in patch.changes:
        why = f"  ({'; '.join(each.causes)})" if each.causes else ""
        lines.append(f"{each.node.ljust(width)}  {each.effect}{_who_feels(each)}{_gap(each)}{why}")
    lines += [_hint(gone, come) for gone, come in _may_be_renamed(patch)]
    if patch.serve != patch.old_serve:
        lines.append(_serve_line(patch.old_serve or Serve(), patch.serve or Serve()))
    if patch.log != patch.old_log:
        lines.append("log changes")
    return lines


def _serve_line(old: Serve, new: Serve) -> str:
    if old.address != new.address:
        return "serve changes: it takes effect when the graph is started again"
    if old.api != new.api:
        return f"the control API is {'served' if new.api else 'not served any more'}"
    return "the token of the control API changes" if old.token != new.token else "serve changes"


def patch_to_json(patch: Patch) -> dict[str, Any]:
    """A patch as JSON values.

    ``{"lines": what ``flowstream plan`` prints, "changes": [{"node", "action", "effect", "causes", "fields", "was",
    "felt_by", "at_most_seconds", "breaks", "gap_seconds"}]}``.
    """
    return {
        "lines": describe(patch),
        "changes": [
            {
                "node": each.node,
                "action": each.action,
                "effect": each.effect,
                "causes": list(each.causes),
                "fields": list(each.fields),
                "was": each.was or None,
                "felt_by": list(each.felt_by),
                "at_most_seconds": None if each.at_most_ns is None else each.at_most_ns / 1e9,
                "breaks": list(each.breaks),
                "gap_seconds": None if each.gap_ns is None else each.gap_ns / 1e9,
            }
            for each in patch.changes
        ],
    }


def _who_feels(change: Change) -> str:
    """``, felt by out and tape for 2s at most``."""
    ends = [each for each in change.felt_by if each != change.node]
    if not ends:
        return ""
    how_long = f" for {format_duration(change.at_most_ns)} at most" if change.at_most_ns is not None else ""
    return f", felt by {listed(ends)}{how_long}"


def _gap(change: Change) -> str:
    """``, break-before-make, gap about 300ms``."""
    if change.gap_ns is None:
        return ""
    about_ns = max(10, round(change.gap_ns / 1e7) * 10) * 1_000_000
    return f", break-before-make, gap about {format_duration(about_ns)}"


def _may_be_renamed(patch: Patch) -> list[tuple[Change, Change]]:
    """Nodes that leave with viewers or other things they hold, each with one of the same type that comes."""
    leaving = [
        each for each in patch.changes
        if each.action == "remove" and each.old is not None and (each.old.holds or each.old.node_type.serves)
    ]  # fmt: skip
    pairs = []
    for come in patch.changes:
        if come.action == "add" and come.new is not None:
            gone = next((each for each in leaving if each.old and each.old.type_id == come.new.type_id), None)
            if gone is not None:
                leaving.remove(gone)
                pairs.append((gone, come))
    return pairs


def _hint(gone: Change, come: Change) -> str:
    assert gone.old is not None
    kept = "its viewers" if gone.old.node_type.serves else "what it holds"
    was = f"/{gone.node}" if "/" in come.node else gone.node
    return f"hint: if {come.node} is {gone.node} under another name, 'was: {was}' on it keeps {kept}"


def describe_plan(plan: Plan) -> list[str]:
    """A plan in a few lines for a terminal: each node with its type, where it takes from and what comes from there."""
    kind = "live" if plan.is_live else "not live: every edge waits"
    count = f"{len(plan.nodes)} node{'' if len(plan.nodes) == 1 else 's'}"
    lines = [f"{plan.name}: {count}, {len(plan.edges)} edge{'' if len(plan.edges) == 1 else 's'}, {kind}"]
    width = max((len(id_) for id_ in plan.nodes), default=0)
    types = max((len(node.type_id) for node in plan.nodes.values()), default=0)
    for id_, node in plan.nodes.items():
        taken = ", ".join(_taken(node, edge) for edge in plan.inputs_of(id_))
        lines.append(f"  {id_.ljust(width)}  {node.type_id.ljust(types)}  {taken}".rstrip())
    return lines


def _taken(node: PlannedNode, edge: Edge) -> str:
    """``video from pattern.video (yuv420p 1280x720)``; for a converter what it does and how much that costs."""
    if node.conversion is not None:
        where = "" if node.conversion.certain else ", where it differs"
        return f"{node.conversion.does} of {_output(edge)}{where} (cost {node.conversion.cost})"
    caps = edge.carried.caps if edge.carried is not None else None
    known = f" ({carried_text(edge.carried)})" if edge.carried is not None and caps is not None else ""
    return f"{edge.input} from {_output(edge)}{known}"
