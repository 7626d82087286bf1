"""What libx264 says it was told: it writes its settings into the stream, as the first picture's SEI."""

from __future__ import annotations

import re
from typing import Any

import av
import numpy as np
import pytest

from flowstream import VideoFrame
from flowstream.testing import Harness
from flowstream_nodes.codec.encoders import CANDIDATES
from flowstream_nodes.codec.hw_encode import HwEncode

FRAME_NS = 33_333_333
CONTENTS = ("camera", "motion", "text")


def told(size: tuple[int, int] = (1280, 720), **config: Any) -> dict[str, str]:
    """The settings that libx264 was opened with, by its own names."""
    with Harness(HwEncode, {"encoder": "libx264", **config}) as encode:
        array = np.zeros((size[1], size[0], 3), np.uint8)
        encode.push(VideoFrame.from_array(array, time_ns=0, duration_ns=FRAME_NS), "video")
        (packet,) = encode.payloads("packets")
    found = re.search(rb"options: ([\x20-\x7e]*)", packet.data)
    assert found is not None
    return dict(each.partition("=")[::2] for each in found[1].decode().split())


def test_by_default_nothing_waits_and_the_rate_is_bounded() -> None:
    settings = told(bitrate="2M", max="2M", threads=2)
    wanted = {
        "bframes": "0", "rc_lookahead": "0", "mbtree": "0",  # no picture waits for a later one
        "sliced_threads": "1", "threads": "2", "slices": "2",  # nor for a thread that has another picture
        "rc": "cbr", "bitrate": "2000", "vbv_maxrate": "2000", "vbv_bufsize": "400",  # 200 ms of the rate
        "keyint": "infinite", "scenecut": "0", "intra_refresh": "0",  # keyframes are asked for
    }  # fmt: skip
    assert {name: settings[name] for name in wanted} == wanted


def test_content_tunes_it() -> None:
    by_content = {content: told(content=content) for content in CONTENTS}
    assert {content: (each["deblock"], each["aq"]) for content, each in by_content.items()} == {
        "camera": ("1:1:1", "1:1.00"),
        "motion": ("1:1:1", "1:0.50"),
        "text": ("1:-3:-3", "2:1.00"),
    }
    assert told()["aq"] == by_content["camera"]["aq"], "auto, before it is known"


@pytest.mark.parametrize(("content", "seconds"), [("camera", [0, 2, 4]), ("motion", [0, 2, 4]), ("text", [0, 4])])
def test_content_says_how_often_keyframes_come(content: str, seconds: list[int]) -> None:
    with Harness(HwEncode, {"content": content, "bitrate": "100k"}) as encode:
        for index in range(51):
            array = np.full((48, 64, 3), index, np.uint8)
            encode.push(VideoFrame.from_array(array, time_ns=index * 100_000_000, duration_ns=100_000_000), "video")
        packets = encode.payloads("packets")
    assert [each.time_ns / 1e9 for each in packets if each.keyframe] == seconds


def test_intra_refresh_goes_round_in_two_seconds() -> None:
    settings = told(intra_refresh=True)
    assert (settings["intra_refresh"], settings["keyint"]) == ("1", "60")


def test_a_slower_speed_looks_for_more() -> None:
    assert [told(speed=speed)["subme"] for speed in ("ultrafast", "superfast", "veryfast", "faster")] == [
        "0", "1", "2", "4",
    ]  # fmt: skip


# --- hardware, which was never run ----------------------------------------------------------------------------------


def test_every_kind_of_hardware_is_tried_before_the_processor() -> None:
    def names(codec: str) -> list[str]:
        return [each.name for each in CANDIDATES if each.codec == codec]

    kinds = ("nvenc", "qsv", "amf", "videotoolbox", "mf", "v4l2m2m")
    assert names("h264") == [*(f"h264_{kind}" for kind in kinds), "libx264"]
    assert names("hevc") == [*(f"hevc_{kind}" for kind in kinds), "libx265"]
    assert [names(codec)[-1] for codec in ("vp8", "vp9", "av1")] == ["libvpx", "libvpx-vp9", "libsvtav1"]
    for codec in ("h264", "hevc", "vp8", "vp9", "av1"):
        kinds_of = [each.is_hardware for each in CANDIDATES if each.codec == codec]
        assert kinds_of == [True] * (len(kinds_of) - 1) + [False]
    assert HwEncode.config_class().codec == "h264"


def test_the_docs_say_what_was_not_run_and_pyav_has_no_vaapi() -> None:
    said = " ".join((HwEncode.__doc__ or "").split())
    assert "No hardware encoder was ever run by this project, and PyAV's wheels for Linux have no VAAPI." in said
    assert not [name for name in av.codecs_available if "vaapi" in name]
