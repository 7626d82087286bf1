"""The pages of a run within another web application, at any path of it."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

import flowstream
from flowstream import Graph, Run
from tests.api.graphs import PATIENCE_S, picture, shown, through, until

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
        about = (await http.get(page.url.join("about"))).json()
        assert isinstance(about.pop("now"), int)
        assert about == {"title": "Shown", "video": True, "audio": False}
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


# --- the owner ------------------------------------------------------------------------------------------------------

CONTROL = (
    "",
    "status",
    "revisions",
    "viewers",
    "events",
    "schema",
    "openapi.json",
    "why",
    "stats",
    "metrics",
    "tap",
    "healthz",
    "readyz",
    "record",
)
VERBS = ("approve", "reject", "kick", "pause", "resume", "permit", "cap", "prioritize", "invite", "revoke")
CHANGES = (
    "plan", "reload", "set", "clear", "rollback", "stop", "view/pause", "view/resume",
    *(f"viewers/{verb}" for verb in VERBS),
)  # fmt: skip
ANN = {"key": "k1"}


@pytest.mark.parametrize("asked", [{}, {"owner": knows}, {"authorize": lambda _: True}], ids=["nobody", "no", "viewer"])
async def test_the_control_api_is_for_the_owner_alone(asked: dict[str, Any]) -> None:
    async with flowstream.open(shown(), serve=False) as run, client(mounted(run, "/live", **asked)) as http:
        for name in CONTROL:
            answer = await http.get(f"/live/-/{name}")
            assert (answer.status_code, answer.text) == (403, "This is not for you.\n"), name
        for name in CHANGES:
            assert (await http.post(f"/live/-/{name}", json={})).status_code == 403, name
        assert (await http.get("/live/-")).status_code == 403
        assert (await http.options("/live/-/set")).status_code == 403, "a preflight is nothing for the owner either"
        assert run.status().state == "running"


@pytest.mark.parametrize("owner", [knows, knows_async])
async def test_the_owner_has_the_whole_control_api(owner: Callable[[Request], Any]) -> None:
    async with flowstream.open(shown(), serve=False) as run, client(mounted(run, "/live", owner=owner)) as http:
        http.cookies.update(ANN)
        told = (await http.get("/live/-/status")).json()
        assert told["nodes"]["encode"]["state"] == "running"
        described = (await http.get("/live/-/openapi.json")).json()
        assert described["servers"] == [{"url": "/live/-"}]
        assert {path.strip("/") for path in described["paths"]} == {*CONTROL[1:], *CHANGES}
        answer = await http.post("/live/-/set", json={"target": "encode.bitrate", "value": "500k"})
        assert answer.status_code == 200, answer.text
        assert run.status().nodes["encode"].config["bitrate"] == "500k"
        assert "encode.bitrate is 500k" in str(run.status().difference)
        assert (await http.post("/live/-/clear", json={})).json()["difference"] is None
        assert (await http.post("/live/-/reload", json={})).json()["patch"] is None
        assert (await http.get("/live/-/healthz")).json() == {"alive": True}
        assert (await http.get("/live/-/readyz")).json()["state"] == "running"
        assert "flowstream_run_up_seconds" in (await http.get("/live/-/metrics")).text
        assert set((await http.get("/live/-/stats")).json()["nodes"]) == {"pattern", "encode", "out"}
        assert (await http.get("/live/-/why", params={"node": "out"})).status_code == 200
        missing = await http.get("/live/-/nothing")
        assert (missing.status_code, missing.json()["error"]) == (404, "there is nothing at /live/-/nothing")
        assert (await http.get("/live/out/")).status_code == 200


async def test_a_form_of_another_site_changes_nothing_though_the_owner_is_known_by_a_cookie() -> None:
    async with flowstream.open(shown(), serve=False) as run, client(mounted(run, "/live", owner=knows)) as http:
        http.cookies.update(ANN)
        origin = {"Origin": "https://evil.example"}
        for sent in ({"data": {"now": "true"}}, {"files": {"x": b"y"}}, {"content": b"{}"}, {"content": b""}):
            answer = await http.post("/live/-/stop", headers=origin, **sent)  # type: ignore[arg-type]
            assert answer.status_code == 415
            assert answer.json()["hint"] == "send the header Content-Type: application/json"
        asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        preflight = await http.options("/live/-/stop", headers=asked)
        assert "access-control-allow-origin" not in preflight.headers, "so that no browser sends JSON from there"
        assert run.status().state == "running"


async def test_the_owner_stops_it_as_the_program_would() -> None:
    """Nobody is waited for who has pushed and will push again."""
    async with flowstream.open(through(), serve=False) as run, client(run.asgi(owner=lambda _: True)) as http:
        await run.push("in", picture())
        answer = await http.post("/-/stop", json={})
        assert (answer.status_code, answer.json()) == (202, {"state": "draining"})
        with anyio.fail_after(PATIENCE_S / 4):
            frames = [frame async for frame in run.frames("out")]
            await run.wait()
        assert len(frames) == 1
        assert run.status().state == "ended"


# --- by a real server -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def served(application: Any) -> AsyncIterator[str]:
    """The URL of an application that uvicorn serves, as a program does that has nothing to do with flowstream."""
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="on", timeout_graceful_shutdown=1))
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            await until(lambda: server.started)
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True


async def test_uvicorn_serves_pages_and_control_at_a_path_of_a_starlette_application() -> None:
    async with flowstream.open(shown(), serve=False) as run:
        application = mounted(run, "/live/desk", authorize=knows, owner=knows_async)
        async with (
            served(application) as url,
            httpx.AsyncClient(base_url=f"{url}/live/desk", cookies=ANN, follow_redirects=True) as http,
        ):
            assert (await http.get(f"{url}/own")).text == "mine"
            assert str((await http.get("/")).url) == f"{url}/live/desk/out/"
            assert (await http.get("/-/status")).json()["graph"] == "graph"
            async with http.stream("GET", "/-/events") as events:
                assert events.headers["content-type"].startswith("text/event-stream")
                asked = {"target": "encode.bitrate", "value": "500k"}
                assert (await http.post("/-/set", json=asked)).status_code == 200
                told = events.aiter_lines()
                while (line := await anext(told)) != "event: applied":
                    assert not line.startswith("event: ")
            await until(lambda: run._run.events.clients == 0)
            async with http.stream("GET", "/-/tap", params={"edge": "encode.video", "frames": 2}) as tap:
                assert len(b"".join([part async for part in tap.aiter_bytes()])) > 100
            http.cookies.clear()
            assert (await http.get("/-/status")).status_code == 403
            assert (await http.get("/out/")).status_code == 403


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
