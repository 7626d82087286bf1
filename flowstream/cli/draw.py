"""``flowstream draw``: a graph as a picture, or as the text of a diagram."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import find_graph, layer_option, nodes_option, set_option
from flowstream.control.files import GraphFile

ENDINGS = {".svg": "svg", ".mmd": "mermaid", ".dot": "dot"}


@click.command("draw", short_help=COMMANDS["draw"])
@click.argument("graph", metavar="GRAPH")
@nodes_option
@set_option
@layer_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["mermaid", "dot", "svg"]),
    help="What to draw: as the ending of FILE says, or mermaid.",
)
@click.option(
    "-o",
    "--output",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it (.svg, .mmd, .dot) instead of to the terminal.",
)
def command(
    graph: str,
    folders: tuple[Path, ...],
    sets: dict[str, str],
    layers: tuple[str, ...],
    form: str | None,
    file: Path | None,
) -> int:  # fmt: skip
    """Draw GRAPH: as Mermaid, which GitHub and many editors show, as dot, for Graphviz, or as an SVG picture.

    \b
      flowstream draw hello -o hello.svg
      flowstream draw hello --format dot | dot -Tpdf > hello.pdf
    """
    from flowstream.errors import GraphError
    from flowstream.graph.diagnostics import render

    if form is None and file is not None:
        form = ENDINGS.get(file.suffix.lower())
        if form is None:
            raise click.BadParameter(
                f"{file}: no format is known by this ending. End it in {', '.join(ENDINGS)}, or say --format.",
                param_hint="-o",
            )
    try:
        plan = GraphFile(find_graph(graph), folders, sets, layers=layers).compile()
    except GraphError as error:
        click.echo(render(error.diagnostics, colour=sys.stderr.isatty()), err=True)
        return 1
    if form == "svg":
        from flowstream.graph.svg import to_svg as drawn
    elif form == "dot":
        from flowstream.graph.draw import to_dot as drawn
    else:
        from flowstream.graph.draw import to_mermaid as drawn
    text = drawn(plan)
    if file is None:
        click.echo(text, nl=False)
        return 0
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{error.filename or file}: {error.strerror}") from error
    return 0
