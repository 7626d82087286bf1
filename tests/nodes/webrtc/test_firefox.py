"""The page in a real Firefox, which has no H.264 of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from flowstream import Record
from flowstream_nodes.webrtc._channels import Delivery
from tests.clients.firefox import Firefox, open_firefox

pytestmark = [pytest.mark.anyio, pytest.mark.real, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
async def firefox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Firefox]:
    async with open_firefox(tmp_path_factory.mktemp("firefox")) as running:
        yield running


async def test_a_browser_without_the_codec_is_told_which_is_missing(stage_of: Any, firefox: Firefox) -> None:
    async with stage_of() as stage:
        stage.send_picture()
        stage.tasks.start_soon(stage.play)
        await firefox.open(stage.url)
        await firefox.wait_for("document.getElementById('stage').dataset.state === 'failed'")
        assert await firefox.evaluate("document.title") == "Test pattern"
        sentence = await firefox.evaluate("document.getElementById('sentence').textContent")
        detail = await firefox.evaluate("document.getElementById('detail').textContent")
        assert sentence == "This browser cannot play the stream"
        assert detail.startswith("The stream is H264. Chrome, Edge and Safari play it; Firefox does where its H.264")
        assert "the offer has VP8, VP9, AV1; this end sends H264" in detail
        assert not stage.viewers.sessions


@pytest.mark.parametrize("codec", ["vp8", "vp9", "av1"])
async def test_it_plays_what_it_can(stage_of: Any, pictures: Any, firefox: Firefox, codec: str) -> None:
    async with stage_of() as stage:
        stage.picture = pictures(codec=codec)
        stage.send_picture()
        stage.tasks.start_soon(stage.play)
        await firefox.open(stage.url)
        await firefox.wait_for("document.getElementById('stage').dataset.state === 'playing'")
        await firefox.see(60)
        assert await firefox.evaluate("document.getElementById('video').videoWidth") == 640
        assert await firefox.evaluate("document.getElementById('video').muted") is True
        assert stage.viewers.connected == 1
        await firefox.open("about:blank")
        with anyio.fail_after(10):
            while stage.viewers.sessions:
                await anyio.lowlevel.checkpoint()


@pytest.mark.alone
async def test_data_channels_bring_records_and_the_delay(stage_of: Any, pictures: Any, firefox: Firefox) -> None:
    async with stage_of() as stage:
        stage.feeder.rungs = lambda: {0: "high"}
        stage.feeder.delivery = lambda: Delivery("lossy", 64 * 1024)
        stage.picture = pictures(codec="vp8")
        stage.age_ns = 400_000_000
        stage.send_picture()
        stage.tasks.start_soon(stage.play)
        await firefox.open(stage.url)
        await firefox.wait_for("document.getElementById('stage').dataset.state === 'playing'")
        await firefox.evaluate(
            "window.records = [], window.addEventListener('flowstream:data', (e) => window.records.push(e.detail)), 0"
        )
        # Pictures come before the channel is open, and what is sent until then reaches nobody.
        with anyio.fail_after(30):
            while not await firefox.evaluate("window.records.length"):
                stage.viewers.send_record(Record({"hear": "me"}, stage.media_ns()), "sensor")
        for number in range(20):
            stage.viewers.send_record(Record({"degrees": number / 2}, stage.media_ns()), "sensor")
        degrees = "window.records.filter((each) => 'degrees' in each.value).map((each) => each.value.degrees)"
        await firefox.wait_for(f"{degrees}.length === 20")
        assert await firefox.evaluate(degrees) == [n / 2 for n in range(20)]
        await firefox.evaluate("document.getElementById('stats').click()")
        figure = "parseFloat(document.getElementById('delay-now').textContent)"
        # What the server says of the pictures, and a way over loopback; Firefox itself knows nothing of it.
        await firefox.wait_for(f"400 < {figure} && {figure} < 800")
        assert await firefox.evaluate("document.getElementById('delay-label').textContent") == "Capture to screen"
        await firefox.wait_for("document.getElementById('row-link').textContent.startsWith('carries ')")
