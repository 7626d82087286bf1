"""Pixels as arrays: views where the memory allows, conversions by OpenCV where it can and by swscale elsewhere.

OpenCV converts between BGR and I420 five times as fast as swscale; both give BT.601 limited range. It is optional
here: a machine whose OpenCV does not load converts by swscale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowstream.media.caps import VideoCaps
from flowstream.media.frames import Plane, VideoFrame

if TYPE_CHECKING:
    import numpy as np

# Format -> (channels of a packed array, or 0 for the stacked planes of 4:2:0).
ARRAY_FORMATS = {"bgr24": 3, "rgb24": 3, "bgra": 4, "rgba": 4, "bgr0": 4, "gray": 1, "yuv420p": 0, "nv12": 0}

# (from, to) -> the name of OpenCV's conversion code. Even sizes only where 4:2:0 is involved.
_CV2_CODES = {
    ("bgr24", "yuv420p"): "COLOR_BGR2YUV_I420",
    ("rgb24", "yuv420p"): "COLOR_RGB2YUV_I420",
    ("bgra", "yuv420p"): "COLOR_BGRA2YUV_I420",
    ("bgr0", "yuv420p"): "COLOR_BGRA2YUV_I420",
    ("rgba", "yuv420p"): "COLOR_RGBA2YUV_I420",
    ("yuv420p", "bgr24"): "COLOR_YUV2BGR_I420",
    ("yuv420p", "rgb24"): "COLOR_YUV2RGB_I420",
    ("yuv420p", "bgra"): "COLOR_YUV2BGRA_I420",
    ("yuv420p", "rgba"): "COLOR_YUV2RGBA_I420",
    ("nv12", "bgr24"): "COLOR_YUV2BGR_NV12",
    ("nv12", "rgb24"): "COLOR_YUV2RGB_NV12",
    ("bgr24", "rgb24"): "COLOR_BGR2RGB",
    ("rgb24", "bgr24"): "COLOR_RGB2BGR",
    ("bgra", "bgr24"): "COLOR_BGRA2BGR",
    ("bgr0", "bgr24"): "COLOR_BGRA2BGR",
    ("rgba", "bgr24"): "COLOR_RGBA2BGR",
    ("bgra", "rgb24"): "COLOR_BGRA2RGB",
    ("bgr24", "bgra"): "COLOR_BGR2BGRA",
    ("bgr24", "bgr0"): "COLOR_BGR2BGRA",
    ("rgb24", "bgra"): "COLOR_RGB2BGRA",
    ("rgba", "bgra"): "COLOR_RGBA2BGRA",
    ("bgra", "rgba"): "COLOR_BGRA2RGBA",
    ("bgr24", "gray"): "COLOR_BGR2GRAY",
    ("gray", "bgr24"): "COLOR_GRAY2BGR",
}
_STACKED = ("yuv420p", "nv12")

# Format -> for each plane the bytes of one sample, and by how many pixels it stands for across and down.
_PLANES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "gray": ((1, 1, 1),), "gray10le": ((2, 1, 1),), "gray12le": ((2, 1, 1),), "gray16le": ((2, 1, 1),),
    "ya8": ((2, 1, 1),),
    **dict.fromkeys(("rgb24", "bgr24"), ((3, 1, 1),)),
    **dict.fromkeys(("rgba", "bgra", "argb", "abgr", "rgb0", "bgr0", "0rgb", "0bgr"), ((4, 1, 1),)),
    **dict.fromkeys(("yuyv422", "uyvy422", "yvyu422"), ((4, 2, 1),)),
    **dict.fromkeys(("nv12", "nv21"), ((1, 1, 1), (2, 2, 2))),
    "nv16": ((1, 1, 1), (2, 2, 1)), "p010le": ((2, 1, 1), (4, 2, 2)), "p016le": ((2, 1, 1), (4, 2, 2)),
    "gbrp": ((1, 1, 1),) * 3, "gbrap": ((1, 1, 1),) * 4,
    "yuv410p": ((1, 1, 1), *((1, 4, 4),) * 2), "yuv411p": ((1, 1, 1), *((1, 4, 1),) * 2),
    "yuv440p": ((1, 1, 1), *((1, 1, 2),) * 2),
}  # fmt: skip
for _name, _across, _down in (("420", 2, 2), ("422", 2, 1), ("444", 1, 1)):
    for _depth, _size in (("", 1), ("9le", 2), ("10le", 2), ("12le", 2), ("14le", 2), ("16le", 2)):
        _colours = ((_size, 1, 1), *((_size, _across, _down),) * 2)
        _PLANES[f"yuv{_name}p{_depth}"] = _colours
        if _depth in ("", "9le", "10le", "16le"):
            _PLANES[f"yuva{_name}p{_depth}"] = (*_colours, (_size, 1, 1))
_YUV = ("yuv", "yuyv", "nv", "p0", "p2", "p4", "uyvy", "yvyu", "y2", "vyu", "xv")


def is_yuv(format: str) -> bool:
    """Whether this is a format, by FFmpeg's name, of luma and colour differences: those have a matrix and a range."""
    return format.startswith(_YUV)


