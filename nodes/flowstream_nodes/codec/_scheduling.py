"""Keeps threads at the scheduling that they have, whatever a library makes of them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_TASKS = "/proc/self/task"


@contextlib.contextmanager
def kept_scheduling() -> Iterator[None]:
    """Puts back the scheduling of this thread, and gives it to the threads that are begun while the block lasts.

    SVT-AV1, when it is opened as root, makes the thread that opens it and its own real-time ones of the highest
    priority (``svt_av1_enc_init_handle``), and whoever computes at that priority starves the rest of the machine.
    """
    if sys.platform != "linux":
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    before = set(os.listdir(_TASKS))
    try:
        yield
    finally:
        for thread in (0, *map(int, set(os.listdir(_TASKS)) - before)):
            with contextlib.suppress(OSError):  # a thread that has ended
                if os.sched_getscheduler(thread) != policy:
                    os.sched_setscheduler(thread, policy, parameters)
