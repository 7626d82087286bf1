"""AV1 temporal units (AV1 bitstream, section 5) and their RTP payloads (AOM "RTP Payload Format For AV1", v1.0).

Chromium's receiver takes a packet whose first OBU is not a continuation for the first one of a frame, and one whose
last OBU is complete for the last one, unless a dependency descriptor says otherwise. Here a unit is cut so that both
are true: no cut falls between two OBUs. Then no descriptor is needed, and the packets' numbers say what depends on
what.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

OBU_SEQUENCE_HEADER: Final = 1
OBU_TEMPORAL_DELIMITER: Final = 2
OBU_TILE_LIST: Final = 8
OBU_PADDING: Final = 15

_NOT_SENT: Final = frozenset({OBU_TEMPORAL_DELIMITER, OBU_TILE_LIST, OBU_PADDING})
_HAS_EXTENSION, _HAS_SIZE = 0x04, 0x02
_MIN_PAYLOAD: Final = 16
_MOST_COUNTED: Final = 3  # elements in a packet that its head can count


class Av1Error(ValueError):
    """The bytes are no temporal unit, there is nothing to packetize, or no room for it."""


@dataclass(slots=True)
class _Piece:
    """What one packet carries of an OBU."""

    data: bytes
    has_length: bool


def split_obus(unit: bytes) -> list[bytes]:
    """The OBUs of a temporal unit in the low-overhead format, each without its size field.

    Raises:
        Av1Error: a size is damaged or goes beyond the unit.
    """
    obus: list[bytes] = []
    position = 0
    while position < len(unit):
        head = unit[position]
        if head & 0x80:
            raise Av1Error("an OBU has its forbidden bit set")
        start = position + (2 if head & _HAS_EXTENSION else 1)
        if head & _HAS_SIZE:
            size, start_of_data = _read_leb128(unit, start)
        else:
            size, start_of_data = len(unit) - start, start
        end = start_of_data + size
        if size < 0 or end > len(unit):
            raise Av1Error("an OBU is longer than its unit")
        obus.append(bytes((head & ~_HAS_SIZE,)) + unit[position + 1 : start] + unit[start_of_data:end])
        position = end
    return obus


def obu_type(obu: bytes) -> int:
    """The type of an OBU."""
    return obu[0] >> 3 & 0x0F


def starts_sequence(obus: Sequence[bytes]) -> bool:
    """Whether a unit begins a coded video sequence, so that it can be decoded by itself: it has a sequence header."""
    return any(obu_type(obu) == OBU_SEQUENCE_HEADER for obu in obus)


def packetize(obus: Sequence[bytes], *, max_size: int) -> list[bytes]:
    """RTP payloads of at most ``max_size`` bytes for one temporal unit, in order, as equal in size as can be.

    Delimiters, tile lists and padding are left out, as the format asks for.

    Raises:
        Av1Error: nothing is left to send, or ``max_size`` is too small to make progress.
    """
    if max_size < _MIN_PAYLOAD:
        raise Av1Error(f"payloads of {max_size} bytes are too small")
    sent = [obu for obu in obus if obu and obu_type(obu) not in _NOT_SENT]
    if not sent:
        raise Av1Error("a unit without a frame")
    packets = _fill(sent, max_size)
    if len(packets) > 1:
        # The least size that needs no more packets: then they are equal.
        size = -(-sum(sum(map(len, each)) for each in packets) // len(packets))
        while size < max_size:
            tried = _fill(sent, size)
            if len(tried) <= len(packets):
                packets = tried
                break
            size += 1
    begins = 0x08 if starts_sequence(sent) else 0
    payloads: list[bytes] = []
    last = len(packets) - 1
    for index, (head, body) in enumerate(packets):
        payloads.append(bytes((head[0] | (begins if index == 0 else 0),)) + body)
        assert index == last or len(payloads[-1]) <= max_size
    return payloads


def _fill(obus: Sequence[bytes], size: int) -> list[tuple[bytes, bytes]]:
    """Packets of at most ``size`` bytes, each as its aggregation header and its body."""
    all_have_lengths = len(obus) > _MOST_COUNTED
    packets: list[tuple[bytes, bytes]] = []
    index, offset = 0, 0
    while index < len(obus):
        pieces: list[_Piece] = []
        starts_inside = offset > 0
        room = size - 1
        is_full = False
        while not is_full and index < len(obus):
            left = len(obus[index]) - offset
            is_last = index == len(obus) - 1
            needs = left + (_leb128_size(left) if all_have_lengths else 0)
            if is_last and needs <= room:
                taken, is_full = left, True
            elif not is_last and left + _leb128_size(left) + 1 + (2 if all_have_lengths else 0) <= room:
                taken = left  # and the beginning of the next one
            else:
                taken = min(left if is_last else left - 1, room - (2 if all_have_lengths else 0))
                if taken < 1:  # a single byte cannot be cut
                    taken = 0 if pieces or left > 1 else left
                is_full = True
            if taken:
                pieces.append(_Piece(obus[index][offset : offset + taken], all_have_lengths or not is_full))
                room -= taken + (_leb128_size(taken) if pieces[-1].has_length else 0)
                offset += taken
                if offset == len(obus[index]):
                    index, offset = index + 1, 0
        if pieces and not all_have_lengths:
            pieces[-1].has_length = False
        counted = 0 if all_have_lengths else len(pieces)
        head = starts_inside << 7 | (offset > 0) << 6 | counted << 4
        body = b"".join((_leb128(len(each.data)) if each.has_length else b"") + each.data for each in pieces)
        packets.append((bytes((head,)), body))
    return packets


def _read_leb128(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        if position + index >= len(data):
            raise Av1Error("an OBU is cut off in its size")
        byte = data[position + index]
        value |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return value, position + index + 1
    raise Av1Error("the size of an OBU does not end")


def _leb128(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _leb128_size(value: int) -> int:
    return max(1, -(-value.bit_length() // 7))
