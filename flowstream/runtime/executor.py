"""Threads for blocking nodes: one for each instance, for its whole life.

Devices, FFmpeg and GPU contexts are bound to the thread that opened them. The threads are daemons: a call that never
returns cannot keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from flowstream.runtime.clock import Clock

R = TypeVar("R")

Settled = Callable[[Any, BaseException | None], None]
"""Takes what a call returned, or what it raised; on the loop."""

_Call = tuple[Callable[..., Any], tuple[Any, ...]]


class _Bell:
    """Wakes a thread or a loop that waits on ``fd``.

    It rings without the GIL, so that whoever wakes finds it free. From a lock, or a queue made of one, it would wake
    while it is held and go back to sleep: twice as many switches.
    """

    def __init__(self, *, blocking: bool) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | (0 if blocking else os.EFD_NONBLOCK))

    def ring(self) -> None:
        os.eventfd_write(self.fd, 1)

    def hear(self) -> None:
        """Waits for a ring, unless made not to."""
        os.eventfd_read(self.fd)

    def close(self) -> None:
        os.close(self.fd)


class _SocketBell:
    """The same where there is no eventfd: outside Linux."""

    def __init__(self, *, blocking: bool) -> None:
        self._in, self._out = socket.socketpair()
        self._in.setblocking(blocking)
        self._out.setblocking(False)  # never full: it rings once for each time that it is heard
        self.fd = self._in.fileno()

    def ring(self) -> None:
        self._out.send(b"!")

    def hear(self) -> None:
        self._in.recv(1)

    def close(self) -> None:
        self._in.close()
        self._out.close()


def _bell(*, blocking: bool) -> _Bell | _SocketBell:
    return _Bell(blocking=blocking) if hasattr(os, "eventfd") else _SocketBell(blocking=blocking)


class _Calls:
    """Calls that one thread leaves for another to make."""

    def __init__(self, *, blocking: bool) -> None:
        self._bell = _bell(blocking=blocking)
        self.fd = self._bell.fd
        self._calls: deque[_Call] = deque()
        self._has_rung = False

    def leave(self, function: Callable[..., Any], *args: Any) -> None:
        """For the one thread that leaves calls here."""
        self._calls.append((function, args))
        if not self._has_rung:
            self._has_rung = True
            self._bell.ring()

    def take(self) -> list[_Call]:
        """What is there, in order; for the other thread. Waits for the bell, unless made not to."""
        self._bell.hear()
        self._has_rung = False  # before looking, so that whatever comes from now on rings again
        return self.rest()

    def close(self) -> None:
        """Nobody waits here any more."""
        self._bell.close()

    def rest(self) -> list[_Call]:
        """What is there although nobody rang."""
        return [self._calls.popleft() for _ in range(len(self._calls))]


class NodeThread:
    """A thread that runs the calls of one node in order."""

    def __init__(self, name: str, clock: Clock, on_error: Callable[[BaseException], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs = _Calls(blocking=True)  # for the thread
        self._news = _Calls(blocking=False)  # for the loop
        self._loop.add_reader(self._news.fd, self._hear)
        self._clock = clock
        self._on_error = on_error
        self._takes_calls = True
        self._is_ending = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, name=f"flowstream {name}", daemon=True)
        self._thread.start()

    def submit(self, settled: Settled, function: Callable[..., Any], *args: Any) -> None:
        """Runs a call on the thread, then ``settled`` on the loop. Raises RuntimeError once ``end`` was called."""
        if not self._takes_calls:
            raise RuntimeError("the node has ended")
        self._clock.hold()
        self._jobs.leave(self._do, settled, function, args)

    async def call(self, function: Callable[..., R], *args: Any) -> R:
        """Runs a call on the thread and gives what it returns. Cancelled, it leaves the call to itself.

        Raises what the call raises, and RuntimeError once ``end`` was called.
        """
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
        """Runs a call on the thread, unless it is ending, without waiting; what it raises goes to ``on_error``."""
        if self._takes_calls:
            self.submit(self._check, function, *args)

    def tell(self, function: Callable[..., None], *args: Any) -> None:
        """Runs a function on the loop, for code that runs on this thread; what it raises goes to ``on_error``."""
        self._news.leave(function, *args)

    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.current_thread() is self._thread

    def end(self) -> None:
        """Lets the thread end after the calls that wait; there are no others."""
        self._takes_calls = False
        self._jobs.leave(self._end)

    async def join(self, seconds: float) -> bool:
        """Waits for the end of the thread; false when it did not end in time."""
        done, _ = await asyncio.wait([self._ended], timeout=seconds)
        while done and self._thread.is_alive():  # noqa: ASYNC110 - it has nothing left to do but return
            await asyncio.sleep(0)
        return bool(done)

    # On the thread.

    def _work(self) -> None:
        while not self._is_ending:
            for function, args in self._jobs.take():
                function(*args)
                del function, args  # nothing is kept alive by a thread that waits
        with contextlib.suppress(RuntimeError):  # the loop was closed while a call hung
            self._loop.call_soon_threadsafe(self._finish)  # not by the news, which are closed then

    def _do(self, settled: Settled, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = function(*args)
        except BaseException as caught:  # noqa: BLE001 - it is told to whoever submitted the call
            error = caught
        self._news.leave(self._settle, settled, result, error)

    def _end(self) -> None:
        self._is_ending = True

    # On the loop.

    def _hear(self) -> None:
        self._obey(self._news.take())

    def _obey(self, news: list[_Call]) -> None:
        for function, args in news:
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
        self._loop.remove_reader(self._news.fd)
        self._obey(self._news.rest())
        self._news.close()
        self._jobs.close()
        self._ended.set_result(None)
