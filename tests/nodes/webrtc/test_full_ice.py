"""Sessions whose agent sends checks itself, as with servers to ask: candidates that come later, restarts, consent."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from flowstream.proto.ice_agent import MAX_REMOTES, IceAgent
from flowstream.proto.ice_servers import IceServer
from flowstream_nodes.webrtc._gathering import Reach
from tests.nodes.webrtc.network import Network
from tests.nodes.webrtc.player import LoopbackViewer

pytestmark = [pytest.mark.anyio, pytest.mark.real]

SDP = {"Content-Type": "application/sdp"}
TRICKLE = {"Content-Type": "application/trickle-ice-sdpfrag"}


@pytest.fixture
async def stage(stage_of: Any) -> AsyncIterator[Any]:
    """One on a machine of its own, whose server is out of reach."""
    with Network() as network:
        network.add("server")
        with network.at("server"):
            async with stage_of(host="0.0.0.0", reach=Reach((IceServer(("stun:192.0.2.1",)),))) as found:
                yield found


@pytest.fixture
async def http(stage: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stage.url, timeout=10) as client:
        yield client


async def join(stage: Any, http: httpx.AsyncClient, viewer: LoopbackViewer) -> tuple[Any, httpx.Response]:
    """A viewer that watches, and the answer that it got."""
    answer = await http.post("/whep", content=viewer.offer(), headers=SDP)
    assert answer.status_code == 201
    with anyio.fail_after(10):
        await viewer.connect(answer.text)
        session = stage.viewers.sessions[answer.headers["location"].rpartition("/")[2]]
        assert isinstance(session.ice, IceAgent)
        while not session.connected:
            await anyio.lowlevel.checkpoint()
    return session, answer


async def test_candidates_that_come_later_are_taken_once_and_not_without_end(
    stage: Any, http: httpx.AsyncClient, make_viewer: Any
) -> None:
    viewer = make_viewer()
    answer = await http.post("/whep", content=viewer.offer(), headers=SDP)
    assert "a=ice-options:ice2" in answer.text
    (session,) = stage.viewers.sessions.values()
    lines = [f"a=candidate:1 1 udp 9 127.0.0.1 {port} typ host\r\n" for port in range(50_000, 50_100)]
    headers = {**TRICKLE, "If-Match": answer.headers["etag"]}
    for body in ("".join(lines), lines[0], "a=candidate:1 1 tcp 9 127.0.0.1 9 typ host\r\n", "a=end-of-candidates\r\n"):
        told = await http.patch(answer.headers["location"], content=body, headers=headers)
        assert (told.status_code, told.text) == (204, "")
    assert len(session.ice._remotes) == MAX_REMOTES


async def test_media_goes_on_across_a_restart(stage: Any, http: httpx.AsyncClient, make_viewer: Any) -> None:
    viewer = make_viewer()
    stage.tasks.start_soon(stage.play)
    session, answer = await join(stage, http, viewer)
    before, ufrag = session.ice.selected, secrets.token_hex(4)
    viewer.password = secrets.token_hex(16)
    fragment = f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:{viewer.password}\r\n"
    told = await http.patch(answer.headers["location"], content=fragment, headers={**TRICKLE, "If-Match": "*"})
    assert told.status_code == 200
    assert told.text.startswith("a=ice-options:ice2\r\n")
    viewer.restart(told.text, ufrag)
    with anyio.fail_after(10):
        await viewer.checked.wait()
        while len(session.ice.ufrags) > 1:
            await anyio.lowlevel.checkpoint()
        count = len(viewer.rtp)
        await viewer.until(lambda: len(viewer.rtp) > count + 20)
    assert session.ice.selected != before
    assert session.closed_because is None


async def test_a_viewer_that_answers_no_check_is_let_go_after_30_s(
    stage: Any, http: httpx.AsyncClient, make_viewer: Any
) -> None:
    viewer = make_viewer()
    session, _ = await join(stage, http, viewer)
    with anyio.fail_after(10):
        for _ in range(8):  # it answers: it stays
            stage.clock.skip(6)
            heard_ns = session.ice._heard_ns
            while session.ice._heard_ns == heard_ns:
                await anyio.lowlevel.checkpoint()
    assert session.closed_because is None
    asyncio.get_running_loop().remove_reader(viewer.socket)
    stage.clock.skip(31)
    with anyio.fail_after(10):
        while session.closed_because is None:
            await anyio.lowlevel.checkpoint()
    assert session.closed_because == "it was silent for 30 s"
    with anyio.fail_after(10):
        while stage.viewers.sessions:
            await anyio.lowlevel.checkpoint()
    assert stage.viewers._mux._asking.keys().isdisjoint({session.ice.tag})


async def test_a_failed_way_is_named(stage: Any, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowstream_nodes.webrtc._session.SETUP_S", 0.1)
    viewer = LoopbackViewer()
    await http.post("/whep", content=viewer.offer(), headers=SDP)
    (session,) = stage.viewers.sessions.values()
    with anyio.fail_after(10):
        while session.closed_because is None:
            await anyio.lowlevel.checkpoint()
    assert session.closed_because == "not connected within 0 s: no ICE check came in"
    assert stage.viewers.unsent_packets == 0, "what cannot go out for want of a way is not counted"
