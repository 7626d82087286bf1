"""Payloads as bytes and back, exactly: a head of JSON values, and what they carry.

Of a picture and of sound only what is seen and heard is kept, without the padding between rows: two frames with the
same pixels have the same bytes, wherever their memory came from. Formats whose rows are not known here keep their
planes whole. What a record carries is written as JSON by the class of the value, and read by that class.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from flowstream.media.caps import AudioCaps, Caps, EncodedCaps, VideoCaps
from flowstream.media.frames import AudioFrame, Plane, VideoFrame
from flowstream.media.packets import EncodedPacket
from flowstream.media.pixels import rows_of
from flowstream.media.records import Record
from flowstream.media.samples import CHANNELS, SAMPLE_BYTES

if TYPE_CHECKING:
    from typing_extensions import Buffer

PAYLOADS: Mapping[str, type[Any]] = {
    each.__name__: each for each in (VideoFrame, AudioFrame, EncodedPacket, Record)
}  # fmt: skip
"""The payloads that have a byte form, by name."""

Forms = Callable[[str], type[Any] | None]
"""The class of a record's value by its name, ``module:Class``; None when it is not to be had."""

MAX_SIDE = 1 << 16
"""Pixels along the longer side of a picture that is read, and samples of sound for each channel."""

_CAPS: Mapping[str, type[Caps]] = {each.__name__: each for each in (VideoCaps, AudioCaps, EncodedCaps)}
_OF = {"VideoFrame": VideoCaps, "AudioFrame": AudioCaps, "EncodedPacket": EncodedCaps}
# What stands elsewhere than in the head, or belongs to the memory of one process.
_APART = frozenset({"caps", "planes", "data", "value", "origin", "private"})
_MOST_LAYER = 7  # of what RTP payload formats have room for
_FOLDER_MODULE = "flowstream_folder_"


class ByteFormError(ValueError):
    """Raised when a payload has no bytes, or bytes are no payload; the text says why."""


# --- caps -----------------------------------------------------------------------------------------------------------


def caps_to_json(caps: Caps) -> dict[str, Any]:
    """Caps as JSON values; extradata in hexadecimal."""
    told: dict[str, Any] = {"type": type(caps).__name__}
    for field in fields(caps):
        value = getattr(caps, field.name)
        if value is not None:
            told[field.name] = value.hex() if isinstance(value, bytes) else value
    return told


def caps_from_json(told: Any) -> Caps:
    """The caps that were told. Raises ByteFormError for anything else; fields of a newer version are left out."""
    kind = _CAPS.get(str(told.get("type"))) if isinstance(told, dict) else None
    if kind is None:
        raise ByteFormError("these are no caps")
    given: dict[str, Any] = {}
    for field in fields(kind):
        value = told.get(field.name)
        if isinstance(value, list):
            value = tuple(value)
        if field.name == "extradata" and value is not None:
            value = _unhexed(value)
        elif value is not None and not all(isinstance(each, str | int | float) for each in _each(value)):
            raise ByteFormError(f"{field.name} of the caps is neither a text nor a number")
        given[field.name] = value
    return kind(**given)


def _unhexed(text: Any) -> bytes:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError):
        raise ByteFormError("the extradata of the caps is no text in hexadecimal") from None


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


# --- to bytes -------------------------------------------------------------------------------------------------------


def to_bytes(payload: Any, origin_ns: int) -> tuple[dict[str, Any], list[Buffer]]:
    """The head of a payload, and its bytes in pieces that share its memory.

    ``capture_ns`` is counted from the now ``origin_ns``. Raises ByteFormError for what has no such form.
    """
    head: dict[str, Any] = {}
    if type(payload).__name__ not in PAYLOADS:
        raise ByteFormError(f"a {type(payload).__name__} has no form in bytes")
    for field in fields(payload):
        if field.name not in _APART:
            value = getattr(payload, field.name)
            if value != field.default or field.default is MISSING:
                head[field.name] = value
    if head.get("capture_ns") is not None:
        head["capture_ns"] -= origin_ns
    if isinstance(payload, VideoFrame):
        return head, _pictured(payload, head)
    if isinstance(payload, AudioFrame):
        pieces = _sounded(payload)
        head["lengths"] = [len(each) for each in pieces]
        return head, [*pieces]
    if isinstance(payload, EncodedPacket):
        return head, [payload.data]
    head["form"] = f"{type(payload.value).__module__}:{type(payload.value).__qualname__}"
    return head, [_valued(payload.value)]


def _flat(plane: Plane) -> memoryview:
    view = memoryview(plane.data)
    return view if view.ndim == 1 and view.format == "B" else view.cast("B")


