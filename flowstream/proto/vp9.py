"""VP9 frames and their RTP payloads (RFC 9628), one spatial layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_MIN_PAYLOAD: Final = 24
_MOST_REFERENCES: Final = 3


class Vp9Error(ValueError):
    """There is nothing to packetize, no room for it, or references that cannot be written."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Where a frame stands among temporal layers, in flexible mode (RFC 9628 section 4.2).

    ``temporal_id`` is 0 to 7, 0 is the base. ``references`` says which frames it needs, up to three, by how many
    picture ids they are back (1 to 127). ``is_switch_up`` says that frames of this layer after it need none before it.
    """

    temporal_id: int
    references: Sequence[int] = ()
    is_switch_up: bool = False


def is_keyframe(frame: bytes) -> bool:
    """Whether a frame can be decoded by itself (VP9 bitstream, section 6.2), by its uncompressed header."""
    if not frame or frame[0] >> 6 != 2:
        return False
    profile = (frame[0] >> 5 & 1) | (frame[0] >> 4 & 1) << 1
    bit = 3 if profile < 3 else 2  # profile 3 has a reserved bit more
    shows_existing, is_inter = frame[0] >> bit & 1, frame[0] >> bit - 1 & 1
    return not shows_existing and not is_inter


def packetize(
    frame: bytes,
    *,
    max_size: int,
    picture_id: int | None = None,
    layer: Layer | None = None,
    size: tuple[int, int] | None = None,
) -> list[bytes]:
    """RTP payloads of at most ``max_size`` bytes for one frame, in order; all but the last are of equal size.

    ``picture_id`` counts frames, modulo 32768; with a ``layer`` there must be one. Chromium takes a frame with a
    picture id and no layer to need the one before it by number: who leaves frames out gives none, or the layers.
    ``size`` (width, height) goes before a keyframe as its scalability structure.

    Raises:
        Vp9Error: the frame is empty, ``max_size`` is too small to make progress, a layer comes without a picture id, or
            its references are too many or too far back.
    """
    if max_size < _MIN_PAYLOAD:
        raise Vp9Error(f"payloads of {max_size} bytes are too small")
    if not frame:
        raise Vp9Error("an empty frame")
    keyframe = is_keyframe(frame)
    bits = 0x01 | (not keyframe) << 6  # not used by another spatial layer; needs others
    tail = b""
    if picture_id is not None:
        bits |= 0x80
        tail += (0x8000 | picture_id & 0x7FFF).to_bytes(2, "big")
    if layer is not None:
        if picture_id is None:
            raise Vp9Error("a frame of a layer has a picture id")
        bits |= 0x30
        tail += bytes(((layer.temporal_id & 7) << 5 | layer.is_switch_up << 4,))
        if not keyframe:
            tail += _references(layer.references)
    structure = b""
    if keyframe and size is not None:
        structure = b"\x10" + size[0].to_bytes(2, "big") + size[1].to_bytes(2, "big")
    room = max_size - 1 - len(tail)
    # The structure counts like bytes of the frame, so that the first payload is no larger than the others.
    total = len(frame) + len(structure)
    piece = -(-total // -(-total // room))
    if piece <= len(structure):
        piece = len(structure) + 1
    payloads: list[bytes] = []
    start = 0
    while start < len(frame):
        extra = structure if start == 0 else b""
        end = min(start + piece - len(extra), len(frame))
        first = bits | (start == 0) << 3 | (end == len(frame)) << 2 | bool(extra) << 1
        payloads.append(bytes((first,)) + tail + extra + frame[start:end])
        start = end
    return payloads


def _references(distances: Sequence[int]) -> bytes:
    if not 1 <= len(distances) <= _MOST_REFERENCES or any(not 1 <= each <= 127 for each in distances):
        raise Vp9Error(f"references {list(distances)} are not one to three of 1 to 127 frames back")
    last = len(distances) - 1
    return bytes(each << 1 | (index < last) for index, each in enumerate(distances))
