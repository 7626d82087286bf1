"""Threads for blocking nodes: one for each instance, for its whole life.

Devices, FFmpeg and GPU contexts are bound to the thread that opened them. The threads are daemons: a call that never
returns cannot keep the process from ending.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from flowstream.runtime.clock import Clock

R = TypeVar("R")

_Job = tuple[Callable[..., Any], tuple[Any, ...], "asyncio.Future[Any] | None"]


class NodeThread:
    """A thread that runs the calls of one node in order. A round trip costs about 30 us of CPU."""

    def __init__(self, name: str, clock: Clock, on_error: Callable[[BaseException], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._clock = clock
        self._on_error = on_error
        self._ended: asyncio.Future[None] = self.loop.create_future()
        self._thread = threading.Thread(target=self._work, name=f"flowstream {name}", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[..., R], *args: Any) -> R:
        """Runs a call on the thread and gives what it returns. Cancelled, it leaves the call to itself."""
        future: asyncio.Future[Any] = self.loop.create_future()
        self._clock.hold()
        self._jobs.put((function, args, future))
        return cast("R", await future)

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Runs a call on the thread without waiting; what it raises goes to ``on_error``."""
        self._clock.hold()
        self._jobs.put((function, args, None))

    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.current_thread() is self._thread

    def end(self) -> None:
        """Lets the thread end after the calls that wait."""
        self._jobs.put(None)

    async def join(self, seconds: float) -> bool:
        """Waits for the end of the thread; false when it did not end in time."""
        done, _ = await asyncio.wait([self._ended], timeout=seconds)
        if done:
            self._thread.join()  # it has nothing left to do but return
        return bool(done)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, args, future = job
            result: Any = None
            error: BaseException | None = None
            try:
                result = function(*args)
            except BaseException as caught:  # noqa: BLE001 - it is raised in the task that waits
                error = caught
            try:
                self.loop.call_soon_threadsafe(self._settle, future, result, error)
            except RuntimeError:  # the loop was closed while a call hung
                return
            del job, function, args, future, result, error
        self.loop.call_soon_threadsafe(self._ended.set_result, None)

    def _settle(self, future: asyncio.Future[Any] | None, result: Any, error: BaseException | None) -> None:
        self._clock.release()
        if future is None:
            if error is not None:
                self._on_error(error)
        elif not future.done():
            if error is None:
                future.set_result(result)
            elif isinstance(error, StopIteration):
                future.set_exception(RuntimeError("a node's call raised StopIteration"))
            else:
                future.set_exception(error)
