"""Payloads in PyAV's form and back. The one module of this layer that touches FFmpeg; loaded on first use."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
from av.filter import Graph
from av.video.frame import VideoFrame as AvVideoFrame
from av.video.reformatter import ColorRange, Colorspace

from flowstream.media.caps import AudioCaps, EncodedCaps, VideoCaps
from flowstream.media.frames import AudioFrame, Plane, VideoFrame
from flowstream.media.packets import EncodedPacket
from flowstream.media.samples import SAMPLE_FORMATS

if TYPE_CHECKING:
    import numpy as np
    from av.audio.frame import AudioFrame as AvAudioFrame
    from av.packet import Packet as AvPacket

NANOSECONDS = Fraction(1, 1_000_000_000)
# AVColorSpace values of FFmpeg's libavutil/pixfmt.h, by their names there.
_MATRICES = {1: "bt709", 5: "bt470bg", 6: "smpte170m", 9: "bt2020nc"}
_MATRIX_NUMBERS = {name: number for number, name in _MATRICES.items()}
_RANGE_LIMITED, _RANGE_FULL = 1, 2
# PyAV makes no arrays of bgr0; its bytes are those of bgra, whose fourth means something.
_STAND_INS = {"bgr0": "bgra"}


class AvHeaders:
    """Gives frames that PyAV owns a header of their own over the same memory (3 us; the pixels are not copied).

    FFmpeg's buffer source keeps a reference and its sink returns it under a new header. One instance serves one
    thread; it rebuilds itself when size or format changes.
    """

    def __init__(self) -> None:
        self._key: tuple[int, int, str] | None = None
        self._graph: Graph | None = None

    def header(self, frame: AvVideoFrame) -> AvVideoFrame:
        """A new frame over the memory of ``frame``; its pts is that of ``frame`` and its time base nanoseconds."""
        key = (frame.width, frame.height, frame.format.name)
        if self._graph is None or key != self._key:
            graph = Graph()
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=NANOSECONDS
            )
            sink = graph.add("buffersink")
            source.link_to(sink)
            graph.configure()
            self._graph, self._key = graph, key
        self._graph.push(frame)
        header = self._graph.pull()
        assert isinstance(header, AvVideoFrame)
        return header


def video_to_av(frame: VideoFrame, headers: AvHeaders | None = None) -> AvVideoFrame:
    """See VideoFrame.to_av."""
    if isinstance(frame.origin, AvVideoFrame):
        av_frame = (headers or AvHeaders()).header(frame.origin)
    else:
        from flowstream.media import pixels

        format = _STAND_INS.get(frame.format, frame.format)
        # PyAV takes a buffer of 4:2:0 for up to three rows less than it has, unless these are a multiple of four.
        is_misread = frame.format in ("yuv420p", "nv12") and frame.height % 4 != 0
        wrap = AvVideoFrame.from_ndarray if is_misread else AvVideoFrame.from_numpy_buffer
        av_frame = wrap(pixels._native_array(frame), format=format)
    av_frame.pts = frame.time_ns
    av_frame.time_base = NANOSECONDS
    if isinstance(frame.caps.matrix, str):
        av_frame.colorspace = _MATRIX_NUMBERS[frame.caps.matrix]
    if frame.caps.full_range is not None:
        av_frame.color_range = _RANGE_FULL if frame.caps.full_range else _RANGE_LIMITED
    return av_frame


def video_from_av(
    frame: AvVideoFrame, *, time_ns: int, capture_ns: int | None = None, duration_ns: int | None = None
) -> VideoFrame:
    """See VideoFrame.from_av."""
    format = frame.format.name
    full_range: bool | None = {_RANGE_LIMITED: False, _RANGE_FULL: True}.get(int(frame.color_range))
    if format.startswith("yuvj"):  # FFmpeg's old names for full range
        format, full_range = "yuv" + format[4:], True
    return VideoFrame(
        caps=VideoCaps(
            format=format,
            width=frame.width,
            height=frame.height,
            matrix=_MATRICES.get(int(frame.colorspace)),
            full_range=full_range,
        ),
        planes=tuple(Plane(plane, plane.line_size) for plane in frame.planes),
        time_ns=time_ns,
        duration_ns=duration_ns,
        capture_ns=capture_ns,
        origin=frame,
    )


def video_in_av(frame: VideoFrame) -> VideoFrame:
    """The same picture in memory of PyAV's, from where it goes on in every format and size; the pixels are copied."""
    import numpy as np

    from flowstream.media.pixels import rows_of

    av_frame = AvVideoFrame(frame.width, frame.height, frame.format)
    shapes = rows_of(frame.format, frame.width, frame.height) or (None,) * len(frame.planes)
    if len(av_frame.planes) != len(frame.planes):
        raise ValueError(f"{frame.format} has {len(av_frame.planes)} planes, not {len(frame.planes)}")
    for target, plane, shape in zip(av_frame.planes, frame.planes, shapes, strict=True):
        flat = np.frombuffer(memoryview(plane.data), np.uint8)
        rows, size = shape or (target.height, min(target.line_size, plane.stride))
        if plane.stride < size or len(flat) < plane.stride * (rows - 1) + size:
            raise ValueError(f"a plane of {len(flat)} bytes does not hold {rows} rows of {size}")
        whole = np.zeros(target.buffer_size, np.uint8)
        if rows and size:
            lines = np.lib.stride_tricks.as_strided(flat, (rows, size), (plane.stride, 1))
            whole[: rows * target.line_size].reshape(rows, target.line_size)[:, :size] = lines
        target.update(whole.tobytes())
    return frame.replace(
        planes=tuple(Plane(plane, plane.line_size) for plane in av_frame.planes), origin=av_frame
    )  # fmt: skip


