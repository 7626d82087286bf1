"""One run of a graph, from its plan to the exit status."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from flowstream.cli.qr import qr_lines
from flowstream.cli.report import Report
from flowstream.cli.screen import Row, Screen, Table
from flowstream.cli.signals import Stopping
from flowstream.control.files import GraphFile
from flowstream.control.run import ChangeError, Run
from flowstream.control.state import Revision
from flowstream.control.systemd import Notifier
from flowstream.control.watching import WatchMode, watching
from flowstream.errors import FlowstreamError, GraphError
from flowstream.graph.draw import role_of
from flowstream.graph.plan import Plan
from flowstream.media.frames import VideoFrame
from flowstream.proto.hosts import is_loopback
from flowstream.runtime.engine import DRAIN_SECONDS, Engine, NodeStatus
from flowstream.runtime.events import Applied, Event
from flowstream.runtime.log import Secrets
from flowstream.runtime.runner import CLOSE_SECONDS

ENDED, FAILED, STOPPED = 0, 1, 130
"""Exit statuses: it ended by itself or was drained; a node or the start failed; it was stopped at once."""

LATE_SECONDS = 3.0
"""When a drain that takes longer says what it waits for."""

GIVE_UP_SECONDS = DRAIN_SECONDS + CLOSE_SECONDS + 3.0
"""How long a drain may take in all before the process ends without what is stuck."""


@dataclass(slots=True)
class Session:
    """A run. ``watch`` says how saves of the graph's files are noticed; ``control`` is the path of the control socket.

    ``state`` is the folder where its revisions are kept. ``last_good`` is the revision that it begins with in the place
    of the files, which could not be run because of ``refusal``. ``inline`` runs on the event loop what nodes do on
    threads of their own.
    """

    file: GraphFile
    report: Report
    screen: Screen
    secrets: Secrets
    control: Path | None = None
    watch: WatchMode = "auto"
    state: Path | None = None
    last_good: Revision | None = None
    refusal: FlowstreamError | None = None
    inline: bool = False
    _engine: Engine | None = None
    _began: float = 0.0
    _told: tuple[str, ...] = ()
    _told_api: str | None = None

    async def run(self, plan: Plan) -> int:
        """Runs the plan to its end and gives the exit status; failures are reported, not raised."""
        self._began = time.monotonic()
        with Stopping(drain_seconds=GIVE_UP_SECONDS, give_up=self._give_up) as stopping:
            try:
                return await self._run(plan, stopping)
            except FlowstreamError as error:
                self.report.error(error)
                return FAILED

    async def _run(self, plan: Plan, stopping: Stopping) -> int:
        async with Run.open(
            self.file,
            plan,
            secrets=self.secrets,
            control=self.control,
            state=self.state,
            is_inline=self.inline,
        ) as run:
            self._engine = run.engine
            if self.last_good is not None and self.refusal is not None:
                await run.began_with(self.last_good, self.refusal)
            run.on_stop = lambda now: stopping.ask(now=now)
            run.engine.listen(self.report.event)
            try:
                return await self._live(run, stopping)
            except FlowstreamError as error:
                self.report.error(error)
        return FAILED

    async def _live(self, run: Run, stopping: Stopping) -> int:
        with contextlib.closing(Notifier()) as notifier:
            return await self._live_with(run, stopping, notifier)

    async def _live_with(self, run: Run, stopping: Stopping, notifier: Notifier) -> int:
        engine = run.engine
        async with anyio.create_task_group() as tasks:
            starting = anyio.CancelScope()
            tasks.start_soon(self._obey, run, stopping, starting, notifier)
            tasks.start_soon(notifier.keep_alive)
            with starting:
                try:
                    await run.start()
                except FlowstreamError as error:
                    self.report.error(error)
            if engine.plan is None:
                tasks.cancel_scope.cancel()
                return STOPPED if starting.cancelled_caught else FAILED
            self._tell_links(run)
            self.report.running(run.plan, is_watched=self.watch != "off")
            notifier.ready()
            notifier.status(_spoken(run))
            engine.listen(lambda event: self._heard(event, run, notifier))
            tasks.start_soon(self._tick, run)
            tasks.start_soon(self._reload_when_told, run, stopping, notifier)
            if self.watch != "off":
                run.reloader.watch = watching(self.watch, run.reloader.files)
                tasks.start_soon(self._follow, run, stopping)
            await engine.wait()
            tasks.cancel_scope.cancel()
        self._show(run, {}, 0)
        if stopping.insisted.is_set():
            return STOPPED
        return FAILED if any(runner.state == "failed" for runner in engine.runners.values()) else ENDED

    def _heard(self, event: Event, run: Run, notifier: Notifier) -> None:
        if isinstance(event, Applied):
            self._tell_links(run)
        notifier.status(_spoken(run))

    async def _reload_when_told(self, run: Run, stopping: Stopping, notifier: Notifier) -> None:
        while True:
            await stopping.reload
            notifier.reloading()
            self.report.note("reloading", "SIGHUP: reading the files again")
            try:
                done = await run.reload()
                if done.patch is None:
                    self.report.note("unchanged", "the files are as they run")
            except FlowstreamError as error:
                if not isinstance(error, GraphError | ChangeError):  # those were told as refused
                    self.report.error(error)
            notifier.ready()
            notifier.status(_spoken(run))

    async def _obey(
        self, run: Run, stopping: Stopping, starting: anyio.CancelScope, notifier: Notifier
    ) -> None:  # fmt: skip
        engine = run.engine
        await stopping.asked.wait()
        notifier.stopping()
        run.events.add("draining")
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

    async def _follow(self, run: Run, stopping: Stopping) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, run)
            await stopping.asked.wait()
            tasks.cancel_scope.cancel()

    async def _watch(self, run: Run) -> None:
        try:
            await run.follow()
        except Exception as error:  # noqa: BLE001 - whatever ails the watching does not end what runs
            self.report.note("unwatched", f"the graph's files are not watched any more: {error}", level="warning")

    # --- what is shown ----------------------------------------------------------------------------------------------

    def _tell_links(self, run: Run) -> None:
        links = run.desk.links(with_tokens=self.screen.is_live)
        if (url := run.api_url) != self._told_api:
            self._told_api = url
            if url is not None:
                where = f"; its token is in {run.token_file}" if run.token_file else ""
                self.report.note("api", f"the control API is at {url}{where}")
        if links != self._told:
            self._told = links
            self.report.links(links)
            self._tell_protection(run)
            self._show_code(links)
            if not self.screen.is_live and any(view.approval == "token" for view in run.desk.views()):
                self.report.note("token", "viewers need a link with a token, which is not written into logs: "
                                 "flowstream viewers invite")  # fmt: skip

    def _show_code(self, links: tuple[str, ...]) -> None:
        """The first link that other machines can open, for their cameras; on a terminal that is wide enough."""
        afar = next((link for link in links if not is_loopback(urlsplit(link).hostname or "")), None)
        if afar is not None and self.screen.is_live:
            for line in qr_lines(afar, self.screen.columns) or ():
                self.screen.line(line)

    def _tell_protection(self, run: Run) -> None:
        if run.certificate is not None and run.mounts.is_encrypted:
            made = "; it was made here, so browsers warn of it: compare this" if run.certificate.is_made else ""
            self.report.note("certificate", f"the certificate's SHA-256 is {run.certificate.fingerprint}{made}")
        elif run.mounts.listen and not is_loopback(run.mounts.listen[0]):
            self.report.note(
                "open",
                "without TLS: what is shown can be seen, and the page changed, on its way",
                level="warning",
            )

    async def _tick(self, run: Run) -> None:
        before: dict[str, NodeStatus] = {}
        at = time.monotonic()
        while True:
            await anyio.sleep(1)
            now = time.monotonic()
            before = self._show(run, before, now - at)
            at = now

    def _show(self, run: Run, before: dict[str, NodeStatus], seconds: float) -> dict[str, NodeStatus]:
        engine = run.engine
        if not self.screen.is_live or engine.plan is None:
            return before
        now = engine.status()
        rows = tuple(self._row(engine, id, node, before.get(id), seconds) for id, node in now.items())
        minutes, rest = divmod(int(time.monotonic() - self._began), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
        links = " ".join(run.links)
        title = "  ".join(filter(None, (engine.plan.name, engine.state, clock, links)))
        difference = run.difference or ""
        self.screen.show(Table(self.secrets.scrub(title), rows, self.secrets.scrub(difference)))
        return now

    def _row(self, engine: Engine, id: str, node: NodeStatus, before: NodeStatus | None, seconds: float) -> Row:
        rates = []
        planned = engine.runners[id].planned
        node_type = planned.node_type
        if before is not None and seconds > 0 and node.state == "running":
            if role_of(planned) != "sink":
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


def _spoken(run: Run) -> str:
    """The run in a line, for a service manager."""
    where = f" at {', '.join(run.links)}" if run.links else ""
    difference = f"; {run.difference}" if run.difference else ""
    return run.secrets.scrub(f"{run.engine.state}{where}{difference}")


def _unfinished(engine: Engine) -> str:
    """The nodes that have not come to their end."""
    runners = dict(engine.runners)
    return ", ".join(f"{id} ({runner.planned.type_id})" for id, runner in runners.items() if not runner.is_over)


def _in_the_way(engine: Engine) -> str:
    """The node whose call the event loop is in, so that nothing else can end; for another thread."""
    runner = engine.at_work()
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
