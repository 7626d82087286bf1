"""One node's life: open, ready, run, drain, close; its lane, its thread, its ports."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, cast

import anyio
import anyio.to_thread

from flowstream.errors import FlowstreamError, NodeError
from flowstream.graph.plan import PlannedNode
from flowstream.media.frames import VideoFrame
from flowstream.media.signals import KeyframeRequest
from flowstream.node.base import Node, Sink, Snapshot, Source, Transform
from flowstream.node.config import Config
from flowstream.node.ports import Emit
from flowstream.node.registry import import_needs
from flowstream.runtime.channel import Channel, Feed, Inbox, Outlet, wait_for_room
from flowstream.runtime.clock import Clock
from flowstream.runtime.events import CallLeftBehind, Listener
from flowstream.runtime.executor import InlineThread, NodeThread
from flowstream.runtime.holdings import Holdings
from flowstream.runtime.lane import ThreadLane
from flowstream.runtime.meter import Meter
from flowstream.runtime.mounts import Mounts
from flowstream.runtime.node_context import NodeContext, Requests
from flowstream.runtime.wakeup import Turns, Wakeup, is_on_trio
from flowstream.runtime.watchdog import work_for, working_for

P = TypeVar("P")
R = TypeVar("R")

State = Literal["starting", "ready", "running", "restarting", "ended", "failed", "stopped"]

CLOSE_SECONDS = 5.0
"""How long a node that must end may take for it: a call on its thread that has not returned then is left behind."""

MOST_LEFT_BEHIND = 3
"""How many threads of one node may hang in calls that never return before it is not started anew."""

HANDOVER_SECONDS = 1.0
"""How long, in a live graph, what a replaced node gives last may hold up what its successor gives."""

DRAIN_SECONDS = 10.0
"""How long nodes may take to finish what they have."""

_logger = logging.getLogger("flowstream.node")


class NodeLog(logging.LoggerAdapter[logging.Logger]):
    """Names the node in every line."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        runner = (self.extra or {})["runner"]
        assert isinstance(runner, Runner)
        node = runner.planned.id
        kwargs["extra"] = {**(kwargs.get("extra") or {}), "node": node}
        return f"{node}: {msg}", kwargs


class LeftBehindError(FlowstreamError):
    """Raised when a node is not started because calls of its earlier instances hang."""


class Graph:
    """What the nodes of one graph share."""

    def __init__(
        self, clock: Clock, mounts: Mounts, holdings: Holdings, origin_ns: int, is_live: bool,
        tell: Listener = lambda event: None, is_inline: bool = False,
    ) -> None:  # fmt: skip
        self.clock = clock
        self.mounts = mounts
        self.holdings = holdings
        self.origin_ns = origin_ns
        self.is_live = is_live
        self.turns = Turns()
        self.tell = tell
        self.is_inline = is_inline
        self.visits: list[Runner] = []
        """Whose code runs on the loop right now in what is no task of theirs, the innermost last."""
        self._left_behind: dict[str, list[NodeThread]] = {}

    @contextmanager
    def visited_by(self, runner: Runner) -> Iterator[None]:
        """The code of a node runs within the block, and nobody waits for anything."""
        self.visits.append(runner)
        try:
            yield
        finally:
            self.visits.pop()

    def thread(self, runner: Runner) -> NodeThread:
        """A thread for a node; not on one when everything runs inline.

        One that works on pictures gives way to the event loop, to sound and to devices.

        Raises LeftBehindError when too many threads of its earlier instances still hang.
        """
        node, on_error = runner.planned.id, runner.fail
        gives_way = works_on_pictures(runner.planned.node_type)
        if self.is_inline:
            return InlineThread(node, self.clock, on_error, lambda: self.visited_by(runner))
        if (count := len(self._hanging(node))) >= MOST_LEFT_BEHIND:
            raise LeftBehindError(
                f"{count} earlier calls of it have not returned, so it gets no further thread",
                hint="see to the device or the library that hangs, then restart flowstream",
            )
        return NodeThread(node, self.clock, on_error, turns=self.turns, gives_way=gives_way)

    def leave_behind(self, node: str, thread: NodeThread) -> None:
        """A call did not return in time."""
        hanging = self._hanging(node)
        hanging.append(thread)
        self.tell(CallLeftBehind(node, round(CLOSE_SECONDS * 1e9), len(hanging), MOST_LEFT_BEHIND))

    def _hanging(self, node: str) -> list[NodeThread]:
        hanging = self._left_behind.setdefault(node, [])
        hanging[:] = [thread for thread in hanging if thread.is_alive]
        return hanging


