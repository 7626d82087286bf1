"""Watching the graph's files: a save is checked, planned and applied, or refused while the graph runs on."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import anyio

from flowstream.errors import FlowstreamError, GraphError
from flowstream.graph.diff import Patch
from flowstream.graph.plan import Plan
from flowstream.runtime.engine import Engine, ReloadError
from flowstream.runtime.events import Refused
from flowstream.runtime.wakeup import Wakeup

DEBOUNCE_MS = 60


class Watch(Protocol):
    """Yields whenever something changed in one of the folders."""

    def __call__(self, folders: frozenset[Path], /) -> AsyncIterator[None]: ...


async def watch_folders(folders: frozenset[Path]) -> AsyncIterator[None]:
    """Yields after a burst of changes in the folders has settled.

    Folders are watched, not files: an editor that writes beside and renames replaces the file that was watched.
    """
    import watchfiles

    async for _ in watchfiles.awatch(
        *folders, recursive=False, debounce=10 * DEBOUNCE_MS, step=DEBOUNCE_MS, watch_filter=None, raise_interrupt=False
    ):
        yield


@dataclass(slots=True)
class Revisions:
    """Which content runs, which the file has, and why they differ if they do. Digests of the content."""

    running: str
    file: str
    refused: str | None = None


@dataclass(slots=True)
class Reloader:
    """Keeps a running graph in step with its files; the last save wins.

    ``compile`` reads the files and makes the plan, or raises GraphError; ``on_plan`` is told each patch before it is
    applied.
    """

    engine: Engine
    compile: Callable[[], Plan]
    revisions: Revisions
    watch: Watch = watch_folders
    on_plan: Callable[[Plan, Patch], None] | None = None
    _changed: Wakeup = field(default_factory=Wakeup)
    _applying: anyio.CancelScope | None = None
    _attempted: str = ""

    async def run(self) -> None:
        """Watches and applies until cancelled."""
        assert self.engine.plan is not None
        self._attempted = digest(self.engine.plan.files)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow)
            async for _ in self.watch(frozenset(Path(file).parent for file in self.engine.plan.files)):
                self.changed()

    def changed(self) -> None:
        """Something was saved: what is being prepared is out of date."""
        if self._applying is not None:
            self._applying.cancel()
        self._changed.set()

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            with anyio.CancelScope() as self._applying:
                await self.reload()
            self._applying = None

    async def reload(self) -> None:
        """Applies the files as they are now, if they differ from what was tried last."""
        assert self.engine.plan is not None
        revision = digest(self.engine.plan.files)
        if revision == self._attempted:
            return
        try:
            plan = await anyio.to_thread.run_sync(self.compile)
            self.revisions.file = plan.revision
            patch = await self.engine.apply(plan)
        except GraphError as error:
            self._refuse(revision, f"{len(error.diagnostics)} findings in the file", error)
        except (FlowstreamError, OSError) as error:
            self._refuse(revision, str(error), error)
        else:
            self.revisions.running = plan.revision
            self.revisions.refused = None
            if self.on_plan is not None:
                self.on_plan(plan, patch)
        # Only now: a cancelled attempt is tried again even if the newer save restored the older text.
        self._attempted = revision

    def _refuse(self, revision: str, reason: str, error: Exception) -> None:
        self.revisions.file = revision
        self.revisions.refused = reason
        diagnostics = error.diagnostics if isinstance(error, GraphError) else ()
        if not isinstance(error, ReloadError | GraphError) and isinstance(error, FlowstreamError):
            reason = error.message
        self.engine.tell(Refused(revision, reason, diagnostics))


def digest(files: Iterable[str]) -> str:
    """A digest of the content of the files; a missing one counts as empty."""
    total = hashlib.sha256()
    for file in files:
        path = Path(file)
        total.update(path.read_bytes() if path.is_file() else b"")
        total.update(b"\0")
    return total.hexdigest()[:12]
