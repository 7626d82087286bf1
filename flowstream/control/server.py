"""HTTP on a socket that is bound already: uvicorn, without its signal handlers and with bounds on everything."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from flowstream.errors import FlowstreamError
from flowstream.node.context import AsgiApp
from flowstream.runtime.wakeup import is_on_trio

HEAD_SECONDS = 10.0
"""How long the head of a request may take to arrive."""

IDLE_SECONDS = 30
"""How long a connection may stay open between requests."""

GRACE_SECONDS = 1
"""How long responses under way may take when the server stops."""

MAX_HEAD_BYTES = 16 * 1024

HANDSHAKES = 64
"""TLS handshakes under way at a time; when there are more, the oldest has failed."""


_unheard = logging.getLogger("flowstream.http")
_unheard.setLevel(logging.CRITICAL)  # what applications raise is logged by them; what clients send is not worth a line


def require_asyncio(what: str, error: type[FlowstreamError], way_out: str) -> None:
    """Raises the error when the program runs on trio, where nothing can be served; ``what`` begins its text."""
    if is_on_trio():
        raise error(
            f"{what} asyncio, but the program runs on trio",
            hint=f"{way_out}, or use flowstream.open_sync: it has a thread with a loop of its own",
        )


class _Config(uvicorn.Config):
    """Takes a TLS context as it is, and leaves uvicorn's loggers alone: the program around may serve by uvicorn too."""

    tls: ssl.SSLContext | None = None

    def load(self) -> None:
        super().load()
        self.ssl = self.tls

    def configure_logging(self) -> None:
        pass


class _Protocol(H11Protocol):
    """Closes connections that begin a request and do not go on with it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _unheard
        self.access_log = False
        self._head_timer: asyncio.TimerHandle | None = None
        self.on_open: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if self.on_open is not None:
            self.on_open()
        super().connection_made(transport)
        # Up to the limit they are served, up to twice as many told to come later; beyond that files run out.
        if self.limit_concurrency is not None and len(self.connections) > 2 * self.limit_concurrency:
            transport.abort()
            return
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._forget_head()
        else:
            self._expect_head()

    def on_response_complete(self) -> None:
        self._forget_head()  # from here on the time between requests counts
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _Handshakes:
    """Those under way, oldest first: one takes milliseconds, so that whoever holds up others is among the oldest."""

    def __init__(self) -> None:
        self._waiting: dict[SSLProtocol, asyncio.BaseTransport] = {}

    def begin(self, protocol: SSLProtocol, transport: asyncio.BaseTransport) -> None:
        self._waiting[protocol] = transport
        if len(self._waiting) > HANDSHAKES:
            oldest = next(iter(self._waiting))
            given_up = self._waiting.pop(oldest)
            assert isinstance(given_up, asyncio.Transport)
            given_up.abort()

    def end(self, protocol: SSLProtocol) -> None:
        self._waiting.pop(protocol, None)

    def close(self) -> None:
        """None of them is waited for any more."""
        for transport in self._waiting.values():
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
        self._waiting.clear()


class _Tls(SSLProtocol):
    """TLS of one connection: what asyncio puts around a protocol, counted up to the end of its handshake."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, protocol: _Protocol, tls: ssl.SSLContext, handshakes: _Handshakes
    ) -> None:
        super().__init__(
            loop,
            protocol,
            tls,
            None,  # type: ignore[arg-type]  # nobody waits for the handshake, as with every server's connection
            server_side=True,
            ssl_handshake_timeout=int(HEAD_SECONDS),
        )
        self._handshakes = handshakes
        protocol.on_open = lambda: handshakes.end(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._handshakes.begin(self, transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._handshakes.end(self)
        super().connection_lost(exc)


class _Server(uvicorn.Server):
    """Runs until told to stop, with nothing to do in between."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = anyio.Event()
        self._handshakes = _Handshakes()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, with bounds on how long a TLS handshake may take, and on how many are under way."""
        config, loop, tls = self.config, asyncio.get_running_loop(), self.config.ssl

        def create_protocol() -> asyncio.BaseProtocol:
            protocol = _Protocol(config, self.server_state, self.lifespan.state, loop)
            return protocol if tls is None else _Tls(loop, protocol, tls, self._handshakes)

        self.servers = [
            await loop.create_server(create_protocol, sock=each, backlog=config.backlog) for each in sockets or ()
        ]
        self.started = True

    async def main_loop(self) -> None:
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._handshakes.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def stop(self) -> None:
        self.should_exit = True
        self._stopping.set()


@contextlib.asynccontextmanager
async def serving(
    app: AsgiApp, listener: socket.socket, *, connections: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Serves an ASGI application on a listening socket while the block lasts, over TLS if need be; closes the socket.

    More than ``connections`` at a time are answered with 503, more than twice as many are closed. Leaving
    the block takes little more than GRACE_SECONDS.
    """
    config = _Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=connections,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    config.tls = tls
    server = _Server(config)

    async def serve() -> None:
        with anyio.CancelScope(shield=True):
            await server.serve([listener])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        try:
            yield
        finally:
            server.stop()
