"""What travels on an edge, in a few words for people."""

from __future__ import annotations

from typing import Any

from flowstream.graph.negotiate import Carried
from flowstream.media.caps import AudioCaps, Caps, EncodedCaps, VideoCaps


def carried_text(carried: Carried) -> str:
    """What an edge carries, in brief: ``h264``, ``yuv420p 1280x720 30 fps``, ``opus``; the payload where that is all.

    Of three choices and more only the first is named: ``h264 or 2 others``.
    """
    payloads = _payload_text(carried.payloads)
    caps = carried.caps
    if caps is None or len(carried.payloads) > 1:
        return payloads
    said = [_kind(caps), *_details(caps)]
    return " ".join(each for each in (said[0] or payloads, *said[1:]) if each)


def carried_whole(carried: Carried) -> str:
    """What an edge carries with everything that is known of it: ``VideoFrame: format yuv420p or nv12, width 1280``."""
    payloads = _payload_text(carried.payloads)
    return f"{payloads}: {carried.caps}" if carried.caps is not None and str(carried.caps) != "any" else payloads


def _payload_text(payloads: tuple[type[Any], ...]) -> str:
    return " or ".join("any" if payload is object else payload.__name__ for payload in payloads)


def _kind(caps: Caps) -> str:
    return _choice(getattr(caps, "codec" if isinstance(caps, EncodedCaps) else "format", None))


def _details(caps: Caps) -> list[str]:
    if isinstance(caps, VideoCaps):
        return [_size(caps), _number(caps.fps, 1, "fps")]
    if isinstance(caps, AudioCaps):
        return [_number(caps.rate, 1000, "kHz"), _choice(caps.layout)]
    if isinstance(caps, EncodedCaps):
        return [_choice(caps.profile), _size(caps), _number(caps.rate, 1000, "kHz"), _choice(caps.layout)]
    return []


def _choice(value: str | tuple[str, ...] | None) -> str:
    if isinstance(value, tuple):
        if len(value) > 2:
            return f"{value[0]} or {len(value) - 1} others"
        return " or ".join(value)
    return value or ""


def _size(caps: VideoCaps | EncodedCaps) -> str:
    width, height = caps.width, caps.height
    if isinstance(width, int) and isinstance(height, int):
        return f"{width}x{height}"
    if isinstance(width, int):
        return f"{width} wide"
    return f"{height} high" if isinstance(height, int) else ""


def _number(value: float | tuple[float, ...] | None, unit: float, name: str) -> str:
    if value is None or (isinstance(value, tuple) and len(value) > 2):
        return ""
    values = value if isinstance(value, tuple) else (value,)
    return f"{' or '.join(f'{each / unit:.5g}' for each in values)} {name}"
