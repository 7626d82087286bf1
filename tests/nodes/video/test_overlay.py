"""overlay: what is drawn, where, in which colours, and what is left alone."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from flowstream import FlowstreamError, VideoCaps, VideoFrame
from flowstream.testing import Harness, check_node
from flowstream_nodes.video import _drawing
from flowstream_nodes.video.overlay import Overlay, OverlayConfig

FORMATS = ("yuv420p", "bgr24", "rgb24", "bgra", "rgba")


def grey(format: str = "bgr24", width: int = 320, height: int = 180) -> VideoFrame:
    return VideoFrame.from_array(np.full((height, width, 3), 100, np.uint8), time_ns=9, capture_ns=8).writable(format)


def drawn(frame: VideoFrame, **config: Any) -> VideoFrame:
    with Harness(Overlay, config) as overlay:
        (out,) = overlay.push(frame)
        assert isinstance(out, VideoFrame)
        return out


def touched(frame: VideoFrame, out: VideoFrame) -> tuple[slice, slice]:
    """The rectangle of what differs."""
    changed = np.abs(out.array("bgr24").astype(int) - frame.array("bgr24")).max(axis=2) > 8
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


@pytest.fixture
def logo(tmp_path: Path) -> str:
    """A blue square, opaque above and transparent below."""
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[:20] = (255, 0, 0, 255)
    path = tmp_path / "logo.png"
    cv2.imwrite(str(path), rgba)
    return str(path)


def test_conformance() -> None:
    check_node(Overlay, {"text": "hello"})


@pytest.mark.parametrize(
    ("position", "rows", "columns"),
    [("top-left", "first", "first"), ("top", "first", "middle"), ("top-right", "first", "last"),
     ("left", "middle", "first"), ("center", "middle", "middle"), ("right", "middle", "last"),
     ("bottom-left", "last", "first"), ("bottom", "last", "middle"), ("bottom-right", "last", "last")],
)  # fmt: skip
def test_text_stands_where_it_should(position: str, rows: str, columns: str) -> None:
    frame = grey()
    down, across = touched(frame, drawn(frame, text="Hello", position=position, margin=0.05, height=0.1))
    for place, part, whole in ((rows, down, 180), (columns, across, 320)):
        before, after = part.start, whole - part.stop
        if place == "first":
            assert 7 <= before <= 11
        elif place == "last":
            assert 7 <= after <= 11
        else:
            assert abs(before - after) <= 4


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_shows_the_same(format: str) -> None:
    out = drawn(grey(format), text="Same", colour="red", height=0.2)
    assert (out.format, out.time_ns, out.capture_ns) == (format, 9, 8)
    expected = drawn(grey(), text="Same", colour="red", height=0.2).array().astype(int)
    assert np.abs(out.array("bgr24") - expected).mean() < 1.5


def test_other_formats_leave_as_i420() -> None:
    assert drawn(grey("nv12"), text="x").format == "yuv420p"
    assert drawn(grey("gray"), text="x").format == "yuv420p"
    assert drawn(grey(width=321, height=181).writable("gray"), text="x").format == "bgr24"


def test_the_picture_that_came_in_is_not_touched() -> None:
    frame = grey("yuv420p")
    before = frame.array().copy()
    out = drawn(frame, text="Hello")
    assert (frame.array() == before).all()
    assert (out.array() != before).any()


def test_without_anything_to_draw_the_picture_passes_as_it_is() -> None:
    frame = grey()
    assert drawn(frame) is frame


def test_the_colour_is_the_one_asked_for() -> None:
    out = drawn(grey(), text="HHHH", colour="00ff00", height=0.3, box=1.0).array()
    assert (out.reshape(-1, 3) == (0, 255, 0)).all(axis=1).any(), "green letters"
    assert (out.reshape(-1, 3) == (0, 0, 0)).all(axis=1).any(), "on a black box"


def test_black_is_black_in_each_range() -> None:
    frame = grey("yuv420p")
    box = {"text": "HH", "box": 1.0, "height": 0.4, "position": "center"}
    assert drawn(frame, **box).array()[:180].min() == 16
    full = frame.replace(caps=VideoCaps("yuv420p", 320, 180, full_range=True))
    assert drawn(full, **box).array()[:180].min() == 0


def test_colours_follow_the_matrix_of_the_picture() -> None:
    frame = grey("yuv420p")
    for matrix in (None, "bt709"):
        tagged = frame.replace(caps=VideoCaps("yuv420p", 320, 180, matrix=matrix))
        out = drawn(tagged, text="HHH", colour="ff0000", height=0.5, position="center", box=1.0)
        reddest = out.array("rgb24").reshape(-1, 3).astype(int)
        assert (np.abs(reddest - (255, 0, 0)).max(axis=1) <= 8).any(), f"pure red in {matrix}"


def test_without_a_box_the_letters_have_a_dark_rim() -> None:
    white = VideoFrame.from_array(np.full((180, 320, 3), 255, np.uint8), time_ns=0)
    assert drawn(white, text="white", box=0.0, height=0.2).array().min() < 120


def test_the_clock_runs() -> None:
    with Harness(Overlay, {"text": "%H:%M:%S.%f 100%% %x", "zone": "utc"}) as overlay:
        assert overlay.node._written() == "00:00:00.000 100% %x"
        overlay.clock.step(3_723_004_000_000)
        assert overlay.node._written() == "01:02:03.004 100% %x"
        first = overlay.push(grey())[0].array()
        overlay.clock.step(1_000_000)
        assert (overlay.push(grey())[0].array() != first).any()


def test_text_that_stands_still_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawings = []
    draw = _drawing.Label._draw
    monkeypatch.setattr(_drawing.Label, "_draw", lambda self, *args: drawings.append(args) or draw(self, *args))
    with Harness(Overlay, {"text": "still"}) as overlay:
        for _ in range(5):
            overlay.push(grey())
        assert len(drawings) == 1
        overlay.push(grey("yuv420p"))
        overlay.reconfigure(colour="red")
        overlay.push(grey("yuv420p"))
        assert len(drawings) == 3


def test_everything_but_the_file_changes_while_it_runs() -> None:
    with Harness(Overlay, {"text": "one", "position": "top-left"}) as overlay:
        frame = grey()
        assert touched(frame, overlay.push(frame)[0])[0].start < 20
        overlay.reconfigure(position="bottom-right", text="two", height=0.1)
        assert touched(frame, overlay.push(frame)[0])[0].stop > 160


def test_an_image_covers_where_it_is_opaque(logo: str) -> None:
    frame = grey()
    out = drawn(frame, image=logo, image_position="top-left", image_height=0.5, margin=0.0).array()
    assert (out[2:42, 2:88] == (255, 0, 0)).all()
    assert (out[50:] == 100).all()


def test_an_image_may_shine_through(logo: str) -> None:
    half = drawn(grey(), image=logo, image_position="top-left", image_height=0.5, image_opacity=0.5, margin=0.0)
    out = half.array()
    assert np.abs(out[2:42, 2:88].astype(int) - (178, 50, 50)).max() <= 2
    assert drawn(grey(), image=logo, image_opacity=0.0).array().max() == 100


def test_an_image_never_sticks_out(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    cv2.imwrite(str(path), np.full((10, 400, 3), 255, np.uint8))
    out = drawn(grey(width=64, height=48), image=str(path), image_height=1.0, margin=0.1).array()
    assert out.shape == (48, 64, 3)
    assert out.max() == 255


def test_long_text_is_cut_off_at_the_edge() -> None:
    for format in FORMATS:
        out = drawn(grey(format, width=64, height=48), text="a very long line of text indeed " * 3, height=0.4)
        assert (out.width, out.height) == (64, 48)


@pytest.mark.parametrize("content", [b"no picture", b""])
def test_a_file_that_is_no_picture_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "logo.png"
    path.write_bytes(content)
    with pytest.raises(FlowstreamError) as caught:
        drawn(grey(), image=str(path))
    assert str(caught.value) == f"{path} is not a picture that OpenCV can read (PNG, JPEG and WebP are)"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere.png", "there is no image /nowhere.png"),
        ("logo.png", "there is no image logo.png "
         "(a path is looked up from the folder that flowstream was started in)"),
        ("/", "cannot read the image /: Is a directory"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named(path: str, message: str) -> None:
    with pytest.raises(FlowstreamError) as caught:
        drawn(grey(), image=path)
    assert str(caught.value) == message


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_every_kind_are_read(tmp_path: Path, depth: type, channels: int) -> None:
    path = tmp_path / "image.png"
    full = np.iinfo(depth).max
    cv2.imwrite(str(path), np.full((4, 6, channels) if channels > 1 else (4, 6), full, depth))
    image = _drawing.read_image(str(path))
    assert (image.shape, image.dtype) == ((4, 6, 4), np.uint8)
    assert (image == 255).all()


def test_colours_are_checked() -> None:
    with pytest.raises(ValidationError, match="'mauve' is no colour; write six hex digits such as ffaa00, or white, "):
        OverlayConfig(colour="mauve")


def test_an_older_opencv_draws_with_its_own_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "FontFace")
    frame = grey()
    down, across = touched(frame, drawn(frame, text="Hello", height=0.2, position="center"))
    assert 20 < down.stop - down.start < 60
    assert 60 < across.stop - across.start < 200
