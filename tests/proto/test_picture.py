"""What is shown of a picture for a bitrate: text keeps its size, motion its frame rate, and nothing flaps."""

from __future__ import annotations

from itertools import pairwise

import pytest

from flowstream.proto.picture import Content, Picture, PictureChooser, needed_bps, steps

S = 1_000_000_000
WHOLE = Picture(1280, 720, 30.0)
CONTENTS: tuple[Content, ...] = ("text", "motion", "camera")


def settled(chooser: PictureChooser, bitrate: int, *, begin_s: float = 0, seconds: float = 10) -> Picture:
    for tenth in range(int(seconds * 10)):
        chooser.choose(bitrate, most_pixels_per_s=None, now_ns=int((begin_s + tenth / 10) * S))
    return chooser.picture


@pytest.mark.parametrize("content", CONTENTS)
def test_steps_go_down_in_what_they_show_and_in_what_they_need(content: Content) -> None:
    found = steps(content, WHOLE)
    assert found[0] == WHOLE
    assert all(after.pixels_per_s < before.pixels_per_s for before, after in pairwise(found))
    assert all(needed_bps(after, content) < needed_bps(before, content) for before, after in pairwise(found))
    assert all(each.width % 2 == each.height % 2 == 0 for each in found)


def test_text_keeps_its_size_and_motion_its_frame_rate() -> None:
    text = settled(PictureChooser(WHOLE, "text"), 250_000)
    assert (text.width, text.height) == (1280, 720)
    assert text.fps < 15
    motion = settled(PictureChooser(WHOLE, "motion"), 500_000)
    assert motion.fps == 30
    assert motion.width < 720
    camera = settled(PictureChooser(WHOLE, "camera"), 200_000)
    assert camera.width < 1280
    assert camera.fps < 30


@pytest.mark.parametrize("content", CONTENTS)
def test_enough_bits_show_all_and_next_to_none_the_least(content: Content) -> None:
    assert settled(PictureChooser(WHOLE, content), 2_000_000) == WHOLE
    assert settled(PictureChooser(WHOLE, content), 1) == steps(content, WHOLE)[-1]


def test_a_short_dip_makes_it_coarse_and_a_longer_one_smaller() -> None:
    chooser = PictureChooser(WHOLE, "camera")
    assert chooser.choose(300_000, most_pixels_per_s=None, now_ns=0) == WHOLE
    assert chooser.choose(300_000, most_pixels_per_s=None, now_ns=S // 2) == WHOLE
    assert chooser.choose(300_000, most_pixels_per_s=None, now_ns=S).width < 1280


def test_more_is_shown_after_a_while_with_a_margin() -> None:
    chooser = PictureChooser(WHOLE, "camera")
    low = settled(chooser, 300_000)
    needed = int(needed_bps(WHOLE))
    assert settled(chooser, needed, begin_s=10, seconds=60) != WHOLE, "just enough is not enough to go up"
    assert chooser.picture.width >= low.width
    assert settled(chooser, int(needed * 1.35), begin_s=70, seconds=3.9) != WHOLE
    assert settled(chooser, int(needed * 1.35), begin_s=73.9, seconds=1) == WHOLE


def test_more_that_did_not_last_is_tried_ever_later() -> None:
    chooser = PictureChooser(WHOLE, "camera")
    changes, last = 0, chooser.picture
    for tenth in range(6_000):  # ten minutes, five seconds good, five seconds bad
        good = tenth // 50 % 2 == 0
        picture = chooser.choose(2_000_000 if good else 300_000, most_pixels_per_s=None, now_ns=tenth * S // 10)
        changes += picture != last
        last = picture
    assert changes <= 4


def test_what_the_quantiser_says_counts() -> None:
    easy, hard = PictureChooser(WHOLE, "camera"), PictureChooser(WHOLE, "camera")
    for _ in range(60):
        easy.learn(bitrate_bps=500_000, qp_mean=20.0, size=(1280, 720), fps=30.0)
        hard.learn(bitrate_bps=1_200_000, qp_mean=44.0, size=(1280, 720), fps=30.0)
    assert settled(easy, 500_000) == WHOLE
    assert settled(hard, 1_200_000).width < 1280


def test_what_cannot_be_learned_from_is_left_alone() -> None:
    chooser = PictureChooser(WHOLE, "camera")
    chooser.learn(bitrate_bps=0, qp_mean=30.0, size=(1280, 720), fps=30.0)
    chooser.learn(bitrate_bps=100, qp_mean=30.0, size=(1280, 720), fps=0.0)
    assert chooser.hardness == 1.0


def test_the_processor_bounds_it_at_once() -> None:
    chooser = PictureChooser(WHOLE, "motion")
    half = chooser.choose(4_000_000, most_pixels_per_s=WHOLE.pixels_per_s / 2, now_ns=0)
    assert half.pixels_per_s <= WHOLE.pixels_per_s / 2
    assert half.fps == 30
    assert chooser.choose(4_000_000, most_pixels_per_s=1.0, now_ns=1) == steps("motion", WHOLE)[-1]


def test_other_content_takes_other_steps() -> None:
    chooser = PictureChooser(WHOLE, "motion")
    settled(chooser, 500_000)
    chooser.set_content("text")
    assert (chooser.picture.width, chooser.picture.height) == (1280, 720)
    chooser.set_content("text")
    assert settled(chooser, 2_000_000, begin_s=10) == WHOLE