def rows_of(format: str, width: int, height: int) -> tuple[tuple[int, int], ...] | None:
    """For each plane of a picture its rows and the bytes of pixels in one; None for a format that is not known here."""
    planes = _PLANES.get(format)
    if planes is None:
        return None
    return tuple((-(-height // down), -(-width // across) * size) for size, across, down in planes)


def _array_shape(format: str, width: int, height: int) -> tuple[int, ...]:
    channels = ARRAY_FORMATS[format]
    if channels == 0:
        return (height * 3 // 2, width)
    return (height, width) if channels == 1 else (height, width, channels)


def _require_array_form(format: str, width: int, height: int) -> None:
    if format not in ARRAY_FORMATS:
        raise ValueError(f"no array form for pixel format {format!r}; there is one for {', '.join(ARRAY_FORMATS)}")
    if format in _STACKED and (width % 2 or height % 2):
        raise ValueError(f"{format} as an array needs even width and height, not {width}x{height}")


def _native_array(frame: VideoFrame) -> np.ndarray[Any, Any]:
    """The frame's pixels in their own format: a view where rows are adjacent or strides suffice, else a copy."""
    import numpy as np

    width, height, format = frame.width, frame.height, frame.format
    shape = _array_shape(format, width, height)
    if len(frame.planes) == 1:
        plane = frame.planes[0]
        channels = ARRAY_FORMATS[format]
        flat = np.frombuffer(memoryview(plane.data), np.uint8)
        if channels == 0:
            return np.lib.stride_tricks.as_strided(flat, shape, (plane.stride, 1))
        strides = (plane.stride, 1) if channels == 1 else (plane.stride, channels, 1)
        return np.lib.stride_tricks.as_strided(flat, shape, strides)
    stacked = np.empty(shape, np.uint8)
    y, rest = stacked[:height], stacked[height:].reshape(-1)
    targets: list[tuple[np.ndarray[Any, Any], int]]
    if format == "nv12":
        targets = [(y, width), (rest.reshape(height // 2, width), width)]
    else:
        quarter = (height // 2) * (width // 2)
        chroma = (height // 2, width // 2)
        targets = [
            (y, width),
            (rest[:quarter].reshape(chroma), width // 2),
            (rest[quarter:].reshape(chroma), width // 2),
        ]
    for plane, (target, row_bytes) in zip(frame.planes, targets, strict=True):
        rows = np.frombuffer(memoryview(plane.data), np.uint8)[: plane.stride * target.shape[0]]
        target[:] = rows.reshape(target.shape[0], plane.stride)[:, :row_bytes]
    return stacked


def _converted(frame: VideoFrame, format: str) -> np.ndarray[Any, Any]:
    """A private array of the frame's pixels in another format."""
    code = _CV2_CODES.get((frame.format, format))
    even = frame.width % 2 == 0 and frame.height % 2 == 0
    stacked = frame.format in _STACKED or format in _STACKED
    standard_colours = frame.caps.matrix in (None, "smpte170m") and not frame.caps.full_range
    if code is not None and (even or not stacked) and (standard_colours or not stacked):
        try:
            import cv2
        except ImportError:
            cv2 = None  # type: ignore[assignment,unused-ignore]
        if cv2 is not None:
            import numpy as np

            converted: np.ndarray[Any, Any] = cv2.cvtColor(
                np.ascontiguousarray(_native_array(frame)), getattr(cv2, code)
            )
            return converted
    from flowstream.media import pyav

    return pyav.converted_array(frame, format)


def to_array(frame: VideoFrame, format: str) -> np.ndarray[Any, Any]:
    """See VideoFrame.array."""
    _require_array_form(format, frame.width, frame.height)
    if format == frame.format:
        array = _native_array(frame)
        if frame.private:
            return array
    else:
        array = _converted(frame, format)
    array.flags.writeable = False
    return array


def private_copy(frame: VideoFrame, format: str) -> VideoFrame:
    """See VideoFrame.writable."""
    import numpy as np

    _require_array_form(format, frame.width, frame.height)
    array = np.array(_native_array(frame), copy=True) if format == frame.format else _converted(frame, format)
    return from_array(np.ascontiguousarray(array), like=frame, format=format, private=True)


def from_array(
    array: np.ndarray[Any, Any],
    *,
    like: VideoFrame | None = None,
    format: str | None = None,
    time_ns: int | None = None,
    capture_ns: int | None = None,
    duration_ns: int | None = None,
    private: bool = False,
) -> VideoFrame:
    """See VideoFrame.from_array; ``private`` leaves the memory writable for the one owner."""
    import numpy as np

    if format is None:
        format = {3: "bgr24", 4: "bgra"}.get(
            array.shape[2] if array.ndim == 3 else 0, "gray" if array.ndim == 2 else ""
        )
    if format not in ARRAY_FORMATS:
        raise ValueError(
            f"an array of shape {array.shape} is no picture; (h, w, 3), (h, w, 4) and (h, w) are"
            if not format
            else f"no array form for pixel format {format!r}; there is one for {', '.join(ARRAY_FORMATS)}"
        )
    if array.ndim < 2:
        raise ValueError(f"{format} takes an array of uint8 with rows and columns, not {array.dtype} of {array.shape}")
    height, width = (array.shape[0] * 2 // 3 if format in _STACKED else array.shape[0]), array.shape[1]
    _require_array_form(format, width, height)
    expected = _array_shape(format, width, height)
    if array.shape != expected or array.dtype != np.uint8:
        raise ValueError(
            f"{format} takes an array of uint8 of shape {expected}, not {array.dtype} of shape {array.shape}"
        )
    if like is None and time_ns is None:
        raise ValueError("a frame needs a time: pass like=frame, or time_ns=")
    rows = np.ascontiguousarray(array)
    # YUV made of YUV keeps its colours; made of RGB it is BT.601 in limited range.
    colours = like.caps if like is not None and format in _STACKED and is_yuv(like.format) else None
    caps = VideoCaps(
        format=format,
        width=width,
        height=height,
        matrix=colours.matrix if colours is not None else None,
        full_range=colours.full_range if colours is not None else None,
    )
    return VideoFrame(
        caps=caps,
        planes=(Plane(rows.data if private else rows.data.toreadonly(), rows.strides[0]),),
        time_ns=time_ns if time_ns is not None or like is None else like.time_ns,  # type: ignore[arg-type]
        duration_ns=duration_ns if duration_ns is not None or like is None else like.duration_ns,
        capture_ns=capture_ns if capture_ns is not None or like is None else like.capture_ns,
        origin=rows,
        private=private,
    )
