"""The file of a scripted run of a graph, ``hello.test.yaml``: its words, and its reading, every mistake at its place.

::

    graph: hello.yaml
    clock: virtual
    steps:
      - wait: 2s
      - expect: {node: out, fps: ">= 25", gap: "<= 100ms", drops: 0}
      - save: {replace: {"fps: 30": "fps: 15"}}
      - expect: {reload: applied}
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import PlainValidator, WithJsonSchema, model_validator

from flowstream.errors import GraphError, Place
from flowstream.graph.diagnostics import Findings, Span, did_you_mean, listed
from flowstream.graph.load import List, Map, Scalar, Value, load, spoken
from flowstream.graph.overrides import parse_target
from flowstream.graph.settings import validate
from flowstream.graph.spec import NodeSpec
from flowstream.node.base import Node
from flowstream.node.config import Config, field
from flowstream.node.quantities import Duration, format_duration, parse_duration

M = TypeVar("M", bound=Config)

_COMPARISON = re.compile(r"\s*(>=|<=|==|>|<)?\s*(\S.*?)\s*")
_HOLDS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bound:
    """What a measurement is held against: ``>= 25``, ``<= 100ms``; a bare number must be met exactly."""

    sign: str
    value: float
    text: str

    def holds(self, measured: float) -> bool:
        """Whether a measurement is within it."""
        return _HOLDS[self.sign](measured, self.value)

    def __str__(self) -> str:
        return f"{self.sign} {self.text}" if self.sign != "==" else self.text


def _bound(read: Callable[[str], float], example: str) -> Callable[[Any], Bound]:
    def parse(value: Any) -> Bound:
        if isinstance(value, Bound):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(f"write {example}")
        match = _COMPARISON.fullmatch(str(value))
        try:
            if match is not None:
                return Bound(match[1] or "==", read(match[2]), match[2])
        except ValueError:
            pass
        raise ValueError(f"{value!r} is nothing to compare with; write {example}")

    return parse


def _bound_schema(what: str) -> WithJsonSchema:
    return WithJsonSchema({"type": ["string", "number"], "examples": [what]})


Number = Annotated[Bound, PlainValidator(_bound(float, '">= 25", "< 3" or 0')), _bound_schema(">= 25")]
Time = Annotated[Bound, PlainValidator(_bound(parse_duration, '"<= 100ms"')), _bound_schema("<= 100ms")]


class Head(Config):
    """A test of a graph, but for its steps."""

    graph: str = field(min_length=1, description="The graph to run, as a path from the test's own folder.")
    layers: tuple[str, ...] = field(default=(), description="Files over the graph, lowest first.")
    sets: dict[str, str] = field(default_factory=dict, description="Values for variables of the graph.")
    nodes: tuple[str, ...] = field(default=(), description="Folders with node types.")
    replay: dict[str, str] = field(
        default_factory=dict, description="Recordings in the place of nodes, by the ids of these."
    )
    clock: Literal["real", "virtual"] = field(
        default="real", description="Time of the machine, or time that passes as fast as the graph computes."
    )


class Wait(Config):
    """Lets the graph run."""

    wait: Duration = field(description="How long the graph runs on before the next step.")


class Save(Config):
    """What an editor would do to one of the graph's files; applied at once, the file on disk stays as it is."""

    file: str = field(default="", description="The file that is saved; the graph itself unless given.")
    text: str | None = field(default=None, description="Its new text.")
    copy_of: str | None = field(default=None, description="A file whose text it gets.")
    replace: dict[str, str] | None = field(default=None, description="Pieces of its text and what comes instead.")

    @model_validator(mode="after")
    def _one_way(self) -> Save:
        if sum(each is not None for each in (self.text, self.copy_of, self.replace)) != 1:
            raise ValueError("give one of text, copy_of and replace")
        return self


class Set(Config):
    """New values for settings, by NODE.FIELD, as `flowstream set` gives them; null takes one back."""

    values: dict[str, Any] = field(description="Each NODE.FIELD with its value.")


class Expect(Config):
    """What is to be seen, measured since the expectations before, or since the start."""

    node: str = field(default="", description="The node that it is about; without one, the graph as a whole.")
    fps: Number | None = field(default=None, description="Payloads that it takes (a source: gives) per second.")
    gap: Time | None = field(default=None, description="The longest time without one.")
    count: Number | None = field(default=None, description="The number of them.")
    drops: Number | None = field(default=None, description="The number of losses on its inputs.")
    restarts: Number | None = field(default=None, description="The number of times that it was started again.")
    state: str | None = field(default=None, description="Its state now, such as running, failed, ended.")
    reload: Literal["applied", "refused"] | None = field(
        default=None, description="What became of the last save or set."
    )
    contains: str | None = field(default=None, description="Text in what was said about that.")
    output: str = field(default="", description="An output, as NODE.OUTPUT, whose payloads are compared.")
    equals: str | None = field(
        default=None, description="A recording of that output: all that has come so far is the same, bit for bit."
    )

    @model_validator(mode="after")
    def _has_subject(self) -> Expect:
        measured = [name for name in ("fps", "gap", "count", "drops", "restarts") if getattr(self, name) is not None]
        if measured and not self.node:
            raise ValueError(f"{measured[0]} is measured at a node; add node: NODE")
        if bool(self.output) != (self.equals is not None):
            raise ValueError("output and equals go together: output: encode.packets, equals: good.fsrec")
        if not self.node and not self.output and self.state is None and self.reload is None and self.contains is None:
            raise ValueError("it expects nothing; add for example state: running")
        return self


