"""scale: sizes, shapes, formats, with OpenCV and without."""

import sys
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from flowstream import Size, VideoCaps, VideoFrame
from flowstream.testing import Counter, Harness, check_node, make_frame, read_counter
from flowstream_nodes.synth._picture import Picture
from flowstream_nodes.video.scale import Scale, ScaleConfig


@pytest.fixture(params=["opencv", "swscale"])
def scaler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With OpenCV, and with an OpenCV that does not load."""
    if request.param == "swscale":
        monkeypatch.setitem(sys.modules, "cv2", None)
    return str(request.param)


def pattern(width: int = 640, height: int = 360) -> VideoFrame:
    picture = Picture(Size(width, height)).render(77, 0.4, 5_000_000)
    return VideoFrame.from_array(picture, format="yuv420p", time_ns=123, capture_ns=45)


def scaled(frame: VideoFrame, **config: Any) -> VideoFrame:
    with Harness(Scale, config) as scale:
        (out,) = scale.push(frame)
        assert isinstance(out, VideoFrame)
        return out


def test_conformance() -> None:
    check_node(Scale, {"size": "640x360"})


@pytest.mark.parametrize("size", ["320x180", "1280x720", "800x600", "426x240"])
def test_the_counter_can_still_be_read(size: str, scaler: str) -> None:
    out = scaled(pattern(), size=size, fit="stretch")
    assert str(Size(out.width, out.height)) == size
    assert (out.format, out.time_ns, out.capture_ns) == ("yuv420p", 123, 45)
    assert read_counter(out) == Counter(77, 5)


@pytest.mark.parametrize("format", ["yuv420p", "nv12", "bgr24", "rgb24", "bgra", "rgba", "bgr0", "gray"])
def test_formats_are_kept(format: str, scaler: str) -> None:
    out = scaled(make_frame(format=format), size="32x24")
    assert out.format == format
    expected = make_frame(width=32, height=24, format=format).array().astype(int)
    assert np.abs(out.array().astype(int) - expected).mean() < 6


def test_a_format_without_plain_arrays_leaves_as_i420() -> None:
    frame = VideoFrame.from_av(make_frame().to_av().reformat(format="yuv444p"), time_ns=1)
    assert scaled(frame, size="32x24").format == "yuv420p"


def test_odd_pictures_are_taken(scaler: str) -> None:
    odd = VideoFrame.from_av(make_frame(width=65, height=49).to_av().reformat(format="yuv420p"), time_ns=1)
    out = scaled(odd, size="32x24")
    assert (out.format, out.width, out.height) == ("bgr24", 32, 24)


def test_contain_puts_black_bars(scaler: str) -> None:
    white = VideoFrame.from_array(np.full((90, 160, 3), 255, np.uint8), time_ns=0)
    for format in ("yuv420p", "nv12", "bgr24"):
        out = scaled(white.writable(format), size="160x160", fit="contain").array("bgr24")
        assert out[:34].max() <= 1
        assert out[-34:].max() <= 1
        assert out[36:124].min() >= 248


def test_cover_cuts_the_edges(scaler: str) -> None:
    picture = np.zeros((90, 160, 3), np.uint8)
    picture[:, 40:120] = 255
    out = scaled(VideoFrame.from_array(picture, time_ns=0), size="90x90", fit="cover").array()
    assert (out[:, :3] == 0).all()
    assert (out[:, 8:82] == 255).all()
    assert (out[:, -3:] == 0).all()


def test_stretch_fills_everything(scaler: str) -> None:
    white = VideoFrame.from_array(np.full((90, 160, 3), 255, np.uint8), time_ns=0)
    assert (scaled(white, size="64x64", fit="stretch").array() == 255).all()


def test_a_picture_of_the_right_size_passes_as_it_is() -> None:
    frame = pattern()
    assert scaled(frame, size="640x360") is frame


def test_size_changes_are_followed() -> None:
    with Harness(Scale, {"size": "64x48"}) as scale:
        assert [f.caps.size for f in scale.push(make_frame(width=32, height=24))] == ["64x48"]
        assert [f.caps.size for f in scale.push(make_frame(width=128, height=96))] == ["64x48"]
        scale.reconfigure(size="32x32", fit="cover")
        assert [f.caps.size for f in scale.push(make_frame(width=128, height=96))] == ["32x32"]


def test_stated_colours_are_kept() -> None:
    tagged = pattern().replace(caps=VideoCaps("yuv420p", 640, 360, matrix="bt709", full_range=True))
    out = scaled(tagged, size="320x180")
    assert (out.caps.matrix, out.caps.full_range) == ("bt709", True)


def test_planes_of_a_decoder_are_taken_without_their_padding(scaler: str) -> None:
    ours = make_frame(width=66, height=46)
    decoded = VideoFrame.from_av(ours.to_av().reformat(format="yuv420p"), time_ns=0)
    assert len(decoded.planes) == 3
    out = scaled(decoded, size="132x92", fit="stretch")
    expected = make_frame(width=132, height=92).array("gray").astype(int)
    assert np.abs(out.array("gray").astype(int) - expected).mean() < 6


def test_an_odd_size_is_refused() -> None:
    with pytest.raises(ValidationError, match="641x360 has an odd side, which 4:2:0 colour cannot have; write 640x360"):
        ScaleConfig.model_validate({"size": "641x360"})
