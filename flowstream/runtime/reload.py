"""Watching the graph's files: a save is checked, planned and applied, or refused while the graph runs on."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread

from flowstream.errors import FlowstreamError, GraphError
from flowstream.graph.plan import Plan
from flowstream.runtime.clock import Clock, SystemClock
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Refused
from flowstream.runtime.wakeup import Wakeup

R = TypeVar("R")

_logger = logging.getLogger("flowstream.reload")

DEBOUNCE_MS = 60
LOOK_MS = 500
"""How soon after the watching began the first look is taken, if nothing happens before."""


class Watch(Protocol):
    """Yields whenever something changed in one of the folders."""

    def __call__(self, folders: frozenset[Path], /) -> AsyncIterator[None]: ...


async def poll_folders(folders: frozenset[Path]) -> AsyncIterator[None]:
    """Like ``watch_folders``, by looking again and again: where the system does not tell (network file systems)."""
    async for _ in watch_folders(folders, polls=True):
        yield


async def watch_folders(folders: frozenset[Path], *, polls: bool = False) -> AsyncIterator[None]:
    """Yields once soon after the watching began, and after each burst of changes in the folders has settled.

    Folders are watched, not files: an editor that writes beside and renames replaces the file that was watched. What
    was changed before the watching began is seen by the first look.
    """
    watchfiles = await anyio.to_thread.run_sync(importlib.import_module, "watchfiles")
    stop = threading.Event()
    changes = watchfiles.watch(
        *folders, recursive=False, debounce=10 * DEBOUNCE_MS, step=DEBOUNCE_MS, watch_filter=None,
        stop_event=stop, raise_interrupt=False, rust_timeout=LOOK_MS, yield_on_timeout=True,
        force_polling=polls or None, poll_delay_ms=LOOK_MS,
    )  # fmt: skip
    is_first = True
    try:
        while (found := await in_thread_until(stop, lambda: next(changes, None))) is not None:
            if found or is_first:
                is_first = False
                yield
    finally:
        changes.close()


async def in_thread_until(stop: threading.Event, call: Callable[[], R]) -> R:
    """Runs a call that returns soon after ``stop`` is set; that is done when this is cancelled.

    watchfiles.awatch is stopped only after the call has returned, which takes it up to five seconds.
    """
    has_returned = False

    async def stop_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            if not has_returned:
                stop.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_when_cancelled)
        result = await anyio.to_thread.run_sync(call)
        has_returned = True
        tasks.cancel_scope.cancel()
    return result


@dataclass(slots=True)
class Revisions:
    """Which content runs, which the file has, and why they differ if they do. Digests of the content."""

    running: str
    file: str
    refused: str | None = None


@dataclass(slots=True)
class Reloader:
    """Keeps a running graph in step with its files; the last save wins.

    ``compile`` reads the files and makes the plan, or raises GraphError; it runs in a worker thread. ``attempted`` is
    the digest of the files that the running plan was made of; without it, of what they hold when the watching begins.
    ``files`` are those that were read last: what a refused save includes is watched too, since mending it is a save.
    """

    engine: Engine
    compile: Callable[[], Plan]
    revisions: Revisions
    clock: Clock = field(default_factory=SystemClock)
    watch: Watch = watch_folders
    attempted: str = ""
    files: tuple[str, ...] = ()
    lock: anyio.Lock = field(default_factory=anyio.Lock)  # held by whoever changes what runs
    _moved: Wakeup = field(default_factory=Wakeup)  # the files lie in other folders now
    _changed: Wakeup = field(default_factory=Wakeup)
    _applying: anyio.CancelScope | None = None
    _current: str = ""  # what is being applied

    async def run(self) -> None:
        """Watches and applies until cancelled."""
        plan = self.engine.plan
        assert plan is not None
        self.files = self.files or plan.files
        self.attempted = self.attempted or await self._in_thread(lambda: digest(plan.files))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow)
            while True:
                folders = folders_of(self.files)
                async with anyio.create_task_group() as watching:
                    watching.start_soon(self._watch, folders)
                    while folders_of(self.files) == folders:
                        await self._moved
                    watching.cancel_scope.cancel()

    async def _watch(self, folders: frozenset[Path]) -> None:
        async for _ in self.watch(folders):
            await self._look()

    async def _look(self) -> None:
        """Something changed in a folder; a recording that grows there, or what is being applied, is no news."""
        files = self.files
        revision = await self._in_thread(lambda: digest(files))
        if revision != (self._current if self._applying is not None else self.attempted):
            self.changed()

    def changed(self) -> None:
        """Something was saved: what is being prepared is out of date."""
        if self._applying is not None:
            self._applying.cancel()
        self._changed.set()

    async def _follow(self) -> None:
        while True:
            await self._changed
            async with self.lock:
                with self.attempt():
                    await self.reload()

    @contextlib.contextmanager
    def attempt(self) -> Iterator[anyio.CancelScope]:
        """A change of what runs, which a newer save cuts short. For whoever holds the lock."""
        self._current = self.attempted
        with anyio.CancelScope() as scope:
            self._applying = scope
            try:
                yield scope
            finally:
                self._applying = None

    async def reload(self) -> None:
        """Applies the files as they are now, if they differ from what was tried last."""
        files = self.files
        revision = await self._in_thread(lambda: digest(files))
        if revision == self.attempted:
            return
        self._current = revision
        try:
            plan = await self._compiled()
            if plan.files != files:  # what other files hold counts from now on
                self._current = revision = await self._in_thread(lambda: digest(plan.files))
                plan = await self._compiled()
            self.revisions.file = plan.content or plan.revision
            await self.engine.apply(plan)
        except GraphError as error:
            count = len(error.diagnostics)
            self._refuse(revision, f"{count} finding{'s' if count > 1 else ''} in the file", error)
        except (FlowstreamError, OSError) as error:
            self._refuse(revision, str(error), error)
        except Exception as error:
            _logger.exception("the files could not be applied")
            self._refuse(revision, f"{type(error).__name__}: {error}", error)
        else:
            self.revisions.running = plan.revision
            self.revisions.refused = None
        if self.files != files:
            files = self.files
            revision = await self._in_thread(lambda: digest(files))
        # Only now: a cancelled attempt is tried again even if the newer save restored the older text.
        self.attempted = revision

    async def _compiled(self) -> Plan:
        """The plan of the files as they are; from now on they are watched, also when they hold no graph."""
        try:
            plan = await self._in_thread(self.compile)
        except GraphError as error:
            self._take_files((*error.files, *(file for file in self.files if file not in error.files)))
            raise
        self._take_files(plan.files)
        return plan

    def _take_files(self, files: tuple[str, ...]) -> None:
        self.files = files
        self._moved.set()

    async def _in_thread(self, function: Callable[[], R]) -> R:
        self.clock.hold()
        try:
            return await anyio.to_thread.run_sync(function)
        finally:
            self.clock.release()

    def _refuse(self, revision: str, reason: str, error: Exception) -> None:
        self.revisions.file = revision
        self.revisions.refused = reason
        self.engine.tell(Refused(revision, reason, error.diagnostics if isinstance(error, GraphError) else ()))


def folders_of(files: Iterable[str]) -> frozenset[Path]:
    """The folders that files lie in."""
    return frozenset(Path(file).parent for file in files)


def digest(files: Iterable[str]) -> str:
    """A digest of the content of the files; one that is missing or cannot be read counts as empty."""
    total = hashlib.sha256()
    for file in files:
        try:
            if Path(file).is_file():
                with Path(file).open("rb") as content:
                    total.update(hashlib.file_digest(content, "sha256").digest())
        except OSError:
            pass
        total.update(b"\0")
    return total.hexdigest()[:12]
