"""``vars:`` and substitution: ``$(name)``, ``$(env:NAME)``, ``$(date)``, ``$(time)``; ``$$`` is a dollar sign.

On single values only, after the file is parsed. A value that is nothing but ``$(name)`` keeps the variable's kind; in
the midst of text it becomes text. What comes from the environment is secret from then on, whatever it passes through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from flowstream.graph.diagnostics import Findings, Span, did_you_mean
from flowstream.graph.load import Entry, List, Map, Scalar, Value, spoken, with_value

_FORM = re.compile(r"\$(?:\$|\(([^()\n]*)\)|\{[^}\n]*\}?|\()")
_NAME = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII)
_MAX_TEXT = 64 * 1024  # characters that a substituted value may grow to
_MAX_DEPTH = 32
_BUILT_IN = ("date", "time")


class Variables:
    """The variables of one graph, resolved on first use."""

    def __init__(
        self, findings: Findings, environ: Mapping[str, str], wallclock: datetime, sets: Mapping[str, str]
    ) -> None:
        self._findings = findings
        self._environ = environ
        self._sets = sets
        self._given: dict[str, Entry] = {}
        self._resolved: dict[str, Scalar] = {}
        self._resolving: list[str] = []
        self._used: set[str] = set()
        self._built_in = {"date": wallclock.strftime("%Y-%m-%d"), "time": wallclock.strftime("%H-%M-%S")}

    def declare(self, block: Map) -> None:
        """Takes the entries of a ``vars:`` map: ``name: value`` or ``name: {default: value, description: text}``."""
        for name, entry in block.entries.items():
            if not _NAME.fullmatch(name):
                self._findings.add("FS126", entry.key.span, f"{name!r} cannot be the name of a variable",
                                   "use lower case letters, digits, - and _, a letter first")  # fmt: skip
                continue
            if name in _BUILT_IN:
                self._findings.add("FS126", entry.key.span, f"$({name}) is already the {name} at which the run began",
                                   "choose another name")  # fmt: skip
                continue
            value = self._default(name, entry)
            if value is not None:
                self._given[name] = Entry(entry.key, value)

    def _default(self, name: str, entry: Entry) -> Scalar | None:
        value: Value = entry.value
        if isinstance(value, Map):
            for key, option in value.entries.items():
                if key == "type":
                    self._findings.add("FS113", option.key.span, "typed variables are not supported yet",
                                       "leave type: out; the settings that use the variable check it")  # fmt: skip
                elif key == "description":
                    if not isinstance(option.value, Scalar) or not isinstance(option.value.value, str):
                        self._findings.add("FS111", option.value.span,
                                           f"description takes text, not {spoken(option.value)}")  # fmt: skip
                elif key != "default":
                    close = did_you_mean(key, ("default", "description"))
                    self._findings.add("FS112", option.key.span, f"a variable has no {key}; it has default and "
                                       "description", f"did you mean {close}?" if close else None)  # fmt: skip
            found = value.get("default")
            if found is None:
                if name in self._sets:
                    return Scalar(entry.key.span, None, "")
                self._findings.add("FS120", entry.key.span, f"{name} has no default and was not given",
                                   f"write default: VALUE, or run with --set {name}=VALUE")  # fmt: skip
                return Scalar(entry.key.span, None, "", broken=True)
            value = found
        if not isinstance(value, Scalar):
            self._findings.add("FS111", value.span, f"a variable is a single value, not {spoken(value)}")
            return Scalar(entry.key.span, None, "", broken=True)
        if value.value is None:
            self._findings.add("FS115", entry.key.span, f"variable {name} has no value", f"write {name}: VALUE")
            return with_value(value, None, broken=True)
        return value

    def check_sets(self) -> None:
        """Reports what was set but does not exist."""
        for name in self._sets:
            if name not in self._given:
                close = did_you_mean(name, self._given)
                self._findings.add("FS125", None, f"--set {name}: the graph has no variable {name}",
                                   f"did you mean {close}?" if close else "declare it under vars:")  # fmt: skip

    def check_use(self) -> None:
        """Warns of what exists but is not used."""
        for name, entry in self._given.items():
            if name not in self._used:
                self._findings.add("FS124", entry.key.span, f"no value uses $({name})", "use it, or take it out")

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
            )  # fmt: skip
        parts: list[str] = []
        secret = broken = False
        end = length = 0
        for match in _FORM.finditer(text):
            parts.append(text[end : match.start()])
            end = match.end()
            if match[0] == "$$":
                parts.append("$")
                continue
            found = self._form(match, self._within(scalar, match))
            if found is None or found.broken:
                broken = True
                continue
            secret |= found.secret
            parts.append(found.text if not found.secret and not found.loose else str(found.value))
            length += len(parts[-1])
            if length > _MAX_TEXT:
                self._findings.add(
                    "FS109", scalar.span, f"substitution makes this longer than {_MAX_TEXT:,} characters"
                )
                return with_value(scalar, None, broken=True)
        parts.append(text[end:])
        joined = "".join(parts)
        shown = scalar.text if secret else joined
        return with_value(scalar, None if broken else joined, text=shown, secret=secret, broken=broken, plain=False)

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
            return Scalar(span, value, f"$({name})", plain=False, secret=True, loose=True)
        if name in self._built_in:
            return Scalar(span, self._built_in[name], self._built_in[name], plain=False)
        if not _NAME.fullmatch(name):
            hint = "write $(name), $(env:NAME), $(date) or $(time); $$( for these very characters"
            if re.fullmatch(r"[A-Z][A-Z0-9_]*", name, re.ASCII):
                hint = f"write $(env:{name}) for what the environment holds"
            self._findings.add("FS123", span, f"$({name}) names no variable", hint)
            return None
        if name not in self._given:
            close = did_you_mean(name, self._given) or did_you_mean(name, _BUILT_IN, 0.8)
            hint = f"did you mean $({close})?" if close else f"declare it: vars: {{{name}: VALUE}}"
            self._findings.add("FS120", span, f"there is no variable {name}", hint)
            return None
        self._used.add(name)
        return self._variable(name, span)

    def _variable(self, name: str, span: Span) -> Scalar | None:
        if name in self._resolved:
            return self._resolved[name]
        entry = self._given[name]
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
            value: Scalar = Scalar(entry.key.span, self._sets[name], self._sets[name], plain=False, loose=True)
        else:
            assert isinstance(entry.value, Scalar)
            value = self._scalar(entry.value)
        self._resolving.pop()
        self._resolved[name] = with_value(value, value.value, origin=value.span)
        return self._resolved[name]
