"""A plan as an SVG picture that needs nothing else: no fonts of its own, no scripts; it reads on light and on dark."""

from __future__ import annotations

import unicodedata
from collections.abc import Sized
from html import escape

from flowstream.graph.carried import carried_whole
from flowstream.graph.draw import (
    converter_text,
    drawn_groups,
    edge_carries,
    edge_label,
    group_of,
    group_title,
    role_of,
    title_of,
)
from flowstream.graph.layout import Box, Layout, Link, Point, Rect, Route, lay_out
from flowstream.graph.plan import Edge, Group, Plan, PlannedNode

TITLE, TYPE, LABEL = 13.5, 11.5, 11.0
"""Sizes of text, in pixels: a node's name, its type, what an edge carries."""

BOX_HEIGHT, PILL_HEIGHT = 48.0, 24.0
WIDEST_BOX, WIDEST_LABEL, LONG_LABEL, WIDEST_FRAME_TITLE = 170.0, 190.0, 130.0, 260.0

COLOURS = """
.fs-back{fill:#ffffff;stroke:#d5dbe1}
.fs-text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans",sans-serif;fill:#1c2733}
.fs-title{font-size:13.5px;font-weight:600}
.fs-type{font-size:11.5px;fill:#566573}
.fs-label{font-size:11px;fill:#44525f}
.fs-group{font-size:12px;font-weight:600;fill:#44525f}
.fs-file{font-size:11px;font-weight:400;fill:#6b7884}
.fs-frame{fill:#8796a5;fill-opacity:.09;stroke:#b4bfc9}
.fs-box{stroke-width:1.4}
.fs-source{fill:#e5f5ea;stroke:#3b9a5c}
.fs-transform{fill:#e7f0fb;stroke:#4a82c3}
.fs-sink{fill:#f4eafa;stroke:#9160b5}
.fs-converter{fill:#fdf3df;stroke:#b98a2b}
.fs-maybe{stroke-dasharray:4 3}
.fs-line{fill:none;stroke:#71808e;stroke-width:1.4}
.fs-tip{fill:#71808e}
.fs-feedback{stroke:#c0692a;stroke-dasharray:5 4}
.fs-feedback-tip{fill:#c0692a}
.fs-reach{fill:none;stroke:#000;stroke-opacity:0;stroke-width:12}
@media (prefers-color-scheme:dark){
.fs-back{fill:#11161c;stroke:#2c3640}
.fs-text{fill:#e3e9ee}
.fs-type{fill:#9fadba}
.fs-label{fill:#b3bfca}
.fs-group{fill:#b9c5d0}
.fs-file{fill:#8d9aa7}
.fs-frame{fill:#9fb3c8;fill-opacity:.07;stroke:#3d4a56}
.fs-source{fill:#16301f;stroke:#4fb374}
.fs-transform{fill:#16283c;stroke:#5f9be0}
.fs-sink{fill:#2b1c37;stroke:#b183d6}
.fs-converter{fill:#33290f;stroke:#d2a541}
.fs-line{stroke:#8494a3}
.fs-tip{fill:#8494a3}
.fs-feedback{stroke:#e08b4b}
.fs-feedback-tip{fill:#e08b4b}
}
"""


def to_svg(plan: Plan) -> str:
    """The picture of a plan: sources at the left, sinks at the right, subgraphs as frames, feedback dashed.

    Whatever is shortened stands whole in the tooltip.
    """
    layout = layout_of(plan)
    width, height = _number(layout.width), _number(layout.height)
    said = f"Graph {_plain(plan.name)}: {_counted(plan.nodes, 'node')}, {_counted(plan.edges, 'edge')}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(said)}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}" style="max-width:100%;height:auto">',
        f"<style>{COLOURS}</style>",
        f'<rect class="fs-back" x="0.5" y="0.5" width="{_number(layout.width - 1)}" '
        f'height="{_number(layout.height - 1)}" rx="10"/>',
    ]
    for id_, rect in layout.frames.items():
        lines += _frame(plan, plan.groups[id_], rect)
    for edge, route in zip(plan.edges, layout.routes, strict=True):
        lines += _edge(plan, edge, route)
    for id_, node in plan.nodes.items():
        lines += _node(plan, node, layout.boxes[id_])
    return "\n".join([*lines, "</svg>"]) + "\n"


def layout_of(plan: Plan) -> Layout:
    """Where everything in the picture of a plan stands."""
    boxes = [_box(plan, node) for node in plan.nodes.values()]
    links = []
    for edge in plan.edges:
        texts = _label_lines(plan, edge)
        width = max(text_width(text, LABEL) for text in texts) + 6
        links.append(Link(edge.producer, edge.consumer, edge.output, width, edge.feedback, len(texts)))
    titles = {id_: _frame_title(plan, plan.groups[id_], WIDEST_FRAME_TITLE)[2] for id_ in drawn_groups(plan)}
    return lay_out(boxes, links, drawn_groups(plan), titles)


