"""The pages of a run within another web application, at any path of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

import flowstream
from flowstream import Graph, Run
from tests.api.graphs import shown

pytestmark = pytest.mark.anyio

OFFER = (Path(__file__).resolve().parents[1] / "proto" / "offers" / "chromium.sdp").read_text()
SDP = {"Content-Type": "application/sdp"}


def client(application: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(application)
    return httpx.AsyncClient(transport=transport, base_url="https://example.org", follow_redirects=True)


def mounted(run: Run, path: str, **asked: Any) -> Starlette:
    """Somebody's application, with the pages of a run at a path of it."""

    async def own(_: Request) -> Response:
        return PlainTextResponse("mine")

    return Starlette(routes=[Route("/own", own), Mount(path, run.asgi(**asked))])


async def test_everything_of_a_page_works_under_a_prefix_of_another_application() -> None:
    async with flowstream.open(shown(), serve=False) as run, client(mounted(run, "/live/desk")) as http:
        assert (await http.get("/own")).text == "mine"
        page = await http.get("/live/desk")
        assert str(page.url) == "https://example.org/live/desk/out/"
        assert "<!doctype html>" in page.text
        for name in re.findall(r'(?:src|href)="([^":]+)"', page.text):
            assert (await http.get(page.url.join(name))).status_code == 200, name
        assert (await http.get(page.url.join("about"))).json() == {"title": "Shown", "video": True, "audio": False}
        answer = await http.post(page.url.join("whep"), content=OFFER, headers=SDP)
        assert answer.status_code == 201
        assert answer.text.startswith("v=0\r\n")
        assert "a=candidate:" in answer.text
        location = answer.headers["location"]
        assert location.startswith("/live/desk/out/whep/")
        assert (await http.delete(location)).status_code == 200
        assert (await http.get("/live/desk/nothing")).status_code == 404
        missing = await http.get("/live/desk/out")
        assert str(missing.url) == "https://example.org/live/desk/out/"


async def test_without_a_mount_it_is_an_application_by_itself() -> None:
    async with flowstream.open(shown(), serve=False) as run, client(run.asgi()) as http:
        assert str((await http.get("/")).url) == "https://example.org/out/"
        answer = await http.post("/out/whep", content=OFFER, headers=SDP)
        assert answer.headers["location"].startswith("/out/whep/")


async def test_several_pages_are_listed_with_links_below_the_prefix() -> None:
    graph = shown()
    graph.add("webrtc-out", id="second", from_="encode")
    async with flowstream.open(graph, serve=False) as run, client(mounted(run, "/live")) as http:
        index = await http.get("/live/")
        links = re.findall('href="([^"]+)"', index.text)
        assert links == ["/live/out/", "/live/second/"]
        assert [(await http.get(link)).status_code for link in links] == [200, 200]


async def test_it_binds_no_address_and_links_are_those_of_the_application() -> None:
    async with flowstream.open(shown(), serve=False) as run:
        assert run.links == ()
        run.asgi(url="https://example.org/live/")
        assert run.links == ("https://example.org/live/out/",)
        assert run.status().links == run.links


async def test_a_page_that_comes_by_a_reload_is_there_too() -> None:
    graph = Graph()
    graph.add("discard", from_=graph.add("test-pattern", size="160x90"))
    async with flowstream.open(graph, serve=False) as run, client(mounted(run, "/live")) as http:
        assert (await http.get("/live/")).status_code == 503
        await run.reload(shown())
        assert (await http.get("/live/out/")).status_code == 200


async def test_a_run_that_is_served_at_an_address_can_be_mounted_too() -> None:
    async with flowstream.open(shown(), serve="127.0.0.1:0") as run, client(mounted(run, "/live")) as http:
        assert (await http.get("/live/out/")).status_code == 200
        async with httpx.AsyncClient(base_url=run.links[0]) as direct:
            assert (await direct.get("/out/")).status_code == 200


# --- who may --------------------------------------------------------------------------------------------------------


async def knows_async(request: Request) -> str | None:
    return {"k1": "ann", "k2": "bob"}.get(request.cookies.get("key", ""))


