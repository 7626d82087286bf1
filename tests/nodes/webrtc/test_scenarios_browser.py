"""The scenarios that matter most once more, with a real Chromium behind an emulated link, in real time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from playwright.async_api import Browser, Page

from flowstream.testing import UdpLink, udp_link
from tests.nodes.webrtc.test_page import browser, chromium, decoded, open_page, wait_for, wait_for_state

__all__ = ["browser", "chromium"]

pytestmark = [pytest.mark.anyio, pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(180)]

GOOD = {"rate": "6M", "delay": "20ms", "queue_time": "300ms"}


@asynccontextmanager
async def watching(stage: Any, opened: Browser) -> AsyncIterator[tuple[Page, UdpLink]]:
    """A page that plays, over a link."""
    stage.tasks.start_soon(stage.play)
    mux = stage.viewers._mux
    (address, *_) = mux.candidates()
    async with udp_link(address, {"delay": "20ms"}, GOOD, seed=3) as link:
        mux.candidates = lambda: [link.address]
        page = await open_page(opened, stage.url)
        await wait_for_state(page, "playing")
        await wait_for(page, "window.inbound('video').then((s) => s.framesDecoded > 45)")
        yield page, link
        await page.close()


async def back_after_s(page: Page) -> float:
    """How long until pictures come again."""
    began_s = anyio.current_time()
    count = await decoded(page)
    await wait_for(page, f"window.inbound('video').then((s) => s.framesDecoded > {count} + 5)")
    return anyio.current_time() - began_s


async def test_five_percent_lost_are_sent_again_and_hardly_seen(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage, watching(stage, browser) as (page, link):
        sent: list[Any] = []
        send = stage.viewers.send_video
        stage.viewers.send_video = lambda *given: (sent.append(given), send(*given))
        before = await page.evaluate("window.inbound('video')")
        link.to_client.set(link._now_ns(), loss="5%")
        await anyio.sleep(8)
        after = await page.evaluate("window.inbound('video')")
        assert after["nackCount"] > before["nackCount"]
        assert after["framesDecoded"] - before["framesDecoded"] > 0.9 * len(sent) - 5
        assert after["pliCount"] == before["pliCount"], "nothing was given up"
        assert after["totalFreezesDuration"] - before["totalFreezesDuration"] < 1.5


@pytest.mark.parametrize(("seconds", "back_s"), [(1, 1.5), (10, 3)])
async def test_a_blackout_is_over_when_it_is_over(
    stage_of: Any,
    browser: Browser,
    seconds: int,
    back_s: float,
) -> None:
    async with stage_of() as stage, watching(stage, browser) as (page, link):
        link.change(down="losing")
        await anyio.sleep(seconds)
        link.change(down="no")
        assert await back_after_s(page) < back_s
        assert await page.evaluate("window.connections.length") == 1
        await wait_for_state(page, "playing")


async def test_a_new_address_of_the_viewer_is_followed(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage, watching(stage, browser) as (page, link):
        (session,) = stage.viewers.sessions.values()
        before = session.ice.selected.remote
        link.rebind()
        await back_after_s(page)
        assert await back_after_s(page) < 6
        assert session.ice.selected.remote != before
        assert await page.evaluate("window.connections.length") == 1
        assert session.connected
