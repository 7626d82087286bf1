"""A running graph as it stands at one moment, in values: what ``why`` reasons about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowstream.runtime.audience import Limited


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as it stands: its state and since when, what it failed with, and when it is tried again.

    ``is_waiting``: it waits for a payload, rather than doing something. ``failures`` are the moments of the last ones,
    ``cpu`` is the share of a processor that it used lately. ``is_paused``: it says that it gives nothing, and means to.
    """

    id: str
    state: str
    since_ns: int
    is_source: bool = False
    is_waiting: bool = True
    error: str | None = None
    is_peer_error: bool = False
    retry_at_ns: int | None = None
    failures: tuple[int, ...] = ()
    cpu: float = 0.0
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class EdgeView:
    """An edge as it stands.

    ``waits``: its producer waits for room on it; ``blocked_since_ns``: since when it was seen to at every look.
    ``last_ns`` is when a payload was taken last, ``usual_ns`` the usual time between two (None: not known yet).
    ``begun_ns`` is since when the edge is watched. Rates are per second, lately; ``losses`` by cause.
    """

    name: str
    producer: str
    output: str
    consumer: str
    overflow: str
    begun_ns: int
    feedback: bool = False
    is_media: bool = True
    ended: bool = False
    queued: int = 0
    most: int = 1
    waits: bool = False
    blocked_since_ns: int | None = None
    last_ns: int | None = None
    usual_ns: int | None = None
    rate: float = 0.0
    losses: Mapping[str, float] = field(default_factory=dict)

    @property
    def drop_rate(self) -> float:
        """Losses a second."""
        return sum(self.losses.values())


@dataclass(frozen=True, slots=True)
class Hold:
    """A call of a node kept the event loop for ``held_ns``, up to ``at_ns``. ``has_run``: it has its own ``run``."""

    node: str
    held_ns: int
    at_ns: int
    has_run: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """A graph as it stands at ``now_ns``, which is ``wallclock_ns`` in UTC and ``zone_s`` more on the clock here.

    ``refused`` is why what the file holds was refused, ``refused_ns`` when. ``limited`` are viewers who get less than
    the best.
    """

    now_ns: int
    wallclock_ns: int
    nodes: Mapping[str, NodeView]
    edges: tuple[EdgeView, ...]
    zone_s: int = 0
    is_live: bool = True
    state: str = "running"
    running: str = ""
    file: str = ""
    refused: str | None = None
    refused_ns: int | None = None
    holds: tuple[Hold, ...] = ()
    limited: tuple[Limited, ...] = ()
