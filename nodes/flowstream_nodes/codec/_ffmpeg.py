"""Encoders of FFmpeg, opened for live use: what all of them have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from flowstream import NS_PER_S, Size
from flowstream_nodes.codec._guarded import GuardedEncoder
from flowstream_nodes.codec._scheduling import kept_scheduling
from flowstream_nodes.codec.encoders import Candidate, EncoderSettings, OpenEncoder

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame as AvVideoFrame

_TICKS_PER_S = 1_000_000
_ASSUMED_FPS = 30
_MAX_GOP = 1 << 20

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


class FfmpegEncoder:
    """One open encoder of FFmpeg, whose rate stays what it was opened with.

    Raises ValueError when it does not open with these settings.
    """

    def __init__(
        self,
        name: str,
        settings: EncoderSettings,
        options: Mapping[str, str],
        *,
        bitrate_bps: int,
        by_time: bool = False,
    ) -> None:
        import av

        os.environ.setdefault("SVT_LOG", "1")  # which else writes to the terminal
        self.name = name
        self._by_time = by_time
        self._opened_interval_ns = settings.interval_ns
        self._rate = PictureRate(settings.interval_ns)
        self._nominal_ns = settings.nominal_ns or settings.interval_ns or NS_PER_S // _ASSUMED_FPS
        self._inside: dict[int, Any] = {}  # by ticks; at most as many as the encoder holds back
        kind = settings.kind
        try:
            context: Any = av.CodecContext.create(name, "w")
        except (ValueError, av.FFmpegError) as error:
            raise ValueError(f"this build of FFmpeg has no {name}") from error
        context.width, context.height = kind.size
        context.pix_fmt = kind.format
        context.time_base = Fraction(1, _TICKS_PER_S)
        context.framerate = Fraction(NS_PER_S, self._nominal_ns).limit_denominator(1001)
        context.bit_rate = bitrate_bps
        context.gop_size = _MAX_GOP
        context.max_b_frames = 0
        context.thread_count = settings.threads
        context.colorspace = _MATRIX_NUMBERS.get(kind.matrix, _UNSTATED)
        if kind.matrix in ("bt709", "smpte170m"):
            context.color_primaries = _PRIMARIES_BT709
            context.color_trc = _TRANSFER_BT709
        context.color_range = 2 if kind.full_range else 1
        context.options = dict(options)
        try:
            with kept_scheduling():
                context.open()
        except (av.FFmpegError, OSError) as error:
            raise ValueError(f"{name} does not open for {kind.size}: {said(error)}") from error
        self._context: VideoCodecContext = context

    @property
    def interval_ns(self) -> int | None:
        """The distance of pictures as estimated from their times."""
        return self._rate.interval_ns

    @property
    def nominal_ns(self) -> int:
        """The distance of pictures that the stream states."""
        return self._nominal_ns

    @property
    def is_outgrown(self) -> bool:
        """Whether pictures come at another distance than it was opened for, by more than a quarter."""
        interval_ns, opened_ns = self._rate.interval_ns, self._opened_interval_ns or self._nominal_ns
        return not self._by_time and interval_ns is not None and abs(interval_ns - opened_ns) * 4 > opened_ns

    def set_bitrate(self, bitrate_bps: int, /) -> bool:
        """False: it takes a new encoder."""
        return False

    def encode(
        self, picture: AvVideoFrame, tag: Any, /, *, time_ns: int, keyframe: bool
    ) -> list[tuple[Packet[Any], Any]]:
        """The packets that come of one picture; ``picture`` is a private header, and times increase."""
        import av
        from av.video.frame import PictureType

        self._rate.add(time_ns)
        ticks = time_ns * _TICKS_PER_S // NS_PER_S
        self._inside[ticks] = tag
        picture.pts = ticks
        picture.time_base = Fraction(1, _TICKS_PER_S)
        picture.pict_type = PictureType.I if keyframe else PictureType.NONE
        try:
            return self._tagged(self._context.encode(picture))
        except (av.FFmpegError, OSError) as error:
            raise ValueError(f"{self.name} failed: {said(error)}") from error

    def flush(self) -> list[tuple[Packet[Any], Any]]:
        """What is still inside. Raises ValueError when the encoder fails."""
        import av

        try:
            return self._tagged(self._context.encode(None))
        except (av.FFmpegError, OSError) as error:
            raise ValueError(f"{self.name} failed: {said(error)}") from error

    def _tagged(self, packets: list[Packet[Any]]) -> list[tuple[Packet[Any], Any]]:
        tagged = []
        for packet in packets:
            if packet.pts is None or packet.pts not in self._inside:  # what cannot be placed in time is of no use
                continue
            tagged.append((packet, self._inside.pop(packet.pts)))
        return tagged


def said(error: BaseException) -> str:
    """What an error of FFmpeg says, without its number and the name of the function."""
    return str(getattr(error, "strerror", None) or error)


def open_encoder(candidate: Candidate, settings: EncoderSettings) -> OpenEncoder:
    """A candidate at work; one that may hang is a GuardedEncoder, to be closed.

    Raises ValueError, with the reason, when it does not open with these settings.
    """
    size, least = settings.kind.size, candidate.least
    if size.width < least.width or size.height < least.height:
        raise ValueError(f"{candidate.name} takes pictures of {least} and more, not of {size}")
    if candidate.is_hardware or candidate.may_hang:
        return GuardedEncoder(candidate.name, lambda: _opened(candidate, settings), rest_s=candidate.rest_s)
    return _opened(candidate, settings)


def _opened(candidate: Candidate, settings: EncoderSettings) -> OpenEncoder:
    if candidate.open is not None:
        return candidate.open(settings)
    options = candidate.options(settings)
    if candidate.steers:
        from flowstream_nodes.codec._x264 import X264Encoder

        return X264Encoder(candidate.name, settings, options)
    bitrate_bps = settings.bitrate_bps
    if not candidate.by_time and settings.nominal_ns and settings.interval_ns:
        bitrate_bps = bitrate_bps * max(settings.nominal_ns, settings.interval_ns) // settings.nominal_ns
    return FfmpegEncoder(candidate.name, settings, options, bitrate_bps=bitrate_bps, by_time=candidate.by_time)
