"""A frame counter and its capture time as black and white cells that survive encoding and scaling.

Two rows of 32 cells along the bottom of a picture, each cell 1/32 of its width and 1/18 of its height, white for a
one. Bits run from the left of the upper row to the right of the lower one, most significant first: 24 bits of frame
counter, 32 bits of capture time (UTC milliseconds, modulo 2**32), 8 bits of CRC-8 over the seven bytes before
(polynomial 0x07, initial value 0xFF).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLUMNS = 32
ROWS = 2
ROW_FRACTION = 18
"""A row's height is the picture's, divided by this."""

FRAME_MODULO = 1 << 24
CAPTURE_MODULO = 1 << 32


@dataclass(frozen=True, slots=True)
class Counter:
    """What the cells say. ``frame`` counts modulo 2**24; ``capture_ms`` is UTC in milliseconds modulo 2**32."""

    frame: int
    capture_ms: int


def crc8(data: bytes) -> int:
    """CRC-8 with polynomial 0x07 and initial value 0xFF, so that an all black picture does not check."""
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc


def cells_of(frame: int, capture_ms: int) -> tuple[bool, ...]:
    """The 64 cells, upper row first; both numbers are taken modulo their range."""
    data = (frame % FRAME_MODULO).to_bytes(3, "big") + (capture_ms % CAPTURE_MODULO).to_bytes(4, "big")
    value = int.from_bytes(data + bytes((crc8(data),)), "big")
    return tuple(bool(value >> shift & 1) for shift in range(ROWS * COLUMNS - 1, -1, -1))


def counter_of(cells: Sequence[bool]) -> Counter | None:
    """What 64 cells say; None when the checksum does not hold. Raises ValueError for another number of cells."""
    if len(cells) != ROWS * COLUMNS:
        raise ValueError(f"a barcode has {ROWS * COLUMNS} cells, not {len(cells)}")
    value = 0
    for cell in cells:
        value = value << 1 | bool(cell)
    data = value.to_bytes(8, "big")
    if crc8(data[:7]) != data[7]:
        return None
    return Counter(frame=int.from_bytes(data[:3], "big"), capture_ms=int.from_bytes(data[3:7], "big"))
