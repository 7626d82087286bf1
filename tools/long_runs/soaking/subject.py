"""The process that is soaked: ``flowstream run``, with a witness in it, and beside it a program that runs graphs.

    python subject.py LIFE_SECONDS DESCRIPTOR ARGUMENT ...

The arguments are those of ``flowstream``. The witness reads commands from standard input and answers each with a line
of JSON on the descriptor: ``count`` gives threads, descriptors and tasks, ``look`` frees what is free and adds memory.
The process ends when standard input does, or after ``LIFE_SECONDS``, whatever hangs in it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import re
import resource
import sys
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from types import CoroutineType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from soaking import native

TURN_S = 60.0
PAUSE_S = 2.0
PUSHED = 12
_NUMBER = re.compile(r"\d+")

program_turn = threading.Lock()
"""Held while the program beside has a graph."""


def threads() -> tuple[Counter[str], Counter[str]]:
    """The threads that Python has made, by name, and those of libraries, by what they seem to be of."""
    found: Counter[str] = Counter()
    others: Counter[str] = Counter()
    known = set()
    for thread in threading.enumerate():
        known.add(thread.native_id)
        found[_NUMBER.sub("N", thread.name)] += 1
    for name in os.listdir("/proc/self/task"):
        if int(name) not in known:
            others[native.owner(int(name)) or "one that runs"] += 1
    return found, others


def descriptors() -> Counter[str]:
    """What is open, by kind."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the one that lists them
            continue
        if not target.startswith("/proc/"):
            found[target if target.startswith(("/", "anon_inode")) else target.partition(":")[0]] += 1
    return found


def tasks() -> Counter[str]:
    """The tasks of all event loops that have not come to their end, by what they run."""
    known: Any = getattr(asyncio.tasks, "_scheduled_tasks", None)  # Python 3.12 and later
    if known is None:
        known = asyncio.tasks._all_tasks  # type: ignore[attr-defined]
    found: Counter[str] = Counter()
    for task in list(known):
        if not task.done():
            work = task.get_coro()
            found[work.__qualname__ if isinstance(work, CoroutineType) else str(work)] += 1
    return found


def kept_bytes(objects: list[Any]) -> int:
    """What statistics and event log hold: both are bounded, and fill up over an hour."""
    from flowstream.control.events import Entry
    from flowstream.proto.window import Sketch, Slot

    size = 0
    for each in objects:
        kind = type(each)
        if kind is Slot:
            size += sys.getsizeof(each) + sys.getsizeof(each.counts) + 28 * len(each.counts)
        elif kind is Sketch:
            size += sys.getsizeof(each) + sys.getsizeof(each._buckets) + 28 * len(each._buckets)
        elif kind is Entry:
            size += sys.getsizeof(each) + sys.getsizeof(each.data)
    return size


class MallocInfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc, 2.33 and later."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "top",
        )
    ]


def allocated_bytes() -> int:
    """What malloc has given out and not got back, in all its arenas: the resident set without what lies idle in it."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = MallocInfo
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


def memory(last: dict[str, Any]) -> dict[str, Any]:
    """What is in use when all that can be freed is."""
    from flowstream.control.events import Entry
    from flowstream.proto.window import Sketch, Slot

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    objects = gc.get_objects()
    kinds = Counter(type(each) for each in objects)
    kept = sum(kinds.pop(kind, 0) for kind in (Slot, Sketch, Entry))
    kept_size = kept_bytes(objects)
    count = len(objects) - kept
    del objects
    found = {
        "resident": int(status["RssAnon"].split()[0]) * 1024,
        "kept": kept_size,
        "allocated": allocated_bytes(),
        "blocks": sys.getallocatedblocks(),
        "objects": count,
        "modules": len(sys.modules),
        "kinds": {f"{kind.__module__}.{kind.__qualname__}": n for kind, n in kinds.most_common(600)},
    }
    if tracemalloc.is_tracing():
        now = tracemalloc.take_snapshot()
        before = last.setdefault("first", now)
        found["traced"] = [str(each) for each in now.compare_to(before, "lineno")[:25]]
    return found


def witness(answers: int) -> None:
    """Answer until nobody asks any more."""
    last: dict[str, Any] = {}
    for line in sys.stdin:
        answer: dict[str, Any] = {"is_stuck": not program_turn.acquire(timeout=TURN_S)}
        if line.strip() == "look":
            answer |= memory(last)
        answer["threads"], answer["libraries"] = threads()
        answer |= {"descriptors": descriptors(), "tasks": tasks()}
        if not answer["is_stuck"]:
            program_turn.release()
        os.write(answers, json.dumps(answer).encode() + b"\n")
    os._exit(3)


def program() -> None:
    """Run one graph after another in this process, push pictures into each and read them out of it."""
    import numpy as np

    import flowstream
    from flowstream import Graph

    graph = Graph()
    pushed = graph.add("app-in", id="in", size="160x90", fps=10)
    graph.add("app-out", id="out", from_=graph.add("scale", from_=pushed, size="80x46"))
    picture = np.zeros((90, 160, 3), np.uint8)
    while True:
        with program_turn, flowstream.open_sync(graph) as run:
            frames = run.frames("out")
            for number in range(PUSHED):
                run.push("in", picture)
                if number % 2:
                    next(frames)
        time.sleep(PAUSE_S)


def main() -> None:
    """Be ``flowstream``, with company."""
    life_s, answers = float(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    end = threading.Timer(life_s, os._exit, [4])
    end.daemon = True
    end.start()
    threading.Thread(target=witness, args=(answers,), name="soak witness", daemon=True).start()
    threading.Thread(target=program, name="soak program", daemon=True).start()
    from flowstream.cli import main as flowstream_main

    sys.argv[1:] = sys.argv[3:]
    flowstream_main()


if __name__ == "__main__":
    main()
