"""Findings about a graph: their collection, and how they are shown."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from flowstream.errors import Diagnostic, Place, Related
from flowstream.graph.catalog import CATALOG, Severity

_GUESSABLE = 4  # characters; hiding shorter parts of a text garbles it and protects nothing
MAX_FINDINGS = 200
_MAX_GUESSES = 500  # words that are looked through for one that was meant
_ALL_GUESSES = 20_000  # for all findings together; each takes some 20 us
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


class Findings:
    """Collects diagnostics; the same finding at the same place is kept once.

    ``secrets`` maps what the graph took from the environment to how it names it; no finding tells the former.
    ``about`` is the id of the node that is looked at: of several that use a file, the one it stands in is named.
    """

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.diagnostics: list[Diagnostic] = []
        self._lines: dict[str, list[str]] = {}
        self._left_out = 0
        self._counts: dict[Severity, int] = {"error": 0, "warning": 0, "note": 0}
        self._seen: set[tuple[str, str, Place | None, tuple[Place, ...]]] = set()
        self._users: dict[str, dict[str, Span]] = {}
        self._guesses = _ALL_GUESSES
        self.about = ""
        self._files_with_errors: set[str] = set()

    def source(self, file: str, text: str) -> None:
        """Keeps a file's text, so that findings show their line."""
        self._lines[file] = text.split("\n")

    def used_by(self, file: str, id_: str, span: Span) -> None:
        """Lets every finding in a file name the place that uses it as well: the node ``id_``."""
        self._users.setdefault(file, {})[id_] = span

    def _user(self, file: str) -> str | None:
        """The id of the node that uses a file: the one that ``about`` stands in, else the first."""
        users = self._users.get(file)
        if not users:
            return None
        owner = self.about
        while owner and owner not in users:
            owner = owner.rpartition("/")[0]
        return owner or next(iter(users))

    def guess(self, word: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
        """``did_you_mean`` for the text of a finding; None for those too many to be shown, or to look through."""
        if self._counts["error"] >= MAX_FINDINGS:
            return None
        known = list(known)
        self._guesses -= min(len(known), _MAX_GUESSES)
        return did_you_mean(word, known, likeness) if self._guesses >= 0 else None

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
        related = list(related)
        owner = self._user(span.file) if span else None
        elsewhere = tuple(each.place for each, _ in related if span and each.file != span.file)
        # What is wrong in a file is wrong wherever it is used, and said of the first use alone.
        key = (code, message.replace(f"{owner}/", "") if owner else message, place, elsewhere)
        if key in self._seen:
            return
        self._seen.add(key)
        if kind.severity == "error" and span:
            self._files_with_errors.add(span.file)
        if span and owner and not elsewhere:
            related.append((self._users[span.file][owner], f"{owner} uses it here"))
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

    def forgive(self, code: str, lines: Collection[tuple[str, int]]) -> None:
        """Takes back the findings of a kind on these lines (file, line), which turn out not to matter."""
        kept = [
            each for each in self.diagnostics
            if each.code != code or each.place is None or (each.place.file, each.place.line) not in lines
        ]  # fmt: skip
        self._counts[CATALOG[code].severity] -= len(self.diagnostics) - len(kept)
        self.diagnostics = kept

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
    where = f"{paint(printable(str(d.place)), _BOLD)}: " if d.place else ""
    code = d.code if d.severity == "error" else f"{d.code} {d.severity}:"
    lines = [f"{where}{paint(f'{code} {d.title}', _BOLD + tint)}"]
    if d.place and d.source.strip():
        lines += _snippet(d.place, d.source, d.length, lambda text: paint(text, tint))
    lines += [f"  {line}" for line in d.message.split("\n")]
    for each in d.related:
        lines.append(f"  {paint(printable(str(each.place)), _BLUE)}: {each.message}")
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
