"""``flowstream doctor``: what this machine can do, what it lacks, and what to do about it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import platform
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import nodes_option

if TYPE_CHECKING:
    from flowstream.node.capability import Capability

ELSEWHERE = "not for this system"
"""What packs say of a thing that only another operating system has; programs are told of it, people are not."""

TOPICS = ("encoders", "decoders", "devices", "permissions", "ports", "clock", "versions")
MARKS = {"works": "ok", "absent": "-", "broken": "BROKEN"}
LIBRARIES = (
    ("av",),
    ("numpy",),
    ("opencv-python", "opencv-python-headless", "opencv-contrib-python"),
    ("aiortc",),
    ("pydantic",),
    ("anyio",),
    ("uvicorn",),
    ("mss",),
)
"""What is imported from elsewhere, by the names of the distributions that bring it."""


_WAKES = 20
_LATE_MS = 5.0
_STA_UNSYNC = 0x40  # of adjtimex(2)
_STATUS_AT = 40  # in its struct timex, on 64-bit Linux


@click.command("doctor", short_help=COMMANDS["doctor"])
@click.option("--afresh", is_flag=True, help="Try the encoders again instead of believing what was found before.")
@nodes_option
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="For people, or for programs."
)
def command(afresh: bool, folders: tuple[Path, ...], form: str) -> int:
    """Show what this machine can do: encoders and decoders that open, devices, permissions, ports, clock, versions.

    What is missing comes with what to do about it. The exit status is 1 when something is broken that ought to work; a
    thing that is just not there is no reason.
    """
    from flowstream.node.registry import Registry

    found = [*Registry.installed(folders).capabilities(afresh=afresh), *own()]
    if form == "json":
        click.echo(json.dumps([each.to_json() for each in found], indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(table(found)))
    return 1 if any(each.state == "broken" for each in found) else 0


def table(found: Iterable[Capability]) -> Iterator[str]:
    """What was found as lines: a table for each topic, and what to do at the end, each advice once."""
    rows = [each for each in found if each.detail != ELSEWHERE]
    topics = [*TOPICS, *dict.fromkeys(each.topic for each in rows if each.topic not in TOPICS)]
    width = max((len(each.name) for each in rows), default=0)
    kinds = max((len(each.kind) for each in rows), default=0)
    for topic in topics:
        here = [each for each in rows if each.topic == topic]
        if not here:
            continue
        yield f"{topic}:"
        for each in here:
            mark = MARKS[each.state]
            yield f"  {mark:6}  {each.name:{width}}  {each.kind:{kinds}}  {each.detail}".rstrip()
        yield ""
    advised: dict[str, list[Capability]] = {}
    for each in rows:
        if each.advice:
            advised.setdefault(each.advice, []).append(each)
    if not advised:
        yield "nothing is missing"
        return
    yield "what to do about what is missing:"
    for advice, those in sorted(advised.items(), key=lambda pair: all(each.state != "broken" for each in pair[1])):
        yield f"  {', '.join(each.name for each in those)}"
        yield f"      {advice}"


def own() -> Iterator[Capability]:
    """What the framework itself needs of a machine."""
    yield from _ports()
    yield from _clock()
    yield from _versions()


def _ports() -> Iterator[Capability]:
    from flowstream.control.door import DEFAULT, ServeError, bind
    from flowstream.node.capability import Capability

    try:
        bind(DEFAULT).close()
    except ServeError as error:
        detail = error.message.removeprefix("serve: ")
        advice = "nothing: a graph takes the next free port unless its serve: listen: names this one"
        yield Capability("ports", f"{DEFAULT.port}/tcp", "absent", "pages", detail, advice)
    else:
        yield Capability("ports", f"{DEFAULT.port}/tcp", "works", "pages", f"free at {DEFAULT.host}")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind((DEFAULT.host, 0))
            size = datagrams.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    except OSError as error:
        yield Capability("ports", "udp", "broken", "pictures", f"cannot be opened: {error.strerror}",
                         "allow this program datagrams: a sandbox or a security policy forbids them")  # fmt: skip
    else:
        yield Capability("ports", "udp", "works", "pictures", f"can be opened, {size // 1024} KiB to send from")


def _clock() -> Iterator[Capability]:
    from flowstream.node.capability import Capability

    late_ms = wakes_late_ms()
    is_late = late_ms > _LATE_MS
    yield Capability(
        "clock", "wake-ups", "absent" if is_late else "works", "monotonic",
        f"{late_ms:.1f} ms late at worst, of {_WAKES}",
        "the machine is busy, or a virtual one that gets too little time: give it more, or lower the frame rate"
        if is_late
        else "",
    )  # fmt: skip
    synchronised = is_synchronised()
    if synchronised is None:
        yield Capability("clock", "UTC", "absent", "wallclock", "this system does not say whether it is synchronised")
    elif synchronised:
        yield Capability("clock", "UTC", "works", "wallclock", "synchronised")
    else:
        yield Capability(
            "clock", "UTC", "absent", "wallclock", "not synchronised",
            "run a time service (systemd-timesyncd, chrony), by which latency across machines is measured",
        )  # fmt: skip


def wakes_late_ms() -> float:
    """How late the latest of some short waits ended, in milliseconds."""
    worst_s = 0.0
    for _ in range(_WAKES):
        begun_s = time.monotonic()
        time.sleep(0.001)
        worst_s = max(worst_s, time.monotonic() - begun_s - 0.001)
    return worst_s * 1000


def is_synchronised() -> bool | None:
    """Whether the kernel says that a time service keeps its clock (adjtimex); None where it says nothing."""
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return None
    state = ctypes.create_string_buffer(208)
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(state) < 0:
            return None
    except (AttributeError, OSError):
        return None
    status = int.from_bytes(state.raw[_STATUS_AT : _STATUS_AT + 4], sys.byteorder)
    return not status & _STA_UNSYNC


def _versions() -> Iterator[Capability]:
    from flowstream import __version__
    from flowstream.node.capability import Capability

    yield Capability("versions", "flowstream", "works", detail=__version__)
    yield Capability("versions", "Python", "works", detail=f"{platform.python_version()} ({sys.executable})")
    yield Capability("versions", platform.system(), "works", detail=f"{platform.release()}, {os.cpu_count()} CPUs")
    for names in LIBRARIES:
        installed = [(name, version) for name in names if (version := _version(name))]
        if not installed:
            yield Capability("versions", names[0], "broken", "", "not installed", f"pip install {names[0]}")
        for name, version in installed:
            yield Capability("versions", name, "works", detail=version + _built_with(name))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _built_with(name: str) -> str:
    if name != "av":
        return ""
    import av

    return f" (FFmpeg, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))})"
