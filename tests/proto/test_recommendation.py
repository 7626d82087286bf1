"""What a machine and an uplink hold: the largest picture, then rungs, then speed; and the reason for each."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.picture import Picture, needed_bps
from flowstream.proto.recommendation import Machine, Recommendation, Wish, recommend

M = 1_000_000
SPEEDS = {"medium": 20.0, "veryfast": 9.0, "superfast": 6.0, "ultrafast": 4.0}
HD, FULL_HD = Picture(1280, 720, 30.0), Picture(1920, 1080, 30.0)


def made(picture: Picture = HD, *, cores: int = 2, speeds: dict[str, float] = SPEEDS, **wish: Any) -> Recommendation:
    return recommend(Machine(cores, speeds), Wish(picture, **wish))


def sizes(found: Recommendation) -> list[tuple[int, int]]:
    return [(each.picture.width, each.picture.height) for each in found.rungs]


def test_one_viewer_gets_one_rung_at_the_slowest_speed_that_holds() -> None:
    found = made()
    assert (found.speed, sizes(found)) == ("medium", [(1280, 720)])
    assert found.rungs[0].bitrate_bps == 2 * M
    assert found.reasons == (
        "even medium, the slowest speed, holds",
        "one viewer takes one rung; more rungs are for viewers whose links differ",
    )


def test_several_viewers_get_three_rungs_each_half_the_size_of_the_one_above() -> None:
    found = made(viewers=10)
    assert sizes(found) == [(1280, 720), (640, 360), (320, 180)]
    rates = [each.bitrate_bps for each in found.rungs]
    assert rates == sorted(rates, reverse=True)
    assert found.up_bps == 20 * M


def test_a_speed_that_leaves_no_time_for_harder_pictures_is_not_taken() -> None:
    found = made(FULL_HD)
    assert found.speed == "veryfast"
    assert found.reasons[0] == (
        "medium with 1 rung would take 124% of the time between two pictures for the largest, more than 60%"
    )


def test_a_slow_machine_gives_up_speed_then_rungs_then_size() -> None:
    steps = [made(viewers=3, cores=1, speeds={k: v * n for k, v in SPEEDS.items()}) for n in (1, 3, 4, 6, 10)]
    assert [(each.speed, len(each.rungs), sizes(each)[0][0]) for each in steps] == [
        ("veryfast", 3, 1280),
        ("superfast", 3, 1280),
        ("ultrafast", 1, 1280),
        ("superfast", 1, 960),
        ("ultrafast", 1, 854),
    ]
    assert steps[-1].reasons[0] == (
        "1280x720 at 30 fps does not hold at any speed: ultrafast with 1 rung would take 1.12 cores, "
        "more than the 0.70 cores planned with"
    )


def test_a_machine_that_holds_nothing_is_told_so() -> None:
    found = made(speeds={k: v * 1000 for k, v in SPEEDS.items()})
    assert not found.is_held
    assert found.reasons[-1] == "nothing holds; this is the least, and pictures will be left out"


def test_what_else_encodes_is_not_there_to_plan_with() -> None:
    alone, beside = Machine(2, SPEEDS), Machine(2, SPEEDS, taken=1.2)
    assert recommend(alone, Wish(HD)).speed == "medium"
    assert recommend(beside, Wish(HD)).speed == "superfast"
    assert Machine(1, SPEEDS, taken=9).planned == 0


def test_the_uplink_is_shared_by_all() -> None:
    found = made(viewers=10, uplink_bps=15 * M)
    assert found.rungs[0].bitrate_bps == 1_400_000
    assert found.up_bps <= 15 * M
    assert found.reasons[-1] == (
        "2M would be better for 1280x720 at 30 fps; the uplink, shared by 10 viewers, leaves 1.4M for each"
    )


def test_a_narrow_uplink_takes_a_smaller_picture() -> None:
    found = made(viewers=10, uplink_bps=5 * M)
    assert sizes(found)[0] == (640, 360)
    assert found.reasons[0] == "1280x720 at 30 fps needs 1M for each viewer; the uplink has 470k for each"


def test_serving_thousands_takes_the_processor_too() -> None:
    few, many = made(viewers=2, cores=4), made(viewers=400, cores=4)
    assert many.cores > few.cores + 1


@given(
    st.integers(16, 4096), st.integers(16, 2304), st.sampled_from([5.0, 15.0, 30.0, 60.0]), st.integers(1, 64),
    st.floats(0.1, 500), st.integers(1, 500), st.one_of(st.none(), st.integers(1, 10**9)),
    st.sampled_from(["text", "motion", "camera"]),
)  # fmt: skip
def test_what_is_recommended_holds_whatever_the_machine(
    width: int, height: int, fps: float, cores: int, slow: float, viewers: int, uplink: int | None, content: Any
) -> None:
    machine = Machine(cores, {name: each * slow for name, each in SPEEDS.items()})
    found = recommend(machine, Wish(Picture(width, height, fps), viewers, uplink, content))
    assert found.reasons
    rates = [each.bitrate_bps for each in found.rungs]
    assert rates == sorted(rates, reverse=True)
    assert min(rates) >= 1
    if found.is_held:
        assert found.cores <= machine.planned
    if uplink is not None and uplink > 2 * viewers:
        assert found.up_bps <= uplink
    shown = found.rungs[0].picture.height
    if uplink is not None and found.is_held and shown > max(218, 0.26 * height):  # else there is none that is smaller
        assert needed_bps(found.rungs[0].picture, content) <= uplink / viewers
