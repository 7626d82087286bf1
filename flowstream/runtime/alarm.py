"""Waking at a time, not at the millisecond after it.

asyncio waits in whole milliseconds, rounded up (epoll_wait(2)): what is paced by it comes up to one late, and every
tenth of a fast stream two at once. Linux has timers that are files (timerfd_create(2)), which a loop can wait for.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import itertools
import os
import sys
import time
from typing import Any

_NONBLOCK, _CLOEXEC = os.O_NONBLOCK if sys.platform == "linux" else 0, getattr(os, "O_CLOEXEC", 0)
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME


class _Times(ctypes.Structure):
    """struct itimerspec, where ``long`` and ``time_t`` have 64 bits; elsewhere libraries differ."""

    _fields_ = (("every_s", ctypes.c_long), ("every_ns", ctypes.c_long), ("s", ctypes.c_long), ("ns", ctypes.c_long))


def has_alarms() -> bool:
    """Whether the system has such timers."""
    return sys.platform == "linux" and ctypes.sizeof(ctypes.c_long) == 8 and hasattr(_libc(), "timerfd_create")


def _libc() -> Any:
    return ctypes.PyDLL(None)  # these calls take no time, so that the interpreter need not be given up for them


class Alarm:
    """Wakes the tasks of one asyncio loop; open while any sleeps."""

    def __init__(self) -> None:
        self._libc = _libc()
        self._order = itertools.count()  # of those that are due together
        self._due: list[tuple[int, int, asyncio.Future[None]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fd = -1

    async def sleep_until_ns(self, now_ns: int) -> None:
        """Waits until the monotonic clock reads ``now_ns``; by asyncio where the process can open no more files.

        Raises RuntimeError while tasks of another loop sleep.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._open(loop)
        elif self._loop is not loop:
            raise RuntimeError("a clock is for one event loop at a time")
        if self._fd < 0:
            self._loop = None
            await asyncio.sleep(max(0, now_ns - time.monotonic_ns()) / 1e9)
            return
        entry = (now_ns, next(self._order), loop.create_future())
        heapq.heappush(self._due, entry)
        if self._due[0] is entry:
            self._set(now_ns)
        try:
            await entry[2]
        except BaseException:
            if entry in self._due:
                self._due.remove(entry)
                heapq.heapify(self._due)
            raise
        finally:
            if not self._due and self._loop is loop:  # else somebody who woke with this one has closed it
                self._close()

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, _NONBLOCK | _CLOEXEC)
        if self._fd >= 0:
            try:
                loop.add_reader(self._fd, self._ring)
            except (OSError, NotImplementedError):
                os.close(self._fd)
                self._fd = -1

    def _close(self) -> None:
        fd, loop = self._fd, self._loop
        self._fd, self._loop = -1, None
        assert loop is not None
        try:
            if not loop.is_closed():
                loop.remove_reader(fd)
        finally:
            os.close(fd)

    def _set(self, now_ns: int) -> None:
        s, ns = divmod(max(now_ns, 1), 1_000_000_000)
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(_Times(0, 0, s, ns)), None)

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was set anew meanwhile
            return
        now_ns = time.monotonic_ns()
        due = self._due
        while due and due[0][0] <= now_ns:
            future = heapq.heappop(due)[2]
            if not future.done():
                future.set_result(None)
        if due:
            self._set(due[0][0])
