"""Quantities as a person writes them, and their exact values.

Bitrates are integers of bits per second, durations integers of nanoseconds, byte sizes integers of bytes; percentages
are shares of one, aspect ratios exact fractions. In a graph file each needs its unit; a bare number is refused with
both readings. From Python, the number is the value.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

from flowstream.media.size import Size

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z/µ]*)", re.ASCII)
_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
_ASPECT = re.compile(r"(\d+(?:\.\d+)?)\s*:\s*(\d+(?:\.\d+)?)", re.ASCII)
_LONGEST_ASPECT = 100  # sides of one to this many
_MAX_TEXT = 40  # characters; all longer text is a mistake
_BITRATE_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
_DURATION_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
_BYTE_UNITS = {
    "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_NAMED_SIZES = {
    "360p": (640, 360),
    "480p": (854, 480),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "1440p": (2560, 1440),
    "2160p": (3840, 2160),
    "4k": (3840, 2160),
}


def _split(text: str, what: str, example: str) -> tuple[Decimal, str]:
    match = _NUMBER.fullmatch(text.strip())
    if match is None or len(text) > _MAX_TEXT:
        raise ValueError(f"{text[:_MAX_TEXT]!r} is no {what}; write {example}")
    return Decimal(match[1]), match[2]


def _whole(value: Decimal, text: str, unit: str) -> int:
    if value != value.to_integral_value():
        raise ValueError(f"{text!r} is not a whole number of {unit}")
    return int(value)


def parse_bitrate(text: str) -> int:
    """Bits per second of ``2.5M``, ``300k``, ``2500kbit/s`` (decimal). Raises ValueError with both readings."""
    number, unit = _split(text, "bitrate", "2.5M or 300k (bits per second)")
    if unit.endswith(("B", "B/s")):
        prefix = unit.removesuffix("/s").removesuffix("B")
        bits = f"{(number * 8).normalize():f}{prefix}"
        raise ValueError(
            f"{text!r} counts bytes; a bitrate counts bits: write {bits} for that many bytes a second, "
            f"or {number}{prefix} for bits"
        )
    prefix = unit.removesuffix("/s").removesuffix("bps").removesuffix("bit").removesuffix("b")
    if prefix not in _BITRATE_UNITS or not unit:
        raise ValueError(f"{text!r} is no bitrate; write it with k or M, such as 2.5M or 300k (bits per second)")
    return _whole(number * _BITRATE_UNITS[prefix], text, "bits per second")


def parse_duration(text: str) -> int:
    """Nanoseconds of ``4s``, ``250ms``, ``1.5m`` (minutes), ``2h``. Raises ValueError."""
    number, unit = _split(text, "duration", "4s, 250ms, 10m (minutes) or 2h")
    if unit not in _DURATION_UNITS:
        raise ValueError(f"{text!r} is no duration; write it with ms, s, m (minutes) or h, such as 250ms")
    return _whole(number * _DURATION_UNITS[unit], text, "nanoseconds")


def parse_bytes(text: str) -> int:
    """Bytes of ``64KiB``, ``50GB``. Raises ValueError."""
    number, unit = _split(text, "size in bytes", "64KiB or 50GB")
    if unit not in _BYTE_UNITS:
        raise ValueError(f"{text!r} is no size in bytes; write it with B, KiB, MiB, MB or GB, such as 64KiB")
    return _whole(number * _BYTE_UNITS[unit], text, "bytes")


def parse_size(text: str) -> Size:
    """Width and height of ``1280x720`` or ``720p``; both at least 16 and at most 16384. Raises ValueError."""
    if text in _NAMED_SIZES:
        return Size(*_NAMED_SIZES[text])
    match = re.fullmatch(r"(\d{1,5})\s*[x×]\s*(\d{1,5})", text.strip(), re.ASCII)  # noqa: RUF001
    if match is None:
        raise ValueError(f"{text[:40]!r} is no picture size; write it as 1280x720 or 720p")
    size = Size(int(match[1]), int(match[2]))
    if not all(16 <= side <= 16384 for side in size):
        raise ValueError(f"{text!r} is out of range; each side takes 16 to 16384 pixels")
    return size


def parse_percentage(text: str) -> float:
    """The share of one that ``50%`` or ``12.5%`` is: 0.5, 0.125. Raises ValueError."""
    match = _PERCENTAGE.fullmatch(text.strip())
    if match is None or len(text) > _MAX_TEXT:
        raise ValueError(f"{text[:_MAX_TEXT]!r} is no percentage; write 50% or 12.5%")
    return float(Decimal(match[1]) / 100)


def parse_aspect(text: str) -> Fraction:
    """Width by height of ``16:9`` or ``2.39:1``, exactly; from 1:100 to 100:1. Raises ValueError."""
    match = _ASPECT.fullmatch(text.strip())
    if match is None or len(text) > _MAX_TEXT:
        raise ValueError(f"{text[:_MAX_TEXT]!r} is no aspect ratio; write 16:9 or 2.39:1")
    width, height = Fraction(match[1]), Fraction(match[2])
    if not (0 < width <= _LONGEST_ASPECT * height and height <= _LONGEST_ASPECT * width):
        raise ValueError(f"{text!r} is out of range; an aspect ratio is from 1:100 to 100:1")
    return width / height


def _scaled(value: int, units: tuple[tuple[int, str], ...]) -> str:
    for factor, name in units:
        if value >= factor and value * 100 % factor == 0:
            return f"{Decimal(value) / factor:f}{name}"
    return f"{value}{units[-1][1]}"


def format_bitrate(bps: int) -> str:
    """``2.5M`` of 2,500,000; what parse_bitrate reads."""
    for factor, name in ((10**9, "G"), (10**6, "M")):
        if bps >= factor and bps * 100 % factor == 0:
            return f"{Decimal(bps) / factor:f}{name}"
    return f"{Decimal(bps) / 1000:f}k"


def format_duration(time_ns: int) -> str:
    """``250ms`` of 250,000,000; what parse_duration reads."""
    return _scaled(
        time_ns, ((3600 * 10**9, "h"), (60 * 10**9, "m"), (10**9, "s"), (10**6, "ms"), (10**3, "us"), (1, "ns"))
    )


def format_bytes(count: int) -> str:
    """``64KiB`` of 65,536; what parse_bytes reads."""
    decimal = _scaled(count, ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "B")))
    for factor, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= factor and count % factor == 0:
            binary = f"{count // factor}{name}"
            return binary if len(binary) <= len(decimal) + 1 else decimal
    return decimal


def format_percentage(share: float) -> str:
    """``12.5%`` of 0.125; what parse_percentage reads."""
    return f"{(Decimal(repr(float(share))) * 100).normalize():f}%"


def format_aspect(aspect: Fraction) -> str:
    """``16:9`` of 16/9, ``2.39:1`` of 239/100; what parse_aspect reads."""
    if max(aspect.numerator, aspect.denominator) > 32 and 1000 % aspect.denominator == 0:
        return f"{Decimal(aspect.numerator) / aspect.denominator:f}:1"
    return f"{aspect.numerator}:{aspect.denominator}"


def _from_file(info: ValidationInfo) -> bool:
    return bool(info.context and info.context.get("file"))


def _validator(parse: Any, what: str, example: str, readings: tuple[str, str]) -> BeforeValidator:
    def validate(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            return parse(value)
        if _from_file(info) and isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(
                f"{value} has no unit: write {value}{readings[0]} or {value}{readings[1]}, whichever is meant"
            )
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{value!r} is no {what}; write {example}")
        return value

    return BeforeValidator(validate)


def _size_validator(value: Any) -> Any:
    if isinstance(value, str):
        return parse_size(value)
    if isinstance(value, tuple) and len(value) == 2 and all(type(side) is int for side in value):
        return Size(*value)
    raise ValueError(f"{value!r} is no picture size; write it as 1280x720 or 720p")


def _percentage_validator(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str):
        return parse_percentage(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if _from_file(info) and is_number:
        if 0 < value <= 1:
            other = f"{(Decimal(str(value)) * 100).normalize():f}%"
            raise ValueError(f"{value} has no unit: write {value}% or {other}, whichever is meant")
        raise ValueError(f"{value} has no unit: write {value}%")
    if not is_number or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} is no percentage; write 50% or 12.5%")
    return float(value)


def _aspect_validator(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str):
        return parse_aspect(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and _from_file(info):
        raise ValueError(f"{value} has one side: write {value}:1 or 1:{value}, whichever is meant")
    if isinstance(value, Fraction) and 0 < value <= _LONGEST_ASPECT and value * _LONGEST_ASPECT >= 1:
        return value
    raise ValueError(f"{value!r} is no aspect ratio from 1:100 to 100:1; write 16:9 or 2.39:1")


def _schema(pattern: str, example: str, unit: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example], "x-unit": unit})


Bitrate = Annotated[
    int,
    _validator(parse_bitrate, "bitrate", "2.5M or 300k", ("k", "M")),
    PlainSerializer(format_bitrate, when_used="json"),
    _schema(r"^\d+(\.\d+)?\s*[kKMG](b|bit|bps)?(/s)?$", "2.5M", "bits per second"),
]
"""Bits per second; ``2.5M`` in a graph."""

Duration = Annotated[
    int,
    _validator(parse_duration, "duration", "4s or 250ms", ("s", "ms")),
    PlainSerializer(format_duration, when_used="json"),
    _schema(r"^\d+(\.\d+)?\s*(ns|us|ms|s|m|min|h)$", "250ms", "nanoseconds"),
]
"""Nanoseconds; ``250ms`` in a graph."""

ByteSize = Annotated[
    int,
    _validator(parse_bytes, "size in bytes", "64KiB or 50GB", ("kB", "MB")),
    PlainSerializer(format_bytes, when_used="json"),
    _schema(r"^\d+(\.\d+)?\s*([kKMGT]i?)?B$", "64KiB", "bytes"),
]
"""Bytes; ``64KiB`` in a graph."""

PictureSize = Annotated[
    Size,
    BeforeValidator(_size_validator),
    PlainSerializer(str, when_used="json"),
    _schema(r"^(\d{1,5}\s*x\s*\d{1,5}|360p|480p|720p|1080p|1440p|2160p|4k)$", "1280x720", "pixels"),
]
"""Width and height in pixels; ``1280x720`` or ``720p`` in a graph."""

Percentage = Annotated[
    float,
    BeforeValidator(_percentage_validator),
    PlainSerializer(format_percentage, when_used="json"),
    _schema(r"^\d+(\.\d+)?\s*%$", "50%", "share of one"),
]
"""A share of one, what code multiplies by; ``50%`` in a graph is 0.5."""

AspectRatio = Annotated[
    Fraction,
    BeforeValidator(_aspect_validator),
    PlainSerializer(format_aspect, when_used="json"),
    _schema(r"^\d+(\.\d+)?\s*:\s*\d+(\.\d+)?$", "16:9", "width by height"),
]
"""Width by height as an exact fraction; ``16:9`` or ``2.39:1`` in a graph."""
