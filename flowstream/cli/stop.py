"""``flowstream stop``: a running graph ends."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flowstream.cli import COMMANDS
from flowstream.cli.asking import asked_of_run


@click.command("stop", short_help=COMMANDS["stop"])
@click.option("--now", is_flag=True, help="At once, as Ctrl-C twice does: recordings are not finished.")
@asked_of_run
def command(now: bool, name: str | None, control: Path | None, form: str) -> int:
    """End a running graph as Ctrl-C does: sources stop, and what is under way is finished."""
    from flowstream.control.client import ask, choose

    run = choose(name, control)
    answer = ask(run.socket, "/stop", {"now": now})
    click.echo(json.dumps(answer) if form == "json" else f"{run.name} is {answer['state']}")
    return 0
