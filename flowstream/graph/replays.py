"""Nodes that are replaced by something that plays what they once gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flowstream.errors import FlowstreamError
from flowstream.graph.diagnostics import Findings, did_you_mean, listed
from flowstream.graph.load import List, Map, Scalar, Value
from flowstream.graph.plan import Plan
from flowstream.graph.spec import GraphSpec, GroupSpec, NodeSpec
from flowstream.node.base import Node
from flowstream.node.config import Config


@dataclass(frozen=True, slots=True)
class Replay:
    """What runs in a node's place: a source with the outputs that were recorded at ``path``.

    ``source`` says it to people. One that ``is_fast`` gives what it has as fast as it is taken.
    """

    node_type: type[Node[Any]]
    config: Config
    path: str
    source: str
    is_fast: bool = False


class ReplayError(FlowstreamError):
    """Raised when a recording cannot be replayed in a graph as it was asked for."""


def put_in_place(spec: GraphSpec, replays: Mapping[str, Replay], findings: Findings) -> tuple[str, ...]:
    """Takes inputs and settings from the nodes that are replayed, and leaves out those that worked for them alone.

    Gives the ids of those left out: nothing else takes from them. Of what is not there to be put into the settings of
    either, the findings tell no more: the one who replays a camera has neither the camera nor its password.
    """
    there = [id_ for id_ in replays if id_ in spec.nodes]
    takers = _takers(spec)
    gone: set[str] = set()
    for node in reversed(_upstream_first(spec, takers)):
        taken = takers.get(node.id)
        if taken and all(each in gone or each in there for each in taken):
            gone.add(node.id)
    for id_ in {*there, *gone}:
        node = spec.nodes[id_]
        findings.forgive("FS121", {(span.file, span.line) for span in _spans(node.settings)})
        node.edges, node.settings, node.restart = [], Map(node.settings.span), None
        node.enabled = node.enabled and id_ not in gone
    owners: list[GraphSpec | GroupSpec] = [spec, *spec.groups.values()]
    for owner in owners:
        for export in owner.inputs.values():
            export.targets = [each for each in export.targets if each.node not in there and each.node not in gone]
    return tuple(id_ for id_ in spec.nodes if id_ in gone)


def _takers(spec: GraphSpec) -> dict[str, set[str]]:
    """For each node those that take from it."""
    takers: dict[str, set[str]] = {}
    for node in spec.nodes.values():
        for edge in node.edges if node.enabled else ():
            if edge.producer in spec.nodes or edge.producer in spec.groups:
                for leaf in spec.leaves(edge.producer, edge.output):
                    takers.setdefault(leaf.node, set()).add(node.id)
    return takers


def _upstream_first(spec: GraphSpec, takers: Mapping[str, set[str]]) -> list[NodeSpec]:
    """The enabled nodes, each before those that take from it where there is no loop."""
    order: list[NodeSpec] = []
    seen: set[str] = set()
    for first in spec.nodes:
        waiting = [(first, iter(sorted(takers.get(first, ()))))] if first not in seen else []
        seen.add(first)
        while waiting:
            id_, rest = waiting[-1]
            following = next((each for each in rest if each not in seen), None)
            if following is not None:
                seen.add(following)
                waiting.append((following, iter(sorted(takers.get(following, ())))))
            else:
                order.append(spec.nodes[id_])
                waiting.pop()
    return [node for node in reversed(order) if node.enabled]


def _spans(value: Value) -> Iterator[Any]:
    match value:
        case Scalar():
            yield value.span
        case List():
            for item in value.items:
                yield from _spans(item)
        case Map():
            for entry in value.entries.values():
                yield from _spans(entry.value)


def require_replays(plan: Plan, replays: Mapping[str, Replay]) -> None:
    """Raises ReplayError when a replay has no place in a graph, or cannot be what it is to be there."""
    for id_, each in replays.items():
        if id_ not in plan.nodes and id_ not in plan.left_out:
            close = did_you_mean(id_, plan.nodes)
            raise ReplayError(
                f"{each.path} is to be replayed in the place of {id_}, but no such node runs in {plan.name}",
                hint=f"did you mean {close}?" if close else f"there is {listed(plan.nodes)}",
            )
    is_fast = any(each.is_fast for each in replays.values())
    live = [id_ for id_, node in plan.nodes.items() if not node.replayed and node.node_type.live_with(node.config)]
    if is_fast and live:
        raise ReplayError(
            f"{listed(live)} cannot be slowed down, so what is replayed as fast as possible would be lost beside it",
            hint=f"replay {live[0]} too, or take --replay-speed real",
        )
