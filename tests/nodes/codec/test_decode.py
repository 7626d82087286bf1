"""decode: what was encoded comes out again at once, and a broken packet costs only what hangs on it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from flowstream import AudioCaps, AudioFrame, EncodedPacket, FlowstreamError, VideoCaps, VideoFrame
from flowstream.testing import make_sound
from flowstream.testing.harness import Harness
from flowstream_nodes.codec.decode import Decode
from flowstream_nodes.codec.hw_encode import HwEncode
from flowstream_nodes.codec.opus_encode import OpusEncode

FRAME_NS = 33_333_333


def pictures(
    count: int, *, size: tuple[int, int] = (64, 48), start: int = 0, keyframes: str = "60s"
) -> list[EncodedPacket]:
    """Packets of pictures whose brightness counts up."""
    with Harness(HwEncode, {"bitrate": "1M", "keyframe_interval": keyframes}) as encode:
        for i in range(start, start + count):
            array = np.full((size[1], size[0], 3), 40 + i % 40 * 4, np.uint8)
            encode.push(VideoFrame.from_array(array, time_ns=i * FRAME_NS, capture_ns=5_000 + i, duration_ns=FRAME_NS))
        return encode.payloads()


def brightness(frame: VideoFrame) -> float:
    return float(frame.array("bgr24").mean())


def test_each_packet_gives_its_picture_at_once() -> None:
    packets = pictures(20)
    with Harness(Decode) as decode:
        for i, packet in enumerate(packets):
            (frame,) = decode.push(packet)
            assert (frame.time_ns, frame.capture_ns, frame.duration_ns) == (i * FRAME_NS, 5_000 + i, FRAME_NS)
            assert brightness(frame) == pytest.approx(40 + i * 4, abs=5)
            assert (frame.caps.matrix, frame.caps.full_range) == ("smpte170m", False)
        assert decode.finish() == []


def test_reordered_pictures_come_out_in_order_and_none_is_lost() -> None:
    import av

    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base = Fraction(1, 30)
    encoder.framerate = 30
    encoder.options = {"bf": "2", "preset": "fast"}
    made: list[Any] = []
    for i in range(12):
        frame = av.VideoFrame.from_ndarray(np.full((72, 64), 40 + i * 10, np.uint8), format="yuv420p")
        frame.pts = i
        made += encoder.encode(frame)
    made += encoder.encode(None)
    caps = pictures(1)[0].caps
    with Harness(Decode) as decode:
        for packet in made:
            time_ns, decode_ns = packet.pts * FRAME_NS, packet.dts * FRAME_NS
            decode.push(EncodedPacket.from_av(packet, caps=caps, time_ns=time_ns, decode_ns=decode_ns))
        decode.finish()
        assert [frame.time_ns for frame in decode.payloads()] == [i * FRAME_NS for i in range(12)]


def test_a_broken_packet_asks_for_a_keyframe_and_pictures_go_on_with_it() -> None:
    packets = pictures(10) + pictures(10, start=10)
    packets[4] = replace(packets[4], data=b"\x00\x00\x00\x01\x65" + b"\xff" * 40)
    with Harness(Decode) as decode:
        for packet in packets:
            decode.push(packet)
        times = [frame.time_ns // FRAME_NS for frame in decode.payloads()]
        assert times == [0, 1, 2, 3, *range(10, 20)]
        assert [port for port, _ in decode.requests] == ["packets"]
        assert decode.facts["broken"] == 1


def test_a_stream_entered_in_the_middle_waits_for_a_keyframe_and_asks_now_and_then() -> None:
    packets = pictures(40)
    with Harness(Decode) as decode:
        for packet in packets[1:40]:
            assert decode.push(packet) == []
        assert len(decode.requests) == 3  # 1.3 s, twice a second at most
        assert len(decode.push(pictures(1, start=50)[0])) == 1


def test_another_size_is_followed_in_band() -> None:
    with Harness(Decode) as decode:
        for packet in pictures(3) + pictures(3, size=(96, 64), start=3):
            decode.push(packet)
        assert [frame.width for frame in decode.payloads()] == [64] * 3 + [96] * 3


def test_sound_comes_out_of_audio_at_its_time() -> None:
    with Harness(OpusEncode) as encode:
        for i in range(20):
            samples = np.sin(2 * np.pi * 440 * (np.arange(960) + i * 960) / 48_000).astype(np.float32)
            encode.push(
                AudioFrame.from_array(np.tile(samples, (2, 1)), rate=48_000, time_ns=i * 20_000_000, capture_ns=7)
            )
        packets = encode.payloads()
    with Harness(Decode) as decode:
        for packet in packets:
            (frame,) = decode.push(packet)
            assert isinstance(frame, AudioFrame)
        frames = decode.payloads("audio")
    assert [frame.time_ns for frame in frames] == [packet.time_ns for packet in packets]
    assert (frames[5].rate, frames[5].layout, frames[5].samples) == (48_000, "stereo", 960)
    wave = np.concatenate([frame.array("fltp")[0] for frame in frames])[4_800:]
    assert np.argmax(np.abs(np.fft.rfft(wave))) * 48_000 / len(wave) == pytest.approx(440, abs=4)


def test_pictures_then_sound_on_one_input_change_the_decoder() -> None:
    with Harness(OpusEncode) as encode:
        encode.push(AudioFrame.from_array(np.zeros((1, 960), np.float32), rate=48_000, time_ns=0))
        sound = encode.payloads()
    with Harness(Decode) as decode:
        decode.push(pictures(1)[0])
        decode.push(sound[0])
        assert (len(decode.payloads("video")), len(decode.payloads("audio"))) == (1, 1)
        assert decode.payloads("audio")[0].layout == "mono"


def test_a_codec_without_decoder_is_said_plainly() -> None:
    packet = pictures(1)[0]
    with Harness(Decode) as decode, pytest.raises(FlowstreamError, match="there is no decoder for h299"):
        decode.push(replace(packet, caps=replace(packet.caps, codec="h299")))


# --- as a converter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["baseline", "main", "high"])
def test_pictures_are_what_it_said_they_would_be(profile: str) -> None:
    with Harness(HwEncode, {"profile": profile}) as encode, Harness(Decode) as decode:
        encode.push(VideoFrame.from_array(np.full((48, 64, 3), 90, np.uint8), time_ns=0), "video")
        (packet,) = encode.payloads()
        told = Decode.negotiate(decode.node.config, {"packets": packet.caps})["video"]
        assert told == VideoCaps(format="yuv420p", width=64, height=48)
        (frame,) = decode.push(packet)
        frame.caps.intersect(told)


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_sound_is_what_it_said_it_would_be(layout: str) -> None:
    with Harness(OpusEncode) as encode, Harness(Decode) as decode:
        encode.push(make_sound(layout=layout))
        (packet,) = encode.payloads()
        told = Decode.negotiate(decode.node.config, {"packets": packet.caps})["audio"]
        assert told == AudioCaps(rate=48_000, layout=layout)
        (frame,) = decode.push(packet)
        frame.caps.intersect(told)


def test_what_comes_in_may_turn_from_pictures_to_sound_and_back() -> None:
    with Harness(OpusEncode) as encode:
        encode.push(make_sound())
        (sound,) = encode.payloads()
    with Harness(Decode) as decode:
        given = [*pictures(2), sound, *pictures(2)]
        out = [[type(each) for each in decode.push(packet)] for packet in given]
    assert out == [[VideoFrame], [VideoFrame], [AudioFrame], [VideoFrame], [VideoFrame]]
