"""The viewers of a graph that a program runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

import flowstream
from flowstream import Viewer, ViewerError, ViewerWaiting
from flowstream.runtime.audience import Caller
from flowstream.runtime.viewers import VIEWERS, ViewerRegistry
from tests.api.graphs import shown
from tests.api.test_web import OFFER, SDP, client, mounted
from tests.runtime.test_viewers import BLACK, LIVE, NOTHING, Session

pytestmark = pytest.mark.anyio


def come(run: flowstream.Run, **more: Any) -> Session:
    registry = run._engine.held("out", VIEWERS)
    assert isinstance(registry, ViewerRegistry)
    seat = registry.seat(registry.knock(Caller("192.0.2.1", **more)))
    session = Session(seat)
    seat.sit(session)
    seat.connected()
    return session


async def test_a_program_looks_after_its_viewers() -> None:
    async with flowstream.open(shown(viewers={"approval": "manual"}), serve="127.0.0.1:0") as run:
        waiting: list[str] = []
        run.on(ViewerWaiting, lambda event: waiting.append(event.viewer))
        session = come(run, name="Ann")
        (viewer,) = run.viewers
        assert isinstance(viewer, Viewer)
        assert waiting == [viewer.id]
        assert run.viewers.approve(viewer.id).state == "watching"
        assert session.shown == LIVE
        assert run.viewers.pause(viewer.id).state == "paused"
        assert run.viewers.resume(viewer.id).state == "watching"
        assert run.viewers.permit(viewer.id, audio=False).audio is False
        assert run.viewers.cap(viewer.id, "1M").cap_bps == 1_000_000
        assert run.viewers.pause_view() == ["out"]
        assert session.shown == BLACK
        assert run.viewers.views[0].is_paused
        assert run.viewers.resume_view("out") == ["out"]
        run.viewers.kick(viewer.id)
        assert len(run.viewers) == 0
        assert [each.state for each in run.viewers.known] == ["rejected"]
        other = come(run)
        run.viewers.reject(other.seat.viewer)
        with pytest.raises(ViewerError, match="there is no viewer zzzz"):
            run.viewers.approve("zzzz")


async def test_a_callback_may_let_in_at_once() -> None:
    async with flowstream.open(shown(viewers={"approval": "manual"}), serve="127.0.0.1:0") as run:
        run.on(ViewerWaiting, lambda event: run.viewers.approve(event.viewer))
        assert come(run).shown == LIVE


async def test_links_carry_a_token_where_one_is_needed() -> None:
    async with flowstream.open(shown(viewers={"approval": "token"}), serve="127.0.0.1:0") as run:
        (link,) = run.links
        async with httpx.AsyncClient(follow_redirects=True) as http:
            page = await http.get(link)
            assert page.url.params["token"] == link.split("token=")[1]  # also where it leads elsewhere
            assert (await http.post(page.url.join("whep"), content=OFFER, headers=SDP)).status_code == 401
            asked = page.url.join("whep").copy_merge_params({"token": page.url.params["token"]})
            assert (await http.post(asked, content=OFFER, headers=SDP)).status_code == 201
        invitation = run.viewers.invite("out", name="Ann", seconds=60)
        session = come(run, token=invitation.token)
        assert [each.name for each in run.viewers if each.is_verified] == ["Ann"]
        assert run.viewers.revoke(invitation.id) == 1
        assert session.reason == "its invitation was taken back"


async def test_beyond_this_machine_a_token_is_needed_unless_the_graph_says_otherwise() -> None:
    async with flowstream.open(shown(), serve="0.0.0.0:0", tls="off") as run:
        assert run.viewers.views[0].approval == "token"
        assert all("?token=" in link for link in run.links)
    async with flowstream.open(shown(viewers={"approval": "none"}), serve="0.0.0.0:0", tls="off") as run:
        assert not any("token" in link for link in run.links)
    async with flowstream.open(shown(), serve="127.0.0.1:0") as run:
        assert run.viewers.views[0].approval == "none"


async def test_in_another_application_the_program_says_who_comes_in() -> None:
    graph = shown(viewers={"approval": "token"})
    async with (
        flowstream.open(graph, serve=False) as run,
        client(mounted(run, "/live", authorize=lambda request: "Ann")) as http,
        client(mounted(run, "/open")) as open_,
    ):
        assert (await http.post("/live/out/whep", content=OFFER, headers=SDP)).status_code == 201
        assert [(each.name, each.is_verified) for each in run.viewers] == [("Ann", True)]
        assert (await open_.post("/open/out/whep", content=OFFER, headers=SDP)).status_code == 401
        assert run.viewers.invite().links == ()
        run.asgi(url="https://example.org/live/")
        assert run.viewers.invite().links[0].startswith("https://example.org/live/out/?token=")


async def test_who_is_vouched_for_waits_where_the_owner_lets_people_in() -> None:
    async with flowstream.open(shown(viewers={"approval": "manual"}), serve=False) as run:
        assert come(run, vouched="Ann").shown == NOTHING


def test_without_async(tmp_path: Path) -> None:
    graph = shown(viewers={"approval": "manual"})
    with flowstream.open_sync(graph, serve="127.0.0.1:0") as run:
        session = run._call(come, run._run)
        (viewer,) = run.viewers
        assert len(run.viewers) == len(run.viewers.known) == 1
        run.viewers.approve(viewer.id)
        assert run.viewers.pause(viewer.id).state == "paused"
        run.viewers.resume(viewer.id)
        run.viewers.permit(viewer.id, video=False)
        run.viewers.cap(viewer.id, None)
        assert run.viewers.pause_view() == run.viewers.resume_view() == ["out"]
        assert run.viewers.views[0].watching == 1
        invitation = run.viewers.invite(seconds=5)
        assert run.viewers.revoke(invitation.id) == 0
        run.viewers.kick(viewer.id)
        assert session.reason == "its owner sent it away"
        other = run._call(come, run._run)
        assert run.viewers.reject(other.seat.viewer).state == "rejected"
