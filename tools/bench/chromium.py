"""A trace played to a real Chromium: `webrtc-out` itself, behind the link emulator, in real time.

The pictures are filler of the size that the sender's estimate asks for; Chromium decodes none of them, and tells of
every packet all the same.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Sequence
from typing import Any

import anyio
from measuring import ROOT
from steering import FPS, MOST_BPS, MS, ONE_WAY_MS, OVERHEAD, QUEUE_MS, Outcome, StretchLike

sys.path[:0] = [str(ROOT), str(ROOT / "nodes")]

CHROMIUM = "/usr/bin/chromium"
OPTIONS = ["--no-sandbox", "--allow-loopback-in-peer-connection", "--disable-features=WebRtcHideLocalIpsWithMdns"]


def play(trace: Sequence[StretchLike], *, lasts_ms: int) -> Outcome | None:
    """What came of a trace; None where there is no Chromium."""
    return anyio.run(_play, trace, lasts_ms) if os.path.exists(CHROMIUM) else None


async def _play(trace: Sequence[StretchLike], lasts_ms: int) -> Outcome:
    from playwright.async_api import async_playwright

    from flowstream.testing import udp_link
    from tests.nodes.webrtc.conftest import open_stage

    first = trace[0]
    conditions = {"rate": first.rate_bps, "loss": first.loss, "delay": ONE_WAY_MS * MS, "queue_time": QUEUE_MS * MS}
    outcome = Outcome(received=[0] * (lasts_ms // 1000 + 2))
    async with open_stage(kinds=frozenset({"video"})) as stage, async_playwright() as playwright:
        mux: Any = stage.viewers._mux
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        async with udp_link(mux.candidates()[0], {"delay": ONE_WAY_MS * MS}, conditions, seed=1) as link:
            mux.candidates = lambda: [link.address]
            page = await browser.new_page()
            await page.goto(stage.url)
            with anyio.fail_after(20):
                while not any(each.connected for each in stage.viewers.sessions.values()):
                    await page.evaluate("0")  # lets time pass
            (session,) = stage.viewers.sessions.values()
            ssrc = session.streams["video"].ssrc.to_bytes(4, "big")
            poll, began_ns = link.to_client.poll, link._now_ns()

            def note(now_ns: int) -> Any:
                arrived = poll(now_ns)
                for each in arrived:
                    at_ms = (each.at_ns - began_ns) / MS
                    if at_ms < 0 or not 128 <= each.data[0] < 192 or 192 <= each.data[1] <= 223:
                        continue
                    outcome.waits_ms.append((at_ms, (each.at_ns - each.sent_ns) / MS - ONE_WAY_MS))
                    if each.data[8:12] == ssrc and at_ms < lasts_ms:
                        outcome.received[int(at_ms // 1000)] += len(each.data) + OVERHEAD
                return arrived

            link.to_client.poll = note  # type: ignore[method-assign]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_encode, stage, session)
                for stretch in trace:
                    if stretch.time_ms >= lasts_ms:
                        break
                    await anyio.sleep(max(0.0, (began_ns + stretch.time_ms * MS - link._now_ns()) / 1e9))
                    link.to_client.set(link._now_ns(), rate=stretch.rate_bps, loss=stretch.loss)
                await anyio.sleep(max(0.0, (began_ns + lasts_ms * MS - link._now_ns()) / 1e9))
                tasks.cancel_scope.cancel()
            await browser.close()
    return outcome


async def _encode(stage: Any, session: Any) -> None:
    """A picture of the wanted size thirty times a second, a keyframe where one was asked for."""
    from flowstream import EncodedPacket

    chance = random.Random(1)
    wants_keyframe = [True]
    stage.feeder.ask_keyframe = lambda index: wants_keyframe.append(True)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for number in range(1 << 30):
        await anyio.sleep(max(0.0, began_s + number / FPS - loop.time()))
        bps = min(session.sender.estimator.target_bps, MOST_BPS)
        size = int(bps / 8 / FPS * 0.97 * min(max(chance.gauss(1, 0.15), 0.5), 1.5))
        is_keyframe = bool(wants_keyframe)
        wants_keyframe.clear()
        head = b"\0\0\1\x67\x42\xe0\x1f\xda\0\0\1\x68\xce\x06\xe2\0\0\1\x65" if is_keyframe else b"\0\0\1\x41"
        packet = EncodedPacket(
            stage.picture[0].caps, head + b"\x5a" * size, time_ns=stage.media_ns(), keyframe=is_keyframe
        )
        stage.viewers.send_video(packet, stage.feeder)
