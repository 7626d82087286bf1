"""What a test or a node leaves behind: threads, tasks, sockets, files."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRACE_SECONDS = 2.0
"""A thread that was told to end may take this long; those of libraries are seen by their descriptors alone."""

_FOLDER = Path("/proc/self/fd")
_KINDS = ("socket:", "pipe:", "anon_inode:[eventpoll]")
_IDLE = "Trio thread "  # of a worker that trio keeps for the next call, for ten seconds
_SYSTEM = ("/proc/", "/dev/", "/sys/", "/usr/", "/lib")


@dataclass(frozen=True, slots=True)
class Open:
    """What a process has open at one moment."""

    threads: frozenset[threading.Thread]
    files: frozenset[tuple[int, str]]
    tasks: frozenset[int]

    @classmethod
    def now(cls) -> Open:
        """What is open now."""
        return cls(frozenset(threading.enumerate()), frozenset(_files()), frozenset(map(id, _tasks())))

    def left(self) -> list[str]:
        """What has been opened since and is still open, in words; waits a little for threads that are ending."""
        if not self._new_threads() and not self._new_files() and not self._new_tasks():
            return []
        for thread in self._new_threads():
            if thread is not threading.current_thread():
                thread.join(GRACE_SECONDS)
        gc.collect()
        deadline = time.monotonic() + GRACE_SECONDS
        while self._new_files() and time.monotonic() < deadline:
            time.sleep(0.005)  # what watches the file system closes what it has when its own thread comes to it
        return [
            *(f"thread {thread.name!r}" for thread in self._new_threads()),
            *(f"task {task.get_name()!r} of {task.get_coro()}" for task in self._new_tasks()),
            *(f"open {target} (descriptor {number})" for number, target in sorted(self._new_files())),
        ]

    def _new_threads(self) -> list[threading.Thread]:
        new = [thread for thread in threading.enumerate() if thread not in self.threads]
        return [thread for thread in new if not thread.name.startswith(_IDLE)]

    def _new_files(self) -> set[tuple[int, str]]:
        return _files() - self.files

    def _new_tasks(self) -> list[asyncio.Task[Any]]:
        return [task for task in _tasks() if id(task) not in self.tasks]


def _files() -> set[tuple[int, str]]:
    """Descriptors of sockets, pipes, loops and ordinary files; empty where the system does not tell."""
    found: set[tuple[int, str]] = set()
    if not _FOLDER.is_dir():
        return found
    for name in os.listdir(_FOLDER):
        try:
            target = os.readlink(_FOLDER / name)
        except FileNotFoundError:  # the one that listed the folder
            continue
        is_file = target.startswith("/") and not target.startswith(_SYSTEM) and ".so" not in target
        if is_file or target.startswith(_KINDS):
            found.add((int(name), target))
    return found


def _tasks() -> list[asyncio.Task[Any]]:
    """Tasks of all loops that have not come to their end."""
    known: Any = getattr(asyncio.tasks, "_scheduled_tasks", None)  # Python 3.12 and later
    if known is None:
        known = getattr(asyncio.tasks, "_all_tasks", ())
    return [task for task in list(known) if not task.done()]
