"""A node's settings against its own Config: values with places in, a validated Config or findings out.

Every sentence here is ours: what was given, what is allowed, in which unit. A value that came from the environment is
named as the file names it and never shown.
"""

from __future__ import annotations

import enum
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, PlainSerializer, ValidationError
from pydantic.fields import FieldInfo

from flowstream.graph.diagnostics import Findings, Span, listed
from flowstream.graph.load import List, Map, Scalar, Value, plain_value, spoken
from flowstream.graph.spec import NodeSpec, shown
from flowstream.node.base import Node
from flowstream.node.config import Config, unit_of

_NUMBERS = {
    "int_type": "a whole number", "int_from_float": "a whole number", "int_parsing": "a whole number",
    "float_type": "a number", "float_parsing": "a number", "int_parsing_size": "a smaller whole number",
}  # fmt: skip
_SHAPES = {
    "bool_type": "true or false", "bool_parsing": "true or false", "string_type": "text", "list_type": "a list",
    "tuple_type": "a list", "set_type": "a list", "frozen_set_type": "a list", "dict_type": "a map",
    "model_type": "a map", "model_attributes_type": "a map", "mapping_type": "a map",
}  # fmt: skip
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}
_LENGTHS = {"string_too_short", "string_too_long", "too_short", "too_long"}


@dataclass(frozen=True, slots=True)
class Settled:
    """The Config of a node. Paths are dotted: ``viewers.max``.

    ``secrets`` are the places that hold secrets, with what is written there; ``read_as`` those where text from outside
    the file was read as a number or a switch.
    """

    config: Config
    secrets: Mapping[str, str]
    read_as: frozenset[str]


def validate(node: NodeSpec, node_type: type[Node[Any]], findings: Findings) -> Settled | None:
    """The Config of a node; None when something does not fit, which is among the findings then."""
    findings.about = node.id
    checker = _Settings(node, node_type, findings)
    config = checker.config()
    if config is None:
        return None
    return Settled(config, checker.written, frozenset(".".join(map(str, path)) for path in checker.read_as))