def _pictured(frame: VideoFrame, head: dict[str, Any]) -> list[Buffer]:
    rows = rows_of(frame.format, frame.width, frame.height)
    if rows is None:
        planes = [_flat(plane) for plane in frame.planes]
        head["lengths"] = [len(each) for each in planes]
        head["strides"] = [plane.stride for plane in frame.planes]
        return [*planes]
    if len(frame.planes) != len(rows):
        rows = _stacked(rows)
        if len(frame.planes) != 1 or rows is None:
            raise ByteFormError(f"{frame.format} does not come in {len(frame.planes)} planes")
        head["planes"] = 1
    return [_tight(plane, count, size) for plane, (count, size) in zip(frame.planes, rows, strict=True)]


def _stacked(rows: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...] | None:
    """The rows of all planes, as one plane as wide as the first; None where they do not fill it."""
    width = rows[0][1]
    whole, rest = divmod(sum(count * size for count, size in rows), width) if width else (0, 1)
    return None if rest else ((whole, width),)


def _tight(plane: Plane, rows: int, size: int) -> Buffer:
    """The rows of a plane without what is between them."""
    import numpy as np

    flat = _flat(plane)
    if plane.stride < size or len(flat) < plane.stride * (rows - 1) + size:
        raise ByteFormError(f"a plane of {len(flat)} bytes does not hold {rows} rows of {size}")
    if plane.stride == size:
        return flat[: rows * size]
    view = np.lib.stride_tricks.as_strided(np.frombuffer(flat, np.uint8), (rows, size), (plane.stride, 1))
    return np.ascontiguousarray(view).data.cast("B")


def _sounded(frame: AudioFrame) -> list[memoryview]:
    planes = [_flat(plane) for plane in frame.planes]
    size, is_planar = SAMPLE_BYTES.get(frame.format, (0, False))
    channels = CHANNELS.get(frame.layout, 0)
    each = frame.samples * size * (1 if is_planar and len(planes) > 1 else channels)
    if not each:
        return planes
    if short := min(len(plane) for plane in planes) - each:
        if short < 0:
            raise ByteFormError(f"a plane lacks {-short} bytes of {frame.samples} samples")
        return [plane[:each] for plane in planes]
    return planes


def _valued(value: Any) -> bytes:
    kind: Any = type(value)
    try:
        text = _adapter(kind).dump_json(value)
        is_same = _adapter(kind).validate_json(text) == value
    except (PydanticSerializationError, ValidationError, TypeError) as error:
        raise ByteFormError(f"a value of {kind.__name__} cannot be written: {_line(error)}") from error
    if not is_same:
        raise ByteFormError(f"a value of {kind.__name__} does not come back from JSON as it was")
    return text


