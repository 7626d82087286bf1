"""``flowstream resume-view``: what every viewer of a running graph is shown."""

from __future__ import annotations

from pathlib import Path

import click

from flowstream.cli import COMMANDS
from flowstream.cli.asking import asked_of_run, change_view


@click.command("resume-view", short_help=COMMANDS["resume-view"])
@click.argument("node", metavar="[NODE]", required=False)
@asked_of_run
def command(node: str | None, name: str | None, control: Path | None, form: str) -> int:
    """Show every viewer the stream again, at NODE or everywhere, after `flowstream pause-view`."""
    return change_view(name, control, form, "/view/resume", node, "everybody sees the stream again")
