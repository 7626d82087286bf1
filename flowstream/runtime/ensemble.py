"""The nodes of a running graph: started, wired, supervised, seen off.

An engine runs one ``Ensemble`` and a ``Switch`` changes it; both go by what is public here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import anyio
from anyio.abc import TaskGroup

from flowstream.errors import FlowstreamError, NodeError, ResourceBusy
from flowstream.graph.plan import Edge, Plan
from flowstream.media.packets import EncodedPacket
from flowstream.media.signals import KeyframeRequest
from flowstream.runtime.channel import Channel, Outlet
from flowstream.runtime.clock import Clock
from flowstream.runtime.events import Listener, NodeFailed, NodeRestarted
from flowstream.runtime.holdings import Holdings
from flowstream.runtime.mounts import Mounts
from flowstream.runtime.runner import DRAIN_SECONDS, HANDOVER_SECONDS, Graph, Runner, node_error
from flowstream.runtime.supervisor import Supervisor
from flowstream.runtime.wakeup import is_on_trio

READY_SECONDS = 30.0
"""How long nodes may take to open."""

FAILURES_KEPT = 32


class Ensemble:
    """The instances of a graph's nodes, those that are coming and going included. For the event loop.

    ``runners`` are those in place, by node id in the plan's order, and ``supervisors`` what decides on their restarts;
    ``alive`` are all that have begun and not ended: those that are being prepared, or were replaced and finish, too.
    ``failures`` are those that nothing followed, the last ones. ``finished`` is set when the graph is over.
    """

    def __init__(
        self, tasks: TaskGroup, clock: Clock, mounts: Mounts, tell: Listener, chance: Callable[[], float] | None,
        is_inline: bool,
    ) -> None:  # fmt: skip
        self.plan: Plan | None = None
        self.runners: dict[str, Runner] = {}
        self.supervisors: dict[str, Supervisor] = {}
        self.alive: set[Runner] = set()
        self.failures: list[NodeError] = []
        self.finished = anyio.Event()
        self.is_stopping = False
        self.holdings = Holdings(tasks, clock, self._holding_failed)
        self.graph = Graph(clock, mounts, self.holdings, clock.now_ns(), False, tell, is_inline)
        self._clock = clock
        self._tasks = tasks
        self._chance = chance

    @property
    def is_running(self) -> bool:
        """Whether there is something that can be changed."""
        return self.plan is not None and not self.is_stopping

    # --- instances --------------------------------------------------------------------------------------------------

    def make(self, plan: Plan, id: str, predecessor: Runner | None = None) -> Runner:
        """An instance of a node, not started. Raises NodeError when it cannot be made."""
        planned = plan.nodes[id]
        if planned.node_type.asyncio_only and is_on_trio():
            raise NodeError(
                id,
                f"{id} ({planned.type_id}): this node type needs asyncio, but the program runs on trio",
                hint="run the program on asyncio (anyio.run does unless told otherwise), or leave the node out",
                place=planned.place,
            )
        try:
            return Runner(planned, wired_ports(plan, id), self.graph, self.exited, predecessor)
        except Exception as error:
            message = f"{id} ({planned.type_id}): {type(error).__name__}: {error}"
            raise NodeError(id, message, place=planned.place) from error

    async def start(self, runners: Iterable[Runner]) -> None:
        """Starts runners side by side and waits until each is ready or has failed.

        Raises the NodeError of the first that failed; one that is not merely busy comes first.
        """
        started = list(runners)
        for runner in started:
            self.alive.add(runner)
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

    async def discard(self, runners: Iterable[Runner]) -> None:
        """Ends runners now and waits until they are closed; a close is bounded in time by itself."""
        ending = []
        for runner in runners:
            if runner in self.alive:
                ending.append(runner)
                runner.stop()
            elif not runner.is_over:  # it was made and never started
                runner.inbox.close("reload")
        for runner in ending:
            await runner.done.wait()

    async def stop(self, drain_seconds: float) -> bool:
        """Stops sources, lets the rest finish for so long, then ends what is left; whether all finished by itself."""
        self.is_stopping = True
        drained = True
        if self.plan is not None and not self.finished.is_set():
            for runner in self.alive:
                if not runner.inbox.connected:  # being prepared: it has nothing to finish
                    runner.stop()
            for id, runner in self.runners.items():
                if runner.is_over:  # what it was to be succeeded by does not come any more
                    runner.close_outlets()
                elif runner.is_source or not self.plan.inputs_of(id):
                    runner.stop()
            with anyio.move_on_after(drain_seconds) as scope:
                for runner in list(self.alive):
                    await runner.done.wait()
            drained = not scope.cancelled_caught
        await self.discard(list(self.alive))
        await self.holdings.release(lambda node: False)
        self.finished.set()
        return drained

    # --- wiring -----------------------------------------------------------------------------------------------------

    def connect(self, edge: Edge, *, continues: bool = False) -> None:
        """Makes the edge's producer the newest feed of its channel; opens the channel where there is none.

        ``continues``: the feed goes on where the one before it ended, without a keyframe.
        """
        consumer, producer = self.runners[edge.consumer], self.runners[edge.producer]
        inbox = consumer.inbox
        channel = inbox.channels.get((edge.input, edge.index)) or inbox.open(edge)
        channel.rewire(edge)
        feed = channel.attach(producer.outlets[edge.output], continues=continues)
        may_come_back = producer.state == "restarting" or (producer.state == "failed" and self.graph.is_live)
        if producer.is_over and not may_come_back:
            feed.close()
        if consumer.is_over:
            channel.close("node-ended")

    def go(self, runner: Runner) -> None:
        """The runner's edges are there: it may begin."""
        runner.inbox.connected = True
        if runner.state == "ready":
            runner.state = "running"
        runner.inbox.wakeup.set()
        runner.go.set()

    def request_keyframes(self, edges: Iterable[Edge]) -> None:
        """Asks for what new edges begin with."""
        for edge in edges:
            request_keyframe(edge, self.runners[edge.producer])

    def succeed(self, old: Runner, new: Runner) -> None:
        """Puts a new instance in the place of an old one that is over, with the same edges."""
        assert self.plan is not None
        id = old.planned.id
        self.runners[id] = new
        new.from_ns = max(old.from_ns, old.reached_ns)
        for edge in self.plan.inputs_of(id):
            self.connect(edge)
        for edge in self.plan.outputs_of(id):
            channel = self.runners[edge.consumer].inbox.channels[(edge.input, edge.index)]
            channel.end()
            self.connect(edge)
        self.go(new)
        self.request_keyframes(self.plan.inputs_of(id))

    def see_off(self, retired: Iterable[Runner]) -> None:
        """Lets replaced and removed nodes finish beside what runs, and ends those that do not in time."""
        self._tasks.start_soon(self._see_off, list(retired))

    async def _see_off(self, retired: list[Runner]) -> None:
        let_go: list[tuple[Channel, Outlet, int]] = []
        with anyio.move_on_after(DRAIN_SECONDS):
            if self.graph.is_live:
                with anyio.move_on_after(HANDOVER_SECONDS):
                    for runner in retired:
                        await runner.done.wait()
                for runner in retired:
                    for outlet in runner.outlets.values():
                        let_go += [(channel, outlet, outlet.emitted) for channel in outlet.hand_over()]
            for runner in retired:
                await runner.done.wait()
        await self.discard(retired)
        for channel, outlet, emitted in let_go:
            channel.lose(outlet.emitted - emitted, "reload-deadline")
        await self.release()

    # --- the plan ---------------------------------------------------------------------------------------------------

    def adopt(self, plan: Plan, runners: Mapping[str, Runner]) -> None:
        """Puts a plan and its instances in place; the edges are for the caller. A runner that is new begins afresh."""
        before = self.supervisors if self.plan is not None else {}
        kept = {id for id, runner in runners.items() if self.runners.get(id) is runner}
        self.plan = plan
        self.graph.is_live = plan.is_live
        self.runners = {id: runners[id] for id in plan.nodes}
        self.supervisors = {}
        for id, planned in plan.nodes.items():
            if id in kept:
                self.supervisors[id] = before[id]
                self.supervisors[id].take(planned.restart)
            else:
                self.supervisors[id] = Supervisor(planned.restart, self._chance)
            self.runners[id].planned = planned
            self.runners[id].wired = wired_ports(plan, id)
        self.graph.mounts.settle()

    def rename(self, renamed: Mapping[str, str], prepared: Collection[str]) -> None:
        """Gives nodes their new ids, and with them what they hold and what they have mounted.

        ``prepared`` are the ids of those that another instance takes over from.
        """
        self.runners = {renamed.get(id, id): runner for id, runner in self.runners.items()}
        self.supervisors = {renamed.get(id, id): supervisor for id, supervisor in self.supervisors.items()}
        self.holdings.rename(renamed)
        for was, now in renamed.items():
            self.graph.mounts.rename(was, now, is_succeeded=now in prepared)

    async def release(self) -> None:
        """Closes what nobody holds any more and no node may come back for."""
        await self.holdings.release(self._may_hold)

    def _may_hold(self, node: str) -> bool:
        runner = self.runners.get(node)
        return not self.is_stopping and runner is not None and runner.is_over and runner.state != "ended"

    # --- supervision ------------------------------------------------------------------------------------------------

    def exited(self, runner: Runner) -> None:
        """A runner came to its end; it may be one of the running graph, one that was replaced, or never got there."""
        id = runner.planned.id
        self.alive.discard(runner)
        if self._is_gone(runner):
            runner.close_outlets()
            runner.inbox.close("reload")
            if runner.error is not None and runner.inbox.connected:  # what it was to finish may be lost
                self._report_failure(runner, None, dependents=())
            if self.plan is not None:
                self._finish_if_over()
            return
        runner.inbox.close("node-ended")
        supervisor = self.supervisors[id]
        if supervisor.is_exit_expected:  # its successor takes over the edges
            return
        if runner.error is not None:
            wait_ns = None if self.is_stopping else supervisor.failed(runner.error, now_ns=self._clock.now_ns())
            self._report_failure(runner, wait_ns)
            if wait_ns is not None:
                runner.state = "restarting"
                self._tasks.start_soon(self._restart, runner, self._clock.now_ns() + wait_ns)
                return
        elif runner.state == "ended" and supervisor.restarts_on_end and not self.is_stopping:
            wait_ns = supervisor.ended(now_ns=self._clock.now_ns())
            if wait_ns is not None:
                runner.state = "restarting"
                self._tasks.start_soon(self._restart, runner, self._clock.now_ns() + wait_ns)
                return
        if runner.state != "failed" or not self.graph.is_live or self.is_stopping:
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
        self.graph.tell(NodeFailed(failure, runner.planned.id, tuple(dependents), wait_ns))

    async def _restart(self, old: Runner, at_ns: int) -> None:
        await self._clock.sleep_until_ns(at_ns)
        id = old.planned.id
        if self.is_stopping or self.runners.get(id) is not old:
            return
        supervisor = self.supervisors[id]
        assert self.plan is not None
        started: list[Runner] = []
        try:
            started.append(self.make(self.plan, id))
            await self.start(started)
        except NodeError as error:
            await self.discard(started)
            if self.runners.get(id) is old:
                self.stay_down(old, started, error)
            return
        new = started[0]
        if self.runners.get(id) is not old or self.is_stopping:
            await self.discard([new])
            return
        supervisor.started(now_ns=self._clock.now_ns())
        self.succeed(old, new)
        self.graph.tell(NodeRestarted(id))

    def stay_down(self, old: Runner, tried: Iterable[Runner], error: FlowstreamError) -> None:
        """What was ``tried`` in the place of an instance that is over did not come up: the node has failed."""
        old.error = next((each.error for each in tried if each.error is not None), error)
        old.state = "failed"
        self.exited(old)

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
        is_leaving = any(runner.inbox.connected for runner in self.alive if self._is_gone(runner))
        if not is_leaving and all(self._is_settled(runner) for runner in self.runners.values()):
            self.finished.set()

    def _is_gone(self, runner: Runner) -> bool:
        return self.runners.get(runner.planned.id) is not runner

    def _is_settled(self, runner: Runner) -> bool:
        is_awaited = self.supervisors[runner.planned.id].is_exit_expected  # its successor is being started
        return runner.is_over and runner.state != "restarting" and not is_awaited


def request_keyframe(edge: Edge, producer: Runner) -> None:
    """A new edge with encoded pictures begins at a keyframe: asks for one at once."""
    outlet = producer.outlets[edge.output]
    if not edge.feedback and issubclass(EncodedPacket, outlet.payloads):
        outlet.request(KeyframeRequest(f"{edge.name} was connected"))


def wired_ports(plan: Plan, id: str) -> frozenset[str]:
    """The ports of a node that the plan connects."""
    inputs = {edge.input for edge in plan.inputs_of(id)}
    return frozenset(inputs | {edge.output for edge in plan.outputs_of(id)})
