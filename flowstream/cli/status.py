"""``flowstream status``: how a running graph is doing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from flowstream.cli import COMMANDS


@click.command("status", short_help=COMMANDS["status"])
@click.option("--run", "name", metavar="NAME", help="Which run, when there are several.")
@click.option(
    "--control", metavar="PATH", type=click.Path(path_type=Path), help="The run's control socket, by its path."
)
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="For people, or for programs."
)
def command(name: str | None, control: Path | None, form: str) -> int:
    """Show how a running graph is doing: its state, its revision, and every node."""
    from flowstream.control.client import choose

    status = choose(name, control).status
    if form == "json":
        click.echo(json.dumps(status, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(status)))
    return 0


def _lines(status: dict[str, Any]) -> list[str]:
    from flowstream.cli.session import fact_text
    from flowstream.control.door import address

    listen = status.get("listen")
    where = f", at http://{address(*listen)}/" if listen else ""
    lines = [f"{status['graph']}: {status['state']}{where}"]
    revision = status["revision"]
    if revision["refused"] is not None:
        lines.append(f"the file holds {revision['file']}, which was refused: {revision['refused']}")
        lines.append(f"what runs is {revision['running']}")
    rows = []
    for id, node in status["nodes"].items():
        details = [fact_text(key, value) for key, value in node.get("facts", {}).items() if value is not None]
        details += [f"dropped {count} ({cause})" for cause, count in node.get("dropped", {}).items() if count]
        details += [f"restarts={node['restarts']}"] if node["restarts"] else []
        details += [node["error"]] if node.get("error") else []
        rows.append((id, node["type"], node["state"], "  ".join(details)))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    lines += ["  " + "  ".join((*map(str.ljust, row[:3], widths), row[3])).rstrip() for row in rows]
    return lines
