"""The runtime as a node sees it: its clock, its edges, its requests, what it holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from flowstream.media.signals import KeyframeRequest
from flowstream.node.context import AsgiApp, EndOfInput, Holding, Origin
from flowstream.node.ports import Input, Output
from flowstream.runtime.channel import Channel, Feed
from flowstream.runtime.mounts import path_of
from flowstream.runtime.wakeup import Wakeup
from flowstream.runtime.watchdog import working_for

if TYPE_CHECKING:
    from flowstream.runtime.runner import Runner

P = TypeVar("P")
R = TypeVar("R")


class NodeContext:
    """The runtime as the node sees it; see flowstream.node.context.Context."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._graph = runner.graph
        self._latest: dict[str, Any] = {}
        self.log = runner.log
        self.now_ns = runner.graph.clock.now_ns
        self.wallclock_ns = runner.graph.clock.wallclock_ns
        self.sleep_until_ns = runner.graph.clock.sleep_until_ns
        self.emit = runner.emit_when_wired
        if runner.is_source:
            self.emit = runner.emit if runner.graph.is_live else runner.emit_ahead

    @property
    def name(self) -> str:
        return self._runner.planned.id

    @property
    def label(self) -> str:
        return self._runner.planned.label or self.name

    @property
    def is_live(self) -> bool:
        return self._graph.is_live

    @property
    def listen(self) -> tuple[str, int] | None:
        return self._graph.mounts.listen

    def media_ns(self) -> int:
        return max(self.now_ns() - self._graph.origin_ns, self._runner.from_ns)

    def ready(self) -> None:
        self._runner.set_ready()

    async def _receive(self, ports: tuple[str, ...]) -> tuple[Channel, Any]:
        runner = self._runner
        inbox = runner.inbox
        while (got := inbox.poll(ports)) is None:
            if inbox.ended(ports):
                raise EndOfInput
            await inbox.wakeup
        runner.took(*got)
        return got

    async def receive(self, port: Input[P]) -> P:
        return cast("P", (await self._receive((port.name,)))[1])

    def stream(self, port: Input[P]) -> AsyncIterator[P]:
        return _Stream(self._runner, port.name)

    def merge(self, *ports: Input[Any]) -> AsyncIterator[tuple[str, Any]]:
        return _Payloads(self._receive, ports, lambda channel: channel.port)

    def each(self, *ports: Input[Any]) -> AsyncIterator[tuple[Origin, Any]]:
        return _Payloads(self._receive, ports, _origin)

    def origins(self, port: Input[Any]) -> tuple[Origin, ...]:
        channels = self._runner.inbox.channels.values()
        found = (_origin(channel) for channel in channels if channel.port == port.name)
        return tuple(sorted(found, key=lambda origin: origin.index))

    def latest(self, port: Input[P]) -> P | None:
        while (got := self._runner.inbox.poll((port.name,))) is not None:
            self._latest[port.name] = got[1]
        return self._latest.get(port.name)

    def is_connected(self, port: Input[Any] | Output[Any]) -> bool:
        return port.name in self._runner.wired

    def request(self, port: Input[Any], signal: KeyframeRequest, *, index: int | None = None) -> None:
        self._runner.request(port.name, signal, index)

    def requests(self, port: Output[Any]) -> AsyncIterator[KeyframeRequest]:
        return self._runner.requests(port.name)

    async def in_thread(self, function: Callable[..., R], *args: Any) -> R:
        return await self._runner.in_thread(function, *args)

    @asynccontextmanager
    async def mount(self, app: AsgiApp, *, page: bool = False) -> AsyncIterator[str]:
        @wraps(app)
        async def at_work(scope: Any, receive: Any, send: Any) -> None:
            with working_for(self._runner):
                await app(scope, receive, send)

        with self._graph.mounts.mount(path_of(self.name), at_work, page=page) as mount:
            yield mount.path

    def hold(
        self, key: str, open: Callable[[Holding], AbstractAsyncContextManager[R]]
    ) -> AbstractAsyncContextManager[R]:
        return self._graph.holdings.hold(self.name, key, open, self.log)

    def report(self, **facts: str | int | float | None) -> None:
        self._runner.facts.update(facts)


class _Stream:
    """The payloads of one input; an iterator by hand costs two thirds of an async generator."""

    __slots__ = ("_feed", "_inbox", "_port", "_ports", "_runner")

    def __init__(self, runner: Runner, port: str) -> None:
        self._runner = runner
        self._inbox = runner.inbox
        self._port = port
        self._ports = (port,)
        self._feed: Feed | None = None  # of this input; the stream goes on while it is open

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> Any:
        inbox = self._inbox
        port = self._port
        while True:
            channel = inbox.only
            if channel is not None and channel.port == port:
                payload = channel.poll()
                if payload is not None:
                    break
            elif (got := inbox.poll(self._ports)) is not None:
                channel, payload = got
                break
            if self._feed is None or self._feed.closed:
                if inbox.ended(self._ports):
                    raise StopAsyncIteration
                self._feed = inbox.feed(port)
            await inbox.wakeup
        runner = self._runner
        if getattr(payload, "caps", None) is channel.caps:  # as in ``took``
            runner.received += 1
        else:
            runner.took(channel, payload)
        return payload


class _Payloads(Generic[R]):
    """The payloads of some inputs, each with what tells where it came from.

    An iterator by hand here too: a node that is cancelled leaves no generator behind that still has to be closed.
    """

    __slots__ = ("_ports", "_receive", "_where")

    def __init__(
        self,
        receive: Callable[[tuple[str, ...]], Awaitable[tuple[Channel, Any]]],
        ports: tuple[Input[Any], ...],
        where: Callable[[Channel], R],
    ) -> None:
        self._receive = receive
        self._ports = tuple(port.name for port in ports)
        self._where = where

    def __aiter__(self) -> _Payloads[R]:
        return self

    async def __anext__(self) -> tuple[R, Any]:
        try:
            channel, payload = await self._receive(self._ports)
        except EndOfInput:
            raise StopAsyncIteration from None
        return self._where(channel), payload


class Requests:
    """Requests that come up to one output of a node, the newest only."""

    __slots__ = ("_output", "_pending", "_wakeup")

    def __init__(self, output: str, pending: dict[str, KeyframeRequest], wakeup: Wakeup) -> None:
        self._output = output
        self._pending = pending
        self._wakeup = wakeup

    def __aiter__(self) -> Requests:
        return self

    async def __anext__(self) -> KeyframeRequest:
        while (signal := self._pending.pop(self._output, None)) is None:
            await self._wakeup
        return signal


def _origin(channel: Channel) -> Origin:
    return Origin(channel.port, channel.edge.index, channel.edge.producer)
