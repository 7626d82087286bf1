"""Threads for blocking nodes: one for each instance, for its whole life.

Devices, FFmpeg and GPU contexts are bound to the thread that opened them. The threads are daemons: a call that never
returns cannot keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import anyio
import anyio.lowlevel

from flowstream.runtime.clock import Clock
from flowstream.runtime.wakeup import Turns, Wakeup, is_on_trio

R = TypeVar("R")

Settled = Callable[[Any, BaseException | None], None]
"""Takes what a call returned, or what it raised; on the loop."""

GIVES_WAY_BY = 5
"""Steps of niceness: a thread that gives way gets a third of the time of one that does not, when both want all.

Not more: it holds Python's lock now and then, and others wait for it then.
"""

_Call = tuple[Callable[..., Any], tuple[Any, ...]]


class _Rings(Protocol):
    @property
    def ring(self) -> Callable[[], object]: ...
    @property
    def hear(self) -> Callable[[], object]: ...


class _Bell:
    """Wakes a thread or a loop that waits on ``fd``. It is closed with the last reference: somebody may yet ring.

    It rings without the GIL, so that whoever wakes finds it free. From a lock, or a queue made of one, it would wake
    while it is held and go back to sleep: twice as many switches.
    """

    fd = -1

    def __init__(self, *, blocking: bool) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | (0 if blocking else os.EFD_NONBLOCK))
        self.ring: Callable[[], object] = partial(os.eventfd_write, self.fd, 1)
        self.hear: Callable[[], object] = partial(os.eventfd_read, self.fd)  # waits for a ring, unless made not to

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class _SocketBell:
    """The same where there is no eventfd: outside Linux."""

    fd = -1

    def __init__(self, *, blocking: bool) -> None:
        self._in, self._out = socket.socketpair()
        self._in.setblocking(blocking)
        self._out.setblocking(False)  # never full: it rings once for each time that it is heard
        self.fd = self._in.fileno()

    def ring(self) -> None:
        self._out.send(b"!")

    def hear(self) -> None:
        self._in.recv(1)

    def __del__(self) -> None:
        if self.fd >= 0:
            self._in.close()
            self._out.close()


def _bell(*, blocking: bool) -> _Bell | _SocketBell:
    return _Bell(blocking=blocking) if hasattr(os, "eventfd") else _SocketBell(blocking=blocking)


class Loop(Protocol):
    """The event loop that runs, as threads need it."""

    def bell(self, heard: Callable[[], None], /) -> _Rings:
        """A bell whose ring has the loop call ``heard``, which hears it. One for each object."""
        ...

    def forget_bell(self) -> None:
        """It is not listened to any more."""

    def call_soon(self, function: Callable[[], None], /) -> None:
        """Calls a function on the loop; from any thread. Raises RuntimeError when the loop is closed."""


def this_loop() -> Loop:
    """The loop that the caller runs on."""
    return _TrioLoop() if is_on_trio() else _AsyncioLoop()


class _AsyncioLoop:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = -1  # of the bell

    def bell(self, heard: Callable[[], None]) -> _Rings:
        bell = _bell(blocking=False)
        self._fd = bell.fd
        self._loop.add_reader(bell.fd, heard)
        return bell

    def forget_bell(self) -> None:
        self._loop.remove_reader(self._fd)

    def call_soon(self, function: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(function)


class _TrioLoop:
    def __init__(self) -> None:
        import trio.lowlevel

        self._token = trio.lowlevel.current_trio_token()

    def bell(self, heard: Callable[[], None]) -> _Rings:
        return _TrioBell(lambda: self.call_soon(heard))

    def forget_bell(self) -> None:
        pass

    def call_soon(self, function: Callable[[], None]) -> None:
        self._token.run_sync_soon(function)


class _TrioBell:
    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop ended while a call hung: nobody hears
            self._ring()

    def hear(self) -> None:
        pass


class _Calls:
    """Calls that others leave for a thread to make; ``calls`` are those that are there, in order.

    Who appends to them sees to it that the bell is rung, unless it ``has_rung``.
    """

    def __init__(self, bell: _Rings) -> None:
        self.bell = bell
        self._ring, self.wait = bell.ring, bell.hear  # of C, in the usual case
        self.calls: deque[_Call] = deque()
        self.has_rung = False

    def leave(self, function: Callable[..., Any], *args: Any) -> None:
        """For those who leave calls here."""
        self.calls.append((function, args))
        if not self.has_rung:
            self.has_rung = True
            self._ring()

    def leave_after(self, bells: list[_Rings], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """For another thread that leaves a call here at the end of its job, and then rings ``bells``.

        With nothing between that and the wait for its next: who wakes needs the GIL, and would find that the thread has
        taken it again.
        """
        self.calls.append((function, args))
        if not self.has_rung:
            self.has_rung = True
            bells.append(self.bell)

    def hear(self) -> None:
        """Waits for the bell, unless made not to; for the thread that makes the calls."""
        self.wait()
        self.has_rung = False  # before looking, so that whatever comes from now on rings again

    def close(self) -> None:
        """Nobody waits here any more."""
        del self.bell, self._ring, self.wait


def give_way() -> None:
    """Makes the calling thread, and those that it starts from now on, less urgent than the others of the process.

    On Linux, where a thread has a priority of its own; elsewhere, and where it is not allowed, nothing happens.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            nice = os.getpriority(os.PRIO_PROCESS, 0)  # 0 is the thread, not the process, whatever POSIX says
            os.setpriority(os.PRIO_PROCESS, 0, min(nice + GIVES_WAY_BY, 19))


