"""What is wrong in a running graph, as a value: one cause is one thing to mend, however many nodes suffer from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal[
    "deadlock",
    "silent-source",
    "starvation",
    "slow-consumer",
    "blocked-siblings",
    "drop-storm",
    "restart-loop",
    "refused-peer",
    "failed",
    "starting",
    "held-loop",
    "refused-file",
    "narrow-uplink",
    "narrow-link",
]


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that is wrong. ``node`` is where it is to be mended; empty when that is the file.

    ``chain`` are all nodes it concerns, those that suffer first and ``node`` last. ``since_ns`` is a now. One that is
    no fault is worth to know and as it should be.
    """

    node: str
    kind: Kind
    sentence: str
    since_ns: int
    chain: tuple[str, ...] = ()
    is_fault: bool = True

    @property
    def key(self) -> tuple[str, str, str]:
        """What it has in common with what it is a moment later."""
        return (self.kind, self.node, self.chain[0] if self.kind in ("drop-storm", "slow-consumer") else "")

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {**asdict(self), "chain": list(self.chain)}
