"""``flowstream check``: every finding about graph files, without running them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import find_graph, layer_option, nodes_option, replay_options, set_option
from flowstream.control.files import GraphFile

if TYPE_CHECKING:
    from flowstream.errors import Diagnostic
    from flowstream.graph.replays import Replay

_EXPLAINED = 3  # codes that the last line names; nobody reads about more at a time


@click.command("check", short_help=COMMANDS["check"])
@click.argument("graphs", metavar="GRAPH...", nargs=-1, required=True)
@nodes_option
@set_option
@layer_option
@replay_options
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="For people, or for programs."
)
def command(
    graphs: tuple[str, ...],
    folders: tuple[Path, ...],
    sets: dict[str, str],
    layers: tuple[str, ...],
    replays: Mapping[str, Replay],
    form: str,
) -> int:
    """Find everything that is wrong with each GRAPH: a file, or the name of a graph that comes with flowstream.

    A file with inputs: or outputs: is checked as what it is, a part of other graphs.

    Nothing is started and no device is touched. Exit status 1 when there are errors; warnings alone are none.
    """
    from flowstream.graph.diagnostics import render, to_json
    from flowstream.graph.replays import require_replays

    found: list[Diagnostic] = []
    for name in graphs:
        path = find_graph(name)
        examined = GraphFile(path, folders, sets, layers=layers, replays=replays).examine(as_part=True)
        findings, plan = examined.diagnostics, examined.plan
        if plan is not None and replays:
            require_replays(plan, replays)
        found += findings
        if form == "text":
            if findings:
                click.echo(render(findings, colour=sys.stdout.isatty()) + "\n")
            if plan is not None:
                click.echo(f"{path}: no errors ({_counted(len(plan.nodes), 'node')})")
                for id_, node in plan.nodes.items():
                    if node.replayed:
                        click.echo(f"  {id_} is {node.replayed}")
            elif all(each.severity != "error" for each in findings):
                click.echo(f"{path}: no errors in what could be checked")
    errors = sum(each.severity == "error" for each in found)
    if form == "json":
        click.echo(json.dumps(to_json(found), indent=2, ensure_ascii=False))
    elif errors:
        warnings = sum(each.severity == "warning" for each in found)
        also = f", {_counted(warnings, 'warning')}" if warnings else ""
        codes = dict.fromkeys(each.code for each in found if each.severity == "error")
        more = f"More about {'it' if errors == 1 else 'them'}: flowstream explain {' '.join([*codes][:_EXPLAINED])}"
        click.echo(f"{_counted(errors, 'error')}{also}. {more}")
    return 1 if errors else 0


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
