"""``flowstream why``: asks a run over its control socket why nothing comes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import control_option, run_option


@click.command("why", short_help=COMMANDS["why"])
@click.argument("node", required=False)
@run_option
@control_option
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="For people, or for programs."
)
def command(node: str | None, name: str | None, control: Path | None, form: str) -> int:
    """Say why nothing comes out of a running graph, or out of NODE: one sentence for each cause.

    Viewers who get less than the best, because no more goes over the uplink or their own links, are named too. The
    exit status is 0 when all is well, 1 when something is wrong.
    """
    from urllib.parse import quote

    from flowstream.control.client import ask, choose

    run = choose(name, control)
    answer = ask(run.socket, "/why" if node is None else f"/why?node={quote(node)}")
    if form == "json":
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        for sentence in answer["verdict"]:
            click.echo(sentence)
    return 0 if answer["healthy"] else 1
