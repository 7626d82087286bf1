"""Drives one node on a script of inputs, without the engine and without waiting: its clock jumps.

A test is a plain function::

    with Harness(Throttle, {"max_fps": 15}) as throttle:
        assert throttle.push(first) == [first]
        assert throttle.push(second) == []

    with Harness(TestPattern, {"size": "160x90"}) as pattern:
        frames = pattern.run(emissions=30)
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import itertools
import logging
import selectors
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from flowstream.media.caps import Caps
from flowstream.media.signals import KeyframeRequest
from flowstream.node.base import C, Node, Sink, Transform
from flowstream.node.config import is_live
from flowstream.node.context import AsgiApp, Context, EndOfInput, Holding
from flowstream.node.function import FunctionNode
from flowstream.node.ports import Emit, Input, Output

P = TypeVar("P")
R = TypeVar("R")

START_NS = 1_000_000_000_000
WALLCLOCK_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
CLOSE_ROUNDS = 1000


class FakeClock:
    """Stands still until told otherwise. ``start_ns`` is the first now; media time began then."""

    def __init__(self, start_ns: int = START_NS, wallclock_ns: int = WALLCLOCK_NS) -> None:
        self._start_ns = start_ns
        self._wallclock_ns = wallclock_ns
        self._now_ns = start_ns
        self._count = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ns(self) -> int:
        """The monotonic clock."""
        return self._now_ns

    def wallclock_ns(self) -> int:
        """UTC, since 1970."""
        return self._wallclock_ns + self._now_ns - self._start_ns

    def media_ns(self) -> int:
        """The graph's running time."""
        return self._now_ns - self._start_ns

    def step(self, duration_ns: int) -> None:
        """Lets time pass without waking anybody: what a slow call would take. Raises ValueError for a step back."""
        if duration_ns < 0:
            raise ValueError(f"time does not go back by {-duration_ns} ns")
        self._now_ns += duration_ns

    async def sleep_until_ns(self, now_ns: int) -> None:
        """Waits until the harness has moved the clock there."""
        if now_ns > self._now_ns:
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._sleepers, (now_ns, next(self._count), woken))
            await woken

    def jump(self, until_ns: int | None) -> bool:
        """Moves to the next sleeper due by ``until_ns`` (None: whenever) and wakes it; whether there was one."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        if not self._sleepers or (until_ns is not None and self._sleepers[0][0] > until_ns):
            return False
        due_ns, _, woken = heapq.heappop(self._sleepers)
        self._now_ns = max(self._now_ns, due_ns)
        woken.set_result(None)
        return True


@dataclass(slots=True)
class Mount:
    """An ASGI application that the node serves."""

    path: str
    app: AsgiApp
    page: bool


@dataclass(slots=True, eq=False)
class _Held:
    value: Any = None
    error: BaseException | None = None
    holders: int = 0
    task: asyncio.Task[None] | None = None
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)


class _IdleSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type, unused-ignore]
    """Tells when the loop would wait although no thread is at work."""

    def __init__(self) -> None:
        super().__init__()
        self.is_busy: Callable[[], bool] = lambda: False
        self.on_idle: Callable[[], bool] = lambda: False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Ready events; instead of waiting idly, lets the harness go on."""
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if not self.is_busy() and self.on_idle():
            return []
        return super().select(timeout)


