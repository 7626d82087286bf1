"""What happens to a running graph, as values: for the terminal, the log and the control socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flowstream.errors import Diagnostic, FlowstreamError, Place
from flowstream.graph.patch import Patch
from flowstream.runtime.cause import Cause


@dataclass(frozen=True, slots=True)
class NodeFailed:
    """A node failed; ``retry_in_ns`` when it will be started anew, ``dependents`` are the nodes that take from it."""

    error: FlowstreamError
    node: str
    dependents: tuple[str, ...]
    retry_in_ns: int | None = None


@dataclass(frozen=True, slots=True)
class NodeRestarted:
    """A node that failed is running again."""

    node: str


@dataclass(frozen=True, slots=True)
class Applied:
    """A new revision of the graph runs. ``cause`` says what made it come; empty when the files were saved."""

    revision: str
    patch: Patch
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A revision was not applied; the graph goes on as before. Either findings in the file, or what failed."""

    revision: str
    reason: str
    diagnostics: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class Stalled:
    """Something in the graph does not move, or not as it should; told once for each cause, while that lasts."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Recovered:
    """What had stalled moves again, ``after_ns`` after it began to stall."""

    cause: Cause
    after_ns: int


@dataclass(frozen=True, slots=True)
class NodeSlow:
    """A node held the event loop for ``held_ns``, and so held up every other node. Told once a minute for each node."""

    node: str
    type: str
    held_ns: int
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class CallLeftBehind:
    """A call of a node did not return when the node had to end; it is left to itself, on its thread.

    ``count`` such threads of the node are there now; with ``most`` of them it is not started anew.
    """

    node: str
    after_ns: int
    count: int
    most: int


@dataclass(frozen=True, slots=True)
class ViewerWaiting:
    """Somebody waits to be let in. ``viewer`` is what commands call it, ``name`` what it calls itself, if anything."""

    node: str
    viewer: str
    name: str | None
    address: str


@dataclass(frozen=True, slots=True)
class ViewerJoined:
    """A viewer is connected and may watch."""

    node: str
    viewer: str
    name: str | None
    address: str


@dataclass(frozen=True, slots=True)
class ViewerLeft:
    """A viewer who watched or waited is gone, and why."""

    node: str
    viewer: str
    name: str | None
    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class ViewerChanged:
    """The owner decided about a viewer, it has another name, or it gets less or more than before.

    ``what`` is ``approved``, ``rejected``, ``kicked``, ``paused``, ``resumed``, ``permitted``, ``capped``,
    ``prioritized``, ``named``, ``limited`` or ``unlimited``; ``detail`` what it may be shown, the rate in bits per
    second (empty: no bound), the priority, the name, or why it gets no better picture, in a sentence.
    """

    node: str
    viewer: str
    name: str | None
    address: str
    what: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ViewPaused:
    """Every viewer of an output sees a black picture in silence."""

    node: str


@dataclass(frozen=True, slots=True)
class ViewResumed:
    """The viewers of an output see the stream again."""

    node: str


Event = (
    NodeFailed
    | NodeRestarted
    | Applied
    | Refused
    | Stalled
    | Recovered
    | NodeSlow
    | CallLeftBehind
    | ViewerWaiting
    | ViewerJoined
    | ViewerLeft
    | ViewerChanged
    | ViewPaused
    | ViewResumed
)
"""Whatever happens to a run."""

Listener = Callable[[Event], None]
