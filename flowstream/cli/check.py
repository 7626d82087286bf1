"""``flowstream check``: every finding about graph files, without running them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import GraphFile, find_graph, nodes_option, set_option

if TYPE_CHECKING:
    from flowstream.errors import Diagnostic

_EXPLAINED = 3  # codes that the last line names; nobody reads about more at a time


@click.command("check", short_help=COMMANDS["check"])
@click.argument("graphs", metavar="GRAPH...", nargs=-1, required=True)
@nodes_option
@set_option
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="For people, or for programs."
)
def command(graphs: tuple[str, ...], folders: tuple[Path, ...], sets: dict[str, str], form: str) -> int:
    """Find everything that is wrong with each GRAPH: a file, or the name of a graph that comes with flowstream.

    Nothing is started and no device is touched. Exit status 1 when there are errors; warnings alone are none.
    """
    from flowstream.errors import GraphError
    from flowstream.graph.diagnostics import render, to_json

    found: list[Diagnostic] = []
    for name in graphs:
        path = find_graph(name)
        count = ""
        try:
            plan = GraphFile(path, folders, sets).compile()
            findings = plan.warnings
            count = f"{len(plan.nodes)} node{'' if len(plan.nodes) == 1 else 's'}"
        except GraphError as error:
            findings = error.diagnostics
        found += findings
        if form == "text":
            if findings:
                click.echo(render(findings, colour=sys.stdout.isatty()) + "\n")
            if count:
                click.echo(f"{path}: no errors ({count})")
    errors = sum(each.severity == "error" for each in found)
    if form == "json":
        click.echo(json.dumps(to_json(found), indent=2, ensure_ascii=False))
    elif errors:
        warnings = len(found) - errors
        also = f", {warnings} warning{'' if warnings == 1 else 's'}" if warnings else ""
        codes = dict.fromkeys(each.code for each in found if each.severity == "error")
        more = f"More about {'it' if errors == 1 else 'them'}: flowstream explain {' '.join([*codes][:_EXPLAINED])}"
        click.echo(f"{errors} error{'' if errors == 1 else 's'}{also}. {more}")
    return 1 if errors else 0
