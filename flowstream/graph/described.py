"""Plans and patches in words, and as JSON values."""

from __future__ import annotations

from typing import Any

from flowstream.graph.carried import carried_text
from flowstream.graph.diagnostics import listed
from flowstream.graph.patch import Change, Patch
from flowstream.graph.plan import Edge, Plan, PlannedNode, Serve
from flowstream.node.quantities import format_bytes, format_duration


def limit_text(edge: Edge) -> str:
    """An edge's limit as people write it: ``120 items, 16MiB, 2s``."""
    limit = edge.limit
    parts = [f"{limit.items} item{'' if limit.items == 1 else 's'}"]
    parts += [format_bytes(limit.bytes)] if limit.bytes is not None else []
    parts += [format_duration(limit.time_ns)] if limit.time_ns is not None else []
    return ", ".join(parts)


def _output(edge: Edge) -> str:
    return f"{edge.producer}.{edge.output}"


def describe(patch: Patch) -> list[str]:
    """The patch in lines for a terminal: each node, what becomes of it, and why."""
    width = max((len(each.node) for each in patch.changes), default=0)
    lines = []
    for each in patch.changes:
        why = f"  ({'; '.join(each.causes)})" if each.causes else ""
        lines.append(f"{each.node.ljust(width)}  {each.effect}{_who_feels(each)}{_gap(each)}{_reaction(each)}{why}")
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
    if old.tls != new.tls:
        if old.is_encrypted != new.is_encrypted:
            return "serve changes: TLS takes effect when the graph is started again"
        return "the certificate changes"
    return "the token of the control API changes" if old.token != new.token else "serve changes"


def patch_to_json(patch: Patch) -> dict[str, Any]:
    """A patch as JSON values.

    ``{"lines": what ``flowstream plan`` prints, "changes": [{"node", "action", "effect", "causes", "fields", "was",
    "felt_by", "at_most_seconds", "breaks", "gap_seconds", "reaction"}]}``.
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
                "reaction": each.reaction or None,
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


def _reaction(change: Change) -> str:
    return f", {change.reaction}" if change.reaction else ""


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
        taken = node.replayed or ", ".join(_taken(node, edge) for edge in plan.inputs_of(id_))
        lines.append(f"  {id_.ljust(width)}  {node.type_id.ljust(types)}  {taken}".rstrip())
    if plan.left_out:
        lines.append(f"  left out, since only what is replayed takes from it: {listed(plan.left_out)}")
    return lines


def _taken(node: PlannedNode, edge: Edge) -> str:
    """``video from pattern.video (yuv420p 1280x720)``; for a converter what it does and how much that costs."""
    if node.conversion is not None:
        where = "" if node.conversion.certain else ", where it differs"
        return f"{node.conversion.does} of {_output(edge)}{where} (cost {node.conversion.cost})"
    caps = edge.carried.caps if edge.carried is not None else None
    known = f" ({carried_text(edge.carried)})" if edge.carried is not None and caps is not None else ""
    return f"{edge.input} from {_output(edge)}{known}"
