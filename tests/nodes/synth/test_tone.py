"""tone: pitch, loudness, no clicks, and its beat."""

import numpy as np

from flowstream.testing import Harness, check_node
from flowstream_nodes.synth.tone import RATE, Tone


def sound_of(frames: list) -> np.ndarray:  # type: ignore[type-arg]
    return np.concatenate([frame.array()[0] for frame in frames])


def loudest_hz(samples: np.ndarray) -> float:  # type: ignore[type-arg]
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * RATE / len(samples))


def test_conformance() -> None:
    check_node(Tone)


def test_frames_are_20_ms_and_leave_when_their_last_sample_is_there() -> None:
    with Harness(Tone) as tone:
        start_ns = tone.clock.now_ns()
        frames = tone.run(emissions=3)
        assert [f.time_ns for f in frames] == [0, 20_000_000, 40_000_000]
        assert [f.capture_ns for f in frames] == [start_ns, start_ns + 20_000_000, start_ns + 40_000_000]
        assert tone.clock.now_ns() == start_ns + 60_000_000
        first = frames[0]
        assert (first.samples, first.rate, first.layout, first.format) == (960, 48_000, "stereo", "fltp")
        assert (frames[0].array()[0] == frames[0].array()[1]).all()


def test_pitch_and_loudness_are_those_asked_for() -> None:
    with Harness(Tone, {"frequency": 1000.0, "level": -12.0, "accent": False}) as tone:
        samples = sound_of(tone.run(emissions=50)[1:])
        assert abs(loudest_hz(samples) - 1000) < 2
        assert abs(np.abs(samples).max() - 10 ** (-12 / 20)) < 0.001


def test_a_change_makes_no_click() -> None:
    with Harness(Tone, {"frequency": 200.0, "level": -10.0, "accent": False}) as tone:
        tone.run(emissions=5)
        before = tone.payloads()
        tone.reconfigure(frequency=900.0, level=-3.0)
        after = tone.run(emissions=10)
        samples = sound_of([*before, *after])
        steepest = 2 * np.pi * 900 / RATE * 10 ** (-3 / 20)
        assert np.abs(np.diff(samples)).max() <= steepest * 1.05
        assert abs(loudest_hz(sound_of(after[2:])) - 900) < 10


def test_the_accent_sounds_an_octave_above_at_every_full_second() -> None:
    with Harness(Tone, {"frequency": 400.0}) as tone:
        frames = tone.run(duration_ns=2_500_000_000)

        def octave(start_ns: int) -> float:
            samples = sound_of([f for f in frames if start_ns <= f.time_ns < start_ns + 100_000_000])
            spectrum = np.abs(np.fft.rfft(samples))
            return float(spectrum[80] / spectrum[40])  # 800 Hz over 400 Hz, in bins of 10 Hz

        assert octave(1_000_000_000) > 0.3
        assert octave(2_000_000_000) > 0.3
        assert octave(1_500_000_000) < 0.01


def test_sound_is_skipped_when_it_is_much_too_late() -> None:
    with Harness(Tone) as tone:
        before = tone.run(emissions=2)
        tone.clock.step(1_000_000_000)
        frames = tone.run(emissions=3)
        assert frames[0].time_ns - before[-1].time_ns > 900_000_000
        assert tone.clock.now_ns() - frames[-1].capture_ns < 60_000_000
        assert tone.facts["skipped"] > 45


def test_a_short_delay_is_caught_up_without_a_gap() -> None:
    with Harness(Tone) as tone:
        tone.run(emissions=2)
        tone.clock.step(150_000_000)
        frames = tone.run(emissions=10)
        assert [f.time_ns for f in frames] == [n * 20_000_000 for n in range(2, 12)]
        assert "skipped" not in tone.facts


def test_it_ends_after_its_duration() -> None:
    with Harness(Tone, {"duration": "1s"}) as tone:
        assert len(tone.run()) == 50


def test_it_never_exceeds_full_scale() -> None:
    with Harness(Tone, {"level": 0.0}) as tone:
        assert np.abs(sound_of(tone.run(emissions=60))).max() <= 1.0
