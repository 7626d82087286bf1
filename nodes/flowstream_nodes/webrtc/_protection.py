"""SRTP for bursts of packets: protected in place, one behind the other, so that one call can send them all."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pylibsrtp

MOST: Final = 40
"""Packets of a burst; with 1,500 bytes each they stay below what one call may send."""

ROOM: Final = 1_500
"""Bytes for a packet."""

TRAILER: Final = 144
"""What libsrtp may write behind a packet, at most."""

LONGEST: Final = ROOM - TRAILER
"""Bytes of a packet before it is protected."""


class ProtectionError(Exception):
    """A packet cannot be protected."""


class Protection:
    """The outgoing half of one viewer's SRTP session.

    What `protect` gives is good until any viewer's is next called.
    """

    def __init__(self, session: pylibsrtp.Session) -> None:
        from pylibsrtp import Error
        from pylibsrtp._binding import lib

        self._session = session  # frees the context with its last reference
        self.context: Any = session._srtp[0]
        self.call: Any = lib.srtp_protect
        """libsrtp's function, which takes ``context``, where a packet begins, and a pointer to its length."""
        self._error = Error
        self._buffer, self._view, self._length = _workspace()
        self.trailer: int | None = None
        """Bytes that protection adds to a packet, as far as that is known: after the first `protect`."""

    def protect(self, packets: Sequence[bytes]) -> tuple[memoryview, list[int]]:
        """Protects up to `MOST` RTP packets; gives them without gaps, and their sizes.

        Raises:
            ProtectionError: libsrtp refuses, or a packet is too long.
        """
        call, context, buffer, view, length = self.call, self.context, self._buffer, self._view, self._length
        sizes: list[int] = []
        start = 0
        for packet in packets:
            size = len(packet)
            if size > LONGEST:
                raise ProtectionError(f"a packet of {size} bytes is too long")
            view[start : start + size] = packet
            length[0] = size
            if status := call(context, buffer + start, length):
                raise ProtectionError(f"libsrtp says {status}")
            self.trailer = length[0] - size
            sizes.append(length[0])
            start += length[0]
        return view[:start], sizes

    def protect_rtcp(self, data: bytes) -> bytes:
        """Protects one RTCP packet.

        Raises:
            ProtectionError: libsrtp refuses, or it is too long.
        """
        try:
            return bytes(self._session.protect_rtcp(data))
        except (self._error, ValueError) as error:
            raise ProtectionError(str(error)) from error


class Unprotection:
    """The incoming half of one viewer's SRTP session, as far as it is RTCP."""

    def __init__(self, session: pylibsrtp.Session) -> None:
        from pylibsrtp._binding import lib

        self._session = session  # frees the context with its last reference
        self._context: Any = session._srtp[0]
        self._call: Any = lib.srtp_unprotect_rtcp
        self._buffer, self._view, self._length = _workspace()

    def unprotect_rtcp(self, data: bytes) -> bytes:
        """One RTCP packet that came.

        Raises:
            ProtectionError: it is forged, damaged, came before, or is too long.
        """
        size = len(data)
        if size > ROOM:
            raise ProtectionError(f"a packet of {size} bytes is too long")
        self._view[:size] = data
        self._length[0] = size
        if status := self._call(self._context, self._buffer, self._length):
            raise ProtectionError(f"libsrtp says {status}")
        return bytes(self._view[: self._length[0]])


@functools.cache
def _workspace() -> tuple[Any, memoryview, Any]:
    """One buffer for all viewers: each burst is sent before the next one is protected."""
    from pylibsrtp._binding import ffi

    buffer = ffi.new("char[]", MOST * ROOM + TRAILER)
    return buffer, memoryview(ffi.buffer(buffer)), ffi.new("int *")
