"""Threads for blocking nodes: one for each instance, for its whole life.

Devices, FFmpeg and GPU contexts are bound to the thread that opened them. The threads are daemons: a call that never
returns cannot keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from flowstream.runtime.clock import Clock

R = TypeVar("R")

Settled = Callable[[Any, BaseException | None], None]
"""Takes what a call returned, or what it raised; on the loop."""

_Job = tuple[Settled, Callable[..., Any], tuple[Any, ...]]


class NodeThread:
    """A thread that runs the calls of one node in order.

    It rings the loop by an eventfd of its own: asyncio's way in from other threads, a socket pair, costs 10 us more.
    """

    def __init__(self, name: str, clock: Clock, on_error: Callable[[BaseException], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._told: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._has_rung = False
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._loop.add_reader(self._bell, self._hear)
        self._clock = clock
        self._on_error = on_error
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, name=f"flowstream {name}", daemon=True)
        self._thread.start()

    def submit(self, settled: Settled, function: Callable[..., Any], *args: Any) -> None:
        """Runs a call on the thread, then ``settled`` on the loop."""
        self._clock.hold()
        self._jobs.put((settled, function, args))

    async def call(self, function: Callable[..., R], *args: Any) -> R:
        """Runs a call on the thread and gives what it returns. Cancelled, it leaves the call to itself."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def settled(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            elif isinstance(error, StopIteration):
                future.set_exception(RuntimeError("a node's call raised StopIteration"))
            else:
                future.set_exception(error)

        self.submit(settled, function, *args)
        return cast("R", await future)

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Runs a call on the thread without waiting; what it raises goes to ``on_error``."""
        self.submit(self._check, function, *args)

    def tell(self, function: Callable[..., None], *args: Any) -> None:
        """Runs a function on the loop, for code that runs on this thread; what it raises goes to ``on_error``."""
        self._told.append((function, args))
        if not self._has_rung:
            self._has_rung = True
            os.eventfd_write(self._bell, 1)

    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.current_thread() is self._thread

    def end(self) -> None:
        """Lets the thread end after the calls that wait."""
        self._jobs.put(None)

    async def join(self, seconds: float) -> bool:
        """Waits for the end of the thread; false when it did not end in time."""
        done, _ = await asyncio.wait([self._ended], timeout=seconds)
        while done and self._thread.is_alive():  # noqa: ASYNC110 - it has nothing left to do but return
            await asyncio.sleep(0)
        return bool(done)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            settled, function, args = job
            result: Any = None
            error: BaseException | None = None
            try:
                result = function(*args)
            except BaseException as caught:  # noqa: BLE001 - it is told to whoever submitted the call
                error = caught
            self.tell(self._settle, settled, result, error)
            del job, settled, function, args, result, error  # nothing is kept alive by a thread that waits
        with contextlib.suppress(RuntimeError):  # the loop was closed while a call hung
            self._loop.call_soon_threadsafe(self._finish)  # not by the bell, which is closed then

    def _hear(self) -> None:
        os.eventfd_read(self._bell)
        self._has_rung = False  # before looking, so that whatever is told from now on rings again
        self._obey()

    def _obey(self) -> None:
        for _ in range(len(self._told)):
            function, args = self._told.popleft()
            try:
                function(*args)
            except Exception as error:  # noqa: BLE001 - the others are still to be heard
                self._on_error(error)

    def _settle(self, settled: Settled, result: Any, error: BaseException | None) -> None:
        self._clock.release()
        settled(result, error)

    def _check(self, _: Any, error: BaseException | None) -> None:
        if error is not None:
            self._on_error(error)

    def _finish(self) -> None:
        self._loop.remove_reader(self._bell)
        os.close(self._bell)
        self._obey()
        self._ended.set_result(None)
