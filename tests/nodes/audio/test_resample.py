"""resample: rates, layouts and formats; continuous times; what fits is not touched."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from flowstream import AudioFrame
from flowstream.testing import Harness, check_node, make_sound
from flowstream_nodes.audio.resample import Resample, ResampleConfig


def test_conformance() -> None:
    check_node(Resample)
    check_node(Resample, {"rate": [16_000, 48_000], "layout": "mono", "format": ["s16", "flt"]})


def sounds(count: int = 50, *, rate: int = 48_000, **options: Any) -> Iterator[AudioFrame]:
    for index in range(count):
        yield make_sound(index, samples=rate // 50, rate=rate, capture_ns=7_000 + index * 20_000_000, **options)


def resampled(frames: Iterator[AudioFrame], **config: Any) -> list[AudioFrame]:
    with Harness(Resample, config) as resample:
        for frame in frames:
            resample.push(frame)
        resample.finish()
        return resample.payloads()


def wave(frames: list[AudioFrame]) -> np.ndarray[Any, Any]:
    """(channels, samples), of all of them."""
    return np.concatenate([frame.array("fltp") for frame in frames], axis=1)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("from_rate", [16_000, 44_100, 48_000])
def test_the_sound_stays_and_nothing_of_it_is_lost(from_rate: int, rate: int) -> None:
    out = resampled(sounds(rate=from_rate), rate=rate)
    assert {frame.rate for frame in out} == {rate}
    assert abs(sum(frame.samples for frame in out) - rate) <= 1
    got = wave(out)[0]
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(got)) / rate)
    inner = slice(rate // 100, -rate // 100)  # the filter rings at both ends
    assert np.abs(got - expected)[inner].max() < 0.01


def test_times_are_continuous_and_follow_the_capture() -> None:
    out = resampled(sounds(rate=44_100), rate=48_000)
    assert out[0].time_ns == 0
    samples = 0
    for frame in out:
        assert abs(frame.time_ns - samples * 1e9 / 48_000) <= 1
        assert frame.capture_ns == 7_000 + frame.time_ns
        samples += frame.samples
    assert all(frame.caps is out[0].caps for frame in out)


def test_layout_and_format() -> None:
    out = resampled(sounds(layout="stereo"), layout="mono", format="s16")
    assert {(frame.layout, frame.format, frame.rate) for frame in out} == {("mono", "s16", 48_000)}
    assert np.abs(wave(out)).max() == pytest.approx(0.5, abs=0.01)
    (first, *_) = resampled(sounds(2, layout="mono"), layout="5.1")
    assert (first.layout, first.array().shape[0]) == ("5.1", 6)


def test_sound_that_fits_passes_as_it_is() -> None:
    frame = make_sound()
    for config in ({}, {"rate": 48_000, "layout": "stereo", "format": "fltp"}, {"rate": [16_000, 48_000]}):
        with Harness(Resample, config) as resample:
            assert resample.push(frame) == [frame]
            assert resample.payloads()[0] is frame
            assert resample.finish() == []


def test_of_several_choices_the_first_is_made() -> None:
    out = resampled(sounds(2, rate=44_100), rate=[16_000, 48_000], format=["flt", "s16"])
    assert {(frame.rate, frame.format) for frame in out} == {(16_000, "flt")}


def test_what_comes_in_may_change_without_a_loss() -> None:
    with Harness(Resample, {"rate": 48_000, "layout": "stereo", "format": "s16"}, threads=True) as resample:
        at_ns = 0
        for rate, layout, format in (
            (44_100, "mono", "s16"), (16_000, "stereo", "fltp"), (48_000, "stereo", "s16"), (96_000, "5.1", "flt"),
        ):  # fmt: skip
            for index in range(10):
                sound = make_sound(index, samples=rate // 50, rate=rate, layout=layout, format=format)
                resample.push(sound.replace(time_ns=at_ns))
                at_ns += 20_000_000
        resample.finish()
        out = resample.payloads()
    assert {(frame.rate, frame.layout, frame.format) for frame in out} == {(48_000, "stereo", "s16")}
    assert abs(sum(frame.samples for frame in out) - 48_000 * 0.8) <= 4
    for one, two in pairwise(out):
        assert abs(two.time_ns - one.time_ns - one.samples * 1e9 / 48_000) < 100_000


def test_a_gap_stays_a_gap_and_jitter_does_not_show() -> None:
    frames = list(sounds(20, rate=44_100))
    jittered = [f.replace(time_ns=f.time_ns + (n % 3 - 1) * 5_000_000) for n, f in enumerate(frames[:10])]
    later = [f.replace(time_ns=f.time_ns + 2_000_000_000, capture_ns=None) for f in frames[10:]]
    out = resampled(iter(jittered + later), rate=48_000)
    steps = [two.time_ns - one.time_ns - round(one.samples * 1e9 / 48_000) for one, two in pairwise(out)]
    (gap,) = [step for step in steps if abs(step) > 2]
    assert gap == pytest.approx(2_000_000_000, abs=6_000_000)
    assert out[-1].capture_ns is None
    assert abs(sum(frame.samples for frame in out) - 0.4 * 48_000) <= 2


def test_a_jump_back_is_followed() -> None:
    frames = list(sounds(4, rate=44_100))
    back = [f.replace(time_ns=f.time_ns - 60_000_000) for f in frames]
    out = resampled(iter(frames + back), rate=48_000)
    assert min(frame.time_ns for frame in out) == -60_000_000


def test_what_is_wanted_may_change() -> None:
    with Harness(Resample, {"rate": 16_000}) as resample:
        for frame in sounds(10):
            resample.push(frame)
        resample.reconfigure(rate=8_000)
        for frame in sounds(10):
            resample.push(frame.replace(time_ns=frame.time_ns + 200_000_000))
        resample.finish()
        out = resample.payloads()
    by_rate = {rate: sum(frame.samples for frame in out if frame.rate == rate) for rate in (16_000, 8_000)}
    assert by_rate == {16_000: pytest.approx(3_200, abs=1), 8_000: pytest.approx(1_600, abs=1)}


@pytest.mark.parametrize(("config", "layout"), [({"layout": 5.1}, "5.1"), ({"layout": ["mono", 7.1]}, ["mono", "7.1"])])
def test_a_layout_may_be_written_as_a_number(config: dict[str, Any], layout: Any) -> None:
    assert ResampleConfig.model_validate(config).layout == layout


@pytest.mark.parametrize("config", [{"rate": 5}, {"rate": []}, {"layout": "6.5"}, {"format": "dbl"}, {"rate": "48k"}])
def test_values_that_are_none(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ResampleConfig.model_validate(config)
