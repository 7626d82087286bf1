"""Real access units and Opus packets, small, made once per process: for what decodes, muxes or parses."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

from flowstream.media.caps import EncodedCaps
from flowstream.media.packets import EncodedPacket
from flowstream.proto.h264 import split_annex_b
from flowstream.testing.media import make_frame, make_sound

OPUS_RATE_HZ = 48_000
OPUS_SAMPLES = 960
"""Samples of one Opus packet: 20 ms."""

_PARAMETER_SETS = (7, 8)


def encode_pictures(
    count: int = 30,
    *,
    width: int = 64,
    height: int = 48,
    fps: float = 30.0,
    gop: int = 30,
    is_captured: bool = False,
) -> tuple[EncodedPacket, ...]:
    """H.264 of ``make_frame(0)`` to ``make_frame(count - 1)``: Annex B, baseline, a keyframe every ``gop`` frames.

    ``width`` and ``height`` in pixels, both even; ``fps`` in frames per second. Parameter sets stand before every
    keyframe, no picture is reordered. With ``is_captured`` each was captured a second after media time zero plus its
    own time. The same arguments give the same objects. Raises ImportError without PyAV.
    """
    return _pictures(count, width, height, fps, gop, is_captured)


@lru_cache(maxsize=32)
def _pictures(
    count: int, width: int, height: int, fps: float, gop: int, is_captured: bool
) -> tuple[EncodedPacket, ...]:  # fmt: skip
    import av

    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base = Fraction(1, 1_000_000)
    encoder.framerate = Fraction(fps).limit_denominator(1001)
    encoder.thread_count = 1
    encoder.options = {
        "preset": "ultrafast", "tune": "zerolatency", "profile": "baseline",
        "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:repeat-headers=1:annexb=1:threads=1",
    }  # fmt: skip
    frames = [make_frame(index, width=width, height=height, format="yuv420p", fps=fps) for index in range(count)]
    data: list[tuple[bytes, bool]] = []
    for frame in frames:
        picture: Any = av.VideoFrame.from_ndarray(frame.array("yuv420p"), format="yuv420p")
        picture.pts = frame.time_ns // 1000
        data += [(bytes(packet), packet.is_keyframe) for packet in encoder.encode(picture)]
    data += [(bytes(packet), packet.is_keyframe) for packet in encoder.encode(None)]
    sets = [unit for unit in split_annex_b(data[0][0]) if unit[0] & 0x1F in _PARAMETER_SETS] if data else []
    caps = EncodedCaps(
        codec="h264",
        width=width,
        height=height,
        profile="baseline",
        extradata=b"".join(b"\x00\x00\x00\x01" + unit for unit in sets),
    )
    return tuple(
        EncodedPacket(
            caps, unit, frame.time_ns, keyframe=is_key, duration_ns=frame.duration_ns,
            capture_ns=1_000_000_000 + frame.time_ns if is_captured else None,
        )
        for frame, (unit, is_key) in zip(frames, data, strict=True)
    )  # fmt: skip


def encode_sound(count: int = 50, *, layout: str = "stereo", frequency: float = 440.0) -> tuple[EncodedPacket, ...]:
    """Opus packets of 20 ms at 48 kHz, of the tone of ``make_sound``; ``frequency`` in hertz.

    ``layout`` is ``mono`` or ``stereo``. The same arguments give the same objects. Raises ImportError without PyAV.
    """
    return _sound(count, layout, frequency)


@lru_cache(maxsize=32)
def _sound(count: int, layout: str, frequency: float) -> tuple[EncodedPacket, ...]:
    import av

    encoder: Any = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = OPUS_RATE_HZ, layout, "flt"
    encoder.time_base = Fraction(1, OPUS_RATE_HZ)
    encoder.options = {"application": "audio", "frame_duration": "20"}
    encoder.open()
    caps = EncodedCaps(codec="opus", rate=OPUS_RATE_HZ, layout=layout, extradata=bytes(encoder.extradata or b""))
    data: list[bytes] = []
    for index in range(count):
        sound = make_sound(index, samples=OPUS_SAMPLES, rate=OPUS_RATE_HZ, layout=layout, frequency=frequency)
        frame: Any = av.AudioFrame.from_ndarray(sound.array("flt").reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts = OPUS_RATE_HZ, index * OPUS_SAMPLES
        data += [bytes(packet) for packet in encoder.encode(frame)]
    step_ns = OPUS_SAMPLES * 1_000_000_000 // OPUS_RATE_HZ
    return tuple(
        EncodedPacket(caps, packet, index * step_ns, duration_ns=step_ns) for index, packet in enumerate(data[:count])
    )


def units_of(packet: EncodedPacket) -> Iterator[bytes]:
    """The NAL units of an h264 packet, without their start codes."""
    yield from split_annex_b(packet.data)
