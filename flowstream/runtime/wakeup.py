"""Waking one waiting task, at the price of one loop future."""

from __future__ import annotations

import asyncio


class Wakeup:
    """A flag that one task waits for. Setting it twice wakes once; waiting takes the flag down.

    A bare future costs a third of an event object and nothing is handed over through it, so a cancelled waiter loses
    nothing.
    """

    __slots__ = ("_future", "_is_set")

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None
        self._is_set = False

    def set(self) -> None:
        """Wakes the waiting task, or the next one to wait. For the loop's thread."""
        future = self._future
        if future is None:
            self._is_set = True
        elif not future.done():
            future.set_result(None)

    async def wait(self) -> None:
        """Returns when set; one task at a time."""
        if self._is_set:
            self._is_set = False
            return
        self._future = asyncio.get_running_loop().create_future()
        try:
            await self._future
        finally:
            self._future = None
