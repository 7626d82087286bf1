#!/usr/bin/env python3
"""Traces of what a path carries: made by a seeded generator, read by the tests and by tools/bench/congestion.py.

    python tools/traces/traces.py            writes NAME.csv beside this file

A row holds from its time to the next one: milliseconds, bits per second, the share of packets that is lost, and the
bits per second of somebody else's traffic over the same bottleneck.
"""

from __future__ import annotations

import csv
import math
import random
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LASTS_MS = 60_000
HEADER = ("time_ms", "rate_bps", "loss", "cross_bps")


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a path is like from ``time_ms`` on."""

    time_ms: int
    rate_bps: int
    loss: float = 0.0
    cross_bps: int = 0


def read(name: str) -> list[Stretch]:
    """The trace of that name."""
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return [
            Stretch(int(row["time_ms"]), int(row["rate_bps"]), float(row["loss"]), int(row["cross_bps"]))
            for row in rows
        ]


def steady() -> list[Stretch]:
    """A path that stays as it is."""
    return [Stretch(0, 2_000_000)]


def step() -> list[Stretch]:
    """A rate that jumps down and up."""
    return [
        Stretch(0, 2_500_000),
        Stretch(15_000, 1_000_000),
        Stretch(30_000, 3_000_000),
        Stretch(45_000, 1_500_000),
    ]


def lte() -> list[Stretch]:
    """A mobile path: the rate wanders by a factor of ten within seconds and flickers from one tenth to the next."""
    chance = random.Random(20)
    slow = 0.0
    stretches: list[Stretch] = []
    for time_ms in range(0, LASTS_MS, 100):
        # Shadowing as an Ornstein-Uhlenbeck process with a time constant of 5 s; fading on top of it.
        slow += -slow * 0.1 / 5 + chance.gauss(0, 0.6) * math.sqrt(2 * 0.1 / 5)
        rate = 3_000_000 * math.exp(slow + chance.gauss(0, 0.1))
        stretches.append(Stretch(time_ms, round(min(max(rate, 500_000), 12_000_000) / 1000) * 1000))
    return stretches


def lossy() -> list[Stretch]:
    """A path of one rate that loses packets by chance, more and less of them."""
    shares = (0.0, 0.02, 0.05, 0.10, 0.03, 0.01)
    return [Stretch(10_000 * index, 2_500_000, loss) for index, loss in enumerate(shares)]


def cross() -> list[Stretch]:
    """A path that others use too: each of them sends at a constant rate for some seconds."""
    chance = random.Random(4)
    changes: dict[int, int] = {0: 0}
    time_ms = 0.0
    while (time_ms := time_ms + chance.expovariate(1 / 5_000)) < LASTS_MS - 2_000:
        rate = round(chance.uniform(300, 900)) * 1000
        until_ms = round(time_ms + chance.uniform(3_000, 9_000))
        changes[round(time_ms)] = changes.get(round(time_ms), 0) + rate
        changes[until_ms] = changes.get(until_ms, 0) - rate
    stretches: list[Stretch] = []
    cross_bps = 0
    for at_ms in sorted(changes):
        cross_bps += changes[at_ms]
        if at_ms < LASTS_MS:
            stretches.append(Stretch(at_ms, 4_000_000, 0.0, cross_bps))
    return stretches


TRACES = {"steady": steady, "step": step, "lte": lte, "lossy": lossy, "cross": cross}


def text_of(name: str) -> str:
    """The file of a trace, as the generator makes it."""
    lines = [",".join(HEADER)]
    lines += [f"{each.time_ms},{each.rate_bps},{each.loss:g},{each.cross_bps}" for each in TRACES[name]()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write all of them."""
    for name in TRACES:
        (FOLDER / f"{name}.csv").write_text(text_of(name), encoding="utf-8")
        print(f"{name}.csv")


if __name__ == "__main__":
    main()
