"""Watching the graph's files: a save is checked, planned and applied, or refused while the graph runs on."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

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

SETTLE_SECONDS = 0.2
"""How long a file that is empty or missing is given to be written: some editors take the old one away first."""

MOST_READS = 3
"""How often a graph is read at most whose files turn out to be others each time."""

MOST_LINKS = 20
"""How many links are followed to a file."""

WatchMode = Literal["on", "poll", "off"]


class Watch(Protocol):
    """Yields whenever something changed in one of the folders; whoever stops listening closes it."""

    def __call__(self, folders: frozenset[Path], /) -> AsyncGenerator[None, None]: ...


async def watch_folders(folders: frozenset[Path], *, poll: bool = False) -> AsyncGenerator[None, None]:
    """Yields once soon after the watching began, and after each burst of changes in the folders has settled.

    Folders are watched, not files: an editor that writes beside and renames replaces the file that was watched. What
    was changed before the watching began is seen by the first look. ``poll`` looks again and again in place of being
    told, which the kernel does not do for files on other machines.
    """
    watchfiles = await anyio.to_thread.run_sync(importlib.import_module, "watchfiles")
    while True:
        there = await anyio.to_thread.run_sync(_that_are_there, folders)
        stop = threading.Event()
        changes = watchfiles.watch(
            *there, recursive=False, debounce=10 * DEBOUNCE_MS, step=DEBOUNCE_MS, watch_filter=None,
            stop_event=stop, raise_interrupt=False, rust_timeout=LOOK_MS, yield_on_timeout=True,
            force_polling=poll, poll_delay_ms=LOOK_MS // 2,
        )  # fmt: skip
        is_first = True
        try:
            while (found := await in_thread_until(stop, partial(_next_of, changes))) is not None:
                if found or is_first:
                    is_first = False
                    yield
        finally:
            changes.close()
        yield  # a folder went away before it could be watched
        await anyio.sleep(LOOK_MS / 1000)


def _next_of(changes: Iterator[R]) -> R | None:
    try:
        return next(changes, None)
    except FileNotFoundError:
        return None


def _that_are_there(folders: frozenset[Path]) -> list[Path]:
    return [folder for folder in folders if folder.is_dir()] or [Path()]


async def watch_nothing(folders: frozenset[Path]) -> AsyncGenerator[None, None]:
    """Never yields: the files are looked at when somebody asks for it."""
    await anyio.sleep_forever()
    yield


def watching(mode: WatchMode) -> Watch:
    """How to watch: ``on`` is told by the system, ``poll`` looks by itself (network mounts), ``off`` does not."""
    ways: dict[WatchMode, Watch] = {
        "on": watch_folders,
        "poll": partial(watch_folders, poll=True),
        "off": watch_nothing,
    }
    return ways[mode]


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
                folders = await self._folders()
                async with anyio.create_task_group() as watching:
                    watching.start_soon(self._watch, frozenset(folders))
                    while await self._folders() == folders:
                        await self._moved
                    watching.cancel_scope.cancel()

    async def _folders(self) -> dict[Path, int]:
        files = self.files
        return await self._in_thread(lambda: folders_of(files))

    async def _watch(self, folders: frozenset[Path]) -> None:
        while True:
            try:
                async with contextlib.aclosing(self.watch(folders)) as changes:
                    async for _ in changes:
                        await self._look()
                return
            except OSError as error:  # a folder went away before it was watched, or cannot be
                _logger.debug("cannot watch yet: %s", error)
                self._moved.set()
                await anyio.sleep(LOOK_MS / 1000)

    async def _look(self) -> None:
        """Something changed in a folder; a recording that grows there, or what is being applied, is no news."""
        self._moved.set()  # a folder may have gone, or come
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

    def adopt(self, plan: Plan, attempted: str) -> None:
        """A plan was applied beside the watching: its files are followed from now on."""
        self.revisions.running = plan.revision
        self.revisions.file = plan.content or plan.revision
        self.revisions.refused = None
        self.attempted = attempted
        self._take_files(plan.files)

    async def reload(self) -> None:
        """Applies the files as they are now, if they differ from what was tried last."""
        files = self.files
        if await self._in_thread(lambda: any(map(_is_half_written, files))):
            await self.clock.sleep_until_ns(self.clock.now_ns() + round(SETTLE_SECONDS * 1e9))
        self._current = await self._in_thread(partial(digest, files))
        if self._current == self.attempted:
            return
        try:
            plan = await self._planned()
            self.revisions.file = plan.content or plan.revision
            await self.engine.apply(plan)
        except GraphError as error:
            count = len(error.diagnostics)
            self._refuse(f"{count} finding{'s' if count > 1 else ''} in the file", error)
        except (FlowstreamError, OSError) as error:
            self._refuse(str(error), error)
        except Exception as error:
            _logger.exception("the files could not be applied")
            self._refuse(f"{type(error).__name__}: {error}", error)
        else:
            self.revisions.running = plan.revision
            self.revisions.refused = None
        # Only now: a cancelled attempt is tried again even if the newer save restored the older text.
        self.attempted = self._current

    async def _planned(self) -> Plan:
        """The plan of what the files hold, and in ``_current`` what that is.

        They are read once more when they turn out to be others than before: what was not known to belong to the graph
        may have been saved while it was read. Raises GraphError.
        """
        for _ in range(MOST_READS):
            files = self.files
            try:
                plan = await self._compiled()
            except GraphError:
                if self.files == files:
                    raise
            else:
                if self.files == files:
                    return plan
            self._current = await self._in_thread(partial(digest, self.files))
        return await self._compiled()

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

    def _refuse(self, reason: str, error: Exception) -> None:
        self.revisions.file = self._current
        self.revisions.refused = reason
        self.engine.tell(Refused(self._current, reason, error.diagnostics if isinstance(error, GraphError) else ()))


def folders_of(files: Iterable[str]) -> dict[Path, int]:
    """The folders to watch for files to be seen changing: theirs, and those of every link on the way to them.

    Each with what tells it from another of its name. For a folder that is not there it is the one in which it will
    appear.
    """
    folders: dict[Path, int] = {}
    for file in files:
        _add_folders(Path(file), folders, MOST_LINKS)
    return folders


def _add_folders(path: Path, folders: dict[Path, int], links_left: int) -> None:
    if not links_left:
        return
    for each in (path, *path.parents):
        if _add_folder(each, folders):
            break
    for part in (path, *path.parents):
        try:
            if not part.is_symlink():
                continue
            target = part.parent / os.readlink(part) / path.relative_to(part)
        except (OSError, ValueError):
            continue
        _add_folder(part.parent, folders)
        _add_folders(target, folders, links_left - 1)


def _add_folder(folder: Path, folders: dict[Path, int]) -> bool:
    try:
        if folder.is_dir():
            folders[folder] = folder.stat().st_ino
            return True
    except (OSError, ValueError):
        pass
    return False


def _is_half_written(file: str) -> bool:
    try:
        return Path(file).stat().st_size == 0
    except (OSError, ValueError):
        return True


def digest(files: Iterable[str], contents: Mapping[str, bytes] | None = None) -> str:
    """A digest of the content of the files, for a folder of the names of the Python files in it.

    One that is missing or cannot be read counts as empty. ``contents`` are what some were read to hold, which counts
    in the place of what they hold now.
    """
    total = hashlib.sha256()
    for file in files:
        path = Path(file)
        try:
            if contents is not None and file in contents:
                total.update(hashlib.sha256(contents[file]).digest())
            elif path.is_file():
                with path.open("rb") as content:
                    total.update(hashlib.file_digest(content, "sha256").digest())
            elif path.is_dir():
                total.update("/".join(sorted(each.name for each in path.glob("*.py"))).encode())
        except (OSError, ValueError):
            pass
        total.update(b"\0")
    return total.hexdigest()[:12]
