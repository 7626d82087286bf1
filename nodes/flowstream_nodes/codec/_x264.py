"""H.264 by libx264, for live use: no delay, no reordering, a constant bit rate that can be steered while running.

libx264 follows a new bit rate in place only when it was opened with a VBV whose maximum rate equals the bit rate, and
never goes above that rate afterwards. So it is opened at the ceiling and lowered to the wanted rate before the first
picture. It counts bits per picture, not per second (spacing pictures by their timestamps would cost one picture of
delay), so the rate asked of it is scaled by the distance of the pictures that really come.
"""

from __future__ import annotations

import os
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flowstream import NS_PER_S, Size
from flowstream_nodes.codec._pictures import PictureKind

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame as AvVideoFrame

T = TypeVar("T")

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium")
_VBV_S = Fraction(2, 5)  # size of the VBV in seconds at the ceiling
_TICKS_PER_S = 1_000_000
_ASSUMED_FPS = 30


# AVColorSpace of FFmpeg's libavutil/pixfmt.h; primaries and transfer of the same standard where they have one.
_MATRIX_NUMBERS = {"bt709": 1, "bt470bg": 5, "smpte170m": 6, "bt2020nc": 9}
_UNSTATED, _PRIMARIES_BT709, _TRANSFER_BT709 = 2, 1, 1


class PictureRate:
    """Estimates the distance of pictures from their media times; one long pause does not move it far.

    ``interval_ns`` is None before it is known.
    """

    def __init__(self, interval_ns: int | None) -> None:
        self.interval_ns = interval_ns
        self._last_ns: int | None = None

    def add(self, time_ns: int) -> None:
        """A picture at ``time_ns``, later than the one before."""
        if self._last_ns is not None:
            step = time_ns - self._last_ns
            if self.interval_ns is None:
                self.interval_ns = min(step, NS_PER_S)
            else:
                self.interval_ns += (min(step, 4 * self.interval_ns) - self.interval_ns) // 16
        self._last_ns = time_ns


def threads_for(size: Size) -> int:
    """Slices to code a picture in at once: they shorten the delay, and each costs some quality."""
    pixels = size.width * size.height
    wanted = 1 if pixels <= 640 * 480 else 2 if pixels <= 1280 * 1024 else 4 if pixels <= 2560 * 1600 else 8
    return max(1, min(wanted, os.cpu_count() or 1))


class X264Encoder(Generic[T]):
    """One open encoder for pictures of one size, format and colours, each of which comes with a tag of the caller's.

    Raises ValueError when libx264 refuses these settings.
    """

    codec = "h264"
    formats = ("yuv420p", "nv12")

    def __init__(
        self,
        *,
        kind: PictureKind,
        bitrate_bps: int,
        ceiling_bps: int,
        interval_ns: int | None,
        nominal_ns: int | None,
        level_idc: int | None,
        profile: str,
        preset: str,
        threads: int,
    ) -> None:
        import av

        self._wanted_bps = bitrate_bps
        self._rate = PictureRate(interval_ns)
        # libx264 counts bits by pictures, as if these came this far apart. Pictures that are known to come more rarely
        # get a higher rate in its terms; its frame rate stays, and with it the parameter sets that it writes.
        self.nominal_ns = nominal_ns or interval_ns or NS_PER_S // _ASSUMED_FPS
        self._limit_bps = ceiling_bps * max(self.nominal_ns, interval_ns or 0) // self.nominal_ns
        context: VideoCodecContext = av.CodecContext.create("libx264", "w")
        context.width, context.height = kind.size
        context.pix_fmt = kind.format
        context.time_base = Fraction(1, _TICKS_PER_S)
        context.framerate = Fraction(NS_PER_S, self.nominal_ns).limit_denominator(1001)
        context.bit_rate = self._limit_bps
        context.thread_count = threads
        context.colorspace = _MATRIX_NUMBERS.get(kind.matrix, _UNSTATED)
        if kind.matrix in ("bt709", "smpte170m"):
            context.color_primaries = _PRIMARIES_BT709
            context.color_trc = _TRANSFER_BT709
        context.color_range = 2 if kind.full_range else 1
        context.options = {
            "preset": preset,
            "tune": "zerolatency",
            "profile": profile,
            "maxrate": str(self._limit_bps),
            "bufsize": str(int(self._limit_bps * _VBV_S)),
            "forced-idr": "1",
            # Keyframes come when they are asked for, by time; a scene cut is no reason to spend one.
            "x264-params": "keyint=infinite:scenecut=0",
        }
        if level_idc is not None:
            context.options["level"] = f"{level_idc // 10}.{level_idc % 10}"
        try:
            context.open()
        except av.FFmpegError as error:
            raise ValueError(f"libx264 does not open for {kind.size}, profile {profile}: {error.strerror}") from error
        self._context = context
        self._inside: dict[int, T] = {}  # by ticks; at most as many as libx264 holds back
        self._asked_bps = self._limit_bps
        self._ask()

    @property
    def interval_ns(self) -> int | None:
        """The distance of pictures as estimated from their times."""
        return self._rate.interval_ns

    @property
    def is_outgrown(self) -> bool:
        """Whether pictures come so much rarer than when it was opened that it cannot reach the wanted rate."""
        interval_ns = self._rate.interval_ns or self.nominal_ns
        return self._wanted_bps * interval_ns * 4 > self._limit_bps * self.nominal_ns * 5

    def set_bitrate(self, bitrate_bps: int) -> None:
        """Steers the rate, in bits per second, up to the ceiling; it holds within about half a second."""
        self._wanted_bps = bitrate_bps
        self._ask()

    def _ask(self) -> None:
        interval_ns = self._rate.interval_ns or self.nominal_ns
        scaled_bps = min(self._limit_bps, self._wanted_bps * interval_ns // self.nominal_ns)
        if abs(scaled_bps - self._asked_bps) * 32 > self._asked_bps or scaled_bps == self._wanted_bps:
            self._context.bit_rate = self._asked_bps = scaled_bps

    def encode(self, frame: AvVideoFrame, tag: T, *, time_ns: int, keyframe: bool) -> list[tuple[Packet[Any], T]]:
        """The packets that come of one picture, each with the ``tag`` that its picture came with.

        ``frame`` is a private header, and times increase. Raises ValueError when libx264 fails.
        """
        import av
        from av.video.frame import PictureType

        self._rate.add(time_ns)
        self._ask()
        ticks = time_ns * _TICKS_PER_S // NS_PER_S
        self._inside[ticks] = tag
        frame.pts = ticks
        frame.time_base = Fraction(1, _TICKS_PER_S)
        frame.pict_type = PictureType.I if keyframe else PictureType.NONE
        try:
            return self._tagged(self._context.encode(frame))
        except av.FFmpegError as error:
            raise ValueError(f"libx264 failed: {error.strerror}") from error

    def flush(self) -> list[tuple[Packet[Any], T]]:
        """What is still inside; the encoder is of no use afterwards."""
        return self._tagged(self._context.encode(None))

    def _tagged(self, packets: list[Packet[Any]]) -> list[tuple[Packet[Any], T]]:
        tagged = []
        for packet in packets:
            assert packet.pts is not None
            tagged.append((packet, self._inside.pop(packet.pts)))
        return tagged
