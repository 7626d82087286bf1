"""A run that nobody looks after: what a service manager is told and may ask for, broken files, clocks that jump."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flowstream.control.client import ask
from flowstream.control.state import state_folder
from flowstream.control.systemd import Notifier
from flowstream.runtime.clock import SystemClock
from tests.api.graphs import until
from tests.cli.calling import Running, running
from tests.control.running import TICKS, Opened, in_run

PATIENCE_S = 20.0


class Manager:
    """The other end of ``$NOTIFY_SOCKET``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE_S)

    def wait_for(self, key: str) -> dict[str, str]:
        """The next message that has a key; those before it are passed over."""
        while True:
            text = self._socket.recv(65536).decode()
            message = dict(line.split("=", 1) for line in text.splitlines())
            if key in message:
                return message

    def silence(self, seconds: float) -> float:
        """How long nothing came, which must be as long as that. What came before is passed over."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(65536)
        began = time.monotonic()
        self._socket.settimeout(seconds)
        with pytest.raises(TimeoutError):
            self._socket.recv(65536)
        self._socket.settimeout(PATIENCE_S)
        return time.monotonic() - began

    def close(self) -> None:
        self._socket.close()


@contextmanager
def managed(folder: Path) -> Iterator[Manager]:
    manager = Manager(folder / "notify")
    try:
        yield manager
    finally:
        manager.close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a graph, and its state beside it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    (tmp_path / "it.yaml").write_text(TICKS)
    return tmp_path


@contextmanager
def running_here(here: Path, *options: str, **environ: str) -> Iterator[Running]:
    with running(here / "it.yaml", "--control", here / "it.sock", *options, **environ) as run:
        yield run


def told(here: Path, resource: str = "/status") -> dict[str, Any]:
    return ask(here / "it.sock", resource, seconds=PATIENCE_S)


# --- a service manager ----------------------------------------------------------------------------------------------


def test_a_service_manager_is_told_and_a_hang_up_reads_the_files_again(here: Path) -> None:
    with (
        managed(here) as manager,
        running_here(here, "--no-watch", NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC="100000") as run,
    ):
        manager.wait_for("READY")
        assert manager.wait_for("STATUS") == {"STATUS": "running"}
        for _ in range(3):
            manager.wait_for("WATCHDOG")
        (here / "it.yaml").write_text(TICKS.replace("every_ms: 5", "every_ms: 7"))
        run.interrupt(signal.SIGHUP)
        assert int(manager.wait_for("RELOADING")["MONOTONIC_USEC"]) > 0
        manager.wait_for("READY")
        assert told(here)["nodes"]["ticks"]["config"]["every_ms"] == 7
        (here / "it.yaml").write_text(TICKS.replace("every_ms: 5", "every_ms: often"))
        run.interrupt(signal.SIGHUP)
        manager.wait_for("RELOADING")
        manager.wait_for("READY")
        assert "which was refused: 1 finding in the file" in manager.wait_for("STATUS")["STATUS"]
        assert told(here)["nodes"]["ticks"]["config"]["every_ms"] == 7
        run.interrupt(signal.SIGTERM)
        manager.wait_for("STOPPING")
        assert run.ended() == 0
    assert "unchanged" not in run.events


def test_a_signal_to_reload_with_nothing_new_says_so(here: Path) -> None:
    with running_here(here, "--no-watch") as run:
        run.wait_for("running")
        run.interrupt(signal.SIGHUP)
        assert run.wait_for("unchanged")["message"] == "the files are as they run"
        run.interrupt()
        assert run.ended() == 0


def test_nobody_who_wants_to_know_is_nobody_to_tell(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}):
        notifier = Notifier(environ)
        assert not notifier.is_heard
        notifier.ready()
        notifier.close()
    gone = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    gone.status("into the void")
    gone.close()


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [("3000000", "", None), ("3000000", "own", 3.0), ("3000000", "1", None), ("0", "own", None), ("x", "own", None)],
)
def test_signs_of_life_are_given_when_they_are_asked_of_this_process(
    tmp_path: Path, usec: str, pid: str, seconds: float | None
) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": usec}
    environ["WATCHDOG_PID"] = str(os.getpid()) if pid == "own" else pid
    notifier = Notifier(environ)
    assert notifier.watchdog_seconds == seconds
    notifier.close()


def test_a_socket_without_a_file_and_a_status_of_many_lines() -> None:
    name = f"flowstream-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(PATIENCE_S)
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
        notifier.status("one\nREADY=1\n" + "x" * 1000)
        text = listener.recv(65536).decode()
        assert text.startswith("STATUS=one READY=1 xxx")
        assert (len(text), text.count("\n")) == (len("STATUS=") + 500, 0)
        notifier.close()


def test_its_state_is_where_the_service_manager_says(tmp_path: Path) -> None:
    def where(**environ: str) -> Path:
        return state_folder(("graph.yaml",), {"HOME": "/home/ann", **environ}).parent

    assert where() == Path("/home/ann/.local/state/flowstream")
    assert where(STATE_DIRECTORY="/var/lib/flowstream:/var/lib/more") == Path("/var/lib/flowstream/flowstream")
    assert where(STATE_DIRECTORY="/var/lib/x", XDG_STATE_HOME="/state") == Path("/state/flowstream")
    assert where(XDG_STATE_HOME="relative") == Path("/home/ann/.local/state/flowstream")


# --- broken when it starts ------------------------------------------------------------------------------------------


def test_a_broken_file_at_the_start_runs_what_ran_last_and_says_so_everywhere(here: Path) -> None:
    with running_here(here) as run:
        run.wait_for("running")
        while not told(here, "/revisions")["revisions"]:
            pass
        run.interrupt()
        assert run.ended() == 0
    (here / "it.yaml").write_text(TICKS.replace("discard", "discrad"))
    with running_here(here) as run:
        assert run.ended() == 1, "unless it is asked for, it is not guessed"
    with managed(here) as manager, running_here(here, "--last-good", NOTIFY_SOCKET=str(manager.path)) as run:
        line = run.wait_for("last-good")
        assert line["level"] == "warning"
        assert line["message"].startswith("the files cannot be run, so this is revision 1, which ran last (20")
        assert "the files could not be run at the start" in manager.wait_for("STATUS")["STATUS"]
        revision = told(here)["revision"]
        assert revision["difference"].startswith(
            "the files could not be run at the start, so revision 1, which ran last, was started; the file holds "
        )
        assert revision["refused"] == "1 finding in the file"
        assert revision["running"] != revision["file"]
        assert told(here, "/readyz")["difference"] == revision["difference"]
        assert "flowstream_run_file_refused" in metrics(here)
        reload = command(here, "reload")
        assert (reload.returncode, "did you mean discard?" in reload.stderr) == (1, True)
        (here / "it.yaml").write_text(TICKS.replace("every_ms: 5", "every_ms: 9"))
        run.wait_for("applied")
        assert told(here)["revision"]["difference"] is None
        run.interrupt()
        assert run.ended() == 0


def test_what_never_ran_cannot_be_the_last_good(here: Path) -> None:
    (here / "it.yaml").write_text(TICKS.replace("discard", "discrad"))
    with running_here(here, "--last-good") as run:
        assert run.ended() == 1
    assert "no revision of this graph has run here yet" in run.lines[-1]["message"]


def metrics(here: Path) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(here / "it.sock"))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()


def command(here: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a person gets who asks the run by a command."""
    whole = [sys.executable, "-m", "flowstream", *arguments, "--control", str(here / "it.sock")]
    return subprocess.run(whole, capture_output=True, text=True, check=False, timeout=60)


