"""The door: who gets which application, and what people read when there is none."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from flowstream.control import door
from flowstream.control.door import Door, ServeError, bind, holder_of, links
from flowstream.graph.plan import Serve
from flowstream.runtime.mounts import Mounts


def named(name: str) -> Starlette:
    """An application that says its name and how it was called."""

    async def page(request: Request) -> Response:
        return JSONResponse({"name": name, "path": request.url.path, "root": request.scope["root_path"]})

    async def fail(request: Request) -> Response:
        raise LookupError("nobody expected this")

    routes = [Route("/", page), Route("/fail", fail), Route("/deep/{rest:path}", page, methods=["GET", "POST"])]
    application = Starlette(routes=routes)
    application.router.redirect_slashes = False
    return application


def get(mounts: Mounts, path: str, *, method: str = "GET", **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Door(mounts), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            return await client.request(method, path, headers=headers)

    return anyio.run(ask)


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    mounts = Mounts()
    mounts.listen = ("127.0.0.1", 8080)
    with mounts.mount("/out/", named("out"), page=True):
        yield mounts


def test_an_application_is_called_with_its_root_path(mounts: Mounts) -> None:
    assert get(mounts, "/out/").json() == {"name": "out", "path": "/out/", "root": "/out"}
    assert get(mounts, "/out/deep/er").json() == {"name": "out", "path": "/out/deep/er", "root": "/out"}
    assert get(mounts, "/out/deep/x", method="POST").status_code == 200
    assert get(mounts, "/out/nothing").status_code == 404


def test_the_newest_at_a_path_wins_until_it_is_gone(mounts: Mounts) -> None:
    with mounts.mount("/out/", named("successor"), page=True):
        assert get(mounts, "/out/").json()["name"] == "successor"
    assert get(mounts, "/out/").json()["name"] == "out"


def test_a_path_that_only_begins_alike_is_not_the_nodes(mounts: Mounts) -> None:
    assert get(mounts, "/outside/").status_code == 404


def test_without_the_slash_it_redirects_and_keeps_the_query(mounts: Mounts) -> None:
    answer = get(mounts, "/out?muted=1")
    assert (answer.status_code, answer.headers["location"]) == (307, "/out/?muted=1")


def test_the_only_page_is_at_the_root_too(mounts: Mounts) -> None:
    answer = get(mounts, "/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/out/")


def test_several_pages_are_listed(mounts: Mounts) -> None:
    with mounts.mount("/second/", named("second"), page=True), mounts.mount("/api/", named("api"), page=False):
        answer = get(mounts, "/")
    assert answer.status_code == 200
    assert '<a href="/out/">out</a>' in answer.text
    assert '<a href="/second/">second</a>' in answer.text
    assert "api" not in answer.text


def test_nothing_there_is_said_in_a_sentence(mounts: Mounts) -> None:
    answer = get(mounts, "/<script>")
    assert answer.status_code == 404
    assert answer.text == "There is nothing at '/<script>'. There is /out/.\n"
    assert answer.headers["content-type"].startswith("text/plain")


def test_without_pages_it_says_so() -> None:
    answer = get(Mounts(), "/")
    assert (answer.status_code, answer.text) == (503, "No page is up at the moment.\n")


def test_no_answer_is_sniffed(mounts: Mounts) -> None:
    for path in ("/", "/out", "/out/", "/nothing"):
        assert get(mounts, path).headers["x-content-type-options"] == "nosniff"


def test_an_application_that_fails_answers_500_and_logs_why(mounts: Mounts, caplog: pytest.LogCaptureFixture) -> None:
    answer = get(mounts, "/out/fail")
    assert answer.status_code == 500
    assert "nobody expected this" not in answer.text
    assert "GET /out/fail failed" in caplog.text
    assert "nobody expected this" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "box.localhost", "127.9.9.9"])
def test_this_machine_under_its_own_name_gets_the_page(mounts: Mounts, host: str) -> None:
    assert get(mounts, "/out/", host=host).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example:8080", "127.0.0.1.evil.example", "[2001:db8::1]:8080", "localhost.evil"]
)
def test_a_name_that_was_pointed_here_gets_nothing(mounts: Mounts, host: str) -> None:
    assert get(mounts, "/out/", host=host).status_code == 403


def test_served_to_others_any_name_will_do(mounts: Mounts) -> None:
    mounts.listen = ("0.0.0.0", 8080)
    assert get(mounts, "/out/", host="studio.example:8080").status_code == 200


def test_links() -> None:
    mounts = Mounts()
    assert list(links(mounts)) == []
    mounts.listen = ("127.0.0.1", 8080)
    with mounts.mount("/a/", PlainTextResponse("a"), page=True):
        assert list(links(mounts)) == [("/a/", "http://127.0.0.1:8080/")]
        with mounts.mount("/b/", PlainTextResponse("b"), page=True):
            assert [url for _, url in links(mounts)] == ["http://127.0.0.1:8080/a/", "http://127.0.0.1:8080/b/"]
        mounts.listen = ("::1", 8080)
        assert [url for _, url in links(mounts)] == ["http://[::1]:8080/"]
        mounts.listen = ("0.0.0.0", 8080)
        urls = [url for _, url in links(mounts)]
        assert urls[-1] == "http://127.0.0.1:8080/"
        assert not any("0.0.0.0" in url for url in urls)
        mounts.is_encrypted = True
        assert [url for _, url in links(mounts)] == [url.replace("http:", "https:") for url in urls]


def test_a_taken_port_names_who_holds_it_and_the_way_out() -> None:
    with bind(Serve("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
        with pytest.raises(ServeError) as refused:
            bind(Serve("127.0.0.1", port))
        assert f"127.0.0.1:{port} is taken by " in refused.value.message
        assert f"(process {threading.main_thread().native_id})" in refused.value.message
        assert refused.value.hint is not None
        assert "serve: {listen: " in refused.value.hint
    assert holder_of(port) is None


def test_without_an_address_the_next_free_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with bind(Serve("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(door, "DEFAULT", Serve("127.0.0.1", taken.getsockname()[1]))
        with bind(None) as found:
            assert found.getsockname()[1] != taken.getsockname()[1]
    monkeypatch.setattr(door, "DEFAULT_PORTS", 1)
    with bind(Serve("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(door, "DEFAULT", Serve("127.0.0.1", taken.getsockname()[1]))
        with bind(None) as found:
            assert found.getsockname()[1] > 0


@pytest.mark.parametrize(
    ("host", "message"),
    [("192.0.2.77", "192.0.2.77 is no address of this machine"), ("no such host", "there is no address for")],
)
def test_an_address_that_is_not_here(host: str, message: str) -> None:
    with pytest.raises(ServeError, match=message) as refused:
        bind(Serve(host, 0))
    assert "127.0.0.1" in str(refused.value.hint)


def test_ipv6() -> None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        with bind(Serve("::1", 0)) as found:
            assert found.family == socket.AF_INET6
            return
    pytest.skip("no IPv6 here")
