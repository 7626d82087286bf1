"""YAML text to a Plan: the one way in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any

from flowstream.errors import GraphError
from flowstream.graph import check
from flowstream.graph.diagnostics import Findings, Span
from flowstream.graph.load import List, Map, Scalar, load, spoken
from flowstream.graph.plan import Edge, Plan, PlannedNode
from flowstream.graph.policy import defaults
from flowstream.graph.resolve import ResolvedEdge, Resolver
from flowstream.graph.settings import validate
from flowstream.graph.spec import GraphSpec, build
from flowstream.graph.variables import Variables
from flowstream.node.base import Node
from flowstream.node.config import Config
from flowstream.node.registry import Registry

Settings = dict[str, tuple[Config, dict[str, str]]]


def compile_graph(
    path: str,
    *,
    read: Callable[[str], bytes],
    environ: Mapping[str, str],
    registry: Registry,
    wallclock: datetime,
    sets: Mapping[str, str] | None = None,
) -> Plan:
    """The plan of a graph file. Nothing is opened here: ``read`` gives a file's bytes or raises OSError.

    ``environ`` answers ``$(env:NAME)``, ``sets`` overrides variables. ``wallclock`` is when the run began, in the time
    zone of its user; give the same one at every reload, or settings with ``$(time)`` change with it. Raises GraphError
    with every finding, warnings included, when one of them is an error.
    """
    findings = Findings()
    content = _read(path, read, findings)
    plan = None
    if content is not None:
        plan = _compiled(path, content, findings, environ, registry, wallclock, sets or {})
    if plan is None or findings.has_errors:
        raise GraphError(findings.sorted())
    return plan


def _read(path: str, read: Callable[[str], bytes], findings: Findings) -> bytes | None:
    try:
        return read(path)
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        findings.add("FS101", None, f"{path}: {reason[:1].lower()}{reason[1:]}")
        return None


def _compiled(
    path: str,
    content: bytes,
    findings: Findings,
    environ: Mapping[str, str],
    registry: Registry,
    wallclock: datetime,
    sets: Mapping[str, str],
) -> Plan | None:
    root = load(path, content, findings)
    if root is None or (isinstance(root, Scalar) and root.value is None):
        if not findings.has_errors:
            findings.add(
                "FS111", Span(path, 1, 1), "the file is empty", "nodes: {ID: {type: TYPE}} is the least there is"
            )
        return None
    if not isinstance(root, Map):
        findings.add("FS111", root.span, f"a graph is a map with nodes:, not {spoken(root)}")
        return None
    variables = Variables(findings, environ, wallclock, sets)
    block = root.get("vars")
    if isinstance(block, Map):
        variables.declare(block)
    elif isinstance(block, Scalar | List):
        findings.add("FS111", block.span, f"vars takes a map of names and values, not {spoken(block)}")
    rest = Map(root.span, {key: entry for key, entry in root.entries.items() if key != "vars"})
    substituted = variables.substitute(rest)
    assert isinstance(substituted, Map)
    variables.check_sets()
    spec = build(substituted, findings)
    resolver = Resolver(spec, registry, findings)
    resolver.nodes()
    settings: Settings = {}
    for id_, node_type in resolver.types.items():
        if (found := validate(spec.nodes[id_], node_type, findings)) is not None:
            settings[id_] = found
    order = check.media_order(spec, resolver.types, findings)
    resolver.resolve(order)
    is_live = any(
        node_type.live_with(settings[id_][0]) if id_ in settings else node_type.is_live
        for id_, node_type in resolver.types.items()
    )
    check.check_inputs(spec, resolver.types, resolver.edges, findings)
    check.check_renames(spec, findings)
    check.check_options(resolver.edges, is_live, findings)
    if not order and spec.nodes:
        findings.add("FS111", Span(path, 1, 1), "every node is disabled, so there is nothing to run")
    if findings.has_errors:
        return None
    # What is unused in a graph with errors may be unused because of them.
    variables.check_use()
    check.check_use(spec, resolver.types, findings)
    return make_plan(path, content, spec, resolver.types, settings, order, resolver.edges, is_live, findings)


def make_plan(
    path: str,
    content: bytes,
    spec: GraphSpec,
    types: Mapping[str, type[Node[Any]]],
    settings: Settings,
    order: list[str],
    edges: list[ResolvedEdge],
    is_live: bool,
    findings: Findings,
) -> Plan:
    """The plan of a graph without errors: nodes in ``order``, edges in the order of their consumers."""
    nodes = {}
    for id_ in order:
        node, node_type = spec.nodes[id_], types[id_]
        config, written = settings[id_]
        nodes[id_] = PlannedNode(
            id=id_,
            type_id=node_type.type_id,
            node_type=node_type,
            config=config,
            label=node.label,
            restart=node.restart,
            implementation=implementation_of(node_type),
            place=node.span.place,
            was=str(node.was.value) if node.was else "",
            written=written,
        )
    counts: dict[tuple[str, str], int] = {}
    planned = []
    for edge in edges:
        key = (edge.spec.consumer, edge.input.name)
        index = counts[key] = counts.get(key, -1) + 1
        planned.append(_edge(edge, index, is_live))
    rank = {id_: index for index, id_ in enumerate(nodes)}
    return Plan(
        name=PurePath(path).stem,
        nodes=nodes,
        edges=tuple(sorted(planned, key=lambda e: (rank[e.consumer], e.input, e.index))),
        serve=spec.serve,
        is_live=is_live,
        log=spec.log,
        files=(path,),
        revision=hashlib.sha256(content).hexdigest()[:12],
        warnings=findings.sorted(),
    )


def _edge(edge: ResolvedEdge, index: int, is_live: bool) -> Edge:
    spec = edge.spec
    overflow, limit = defaults(edge, is_live)
    return Edge(
        consumer=spec.consumer,
        input=edge.input.name,
        producer=spec.producer,
        output=edge.output.name,
        overflow=overflow,
        limit=limit,
        index=index,
        feedback=edge.input.feedback,
        place=spec.span.place,
        carried=edge.carried,
    )


def implementation_of(node_type: type[Node[Any]]) -> str:
    """What tells two versions of a node type under development apart; empty for installed ones.

    A module from a ``--nodes`` folder carries a digest of its content in its name.
    """
    module = node_type.__module__
    return module if module.startswith("flowstream_folder_") else ""
