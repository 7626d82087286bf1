"""Graph files as the command line names them: a path, or the name of a graph that ships with flowstream."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flowstream.graph.replays import Replay

Option = Callable[[Any], Any]

nodes_option: Option = click.option(
    "--nodes",
    "folders",
    metavar="DIR",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder with node types; its name is their namespace. May be given several times.",
)

set_option: Option = click.option(
    "--set",
    "sets",
    metavar="NAME=VALUE",
    multiple=True,
    callback=lambda _, __, given: parse_sets(given),
    help="Give a variable of the graph (vars:) a value. May be given several times.",
)


layer_option: Option = click.option(
    "--layer",
    "layers",
    metavar="FILE",
    multiple=True,
    help="A file over the graph, whose values count instead. May be given several times, lowest first.",
)


_SPEED = "flowstream.replay_speed"


def _replays(ctx: click.Context, _: click.Parameter, given: Sequence[str]) -> Mapping[str, Replay]:
    speed = ctx.meta.get(_SPEED)
    if not given:
        if speed is not None:
            raise click.UsageError("--replay-speed goes with --replay FILE.")
        return {}
    from flowstream.runtime.replay import replays_of

    return replays_of(given, speed or "real")


def replay_options(command: Any) -> Any:
    """``--replay`` and ``--replay-speed``; the command gets ``replays``, what is to run in the place of which node."""
    speed = click.option(
        "--replay-speed",
        type=click.Choice(["real", "max"]),
        is_eager=True,  # known before the recordings are looked at
        expose_value=False,
        callback=lambda ctx, _, value: ctx.meta.__setitem__(_SPEED, value),
        help="When what is replayed comes: as it came then (the default), or as fast as it is taken.",
    )
    files = click.option(
        "--replay",
        "replays",
        metavar="[NODE=]FILE",
        multiple=True,
        callback=_replays,
        help="A recording in the place of a node, or of all nodes that it has. May be given several times.",
    )
    return speed(files(command))


run_option: Option = click.option("--run", "name", metavar="NAME", help="Which run, when there are several.")

control_option: Option = click.option(
    "--control", metavar="PATH", type=click.Path(path_type=Path), help="The run's control socket, by its path."
)


def parse_sets(given: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` words as a mapping; BadParameter for one that is not."""
    sets: dict[str, str] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{word!r} is not NAME=VALUE.")
        sets[name.strip()] = value
    return sets


def shipped_graphs() -> dict[str, Path]:
    """The graphs that come with flowstream, by name: in the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "graphs", package.parent / "graphs"):
        found = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
        if found:
            return found
    return {}


def find_graph(name: str) -> str:
    """The path of the graph that a word on the command line means: a file, else a shipped graph.

    Raises BadParameter for a bare word that is neither; a path is given back as it is.
    """
    if os.path.lexists(name) or "/" in name or "." in name:
        return name
    shipped = shipped_graphs()
    if name in shipped:
        path = shipped[name]
        here = Path.cwd()
        return str(path.relative_to(here) if path.is_relative_to(here) else path)
    from flowstream.graph.diagnostics import did_you_mean, listed

    files = {path.stem: path.name for path in sorted(Path.cwd().glob("*.y*ml"))}
    close = did_you_mean(name, shipped) or files.get(did_you_mean(name, files) or "")
    guess = f" Did you mean {close!r}?" if close else f" Graphs that come with flowstream: {listed(shipped)}."
    raise click.BadParameter(f"there is no file {name!r}.{guess}", param_hint="GRAPH")
