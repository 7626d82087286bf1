"""What SCTP packets of a viewer are let through to the association (RFC 9260, RFC 3758, RFC 6525).

The association itself is a library's, written for peers that one has invited. A viewer is anybody, so everything that
a packet claims about its own sizes, and everything that would make the other side keep or walk through a lot, is looked
at here first.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import unpack_from
from typing import Final

HEADER: Final = 12
"""Bytes of the common header."""

LONGEST: Final = 1500
"""Bytes of the longest packet that is looked at; one that fits a path has fewer."""

MOST_STREAMS: Final = 64
"""Streams in each direction. Browsers number channels from 0 or 1, by twos."""

MOST_CHUNKS: Final = 64
"""Chunks in a packet, and chunks of messages that are not complete."""

WINDOW: Final = 128
"""How far ahead of the last one in order a transmission sequence number may be."""

MOST_ACKED: Final = 4096
"""How far ahead of the last one in order an acknowledgement may reach."""

_ACKED_A_CHUNK: Final = 64  # numbers in an acknowledgement that take as long as a chunk
_LEAST_OF_PARAMETER: Final = {13: 12, 16: 8, 17: 8}  # of re-configuration: reset, response, more streams


class SctpError(ValueError):
    """Raised for a packet that no honest peer sends; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """How far an association has received: the last number in order, None before there is one, and what it keeps.

    ``chunks`` counts the parts of messages that are not complete.
    """

    last_tsn: int | None
    chunks: int


def examine(packet: bytes, inbound: Inbound) -> int:
    """Lets a packet pass, or refuses it; gives what it costs to handle, in chunks of a usual size.

    Costs no more than in proportion to the packet's length.

    Raises:
        SctpError: it is malformed, or asks for more than a viewer has a use for.
    """
    size = len(packet)
    if not HEADER + 4 <= size <= LONGEST:
        raise SctpError(f"a packet of {size} bytes")
    at, count, cost = HEADER, 0, 0
    kinds: set[int] = set()
    while at < size:
        if size - at < 4:
            raise SctpError(f"{size - at} bytes behind the last chunk")
        kind, _, length = unpack_from("!BBH", packet, at)
        if length < 4 or at + length > size:
            raise SctpError(f"a chunk of {length} bytes in the {size - at} that are left")
        count += 1
        if count > MOST_CHUNKS:
            raise SctpError(f"more than {MOST_CHUNKS} chunks")
        kinds.add(kind)
        cost += _examine_chunk(kind, packet[at + 4 : at + length], inbound, count)
        at += (length + 3) & ~3
    if 1 in kinds and count > 1:
        raise SctpError("something beside INIT")
    return cost


def _examine_chunk(kind: int, body: bytes, inbound: Inbound, count: int) -> int:
    size = len(body)
    match kind:
        case 0:  # DATA
            if size < 13:
                raise SctpError("DATA without data")
            tsn, stream = unpack_from("!LH", body)
            _examine_tsn(tsn, inbound)
            _examine_stream(stream)
            if inbound.chunks + count > MOST_CHUNKS + WINDOW:
                raise SctpError("a message in too many parts")
        case 1 | 2:  # INIT, INIT ACK
            if size < 16:
                raise SctpError(f"INIT of {size} bytes")
            _examine_parameters(body[16:])
        case 3:  # SACK
            return 1 + _examine_acknowledgement(body) // _ACKED_A_CHUNK
        case 4 | 5 | 6 | 9:  # HEARTBEAT, its answer, ABORT, ERROR
            _examine_parameters(body)
        case 7:  # SHUTDOWN
            if size != 4:
                raise SctpError(f"SHUTDOWN of {size} bytes")
        case 130:  # RE-CONFIG
            for parameter, value in _examine_parameters(body):
                if value < _LEAST_OF_PARAMETER.get(parameter, 0) or (parameter == 13 and value % 2):
                    raise SctpError(f"a parameter {parameter} of {value} bytes")
        case 192:  # FORWARD TSN
            if size < 4 or size % 4:
                raise SctpError(f"FORWARD TSN of {size} bytes")
            _examine_tsn(unpack_from("!L", body)[0], inbound)
            for at in range(4, size, 4):
                _examine_stream(unpack_from("!H", body, at)[0])
        case _:
            pass
    return 1


def _examine_tsn(tsn: int, inbound: Inbound) -> None:
    if inbound.last_tsn is None:
        raise SctpError("data before the association")
    ahead = (tsn - inbound.last_tsn) & 0xFFFFFFFF
    if WINDOW < ahead < 0x80000000:
        raise SctpError(f"data that is {ahead} ahead")


def _examine_stream(stream: int) -> None:
    if stream >= MOST_STREAMS:
        raise SctpError(f"stream {stream}, of {MOST_STREAMS}")


def _examine_acknowledgement(body: bytes) -> int:
    """How many numbers its blocks name one by one."""
    if len(body) < 12:
        raise SctpError(f"SACK of {len(body)} bytes")
    gaps, duplicates = unpack_from("!HH", body, 8)
    if len(body) != 12 + 4 * (gaps + duplicates):
        raise SctpError(f"SACK of {len(body)} bytes with {gaps} blocks and {duplicates} duplicates")
    last = named = 0
    for index in range(gaps):
        first, end = unpack_from("!HH", body, 12 + 4 * index)
        if not last < first <= end <= MOST_ACKED:
            raise SctpError(f"SACK of {first} to {end} behind {last}")
        named += end - first + 1
        last = end
    return named


def _examine_parameters(body: bytes) -> list[tuple[int, int]]:
    """The parameters with the size of their values; one that claims to have no size would never be passed."""
    found: list[tuple[int, int]] = []
    at = 0
    while len(body) - at >= 4:
        parameter, length = unpack_from("!HH", body, at)
        if length < 4 or at + length > len(body):
            raise SctpError(f"a parameter of {length} bytes in the {len(body) - at} that are left")
        found.append((parameter, length - 4))
        at += (length + 3) & ~3
    return found
