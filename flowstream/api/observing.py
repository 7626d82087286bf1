"""How a run is doing, as values: what goes through it, and why nothing does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flowstream.control import observe
from flowstream.control.run import Run
from flowstream.errors import FlowstreamError
from flowstream.graph.diagnostics import did_you_mean, listed
from flowstream.runtime.stats import DEFAULT_SPAN_NS, SECOND_NS, RunStats

DEFAULT_SPAN_S = DEFAULT_SPAN_NS / SECOND_NS


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is wrong with a run, and so one thing to mend, however many nodes suffer from it.

    ``node`` is where it is to be mended, empty when that is the file. ``kind`` is ``deadlock``, ``silent-source``,
    ``starvation``, ``slow-consumer``, ``blocked-siblings``, ``drop-storm``, ``restart-loop``, ``refused-peer``,
    ``failed``, ``starting``, ``held-loop`` or ``refused-file``. ``chain`` are all nodes that it concerns, those that
    suffer first and ``node`` last. ``since`` is when it began, in UTC, to the second; ``for_seconds`` how long ago.
    """

    node: str
    kind: str
    sentence: str
    chain: tuple[str, ...]
    since: datetime
    for_seconds: float

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a run, or a node of it, does as it should, and why not.

    ``sentences`` is for people: one for each of the ``reasons``, the gravest first, or one that says that all is well.
    """

    is_healthy: bool
    sentences: tuple[str, ...]
    reasons: tuple[Reason, ...]

    def __str__(self) -> str:
        return "\n".join(self.sentences)


def stats(run: Run, over: float) -> RunStats:
    """What goes through a run, over the last so many seconds. Raises ValueError for a span that is out of bounds."""
    if not 1 <= over <= observe.MOST_SPAN_SECONDS:
        raise ValueError(f"over= is a number of seconds from 1 to {observe.MOST_SPAN_SECONDS}, not {over!r}")
    return run.statistics.snapshot(round(over * SECOND_NS))


def verdict(run: Run, node: str | None) -> Verdict:
    """Why nothing comes. What is secret shows as the graph writes it. Raises FlowstreamError for an unknown node."""
    try:
        told = observe.why(run.stalls, node)
    except KeyError:
        there = list(run.engine.runners)
        close = did_you_mean(node or "", there)
        hint = f"did you mean {close}?" if close else f"there is {listed(there)}" if there else None
        raise FlowstreamError(f"there is no node {node}", hint=hint) from None
    told = run.secrets.scrubbed(told)
    return Verdict(
        is_healthy=told["healthy"],
        sentences=tuple(told["verdict"]),
        reasons=tuple(
            Reason(
                node=each["node"],
                kind=each["kind"],
                sentence=each["sentence"],
                chain=tuple(each["chain"]),
                since=datetime.fromisoformat(each["since"]),
                for_seconds=each["for_seconds"],
            )
            for each in told["causes"]
        ),
    )
