"""Plays the script of a graph's test on a real engine, and says what was expected and what was measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import anyio
import anyio.to_thread

from flowstream.errors import FlowstreamError, GraphError, Place
from flowstream.graph.compile import compile_graph
from flowstream.graph.described import describe as describe_patch
from flowstream.graph.diagnostics import render
from flowstream.graph.overrides import parse_target, parse_value
from flowstream.graph.plan import Override, Plan
from flowstream.graph.replays import require_replays
from flowstream.media.recording import difference
from flowstream.node.base import Node, Source
from flowstream.node.registry import Registry
from flowstream.runtime.clock import Clock, SystemClock
from flowstream.runtime.engine import Engine
from flowstream.runtime.replay import replays_of
from flowstream.testing.clock import run_virtual
from flowstream.testing.graph_test import Bound, Expect, GraphTest, Placed, Save, Set, Wait, describe
from flowstream.testing.recordings import Watched, items_of, watching

LOOK_NS = 5_000_000
"""How often counters are looked at; a gap is known to within this."""

REAL_TIME = frozenset({"screen", "display"})
"""Types that depend on something outside which goes by the real clock, and of which nothing else tells that."""

Read = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Missed:
    """An expectation that was not met: where it stands, what it was, what there is instead."""

    place: Place
    expected: str
    measured: str

    def __str__(self) -> str:
        return f"{self.place}: expected {self.expected}, {self.measured}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A step that was taken: what it was, what was seen, and what was missed."""

    place: Place
    said: str
    seen: str = ""
    missed: tuple[Missed, ...] = ()


@dataclass(slots=True)
class Result:
    """What became of a test. ``error`` is what kept the graph from running, in words; then steps are missing."""

    test: GraphTest
    steps: list[Outcome] = field(default_factory=list)
    error: str = ""

    @property
    def missed(self) -> list[Missed]:
        """All expectations that were not met, in order."""
        return [each for step in self.steps for each in step.missed]

    @property
    def has_passed(self) -> bool:
        """Whether the graph ran and everything expected was seen."""
        return not self.error and not self.missed


class _Meter:
    """Counts one node's payloads since ``clear``, over all instances that a reload puts in its place."""

    def __init__(self, engine: Engine, node: str, now_ns: int) -> None:
        self._engine = engine
        self._node = node
        self._last: dict[str, int] = {}
        self.clear(now_ns)

    def clear(self, now_ns: int) -> None:
        """Begins anew."""
        self.begin_ns: int = now_ns
        self.counts: dict[str, int] = {"count": 0, "drops": 0, "restarts": 0}
        self.gap_ns: int = 0
        self._newest_ns = now_ns

    def look(self, now_ns: int) -> None:
        """Reads the counters."""
        runner = self._engine.runners.get(self._node)
        if runner is None:
            return
        status = self._engine.status()[self._node]
        takes = any(not port.feedback for port in runner.planned.node_type.inputs.values())
        now = {
            "count": status.received if takes else sum(status.emitted.values()),
            "drops": sum(status.dropped.values()),
            "restarts": status.restarts,
        }
        for name, count in now.items():
            before = self._last.get(name, 0)
            came = count - before if count >= before else count  # another instance begins at zero
            self.counts[name] += came
            if name == "count" and came:
                self.gap_ns = max(self.gap_ns, now_ns - self._newest_ns)
                self._newest_ns = now_ns
        self._last = now

    def measured(self, name: str, now_ns: int) -> float:
        """A measurement by the name that a test gives it; ``gap`` in nanoseconds."""
        if name == "fps":
            return self.counts["count"] * 1e9 / max(1, now_ns - self.begin_ns)
        if name == "gap":
            return max(self.gap_ns, now_ns - self._newest_ns)
        return self.counts[name]


def run_test(test: GraphTest, read: Read) -> Result:
    """Runs a test to its end. ``read`` gives the bytes of a file or raises OSError."""
    result = Result(test)
    try:
        files = _Files(test, read)
        plan = files.compile()
        if test.head.clock == "virtual":
            _require_virtual(plan)
            run_virtual(lambda clock: _play(result, files, plan, clock))
        else:
            anyio.run(_play, result, files, plan, SystemClock())
    except GraphError as error:
        result.error = render(error.diagnostics)
    except FlowstreamError as error:
        result.error = str(error)
    return result


