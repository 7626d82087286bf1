"""One run of a graph, from its plan to the exit status."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import anyio.to_thread

from flowstream.cli.graphs import GraphFile
from flowstream.cli.report import Report
from flowstream.cli.screen import Row, Screen, Table
from flowstream.cli.signals import Stopping
from flowstream.control import api, door
from flowstream.control.server import serving
from flowstream.control.socket import listening
from flowstream.errors import FlowstreamError
from flowstream.graph.plan import Plan
from flowstream.media.frames import VideoFrame
from flowstream.runtime.engine import DRAIN_SECONDS, Engine, NodeStatus
from flowstream.runtime.events import Applied
from flowstream.runtime.log import Secrets
from flowstream.runtime.mounts import Mounts
from flowstream.runtime.reload import Reloader, Revisions, digest
from flowstream.runtime.runner import CLOSE_SECONDS
from flowstream.runtime.watchdog import holder

ENDED, FAILED, STOPPED = 0, 1, 130
"""Exit statuses: it ended by itself or was drained; a node or the start failed; it was stopped at once."""

LATE_SECONDS = 3.0
"""When a drain that takes longer says what it waits for."""

GIVE_UP_SECONDS = DRAIN_SECONDS + CLOSE_SECONDS + 3.0
"""How long a drain may take in all before the process ends without what is stuck."""


@dataclass(slots=True)
class Session:
    """A run. ``watch`` reloads the graph when its files are saved; ``control`` is the path of the control socket.

    ``inline`` runs on the event loop what nodes do on threads of their own.
    """

    file: GraphFile
    report: Report
    screen: Screen
    secrets: Secrets
    control: Path | None = None
    watch: bool = True
    inline: bool = False
    mounts: Mounts = field(default_factory=Mounts)
    _engine: Engine | None = None
    _began: float = 0.0
    _open_door: Callable[[Plan], None] | None = None
    _told: tuple[str, ...] = ()
    _digest: str = ""

    async def run(self, plan: Plan) -> int:
        """Runs the plan to its end and gives the exit status; failures are reported, not raised."""
        self._began = time.monotonic()
        self._digest = digest(plan.files)
        with Stopping(drain_seconds=GIVE_UP_SECONDS, give_up=self._give_up) as stopping:
            try:
                return await self._run(plan, stopping)
            except FlowstreamError as error:
                self.report.error(error)
                return FAILED

    async def _run(self, plan: Plan, stopping: Stopping) -> int:
        revisions = Revisions(plan.revision, plan.revision)
        status = FAILED
        with listening(plan.name, self.control) as (listener, _):
            async with anyio.create_task_group() as servers:

                async def keep(serve: object) -> None:
                    async with serve:  # type: ignore[attr-defined]
                        await anyio.sleep_forever()

                def open_door(plan: Plan) -> None:
                    if self.mounts.listen is None and door.serves(plan):
                        socket = door.bind(plan.serve)
                        self.mounts.listen = socket.getsockname()[:2]
                        servers.start_soon(keep, serving(door.Door(self.mounts), socket, connections=door.CONNECTIONS))

                self._open_door = open_door
                async with Engine.open(mounts=self.mounts, is_inline=self.inline) as engine:
                    self._engine = engine
                    engine.listen(self.report.event)
                    app = api.make_app(engine, plan, revisions, self.secrets, self._compile_others)
                    servers.start_soon(keep, serving(app, listener, connections=api.CONNECTIONS))
                    try:
                        open_door(plan)
                        status = await self._live(engine, plan, revisions, stopping)
                    except FlowstreamError as error:
                        self.report.error(error)
                servers.cancel_scope.cancel()
        return status

    async def _live(self, engine: Engine, plan: Plan, revisions: Revisions, stopping: Stopping) -> int:
        async with anyio.create_task_group() as tasks:
            starting = anyio.CancelScope()
            tasks.start_soon(self._obey, engine, stopping, starting)
            with starting:
                try:
                    await engine.start(plan)
                except FlowstreamError as error:
                    self.report.error(error)
            if engine.plan is None:
                tasks.cancel_scope.cancel()
                return STOPPED if starting.cancelled_caught else FAILED
            self._tell_links()
            self.report.running(plan, is_watched=self.watch)
            engine.listen(lambda event: self._tell_links() if isinstance(event, Applied) else None)
            tasks.start_soon(self._tick, engine)
            if self.watch:
                reloader = Reloader(engine, self._compile, revisions, attempted=self._digest)
                tasks.start_soon(self._follow, reloader, stopping)
            await engine.wait()
            tasks.cancel_scope.cancel()
        self._show(engine, {}, 0)
        if stopping.insisted.is_set():
            return STOPPED
        return FAILED if any(runner.state == "failed" for runner in engine.runners.values()) else ENDED

    async def _obey(self, engine: Engine, stopping: Stopping, starting: anyio.CancelScope) -> None:
        await stopping.asked.wait()
        if engine.plan is None:
            self.report.note("stopping", "stopped before it was running")
            starting.cancel()
            return
        self.report.note("draining", "draining; Ctrl-C again stops now")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.stop)
            tasks.start_soon(self._tell_who_is_late, engine)
            await stopping.insisted.wait()
            self.report.note("stopping", "stopping")
            await engine.stop(drain_seconds=0)

    async def _tell_who_is_late(self, engine: Engine) -> None:
        await anyio.sleep(LATE_SECONDS)
        if late := _unfinished(engine):
            self.report.note("draining", f"waiting for {late}; Ctrl-C again stops now")

    async def _follow(self, reloader: Reloader, stopping: Stopping) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, reloader)
            await stopping.asked.wait()
            tasks.cancel_scope.cancel()

    async def _watch(self, reloader: Reloader) -> None:
        try:
            await reloader.run()
        except Exception as error:  # noqa: BLE001 - whatever ails the watching does not end what runs
            self.report.note("unwatched", f"the graph's files are not watched any more: {error}", level="warning")

    def _compile(self) -> Plan:
        """For the reloader, on a worker thread: the plan of the files, with a door if it needs one now."""
        plan = self.file.compile()
        self.secrets.update(self.file.environment.asked)
        assert self._open_door is not None
        anyio.from_thread.run_sync(self._open_door, plan)
        return plan

    async def _compile_others(self, files: tuple[str, ...]) -> Plan:
        """The plan of other files, as if they stood in the place of those that run."""
        other = replace(self.file, path=files[0], layers=files[1:])
        plan = await anyio.to_thread.run_sync(other.compile)
        self.secrets.update(self.file.environment.asked)
        return plan

    # --- what is shown ----------------------------------------------------------------------------------------------

    def _tell_links(self) -> None:
        links = tuple(link for _, link in door.links(self.mounts))
        if links != self._told:
            self._told = links
            self.report.links(links)
            if self.mounts.listen and not door.is_loopback(self.mounts.listen[0]):
                self.report.note(
                    "open",
                    "without TLS: whoever reaches this address can watch, and the page can be changed on its way",
                    level="warning",
                )

    async def _tick(self, engine: Engine) -> None:
        before: dict[str, NodeStatus] = {}
        at = time.monotonic()
        while True:
            await anyio.sleep(1)
            now = time.monotonic()
            before = self._show(engine, before, now - at)
            at = now

    def _show(self, engine: Engine, before: dict[str, NodeStatus], seconds: float) -> dict[str, NodeStatus]:
        if not self.screen.is_live or engine.plan is None:
            return before
        now = engine.status()
        rows = tuple(self._row(engine, id, node, before.get(id), seconds) for id, node in now.items())
        minutes, rest = divmod(int(time.monotonic() - self._began), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
        links = " ".join(self._told)
        title = "  ".join(filter(None, (engine.plan.name, engine.state, clock, links)))
        self.screen.show(Table(self.secrets.scrub(title), rows))
        return now

    def _row(self, engine: Engine, id: str, node: NodeStatus, before: NodeStatus | None, seconds: float) -> Row:
        rates = []
        node_type = engine.runners[id].planned.node_type
        if before is not None and seconds > 0 and node.state == "running":
            if node_type.outputs:
                for name, port in node_type.outputs.items():
                    count = node.emitted.get(name, 0) - before.emitted.get(name, 0)
                    rates.append(_rate(count / seconds, issubclass(port.payloads[0], VideoFrame)))
            else:
                is_video = all(each.payloads == (VideoFrame,) for each in node_type.inputs.values())
                rates.append(_rate((node.received - before.received) / seconds, is_video))
        details = [fact_text(name, value) for name, value in node.facts.items() if value is not None]
        details += [f"dropped {count} ({cause})" for cause, count in node.dropped.items() if count]
        details += [f"restarts={node.restarts}"] if node.restarts else []
        return Row(id, node.type, node.state, " + ".join(rates), self.secrets.scrub("  ".join(details)))

    # --- the last resort --------------------------------------------------------------------------------------------

    def _give_up(self, insisted: bool) -> None:
        """Ends the process although something hangs, from a thread of its own."""
        what = "something"
        if self._engine is not None:
            what = _in_the_way(self._engine) or _unfinished(self._engine) or what
        self.report.note("stuck", f"left behind what did not end in time: {what}", level="error")
        leave(self.screen, STOPPED if insisted else FAILED)


def _unfinished(engine: Engine) -> str:
    """The nodes that have not come to their end."""
    runners = dict(engine.runners)
    return ", ".join(f"{id} ({runner.planned.type_id})" for id, runner in runners.items() if not runner.is_over)


def _in_the_way(engine: Engine) -> str:
    """The node whose call the event loop is in, so that nothing else can end; for another thread."""
    runner = holder(threading.main_thread().ident or 0, engine.node_objects())
    return "" if runner is None else f"{runner.planned.id} ({runner.planned.type_id}), which blocks the event loop"


def fact_text(name: str, value: str | float) -> str:
    """A fact that a node reported, with the unit that its name ends in: ``sent_bytes`` 12300 is ``sent=12.3 kB``."""
    for unit, (scale, shown) in _UNITS.items():
        stem = name.removesuffix(f"_{unit}")
        if (stem != name or name == unit) and not isinstance(value, str):
            return f"{stem}={_scaled(value * scale, shown)}"
    return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"


_UNITS = {"bps": (1.0, "bit/s"), "bytes": (1.0, "B"), "ns": (1e-9, "s"), "ms": (1e-3, "s")}


def _scaled(value: float, unit: str) -> str:
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ")):
        if abs(value) >= factor and not (unit == "s" and factor > 1):
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def _rate(per_second: float, is_video: bool) -> str:
    return f"{per_second:.0f} fps" if is_video else f"{per_second:.0f}/s"


def leave(screen: Screen, status: int) -> None:
    """Ends the process without waiting for threads that hang; what was said is written first."""
    if not screen.close(1.0):
        screen.release()
    sys.stderr.flush()
    os._exit(status)


def left_behind(seconds: float) -> bool:
    """Whether threads hang in calls that do not return within so long: those of nodes, and those Python waits for."""
    until = time.monotonic() + seconds
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and (thread.name.startswith("flowstream ") or not thread.daemon):
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                return True
    return False