class NodeThread:
    """A thread that runs the calls of one node in order; with ``gives_way``, when others leave it the time."""

    hands_on: bool = True
    """Whether it and the threads of other nodes can leave one another calls."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        on_error: Callable[[BaseException], None],
        *,
        turns: Turns | None = None,
        gives_way: bool = False,
    ) -> None:
        self._gives_way = gives_way
        self._loop = this_loop()
        self._turns = turns or Turns()
        self.jobs = _Calls(_bell(blocking=True))  # for the thread
        self._news = _Calls(self._loop.bell(self._called))  # for the loop
        self._clock = clock
        self._on_error = on_error
        self._takes_calls = True
        self.bells: list[_Rings] = []  # to be rung by the thread before it waits
        self._is_ending = False
        self._ended = anyio.Event()
        self._cpu_clock: int | None = None  # of the thread, while it lives
        self._cpu_ns = 0
        self._thread = threading.Thread(target=self._work, name=f"flowstream {name}", daemon=True)
        self._thread.start()

    def submit(self, settled: Settled, function: Callable[..., Any], *args: Any) -> None:
        """Runs a call on the thread, then ``settled`` on the loop. Raises RuntimeError once ``end`` was called."""
        self.start(self._do, settled, function, args)

    def start(self, job: Callable[..., None], *args: Any) -> None:
        """Runs a job on the thread, which raises nothing and ends by ``settle``, or leaves another thread one.

        The clock is held until it is settled. Raises RuntimeError once ``end`` was called.
        """
        if not self._takes_calls:
            raise RuntimeError("the node has ended")
        self._clock.hold()
        self.jobs.leave(job, *args)

    def settle(self, settled: Settled, result: Any, error: BaseException | None) -> None:
        """Ends a job, for code that runs on this thread: the loop hears of it."""
        self.tell_after(self._settle, settled, result, error)

    def tell_after(self, function: Callable[..., None], *args: Any) -> None:
        """As ``tell``, but the loop is called when this job is over."""
        self._news.leave_after(self.bells, function, args)

    async def call(self, function: Callable[..., R], *args: Any) -> R:
        """Runs a call on the thread and gives what it returns. Cancelled, it leaves the call to itself.

        Raises what the call raises, and RuntimeError once ``end`` was called.
        """
        returned = Wakeup(self._turns)
        outcome: list[tuple[Any, BaseException | None]] = []

        def settled(result: Any, error: BaseException | None) -> None:
            outcome.append((result, error))
            returned.set()

        self.submit(settled, function, *args)
        await returned
        ((result, error),) = outcome
        if isinstance(error, StopIteration):
            raise RuntimeError("a node's call raised StopIteration")
        if error is not None:
            try:
                raise error
            finally:
                del error, outcome  # no cycle with this frame
        return cast("R", result)

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Runs a call on the thread, unless it is ending, without waiting; what it raises goes to ``on_error``."""
        if self._takes_calls:
            self.submit(self._check, function, *args)

    def tell(self, function: Callable[..., None], *args: Any) -> None:
        """Runs a function on the loop, for code that runs on this thread; what it raises goes to ``on_error``."""
        self._news.leave(function, *args)

    @property
    def cpu_ns(self) -> int:
        """Processor time that the thread has used, that of threads which libraries start not included; any thread."""
        if self._cpu_clock is not None:
            with contextlib.suppress(OSError):  # it has just ended
                return time.clock_gettime_ns(self._cpu_clock)
        return self._cpu_ns

    @property
    def is_alive(self) -> bool:
        """Whether the thread has not ended."""
        return self._thread.is_alive()

    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.current_thread() is self._thread

    def end(self) -> None:
        """Lets the thread end after the calls that wait; there are no others."""
        self._takes_calls = False
        self._clock.hold()  # what is left for the thread to do is work too
        self.jobs.leave(self._end)

    async def join(self, seconds: float) -> bool:
        """Waits for the end of the thread; false when it did not end in time."""
        if not self._ended.is_set():
            with anyio.move_on_after(seconds):
                await self._ended.wait()
        is_done = self._ended.is_set()
        while is_done and self._thread.is_alive():
            await anyio.lowlevel.checkpoint()
        return is_done

    # On the thread.

    def _work(self) -> None:
        if self._gives_way:
            give_way()
        with contextlib.suppress(AttributeError, OSError):  # where the system has no such clock
            self._cpu_clock = time.pthread_getcpuclockid(threading.get_ident())
        jobs, calls, bells, wait = self.jobs, self.jobs.calls, self.bells, self.jobs.wait
        while not self._is_ending:
            try:
                wait()
            except InterruptedError:  # the process was stopped and goes on: such a read is not begun anew by itself
                continue
            jobs.has_rung = False  # before looking
            while calls:
                function, args = calls.popleft()
                function(*args)
                del function, args  # nothing is kept alive by a thread that waits
                while bells:
                    bell = bells.pop()
                    bell.ring()
                    del bell  # not before: it may be closed with this
        del wait  # what a call has raised may keep this frame, and is not to keep the bell
        self._cpu_clock, self._cpu_ns = None, time.thread_time_ns()
        with contextlib.suppress(RuntimeError):  # the loop was closed while a call hung
            self._loop.call_soon(self._finish)  # not by the news, which are closed then

    def _do(self, settled: Settled, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = function(*args)
        except BaseException as caught:  # noqa: BLE001 - it is told to whoever submitted the call
            error = caught
        self.settle(settled, result, error)

    def _end(self) -> None:
        self._is_ending = True

    # On the loop.

    def _called(self) -> None:
        self._news.hear()
        self._turns.along(self._obey)

    def _obey(self) -> None:
        calls = self._news.calls
        for _ in range(len(calls)):
            function, args = calls.popleft()
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
        self._clock.release()
        self._loop.forget_bell()
        self._obey()
        self._news.close()
        self.jobs.close()
        self._ended.set()


class InlineThread(NodeThread):
    """Runs the calls on the event loop, one in each turn: for debugging, since every node then holds up all others."""

    hands_on = False

    def __init__(
        self, name: str, clock: Clock, on_error: Callable[[BaseException], None],
        at_work: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:  # fmt: skip
        """Each call is made within an ``at_work()``."""
        self._at_work = at_work
        self._loop = this_loop()
        self._turns = Turns()
        self._clock = clock
        self._on_error = on_error
        self._takes_calls = True
        self._ended = anyio.Event()
        self._cpu_clock = None
        self._cpu_ns = 0
        self._settled: tuple[Settled, Any, BaseException | None]  # between a job and its end

    @property
    def is_alive(self) -> bool:
        return not self._ended.is_set()

    def start(self, job: Callable[..., None], *args: Any) -> None:
        if not self._takes_calls:
            raise RuntimeError("the node has ended")
        self._loop.call_soon(lambda: self._run(job, args))

    def settle(self, settled: Settled, result: Any, error: BaseException | None) -> None:
        self._settled = settled, result, error

    def is_current(self) -> bool:
        return False

    def end(self) -> None:
        self._takes_calls = False
        self._loop.call_soon(self._ended.set)

    async def join(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._ended.wait()
        return self._ended.is_set()

    def _run(self, job: Callable[..., None], args: tuple[Any, ...]) -> None:
        begun_ns = time.perf_counter_ns()
        with self._at_work():
            job(*args)
        self._cpu_ns += time.perf_counter_ns() - begun_ns
        settled, result, error = self._settled
        del self._settled
        try:
            settled(result, error)
        except Exception as caught:  # noqa: BLE001 - as on a thread
            self._on_error(caught)
