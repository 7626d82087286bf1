"""Plain values to the text of a graph: YAML as a person writes it, which `load` reads back exactly.

Short nodes and maps stand on one line in braces, long ones key by key; text is in quotes only where it has to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from flowstream.graph.load import plain_value

ORDER = ("flowstream", "include", "vars", "inputs", "outputs", "serve", "log", "placement", "nodes")
WIDTH = 100  # columns up to which something stands on one line

_FIRST = frozenset("$/.(_-+<~")  # what unquoted text may begin with, besides letters and digits
_BRACKETS = frozenset(",[]{}")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


@dataclass(frozen=True, slots=True)
class Written:
    """A number or switch that a file writes in a way of its own, such as ``1.10`` or ``TRUE``; kept as it is."""

    text: str


def text_of(tree: Mapping[str, Any]) -> str:
    """The text of a whole graph: the parts of the language in their order, an empty line between them."""
    rank = {key: index for index, key in enumerate(ORDER)}
    parts = []
    for key in sorted(tree, key=lambda each: rank.get(each, len(rank) - 1.5)):
        value = tree[key]
        if key == "nodes" and isinstance(value, Mapping) and value:
            parts.append("\n".join(["nodes:", *_nodes(value)]))
        elif isinstance(value, Mapping) and value and key in ("vars", "placement"):
            parts.append("\n".join([f"{key}:", *_block(value, 2)]))
        else:
            parts.append("\n".join(_entry(key, value, 0)))
    return "\n\n".join(parts) + "\n"


def _nodes(nodes: Mapping[str, Any]) -> Iterator[str]:
    """The nodes, with an empty line around each that takes several lines."""
    was_long = False
    for index, (id_, node) in enumerate(nodes.items()):
        lines = list(_entry(id_, node, 2))
        is_long = len(lines) > 1
        if index and (is_long or was_long):
            yield ""
        yield from lines
        was_long = is_long


def _entry(key: str, value: Any, indent: int) -> Iterator[str]:
    head = f"{' ' * indent}{scalar(key, is_flow=True)}:"
    if _is_short(value, len(head) + 1):
        yield f"{head} {_flow(value, is_inner=False)}"
        return
    yield head
    yield from _block(value, indent + 2)


def _block(value: Mapping[str, Any] | Sequence[Any], indent: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _entry(key, each, indent)
        return
    for each in value:
        if _is_short(each, indent + 2):
            yield f"{' ' * indent}- {_flow(each, is_inner=False)}"
            continue
        lines = list(_block(each, indent + 2))
        yield f"{' ' * indent}- {lines[0][indent + 2 :]}"
        yield from lines[1:]


def _is_short(value: Any, column: int) -> bool:
    """Whether a value stands on the line of its key: single values always do."""
    if not isinstance(value, Mapping | list) or not value:
        return True
    return _depth(value) <= 2 and column + len(_flow(value, is_inner=False)) <= WIDTH


def _depth(value: Any) -> int:
    """How many braces stand within one another; those of lists count nothing."""
    if isinstance(value, Mapping):
        return 1 + max(map(_depth, value.values()), default=0)
    return max(map(_depth, value), default=0) if isinstance(value, list) else 0


def in_line(value: Any) -> str:
    """A plain value as YAML on one line, which stands within braces and as the value of a key alike."""
    return _flow(value)


def _flow(value: Any, *, is_inner: bool = True) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key, is_flow=True)}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return scalar(value, is_flow=is_inner)


def scalar(value: str | int | float | bool | Written | None, *, is_flow: bool) -> str:
    """A single value as YAML; ``is_flow`` when it stands within braces, where commas and brackets mean something."""
    match value:
        case Written(text):
            return text
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            return decimal(value)
        case int():
            return str(value)
    return value if _can_be_plain(value, is_flow) else _quoted(value)


def decimal(value: float) -> str:
    """A number in plain decimals, as the graph language reads it."""
    text = f"{Decimal(repr(value)):f}"
    return text if "." in text else f"{text}.0"


def _can_be_plain(text: str, is_flow: bool) -> bool:
    if not text or not isinstance(plain_value(text), str) or not text.isprintable() or text != text.strip():
        return False
    if not (text[0].isalnum() or text[0] in _FIRST) or text.startswith(("- ", "---", "...", "<<")) or text == "-":
        return False
    if ": " in text or " #" in text or text.endswith(":"):
        return False
    return not (is_flow and (_BRACKETS & set(text) or text.startswith("-")))


def _quoted(text: str) -> str:
    if text.isprintable() and ('"' in text or "\\" in text):
        return "'" + text.replace("'", "''") + "'"
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
