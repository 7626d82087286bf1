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
import inspect
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from flowstream.media.caps import Caps
from flowstream.media.signals import KeyframeRequest
from flowstream.node.base import C, Node, Sink, Transform
from flowstream.node.config import is_live
from flowstream.node.context import Context
from flowstream.node.function import FunctionNode
from flowstream.node.ports import Emit, Input, Output
from flowstream.testing.context import FakeContext, Held, Mount, awaited
from flowstream.testing.fake_clock import FakeClock, IdleSelector
from flowstream.testing.script import Emission, Step, played

R = TypeVar("R")

CLOSE_ROUNDS = 1000


class Harness(Generic[C]):
    """One node, its fake context, and what came out of it.

    ``config`` is an object, or a mapping as a graph writes it. ``connected`` names the ports that have an edge
    (default: all but feedback inputs). With ``threads`` the node's blocking calls run on a real thread of its own;
    without, in place. Raises what the node raises; AssertionError when the node waits for what cannot come.

    ``emits`` holds everything it emitted, ``emitted_ns`` when, ``requests`` what it asked upstream as
    ``(input, signal)``, ``facts`` what it reported, ``mounts`` what it serves. ``emitted_at_end`` is how many it had
    emitted when its ``run`` ended or its ``finish`` returned.
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
        self.emitted_ns: list[int] = []
        self.emitted_at_end: int | None = None
        self.requests: list[tuple[str, KeyframeRequest]] = []
        self.facts: dict[str, str | int | float | None] = {}
        self.mounts: list[Mount] = []
        self._selector = IdleSelector()
        self.loop: asyncio.SelectorEventLoop = asyncio.SelectorEventLoop(self._selector)
        self._selector.is_busy = lambda: self._in_flight > 0
        self._selector.on_idle = self._idle
        self._executor = ThreadPoolExecutor(1, name) if threads else None
        self._in_flight = 0
        self._held: dict[str, Held] = {}
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

        Holdings go over; those that the successor does not take are closed. What ``snapshot`` gives is for the
        successor's ``restore`` when that knows its version.
        """
        node, task = self.node, self._task
        self._make(self._config(config))
        self._call(self.node.open)
        if self._lives_by_run:
            self.settle()
        left = self._end(node, task)
        if left is not None and left.version in getattr(self.node, "restores", ()):
            self._call(self.node.restore, left)  # type: ignore[attr-defined, unused-ignore]
        self._release(everything=False)

    # --- driving ----------------------------------------------------------------------------------------------------

    def push(self, payload: Any, port: str | Input[Any] | None = None, *, index: int = 0) -> list[Any]:
        """Gives one payload to an input (its name may be left out when there is one) and what came out of it.

        ``index`` says by which edge of an input that takes many.
        """
        name = self._input(port)
        before = len(self.emits)
        if not isinstance(payload, self.node_type.inputs[name].payloads):
            raise TypeError(f"input {name!r} takes {_named(self.node_type.inputs[name].payloads)}, not {payload!r}")
        if self.node_type.inputs[name].feedback:
            self.ctx.newest[name] = payload
        if self._lives_by_run:
            self.ctx.indexes.setdefault(name, set()).add(index)
            self.ctx.waiting[name].append((index, payload))
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
            self.emitted_at_end = len(self.emits)
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

    def advance(self, duration_ns: int) -> list[Any]:
        """Lets so much time pass, with everything that is due in it, and gives what came out."""
        before = len(self.emits)
        until_ns = self.clock.now_ns() + duration_ns
        if self._lives_by_run:
            self._start()
        self._drive(until_ns=until_ns)
        self.clock.step(until_ns - self.clock.now_ns())
        return self._payloads_since(before)

    def play(self, *steps: Step) -> list[Emission]:
        """Plays a script: lets time pass to each step in turn, takes it, and gives what came out meanwhile.

        Steps are ``Give``, ``End``, ``Request``, ``Reconfigure``, ``Replace`` and ``Expect``; their times count from
        the beginning of the script. Raises AssertionError for what an ``Expect`` did not find, ValueError for a step
        that stands after a later one.
        """
        return played(self, steps)

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
        self.reconfigure_to(self._config({**{n: getattr(old, n) for n in fields}, **changes}))

    def reconfigure_to(self, config: C) -> None:
        """Puts another configuration in place, of which only live fields may differ."""
        old = self.node.config
        self._call(self.node.accepts, config)
        self.node.config = config
        self._call(self.node.reconfigured, old)
        self.settle()

    def call_close(self) -> None:
        """Calls ``close`` of a node that was never opened, as after an ``open`` that failed at once."""
        self._call(self.node.close)

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
        task = self.loop.create_task(awaited(lambda: awaitable))
        self._drive(until_ns=None, enough=task.done)
        if not task.done():
            task.cancel()
            raise AssertionError(f"a call of {self.node_type.type_id} waits for something that never comes")
        return cast("R", task.result())

    def _give(self, emits: Iterable[Emit[Any]] | None) -> None:
        for emit in emits or ():
            self._check(emit)
            self._keep(emit)

    def _keep(self, emit: Emit[Any]) -> None:
        self.emits.append(emit)
        self.emitted_ns.append(self.clock.now_ns())

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
        self._keep(item)
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
        self.emitted_at_end = len(self.emits)
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

    def _end(self, node: Node[Any], task: asyncio.Task[None] | None) -> Any:
        """Ends an instance and closes it; gives the snapshot that it leaves, if it takes any."""
        if task is not None:
            for _ in range(CLOSE_ROUNDS):
                if task.done():
                    break
                task.cancel()
                self._drive()
            else:
                raise AssertionError(f"{self.node_type.type_id} does not end when it is cancelled")
        take = getattr(node, "snapshot", None)
        left = self._call(take) if take is not None else None
        self._call(node.close)
        return left

    def _release(self, *, everything: bool) -> None:
        tasks = [held.task for held in self._held.values() if held.task and (everything or not held.holders)]
        for held in list(self._held.values()):
            if everything or not held.holders:
                held.released.set()
        for task in tasks:
            self._wait_for(task)


async def _run(node: Node[Any], context: Context) -> None:
    """A node's life; what fails alone in a task group of it fails as itself, as in the runtime."""
    try:
        await node.run(context)
    except ExceptionGroup as group:
        error: Exception = group
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


def _drained(result: Any) -> Any:
    """A generator's items, made where the generator's body belongs: in the node's lane."""
    return list(result) if inspect.isgenerator(result) else result


def _named(classes: tuple[type[Any], ...]) -> str:
    return " or ".join(each.__name__ for each in classes)
