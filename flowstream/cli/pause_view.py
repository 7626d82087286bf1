"""``flowstream pause-view``: what every viewer of a running graph is shown."""

from __future__ import annotations

from pathlib import Path

import click

from flowstream.cli import COMMANDS
from flowstream.cli.asking import asked_of_run, change_view


@click.command("pause-view", short_help=COMMANDS["pause-view"])
@click.argument("node", metavar="[NODE]", required=False)
@asked_of_run
def command(node: str | None, name: str | None, control: Path | None, form: str) -> int:
    """Show every viewer a black picture in silence, at NODE or everywhere; viewers who come see it too.

    Nothing of the stream is sent until `flowstream resume-view`, and no player can go on showing the last picture.
    Recordings and everything else go on.
    """
    return change_view(name, control, form, "/view/pause", node, "everybody sees a black picture")
