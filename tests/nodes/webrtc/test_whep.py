"""The HTTP side: what every request gets, right or wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import Caller
from flowstream.proto.candidates import read_candidates
from flowstream.proto.ice_servers import IceServer
from flowstream.proto.sdp import agree, parse_offer
from flowstream.proto.sdpfrag import Fragment
from flowstream_nodes.webrtc import _whep
from flowstream_nodes.webrtc._viewers import Admitted

pytestmark = pytest.mark.anyio

PROTO = Path(__file__).parent.parent.parent / "proto"

SDP = {"Content-Type": "application/sdp"}
TRICKLE = {"Content-Type": "application/trickle-ice-sdpfrag"}


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
            {"content": "v=0\nm=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:0\na=recvonly\na=rtpmap:96 H265/90000\n"},
            406,
            "No video format in common: the offer has H265; this end sends "
            "H264 with packetization-mode 1 or VP8 or VP9 or AV1.\n",
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


FRAGMENT = "a=ice-ufrag:{ufrag}\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n"
RESTART = f"a=ice-ufrag:anew\r\na=ice-pwd:{'x' * 22}\r\n"


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({}, 204, ""),
        ({"match": "*"}, 204, ""),
        ({"match": '"another", {tag}'}, 204, ""),
        ({"content": "a=candidate:\r\n"}, 204, ""),
        ({"content": "a=candidate:1 1 tcp 1 nowhere.invalid 9 typ host\r\n"}, 204, ""),
        ({"match": None}, 428, "If-Match must name the session's ETag, or be * to restart ICE.\n"),
        ({"match": '"another"'}, 412, "If-Match is not the session's ETag.\n"),
        ({"match": "{id}"}, 412, "If-Match is not the session's ETag.\n"),
        ({"match": '"another"', "content": RESTART}, 412, "If-Match is not the session's ETag.\n"),
        ({"kind": "application/sdp"}, 415, "The body must be application/trickle-ice-sdpfrag.\n"),
        ({"content": "x" * 70_000}, 413, "The body is longer than 65536 bytes.\n"),
        ({"content": b"\xff"}, 400, "The body is not UTF-8.\n"),
        ({"content": ""}, 400, "The fragment cannot be read: line 1: '' is not of the form a=... or m=....\n"),
        (
            {"match": "*", "content": "a=ice-ufrag:anew\r\n"},
            400,
            "A restart of ICE needs a=ice-pwd beside a=ice-ufrag.\n",
        ),
        ({"path": "/whep/unknown"}, 404, "There is no such session (any more).\n"),
    ],
)
async def test_a_patch_is_taken_or_told_why_not(
    http: httpx.AsyncClient, stage: Any, offer: str, change: dict[str, Any], status: int, text: str
) -> None:
    made = await http.post("/whep", content=offer, headers=SDP)
    (session,) = stage.viewers.sessions.values()
    ufrag = next(line for line in offer.splitlines() if line.startswith("a=ice-ufrag:")).partition(":")[2]
    match = change.get("match", "{tag}")
    headers = {"Content-Type": change.get("kind", "application/trickle-ice-sdpfrag")}
    if match is not None:
        headers["If-Match"] = match.format(tag=made.headers["etag"], id=session.etag)
    answer = await http.patch(
        change.get("path", made.headers["location"]),
        content=change.get("content", FRAGMENT.format(ufrag=ufrag)),
        headers=headers,
    )
    assert (answer.status_code, answer.text) == (status, text)
    assert "etag" not in answer.headers
    assert f'"{session.etag}"' == made.headers["etag"]
    assert session.ice.ufrags == (session.ice.ufrag,)


@pytest.mark.parametrize("match", ["*", '"*"', "{tag}"])
async def test_new_credentials_restart_ice_under_a_new_tag(
    http: httpx.AsyncClient, stage: Any, offer: str, match: str
) -> None:
    made = await http.post("/whep", content=offer, headers=SDP)
    (session,) = stage.viewers.sessions.values()
    before = session.ice.ufrag
    headers = {**TRICKLE, "If-Match": match.format(tag=made.headers["etag"])}
    answer = await http.patch(made.headers["location"], content=RESTART, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/trickle-ice-sdpfrag"
    assert answer.headers["etag"] not in (made.headers["etag"], "")
    assert answer.headers["etag"] == f'"{session.etag}"'
    assert session.peer_ufrag == "anew"
    assert session.ice.ufrag != before
    assert f"a=ice-ufrag:{session.ice.ufrag}\r\na=ice-pwd:{session.password}\r\na=candidate:1 1 udp " in answer.text
    again = await http.patch(made.headers["location"], content=RESTART, headers=headers)
    # The same credentials are no restart; under the tag of before they come too late.
    assert again.status_code == (412 if match == "{tag}" else 204)
    assert f'"{session.etag}"' == answer.headers["etag"]


async def test_a_session_answers_a_look_with_nothing_and_knows_no_other_method(
    http: httpx.AsyncClient, offer: str
) -> None:
    location = (await http.post("/whep", content=offer, headers=SDP)).headers["location"]
    for method in ("GET", "HEAD"):
        answer = await http.request(method, location)
        assert (answer.status_code, answer.content) == (204, b"")
        assert (await http.request(method, "/whep/unknown")).status_code == 404
    for method in ("POST", "PUT"):
        answer = await http.request(method, location)
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}


async def test_a_tag_on_delete_is_not_looked_at(http: httpx.AsyncClient, offer: str) -> None:
    location = (await http.post("/whep", content=offer, headers=SDP)).headers["location"]
    assert (await http.delete(location, headers={"If-Match": '"another"'})).status_code == 200


async def test_between_two_nodes_there_is_nothing_to_watch_for_a_moment(
    http: httpx.AsyncClient, stage: Any, offer: str
) -> None:
    stage.viewers._feeders.remove(stage.feeder)
    answer = await http.post("/whep", content=offer, headers=SDP)
    stage.viewers._feeders.append(stage.feeder)
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "5")
    assert answer.text == "There is nothing to watch right now. Try again in 5 s.\n"


async def test_relays_are_told_to_those_who_got_a_session(http: httpx.AsyncClient, stage: Any, offer: str) -> None:
    assert "link" not in (await http.post("/whep", content=offer, headers=SDP)).headers
    stage.servers = (
        IceServer(("stun:relay.example:3478",)),
        IceServer(("turn:relay.example:3478", "turns:relay.example:443?transport=tcp"), "v", 'a"b\\c'),
    )
    answer = await http.post("/whep", content=offer, headers=SDP)
    login = r'rel="ice-server"; username="v"; credential="a\"b\\c"; credential-type="password"'
    assert answer.headers["link"] == (
        '<stun:relay.example:3478>; rel="ice-server", '
        f"<turn:relay.example:3478>; {login}, <turns:relay.example:443?transport=tcp>; {login}"
    )
    # Not before: passwords are not for everybody who asks.
    assert "link" not in (await http.options("/whep")).headers
    assert "relay" not in (await http.get("/about")).text


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
    # Whatever is wrong, the page that asked may read it.
    wrong = await http.post("/whep", content="x", headers={**foreign, "Content-Type": "text/plain"})
    assert (wrong.status_code, wrong.headers["access-control-allow-origin"]) == (415, "https://elsewhere.example")
    location = answer.headers["location"]
    allowed = await http.options(location, headers={**foreign, "Access-Control-Request-Method": "PATCH"})
    assert allowed.headers["access-control-allow-methods"] == "GET, PATCH, DELETE, OPTIONS"
    assert "If-Match" in allowed.headers["access-control-allow-headers"]
    restarted = await http.patch(location, content=RESTART, headers={**TRICKLE, **foreign, "If-Match": "*"})
    assert (restarted.status_code, restarted.headers["access-control-allow-origin"]) == (
        200,
        "https://elsewhere.example",
    )
    assert "ETag" in restarted.headers["access-control-expose-headers"]


async def test_the_page_of_the_server_itself_is_welcome(http: httpx.AsyncClient, stage: Any, offer: str) -> None:
    assert (await http.post("/whep", content=offer, headers={**SDP, "Origin": stage.url})).status_code == 201


async def test_the_page_and_its_parts(http: httpx.AsyncClient, stage: Any) -> None:
    page = await http.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "muted" in page.text
    assert "playsinline" in page.text
    for name, kind in (
        ("viewer.js", "text/javascript"),
        ("session.js", "text/javascript"),
        ("channel.js", "text/javascript"),
        ("panel.js", "text/javascript"),
        ("viewer.css", "text/css"),
    ):
        scripts = [(await http.get(f"/{each}.js")).text for each in ("viewer", "session")]
        assert f'"{name}"' in page.text or any(f'"./{name}"' in script for script in scripts)
        part = await http.get(f"/{name}")
        assert part.headers["content-type"].startswith(kind)
    assert (await http.get("/secret.txt")).status_code == 404
    assert (await http.get("/%2e%2e/_whep.py")).status_code == 404
    stage.title = "<b>Desk</b>"
    about = (await http.get("/about")).json()
    assert abs(about.pop("now") - stage.clock.wallclock_ns() / 1e6) < 60_000
    assert about == {"title": "<b>Desk</b>", "video": True, "audio": True}


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


OFFERS = [path.read_text() for path in sorted((PROTO / "offers").glob("*.sdp"))]
FRAGMENTS = [path.read_text() for path in sorted((PROTO / "fragments").glob("*.sdpfrag"))]


class _Door:
    """Viewers as the application sees them: one session, and offers that are read as always."""

    def __init__(self) -> None:
        known = SimpleNamespace(id="known", etag="tag", peer_ufrag="EsAw", closed_because=None)
        known.hear_candidates = lambda said: read_candidates(said.candidates, most=9)
        self.sessions = {"known": known}

    async def gathered(self) -> None:
        pass

    def admit(self, text: str, caller: Caller) -> Admitted:
        agree(parse_offer(text), needed={"video"})
        return Admitted("new", "tag", "v=0\r\n")

    def restart(self, session: Any, fragment: Fragment) -> str:
        assert fragment.ufrag.isascii()
        return "a=ice-lite\r\n"

    def dismiss(self, session_id: str) -> None:
        assert session_id == "known"


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Nothing of sense, or what players send with some bytes changed."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    body = bytearray(draw(st.sampled_from(OFFERS + FRAGMENTS)).encode())
    for _ in range(draw(st.integers(0, 5))):
        position = draw(st.integers(0, len(body) - 1))
        body[position : position + draw(st.integers(0, 8))] = draw(st.binary(max_size=8)) or b"="
    return bytes(body)


@given(
    method=st.sampled_from(["POST", "PATCH", "DELETE", "GET", "OPTIONS", "PUT"]),
    path=st.sampled_from(["/whep", "/whep/known", "/whep/other"]),
    kind=st.sampled_from(["application/sdp", "application/trickle-ice-sdpfrag", "text/plain", ""]) | st.text(),
    match=st.sampled_from(["*", '"tag"', '"other"', ""]) | st.text(),
    body=bodies(),
)
def test_whatever_comes_is_answered_with_a_status_that_fits(
    method: str, path: str, kind: str, match: str, body: bytes
) -> None:
    headers = [(b"content-type", kind.encode("latin-1", "replace")), (b"if-match", match.encode("latin-1", "replace"))]
    status = asyncio.run(_status_of(method, path, headers, body))
    allowed = {
        ("POST", "/whep"): {201, 400, 406, 413, 415},
        ("PATCH", "/whep/known"): {200, 204, 400, 412, 413, 415, 428},
        ("DELETE", "/whep/known"): {200},
        ("GET", "/whep"): {200},
        ("GET", "/whep/known"): {204},
    }
    fallback = {204} if method == "OPTIONS" else {404, 405}
    assert status in allowed.get((method, path), fallback)


async def _status_of(method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> int:
    door: Any = _Door()
    app = _whep.make_app(door, about=lambda: _whep.About("x", True, True), page={})
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    await app(scope, receive, send)
    return int(said[0]["status"])
