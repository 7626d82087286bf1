"""What nodes that stay do when what comes in to them changes: follow it unnoticed, or begin something new."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields

from flowstream.graph.diagnostics import listed
from flowstream.graph.patch import Change
from flowstream.graph.plan import Edge, Plan
from flowstream.media.caps import Caps
from flowstream.media.packets import EncodedPacket

NAMES: Mapping[str, str] = {"width": "size", "height": "size", "matrix": "format", "full_range": "format"}
"""How an input calls what it follows, where that is not the name of the field of the caps."""

UNNOTICED = ("fps",)
"""What no payload carries with it, so that nobody has to follow it."""


def reaction(change: Change, before: Iterable[Edge], after: Iterable[Edge], replaced: Iterable[str], new: Plan) -> str:
    """What a kept node will or may do because other formats come in to it; empty when it just goes on.

    ``before`` and ``after`` are the edges into it, ``replaced`` the nodes of the new plan that are other instances.
    What an input for packets does not follow and says no more about is told when it is certain to come.
    """
    old = {(edge.input, edge.index): edge for edge in before}
    found: dict[str, None] = {}
    for edge in after:
        was = old.get((edge.input, edge.index))
        if was is None or edge.feedback:
            continue
        port = new.nodes[change.node].node_type.inputs[edge.input]
        changed = _changed(was, edge) - port.follows
        if changed and port.otherwise:
            found[f"will {port.otherwise}"] = None
        elif changed and _takes_packets(edge, new):
            found[f"does not say that it follows another {listed(sorted(changed))}"] = None
        elif port.otherwise and "extradata" not in port.follows and _may_differ(was, edge, set(replaced), new):
            found[f"may {port.otherwise}"] = None
    return ", ".join(found)


def _changed(was: Edge, edge: Edge) -> set[str]:
    """What is known to be another."""
    before, after = _caps(was), _caps(edge)
    if before is None or after is None or type(before) is not type(after):
        return set()
    pairs = ((each.name, getattr(before, each.name), getattr(after, each.name)) for each in fields(after))
    return {NAMES.get(name, name) for name, a, b in pairs if None not in (a, b) and a != b and name not in UNNOTICED}


def _caps(edge: Edge) -> Caps | None:
    return edge.carried.caps if edge.carried is not None else None


def _takes_packets(edge: Edge, new: Plan) -> bool:
    payloads = new.nodes[edge.producer].node_type.outputs[edge.output].payloads
    return any(issubclass(each, EncodedPacket) for each in payloads)


def _may_differ(was: Edge, edge: Edge, replaced: set[str], new: Plan) -> bool:
    """Whether packets come from another encoder now: their parameter sets are known when it gives them."""
    is_other = edge.producer in replaced or (was.producer, was.output) != (edge.producer, edge.output)
    return is_other and _takes_packets(edge, new)
