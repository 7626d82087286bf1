"""The HTTP side: what every request gets, right or wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import httpx
import pytest

from flowstream_nodes.webrtc import _whep

pytestmark = pytest.mark.anyio

SDP = {"Content-Type": "application/sdp"}
TRICKLE = {"Content-Type": "application/trickle-ice-sdpfrag"}


@pytest.fixture
async def stage(stage_of: Any) -> AsyncIterator[Any]:
    async with stage_of() as stage:
        yield stage


@pytest.fixture
async def http(stage: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stage.url) as client:
        yield client


@pytest.fixture
def offer(make_viewer: Callable[[], Any]) -> str:
    return str(make_viewer().offer())


async def test_an_offer_makes_a_session_with_a_place_and_a_tag(http: httpx.AsyncClient, stage: Any, offer: str) -> None:
    answer = await http.post("/whep", content=offer, headers=SDP)
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/sdp"
    assert answer.text.startswith("v=0\r\n")
    (session,) = stage.viewers.sessions.values()
    assert answer.headers["location"] == f"/whep/{session.id}"
    assert answer.headers["etag"] == f'"{session.etag}"'
    assert len(session.id) >= 20  # not to be guessed: it is all that it takes to end the session


async def test_a_charset_on_the_content_type_is_fine(http: httpx.AsyncClient, offer: str) -> None:
    answer = await http.post("/whep", content=offer, headers={"Content-Type": "Application/SDP; charset=utf-8"})
    assert answer.status_code == 201


async def test_a_session_ends_by_delete_and_is_then_unknown(http: httpx.AsyncClient, stage: Any, offer: str) -> None:
    location = (await http.post("/whep", content=offer, headers=SDP)).headers["location"]
    (session,) = stage.viewers.sessions.values()
    assert (await http.delete(location)).status_code == 200
    assert session.closed_because == "it said goodbye"
    answer = await http.delete(location)
    while answer.status_code == 200:  # until its task has ended
        answer = await http.delete(location)
    assert answer.status_code == 404
    assert answer.text == "There is no such session (any more).\n"


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"headers": {"Content-Type": "text/plain"}}, 415, "The body must be application/sdp.\n"),
        ({"headers": {}}, 415, "The body must be application/sdp.\n"),
        ({"content": ""}, 400, "The offer cannot be answered: line 1: an offer begins with v=0.\n"),
        ({"content": b"\xff\xfe"}, 400, "The body is not UTF-8.\n"),
        ({"content": "v=0\n" + "a=x\n" * 20_000}, 413, "The body is longer than 65536 bytes.\n"),
        (
            {"content": "v=0\nm=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:0\na=recvonly\na=rtpmap:96 VP8/90000\n"},
            422,
            "No video format in common: the offer has VP8; this end sends H264 with packetization-mode 1.\n",
        ),
    ],
    ids=["other type", "no type", "empty", "not text", "too long", "no format"],
)
async def test_what_cannot_be_answered_is_told_why(
    http: httpx.AsyncClient, stage: Any, offer: str, change: dict[str, Any], status: int, text: str
) -> None:
    answer = await http.post("/whep", **{"content": offer, "headers": SDP, **change})
    assert (answer.status_code, answer.text) == (status, text)
    assert not stage.viewers.sessions


async def test_a_full_house_says_when_to_try_again(http: httpx.AsyncClient, stage: Any, offer: str) -> None:
    stage.most = 1
    assert (await http.post("/whep", content=offer, headers=SDP)).status_code == 201
    answer = await http.post("/whep", content=offer, headers=SDP)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.text == "The only place is taken. Try again in 5 s.\n"


async def test_a_body_that_does_not_arrive_is_not_waited_for(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_whep, "BODY_S", 0.05)
    port = int(stage.url.rpartition(":")[2])
    with anyio.fail_after(10):
        async with await anyio.connect_tcp("127.0.0.1", port) as connection:
            await connection.send(b"POST /whep HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\n")
            await connection.send(b"Content-Length: 5000\r\n\r\nv=0\r\n")
            assert (await connection.receive()).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_the_endpoint_takes_no_other_method(http: httpx.AsyncClient, method: str) -> None:
    answer = await http.request(method, "/whep")
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_endpoint_can_be_discovered(http: httpx.AsyncClient, method: str) -> None:
    answer = await http.request(method, "/whep")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/sdp"
    assert answer.headers["accept-post"] == "application/sdp"


async def test_options_names_the_type_that_is_taken(http: httpx.AsyncClient, offer: str) -> None:
    answer = await http.options("/whep")
    assert (answer.status_code, answer.headers["accept-post"]) == (204, "application/sdp")
    location = (await http.post("/whep", content=offer, headers=SDP)).headers["location"]
    answer = await http.options(location)
    assert (answer.status_code, answer.headers["accept-patch"]) == (204, "application/trickle-ice-sdpfrag")


async def test_trickled_candidates_are_taken_under_the_right_tag(http: httpx.AsyncClient, offer: str) -> None:
    made = await http.post("/whep", content=offer, headers=SDP)
    location, tag = made.headers["location"], made.headers["etag"]
    ufrag = next(line for line in offer.splitlines() if line.startswith("a=ice-ufrag:"))
    fragment = f"{ufrag}\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n"

    async def patch(match: str | None, content: str = fragment, headers: dict[str, str] = TRICKLE) -> httpx.Response:
        more = {} if match is None else {"If-Match": match}
        return await http.patch(location, content=content, headers={**headers, **more})

    assert (await patch(tag)).status_code == 204
    assert (await patch(None)).status_code == 428
    assert (await patch('"another"')).status_code == 412
    assert (await patch(tag, headers=SDP)).status_code == 415
    assert (await patch(tag, "x" * 70_000)).status_code == 413
    restart = "a=ice-ufrag:other\r\na=ice-pwd:" + "x" * 22 + "\r\n"
    assert (await patch("*", restart)).status_code == 422
    assert (await patch(tag, restart)).status_code == 422
    assert (await http.patch("/whep/unknown", content=fragment, headers=TRICKLE)).status_code == 404
    assert (await http.get(location)).status_code == 405


async def test_pages_of_elsewhere_get_nothing_unless_they_are_listed(
    http: httpx.AsyncClient, stage: Any, offer: str
) -> None:
    foreign = {"Origin": "https://elsewhere.example"}
    preflight = {**foreign, "Access-Control-Request-Method": "POST"}
    answer = await http.post("/whep", content=offer, headers={**SDP, **foreign})
    assert answer.status_code == 403
    assert answer.text.startswith("Pages of https://elsewhere.example may not play this.")
    assert "access-control-allow-origin" not in answer.headers
    assert (await http.options("/whep", headers=preflight)).status_code == 403
    assert not stage.viewers.sessions

    stage.origins = ("https://elsewhere.example",)
    answer = await http.options("/whep", headers=preflight)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://elsewhere.example"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "Content-Type" in answer.headers["access-control-allow-headers"]
    answer = await http.post("/whep", content=offer, headers={**SDP, **foreign})
    assert answer.status_code == 201
    assert answer.headers["access-control-allow-origin"] == "https://elsewhere.example"
    assert "Location" in answer.headers["access-control-expose-headers"]
    assert (await http.options("/whep", headers={"Origin": "https://third.example"})).status_code == 403
    stage.origins = ("*",)
    assert (await http.options("/whep", headers={"Origin": "https://third.example"})).status_code == 204


async def test_the_page_of_the_server_itself_is_welcome(http: httpx.AsyncClient, stage: Any, offer: str) -> None:
    assert (await http.post("/whep", content=offer, headers={**SDP, "Origin": stage.url})).status_code == 201


async def test_the_page_and_its_parts(http: httpx.AsyncClient, stage: Any) -> None:
    page = await http.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "muted" in page.text
    assert "playsinline" in page.text
    for name, kind in (("viewer.js", "text/javascript"), ("viewer.css", "text/css")):
        assert f'"{name}"' in page.text
        part = await http.get(f"/{name}")
        assert part.headers["content-type"].startswith(kind)
    assert (await http.get("/secret.txt")).status_code == 404
    assert (await http.get("/%2e%2e/_whep.py")).status_code == 404
    stage.title = "<b>Desk</b>"
    assert (await http.get("/about")).json() == {"title": "<b>Desk</b>", "video": True, "audio": True}


async def test_under_a_path_of_its_own_everything_is_found(stage: Any, offer: str) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    inner = _whep.make_app(stage.viewers, about=lambda: _whep.About("Desk", True, False), page=_whep.read_page())
    outer = Starlette(routes=[Mount("/out", app=inner)])
    transport = httpx.ASGITransport(outer)
    async with httpx.AsyncClient(transport=transport, base_url="http://desk") as http:
        assert (await http.get("/out/")).status_code == 200
        made = await http.post("/out/whep", content=offer, headers=SDP)
        assert made.headers["location"].startswith("/out/whep/")
        assert (await http.delete(made.headers["location"])).status_code == 200