class _Files:
    """The graph's files as the script has saved them, and the values that it has set."""

    def __init__(self, test: GraphTest, read: Read) -> None:
        self._test = test
        self._read = read
        self._saved: dict[str, bytes] = {}
        self._overrides: dict[str, Override] = {}
        self.beside = test.beside
        given = [f"{node}={test.beside(path)}" for node, path in test.head.replay.items()]
        self._replays = replays_of(given, "max" if test.head.clock == "virtual" else "real")
        self._registry = Registry.installed([Path(test.beside(each)) for each in test.head.nodes])
        self._began = datetime.now(UTC).astimezone()
        self.graph = test.beside(test.head.graph)

    def read(self, path: str) -> bytes:
        """What a file holds now."""
        key = os.path.normpath(path)
        return self._saved[key] if key in self._saved else self._read(path)

    def compile(self) -> Plan:
        """The plan of the files as they are now. Raises GraphError, PackError, ReplayError."""
        plan = compile_graph(
            self.graph,
            read=self.read,
            environ=os.environ,
            registry=self._registry,
            wallclock=self._began,
            sets=self._test.head.sets,
            layers=[self._test.beside(each) for each in self._test.head.layers],
            overrides=list(self._overrides.values()),
            replays=self._replays,
        )
        require_replays(plan, self._replays)
        return plan

    def save(self, step: Save) -> str:
        """Puts another text in a file's place; gives what is wrong with the step, if anything."""
        path = self._test.beside(step.file) if step.file else self.graph
        try:
            if step.text is not None:
                content = step.text.encode()
            elif step.copy_of is not None:
                content = self.read(self._test.beside(step.copy_of))
            else:
                content = self.read(path)
                for old, new in (step.replace or {}).items():
                    if old.encode() not in content:
                        return f"{PurePath(path).name} holds no {old!r}"
                    content = content.replace(old.encode(), new.encode())
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
        self._saved[os.path.normpath(path)] = content
        return ""

    def set(self, texts: Mapping[str, str]) -> Callable[[], None]:
        """Lays values over the files; gives what takes them back."""
        before = dict(self._overrides)
        for target, text in texts.items():
            node, name = parse_target(target)
            self._overrides[target] = Override(node, name, parse_value(text))

        def undo() -> None:
            self._overrides = before

        return undo


def _require_virtual(plan: Plan) -> None:
    """Raises FlowstreamError when a node of the plan goes by the real clock."""
    for id, planned in plan.nodes.items():
        node_type: type[Node[Any]] = planned.node_type
        waits_outside = issubclass(node_type, Source) and node_type.capture is not Source.capture
        if node_type.serves or waits_outside or planned.type_id in REAL_TIME:
            raise FlowstreamError(
                f"{id} ({planned.type_id}) goes by the real clock, so the test cannot run on a virtual one",
                hint="write clock: real",
            )


async def _play(result: Result, files: _Files, plan: Plan, clock: Clock) -> None:
    async with Engine.open(clock=clock) as engine:
        await engine.start(plan)
        outputs = [each.step.output for each in result.test.steps if isinstance(each.step, Expect) and each.step.output]
        async with watching(engine, list(dict.fromkeys(outputs))) as watched:
            await _Player(engine, files, result, watched).play(result.test.steps)
        await engine.stop()