def converted_array(frame: VideoFrame, format: str) -> np.ndarray[Any, Any]:
    """The pixels in another format, by swscale; a private array."""
    source, target = video_to_av(frame), _STAND_INS.get(format, format)
    if source.format.is_rgb and not av.VideoFormat(target).is_rgb:  # BT.601 limited, whatever is noted at the RGB
        made = source.reformat(format=target, dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG)
    else:
        made = source.reformat(format=target)
    array = made.to_ndarray()
    if frame.format in _STAND_INS and format in ("bgra", "rgba"):
        array[..., 3] = 255
    return array


def audio_to_av(frame: AudioFrame) -> AvAudioFrame:
    """See AudioFrame.to_av."""
    from av.audio.frame import AudioFrame as Av

    array = frame.array()
    _, planar = SAMPLE_FORMATS[frame.format]
    av_frame = Av.from_ndarray(array if planar else array.reshape(1, -1), format=frame.format, layout=frame.layout)
    av_frame.sample_rate = frame.rate
    av_frame.time_base = Fraction(1, frame.rate)
    av_frame.pts = (2 * frame.time_ns * frame.rate + 1_000_000_000) // 2_000_000_000
    return av_frame


def audio_from_av(frame: AvAudioFrame, *, time_ns: int, capture_ns: int | None = None) -> AudioFrame:
    """See AudioFrame.from_av."""
    return AudioFrame(
        caps=AudioCaps(format=frame.format.name, rate=frame.sample_rate, layout=frame.layout.name),
        planes=tuple(Plane(plane, plane.buffer_size) for plane in frame.planes),
        samples=frame.samples,
        time_ns=time_ns,
        capture_ns=capture_ns,
        origin=frame,
    )


def packet_to_av(packet: EncodedPacket) -> AvPacket[Any]:
    """See EncodedPacket.to_av."""
    av_packet = av.Packet(packet.data)
    av_packet.time_base = NANOSECONDS
    av_packet.pts = packet.time_ns
    av_packet.dts = packet.time_ns if packet.decode_ns is None else packet.decode_ns
    if packet.duration_ns is not None:
        av_packet.duration = packet.duration_ns
    av_packet.is_keyframe = packet.keyframe
    return av_packet


def packet_from_av(
    packet: AvPacket[Any],
    *,
    caps: EncodedCaps,
    time_ns: int,
    decode_ns: int | None = None,
    capture_ns: int | None = None,
) -> EncodedPacket:
    """See EncodedPacket.from_av."""
    duration_ns = None
    if packet.duration and packet.time_base:
        duration_ns = round(packet.duration * packet.time_base * 1_000_000_000)
    return EncodedPacket(
        caps=caps,
        data=bytes(packet),
        time_ns=time_ns,
        keyframe=packet.is_keyframe,
        decode_ns=decode_ns,
        duration_ns=duration_ns,
        capture_ns=capture_ns,
    )
