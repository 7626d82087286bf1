"""Where nodes put their pages and endpoints; an HTTP server above serves what is here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flowstream.node.context import AsgiApp


@dataclass(frozen=True, slots=True, eq=False)
class Mount:
    """An application at ``path`` (``/<node>/``); ``page`` when people open it in a browser."""

    path: str
    app: AsgiApp
    page: bool


class Mounts:
    """The applications that nodes have mounted. ``listen`` is the address once the server is bound."""

    def __init__(self) -> None:
        self.listen: tuple[str, int] | None = None
        self._mounts: list[Mount] = []

    @contextmanager
    def mount(self, path: str, app: AsgiApp, *, page: bool) -> Iterator[Mount]:
        """Serves the application while the block lasts; the newest at a path wins, so a successor takes over."""
        mount = Mount(path, app, page)
        self._mounts.append(mount)
        try:
            yield mount
        finally:
            self._mounts.remove(mount)

    def find(self, path: str) -> Mount | None:
        """The newest application under whose path the given path lies."""
        return next((m for m in reversed(self._mounts) if path.startswith(m.path) or f"{path}/" == m.path), None)

    @property
    def pages(self) -> tuple[str, ...]:
        """The paths of the pages in alphabetical order, each once: which node was ready first is chance."""
        return tuple(sorted({m.path for m in self._mounts if m.page}))
