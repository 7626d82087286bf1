"""``flowstream events``: what happens to a running graph, as it happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from flowstream.cli import COMMANDS
from flowstream.cli.asking import asked_of_run


@click.command("events", short_help=COMMANDS["events"])
@click.option("--after", metavar="ID", help="Begin with what came after the event with this id.")
@asked_of_run
def command(after: str | None, name: str | None, control: Path | None, form: str) -> int:
    """Follow what happens to a running graph, until it ends: saves, failures, restarts, changes. Ctrl-C leaves.

    With --format json each line is an object; its id serves for --after.
    """
    from flowstream.control.client import choose, follow_events

    try:
        for id_, event in follow_events(choose(name, control).socket, after):
            click.echo(json.dumps({"id": id_, **event}, ensure_ascii=False) if form == "json" else _line(event))
    except KeyboardInterrupt:
        return 0
    return 0


def _line(event: dict[str, Any]) -> str:
    told = {key: value for key, value in event.items() if key not in ("event", "time", "lines", "changes", "patch")}
    details = [f"{key}={_said(value)}" for key, value in told.items() if value not in (None, "", [], ())]
    head = "  ".join([f"{event.get('time', '')} {event['event']}".strip(), *details])
    lines = [line for line in event.get("lines", ()) if not line.rstrip().endswith("  kept")]
    return "\n".join([head, *(f"  {line}" for line in lines)])


def _said(value: Any) -> str:
    if isinstance(value, dict) and "message" in value:
        return str(value["message"])
    if isinstance(value, list) and all(isinstance(each, dict) and "message" in each for each in value):
        return "; ".join(str(each["message"]) for each in value)
    return str(value) if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
