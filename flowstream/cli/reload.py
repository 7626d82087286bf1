"""``flowstream reload``: a running graph reads its files now."""

from __future__ import annotations

from pathlib import Path

import click

from flowstream.cli import COMMANDS
from flowstream.cli.asking import asked_of_run, change


@click.command("reload", short_help=COMMANDS["reload"])
@asked_of_run
def command(name: str | None, control: Path | None, form: str) -> int:
    """Make a running graph read its files now, also when it does not watch them or refused them before.

    It also ends a rollback. What was set by `flowstream set` stays, unless the files say otherwise by now.
    """
    return change(name, control, form, "/reload", {}, nothing="the files are as they run")