class _Settings:
    def __init__(self, node: NodeSpec, node_type: type[Node[Any]], findings: Findings) -> None:
        self.node = node
        self.node_type = node_type
        self.model: type[BaseModel] = node_type.config_class
        self.findings = findings
        self.written: dict[str, str] = {}
        self.broken: set[tuple[str | int, ...]] = set()
        self.read_as: dict[tuple[str | int, ...], Any] = {}

    def config(self) -> Config | None:
        found = self._validated()
        if isinstance(found, list) and self._reread(found):
            found = self._validated()
        if isinstance(found, list):
            self._report(found)
            return None
        return None if self.broken else found

    def _validated(self) -> Config | list[Any]:
        """The Config, or pydantic's errors.

        Numbers in a file need their unit; the defaults of a Config do not, and are validated in the same pass.
        """
        data = json.dumps(self._plain(self.node.settings, ()))
        model = self.node_type.config_class
        try:
            return model.model_validate_json(data, context={"file": True})
        except ValidationError as error:
            found = [each for each in error.errors(include_url=False) if not self._is_of_default(each)]
            if found:
                return found
        try:
            return model.model_validate_json(data)
        except ValidationError as error:
            return list(error.errors(include_url=False))

    def _is_of_default(self, error: Any) -> bool:
        """Whether an error is about a field that the file does not give."""
        value: Value = self.node.settings
        model: type[BaseModel] | None = self.model
        if error["type"] == "missing":
            return False
        for step in error["loc"]:
            if isinstance(value, Map) and isinstance(step, str) and model and step in model.model_fields:
                if step not in value.entries:
                    return True
                model = next(_models(model.model_fields[step].annotation), None)
            if isinstance(value, Map) and isinstance(step, str) and step in value.entries:
                value = value.entries[step].value
            elif isinstance(value, List) and isinstance(step, int) and step < len(value.items):
                value = value.items[step]
        return False

    def _plain(self, value: Value, path: tuple[str | int, ...]) -> Any:
        """Plain data for the model. Left out: what was reported before, and what is empty, which is reported here."""
        if isinstance(value, Map):
            data = {}
            for key, entry in value.entries.items():
                here = (*path, key)
                if isinstance(entry.value, Scalar) and not self._is_usable(entry.value, here, entry.key.span):
                    continue
                data[key] = self._plain(entry.value, here)
            return data
        if isinstance(value, List):
            for index, item in enumerate(value.items):
                if isinstance(item, Scalar) and not self._is_usable(item, (*path, index), item.span):
                    self.broken.add(path)
            return [self._plain(item, (*path, index)) for index, item in enumerate(value.items)]
        if value.secret:
            self.written[".".join(map(str, path))] = value.text
        return self.read_as.get(path, value.value)

    def _is_usable(self, value: Scalar, path: tuple[str | int, ...], span: Span) -> bool:
        if value.broken:
            self.broken.add(path)
            return False
        if value.value is None:
            self.broken.add(path)
            line = self.findings.line(span)
            key = str(path[-1])
            after = line[span.column + span.length - 1 :].partition("#")
            hint = (
                f"leave {key} out for its default, or give it a value" if isinstance(path[-1], str) else "take it out"
            )
            if after[1] and not after[0].strip(" :"):
                hint = f"what follows # is a comment; if it is the value, quote it: {key}: '#{after[2].strip()[:40]}'"
            self.findings.add("FS115", span, f"{self._name(path)} of {self.node.id} has no value", hint)
            return False
        return True

    def _reread(self, errors: list[Any]) -> bool:
        """Reads text from outside the file as the number or switch that the model wants there, and other ways round."""
        changed = False
        for each in errors:
            path, value = self._at(each["loc"])
            if not isinstance(value, Scalar) or path in self.read_as:
                continue
            kind = each["type"]
            if value.loose and isinstance(value.value, str) and (kind in _NUMBERS or kind == "bool_type"):
                read = plain_value(value.value)
                if isinstance(read, int | float):
                    self.read_as[path] = read
                    changed = True
        return changed

    def _at(self, loc: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], Value]:
        """The value that a pydantic location is about, and its path; names of union members are passed over."""
        value: Value = self.node.settings
        path: tuple[str | int, ...] = ()
        for step in loc:
            if isinstance(value, Map) and isinstance(step, str) and step in value.entries:
                value = value.entries[step].value
            elif isinstance(value, List) and isinstance(step, int) and step < len(value.items):
                value = value.items[step]
            else:
                continue
            path = (*path, step)
        return path, value

    def _report(self, errors: list[Any]) -> None:
        by_path: dict[tuple[tuple[str | int, ...], str], list[tuple[Any, Value]]] = {}
        for each in errors:
            loc = tuple(each["loc"])
            path, value = self._at(loc)
            if each["type"] == "missing":
                path = (*path, loc[-1])
                key = (path, "missing")
            else:
                key = (path, "extra" if each["type"] == "extra_forbidden" else "value")
            if any(path[: len(b)] == b or b[: len(path)] == path for b in self.broken):
                continue
            by_path.setdefault(key, []).append((each, value))
        values = {path for path, kind in by_path if kind == "value"}
        for (path, kind), group in by_path.items():
            if kind == "missing":
                holder = group[0][1]
                if not (isinstance(holder, Map) and holder.is_damaged):
                    self._missing(path, holder)
            elif kind == "extra":
                if not self._is_other_shape(path, values):
                    self._unknown(path)
            else:
                self._bad(path, [each for each, _ in group], group[0][1])

    @staticmethod
    def _is_other_shape(path: tuple[str | int, ...], values: set[tuple[str | int, ...]]) -> bool:
        """Whether an unknown key is only so for one member of a union that does not fit as a whole."""
        return any(path[: len(each)] == each for each in values if each)

    def _name(self, path: tuple[str | int, ...]) -> str:
        text = ""
        for step in path:
            text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
        return text

    def _field(self, path: tuple[str | int, ...]) -> FieldInfo | None:
        """The declaration of the field that a path leads to, through nested models, lists and unions."""
        model: type[BaseModel] | None = self.model
        info: FieldInfo | None = None
        for step in path:
            if isinstance(step, int):
                continue
            info = model.model_fields.get(step) if model else None
            model = next(_models(info.annotation), None) if info else None
        return info

    def _missing(self, path: tuple[str | int, ...], holder: Value) -> None:
        info = self._field(path)
        span = self.node.span if len(path) == 1 else holder.span
        sample = f"{path[-1]}: {_sample(info)}"
        about = f" ({_lowered(info.description)})" if info and info.description else ""
        self.findings.add(
            "FS207", span, f"{self.node.id} needs {self._name(path)}{about}", f"for example {sample}",
        )  # fmt: skip

    def _unknown(self, path: tuple[str | int, ...]) -> None:
        model: type[BaseModel] | None = self.model
        if len(path) > 1:
            info = self._field(path[:-1])
            model = next(_models(info.annotation), None) if info else None
        holder = self._at(path[:-1])[1]
        key = holder.entries[str(path[-1])].key if isinstance(holder, Map) else None
        span = key.span if key else holder.span
        known = list(model.model_fields) if model else []
        what = self.node_type.type_id if len(path) == 1 else self._name(path[:-1])
        close = self.findings.guess(str(path[-1]), known)
        if len(path) == 1 and path[-1] in self.node_type.inputs:
            hint = f"{path[-1]} is an input: write inputs: {{{path[-1]}: NODE}}"
        elif path[-1] in ("overflow", "limit", "output") and close is None:
            hint = f"{path[-1]} stands with an edge: from: {{output: NODE, {path[-1]}: ...}}"
        elif close:
            hint = f"did you mean {close}?"
        else:
            hint = f"it has {listed(known)}" if known else f"{what} has no settings"
        self.findings.add("FS206", span, f"{what} has no setting {path[-1]}", hint)

    def _bad(self, path: tuple[str | int, ...], errors: list[Any], value: Value) -> None:
        info = self._field(path)
        span = value.span if path else self.node.span
        name = self._name(path)
        related = []
        if isinstance(value, Scalar) and value.origin is not None:
            is_set = value.loose and not value.secret
            related.append((value.origin, "--set gives this another value" if is_set else "the value comes from here"))
        if not path:
            for each in errors:
                self.findings.add("FS208", span, f"{self.node.id}: {_said(each)}")
            return
        if isinstance(value, Scalar) and value.secret:
            about = f" ({_lowered(info.description)})" if info and info.description else ""
            self.findings.add(
                "FS208", span, f"what {value.text} holds does not fit {name}{about}; it takes "
                f"{self._takes(errors, info)}", None, related,
            )  # fmt: skip
            return
        own = [each for each in errors if each["type"] in ("value_error", "assertion_error")]
        if len(own) == len(errors) == 1:
            message = f"{name}: {_said(own[0])}"
        else:
            given = shown(value) if isinstance(value, Scalar) else spoken(value)
            if errors[0]["type"] in _LENGTHS:
                given = f"{len(value.items)}" if isinstance(value, List) else f"{len(str(value.text))}"  # type: ignore[union-attr]
            message = f"{name} takes {self._takes(errors, info)}, not {given}"
        self.findings.add("FS208", span, message, self._hint(path, errors, value), related)

    def _hint(self, path: tuple[str | int, ...], errors: list[Any], value: Value) -> str | None:
        kinds = {each["type"] for each in errors}
        own = [each for each in errors if each["type"] == "value_error"]
        if len(own) == 1 and len(errors) > 1:
            return _said(own[0])
        key = path[-1] if isinstance(path[-1], str) else None
        if not isinstance(value, Scalar):
            return None
        if kinds & {"literal_error", "enum"} and isinstance(value.value, str):
            info = self._field(path)
            close = self.findings.guess(value.value, [str(v) for v in _literals(info.annotation)]) if info else None
            return f"did you mean {close}?" if close else None
        if kinds == {"string_type"} and not isinstance(value.value, str):
            return f'put it in quotes: {key}: "{value.text}"' if key else f'put it in quotes: "{value.text}"'
        if kinds & set(_NUMBERS) and isinstance(value.value, str):
            text = value.value
            if unit := re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*[A-Za-z%]+", text, re.ASCII):
                return f"write {unit[1]}, without a unit"
            if not value.plain and isinstance(plain_value(text), int | float):
                return "take the quotes away"
            if re.fullmatch(r"[-+]?(0x[0-9a-fA-F]+|0o?\d+|\d[\d_]*|\d[\d.]*[eE][-+]?\d+)", text):
                return "numbers are written in plain decimals: 1000, 29.97"
        if kinds & {"list_type", "tuple_type"} and key:
            return f"write {key}: [{shown(value)}]"
        if kinds == {"bool_type"} and value.text in ("true", "false"):
            return "take the quotes away"
        if "bool_type" in kinds and str(value.value).lower() in ("on", "yes", "off", "no"):
            return f"write {'true' if str(value.value).lower() in ('on', 'yes') else 'false'}"
        if "model_type" in kinds or "dict_type" in kinds:
            model = next(_models(self._field(path).annotation), None) if self._field(path) else None  # type: ignore[union-attr]
            return f"its keys are {listed(model.model_fields)}" if model and model.model_fields else None
        return None

    def _takes(self, errors: list[Any], info: FieldInfo | None) -> str:
        """What the place takes, joined over the members of a union."""
        parts: list[str] = []
        for each in errors:
            said = self._takes_one(each, info)
            if said not in parts:
                parts.append(said)
        return listed(parts, "or")

    def _takes_one(self, error: Any, info: FieldInfo | None) -> str:
        kind, ctx = error["type"], error.get("ctx") or {}
        unit = f" ({unit})" if info and (unit := unit_of(info)) else ""
        if kind in _NUMBERS:
            bounds = _bounds(info)
            return f"{_NUMBERS[kind]}{f' {bounds}' if bounds else ''}{unit}"
        if kind in _SHAPES:
            return _SHAPES[kind]
        if kind in _BOUNDS:
            return f"{_number(info)} {_bounds(info) or _bound(kind, ctx)}{unit}"
        if kind in ("literal_error", "enum"):
            literals = _literals(info.annotation) if info else ()
            return listed([str(v) for v in literals], "or") if literals else str(ctx.get("expected", "something else"))
        if kind in _LENGTHS:
            return _length(kind, ctx)
        if kind == "string_pattern_mismatch":
            example = info.examples[0] if info and info.examples else None
            return f"text like {example}" if example else f"text of the form {ctx.get('pattern')}"
        if kind in ("value_error", "assertion_error"):
            sample = _sample_of(info.annotation if info else None, info.metadata if info else ())
            return f"a value like {sample}" if sample else "another value"
        return "a value of another kind"


