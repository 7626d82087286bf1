"""A plan as a picture: text for Mermaid and for Graphviz."""

from __future__ import annotations

from flowstream.graph.plan import Edge, Plan, PlannedNode


def to_mermaid(plan: Plan) -> str:
    """A Mermaid flowchart: boxes are nodes, arrows edges with what travels on them; feedback is dotted."""
    names = {id_: f"n{index}" for index, id_ in enumerate(plan.nodes)}
    lines = ["flowchart LR"]
    for id_, node in plan.nodes.items():
        title = _mermaid_text(node.label or id_)
        opened, closed = _mermaid_shape(node)
        lines.append(f'  {names[id_]}{opened}"{title}<br/><small>{_mermaid_text(node.type_id)}</small>"{closed}')
    for edge in plan.edges:
        arrow = "-.->" if edge.feedback else "-->"
        label = _mermaid_text(edge_label(plan, edge))
        lines.append(f'  {names[edge.producer]} {arrow}|"{label}"| {names[edge.consumer]}')
    return "\n".join(lines) + "\n"


def to_dot(plan: Plan) -> str:
    """A Graphviz digraph of the same."""
    lines = [
        f"digraph {_quoted(plan.name)} {{",
        "  rankdir=LR;",
        '  node [shape=box, style=rounded, fontname="sans-serif"];',
        '  edge [fontname="sans-serif", fontsize=10];',
    ]
    for id_, node in plan.nodes.items():
        title = _quoted("\n".join((node.label or id_, node.type_id)))
        lines.append(f"  {_quoted(id_)} [label={title}];")
    for edge in plan.edges:
        style = ", style=dashed, constraint=false" if edge.feedback else ""
        label = _quoted(edge_label(plan, edge))
        lines.append(f"  {_quoted(edge.producer)} -> {_quoted(edge.consumer)} [label={label}{style}];")
    return "\n".join([*lines, "}"]) + "\n"


def edge_label(plan: Plan, edge: Edge) -> str:
    """What travels on an edge: the output's caps or payload, and the input where the node has several."""
    output = plan.nodes[edge.producer].node_type.outputs[edge.output]
    payload = "any" if output.payloads[0] is object else output.payloads[0].__name__
    codec = getattr(output.caps, "codec", None)
    carried = codec if isinstance(codec, str) else payload
    inputs = [port for port in plan.nodes[edge.consumer].node_type.inputs.values() if not port.feedback]
    return f"{carried} to {edge.input}" if len(inputs) > 1 or edge.feedback else carried


def _mermaid_shape(node: PlannedNode) -> tuple[str, str]:
    if not node.node_type.inputs:
        return "([", "])"
    return ("[[", "]]") if not node.node_type.outputs else ("[", "]")


def _mermaid_text(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("\n", " ").replace("|", "&#124;")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
