"""VP8 frames (RFC 6386) and their RTP payloads (RFC 7741)."""

from dataclasses import dataclass
from typing import Final

_MIN_PAYLOAD: Final = 16


class Vp8Error(ValueError):
    """There is nothing to packetize, or no room for it."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Where a frame stands among temporal layers (RFC 7741 section 4.2).

    ``temporal_id`` is 0 to 3, 0 is the base. ``base_index`` counts base frames, modulo 256; frames above the base carry
    that of the base frame before them. ``is_sync`` says that it needs frames of the base only.
    """

    temporal_id: int
    base_index: int
    is_sync: bool = False


def is_keyframe(frame: bytes) -> bool:
    """Whether a frame can be decoded by itself (RFC 6386 section 9.1); an empty one cannot."""
    return bool(frame) and not frame[0] & 1


def packetize(
    frame: bytes,
    *,
    max_size: int,
    picture_id: int | None = None,
    layer: Layer | None = None,
    is_droppable: bool = False,
) -> list[bytes]:
    """RTP payloads of at most ``max_size`` bytes for one frame, in order; all but the last are of equal size.

    ``picture_id`` counts frames, modulo 32768. Chromium takes a frame with a picture id and no ``layer`` to need the
    one before it by number: who leaves frames out gives none, or the layers. ``is_droppable`` says that no other frame
    needs this one.

    Raises:
        Vp8Error: the frame is empty, or ``max_size`` is too small to make progress.
    """
    if max_size < _MIN_PAYLOAD:
        raise Vp8Error(f"payloads of {max_size} bytes are too small")
    if not frame:
        raise Vp8Error("an empty frame")
    extension = b""
    bits = 0
    if picture_id is not None:
        bits |= 0x80
        extension += (0x8000 | picture_id & 0x7FFF).to_bytes(2, "big")
    if layer is not None:
        bits |= 0x60
        extension += bytes((layer.base_index & 0xFF, (layer.temporal_id & 3) << 6 | layer.is_sync << 5))
    first = bool(bits) << 7 | is_droppable << 5
    tail = bytes((bits,)) + extension if bits else b""
    heads = bytes((first | 0x10,)) + tail, bytes((first,)) + tail
    room = max_size - len(heads[0])
    count = -(-len(frame) // room)
    size = -(-len(frame) // count)
    return [heads[start > 0] + frame[start : start + size] for start in range(0, len(frame), size)]
