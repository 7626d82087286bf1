"""Keeps an eye on a running graph: a View of it for ``why``, and an event when something stalls or recovers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from flowstream.graph.plan import Edge
from flowstream.runtime.audience import Limited
from flowstream.runtime.cause import Cause
from flowstream.runtime.events import Applied, Event, NodeSlow, Recovered, Refused, Stalled
from flowstream.runtime.reload import Revisions
from flowstream.runtime.runner import Runner, base_run
from flowstream.runtime.stats import SECOND_NS, EdgeMeter, Statistics, carries_records
from flowstream.runtime.view import EdgeView, Hold, NodeView, View
from flowstream.runtime.viewers import VIEWERS, ViewerRegistry
from flowstream.runtime.why import causes

LATELY_NS = 5 * SECOND_NS
"""Over how long rates and losses are judged."""

LOOKS_TO_STALL = 2
LOOKS_TO_RECOVER = 3
"""In how many looks in a row, a second apart, a cause is there before it is told, and gone before that is."""

LOOKS_AT_LOSSES = 6
"""The same before losses are told: some come with every start."""

HELD_NS = 90 * SECOND_NS
"""How long a node that held the loop is a cause. One that goes on is told of once a minute, so it stays one."""

TOLD_OTHERWISE = ("failed", "refused-peer", "refused-file", "held-loop", "narrow-uplink", "narrow-link")
"""Causes that have events of their own."""


@dataclass(slots=True)
class _Known:
    """A cause that is, or was, there."""

    cause: Cause
    seen: int = 0
    missed: int = 0
    is_told: bool = False


class Stalls:
    """Looks once a second at what ``statistics`` counts and tells the engine's listeners of what stalls."""

    def __init__(self, statistics: Statistics, revisions: Revisions | None = None) -> None:
        self.statistics = statistics
        self.engine = statistics.engine
        self._holds: dict[str, Hold] = {}
        self._revisions = revisions
        self._refused_ns: int | None = None
        self._known: dict[tuple[str, str, str], _Known] = {}
        self.engine.listen(self._heard)

    async def run(self) -> None:
        """Counts and looks once a second until cancelled."""
        clock = self.engine.clock
        next_ns = clock.now_ns()
        self.statistics.follow(next_ns)
        while True:
            next_ns = max(next_ns + SECOND_NS, clock.now_ns())
            await clock.sleep_until_ns(next_ns)
            self.tick(clock.now_ns())

    def tick(self, now_ns: int) -> None:
        """Counts, looks, and tells what is new."""
        self.statistics.tick(now_ns)
        if self.engine.state not in ("running", "degraded"):
            return
        found = {cause.key: cause for cause in self.causes() if cause.kind not in TOLD_OTHERWISE}
        for key, cause in found.items():
            known = self._known.setdefault(key, _Known(cause))
            known.cause, known.missed = cause, 0
            known.seen += 1
            looks = LOOKS_AT_LOSSES if cause.kind == "drop-storm" else LOOKS_TO_STALL
            if known.seen >= looks and not known.is_told:
                known.is_told = True
                self.engine.tell(Stalled(cause))
        for key in [key for key in self._known if key not in found]:
            known = self._known[key]
            known.seen, known.missed = 0, known.missed + 1
            if not known.is_told or known.missed >= LOOKS_TO_RECOVER:
                del self._known[key]
                if known.is_told:
                    self.engine.tell(Recovered(known.cause, now_ns - known.cause.since_ns))

    def causes(self, view: View | None = None) -> tuple[Cause, ...]:
        """What is wrong now, or in a view, the gravest first."""
        return causes(view or self.view())

    def _heard(self, event: Event) -> None:
        match event:
            case Refused():
                self._refused_ns = self.engine.clock.now_ns()
            case NodeSlow() if event.node in self.engine.runners:
                has_run = base_run(self.engine.runners[event.node].planned.node_type)
                self._holds[event.node] = Hold(event.node, event.held_ns, self.engine.clock.now_ns(), has_run)
            case Applied():
                renamed = event.patch.renamed
                over = {each.was or each.node for each in event.patch.changes if each.action in ("replace", "remove")}
                self._holds = {
                    renamed.get(id, id): replace(hold, node=renamed.get(id, id))
                    for id, hold in self._holds.items()
                    if id not in over
                }

    def _lately_held(self) -> tuple[Hold, ...]:
        now_ns = self.engine.clock.now_ns()
        self._holds = {id: hold for id, hold in self._holds.items() if now_ns - hold.at_ns <= HELD_NS}
        return tuple(self._holds.values())

    # --- the view ---------------------------------------------------------------------------------------------------

    def view(self) -> View:
        """The graph as it stands now."""
        engine, plan, revisions = self.engine, self.engine.plan, self._revisions
        engine.count()
        clock = engine.clock
        wallclock_ns = clock.wallclock_ns()
        here = datetime.fromtimestamp(wallclock_ns // SECOND_NS, UTC).astimezone().utcoffset()
        followed = [edge for edge in plan.edges if edge.key in self.statistics.edges] if plan else []
        return View(
            now_ns=clock.now_ns(),
            wallclock_ns=wallclock_ns,
            nodes={id: self._node(id, runner) for id, runner in engine.runners.items() if id in self.statistics.nodes},
            edges=tuple(self._edge(edge, self.statistics.edges[edge.key]) for edge in followed),
            zone_s=round(here.total_seconds()) if here else 0,
            is_live=plan.is_live if plan else True,
            state=engine.state,
            running=revisions.running if revisions else "",
            file=revisions.file if revisions else "",
            refused=revisions.refused if revisions else None,
            refused_ns=self._refused_ns,
            holds=self._lately_held(),
            limited=self._limited(),
        )

    def _limited(self) -> tuple[Limited, ...]:
        held = [self.engine.held(id, VIEWERS) for id in self.engine.runners]
        return tuple(each for registry in held if isinstance(registry, ViewerRegistry) for each in registry.limited)

    def _node(self, id: str, runner: Runner) -> NodeView:
        meter = self.statistics.nodes[id]
        wakeup = runner.inbox.wakeup
        return NodeView(
            id=id,
            state=runner.state,
            since_ns=meter.since_ns,
            is_source=runner.is_source,
            # Through a thread everything is taken that comes, unless the thread is busy.
            is_waiting=wakeup.is_awaited,
            error=meter.error,
            is_peer_error=meter.is_peer_error,
            retry_at_ns=meter.retry_at_ns,
            failures=tuple(meter.failures),
            cpu=meter.window.over(LATELY_NS).per_second("cpu") / 1e9,
            is_paused=bool(runner.facts.get("paused")),
        )

    def _edge(self, edge: Edge, meter: EdgeMeter) -> EdgeView:
        channel = self.statistics.channel(edge)
        feeds = list(channel.feeds) if channel else []
        lately, now = meter.window.over(LATELY_NS), meter.window.over(1)
        producer = self.engine.runners.get(edge.producer)
        return EdgeView(
            name=edge.name,
            producer=edge.producer,
            output=edge.output,
            consumer=edge.consumer,
            overflow=edge.overflow,
            begun_ns=meter.begun_ns,
            feedback=edge.feedback,
            is_media=producer is None or not carries_records(producer, edge.output),
            ended=channel is None or channel.ended,
            queued=sum(len(feed.queue) for feed in feeds),
            most=edge.limit.items,
            waits=channel is not None and channel.makes_wait,
            blocked_since_ns=meter.blocked_since_ns,
            last_ns=meter.last_ns,
            usual_ns=meter.usual_ns,
            rate=lately.per_second("delivered"),
            losses={  # of causes that go on
                name.removeprefix("dropped "): lately.per_second(name)
                for name, count in now.counts.items()
                if name.startswith("dropped ") and count
            },
        )
