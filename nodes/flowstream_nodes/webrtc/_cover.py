"""The black picture that viewers see in the place of one that they may not see."""

from __future__ import annotations

import fractions
from functools import lru_cache

from flowstream.proto.h264 import packetize, split_annex_b

SIZE = 640, 360
"""When no picture has come whose size it could have."""


@lru_cache(maxsize=8)
def black_keyframe(width: int, height: int) -> bytes:
    """A black picture by itself: H.264 in Annex B form, Constrained Baseline, its parameter sets before it. Blocks.

    A decoder that gets it shows nothing of what it was given before, also in a player that knows of no pause.
    """
    import av

    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, level in zip(frame.planes, (16, 128, 128), strict=True):  # black in limited range (BT.709 section 3)
        plane.update(bytes([level]) * plane.buffer_size)
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = fractions.Fraction(1, 30), fractions.Fraction(30)
    encoder.thread_count = 1
    encoder.profile = "Baseline"
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency"}
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def cover(width: int, height: int, *, max_size: int) -> list[bytes]:
    """The payloads of RTP packets with that picture; blocks."""
    return packetize(split_annex_b(black_keyframe(width, height)), max_size=max_size)
