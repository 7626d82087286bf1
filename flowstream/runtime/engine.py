"""A graph at work: starts a plan, applies another in its place all or nothing, drains and stops."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio
from anyio.abc import TaskGroup

from flowstream.errors import FlowstreamError, NodeError, ResourceBusy
from flowstream.graph.diff import Patch, diff
from flowstream.graph.plan import Edge, Plan
from flowstream.runtime.channel import Channel, Outlet
from flowstream.runtime.clock import Clock, SystemClock
from flowstream.runtime.events import Applied, Event, Listener, NodeFailed, NodeRestarted, NodeSlow
from flowstream.runtime.holdings import Holdings
from flowstream.runtime.mounts import Mounts
from flowstream.runtime.runner import DRAIN_SECONDS as DRAIN_SECONDS
from flowstream.runtime.runner import HANDOVER_SECONDS, Graph, Runner, State, node_error
from flowstream.runtime.supervisor import Supervisor
from flowstream.runtime.switching import ReloadError as ReloadError
from flowstream.runtime.switching import Switch, request_keyframe, wired_ports
from flowstream.runtime.wakeup import is_on_trio
from flowstream.runtime.watchdog import Watchdog

READY_SECONDS = 30.0

FAILURES_KEPT = 32

_logger = logging.getLogger("flowstream.engine")


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node as it stands. ``received`` and ``emitted`` count payloads, ``dropped`` losses on its inputs by cause."""

    type: str
    state: State
    config: dict[str, Any]
    restarts: int
    received: int
    emitted: dict[str, int]
    dropped: dict[str, int]
    facts: dict[str, str | int | float | None]


