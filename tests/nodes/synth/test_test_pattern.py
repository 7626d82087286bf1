"""test-pattern: its beat, its counter, and what of it survives an encoder."""

import subprocess
import sys
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from pydantic import ValidationError

from flowstream import Size, VideoFrame
from flowstream.testing import Counter, Harness, check_node, read_counter
from flowstream_nodes.synth._picture import Picture
from flowstream_nodes.synth.test_pattern import PatternConfig, TestPattern

WALLCLOCK_MS = 1_767_225_600_000  # where the harness's clock starts


def test_conformance() -> None:
    check_node(TestPattern, {"size": "160x90"})


def test_frames_come_on_the_beat_with_times_and_counter() -> None:
    with Harness(TestPattern, {"size": "320x180", "fps": 25.0}) as pattern:
        frames = pattern.run(emissions=50)
        assert [f.time_ns for f in frames] == [n * 40_000_000 for n in range(50)]
        assert [f.capture_ns - frames[0].capture_ns for f in frames] == [n * 40_000_000 for n in range(50)]
        assert frames[0].duration_ns == 40_000_000
        assert [read_counter(f) for f in frames] == [
            Counter(n, (WALLCLOCK_MS + n * 40) % 2**32) for n in range(50)
        ]  # fmt: skip
        assert pattern.facts == {}


def test_the_beat_does_not_drift_where_the_period_is_no_whole_number() -> None:
    with Harness(TestPattern, {"size": "160x90", "fps": 30.0}) as pattern:
        frames = pattern.run(emissions=301)
        assert frames[300].time_ns == 10_000_000_000
        assert {b.time_ns - a.time_ns for a, b in pairwise(frames)} == {33_333_333, 33_333_334}


def test_frames_are_skipped_and_counted_when_it_is_late() -> None:
    with Harness(TestPattern, {"size": "160x90", "fps": 10.0}) as pattern:
        pattern.run(emissions=3)
        pattern.clock.step(450_000_000)
        frames = pattern.run(emissions=3)
        assert [read_counter(f).frame for f in frames] == [6, 7, 8], "3, 4 and 5 could not be shown in time"
        assert [f.time_ns for f in frames] == [600_000_000, 700_000_000, 800_000_000]
        assert pattern.facts == {"skipped": 3}


def test_a_new_rate_begins_after_the_frame_before() -> None:
    with Harness(TestPattern, {"size": "160x90", "fps": 10.0}) as pattern:
        before = pattern.run(emissions=5)
        pattern.reconfigure(fps=50.0)
        after = pattern.run(emissions=5)
        times = [f.time_ns for f in [*before, *after]]
        steps = [b - a for a, b in pairwise(times)]
        assert steps == [100_000_000] * 4 + [20_000_000] * 5
        assert [read_counter(f).frame for f in after] == [5, 6, 7, 8, 9]


def test_it_ends_after_its_duration() -> None:
    with Harness(TestPattern, {"size": "160x90", "fps": 10.0, "duration": "2s"}) as pattern:
        assert len(pattern.run()) == 20
        assert not pattern.is_running


def test_frames_are_not_drawn_over_one_another() -> None:
    """Frames are shared: what is in flight must not change."""
    with Harness(TestPattern, {"size": "160x90"}, threads=True) as pattern:
        frames = pattern.run(emissions=10)
        assert len({f.array().tobytes() for f in frames}) == 10


def test_the_ball_lights_up_at_every_full_second() -> None:
    picture = Picture(Size(320, 180))
    lit = [int(picture.render(0, second, 0)[:90].max()) for second in (0.95, 1.0, 1.05, 1.15)]
    assert lit[1] == lit[2] > lit[0] == lit[3]


@pytest.mark.parametrize("size", [(160, 90), (320, 240), (854, 480), (1280, 720), (720, 1280), (1920, 1080)])
def test_every_size_can_be_read(size: tuple[int, int]) -> None:
    array = Picture(Size(*size)).render(0xABCDEF, 1.25, 1_234_567_890_123_456_789)
    frame = VideoFrame.from_array(array, format="yuv420p", time_ns=0)
    assert read_counter(frame) == Counter(0xABCDEF, 1_234_567_890_123 % 2**32)
    assert read_counter(frame.array("bgr24")) == Counter(0xABCDEF, 1_234_567_890_123 % 2**32)


def test_the_counter_survives_a_mean_encoder_and_scaling() -> None:
    """H.264 at 600 kbit/s and 720p30, looked at in half the size."""
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 1280, 720, "yuv420p", Fraction(1, 30)
    encoder.bit_rate = 600_000
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "maxrate": "600k", "bufsize": "300k"}
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    picture = Picture(Size(1280, 720))
    read, encoded = [], 0
    for n in range(60):
        frame = VideoFrame.from_array(picture.render(n, n / 30, n * 33_000_000), format="yuv420p", time_ns=n)
        for packet in encoder.encode(frame.to_av()):
            encoded += packet.size
            for decoded in decoder.decode(packet):
                small = decoded.reformat(width=640, height=360, format="gray").to_ndarray()
                read.append(read_counter(small))
    read += [read_counter(decoded.reformat(format="gray").to_ndarray()) for decoded in decoder.decode(None)]
    assert read == [Counter(n, n * 33) for n in range(60)]
    assert encoded * 8 / 2 < 800_000, "the encoder was as mean as it should be"


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("641x360", "641x360 has an odd side, which 4:2:0 colour cannot have; write 640x360"),
        ("64x64", "64x64 is too small for the counter; 160x90 is the smallest"),
    ],
)
def test_sizes_that_cannot_be(size: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PatternConfig.model_validate({"size": size})


def test_it_runs_without_opencv_and_pyav() -> None:
    """The first graph that somebody runs must not fail for want of a library that it does not need."""
    code = (
        "import sys\n"
        "sys.modules['cv2'] = sys.modules['av'] = None\n"
        "from flowstream.testing import Harness\n"
        "from flowstream_nodes.synth.test_pattern import TestPattern\n"
        "with Harness(TestPattern, {'size': '160x90'}) as pattern:\n"
        "    print(len(pattern.run(emissions=3)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_digits_are_told_apart() -> None:
    from flowstream_nodes.synth import _glyphs

    shapes = [_glyphs.glyph(digit, 48) for digit in "0123456789"]
    assert all(0.1 < shape.mean() < 0.6 for shape in shapes)
    for one, another in pairwise(shapes):
        width = min(one.shape[1], another.shape[1])
        assert np.abs(one[:, :width] - another[:, :width]).mean() > 0.05
    with pytest.raises(KeyError):
        _glyphs.glyph("x", 48)