class Runner:
    """One instance of a node, from the making of its object to its end. ``error`` is what ended it, if anything."""

    def __init__(
        self,
        planned: PlannedNode,
        wired: frozenset[str],
        graph: Graph,
        on_exit: Callable[[Runner], None],
        predecessor: Runner | None = None,
    ) -> None:
        self.planned = planned
        self.opened = planned.config  # what this instance begins with, whatever changes while it lives
        self.wired = wired  # the ports that the plan connects; their channels come when the node is ready
        self.graph = graph
        self.state: State = "starting"
        self.error: Exception | None = None
        self.facts: dict[str, str | int | float | None] = {}
        self.node = planned.node_type(planned.config)
        self.inbox = Inbox(graph.turns)
        self.outlets = {
            name: Outlet(name, port.payloads, self._requested) for name, port in planned.node_type.outputs.items()
        }
        self._by_port = {port: self.outlets[name] for name, port in planned.node_type.outputs.items()}
        self.received = 0
        self.log = NodeLog(_logger, {"runner": self})
        self.ready_in_ns: int | None = None  # how long the node took to open
        self.from_ns = 0  # the earliest media time at which it begins: where what it follows on stopped
        self.reached_ns = 0  # the media time at which what it gave ends, for a source that goes at its own pace
        self.is_ready = anyio.Event()
        self.go = anyio.Event()
        self.is_retired = False  # whether it has no place in the graph any more
        self.is_succeeded = False  # whether another instance wants what this one leaves
        self.left: Snapshot | None = None
        self.has_left = anyio.Event()
        self._predecessor = (
            predecessor if predecessor is not None and _hands_over(predecessor.node, self.node) else None
        )
        self.done = anyio.Event()
        self._on_exit = on_exit
        self._scope = anyio.CancelScope()
        self._thread: NodeThread | None = None
        self._opening_ns = 0
        self._meter = Meter()
        self._lane = anyio.Lock(fast_acquire=True)  # or each payload of an async handler takes a turn of the loop
        self._pending_requests: dict[str, KeyframeRequest] = {}
        self._request_wakeups: dict[str, Wakeup] = {}
        self._has_run = base_run(planned.node_type)
        self.node.ctx = NodeContext(self)

    @property
    def is_source(self) -> bool:
        """Whether the node has no media inputs."""
        return issubclass(self.planned.node_type, Source)

    @property
    def is_over(self) -> bool:
        """Whether the node has come to its end."""
        return self.done.is_set()

    @property
    def cpu_ns(self) -> int:
        """Processor time that the node has used: on its thread, and by its tasks and its holdings on the loop.

        Threads that libraries start are not counted. Any thread.
        """
        thread_ns = self._thread.cpu_ns if self._thread is not None else 0
        return self._meter.ns + thread_ns + self.held_cpu_ns

    @property
    def held_cpu_ns(self) -> int:
        """The part of it that what the node holds has used; earlier instances held it too. Any thread."""
        return self.graph.holdings.cpu_ns(self.planned.id)

    # --- life -------------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """The whole life; never raises but for cancellation from outside."""
        work_for(self)
        try:
            with self._scope:
                if self.is_source or is_on_trio():  # woken by clocks and devices, or by trio
                    await self._meter.along(self._open_and_run())
                else:
                    self.inbox.wakeup.meter = self._meter
                    await self._open()
                    await self._run()  # with as few frames as can be on the way to the node: each is felt at every hop
                    self.state = "ended"
        except Exception as error:  # noqa: BLE001 - kept as the node's failure
            self.error = _single(error)
        finally:
            if self.is_retired:  # nothing more comes, and a successor's payloads need not wait for the close
                self.close_outlets()
            with anyio.CancelScope(shield=True):
                await self._close()
            if self.error is not None:
                self.state = "failed"
            elif self.state != "ended":
                self.state = "stopped"
            self.is_ready.set()
            self.has_left.set()
            self.done.set()
            self._on_exit(self)

    async def _open_and_run(self) -> None:
        await self._open()
        await self._run()
        self.state = "ended"

    async def _open(self) -> None:
        node_type = self.planned.node_type
        if node_type.needs:
            self.graph.clock.hold()
            try:
                await anyio.to_thread.run_sync(import_needs, node_type)
            finally:
                self.graph.clock.release()
        if node_type.thread or (issubclass(node_type, Source) and node_type.capture is not Source.capture):
            self._thread = self.graph.thread(self)
        self._opening_ns = self.graph.clock.now_ns()
        await self._call(self.node.open)
        if self.is_source or not self._has_run:
            self.set_ready()
            await self.go.wait()
            await self._take_over()
        self.state = "running"

    def _run(self) -> Coroutine[Any, Any, None]:
        if not self._has_run:
            return self._serve()
        if self._predecessor is not None and not self.is_source:
            return self._run_and_take_over()
        return self.node.run(self.node.ctx)

    async def _run_and_take_over(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._take_over)
            await self.node.run(self.node.ctx)
            tasks.cancel_scope.cancel()

    def set_ready(self) -> None:
        """The node's own resources are open."""
        if not self.is_ready.is_set():
            self.ready_in_ns = self.graph.clock.now_ns() - self._opening_ns
            self.state = "ready"
            self.is_ready.set()

    async def _take_over(self) -> None:
        """Gives the node what the instance that it replaces has left; waits for that, within limits."""
        old = self._predecessor
        if old is None:
            return
        await self.go.wait()
        with anyio.move_on_after(HANDOVER_SECONDS if self.graph.is_live else DRAIN_SECONDS):
            await old.has_left.wait()
        self._predecessor, left = None, old.left
        if left is None:
            if not old.has_left.is_set():
                self.log.warning("the replaced instance did not finish in time; its state is lost")
        elif left.version not in self.node.restores:
            known = ", ".join(map(str, self.node.restores)) or "none"
            self.log.info("the state of the replaced instance is dropped: version %d, known: %s", left.version, known)
        else:
            try:
                await self._call(self.node.restore, left)
            except Exception:
                self.log.exception("the state of the replaced instance is dropped: it could not be restored")

    def stop(self) -> None:
        """Ends the node now: its life is cancelled and it is closed."""
        self._scope.cancel()

    def fail(self, error: BaseException) -> None:
        """Ends the node because of something that did not happen in its own task."""
        if self.error is None and isinstance(error, Exception):
            self.error = error
        self.stop()

    async def _close(self) -> None:
        with anyio.move_on_after(CLOSE_SECONDS) as scope:
            try:
                if self.is_succeeded:
                    await self._leave()
                await self._call(self.node.close)
            except Exception as error:  # noqa: BLE001
                if self.error is None:
                    self.error = error
            finally:  # also when close() hangs: the thread then ends when the call returns
                if self._thread is not None:
                    self._thread.end()
            if self._thread is not None:
                await self._thread.join(CLOSE_SECONDS)
        if scope.cancelled_caught:
            self.log.error("a call did not return within %g s; its thread is left behind", CLOSE_SECONDS)
            if self._thread is not None:
                self.graph.leave_behind(self.planned.id, self._thread)

    async def _leave(self) -> None:
        """Keeps what the successor is to begin with."""
        try:
            self.left = await self._call(self.node.snapshot)
        except Exception:
            self.log.exception("its state is lost: no snapshot could be taken")
        self.has_left.set()

    # --- the lane ---------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        node, thread = self.node, self._thread
        handlers = {port: getattr(node, method) for port, method in node.handlers.items()}
        if thread is not None and not any(inspect.iscoroutinefunction(handler) for handler in handlers.values()):
            await ThreadLane(
                self.inbox, handlers, self._by_port, thread,
                caps_changed=node.caps_changed, took=self._take_for_thread, count=self._count,
                now_ns=self.graph.clock.now_ns, offer=self.offer, emit=self.emit,
            ).run()  # fmt: skip
        else:
            await self._serve_here(handlers)
        finish = cast("Transform[Any] | Sink[Any]", node).finish
        tail = await self._call(lambda: list(finish() or ()))
        for emit in tail:
            await self.emit(emit)

    async def _serve_here(self, handlers: dict[str, Callable[[Any], Any]]) -> None:
        inbox = self.inbox
        is_async = any(inspect.iscoroutinefunction(handler) for handler in handlers.values())
        while True:
            got = inbox.poll(handlers)
            if got is None:
                if inbox.ended(handlers):
                    return
                await inbox.wakeup
                continue
            channel, payload = got
            handler = handlers[channel.port]
            if is_async:
                async with self._lane:
                    self.took(channel, payload)
                    result = handler(payload)
                    if inspect.isawaitable(result):
                        await result
            else:
                self.took(channel, payload)
                for emit in handler(payload) or ():
                    await self.emit(emit)

    def _take_for_thread(self, channel: Channel, payload: Any) -> Any:
        self.received += 1
        return None if getattr(payload, "caps", None) is channel.caps else self.caps_of(channel, payload)

    def _count(self, number: int) -> None:
        self.received += number

    def took(self, channel: Channel, payload: Any) -> None:
        """The node takes a payload on the loop: counts it and tells of new caps."""
        self.received += 1
        caps = getattr(payload, "caps", None)
        if caps is not channel.caps and (new := self.caps_of(channel, payload)) is not None:
            self.node.caps_changed(channel.port, new)

    def caps_of(self, channel: Channel, payload: Any) -> Any:
        """The payload's caps when they differ from those before it on the channel, else None.

        Raises NegotiationError, with the edge, for caps that the input does not take.
        """
        caps = getattr(payload, "caps", None)
        if caps is channel.caps:
            return None
        if caps == channel.caps:
            channel.caps = caps  # the next ones are likely to have the same object
            return None
        edge = channel.edge
        self.planned.node_type.inputs[channel.port].require(
            caps, taker=edge.name, giver=f"{edge.producer}.{edge.output}", is_change=channel.caps is not None
        )
        channel.caps = caps
        return caps

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Runs a hook in the node's lane: on its thread if it has one, awaiting what is awaitable."""
        if self._thread is not None and not inspect.iscoroutinefunction(function):
            return await self._thread.call(function, *args)
        async with self._lane:
            result = function(*args)
            return await result if inspect.isawaitable(result) else result

    async def accepts(self, config: Config) -> None:
        """Raises ValueError when the running node cannot take these live values in place."""
        with working_for(self):
            await self._call(self.node.accepts, config)

    async def reconfigure(self, planned: PlannedNode) -> None:
        """Gives the node new live values. Raises what the node raises; the values then stay as they were."""
        if self._thread is not None and not inspect.iscoroutinefunction(self.node.reconfigured):
            values = _Values(self.node, planned.config, lambda error: self.on_loop(lambda: self.fail(error)))
            try:
                await self._thread.call(values.take)
            except BaseException:
                if not values.withdraw():
                    self._thread.post(values.undo)
                raise
        else:
            async with self._lane:
                old = self.node.config
                self.node.config = planned.config
                try:
                    with working_for(self):
                        result = self.node.reconfigured(old)
                        if inspect.isawaitable(result):
                            await result
                except BaseException:
                    self.node.config = old
                    raise
        self.planned = planned

    # --- requests ---------------------------------------------------------------------------------------------------

    def _requested(self, output: str, signal: KeyframeRequest) -> None:
        if self.is_over:
            return
        if self._has_run:  # it may ask later
            self._pending_requests[output] = signal
        if output in self._request_wakeups:
            self._request_wakeups[output].set()
        elif not self.is_ready.is_set():
            return
        elif self._thread is not None:
            self._thread.post(self.node.requested, output, signal)
        else:
            try:
                with self.graph.visited_by(self):
                    self.node.requested(output, signal)
            except Exception as error:  # noqa: BLE001
                self.fail(error)

    def requests(self, output: str) -> AsyncIterator[KeyframeRequest]:
        """Requests that came up to an output, the newest only."""
        wakeup = self._request_wakeups.setdefault(output, Wakeup(self.graph.turns))
        return Requests(output, self._pending_requests, wakeup)

    def request(self, port: str, signal: KeyframeRequest, index: int | None = None) -> None:
        """Sends a request upstream, by all edges of an input or by one; any thread."""

        def send() -> None:
            for (name, number), channel in self.inbox.channels.items():
                if name == port and index in (None, number):
                    channel.request(signal)

        self.on_loop(send)

    def on_loop(self, function: Callable[[], None]) -> None:
        """Runs a function on the loop, from whichever thread of the node."""
        if self._thread is not None and self._thread.is_current():
            self._thread.tell(function)
        else:
            function()

    async def in_thread(self, function: Callable[..., R], *args: Any) -> R:
        """Runs a call on the node's thread, which it gets now if it has none."""
        if self._thread is None:
            self._thread = self.graph.thread(self)
        return await self._thread.call(function, *args)

    # --- emitting ---------------------------------------------------------------------------------------------------

    def offer(self, item: Emit[Any]) -> list[Feed] | None:
        """Offers a payload to every edge; gives those that make the node wait, if any."""
        outlet = self._by_port.get(item.output)
        if outlet is None or not isinstance(item.payload, outlet.payloads):
            raise self._refusal(item)
        return outlet.offer(item.payload)

    def _refusal(self, item: Emit[Any]) -> FlowstreamError:
        """Of a payload that the node must not emit there."""
        outlet, type_id = self._by_port.get(item.output), self.planned.type_id
        if outlet is None:
            return FlowstreamError(f"{type_id} emitted to {item.output!r}, which is not one of its outputs")
        given, wanted = type(item.payload).__name__, " or ".join(p.__name__ for p in outlet.payloads)
        return FlowstreamError(f"{type_id} gave {given} on {outlet.name}, which carries {wanted}")

    async def emit(self, item: Emit[Any]) -> None:
        """Offers a payload to every edge first, then waits for those that block."""
        outlet, payload = self._by_port.get(item.output), item.payload
        if outlet is None or not isinstance(payload, outlet.payloads):
            raise self._refusal(item)
        blocked = outlet.offer(payload)  # as in ``offer``: one call less for each payload
        if blocked is not None:
            await wait_for_room(blocked, payload)

    async def emit_ahead(self, item: Emit[Any]) -> None:
        """As ``emit``, for a source that may be faster than time: notes how far it has come."""
        payload = item.payload
        ends_ns = getattr(payload, "time_ns", 0) + (getattr(payload, "duration_ns", None) or 0)
        self.reached_ns = max(self.reached_ns, ends_ns)
        await self.emit(item)

    async def emit_when_wired(self, item: Emit[Any]) -> None:
        """As ``emit``, for a node that may have something before its edges are there: it waits for them."""
        if not self.go.is_set():
            if not self.is_ready.is_set():
                raise FlowstreamError(
                    f"{self.planned.type_id} gave a payload before it was ready", hint="call ctx.ready() first"
                )
            await self.go.wait()
        self.node.ctx.emit = self.emit  # type: ignore[method-assign]
        await self.emit(item)

    def close_outlets(self) -> None:
        """Ends the stream of every output."""
        for outlet in self.outlets.values():
            outlet.close()


