"""Pictures in the form an encoder takes: 4:2:0 and of even size, with as few copies as their form allows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flowstream import NegotiationError, Size, VideoFrame

if TYPE_CHECKING:
    import numpy as np
    from av.video.frame import VideoFrame as AvVideoFrame

# Packed formats that libyuv and OpenCV convert to I420, ten and five times as fast as swscale does.
_CV2_CODES = {
    "bgr24": "COLOR_BGR2YUV_I420",
    "rgb24": "COLOR_RGB2YUV_I420",
    "bgra": "COLOR_BGRA2YUV_I420",
    "bgr0": "COLOR_BGRA2YUV_I420",
    "rgba": "COLOR_RGBA2YUV_I420",
}
_AREA = "AREA"
_YUV = ("yuv", "nv", "p0", "uyvy", "yvyu", "y2")


@dataclass(frozen=True, slots=True)
class PictureKind:
    """What an encoder is opened for; another kind needs another encoder.

    ``matrix`` is the YUV matrix under FFmpeg's name; ``full_range`` tells luma 0..255 from 16..235.
    """

    size: Size
    format: str
    matrix: str
    full_range: bool


def fitted(width: int, height: int, bound: Size | None) -> Size:
    """The even size that a picture is encoded in: its own, or as large as fits ``bound`` in its shape.

    Of an upright picture the sides of the bound are exchanged. Nothing is enlarged.
    """
    if bound is not None:
        within = bound if (width >= height) == (bound.width >= bound.height) else Size(bound.height, bound.width)
        if width > within.width or height > within.height:
            share = min(within.width / width, within.height / height)
            width, height = max(2, round(width * share)), max(2, round(height * share))
    return Size(width & ~1, height & ~1)


def kind_of(frame: VideoFrame, formats: tuple[str, ...], bound: Size | None = None) -> PictureKind:
    """What ``Pictures.prepare`` will make of the frame for an encoder that takes ``formats``, within ``bound``.

    Raises NegotiationError for a picture with less than two rows or columns.
    """
    if frame.width < 2 or frame.height < 2:
        raise NegotiationError(f"a picture of {frame.width}x{frame.height} is too small to encode; 2x2 is the least")
    size = fitted(frame.width, frame.height, bound)
    cropped = size == (frame.width & ~1, frame.height & ~1) != (frame.width, frame.height)
    if cropped or not frame.format.startswith(_YUV):  # OpenCV's conversion, and swscale's from RGB
        return PictureKind(size, "yuv420p" if "yuv420p" in formats else formats[0], "smpte170m", False)
    format = frame.format if frame.format in formats else formats[0]
    matrix = frame.caps.matrix if isinstance(frame.caps.matrix, str) else "smpte170m"
    return PictureKind(size, format, matrix, bool(frame.caps.full_range))


class Pictures:
    """Prepares frames for one encoder, on one thread; a prepared picture is good until the next one is asked for."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        from flowstream import AvHeaders

        self._headers = AvHeaders()
        self._reformatter = VideoReformatter()
        self._i420: np.ndarray[Any, Any] | None = None

    @cached_property
    def _cv2(self) -> Any:
        """OpenCV, loaded when the first picture needs it; None where it does not load: swscale does the same slower."""
        try:
            import cv2
        except ImportError:
            return None
        return cv2

    def prepare(self, frame: VideoFrame, kind: PictureKind) -> AvVideoFrame:
        """The frame as ``kind`` says, under a header of its own; an odd last row or column is left out."""
        own = Size(frame.width, frame.height)
        if frame.format == kind.format and kind.size == own:
            return frame.to_av(self._headers)
        is_smaller = kind.size != (own.width & ~1, own.height & ~1)
        if frame.format in _CV2_CODES:
            pixels = frame.array()
            if not is_smaller and (made := self._by_libyuv(pixels, frame.format, kind)) is not None:
                return made
            if self._cv2 is not None:
                return self._converted(self._scaled(pixels, kind.size) if is_smaller else pixels, frame.format, kind)
        if (is_smaller or kind.size == own) and frame.format != "gray":  # whose range swscale takes as it is
            return self._reformatter.reformat(
                frame.to_av(self._headers), kind.size.width, kind.size.height, kind.format, interpolation=_AREA
            )
        pixels = frame.array("bgr24")
        even = self._scaled(pixels, kind.size) if is_smaller else pixels[: kind.size.height, : kind.size.width]
        if self._cv2 is not None:
            return self._converted(even, "bgr24", kind)
        whole = VideoFrame.from_array(even, format="bgr24", time_ns=frame.time_ns)
        return self._reformatter.reformat(whole.to_av(), kind.size.width, kind.size.height, kind.format)

    def _scaled(self, pixels: np.ndarray[Any, Any], size: Size) -> np.ndarray[Any, Any]:
        if self._cv2 is None:  # swscale will
            return pixels
        scaled: np.ndarray[Any, Any] = self._cv2.resize(pixels, size, interpolation=self._cv2.INTER_AREA)
        return scaled

    def _converted(self, pixels: np.ndarray[Any, Any], format: str, kind: PictureKind) -> AvVideoFrame:
        """By libyuv, else by OpenCV, which is there."""
        made = self._by_libyuv(pixels, format, kind)
        if made is not None:
            return made
        i420 = self._room(kind.size)
        even = pixels[: kind.size.height, : kind.size.width]
        self._cv2.cvtColor(even, getattr(self._cv2, _CV2_CODES[format]), dst=i420)
        return self._picture(i420, kind)

    def _by_libyuv(self, pixels: np.ndarray[Any, Any], format: str, kind: PictureKind) -> AvVideoFrame | None:
        """None where there is no libyuv, and for pixels that do not lie as it takes them."""
        from flowstream_nodes.codec._libyuv import libyuv

        library, i420 = libyuv(), self._room(kind.size)
        even = pixels[: kind.size.height, : kind.size.width]
        if library is None or not library.convert(even, format, i420):
            return None
        return self._picture(i420, kind)

    def _room(self, size: Size) -> np.ndarray[Any, Any]:
        """Where every picture of a size is put."""
        import numpy as np

        shape = (size.height * 3 // 2, size.width)
        if self._i420 is None or self._i420.shape != shape:
            self._i420 = np.empty(shape, np.uint8)
        return self._i420

    def _picture(self, i420: np.ndarray[Any, Any], kind: PictureKind) -> AvVideoFrame:
        picture = VideoFrame.from_array(i420, format="yuv420p", time_ns=0).to_av()
        return picture if kind.format == "yuv420p" else self._reformatter.reformat(picture, format=kind.format)
