"""RTP payloads of the codecs that browsers play."""

from __future__ import annotations

from flowstream import EncodedPacket
from flowstream.proto import av1, h264, vp8, vp9


def payloads_of(packet: EncodedPacket, *, max_size: int) -> list[bytes]:
    """The payloads of one access unit, in order, each of at most ``max_size`` bytes.

    Frames carry no picture ids: all are sent, and so their packets' numbers say what depends on what.

    Raises:
        ValueError: the access unit is damaged, or has nothing to show.
    """
    match packet.caps.codec:
        case "h264":
            return h264.packetize(h264.split_annex_b(packet.data), max_size=max_size)
        case "vp8":
            return vp8.packetize(packet.data, max_size=max_size)
        case "vp9":
            width, height = packet.caps.width, packet.caps.height
            size = (width, height) if isinstance(width, int) and isinstance(height, int) else None
            return vp9.packetize(packet.data, max_size=max_size, size=size)
        case "av1":
            return av1.packetize(av1.split_obus(packet.data), max_size=max_size)
        case other:
            raise ValueError(f"browsers play no {other}")


def profile_of(packet: EncodedPacket) -> str | None:
    """H.264's profile-level-id in the parameter sets of a keyframe; None if it has none."""
    return h264.profile_level_id(h264.split_annex_b(packet.data))


def codec_of(packet: EncodedPacket) -> str:
    """The one codec that a packet has."""
    codec = packet.caps.codec
    assert isinstance(codec, str), "packets have one codec"
    return codec
