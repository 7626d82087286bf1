"""What an output knows of those who watch by it: the value of a record that it sends to a controller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flowstream.media.size import Size


@dataclass(frozen=True, slots=True)
class ViewerReport:
    """One viewer and its link.

    ``viewer`` is a name that it keeps while it watches. ``bandwidth_bps`` is what its link is estimated to carry, in
    bits per second, everything included; None where nothing tells. ``loss`` is the share of packets that were lost
    lately, ``rtt_ms`` the round trip and ``queue_delay_ms`` how long packets waited on the way, both in milliseconds.
    ``rung`` is the id of the encoder whose packets it gets. ``cap_bps`` bounds what it is to get, ``size`` is the size
    that it shows the picture in.

    Raises ValueError for a bandwidth or cap below one bit per second, and for a delay or share that cannot be.
    """

    viewer: str
    bandwidth_bps: int | None = None
    loss: float = 0.0
    rtt_ms: float = 0.0
    queue_delay_ms: float = 0.0
    rung: str | None = None
    cap_bps: int | None = None
    size: Size | None = None

    def __post_init__(self) -> None:
        for name in ("bandwidth_bps", "cap_bps"):
            bps = getattr(self, name)
            if bps is not None and bps < 1:
                raise ValueError(f"{name} of a viewer is at least 1 bit per second, not {bps}")
        for name in ("rtt_ms", "queue_delay_ms"):
            delay = getattr(self, name)
            if not delay >= 0:
                raise ValueError(f"{name} of a viewer is at least 0 milliseconds, not {delay}")
        if not 0 <= self.loss <= 1:
            raise ValueError(f"loss of a viewer is a share from 0 to 1, not {self.loss}")


@dataclass(frozen=True, slots=True)
class ViewerReports:
    """Everybody who watches by one output at this moment, as ``Record[ViewerReports]``.

    ``output`` is the id of its node. Who is not named any more has left.
    """

    output: str
    of: Sequence[ViewerReport]


@dataclass(frozen=True, slots=True)
class ContentStats:
    """What a picture shows, as ``Record[ContentStats]``: writing that stands still, motion, or what a camera sees."""

    kind: Literal["text", "motion", "camera"]
