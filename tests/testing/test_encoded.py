"""Encoded media of the kit is real: decoders take it, and it is the same every time."""

import subprocess
import sys

import numpy as np
import pytest

from flowstream.testing import Harness, encode_pictures, encode_sound, make_frame, make_sounds, units_of
from flowstream_nodes.codec.decode import Decode


def test_pictures_decode_to_what_was_encoded() -> None:
    packets = encode_pictures(12, gop=5)
    assert [packet.keyframe for packet in packets] == [index % 5 == 0 for index in range(12)]
    with Harness(Decode) as decode:
        for packet in packets:
            decode.push(packet)
        decode.finish()
        frames = decode.payloads()
    assert [frame.time_ns for frame in frames] == [make_frame(index).time_ns for index in range(12)]
    for index in (0, 11):
        wanted = make_frame(index, format="yuv420p").array("gray").astype(int)
        assert np.abs(frames[index].array("gray").astype(int) - wanted).mean() < 6


def test_every_keyframe_can_be_begun_with() -> None:
    for packet in encode_pictures(12, gop=5):
        kinds = [unit[0] & 0x1F for unit in units_of(packet)]
        assert (kinds[-1] == 5) == packet.keyframe
        assert ({7, 8} <= set(kinds)) == packet.keyframe
        assert packet.caps.extradata is not None
        assert packet.data.startswith(packet.caps.extradata) == packet.keyframe


def test_pictures_say_when_they_were_captured_if_asked() -> None:
    assert encode_pictures(2)[1].capture_ns is None
    assert [packet.capture_ns for packet in encode_pictures(2, is_captured=True)] == [1_000_000_000, 1_033_333_333]


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2)])
def test_sound_decodes_to_a_tone(layout: str, channels: int) -> None:
    packets = encode_sound(50, layout=layout)
    assert [packet.time_ns for packet in packets] == [index * 20_000_000 for index in range(50)]
    with Harness(Decode) as decode:
        for packet in packets:
            decode.push(packet)
        decode.finish()
        pieces = [frame.array("fltp") for frame in decode.payloads()]
    wave = np.concatenate(pieces, axis=-1)
    assert wave.shape[0] == channels
    spectrum = np.abs(np.fft.rfft(wave[0][9600:48_000]))
    assert abs(int(spectrum.argmax()) * 48_000 / len(wave[0][9600:48_000]) - 440) < 3


def test_the_same_arguments_give_the_same_bytes_in_another_process() -> None:
    assert encode_pictures(3) is encode_pictures(3)
    code = (
        "import hashlib; from flowstream.testing import encode_pictures, encode_sound;"
        "print(hashlib.sha256(b''.join(p.data for p in (*encode_pictures(5), *encode_sound(5)))).hexdigest())"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
        for _ in range(2)
    )
    assert first == second


def test_sounds_follow_one_another() -> None:
    first, second = make_sounds(2, samples=480)
    assert (first.time_ns, second.time_ns) == (0, 10_000_000)
    step = np.diff(np.concatenate([first.array("fltp")[0], second.array("fltp")[0]]))
    assert np.abs(step).max() < 0.03, "the wave has no step where one ends and the next begins"
