"""The emulated link between two real sockets of this machine."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from flowstream.testing import Change, UdpLink, udp_link


class Peer(asyncio.DatagramProtocol):
    """Keeps what comes, with its sender, and can be waited on; answers when told to."""

    def __init__(self, *, answers: bool = False) -> None:
        self.got: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()
        self.answers = answers
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.put_nowait((data, addr))
        if self.answers:
            self.transport.sendto(b"re:" + data, addr)

    async def next(self) -> bytes:
        return (await asyncio.wait_for(self.got.get(), 10))[0]


def run(main: Callable[[Peer, Callable[[UdpLink], Awaitable[Peer]]], Awaitable[None]]) -> None:
    """Runs ``main(server, connect)``; what was opened is closed."""

    async def call() -> None:
        loop = asyncio.get_running_loop()
        opened = []
        transport, server = await loop.create_datagram_endpoint(lambda: Peer(answers=True), local_addr=("127.0.0.1", 0))
        opened.append(transport)

        async def connect(link: UdpLink) -> Peer:
            transport, client = await loop.create_datagram_endpoint(Peer, remote_addr=link.address)
            opened.append(transport)
            return client

        try:
            await main(server, connect)
        finally:
            for each in opened:
                each.close()
            await asyncio.sleep(0)

    anyio.run(call)


def address_of(peer: Peer) -> tuple[str, int]:
    host, port = peer.transport.get_extra_info("sockname")[:2]
    return host, port


async def counted(link: UdpLink, what: str, count: int) -> None:
    """Lets the loop turn until so many datagrams went that way."""
    with anyio.fail_after(10):
        while link.to_target.counts[what] < count:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)


def test_both_ways_for_two_clients() -> None:
    async def main(server: Peer, connect: Callable[[UdpLink], Awaitable[Peer]]) -> None:
        async with udp_link(address_of(server), {"delay": "2ms"}) as link:
            one, two = await connect(link), await connect(link)
            one.transport.sendto(b"1")
            two.transport.sendto(b"2")
            assert {await server.next(), await server.next()} == {b"1", b"2"}
            assert (await one.next(), await two.next()) == (b"re:1", b"re:2")
            assert link.to_target.counts["delivered"] == link.to_client.counts["delivered"] == 2

    run(main)


def test_a_blackout_until_it_is_changed() -> None:
    async def main(server: Peer, connect: Callable[[UdpLink], Awaitable[Peer]]) -> None:
        async with udp_link(address_of(server), {"down": "losing"}, {}) as link:
            client = await connect(link)
            client.transport.sendto(b"lost")
            await counted(link, "down", 1)
            link.change(down="no")
            client.transport.sendto(b"through")
            assert await client.next() == b"re:through"
            assert server.got.qsize() == 1

    run(main)


def test_a_rate_takes_its_time_and_a_script_ends_it() -> None:
    async def main(server: Peer, connect: Callable[[UdpLink], Awaitable[Peer]]) -> None:
        script = [Change("100ms", rate="100M")]
        async with udp_link(address_of(server), {"rate": "16k", "overhead": 0}, {}, script=script) as link:
            client = await connect(link)
            begin = asyncio.get_running_loop().time()
            for number in range(20):
                client.transport.sendto(bytes([number]) * 100)  # 50 ms each at first, all in all a second
            got = [(await server.next())[0] for _ in range(20)]
            assert got == list(range(20))
            assert asyncio.get_running_loop().time() - begin >= 0.1
            assert link.to_target.counts["overflow"] == 0

    run(main)


def test_clients_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowstream.testing.relay.MAX_CLIENTS", 2)

    async def main(server: Peer, connect: Callable[[UdpLink], Awaitable[Peer]]) -> None:
        async with udp_link(address_of(server)) as link:
            for number in range(4):
                client = await connect(link)
                client.transport.sendto(bytes([number]))
                assert await client.next() == b"re:" + bytes([number])
            assert len(link._ways) == 2

    run(main)


def test_nobody_at_the_other_end_is_silence() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        target = gone.getsockname()

    async def main(server: Peer, connect: Callable[[UdpLink], Awaitable[Peer]]) -> None:
        async with udp_link(target) as link:
            client = await connect(link)
            for _ in range(3):
                client.transport.sendto(b"x")
            await counted(link, "delivered", 3)
            link.target = address_of(server)
            other = await connect(link)
            other.transport.sendto(b"y")
            assert await other.next() == b"re:y"

    run(main)


def test_a_new_binding_is_another_address_at_the_target_and_answers_find_back() -> None:
    async def main(server: Peer, connect: Callable[[UdpLink], Awaitable[Peer]]) -> None:
        async with udp_link(address_of(server)) as link:
            client = await connect(link)
            seen = []
            for _ in range(2):
                client.transport.sendto(b"hello")
                seen.append((await asyncio.wait_for(server.got.get(), 10))[1])
                assert await client.next() == b"re:hello"
                link.rebind()
            assert seen[0] != seen[1]

    run(main)
