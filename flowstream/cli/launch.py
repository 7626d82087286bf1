"""Setting up a run: where its lines go, what logs, which loop."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import anyio

from flowstream.cli.memory import share_arenas
from flowstream.cli.report import JsonReport, Report, TextReport
from flowstream.cli.screen import Screen, is_foreground_terminal
from flowstream.cli.session import FAILED, STOPPED, Session, leave, left_behind
from flowstream.control.files import GraphFile
from flowstream.control.state import History, Revision, StateError, state_folder
from flowstream.control.watching import WatchMode
from flowstream.errors import FlowstreamError
from flowstream.graph.plan import Log, Plan
from flowstream.graph.replays import Replay, require_replays
from flowstream.runtime.log import JsonLines, Repeats, Secrets, TextLines

LINGER_SECONDS = 0.5
"""How long threads may take to end after the run; the process does not wait for those that hang."""

CLOSE_SECONDS = 2.0
"""How long the last lines may take to be written."""

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep others from running Python: short against the time between packets, not the usual 5 ms."""


class _ToScreen(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._screen.line(self.format(record))
        except Exception:  # noqa: BLE001 - a record that cannot be shown does not end what runs
            self.handleError(record)


def launch(
    path: str,
    *,
    layers: tuple[str, ...],
    folders: tuple[Path, ...],
    sets: Mapping[str, str],
    log_format: str | None,
    log_level: str | None,
    control: Path | None,
    watch: WatchMode,
    last_good: bool = False,
    inline: bool = False,
    replays: Mapping[str, Replay] | None = None,
) -> int:
    """Runs the graph at ``path``, with ``layers`` over it, to its end, and gives the exit status.

    With ``last_good`` what ran last is run when the file cannot be; ``replays`` run in the place of nodes.
    """
    share_arenas()
    file = GraphFile(path, folders, sets, layers=layers, replays=replays or {})
    secrets = Secrets()
    plan = failure = refusal = stored = None
    state = state_folder((path, *layers))
    try:
        plan = file.compile()
        require_replays(plan, file.replays)
    except FlowstreamError as error:
        failure = error
    if failure is not None and last_good:
        refusal = failure
        try:
            plan, stored = _last_good(file, state)
        except FlowstreamError as error:
            failure = error
        else:
            failure = None
    secrets.update(file.environment.asked)
    log = plan.log if plan and plan.log else Log()
    is_json = (log_format or log.format) == "json"
    stream = sys.stdout if failure is None or is_json else sys.stderr
    is_live = not is_json and is_foreground_terminal(stream)
    screen = Screen(stream, is_live=is_live)
    report: Report = JsonReport(screen, secrets) if is_json else TextReport(screen, secrets)
    status = FAILED
    if refusal is not None:
        report.error(refusal)
    if failure is not None:
        report.error(failure)
    elif plan is not None:
        _set_up_logging(screen, secrets, is_json=is_json, level=log_level or log.level or "info")
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        if stored is not None:
            said = f"the files cannot be run, so this is revision {stored.number}, which ran last ({stored.time})"
            report.note("last-good", said, level="warning")
        report.plan(plan)
        session = Session(file, report, screen, secrets, control, watch, state, stored, refusal, inline)
        try:
            status = anyio.run(session.run, plan)
        except KeyboardInterrupt:
            status = STOPPED
    if left_behind(LINGER_SECONDS):
        leave(screen, status)
    screen.close(CLOSE_SECONDS)
    return status


def _last_good(file: GraphFile, state: Path) -> tuple[Plan, Revision]:
    """What ran last, and its plan. Raises StateError when nothing has, GraphError when that cannot be run either."""
    history = History(state)
    stored = history.newest()
    if stored is None:
        raise StateError("--last-good: no revision of this graph has run here yet", hint=f"looked in {state}")
    old = file.of(stored.snapshot, folders=history.unpacked(stored, file.folders))
    plan = old.compile()
    file.overrides = plan.overrides
    return plan, stored


def _set_up_logging(screen: Screen, secrets: Secrets, *, is_json: bool, level: str) -> None:
    """Ours from ``level`` on, everybody else's from warnings on; all of it to the screen."""
    handler = _ToScreen(screen)
    handler.setFormatter(JsonLines(secrets) if is_json else TextLines(secrets))
    handler.addFilter(Repeats(time.monotonic))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("flowstream").setLevel(level.upper())
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # its word on connections that it had to cut
    logging.captureWarnings(True)
