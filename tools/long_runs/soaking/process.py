"""The soaked process, from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from flowstream.control import client
from flowstream.errors import FlowstreamError
from soaking.edits import LISTEN

HERE = Path(__file__).resolve().parent
WEAR = HERE / "wear"
DISK_BYTES = 256 * 1024
PATIENCE_S = 90.0
BAD_LINES = re.compile(
    r"never retrieved|never awaited|Exception ignored|GeneratorExit|Task was destroyed|coroutine ignored"
    r"|something went wrong here|Fatal Python|not watched any more"
)
"""What must not stand in the log of a run, whatever is done to it."""


class SoakError(Exception):
    """What was to be proven does not hold."""


def can_mount() -> bool:
    """Whether a process of ours may have a small disk of its own."""
    if not shutil.which("unshare"):
        return False
    tried = subprocess.run(
        ["unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"], capture_output=True, check=False
    )
    return tried.returncode == 0


class Process:
    """A soaked process and what one can ask it. It dies with whoever made it, and after ``life_s`` at the latest."""

    def __init__(
        self, folder: Path, graph: Path, listen: str, *, life_s: float, small_disk: bool, trace: bool = False
    ) -> None:
        self.folder = folder
        self.socket = folder / f"{graph.stem}.sock"
        self.log = folder / f"{graph.stem}.log"
        self.disk = folder / "recordings"
        self.disk.mkdir(exist_ok=True)
        answers, inside = os.pipe()
        command: list[str | Path] = [
            sys.executable, HERE / "subject.py", str(life_s), str(inside), "run", graph, "--nodes", folder / "wear",
            "--control", self.socket, "--log", "json",
        ]  # fmt: skip
        if small_disk:
            mount = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "$0" && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", mount, self.disk, *command]
        try:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    command, cwd=folder, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                    pass_fds=[inside], start_new_session=True,
                    env={**os.environ, "XDG_STATE_HOME": str(folder / "state"), "XDG_RUNTIME_DIR": str(folder),
                         LISTEN: listen}
                    | ({"PYTHONTRACEMALLOC": "6"} if trace else {}),
                )  # fmt: skip
        finally:
            os.close(inside)
        self._answers = os.fdopen(answers, "rb")

    def root(self) -> Path:
        """The recordings as the process sees them."""
        return Path(f"/proc/{self.process.pid}/root/{self.disk}")

    def ask(self, resource: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the run answers. Raises FlowstreamError as ``control.client.ask`` does."""
        return client.ask(self.socket, resource, body, seconds=PATIENCE_S)

    def witness(self, command: str) -> dict[str, Any]:
        """What the process says of its inside."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(command.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._answers.readline()
        if not line:
            raise SoakError(f"the process ended with status {self.process.wait(10)}:\n{self.tail()}")
        answer: dict[str, Any] = json.loads(line)
        if answer.pop("is_stuck"):
            raise SoakError("the program that runs graphs beside has been in one for a minute")
        return answer

    def wait_for(self, what: str, condition: Any, seconds: float = PATIENCE_S) -> Any:
        """What ``condition()`` gives once it is true. Raises SoakError when it takes too long or the process ends."""
        until = time.monotonic() + seconds
        found = None
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise SoakError(f"the process ended with status {self.process.returncode}:\n{self.tail()}")
            with contextlib.suppress(FlowstreamError):
                if found := condition():
                    return found
            time.sleep(0.1)
        raise SoakError(f"not within {seconds:.0f} s: {what}")

    def started(self) -> dict[str, Any]:
        """Wait until the graph runs; gives its status."""

        def running() -> dict[str, Any] | None:
            status = self.ask("/status")
            return status if status["state"] in ("running", "degraded") else None

        status: dict[str, Any] = self.wait_for("the graph runs", running)
        return status

    def resident_bytes(self) -> int:
        """The resident set as it is now."""
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0

    def tail(self, lines: int = 25) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def full_disks(self) -> int:
        """How often a node failed because the disk was full, as far as the log has it."""
        return sum("No space left" in line and "node-failed" in line for line in self.log.read_text().splitlines())

    def bad_lines(self) -> list[str]:
        """What stands in its log and must not."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if BAD_LINES.search(line)]

    def stop(self) -> int | None:
        """Ctrl-C; gives the exit status, None when it had to be killed."""
        status = None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        self.close()
        return status

    def close(self) -> None:
        """Let go of it; what still runs is killed."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self._answers.close()
