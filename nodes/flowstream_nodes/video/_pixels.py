"""Pictures in another pixel format, by whichever of OpenCV and swscale is the quicker for the pair.

At 1080p OpenCV takes a fifth to a third of swscale's time from RGB to 4:2:0 and between orders of RGB, swscale two
thirds of OpenCV's from ``yuv420p`` to RGB. Both are quick between ``yuv420p`` and ``nv12``, so ``nv12`` goes through
``yuv420p``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from flowstream import AvHeaders, FlowstreamError, VideoFrame
from flowstream_nodes.video._formats import PACKED, has_arrays


class PixelConverter:
    """Converts pictures; serves one thread. Colours keep their matrix and range; YUV made of RGB is BT.601, limited."""

    def __init__(self) -> None:
        self._headers = AvHeaders()
        self._reformatters: dict[tuple[str, str], VideoReformatter] = {}  # each is set up for one pair

    def converted(self, frame: VideoFrame, format: str) -> VideoFrame:
        """The picture in that format; the same object if it has it. Raises FlowstreamError where swscale cannot."""
        if frame.format == format:
            return frame
        if frame.format in PACKED:
            if format == "nv12":
                return self._by_swscale(self.converted(frame, "yuv420p"), format)
            if (format in PACKED or format == "yuv420p") and has_arrays(format, frame.width, frame.height):
                return VideoFrame.from_array(frame.array(format), like=frame, format=format)
        elif frame.format == "nv12" and format in PACKED and format != "gray":
            return self._by_swscale(self._by_swscale(frame, "yuv420p"), format)
        return self._by_swscale(frame, format)

    def _by_swscale(self, frame: VideoFrame, format: str) -> VideoFrame:
        import av

        source = frame.to_av(self._headers)
        is_rgb = av.VideoFormat(format).is_rgb
        colours: dict[str, Any] = {}
        if source.format.is_rgb and not is_rgb:
            colours = {"dst_colorspace": Colorspace.ITU601, "dst_color_range": ColorRange.MPEG}
        reformatter = self._reformatters.setdefault((frame.format, format), VideoReformatter())
        try:
            made = reformatter.reformat(source, format=format, threads=1, **colours)
        except (ValueError, av.FFmpegError) as error:
            raise FlowstreamError(f"pictures in {frame.format} cannot be made into {format}: {error}") from error
        given = VideoFrame.from_av(
            made, time_ns=frame.time_ns, capture_ns=frame.capture_ns, duration_ns=frame.duration_ns
        )
        return given.replace(caps=replace(given.caps, matrix=None, full_range=None)) if is_rgb else given
