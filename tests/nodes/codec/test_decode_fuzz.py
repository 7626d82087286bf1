"""decode survives any bytes: it raises nothing, keeps little, and shows pictures again after a keyframe."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import EncodedCaps, EncodedPacket, VideoFrame
from flowstream.testing import Harness
from flowstream_nodes.codec.decode import Decode
from flowstream_nodes.codec.hw_encode import HwEncode

FRAME_NS = 33_333_333
CODECS = ("h264", "hevc", "vp8", "vp9", "av1")
CORPUS = Path(__file__).parent / "corpus"


@lru_cache
def clip(codec: str) -> tuple[EncodedPacket, ...]:
    """Twelve packets of moving squares, with a second keyframe in the middle."""
    with Harness(HwEncode, {"codec": codec, "bitrate": "300k", "keyframe_interval": "200ms"}) as encode:
        for i in range(12):
            array = np.full((64, 64, 3), 60, np.uint8)
            array[8 + i : 24 + i, 2 * i : 2 * i + 24] = (200, 40, 90)
            encode.push(VideoFrame.from_array(array, time_ns=i * FRAME_NS), "video")
        return tuple(encode.payloads("packets"))


def damage(packet: EncodedPacket, draw_at: int, draw_byte: int, kind: int) -> EncodedPacket:
    """The packet with a byte changed, cut off, doubled, or something put in."""
    data, at = packet.data, draw_at % len(packet.data)
    changed = (
        data[:at] + bytes((draw_byte,)) + data[at + 1 :],
        data[: at + 1],
        data[:at] + data[at:] * 2,
        data[:at] + bytes((draw_byte,)) * 7 + data[at:],
        data[at:],
    )[kind % 5]
    return replace(packet, data=changed)


def survives(packets: list[EncodedPacket], good: tuple[EncodedPacket, ...]) -> None:
    """Gives packets of any content and then good ones, which begin with a keyframe: the last of them is shown."""
    with Harness(Decode) as decode:
        for index, packet in enumerate([*packets, *good]):
            decode.push(replace(packet, time_ns=index * FRAME_NS, decode_ns=None))
        decode.finish()
        node = decode.node
        assert isinstance(node, Decode)
        assert len(node._inside) <= 64
        shown = [frame.time_ns for frame in decode.payloads("video")]
        assert shown == sorted(shown)
        assert shown[-1:] == [(len(packets) + len(good) - 1) * FRAME_NS]


@pytest.mark.parametrize("codec", CODECS)
@given(
    damages=st.lists(
        st.tuples(st.integers(0, 11), st.integers(0, 1 << 16), st.integers(0, 255), st.integers(0, 4)),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_damaged_packets(codec: str, damages: list[tuple[int, int, int, int]]) -> None:
    packets = list(clip(codec))
    for index, at, byte, kind in damages:
        packets[index] = damage(packets[index], at, byte, kind)
    survives(packets, clip(codec))


@pytest.mark.parametrize("codec", CODECS)
@given(contents=st.lists(st.tuples(st.binary(min_size=1, max_size=200), st.booleans()), min_size=1, max_size=6))
def test_any_bytes(codec: str, contents: list[tuple[bytes, bool]]) -> None:
    caps = clip(codec)[0].caps
    survives([EncodedPacket(caps, data, 0, keyframe=keyframe) for data, keyframe in contents], clip(codec))


@given(order=st.lists(st.tuples(st.sampled_from(CODECS), st.integers(0, 11)), min_size=1, max_size=10))
def test_packets_of_any_codec_in_any_order(order: list[tuple[str, int]]) -> None:
    survives([clip(codec)[index] for codec, index in order], clip("h264"))


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.bin")), ids=lambda path: path.stem)
def test_what_broke_decoders_before(path: Path) -> None:
    """Files are named CODEC-what-it-is.bin; each is one packet, given as a keyframe and as none."""
    codec = path.stem.partition("-")[0]
    caps = EncodedCaps(codec=codec)
    data = path.read_bytes()
    survives([EncodedPacket(caps, data, 0, keyframe=keyframe) for keyframe in (True, False)], clip(codec))


def test_there_is_a_corpus() -> None:
    assert {path.stem.partition("-")[0] for path in CORPUS.glob("*.bin")} == set(CODECS)
