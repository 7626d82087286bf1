"""Waking tasks that wait, many in one turn of the event loop.

On asyncio this goes past the event loop, for speed; on trio a woken task is on its list at once, and that is all.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context
from itertools import repeat
from time import perf_counter_ns
from typing import Any, NoReturn, cast

from flowstream.runtime.meter import EVERY, Meter

_Resume = Callable[[Any], None]

_NONE: Callable[[], None] = type(None)
_AT_ONCE = cast("Generator[Any, None, None]", iter(()))

MOST_IN_A_TURN = 16
"""How many tasks are resumed in one go, before others have their turn of the event loop."""


def is_on_trio() -> bool:
    """Whether the caller runs in trio's loop, not in asyncio's."""
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())


class Turns:
    """What the wakeups of one loop share. ``Turns()`` gives the kind of the loop that runs."""

    __slots__ = ()

    def __new__(cls) -> Turns:
        if cls is Turns:
            return object.__new__(_TrioTurns if is_on_trio() else _AsyncioTurns)
        return object.__new__(cls)

    def along(self, function: Callable[[], None]) -> None:
        """Calls a function, for code that the loop calls itself; who is woken by it goes on within this turn."""
        function()


class Wakeup:
    """A flag to await. Setting it wakes every task that waits, else the next one to wait; waking takes it down.

    Nothing is handed over through it, so a cancelled waiter loses nothing. For the thread of the loop on which it was
    made. ``called`` is called in place of waking, at once, where it is given. On asyncio, ``meter`` measures some of
    the steps of the tasks that are woken. ``Wakeup()`` gives the kind of the loop that runs.
    """

    __slots__ = ("called", "left", "meter")
    called: Callable[[], None] | None
    meter: Meter | None
    left: int  # to the step that is measured next

    def __new__(cls, turns: Turns | None = None) -> Wakeup:
        if cls is Wakeup:
            return object.__new__(_TrioWakeup if is_on_trio() else _AsyncioWakeup)
        return object.__new__(cls)

    def __init__(self, turns: Turns | None = None) -> None:
        raise NotImplementedError  # pragma: no cover - each kind has its own

    def set(self) -> None:
        """Wakes."""
        raise NotImplementedError  # pragma: no cover

    @property
    def is_awaited(self) -> bool:
        """Whether a task waits."""
        raise NotImplementedError  # pragma: no cover

    def __await__(self) -> Generator[Any, None, None]:
        raise NotImplementedError  # pragma: no cover


# --- asyncio --------------------------------------------------------------------------------------------------------


class _AsyncioTurns(Turns):
    """Resumes woken tasks within one turn of the event loop, with those that they wake in their turn.

    asyncio goes round once, past every socket and timer, for each link in a chain of tasks that wake one another; that
    is more than half of what a hop would cost.
    """

    __slots__ = ("_loop", "is_due", "woken")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.woken: deque[tuple[Context, _Resume, _AsyncioWakeup]] = deque()
        self.is_due = False  # whether a turn is coming in which what was woken goes on

    def become_due(self) -> None:
        """Has what was woken go on in the next turn of the event loop."""
        self.is_due = True
        self._loop.call_soon(self._run)

    def along(self, function: Callable[[], None]) -> None:
        if self.is_due:
            function()
            return
        self.is_due = True
        try:
            function()
        finally:
            self._run()

    def _run(self) -> None:
        woken = self.woken
        try:
            for _ in range(MOST_IN_A_TURN):
                if not woken:
                    break
                context, resume, wakeup = woken.popleft()
                wakeup.is_taken = False
                wakeup.left -= 1
                if wakeup.left or wakeup.meter is None:
                    context.run(resume, wakeup)
                else:
                    begun_ns = perf_counter_ns()
                    context.run(resume, wakeup)
                    wakeup.left = wakeup.meter.measured(perf_counter_ns() - begun_ns)
        finally:
            self.is_due = False
            if woken:
                self.become_due()


class _AsyncioWakeup(Wakeup):
    """Future-like to asyncio (``asyncio.isfuture``) for the first task that waits; further ones wait for futures.

    A wait runs no Python of its own but ``__await__`` and ``add_done_callback``: what it is awaited through is an
    iterator of C, ``result`` is a function of C until the task is cancelled, and without ``get_loop`` asyncio looks at
    ``_loop``.
    """

    __slots__ = (
        "_asyncio_future_blocking", "_cancelled", "_context", "_is_set", "_loop", "_others", "_resume", "_turns",
        "is_taken", "result",
    )  # fmt: skip

    def __init__(self, turns: Turns | None = None) -> None:
        self.called = self.meter = None
        self.left = EVERY
        self._turns = cast("_AsyncioTurns", turns or Turns())
        self._loop = asyncio.get_running_loop()
        self._is_set = False
        self.is_taken = False  # by a task that waits, until it goes on
        self._resume: _Resume | None = None  # of that task, until it is woken
        self._context: Context  # of that task, once one has waited
        self._cancelled: asyncio.CancelledError | None = None
        self._others: list[asyncio.Future[None]] = []
        self._asyncio_future_blocking = False
        self.result: Callable[[], None] = _NONE

    def set(self) -> None:
        """Wakes."""
        if self.called is not None:
            self.called()
            return
        resume = self._resume
        if resume is None:
            self._is_set = True
        else:  # as in ``_wake``: one call less for each payload
            self._resume = None
            turns = self._turns
            turns.woken.append((self._context, resume, self))
            if not turns.is_due:
                turns.become_due()
        if self._others:
            others, self._others = self._others, []
            for future in others:
                if not future.done():  # cancelled meanwhile
                    future.set_result(None)
                    self._is_set = False

    @property
    def is_awaited(self) -> bool:
        return self._resume is not None or any(not future.done() for future in self._others)

    def __await__(self) -> Generator[Any, None, None]:
        if self._is_set:
            self._is_set = False
            return _AT_ONCE
        if self.is_taken:
            self._others = [future for future in self._others if not future.done()]
            self._others.append(future := self._loop.create_future())
            return future.__await__()
        self.is_taken = True
        self._asyncio_future_blocking = True
        return repeat(self, 1)  # type: ignore[return-value] # an iterator does where nothing is sent

    def _wake(self, resume: _Resume) -> None:
        self._resume = None
        turns = self._turns
        turns.woken.append((self._context, resume, self))
        if not turns.is_due:
            turns.become_due()

    # What a task asks of a future.

    def add_done_callback(self, resume: _Resume, *, context: Context) -> None:
        self._resume, self._context = resume, context

    def cancel(self, msg: str | None = None) -> bool:
        if self._resume is None:
            return False
        self._cancelled = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self.result = self._raise_cancelled
        self._wake(self._resume)
        return True

    def done(self) -> bool:
        return self._resume is None

    def _raise_cancelled(self) -> NoReturn:
        self.result = _NONE
        cancelled, self._cancelled = self._cancelled, None
        assert cancelled is not None
        raise cancelled


# --- trio -----------------------------------------------------------------------------------------------------------


class _TrioTurns(Turns):
    """Nothing to share: trio resumes all that was woken in one turn."""

    __slots__ = ()


class _TrioWakeup(Wakeup):
    __slots__ = ("_is_set", "_lowlevel", "_waiting")

    def __init__(self, turns: Turns | None = None) -> None:
        import trio.lowlevel

        self.called = self.meter = None
        self._lowlevel = trio.lowlevel
        self._is_set = False
        self._waiting: dict[Any, None] = {}  # tasks

    def set(self) -> None:
        if self.called is not None:
            self.called()
        elif self._waiting:
            waiting, self._waiting = self._waiting, {}
            for task in waiting:
                self._lowlevel.reschedule(task)
        else:
            self._is_set = True

    @property
    def is_awaited(self) -> bool:
        return bool(self._waiting)

    def __await__(self) -> Generator[Any, None, None]:
        if self._is_set:
            self._is_set = False
            return
        task = self._lowlevel.current_task()
        self._waiting[task] = None

        def give_up(_: Any) -> Any:
            del self._waiting[task]
            return self._lowlevel.Abort.SUCCEEDED

        yield from self._lowlevel.wait_task_rescheduled(give_up).__await__()
