"""Whose threads those are that Python has not made: told by the libraries whose code is on their stacks."""

from __future__ import annotations

import bisect
import os
import struct
from pathlib import Path

STACK_BYTES = 16 * 1024
EVERYBODYS = ("libc.so", "libc-", "ld-linux", "libpthread", "libpython", "libstdc++", "libgcc", "python")
"""Code that stands on any stack."""


def owner(thread: int) -> str:
    """The library that a thread of this process waits in or was started by, as far as that shows; "" when it runs."""
    try:
        words = Path(f"/proc/self/task/{thread}/syscall").read_text().split()
    except OSError:
        return ""
    if len(words) < 3:
        return ""
    starts, areas = _areas()
    stack = _area_of(int(words[-2], 16), starts, areas)
    if stack is None:
        return ""
    pointer = int(words[-2], 16)
    size = min(STACK_BYTES, stack[1] - pointer) // 8 * 8
    with open("/proc/self/mem", "rb", buffering=0) as memory:  # the thread may end meanwhile, and its stack with it
        try:
            found_bytes = os.pread(memory.fileno(), size, pointer)
        except OSError:
            return ""
    for address in struct.unpack(f"{len(found_bytes) // 8}Q", found_bytes[: len(found_bytes) // 8 * 8]):
        found = _area_of(address, starts, areas)
        if found is not None and "x" in found[2] and found[3] and not found[3].startswith(EVERYBODYS):
            return found[3].partition(".so")[0].partition("-")[0]
    return ""


def _areas() -> tuple[list[int], list[tuple[int, int, str, str]]]:
    areas = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        first, last = (int(each, 16) for each in fields[0].split("-"))
        areas.append((first, last, fields[1], os.path.basename(fields[5]) if len(fields) > 5 else ""))
    return [area[0] for area in areas], areas


def _area_of(
    address: int, starts: list[int], areas: list[tuple[int, int, str, str]]
) -> tuple[int, int, str, str] | None:
    place = bisect.bisect_right(starts, address) - 1
    return areas[place] if place >= 0 and address < areas[place][1] else None
