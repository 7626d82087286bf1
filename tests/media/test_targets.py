"""Targets: what a controller asks of encoders."""

import pytest

from flowstream import Record, Size, Target, Targets


def test_they_are_values() -> None:
    one = Targets({"encode": Target(500_000, fps=15.0, size=Size(640, 360)), "ladder/low": Target(200_000)})
    assert one == Targets(
        of={"encode": Target(500_000, 15.0, Size(640, 360)), "ladder/low": Target(bitrate_bps=200_000)}
    )
    assert one.of["ladder/low"].fps is None
    assert Record(one, 5).value.of["encode"].size == (640, 360)
    with pytest.raises(AttributeError):
        one.of["encode"].bitrate_bps = 1  # type: ignore[misc]


@pytest.mark.parametrize("bitrate_bps", [0, -1])
def test_a_bitrate_that_is_none(bitrate_bps: int) -> None:
    with pytest.raises(ValueError, match=f"a target bitrate is at least 1 bit per second, not {bitrate_bps}"):
        Target(bitrate_bps)


@pytest.mark.parametrize("fps", [0, -1.0, float("nan")])
def test_a_frame_rate_that_is_none(fps: float) -> None:
    with pytest.raises(ValueError, match="a target frame rate is above 0 frames per second, not"):
        Target(1_000, fps=fps)


def test_who_has_no_entry_takes_that_for_the_rest() -> None:
    low, other = Target(200_000, paused=True), Target(1_000_000)
    assert Targets({"low": low}, rest=other).target_of("low") is low
    assert Targets({"low": low}, rest=other).target_of("high") is other
    assert Targets({"low": low}).target_of("high") is None
