"""Waking waiting tasks, at the price of one loop future."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Wakeup:
    """A flag to wait for. Setting it wakes every task that waits, else the next one to wait; waking takes it down.

    A bare future costs a third of an event object and nothing is handed over through it, so a cancelled waiter loses
    nothing. For the thread of the loop on which it was made.

    ``called`` is called instead, at once, where it is given.
    """

    __slots__ = ("_is_set", "_loop", "_waiting", "called")

    def __init__(self) -> None:
        self.called: Callable[[], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []
        self._is_set = False

    def set(self) -> None:
        """Wakes."""
        if self.called is not None:
            self.called()
            return
        waiting = self._waiting
        self._is_set = True
        if waiting:
            self._waiting = []
            for future in waiting:
                if not future.done():  # cancelled meanwhile
                    future.set_result(None)
                    self._is_set = False

    def wait(self) -> asyncio.Future[None]:
        """To be awaited, once and at once; done when set."""
        future = self._loop.create_future()
        if self._is_set:
            self._is_set = False
            future.set_result(None)
            return future
        if self._waiting:
            self._waiting = [other for other in self._waiting if not other.done()]
        self._waiting.append(future)
        return future