Step = Wait | Save | Set | Expect
STEPS: Mapping[str, type[Config]] = {"wait": Wait, "save": Save, "set": Set, "expect": Expect}
"""The words of a script."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A step with its place; ``places`` are those of its values."""

    step: Step
    place: Place
    places: Mapping[str, Place]
    texts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GraphTest:
    """A test as read. Paths in ``head`` are from the folder of ``file``."""

    file: str
    head: Head
    steps: tuple[Placed, ...]

    def beside(self, path: str) -> str:
        """A path of the test as the program reads it."""
        return str(PurePath(self.file).parent / path)


def read_test(file: str, content: bytes) -> GraphTest:
    """The test that a file's content describes. Raises GraphError with every finding."""
    findings = Findings()
    tree = load(file, content, findings)
    made = _Reader(findings).test(file, tree) if tree is not None else None
    if made is None or findings.has_errors:
        raise GraphError(findings.sorted(), files=(file,))
    return made


class _Reader:
    def __init__(self, findings: Findings) -> None:
        self.findings = findings

    def test(self, file: str, tree: Value) -> GraphTest | None:
        if not isinstance(tree, Map):
            self.findings.add("FS111", tree.span, f"a test is a map with graph: and steps:, not {spoken(tree)}")
            return None
        written = Map(tree.span, {key: each for key, each in tree.entries.items() if key != "steps"})
        head = self._model("the test", Head, written, tree.span)
        listing = tree.get("steps")
        if not isinstance(listing, List) or not listing.items:
            span = listing.span if listing is not None else tree.span
            self.findings.add("FS111", span, "steps: takes a list of steps", "for example - wait: 2s")
            return None
        steps = [self._step(each) for each in listing.items]
        if head is None or any(each is None for each in steps):
            return None
        return GraphTest(file, head, tuple(each for each in steps if each is not None))

    def _step(self, item: Value) -> Placed | None:
        known = listed(STEPS, "or")
        if not isinstance(item, Map) or len(item.entries) != 1:
            self.findings.add("FS111", item.span, f"a step is a map with one key: {known}", "for example - wait: 2s")
            return None
        ((name, entry),) = item.entries.items()
        span = entry.key.span
        if name not in STEPS:
            close = did_you_mean(name, STEPS)
            self.findings.add("FS112", span, f"there is no step {name}; there are {listed(STEPS)}",
                              f"did you mean {close}?" if close else None)  # fmt: skip
            return None
        value = entry.value
        if name == "wait" and isinstance(value, Scalar):
            value = Map(value.span, {"wait": entry})
        if not isinstance(value, Map):
            self.findings.add("FS111", value.span, f"{name} takes a map, not {spoken(value)}")
            return None
        inner = value
        if name == "set":
            if not self._targets(value):
                return None
            return Placed(Set(values=dict.fromkeys(value.entries)), span.place,
                          {key: each.key.span.place for key, each in value.entries.items()},
                          {key: _text(each.value) for key, each in value.entries.items()})  # fmt: skip
        step = self._model(name, STEPS[name], inner, span)
        if step is None:
            return None
        places = {key: each.value.span.place for key, each in value.entries.items()}
        return Placed(step, span.place, places, {})  # type: ignore[arg-type]

    def _targets(self, value: Map) -> bool:
        if not value.entries:
            self.findings.add("FS111", value.span, "set takes NODE.FIELD: VALUE, at least one of them")
            return False
        for key, entry in value.entries.items():
            try:
                parse_target(key)
            except ValueError as error:
                self.findings.add("FS208", entry.key.span, str(error))
                return False
            if not isinstance(entry.value, Scalar):
                self.findings.add("FS111", entry.value.span, f"{key} takes a single value here")
                return False
        return True

    def _model(self, name: str, model: type[M], written: Map, span: Span) -> M | None:
        shape: type[Node[Any]] = type("Shape", (Node,), {})
        shape.config_class, shape.type_id = model, name
        settled = validate(NodeSpec(name, span, settings=written), shape, self.findings)
        return settled.config if settled is not None else None  # type: ignore[return-value]


def _text(value: Value) -> str:
    assert isinstance(value, Scalar)
    return value.text if value.plain else f'"{value.text}"'


def describe(step: Step, texts: Mapping[str, str]) -> str:
    """A step in a line, as the report shows it."""
    match step:
        case Wait():
            return f"wait {format_duration(step.wait)}"
        case Save():
            return f"save {step.file or 'the graph'}"
        case Set():
            return "set " + ", ".join(f"{target} to {text}" for target, text in texts.items())
        case Expect():
            return f"expect {step.node or step.output or 'the graph'}"


def script_schema() -> dict[str, Any]:
    """The JSON Schema of a test's file, for editors."""
    head = Head.model_json_schema()
    steps = {
        name: {"anyOf": [{"type": "string"}, model.model_json_schema()]} if name == "wait"
        else {"type": "object", "description": "NODE.FIELD: VALUE", "minProperties": 1} if name == "set"
        else model.model_json_schema()
        for name, model in STEPS.items()
    }  # fmt: skip
    step = {
        "type": "object", "properties": steps, "additionalProperties": False, "minProperties": 1, "maxProperties": 1,
    }  # fmt: skip
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "flowstream test",
        **{key: value for key, value in head.items() if key not in ("title",)},
        "properties": {**head["properties"], "steps": {"type": "array", "items": step, "minItems": 1}},
        "required": ["graph", "steps"],
    }