class Engine:
    """Runs one plan at a time. Made by ``Engine.open``; methods are for the loop it was opened on."""

    def __init__(
        self, tasks: TaskGroup, clock: Clock, mounts: Mounts, chance: Callable[[], float] | None = None,
        is_inline: bool = False,
    ) -> None:  # fmt: skip
        self.clock = clock
        self.mounts = mounts
        self.plan: Plan | None = None
        self.runners: dict[str, Runner] = {}
        self.failures: list[NodeError] = []  # those that no restart followed, the last ones
        self._tasks = tasks
        self._chance = chance
        self._listeners: list[Listener] = []
        self._holdings = Holdings(tasks, clock, self._holding_failed)
        self._graph = Graph(clock, mounts, self._holdings, clock.now_ns(), False, self.tell, is_inline)
        self._supervisors: dict[str, Supervisor] = {}
        self._alive: set[Runner] = set()  # also those that are being prepared, or were replaced and finish
        self._finished = anyio.Event()
        self._is_stopping = False
        self._apply_lock = anyio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, *, clock: Clock | None = None, mounts: Mounts | None = None, is_inline: bool = False
    ) -> AsyncIterator[Engine]:
        """An engine with nothing to run yet; leaving the block stops what runs, in bounded time.

        Waits before restarts are spread by chance on the machine's clock, and exact on a clock that is given.
        ``is_inline`` runs on the event loop what nodes do on threads of their own: for debugging.
        """
        chance = random.random if clock is None else None
        try:
            async with anyio.create_task_group() as tasks:
                engine = cls(tasks, clock or SystemClock(), mounts or Mounts(), chance, is_inline)
                watchdog = Watchdog(engine.node_objects, engine.node_was_slow) if clock is None else None
                try:
                    yield engine
                finally:
                    if watchdog is not None:
                        watchdog.stop()
                    with anyio.CancelScope(shield=True):
                        await engine.stop(drain_seconds=0)
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:  # what the block raised, not wrapped by the task group
                raise group.exceptions[0] from group.exceptions[0].__cause__
            raise

    def node_objects(self) -> dict[int, Runner]:
        """What runs, by the ``id`` of its node object; any thread."""
        return {id(runner.node): runner for runner in list(self._alive)}

    def node_was_slow(self, runner: Runner, held_ns: int) -> None:
        """A node held the loop so long that others felt it."""
        planned = runner.planned
        self.tell(NodeSlow(planned.id, planned.type_id, held_ns, planned.place))

    def listen(self, listener: Listener) -> None:
        """Calls the listener with every event from now on."""
        self._listeners.append(listener)

    def greet(self, greeter: Callable[[str, Any], None]) -> None:
        """Calls the greeter with the key and the value of whatever a node holds from now on, before the node does."""
        self._holdings.greet = greeter

    # --- start and end ----------------------------------------------------------------------------------------------

    async def start(self, plan: Plan) -> None:
        """Starts every node; sources begin when all are ready. Raises NodeError when one fails; nothing runs then."""
        self._graph.is_live = plan.is_live
        runners: dict[str, Runner] = {}
        try:
            runners = {id: self._runner(plan, id) for id in plan.nodes}
            await self._start_all(runners.values())
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._discard(runners.values())
            raise
        self.runners = runners
        self.plan = plan
        self._supervisors = {id: Supervisor(planned.restart, self._chance) for id, planned in plan.nodes.items()}
        for edge in plan.edges:
            self._connect(edge)
        for runner in self.runners.values():
            self._go(runner)
        self._request_keyframes(plan.edges)
        for runner in runners.values():
            if runner.is_over:  # it ended between being ready and being wired
                self._exited(runner)

    async def wait(self) -> None:
        """Returns when the graph has ended by itself or was stopped."""
        await self._finished.wait()

    async def stop(self, *, drain_seconds: float = DRAIN_SECONDS) -> bool:
        """Stops sources, lets the rest finish what it has for at most ``drain_seconds``, then ends what is left.

        Returns whether everything finished by itself.
        """
        self._is_stopping = True
        drained = True
        if self.plan is not None and not self._finished.is_set():
            for runner in self._alive:
                if not runner.inbox.connected:  # being prepared: it has nothing to finish
                    runner.stop()
            for id, runner in self.runners.items():
                if runner.is_over:  # what it was to be succeeded by does not come any more
                    runner.close_outlets()
                elif runner.is_source or not self.plan.inputs_of(id):
                    runner.stop()
            with anyio.move_on_after(drain_seconds) as scope:
                for runner in list(self._alive):
                    await runner.done.wait()
            drained = not scope.cancelled_caught
        await self._discard(list(self._alive))
        await self._holdings.release(lambda node: False)
        self._finished.set()
        return drained

    def _runner(self, plan: Plan, id: str, predecessor: Runner | None = None) -> Runner:
        planned = plan.nodes[id]
        if planned.node_type.asyncio_only and is_on_trio():
            raise NodeError(
                id,
                f"{id} ({planned.type_id}): this node type needs asyncio, but the program runs on trio",
                hint="run the program on asyncio (anyio.run does unless told otherwise), or leave the node out",
                place=planned.place,
            )
        try:
            return Runner(planned, wired_ports(plan, id), self._graph, self._exited, predecessor)
        except Exception as error:
            message = f"{id} ({planned.type_id}): {type(error).__name__}: {error}"
            raise NodeError(id, message, place=planned.place) from error

    async def _start_all(self, runners: Iterable[Runner]) -> None:
        """Starts runners side by side and waits until each is ready or has failed.

        Raises the NodeError of the first that failed; one that is not merely busy comes first.
        """
        started = list(runners)
        for runner in started:
            self._alive.add(runner)
            self._tasks.start_soon(runner.live)
        late: Runner | None = None
        try:
            with anyio.fail_after(READY_SECONDS):
                for late in started:
                    await late.is_ready.wait()
        except TimeoutError:
            assert late is not None
            planned = late.planned
            raise NodeError(
                planned.id,
                f"{planned.id} ({planned.type_id}) was not ready within {READY_SECONDS:g} s",
                place=planned.place,
            ) from None
        failed = [runner for runner in started if runner.error is not None]
        if failed:
            raise node_error(min(failed, key=lambda runner: isinstance(runner.error, ResourceBusy)))

    async def _discard(self, runners: Iterable[Runner]) -> None:
        """Ends runners now and waits until they are closed; a close is bounded in time by itself."""
        ending = []
        for runner in runners:
            if runner in self._alive:
                ending.append(runner)
                runner.stop()
            elif not runner.is_over:  # it was made and never started
                runner.inbox.close("reload")
        for runner in ending:
            await runner.done.wait()

    # --- wiring -----------------------------------------------------------------------------------------------------

    def _connect(self, edge: Edge, *, continues: bool = False) -> None:
        """Makes the edge's producer the newest feed of its channel; opens the channel where there is none.

        ``continues``: the feed goes on where the one before it ended, without a keyframe.
        """
        consumer, producer = self.runners[edge.consumer], self.runners[edge.producer]
        inbox = consumer.inbox
        channel = inbox.channels.get((edge.input, edge.index)) or inbox.open(edge)
        channel.rewire(edge)
        feed = channel.attach(producer.outlets[edge.output], continues=continues)
        may_come_back = producer.state == "restarting" or (producer.state == "failed" and self._graph.is_live)
        if producer.is_over and not may_come_back:
            feed.close()
        if consumer.is_over:
            channel.close("node-ended")

    def _go(self, runner: Runner) -> None:
        runner.inbox.connected = True
        if runner.state == "ready":
            runner.state = "running"
        runner.inbox.wakeup.set()
        runner.go.set()

    def _request_keyframes(self, edges: Iterable[Edge]) -> None:
        for edge in edges:
            request_keyframe(edge, self.runners[edge.producer])

    # --- reload -----------------------------------------------------------------------------------------------------

    async def apply(self, plan: Plan, *, cause: str = "") -> Patch:
        """Puts a plan in the place of the running one, all or nothing, and gives what was done.

        ``cause`` says what made it come, when that was not a save.

        New nodes are started first, beside the running graph; when all are ready the edges are switched. Cancelled or
        failed before that, nothing has changed. Raises ReloadError, with the reason, when the plan cannot be applied.
        """
        async with self._apply_lock:
            if self.plan is None or self._is_stopping:
                raise ReloadError("the graph is not running")
            patch = diff(self._running_plan(), plan)
            serve, listen = plan.serve.address if plan.serve else None, self.mounts.listen
            before = self.plan.serve.address if self.plan.serve else None
            if serve not in (None, before) and listen not in (None, serve):
                raise ReloadError(
                    "serve: the address cannot change while viewers are connected to it",
                    hint="restart flowstream to serve elsewhere",
                )
            switch = Switch(self, plan, patch)
            try:
                await switch.prepare()
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await switch.abandon()
                if isinstance(error, NodeError):
                    raise ReloadError(error.message, hint=error.hint, place=error.place) from error
                raise
            switch.commit()
        self.tell(Applied(plan.revision, patch, cause))
        return patch

    def preview(self, plan: Plan) -> Patch:
        """What ``apply`` would do, as far as it can be told beforehand. Raises ReloadError when nothing runs."""
        if self.plan is None or self._is_stopping:
            raise ReloadError("the graph is not running")
        return diff(self._running_plan(), plan)

    def _running_plan(self) -> Plan:
        """The plan with what is known of each node's instance: its first configuration, how long it took to open."""
        assert self.plan is not None
        return replace(
            self.plan,
            nodes={
                id: replace(
                    node,
                    opened=self.runners[id].opened,
                    ready_in_ns=self.runners[id].ready_in_ns,
                    holds=self._holdings.has(id),
                )
                for id, node in self.plan.nodes.items()
            },
        )

    def _succeed(self, old: Runner, new: Runner) -> None:
        """Puts a new instance in the place of an old one that is over, with the same edges."""
        assert self.plan is not None
        id = old.planned.id
        self.runners[id] = new
        for edge in self.plan.inputs_of(id):
            self._connect(edge)
        for edge in self.plan.outputs_of(id):
            channel = self.runners[edge.consumer].inbox.channels[(edge.input, edge.index)]
            channel.end()
            self._connect(edge)
        self._go(new)
        self._request_keyframes(self.plan.inputs_of(id))

    async def _see_off(self, retired: list[Runner]) -> None:
        """Waits for replaced and removed nodes to finish; ends those that do not in time."""
        let_go: list[tuple[Channel, Outlet, int]] = []
        with anyio.move_on_after(DRAIN_SECONDS):
            if self._graph.is_live:
                with anyio.move_on_after(HANDOVER_SECONDS):
                    for runner in retired:
                        await runner.done.wait()
                for runner in retired:
                    for outlet in runner.outlets.values():
                        let_go += [(channel, outlet, outlet.emitted) for channel in outlet.hand_over()]
            for runner in retired:
                await runner.done.wait()
        await self._discard(retired)
        for channel, outlet, emitted in let_go:
            channel.lose(outlet.emitted - emitted, "reload-deadline")
        await self._holdings.release(self._may_hold)

    def _may_hold(self, node: str) -> bool:
        runner = self.runners.get(node)
        return not self._is_stopping and runner is not None and runner.is_over and runner.state != "ended"

    # --- supervision ------------------------------------------------------------------------------------------------

    def _exited(self, runner: Runner) -> None:
        """A runner came to its end; it may be one of the running graph, one that was replaced, or never got there."""
        id = runner.planned.id
        self._alive.discard(runner)
        if self._is_gone(runner):
            runner.close_outlets()
            runner.inbox.close("reload")
            if runner.error is not None and runner.inbox.connected:  # what it was to finish may be lost
                self._report_failure(runner, None, dependents=())
            if self.plan is not None:
                self._finish_if_over()
            return
        runner.inbox.close("node-ended")
        supervisor = self._supervisors[id]
        if supervisor.is_exit_expected:  # its successor takes over the edges
            return
        if runner.error is not None:
            wait_ns = None if self._is_stopping else supervisor.failed(runner.error, now_ns=self.clock.now_ns())
            self._report_failure(runner, wait_ns)
            if wait_ns is not None:
                runner.state = "restarting"
                self._tasks.start_soon(self._restart, runner, self.clock.now_ns() + wait_ns)
                return
        elif runner.state == "ended" and supervisor.restarts_on_end and not self._is_stopping:
            wait_ns = supervisor.ended(now_ns=self.clock.now_ns())
            if wait_ns is not None:
                runner.state = "restarting"
                self._tasks.start_soon(self._restart, runner, self.clock.now_ns() + wait_ns)
                return
        if runner.state != "failed" or not self._graph.is_live or self._is_stopping:
            runner.close_outlets()
        self._finish_if_over()

    def _report_failure(self, runner: Runner, wait_ns: int | None, *, dependents: Iterable[str] | None = None) -> None:
        assert self.plan is not None
        assert runner.error is not None
        failure = node_error(runner)
        if dependents is None:
            dependents = dict.fromkeys(edge.consumer for edge in self.plan.outputs_of(runner.planned.id))
        if wait_ns is None:  # without its cause, whose traceback holds the node and all that it had in its hands
            self.failures.append(NodeError(failure.node, failure.message, hint=failure.hint, place=failure.place))
            del self.failures[:-FAILURES_KEPT]
        if not isinstance(runner.error, FlowstreamError):
            runner.log.error("failed", exc_info=runner.error)
        self.tell(NodeFailed(failure, runner.planned.id, tuple(dependents), wait_ns))

    async def _restart(self, old: Runner, at_ns: int) -> None:
        await self.clock.sleep_until_ns(at_ns)
        id = old.planned.id
        if self._is_stopping or self.runners.get(id) is not old:
            return
        supervisor = self._supervisors[id]
        assert self.plan is not None
        started: list[Runner] = []
        try:
            started.append(self._runner(self.plan, id))
            await self._start_all(started)
        except NodeError as error:
            await self._discard(started)
            if self.runners.get(id) is old:
                old.error = started[0].error if started and started[0].error is not None else error
                old.state = "failed"
                self._exited(old)
            return
        new = started[0]
        if self.runners.get(id) is not old or self._is_stopping:
            await self._discard([new])
            return
        supervisor.started(now_ns=self.clock.now_ns())
        self._succeed(old, new)
        self.tell(NodeRestarted(id))

    def _holding_failed(self, node: str, error: BaseException) -> None:
        runner = self.runners.get(node)
        if runner is not None and not runner.is_over:
            runner.fail(error)

    def _finish_if_over(self) -> None:
        """The graph is over when every node is, or when nothing is left that could bring anything.

        Nodes that were replaced or removed are waited for too: they may have something to finish.
        """
        if any(runner.is_source and not self._is_settled(runner) for runner in self.runners.values()):
            return
        for runner in self.runners.values():
            if runner.state == "failed":
                runner.close_outlets()
        is_leaving = any(runner.inbox.connected for runner in self._alive if self._is_gone(runner))
        if not is_leaving and all(self._is_settled(runner) for runner in self.runners.values()):
            self._finished.set()

    def _is_gone(self, runner: Runner) -> bool:
        return self.runners.get(runner.planned.id) is not runner

    def _is_settled(self, runner: Runner) -> bool:
        is_awaited = self._supervisors[runner.planned.id].is_exit_expected  # its successor is being started
        return runner.is_over and runner.state != "restarting" and not is_awaited

    def tell(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)

    # --- status -----------------------------------------------------------------------------------------------------

    def held(self, node: str, key: str) -> Any:
        """What a node holds under a key; None when it holds nothing there."""
        return self._holdings.held(node, key)

    @property
    def state(self) -> str:
        """``starting``, ``running``, ``degraded`` (a node failed), ``draining`` or ``ended``."""
        if self._finished.is_set():
            return "ended"
        if self.plan is None:
            return "starting"
        if self._is_stopping:
            return "draining"
        broken = any(runner.state in ("failed", "restarting") for runner in self.runners.values())
        return "degraded" if broken else "running"

    def status(self) -> dict[str, NodeStatus]:
        """Every node as it stands, in the plan's order."""
        return {
            id: NodeStatus(
                type=runner.planned.type_id,
                state=runner.state,
                config=runner.planned.config.model_dump(mode="json"),
                restarts=self._supervisors[id].restarts,
                received=runner.received,
                emitted={name: outlet.emitted for name, outlet in runner.outlets.items()},
                dropped=dict(_total(runner)),
                facts=dict(runner.facts),
            )
            for id, runner in self.runners.items()
        }


def _total(runner: Runner) -> dict[str, int]:
    totals: dict[str, int] = {}
    for channel in runner.inbox.channels.values():
        for cause, count in channel.losses().items():
            totals[cause] = totals.get(cause, 0) + count
    return totals