def knows(request: Request) -> bool:
    return request.cookies.get("key") == "k1"


@pytest.mark.parametrize("authorize", [knows, knows_async])
async def test_viewers_pass_when_the_callback_says_so(authorize: Callable[[Request], Any]) -> None:
    async with (
        flowstream.open(shown(), serve=False) as run,
        client(mounted(run, "/live", authorize=authorize)) as http,
    ):
        for path in ("/live/", "/live/out/", "/live/out/about", "/live/nothing"):
            answer = await http.get(path)
            assert (answer.status_code, answer.text) == (403, "This is not for you.\n")
        assert (await http.post("/live/out/whep", content=OFFER, headers=SDP)).status_code == 403
        assert not run.status().nodes["out"].facts["viewers"]
        http.cookies.set("key", "k1")
        assert (await http.get("/live/out/")).status_code == 200
        assert (await http.post("/live/out/whep", content=OFFER, headers=SDP)).status_code == 201
        assert (await http.get("/own")).text == "mine"


async def test_the_node_learns_the_viewers_name() -> None:
    seen: list[Any] = []
    async with flowstream.open(shown(), serve=False) as run:

        async def page(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope.get("flowstream.viewer"))
            await PlainTextResponse("page")(scope, receive, send)

        with run._run.mounts.mount("/page/", page, page=True):
            async with client(mounted(run, "/live", authorize=knows_async)) as http:
                http.cookies.set("key", "k2")
                await http.get("/live/page/")
    assert seen == ["bob"]


async def test_a_preflight_passes_since_browsers_send_it_without_credentials() -> None:
    async with (
        flowstream.open(shown(origins=["https://other.example"]), serve=False) as run,
        client(mounted(run, "/live", authorize=knows)) as http,
    ):
        asked = {"Origin": "https://other.example", "Access-Control-Request-Method": "POST"}
        answer = await http.options("/live/out/whep", headers=asked)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "https://other.example"


async def test_what_the_callback_raises_is_the_applications_to_answer() -> None:
    def refuse(request: Request) -> bool:
        raise HTTPException(401, "Log in first.", {"WWW-Authenticate": "Basic"})

    async with (
        flowstream.open(shown(), serve=False) as run,
        client(mounted(run, "/live", authorize=refuse)) as http,
    ):
        answer = await http.get("/live/out/")
        assert (answer.status_code, answer.text) == (401, "Log in first.")
        assert answer.headers["www-authenticate"] == "Basic"


async def test_the_status_is_for_the_owner_alone() -> None:
    async with flowstream.open(shown(), serve=False) as run:
        async with client(mounted(run, "/live")) as http:
            assert (await http.get("/live/-/status")).status_code == 403
        async with client(mounted(run, "/live", owner=knows)) as http:
            assert (await http.get("/live/-/status")).status_code == 403
            http.cookies.set("key", "k1")
            told = await http.get("/live/-/status")
            assert told.json()["nodes"]["encode"]["state"] == "running"
            assert (await http.get("/live/-/plan")).status_code == 404


# --- as its server sees it ------------------------------------------------------------------------------------------


async def test_it_answers_the_life_of_a_server_and_closes_websockets() -> None:
    async with flowstream.open(shown(), serve=False) as run:
        application = run.asgi()
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        sent: list[str] = []

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await application({"type": "lifespan"}, receive, send)
        await application({"type": "websocket", "path": "/out/"}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]


async def test_opened_in_the_life_of_an_application() -> None:
    """The way that FastAPI and Starlette applications own something."""
    runs: list[Run] = []

    @asynccontextmanager
    async def life(application: Starlette) -> AsyncIterator[None]:
        async with flowstream.open(shown(), serve=False) as run:
            application.mount("/live", run.asgi())
            runs.append(run)
            yield

    application = Starlette(lifespan=life)
    async with application.router.lifespan_context(application), client(application) as http:
        assert (await http.get("/live/out/")).status_code == 200
    assert runs[0].status().state == "ended"
