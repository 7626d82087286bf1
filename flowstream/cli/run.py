"""``flowstream run``: runs a graph, and applies what is saved to its file."""

from __future__ import annotations

from pathlib import Path

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import find_graph, nodes_option, set_option


@click.command("run", short_help=COMMANDS["run"])
@click.argument("graph", default="hello", metavar="[GRAPH]")
@click.argument("layers", nargs=-1, metavar="[LAYER]...")
@nodes_option
@set_option
@click.option(
    "--log", "log_format", type=click.Choice(["text", "json"]), help="Lines for people, or JSON for machines."
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="The least that is worth a line."
)
@click.option("--control", metavar="PATH", type=click.Path(path_type=Path), help="Where to put the control socket.")
@click.option("--inline", is_flag=True, help="Run all nodes on one thread, for debugging: each holds up the others.")
@click.option("--no-watch", is_flag=True, help="Leave the running graph alone when its file is saved.")
def command(
    graph: str,
    layers: tuple[str, ...],
    folders: tuple[Path, ...],
    sets: dict[str, str],
    log_format: str | None,
    log_level: str | None,
    control: Path | None,
    inline: bool,
    no_watch: bool,
) -> int:
    """Run GRAPH: a file, or the name of a graph that comes with flowstream (hello, desk, camera, file).

    Each LAYER is a file over it: what stands there counts instead, null takes something away.

    Without GRAPH it runs hello, which needs no camera and no screen. Saving the file changes the running graph; what
    cannot run is refused, and the graph goes on as it was.

    Ctrl-C ends it and finishes recordings; Ctrl-C twice stops at once.
    """
    from flowstream.cli.launch import launch

    return launch(
        find_graph(graph),
        layers=layers,
        folders=folders,
        sets=sets,
        log_format=log_format,
        log_level=log_level,
        control=control,
        watch=not no_watch,
        inline=inline,
    )
