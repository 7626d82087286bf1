"""An address that a TURN server lends (RFC 8656), by aioice's client."""

from __future__ import annotations

import asyncio
import errno
import ssl
import time
from collections.abc import Callable
from typing import Any, Final

from flowstream.proto.ice import Address
from flowstream.proto.ice_servers import ServerUrl

LIFETIME_S: Final = 600
"""How long the server keeps the address without hearing of us; aioice asks again before that."""

BIND_S: Final = 240
"""Between bindings of a channel: it lasts 600 s, but the permission that comes with it 300 s (sections 9 and 12)."""

FREE_S: Final = BIND_S + 660
"""A channel that was not bound for 900 s may be bound to another peer (section 12)."""

HANDSHAKE_S: Final = 5.0
"""How long a TLS handshake may take."""

MAX_WAITING: Final = 64
"""Datagrams that wait for a channel to be bound; more are lost."""

MAX_BUFFER: Final = 256 * 1024
"""Bytes that wait for the connection to the server; what comes then is lost, as in a full socket buffer."""


class TurnError(Exception):
    """The server lends no address. The text says why, in a sentence without its subject."""


class TurnRelay:
    """One allocation: sends as a socket does, tells ``on_datagram`` what comes in.

    ``related`` is our own address as the server sees it. `lost` is set once the address is ours no longer.
    """

    def __init__(self, on_datagram: Callable[[bytes, Address], None]) -> None:
        self.address: Address = ("", 0)
        self.related: Address | None = None
        self.lost = asyncio.Event()
        self._on_datagram = on_datagram
        self._client: Any = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._binding: set[Address] = set()
        self._doubting: asyncio.Task[None] | None = None

    async def open(self, url: ServerUrl, where: Address, username: str | None, credential: str | None) -> None:
        """Gets an address from the server at ``where``.

        Raises:
            TurnError: the server refuses, or cannot be reached.
        """
        from aioice.stun import TransactionFailed, TransactionTimeout
        from aioice.turn import TurnClientTcpProtocol, TurnClientUdpProtocol

        loop = asyncio.get_running_loop()
        given = (where, username, credential, LIFETIME_S, BIND_S)
        transport: asyncio.BaseTransport
        try:
            if url.transport == "udp":
                transport, self._client = await loop.create_datagram_endpoint(
                    lambda: TurnClientUdpProtocol(*given), remote_addr=where
                )
            else:
                more: dict[str, Any] = {}
                if url.transport == "tls":
                    more["ssl"] = ssl.create_default_context()
                    more["server_hostname"] = url.host
                    more["ssl_handshake_timeout"] = HANDSHAKE_S
                transport, self._client = await loop.create_connection(
                    lambda: TurnClientTcpProtocol(*given), where[0], where[1], **more
                )
        except OSError as error:
            raise TurnError(f"cannot be reached: {error}") from error
        try:
            self.address = await self._client.connect()
        except TransactionFailed as error:
            transport.close()
            code = error.response.attributes.get("ERROR-CODE", (0, ""))[0]
            what = "the user name or the credential" if code == 401 else "to lend an address"
            raise TurnError(f"refuses {what} (error {code})") from error
        except TransactionTimeout as error:
            transport.close()
            raise TurnError("does not answer") from error
        except ConnectionError as error:
            transport.close()
            raise TurnError(str(error)) from error
        except BaseException:
            transport.close()
            raise
        self.related = self._client.mapped_address
        self._client.receiver = self
        if transport.is_closing():
            self.lost.set()

    def sendto(self, data: bytes | memoryview, address: Address, /) -> int:
        """Sends one datagram to a peer.

        Raises:
            OSError: it is lost here, for want of room or of the server.
        """
        client = self._client
        if client.transport.is_closing() or client.transport.get_write_buffer_size() > MAX_BUFFER:
            raise BlockingIOError(errno.EAGAIN, "the relay takes no more")
        channel = client.peer_to_channel.get(address)
        if channel is None or (time.time() > client.channel_refresh_at[channel] and address not in self._binding):
            self._bind(bytes(data), address, is_new=channel is None)
        else:
            client._send(channel.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data)
        return len(data)

    async def close(self) -> None:
        """Gives the address back; whether the server hears of it is not waited for long."""
        tasks = [*self._tasks, *([self._doubting] if self._doubting is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._client.delete()

    # What aioice calls.

    def datagram_received(self, data: bytes, address: Address) -> None:
        """What a peer sent."""
        self._on_datagram(data, address)

    def connection_lost(self, error: Exception | None) -> None:
        """The address is no longer ours."""
        self.lost.set()

    def _bind(self, data: bytes, address: Address, *, is_new: bool) -> None:
        if len(self._tasks) >= MAX_WAITING:
            raise BlockingIOError(errno.EAGAIN, "too much waits for a channel")
        if is_new and address not in self._binding:
            self._reuse(address)
        self._binding.add(address)
        task = asyncio.get_running_loop().create_task(self._client.send_data(data, address))
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._binding.discard(address)
            # A failure is a datagram that got lost: whoever waits for an answer sends again.
            if not task.cancelled() and task.exception() is not None and not self.lost.is_set():
                self._doubt()

        task.add_done_callback(done)

    def _doubt(self) -> None:
        """Finds out whether the server still knows of the address; without this it would take minutes to notice."""
        if self._doubting is None or self._doubting.done():
            self._doubting = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        from aioice.stun import Class, Message, Method, TransactionError

        refresh = Message(message_method=Method.REFRESH, message_class=Class.REQUEST)
        refresh.attributes["LIFETIME"] = LIFETIME_S
        try:
            await self._client.request_with_retry(refresh)
        except (TransactionError, ConnectionError):
            self._client.transport.close()

    def _reuse(self, address: Address) -> None:
        """The number of a channel that nobody used for long is the new peer's: there are some 4,000."""
        client = self._client
        oldest = time.time() - FREE_S
        old = next((each for each, due in client.channel_refresh_at.items() if due < oldest), None)
        if old is not None:
            del client.channel_refresh_at[old]
            del client.peer_to_channel[client.channel_to_peer.pop(old)]
            client.peer_to_failed_channel[address] = old
