"""Sound samples as arrays, and their conversions between packed, planar, integer and float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowstream.media.caps import AudioCaps
from flowstream.media.frames import AudioFrame, Plane

if TYPE_CHECKING:
    import numpy as np

# Format -> (numpy type, planar).
SAMPLE_FORMATS = {
    "s16": ("int16", False),
    "s16p": ("int16", True),
    "s32": ("int32", False),
    "s32p": ("int32", True),
    "flt": ("float32", False),
    "fltp": ("float32", True),
}
SAMPLE_BYTES = {
    name + planar: (size, bool(planar))
    for name, size in (("u8", 1), ("s16", 2), ("s32", 4), ("s64", 8), ("flt", 4), ("dbl", 8))
    for planar in ("", "p")
}
"""Format -> bytes of a sample, and whether each channel has a plane of its own; also of formats without arrays."""
CHANNELS = {
    "mono": 1, "stereo": 2, "2.1": 3, "3.0": 3, "quad": 4, "4.0": 4, "5.0": 5, "5.0(side)": 5, "5.1": 6, "5.1(side)": 6,
    "7.1": 8,
}  # fmt: skip
_LAYOUTS = {1: "mono", 2: "stereo"}


def _format(name: str) -> tuple[str, bool]:
    if name not in SAMPLE_FORMATS:
        raise ValueError(f"no array form for sample format {name!r}; there is one for {', '.join(SAMPLE_FORMATS)}")
    return SAMPLE_FORMATS[name]


def channels_of(layout: str) -> int:
    """Number of channels of an FFmpeg layout name; raises ValueError for one that is not known."""
    if layout not in CHANNELS:
        raise ValueError(f"unknown channel layout {layout!r}; known are {', '.join(CHANNELS)}")
    return CHANNELS[layout]


def _native_array(frame: AudioFrame) -> np.ndarray[Any, Any]:
    import numpy as np

    dtype, planar = _format(frame.format)
    channels = channels_of(frame.layout)
    if len(frame.planes) == 1:
        flat = np.frombuffer(memoryview(frame.planes[0].data), dtype)[: frame.samples * channels]
        return flat.reshape(channels, frame.samples) if planar else flat.reshape(frame.samples, channels)
    return np.stack([np.frombuffer(memoryview(plane.data), dtype)[: frame.samples] for plane in frame.planes])


def _converted(array: np.ndarray[Any, Any], source: str, target: str) -> np.ndarray[Any, Any]:
    import numpy as np

    (from_type, from_planar), (to_type, to_planar) = _format(source), _format(target)
    moved = array.T if from_planar != to_planar else array
    if from_type == to_type:
        return np.array(moved, order="C", copy=True)
    scale = {"int16": 1 << 15, "int32": 1 << 31, "float32": 1}
    # float64 in between: a float32 holds 24 bits of an int32's 31.
    real = moved.astype(np.float64) / scale[from_type]
    if to_type == "float32":
        return np.ascontiguousarray(real, np.float32)
    top = scale[to_type]
    return np.ascontiguousarray(np.clip(np.rint(real * top), -top, top - 1), to_type)


def to_array(frame: AudioFrame, format: str) -> np.ndarray[Any, Any]:
    """See AudioFrame.array."""
    _format(format)
    if format == frame.format:
        array = _native_array(frame)
        if frame.private:
            return array
    else:
        array = _converted(_native_array(frame), frame.format, format)
    array.flags.writeable = False
    return array


def private_copy(frame: AudioFrame, format: str) -> AudioFrame:
    """See AudioFrame.writable."""
    array = _converted(_native_array(frame), frame.format, format)
    return from_array(array, like=frame, format=format, private=True)


def from_array(
    array: np.ndarray[Any, Any],
    *,
    like: AudioFrame | None = None,
    format: str | None = None,
    rate: int | None = None,
    layout: str | None = None,
    time_ns: int | None = None,
    capture_ns: int | None = None,
    private: bool = False,
) -> AudioFrame:
    """See AudioFrame.from_array; ``private`` leaves the memory writable for the one owner."""
    import numpy as np

    if format is None:
        format = like.format if like is not None else {"int16": "s16p", "int32": "s32p"}.get(str(array.dtype), "fltp")
    dtype, planar = _format(format)
    if array.ndim != 2 or str(array.dtype) != dtype:
        shape = "(channels, samples)" if planar else "(samples, channels)"
        raise ValueError(f"{format} takes {dtype} of shape {shape}, not {array.dtype} of shape {array.shape}")
    channels, count = array.shape if planar else (array.shape[1], array.shape[0])
    if layout is None:
        layout = like.layout if like is not None and channels_of(like.layout) == channels else _LAYOUTS.get(channels)
    if layout is None or channels_of(layout) != channels:
        raise ValueError(
            f"the array has {channels} channels, the layout {layout or 'is not given'}; name one that fits"
        )
    rate = rate if rate is not None or like is None else like.rate
    if rate is None or (like is None and time_ns is None):
        raise ValueError("sound needs a rate and a time: pass like=frame, or rate= and time_ns=")
    block = np.ascontiguousarray(array)
    return AudioFrame(
        caps=AudioCaps(format=format, rate=rate, layout=layout),
        planes=(Plane(block.data if private else block.data.toreadonly(), block.nbytes),),
        samples=count,
        time_ns=time_ns if time_ns is not None or like is None else like.time_ns,  # type: ignore[arg-type]
        capture_ns=capture_ns if capture_ns is not None or like is None else like.capture_ns,
        origin=block,
        private=private,
    )
