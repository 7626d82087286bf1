"""convert: formats, sizes and colours, with OpenCV and without; what fits is not touched."""

import sys
from typing import Any

import av
import numpy as np
import pytest
from pydantic import ValidationError

from flowstream import FlowstreamError, VideoCaps, VideoFrame
from flowstream.testing import Counter, Harness, check_node, make_frame, read_counter
from flowstream_nodes.synth._picture import Picture
from flowstream_nodes.video.convert import Convert, ConvertConfig

FORMATS = ("bgr24", "rgb24", "bgra", "rgba", "bgr0", "gray", "yuv420p", "nv12", "yuv444p", "yuv422p", "p010le", "gbrp")
KR_KB = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114)}
COLOURS = ((200, 40, 60), (30, 180, 90), (50, 70, 220), (240, 240, 20), (128, 128, 128))


@pytest.fixture(params=["opencv", "swscale"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With OpenCV, and with an OpenCV that does not load."""
    if request.param == "swscale":
        monkeypatch.setitem(sys.modules, "cv2", None)
    return str(request.param)


def converted(frame: VideoFrame, **config: Any) -> VideoFrame:
    with Harness(Convert, config) as convert:
        (out,) = convert.push(frame)
        assert isinstance(out, VideoFrame)
        return out


def in_format(format: str, *, width: int = 64, height: int = 48) -> VideoFrame:
    """The usual gradient in any format."""
    frame = make_frame(width=width, height=height, capture_ns=7)
    made = av.VideoFrame.from_ndarray(frame.array(), format="bgr24").reformat(format=format)
    return VideoFrame.from_av(made, time_ns=frame.time_ns, capture_ns=7, duration_ns=frame.duration_ns)


def test_conformance() -> None:
    check_node(Convert)
    check_node(Convert, {"format": ["rgb24", "bgr24"], "size": "33x17"})


@pytest.mark.parametrize("target", FORMATS)
def test_every_format_is_made_of_every_other(target: str, library: str) -> None:
    expected = make_frame().array("gray" if target == "gray" else "bgr24").astype(int)
    with Harness(Convert, {"format": target}) as convert:
        for source in FORMATS:
            if source == "gray" and target != "gray":
                continue  # it has no colours to compare
            frame = in_format(source)
            (out,) = convert.push(frame)
            assert out.format == target
            assert (out.time_ns, out.capture_ns, out.duration_ns) == (frame.time_ns, 7, frame.duration_ns)
            got = out.to_av().reformat(format="gray" if target == "gray" else "bgr24").to_ndarray().astype(int)
            assert np.abs(got - expected).mean() < 4, source


def test_a_picture_that_fits_passes_as_it_is() -> None:
    frame = make_frame(format="yuv420p")
    for config in ({}, {"format": "yuv420p"}, {"format": ["bgr24", "yuv420p"], "size": "64x48"}):
        assert converted(frame, **config) is frame


def test_of_several_formats_the_first_is_made() -> None:
    assert converted(make_frame(format="gray"), format=["rgb24", "bgr24"]).format == "rgb24"


def test_transparency_that_a_picture_does_not_have_is_opaque() -> None:
    for format in ("bgr24", "bgr0", "yuv420p", "nv12"):
        for target in ("bgra", "rgba"):
            assert (converted(make_frame(format=format), format=target).array()[..., 3] == 255).all()


def flat(format: str, colour: tuple[int, int, int], matrix: str, full_range: bool) -> VideoFrame:
    """One colour in YUV of that matrix and range (ITU-R BT.601-7 section 2.5, BT.709-6 section 3)."""
    kr, kb = KR_KB[matrix]
    r, g, b = (value / 255 for value in colour)
    y = kr * r + (1 - kr - kb) * g + kb * b
    blue, red = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    foot, span, swing = (0, 255, 255) if full_range else (16, 219, 224)
    made = av.VideoFrame(32, 32, format)
    for plane, value in zip(made.planes, (foot + span * y, 128 + swing * blue, 128 + swing * red), strict=True):
        plane.update(np.full(plane.buffer_size, round(value), np.uint8))
    made.colorspace, made.color_range = {"bt709": 1, "smpte170m": 6}[matrix], 2 if full_range else 1
    return VideoFrame.from_av(made, time_ns=0)


def colour_of(frame: VideoFrame) -> tuple[int, int, int]:
    """What a reader of the caps takes the picture for, by the formulas of the standards."""
    if frame.format in ("bgr24", "rgb24"):
        assert (frame.caps.matrix, frame.caps.full_range) == (None, None)
        pixel = frame.array()[8, 8]
        red, green, blue = pixel if frame.format == "rgb24" else pixel[::-1]
        return int(red), int(green), int(blue)
    made = frame.to_av().reformat(format="yuv444p", dst_colorspace=None)
    y, u, v = (int(np.frombuffer(plane, np.uint8)[8]) for plane in made.planes)
    kr, kb = KR_KB[str(frame.caps.matrix or "smpte170m")]
    foot, span, swing = (0, 255, 255) if frame.caps.full_range else (16, 219, 224)
    luma, blue, red = (y - foot) / span, (u - 128) / swing * 2 * (1 - kb), (v - 128) / swing * 2 * (1 - kr)
    r, b = luma + red, luma + blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return round(r * 255), round(g * 255), round(b * 255)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", KR_KB)
def test_colours_stay_what_they_are(matrix: str, full_range: bool, library: str) -> None:
    for source in ("yuv420p", "yuv422p", "yuv444p"):
        for target in ("bgr24", "rgb24", "nv12", "yuv420p", "yuv444p"):
            with Harness(Convert, {"format": target}) as convert:
                for colour in COLOURS:
                    (out,) = convert.push(flat(source, colour, matrix, full_range))
                    assert np.abs(np.subtract(colour_of(out), colour)).max() <= 5, (source, target, colour)
                    if target not in ("bgr24", "rgb24"):
                        assert (out.caps.matrix, out.caps.full_range) == (matrix, full_range)


def test_yuv_that_is_made_of_rgb_says_so_or_says_nothing(library: str) -> None:
    """Unstated is BT.601 in limited range."""
    for target in ("yuv420p", "nv12", "yuv444p"):
        for colour in COLOURS:
            picture = np.full((32, 32, 3), colour[::-1], np.uint8)
            for frame in (VideoFrame.from_array(picture, time_ns=0), flat("yuv444p", colour, "bt709", True)):
                rgb = converted(frame, format="bgr24")
                out = converted(rgb, format=target)
                assert out.caps.matrix in (None, "smpte170m")
                assert not out.caps.full_range
                assert np.abs(np.subtract(colour_of(out), colour)).max() <= 5, (target, colour)


@pytest.mark.parametrize("format", ["as-is", "bgr24", "nv12", "yuv444p"])
@pytest.mark.parametrize("size", ["320x180", "1280x720"])
def test_size_and_format_at_once(size: str, format: str, library: str) -> None:
    picture = Picture((640, 360)).render(77, 0.4, 5_000_000)
    frame = VideoFrame.from_array(picture, format="yuv420p", time_ns=123)
    out = converted(frame, size=size, format=format)
    assert (out.caps.size, out.format, out.time_ns) == (size, "yuv420p" if format == "as-is" else format, 123)
    assert read_counter(converted(out, format="bgr24")) == Counter(77, 5)


@pytest.mark.parametrize("format", ["as-is", "bgr24", "yuv420p", "yuv444p"])
@pytest.mark.parametrize("source", ["bgr24", "yuv420p", "nv12", "yuv444p", "p010le"])
def test_odd_sizes(source: str, format: str, library: str) -> None:
    for width, height, size in ((64, 48, "33x25"), (65, 49, "32x24"), (33, 25, "65x49"), (33, 25, "33x25")):
        frame = in_format(source, width=width, height=height)
        out = converted(frame, size=size, format=format)
        assert (out.caps.size, out.format) == (size, source if format == "as-is" else format)
        wide, high = map(int, size.split("x"))
        expected = make_frame(width=wide, height=high).array().astype(int)
        got = out.to_av().reformat(format="bgr24").to_ndarray().astype(int)
        assert np.abs(got - expected).mean() < 8, size


def test_another_shape_gets_black_bars() -> None:
    white = VideoFrame.from_array(np.full((90, 160, 3), 255, np.uint8), time_ns=0)
    for frame in (white, white.writable("yuv420p"), flat_white_in_full_range()):
        out = converted(frame, size="160x160", format="bgr24").array()
        assert out[:34].max() <= 1
        assert out[-34:].max() <= 1
        assert out[36:124].min() >= 248


def flat_white_in_full_range() -> VideoFrame:
    planes = np.full((135, 160), 128, np.uint8)
    planes[:90] = 255
    white = VideoFrame.from_array(planes, format="yuv420p", time_ns=0)
    return white.replace(caps=VideoCaps("yuv420p", 160, 90, full_range=True))


def test_what_comes_in_may_change_and_so_may_what_is_wanted() -> None:
    with Harness(Convert, {"format": "bgr24", "size": "32x24"}, threads=True) as convert:
        for format, width, height in (("yuv420p", 64, 48), ("bgr24", 64, 48), ("nv12", 16, 12), ("bgr24", 32, 24)):
            (out,) = convert.push(make_frame(format=format, width=width, height=height))
            assert (out.format, out.caps.size) == ("bgr24", "32x24")
        convert.reconfigure(format="yuv420p", size="as-is")
        (out,) = convert.push(make_frame())
        assert (out.format, out.caps.size) == ("yuv420p", "64x48")


def test_formats_that_there_are_not() -> None:
    with (
        pytest.raises(FlowstreamError, match="FFmpeg has no pixel format bgr25"),
        Harness(Convert, {"format": "bgr25"}),
    ):
        pass
    with Harness(Convert) as convert:
        with pytest.raises(ValueError, match="FFmpeg has no pixel format bgr25"):
            convert.reconfigure(format=["bgr24", "bgr25"])
        convert.reconfigure(format="vaapi")
        with pytest.raises(FlowstreamError, match="pictures in bgr24 cannot be made into vaapi"):
            convert.push(make_frame())


@pytest.mark.parametrize(
    ("format", "said"),
    [
        ("BGR24", "'BGR24' is no pixel format; write FFmpeg's name, such as bgr24 or yuv420p"),
        (["bgr24", "as-is"], "as-is stands alone: write format: as-is, or a list of formats"),
        ("yuvj420p", "yuvj420p is an old name; write yuv420p, whatever its range"),
        ([], "at least 1 item"),
    ],
)
def test_names_that_are_none(format: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ConvertConfig.model_validate({"format": format})
