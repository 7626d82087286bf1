"""Findings about a graph: the catalog of codes, their collection, and how they are shown.

A code never changes its meaning. FS1xx is about the file, FS2xx about nodes and their settings, FS3xx about edges and
the graph as a whole.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from flowstream.errors import Diagnostic, Place, Related

Severity = Literal["error", "warning", "note"]

_GUESSABLE = 4  # characters; hiding shorter parts of a text garbles it and protects nothing
MAX_FINDINGS = 200
_MAX_GUESSES = 500  # words that are looked through for one that was meant
_LINE_WIDTH = 160  # columns of a source line that are shown around the caret


class Span(NamedTuple):
    """A stretch of one line of a file: line and column count from 1."""

    file: str
    line: int
    column: int
    length: int = 1

    @property
    def place(self) -> Place:
        """Where it begins."""
        return Place(self.file, self.line, self.column)


@dataclass(frozen=True, slots=True)
class Kind:
    """One entry of the catalog: what a code means, in a title and a few sentences."""

    title: str
    explanation: str
    severity: Severity = "error"


CATALOG: Mapping[str, Kind] = {
    "FS101": Kind("file not readable", "The graph file is missing or may not be read."),
    "FS102": Kind("not a text file", "A graph is YAML text in UTF-8. This file holds other bytes."),
    "FS103": Kind("file too large", "A graph file has at most 1 MiB."),
    "FS104": Kind(
        "YAML syntax",
        "The file is not well-formed YAML. Text that holds ': ' or ' #', or begins with one of @ % ` & * ! | > [ {, "
        "needs quotes; inside {...} and [...] so does text with a comma.",
    ),
    "FS105": Kind("tab indentation", "YAML indents with spaces; a tab there is an error in every YAML reader."),
    "FS106": Kind("duplicate key", "A key stands once in a map; of two, one would be lost without a word."),
    "FS107": Kind("key is not text", "Keys are words. A number, true, false or a list cannot be one."),
    "FS108": Kind(
        "YAML feature not used here",
        "Graphs keep to a small part of YAML: no tags, no merge keys, no directives, one document.",
    ),
    "FS109": Kind(
        "file too deep or too big",
        "Nesting is limited to 32 levels and the file, with every alias written out, to 100,000 values.",
    ),
    "FS110": Kind(
        "key without value in {...}",
        "Inside {...} a colon needs a space after it, and text with a comma needs quotes.",
    ),
    "FS111": Kind("wrong shape", "Something else is expected at this place: a map, a list, or a single value."),
    "FS112": Kind("unknown key", "This map takes a fixed set of keys; this one is not among them."),
    "FS113": Kind(
        "not supported yet", "The word is reserved by the graph language, and this version does nothing with it."
    ),
    "FS114": Kind("language version", "The file asks for a version of the graph language that is not known here."),
    "FS115": Kind("empty value", "A key without a value means nothing: leave the key out, or give it a value."),
    "FS120": Kind("unset variable", "$(name) stands for an entry of vars:, $(env:NAME) for the environment."),
    "FS121": Kind("environment variable not set", "$(env:NAME) needs NAME in the environment of the command."),
    "FS122": Kind("variables form a loop", "A variable may use others, but not itself through them."),
    "FS123": Kind("substitution not understood", "The form is $(name), $(env:NAME), $(date) or $(time); $$ is a $."),
    "FS124": Kind("unused variable", "Nothing in the graph uses this entry of vars.", "warning"),
    "FS125": Kind("--set names no variable", "--set NAME=VALUE overrides an entry of vars:."),
    "FS126": Kind("variable name", "A variable's name is a lower case word: letters, digits, - and _."),
    "FS127": Kind("name is taken", "The language itself uses this word at this place, or it is no name at all."),
    "FS130": Kind("file not found", "A file that is named here, by include: or use:, is missing or may not be read."),
    "FS131": Kind("files form a loop", "A file cannot include or use itself, nor through others."),
    "FS133": Kind("layer replaces a node", "Another type in an upper layer replaces all of the node.", "note"),
    "FS134": Kind("nothing to take away", "null in a layer takes away what a layer below it has.", "warning"),
    "FS135": Kind(
        "key without effect here", "The key is for the graph that is run, not for one that is used.", "warning"
    ),
    "FS136": Kind(
        "value not known yet", "A graph that is used by others is checked without what they give it.", "note"
    ),
    "FS199": Kind("more findings", "A file with very many findings shows the first 200 of them."),
    "FS201": Kind("node id", "A node's id is a lower case word: letters, digits and hyphens, a letter first."),
    "FS202": Kind("node without a type", "Every node says what it is: type: NAME."),
    "FS203": Kind("unknown node type", "No installed pack has a node type of this name."),
    "FS204": Kind("node pack does not load", "The pack that has this node type failed to load."),
    "FS205": Kind("library not installed", "The node type needs a library that is not installed."),
    "FS206": Kind("unknown setting", "The node type has no setting of this name."),
    "FS207": Kind("missing value", "The node type cannot do without this setting."),
    "FS208": Kind("bad value", "The value is not one that can be used here."),
    "FS209": Kind("from and inputs together", "A node writes its inputs one way: from:, or inputs:."),
    "FS210": Kind("type and use together", "A node is of a type, or stands for the graph of another file."),
    "FS211": Kind("unknown parameter", "What a node gives to the graph that it uses are that file's vars:."),
    "FS212": Kind("missing parameter", "The graph that the node uses cannot do without this value."),
    "FS213": Kind("two nodes of one id", "Ids are unique, those of nodes in subgraphs (GROUP/NODE) included."),
    "FS301": Kind("unknown node", "No node of the graph has this id."),
    "FS302": Kind("unknown output", "The node has no output of this name."),
    "FS303": Kind("unknown input", "The node has no input of this name."),
    "FS304": Kind("ambiguous output", "Several outputs of the node fit; name the one that is meant."),
    "FS305": Kind("payload mismatch", "The output gives something that the input does not take."),
    "FS306": Kind("formats cannot meet", "Output and input carry the same kind of payload in formats that differ."),
    "FS307": Kind("missing input", "The node needs something on this input."),
    "FS308": Kind("two producers on one input", "This input takes one edge."),
    "FS309": Kind("loop", "Media flows in one direction: only feedback inputs may close a loop."),
    "FS310": Kind("node is disabled", "The node that this one takes from has enabled: false."),
    "FS311": Kind("ambiguous input", "from: fits several inputs of the node; inputs: says which is meant."),
    "FS312": Kind("reference not understood", "An output is written NODE or NODE.OUTPUT."),
    "FS313": Kind("renamed from a node that is still there", "was: names the id that a node had before."),
    "FS314": Kind(
        "open input", "The file is a part: graphs that use it give its inputs something, so it does not run alone."
    ),
    "FS315": Kind("placed twice", "A node runs on one worker."),
    "FS316": Kind("placement is not used", "A run on one machine takes no notice of placement:.", "note"),
    "FS320": Kind("option without effect", "The option changes nothing here.", "warning"),
    "FS321": Kind(
        "one consumer can stop the others",
        "An edge with overflow: block stops its producer when it is full, and so every other consumer of it.",
        "warning",
    ),
    "FS322": Kind("output not used", "Nothing takes what this node gives, so it works for nothing.", "warning"),
    "FS323": Kind(
        "coded pictures cut apart",
        "Coded pictures build on one another. Losing any of them spoils those that follow, up to the next keyframe.",
        "warning",
    ),
}


class Findings:
    """Collects diagnostics; the same finding at the same place is kept once.

    ``secrets`` maps what the graph took from the environment to how it names it; no finding tells the former.
    """

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.diagnostics: list[Diagnostic] = []
        self._lines: dict[str, list[str]] = {}
        self._left_out = 0
        self._counts: dict[Severity, int] = {"error": 0, "warning": 0, "note": 0}
        self._seen: set[tuple[str, str, Place | None]] = set()
        self._users: dict[str, tuple[Span, str]] = {}
        self._files_with_errors: set[str] = set()

    def source(self, file: str, text: str) -> None:
        """Keeps a file's text, so that findings show their line."""
        self._lines[file] = text.split("\n")

    def used_by(self, file: str, span: Span, said: str) -> None:
        """Lets every finding in a file name the place that uses it as well; the first one counts."""
        self._users.setdefault(file, (span, said))

    def line(self, span: Span) -> str:
        """The text of a span's line; empty when there is none."""
        lines = self._lines.get(span.file, [])
        return lines[span.line - 1].rstrip("\r") if 0 < span.line <= len(lines) else ""

    def add(
        self,
        code: str,
        span: Span | None,
        message: str,
        hint: str | None = None,
        related: Iterable[tuple[Span, str]] = (),
    ) -> None:
        """Records a finding of the catalog's ``code``."""
        kind = CATALOG[code]
        place = span.place if span else None
        message = self.scrubbed(message)
        key = (code, message, place)
        if key in self._seen:
            return
        self._seen.add(key)
        if kind.severity == "error" and span:
            self._files_with_errors.add(span.file)
        related = list(related)
        if span and (user := self._users.get(span.file)) and all(each.file == span.file for each, _ in related):
            related.append(user)
        self._counts[kind.severity] += 1
        if self._counts[kind.severity] > MAX_FINDINGS:
            self._left_out += 1
            return
        self.diagnostics.append(
            Diagnostic(
                code=code,
                title=kind.title,
                message=printable(message),
                place=place,
                hint=printable(self.scrubbed(hint)) if hint else None,
                severity=kind.severity,
                length=span.length if span else 1,
                related=tuple(
                    Related(each.place, printable(self.scrubbed(said)), self.line(each)) for each, said in related
                ),
                source=self.line(span) if span else "",
            )
        )

    def scrubbed(self, text: str) -> str:
        """A text without what is secret, also where it was cut or quoted."""
        forms = {
            form: name
            for value, name in self.secrets.items()
            for form in (value, repr(value)[1:-1], value[:40], value[:57])
            if len(form) >= _GUESSABLE
        }
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, forms[form])
        return text

    @property
    def has_errors(self) -> bool:
        """Whether anything found keeps the graph from running."""
        return self._counts["error"] > 0

    def has_errors_in(self, file: str) -> bool:
        """Whether something found in this file keeps the graph from running."""
        return file in self._files_with_errors

    def sorted(self) -> tuple[Diagnostic, ...]:
        """All findings in the order of the file; the last one tells how many were left out."""
        found = sorted(self.diagnostics, key=lambda d: (d.place is not None, d.place or Place("", 0, 0), d.code))
        if self._left_out:
            said = f"{self._left_out:,} more finding{'' if self._left_out == 1 else 's'} of this file are not shown"
            found.append(Diagnostic("FS199", CATALOG["FS199"].title, said, hint="mend these first"))
        return tuple(found)


