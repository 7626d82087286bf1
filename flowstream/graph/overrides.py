"""Settings that were given other values while the graph runs: a layer over all files, by NODE.FIELD.

It lies over the whole graph, subgraphs in their places, so that nodes in them can be reached. A file that says
something else at the field than it said when the value was given has been edited there since, and wins.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flowstream.graph.diagnostics import Findings, did_you_mean
from flowstream.graph.layers import is_removal, merge
from flowstream.graph.load import Entry, List, Map, Scalar, Value, load, with_value
from flowstream.graph.plan import Override
from flowstream.graph.spec import GraphSpec, NodeSpec
from flowstream.graph.write import scalar
from flowstream.node.config import RESERVED

SET = "set"
"""What findings call the place where such values stand."""

MAX_OVERRIDES = 200
MAX_TEXT = 4096  # characters of a value

_TARGET = re.compile(r"([a-z][a-z0-9/-]*)\.([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)", re.ASCII)


def parse_target(text: str) -> tuple[str, str]:
    """The node and the field of ``NODE.FIELD``. Raises ValueError with the reason."""
    match = _TARGET.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:80]!r} is not NODE.FIELD, such as encode.bitrate")
    node, field = match.groups()
    first = field.partition(".")[0]
    if first in RESERVED:
        raise ValueError(f"{first} belongs to the graph language and not to the node's settings; change it in the file")
    return node, field


def parse_value(text: str) -> str:
    """What a person wrote for a value, as YAML: as it is where it reads as a value, in quotes elsewhere.

    Raises ValueError with the reason.
    """
    if len(text) > MAX_TEXT:
        raise ValueError(f"a value has at most {MAX_TEXT:,} characters")
    if "$(" in text:
        raise ValueError("values are taken as they are here; $( is put in where it stands in a file")
    stripped = text.strip()
    if stripped and text.isprintable():
        # As the value of a key, since that is how it will stand.
        findings = Findings()
        tree = load(SET, f"value: {stripped}".encode(), findings)
        value = tree.get("value") if isinstance(tree, Map) and len(tree.entries) == 1 else None
        is_whole = not isinstance(value, Scalar) or not value.plain or value.text == stripped
        if value is not None and is_whole and not findings.has_errors:
            return stripped
    return scalar(text, is_flow=True)


def lay(
    spec: GraphSpec, overrides: Sequence[Override], findings: Findings, *, replayed: Collection[str] = ()
) -> tuple[Override, ...]:
    """Puts the values into a whole graph, and gives those that count: without what a file says otherwise by now.

    Nodes and values that there are not are among the findings when they are new; ``replayed`` nodes have no settings.
    """
    if not overrides:
        return ()
    lines = "".join(f"{each.target}: {each.text}\n" for each in overrides)
    tree = load(SET, lines.encode(), findings)
    kept = []
    for each in overrides:
        entry = tree.entries.get(each.target) if isinstance(tree, Map) else None
        if entry is None:
            continue
        node = spec.nodes.get(each.node)
        if node is None or node.type is None:
            if not each.beneath:
                close = did_you_mean(each.node, spec.nodes)
                findings.add("FS301", entry.key.span, f"there is no node {each.node}",
                             f"did you mean {close}?" if close else None)  # fmt: skip
            continue
        if node.id in replayed:
            if not each.beneath:
                findings.add("FS206", entry.key.span, f"{node.id} is replayed, so it has no settings",
                             "set them where the node itself runs")  # fmt: skip
            continue
        there = setting(node, each.path)
        beneath = _digest(node, there)
        if each.beneath and each.beneath != beneath:
            continue
        if there is None and is_removal(entry.value):
            continue  # it is at its default already
        node.settings = merge(node.settings, _nested(each.path, entry.key, _loose(entry.value)), findings)
        kept.append(replace(each, beneath=beneath, written=_shown(there)))
    return tuple(kept)


def revision_of(content: str, overrides: Sequence[Override]) -> str:
    """What tells a graph with values that were given to it from the same files without."""
    if not overrides:
        return content
    said = "\n".join(sorted(f"{each.target}: {each.text}" for each in overrides))
    return hashlib.sha256(f"{content}\n{said}".encode()).hexdigest()[:12]


def setting(node: NodeSpec, path: Iterable[str]) -> Value | None:
    """What the files say at a setting; None when they say nothing."""
    value: Value | None = node.settings
    for step in path:
        value = value.get(step) if isinstance(value, Map) else None
    return value


def _nested(path: Sequence[str], key: Scalar, value: Value) -> Map:
    for step in reversed(path):
        value = Map(key.span, {step: Entry(with_value(key, step, text=step), value)})
    assert isinstance(value, Map)
    return value


def _loose(value: Value) -> Value:
    """Numbers and switches as on a command line, where no quotes tell them from text."""
    if isinstance(value, Scalar) and value.plain and not isinstance(value.value, str) and value.value is not None:
        return with_value(value, value.text, loose=True)
    return value


def _plain(value: Value | None) -> Any:
    match value:
        case Map():
            return {key: _plain(entry.value) for key, entry in value.entries.items()}
        case List():
            return [_plain(item) for item in value.items]
        case Scalar():
            return value.value
    return None


def _digest(node: NodeSpec, value: Value | None) -> str:
    kind = node.type.value if node.type else ""
    return hashlib.sha256(repr((kind, value is None, _plain(value))).encode()).hexdigest()[:12]


def _shown(value: Value | None) -> str:
    match value:
        case None:
            return ""
        case Scalar():
            return value.text if len(value.text) <= 60 else f"{value.text[:57]}..."
    return "a map" if isinstance(value, Map) else "a list"


def to_json(override: Override) -> dict[str, str]:
    """An override as JSON values."""
    return {
        "target": override.target, "value": override.text, "beneath": override.beneath, "file": override.written,
    }  # fmt: skip


def from_json(values: Mapping[str, Any]) -> Override:
    """An override of JSON values. Raises ValueError or KeyError for anything else."""
    node, field = parse_target(str(values["target"]))
    return Override(node, field, str(values["value"]), str(values["beneath"]), str(values["file"]))
