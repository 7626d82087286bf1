"""What viewers report of their packets comes in on a socket of its own, where the kernel can tell it apart.

It is most of what they send, each at moments of its own. Where nothing depends on it at once, it is fetched now and
then for all of them together, and the loop is not woken up by each.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import Final

from flowstream.proto.rtcp import MOST_TRAILER, ReceiverReport, TransportFeedback

SO_TIMESTAMPNS: Final = 35
SO_ATTACH_REUSEPORT_CBPF: Final = 51
"""asm-generic/socket.h; Python has no names for them."""

NOTES_BYTES: Final = 64
"""Room for what the kernel says beside a datagram."""

LONGEST_NS: Final = 1_000_000_000
"""Nothing is taken to have waited for longer: the wall clock may have been set meanwhile."""

_TIME: Final = struct.Struct("@ll")
_INSTRUCTION: Final = struct.Struct("=HBBI")
_BYTE, _HALF, _LENGTH, _KEEP, _ADD, _SHIFT, _AND, _LESS_KEPT = 0x30, 0x28, 0x80, 0x07, 0x04, 0x64, 0x54, 0x1C
_IF_EQUAL, _IF_MORE, _RETURN = 0x15, 0x25, 0x06
"""linux/bpf_common.h: classic BPF."""

_VERSION: Final = 0xC0
_VERSION_AND_FORMAT: Final = 0xDF  # all but whether there is padding
_WHICH: Final = b"".join(
    _INSTRUCTION.pack(*each)
    for each in (
        (_BYTE, 0, 0, 1),
        (_IF_EQUAL, 4, 0, ReceiverReport.kind),
        (_IF_EQUAL, 0, 14, TransportFeedback.kind),
        (_BYTE, 0, 0, 0),
        (_AND, 0, 0, _VERSION_AND_FORMAT),
        (_IF_EQUAL, 3, 11, 2 << 6 | TransportFeedback.format),
        (_BYTE, 0, 0, 0),
        (_AND, 0, 0, _VERSION),
        (_IF_EQUAL, 0, 8, 2 << 6),
        (_HALF, 0, 0, 2),  # its length, in words less one
        (_ADD, 0, 0, 1),
        (_SHIFT, 0, 0, 2),
        (_KEEP, 0, 0, 0),
        (_LENGTH, 0, 0, 0),
        (_LESS_KEPT, 0, 0, 0),
        (_IF_MORE, 1, 0, MOST_TRAILER),  # below zero is more, too
        (_RETURN, 0, 0, 1),
        (_RETURN, 0, 0, 0),
    )
)
"""The number of the socket for a datagram, as `is_report_alone` tells; 0 also where it is too short to tell."""


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def split_off(bound: socket.socket, *, buffer_bytes: int) -> socket.socket | None:
    """A second socket at the address of ``bound``, to which reports and nothing else come from now on.

    Reports are what `is_report_alone` takes for such. None where the kernel cannot do that; then ``bound`` gets all, as
    before. A kernel may also say that it can and do nothing: what comes in on the second socket has to be looked at.

    ``bound`` was bound for this process alone, so that nobody had the port. From now on another program of the same
    user could bind it too, if it asks for SO_REUSEPORT as well; it gets nothing.

    Source: socket(7), SO_REUSEPORT and SO_ATTACH_REUSEPORT_CBPF.
    """
    if sys.platform != "linux":
        return None
    try:
        aside = socket.socket(bound.family, socket.SOCK_DGRAM)
    except OSError:
        return None
    try:
        aside.setblocking(False)
        aside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        if bound.family == socket.AF_INET6:
            aside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        aside.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        for each in (bound, aside):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        aside.bind(bound.getsockname()[:2])
        code = ctypes.create_string_buffer(_WHICH)
        program = _Program(len(_WHICH) // _INSTRUCTION.size, ctypes.addressof(code))
        bound.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, bytes(program))
    except OSError:
        aside.close()
        with contextlib.suppress(OSError):
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        return None
    return aside


def waited_ns(notes: Sequence[tuple[int, int, bytes]]) -> int:
    """How long a datagram has waited, by what the kernel said beside it."""
    for level, kind, data in notes:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) == _TIME.size:
            seconds: int
            rest_ns: int
            seconds, rest_ns = _TIME.unpack(data)
            return min(max(0, time.time_ns() - seconds * 1_000_000_000 - rest_ns), LONGEST_NS)
    return 0
