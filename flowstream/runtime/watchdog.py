"""Who keeps the event loop to itself: found from a thread that asks the loop for a sign and looks when none comes.

It looks at what the loop's task works for, never at the frames of the loop's thread: to read the locals of another
thread's frame corrupts memory in Python 3.11 when the garbage collector runs meanwhile and what it frees lets the frame
go on, and before 3.11.5 even to ask for the frames can hang (https://github.com/python/cpython/issues/106883).
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any, Protocol, cast

from flowstream.runtime.executor import this_loop
from flowstream.runtime.wakeup import is_on_trio

EVERY_SECONDS = 0.05
"""How often the loop is asked for a sign; a sign costs it one turn."""

HELD_SECONDS = 0.02
"""How late the sign may be before somebody is to blame."""

QUIET_SECONDS = 60.0
"""How long nothing more is said of the same node."""

Found = Callable[[Any, int], None]

_works_for: ContextVar[Callable[[], Any] | None] = ContextVar("flowstream_works_for", default=None)


def work_for(whom: Any) -> None:
    """This task, and those that it starts from now on, work for a node, or for none (None).

    What calls the loop makes by itself, of callbacks, are for nobody.
    """
    _works_for.set(_held_weakly(whom))


@contextmanager
def working_for(whom: Any) -> Iterator[None]:
    """This task works for another node, or for none, within the block; what it starts does for good."""
    token = _works_for.set(_held_weakly(whom))
    try:
        yield
    finally:
        _works_for.reset(token)


def _held_weakly(whom: Any) -> Callable[[], Any] | None:
    """Tasks of others begin with a copy of the context that they were started in, and keep it."""
    return None if whom is None else weakref.ref(whom)


class Watchdog:
    """Watches the loop that it is made on.

    ``found`` is called on the loop with whom the loop worked for and for how long that held it, in nanoseconds. A node
    that never lets go is not told of, since the loop cannot: whoever ends the process asks ``who``. ``visits`` are
    those whose code runs right now in what is no task of theirs, the innermost last.
    """

    def __init__(self, found: Found, visits: Sequence[Any] = ()) -> None:
        self._found = found
        self._visits = visits
        self._loop = this_loop()
        self._steps: _Steps = _TrioSteps() if is_on_trio() else _AsyncioSteps()
        self._sign = threading.Event()
        self._stopped = threading.Event()
        self._told: dict[int, float] = {}  # when, by the id of the object
        threading.Thread(target=self._watch, name="flowstream watchdog", daemon=True).start()

    def stop(self) -> None:
        """Tells of nobody any more, though ``who`` may still be asked; the thread ends by itself."""
        self._stopped.set()
        self._sign.set()

    def close(self) -> None:
        """After `stop`, on the loop."""
        self._steps.close()

    def who(self) -> Any | None:
        """Whom the loop works for right now; any thread."""
        if visits := list(self._visits):  # as they are now: the loop may be about to end one
            return visits[-1]
        context = self._steps.context()
        whom = None if context is None else context.get(_works_for)
        return None if whom is None else whom()

    def _watch(self) -> None:
        while not self._stopped.wait(EVERY_SECONDS):
            self._sign.clear()
            asked = time.perf_counter()
            try:
                self._loop.call_soon(self._sign.set)
            except RuntimeError:  # the loop is over
                return
            if self._sign.wait(HELD_SECONDS):
                continue
            node = self.who()
            while not self._sign.wait(1.0):
                if self._stopped.is_set():
                    return
            if node is not None and not self._stopped.is_set():
                self._tell(node, time.perf_counter() - asked)
            node = None  # it is kept by nobody who waits

    def _tell(self, node: Any, seconds: float) -> None:
        now = time.monotonic()
        if now - self._told.get(id(node), -QUIET_SECONDS) < QUIET_SECONDS:
            return
        self._told = {key: at for key, at in self._told.items() if now - at < QUIET_SECONDS}
        self._told[id(node)] = now
        try:
            self._loop.call_soon(lambda: self._found(node, round(seconds * 1e9)))
        except RuntimeError:  # the loop is over
            pass


class _Steps(Protocol):
    """What the loop on which it was made is in."""

    def context(self) -> Context | None:
        """That of the task which goes on right now; any thread."""

    def close(self) -> None:
        """On the loop."""


class _AsyncioSteps:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def context(self) -> Context | None:
        task = asyncio.current_task(self._loop)
        if task is None:
            return None
        if hasattr(task, "get_context"):
            return cast("Context", task.get_context())
        # Before Python 3.12 a task does not tell, but the garbage collector has to know.
        return next((each for each in gc.get_referents(task) if isinstance(each, Context)), None)

    def close(self) -> None:
        pass


class _TrioSteps:
    """An instrument (`trio.abc.Instrument`): trio tells of its current task on its own thread alone."""

    def __init__(self) -> None:
        import trio.lowlevel

        self._lowlevel = trio.lowlevel
        self._task: Any = self._lowlevel.current_task()
        self._lowlevel.add_instrument(cast("Any", self))

    def before_task_step(self, task: Any) -> None:
        self._task = task

    def after_task_step(self, task: Any) -> None:
        self._task = None

    def context(self) -> Context | None:
        task = self._task
        return None if task is None else cast("Context", task.context)

    def close(self) -> None:
        self._lowlevel.remove_instrument(cast("Any", self))
