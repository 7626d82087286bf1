"""What all viewers of an output may get together, where nobody has said what their common uplink carries.

Each viewer's own estimate says what its path carries while the others send what they send; a short train even finds all
that the uplink has, several of them at the same time. So what all get together grows only step by step; and when most
of them are held up at the same time, that is their common uplink, which is then taken to carry what came through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

NS_PER_S: Final = 1_000_000_000

GROWS: Final = 0.25
"""Share by which all may get more, each second; at least by what one viewer's next rung takes."""

EVENT_NS: Final = NS_PER_S
"""Viewers that are held up within this are so by the same queue."""

JOINS_NS: Final = 2 * NS_PER_S
"""For so long after somebody has come the trains that look for its path may hold up others."""

KEPT: Final = 0.95
"""Of what came through while the uplink was full."""

FIRST_REST_NS: Final = 3 * NS_PER_S
MOST_REST_NS: Final = 60 * NS_PER_S
"""How long a bound that was found stays as it is; twice as long each time that more proved to be too much."""

RISES: Final = 0.1
"""Share by which it is raised each second then."""

UNBOUND: Final = 2.0
"""Times what all get: a bound above that binds nobody."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A viewer that gets a picture: what its rung takes, what comes through, and whether packets wait on its path."""

    bitrate_bps: int
    received_bps: int
    is_held_up: bool


@dataclass(frozen=True, slots=True)
class Bound:
    """What all may get; ``is_found`` where the uplink has shown that it carries no more."""

    bps: int
    is_found: bool


class SharedUplink:
    """Finds out what an uplink carries; ``now_ns`` does not go back."""

    def __init__(self) -> None:
        self._found_bps: float | None = None
        self._found_ns = 0
        self._rest_ns = FIRST_REST_NS
        self._now_ns: int | None = None
        self._grown_bps = 0.0  # how far it may grow in this second
        self._since_ns: int | None = None
        self._count = 0
        self._joined_ns = 0

    @property
    def is_tight(self) -> bool:
        """Whether it has just shown that it carries no more: who gets little then has others to thank for it."""
        return self._found_bps is not None and self._now_ns is not None and self._now_ns - self._found_ns < 5 * NS_PER_S

    def follow(self, flows: Sequence[Flow], *, step_bps: int, now_ns: int) -> Bound | None:
        """What all may get from now on; None while there are not two. ``step_bps`` is the ladder's largest step."""
        elapsed_ns = 0 if self._now_ns is None else now_ns - self._now_ns
        self._now_ns = now_ns
        if len(flows) < 2:
            self._found_bps, self._rest_ns, self._since_ns, self._count = None, FIRST_REST_NS, None, len(flows)
            return None
        if len(flows) > self._count:
            self._joined_ns = now_ns
        self._count = len(flows)
        spent_bps = sum(flow.bitrate_bps for flow in flows)
        self._look(flows, now_ns)
        if self._found_bps is not None and now_ns - self._found_ns > self._rest_ns:
            self._found_bps *= 1 + RISES * elapsed_ns / NS_PER_S
            if self._found_bps > UNBOUND * spent_bps:
                self._found_bps, self._rest_ns = None, FIRST_REST_NS
        if self._since_ns is None or now_ns - self._since_ns >= NS_PER_S:
            self._since_ns, self._grown_bps = now_ns, spent_bps + max(GROWS * spent_bps, step_bps)
        if self._found_bps is not None and self._found_bps <= self._grown_bps:
            return Bound(int(self._found_bps), True)
        return Bound(int(self._grown_bps), False)

    def _look(self, flows: Sequence[Flow], now_ns: int) -> None:
        held_up = sum(flow.is_held_up for flow in flows)
        if held_up < 2 or 2 * held_up < len(flows) or now_ns - self._joined_ns < JOINS_NS:
            return
        if self._found_bps is not None and now_ns - self._found_ns < EVENT_NS:
            return
        passed_bps = KEPT * sum(flow.received_bps for flow in flows)
        if self._found_bps is not None:
            if now_ns - self._found_ns > self._rest_ns:
                self._rest_ns = min(2 * self._rest_ns, MOST_REST_NS)
            passed_bps = min(passed_bps, self._found_bps)
        self._found_bps, self._found_ns = passed_bps, now_ns
