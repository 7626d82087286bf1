"""What the built-in node types say before the start about what comes out of them."""

from collections.abc import Mapping
from typing import Any

import pytest

from flowstream import AudioCaps, Caps, EncodedCaps, VideoCaps
from flowstream.node.registry import Registry
from flowstream_nodes import NODES

REGISTRY = Registry.installed()

HD = VideoCaps(format="yuv420p", width=1280, height=720, fps=30.0)
RGB = VideoCaps(format="bgr24", width=641, height=361)
SOUND = AudioCaps(format="fltp", rate=44_100, layout="5.1")
H264 = EncodedCaps(codec="h264", width=1280, height=720, profile="high", extradata=b"sps")
OPUS = EncodedCaps(codec="opus", rate=48_000, layout="mono")

TABLE: list[tuple[str, dict[str, Any], dict[str, Caps], dict[str, Caps]]] = [
    ("test-pattern", {"size": "640x360", "fps": 25.0}, {},
     {"video": VideoCaps(format="yuv420p", width=640, height=360, fps=25.0)}),
    ("screen", {"fps": 15.0}, {}, {"video": VideoCaps(format="bgr0", fps=15.0)}),
    ("camera", {}, {}, {}),
    ("camera", {"format": "mjpeg"}, {}, {}),
    ("camera", {"format": "nv12"}, {}, {"video": VideoCaps(format="nv12")}),
    ("file", {"path": "talk.mp4"}, {}, {}),
    # Size: the format is kept where pictures have plain arrays.
    ("scale", {"size": "640x360"}, {"video": HD},
     {"scaled": VideoCaps(format="yuv420p", width=640, height=360, fps=30.0)}),
    ("scale", {"size": "640x360"}, {"video": RGB}, {"scaled": VideoCaps(format="bgr24", width=640, height=360)}),
    ("scale", {"size": "640x360"}, {}, {"scaled": VideoCaps(width=640, height=360)}),
    ("scale", {"size": "640x360"}, {"video": VideoCaps(format="yuv420p")},
     {"scaled": VideoCaps(width=640, height=360)}),
    ("scale", {"size": "640x360"}, {"video": VideoCaps(format="p010le", width=1280, height=720)},
     {"scaled": VideoCaps(format="yuv420p", width=640, height=360)}),
    ("scale", {"size": "640x360"}, {"video": VideoCaps(format="yuv444p", width=641, height=361)},
     {"scaled": VideoCaps(format="bgr24", width=640, height=360)}),
    ("scale", {"size": "1280x720"}, {"video": VideoCaps(format="p010le", width=1280, height=720)},
     {"scaled": VideoCaps(format="p010le", width=1280, height=720)}),
    # Rate.
    ("throttle", {"max_fps": 10.0}, {"frames": HD},
     {"kept": VideoCaps(format="yuv420p", width=1280, height=720, fps=10.0)}),
    ("throttle", {"max_fps": 60.0}, {"frames": HD}, {"kept": HD}),
    ("throttle", {"max_fps": 10.0}, {"frames": RGB}, {}),
    ("frame-rate", {"fps": 60.0}, {"frames": HD},
     {"steady": VideoCaps(format="yuv420p", width=1280, height=720, fps=60.0)}),
    ("frame-rate", {"fps": 60.0, "repeat": False}, {"frames": HD}, {"steady": HD}),
    ("frame-rate", {"fps": 60.0}, {}, {"steady": VideoCaps(fps=60.0)}),
    ("frame-rate", {"fps": 60.0, "repeat": False}, {"frames": RGB}, {"steady": RGB}),
    # Drawing.
    ("overlay", {}, {"video": VideoCaps(format="p010le")}, {"titled": VideoCaps(format="p010le")}),
    ("overlay", {"text": "x"}, {"video": RGB}, {"titled": RGB}),
    ("overlay", {"text": "x"}, {"video": HD}, {"titled": HD}),
    ("overlay", {"text": "x"}, {"video": VideoCaps(format="bgr0", width=640, height=360)},
     {"titled": VideoCaps(format="yuv420p", width=640, height=360)}),
    ("overlay", {"text": "x"}, {"video": VideoCaps(format="nv12", width=641, height=360)},
     {"titled": VideoCaps(format="bgr24", width=641, height=360)}),
    ("overlay", {"image": "logo.png"}, {"video": VideoCaps(format="nv12")}, {"titled": VideoCaps()}),
    ("overlay", {"text": "x"}, {}, {}),
    # Pixel formats.
    ("convert", {}, {"video": RGB}, {"converted": RGB}),
    ("convert", {"format": "rgb24"}, {"video": HD},
     {"converted": VideoCaps(format="rgb24", width=1280, height=720, fps=30.0)}),
    ("convert", {"format": ["nv12", "yuv420p"]}, {"video": HD}, {"converted": HD}),
    ("convert", {"format": ["nv12", "yuv420p"]}, {"video": RGB},
     {"converted": VideoCaps(format="nv12", width=641, height=361)}),
    ("convert", {"format": ["nv12", "yuv420p"], "size": "299x299"}, {},
     {"converted": VideoCaps(format=("nv12", "yuv420p"), width=299, height=299)}),
    ("convert", {"format": ["nv12"]}, {}, {"converted": VideoCaps(format="nv12")}),
    ("convert", {"size": "640x360"}, {"video": HD},
     {"converted": VideoCaps(format="yuv420p", width=640, height=360, fps=30.0)}),
    # Sound.
    ("resample", {}, {"audio": SOUND}, {"resampled": SOUND}),
    ("resample", {"rate": 16_000, "layout": "mono"}, {"audio": SOUND},
     {"resampled": AudioCaps(format="fltp", rate=16_000, layout="mono")}),
    ("resample", {"rate": [48_000, 44_100], "format": ["s16"]}, {"audio": SOUND},
     {"resampled": AudioCaps(format="s16", rate=44_100, layout="5.1")}),
    ("resample", {"rate": [48_000, 44_100], "format": "s16"}, {},
     {"resampled": AudioCaps(format="s16", rate=(48_000, 44_100))}),
    # Codecs.
    ("hw-encode", {"profile": "main"}, {"video": HD},
     {"packets": EncodedCaps(codec="h264", width=1280, height=720, profile="main")}),
    ("hw-encode", {}, {"video": RGB},
     {"packets": EncodedCaps(codec="h264", width=640, height=360, profile="baseline")}),
    ("hw-encode", {}, {}, {"packets": EncodedCaps(codec="h264", profile="baseline")}),
    ("opus-encode", {}, {"audio": SOUND}, {"packets": EncodedCaps(codec="opus", rate=48_000, layout="stereo")}),
    ("opus-encode", {}, {"audio": AudioCaps(layout="mono")},
     {"packets": EncodedCaps(codec="opus", rate=48_000, layout="mono")}),
    ("opus-encode", {}, {}, {"packets": EncodedCaps(codec="opus", rate=48_000)}),
    ("decode", {}, {"packets": H264}, {"video": VideoCaps(format="yuv420p", width=1280, height=720)}),
    ("decode", {}, {"packets": EncodedCaps(codec="hevc", width=64, height=64)},
     {"video": VideoCaps(width=64, height=64)}),
    ("decode", {}, {"packets": OPUS}, {"audio": AudioCaps(rate=48_000, layout="mono")}),
    ("decode", {}, {"packets": EncodedCaps(codec="aac", rate=44_100)}, {"audio": AudioCaps(rate=44_100)}),
    ("decode", {}, {"packets": EncodedCaps()}, {}),
    ("decode", {}, {}, {}),
    ("app-in", {"size": "640x360", "fps": 30.0, "format": "bgr24"}, {},
     {"video": VideoCaps(format="bgr24", width=640, height=360, fps=30.0),
      "audio": AudioCaps(rate=48_000, layout="stereo"), "packets": EncodedCaps()}),
]  # fmt: skip

SILENT = {
    "tone": "its output declares everything",
    "fault": "what comes out is what comes in",
    "probe": "what comes out is what comes in, and reports have no caps",
    "webrtc-out": "what it gives are reports, which have no caps",
    "abr-controller": "what it gives are targets, which have no caps",
}
"""Types that have outputs and nothing to say about them."""


@pytest.mark.parametrize(("type_id", "config", "incoming", "told"), TABLE, ids=lambda each: str(each)[:40])
def test_what_a_node_type_says(
    type_id: str, config: Mapping[str, Any], incoming: dict[str, Caps], told: dict[str, Caps]
) -> None:
    node_type = REGISTRY.get(type_id)
    assert node_type.negotiate(node_type.config_class.model_validate(config), incoming) == told


def test_the_table_has_every_type_that_has_outputs() -> None:
    talking = {type_id for type_id in NODES if REGISTRY.get(type_id).outputs}
    assert {row[0] for row in TABLE} | SILENT.keys() == talking


def test_a_tone_is_known_by_its_declaration() -> None:
    assert REGISTRY.get("tone").outputs["audio"].caps == AudioCaps(format="fltp", rate=48_000, layout="stereo")
