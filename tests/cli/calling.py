"""Calling the command line as a user does, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowstream.cli import outcome

ODD = Path(__file__).parent.parent / "packs" / "odd"
"""A folder of node types, most of which behave badly."""

TICKS = (
    "flowstream: 1\nnodes:\n  ticks: {type: odd/ticks, count: 5, every_ms: 1}\n  end: {type: discard, from: ticks}\n"
)


@dataclass(frozen=True, slots=True)
class Called:
    """What a call gave."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON objects that were written, one per line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Call:
    """Calls the program in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Called:
        self._capsys.readouterr()
        status = outcome([str(each) for each in arguments])
        out, err = self._capsys.readouterr()
        assert "Traceback" not in err
        return Called(status, out, err)


class Running:
    """A `flowstream run` in a process of its own that writes JSON lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    def wait_for(self, event: str) -> dict[str, Any]:
        """The next line of an event. Fails when the run ends without it."""
        assert self.process.stdout is not None
        for text in self.process.stdout:
            line: dict[str, Any] = json.loads(text)
            self.lines.append(line)
            if line["event"] == event:
                return line
        pytest.fail(f"the run ended without {event!r}: {self.lines}")

    def interrupt(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Waits for its end, reads what is left, and gives the exit status."""
        assert self.process.stdout is not None
        self.lines += [json.loads(text) for text in self.process.stdout]
        return self.process.wait()

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]


@contextmanager
def running(graph: Path, *options: str | Path, **environ: str) -> Iterator[Running]:
    """Runs a graph; what is left of it at the end of the block is killed."""
    command = [sys.executable, "-m", "flowstream", "run", str(graph), "--nodes", str(ODD), "--log", "json"]
    with subprocess.Popen(
        [*command, *map(str, options)],
        stdout=subprocess.PIPE, text=True, cwd=graph.parent, env={**os.environ, **environ},
    ) as process:  # fmt: skip
        try:
            yield Running(process)
        finally:
            process.kill()
