"""YAML text to a tree of values that keep their line and column.

A small, boring part of YAML 1.2: maps, lists, text, decimal numbers, ``true`` and ``false``. No dates, no hexadecimal
or octal look-alikes, no underscores or exponents in numbers, no tags, no merge keys, no directives, one document.
Aliases are followed; size, depth and expansion are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from flowstream.graph.diagnostics import Findings, Span

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 100_000

_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,17})", re.ASCII)
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d{0,17})\.\d{1,18}", re.ASCII)
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_SHELL = re.compile(r"\$\{([\w:-]+)\}?")
_NULLS = {"", "~", "null", "Null", "NULL"}


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """A single value. ``text`` is what the file says, ``value`` what it means.

    ``secret`` is set when it came from the environment: then only ``text`` may be shown. ``loose`` text came from
    outside the file (environment, command line), where numbers have no quotes to tell them from text. ``origin`` is
    where a variable's value stands. A ``broken`` value has been reported and is to be passed over. ``template``, where
    it is set, is what to write in a file to get the value again without the variables that it was made of.
    """

    span: Span
    value: str | int | float | bool | None
    text: str
    plain: bool = True
    secret: bool = False
    loose: bool = False
    broken: bool = False
    origin: Span | None = None
    template: str | None = None

    weight = 1


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A key of a map with its value."""

    key: Scalar
    value: Value


@dataclass(slots=True, eq=False)
class Map:
    """Keys in the order of the file; ``is_damaged`` when some were left out because they make no sense."""

    span: Span
    entries: dict[str, Entry] = field(default_factory=dict)
    weight: int = 1
    is_damaged: bool = False

    def get(self, key: str) -> Value | None:
        """The value of a key, when it is there."""
        entry = self.entries.get(key)
        return entry.value if entry else None


@dataclass(slots=True, eq=False)
class List:
    """Values in order."""

    span: Span
    items: list[Value] = field(default_factory=list)
    weight: int = 1


Value = Scalar | Map | List


def spoken(value: Value) -> str:
    """What kind of thing a value is, to people."""
    match value:
        case Map():
            return "a map"
        case List():
            return "a list"
        case Scalar(value=None):
            return "nothing"
        case Scalar(value=bool()):
            return "true or false"
        case Scalar(value=int() | float()):
            return "a number"
        case Scalar():
            return "text"


def plain_value(text: str) -> str | int | float | bool | None:
    """What unquoted text means."""
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text in _NULLS:
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    return text


def weight_of(tree: Map) -> int:
    """How many values a tree has, aliases written out."""
    return 1 + sum(1 + entry.value.weight for entry in tree.entries.values())


def with_value(scalar: Scalar, value: str | int | float | bool | None, **changes: Any) -> Scalar:
    """The same place in the file with another value."""
    return replace(scalar, value=value, **changes)


class _Refused(Exception):  # noqa: N818 - ends the reading of a file whose finding is already recorded
    pass


