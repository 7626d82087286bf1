"""``flowstream draw``: a graph as the text of a diagram."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import GraphFile, find_graph, layer_option, nodes_option, set_option


@click.command("draw", short_help=COMMANDS["draw"])
@click.argument("graph", metavar="GRAPH")
@nodes_option
@set_option
@layer_option
@click.option(
    "--format", "form", type=click.Choice(["mermaid", "dot"]), default="mermaid", help="The diagram's language."
)
def command(graph: str, folders: tuple[Path, ...], sets: dict[str, str], layers: tuple[str, ...], form: str) -> int:
    """Draw GRAPH as a diagram: Mermaid, which GitHub and many editors show, or dot, for Graphviz.

    \b
      flowstream draw hello --format dot | dot -Tsvg > hello.svg
    """
    from flowstream.errors import GraphError
    from flowstream.graph.diagnostics import render
    from flowstream.graph.draw import to_dot, to_mermaid

    try:
        plan = GraphFile(find_graph(graph), folders, sets, layers=layers).compile()
    except GraphError as error:
        click.echo(render(error.diagnostics, colour=sys.stderr.isatty()), err=True)
        return 1
    click.echo(to_dot(plan) if form == "dot" else to_mermaid(plan), nl=False)
    return 0
