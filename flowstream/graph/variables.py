"""``vars:`` and substitution: ``$(name)``, ``$(env:NAME)``, ``$(date)``, ``$(time)``; ``$$`` is a dollar sign.

On single values only, after the file is parsed. A value that is nothing but ``$(name)`` keeps the variable's kind; in
the midst of text it becomes text. What comes from the environment is secret from then on, whatever it passes through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flowstream.graph.diagnostics import Findings, Span, listed
from flowstream.graph.load import Entry, List, Map, Scalar, Value, plain_value, spoken, with_value
from flowstream.node.config import RESERVED
from flowstream.node.quantities import (
    parse_aspect,
    parse_bitrate,
    parse_bytes,
    parse_duration,
    parse_percentage,
    parse_size,
)

_FORM = re.compile(r"\$(?:\$|\(([^()\n]*)\)|\{[^}\n]*\}?|\()")
_NAME = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII)
_MAX_TEXT = 64 * 1024  # characters that a substituted value may grow to
_MAX_DEPTH = 32
_BUILT_IN = ("date", "time")


@dataclass(frozen=True, slots=True)
class Kind:
    """A type that a variable may have: what it is called in sentences, what reads it, and an example."""

    spoken: str
    example: str
    parse: Callable[[str], Any] | None = None


KINDS: Mapping[str, Kind] = {
    "text": Kind("text", "Desk"),
    "integer": Kind("a whole number", "3"),
    "number": Kind("a number", "29.97"),
    "boolean": Kind("true or false", "true"),
    "bitrate": Kind("a bitrate", "2.5M", parse_bitrate),
    "duration": Kind("a duration", "4s", parse_duration),
    "bytes": Kind("a size in bytes", "64KiB", parse_bytes),
    "size": Kind("a picture size", "1280x720", parse_size),
    "aspect": Kind("a shape", "16:9", parse_aspect),
    "percentage": Kind("a percentage", "50%", parse_percentage),
}
"""What ``type:`` of a variable may say."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a graph gives to the variables of a file that it uses: each as it stands there, and the node that uses it.

    ``name`` is that node's id as it is written, ``span`` its place.
    """

    name: str
    span: Span
    file: str
    given: Mapping[str, Entry]


@dataclass(slots=True)
class _Declared:
    key: Scalar
    value: Scalar
    kind: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is the same for all files of a graph: the environment, and when the run began."""

    environ: Mapping[str, str]
    wallclock: datetime
    built_in: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        said = {"date": self.wallclock.strftime("%Y-%m-%d"), "time": self.wallclock.strftime("%H-%M-%S")}
        object.__setattr__(self, "built_in", said)


