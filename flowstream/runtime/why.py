"""Why nothing comes, in sentences: who waits for whom in a running graph, followed to where it begins.

Pure: a View goes in, causes come out. One cause is one thing to mend, however many nodes suffer from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from flowstream.graph.diagnostics import listed
from flowstream.runtime.cause import Cause, Kind
from flowstream.runtime.limits import causes_of
from flowstream.runtime.view import EdgeView, Hold, NodeView, View

STALLED_NS = 2_000_000_000
"""How long nothing may move where something did before, in a live graph."""

STALLED_OFFLINE_NS = 10_000_000_000
"""The same in a graph that is not live: there a slow step slows the rest, which is no fault."""

FIRST_NS = 5_000_000_000
"""How long the first payloads may take."""

PATIENCE = 3
"""A stream that comes seldom stalls when it has missed so many."""

LOOP_FAILURES = 3
LOOP_NS = 60_000_000_000
"""So many failures within so long are a loop."""

DROPPED_SHARE = 0.1
"""The share of an edge's payloads that may be lost without a word."""

COMPUTING = 0.8
"""The share of a processor with which a node does nothing but compute."""

DAY_NS = 86_400_000_000_000


def causes(view: View) -> tuple[Cause, ...]:
    """What is wrong, the gravest first; nothing when all is well."""
    return tuple(_Reasoning(view).causes())


def verdict(view: View, found: Iterable[Cause], node: str | None = None) -> list[str]:
    """Sentences for a person: the causes, or those that concern a node; one that says so when nothing is wrong.

    Raises KeyError for a node that is not there.
    """
    standing = None if node is None else view.nodes[node]
    concerned = [cause for cause in found if node is None or node in cause.chain]
    sentences = [cause.sentence for cause in concerned]
    if any(cause.is_fault for cause in concerned):
        return sentences
    return [_healthy(view) if standing is None else _healthy_node(view, standing), *sentences]


