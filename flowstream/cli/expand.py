"""``flowstream expand``: a graph of several files as one, with where each value came from."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import find_graph, nodes_option, set_option
from flowstream.control.files import GraphFile


@click.command("expand", short_help=COMMANDS["expand"])
@click.argument("graph", metavar="GRAPH")
@click.argument("layers", nargs=-1, metavar="[LAYER]...")
@nodes_option
@set_option
def command(graph: str, layers: tuple[str, ...], folders: tuple[Path, ...], sets: dict[str, str]) -> int:
    """Write GRAPH out as one file: layers, includes, variables and subgraphs put in, every port named.

    Behind each value stands where it came from. What the environment holds stands as it is written: $(env:NAME). The
    text is a graph itself; running it runs the same plan.
    """
    from flowstream.errors import GraphError
    from flowstream.graph.diagnostics import render

    try:
        text = GraphFile(find_graph(graph), folders, sets, layers=layers).expand()
    except GraphError as error:
        click.echo(render(error.diagnostics, colour=sys.stderr.isatty()), err=True)
        return 1
    click.echo(text, nl=False)
    return 0
