"""The page in a real Chromium, from real sockets, fed with packets that were encoded beforehand."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from playwright.async_api import Browser, Page, Route, async_playwright

from flowstream import Caller, Record
from flowstream.proto.congestion.estimator import BandwidthEstimator
from flowstream.proto.ice_servers import IceServer
from flowstream.proto.rtcp import FullIntraRequest, PictureLossIndication, RtcpPacket, TransportFeedback, WholeFeedback
from flowstream.runtime.audience import Grant
from flowstream_nodes.webrtc import _rungs
from flowstream_nodes.webrtc._channels import Delivery
from flowstream_nodes.webrtc._sender import Sender
from flowstream_nodes.webrtc._session import ViewerSession
from tests.nodes.webrtc.conftest import encoded_audio

pytestmark = [pytest.mark.anyio, pytest.mark.real, pytest.mark.timeout(180)]

CHROMIUM = "/usr/bin/chromium"
# Chromium by itself has no network for media where there is only loopback, and no way to hide its address there.
ONLY_LOOPBACK = ["--allow-loopback-in-peer-connection", "--disable-features=WebRtcHideLocalIpsWithMdns"]
WATCH = """
window.connections = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...given) { super(...given); window.connections.push(this); }
};
window.inbound = async (kind) => {
  const all = [...(await window.connections.at(-1).getStats()).values()];
  return all.find((each) => each.type === "inbound-rtp" && each.kind === kind) ?? {};
};
window.codec = async () => {
  const all = await window.connections.at(-1).getStats();
  return all.get((await window.inbound("video")).codecId)?.mimeType;
};
window.state = () => document.getElementById("stage").dataset.state;
window.sentence = () => document.getElementById("sentence").textContent;
"""
NO_CHANNEL = "window.RTCPeerConnection.prototype.createDataChannel = undefined;"


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        options = ["--no-sandbox", *(ONLY_LOOPBACK if "ONLY_LOOPBACK" in os.environ else [])]
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        await browser.close()


@pytest.fixture
async def browser(chromium: Browser) -> AsyncIterator[Browser]:
    """A browser whose pages share nothing, and are closed after the test."""
    yield chromium
    for context in chromium.contexts:
        await context.close()


async def open_page(browser: Browser, url: str) -> Page:
    page = await browser.new_page()
    await page.add_init_script(WATCH)
    await page.goto(url)
    return page


async def wait_for(page: Page, condition: str) -> None:
    # Not Playwright's wait_for_function: it evaluates text later on, which the page's security policy forbids.
    with anyio.fail_after(30):
        await page.evaluate(
            f"async () => {{ while (!(await ({condition}))) await new Promise((go) => setTimeout(go, 50)); }}"
        )


async def wait_for_state(page: Page, state: str) -> None:
    await wait_for(page, f"window.state() === '{state}'")


async def decoded(page: Page) -> int:
    return int((await page.evaluate("window.inbound('video')")).get("framesDecoded", 0))


@pytest.mark.alone
async def test_the_page_plays_picture_and_sound(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "playing")
        started = await page.evaluate("document.getElementById('video').currentTime")
        await wait_for(page, f"document.getElementById('video').currentTime > {started} + 1")
        await wait_for(page, "window.inbound('video').then((s) => s.framesDecoded > 45)")
        picture = await page.evaluate("window.inbound('video')")
        assert (picture["frameWidth"], picture["frameHeight"]) == (640, 360)
        assert picture["packetsLost"] == 0
        assert 0 < picture["keyFramesDecoded"] < picture["framesDecoded"]
        assert await page.title() == "Test pattern"
        assert await page.is_visible("text=Tap for sound")
        assert await page.evaluate("document.getElementById('video').muted")
        await page.click("text=Tap for sound")
        await wait_for(page, "!document.getElementById('video').muted")
        await wait_for(page, "window.inbound('audio').then((s) => s.audioLevel > 0.01)")
        assert await page.is_hidden("text=Tap for sound")
        facts = r"/^640.360 .* [\d]+ fps .*bit/"
        await wait_for(page, f"document.getElementById('facts').textContent.match({facts})")
        assert stage.viewers.connected == 1


@pytest.mark.alone
async def test_the_browser_tells_of_every_packet_and_its_link_is_found_to_carry_more(
    stage_of: Any, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    handle_feedback, handle_whole = Sender.handle_feedback, BandwidthEstimator.handle_whole

    def listen(sender: Sender, packet: Any, *, now_ns: int) -> None:
        told.append(packet)
        handle_feedback(sender, packet, now_ns=now_ns)

    def glance(estimator: BandwidthEstimator, feedback: WholeFeedback, *, now_ns: int) -> bool:
        is_all = handle_whole(estimator, feedback, now_ns=now_ns)
        if is_all:
            told.append(feedback)
        return is_all

    monkeypatch.setattr(Sender, "handle_feedback", listen)
    monkeypatch.setattr(BandwidthEstimator, "handle_whole", glance)
    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "playing")
        (session,) = stage.viewers.sessions.values()
        stream_bps = 1_100_000  # picture and sound
        with anyio.fail_after(20):
            while (stage.viewers.reports()[0].bandwidth_bps or 0) < 3 * stream_bps:
                await anyio.lowlevel.checkpoint()
        await wait_for(page, "window.inbound('video').then((s) => s.framesDecoded > 60)")
        assert len(told) > 20
        assert all(isinstance(packet, TransportFeedback | WholeFeedback) for packet in told), "no REMB beside it"
        picture = await page.evaluate("window.inbound('video')")
        assert (picture["packetsLost"], picture["freezeCount"]) == (0, 0)
        assert session.sender.dropped_pictures == 0


@pytest.mark.alone
async def test_a_second_viewer_sees_a_picture_at_once_and_the_first_goes_on(
    stage_of: Any, browser: Browser, pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage_of() as stage:
        # One keyframe and then none by itself for a long time: whoever joins later depends on the request.
        stage.picture = pictures(seconds=20, gop=1000)
        stage.tasks.start_soon(stage.play)
        first = await open_page(browser, stage.url)
        await wait_for_state(first, "playing")
        await wait_for(first, "window.inbound('video').then((s) => s.framesDecoded > 40)")  # its keyframe is old
        before = len(stage.requests)
        monkeypatch.setattr(_rungs, "RECENT_NS", 60_000_000_000)  # however long the browser's handshake takes
        by_browsers: list[RtcpPacket] = []
        handle = ViewerSession._handle_feedback

        def note(session: ViewerSession, packet: RtcpPacket, now_ns: int) -> None:
            if isinstance(packet, PictureLossIndication | FullIntraRequest):
                by_browsers.append(packet)
            handle(session, packet, now_ns)

        monkeypatch.setattr(ViewerSession, "_handle_feedback", note)
        second = await open_page(browser, stage.url)
        await wait_for_state(second, "playing")
        assert (len(stage.requests), by_browsers) == (before + 1, [])
        count = await decoded(first)
        await wait_for(first, f"window.inbound('video').then((s) => s.framesDecoded > {count} + 20)")
        assert await first.evaluate("window.connections.length") == 1
        assert stage.viewers.connected == 2
        await second.close()
        while stage.viewers.connected == 2:
            await first.evaluate("0")
        assert {session.connected for session in stage.viewers.sessions.values()} == {True}


@pytest.mark.alone
async def test_a_resolution_change_goes_on_in_the_same_connection(
    stage_of: Any, browser: Browser, pictures: Any
) -> None:
    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "playing")
        stage.picture, stage.position = pictures((320, 180), 1), 0
        await wait_for(page, "window.inbound('video').then((s) => s.frameWidth === 320)")
        stats = await page.evaluate("window.inbound('video')")
        count = stats["framesDecoded"]
        await wait_for(page, f"window.inbound('video').then((s) => s.framesDecoded > {count} + 20)")
        assert await page.evaluate("window.connections.length") == 1
        assert (await page.evaluate("window.inbound('video')"))["packetsLost"] == 0


@pytest.mark.parametrize("codec", ["vp8", "vp9", "av1"])
async def test_other_codecs_play_too(stage_of: Any, browser: Browser, pictures: Any, codec: str) -> None:
    async with stage_of() as stage:
        stage.picture = pictures(codec=codec)
        stage.send_picture()
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "playing")
        await wait_for(page, "window.inbound('video').then((s) => s.framesDecoded > 45)")
        assert (await page.evaluate("window.inbound('video')"))["packetsLost"] == 0
        assert await page.evaluate("window.codec()") == f"video/{codec.upper()}"


async def test_a_stream_goes_on_in_another_codec_over_the_same_connection(
    stage_of: Any, browser: Browser, pictures: Any
) -> None:
    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "playing")
        for codec in ("vp8", "h264"):
            stage.picture, stage.position = pictures(codec=codec), 0
            await wait_for(page, f"window.codec().then((name) => name === 'video/{codec.upper()}')")
            count = await decoded(page)
            await wait_for(page, f"window.inbound('video').then((s) => s.framesDecoded > {count} + 20)")
        assert await page.evaluate("window.connections.length") == 1
        assert (await page.evaluate("window.inbound('video')"))["packetsLost"] == 0


async def test_sound_alone_plays_too(stage_of: Any, browser: Browser) -> None:
    async with stage_of(kinds=frozenset({"audio"})) as stage:
        stage.picture = ()
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "playing")
        await wait_for(page, "document.getElementById('facts').textContent.startsWith('sound only')")
        await page.click("text=Tap for sound")
        await wait_for(page, "window.inbound('audio').then((s) => s.audioLevel > 0.01)")


async def test_one_answer_is_all_that_is_read_before_the_offer(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        page = await browser.new_page()
        asked: list[tuple[str, str]] = []
        page.on("request", lambda request: asked.append((request.method, request.url.removeprefix(stage.url))))
        await page.add_init_script(WATCH)
        await page.goto(stage.url)
        await wait_for_state(page, "playing")
        assert asked[:2] == [("GET", "/"), ("POST", "/whep")]
        assert await page.title() == await page.inner_text("#title") == "Test pattern"
        assert await page.evaluate("window.connections.length") == 1


async def test_a_page_says_nothing_before_there_is_something_to_say(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        page = await browser.new_page()
        drawn = """
        window.drawn = [];
        document.addEventListener("DOMContentLoaded", () => {
          const look = () => {
            if (document.getElementById("card").checkVisibility()) window.drawn.push(performance.now());
            requestAnimationFrame(look);
          };
          look();
        });
        """
        await page.add_init_script(WATCH + drawn)
        await page.goto(stage.url)
        await wait_for(page, "window.drawn.length")
        assert await page.evaluate("window.drawn[0]") > 400, "it may have been connected by then"
        assert await page.evaluate("window.state()") == "connecting"
        await wait_for(page, "window.sentence() === 'Waiting for the picture'")
        stage.tasks.start_soon(stage.play)
        await wait_for_state(page, "playing")
        assert await page.is_hidden("#card")
        assert await page.is_visible("#title")


async def test_sound_does_not_wait_for_a_picture_that_does_not_come(stage_of: Any, browser: Browser) -> None:
    sound = encoded_audio()

    async def repeat(rate: int, send: Callable[[int], object]) -> None:
        began = anyio.current_time()
        for count in itertools.count():
            await anyio.sleep_until(began + count / rate)
            send(count)

    def send_sound(count: int) -> None:
        packet = replace(sound[count % len(sound)], time_ns=stage.media_ns())
        stage.viewers.send_audio(packet, stage.feeder)

    async with stage_of() as stage:
        stage.tasks.start_soon(repeat, 50, send_sound)
        page = await open_page(browser, stage.url)
        await wait_for(page, "window.inbound('audio').then((s) => s.packetsReceived > 0)")
        await wait_for(page, "document.getElementById('video').currentTime > 0.5")
        stage.tasks.start_soon(repeat, 30, lambda _: stage.send_picture())
        await wait_for_state(page, "playing")
        await wait_for(page, "document.getElementById('video').videoWidth === 640")
        count = await page.evaluate("document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames")
        shown = "document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames"
        await wait_for(page, f"{shown} > {count} + 20")
        await page.click("text=Tap for sound")
        await wait_for(page, "window.inbound('audio').then((s) => s.audioLevel > 0.01)")
        assert await page.evaluate("window.connections.length") == 1


async def test_a_new_title_is_seen_without_a_new_connection(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        page = await open_page(browser, stage.url)
        await wait_for(page, "document.title === 'Test pattern'")
        stage.title = "<b>Desk</b>"
        await wait_for(page, "document.title === '<b>Desk</b>'")
        assert await page.inner_text("#title") == "<b>Desk</b>"
        assert await page.evaluate("window.connections.length") == 1


async def test_a_lost_connection_is_made_again_by_itself(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "playing")
        for session in list(stage.viewers.sessions.values()):
            stage.viewers.dismiss(session.id, "the test cut it")
        await wait_for(page, "window.connections.length === 2")
        await wait_for_state(page, "playing")
        await wait_for(page, "window.connections.at(-1).connectionState === 'connected'")
        count = await decoded(page)
        await wait_for(page, f"window.inbound('video').then((s) => s.framesDecoded > {count} + 20)")


async def test_a_stopped_source_is_said_and_forgotten_when_it_goes_on(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "playing")
        stage.is_paused = True
        await wait_for_state(page, "waiting")
        assert await page.evaluate("window.sentence()") == "The picture has stopped. Waiting for the source"
        stage.is_paused = False
        await wait_for_state(page, "playing")
        assert await page.evaluate("window.connections.length") == 1


async def test_a_server_that_is_gone_and_comes_back_is_found_again(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        port = int(stage.url.rpartition(":")[2])
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "playing")
    await wait_for_state(page, "failed")
    assert await page.evaluate("window.sentence()") == "The server cannot be reached"
    assert await page.is_visible("text=Try again")
    async with stage_of(port=port) as stage:
        stage.tasks.start_soon(stage.play)
        await wait_for_state(page, "playing")
        await page.close()


async def test_a_full_house_and_then_a_free_place(stage_of: Any, browser: Browser, make_viewer: Any) -> None:
    async with stage_of() as stage:
        stage.most = 1
        admitted = stage.viewers.admit(make_viewer().offer(), Caller("127.0.0.1"))
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "failed")
        assert await page.evaluate("window.sentence()") == "All places are taken"
        stage.viewers.dismiss(admitted.session_id)
        stage.tasks.start_soon(stage.play)
        await wait_for_state(page, "playing")


async def test_the_waiting_room(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        stage.approval = "manual"
        registry = stage.viewers.registry
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "lobby")
        assert await page.evaluate("window.sentence()") == "Waiting to be let in"
        assert (await page.evaluate("window.inbound('video')")).get("framesDecoded", 0) == 0
        (viewer,) = registry.viewers
        assert (viewer.state, viewer.name) == ("waiting", None)
        await page.fill("#name", "Ann f m")  # letters that are keys of the player elsewhere
        await page.press("#name", "Enter")
        await wait_for(page, f"document.getElementById('detail').textContent.includes('Ann f m ({viewer.id})')")
        assert registry.viewers[0].name == "Ann f m"
        registry.approve(viewer.id)
        await wait_for_state(page, "playing")
        assert await page.evaluate("window.connections.length") == 1
        # It is known again when it comes back, also by another visit of the page.
        await page.reload()
        await wait_for_state(page, "playing")
        assert [(each.id, each.state) for each in registry.viewers] == [(viewer.id, "watching")]


async def test_who_loads_the_page_again_is_the_same_viewer_however_late_its_goodbye_was(
    stage_of: Any, browser: Browser
) -> None:
    async with stage_of() as stage:
        stage.approval = "manual"
        registry = stage.viewers.registry
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "lobby")
        (viewer,) = registry.viewers
        registry.approve(viewer.id)
        await wait_for_state(page, "playing")
        # The goodbye of a page that ends does not arrive, neither by HTTP nor by DTLS.
        for session in stage.viewers.sessions.values():
            session.handle_datagram = lambda data, pair: None
        await page.evaluate("""() => {
          const real = window.fetch;
          window.fetch = (to, how) => how?.keepalive ? new Promise(() => {}) : real(to, how);
        }""")
        await page.reload()
        await wait_for_state(page, "playing")
        assert [(each.id, each.state) for each in registry.viewers] == [(viewer.id, "watching")]

        # Nor does it in the page after that, which is loaded again at once.
        is_lost = True

        async def lose(route: Route) -> None:
            if route.request.method != "DELETE" or not is_lost:
                await route.continue_()

        for session in stage.viewers.sessions.values():
            session.handle_datagram = lambda data, pair: None
        await page.route("**/whep/*", lose)
        await page.reload()
        is_lost = False
        await page.reload()
        await wait_for_state(page, "playing")
        assert [(each.id, each.state) for each in registry.viewers] == [(viewer.id, "watching")]


async def test_a_kick_is_said_and_the_picture_is_gone(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "playing")
        (viewer,) = stage.viewers.registry.viewers
        stage.viewers.registry.kick(viewer.id)
        await wait_for(page, "window.sentence() === 'The owner has ended this for you.'")
        assert await page.evaluate("document.getElementById('video').srcObject") is None
        assert stage.viewers.connected == 0
        stage.viewers.registry.approve(viewer.id)
        await page.click("text=Try again")
        await wait_for_state(page, "playing")


async def test_a_paused_view_is_black_and_said(stage_of: Any, browser: Browser) -> None:
    darkest = """(() => {
      const video = document.getElementById("video");
      const canvas = new OffscreenCanvas(64, 36);
      const context = canvas.getContext("2d");
      context.drawImage(video, 0, 0, 64, 36);
      return Math.max(...context.getImageData(0, 0, 64, 36).data.filter((_, at) => at % 4 !== 3)) < 12;
    })()"""
    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "playing")
        assert not await page.evaluate(darkest)
        stage.viewers.registry.pause_view()
        await wait_for(page, darkest)  # what any player shows, whatever its page says
        await wait_for_state(page, "paused")
        assert await page.evaluate("window.sentence()") == "The stream is paused"
        assert await page.is_hidden("#video")
        stage.viewers.registry.resume_view()
        await wait_for_state(page, "playing")
        await wait_for(page, f"!{darkest}")
        assert await page.evaluate("window.connections.length") == 1


async def test_a_link_with_a_token_plays_and_one_without_says_what_is_needed(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        stage.approval = "token"
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for(page, "window.sentence() === 'This needs a link from its owner'")
        assert await page.title() == "Live"
        ends_ns = stage.clock.wallclock_ns() + 60_000_000_000
        token = stage.tokens.issue(Grant("abc", ends_ns, name="Ann"))
        page = await open_page(browser, f"{stage.url}/?token={token}")
        await wait_for_state(page, "playing")
        assert await page.title() == "Test pattern"
        assert [(each.name, each.is_verified) for each in stage.viewers.registry.viewers] == [("Ann", True)]
        page = await open_page(browser, f"{stage.url}/?token=nonsense")
        await wait_for(page, "window.sentence() === 'This link does not count any more'")


async def test_a_browser_without_the_format_is_told_so(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        stage.send_picture()
        page = await browser.new_page()
        await page.add_init_script(WATCH)
        await page.add_init_script(
            "const make = RTCPeerConnection.prototype.createOffer;"
            "RTCPeerConnection.prototype.createOffer = async function () {"
            "  const offer = await make.call(this);"
            "  return {type: offer.type, sdp: offer.sdp.replace(/packetization-mode=1/g, 'packetization-mode=0')};"
            "};"
        )
        await page.goto(stage.url)
        await wait_for_state(page, "failed")
        assert await page.evaluate("window.sentence()") == "This browser cannot play the stream"
        assert "H264 42e01f mode 0" in await page.inner_text("#detail")


async def test_a_path_that_falls_silent_is_looked_for_anew_in_the_same_session(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "playing")
        (session,) = stage.viewers.sessions.values()
        before = session.ice.ufrag
        handle = session.handle_datagram

        def deaf(data: bytes, pair: Any) -> None:
            if session.ice.ufrag != before:  # as when another network carries what the old one did not
                handle(data, pair)

        session.handle_datagram = deaf
        await wait_for(page, "window.connections.at(-1).connectionState === 'disconnected'")
        await wait_for(page, "window.connections.at(-1).connectionState === 'connected'")
        assert session.ice.ufrag != before
        with anyio.fail_after(10):
            while session.ice.ufrags != (session.ice.ufrag,):  # until a path is nominated
                await page.evaluate("0")
        count = await decoded(page)
        await wait_for(page, f"window.inbound('video').then((s) => s.framesDecoded > {count} + 20)")
        await wait_for_state(page, "playing")
        assert await page.evaluate("window.connections.length") == 1
        assert list(stage.viewers.sessions.values()) == [session]


async def test_the_browser_asks_the_servers_that_the_answer_names(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        stage.servers = (IceServer(("turn:127.0.0.1:9?transport=udp",), "viewer", 'se"cret'),)
        page = await open_page(browser, stage.url)
        await wait_for(page, "window.connections.at(-1)?.getConfiguration().iceServers.length")
        (server,) = await page.evaluate("window.connections.at(-1).getConfiguration().iceServers")
        assert (server["username"], server["credential"]) == ("viewer", 'se"cret')
        assert server["urls"] == ["turn:127.0.0.1:9?transport=udp"]


async def test_servers_that_are_named_later_are_asked_at_the_next_connection(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "playing")
        assert not await page.evaluate("window.connections.at(-1).getConfiguration().iceServers.length")
        stage.servers = (IceServer(("turn:127.0.0.1:9?transport=udp",), "viewer", "secret"),)
        for session in list(stage.viewers.sessions.values()):
            stage.viewers.dismiss(session.id, "the test cut it")
        await wait_for(page, "window.connections.at(-1).getConfiguration().iceServers.length")
        await wait_for(page, "window.connections.at(-1).connectionState === 'connected'")
        await wait_for_state(page, "playing")
        while len(stage.viewers.sessions) > 1:  # the one whose answer came too late for it
            await page.evaluate("0")


@pytest.mark.alone
async def test_the_statistics_show_what_arrives(stage_of: Any, browser: Browser) -> None:
    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        page = await open_page(browser, stage.url)
        await wait_for_state(page, "playing")
        assert await page.is_hidden("#panel")
        await page.click("#stats")
        assert await page.is_visible("#panel")
        shown = "((name) => document.getElementById(name).textContent)"
        await wait_for(page, f"{shown}('row-picture').match(/^640.360, (29|30|31) fps, H264$/)")
        await wait_for(page, f"{shown}('rate-now').match(/^(1[.]\\d Mbit|9\\d\\d kbit)[/]s$/)")
        await wait_for(page, f"{shown}('loss-now') === '0 %'")
        await wait_for(page, f"{shown}('buffer-now').match(/^[\\d.]+ ms$/)")
        # The pictures were taken when they were sent: what is left is the way, the buffer and the decoder.
        await wait_for(page, f"{shown}('delay-label') === 'Capture to screen'")
        await wait_for(page, f"{shown}('delay-now').match(/^(?!0[.]0)\\d{{1,2}}([.]\\d)? ms$/)")
        assert await page.inner_text("#row-sound") == "opus"
        await wait_for(page, "document.getElementById('rate-line').points.length > 3")
        await page.keyboard.press("i")
        assert await page.is_hidden("#panel")


async def test_whoever_waits_to_be_let_in_is_told_so_and_may_say_a_name(stage_of: Any, browser: Browser) -> None:
    told = {"viewer": "heron", "name": None, "state": "waiting", "pass": None}
    names: list[str] = []

    async def answer(route: Route) -> None:
        if route.request.method == "POST":
            names.append(route.request.post_data or "")
            told["name"] = names[-1]
        await route.fulfill(json=told)

    async with stage_of() as stage:
        page = await browser.new_page()
        await page.add_init_script(WATCH)
        await page.route("**/state", answer)
        await page.goto(stage.url)
        await wait_for_state(page, "lobby")
        assert await page.evaluate("window.sentence()") == "Waiting to be let in"
        await wait_for(page, "document.getElementById('detail').textContent === 'The owner sees you as heron.'")
        await page.fill("#name", "Ada")
        await page.click("text=Set name")
        await wait_for(page, "document.getElementById('detail').textContent === 'The owner sees you as Ada (heron).'")
        assert names == ["Ada"]
        told["state"] = "watching"
        await wait_for_state(page, "connecting")
        assert await page.is_hidden("#who")
        stage.tasks.start_soon(stage.play)
        await wait_for_state(page, "playing")
        told["state"] = "paused"
        await wait_for_state(page, "paused")
        assert await page.evaluate("window.sentence()") == "The stream is paused"
        told["state"] = "watching"
        await wait_for_state(page, "playing")
        assert await page.evaluate("window.connections.length") == 1


async def test_without_data_channels_the_quality_menu_asks_by_http(stage_of: Any, browser: Browser) -> None:
    told = {
        "chosen": "auto",
        "rung": "high",
        "why": "high is sent: it is the best there is",
        "rungs": [
            {"name": "high", "size": "1280x720", "bitrate": 2_400_000},
            {"name": "low", "size": "640x360", "bitrate": None},
        ],
    }
    wanted: list[str] = []

    async def answer(route: Route) -> None:
        if route.request.method == "POST":
            wanted.append(route.request.post_data or "")
            told["chosen"] = told["rung"] = wanted[-1]
        await route.fulfill(json=told)

    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        alone = await open_page(browser, stage.url)
        page = await browser.new_page()
        await page.add_init_script(WATCH + NO_CHANNEL)
        await page.route("**/quality", answer)
        await page.goto(stage.url)
        await wait_for(page, "!document.getElementById('quality').hidden")
        texts = await page.locator("#quality option").all_inner_texts()
        assert texts == ["Auto (720p)", "720p, 2.4 Mbit/s", "360p"]
        assert await page.get_attribute("#quality", "title") == "high is sent: it is the best there is"
        await page.select_option("#quality", "low")
        await wait_for(page, "document.querySelector('#quality option').textContent === 'Auto'")
        assert wanted == ["low"]
        assert await page.input_value("#quality") == "low"
        await wait_for_state(alone, "playing")
        assert await alone.is_hidden("#quality")


async def test_the_choice_of_a_quality_and_records_go_over_data_channels(
    stage_of: Any, browser: Browser, pictures: Any
) -> None:
    async with stage_of() as stage:
        stage.feeder.rungs = lambda: {0: "high", 1: "low"}
        stage.feeder.delivery = lambda: Delivery("ordered", 64 * 1024)
        low = pictures((320, 180), gop=15)

        async def play_low() -> None:
            began = anyio.current_time()
            for count in itertools.count():
                await anyio.sleep_until(began + count / 30)
                packet = replace(low[count % len(low)], time_ns=stage.media_ns())
                stage.viewers.send_video(packet, stage.feeder, 1)

        stage.tasks.start_soon(stage.play)
        stage.tasks.start_soon(play_low)
        page = await browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.add_init_script(
            WATCH + "window.records = []; addEventListener('flowstream:data', (e) => window.records.push(e.detail));"
        )
        await page.goto(stage.url)
        await wait_for_state(page, "playing")
        await wait_for(page, "!document.getElementById('quality').hidden")
        await wait_for(page, "document.getElementById('video').videoWidth === 640")
        await page.select_option("#quality", "low")
        await wait_for(page, "document.getElementById('video').videoWidth === 320")
        await wait_for(page, "document.querySelector('#quality').title.includes('the viewer has chosen it')")
        await page.select_option("#quality", "auto")
        await wait_for(page, "document.getElementById('video').videoWidth === 640")
        for number in range(50):
            stage.viewers.send_record(Record({"degrees": number / 2}, stage.media_ns()), "sensor")
        await wait_for(page, "window.records.length === 50")
        records = await page.evaluate("window.records")
        assert [each["number"] for each in records] == list(range(50))
        assert (records[5]["node"], records[5]["type"], records[5]["value"]) == ("sensor", "dict", {"degrees": 2.5})
        assert not [url for url in asked if "/quality" in url]
        assert await page.evaluate("window.connections.length") == 1


@pytest.mark.parametrize("size", [(390, 844), (844, 390), (1280, 720)])
async def test_everything_fits_the_screen(stage_of: Any, browser: Browser, size: tuple[int, int]) -> None:
    async with stage_of() as stage:
        stage.title = "A long title of a stream that somebody wrote without thinking of telephones at all"
        stage.tasks.start_soon(stage.play)
        page = await browser.new_page(viewport={"width": size[0], "height": size[1]})
        await page.add_init_script(WATCH)
        await page.goto(stage.url)
        await wait_for_state(page, "playing")
        await page.wait_for_selector("#sound", state="visible")
        for names in (["#title", "#sound", "#facts", "#stats", "#full"], ["#panel"]):
            for name in names:
                box = await page.locator(name).bounding_box()
                assert box is not None, name
                assert box["x"] >= 0, name
                assert box["y"] >= 0, name
                assert box["x"] + box["width"] <= size[0], name
                assert box["y"] + box["height"] <= size[1], name
            await page.keyboard.press("i")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.skipif(subprocess.call(["unshare", "-n", "true"]) != 0, reason="a network of its own needs root")
@pytest.mark.parametrize(
    "test",
    [pytest.param("test_page.py::test_the_page_plays_picture_and_sound", marks=pytest.mark.alone), "test_session.py"],
)
def test_it_works_on_a_machine_that_has_only_loopback(test: str) -> None:
    script = 'ip link set lo up && exec "$0" -m pytest -q "$1"'
    command = ["unshare", "-n", "sh", "-c", script, sys.executable, str(Path(__file__).parent / test)]
    environment = {**os.environ, "ONLY_LOOPBACK": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
