#!/usr/bin/env python3
"""What starting costs: ``flowstream --help`` and ``flowstream check``, against importing what they cannot do without.

    python tools/bench/startup.py [--quick]

The first ratio counts what help takes beyond 60 ms, against importing argparse.
"""

from __future__ import annotations

import sys
from pathlib import Path

from measuring import RUNS, cpu_of, is_quick, medians, tell, tell_ratio

ALLOWANCE_S = 0.060
FLOWSTREAM = Path(sys.executable).with_name("flowstream")


def main() -> None:
    """Measure and tell."""
    times = 1 if is_quick(__doc__) else 5  # starts a run, for one is short
    commands: dict[str, list[str | Path]] = {
        "import argparse": [sys.executable, "-c", "import argparse"],
        "flowstream --help": [FLOWSTREAM, "--help"],
        "import pydantic, networkx, ruamel.yaml": [sys.executable, "-c", "import pydantic, networkx, ruamel.yaml"],
        "flowstream check graphs/hello.yaml": [FLOWSTREAM, "check", "graphs/hello.yaml"],
    }
    for command in commands.values():
        cpu_of(command)  # compiles and caches what has changed since
    works = {
        name: lambda command=command: sum(cpu_of(command) for _ in range(times)) / times
        for name, command in commands.items()
    }
    cpu_s = medians(works, runs=1 if times == 1 else RUNS)
    tell([(name, seconds * 1e3) for name, seconds in cpu_s.items()], "ms")
    argparse, help, libraries, check = cpu_s.values()
    tell_ratio("help", (help - ALLOWANCE_S) / argparse)
    tell_ratio("check", check / libraries)


if __name__ == "__main__":
    main()
