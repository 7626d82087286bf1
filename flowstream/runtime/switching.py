"""From one plan to the next while the graph runs: what is new is prepared beside it, then all is switched at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import anyio

from flowstream.errors import FlowstreamError, NodeError, Place, ResourceBusy
from flowstream.graph.diff import exclusive_key
from flowstream.graph.patch import Change, Patch
from flowstream.graph.plan import Edge, Plan, PlannedNode
from flowstream.runtime.ensemble import Ensemble, request_keyframe
from flowstream.runtime.runner import DRAIN_SECONDS, HANDOVER_SECONDS, Runner, node_error

TAKE_SECONDS = 5.0
"""How long a node may take to say whether it takes live values, and to take them."""


class ReloadError(FlowstreamError):
    """Raised when a new plan could not be applied; the graph runs on as it was."""


class Switch:
    """One change of a running graph: ``prepare``, then ``commit``; or ``abandon``, after which nothing has changed."""

    def __init__(self, ensemble: Ensemble, plan: Plan, patch: Patch) -> None:
        self._ensemble = ensemble
        self._plan = plan
        self._patch = patch
        self._prepared: dict[str, Runner] = {}
        self._updated: list[tuple[Runner, PlannedNode]] = []  # with what they were before
        self._broken: dict[str, Runner] = {}  # what had to go before its successor could come

    async def prepare(self) -> None:
        """Starts what is new beside the running graph, gives kept nodes their live values once all that is ready, and
        only then ends what stands in the way of a successor.

        Raises NodeError or ReloadError; ``abandon`` then.
        """
        fresh = [change for change in self._patch.changes if await self._is_fresh(change)]
        waiting = await self._start(fresh, self._owners(fresh))
        with anyio.CancelScope(shield=True):
            await self._update()
        if waiting:
            await self._break_before_make(waiting)
        if self._ensemble.is_stopping:
            raise ReloadError("the graph is stopping")
        for runner in self._prepared.values():
            if runner.error is not None:
                raise node_error(runner)

    async def _is_fresh(self, change: Change) -> bool:
        """Whether a change needs another instance."""
        if change.action not in ("update", "rewire"):
            return change.action in ("add", "replace")
        runner = self._ensemble.runners[change.was or change.node]
        # A node that failed is given another chance by any edit of it.
        return runner.is_over or not await _takes(runner, change, self._plan)

    def _old(self, change: Change) -> Runner | None:
        """The instance that a new one takes the place of."""
        return self._ensemble.runners.get(change.was or change.node) if change.action != "add" else None

    def _owners(self, fresh: list[Change]) -> dict[str, Runner]:
        """Running instances that have what new nodes need for themselves, by the new nodes' ids.

        Raises ReloadError when one of them stays.
        """
        leaving = {change.was or change.node for change in fresh if change.action != "add"}
        leaving |= {change.node for change in self._patch.changes if change.action == "remove"}
        taken: dict[str, str] = {}
        for id, runner in self._ensemble.runners.items():
            if not runner.is_over and (key := runner.planned.node_type.exclusive(runner.opened)) is not None:
                taken[key] = id
        owners: dict[str, Runner] = {}
        for change in fresh:
            key = exclusive_key(self._plan.nodes[change.node])
            owner = taken.get(key) if key is not None else None
            if owner is None:
                continue
            if owner not in leaving:
                raise ReloadError(f"{change.node} needs {key}, which {owner} has", place=_place(change))
            owners[change.node] = self._ensemble.runners[owner]
        return owners

    async def _start(self, fresh: list[Change], owners: dict[str, Runner]) -> dict[str, Runner]:
        """Starts what can be started beside the running graph; gives the rest, with who is in the way of each."""
        ensemble = self._ensemble
        for change in fresh:
            if change.node not in owners:
                self._prepared[change.node] = ensemble.make(self._plan, change.node, self._old(change))
        try:
            await ensemble.start(self._prepared.values())
        except NodeError as error:
            if not isinstance(error.__cause__, ResourceBusy):
                raise
            for change in fresh:  # a node type that does not tell beforehand what it needs for itself
                if change.node in self._prepared and isinstance(self._prepared[change.node].error, ResourceBusy):
                    old = self._old(change)
                    if old is None or old.is_over:
                        raise
                    owners[change.node] = old
        return owners

    async def _break_before_make(self, waiting: Mapping[str, Runner]) -> None:
        """Ends running instances and starts those that need what they had; what comes meanwhile waits for them."""
        ensemble = self._ensemble
        changes = [change for change in self._patch.changes if change.node in waiting]
        for change in changes:
            self._prepared[change.node] = ensemble.make(self._plan, change.node, self._old(change))
            self._collect(change.node)
        for owner in waiting.values():
            self._broken[owner.planned.id] = owner
            ensemble.supervisors[owner.planned.id].is_exit_expected = True
            owner.is_succeeded = True
            for channel in owner.inbox.channels.values():
                channel.end()
            if owner.is_source or not owner.inbox.channels:
                owner.stop()
        with anyio.move_on_after(HANDOVER_SECONDS if ensemble.graph.is_live else DRAIN_SECONDS):
            for owner in waiting.values():
                await owner.done.wait()
        await ensemble.discard(waiting.values())
        await ensemble.start([self._prepared[change.node] for change in changes])

    def _collect(self, id: str) -> None:
        """Lets what producers that stay give from now on wait for a node that is not there yet, within its limits."""
        origins = {now: was for was, now in self._patch.renamed.items()}
        inbox = self._prepared[id].inbox
        edges = [edge for edge in self._plan.inputs_of(id) if edge.producer not in self._prepared]
        for edge in edges:
            producer = self._ensemble.runners.get(origins.get(edge.producer, edge.producer))
            if producer is not None and edge.output in producer.outlets:
                inbox.open(edge).attach(producer.outlets[edge.output])
                request_keyframe(edge, producer)

    async def _update(self) -> None:
        """Gives nodes their live values. Raises ReloadError when one does not take them."""
        for change in self._patch.changes:
            if change.action not in ("update", "rewire") or not change.fields or change.node in self._prepared:
                continue
            runner = self._ensemble.runners[change.was or change.node]
            before = runner.planned
            try:
                await _reconfigure(runner, self._plan.nodes[change.node])
            except Exception as error:
                raise ReloadError(f"{change.node} did not take its new values: {error}") from error
            self._updated.append((runner, before))

    async def abandon(self) -> None:
        """Ends what was prepared, gives nodes their old values back, starts again what had to go, and closes what only
        the prepared ones held.
        """
        ensemble = self._ensemble
        await ensemble.discard(self._prepared.values())
        for changed, planned in reversed(self._updated):
            try:
                if not changed.is_over:
                    await _reconfigure(changed, planned)
            except Exception as caught:  # noqa: BLE001 - it is neither here nor there any more
                changed.fail(caught)
        await ensemble.discard(self._broken.values())
        for id, old in self._broken.items():
            await self._bring_back(id, old)
        await ensemble.release()

    async def _bring_back(self, id: str, old: Runner) -> None:
        """Starts a node again that had to go for a successor that did not come; failing that, the node has failed."""
        ensemble = self._ensemble
        assert ensemble.plan is not None
        supervisor = ensemble.supervisors[id]
        again: list[Runner] = []
        try:
            if ensemble.is_stopping:
                raise ReloadError("the graph is stopping")
            again.append(ensemble.make(ensemble.plan, id, old))
            await ensemble.start(again)
        except FlowstreamError as error:
            await ensemble.discard(again)
            supervisor.is_exit_expected = False
            if ensemble.is_stopping:
                ensemble.exited(old)
            else:
                ensemble.stay_down(old, again, error)
        else:
            supervisor.is_exit_expected = False
            ensemble.succeed(old, again[0])

    def commit(self) -> None:
        """The wiring, in one step that does not wait."""
        ensemble, plan, prepared = self._ensemble, self._plan, self._prepared
        assert ensemble.plan is not None
        old_plan = _renamed(ensemble.plan, self._patch.renamed)
        ensemble.rename(self._patch.renamed, prepared)
        before = ensemble.runners
        retired = {id: runner for id, runner in before.items() if id not in plan.nodes or id in prepared}
        for id, runner in prepared.items():
            if runner.is_source:
                runner.from_ns = self._stopped_ns(id, old_plan, before)
        ensemble.adopt(plan, {**before, **prepared})
        self._rewire(old_plan)
        for runner in prepared.values():
            ensemble.go(runner)
        for id, runner in retired.items():
            runner.is_succeeded, runner.is_retired = id in prepared, True
            for edge in old_plan.inputs_of(id):
                channel = runner.inbox.channels.get((edge.input, edge.index))
                if channel is not None and edge.producer not in retired:  # or it still gets what that one ends with
                    channel.end()
            if runner.is_source or runner.is_over or not old_plan.inputs_of(id):
                for outlet in runner.outlets.values():
                    outlet.leave()
                runner.stop()
            if runner.is_over:
                runner.close_outlets()
        ensemble.see_off(retired.values())
        for runner in prepared.values():
            if runner.is_over:  # it ended between being ready and being wired
                ensemble.exited(runner)

    def _stopped_ns(self, id: str, old: Plan, before: Mapping[str, Runner]) -> int:
        """The media time that has been reached where a new source comes in, by sources that are faster than time.

        That is where the one that it replaces stopped, or those whose place it takes at its consumers; what comes
        beside them begins where the furthest of all is.
        """
        feeds = {edge.key: edge.producer for edge in old.edges}
        places = [feeds[edge.key] for edge in self._plan.outputs_of(id) if edge.key in feeds]
        near = [before[each] for each in ([id] if id in before else places) if before[each].is_source]
        return max((each.reached_ns for each in near or before.values()), default=0)

    def _rewire(self, old: Plan) -> None:
        """Switches edges. Kept ones with kept ends are not touched."""
        ensemble, new, fresh = self._ensemble, self._plan, self._prepared
        before = {edge.key: edge for edge in old.edges}
        after = {edge.key: edge for edge in new.edges}
        for key, edge in before.items():
            if key not in after and edge.consumer in new.nodes and edge.consumer not in fresh:
                ensemble.runners[edge.consumer].inbox.remove(edge)
        connected: list[Edge] = []
        for key, edge in after.items():
            previous = before.get(key)
            if previous == edge and edge.consumer not in fresh and edge.producer not in fresh:
                continue
            consumer, producer = ensemble.runners[edge.consumer], ensemble.runners[edge.producer]
            channel = consumer.inbox.channels.get((edge.input, edge.index))
            if edge.consumer in fresh and channel is not None:
                if channel.feeds[-1].outlet is producer.outlets[edge.output]:
                    continue  # it has been collecting from there already
                channel.end()
            continues = False
            if channel is not None and previous is not None:
                is_same = (previous.producer, previous.output) == (edge.producer, edge.output)
                continues = is_same and edge.producer not in fresh and channel.is_unbroken
                # The tail of a producer that is being replaced is still delivered; any other is let go now.
                is_replaced = edge.producer in fresh and previous.producer == edge.producer
                if not is_replaced or previous.output != edge.output:
                    channel.end()
            ensemble.connect(edge, continues=continues)
            consumer.inbox.wakeup.set()
            if not continues:
                connected.append(edge)
        ensemble.request_keyframes(connected)


def _place(change: Change) -> Place | None:
    return change.new.place if change.new is not None else None


async def _takes(runner: Runner, change: Change, plan: Plan) -> bool:
    """Whether a running node takes the live values of a change in place."""
    if not change.fields:
        return True
    try:
        with anyio.move_on_after(TAKE_SECONDS) as scope:
            await runner.accepts(plan.nodes[change.node].config)
    except ValueError:
        return False
    except Exception as error:
        raise ReloadError(f"{change.node} cannot say what it takes: {type(error).__name__}: {error}") from error
    return not scope.cancelled_caught  # one that does not answer is stuck


async def _reconfigure(runner: Runner, planned: PlannedNode) -> None:
    """Gives a node new live values. Raises what it raises, or FlowstreamError when there is no answer to be had."""
    if runner.is_over:
        raise FlowstreamError("it came to its end meanwhile")
    with anyio.move_on_after(TAKE_SECONDS) as scope:
        await runner.reconfigure(planned)
    if scope.cancelled_caught:
        raise FlowstreamError(f"no answer within {TAKE_SECONDS:g} s")


def _renamed(plan: Plan, renamed: Mapping[str, str]) -> Plan:
    """The same plan with other ids."""
    if not renamed:
        return plan
    return replace(
        plan,
        nodes={renamed.get(id, id): node for id, node in plan.nodes.items()},
        edges=tuple(
            replace(
                edge,
                consumer=renamed.get(edge.consumer, edge.consumer),
                producer=renamed.get(edge.producer, edge.producer),
            )
            for edge in plan.edges
        ),
    )
