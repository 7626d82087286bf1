"""Decoders of FFmpeg, opened for live use: hardware where it opens, else slices in threads; no delay in frames."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowstream import EncodedCaps, FlowstreamError

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.video.codeccontext import VideoCodecContext

# FFmpeg's decoders where the one of the codec's own name is not the right one: its `av1` needs hardware.
_DECODERS = {"av1": "libdav1d", "opus": "libopus"}
MOST_PIXELS = 8192 * 4320
"""Larger pictures are refused: a few damaged bytes may tell of one that takes gigabytes."""


@dataclass(frozen=True, slots=True)
class Acceleration:
    """Hardware that may decode: FFmpeg's name of its interface, where it shows, and how it is opened.

    Its fields mean what those of ``Candidate`` mean.
    """

    name: str
    platforms: tuple[str, ...]
    devices: tuple[str, ...] = ()
    advice: str = ""
    open: Callable[[str], VideoCodecContext] | None = None

    @property
    def absent(self) -> str:
        """Why it cannot be here, as far as that shows without trying; nothing when it may be."""
        if sys.platform not in self.platforms:
            return "not for this system"
        if sys.platform == "linux" and self.devices and not any(glob.glob(each) for each in self.devices):
            return f"no {' or '.join(self.devices)}"
        return ""


ACCELERATIONS: list[Acceleration] = [
    Acceleration("cuda", ("linux", "win32"), ("/dev/nvidia[0-9]*", "/dev/dxg"), "install NVIDIA's driver"),
    Acceleration("videotoolbox", ("darwin",), advice="it is part of macOS"),
    Acceleration("d3d11va", ("win32",), advice="it is part of Windows"),
    Acceleration("qsv", ("linux", "win32"), ("/dev/dri/renderD*",), "install Intel's media driver and libvpl"),
]
"""Every interface that is tried, the preferred ones first. None of them was ever run by this project."""


def decoder_name(codec: str) -> str:
    """FFmpeg's name for the decoder of a codec that runs on the processor."""
    return _DECODERS.get(codec, codec)


def software_decoder(codec: str, *, threads: int | None = None) -> VideoCodecContext:
    """A decoder of pictures on the processor. Raises FlowstreamError when there is none for the codec."""
    context: VideoCodecContext = _created(decoder_name(codec), codec)
    context.thread_type = "SLICE"  # threads by frame would hold pictures back
    context.thread_count = threads if threads is not None else min(4, os.cpu_count() or 1)
    context.options = {"max_pixels": str(MOST_PIXELS)}
    if codec == "av1":
        context.options = {**context.options, "max_frame_delay": "1"}  # libdav1d has threads by frame otherwise
    return context


def hardware_decoder(codec: str, acceleration: Acceleration) -> VideoCodecContext:
    """A decoder of pictures in hardware. Raises ValueError when it does not open."""
    if acceleration.open is not None:
        return acceleration.open(codec)
    import av
    from av.codec.hwaccel import HWAccel

    try:
        accel = HWAccel(acceleration.name, allow_software_fallback=False)
        context: Any = av.CodecContext.create(codec, "r", hwaccel=accel)
        context.open()
    except (ValueError, RuntimeError, NotImplementedError, OSError) as error:
        raise ValueError(f"{acceleration.name} does not open for {codec}: {error}") from error
    opened: VideoCodecContext = context
    return opened


def sound_decoder(caps: EncodedCaps) -> AudioCodecContext:
    """A decoder of sound. Raises FlowstreamError when there is none for the codec."""
    codec = str(caps.codec)
    context: AudioCodecContext = _created(decoder_name(codec), codec)
    if caps.extradata:
        context.extradata = caps.extradata
        context.layout = str(caps.layout or "stereo")
    return context


def _created(name: str, codec: str) -> Any:
    import av

    try:
        return av.CodecContext.create(name, "r")
    except (ValueError, av.FFmpegError) as error:
        raise FlowstreamError(f"there is no decoder for {codec}") from error
