"""H.264 byte streams (ITU-T H.264 annex B) and their RTP payloads (RFC 6184, packetization-mode 1)."""

from collections.abc import Iterable, Sequence
from typing import Final

NAL_SPS: Final = 7
NAL_STAP_A: Final = 24
NAL_FU_A: Final = 28

_START_CODE: Final = b"\x00\x00\x01"
_MIN_PAYLOAD: Final = 8


class H264Error(ValueError):
    """There is nothing to packetize, or no room for it."""


def split_annex_b(data: bytes) -> list[bytes]:
    """The NAL units between start codes, without them and without trailing zeros; none if there is no start code.

    Bytes before the first start code are not part of any unit and are left out (annex B.2).
    """
    units: list[bytes] = []
    position = data.find(_START_CODE)
    while position >= 0:
        start = position + 3
        position = data.find(_START_CODE, start)
        unit = (data[start:] if position < 0 else data[start:position]).rstrip(b"\x00")
        if unit:
            units.append(unit)
    return units


def profile_level_id(units: Iterable[bytes]) -> str | None:
    """The six hex digits of RFC 6184 section 8.1 from the first sequence parameter set; None without one."""
    for unit in units:
        if unit[0] & 0x1F == NAL_SPS and len(unit) >= 4:
            return unit[1:4].hex()
    return None


def packetize(units: Sequence[bytes], *, max_size: int) -> list[bytes]:
    """RTP payloads of at most ``max_size`` bytes for one access unit, in order.

    Small units are aggregated (STAP-A, section 5.7.1), larger ones fragmented (FU-A, section 5.8) into pieces of equal
    size, of which only the last may be shorter, so that a run of packets can be sent by segmentation offload.

    Raises:
        H264Error: a unit is empty, or ``max_size`` is too small to make progress.
    """
    if max_size < _MIN_PAYLOAD:
        raise H264Error(f"payloads of {max_size} bytes are too small")
    payloads: list[bytes] = []
    group: list[bytes] = []
    group_size = 1
    for unit in units:
        if not unit:
            raise H264Error("an empty NAL unit")
        if group and group_size + 2 + len(unit) > max_size:
            payloads.append(_aggregate(group))
            group, group_size = [], 1
        if len(unit) > max_size:
            payloads += _fragment(unit, max_size)
        elif len(unit) > 0xFFFF:
            payloads.append(unit)  # fits a payload, not the 16-bit length of an aggregate
        else:
            group.append(unit)
            group_size += 2 + len(unit)
    if group:
        payloads.append(_aggregate(group))
    return payloads


def _aggregate(units: list[bytes]) -> bytes:
    if len(units) == 1:
        return units[0]
    forbidden = max(unit[0] & 0x80 for unit in units)
    importance = max(unit[0] & 0x60 for unit in units)
    head = bytes((forbidden | importance | NAL_STAP_A,))
    return head + b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


def _fragment(unit: bytes, max_size: int) -> list[bytes]:
    body_size = len(unit) - 1
    count = -(-body_size // (max_size - 2))
    size = -(-body_size // count)
    indicator = unit[0] & 0xE0 | NAL_FU_A
    kind = unit[0] & 0x1F
    payloads: list[bytes] = []
    for start in range(1, len(unit), size):
        head = kind | (start == 1) << 7 | (start + size >= len(unit)) << 6
        payloads.append(bytes((indicator, head)) + unit[start : start + size])
    return payloads
