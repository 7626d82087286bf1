"""Arenas of malloc: few for a run's threads, unless whoever starts it says otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from flowstream.cli.memory import ARENAS, share_arenas

COUNT = """
import ctypes, sys, threading
from flowstream.cli.memory import share_arenas
if sys.argv[1] == "share":
    share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
meeting = threading.Barrier(9)
def take():
    libc.malloc(1000)
    meeting.wait(10)
    meeting.wait(10)
threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads:
    thread.start()
meeting.wait(10)
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
meeting.wait(10)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not that of glibc")


def arenas(argument: str, **environment: str) -> int:
    clean = {name: value for name, value in os.environ.items() if name not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")}
    command = [sys.executable, "-c", COUNT, argument]
    ran = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True, timeout=60)
    return ran.stdout.count("<heap ")


def test_eight_threads_share_two_arenas() -> None:
    assert arenas("leave") > ARENAS
    assert arenas("share") == ARENAS


def test_what_the_environment_says_counts() -> None:
    assert arenas("share", MALLOC_ARENA_MAX="4") == 4
    assert not share_arenas({"GLIBC_TUNABLES": "glibc.malloc.arena_max=3"})


def test_run_shares_them(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr("flowstream.cli.launch.share_arenas", lambda: called.append(True))
    from flowstream.cli import main

    with pytest.raises(SystemExit):
        main(["run", "/nonexistent.yaml"])
    assert called
