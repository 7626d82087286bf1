"""``flowstream run``: runs a graph, and applies what is saved to its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import find_graph, nodes_option, replay_options, set_option

if TYPE_CHECKING:
    from flowstream.graph.replays import Replay


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
@click.option(
    "--watch",
    type=click.Choice(["auto", "poll", "off"]),
    default="auto",
    help="How saves are noticed: the system tells, or the files are read again and again (network file systems).",
)
@click.option("--no-watch", is_flag=True, help="The same as --watch off: leave the graph alone when its file is saved.")
@click.option("--last-good", is_flag=True, help="When the file cannot be run, start with what ran last.")
@replay_options
@click.option("--inline", is_flag=True, help="Run all nodes on one thread, for debugging: each holds up the others.")
def command(
    graph: str,
    layers: tuple[str, ...],
    folders: tuple[Path, ...],
    sets: dict[str, str],
    log_format: str | None,
    log_level: str | None,
    control: Path | None,
    watch: Literal["auto", "poll", "off"],
    inline: bool,
    no_watch: bool,
    last_good: bool,
    replays: Mapping[str, Replay],
) -> int:
    """Run GRAPH: a file, or the name of a graph that comes with flowstream (hello, rooms, ladder, adaptive, viewers,
    data, desk, camera, file).

    Each LAYER is a file over it: what stands there counts instead, null takes something away.

    Without GRAPH it runs hello, which needs no camera and no screen. Saving the file changes the running graph; what
    cannot run is refused, and the graph goes on as it was.

    Ctrl-C ends it and finishes recordings; Ctrl-C twice stops at once. SIGHUP reads the files again.

    What `flowstream record` recorded runs in a node's place with --replay camera=bug.fsrec: without the camera, also
    through reloads, to the end of the file.
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
        watch="off" if no_watch else watch,
        last_good=last_good,
        inline=inline,
        replays=replays,
    )
