"""What happens to a run, for a program: as callbacks, and as something to iterate over."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio

from flowstream.runtime.events import Event

E = TypeVar("E")

_logger = logging.getLogger("flowstream.api")


@dataclass(frozen=True, slots=True)
class EventsMissed:
    """Whoever iterates over events was too slow: ``count`` of them, which came before the next one, are lost."""

    count: int


class Events:
    """The events of a run from the moment that this was asked for; ends when the run does.

    At most ``limit`` wait; then the oldest are lost, and an `EventsMissed` says how many.
    """

    def __init__(self, limit: int, is_over: bool) -> None:
        self._waiting: deque[Event] = deque()
        self._limit = limit
        self._missed = 0
        self._is_over = is_over
        self._changed = anyio.Event()

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event | EventsMissed:
        while not self._waiting:
            if self._is_over:
                raise StopAsyncIteration
            self._changed = anyio.Event()
            await self._changed.wait()
        return self._next()

    def _next(self) -> Event | EventsMissed:
        """The next of those that wait. Raises IndexError when there is none."""
        if self._missed:
            missed, self._missed = self._missed, 0
            return EventsMissed(missed)
        return self._waiting.popleft()

    def _take(self, event: Event) -> None:
        if len(self._waiting) >= self._limit:
            self._waiting.popleft()
            self._missed += 1
        self._waiting.append(event)
        self._changed.set()

    def _end(self) -> None:
        self._is_over = True
        self._changed.set()


class Dispatch:
    """Hands the events of one run to whoever asked for them."""

    def __init__(self) -> None:
        self._iterators: weakref.WeakSet[Events] = weakref.WeakSet()
        self._callbacks: list[tuple[type[Any], Callable[[Any], object]]] = []
        self._is_over = False

    def iterate(self, limit: int) -> Events:
        """The events from now on."""
        made = Events(limit, self._is_over)
        self._iterators.add(made)
        return made

    def call(self, kind: type[E], callback: Callable[[E], object]) -> Callable[[], None]:
        """Calls back for each event of a kind from now on; gives what ends that."""
        entry = (kind, callback)
        self._callbacks.append(entry)

        def forget() -> None:
            self._callbacks = [each for each in self._callbacks if each is not entry]

        return forget

    def tell(self, event: Event) -> None:
        """Something happened. A callback that raises is told in the log, and the others are called all the same."""
        for kind, callback in self._callbacks:
            if isinstance(event, kind):
                try:
                    callback(event)
                except Exception:
                    _logger.exception("a callback for %s failed", type(event).__name__)
        for each in list(self._iterators):
            each._take(event)

    def end(self) -> None:
        """Nothing more will happen."""
        self._is_over = True
        for each in list(self._iterators):
            each._end()