def text_width(text: str, size: float) -> float:
    """How wide a text is about, in pixels: a wide sans-serif font, so that it fits in whatever the viewer has."""
    return sum(map(_advance, text)) * size


def shortened(text: str, size: float, room: float) -> str:
    """The text on one line, with an ellipsis where the room in pixels ends."""
    text = " ".join(_plain(text).split())
    if text_width(text, size) <= room:
        return text
    left = room - text_width("…", size)
    kept = 0
    for kept, character in enumerate(text):  # noqa: B007 - where the room ends
        left -= _advance(character) * size
        if left < 0:
            break
    while kept and (unicodedata.combining(text[kept]) or text[kept] in JOINERS or text[kept - 1] in JOINERS):
        kept -= 1
    return text[:kept].rstrip() + "…"


JOINERS = "\u200d\ufe0e\ufe0f"
"""What belongs to the character before it, or glues two."""


def _advance(character: str) -> float:
    if character in "iIl.,:;'|!j`":
        return 0.34
    if character in ' frt()[]/\\-"{}*':
        return 0.42
    if character in "mMwW@%—…":
        return 0.97
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Mn", "Me"):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF":
        return 1.15 if unicodedata.category(character) == "So" else 1.02
    if character.isupper():
        return 0.74
    return 0.64 if character.isascii() else 0.72


def _box(plan: Plan, node: PlannedNode) -> Box:
    group = group_of(plan, node.id)
    if node.conversion:
        text = shortened(converter_text(node), LABEL, WIDEST_BOX)
        return Box(node.id, text_width(text, LABEL) + 22, PILL_HEIGHT, group, stretches=False)
    title = shortened(title_of(plan, node), TITLE, WIDEST_BOX)
    kind = shortened(node.type_id, TYPE, WIDEST_BOX)
    # The names of nodes are bold.
    width = max(text_width(title, TITLE) * 1.08, text_width(kind, TYPE), 64.0) + 28
    return Box(node.id, width, BOX_HEIGHT, group)


def _node(plan: Plan, node: PlannedNode, rect: Rect) -> list[str]:
    role = role_of(node)
    middle = rect.x + rect.width / 2
    centre = rect.y + rect.height / 2
    if node.conversion:
        maybe = "" if node.conversion.certain else " fs-maybe"
        does = converter_text(node)
        certain = "" if node.conversion.certain else "\nonly where it has to"
        return [
            "<g>",
            _tooltip(f"{node.id}\n{does} cost, on {node.conversion.edge}{certain}\n{node.type_id}"),
            _rounded(rect, f"fs-box fs-{role}{maybe}", PILL_HEIGHT / 2, PILL_HEIGHT / 2),
            _text(middle, centre + 4, "fs-label", shortened(does, LABEL, WIDEST_BOX), anchor="middle"),
            "</g>",
        ]
    name = f"{node.label}\n{node.id}" if node.label else node.id
    left = BOX_HEIGHT / 2 if role == "source" else 7.0
    right = BOX_HEIGHT / 2 if role == "sink" else 7.0
    return [
        "<g>",
        _tooltip(f"{name}\n{node.type_id} ({role})"),
        _rounded(rect, f"fs-box fs-{role}", left, right),
        _text(middle, centre - 3, "fs-title", shortened(title_of(plan, node), TITLE, WIDEST_BOX), anchor="middle"),
        _text(middle, centre + 14, "fs-type", shortened(node.type_id, TYPE, WIDEST_BOX), anchor="middle"),
        "</g>",
    ]


def _edge(plan: Plan, edge: Edge, route: Route) -> list[str]:
    feedback = " fs-feedback" if edge.feedback else ""
    tip = "fs-feedback-tip" if edge.feedback else "fs-tip"
    carried = carried_whole(edge.carried) if edge.carried is not None else edge_carries(plan, edge)
    path = _path(route)
    lines = [
        "<g>",
        _tooltip(f"{edge.name} from {edge.producer}.{edge.output}\n{carried}{', feedback' if edge.feedback else ''}"),
        f'<path class="fs-reach" d="{path}"/>',
        f'<path class="fs-line{feedback}" d="{path}"/>',
        f'<path class="{tip}" d="{_arrow(route)}"/>',
    ]
    if route.label:
        label = route.label
        middle = label.x + label.width / 2
        above, *below = _label_lines(plan, edge)
        lines.append(_text(middle, label.y + 10, "fs-label", above, anchor="middle"))
        lines += [_text(middle, label.bottom - 4, "fs-label", text, anchor="middle") for text in below]
    return [*lines, "</g>"]


