"""decode: what was encoded comes out again at once, and a broken packet costs only what hangs on it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

import numpy as np
import pytest

from flowstream import AudioCaps, AudioFrame, EncodedPacket, FlowstreamError, VideoCaps, VideoFrame
from flowstream.testing import make_sound
from flowstream.testing.harness import Harness
from flowstream_nodes.codec._decoders import Acceleration, software_decoder
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
        return encode.payloads("packets")


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


GARBAGE = b"\x00\x00\x00\x01\x65" + b"\xff" * 40


@pytest.mark.parametrize(
    ("damaged", "shown"), [("freeze", [0, 1, 2, 3, *range(10, 20)]), ("conceal", [0, 1, 2, 3, *range(5, 20)])]
)
def test_a_broken_packet_asks_for_a_keyframe_and_pictures_go_on_with_it(damaged: str, shown: list[int]) -> None:
    packets = pictures(10) + pictures(10, start=10)
    packets[4] = replace(packets[4], data=GARBAGE)
    with Harness(Decode, {"damaged": damaged}) as decode:
        for packet in packets:
            decode.push(packet)
        times = [frame.time_ns // FRAME_NS for frame in decode.payloads()]
        assert times == shown
        assert [port for port, _ in decode.requests] == ["packets"]
        assert decode.facts["broken"] == 1


def test_half_a_picture_is_concealed_from_the_one_before_and_a_keyframe_asked_for() -> None:
    rng = np.random.default_rng(3)
    with Harness(HwEncode, {"bitrate": "2M", "keyframe_interval": "60s"}) as encode:
        for i in range(4):
            array = np.kron(rng.integers(0, 255, (24, 32, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
            encode.push(VideoFrame.from_array(array, time_ns=i * FRAME_NS, duration_ns=FRAME_NS))
        packets = encode.payloads("packets")
    packets[2] = replace(packets[2], data=packets[2].data[: len(packets[2].data) // 2])
    with Harness(Decode) as decode:
        counts = [len(decode.push(packet)) for packet in packets]
        assert counts == [1, 1, 1, 1]
        assert len(decode.requests) == 1
        assert decode.facts["broken"] >= 1
        decode.push(pictures(1, start=50)[0])
        assert len(decode.push(pictures(2, start=51)[1])) == 1
        assert len(decode.requests) == 1, "the keyframe came"


def test_after_a_broken_first_keyframe_nothing_is_shown_before_the_next() -> None:
    packets = pictures(5) + pictures(2, start=5)
    packets[0] = replace(packets[0], data=GARBAGE)
    with Harness(Decode) as decode:
        for packet in packets:
            decode.push(packet)
        assert [frame.time_ns // FRAME_NS for frame in decode.payloads()] == [5, 6]


def test_a_picture_too_large_to_be_meant_is_damage_and_not_gigabytes() -> None:
    import av

    huge: Any = av.CodecContext.create("libx264", "w")
    huge.width, huge.height, huge.pix_fmt, huge.time_base = 16_384, 2_176, "yuv420p", Fraction(1, 30)
    huge.options = {"preset": "ultrafast", "tune": "zerolatency"}
    (made,) = huge.encode(av.VideoFrame(16_384, 2_176, "yuv420p"))
    packet = replace(pictures(1)[0], data=bytes(made))
    with Harness(Decode) as decode:
        assert decode.push(packet) == []
        assert decode.facts["broken"] == 1
        assert len(decode.requests) == 1


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp8", "vp9", "av1"])
def test_every_codec_comes_back_at_once(codec: str) -> None:
    with Harness(HwEncode, {"codec": codec, "bitrate": "1M"}) as encode, Harness(Decode) as decode:
        for i in range(8):
            array = np.full((96, 128, 3), 60 + 12 * i, np.uint8)
            (packet,) = encode.push(VideoFrame.from_array(array, time_ns=i * FRAME_NS, capture_ns=i), "video")
            (frame,) = decode.push(packet)
            assert (frame.time_ns, frame.capture_ns) == (i * FRAME_NS, i)
            assert brightness(frame) == pytest.approx(60 + 12 * i, abs=6)


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")
def test_memory_stays_flat_over_ten_thousand_pictures() -> None:
    packets = pictures(100, keyframes="1s")
    with Harness(Decode) as decode:
        node = decode.node
        assert isinstance(node, Decode)
        sizes, shown = [], 0
        for turn in range(100):
            for i, packet in enumerate(packets):
                moved = replace(packet, time_ns=(turn * 100 + i) * FRAME_NS)
                shown += sum(1 for _ in node.process(moved))
            sizes.append(resident_bytes())
        assert shown == 10_000
        assert sizes[-1] - sizes[9] < 2_000_000, "after the first thousand, nothing is kept"


class Failing:
    """Hardware that decodes and then stops to."""

    def __init__(self, codec: str, *, good: int) -> None:
        self._real = software_decoder(codec)
        self._left = good

    def decode(self, packet: Any) -> list[Any]:
        self._left -= 1
        if self._left < 0:
            raise OSError(5, "the device is gone")
        return list(self._real.decode(packet))


@pytest.mark.parametrize(
    ("good", "keyframe_again", "shown"),
    [(3, False, [0, 1, 2]), (3, True, [0, 1, 2, 6, 7]), (0, False, [0, 1, 2, 3, 4, 5])],
)
def test_hardware_that_fails_is_left_for_the_processor(
    monkeypatch: pytest.MonkeyPatch, good: int, keyframe_again: bool, shown: list[int]
) -> None:
    def opened(codec: str) -> Any:
        return Failing(codec, good=good)

    broken = Acceleration("first", (sys.platform,), open=lambda codec: refuse())
    monkeypatch.setattr(
        "flowstream_nodes.codec.decode.ACCELERATIONS", [broken, Acceleration("second", (sys.platform,), open=opened)]
    )
    packets = pictures(6) + (pictures(2, start=6) if keyframe_again else [])
    with Harness(Decode) as decode:
        for index, packet in enumerate(packets):
            decode.push(packet)
            if index == 0 and good:
                assert decode.facts["decoder"] == "second"
        assert [frame.time_ns // FRAME_NS for frame in decode.payloads()] == shown
        assert decode.facts["decoder"] is None
        assert len(decode.requests) == (1 if good else 0)
    with Harness(Decode, {"hardware": "off"}) as decode:
        for packet in packets[:6]:
            decode.push(packet)
        assert len(decode.payloads()) == 6


def refuse() -> Any:
    raise ValueError("first does not open for h264")


def test_what_hardware_gives_has_the_format_that_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interleaved(Failing):
        def decode(self, packet: Any) -> list[Any]:
            given = []
            for frame in super().decode(packet):
                made = frame.reformat(format="nv12")
                made.pts, made.time_base = frame.pts, frame.time_base
                given.append(made)
            return given

    monkeypatch.setattr(
        "flowstream_nodes.codec.decode.ACCELERATIONS",
        [Acceleration("chip", (sys.platform,), open=lambda codec: cast("Any", Interleaved(codec, good=99)))],
    )
    with Harness(Decode) as decode:
        for i, packet in enumerate(pictures(3)):
            (frame,) = decode.push(packet)
            assert (frame.format, frame.time_ns) == ("yuv420p", i * FRAME_NS)
            assert brightness(frame) == pytest.approx(40 + i * 4, abs=5)


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
        (packet,) = encode.payloads("packets")
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
