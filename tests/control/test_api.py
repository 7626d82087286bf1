"""The API over HTTP: what it answers, to whom, and what it does not put up with."""

import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import jsonschema
import pytest
from blockbuster import blockbuster_ctx

from flowstream.control import access, api, door, models
from flowstream.control.openapi import document
from tests.control.running import TICKS, Opened, in_run

JSON = {"Content-Type": "application/json"}
SERVED = TICKS + "serve: {listen: '127.0.0.1:0', api: true}\n"


@asynccontextmanager
async def beside_viewers(there: Opened, token: str | None = None, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the address of the viewers."""
    listen = there.run.mounts.listen
    assert listen is not None
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listen[1]}", headers=headers, timeout=20) as client:
        yield client


def own_token(there: Opened) -> str:
    assert there.run.token_file is not None
    return there.run.token_file.read_text().strip()


# --- what it answers ------------------------------------------------------------------------------------------------


def test_answers_are_what_their_models_say(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        await there.post("/set", target="ticks.every_ms", value="7")
        models.Status.model_validate_json((await there.client.get("/status")).content)
        models.RevisionsKept.model_validate_json((await there.client.get("/revisions")).content)
        models.Changed.model_validate_json((await there.client.post("/clear", json={})).content)
        models.Ready.model_validate_json((await there.client.get("/readyz")).content)
        asked = await there.client.post("/plan", json={"files": [str(there.file)]})
        models.PatchMade.model_validate_json(asked.content)
        refused = await there.client.post("/set", json={"target": "ticks.every_ms", "value": "x"})
        models.Problem.model_validate_json(refused.content)

    in_run(tmp_path, main, SERVED)


def test_it_describes_itself(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        described = await there.get("/openapi.json")
        assert described["openapi"] == "3.1.0"
        for path, operations in described["paths"].items():
            for method in operations:
                answer = await there.client.request("OPTIONS", path)
                assert method.upper() in answer.headers["allow"], path
        assert set(described["paths"]) == {
            "/status", "/plan", "/reload", "/set", "/clear", "/rollback", "/revisions", "/schema", "/healthz",
            "/readyz", "/stop", "/events", "/openapi.json", "/why", "/stats", "/metrics", "/tap",
            "/viewers", *(f"/viewers/{verb}" for verb in (
                "approve", "reject", "kick", "pause", "resume", "permit", "cap", "prioritize", "invite", "revoke"
            )), "/view/pause", "/view/resume",
            "/record",
        }  # fmt: skip

    in_run(tmp_path, main)


def test_its_description_is_openapi() -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    from starlette.routing import Route

    async def why() -> None:
        """Why a node is slow."""

    described = document(api._Operations(None).all(), [Route("/why/{node}", why)])  # type: ignore[arg-type]
    validator.validate(described)
    assert described["paths"]["/why/{node}"]["get"]["summary"] == "Why a node is slow"
    with pytest.raises(Exception, match=r"is not valid|required"):
        validator.validate({**described, "info": {}})


def test_the_schema_of_graphs_here(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        schema = await there.get("/schema")
        jsonschema.Draft7Validator.check_schema(schema)
        assert "odd/ticks" in json.dumps(schema)

    in_run(tmp_path, main)


def test_health_and_readiness(tmp_path: Path) -> None:
    text = TICKS + "  bug: {type: odd/bug, from: ticks}\n  last: {type: discard, from: bug}\n"

    async def main(there: Opened) -> None:
        assert await there.get("/healthz") == {"alive": True}
        while there.run.engine.state == "running":
            await anyio.lowlevel.checkpoint()
        answer = await there.client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {"ready": False, "state": "degraded", "difference": None, "failed": ["bug"]}
        assert (await there.client.get("/healthz")).status_code == 200

    in_run(tmp_path, main, text)


def test_it_is_stopped(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        assert await there.post("/stop", 202) == {"state": "draining"}
        await there.run.engine.wait()
        answer = await there.post("/set", 422, target="ticks.every_ms", value="7")
        assert answer["error"] == "the graph is not running"

    in_run(tmp_path, main)


# --- to whom --------------------------------------------------------------------------------------------------------


def test_beside_the_viewers_it_needs_the_token(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        path = there.run.token_file
        assert path is not None
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        status = await there.get("/status")
        assert status["api"] == {"url": there.run.api_url, "token_file": str(path)}
        async with beside_viewers(there) as client:
            for resource in ("status", "revisions", "events", "schema", "openapi.json", "nothing", ""):
                answer = await client.get(f"/-/{resource}")
                assert answer.status_code == 401, resource
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert answer.json()["error"] == "this needs the owner's token"
            for resource in ("set", "reload", "rollback", "stop"):
                assert (await client.post(f"/-/{resource}")).status_code == 401
            assert (await client.get("/-/healthz")).json() == {"alive": True}
            assert (await client.get("/-/readyz")).json() == {"ready": True}
        async with beside_viewers(there, own_token(there)) as client:
            assert (await client.get("/-/status")).json()["graph"] == "it"
            answer = await client.post("/-/set", json={"target": "ticks.every_ms", "value": "7"})
            assert answer.status_code == 200
        for wrong in ("x", own_token(there)[:-1], own_token(there) + "x"):
            async with beside_viewers(there, wrong) as client:
                assert (await client.get("/-/status")).status_code == 401
        async with beside_viewers(there, Authorization=f"Basic {own_token(there)}") as client:
            assert (await client.get("/-/status")).status_code == 401

    in_run(tmp_path, main, SERVED)
    assert list((tmp_path / "state").glob("*.token")) == [], "it is gone with the run"


def test_unless_the_graph_says_so_it_is_not_served_there(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        async with beside_viewers(there) as client:
            for resource in ("status", "healthz", "readyz"):
                answer = await client.get(f"/-/{resource}")
                assert answer.status_code == 403
                assert "serve: {api: true}" in answer.json()["hint"]
        assert (await there.get("/status"))["api"] is None
        there.file.write_text(there.file.read_text().replace(":0'", ":0', api: true"))
        done = await there.post("/reload")
        assert "the control API is served" in done["patch"]["lines"]
        async with beside_viewers(there, own_token(there)) as client:
            assert (await client.get("/-/status")).status_code == 200

    in_run(tmp_path, main, SERVED.replace(", api: true", ""))


def test_a_token_of_the_environment_is_never_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNER", "correct-horse-battery")
    text = SERVED.replace("api: true", "api: true, token: $(env:OWNER)")

    async def main(there: Opened) -> None:
        assert there.run.token_file is None
        async with beside_viewers(there, "correct-horse-battery") as client:
            for resource in ("status", "revisions", "openapi.json"):
                answer = await client.get(f"/-/{resource}")
                assert answer.status_code == 200
                assert "horse" not in answer.text
        assert "horse" not in "".join(each.data for each in there.run.events.after(0)[1])
        assert "horse" not in repr(there.run.plan)
        kept = await there.kept(1)
        assert kept
        assert not any(b"horse" in path.read_bytes() for path in (tmp_path / "state").rglob("*.json"))

    in_run(tmp_path, main, text)


def test_a_token_is_not_guessed_by_trying(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        async with beside_viewers(there, "guess") as client:
            codes = [(await client.get("/-/status")).status_code for _ in range(access.FAILURES + 2)]
            assert codes == [401] * access.FAILURES + [429] * 2
            answer = await client.get("/-/status")
            assert 0 < int(answer.headers["retry-after"]) <= access.WINDOW_SECONDS
            assert (await client.get("/-/healthz")).status_code == 200
        async with beside_viewers(there, own_token(there)) as client:
            assert (await client.get("/-/status")).status_code == 429, "nothing is looked at, or it could be guessed"

    in_run(tmp_path, main, SERVED)


def test_a_site_that_was_pointed_here_gets_nothing(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        async with beside_viewers(there, own_token(there), Host="evil.example") as client:
            assert (await client.get("/-/status")).status_code == 403

    in_run(tmp_path, main, SERVED)


# --- what it does not put up with -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/set", b"{", 400, "Invalid JSON"),
        ("POST", "/set", b"[]", 400, "object"),
        ("POST", "/set", b"\xff\xfe", 400, ""),
        ("POST", "/set", b'{"target": 5, "value": "x"}', 400, "target: "),
        ("POST", "/set", b'{"target": "a.b", "value": "x", "more": 1}', 400, "more: "),
        ("POST", "/set", b'{"target": "a.b"}', 400, "value: Field required"),
        ("POST", "/set", b"[" * 50_000, 400, ""),
        ("POST", "/set", b'{"target": "' + b"x" * 100_000, 413, "more than 65,536 bytes"),
        ("POST", "/rollback", b'{"number": 0}', 400, "number: "),
        ("POST", "/rollback", b'{"number": 1e999}', 400, "number: "),
        ("POST", "/plan", b'{"files": []}', 400, "files: "),
        ("POST", "/plan", b'{"files": ["\\u0000"]}', 422, ""),
        ("GET", "/set", b"", 405, "/set does not take GET"),
        ("DELETE", "/status", b"", 405, "/status does not take DELETE"),
        ("POST", "/events", b"", 405, "/events does not take POST"),
        ("BREW", "/status", b"", 405, "/status does not take BREW"),
        ("GET", "/nothing", b"", 404, "there is nothing at /nothing"),
        ("GET", "/status/", b"", 404, "there is nothing at /status/"),
        ("GET", "/..%2f..%2fetc/passwd", b"", 404, "there is nothing at"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(
    tmp_path: Path, method: str, path: str, body: bytes, status: int, said: str
) -> None:
    async def main(there: Opened) -> None:
        answer = await there.client.request(method, path, content=body, headers=JSON)
        assert answer.status_code == status, answer.text
        assert said in answer.json()["error"]
        assert "Traceback" not in answer.text
        assert await there.get("/healthz") == {"alive": True}

    in_run(tmp_path, main)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("application/x-www-form-urlencoded", "not application/x-www-form-urlencoded"),
        ("multipart/form-data; boundary=x", "not multipart/form-data; boundary=x"),
        ("text/plain", "not text/plain"),
        ("text/plain; x=application/json", "not text/plain; x=application/json"),
        ("", "and the request does not say what it is"),
    ],
)
def test_what_a_page_of_another_site_can_send_is_not_taken(tmp_path: Path, kind: str, said: str) -> None:
    """A form, or a fetch without a preflight, would come with the cookies of whoever looks at that page."""

    async def main(there: Opened) -> None:
        headers = {"Content-Type": kind} if kind else {}
        for resource in [each.path for each in api._Operations(there.run).all() if each.method == "POST"]:
            for body in (b"{}", b""):
                answer = await there.client.post(resource, content=body, headers=headers)
                assert answer.status_code == 415, resource
                assert answer.json() == {
                    "error": f"what is asked is taken as application/json, {said}",
                    "hint": "send the header Content-Type: application/json",
                }
        assert (await there.get("/status"))["state"] == "running"
        answer = await there.client.post("/reload", headers={"Content-Type": "Application/JSON; charset=utf-8"})
        assert answer.status_code == 200

    in_run(tmp_path, main)


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "BODY_SECONDS", 0.05)

    async def main(there: Opened) -> None:
        async with await anyio.connect_unix(str(there.run.socket)) as stream:
            head = b"POST /set HTTP/1.1\r\nHost: it\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
            await stream.send(head + b"{")
            assert b"408" in await stream.receive()

    in_run(tmp_path, main)


def test_a_thousand_connections_do_not_keep_it_from_working(tmp_path: Path) -> None:
    """Those beyond the bound are closed at once: files that a process may open are few."""

    async def main(there: Opened) -> None:
        listen = there.run.mounts.listen
        assert listen is not None
        before = len(os.listdir("/proc/self/fd"))
        closed = 0
        async with AsyncExitStack() as stack:
            streams = [
                await stack.enter_async_context(await anyio.connect_tcp("127.0.0.1", listen[1])) for _ in range(1000)
            ]
            for stream in streams[-200:]:
                with anyio.move_on_after(5), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await stream.receive()
                closed += 1
            assert closed == 200
            assert len(os.listdir("/proc/self/fd")) - before < 1000 + 2 * door.CONNECTIONS + 50
            assert (await there.get("/status"))["state"] == "running"
        while True:  # and those that went away make room
            with pytest.MonkeyPatch.context():
                async with beside_viewers(there) as client:
                    if (await client.get("/-/healthz")).status_code == 200:
                        break

    in_run(tmp_path, main, SERVED)


def test_slow_clients_of_events_are_bounded(tmp_path: Path) -> None:
    from flowstream.control.events import CLIENTS

    async def main(there: Opened) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(CLIENTS):
                stream = await stack.enter_async_context(await anyio.connect_unix(str(there.run.socket)))
                await stream.send(b"GET /events HTTP/1.1\r\nHost: it\r\n\r\n")
                assert b"200 OK" in await stream.receive()
            answer = await there.client.get("/events")
            assert answer.status_code == 503
            assert answer.json()["error"] == f"{CLIENTS} clients follow already"
        while there.run.events.clients:
            await anyio.lowlevel.checkpoint()
        async with there.client.stream("GET", "/events") as following:
            assert following.status_code == 200

    in_run(tmp_path, main)


def test_nothing_blocks_the_loop(tmp_path: Path) -> None:
    """Files and history are read and written on worker threads only."""

    async def main(there: Opened) -> None:
        await there.kept(1)
        text = there.file.read_text().replace("every_ms: 5", "every_ms: 6")
        await anyio.Path(there.file).write_text(text)
        with blockbuster_ctx("flowstream"):
            await there.post("/reload")
            await there.kept(2)
            await there.post("/set", target="ticks.every_ms", value="7", save=True)
            await there.post("/plan", files=[str(there.file)])
            await there.post("/rollback", number=1)
            await there.get("/status")
            await there.get("/schema")
            await there.get("/openapi.json")
            await there.get("/revisions")

    in_run(tmp_path, main, SERVED)


def test_a_bug_in_an_answer_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: Any) -> None:
        raise LookupError("deep inside")

    monkeypatch.setattr(api, "status", broken)

    async def main(there: Opened) -> None:
        answer = await there.client.get("/status")
        assert answer.status_code == 500
        assert answer.json()["error"] == "something went wrong here"
        assert (await there.client.get("/healthz")).status_code == 200

    in_run(tmp_path, main)


def test_a_reader_in_the_midst_of_a_head_is_cut_off(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        with socket.socket(socket.AF_UNIX) as half:
            half.connect(str(there.run.socket))
            half.sendall(b"GET /status HTTP/1.1\r\nHo")
            assert (await there.get("/status"))["state"] == "running"

    in_run(tmp_path, main)
