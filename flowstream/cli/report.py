"""What a run says: to people in sentences, to machines in JSON, one object per line."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Protocol

from flowstream.cli import described
from flowstream.cli.screen import Screen
from flowstream.errors import Diagnostic, FlowstreamError, GraphError, NodeError
from flowstream.graph.described import describe, describe_plan, patch_to_json
from flowstream.graph.diagnostics import render, to_json
from flowstream.graph.plan import Plan
from flowstream.runtime.events import (
    Applied,
    CallLeftBehind,
    Event,
    NodeFailed,
    NodeRestarted,
    NodeSlow,
    Recovered,
    Refused,
    Stalled,
    ViewerChanged,
    ViewerJoined,
    ViewerLeft,
    ViewerWaiting,
    ViewPaused,
    ViewResumed,
)
from flowstream.runtime.log import Secrets, json_line, text_line
from flowstream.runtime.why import duration


class Report(Protocol):
    """The moments of a run that its user hears of."""

    def plan(self, plan: Plan) -> None:
        """What is about to run."""

    def links(self, links: Iterable[str]) -> None:
        """Where the pages are."""

    def running(self, plan: Plan, *, is_watched: bool) -> None:
        """Every node is ready; ``is_watched`` when saving the file changes what runs."""

    def event(self, event: Event) -> None:
        """Something happened to the graph."""

    def note(self, name: str, message: str, *, level: str = "info") -> None:
        """A step of the run itself."""

    def error(self, error: FlowstreamError) -> None:
        """What keeps the graph from running."""


class TextReport:
    """For people."""

    def __init__(self, screen: Screen, secrets: Secrets) -> None:
        self._screen = screen
        self._secrets = secrets

    def plan(self, plan: Plan) -> None:
        self._write(*describe_plan(plan))
        if plan.warnings:
            self._write(render(plan.warnings, colour=self._screen.colour))

    def links(self, links: Iterable[str]) -> None:
        for link in links:
            self._write(f"watch it at {self._strong(link)}")

    def running(self, plan: Plan, *, is_watched: bool) -> None:
        change = f"edit {plan.files[0]} to change it, " if is_watched else ""
        self.note("running", f"running; {change}Ctrl-C ends it")

    def event(self, event: Event) -> None:
        match event:
            case Applied():
                self.note("applied", event.cause or "the saved graph was applied")
                self._write(*(f"  {line}" for line in describe(event.patch)))
            case Refused(diagnostics=()):
                self.note("refused", f"the saved graph was refused, and the one before it goes on: {event.reason}")
            case Refused():
                self.note("refused", f"the saved graph was refused, and the one before it goes on: {event.reason}")
                self._write(render(event.diagnostics, colour=self._screen.colour))
            case NodeFailed():
                self.note("node-failed", described(event.error), level="error")
                self._write(f"  {consequence(event)}")
            case NodeRestarted():
                self.note("node-restarted", f"{event.node}: running again")
            case Stalled():
                self.note("stalled", event.cause.sentence, level="warning")
            case Recovered():
                self.note("recovered", recovery(event))
            case NodeSlow():
                self.note("node-slow", f"{event.node} ({event.type}): {slowness(event)}", level="warning")
            case CallLeftBehind():
                self.note("left-behind", f"{event.node}: {leaving(event)}", level="warning")
            case ViewerWaiting():
                self.note("viewer-waiting", f"{event.node}: {waiting(event)}", level="warning")
            case ViewerJoined() | ViewerLeft() | ViewerChanged():
                self.note("viewer", f"{event.node}: {visit(event)}")
            case ViewPaused() | ViewResumed():
                self.note("view", f"{event.node}: {seen(event)}")

    def note(self, name: str, message: str, *, level: str = "info") -> None:
        self._write(text_line(message, at=time.time(), level=level))

    def error(self, error: FlowstreamError) -> None:
        if isinstance(error, GraphError):
            self._write(render(error.diagnostics, colour=self._screen.colour))
            self._write(count_line(error.diagnostics))
        else:
            self._write(described(error))

    def _strong(self, text: str) -> str:
        return f"\033[1;36m{text}\033[0m" if self._screen.colour else text

    def _write(self, *lines: str) -> None:
        if lines:
            self._screen.line(self._secrets.scrub("\n".join(lines)))


class JsonReport:
    """For machines: ``time``, ``level``, ``event``, ``message``, ``node`` where it is about one, and more by event."""

    def __init__(self, screen: Screen, secrets: Secrets) -> None:
        self._screen = screen
        self._secrets = secrets

    def plan(self, plan: Plan) -> None:
        nodes = {id: planned.type_id for id, planned in plan.nodes.items()}
        self._write("plan", describe_plan(plan)[0], graph=plan.name, revision=plan.revision, nodes=nodes)
        for warning in plan.warnings:
            self._write("warning", f"{warning.title}: {warning.message}", level="warning", **_finding(warning))

    def links(self, links: Iterable[str]) -> None:
        for link in links:
            self._write("page", link, url=link)

    def running(self, plan: Plan, *, is_watched: bool) -> None:
        self._write("running", "every node is ready", revision=plan.revision, watched=is_watched)

    def event(self, event: Event) -> None:
        match event:
            case Applied():
                told = ("action", "effect", "causes", "at_most_seconds", "gap_seconds")
                changes = {
                    each["node"]: {key: each[key] for key in told} for each in patch_to_json(event.patch)["changes"]
                }
                said = event.cause or "the saved graph was applied"
                self._write("applied", said, revision=event.revision, changes=changes)
            case Refused():
                found = to_json(event.diagnostics)["diagnostics"]
                self._write("refused", event.reason, level="warning", revision=event.revision, diagnostics=found)
            case NodeFailed():
                self._write(
                    "node-failed", str(event.error), level="error", node=event.node,
                    dependents=list(event.dependents),
                    retry_in_seconds=None if event.retry_in_ns is None else event.retry_in_ns / 1e9,
                )  # fmt: skip
            case NodeRestarted():
                self._write("node-restarted", "running again", node=event.node)
            case Stalled():
                self._write(
                    "stalled", event.cause.sentence, level="warning", node=event.cause.node or None,
                    kind=event.cause.kind, chain=list(event.cause.chain),
                )  # fmt: skip
            case Recovered():
                self._write(
                    "recovered", recovery(event), node=event.cause.node or None, kind=event.cause.kind,
                    after_seconds=event.after_ns / 1e9,
                )  # fmt: skip
            case NodeSlow():
                self._write(
                    "node-slow", slowness(event), level="warning", node=event.node, held_seconds=event.held_ns / 1e9,
                    place=str(event.place) if event.place else None,
                )  # fmt: skip
            case CallLeftBehind():
                self._write("left-behind", leaving(event), level="warning", node=event.node, count=event.count)
            case ViewerWaiting():
                self._write("viewer-waiting", waiting(event), level="warning", node=event.node, **_visitor(event))
            case ViewerJoined():
                self._write("viewer-joined", visit(event), node=event.node, **_visitor(event))
            case ViewerLeft():
                self._write("viewer-left", visit(event), node=event.node, **_visitor(event), reason=event.reason)
            case ViewerChanged():
                self._write(
                    "viewer-changed", visit(event), node=event.node, **_visitor(event),
                    what=event.what, detail=event.detail,
                )  # fmt: skip
            case ViewPaused() | ViewResumed():
                name = "view-paused" if isinstance(event, ViewPaused) else "view-resumed"
                self._write(name, seen(event), node=event.node)

    def note(self, name: str, message: str, *, level: str = "info") -> None:
        self._write(name, message, level=level)

    def error(self, error: FlowstreamError) -> None:
        found = to_json(error.diagnostics)["diagnostics"] if isinstance(error, GraphError) else []
        message = count_line(error.diagnostics) if isinstance(error, GraphError) else error.message
        node = error.node if isinstance(error, NodeError) else None
        place = str(error.place) if error.place else None
        self._write("error", message, level="error", node=node, place=place, hint=error.hint, diagnostics=found)

    def _write(self, event: str, message: str, *, level: str = "info", node: str | None = None, **more: Any) -> None:
        line = json_line(event, message, at=time.time(), level=level, node=node, secrets=self._secrets, **more)
        self._screen.line(line)


def _finding(diagnostic: Diagnostic) -> dict[str, Any]:
    found: dict[str, Any] = to_json([diagnostic])["diagnostics"][0]
    return {"diagnostic": found}


def count_line(diagnostics: Iterable[Diagnostic]) -> str:
    """``2 errors, 1 warning``; notes do not count."""
    counts = {"error": 0, "warning": 0, "note": 0}
    for each in diagnostics:
        counts[each.severity] += 1
    words = [f"{n} {word}{'s' if n > 1 else ''}" for word in ("error", "warning") if (n := counts[word])]
    return ", ".join(words) or "no findings"


def recovery(event: Recovered) -> str:
    """What moves again, for a person."""
    return f"{event.cause.node}: all is well again, after {duration(event.after_ns)}"


def slowness(event: NodeSlow) -> str:
    """What a node that holds the loop does, where it stands, and the remedy."""
    place = f"{event.place}: " if event.place else ""
    return (
        f"{place}held up every other node for {event.held_ns / 1e6:.0f} ms; "
        "a node type that computes or blocks needs thread = True"
    )


def leaving(event: CallLeftBehind) -> str:
    """What was left behind, and what that leads to."""
    return (
        f"a call did not return within {event.after_ns / 1e9:g} s and is left to itself, on its thread "
        f"({event.count} of at most {event.most})"
    )


def waiting(event: ViewerWaiting) -> str:
    """Who waits, and the commands that decide."""
    return (
        f"{_called(event)} waits to watch; to let it in: flowstream viewers approve {event.viewer}, "
        f"or not: flowstream viewers reject {event.viewer}"
    )


def visit(event: ViewerJoined | ViewerLeft | ViewerChanged) -> str:
    """What became of a viewer."""
    match event:
        case ViewerJoined():
            return f"{_called(event)} watches"
        case ViewerLeft():
            return f"{_called(event)} left: {event.reason}"
        case ViewerChanged(what="approved"):
            return f"{_called(event)} is let in"
        case ViewerChanged(what="permitted"):
            return f"{_called(event)} may have {event.detail}"
        case ViewerChanged(what="capped"):
            return f"{_called(event)} gets {f'at most {event.detail} bit/s' if event.detail else 'as much as there is'}"
        case ViewerChanged(what="prioritized"):
            return f"{_called(event)} has priority {event.detail}"
        case ViewerChanged(what="limited"):
            return event.detail
        case ViewerChanged(what="unlimited"):
            now = f" is on {event.detail} and" if event.detail else ""
            return f"{_called(event)}{now} is not limited by the uplink or its link any more"
        case ViewerChanged(what="named"):
            return f"{event.viewer} calls itself {event.detail or 'nothing'}"
    return f"{_called(event)} is {event.what}"


def seen(event: ViewPaused | ViewResumed) -> str:
    """What everybody sees."""
    return "everybody sees " + ("a black picture" if isinstance(event, ViewPaused) else "the stream again")


def _called(event: ViewerWaiting | ViewerJoined | ViewerLeft | ViewerChanged) -> str:
    name = f" “{event.name}”" if event.name else ""
    return f"{event.viewer}{name} from {event.address or 'somewhere'}"


def _visitor(event: ViewerWaiting | ViewerJoined | ViewerLeft | ViewerChanged) -> dict[str, Any]:
    return {"viewer": event.viewer, "name": event.name, "address": event.address}


def consequence(event: NodeFailed) -> str:
    """What a failure means for the rest of the graph."""
    if event.retry_in_ns is not None:
        return f"{event.node} is started again in {event.retry_in_ns / 1e9:.3g} s"
    down = f"{event.node} stays down until it is changed in the graph"
    if not event.dependents:
        return down
    takes = "takes" if len(event.dependents) == 1 else "take"
    return f"{down}; {', '.join(event.dependents)} {takes} from it"
