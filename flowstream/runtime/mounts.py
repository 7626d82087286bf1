"""Where nodes put their pages and endpoints; an HTTP server above serves what is here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flowstream.node.context import AsgiApp

MOST_FORMER = 256
"""How many former paths are known; the oldest are forgotten first."""


def path_of(node: str) -> str:
    """Where a node's applications are."""
    return f"/{node}/"


@dataclass(slots=True, eq=False)
class Mount:
    """An application at ``path`` (``/<node>/``); ``page`` when people open it in a browser."""

    path: str
    app: AsgiApp
    page: bool


class Mounts:
    """The applications that nodes have mounted. ``listen`` is the address once the server is bound, with TLS or not.

    A node that is renamed takes its applications along; its former path leads to the new one, since people have links
    and players have addresses of sessions.
    """

    def __init__(self) -> None:
        self.listen: tuple[str, int] | None = None
        self.is_encrypted = False
        self._mounts: list[Mount] = []
        self._former: dict[str, str] = {}  # the path that a node had, and the one it has now

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
        return next((m for m in reversed(self._mounts) if _is_under(path, m.path)), None)

    def moved(self, path: str) -> str | None:
        """The same path below the node's new one, for one below a path that a node had before it was renamed."""
        former = max((each for each in self._former if _is_under(path, each)), key=len, default=None)
        return None if former is None else self._former[former] + path[len(former) :]

    def rename(self, node: str, now: str, *, is_succeeded: bool = False) -> None:
        """A node has another id. ``is_succeeded``: another instance has mounted at the new path what counts there."""
        old, new = path_of(node), path_of(now)
        moved = [mount for mount in self._mounts if mount.path == old]
        others = [mount for mount in self._mounts if mount.path != old]
        for mount in moved:
            mount.path = new
        self._mounts = [*moved, *others] if is_succeeded else [*others, *moved]
        if not moved and old not in self._former.values():
            return
        self._former = {path: new if at == old else at for path, at in self._former.items()} | {old: new}
        self._former.pop(new, None)
        while len(self._former) > MOST_FORMER:
            del self._former[next(iter(self._former))]

    def settle(self) -> None:
        """Former paths at which there is another node now lead nowhere else any more, also when it is gone again."""
        taken = {mount.path for mount in self._mounts}
        self._former = {path: now for path, now in self._former.items() if path not in taken}

    @property
    def pages(self) -> tuple[str, ...]:
        """The paths of the pages in alphabetical order, each once: which node was ready first is chance."""
        return tuple(sorted({m.path for m in self._mounts if m.page}))


def _is_under(path: str, mounted: str) -> bool:
    return path.startswith(mounted) or f"{path}/" == mounted
