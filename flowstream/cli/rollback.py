"""``flowstream rollback``: a running graph goes back to a revision that ran before."""

from __future__ import annotations

from pathlib import Path

import click

from flowstream.cli import COMMANDS
from flowstream.cli.asking import asked_of_run, change


@click.command("rollback", short_help=COMMANDS["rollback"])
@click.argument("number", type=click.IntRange(min=1), required=False, metavar="[NUMBER]")
@asked_of_run
def command(number: int | None, name: str | None, control: Path | None, form: str) -> int:
    """Go back to revision NUMBER, as its files were when it ran; without NUMBER to the one before.

    No file is touched: the next save, or `flowstream reload`, makes the files count again. `flowstream revisions` lists
    what there is.
    """
    return change(name, control, form, "/rollback", {"number": number}, nothing="it runs already")
