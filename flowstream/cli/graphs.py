"""Graph files as the command line names them: a path, or the name of a graph that ships with flowstream."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flowstream.graph.compile import Examined
    from flowstream.graph.plan import Plan

MAX_BYTES = 1024 * 1024 + 1
"""How much of a file is read; one byte more than a graph may have."""

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


def read(path: str) -> bytes:
    """The beginning of a file, as much as a graph may have. Raises OSError."""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES)
    except ValueError as error:  # no path at all, such as text with a zero byte
        raise FileNotFoundError(path) from error


class Environment(Mapping[str, str]):
    """The environment, which remembers what was asked of it: those values are secrets."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.asked: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        value = self.asked[name] = self._variables[name]
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


def now_here() -> datetime:
    """The time of day here, with its zone."""
    return datetime.now().astimezone()


@dataclass(slots=True)
class GraphFile:
    """A graph file and what else decides on its plan: ``layers`` are files over it, lowest first."""

    path: str
    folders: tuple[Path, ...] = ()
    sets: Mapping[str, str] = field(default_factory=dict)
    environment: Environment = field(default_factory=lambda: Environment(os.environ))
    began: datetime = field(default_factory=now_here)
    layers: tuple[str, ...] = ()

    def compile(self) -> Plan:
        """The plan of the file as it is now. Raises GraphError with all findings, PackError for a missing folder."""
        from flowstream.errors import GraphError

        found = self.examine()
        if found.plan is None:
            raise GraphError(found.diagnostics, files=found.files)
        return found.plan

    def examine(self, *, as_part: bool = False) -> Examined:
        """Everything that can be found out about the file as it is now. Raises PackError for a missing folder.

        ``as_part`` takes a file that other graphs use.
        """
        from dataclasses import replace

        from flowstream.graph.compile import examine
        from flowstream.node.registry import Registry

        found = examine(self.path, registry=Registry.installed(self.folders), as_part=as_part, **self._surroundings)
        sources = [str(file) for folder in self.folders for file in sorted(folder.resolve().glob("*.py"))]
        files = (*found.files, *sources)
        return replace(found, files=files, plan=replace(found.plan, files=files) if found.plan else None)

    def expand(self) -> str:
        """The file with everything put in. Raises GraphError with all findings, PackError for a missing folder."""
        from flowstream.graph.expand import expand
        from flowstream.node.registry import Registry

        return expand(self.path, registry=Registry.installed(self.folders), **self._surroundings)

    @property
    def _surroundings(self) -> dict[str, Any]:
        return {
            "read": read,
            "environ": self.environment,
            "wallclock": self.began,
            "sets": self.sets,
            "layers": self.layers,
        }