class Variables:
    """The variables of one file and its layers, resolved on first use.

    ``sets`` gives some of them other values, from the command line; ``use`` does, from a graph that uses the file.
    Where one that has to be given ``may_lack``, what uses it is passed over.
    """

    def __init__(
        self,
        findings: Findings,
        surroundings: Surroundings,
        *,
        sets: Mapping[str, str] | None = None,
        use: Use | None = None,
        may_lack: bool = False,
    ) -> None:
        self._findings = findings
        self._environ = surroundings.environ
        self._sets = sets or {}
        self._use = use
        self._may_lack = may_lack
        self._given: dict[str, _Declared] = {}
        self._resolved: dict[str, Scalar] = {}
        self._resolving: list[str] = []
        self._used: set[str] = set()
        self._built_in = surroundings.built_in

    def declare(self, block: Map) -> None:
        """Takes the entries of a ``vars:`` map: ``name: value``, or a map of default, description and type."""
        for name, entry in block.entries.items():
            if not _NAME.fullmatch(name):
                self._findings.add("FS126", entry.key.span, f"{name!r} cannot be the name of a variable",
                                   "use lower case letters, digits, - and _, a letter first")  # fmt: skip
                continue
            if name in _BUILT_IN:
                self._findings.add("FS126", entry.key.span, f"$({name}) is already the {name} at which the run began",
                                   "choose another name")  # fmt: skip
                continue
            if self._use is not None and name in RESERVED:
                self._findings.add(
                    "FS127", entry.key.span, f"every node has {name} already, so no graph that uses this file could "
                    "give it", "choose another name for the variable",
                    [(self._use.span, f"{self._use.name} uses it here")],
                )  # fmt: skip
                self._given[name] = _Declared(entry.key, Scalar(entry.key.span, None, "", broken=True))
                continue
            value = self._declared(name, entry)
            if value is not None:
                self._given[name] = value
        self._check_use_of()

    def _check_use_of(self) -> None:
        """What a graph that uses the file gives too much."""
        for name, entry in self._use.given.items() if self._use else ():
            if name not in self._given:
                assert self._use is not None
                close = self._findings.guess(name, self._given)
                known = f"it has {listed(self._given)}" if self._given else "it has none"
                self._findings.add("FS211", entry.key.span, f"{self._use.file} has no variable {name}",
                                   f"did you mean {close}?" if close else known)  # fmt: skip

    def _declared(self, name: str, entry: Entry) -> _Declared | None:
        value: Value = entry.value
        declared = _Declared(entry.key, Scalar(entry.key.span, None, "", broken=True))
        if isinstance(value, Map):
            self._describe(name, value, declared)
            found = value.get("default")
            if found is None:
                self._require(name, declared)
                return declared
            value = found
        if not isinstance(value, Scalar):
            self._findings.add("FS111", value.span, f"a variable is a single value, not {spoken(value)}")
        elif value.value is None:
            self._findings.add("FS115", entry.key.span, f"variable {name} has no value", f"write {name}: VALUE")
        else:
            declared.value = value
        return declared

    def _describe(self, name: str, block: Map, declared: _Declared) -> None:
        for key, option in block.entries.items():
            value = option.value
            text = value.value if isinstance(value, Scalar) else None
            if key == "type":
                if text in KINDS:
                    declared.kind = str(text)
                else:
                    close = self._findings.guess(str(text), KINDS)
                    self._findings.add("FS208", value.span, f"type of variable {name} takes {listed(KINDS, 'or')}, not "
                                       f"{value.text if isinstance(value, Scalar) else spoken(value)}",
                                       f"did you mean {close}?" if close else None)  # fmt: skip
            elif key == "description":
                if not isinstance(text, str):
                    self._findings.add("FS111", value.span, f"description takes text, not {spoken(value)}")
                else:
                    declared.description = text
            elif key != "default":
                known = ("type", "default", "description")
                close = self._findings.guess(key, known)
                self._findings.add("FS112", option.key.span, f"a variable has no {key}; it has {listed(known)}",
                                   f"did you mean {close}?" if close else None)  # fmt: skip

    def _require(self, name: str, declared: _Declared) -> None:
        """A variable without a default has to be given."""
        if name in self._sets or (self._use is not None and name in self._use.given):
            return
        if self._may_lack:
            self._findings.add("FS136", declared.key.span, f"{name} is for the graphs that use this one to give; what "
                               "uses it here is not checked")  # fmt: skip
            return
        said = declared.description.strip().rstrip(".")
        about = f" ({said[:1].lower()}{said[1:]})" if said else ""
        sample = KINDS[declared.kind].example if declared.kind else "VALUE"
        if self._use is not None:
            self._findings.add("FS212", self._use.span, f"{self._use.name} needs {name}{about}",
                               f"for example {name}: {sample}",
                               [(declared.key.span, "it is declared without a default here")])  # fmt: skip
        else:
            self._findings.add("FS120", declared.key.span, f"{name} has no default and was not given",
                               f"write default: {sample}, or run with --set {name}={sample}")  # fmt: skip

    def check_sets(self) -> None:
        """Reports what was set but does not exist."""
        for name in self._sets:
            if name not in self._given:
                close = self._findings.guess(name, self._given)
                self._findings.add("FS125", None, f"--set {name}: the graph has no variable {name}",
                                   f"did you mean {close}?" if close else "declare it under vars:")  # fmt: skip

    def check_types(self) -> None:
        """Holds every typed variable's value against its type, used or not."""
        for name, declared in self._given.items():
            if declared.kind:
                self._variable(name, declared.key.span)

    def check_use(self, files: Iterable[str]) -> None:
        """Warns of what these files declare but nothing uses; what is included may well be meant for others."""
        mine = set(files)
        for name, declared in self._given.items():
            span = declared.key.span
            if name not in self._used and span.file in mine:
                self._findings.add("FS124", span, f"no value uses $({name})", "use it, or take it out")

    def substitute(self, value: Value) -> Value:
        """The value with every substitution in it carried out; the same object when there is none."""
        if isinstance(value, Scalar):
            return self._scalar(value)
        if isinstance(value, List):
            items = [self.substitute(item) for item in value.items]
            return value if all(a is b for a, b in zip(items, value.items, strict=True)) else List(value.span, items)
        entries = {key: Entry(entry.key, self.substitute(entry.value)) for key, entry in value.entries.items()}
        if all(entries[key].value is entry.value for key, entry in value.entries.items()):
            return value
        return Map(value.span, entries, is_damaged=value.is_damaged)

    def _scalar(self, scalar: Scalar) -> Scalar:
        text = scalar.value
        if not isinstance(text, str) or "$" not in text or scalar.broken:
            return scalar
        if len(text) > _MAX_TEXT:
            self._findings.add("FS109", scalar.span, f"text with $ in it has at most {_MAX_TEXT:,} characters")
            return with_value(scalar, None, broken=True)
        whole = _FORM.fullmatch(text)
        if whole and whole[1] is not None:
            found = self._lookup(whole[1], self._within(scalar, whole))
            if found is None:
                return with_value(scalar, None, broken=True)
            return with_value(
                scalar, found.value, secret=found.secret, broken=found.broken, origin=found.origin,
                plain=found.plain, loose=found.loose, text=scalar.text if found.secret else found.text,
                template=found.template,
            )  # fmt: skip
        parts: list[str] = []
        written: list[str] = []
        secret = broken = False
        end = length = 0
        for match in _FORM.finditer(text):
            parts.append(text[end : match.start()])
            written.append(escaped(parts[-1]))
            end = match.end()
            if match[0] == "$$":
                parts.append("$")
                written.append("$$")
                continue
            found = self._form(match, self._within(scalar, match))
            if found is None or found.broken:
                broken = True
                continue
            secret |= found.secret
            parts.append(found.text if not found.secret and not found.loose else str(found.value))
            written.append(escaped(parts[-1]) if found.template is None else found.template)
            length += len(parts[-1])
            if length > _MAX_TEXT:
                self._findings.add(
                    "FS109", scalar.span, f"substitution makes this longer than {_MAX_TEXT:,} characters"
                )
                return with_value(scalar, None, broken=True)
        parts.append(text[end:])
        written.append(escaped(parts[-1]))
        joined = "".join(parts)
        shown = scalar.text if secret else joined
        return with_value(
            scalar, None if broken else joined, text=shown, secret=secret, broken=broken, plain=False,
            template="".join(written),
        )  # fmt: skip

    def _within(self, scalar: Scalar, match: re.Match[str]) -> Span:
        """Where a part of a value stands, when the value stands in the file as it is."""
        span = scalar.span
        line = self._findings.line(span)
        for quote in (0, 1):
            start = span.column - 1 + quote
            if line.startswith(str(scalar.value), start):
                return Span(span.file, span.line, start + match.start() + 1, match.end() - match.start())
        return span

    def _form(self, match: re.Match[str], span: Span) -> Scalar | None:
        form = match[0]
        if match[1] is not None:
            return self._lookup(match[1], span)
        if form.startswith("${"):
            name = form[2:].removesuffix("}")
            name = name if re.fullmatch(r"[\w:-]+", name) else "name"
            close = f"$(env:{name})" if name.isupper() else f"$({name})"
            self._findings.add("FS123", span, f"{form} is not how values are put in here",
                               f"write {close}, or $${form[1:]} for these very characters")  # fmt: skip
        else:
            self._findings.add("FS123", span, "$( is never closed", "write $(name), or $$( for these very characters")
        return None

    def _lookup(self, name: str, span: Span) -> Scalar | None:
        if name.startswith("env:"):
            variable = name[4:]
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable, re.ASCII):
                self._findings.add("FS123", span, f"$({name}) names no environment variable", "write $(env:NAME)")
                return None
            value = self._environ.get(variable)
            if value is None:
                self._findings.add("FS121", span, f"{variable} is not set in the environment",
                                   f"set it before the command: {variable}=... flowstream run ...")  # fmt: skip
                return None
            self._findings.secrets[value] = f"$({name})"
            return Scalar(span, value, f"$({name})", plain=False, secret=True, loose=True, template=f"$({name})")
        if name in self._built_in:
            return Scalar(span, self._built_in[name], self._built_in[name], plain=False, template=f"$({name})")
        if not _NAME.fullmatch(name):
            hint = "write $(name), $(env:NAME), $(date) or $(time); $$( for these very characters"
            if re.fullmatch(r"[A-Z][A-Z0-9_]*", name, re.ASCII):
                hint = f"write $(env:{name}) for what the environment holds"
            self._findings.add("FS123", span, f"$({name}) names no variable", hint)
            return None
        if name not in self._given:
            close = self._findings.guess(name, self._given) or self._findings.guess(name, _BUILT_IN, 0.8)
            hint = f"did you mean $({close})?" if close else f"declare it: vars: {{{name}: VALUE}}"
            self._findings.add("FS120", span, f"there is no variable {name}", hint)
            return None
        self._used.add(name)
        return self._variable(name, span)

    def _variable(self, name: str, span: Span) -> Scalar | None:
        if name in self._resolved:
            return self._resolved[name]
        declared = self._given[name]
        if name in self._resolving:
            loop = [*self._resolving[self._resolving.index(name) :], name]
            self._findings.add("FS122", span, " uses ".join(f"$({each})" for each in loop),
                               "give one of them a value of its own")  # fmt: skip
            return None
        if len(self._resolving) > _MAX_DEPTH:
            self._findings.add("FS109", span, f"variables use one another more than {_MAX_DEPTH} levels deep")
            return None
        self._resolving.append(name)
        if name in self._sets:
            said = self._sets[name]
            template = escaped(said) if "$" in said else None
            value = Scalar(declared.key.span, said, said, plain=False, loose=True, template=template)
        elif self._use is not None and name in self._use.given:
            value = self._parameter(name, self._use.given[name])
        else:
            value = self._scalar(declared.value)
        self._resolving.pop()
        if declared.kind and not value.broken:
            value = self._typed(name, declared, value)
        self._resolved[name] = with_value(value, value.value, origin=value.span)
        return self._resolved[name]

    def _parameter(self, name: str, entry: Entry) -> Scalar:
        """What the graph that uses the file gives; its own variables are put in already."""
        value = entry.value
        if isinstance(value, Scalar) and (value.broken or value.value is not None):
            return value
        assert self._use is not None
        if isinstance(value, Scalar):
            self._findings.add("FS115", entry.key.span, f"{name} of {self._use.name} has no value",
                               f"write {name}: VALUE, or leave it out")  # fmt: skip
        else:
            self._findings.add("FS111", value.span, f"{name} of {self._use.name} is a single value, not "
                               f"{spoken(value)}")  # fmt: skip
        return Scalar(value.span, None, "", broken=True)

    def _typed(self, name: str, declared: _Declared, value: Scalar) -> Scalar:
        """The value as its variable's type reads it; broken, and reported, when it does not fit."""
        kind, found = KINDS[declared.kind], value.value
        if value.loose and isinstance(found, str) and declared.kind in ("integer", "number", "boolean"):
            found = plain_value(found)
        problem = self._misread(kind, found) if kind.parse is not None else _mistaken(declared.kind, found)
        if problem is None:
            return value if found is value.value else with_value(value, found)
        said = value.text if not isinstance(value.value, str) or value.secret else repr(value.text[:60])
        message = f"{name} takes {kind.spoken}, not {said}"
        if problem and not value.secret:
            message = f"{name}: {problem}"
        related = [(declared.key.span, f"{name} is of type {declared.kind}")]
        self._findings.add("FS208", value.span, message, f"for example {name}: {kind.example}",
                           related if declared.key.span.place != value.span.place else [])  # fmt: skip
        return with_value(value, None, broken=True)

    @staticmethod
    def _misread(kind: Kind, found: Any) -> str | None:
        """What is wrong with a quantity, empty when it is not even text; None when nothing is."""
        if not isinstance(found, str):
            is_bare = isinstance(found, int | float) and not isinstance(found, bool)
            return f"{found} has no unit; {kind.example} has one" if is_bare else ""
        assert kind.parse is not None
        try:
            kind.parse(found)
        except ValueError as error:
            return str(error)
        return None


def _mistaken(kind: str, value: Any) -> str | None:
    """None when the value is of a kind that needs no parsing, else empty: there is no more to say."""
    classes = {"text": str, "boolean": bool, "integer": int, "number": int | float}
    is_one = isinstance(value, classes[kind]) and (kind == "boolean" or not isinstance(value, bool))
    return None if is_one else ""


def escaped(text: str) -> str:
    """Text as it is written where ``$`` begins a substitution."""
    return text.replace("$", "$$")
