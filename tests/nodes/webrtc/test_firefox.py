"""The page in a real Firefox, which has no H.264 of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.clients.firefox import Firefox, open_firefox

pytestmark = [pytest.mark.anyio, pytest.mark.real, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
async def firefox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Firefox]:
    async with open_firefox(tmp_path_factory.mktemp("firefox")) as running:
        yield running


async def test_a_browser_without_the_codec_is_told_which_is_missing(stage_of: Any, firefox: Firefox) -> None:
    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        await firefox.open(stage.url)
        await firefox.wait_for("document.getElementById('stage').dataset.state === 'failed'")
        assert await firefox.evaluate("document.title") == "Test pattern"
        sentence = await firefox.evaluate("document.getElementById('sentence').textContent")
        detail = await firefox.evaluate("document.getElementById('detail').textContent")
        assert sentence == "This browser cannot play the stream"
        assert "the offer has VP8, VP9, AV1; this end sends H264" in detail
        assert not stage.viewers.sessions
