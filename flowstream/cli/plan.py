"""``flowstream plan``: what would run, or what a reload would do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import GraphFile, find_graph, nodes_option, set_option

if TYPE_CHECKING:
    from flowstream.graph.plan import Plan


@click.command("plan", short_help=COMMANDS["plan"])
@click.argument("graph", metavar="GRAPH")
@click.argument("new", metavar="[NEW]", required=False)
@nodes_option
@set_option
def command(graph: str, new: str | None, folders: tuple[Path, ...], sets: dict[str, str]) -> int:
    """Show what GRAPH would run. With NEW, show what saving NEW in the place of GRAPH would do to it while it runs."""
    from flowstream.errors import GraphError
    from flowstream.graph.diagnostics import render
    from flowstream.graph.diff import describe, describe_plan, diff

    plans: list[Plan] = []
    for name in (graph, new) if new is not None else (graph,):
        try:
            plans.append(GraphFile(find_graph(name), folders, sets).compile())
        except GraphError as error:
            click.echo(render(error.diagnostics, colour=sys.stderr.isatty()), err=True)
            return 1
    lines = describe(diff(*plans)) if len(plans) == 2 else describe_plan(plans[0])
    click.echo("\n".join(lines))
    return 0