def works_on_pictures(node_type: type[Node[Any]]) -> bool:
    """Whether a node encodes, decodes or changes pictures: what takes processor time as long as there is any."""
    taken = [payload for port in node_type.inputs.values() for payload in port.payloads]
    given = [payload for port in node_type.outputs.values() for payload in port.payloads]
    return not issubclass(node_type, Source) and VideoFrame in (*taken, *given)


def base_run(node_type: type[Any]) -> bool:
    """Whether the node lives by ``run`` rather than by handlers."""
    return not issubclass(node_type, (Transform, Sink))


def _hands_over(old: Node[Any], new: Node[Any]) -> bool:
    """Whether an instance of a type takes the state of another."""
    return (
        old.type_id == new.type_id and type(old).snapshot is not Node.snapshot and type(new).restore is not Node.restore
    )


class _Values:
    """Live values on their way to a node on its thread, which may be busy for longer than anybody waits."""

    def __init__(self, node: Node[Any], config: Config, on_error: Callable[[BaseException], None]) -> None:
        self._node = node
        self._config = config
        self._old: Config = node.config
        self._on_error = on_error
        self._lock = threading.Lock()
        self._is_taken = False
        self._is_withdrawn = False

    def take(self) -> None:
        """On the thread: gives the node its values, unless they were withdrawn; undoes it if that happens meanwhile."""
        if self._is_withdrawn:
            return
        self._old = self._node.config
        self._node.config = self._config
        try:
            self._node.reconfigured(self._old)
        except BaseException:
            self._node.config = self._old
            raise
        with self._lock:
            self._is_taken = not self._is_withdrawn
        if not self._is_taken:
            try:
                self.undo()
            except BaseException as error:  # noqa: BLE001 - nobody waits for this call any more
                self._on_error(error)

    def withdraw(self) -> bool:
        """On the loop: whether the node never keeps the values; false when it has them already."""
        with self._lock:
            self._is_withdrawn = True
            return not self._is_taken

    def undo(self) -> None:
        """On the thread: gives the node back what it had."""
        self._node.config = self._old
        self._node.reconfigured(self._config)


def _single(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def node_error(runner: Runner) -> NodeError:
    """The failure of a node as its owner sees it: node, place and cause."""
    error = runner.error
    assert error is not None
    planned = runner.planned
    if isinstance(error, FlowstreamError):
        message, hint = error.message, error.hint
    else:
        message, hint = f"{type(error).__name__}: {error}", None
    failure = NodeError(planned.id, f"{planned.id} ({planned.type_id}): {message}", hint=hint, place=planned.place)
    failure.__cause__ = error
    return failure
