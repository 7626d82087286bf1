"""The first command of the README, in a checkout that has nothing but itself, with the Python it was started by."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy what is published: no environment, no caches."""
    for folder in ("flowstream", "nodes", "graphs", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [
        *ROOT.glob("requirements*.lock"),
        *(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE")),
    ]:
        shutil.copy(path, tmp_path / path.name)
    return tmp_path


class Started:
    """``python3 tools/start.py``, as a person has it on a terminal."""

    def __init__(self, checkout: Path) -> None:
        others = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
        variables = {name: value for name, value in os.environ.items() if name not in others}
        variables["PIP_COMPILE"] = "0"  # of three thousand files it runs a few hundred, and compiles those by itself
        self.process = subprocess.Popen(
            [PYTHON, "tools/start.py"], cwd=checkout, env=variables, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.words = ""

    def link(self) -> str:
        """Read until the link is printed and return it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.words += line
            if found := re.search(r"watch it at (http://\S+)", line):
                return found.group(1)
        pytest.fail(f"no link:\n{self.words}")

    def interrupt(self) -> int:
        """Press Ctrl-C and return the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.words += self.process.communicate(timeout=30)[0]
        return self.process.returncode


@pytest.mark.real
@pytest.mark.timeout(400)
def test_first_command_shows_the_main_job_and_ends_by_ctrl_c(checkout: Path) -> None:
    for attempt in ("first", "second"):
        started = Started(checkout)
        try:
            with urllib.request.urlopen(started.link(), timeout=10) as answer:
                assert b"<html" in answer.read().lower()
            assert started.interrupt() == 0, started.words
        finally:
            if started.process.poll() is None:
                os.killpg(started.process.pid, signal.SIGKILL)
                started.process.communicate()
        assert "Traceback" not in started.words
        assert ("Setting up flowstream in .venv: " in started.words) == (attempt == "first"), started.words
