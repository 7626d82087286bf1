"""``flowstream revisions``: what ran, revision by revision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from flowstream.cli import COMMANDS
from flowstream.cli.asking import asked_of_run

LINES = 3
"""How many lines of what a revision changed are shown."""


@click.command("revisions", short_help=COMMANDS["revisions"])
@asked_of_run
def command(name: str | None, control: Path | None, form: str) -> int:
    """List the revisions of a running graph that ran, the newest last: when each came, why, and what it changed.

    `flowstream rollback NUMBER` goes back to one.
    """
    from flowstream.control.client import ask, choose

    found = ask(choose(name, control).socket, "/revisions")["revisions"]
    if form == "json":
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif not found:
        click.echo("no revision is kept")
    else:
        click.echo("\n".join(line for each in found for line in _lines(each)))
    return 0


def _lines(revision: dict[str, Any]) -> list[str]:
    mark = "*" if revision["is_running"] else " "
    lines = [f"{mark} {revision['number']:>4}  {revision['time']}  {revision['revision']}  {revision['cause']}"]
    if revision["cause"] == "saved":
        told = [line for line in revision["lines"] if not line.rstrip().endswith("  kept")]
        lines += [f"        {line}" for line in told[:LINES]]
        lines += [f"        and {len(told) - LINES} more"] if len(told) > LINES else []
    return lines
