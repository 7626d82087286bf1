"""Deterministic pictures, sound and packets for tests: the same arguments give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from math import pi

from flowstream.media.caps import EncodedCaps
from flowstream.media.frames import AudioFrame, VideoFrame
from flowstream.media.packets import EncodedPacket

# A baseline parameter set, a picture parameter set and slice headers: enough for what parses NAL units, not to decode.
_SPS = bytes.fromhex("0000000167 42c01f d900 5005 ba10 0000 0300 1000 0003 03c0 f183 2480")
_PPS = bytes.fromhex("0000000168 cb83 cb20")


def make_frame(
    index: int = 0,
    *,
    width: int = 64,
    height: int = 48,
    format: str = "bgr24",
    fps: float = 30.0,
    time_ns: int | None = None,
    capture_ns: int | None = None,
) -> VideoFrame:
    """A gradient that moves with ``index``: ``width`` by ``height`` pixels of ``format``, under FFmpeg's name.

    ``fps`` in frames per second says how long it lasts, and when it is unless ``time_ns`` does. ``capture_ns`` is the
    now at which it was captured, None for never.
    """
    import numpy as np

    at_ns = round(index * 1e9 / fps) if time_ns is None else time_ns
    x = np.arange(width)[None, :]
    y = np.arange(height)[:, None]
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., 0] = (x * 255 // width + index * 3) % 256
    picture[..., 1] = (y * 255 // height + index * 5) % 256
    picture[..., 2] = ((x + y) * 255 // (width + height) + index * 7) % 256
    frame = VideoFrame.from_array(
        picture, format="bgr24", time_ns=at_ns, capture_ns=capture_ns, duration_ns=round(1e9 / fps)
    )
    if format == "bgr24":
        return frame
    return VideoFrame.from_array(np.ascontiguousarray(frame.array(format)), like=frame, format=format)


def make_frames(
    count: int, *, width: int = 64, height: int = 48, format: str = "bgr24", fps: float = 30.0
) -> Iterator[VideoFrame]:
    """Frames in a row, each captured a second after media time zero plus its own time."""
    for index in range(count):
        at_ns = round(index * 1e9 / fps)
        yield make_frame(index, width=width, height=height, format=format, fps=fps, capture_ns=1_000_000_000 + at_ns)


def make_sound(
    index: int = 0,
    *,
    samples: int = 960,
    rate: int = 48_000,
    layout: str = "stereo",
    format: str = "fltp",
    frequency: float = 440.0,
    capture_ns: int | None = None,
) -> AudioFrame:
    """A sine at half of full scale, continuous from one index to the next; all channels alike.

    ``samples`` per channel at ``rate`` per second, ``frequency`` in hertz; ``layout`` and ``format`` under FFmpeg's
    names. A planar format has the shape (channels, samples).
    """
    import numpy as np

    from flowstream.media.samples import channels_of

    at = np.arange(index * samples, (index + 1) * samples)
    wave = (0.5 * np.sin(2 * pi * frequency * at / rate)).astype(np.float32)
    planar = np.repeat(wave[None], channels_of(layout), axis=0)
    sound = AudioFrame.from_array(
        planar,
        format="fltp",
        rate=rate,
        layout=layout,
        time_ns=index * samples * 1_000_000_000 // rate,
        capture_ns=capture_ns,
    )
    if format == "fltp":
        return sound
    return AudioFrame.from_array(np.ascontiguousarray(sound.array(format)), like=sound, format=format)


def make_sounds(count: int, *, samples: int = 960, rate: int = 48_000, layout: str = "stereo") -> Iterator[AudioFrame]:
    """Sound in a row without a step: ``samples`` each, at ``rate`` per second, captured as ``make_frames`` is."""
    for index in range(count):
        at_ns = index * samples * 1_000_000_000 // rate
        yield make_sound(index, samples=samples, rate=rate, layout=layout, capture_ns=1_000_000_000 + at_ns)


def make_packet(
    index: int = 0,
    *,
    keyframe: bool | None = None,
    gop: int = 30,
    size: int = 1000,
    codec: str = "h264",
    width: int = 640,
    height: int = 360,
    fps: float = 30.0,
    capture_ns: int | None = None,
) -> EncodedPacket:
    """An access unit in shape: h264 is Annex B with parameter sets before keyframes, others are plain bytes.

    ``keyframe`` defaults to every ``gop``-th index. ``size`` counts the bytes of the whole packet. It is good for what
    moves packets and looks at their heads; it cannot be decoded;
    ``encode_pictures`` and ``encode_sound`` give what can.
    """
    is_key = index % gop == 0 if keyframe is None else keyframe
    head = b""
    if codec == "h264":
        head = (_SPS + _PPS if is_key else b"") + b"\x00\x00\x00\x01" + (b"\x65" if is_key else b"\x41")
    body = bytes((index * 31 + i) % 251 + 4 for i in range(max(1, size - len(head))))  # never a start code
    return EncodedPacket(
        caps=EncodedCaps(codec=codec, width=width, height=height),
        data=head + body,
        time_ns=round(index * 1e9 / fps),
        keyframe=is_key,
        duration_ns=round(1e9 / fps),
        capture_ns=capture_ns,
    )


def make_packets(count: int, *, gop: int = 30, size: int = 1000, codec: str = "h264") -> Iterator[EncodedPacket]:
    """Packets in a row, a keyframe every ``gop``."""
    for index in range(count):
        yield make_packet(index, gop=gop, size=size, codec=codec)
