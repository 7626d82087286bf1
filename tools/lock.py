#!/usr/bin/env python3
"""Write the lock files from ``pyproject.toml``: exact versions, every file's hash, for every supported Python.

    python3 tools/lock.py               keep the versions that are locked, add and remove what pyproject.toml asks for
    python3 tools/lock.py --upgrade     take the newest version of everything

Needs ``uv`` on the PATH (``pip install uv``). Three files: ``requirements.lock`` is what running needs,
``requirements-dev.lock`` the same and what the tests and checks need, ``requirements-headless.lock`` the build of
OpenCV without windows that replaces the other where its system libraries are missing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import environment

HEADER = """\
# Exact versions and hashes of {what}.
# Written by tools/lock.py from pyproject.toml; do not edit.
"""


def compile_lock(name: str, what: str, *arguments: str, requirements: str = "") -> None:
    """Write one lock file; ``requirements`` are further lines to resolve. Exits when uv fails."""
    path = environment.ROOT / name
    command = [
        "uv", "pip", "compile", "--quiet", "--universal", "--fork-strategy=fewest", "--generate-hashes",
        "--python-version={}.{}".format(*environment.OLDEST_PYTHON), "--no-header", "--no-annotate",
        f"--output-file={path}", *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=environment.ROOT, input=requirements, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    path.write_text(HEADER.format(what=what) + path.read_text(encoding="utf-8"), encoding="utf-8")


def main() -> None:
    """Write the three files, each held to the versions of the first."""
    environment.require_python()
    if shutil.which("uv") is None:
        sys.exit("tools/lock.py needs uv: pip install uv")
    upgrade = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    run = environment.ROOT / environment.RUN
    compile_lock(
        environment.RUN, "what running flowstream needs", "pyproject.toml", "--group=install", *upgrade
    )  # fmt: skip
    held = [f"--constraints={run}", *upgrade]
    compile_lock(environment.DEV, "what running and testing flowstream needs", "pyproject.toml", "--group=dev", *held)
    found = re.search(r"(?m)^opencv-python==([\w.]+)", run.read_text(encoding="utf-8"))
    if found is None:
        sys.exit(f"{environment.RUN} holds no opencv-python")
    compile_lock(
        environment.HEADLESS, "OpenCV without windows", "--no-deps", "-",
        requirements=f"opencv-python-headless=={found.group(1)}\n",
    )  # fmt: skip


if __name__ == "__main__":
    main()
