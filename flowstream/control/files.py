"""Graph files on disk, with everything else that decides on their plan."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowstream.graph.compile import Examined
    from flowstream.graph.plan import Plan

MAX_BYTES = 1024 * 1024 + 1
"""How much of a file is read; one byte more than a graph may have."""


def read(path: str) -> bytes:
    """The beginning of a file, as much as a graph may have. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(MAX_BYTES)


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
        folders = [str(folder.resolve()) for folder in self.folders]  # a new file in one of them is a save too
        files = (*found.files, *sources, *folders)
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
