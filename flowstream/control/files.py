"""Graph files on disk, with everything else that decides on their plan."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowstream.graph.compile import Compilation, Examined
    from flowstream.graph.plan import Override, Plan, Serve, Tls
    from flowstream.graph.replays import Replay

MAX_BYTES = 1024 * 1024 + 1
"""How much of a file is read; one byte more than a graph may have."""


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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of a graph as they were once, and what else decided on its plan then.

    ``files`` are the contents by path, ``sources`` those of node types by FOLDER/FILE. A plan that was made before they
    are changed again can be made of them any time.
    """

    path: str
    layers: tuple[str, ...] = ()
    sets: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    sources: Mapping[str, bytes] = field(default_factory=dict)

    def read(self, path: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]


@dataclass(slots=True)
class GraphFile:
    """A graph file and what else decides on its plan: ``layers`` are files over it, lowest first.

    ``text`` is what the file holds when it is not on disk; ``serve`` and ``tls`` count in the place of what the graph
    says. ``overrides`` are values that settings were given while the graph runs. With ``texts`` the files are not read,
    but taken from there. ``replays`` run in the place of nodes, as long as the graph has these. ``snapshot`` is what
    the last plan was made of.
    """

    path: str
    folders: tuple[Path, ...] = ()
    sets: Mapping[str, str] = field(default_factory=dict)
    environment: Environment = field(default_factory=lambda: Environment(os.environ))
    began: datetime = field(default_factory=now_here)
    layers: tuple[str, ...] = ()
    text: str | None = None
    serve: Serve | None = None
    tls: Tls | None = None
    overrides: tuple[Override, ...] = ()
    texts: Snapshot | None = None
    replays: Mapping[str, Replay] = field(default_factory=dict)
    snapshot: Snapshot | None = None

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

        read_now: dict[str, bytes] = {}

        def reading(path: str) -> bytes:
            read_now[path] = self.read(path)
            return read_now[path]

        sources = [file for folder in self.folders for file in sorted(folder.resolve().glob("*.py"))]
        folders = [str(folder.resolve()) for folder in self.folders]  # a new file in one of them is a save too
        contents = {f"{file.parent.name}/{file.name}": file.read_bytes() for file in sources}
        surroundings = {**self._surroundings, "read": reading}
        found = examine(
            self.path, registry=Registry.installed(self.folders), as_part=as_part, overrides=self.overrides,
            replays=self.replays, **surroundings,
        )  # fmt: skip
        on_disk = [file for file in found.files if self.text is None or file != self.path]
        files = (*on_disk, *map(str, sources), *folders)
        if found.plan is None:
            return replace(found, files=files)
        plan = replace(found.plan, files=files, serve=self._served(found.plan.serve))
        self.snapshot = Snapshot(
            self.path, self.layers, dict(self.sets), plan.overrides,
            {path: read_now[path] for path in on_disk}, contents,
        )  # fmt: skip
        return replace(found, files=files, plan=plan)

    def _served(self, written: Serve | None) -> Serve | None:
        """Where it is served, by what the graph says and what counts in its place."""
        from dataclasses import replace

        from flowstream.graph.plan import Serve

        serve = self.serve or written
        if self.tls is not None:
            return replace(serve or Serve(), tls=self.tls)
        return replace(serve, tls=written.tls) if serve is not None and written is not None else serve

    @property
    def contents(self) -> dict[str, bytes]:
        """What the files of the last plan held when it was made, by their paths."""
        if self.snapshot is None:
            return {}
        found = dict(self.snapshot.files)
        for folder in map(Path.resolve, self.folders):
            found |= {
                str(folder.parent / name): content
                for name, content in self.snapshot.sources.items()
                if name.startswith(f"{folder.name}/")
            }
        return found

    def of(self, snapshot: Snapshot, *, folders: tuple[Path, ...] | None = None) -> GraphFile:
        """The same with the files, variables and values of a snapshot; ``folders`` hold its node types."""
        from dataclasses import replace

        return replace(
            self, path=snapshot.path, layers=snapshot.layers, sets=snapshot.sets, overrides=snapshot.overrides,
            texts=snapshot, snapshot=None, folders=self.folders if folders is None else folders,
        )  # fmt: skip

    def compilation(self) -> Compilation:
        """The graph as it is read, with what stands between its files and its plan."""
        from flowstream.graph.compile import Compilation
        from flowstream.node.registry import Registry

        registry = Registry.installed(self.folders)
        return Compilation(
            self.path, registry=registry, overrides=self.overrides, replays=self.replays, **self._surroundings
        )  # fmt: skip

    def read(self, path: str) -> bytes:
        """The content of one of its files. Raises OSError."""
        if self.text is not None and path == self.path:
            return self.text.encode()
        return self.texts.read(path) if self.texts else read(path)

    def expand(self) -> str:
        """The file with everything put in. Raises GraphError with all findings, PackError for a missing folder."""
        from flowstream.graph.expand import expand
        from flowstream.node.registry import Registry

        return expand(self.path, registry=Registry.installed(self.folders), **self._surroundings)

    @property
    def _surroundings(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "environ": self.environment,
            "wallclock": self.began,
            "sets": self.sets,
            "layers": self.layers,
        }
