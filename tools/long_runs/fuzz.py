"""Parsers, machines and the graph language survive whatever they are given, for as long as you let it run.

    tools/long fuzz [--minutes 10] [--seed N] [-k EXPRESSION]

Runs the property tests (the seeded slice of them is in the test command) again and again with new seeds. The first
failure stops it; what hypothesis prints then is the shortest input that fails, and the seed repeats the run.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time


def main() -> int:
    """Run until the time is up or a property is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long, in minutes")
    parser.add_argument("--seed", type=int, help="seed of the first round; default: a new one")
    parser.add_argument("-k", default="", help="which of the tests, as for pytest")
    wanted = parser.parse_args()
    until = time.monotonic() + wanted.minutes * 60
    seed = wanted.seed if wanted.seed is not None else random.randrange(2**31)
    rounds = 0
    while rounds == 0 or time.monotonic() < until:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "hypothesis", f"--hypothesis-seed={seed}"]
        command += ["-k", wanted.k] if wanted.k else []
        done = subprocess.run(command, env={**os.environ, "FLOWSTREAM_FUZZ": "1"}, capture_output=True, text=True)
        if done.returncode != 0:
            print(done.stdout[-20_000:], done.stderr[-5_000:], f"broken by seed {seed}, round {rounds + 1}", sep="\n")
            return 1
        rounds += 1
        print(f"round {rounds}, seed {seed}: {done.stdout.strip().splitlines()[-1]}", flush=True)
        seed = (seed + 1) % 2**31
    print(f"{rounds} rounds, nothing broken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
