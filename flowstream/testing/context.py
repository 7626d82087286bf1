"""The runtime as the node under test sees it: everything that a context gives, kept for the test to look at."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flowstream.media.signals import KeyframeRequest
from flowstream.node.context import AsgiApp, EndOfInput, Holding, Origin
from flowstream.node.ports import Emit, Input, Output
from flowstream.testing.fake_clock import FakeClock

if TYPE_CHECKING:
    from flowstream.testing.harness import Harness

P = TypeVar("P")
R = TypeVar("R")


@dataclass(slots=True)
class Mount:
    """An ASGI application that the node serves."""

    path: str
    app: AsgiApp
    page: bool


@dataclass(slots=True, eq=False)
class Held:
    value: Any = None
    error: BaseException | None = None
    holders: int = 0
    task: asyncio.Task[None] | None = None
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)


class OpenHolding:
    """What a holding is opened with."""

    def __init__(self, context: FakeContext) -> None:
        self.log: logging.LoggerAdapter[logging.Logger] = context.log
        self.now_ns: Callable[[], int] = context.clock.now_ns
        self.wallclock_ns: Callable[[], int] = context.clock.wallclock_ns
        self.tasks: list[asyncio.Task[Any]] = []
        self._loop = context.loop

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Runs a task for as long as the holding lives."""
        self.tasks.append(self._loop.create_task(awaited(function, *args)))


async def awaited(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    return await function(*args)


class FakeContext:
    """The runtime as the node under test sees it; see flowstream.node.context.Context. Records what the node does."""

    def __init__(self, harness: Harness[Any], *, name: str, label: str, listen: tuple[str, int] | None) -> None:
        self._harness = harness
        self.clock: FakeClock = harness.clock
        self.loop: asyncio.SelectorEventLoop = harness.loop
        self.name = name
        self.label: str = label or name
        self.listen = listen
        self.is_live = True
        self.is_ready: bool = False
        logger = logging.getLogger("flowstream.node")
        self.log: logging.LoggerAdapter[logging.Logger] = logging.LoggerAdapter(logger, {"node": name})
        self.now_ns: Callable[[], int] = harness.clock.now_ns
        self.wallclock_ns: Callable[[], int] = harness.clock.wallclock_ns
        self.media_ns: Callable[[], int] = harness.clock.media_ns
        self.indexes: dict[str, set[int]] = {}
        self.waiting: dict[str, deque[tuple[int, Any]]] = {name: deque() for name in harness.node_type.inputs}
        self.ended: set[str] = set()
        self.news: asyncio.Event = asyncio.Event()
        self.newest: dict[str, Any] = {}
        self.pending: dict[str, deque[KeyframeRequest]] = {}
        self.asked: asyncio.Event = asyncio.Event()

    async def sleep_until_ns(self, now_ns: int) -> None:
        """Returns when the harness's clock shows ``now_ns``."""
        await self.clock.sleep_until_ns(now_ns)

    def ready(self) -> None:
        """The node's own resources are open."""
        self.is_ready = True

    async def _receive(self, *names: str) -> tuple[Origin, Any]:
        while True:
            for name in names:
                if self.waiting[name]:
                    index, payload = self.waiting[name].popleft()
                    self._harness._note_caps(self._harness.node, name, payload)
                    return self._origin(name, index), payload
            if self.ended.issuperset(names):
                raise EndOfInput
            self.news.clear()
            await self.news.wait()

    async def receive(self, port: Input[P]) -> P:
        """The next payload of an input."""
        return cast("P", (await self._receive(port.name))[1])

    async def stream(self, port: Input[P]) -> AsyncIterator[P]:
        """The payloads of an input, to its end."""
        while True:
            try:
                payload = await self.receive(port)
            except EndOfInput:
                return
            yield payload

    async def merge(self, *ports: Input[Any]) -> AsyncIterator[tuple[str, Any]]:
        """Payloads of several inputs as they come."""
        names = tuple(port.name for port in ports)
        while True:
            try:
                origin, payload = await self._receive(*names)
            except EndOfInput:
                return
            yield origin.port, payload

    async def each(self, *ports: Input[Any]) -> AsyncIterator[tuple[Origin, Any]]:
        """Payloads of several inputs as they come, and where they come from."""
        names = tuple(port.name for port in ports)
        while True:
            try:
                got = await self._receive(*names)
            except EndOfInput:
                return
            yield got

    def origins(self, port: Input[Any]) -> tuple[Origin, ...]:
        """The edges of an input: those by which something was pushed, the first one if it is connected."""
        known = self.indexes.get(port.name, set())
        if self.is_connected(port):
            known = known | {0}
        return tuple(self._origin(port.name, index) for index in sorted(known))

    @staticmethod
    def _origin(name: str, index: int) -> Origin:
        return Origin(name, index, f"{name}-{index}")

    def latest(self, port: Input[P]) -> P | None:
        """The newest payload of a feedback input."""
        return cast("P | None", self.newest.get(port.name))

    def is_connected(self, port: Input[Any] | Output[Any]) -> bool:
        """Whether the test says that an edge is attached."""
        return port.name in self._harness.connected

    async def emit(self, item: Emit[Any]) -> None:
        """Keeps the payload; waits when the test has seen as many as it wanted."""
        await self._harness._emitted(item)

    def request(self, port: Input[Any], signal: KeyframeRequest, *, index: int | None = None) -> None:
        """Keeps the request."""
        self._harness.requests.append((port.name, signal))

    async def requests(self, port: Output[Any]) -> AsyncIterator[KeyframeRequest]:
        """Requests that the test sends to an output."""
        pending = self.pending.setdefault(port.name, deque(maxlen=1))
        while True:
            while pending:
                yield pending.popleft()
            self.asked.clear()
            await self.asked.wait()

    async def in_thread(self, function: Callable[..., R], *args: Any) -> R:
        """Runs it on the node's thread, or in place where the test has none."""
        return await self._harness._in_thread(function, *args)

    @asynccontextmanager
    async def mount(self, app: AsgiApp, *, page: bool = False) -> AsyncIterator[str]:
        """Keeps the application."""
        mount = Mount(f"/{self.name}/", app, page)
        self._harness.mounts.append(mount)
        try:
            yield mount.path
        finally:
            self._harness.mounts.remove(mount)

    @asynccontextmanager
    async def hold(
        self, key: str, open: Callable[[Holding], AbstractAsyncContextManager[R]]
    ) -> AsyncIterator[R]:  # fmt: skip
        """Opens it once for the key; a successor gets the same object."""
        held = self._harness._held.get(key)
        if held is None:
            held = self._harness._held[key] = Held()
            held.task = self.loop.create_task(self._live(key, held, open))
        held.holders += 1
        try:
            await held.opened.wait()
            if held.error is not None:
                raise held.error
            yield cast("R", held.value)
        finally:
            held.holders -= 1

    async def _live(
        self, key: str, held: Held, open: Callable[[Holding], AbstractAsyncContextManager[Any]]
    ) -> None:  # fmt: skip
        holding = OpenHolding(self)
        try:
            async with open(holding) as held.value:
                held.opened.set()
                await held.released.wait()
        except Exception as error:
            held.error = error
            if held.opened.is_set():
                raise
        finally:
            held.opened.set()
            self._harness._held.pop(key, None)
            for task in holding.tasks:
                task.cancel()
            await asyncio.gather(*holding.tasks, return_exceptions=True)

    def report(self, **facts: str | int | float | None) -> None:
        """Keeps the facts."""
        self._harness.facts.update(facts)
