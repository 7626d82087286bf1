"""Settings that a program gives other values while a graph runs: which there are, and which change in place."""

from __future__ import annotations

from flowstream.errors import FlowstreamError
from flowstream.graph.builder import Setting, plain
from flowstream.graph.diagnostics import did_you_mean, listed
from flowstream.graph.overrides import parse_target
from flowstream.graph.patch import Patch
from flowstream.graph.plan import Plan
from flowstream.graph.write import in_line


def text_for(value: Setting, target: str) -> str:
    """A value of a program as YAML on one line, for the setting ``target``; None stands for the default.

    What it reads back as is the value itself, also for text that looks like a number. Raises TypeError or ValueError,
    with the reason, for what cannot stand in a graph.
    """
    return "null" if value is None else in_line(plain(value, target))


def require_setting(plan: Plan, target: str) -> None:
    """Raises FlowstreamError when NODE.FIELD is no setting of a node of the plan."""
    try:
        node, path = parse_target(target)
    except ValueError as error:
        raise FlowstreamError(str(error)) from error
    field = path.partition(".")[0]
    planned = plan.nodes.get(node)
    if planned is None or planned.conversion is not None:
        own = [id for id, each in plan.nodes.items() if each.conversion is None]
        close = did_you_mean(node, own)
        raise FlowstreamError(
            f"{target}: there is no node {node}", hint=f"did you mean {close}?" if close else f"there is {listed(own)}"
        )
    fields = planned.node_type.config_class.model_fields
    if field not in fields:
        close = did_you_mean(field, fields)
        way_out = f"did you mean {close}?" if close else f"it has {listed(fields)}" if fields else None
        raise FlowstreamError(f"{target}: {planned.type_id} has no setting {field}", hint=way_out)


def require_live(patch: Patch, target: str) -> None:
    """Raises FlowstreamError when giving this setting its value would do more to its node than change it in place."""
    node = target.partition(".")[0]
    change = next((each for each in patch.changes if each.node == node), None)
    if change is not None and change.action == "replace":
        raise FlowstreamError(
            f"{target} cannot change in place: {node} would be replaced ({'; '.join(change.causes)})",
            hint="change it in the graph and reload that",
        )