def load(file: str, content: bytes, findings: Findings, most: int = MAX_VALUES) -> Value | None:
    """The tree of a file's content; None when it has none or could not be read, which is then among the findings.

    ``most`` is how many values it may have.
    """
    top = Span(file, 1, 1)
    if len(content) > MAX_BYTES:
        findings.add("FS103", top, f"{file} has {len(content):,} bytes; a graph file has at most {MAX_BYTES:,}")
        return None
    if b"\0" in content:
        findings.add("FS102", top, f"{file} is not text, so it is no graph", "a graph is a YAML file")
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        findings.source(file, content.decode("utf-8", "replace"))
        at = Span(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        findings.add("FS102", at, f"byte 0x{content[error.start]:02X} is not UTF-8", "save the file as UTF-8")
        return None
    findings.source(file, text)
    try:
        return _Reader(file, text, findings, most).read()
    except _Refused:
        return None


class _Reader:
    """Builds the tree from parser events; stops at the first thing that makes the rest unreadable."""

    def __init__(self, file: str, text: str, findings: Findings, most: int) -> None:
        self.file = file
        self.most = most
        self.text = text
        self.findings = findings
        self.anchors: dict[str, Value] = {}
        self.weight = 0
        self.events = self._events()

    def read(self) -> Value | None:
        from ruamel.yaml import events as ev

        root: Value | None = None
        documents = 0
        for event in self.events:
            if isinstance(event, ev.DocumentStartEvent):
                documents += 1
                if event.version or event.tags:
                    self._refuse(
                        "FS108", self._at(event), "directives (lines that begin with %) are not used in graphs"
                    )
                if documents > 1:
                    self._refuse("FS108", self._at(event), "a second document begins here; a file is one graph")
            elif isinstance(event, ev.NodeEvent):
                root = self._value(event, 0)
        return root

    def _events(self) -> Iterator[Any]:
        from ruamel.yaml import YAML

        yaml = YAML(typ="safe", pure=True)
        try:
            yield from yaml.parse(self.text)
        except Exception as error:  # noqa: BLE001 - the parser has no common base for what it raises on odd input
            self._syntax(error)

    def _at(self, event: Any, length: int = 0) -> Span:
        mark, end = event.start_mark, event.end_mark
        if not length:
            length = end.column - mark.column if end.line == mark.line else 1
        return Span(self.file, mark.line + 1, mark.column + 1, max(1, length))

    def _refuse(self, code: str, span: Span, message: str, hint: str | None = None) -> NoReturn:
        self.findings.add(code, span, message, hint)
        raise _Refused

    def _count(self, weight: int, span: Span) -> None:
        self.weight += weight
        if self.weight > self.most:
            whose = "the file has" if self.most == MAX_VALUES else "the files of the graph have together"
            self._refuse("FS109", span, f"{whose} more than {MAX_VALUES:,} values, aliases written out")

    def _value(self, event: Any, depth: int) -> Value:
        from ruamel.yaml import events as ev

        span = self._at(event)
        if isinstance(event, ev.AliasEvent):
            found = self.anchors.get(event.anchor)
            if found is None:
                self._refuse("FS104", span, f"*{event.anchor} stands for nothing: no &{event.anchor} ends before it")
            self._count(found.weight, span)
            return found
        self._count(1, span)
        if depth > MAX_DEPTH:
            self._refuse("FS109", span, f"this is nested more than {MAX_DEPTH} levels deep")
        if getattr(event, "tag", None) is not None:
            tag = event.tag
            self._refuse(
                "FS108", span, f"{tag} is a tag; graphs use none", f"quote the text if it begins with {tag[0]}"
            )
        value: Value
        if isinstance(event, ev.ScalarEvent):
            plain = not event.style
            value = Scalar(span, plain_value(event.value) if plain else event.value, event.value, plain)
        elif isinstance(event, ev.MappingStartEvent):
            value = self._map(Span(*span[:3]), bool(event.flow_style), depth)
        else:
            value = List(Span(*span[:3]))
            while not isinstance(item := next(self.events), ev.SequenceEndEvent):
                child = self._value(item, depth + 1)
                value.items.append(child)
                value.weight += child.weight
        if event.anchor is not None:
            self.anchors[event.anchor] = value
        return value

    def _map(self, span: Span, flow: bool, depth: int) -> Map:
        from ruamel.yaml import events as ev

        result = Map(span)
        while not isinstance(event := next(self.events), ev.MappingEndEvent):
            key = self._value(event, depth + 1)
            value = self._value(next(self.events), depth + 1)
            result.weight += key.weight + value.weight
            if isinstance(key, Scalar) and key.plain and key.text == "<<":
                self._refuse("FS108", key.span, "<< merges maps in other YAML files; graphs do not use it")
            if not isinstance(key, Scalar) or not isinstance(key.value, str):
                said = f"{key.text or 'an empty key'}" if isinstance(key, Scalar) else spoken(key)
                hint = (
                    f'write "{key.text}" in quotes if it is meant as a word'
                    if said and isinstance(key, Scalar)
                    else None
                )
                self.findings.add("FS107", key.span, f"{said} is no key; keys are text", hint)
                result.is_damaged = True
                continue
            if flow and key.plain and isinstance(value, Scalar) and value.plain and value.text == "":
                self._no_value(key)
                result.is_damaged = True
                continue
            if key.value in result.entries:
                first = result.entries[key.value].key.span
                self.findings.add(
                    "FS106", key.span, f"{key.value} stands here a second time", "keep one of them",
                    [(first, "the first one")],
                )  # fmt: skip
                continue
            result.entries[key.value] = Entry(key, value)
        return result

    def _no_value(self, key: Scalar) -> None:
        name, colon, rest = key.text.partition(":")
        if colon and rest:
            hint = f"write a space after the colon: {name}: {rest}"
        elif " " in key.text:
            hint = "the comma before it ends the text; put text with a comma in quotes"
        else:
            hint = f"write {key.text}: VALUE, or leave it out"
        self.findings.add("FS110", key.span, f"{key.text} is a key without a value", hint)

    def _syntax(self, error: Exception) -> None:
        problem = str(getattr(error, "problem", None) or "")
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        if mark is None:
            position = getattr(error, "position", None)
            where = self._position(position) if isinstance(position, int) else Span(self.file, 1, 1)
            self._refuse("FS104", where, "the file cannot be read as YAML here")
        span = Span(self.file, mark.line + 1, mark.column + 1)
        context = str(getattr(error, "context", None) or "")
        opened = getattr(error, "context_mark", None)
        line = self.findings.line(span)
        if (shell := _SHELL.search(line)) and shell.start() < span.column:
            at = Span(self.file, span.line, shell.start() + 1, len(shell[0]))
            self._refuse("FS123", at, f"{shell[0]} is not how values are put in here", f"write $({shell[1]})")
        character = problem.removeprefix("found character ")[1:2] if problem.startswith("found character") else ""
        if "\\t" in problem or ("\t" in line[: span.column] and not line[: span.column].strip()):
            self._refuse("FS105", span, "a tab stands where spaces indent", "replace it with spaces")
        if "mapping values are not allowed" in problem:
            message, hint = (
                "a second ': ' on this line, or a line indented too far",
                'put text that holds ": " in quotes',
            )
        elif character:
            message, hint = f"text cannot begin with {character} here", f"put it in quotes: '{character}...'"
        elif "quoted scalar" in context:
            message, hint = "the quote that opens here is never closed", "close it with the same quote"
            span = Span(self.file, opened.line + 1, opened.column + 1) if opened else span
        elif "flow mapping" in context or "flow sequence" in context:
            bracket = "{" if "mapping" in context else "["
            line_number = opened.line + 1 if opened else span.line
            message = f"the {bracket} of line {line_number} is not closed before this, or a comma is missing"
            hint = "close it, or put text with brackets, commas or colons in quotes"
        elif "could not find expected ':'" in problem:
            message, hint = "this line is neither `key: value` nor part of the line before", "write a colon and a space"
        elif "block mapping" in context or "block collection" in context:
            message, hint = "this does not continue the map that it stands in", (
                "align it with the keys above, or put text with brackets or quotes in quotes as a whole"
            )  # fmt: skip
        else:
            message, hint = "the file cannot be read as YAML here", None
        self._refuse("FS104", span, message, hint)

    def _position(self, position: int) -> Span:
        before = self.text[:position]
        return Span(self.file, before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)
