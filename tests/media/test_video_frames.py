"""Pictures: arrays, copies, conversions, and the way to PyAV and back."""

import subprocess
import sys
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame as AvVideoFrame

from flowstream import Plane, VideoCaps, VideoFrame
from flowstream.media.pyav import AvHeaders
from flowstream.testing import make_frame

Array = np.ndarray[Any, Any]

SHAPES = {
    "bgr24": (48, 64, 3),
    "rgb24": (48, 64, 3),
    "bgra": (48, 64, 4),
    "rgba": (48, 64, 4),
    "bgr0": (48, 64, 4),
    "gray": (48, 64),
    "yuv420p": (72, 64),
    "nv12": (72, 64),
}


@pytest.fixture(params=["opencv", "swscale"])
def converter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With OpenCV, and with an OpenCV that does not load."""
    if request.param == "swscale":
        monkeypatch.setitem(sys.modules, "cv2", None)
    return str(request.param)


def chess(height: int = 48, width: int = 64) -> Array:
    """Big squares of red, green, blue and white: 4:2:0 keeps them."""
    y, x = np.mgrid[0:height, 0:width] // 16
    colours = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 0], [255, 255, 255]], np.uint8)
    return colours[(y * 2 + x) % 4]


# --- arrays ---------------------------------------------------------------------------------------------------------


def test_an_array_becomes_a_frame_without_a_copy() -> None:
    array = chess()
    frame = VideoFrame.from_array(array, time_ns=5, capture_ns=6, duration_ns=7)
    assert frame.caps == VideoCaps(format="bgr24", width=64, height=48)
    assert (frame.time_ns, frame.capture_ns, frame.duration_ns) == (5, 6, 7)
    assert np.shares_memory(frame.array(), array)
    assert frame.size_bytes == 64 * 48 * 3


def test_a_shared_frame_is_read_only_and_says_so() -> None:
    view = make_frame().array()
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 0


def test_a_writable_copy_is_private() -> None:
    frame = make_frame()
    before = frame.array().copy()
    copy = frame.writable()
    copy.array()[:] = 0
    assert (frame.array() == before).all()
    assert not copy.array().any()
    assert copy.caps == frame.caps
    assert copy.time_ns == frame.time_ns


def test_what_follows_from_like() -> None:
    like = make_frame(3, format="yuv420p").replace(capture_ns=11)
    like = like.replace(caps=VideoCaps("yuv420p", 64, 48, matrix="bt709", full_range=True))
    frame = VideoFrame.from_array(like.array().copy(), like=like, format="yuv420p")
    assert (frame.time_ns, frame.capture_ns, frame.duration_ns) == (like.time_ns, 11, like.duration_ns)
    assert frame.caps == like.caps
    assert VideoFrame.from_array(chess(), like=like).caps.matrix is None, "RGB has no matrix"
    assert VideoFrame.from_array(chess(), like=like, time_ns=0).time_ns == 0


@pytest.mark.parametrize(("shape", "format"), [((48, 64, 3), "bgr24"), ((48, 64, 4), "bgra"), ((48, 64), "gray")])
def test_the_shape_says_the_format(shape: tuple[int, ...], format: str) -> None:
    assert VideoFrame.from_array(np.zeros(shape, np.uint8), time_ns=0).format == format


def test_rows_that_are_apart_are_brought_together() -> None:
    wide = chess(48, 128)
    frame = VideoFrame.from_array(wide[:, ::2], time_ns=0)
    assert (frame.array() == wide[:, ::2]).all()


@pytest.mark.parametrize(
    ("array", "arguments", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), {"time_ns": 0},
         "an array of shape (4, 4, 2) is no picture; (h, w, 3), (h, w, 4) and (h, w) are"),
        (np.zeros(4, np.uint8), {"time_ns": 0},
         "an array of shape (4,) is no picture; (h, w, 3), (h, w, 4) and (h, w) are"),
        (np.zeros((4, 4, 3), np.uint8), {}, "a frame needs a time: pass like=frame, or time_ns="),
        (np.zeros((4, 4, 3), np.float32), {"time_ns": 0},
         "bgr24 takes an array of uint8 of shape (4, 4, 3), not float32 of shape (4, 4, 3)"),
        (np.zeros((6, 4, 3), np.uint8), {"time_ns": 0, "format": "yuv420p"},
         "yuv420p takes an array of uint8 of shape (6, 4), not uint8 of shape (6, 4, 3)"),
        (np.zeros((6, 5), np.uint8), {"time_ns": 0, "format": "yuv420p"},
         "yuv420p as an array needs even width and height, not 5x4"),
        (np.zeros((4, 4), np.uint8), {"time_ns": 0, "format": "yuyv422"},
         "no array form for pixel format 'yuyv422'; there is one for bgr24, rgb24, bgra, rgba, bgr0, gray, yuv420p, "
         "nv12"),
        (np.zeros(4, np.uint8), {"time_ns": 0, "format": "gray"},
         "gray takes an array of uint8 with rows and columns, not uint8 of (4,)"),
    ],
)  # fmt: skip
def test_what_is_no_picture(array: Array, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        VideoFrame.from_array(array, **arguments)
    assert str(caught.value) == message


# --- conversions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", SHAPES)
@pytest.mark.parametrize("source", SHAPES)
def test_every_format_becomes_every_other(source: str, target: str, converter: str) -> None:
    frame = make_frame(format=source)
    array = frame.array(target)
    assert array.shape == SHAPES[target]
    assert array.dtype == np.uint8
    assert not array.flags.writeable
    assert frame.writable(target).format == target


@pytest.mark.parametrize("format", ["yuv420p", "nv12", "rgb24", "bgra", "rgba"])
def test_colours_survive_the_way_there_and_back(format: str, converter: str) -> None:
    picture = chess()
    there = VideoFrame.from_array(picture, time_ns=0).writable(format)
    back = there.array("bgr24")
    middle = (slice(4, None, 16), slice(4, None, 16))  # away from the edges, which 4:2:0 smears
    assert np.abs(back[middle].astype(int) - picture[middle]).max() <= 6


def test_both_converters_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = VideoFrame.from_array(chess(), time_ns=0)
    by_opencv = frame.array("yuv420p").astype(int)
    monkeypatch.setitem(sys.modules, "cv2", None)
    by_swscale = frame.array("yuv420p").astype(int)
    assert np.abs(by_opencv - by_swscale)[:48].max() <= 2


def test_black_and_white_are_limited_range() -> None:
    white = VideoFrame.from_array(np.full((4, 4, 3), 255, np.uint8), time_ns=0).array("yuv420p")
    black = VideoFrame.from_array(np.zeros((4, 4, 3), np.uint8), time_ns=0).array("yuv420p")
    assert (white[:4] == 235).all()
    assert (black[:4] == 16).all()
    assert (white[4:] == 128).all()


@pytest.mark.parametrize("format", ["bgr24", "yuv420p", "nv12"])
def test_grey_spans_the_full_range(format: str, converter: str) -> None:
    """Limited range luma is no grey: white would be 235."""
    for value in (0, 100, 255):
        frame = VideoFrame.from_array(np.full((4, 4, 3), value, np.uint8), time_ns=0).writable(format)
        assert np.abs(frame.array("gray").astype(int) - value).max() <= 2


def test_stated_colours_are_respected(converter: str) -> None:
    """A full range picture in BT.709 is converted as that, whoever converts."""
    array = np.empty((6, 4), np.uint8)
    array[:4], array[4:5], array[5:] = 255, 128, 128
    frame = VideoFrame.from_array(array, format="yuv420p", time_ns=0)
    full = frame.replace(caps=VideoCaps("yuv420p", 4, 4, matrix="bt709", full_range=True))
    grey = array.copy()
    grey[:4] = 200
    full_grey = full.replace(planes=VideoFrame.from_array(grey, format="yuv420p", time_ns=0).planes)
    assert (full.array("bgr24") == 255).all()
    assert np.abs(full_grey.array("bgr24").astype(int) - 200).max() <= 1, "limited range would give 214"
    limited_grey = full_grey.replace(caps=VideoCaps("yuv420p", 4, 4))
    assert np.abs(limited_grey.array("bgr24").astype(int) - 214).max() <= 1


def test_odd_sizes_convert_between_packed_formats(converter: str) -> None:
    frame = VideoFrame.from_array(chess(5, 7), time_ns=0)
    assert frame.array("rgb24").shape == (5, 7, 3)
    with pytest.raises(ValueError, match="yuv420p as an array needs even width and height, not 7x5"):
        frame.array("yuv420p")


def test_a_format_without_an_array_form_is_named() -> None:
    with pytest.raises(ValueError, match="no array form for pixel format 'yuv444p'"):
        make_frame().array("yuv444p")


# --- PyAV -----------------------------------------------------------------------------------------------------------


def decoded(format: str, width: int = 66, height: int = 46) -> AvVideoFrame:
    """A frame whose rows are padded, as decoders make them."""
    rgb = AvVideoFrame.from_ndarray(chess(height, width), format="bgr24")
    return rgb.reformat(format=format)


@pytest.mark.parametrize("format", ["yuv420p", "nv12", "bgr24", "gray", "bgra"])
def test_padded_rows_of_a_decoder_are_left_out(format: str) -> None:
    theirs = decoded(format)
    ours = VideoFrame.from_av(theirs, time_ns=9)
    assert (ours.array() == theirs.to_ndarray()).all()
    assert ours.caps.size == "66x46"
    assert ours.time_ns == 9


@pytest.mark.parametrize("format", ["yuv420p", "nv12", "bgr24", "rgb24", "bgra", "gray"])
def test_a_frame_goes_to_pyav_and_back(format: str) -> None:
    frame = make_frame(2, format=format)
    theirs = frame.to_av()
    assert (theirs.to_ndarray() == frame.array()).all()
    assert (theirs.pts, theirs.time_base.denominator) == (frame.time_ns, 1_000_000_000)
    again = VideoFrame.from_av(theirs, time_ns=frame.time_ns)
    assert (again.array() == frame.array()).all()


def test_headers_share_the_memory_and_keep_their_own_time() -> None:
    """An encoder writes into the header it is given; the next one must not see it."""
    shared = VideoFrame.from_av(decoded("yuv420p", 64, 48), time_ns=1_000_000_000)
    headers = AvHeaders()
    first, second = shared.to_av(headers), shared.to_av(headers)
    assert first.planes[0].buffer_ptr == second.planes[0].buffer_ptr == shared.origin.planes[0].buffer_ptr
    first.pts = 77
    assert second.pts == 1_000_000_000
    assert shared.to_av(headers).pts == 1_000_000_000


def test_headers_follow_a_change_of_size() -> None:
    headers = AvHeaders()
    for width, height in ((64, 48), (32, 16), (64, 48)):
        theirs = VideoFrame.from_av(decoded("yuv420p", width, height), time_ns=0).to_av(headers)
        assert (theirs.width, theirs.height) == (width, height)


def test_memory_outlives_the_frame_it_came_in() -> None:
    frame = make_frame(5, format="yuv420p")
    expected = frame.array().copy()
    theirs = frame.to_av()
    del frame
    filler = [np.full((72, 64), 1, np.uint8) for _ in range(50)]
    assert (theirs.to_ndarray() == expected).all()
    assert len(filler) == 50


def test_two_encoders_may_take_one_frame() -> None:
    """What either encoder does to its header is not seen in the shared frame."""
    frame = make_frame(30, width=128, height=96, format="yuv420p")
    seen = []
    for _ in range(2):
        encoder = av.CodecContext.create("libx264", "w")
        assert isinstance(encoder, av.VideoCodecContext)
        encoder.width, encoder.height, encoder.pix_fmt = 128, 96, "yuv420p"
        encoder.options = {"preset": "ultrafast", "tune": "zerolatency"}
        encoder.time_base = Fraction(1, 30)
        packets = [*encoder.encode(frame.to_av()), *encoder.encode(None)]
        seen.append([packet.pts for packet in packets])
    assert seen == [[30], [30]]
    assert frame.time_ns == 1_000_000_000


def test_colour_tags_go_over_and_come_back() -> None:
    tagged = make_frame(format="yuv420p").replace(
        caps=VideoCaps("yuv420p", 64, 48, matrix="bt709", full_range=True)
    )  # fmt: skip
    theirs = tagged.to_av()
    assert (int(theirs.colorspace), int(theirs.color_range)) == (1, 2)
    assert VideoFrame.from_av(theirs, time_ns=0).caps == tagged.caps


@pytest.mark.parametrize("target", ["bgra", "rgba"])
def test_a_fourth_byte_without_meaning_becomes_opaque(target: str, converter: str) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    assert (VideoFrame.from_array(pixels, format="bgr0", time_ns=0).array(target)[..., 3] == 255).all()


def test_old_names_of_full_range_are_told_apart() -> None:
    frame = VideoFrame.from_av(decoded("yuvj420p"), time_ns=0)
    assert (frame.format, frame.caps.full_range) == ("yuv420p", True)


def test_opencv_takes_the_array_as_it_is() -> None:
    assert cv2.mean(make_frame().array())[0] > 0


def test_a_frame_reads_short() -> None:
    assert "planes" not in repr(make_frame())


def test_planes_are_what_they_were_given() -> None:
    plane = Plane(b"\0" * 12, 4)
    frame = VideoFrame(VideoCaps("gray", 3, 3), (plane,), 0)
    assert frame.array().shape == (3, 3)
    assert frame.size_bytes == 12


@pytest.mark.parametrize("height", [48, 50, 270])
@pytest.mark.parametrize("format", ["yuv420p", "nv12", "bgr24"])
def test_a_pyav_frame_has_every_row_and_its_own_colours(format: str, height: int) -> None:
    picture = np.zeros((height, 64, 3), np.uint8)
    picture[:] = (20, 60, 200)
    picture[-8:] = (200, 60, 20)
    made = VideoFrame.from_array(picture, time_ns=0).writable(format).to_av()
    assert (made.width, made.height) == (64, height)
    off = np.abs(made.reformat(format="bgr24").to_ndarray().astype(int) - picture)
    assert max(off[:-12].max(), off[-4:].max()) <= 6


@pytest.mark.parametrize("target", ["yuv420p", "nv12"])
@pytest.mark.parametrize("source", ["yuv422p", "yuv444p", "yuyv422"])
def test_yuv_made_of_yuv_keeps_matrix_and_range(source: str, target: str) -> None:
    made = av.VideoFrame.from_ndarray(np.full((16, 16, 3), (20, 60, 200), np.uint8), format="bgr24").reformat(
        format=source, dst_colorspace="ITU709", dst_color_range="JPEG"
    )
    frame = VideoFrame.from_av(made, time_ns=0)
    assert (frame.caps.matrix, frame.caps.full_range) == ("bt709", True)
    again = frame.writable(target)
    assert (again.caps.matrix, again.caps.full_range) == ("bt709", True)
    assert np.abs(again.array("bgr24").astype(int) - (20, 60, 200)).max() <= 4


def test_without_opencv_yuv_made_of_rgb_is_limited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    white = VideoFrame.from_array(np.full((16, 16, 3), 255, np.uint8), time_ns=0)
    for format in ("yuv420p", "nv12"):
        assert (white.array(format)[:16] >= 234).all()
        assert (white.array(format)[:16] <= 235).all()
    tagged = white.to_av()
    tagged.colorspace, tagged.color_range = 1, 2
    assert (VideoFrame.from_av(tagged, time_ns=0).array("yuv420p")[:16] <= 235).all()


def test_a_picture_of_pyav_passes_without_numpy() -> None:
    """Which takes a tenth of a second to load, in the thread that gives the first picture."""
    code = (
        "import sys, av; from flowstream import VideoFrame; "
        "VideoFrame.from_av(av.VideoFrame(64, 48, 'yuv420p'), time_ns=0).to_av(); "
        "sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
