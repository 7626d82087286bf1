#!/usr/bin/env python3
"""Adaptation on scripted conditions: virtual time, an ideal estimator, one viewer.

Each condition lasts two minutes and is told in the row: how much of what the link carried was used, the longest time in
which it was not used well (less than nine tenths of it, or more than there is), and how often people saw a jump in a
minute. The last lines are the utilisations. It fails below 90 %, when a recovery takes more than 2 s, and above two
jumps a minute on the link that is steady.
"""

from __future__ import annotations

import argparse
import sys

from flowstream.proto.adaptation import Policy
from flowstream.proto.ladder import Rung
from flowstream.testing.adaptation import CONDITIONS, Conditions, Expect, Run, Step, Watched, wavering

STEADY = "steady"
ALL: dict[str, tuple[Step, ...]] = {
    **{name: tuple(steps) for name, steps in CONDITIONS.items()},
    STEADY: (Conditions(bandwidth=wavering(3, mean_bps=1_300_000)), Run(120)),
}
POLICY = Policy(rungs=(Rung("encode", 300_000, 4_000_000),))


def main() -> None:
    """Prints the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same; it takes no more than a second")
    parser.parse_args()
    ratios = {}
    is_kept = True
    print(f"{'condition':<14} {'utilisation':>11} {'recovery':>9} {'switches a minute':>18}")
    for name, steps in ALL.items():
        found = Watched(POLICY).play(*steps, Expect())
        print(f"{name:<14} {found.utilisation:>11.1%} {found.recovery_s:>7.2f} s {found.switches_a_minute:>18.1f}")
        ratios[name] = found.utilisation
        is_kept &= found.utilisation >= 0.9 and found.recovery_s <= 2
        is_kept &= name != STEADY or found.switches_a_minute <= 2
    for name, ratio in ratios.items():
        print(f"ratio {name} {ratio:.3f}")
    if not is_kept:
        sys.exit(1)


if __name__ == "__main__":
    main()