def printable(text: str) -> str:
    """Text without control characters, so that a file cannot write to the terminal that shows its errors."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\n" else " " if c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def did_you_mean(word: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known word that looks most like ``word``; at least so much (0 to 1)."""
    known = list(known)[:_MAX_GUESSES]
    folded = {each.lower().replace("_", "-"): each for each in known}
    close = difflib.get_close_matches(word[:80].lower().replace("_", "-"), folded, 1, likeness)
    return folded[close[0]] if close else None


def listed(words: Iterable[str], last: str = "and") -> str:
    """``a, b and c``."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""


_BOLD, _RED, _YELLOW, _BLUE, _CYAN, _OFF = "\033[1m", "\033[31m", "\033[33m", "\033[34m", "\033[36m", "\033[0m"


def render(diagnostics: Iterable[Diagnostic], *, colour: bool = False) -> str:
    """Findings as text: place, code, source line with a caret, both sides, hint; a blank line between them."""
    return "\n\n".join(_rendered(each, colour) for each in diagnostics)


def _rendered(d: Diagnostic, colour: bool) -> str:
    def paint(text: str, ansi: str) -> str:
        return f"{ansi}{text}{_OFF}" if colour else text

    tint = {"error": _RED, "warning": _YELLOW}.get(d.severity, _BLUE)
    where = f"{paint(str(d.place), _BOLD)}: " if d.place else ""
    code = d.code if d.severity == "error" else f"{d.code} {d.severity}:"
    lines = [f"{where}{paint(f'{code} {d.title}', _BOLD + tint)}"]
    if d.place and d.source.strip():
        lines += _snippet(d.place, d.source, d.length, lambda text: paint(text, tint))
    lines += [f"  {line}" for line in d.message.split("\n")]
    for each in d.related:
        lines.append(f"  {paint(str(each.place), _BLUE)}: {each.message}")
        if each.source.strip():
            lines += _snippet(each.place, each.source, 1, lambda text: paint(text, _BLUE))
    if d.hint:
        lines.append(f"  {paint('hint:', _CYAN)} {d.hint}")
    return "\n".join(lines)


def _snippet(place: Place, source: str, length: int, paint: Any) -> list[str]:
    start = max(0, place.column - 1 - _LINE_WIDTH // 2) if len(source) > _LINE_WIDTH else 0
    shown = printable(source[start : start + _LINE_WIDTH].replace("\t", " "))
    before = place.column - 1 - start
    width = max(1, min(length, len(shown) - before))
    number = f"{place.line:>5} | "
    return [f"{number}{shown}".rstrip(), f"{' ' * (len(number) - 2)}| {' ' * before}{paint('^' * width)}"]


def to_json(diagnostics: Sequence[Diagnostic]) -> dict[str, Any]:
    """Findings as JSON values, for editors and scripts."""

    def at(place: Place | None) -> dict[str, Any]:
        return {
            "file": place.file if place else None,
            "line": place.line if place else None,
            "column": place.column if place else None,
        }

    return {
        "diagnostics": [
            {
                "code": d.code,
                "severity": d.severity,
                **at(d.place),
                "title": d.title,
                "message": d.message,
                "hint": d.hint,
                "related": [{**at(r.place), "message": r.message} for r in d.related],
            }
            for d in diagnostics
        ]
    }