@lru_cache(maxsize=256)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(kind)
    except Exception as error:
        raise ByteFormError(f"a {getattr(kind, '__name__', kind)} has no form in JSON: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


# --- from bytes -----------------------------------------------------------------------------------------------------


def loaded_form(name: str) -> type[Any] | None:
    """The class of that name if its module is loaded: reading imports nothing.

    A module from a folder of node types is found by the folder's and its own name, whatever version it is.
    """
    if name == "builtins:NoneType":  # which builtins does not have
        return type(None)
    module_name, _, path = name.partition(":")
    modules = [sys.modules.get(module_name)]
    if module_name.startswith(_FOLDER_MODULE):
        package, _, stem = module_name.partition(".")
        kin = package.rpartition("_")[0] + "_"
        modules += [
            each for key, each in list(sys.modules.items()) if key.startswith(kin) and key.endswith(f".{stem}")
        ]  # fmt: skip
    for module in modules:
        found: Any = module
        for step in path.split("."):
            found = getattr(found, step, None)
        if isinstance(found, type):
            return found
    return None


def from_bytes(
    payload: str, caps: Caps | None, head: Mapping[str, Any], data: bytes, *, forms: Forms = loaded_form
) -> Any:
    """The payload that ``to_bytes`` took apart, with ``capture_ns`` counted from the same now.

    ``payload`` is the name of its class. Raises ByteFormError for bytes that are none. Fields of a newer version are
    left out.
    """
    kind = PAYLOADS.get(payload)
    if kind is None:
        raise ByteFormError(f"there is no payload {payload!r}")
    given = {name: _checked(name, head[name]) for name in _plain_fields(kind) if name in head}
    if not isinstance(given.get("time_ns"), int):
        raise ByteFormError("it has no media time")
    if kind is Record:
        return Record(_value(head.get("form"), data, forms), **given)
    if type(caps) is not _OF[payload]:
        raise ByteFormError(f"a {payload} has no {type(caps).__name__}")
    if isinstance(caps, VideoCaps):
        return VideoFrame(caps=caps, planes=_planes_of_picture(caps, head, data), **given)
    if isinstance(caps, AudioCaps):
        return AudioFrame(caps=caps, planes=_planes_of_sound(caps, head, data), **given)
    assert isinstance(caps, EncodedCaps)
    if not data:
        raise ByteFormError("a packet is never empty")
    return EncodedPacket(caps=caps, data=data, **given)


def _plain_fields(kind: type[Any]) -> list[str]:
    return [field.name for field in fields(kind) if field.name not in _APART]


def _checked(name: str, value: Any) -> Any:
    """Times and counts are whole numbers that fit where FFmpeg keeps them."""
    if value is None and name not in ("time_ns", "samples"):
        return None
    if name.endswith("_ns") or name == "samples":
        if type(value) is not int or abs(value) >= 1 << 62:
            raise ByteFormError(f"{name} is no time or count")
    elif name == "keyframe" and type(value) is not bool:
        raise ByteFormError("keyframe is neither true nor false")
    elif name == "temporal_layer" and (type(value) is not int or not 0 <= value <= _MOST_LAYER):
        raise ByteFormError("temporal_layer is no number of a layer")
    return value


def _value(form: Any, data: bytes, forms: Forms) -> Any:
    kind: Any = forms(form) if isinstance(form, str) else None
    if kind is None:
        raise ByteFormError(f"nothing that is loaded has the class {form} of a record's value")
    try:
        return _adapter(kind).validate_json(data)
    except ValidationError as error:
        raise ByteFormError(f"a record's value is no {kind.__name__}: {_line(error)}") from error


def _sized(value: Any, what: str) -> int:
    if type(value) is not int or not 0 < value <= MAX_SIDE:
        raise ByteFormError(f"{what} {value!r} is no size of a picture")
    return value


def _planes_of_picture(caps: VideoCaps, head: Mapping[str, Any], data: bytes) -> tuple[Plane, ...]:
    if not isinstance(caps.format, str):
        raise ByteFormError("the pixel format of a picture is not told")
    rows = rows_of(caps.format, _sized(caps.width, "a width of"), _sized(caps.height, "a height of"))
    if rows is None:
        lengths, strides = head.get("lengths"), head.get("strides")
        if not isinstance(strides, list) or not all(type(each) is int for each in strides):
            raise ByteFormError("the strides of a picture are not told")
        planes = _cut(lengths, data)
        if len(planes) != len(strides):
            raise ByteFormError(f"{len(planes)} planes have {len(strides)} strides")
        return tuple(Plane(plane, stride) for plane, stride in zip(planes, strides, strict=True))
    if head.get("planes") == 1:
        rows = _stacked(rows)
        if rows is None:
            raise ByteFormError(f"{caps.format} of {caps.size} has no form in one plane")
    planes = _cut([count * size for count, size in rows], data)
    return tuple(Plane(plane, size) for plane, (_, size) in zip(planes, rows, strict=True))


def _planes_of_sound(caps: AudioCaps, head: Mapping[str, Any], data: bytes) -> tuple[Plane, ...]:
    samples = head.get("samples")
    if not isinstance(caps.format, str) or not isinstance(caps.layout, str) or type(caps.rate) is not int:
        raise ByteFormError("format, rate or layout of sound is not told")
    if type(samples) is not int or not 0 <= samples <= MAX_SIDE or caps.rate <= 0:
        raise ByteFormError(f"{samples!r} is no count of samples")
    planes = _cut(head.get("lengths"), data)
    size, is_planar = SAMPLE_BYTES.get(caps.format, (0, False))
    channels = CHANNELS.get(caps.layout, 0) or (len(planes) if is_planar and len(planes) > 1 else 0)
    lengths = [len(plane) for plane in planes]
    apart = [[samples * size] * channels] if is_planar else []
    if size and channels and lengths not in ([samples * size * channels], *apart):
        raise ByteFormError(f"{len(data)} bytes are not {samples} samples of {caps.format}, {caps.layout}")
    return tuple(Plane(plane, len(plane)) for plane in planes)


def _cut(lengths: Any, data: bytes) -> list[bytes]:
    if not isinstance(lengths, list) or not all(type(each) is int and each >= 0 for each in lengths):
        raise ByteFormError("the lengths of the planes are not told")
    if not 1 <= len(lengths) <= 64 or sum(lengths) != len(data):
        raise ByteFormError(f"{len(data)} bytes are not {len(lengths)} planes of {sum(lengths)}")
    if len(lengths) == 1:
        return [data]
    planes, begin = [], 0
    for length in lengths:
        planes.append(data[begin : begin + length])
        begin += length
    return planes