class _OpenHolding:
    """What a holding is opened with."""

    def __init__(self, context: FakeContext) -> None:
        self.log = context.log
        self.now_ns = context.clock.now_ns
        self.wallclock_ns = context.clock.wallclock_ns
        self.tasks: list[asyncio.Task[Any]] = []
        self._loop = context.loop

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Runs a task for as long as the holding lives."""
        self.tasks.append(self._loop.create_task(_awaited(function, *args)))


async def _awaited(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
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
        self.waiting: dict[str, deque[Any]] = {name: deque() for name in harness.node_type.inputs}
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

    async def _receive(self, *names: str) -> tuple[str, Any]:
        while True:
            for name in names:
                if self.waiting[name]:
                    payload = self.waiting[name].popleft()
                    self._harness._note_caps(self._harness.node, name, payload)
                    return name, payload
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
                got = await self._receive(*names)
            except EndOfInput:
                return
            yield got

    def latest(self, port: Input[P]) -> P | None:
        """The newest payload of a feedback input."""
        return cast("P | None", self.newest.get(port.name))

    def is_connected(self, port: Input[Any] | Output[Any]) -> bool:
        """Whether the test says that an edge is attached."""
        return port.name in self._harness.connected

    async def emit(self, item: Emit[Any]) -> None:
        """Keeps the payload; waits when the test has seen as many as it wanted."""
        await self._harness._emitted(item)

    def request(self, port: Input[Any], signal: KeyframeRequest) -> None:
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
            held = self._harness._held[key] = _Held()
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
        self, key: str, held: _Held, open: Callable[[Holding], AbstractAsyncContextManager[Any]]
    ) -> None:  # fmt: skip
        holding = _OpenHolding(self)
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


class Harness(Generic[C]):
    """One node, its fake context, and what came out of it.

    ``config`` is an object, or a mapping as a graph writes it. ``connected`` names the ports that have an edge
    (default: all but feedback inputs). With ``threads`` the node's blocking calls run on a real thread of its own;
    without, in place. Raises what the node raises; AssertionError when the node waits for what cannot come.

    ``emits`` holds everything it emitted, ``requests`` what it asked upstream as ``(input, signal)``, ``facts`` what
    it reported, ``mounts`` what it serves.
    """

    def __init__(
        self,
        node_type: type[Node[C]] | FunctionNode[..., Any],
        config: C | Mapping[str, Any] | None = None,
        *,
        name: str = "node",
        label: str = "",
        connected: Collection[str] | None = None,
        threads: bool = False,
        clock: FakeClock | None = None,
        listen: tuple[str, int] | None = None,
    ) -> None:
        self.node_type: type[Node[C]] = node_type.node_type if isinstance(node_type, FunctionNode) else node_type
        checked = self._config(config)
        self.clock: FakeClock = clock or FakeClock()
        ports = [*self.node_type.outputs, *(n for n, port in self.node_type.inputs.items() if not port.feedback)]
        self.connected: frozenset[str] = frozenset(ports if connected is None else connected)
        self.emits: list[Emit[Any]] = []
        self.requests: list[tuple[str, KeyframeRequest]] = []
        self.facts: dict[str, str | int | float | None] = {}
        self.mounts: list[Mount] = []
        self._selector = _IdleSelector()
        self.loop: asyncio.SelectorEventLoop = asyncio.SelectorEventLoop(self._selector)
        self._selector.is_busy = lambda: self._in_flight > 0
        self._selector.on_idle = self._idle
        self._executor = ThreadPoolExecutor(1, name) if threads else None
        self._in_flight = 0
        self._held: dict[str, _Held] = {}
        self._caps: dict[str, Caps] = {}
        self._stop: asyncio.Future[None] | None = None
        self._until_ns: int | None = 0
        self._enough: Callable[[], bool] = lambda: False
        self._gate: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._names = {"name": name, "label": label}
        self._listen = listen
        self._is_open = False
        self._make(checked)

    @property
    def holdings(self) -> tuple[str, ...]:
        """Keys of what is held open."""
        return tuple(self._held)

    @property
    def is_running(self) -> bool:
        """Whether the node's ``run`` has begun and not come to its end."""
        return self._task is not None and not self._task.done()

    # --- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Opens the node. A node that lives by ``run`` is started by ``run``, ``push`` or ``settle``."""
        self._is_open = True
        self._call(self.node.open)

    def close(self) -> None:
        """Ends the node, closes it and what it held, and gives back loop and thread. May be called again."""
        if self.loop.is_closed():
            return
        try:
            self._end_node()
            self._release(everything=True)
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self._drive()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            if self._executor is not None:
                self._executor.shutdown()

    def replace(self, config: C | Mapping[str, Any] | None = None) -> None:
        """What a reload does that replaces the node: the successor opens, then the old one ends.

        Holdings go over; those that the successor does not take are closed.
        """
        node, task = self.node, self._task
        self._make(self._config(config))
        self._call(self.node.open)
        if self._lives_by_run:
            self.settle()
        self._end(node, task)
        self._release(everything=False)

    # --- driving ----------------------------------------------------------------------------------------------------

    def push(self, payload: Any, port: str | Input[Any] | None = None) -> list[Any]:
        """Gives one payload to an input (its name may be left out when there is one) and what came out of it."""
        name = self._input(port)
        before = len(self.emits)
        if not isinstance(payload, self.node_type.inputs[name].payloads):
            raise TypeError(f"input {name!r} takes {_named(self.node_type.inputs[name].payloads)}, not {payload!r}")
        if self.node_type.inputs[name].feedback:
            self.ctx.newest[name] = payload
        if self._lives_by_run:
            self.ctx.waiting[name].append(payload)
            self.ctx.news.set()
            self.settle()
        else:
            self._note_caps(self.node, name, payload)
            if (handler := self.node_type.handlers.get(name)) is not None:  # feedback may have none
                self._give(self._call(getattr(self.node, handler), payload))
        return self._payloads_since(before)

    def end(self, port: str | Input[Any]) -> None:
        """Ends one input of a node that lives by ``run``."""
        self.ctx.ended.add(self._input(port))
        self.ctx.news.set()
        self.settle()

    def finish(self) -> list[Any]:
        """Ends all inputs, lets the node finish, and gives what came out of it.

        Raises AssertionError when a node that lives by ``run`` does not come to its end.
        """
        before = len(self.emits)
        if self._lives_by_run:
            self.ctx.ended.update(self.node_type.inputs)
            self.ctx.news.set()
            self.settle()
            if self._task is not None:
                self._drive(until_ns=None)
                if not self._task.done():
                    raise AssertionError(f"{self.node_type.type_id} goes on although its inputs have ended")
        else:
            self._give(self._call(cast("Transform[Any] | Sink[Any]", self.node).finish))
        return self._payloads_since(before)

    def run(self, *, emissions: int | None = None, duration_ns: int | None = None) -> list[Any]:
        """Lets a node that lives by ``run`` go on: for so many emissions, so long, or to its end.

        Time jumps. Gives what came out. Raises AssertionError when ``emissions`` do not come.
        """
        before = len(self.emits)
        self._start()
        until_ns = None if duration_ns is None else self.clock.now_ns() + duration_ns
        wanted = None if emissions is None else before + emissions
        self._drive(until_ns=until_ns, enough=lambda: wanted is not None and len(self.emits) >= wanted)
        came = len(self.emits) - before
        if emissions is not None and duration_ns is None and came < emissions:
            state = "came to its end" if not self.is_running else "waits"
            raise AssertionError(f"{self.node_type.type_id} {state} after {came} of {emissions} emissions")
        if until_ns is not None and self.clock.now_ns() < until_ns and self.is_running and wanted is None:
            self.clock.step(until_ns - self.clock.now_ns())
        return self._payloads_since(before)

    def settle(self) -> list[Any]:
        """Lets the node do all it can do now, without time passing, and gives what came out."""
        before = len(self.emits)
        if self._lives_by_run:
            self._start()
        self._drive(until_ns=self.clock.now_ns())
        return self._payloads_since(before)

    def request(self, output: str | Output[Any], signal: KeyframeRequest | None = None) -> None:
        """Somebody downstream asks something of an output."""
        name = output if isinstance(output, str) else output.name
        if name not in self.node_type.outputs:
            raise AssertionError(f"{self.node_type.type_id} has no output {name!r}")
        asked = signal or KeyframeRequest()
        if name in self.ctx.pending:
            self.ctx.pending[name].append(asked)
            self.ctx.asked.set()
            self.settle()
        else:
            self._call(self.node.requested, name, asked)

    def reconfigure(self, **changes: Any) -> None:
        """Changes live fields, written as in a graph. Raises AssertionError for a field that is not live."""
        fields = self.node_type.config_class.model_fields
        for name in changes:
            if name not in fields or not is_live(fields[name]):
                raise AssertionError(f"{name!r} is not a live field of {self.node_type.type_id}")
        old = self.node.config
        new = self._config({**{n: getattr(old, n) for n in fields}, **changes})
        self._call(self.node.accepts, new)
        self.node.config = new
        self._call(self.node.reconfigured, old)
        self.settle()

    def payloads(self, output: str | Output[Any] | None = None) -> list[Any]:
        """All payloads so far, of one output or of all."""
        name = output.name if isinstance(output, Output) else output
        return [emit.payload for emit in self.emits if name is None or emit.output.name == name]

    # --- inside -----------------------------------------------------------------------------------------------------

    @property
    def _lives_by_run(self) -> bool:
        return not issubclass(self.node_type, (Transform, Sink))

    def _config(self, config: C | Mapping[str, Any] | None) -> C:
        if isinstance(config, Mapping):
            written = {name: value for name, value in config.items() if value is not ...}
            return cast("C", self.node_type.config_class.model_validate(written))
        return cast("C", self.node_type.config_class()) if config is None else config

    def _make(self, config: C) -> None:
        self.node: Node[C] = self.node_type(config)
        self.ctx: FakeContext = FakeContext(
            self, name=self._names["name"], label=self._names["label"], listen=self._listen
        )
        self.node.ctx = self.ctx
        self._task = None
        self._caps.clear()

    def _input(self, port: str | Input[Any] | None) -> str:
        inputs = self.node_type.inputs
        if port is None:
            names = [name for name, each in inputs.items() if not each.feedback] or list(inputs)
            if len(names) != 1:
                raise AssertionError(f"{self.node_type.type_id} has inputs {', '.join(names) or 'none'}; name the port")
            return names[0]
        name = port if isinstance(port, str) else port.name
        if name not in inputs:
            raise AssertionError(f"{self.node_type.type_id} has no input {name!r}")
        return name

    def _payloads_since(self, count: int) -> list[Any]:
        return [emit.payload for emit in self.emits[count:]]

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Runs a hook as the engine would: on the node's thread if it has one, awaiting what is awaitable."""
        if self._executor is not None and self.node_type.thread and not inspect.iscoroutinefunction(function):
            return self._executor.submit(lambda: _drained(function(*args))).result()
        result = function(*args)
        return self._wait_for(result) if inspect.isawaitable(result) else _drained(result)

    def _wait_for(self, awaitable: Awaitable[R]) -> R:
        task = self.loop.create_task(_awaited(lambda: awaitable))
        self._drive(until_ns=None, enough=task.done)
        if not task.done():
            task.cancel()
            raise AssertionError(f"a call of {self.node_type.type_id} waits for something that never comes")
        return cast("R", task.result())

    def _give(self, emits: Iterable[Emit[Any]] | None) -> None:
        for emit in emits or ():
            self._check(emit)
            self.emits.append(emit)

    def _check(self, emit: Emit[Any]) -> None:
        output = emit.output
        if self.node_type.outputs.get(output.name) is not output:
            raise TypeError(f"{self.node_type.type_id} emitted to {output!r}, which is not one of its outputs")
        if not isinstance(emit.payload, output.payloads):
            raise TypeError(f"output {output.name!r} gives {_named(output.payloads)}, not {emit.payload!r}")

    def _note_caps(self, node: Node[Any], name: str, payload: Any) -> None:
        caps = getattr(payload, "caps", None)
        if caps is None or caps == self._caps.get(name):
            return
        self.node_type.inputs[name].require(
            caps, taker=f"{self.ctx.name}.{name}", giver="the test", is_change=name in self._caps
        )
        self._caps[name] = caps
        self._call(node.caps_changed, name, caps)

    async def _emitted(self, item: Emit[Any]) -> None:
        self._check(item)
        self.emits.append(item)
        await asyncio.sleep(0)
        while self._enough():
            if self._stop is not None and not self._stop.done():
                self._stop.set_result(None)
            if self._gate is None or self._gate.done():
                self._gate = self.loop.create_future()
            await asyncio.shield(self._gate)

    async def _in_thread(self, function: Callable[..., R], *args: Any) -> R:
        if self._executor is None:
            await asyncio.sleep(0)
            return function(*args)
        self._in_flight += 1
        try:
            return await self.loop.run_in_executor(self._executor, function, *args)
        finally:
            self._in_flight -= 1

    def _start(self) -> None:
        if self._task is None:
            if not self._is_open:
                raise AssertionError("open the harness first: with Harness(...) as node:")
            self._task = self.loop.create_task(_run(self.node, self.ctx))
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._stop is not None and not self._stop.done() and task is self._task:
            self._stop.set_result(None)

    def _drive(self, *, until_ns: int | None = 0, enough: Callable[[], bool] = lambda: False) -> None:
        self._stop = self.loop.create_future()
        self._until_ns, self._enough = until_ns, enough
        if self._gate is not None and not self._gate.done():
            self._gate.set_result(None)
        try:
            self.loop.run_until_complete(self._stop)
        finally:
            self._stop = None
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    def _idle(self) -> bool:
        if self._stop is None or self._stop.done():
            return False
        if self._enough() or not self.clock.jump(self._until_ns):
            self._stop.set_result(None)
        return True

    def _end_node(self) -> None:
        task, self._task = self._task, None
        if self._is_open:
            self._is_open = False
            self._end(self.node, task)

    def _end(self, node: Node[Any], task: asyncio.Task[None] | None) -> None:
        if task is not None:
            for _ in range(CLOSE_ROUNDS):
                if task.done():
                    break
                task.cancel()
                self._drive()
            else:
                raise AssertionError(f"{self.node_type.type_id} does not end when it is cancelled")
        self._call(node.close)

    def _release(self, *, everything: bool) -> None:
        tasks = [held.task for held in self._held.values() if held.task and (everything or not held.holders)]
        for held in list(self._held.values()):
            if everything or not held.holders:
                held.released.set()
        for task in tasks:
            self._wait_for(task)


async def _run(node: Node[Any], context: Context) -> None:
    await node.run(context)


def _drained(result: Any) -> Any:
    """A generator's items, made where the generator's body belongs: in the node's lane."""
    return list(result) if inspect.isgenerator(result) else result


def _named(classes: tuple[type[Any], ...]) -> str:
    return " or ".join(each.__name__ for each in classes)


__all__ = ["FakeClock", "FakeContext", "Harness", "Mount"]
