"""Whether what was seen is what must be: memory that does not grow, nothing left behind, edges that account for all."""

from __future__ import annotations

import itertools
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CONFIDENCE = 1.96
"""Of a normal distribution: 95 % of it lies within so many standard deviations."""

MOST_ALLOCATED = 1_500_000
MOST_RESIDENT = 8_000_000
MOST_OBJECTS = 600
"""Growth over the part that is judged that is none: caches that fill, and for the resident set the holes in malloc's
arenas."""

ENOUGH = 5
"""From so many points on a trend can be told from chance at all: five rise one after the other by chance in one of 120
cases, four in one of 24."""

FEW = 5
"""With fewer points only growth that is so many times as large is told: timers that were cancelled and are not yet due,
and what they hold, come and go."""

POOL, MOST_POOL = "AnyIO worker thread", 16
"""Threads that are started when needed, kept for a while and shared, and how many there may be."""

MOST_LATE = 1 + (os.cpu_count() or 1)
"""How many threads libraries may start after the first round: OpenCV and OpenBLAS each make a pool when they first need
one."""


@dataclass(frozen=True, slots=True)
class Slope:
    """How a value changes, per second: the median of all slopes between two points, and its confidence interval."""

    per_second: float
    low: float
    high: float
    growth: float  # over all the time that was judged
    points: int

    def grows(self, most: float) -> bool:
        """Whether it is above zero beyond chance, and adds up to more than ``most``."""
        return self.low > 0 and self.growth > (most if self.points >= ENOUGH else FEW * most)


def slope(points: Sequence[tuple[float, float]]) -> Slope:
    """Theil and Sen's estimate of a trend, with Sen's interval of 95 %; a few outliers do not move it.

    P. K. Sen, Estimates of the regression coefficient based on Kendall's tau, 1968. Takes at least two points.
    """
    slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(points, 2) if b[0] > a[0])
    count = len(points)
    spread = CONFIDENCE * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, round((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, round((len(slopes) + spread) / 2))
    middle = statistics.median(slopes)
    return Slope(middle, slopes[low], slopes[high], middle * (points[-1][0] - points[0][0]), count)


def judged(looks: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The looks whose slope counts: the second half, or all but the first where there are few."""
    return looks[len(looks) // 2 :] if len(looks) >= 8 else looks[1:] if len(looks) > 2 else looks


def grown(looks: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Slope, float]]:
    """The slope of each measure of memory, and how much growth is none."""
    taken = judged(looks)
    return {
        "allocated bytes": (slope([(each["at"], each["allocated"] - each["kept"]) for each in taken]), MOST_ALLOCATED),
        "resident bytes": (slope([(each["at"], each["resident"] - each["kept"]) for each in taken]), MOST_RESIDENT),
        "objects": (slope([(each["at"], each["objects"]) for each in taken]), MOST_OBJECTS),
    }


def more(kind: str, before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """What there is more of than before, in words; of what is shared, more than there may be."""
    found = []
    for name, count in sorted(now.items()):
        if count > (MOST_POOL if name.startswith(POOL) else before.get(name, 0)):
            found.append(f"{kind} {name}: {count}, was {before.get(name, 0)}")
    return found


def left(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Threads, descriptors and tasks that there are more of than before."""
    found = [
        *more("thread", before["threads"], now["threads"]),
        *more("descriptor", before["descriptors"], now["descriptors"]),
        *more("task", before["tasks"], now["tasks"]),
    ]
    if sum(now["libraries"].values()) > sum(before["libraries"].values()) + MOST_LATE:
        found.append(f"threads of libraries: {now['libraries']}, were {before['libraries']}")
    return found


def unaccounted(stats: Mapping[str, Any]) -> list[str]:
    """Edges on which what came in is not what went out, was dropped or waits."""
    return [
        f"edge {name}: received {edge['received']}, delivered {edge['delivered']}, dropped {edge['dropped']}, "
        f"queued {edge['queue']['items']}"
        for name, edge in stats["edges"].items()
        if edge["received"] != edge["delivered"] + sum(edge["dropped"].values()) + edge["queue"]["items"]
    ]


def shape(status: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, Any]:
    """What runs and how it is wired, without what counts up."""
    return {
        "revision": status["revision"]["running"],
        "nodes": {id: (node["type"], node["config"]) for id, node in status["nodes"].items()},
        "edges": {
            name: [
                *(edge[key] for key in ("producer", "output", "consumer", "overflow")),
                *(edge["queue"][key] for key in ("most_items", "most_bytes", "most_time_ns")),
            ]
            for name, edge in stats["edges"].items()
        },
    }


def differences(ran: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[str]:
    """Where what runs is not what a fresh start gives."""
    found = [] if ran["revision"] == fresh["revision"] else [f"revision {ran['revision']}, fresh {fresh['revision']}"]
    for kind in ("nodes", "edges"):
        names = sorted(name for name in {*ran[kind], *fresh[kind]} if ran[kind].get(name) != fresh[kind].get(name))
        found += [f"{kind[:-1]} {name}: {ran[kind].get(name)}, fresh {fresh[kind].get(name)}" for name in names]
    return found


def commonest(before: Mapping[str, int], now: Mapping[str, int], most: int = 12) -> list[str]:
    """The kinds of objects that there are more of, those that grew most first."""
    by = sorted(((count - before.get(kind, 0), kind) for kind, count in now.items()), reverse=True)
    return [f"{change:+} {kind}" for change, kind in by[:most] if change > 0]