def _label_lines(plan: Plan, edge: Edge) -> list[str]:
    """What stands at an edge; what is long, above and beneath it."""
    whole = edge_label(plan, edge)
    if text_width(whole, LABEL) <= LONG_LABEL:
        return [shortened(whole, LABEL, WIDEST_LABEL)]
    carried = edge_carries(plan, edge)
    return [shortened(each, LABEL, WIDEST_LABEL) for each in (carried, whole[len(carried) + 1 :]) if each]


def _frame_title(plan: Plan, group: Group, room: float) -> tuple[str, str, float]:
    """A frame's name and file, shortened to the room, and how wide they are with what is between them."""
    name = shortened(group_title(plan, group), 12.0, room)
    width = text_width(name, 12.0) * 1.08
    file = shortened(group.file, LABEL, room - width - 10) if group.file and room - width > 50 else ""
    return name, file, width + (10 + text_width(file, LABEL) if file else 0.0)


def _frame(plan: Plan, group: Group, rect: Rect) -> list[str]:
    room = max(rect.width - 28, WIDEST_FRAME_TITLE)
    name, file, width = _frame_title(plan, group, room)
    if width > rect.width - 20:
        name, file, width = _frame_title(plan, group, rect.width - 20)
    beside = f'<tspan class="fs-file" dx="10">{escape(file)}</tspan>' if file else ""
    return [
        "<g>",
        _tooltip("\n".join(dict.fromkeys(each for each in (group.label, group.id, group.file) if each))),
        _rounded(rect, "fs-frame", 12, 12),
        _text(rect.x + 14, rect.y + 20, "fs-group", name, beside),
        "</g>",
    ]


def _rounded(rect: Rect, classes: str, left: float, right: float) -> str:
    """A box with its own radius at either side."""
    x, y = rect.x, rect.y
    path = (
        f"M{_number(x + left)},{_number(y)}H{_number(rect.right - right)}"
        f"A{_number(right)},{_number(right)} 0 0 1 {_number(rect.right)},{_number(y + right)}"
        f"V{_number(rect.bottom - right)}"
        f"A{_number(right)},{_number(right)} 0 0 1 {_number(rect.right - right)},{_number(rect.bottom)}"
        f"H{_number(x + left)}"
        f"A{_number(left)},{_number(left)} 0 0 1 {_number(x)},{_number(rect.bottom - left)}"
        f"V{_number(y + left)}"
        f"A{_number(left)},{_number(left)} 0 0 1 {_number(x + left)},{_number(y)}Z"
    )
    return f'<path class="{classes}" d="{path}"/>'


def _path(route: Route) -> str:
    x, y = route.start
    said = [f"M{_number(x)},{_number(y)}"]
    for first, second, end in route.curves:
        if first[1] == second[1] == end[1] == y:
            said.append(f"H{_number(end[0])}")
        else:
            said.append("C" + " ".join(f"{_number(px)},{_number(py)}" for px, py in (first, second, end)))
        x, y = end
    return "".join(said)


def _arrow(route: Route) -> str:
    """The head of a line: it points from the last control point to the end."""
    (x, y), (fx, fy) = route.end, _before(route)
    along_x, along_y = ((x > fx) - (x < fx), 0) if abs(x - fx) >= abs(y - fy) else (0, (y > fy) - (y < fy))
    back = (x - 8 * along_x, y - 8 * along_y)
    wide = 4
    points: list[Point] = [
        (x, y),
        (back[0] - wide * along_y, back[1] - wide * along_x),
        (back[0] + wide * along_y, back[1] + wide * along_x),
    ]
    return "M" + "L".join(f"{_number(px)},{_number(py)}" for px, py in points) + "Z"


def _before(route: Route) -> Point:
    return next((point for point in reversed(route.curves[-1][:2]) if point != route.end), route.start)


def _text(x: float, y: float, classes: str, text: str, beside: str = "", *, anchor: str = "") -> str:
    anchored = f' text-anchor="{anchor}"' if anchor else ""
    place = f'x="{_number(x)}" y="{_number(y)}"{anchored}'
    return f'<text class="fs-text {classes}" {place}>{escape(text)}{beside}</text>'


def _tooltip(text: str) -> str:
    return f"<title>{escape(_plain(text))}</title>"


def _plain(text: str) -> str:
    """The text without what XML cannot hold."""
    return "".join(each if _is_xml(each) else "\ufffd" for each in text)


def _is_xml(character: str) -> bool:
    code = ord(character)
    return code in (0x9, 0xA, 0xD) or 0x20 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or code > 0xFFFF


def _counted(things: Sized, word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
