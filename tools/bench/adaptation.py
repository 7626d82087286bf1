#!/usr/bin/env python3
"""Adaptation on scripted conditions: virtual time, an ideal estimator, one viewer.

Each condition lasts two minutes and is told in the row: how much of what the link carried was used, the longest time in
which it was not used well (less than nine tenths of it, or more than there is), and how often people saw a jump in a
minute. The last lines are the utilisations.
"""

from __future__ import annotations

import argparse

from flowstream.proto.adaptation import Policy
from flowstream.proto.ladder import Rung
from flowstream.testing.adaptation import CONDITIONS, Expect, Watched

POLICY = Policy(rungs=(Rung("encode", 300_000, 4_000_000),))


def main() -> None:
    """Prints the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same; it takes no more than a second")
    parser.parse_args()
    ratios = {}
    print(f"{'condition':<14} {'utilisation':>11} {'recovery':>9} {'switches a minute':>18}")
    for name, steps in CONDITIONS.items():
        found = Watched(POLICY).play(*steps, Expect())
        print(f"{name:<14} {found.utilisation:>11.1%} {found.recovery_s:>7.2f} s {found.switches_a_minute:>18.1f}")
        ratios[name] = found.utilisation
    for name, ratio in ratios.items():
        print(f"ratio {name} {ratio:.3f}")


if __name__ == "__main__":
    main()
