"""A graph at work: starts a plan, applies another in its place all or nothing, drains and stops."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio
from anyio.abc import TaskGroup

from flowstream.errors import NodeError
from flowstream.graph.diff import diff
from flowstream.graph.patch import Patch
from flowstream.graph.plan import Plan
from flowstream.graph.shared import strangers
from flowstream.runtime.clock import Clock, SystemClock
from flowstream.runtime.ensemble import READY_SECONDS as READY_SECONDS
from flowstream.runtime.ensemble import Ensemble
from flowstream.runtime.events import Applied, Event, Listener, NodeSlow
from flowstream.runtime.holdings import Greeter
from flowstream.runtime.mounts import Mounts
from flowstream.runtime.runner import DRAIN_SECONDS as DRAIN_SECONDS
from flowstream.runtime.runner import Runner, State
from flowstream.runtime.switching import ReloadError as ReloadError
from flowstream.runtime.switching import Switch
from flowstream.runtime.watchdog import Watchdog


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
        self.ensemble = Ensemble(tasks, clock, mounts, self.tell, chance, is_inline)
        self._listeners: list[Listener] = []
        self._apply_lock = anyio.Lock()
        self._watchdog: Watchdog | None = None

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
                if clock is None:
                    engine._watchdog = Watchdog(engine.node_was_slow, engine.ensemble.graph.visits)
                try:
                    yield engine
                finally:
                    if engine._watchdog is not None:
                        engine._watchdog.stop()
                    try:
                        with anyio.CancelScope(shield=True):
                            await engine.stop(drain_seconds=0)
                    finally:
                        if engine._watchdog is not None:
                            engine._watchdog.close()
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:  # what the block raised, not wrapped by the task group
                raise group.exceptions[0] from group.exceptions[0].__cause__
            raise

    @property
    def plan(self) -> Plan | None:
        """What runs; None before the start."""
        return self.ensemble.plan

    @property
    def runners(self) -> dict[str, Runner]:
        """The instances in place, by node id in the plan's order."""
        return self.ensemble.runners

    @property
    def failures(self) -> list[NodeError]:
        """The failures after which a node stayed down."""
        return self.ensemble.failures

    def at_work(self) -> Runner | None:
        """The instance in whose code the event loop is right now, if in that of one of these; any thread."""
        runner: Runner | None = None if self._watchdog is None else self._watchdog.who()
        return runner if runner is not None and self._is_ours(runner) else None

    def node_was_slow(self, runner: Runner, held_ns: int) -> None:
        """A node held the loop so long that others felt it; maybe one of another engine on the same loop."""
        planned = runner.planned
        if self._is_ours(runner):
            self.tell(NodeSlow(planned.id, planned.type_id, held_ns, planned.place))

    def _is_ours(self, runner: Runner) -> bool:
        return runner.graph is self.ensemble.graph

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Calls the listener with every event from now on. Gives what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def greet(self, greeter: Greeter) -> None:
        """Tells the greeter of whatever a node holds from now on, before the node has it."""
        self.ensemble.holdings.greeters.append(greeter)

    # --- start and end ----------------------------------------------------------------------------------------------

    async def start(self, plan: Plan) -> None:
        """Starts every node; sources begin when all are ready. Raises NodeError when one fails; nothing runs then."""
        ensemble = self.ensemble
        ensemble.graph.is_live = plan.is_live
        runners: dict[str, Runner] = {}
        try:
            for id in plan.nodes:
                runners[id] = ensemble.make(plan, id)
            await ensemble.start(runners.values())
        except BaseException:
            with anyio.CancelScope(shield=True):
                await ensemble.discard(runners.values())
            raise
        ensemble.adopt(plan, runners)
        for edge in plan.edges:
            ensemble.connect(edge)
        for runner in runners.values():
            ensemble.go(runner)
        ensemble.request_keyframes(plan.edges)
        for runner in runners.values():
            if runner.is_over:  # it ended between being ready and being wired
                ensemble.exited(runner)

    async def wait(self) -> None:
        """Returns when the graph has ended by itself or was stopped."""
        await self.ensemble.finished.wait()

    async def stop(self, *, drain_seconds: float = DRAIN_SECONDS) -> bool:
        """Stops sources, lets the rest finish what it has for at most ``drain_seconds``, then ends what is left.

        Returns whether everything finished by itself.
        """
        return await self.ensemble.stop(drain_seconds)

    # --- reload -----------------------------------------------------------------------------------------------------

    async def apply(self, plan: Plan, *, cause: str = "") -> Patch:
        """Puts a plan in the place of the running one, all or nothing, and gives what was done.

        ``cause`` says what made it come, when that was not a save.

        New nodes are started first, beside the running graph; when all are ready the edges are switched. Cancelled or
        failed before that, nothing has changed. Raises ReloadError, with the reason, when the plan cannot be applied.
        """
        async with self._apply_lock:
            if not self.ensemble.is_running:
                raise ReloadError("the graph is not running")
            patch = self._patch(plan)
            serve, listen = plan.serve.address if plan.serve else None, self.mounts.listen
            before = patch.old_serve.address if patch.old_serve else None
            if serve not in (None, before) and listen not in (None, serve):
                raise ReloadError(
                    "serve: the address cannot change while viewers are connected to it",
                    hint="restart flowstream to serve elsewhere",
                )
            is_bound = listen is not None and listen[1] != 0
            if plan.serve is not None and is_bound and plan.serve.is_encrypted != self.mounts.is_encrypted:
                other = "on" if plan.serve.is_encrypted else "off"
                raise ReloadError(
                    f"serve: TLS cannot be put {other} while viewers are connected",
                    hint="restart flowstream to serve the other way",
                )
            switch = Switch(self.ensemble, plan, patch)
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
        if not self.ensemble.is_running:
            raise ReloadError("the graph is not running")
        return self._patch(plan)

    def _patch(self, plan: Plan) -> Patch:
        """What a plan changes. Raises ReloadError when a node that stays would not know what another one gives it."""
        patch = diff(self._running_plan(), plan)
        for stranger in strangers(patch, plan):
            place = stranger.replaced.new.place if stranger.replaced.new is not None else None
            raise ReloadError(stranger.message, hint=stranger.hint, place=place)
        return patch

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
                    holds=self.ensemble.holdings.has(id),
                )
                for id, node in self.plan.nodes.items()
            },
        )

    def tell(self, event: Event) -> None:
        """Tells every listener."""
        for listener in tuple(self._listeners):
            listener(event)

    # --- status -----------------------------------------------------------------------------------------------------

    def held(self, node: str, key: str) -> Any:
        """What a node holds under a key; None when it holds nothing there."""
        return self.ensemble.holdings.held(node, key)

    @property
    def state(self) -> str:
        """``starting``, ``running``, ``degraded`` (a node failed), ``draining`` or ``ended``."""
        if self.ensemble.finished.is_set():
            return "ended"
        if self.plan is None:
            return "starting"
        if self.ensemble.is_stopping:
            return "draining"
        broken = any(runner.state in ("failed", "restarting") for runner in self.runners.values())
        return "degraded" if broken else "running"

    def count(self) -> None:
        """Brings every counter up to date: what threads give one another is counted afterwards, at the latest here."""
        for runner in self.runners.values():
            runner.inbox.count()

    def status(self) -> dict[str, NodeStatus]:
        """Every node as it stands, in the plan's order."""
        self.count()
        return {
            id: NodeStatus(
                type=runner.planned.type_id,
                state=runner.state,
                config=runner.planned.config.model_dump(mode="json"),
                restarts=self.ensemble.supervisors[id].restarts,
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