# --- clocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [-400 * 86400, 400 * 86400, -1.5])
def test_a_wallclock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float) -> None:
    """Decisions are made by the monotonic clock; the history goes by numbers."""
    real = SystemClock.wallclock_ns
    offset_ns = 0
    monkeypatch.setattr(SystemClock, "wallclock_ns", lambda self: real(self) + offset_ns)

    async def main(there: Opened) -> None:
        nonlocal offset_ns
        await there.kept(1)
        stats = there.run.statistics
        before = stats.snapshot().up_ns
        offset_ns = round(jump_s * 1e9)
        received = there.run.engine.status()["end"].received
        await until(lambda: there.run.engine.status()["end"].received >= received + 50)
        assert before < stats.snapshot().up_ns < before + 60 * 10**9
        assert (await there.get("/why"))["healthy"]
        await there.post("/set", target="ticks.every_ms", value="7")
        kept = await there.kept(2)
        assert [each["number"] for each in kept] == [1, 2]
        assert (kept[1]["time"] > kept[0]["time"]) is (jump_s > -1)
        done = await there.post("/rollback")
        assert done["difference"] == "revision 1 was gone back to"
        assert there.every_ms() == 5

    in_run(tmp_path, main)


def test_a_machine_that_slept_goes_on_without_catching_up(here: Path) -> None:
    """A process that is stopped sees what one sees on a machine that sleeps, and its monotonic clock even goes on."""
    fps = 100
    pattern = f"{{type: test-pattern, size: 160x90, fps: {fps}}}"
    (here / "it.yaml").write_text(f"nodes:\n  pattern: {pattern}\n  end: {{type: discard, from: pattern}}\n")

    def received() -> int:
        return int(told(here)["nodes"]["end"]["received"])

    with managed(here) as manager, running_here(here, NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC="200000") as run:
        manager.wait_for("READY")
        began = time.monotonic()
        before = received()
        run.interrupt(signal.SIGSTOP)
        os.waitid(os.P_PID, run.process.pid, os.WSTOPPED | os.WNOWAIT)
        silence_s = manager.silence(1.0)
        run.interrupt(signal.SIGCONT)
        manager.wait_for("WATCHDOG")
        while (after := received()) < before + fps // 2:
            pass
        ran_s = time.monotonic() - began - silence_s
        assert after - before <= fps * ran_s + fps / 10
        assert told(here, "/why")["healthy"]
        run.interrupt()
        assert run.ended() == 0
    assert "node-failed" not in run.events
