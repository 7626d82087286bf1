"""``flowstream status``: how a running graph is doing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from flowstream.cli import COMMANDS
from flowstream.cli.asking import asked_of_run


@click.command("status", short_help=COMMANDS["status"])
@asked_of_run
def command(name: str | None, control: Path | None, form: str) -> int:
    """Show how a running graph is doing: its state, its revision, every node, and what is wrong if anything is."""
    from flowstream.control.client import ask, choose

    run = choose(name, control)
    status = {**run.status, "causes": ask(run.socket, "/why")["causes"]}
    if form == "json":
        click.echo(json.dumps(status, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(status)))
    return 0


def _lines(status: dict[str, Any]) -> list[str]:
    from flowstream.cli.session import fact_text
    from flowstream.control.door import address

    listen = status.get("listen")
    tls = status.get("tls")
    where = f", at {'https' if tls else 'http'}://{address(*listen)}/" if listen else ""
    lines = [f"{status['graph']}: {status['state']}{where}"]
    if tls:
        lines.append(f"its certificate{' was made here and' if tls['is_made'] else ''} ends {tls['ends']}, "
                     f"SHA-256 {tls['fingerprint']}")  # fmt: skip
    lines += [f"! {cause['sentence']}" for cause in status["causes"]]
    revision = status["revision"]
    if status["api"] is not None:
        token = f", its token in {status['api']['token_file']}" if status["api"]["token_file"] else ""
        lines.append(f"its API is at {status['api']['url']}{token}")
    if revision["difference"] is not None:
        number = f" (revision {revision['number']})" if revision["number"] else ""
        lines.append(f"what runs is {revision['running']}{number}, and not what the file says:")
        lines += [f"  {reason}" for reason in revision["difference"].split("; ")]
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
