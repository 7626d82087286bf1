"""Caps: the meeting of two sets."""

import pytest

from flowstream import AudioCaps, CapsConflict, EncodedCaps, VideoCaps


def test_any_meets_a_value() -> None:
    met = VideoCaps(format="yuv420p").intersect(VideoCaps(width=640, height=360))
    assert met == VideoCaps(format="yuv420p", width=640, height=360)


def test_choices_keep_the_order_of_the_offering_side() -> None:
    offered = VideoCaps(format=("nv12", "bgr24", "yuv420p"))
    accepted = VideoCaps(format=("yuv420p", "nv12"))
    assert offered.intersect(accepted).format == ("nv12", "yuv420p")
    assert accepted.intersect(offered).format == ("yuv420p", "nv12")


def test_one_common_choice_is_fixed() -> None:
    met = VideoCaps(format=("nv12", "bgr24")).intersect(VideoCaps(format=("bgr24", "gray")))
    assert met.format == "bgr24"
    assert met.is_fixed


def test_conflict_names_the_field_and_both_sides() -> None:
    with pytest.raises(CapsConflict) as caught:
        AudioCaps(rate=(44_100, 22_050)).intersect(AudioCaps(rate=48_000))
    assert str(caught.value) == "rate: offered 44100 or 22050, accepted 48000"
    assert (caught.value.field, caught.value.offered, caught.value.accepted) == ("rate", (44_100, 22_050), 48_000)


@pytest.mark.parametrize(
    ("caps", "text"),
    [
        (VideoCaps(), "any"),
        (VideoCaps(format="bgr24", width=640, height=360), "format bgr24, width 640, height 360"),
        (EncodedCaps(codec=("h264", "vp8"), extradata=b"secret bytes"), "codec h264 or vp8"),
        (EncodedCaps(), "any"),
    ],
)
def test_caps_speak(caps: VideoCaps | EncodedCaps, text: str) -> None:
    assert str(caps) == text


def test_size_in_words() -> None:
    assert VideoCaps(width=640, height=360).size == "640x360"
    assert VideoCaps(width=640).size == "any size"


@pytest.mark.parametrize(
    ("codec", "video", "audio"),
    [("h264", True, False), ("opus", False, True), (("vp8", "vp9"), True, False), (("h264", "opus"), False, False),
     (None, False, False)],
)  # fmt: skip
def test_encoded_kind(codec: str | tuple[str, ...] | None, video: bool, audio: bool) -> None:
    caps = EncodedCaps(codec=codec)
    assert (caps.is_video, caps.is_audio) == (video, audio)
