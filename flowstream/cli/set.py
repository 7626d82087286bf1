"""``flowstream set``: a setting of a running graph gets another value."""

from __future__ import annotations

from pathlib import Path

import click

from flowstream.cli import COMMANDS
from flowstream.cli.asking import asked_of_run, change


@click.command("set", short_help=COMMANDS["set"])
@click.argument("target", metavar="NODE.FIELD", required=False)
@click.argument("value", metavar="VALUE", required=False)
@click.option("--save", is_flag=True, help="Write it into the file where it belongs, too; comments stay.")
@click.option("--clear", is_flag=True, help="Take back what was set: at NODE.FIELD, or everywhere.")
@asked_of_run
def command(
    target: str | None, value: str | None, save: bool, clear: bool, name: str | None, control: Path | None, form: str
) -> int:
    """Give a setting of a running graph another VALUE, such as: flowstream set encode.bitrate 600k

    A live setting changes in place; any other one replaces the node, as a save would. The value lies over the file: a
    save that leaves the setting alone keeps it, one that changes it wins. VALUE is written as in the file; null takes
    the default.
    """
    if clear:
        if value is not None or save:
            raise click.UsageError("--clear takes NODE.FIELD at most.")
        return change(name, control, form, "/clear", {"target": target}, nothing="nothing is set")
    if target is None or value is None:
        raise click.UsageError("what to set? flowstream set NODE.FIELD VALUE, or flowstream set --clear.")
    body = {"target": target, "value": value, "save": save}
    return change(name, control, form, "/set", body, nothing="it is so already")
