"""``flowstream explain``: what a code means, with a graph that has it and the same graph mended."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowstream.cli import COMMANDS

if TYPE_CHECKING:
    from flowstream.errors import Diagnostic
    from flowstream.graph.examples import Example

_WIDTH = 100  # columns; longer lines are hard to read
_LINES = 12  # of a file; more of it shows nothing new


@click.command("explain", short_help=COMMANDS["explain"])
@click.argument("codes", metavar="[CODE]...", nargs=-1)
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="For people, or for programs."
)
def command(codes: tuple[str, ...], form: str) -> int:
    """Say what each CODE means, why it is so and what to do, with a graph that has it and the same graph mended.

    Without a CODE, list them all. What is said about a wrong graph is what `flowstream check` says about it.
    """
    asked = list(dict.fromkeys(map(_known, codes)))
    if form == "json":
        click.echo(json.dumps(_described(asked), indent=2, ensure_ascii=False))
    elif asked:
        for number, code in enumerate(asked):
            click.echo(("\n\n" if number else "") + "\n".join(_page(code, sys.stdout.isatty())))
    else:
        click.echo("\n".join(_list()))
    return 0


def _known(word: str) -> str:
    """The code that a word means. Raises BadParameter for another word."""
    from flowstream.graph.catalog import CATALOG
    from flowstream.graph.diagnostics import did_you_mean

    code = word.strip().upper()
    if code in CATALOG:
        return code
    titles = {kind.title: each for each, kind in CATALOG.items()}
    title = did_you_mean(word, titles)
    close = titles[title] if title else did_you_mean(code, CATALOG)
    guess = f"Did you mean {close} ({CATALOG[close].title})?" if close else "`flowstream explain` lists them all."
    raise click.BadParameter(f"there is no code {word!r}. {guess}", param_hint="CODE")


def _list() -> Iterator[str]:
    from flowstream.graph.catalog import CATALOG, GROUPS

    for beginning, about in GROUPS.items():
        yield f"{beginning}xx  {about}"
        for code, kind in CATALOG.items():
            if code.startswith(beginning):
                yield f"  {code}  {kind.title}" + (f"  ({kind.severity})" if kind.severity != "error" else "")
        yield ""
    yield "flowstream explain CODE says more, with an example."


def _described(codes: list[str]) -> list[dict[str, Any]]:
    """Codes as JSON values; all of them, without their examples, when none is asked for."""
    from flowstream.graph.catalog import CATALOG
    from flowstream.graph.diagnostics import to_json
    from flowstream.graph.examples import EXAMPLES

    def shown(example: Example) -> dict[str, Any]:
        return {
            "files": {name: _text(content) for name, content in example.files.items()},
            "command": command_of(example),
            "note": example.note or None,
            **to_json(findings_of(example)),
        }

    return [
        {
            "code": code,
            "title": CATALOG[code].title,
            "severity": CATALOG[code].severity,
            "explanation": CATALOG[code].explanation,
            **(dict(zip(("wrong", "right"), map(shown, EXAMPLES[code]), strict=True)) if codes else {}),
        }
        for code in codes or CATALOG
    ]


def _page(code: str, colour: bool) -> Iterator[str]:
    from flowstream.graph.catalog import CATALOG
    from flowstream.graph.diagnostics import render
    from flowstream.graph.examples import EXAMPLES

    def heading(text: str) -> str:
        return click.style(text, bold=True) if colour else text

    kind = CATALOG[code]
    yield heading(f"{code} {kind.title}" + (f" ({kind.severity})" if kind.severity != "error" else ""))
    yield ""
    width = min(shutil.get_terminal_size().columns, _WIDTH)
    yield from textwrap.wrap(kind.explanation, width, break_on_hyphens=False, break_long_words=False)
    wrong, right = EXAMPLES[code]
    before: Mapping[str, str | bytes] = {}
    words = ("an example", "without it") if kind.severity == "note" else ("wrong", "right")
    for word, example in zip(words, (wrong, right), strict=True):
        yield ""
        yield heading(f"{word} ({example.note}):" if example.note else f"{word}:")
        yield ""
        for line in _files(example, before, colour):
            yield f"  {line}".rstrip()
        yield f"  $ {command_of(example)}"
        found = findings_of(example)
        said = render([each for each in found if each.code == code], colour=colour) or "no errors"
        for line in said.splitlines():
            yield f"  {line}".rstrip()
        for other, count in Counter(each.code for each in found if each.code != code).items():
            yield f"  (and {count} x {other} {CATALOG[other].title})"
        before = example.files


def _files(example: Example, before: Mapping[str, str | bytes], colour: bool) -> Iterator[str]:
    """The text of an example's files, without those that stood there ``before``; what is new in the others is green."""
    for name, content in example.files.items():
        if before.get(name) == content:
            continue
        if len(example.files) > 1 or name != example.checked:
            yield f"# {name}"
        known = set(_text(before[name]).splitlines()) if name in before else None
        lines = _text(content).splitlines()
        few = lines if len(lines) <= _LINES else lines[: _LINES // 2]
        for line in few:
            shown = line.replace("\t", "        ")
            yield click.style(shown, fg="green") if colour and known is not None and line not in known else shown
        if few is not lines:
            yield f"... and {len(lines) - len(few):,} more lines like these"
        yield ""


def _text(content: str | bytes) -> str:
    return content if isinstance(content, str) else content.decode("utf-8", "replace")


def command_of(example: Example) -> str:
    """What is typed to check an example."""
    words = [f"{name}={shlex.quote(value)}" for name, value in example.environ.items()]
    words += ["flowstream", "run" if example.runs else "check"]
    words += [word for pack in example.packs for word in ("--nodes", pack)]
    words += [word for name, value in example.sets.items() for word in ("--set", shlex.quote(f"{name}={value}"))]
    return " ".join([*words, example.checked, *example.layers])


def findings_of(example: Example) -> tuple[Diagnostic, ...]:
    """What is found in an example, warnings too, with the built-in node types and those that it brings."""
    from flowstream.control.files import now_here
    from flowstream.graph.compile import examine
    from flowstream.node.registry import BUILT_IN, Pack, Registry

    files = {name: text if isinstance(text, bytes) else text.encode() for name, text in example.files.items()}

    def read(path: str) -> bytes:
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    with tempfile.TemporaryDirectory(prefix="flowstream-") as folder:
        _write_packs(files, Path(folder))
        packs = [pack for pack in Registry.installed().packs if pack.namespace == BUILT_IN]
        packs += [Pack(name, name, folder=Path(folder, name)) for name in example.packs]
        return examine(
            example.checked,
            read=read,
            environ=example.environ,
            registry=Registry(packs),
            wallclock=now_here(),
            sets=example.sets,
            layers=example.layers,
            as_part=not example.runs,
        ).diagnostics


def _write_packs(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes an example's node types into a folder: Python loads them from there."""
    for name, content in files.items():
        if name.endswith(".py"):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
