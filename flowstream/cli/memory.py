"""How a process that runs a graph shares its memory among its threads."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from typing import Final

ARENAS: Final = 2
"""For a run's threads to share. glibc makes one for each thread, up to eight for each processor, and pictures that one
thread makes and another frees leave holes in all of them: of 160 MB that a busy run held so, 40 MB were in use. With
two, the processor time is the same within the noise."""

_M_ARENA_MAX: Final = -8  # malloc.h of glibc


def share_arenas(environment: Mapping[str, str] = os.environ) -> bool:
    """Has all threads that are started from now on share few arenas of malloc; says whether they do.

    For glibc; other allocators have no such setting. Whoever starts the process has the last word: what is set there
    by ``MALLOC_ARENA_MAX`` or ``GLIBC_TUNABLES`` stays. Source: mallopt(3).
    """
    is_chosen = "MALLOC_ARENA_MAX" in environment or "arena_max" in environment.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or is_chosen:
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS))
    except (AttributeError, OSError):
        return False
