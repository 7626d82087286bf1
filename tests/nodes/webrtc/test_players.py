"""Players that others wrote, as WHEP clients: each watches a few seconds, asks for a keyframe, and leaves."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest

from flowstream import Record
from flowstream_nodes.webrtc._channels import Delivery
from tests.clients import FOLDER, node, require_npm

pytestmark = [pytest.mark.anyio, pytest.mark.real]

PROGRAMS = Path(__file__).parent.parent.parent / "clients" / "whep"
SYSTEM_PYTHON = "/usr/bin/python3"
PICTURES = 60


def gstreamer() -> list[str]:
    """The command of GStreamer's player; the test is skipped where a part of it is missing."""
    parts = "from gi.repository import Gst; Gst.init(None); assert all(map(Gst.ElementFactory.find, %r))"
    elements = ["webrtcbin", "nicesrc", "rtph264depay", "h264parse", "openh264dec", "dtlsdec", "srtpdec"]
    script = f"import gi; [gi.require_version(n, '1.0') for n in ('Gst', 'GstSdp', 'GstWebRTC')]\n{parts % elements}"
    try:
        found = subprocess.run([SYSTEM_PYTHON, "-c", script], capture_output=True, text=True, check=False)
    except OSError:
        pytest.skip("there is no Python of the system")
    if found.returncode != 0:
        pytest.skip(f"GStreamer's webrtcbin is not here: {found.stderr.strip().splitlines()[-1]}")
    return [SYSTEM_PYTHON, str(PROGRAMS / "gstreamer.py")]


def player(name: str) -> list[str]:
    """The command of a player."""
    if name == "gstreamer":
        return gstreamer()
    package = {"werift": "werift", "datachannel": "node-datachannel", "wrtc": "@roamhq/wrtc"}[name]
    require_npm(package)
    return [str(node()), str(PROGRAMS / f"{name}.js")]


async def play(command: list[str], url: str) -> dict[str, Any]:
    """What a player reports of its session."""
    variables = {**os.environ, "NODE_PATH": str(FOLDER)}
    with anyio.fail_after(90):
        done = await anyio.run_process(
            [*command[:2], f"{url}/whep", str(PICTURES), *command[2:]], env=variables, check=False
        )
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("name", ["werift", "datachannel", "gstreamer"])
async def test_a_player_sees_a_keyframe_first_gets_another_when_it_asks_and_leaves(
    stage_of: Any, pictures: Any, name: str
) -> None:
    command = player(name)
    async with stage_of(host="0.0.0.0") as stage:  # libnice comes from no loopback address
        # One keyframe and then none by itself for a long time: what a player sees of them was asked for.
        stage.picture = pictures(seconds=20, gop=1000)
        stage.position = 7
        stage.tasks.start_soon(stage.play)
        report = await play(command, stage.url)
        assert report["status"] == 201
        assert report["pictures"] >= PICTURES
        assert report["first_is_keyframe"] is True
        assert report["keyframes_asked"] >= 1
        assert report.get("lost", 0) == 0
        assert report["left"] == 200
        assert len(stage.requests) >= 2
        with anyio.fail_after(10):
            while stage.viewers.sessions:
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("name", ["werift", "datachannel"])
@pytest.mark.parametrize("how", ["ordered", "lossy"])
async def test_a_player_has_data_channels(
    stage_of: Any, pictures: Any, name: str, how: Literal["ordered", "lossy"]
) -> None:
    command = player(name)
    async with stage_of(host="0.0.0.0") as stage:
        stage.feeder.delivery = lambda: Delivery(how, 64 * 1024)
        stage.feeder.rungs = lambda: {0: "low"}

        async def measure() -> None:
            for number in itertools.count():
                stage.viewers.send_record(Record({"number": number}, stage.media_ns()), "sensor")
                await anyio.sleep(0.02)

        stage.tasks.start_soon(stage.play)
        stage.tasks.start_soon(measure)
        report = await play([*command, "50"], stage.url)
        assert (report["status"], report["left"]) == (201, 200)
        said = report["said"]
        assert (said["hello"]["version"], said["pong"]["id"], said["answer"]["chosen"]) == (1, 1, "low")
        assert said["error"]["text"] == "a message is a JSON object"
        assert said["stats"]["records_dropped"] == 0
        numbers = report["records"]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert report["record"]["value"] == {"number": report["record"]["number"]}


async def test_a_player_without_h264_is_told_what_is_missing(stage_of: Any) -> None:
    command = player("wrtc")
    async with stage_of(host="0.0.0.0") as stage:
        stage.send_picture()
        report = await play(command, stage.url)
        assert report["status"] == 406
        assert report["text"].startswith("No video format in common: the offer has VP8, VP9")
        assert report["text"].endswith("; this end sends H264 with packetization-mode 1.\n")
        assert not stage.viewers.sessions


@pytest.mark.parametrize(("name", "codec"), [("wrtc", "vp8"), ("wrtc", "vp9"), ("wrtc", "av1"), ("gstreamer", "vp8")])
async def test_a_player_decodes_what_browsers_without_h264_play(
    stage_of: Any, pictures: Any, name: str, codec: str
) -> None:
    command = player(name)
    async with stage_of(host="0.0.0.0") as stage:
        stage.picture = pictures(gop=1000, codec=codec)
        stage.send_picture()
        stage.tasks.start_soon(stage.play)
        report = await play([*command, codec] if name == "gstreamer" else command, stage.url)
        assert report["status"] == 201
        assert report["pictures"] >= PICTURES
        assert report["left"] == 200
