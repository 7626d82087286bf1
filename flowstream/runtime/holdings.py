"""Holdings: what nodes hold and pass to their successors at a reload: sockets, devices, viewers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import TaskGroup

from flowstream.node.context import Holding
from flowstream.runtime.clock import Clock
from flowstream.runtime.meter import Meter
from flowstream.runtime.watchdog import working_for

CLOSE_SECONDS = 5.0

Greeter = Callable[[str, Any, Callable[[], str]], None]
"""Is told of a holding: its key, its value, and what gives the id of its node."""


class _OpenHolding:
    """The context a holding is opened with."""

    def __init__(
        self, tasks: TaskGroup, log: logging.LoggerAdapter[logging.Logger], clock: Clock, meter: Meter
    ) -> None:
        self._tasks = tasks
        self._meter = meter
        self.log = log
        self.now_ns = clock.now_ns
        self.wallclock_ns = clock.wallclock_ns

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        with working_for(None):
            self._tasks.start_soon(self._run, function, args)

    async def _run(self, function: Callable[..., Coroutine[Any, Any, Any]], args: tuple[Any, ...]) -> None:
        await self._meter.along(function(*args))


@dataclass(slots=True, eq=False)
class _Entry:
    node: str
    holders: int = 0
    meter: Meter = field(default_factory=Meter)
    value: Any = None
    error: BaseException | None = None
    opened: anyio.Event = field(default_factory=anyio.Event)
    released: anyio.Event = field(default_factory=anyio.Event)
    closed: anyio.Event = field(default_factory=anyio.Event)


class Holdings:
    """All holdings of a graph. Each lives in a task of its own, so that it outlives the node that opened it.

    Greeters are called with the key and the value of each when it has been opened, before its node sees it, and with
    what gives the node's id, also after it was renamed.
    """

    def __init__(self, tasks: TaskGroup, clock: Clock, on_error: Callable[[str, BaseException], None]) -> None:
        self._tasks = tasks
        self._clock = clock
        self._on_error = on_error
        self.greeters: list[Greeter] = []
        self._entries: dict[tuple[str, str], _Entry] = {}

    @asynccontextmanager
    async def hold(
        self,
        node: str,
        key: str,
        open: Callable[[Holding], AbstractAsyncContextManager[Any]],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> AsyncIterator[Any]:
        """What the node holds under the key, opened if nobody holds it. Raises what opening it raised."""
        while (entry := self._entries.get((node, key))) is not None and entry.released.is_set():
            await entry.closed.wait()
        if entry is None:
            entry = self._entries[node, key] = _Entry(node)
            with working_for(None):
                self._tasks.start_soon(self._live, key, entry, open, log)
        entry.holders += 1
        try:
            await entry.opened.wait()
            if entry.error is not None:
                raise entry.error
            yield entry.value
        finally:
            entry.holders -= 1

    def has(self, node: str) -> bool:
        """Whether the node holds anything."""
        return any(holder == node for holder, _ in self._entries)

    def held(self, node: str, key: str) -> Any:
        """What a node holds under a key; None when that is not open."""
        entry = self._entries.get((node, key))
        return None if entry is None else entry.value

    def rename(self, renamed: Mapping[str, str]) -> None:
        """Nodes have other ids from now on and keep what they hold."""
        for entry in self._entries.values():
            entry.node = renamed.get(entry.node, entry.node)
        self._entries = {(entry.node, key): entry for (_, key), entry in self._entries.items()}

    def cpu_ns(self, node: str) -> int:
        """How long the tasks of what the node holds have held the loop."""
        return sum(entry.meter.ns for entry in list(self._entries.values()) if entry.node == node)

    async def release(self, keep: Callable[[str], bool]) -> None:
        """Closes what nobody holds, but for nodes that ``keep`` says may come back."""
        idle = [entry for entry in self._entries.values() if not entry.holders and not keep(entry.node)]
        for entry in idle:
            entry.released.set()
        for entry in idle:
            with anyio.move_on_after(CLOSE_SECONDS):
                await entry.closed.wait()

    async def _live(
        self,
        key: str,
        entry: _Entry,
        open: Callable[[Holding], AbstractAsyncContextManager[Any]],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                async with open(_OpenHolding(tasks, log, self._clock, entry.meter)) as entry.value:
                    for greet in self.greeters:
                        greet(key, entry.value, lambda: entry.node)
                    entry.opened.set()
                    await entry.released.wait()
                tasks.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - raised where it is held, or reported to the owner
            single = error.exceptions[0] if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1 else error
            if entry.opened.is_set():
                self._on_error(entry.node, single)
            entry.error = single
        finally:
            self._entries.pop((entry.node, key), None)
            entry.opened.set()
            entry.closed.set()