class _Player:
    def __init__(self, engine: Engine, files: _Files, result: Result, watched: Watched) -> None:
        self.engine = engine
        self.watched = watched
        self.clock = engine.clock
        self.files = files
        self.result = result
        self.reload = ""
        self.told = ""
        nodes = {each.step.node for each in result.test.steps if isinstance(each.step, Expect) and each.step.node}
        self.meters = {node: _Meter(engine, node, self.clock.now_ns()) for node in sorted(nodes)}

    async def play(self, steps: Sequence[Placed]) -> None:
        for index, placed in enumerate(steps):
            if index and isinstance(steps[index - 1].step, Expect) and not isinstance(placed.step, Expect):
                for meter in self.meters.values():
                    meter.look(self.clock.now_ns())
                    meter.clear(self.clock.now_ns())
            outcome = await self._take(placed)
            self.result.steps.append(outcome)
            if outcome.missed and not isinstance(placed.step, Expect):
                return  # a step that could not be taken: what comes after it is about something else

    async def _take(self, placed: Placed) -> Outcome:
        step, said = placed.step, describe(placed.step, placed.texts)
        match step:
            case Wait():
                await self._wait(step.wait)
                return Outcome(placed.place, said)
            case Save():
                if wrong := self.files.save(step):
                    return Outcome(placed.place, said, missed=(Missed(placed.place, said, wrong),))
                await self._apply()
                return Outcome(placed.place, said, self.reload)
            case Set():
                undo = self.files.set(placed.texts)
                await self._apply()
                if self.reload == "refused":
                    undo()
                return Outcome(placed.place, said, self.reload)
            case Expect():
                outcome = self._expect(placed, step, said)
                return outcome if step.equals is None else await self._compare(placed, step, step.equals, outcome)

    async def _wait(self, time_ns: int) -> None:
        until_ns = self.clock.now_ns() + time_ns
        while (now_ns := self.clock.now_ns()) < until_ns:
            await self.clock.sleep_until_ns(min(until_ns, now_ns + LOOK_NS))
            for meter in self.meters.values():
                meter.look(self.clock.now_ns())

    async def _apply(self) -> None:
        """Does what a save does: the graph goes over to it, or goes on as it was."""
        try:
            self.clock.hold()
            try:
                plan = await anyio.to_thread.run_sync(self.files.compile)
            finally:
                self.clock.release()
            patch = await self._meanwhile(plan)
        except GraphError as error:
            self.reload, self.told = "refused", render(error.diagnostics)
        except FlowstreamError as error:
            self.reload, self.told = "refused", str(error)
        else:
            self.reload, self.told = "applied", "\n".join(describe_patch(patch))

    async def _meanwhile(self, plan: Plan) -> Any:
        """Applies a plan, with the counters looked at while that lasts."""
        found: list[Any] = []
        async with anyio.create_task_group() as tasks:

            async def look() -> None:
                while True:
                    await self._wait(LOOK_NS)

            async def apply() -> None:
                try:
                    found.append(await self.engine.apply(plan))
                except FlowstreamError as error:
                    found.append(error)
                tasks.cancel_scope.cancel()

            tasks.start_soon(look)
            tasks.start_soon(apply)
        if isinstance(found[0], FlowstreamError):
            raise found[0]
        return found[0]

    async def _compare(self, placed: Placed, step: Expect, path: str, outcome: Outcome) -> Outcome:
        """Whether an output has given what a recording has, on top of what else was expected."""
        self.clock.hold()
        try:
            wanted = await anyio.to_thread.run_sync(items_of, self.files.beside(path), step.output)
        finally:
            self.clock.release()
        differs = difference(await self.watched.items(step.output), wanted)
        seen = "; ".join(each for each in (outcome.seen, "" if differs else f"{len(wanted)} equal {path}") if each)
        missed = Missed(placed.places["equals"], f"{step.output} as in {path}", differs)
        return replace(outcome, seen=seen, missed=(*outcome.missed, missed) if differs else outcome.missed)

    def _expect(self, placed: Placed, step: Expect, said: str) -> Outcome:
        now_ns = self.clock.now_ns()
        seen: list[str] = []
        missed: list[Missed] = []

        def hold(name: str, expected: str, measured: str, is_met: bool) -> None:
            seen.append(f"{name} {measured} ({expected})")
            if not is_met:
                of = f" of {step.node}" if step.node else ""
                place = placed.places.get(name, placed.place)
                missed.append(Missed(place, f"{name}{of} {expected}", f"measured {measured}"))

        if step.node and step.node not in self.engine.runners:
            place = placed.places["node"]
            return Outcome(
                placed.place, said, missed=(Missed(place, f"a node {step.node}", "there is none in what runs"),)
            )
        if step.node:
            meter = self.meters[step.node]
            meter.look(now_ns)
            for name in ("fps", "gap", "count", "drops", "restarts"):
                bound: Bound | None = getattr(step, name)
                if bound is not None:
                    value = meter.measured(name, now_ns)
                    hold(name, str(bound), _spoken(name, value), bound.holds(value))
        if step.state is not None:
            state = self.engine.runners[step.node].state if step.node else self.engine.state
            hold("state", step.state, state, state == step.state)
        if step.reload is not None:
            hold("reload", step.reload, self.reload or "nothing was saved", self.reload == step.reload)
        if step.contains is not None:
            is_there = step.contains in self.told
            seen.append(f"contains {step.contains!r}")
            if not is_there:
                told = self.told or "nothing"
                missed.append(
                    Missed(placed.places["contains"], f"{step.contains!r} in what was said", f"it was: {told}")
                )
        return Outcome(placed.place, said, "; ".join(seen), tuple(missed))


def _spoken(name: str, value: float) -> str:
    if name == "gap":
        return f"{value / 1e6:.0f}ms"
    return f"{value:.1f}" if name == "fps" else f"{value:.0f}"