class _Reasoning:
    """One look at a view."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.now_ns = view.now_ns
        self.stalled_ns = STALLED_NS if view.is_live else STALLED_OFFLINE_NS
        edges = [edge for edge in view.edges if not edge.ended]
        self.inputs: dict[str, list[EdgeView]] = {id: [] for id in view.nodes}
        self.outputs: dict[str, list[EdgeView]] = {id: [] for id in view.nodes}
        for edge in edges:
            if not edge.feedback:
                self.inputs[edge.consumer].append(edge)
                self.outputs[edge.producer].append(edge)
        # Who waits for whom, by which edge: a producer for room, a consumer for something to take.
        self.waits: dict[str, list[tuple[str, EdgeView]]] = {id: [] for id in view.nodes}
        self.resting = self._resting()
        for edge in edges:
            if edge.feedback or not self._works(edge.consumer) or edge.producer in self.resting:
                continue
            if edge.waits and self._is_still(edge) and self._works(edge.producer):
                self.waits[edge.producer].append((edge.consumer, edge))
            elif edge.is_media and not edge.queued and self._is_still(edge) and not self._is_busy(edge.consumer):
                self.waits[edge.consumer].append((edge.producer, edge))

    def causes(self) -> Iterable[Cause]:
        told: set[str] = set()
        for make in (self._deadlocks, self._broken, self._stuck, self._silent):
            for cause in make(told):
                told.update(cause.chain)
                yield cause
        yield from self._slow(told)
        yield from self._losing(told)
        for hold in self.view.holds:
            yield self._held(hold)
        if self.view.refused is not None:
            yield self._refused(self.view.refused)
        yield from causes_of(each for each in self.view.limited if self._works(each.node))

    # --- looking ----------------------------------------------------------------------------------------------------

    def _works(self, node: str) -> bool:
        return self.view.nodes[node].state in ("running", "ready")

    def _resting(self) -> set[str]:
        """Nodes that are paused, and those that get media from such nodes only: nobody waits for them in vain."""
        resting = {node.id for node in self.view.nodes.values() if node.is_paused}
        grows = bool(resting)
        while grows:
            grows = False
            for id, edges in self.inputs.items():
                givers = [edge.producer for edge in edges if edge.is_media]
                if id not in resting and givers and resting.issuperset(givers):
                    resting.add(id)
                    grows = True
        return resting

    def _is_busy(self, node: str) -> bool:
        """Whether something waits for a node that waits for nothing itself."""
        return not self.view.nodes[node].is_waiting and any(edge.queued for edge in self.inputs[node])

    def _is_still(self, edge: EdgeView) -> bool:
        """Whether nothing was taken from the edge for longer than is usual."""
        if edge.last_ns is None:
            return self.now_ns - edge.begun_ns > FIRST_NS
        usual_ns = FIRST_NS if edge.usual_ns is None else PATIENCE * edge.usual_ns
        return self.now_ns - edge.last_ns > max(self.stalled_ns, usual_ns)

    def _since_ns(self, edges: Iterable[EdgeView]) -> int:
        return max((edge.begun_ns if edge.last_ns is None else edge.last_ns for edge in edges), default=self.now_ns)

    def _suffering(self, roots: Iterable[str], told: set[str]) -> dict[str, str]:
        """The nodes that wait for one of ``roots``, each with the one by which it does; nearest first."""
        found: dict[str, str] = {}
        known = {*told, *roots}
        near = list(roots)
        while near:
            further = []
            for id, waits in self.waits.items():
                by = next((other for other, _ in waits if other in near), None)
                if by is not None and id not in known:
                    found[id] = by
                    known.add(id)
                    further.append(id)
            near = further
        return found

    def _deprived(self, root: str, edges: Iterable[EdgeView], told: set[str]) -> dict[str, str]:
        """As ``_suffering``, of those that get nothing on these edges of ``root``, or will get nothing soon."""
        near = {edge.consumer: root for edge in edges if edge.consumer not in told and self._works(edge.consumer)}
        for id in self.view.nodes:  # in the order in which media goes
            givers = [edge.producer for edge in self.inputs[id]]
            if (
                givers
                and id not in near
                and id not in told
                and self._works(id)
                and all(each in near for each in givers)
            ):
                near[id] = givers[0]
        return near | self._suffering(near, {*told, root})

    # --- causes -----------------------------------------------------------------------------------------------------

    def _deadlocks(self, told: set[str]) -> Iterable[Cause]:
        while (cycle := self._cycle(told)) is not None:
            ring = [edge for _, _, edge in cycle]
            nodes = [id for id, _, _ in cycle]
            steps = [
                f"{id} waits for {other} to take what is on {edge.name}" if edge.waits else f"{id} waits for {other}"
                for id, other, edge in cycle
            ]
            since_ns = self._since_ns(ring)
            full = next(edge for edge in ring if edge.waits)
            suffering = self._suffering(nodes, told)
            yield Cause(
                nodes[0],
                "deadlock",
                f"nothing moves since {self._clock(since_ns)}: {listed(steps)}; "
                f"raise limit: of {full.name}, or let it drop (overflow: drop-oldest)",
                since_ns,
                (*suffering, *nodes),
            )
            told.update(nodes)

    def _cycle(self, told: set[str]) -> list[tuple[str, str, EdgeView]] | None:
        """A ring of nodes that wait for each other, begun by one that waits for room."""
        for begin in self.waits:
            path: list[tuple[str, str, EdgeView]] = []
            ring = self._ring(begin, begin, path, set(told))
            if ring and any(edge.waits for _, _, edge in path):
                first = next(i for i, (_, _, edge) in enumerate(path) if edge.waits)
                return path[first:] + path[:first]
        return None

    def _ring(self, begin: str, at: str, path: list[tuple[str, str, EdgeView]], seen: set[str]) -> bool:
        if at in seen:
            return False
        seen.add(at)
        for other, edge in self.waits[at]:
            path.append((at, other, edge))
            if other == begin or self._ring(begin, other, path, seen):
                return True
            path.pop()
        return False

    def _broken(self, told: set[str]) -> Iterable[Cause]:
        """Nodes that failed, fail again and again, or do not come up."""
        for node in self.view.nodes.values():
            recent = [at for at in node.failures if self.now_ns - at <= LOOP_NS]
            is_down = node.state in ("failed", "restarting")
            if node.error is not None and (is_down or len(recent) >= LOOP_FAILURES):
                yield self._failing(node, recent, is_down, told)
            elif node.state == "starting" and self.now_ns - node.since_ns > FIRST_NS:
                what = f"has been starting for {duration(self.now_ns - node.since_ns)}"
                found = self._deprived(node.id, self._media_of(node.id), told)
                yield self._cause(node.id, "starting", what, node.since_ns, node.since_ns, found)

    def _failing(self, node: NodeView, recent: list[int], is_down: bool, told: set[str]) -> Cause:
        given = self._media_of(node.id)
        found = self._deprived(node.id, given, told) if is_down else {}
        last = [edge.last_ns for edge in given if edge.last_ns is not None]
        kind: Kind = "refused-peer" if node.is_peer_error else "failed"
        since_ns = node.since_ns
        if len(recent) >= LOOP_FAILURES:
            kind, since_ns = "restart-loop", recent[0]
            what = f"has failed {len(recent)} times in the last minute, last at {self._clock(recent[-1])}: {node.error}"
        elif found and last:
            what = f"has delivered nothing since {self._clock(max(last))}; {node.error}"
        else:
            what = f"failed at {self._clock(since_ns)}: {node.error}"
        what += f"; {self._next_attempt(node) if is_down else f'it runs again since {self._clock(node.since_ns)}'}"
        return self._cause(node.id, kind, what, since_ns, max(last) if last else since_ns, found)

    def _media_of(self, node: str) -> list[EdgeView]:
        return [edge for edge in self.outputs[node] if edge.is_media]

    def _next_attempt(self, node: NodeView) -> str:
        if node.retry_at_ns is None:
            return "it stays down until it is changed in the graph"
        left_ns = node.retry_at_ns - self.now_ns
        return f"next attempt in {duration(left_ns)}" if left_ns > 0 else "an attempt is under way"

    def _stuck(self, told: set[str]) -> Iterable[Cause]:
        """Consumers that take nothing although something waits for them, and wait for nobody."""
        for id, node in self.view.nodes.items():
            waiting = [edge for edge in self.inputs[id] if edge.queued or edge.waits]
            if id in told or not self._works(id) or not waiting or self.waits[id]:
                continue
            if not all(self._is_still(edge) for edge in self.inputs[id]) or node.is_waiting:
                continue
            edge = max(waiting, key=lambda edge: edge.queued)
            since_ns = self._since_ns(self.inputs[id])
            ago = duration(self.now_ns - since_ns)
            what = (
                f"has taken nothing since {self._clock(since_ns)} ({ago}): "
                f"it is still busy with what it took last{self._computing(id)}, "
                f"and {_count(edge.queued)} on {edge.name}"
            )
            found = self._deprived(id, self._media_of(id), told)
            siblings = self._siblings(edge) if edge.waits else []
            if siblings:
                yield self._stops(edge, siblings, what, since_ns, self._suffering([id], told))
                continue
            if edge.waits:
                what += f", so {edge.producer} waits too"
            elif edge.drop_rate:
                what += f"; {_rate(edge.drop_rate)} are dropped there"
            cause = self._cause(id, "slow-consumer", what, since_ns, since_ns, found)
            held_up = [each for each in reversed(self._suffering([id], told)) if each not in cause.chain]
            yield replace(cause, chain=(*cause.chain[:-1], *held_up, id))

    def _siblings(self, edge: EdgeView) -> list[str]:
        """Who else takes from the producer of an edge, and would get more if it did not wait."""
        others = (each.consumer for each in self.outputs[edge.producer] if each is not edge)
        return [id for id in dict.fromkeys(others) if id != edge.consumer]

    def _stops(self, edge: EdgeView, siblings: list[str], what: str, since_ns: int, found: dict[str, str]) -> Cause:
        chain = (*siblings, *(id for id in reversed(found) if id not in siblings), edge.consumer)
        return Cause(
            edge.consumer,
            "blocked-siblings",
            f"{edge.consumer} holds up {listed(siblings)}: it {what}; {edge.name} makes {edge.producer} wait "
            f"(overflow: block), and with it all that take from it",
            since_ns,
            chain,
        )

    def _silent(self, told: set[str]) -> Iterable[Cause]:
        """Nodes that should give something and do not."""
        for id in self.view.nodes:
            if id in told or id in self.resting or not self._works(id) or self.waits[id] or self._is_busy(id):
                continue
            given = [edge for edge in self._media_of(id) if self._works(edge.consumer)]
            outputs = dict.fromkeys(edge.output for edge in given)
            still = [name for name in outputs if all(self._gives_nothing(e) for e in given if e.output == name)]
            if still:
                given = [edge for edge in given if edge.output in still]
                yield self._silence(id, given, "" if len(still) == len(outputs) else f" on {listed(still)}", told)

    def _gives_nothing(self, edge: EdgeView) -> bool:
        return self._is_still(edge) and not edge.queued and not edge.drop_rate

    def _silence(self, id: str, given: list[EdgeView], where: str, told: set[str]) -> Cause:
        since_ns = self._since_ns(given)
        begin = "" if any(edge.last_ns is not None for edge in given) else "it was started at "
        what = f"has delivered nothing{where} since {begin}{self._clock(since_ns)}"
        kind: Kind = "silent-source"
        if self.inputs[id]:
            kind = "starvation"
            givers = list(dict.fromkeys(edge.producer for edge in self.inputs[id]))
            what = f"takes what {listed(givers)} {'gives' if len(givers) == 1 else 'give'} and {what}"
        return self._cause(id, kind, what, since_ns, since_ns, self._deprived(id, given, told))

    def _cause(
        self, id: str, kind: Kind, what: str, since_ns: int, waiting_since_ns: int, found: dict[str, str]
    ) -> Cause:
        """``what`` is wrong with a node, told from the side of those at the end that get nothing."""
        ends = [each for each in found if each not in found.values()]
        if not ends:
            return Cause(id, kind, f"{id} {what}", since_ns, (id,))
        way = [ends[0]]
        while (after := found[way[-1]]) != id:
            way.append(after)
        waiting = way[1:]
        waited = duration(self.now_ns - waiting_since_ns)
        if waiting:
            links = "".join(f"waits for {after}, which " for after in waiting[1:])
            clause = f"{waiting[0]} {links}has waited {waited} for {id}, which {what}"
        else:
            clause = f"{'it has' if len(ends) == 1 else 'they have'} waited {waited} for {id}, which {what}"
        starved = f"{listed(ends)} {'is' if len(ends) == 1 else 'are'} starved"
        return Cause(id, kind, f"{starved}: {clause}", since_ns, (*reversed(found), id))

    def _slow(self, told: set[str]) -> Iterable[Cause]:
        """Consumers that make their producers wait again and again, in a live graph."""
        if not self.view.is_live:
            return
        for edge in self.view.edges:
            since_ns = edge.blocked_since_ns
            if edge.consumer in told or since_ns is None or self.now_ns - since_ns <= self.stalled_ns:
                continue
            seldom_ns = max(self.stalled_ns, PATIENCE * (edge.usual_ns or 0))
            if edge.last_ns is None or self.now_ns - edge.last_ns > seldom_ns:
                continue  # it takes nothing at all
            if self.waits[edge.consumer] or any(out.blocked_since_ns for out in self.outputs[edge.consumer]):
                continue  # it waits in its turn
            ago = duration(self.now_ns - since_ns)
            siblings = self._siblings(edge)
            if siblings:
                yield self._stops(
                    edge, siblings, f"takes only {_rate(edge.rate)}{self._computing(edge.consumer)}", since_ns, {}
                )
            else:
                sentence = (
                    f"{edge.consumer} is slow: it takes {_rate(edge.rate)}{self._computing(edge.consumer)}, "
                    f"and {edge.producer} has waited for it for {ago} ({edge.name} is full)"
                )
                yield Cause(edge.consumer, "slow-consumer", sentence, since_ns, (edge.producer, edge.consumer))
            told.add(edge.consumer)

    def _losing(self, told: set[str]) -> Iterable[Cause]:
        for edge in self.view.edges:
            given = edge.rate + edge.drop_rate
            if edge.overflow == "latest" or edge.feedback or edge.consumer in told or edge.drop_rate < 1:
                continue
            if edge.drop_rate < DROPPED_SHARE * given:
                continue
            losses = ", ".join(f"{_rate(rate)} ({cause})" for cause, rate in edge.losses.items() if rate)
            sentence = (
                f"{edge.consumer} takes {_rate(edge.rate)} of the {_rate(given)} that {edge.producer} gives"
                f"{self._computing(edge.consumer)}; "
                f"{edge.name} drops {losses}"
            )
            yield Cause(edge.consumer, "drop-storm", sentence, self.now_ns, (edge.consumer,))

    def _computing(self, node: str) -> str:
        """That a node has no time left, if it has none."""
        cpu = self.view.nodes[node].cpu
        return f" (computing without a pause: {cpu:.0%} of a processor)" if cpu >= COMPUTING else ""

    def _held(self, hold: Hold) -> Cause:
        remedy = (
            "await ctx.in_thread(...) in its run() takes what computes or blocks to"
            if hold.has_run
            else "thread = True in its class gives it"
        )
        sentence = (
            f"{hold.node} kept everything waiting for {duration(hold.held_ns)} at {self._clock(hold.at_ns)}: "
            f"its work is done between that of all others; {remedy} a thread of its own"
        )
        return Cause(hold.node, "held-loop", sentence, hold.at_ns, (hold.node,))

    def _refused(self, reason: str) -> Cause:
        view = self.view
        since_ns = self.now_ns if view.refused_ns is None else view.refused_ns
        sentence = (
            f"the file holds {view.file}, which was refused at {self._clock(since_ns)}: {reason}; "
            f"{view.running} goes on"
        )
        return Cause("", "refused-file", sentence, since_ns, ("",))

    def _clock(self, at_ns: int) -> str:
        return time_of_day(self.view, at_ns)


def time_of_day(view: View, at_ns: int) -> str:
    """A now as the clock on the wall shows it, with the day when that was not within the last."""
    zone = timezone(timedelta(seconds=view.zone_s))
    at = datetime.fromtimestamp((view.wallclock_ns - (view.now_ns - at_ns)) // 1_000_000_000, zone)
    is_recent = abs(view.now_ns - at_ns) < DAY_NS
    return f"{at:%H:%M:%S}" if is_recent else f"{at:%Y-%m-%d %H:%M:%S}"


def duration(span_ns: int) -> str:
    """``180 ms``, ``4.1 s``, ``2 min 5 s``, ``3 h 20 min``."""
    seconds = max(0, span_ns) / 1e9
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def _healthy(view: View) -> str:
    if view.state == "ended":
        return "the graph has come to its end"
    if view.state in ("starting", "draining"):
        return f"the graph is {view.state}, and nothing is in its way"
    working = [node for node in view.nodes.values() if node.state in ("running", "ready")]
    nodes = f"{len(working)} nodes work" if len(working) != 1 else "1 node works"
    return f"all is well: {nodes} and nothing waits for long"


def _healthy_node(view: View, node: NodeView) -> str:
    if node.state not in ("running", "ready"):
        return f"{node.id} has {node.state}" if node.state == "ended" else f"{node.id} is {node.state}"
    if node.is_paused:
        return f"{node.id} is paused, and means to be"
    edges = [edge for edge in view.edges if not edge.feedback]
    takes = [f"{_rate(edge.rate)} from {edge.producer}" for edge in edges if edge.consumer == node.id]
    taken = [f"{edge.consumer} takes {_rate(edge.rate)} from it" for edge in edges if edge.producer == node.id]
    parts = ([f"it takes {listed(takes)}"] if takes else []) + taken
    return f"{node.id} is well: {', '.join(parts)}" if parts else f"{node.id} is well"


def _count(number: int) -> str:
    return "1 waits" if number == 1 else f"{number} wait"


def _rate(per_second: float) -> str:
    return f"{per_second:.0f}/s" if per_second >= 9.95 or per_second == 0 else f"{per_second:.1f}/s"
