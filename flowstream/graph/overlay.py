"""Settings of a running graph that are given another value: a layer over its files, and the plan with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flowstream.errors import FlowstreamError
from flowstream.graph.builder import Setting, plain
from flowstream.graph.diagnostics import did_you_mean, listed
from flowstream.graph.patch import Patch
from flowstream.graph.plan import Plan
from flowstream.graph.write import text_of

OVERLAY = "<set>"
"""What stands for the path of the layer, in places of findings too."""

_NAME = re.compile(r"(?P<node>[^.]+)\.(?P<field>[^.]+(?:\.[^.]+)*)")


def overlay(settings: Mapping[str, Setting]) -> str:
    """The text of a layer that gives settings other values: ``{"encode.bitrate": "1M", "out.viewers.max": 3}``.

    Raises TypeError or ValueError for a value that cannot stand in a graph.
    """
    nodes: dict[str, Any] = {}
    for name, value in settings.items():
        node, *fields, last = name.split(".")
        part = nodes.setdefault(node, {})
        for each in fields:
            part = part.setdefault(each, {})
        part[last] = plain(value, name)
    return text_of({"nodes": nodes})


def require_setting(plan: Plan, name: str) -> None:
    """Raises FlowstreamError when NODE.FIELD is no setting of a node of the plan that a layer could change."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise FlowstreamError(f"{name!r} names no setting", hint="write NODE.FIELD, such as encode.bitrate")
    node, field = match["node"], match["field"].partition(".")[0]
    planned = plan.nodes.get(node)
    if planned is None or planned.conversion is not None:
        own = [id for id, each in plan.nodes.items() if each.conversion is None]
        close = did_you_mean(node, own)
        raise FlowstreamError(
            f"{name}: there is no node {node}", hint=f"did you mean {close}?" if close else f"there is {listed(own)}"
        )
    if planned.group:
        raise FlowstreamError(
            f"{name}: {node} stands in a graph that is used, where no layer reaches",
            hint=f"give a variable of {planned.group} another value in the graph",
        )
    fields = planned.node_type.config_class.model_fields
    if field not in fields:
        close = did_you_mean(field, fields)
        way_out = f"did you mean {close}?" if close else f"it has {listed(fields)}" if fields else None
        raise FlowstreamError(f"{name}: {planned.type_id} has no setting {field}", hint=way_out)


def require_live(patch: Patch, name: str) -> None:
    """Raises FlowstreamError when giving this setting its value would do more to its node than change it in place."""
    change = next((each for each in patch.changes if each.node == name.partition(".")[0]), None)
    if change is not None and change.action == "replace":
        why = "; ".join(change.causes)
        raise FlowstreamError(
            f"{name} cannot change in place: {change.node} would be replaced ({why})",
            hint="change it in the graph and reload that",
        )
