"""A plan as a picture: text for Mermaid and for Graphviz, and what all pictures say of nodes, edges and subgraphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from flowstream.graph.carried import carried_text
from flowstream.graph.plan import Edge, Group, Plan, PlannedNode
from flowstream.media.records import Record
from flowstream.node.ports import Input, Output

Role = Literal["source", "transform", "sink", "converter"]


def to_mermaid(plan: Plan) -> str:
    """A Mermaid flowchart: boxes are nodes, arrows edges with what travels on them; feedback is dotted.

    Subgraphs are boxes around their nodes. A converter is round, with a dashed outline where it may have nothing to do.
    """
    names = {id_: f"n{index}" for index, id_ in enumerate(plan.nodes)}
    frames = {id_: f"g{index}" for index, id_ in enumerate(drawn_groups(plan))}

    def box(node: PlannedNode) -> Iterator[str]:
        opened, closed = _mermaid_shape(node)
        if node.conversion:
            yield f'{names[node.id]}{opened}"<small>{_mermaid_text(converter_text(node))}</small>"{closed}'
            if not node.conversion.certain:
                yield f"style {names[node.id]} stroke-dasharray:4 3"
            return
        title = _mermaid_text(title_of(plan, node))
        yield f'{names[node.id]}{opened}"{title}<br/><small>{_mermaid_text(node.type_id)}</small>"{closed}'

    def frame(group: Group, inside: list[str]) -> Iterator[str]:
        file = f"<br/><small>{_mermaid_text(group.file)}</small>" if group.file else ""
        yield f'subgraph {frames[group.id]}["{_mermaid_text(group_title(plan, group))}{file}"]'
        yield from inside
        yield "end"

    lines = ["flowchart LR", *_nested(plan, box, frame)]
    for edge in plan.edges:
        arrow = "-.->" if edge.feedback else "-->"
        label = _mermaid_text(edge_label(plan, edge))
        lines.append(f'  {names[edge.producer]} {arrow}|"{label}"| {names[edge.consumer]}')
    return "\n".join(lines) + "\n"


def to_dot(plan: Plan) -> str:
    """A Graphviz digraph of the same; subgraphs are clusters."""

    def box(node: PlannedNode) -> Iterator[str]:
        if node.conversion:
            style = "solid" if node.conversion.certain else "dashed"
            form = f"shape=ellipse, style={style}, fontsize=10, margin=0.05, height=0.3"
            yield f"{_quoted(node.id)} [label={_quoted(converter_text(node))}, {form}];"
            return
        title = _quoted("\n".join((title_of(plan, node), node.type_id)))
        yield f"{_quoted(node.id)} [label={title}];"

    def frame(group: Group, inside: list[str]) -> Iterator[str]:
        title = "\n".join(each for each in (group_title(plan, group), group.file) if each)
        yield f"subgraph {_quoted('cluster_' + group.id)} {{"
        yield f'  label={_quoted(title)}; labeljust=l; style=rounded; fontname="sans-serif"; fontsize=11;'
        yield from inside
        yield "}"

    lines = [
        f"digraph {_quoted(plan.name)} {{",
        "  rankdir=LR;",
        '  node [shape=box, style=rounded, fontname="sans-serif"];',
        '  edge [fontname="sans-serif", fontsize=10];',
        *_nested(plan, box, frame),
    ]
    for edge in plan.edges:
        style = ", style=dashed, constraint=false" if edge.feedback else ""
        label = _quoted(edge_label(plan, edge))
        lines.append(f"  {_quoted(edge.producer)} -> {_quoted(edge.consumer)} [label={label}{style}];")
    return "\n".join([*lines, "}"]) + "\n"


def edge_label(plan: Plan, edge: Edge) -> str:
    """What travels on an edge, and the input where the node has several."""
    inputs = [port for port in plan.nodes[edge.consumer].node_type.inputs.values() if not port.feedback]
    carried = edge_carries(plan, edge)
    return f"{carried} to {edge.input}" if len(inputs) > 1 or edge.feedback else carried


def edge_carries(plan: Plan, edge: Edge) -> str:
    """What travels on an edge, as far as the plan knows; else the codec or the payload that the output declares."""
    if edge.carried is not None:
        return carried_text(edge.carried)
    output = plan.nodes[edge.producer].node_type.outputs[edge.output]
    payload = "any" if output.payloads[0] is object else output.payloads[0].__name__
    codec = getattr(output.caps, "codec", None)
    return codec if isinstance(codec, str) else payload


def role_of(node: PlannedNode) -> Role:
    """Whether a node is a converter, a source (no inputs), a sink (media goes in and none comes out) or a transform."""
    if node.conversion:
        return "converter"
    if not node.node_type.inputs:
        return "source"
    outputs = node.node_type.outputs.values()
    takes_media = any(_is_media(port) for port in node.node_type.inputs.values())
    is_sink = not outputs or (takes_media and not any(_is_media(port) for port in outputs))
    return "sink" if is_sink else "transform"


def _is_media(port: Input[Any] | Output[Any]) -> bool:
    return not all(issubclass(each, Record) for each in port.payloads)


def converter_text(node: PlannedNode) -> str:
    """What a converter does and what that costs: ``decode, high``."""
    assert node.conversion is not None
    return f"{node.conversion.does}, {node.conversion.cost}"


def title_of(plan: Plan, node: PlannedNode) -> str:
    """A node's label, or its id within the subgraph that it is drawn in."""
    return node.label or _local(node.id, group_of(plan, node.id))


def group_title(plan: Plan, group: Group) -> str:
    """A subgraph's label, or its id within the subgraph that it is drawn in."""
    return group.label or _local(group.id, group_of(plan, group.id))


def group_of(plan: Plan, id_: str) -> str:
    """The innermost subgraph that a node or a subgraph stands in; empty at the top."""
    while "/" in id_:
        id_ = id_.rpartition("/")[0]
        if id_ in plan.groups:
            return id_
    return ""


def drawn_groups(plan: Plan) -> dict[str, str]:
    """The subgraphs in which a node stands, each with the one around it, outer ones first."""
    found: dict[str, str] = {}
    for node in plan.nodes:
        lineage = []
        group = group_of(plan, node)
        while group and group not in found:
            lineage.append(group)
            group = group_of(plan, group)
        found.update({each: group_of(plan, each) for each in reversed(lineage)})
    return found


def _nested(
    plan: Plan, box: Callable[[PlannedNode], Iterator[str]], frame: Callable[[Group, list[str]], Iterator[str]]
) -> list[str]:
    """The lines of all boxes, those of a subgraph in its frame, indented."""
    parents = drawn_groups(plan)

    def inside(group: str) -> list[str]:
        lines = [line for node in plan.nodes.values() if group_of(plan, node.id) == group for line in box(node)]
        for each in (each for each, parent in parents.items() if parent == group):
            lines += frame(plan.groups[each], inside(each))
        return [f"  {line}" for line in lines]

    return inside("")


def _local(id_: str, group: str) -> str:
    return id_.removeprefix(f"{group}/") if group else id_


def _mermaid_shape(node: PlannedNode) -> tuple[str, str]:
    shapes: dict[Role, tuple[str, str]] = {
        "converter": ("(", ")"), "source": ("([", "])"), "sink": ("[[", "]]"), "transform": ("[", "]"),
    }  # fmt: skip
    return shapes[role_of(node)]


def _mermaid_text(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("\n", " ").replace("|", "&#124;")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
