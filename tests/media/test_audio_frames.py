"""Sound: arrays, conversions, and the way to PyAV and back."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import AudioCaps, AudioFrame
from flowstream.media.samples import CHANNELS
from flowstream.testing import make_sound

FORMATS = ("s16", "s16p", "s32", "s32p", "flt", "fltp")
PLANAR = ("s16p", "s32p", "fltp")


def test_an_array_becomes_sound() -> None:
    samples = np.zeros((2, 480), np.float32)
    sound = AudioFrame.from_array(samples, rate=48_000, time_ns=3)
    assert sound.caps == AudioCaps(format="fltp", rate=48_000, layout="stereo")
    assert (sound.samples, sound.duration_ns, sound.time_ns, sound.size_bytes) == (480, 10_000_000, 3, 3840)
    assert np.shares_memory(sound.array(), samples)


def test_shared_sound_is_read_only_and_a_copy_is_not() -> None:
    sound = make_sound()
    with pytest.raises(ValueError, match="read-only"):
        sound.array()[:] = 0
    copy = sound.writable()
    copy.array()[:] = 0
    assert sound.array().any()
    assert copy.time_ns == sound.time_ns


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_every_format_becomes_every_other(source: str, target: str) -> None:
    sound = make_sound(format=source, samples=100)
    array = sound.array(target)
    assert array.shape == ((2, 100) if target in PLANAR else (100, 2))
    planar = array if target in PLANAR else array.T
    scale = {"s16": 1 << 15, "s32": 1 << 31, "flt": 1}[target.removesuffix("p")]
    wanted = make_sound(samples=100).array()
    assert np.abs(planar / scale - wanted).max() <= 1 / 32768


@given(st.lists(st.integers(-(1 << 15), (1 << 15) - 1), min_size=1, max_size=50))
def test_16_bits_survive_float(samples: list[int]) -> None:
    sound = AudioFrame.from_array(np.array([samples], np.int16), rate=8000, layout="mono", time_ns=0)
    assert (sound.writable("flt").array("s16p") == sound.array()).all()


def test_too_loud_is_clipped_not_wrapped() -> None:
    loud = AudioFrame.from_array(np.array([[1.5, -1.5, 1.0]], np.float32), rate=8000, time_ns=0)
    assert loud.array("s16").ravel().tolist() == [32767, -32768, 32767]
    assert loud.array("s32").ravel().tolist() == [2147483647, -2147483648, 2147483647]


@pytest.mark.parametrize("format", ["s16", "s16p", "s32", "flt", "fltp"])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_sound_goes_to_pyav_and_back(format: str, layout: str) -> None:
    sound = make_sound(3, format=format, layout=layout)
    theirs = sound.to_av()
    assert (theirs.pts, theirs.sample_rate, theirs.samples) == (3 * 960, 48_000, 960)
    again = AudioFrame.from_av(theirs, time_ns=sound.time_ns)
    assert again.caps == sound.caps
    assert (again.array() == sound.array()).all()


def test_padding_of_a_decoder_is_left_out() -> None:
    """FFmpeg rounds planes up; only the samples count."""
    theirs = make_sound(samples=37).to_av()
    sound = AudioFrame.from_av(theirs, time_ns=0)
    assert sound.array().shape == (2, 37)
    assert (sound.array() == make_sound(samples=37).array()).all()


@pytest.mark.parametrize(
    ("array", "arguments", "message"),
    [
        (np.zeros((2, 9), np.int16), {"rate": 8000, "time_ns": 0, "format": "fltp"},
         "fltp takes float32 of shape (channels, samples), not int16 of shape (2, 9)"),
        (np.zeros(9, np.float32), {"rate": 8000, "time_ns": 0, "format": "flt"},
         "flt takes float32 of shape (samples, channels), not float32 of shape (9,)"),
        (np.zeros((3, 9), np.float32), {"rate": 8000, "time_ns": 0},
         "the array has 3 channels, the layout is not given; name one that fits"),
        (np.zeros((2, 9), np.float32), {"rate": 8000, "time_ns": 0, "layout": "mono"},
         "the array has 2 channels, the layout mono; name one that fits"),
        (np.zeros((2, 9), np.float32), {"rate": 8000},
         "sound needs a rate and a time: pass like=frame, or rate= and time_ns="),
        (np.zeros((2, 9), np.float32), {"time_ns": 0},
         "sound needs a rate and a time: pass like=frame, or rate= and time_ns="),
        (np.zeros((2, 9), np.uint8), {"rate": 8000, "time_ns": 0, "format": "u8p"},
         "no array form for sample format 'u8p'; there is one for s16, s16p, s32, s32p, flt, fltp"),
        (np.zeros((2, 9), np.float32), {"rate": 8000, "time_ns": 0, "layout": "octagonal"},
         f"unknown channel layout 'octagonal'; known are {', '.join(CHANNELS)}"),
    ],
)  # fmt: skip
def test_what_is_no_sound(array: np.ndarray[Any, Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        AudioFrame.from_array(array, **arguments)
    assert str(caught.value) == message


def test_what_follows_from_like() -> None:
    like = make_sound(2, format="s16", capture_ns=5)
    sound = AudioFrame.from_array(np.zeros((960, 2), np.int16), like=like)
    assert (sound.caps, sound.time_ns, sound.capture_ns) == (like.caps, like.time_ns, 5)
    mono = AudioFrame.from_array(np.zeros((960, 1), np.int16), like=like)
    assert mono.layout == "mono"
