"""The long run about memory: a million payloads in the test command, and a leak is found."""

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from flowstream.proto.overflow import POLICIES, Overflow, OverflowQueue

LONG_RUNS = Path(__file__).resolve().parents[2] / "tools" / "long_runs"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(LONG_RUNS))


@pytest.mark.timeout(300)
def test_a_million_payloads_through_a_graph_that_stalls_and_goes_on() -> None:
    command = [sys.executable, LONG_RUNS / "stall.py", "--items", "1000000", "--overflow", "block"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280, check=False,
        preexec_fn=lambda: os.nice(5),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("block            1000000 came through, 0 dropped;"), done.stdout


@pytest.mark.parametrize("overflow", POLICIES)
def test_fewer_by_each_policy(overflow: Overflow) -> None:
    """In a process of its own, in which nothing else comes and goes."""
    command = [sys.executable, LONG_RUNS / "stall.py", "--items", "10000", "--overflow", overflow]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith(f"{overflow} "), done.stdout


def test_what_grows_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import stall

    kept = []
    poll = OverflowQueue.poll

    def leak(self: OverflowQueue[object]) -> object:
        kept.append(object())
        return poll(self)

    monkeypatch.setattr(OverflowQueue, "poll", leak)
    assert not anyio.run(stall.flood, "block", 10_000)
