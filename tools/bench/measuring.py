"""Compare CPU time: a peer and us on the same work, in turn, the median of several runs.

CPU time is user and system time of the process that does the work, all its threads included. Wall time says more about
what else the machine does; CPU time still grows by a few percent when caches and cores are shared, which is why the
two take turns and only their ratio is worth anything.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = 5


def is_quick(description: str | None) -> bool:
    """Read the command line: whether to do one run of little work, which proves that it runs and measures nothing."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="one run of little work: its numbers say nothing")
    return bool(parser.parse_args().quick)


def cpu_of(command: Sequence[str | Path], *, cwd: Path = ROOT) -> float:
    """Run a command to its end and return its CPU time in seconds, that of its children included.

    Raise RuntimeError with what it said when it fails.
    """
    # As where it is installed: with the bytecode that an earlier run has left.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(
        command, cwd=cwd, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        assert running.stdout is not None
        said = running.stdout.read()
        _, status, used = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode != 0:
        words = " ".join(map(str, command))
        raise RuntimeError(f"{words} gave {running.returncode}: {said.decode(errors='replace')}")
    return used.ru_utime + used.ru_stime


def medians(works: Mapping[str, Callable[[], float]], *, runs: int) -> dict[str, float]:
    """Do each work in turn, ``runs`` times over, and return the median of what each call returned."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            taken[name].append(work())
    return {name: statistics.median(values) for name, values in taken.items()}


def tell(rows: Sequence[tuple[str, float]], unit: str) -> None:
    """Print what was measured, and how busy the machine was."""
    width = max(len(name) for name, _ in rows)
    print(f"{'':{width}}  {unit:>10}")
    for name, value in rows:
        print(f"{name:{width}}  {value:10.2f}")
    print(f"load average {os.getloadavg()[0]:.2f} on {os.cpu_count()} CPUs, Python {sys.version.split()[0]}")


def tell_ratio(name: str, value: float) -> None:
    """Print the line that is the result."""
    print(f"ratio {name} {value:.3f}")
