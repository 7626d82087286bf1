"""``flowstream fmt``: graph files in their usual form."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click

from flowstream.cli import COMMANDS, described
from flowstream.control.files import MAX_BYTES, read


@click.command("fmt", short_help=COMMANDS["fmt"])
@click.argument("graphs", metavar="GRAPH...", nargs=-1, required=True)
@click.option("--check", "is_check", is_flag=True, help="Change nothing; exit status 1 when a file would change.")
@click.option("--diff", "is_diff", is_flag=True, help="Change nothing; print what would change.")
def command(graphs: tuple[str, ...], is_check: bool, is_diff: bool) -> int:
    """Write each GRAPH, a file, in its usual form: one layout, keys in one order, every comment kept.

    Nodes and variables stay in the order you gave them. A file that is no readable YAML is left alone, and what is
    wrong with it is shown; exit status 1 then. GRAPH may be -: standard input is written to standard output.

    \b
      flowstream fmt graphs/*.yaml
      flowstream fmt --check graphs/*.yaml    # in a script: are they all in their usual form?
    """
    from flowstream.errors import FlowstreamError

    if "-" in graphs and len(graphs) > 1:
        raise click.BadParameter("- stands for standard input, and stands alone.", param_hint="GRAPH")
    status = 0
    changed = 0
    for path in graphs:
        try:
            changed += _formatted(path, is_check=is_check, is_diff=is_diff)
        except FlowstreamError as error:
            status = 1
            _complain(error)
    if status == 0 and not changed and graphs != ("-",) and not is_diff:
        click.echo("nothing to change")
    return 1 if changed and is_check else status


def _formatted(path: str, *, is_check: bool, is_diff: bool) -> bool:
    """Brings a file into its usual form or says how; whether that is another than it has."""
    from flowstream.graph.formatting import formatted

    name, content = _read(path)
    text = formatted(name, content)
    is_changed = text.encode() != content
    if is_diff and is_changed:
        _diff(name, content.decode("utf-8-sig"), text)
    if path == "-" and not is_check and not is_diff:
        sys.stdout.buffer.write(text.encode())
    elif is_changed and is_check:
        click.echo(f"{name}: not in the usual form", err=is_diff)
    elif is_changed and not is_diff:
        _write(path, text)
        click.echo(f"{name}: written in the usual form")
    return is_changed


def _read(path: str) -> tuple[str, bytes]:
    """What a file is called and holds. Raises GraphError for one that cannot be read."""
    from flowstream.errors import GraphError
    from flowstream.graph.diagnostics import Findings

    if path == "-":
        return "<stdin>", sys.stdin.buffer.read(MAX_BYTES)
    try:
        return path, read(path)
    except OSError as error:
        findings = Findings()
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        findings.add("FS101", None, f"{path}: {reason[:1].lower()}{reason[1:]}")
        raise GraphError(findings.diagnostics) from None


def _write(path: str, text: str) -> None:
    """Puts a text in the place of a file, all at once: who reads meanwhile gets the old one or the new one."""
    from flowstream.errors import FlowstreamError

    target = Path(path).resolve()
    beside: str | None = None
    try:
        if not os.access(target, os.W_OK):
            raise PermissionError(None, "the file is read-only")
        before = target.stat()
        number, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(number, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(number)
        now = os.stat(beside)
        if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
            os.chown(beside, before.st_uid, before.st_gid)
        os.chmod(beside, before.st_mode & 0o7777)
        os.replace(beside, target)
        beside = None
    except OSError as error:
        raise FlowstreamError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        if beside is not None:
            os.unlink(beside)


def _diff(name: str, before: str, after: str) -> None:
    import difflib

    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), name, f"{name} (usual form)"
    )
    for line in lines:
        click.echo(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n", nl=False)


def _complain(error: Exception) -> None:
    from flowstream.errors import GraphError
    from flowstream.graph.diagnostics import render

    if isinstance(error, GraphError):
        click.echo(render(error.diagnostics, colour=sys.stderr.isatty()), err=True)
    else:
        click.echo(described(error), err=True)
