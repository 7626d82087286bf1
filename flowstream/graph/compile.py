"""YAML text to a Plan: the one way in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from flowstream.errors import Diagnostic, GraphError
from flowstream.graph import check
from flowstream.graph.diagnostics import Findings, Span
from flowstream.graph.load import Map
from flowstream.graph.negotiate import Carried, Step
from flowstream.graph.overrides import lay, revision_of
from flowstream.graph.plan import Conversion, Edge, Group, Override, Plan, PlannedNode
from flowstream.graph.policy import defaults
from flowstream.graph.replays import Replay, put_in_place
from flowstream.graph.resolve import ResolvedEdge, Resolver
from flowstream.graph.settings import Settled, validate
from flowstream.graph.sources import Sources
from flowstream.graph.spec import EdgeSpec, GraphSpec, NodeSpec
from flowstream.graph.subgraphs import Expansion
from flowstream.graph.variables import Surroundings
from flowstream.media.packets import EncodedPacket
from flowstream.node.base import Node
from flowstream.node.folder import PREFIX
from flowstream.node.ports import Input, Output
from flowstream.node.registry import Registry

Settings = dict[str, Settled]


@dataclass(frozen=True, slots=True)
class Examined:
    """What there is to say of a graph. ``plan`` is None when it cannot be run; ``files`` are those that were read."""

    plan: Plan | None
    diagnostics: tuple[Diagnostic, ...]
    files: tuple[str, ...]


def compile_graph(
    path: str,
    *,
    read: Callable[[str], bytes],
    environ: Mapping[str, str],
    registry: Registry,
    wallclock: datetime,
    sets: Mapping[str, str] | None = None,
    layers: Sequence[str] = (),
    overrides: Sequence[Override] = (),
    replays: Mapping[str, Replay] = MappingProxyType({}),
) -> Plan:
    """The plan of a graph file with ``layers`` over it, lowest first.

    Nothing is opened here: ``read`` gives a file's bytes or raises OSError. ``environ`` answers ``$(env:NAME)``,
    ``sets`` overrides variables, ``overrides`` settings of nodes. ``wallclock`` is when the run began, in the time zone
    of its user; give the same one at every reload, or settings with ``$(time)`` change with it. ``replays`` run in the
    place of the nodes with these ids, where there are such. Raises GraphError with every finding, warnings included,
    when one of them is an error.
    """
    found = examine(
        path, read=read, environ=environ, registry=registry, wallclock=wallclock, sets=sets, layers=layers,
        overrides=overrides, replays=replays,
    )  # fmt: skip
    if found.plan is None:
        raise GraphError(found.diagnostics, files=found.files)
    return found.plan


def examine(
    path: str,
    *,
    read: Callable[[str], bytes],
    environ: Mapping[str, str],
    registry: Registry,
    wallclock: datetime,
    sets: Mapping[str, str] | None = None,
    layers: Sequence[str] = (),
    as_part: bool = False,
    overrides: Sequence[Override] = (),
    replays: Mapping[str, Replay] = MappingProxyType({}),
) -> Examined:
    """Everything that can be found out about a graph without running it; arguments as for ``compile_graph``.

    ``as_part`` takes a file that other graphs use: its inputs may be open, and its variables without a value.
    """
    made = Compilation(
        path, read=read, environ=environ, registry=registry, wallclock=wallclock, sets=sets, layers=layers,
        as_part=as_part, overrides=overrides, replays=replays,
    )  # fmt: skip
    return Examined(made.plan, made.diagnostics, made.files)


class Compilation:
    """A graph on its way from files to a plan, with what stands between; arguments as for ``examine``.

    ``may_lack`` lets the variables of a part be without a value. Without a plan the graph cannot be run. ``tree`` and
    ``spec`` are None when a file could not be read.
    """

    def __init__(
        self,
        path: str,
        *,
        read: Callable[[str], bytes],
        environ: Mapping[str, str],
        registry: Registry,
        wallclock: datetime,
        sets: Mapping[str, str] | None = None,
        layers: Sequence[str] = (),
        as_part: bool = False,
        overrides: Sequence[Override] = (),
        may_lack: bool = True,
        replays: Mapping[str, Replay] = MappingProxyType({}),
    ) -> None:
        self.findings = Findings()
        self.tree: Map | None = None
        self.spec: GraphSpec | None = None
        self.edges: list[ResolvedEdge] = []
        self.read_as: dict[str, frozenset[str]] = {}
        self._paths = (path, *layers)
        self._planning: _Planning | None = None
        self._replays = replays
        self._left_out: tuple[str, ...] = ()
        self.overrides: tuple[Override, ...] = ()
        sources = Sources(read, self.findings)
        tree = sources.layered(self._paths)
        if tree is not None:
            is_part = as_part and not tree.entries.keys().isdisjoint(("inputs", "outputs"))
            surroundings = Surroundings(environ, wallclock)
            expansion = Expansion(sources, surroundings, self.findings, is_part=is_part and may_lack)
            self.spec, self.tree = expansion.whole(tree, self._paths, sets or {})
            self._left_out = put_in_place(self.spec, replays, self.findings) if replays else ()
            self.overrides = lay(self.spec, overrides, self.findings, replayed=replays.keys())
            self._planning = self._checked(self.spec, registry, is_part)
            if self._planning is not None:
                # What is unused in a graph with errors may be unused because of them.
                expansion.check_use()
        self.diagnostics = self.findings.sorted()
        self.files = tuple(sources.files)
        self.content = sources.revision

    @cached_property
    def plan(self) -> Plan | None:
        """The plan, made when it is asked for; None when the graph cannot be run."""
        if self._planning is None:
            return None
        plan = self._planning.plan(PurePath(self._paths[0]).stem)
        return replace(
            plan, files=self.files, warnings=self.diagnostics, content=self.content, overrides=self.overrides,
            revision=revision_of(self.content, self.overrides), left_out=self._left_out,
        )  # fmt: skip

    def _checked(self, spec: GraphSpec, registry: Registry, is_part: bool) -> _Planning | None:
        """Holds the graph against every rule; None when it cannot be run."""
        findings = self.findings
        resolver = Resolver(spec, registry, findings)
        resolver.nodes({id_: each.node_type for id_, each in self._replays.items()})
        settings: Settings = {}
        for id_, node_type in resolver.types.items():
            if id_ in self._replays:
                settings[id_] = Settled(self._replays[id_].config, {}, frozenset())
            elif (found := validate(spec.nodes[id_], node_type, findings)) is not None:
                settings[id_] = found
        self.read_as = {id_: found.read_as for id_, found in settings.items() if found.read_as}
        order = check.media_order(spec, resolver.types, findings)
        resolver.resolve(order, {id_: found.config for id_, found in settings.items()})
        self.edges = resolver.edges
        is_live = any(
            node_type.live_with(settings[id_].config) if id_ in settings else node_type.is_live
            for id_, node_type in resolver.types.items()
        )
        check.check_inputs(spec, resolver.types, resolver.edges, findings, is_part=is_part)
        check.check_exports(spec, resolver.types, findings)
        check.check_renames(spec, findings)
        check.check_placement(spec, findings)
        check.check_options(resolver.edges, is_live, findings)
        if not order and spec.nodes:
            findings.add("FS111", Span(self._paths[0], 1, 1), "every node is disabled, so there is nothing to run")
        if findings.has_errors or settings.keys() != resolver.types.keys():
            return None
        check.check_use(spec, resolver.types, resolver.edges, findings)
        return _Planning(spec, resolver, settings, order, is_live, self._replays)


class _Planning:
    """Makes the plan of a graph without errors."""

    def __init__(
        self, spec: GraphSpec, resolver: Resolver, settings: Settings, order: list[str], is_live: bool,
        replays: Mapping[str, Replay],
    ) -> None:  # fmt: skip
        self._order = order
        self._spec = spec
        self._resolver = resolver
        self._settings = settings
        self._is_live = is_live
        self._replays = replays
        self._nodes: dict[str, PlannedNode] = {}
        self._edges: list[Edge] = []

    def plan(self, name: str) -> Plan:
        """Nodes in topological order, each after the converters on its edges; edges in the order of their consumers."""
        into: dict[str, list[ResolvedEdge]] = {}
        for edge in self._resolver.edges:
            into.setdefault(edge.spec.consumer, []).append(edge)
        for id_ in self._order:
            counts: dict[str, int] = {}
            for edge in into.get(id_, ()):
                index = counts[edge.input.name] = counts.get(edge.input.name, -1) + 1
                self._connect(edge, index)
            self._nodes[id_] = self._node(id_)
        rank = {id_: index for index, id_ in enumerate(self._nodes)}
        groups = {id_: Group(id_, each.file, each.node.label) for id_, each in self._spec.groups.items()}
        return Plan(
            name=name,
            nodes=self._nodes,
            edges=tuple(sorted(self._edges, key=lambda e: (rank[e.consumer], e.input, e.index))),
            serve=self._spec.serve,
            is_live=self._is_live,
            log=self._spec.log,
            groups=groups,
        )

    def _node(self, id_: str) -> PlannedNode:
        node, node_type = self._spec.nodes[id_], self._resolver.types[id_]
        settled = self._settings[id_]
        return PlannedNode(
            id=id_,
            type_id=node_type.type_id,
            node_type=node_type,
            config=settled.config,
            label=node.label,
            restart=node.restart,
            implementation=implementation_of(node_type),
            place=node.span.place,
            was=_old_id(node),
            written=settled.secrets,
            replayed=self._replays[id_].source if id_ in self._replays else "",
        )

    def _connect(self, edge: ResolvedEdge, index: int) -> None:
        """Puts an edge into the plan: one, or as many as the converters on it make of it."""
        last = self._edge(edge, edge.spec.consumer, edge.input, index)
        producer, output, carried = edge.producer, edge.output, edge.carried
        for number, step in enumerate(edge.steps):
            node = self._converter(edge, last.name, step)
            self._nodes[node.id] = node
            port = next(each for each in node.node_type.inputs.values() if not each.feedback)
            hop = replace(edge, producer=producer, output=output, carried=carried, spec=_hop(edge, carried, number))
            self._edges.append(self._edge(hop, node.id, port, 0))
            producer, output, carried = node.id, _output(node.node_type, step), step.gives
        if edge.steps:
            hop = replace(edge, producer=producer, output=output, carried=carried)
            if hop.spec.overflow == "drop-to-keyframe" and edge.steps[0].kind == "decode":
                hop = replace(hop, spec=replace(edge.spec, overflow=None, items=None, bytes=None, time_ns=None))
            last = self._edge(hop, edge.spec.consumer, edge.input, index)
        self._edges.append(last)

    def _edge(self, edge: ResolvedEdge, consumer: str, port: Input[Any], index: int) -> Edge:
        overflow, limit = defaults(edge, self._is_live)
        return Edge(
            consumer=consumer,
            input=port.name,
            producer=edge.producer,
            output=edge.output.name,
            overflow=overflow,
            limit=limit,
            index=index,
            feedback=port.feedback,
            place=edge.spec.span.place,
            carried=edge.carried,
        )

    def _converter(self, edge: ResolvedEdge, name: str, step: Step) -> PlannedNode:
        node_type = self._resolver.converter(step)
        assert node_type is not None
        was = _old_id(self._spec.nodes[edge.spec.consumer])
        return PlannedNode(
            id=f"{name}~{step.kind}",
            type_id=node_type.type_id,
            node_type=node_type,
            config=node_type.config_class.model_validate_json(json.dumps(step.settings)),
            restart=self._spec.nodes[edge.spec.consumer].restart,
            was=f"{was}{name.removeprefix(edge.spec.consumer)}~{step.kind}" if was else "",
            implementation=implementation_of(node_type),
            place=edge.spec.span.place,
            conversion=Conversion(name, step.does, step.cost, step.certain),
        )


def _old_id(node: NodeSpec) -> str:
    return str(node.was.value).lstrip("/") if node.was else ""


def _hop(edge: ResolvedEdge, carried: Carried | None, number: int) -> EdgeSpec:
    """How much may wait before a converter: what the graph says where it fits what comes in there, else the default."""
    spec = edge.spec
    is_coded = carried is not None and any(issubclass(each, EncodedPacket) for each in carried.payloads)
    if spec.overflow == "block" or (spec.overflow == "drop-to-keyframe" and is_coded and number == 0):
        return spec
    return replace(spec, overflow=None, items=None, bytes=None, time_ns=None)


def _output(node_type: type[Node[Any]], step: Step) -> Output[Any]:
    """The output of a converter that gives what its step says."""
    fitting = [each for each in node_type.outputs.values() if issubclass(step.gives.payloads[0], each.payloads)]
    return fitting[0]


def implementation_of(node_type: type[Node[Any]]) -> str:
    """What tells two versions of a node type under development apart; empty for installed ones.

    A module from a ``--nodes`` folder carries a digest of its content, and of what it imports there, in its name.
    """
    module = node_type.__module__
    return module if module.startswith(PREFIX) else ""