def _said(error: Any) -> str:
    if error["type"] in ("value_error", "assertion_error"):
        cause = (error.get("ctx") or {}).get("error")
        return " ".join(str(cause).split()) if str(cause) else "the value does not fit"
    return "the settings do not fit together"


def _lowered(text: str) -> str:
    text = text.strip().rstrip(".")
    first = text.split(" ", 1)[0]
    return text if first.isupper() and len(first) > 1 else text[:1].lower() + text[1:]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models(argument)


def _literals(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return tuple(member.value for member in annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return tuple(value for argument in typing.get_args(annotation) for value in _literals(argument))
    return ()


def _constraints(info: FieldInfo) -> Iterator[Any]:
    """What a field's declaration, or a member of its union, is annotated with."""
    yield from info.metadata
    for member in typing.get_args(info.annotation):
        for each in getattr(member, "__metadata__", ()):
            yield from each.metadata if isinstance(each, FieldInfo) else (each,)


def _bounds(info: FieldInfo | None) -> str:
    """``above 0, up to 240``: the range that a field declares; a quantity's as it is written, ``from 1% to 50%``."""
    low = high = ""
    said = list(_constraints(info)) if info else []
    write: Any = next((each.func for each in said if isinstance(each, PlainSerializer)), str)
    for each in said:
        if (bound := getattr(each, "gt", None)) is not None:
            low = f"above {write(bound)}"
        elif (bound := getattr(each, "ge", None)) is not None:
            low = f"from {write(bound)}"
        if (bound := getattr(each, "lt", None)) is not None:
            high = f"below {write(bound)}"
        elif (bound := getattr(each, "le", None)) is not None:
            high = f"up to {write(bound)}"
    if low.startswith("from") and high.startswith("up to"):
        return f"{low} to {high.removeprefix('up to ')}"
    return ", ".join(each for each in (low.replace("from", "of at least") if not high else low, high) if each)


def _number(info: FieldInfo | None) -> str:
    """What bounds are of: a number, or a quantity."""
    is_quantity = info is not None and any(isinstance(each, PlainSerializer) for each in _constraints(info))
    return "a value" if is_quantity else "a number"


def _bound(kind: str, ctx: Mapping[str, Any]) -> str:
    words = {"greater_than": ("above", "gt"), "greater_than_equal": ("of at least", "ge"),
             "less_than": ("below", "lt"), "less_than_equal": ("up to", "le")}  # fmt: skip
    word, key = words.get(kind, ("that is finite", ""))
    return f"{word} {ctx.get(key, '')}".strip()


def _length(kind: str, ctx: Mapping[str, Any]) -> str:
    unit = "character" if kind.startswith("string") else "item"
    count = ctx.get("min_length" if kind.endswith("short") else "max_length", 0)
    return f"at {'least' if kind.endswith('short') else 'most'} {count} {unit}{'' if count == 1 else 's'}"


def _sample(info: FieldInfo | None) -> str:
    """A value that would do, as one writes it in YAML."""
    if info is None:
        return "..."
    if info.examples:
        return _written(info.examples[0])
    if sample := _sample_of(info.annotation, info.metadata):
        return sample
    if literals := _literals(info.annotation):
        return _written(literals[0])
    for each in info.metadata:
        for bound in ("ge", "le"):
            if (value := getattr(each, bound, None)) is not None:
                return _written(value)
    return {int: "1", float: "1.0", bool: "true", str: "TEXT"}.get(typing.cast("Any", info.annotation), "...")


def _sample_of(annotation: Any, metadata: Iterable[Any]) -> str:
    """The example that a quantity brings along, also as a member of a union; empty when there is none."""
    for each in metadata:
        schema = getattr(each, "json_schema", None)
        if isinstance(schema, dict) and schema.get("examples"):
            return _written(schema["examples"][0])
    for argument in typing.get_args(annotation):
        if sample := _sample_of(argument, getattr(argument, "__metadata__", ())):
            return sample
    return ""


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
