"""The HTTP server: bounded in time and in number, and gone when its block ends."""

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx
import pytest
from starlette.responses import PlainTextResponse

from flowstream.control import server
from flowstream.control.door import bind
from flowstream.control.server import serving
from flowstream.graph.plan import Serve

HELLO = PlainTextResponse("hello")


def serve(app: Any, main: Callable[[str, int], Awaitable[None]], *, connections: int = 10, seconds: float = 20) -> None:
    """Runs ``main(host, port)`` beside a server."""

    async def run() -> None:
        listener = bind(Serve("127.0.0.1", 0))
        host, port = listener.getsockname()
        with anyio.fail_after(seconds):
            async with serving(app, listener, connections=connections):
                await main(host, port)
        assert listener.fileno() == -1

    anyio.run(run)


def test_it_answers_and_says_nothing_about_itself() -> None:
    async def main(host: str, port: int) -> None:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://{host}:{port}/")
        assert answer.text == "hello"
        assert "server" not in answer.headers

    serve(HELLO, main)


def test_a_request_that_is_not_finished_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.05)

    async def main(host: str, port: int) -> None:
        for begun in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n"):
            async with await anyio.connect_tcp(host, port) as stream:
                if begun:
                    await stream.send(begun)
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()

    serve(HELLO, main)


def test_a_second_request_that_is_not_finished_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.05)

    async def main(host: str, port: int) -> None:
        async with await anyio.connect_tcp(host, port) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await stream.receive()
            await stream.send(b"GET / HT")
            assert b"".join([data async for data in stream]) in (b"", b"hello")

    serve(HELLO, main)


def test_a_long_answer_is_not_taken_for_an_unfinished_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.05)

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(4):
            await anyio.sleep(0.05)
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def main(host: str, port: int) -> None:
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://{host}:{port}/")).text == "xxxx"

    serve(slow, main)


def test_too_long_a_head_is_refused() -> None:
    async def main(host: str, port: int) -> None:
        async with await anyio.connect_tcp(host, port) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"x" * 2 * server.MAX_HEAD_BYTES)
            assert b" 400 " in await stream.receive()

    serve(HELLO, main)


def test_more_connections_than_allowed_are_told_to_wait() -> None:
    async def main(host: str, port: int) -> None:
        async with (
            await anyio.connect_tcp(host, port),
            await anyio.connect_tcp(host, port),
            httpx.AsyncClient() as client,
        ):
            assert (await client.get(f"http://{host}:{port}/")).status_code == 503

    serve(HELLO, main, connections=2)


def test_answers_that_never_end_do_not_keep_it() -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await anyio.sleep_forever()

    async def main(host: str, port: int) -> None:
        stream = socket.create_connection((host, port))
        streams.append(stream)
        stream.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        stream.setblocking(False)
        await anyio.wait_readable(stream)

    streams: list[socket.socket] = []
    serve(endless, main, seconds=server.GRACE_SECONDS + 4)
    streams[0].close()


def test_it_leaves_the_signal_handlers_alone() -> None:
    import signal

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async def main(host: str, port: int) -> None:
        async with httpx.AsyncClient() as client:
            await client.get(f"http://{host}:{port}/")
        # asyncio's own runner may hold SIGINT; what matters is that SIGTERM is not taken
        assert signal.getsignal(signal.SIGTERM) is before[1]

    serve(HELLO, main)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
