"""An emulated link between two real programs: datagrams that go through a port of this machine, both ways.

::

    async with udp_link(("127.0.0.1", 5004), {"rate": "2M", "delay": "40ms"}, seed=7) as link:
        ...  # a program that sends to link.address reaches the other one over such a link, and hears its answers
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from flowstream.testing.link import Change, Link, LinkConditions

Address = tuple[str, int]
Written = LinkConditions | Mapping[str, Any] | None

MAX_CLIENTS = 64
"""Programs that may send to one link; the one that was silent longest is forgotten when there are more."""


class UdpLink:
    """Made by ``udp_link``. ``to_target`` and ``to_client`` are the two directions, with their counts and conditions.

    ``address`` is where clients send to. Conditions are changed by ``change``.
    """

    def __init__(self, target: Address, to_target: Link, to_client: Link) -> None:
        self.target = target
        self.to_target = to_target
        self.to_client = to_client
        self.address: Address = ("", 0)
        self._loop = asyncio.get_running_loop()
        self._door: asyncio.DatagramTransport | None = None
        self._ways: OrderedDict[Address, asyncio.DatagramTransport] = OrderedDict()
        self._opening: dict[Address, list[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def change(self, **changes: Any) -> None:
        """Changes the conditions of both directions now. Raises ValueError for what no link can have."""
        for link in (self.to_target, self.to_client):
            link.set(self._now_ns(), **changes)
            self._work(link)

    def rebind(self) -> None:
        """Gives every client another port towards the target, as a NAT does that has forgotten them."""
        ways, self._ways = self._ways, OrderedDict()
        for way in ways.values():
            way.close()

    def _now_ns(self) -> int:
        return round(self._loop.time() * 1e9)

    def _put(self, link: Link, data: bytes, client: Address) -> None:
        link.send(data, self._now_ns(), client)
        self._work(link)

    def _work(self, link: Link) -> None:
        """Sends on what has arrived, and comes back when something is due."""
        for each in link.poll(self._now_ns()):
            self._send_on(link, each.data, each.tag)
        if timer := self._timers.pop(id(link), None):
            timer.cancel()
        if (due_ns := link.next_ns()) is not None:
            self._timers[id(link)] = self._loop.call_at(due_ns / 1e9, self._work, link)

    def _send_on(self, link: Link, data: bytes, client: Address) -> None:
        if link is self.to_client:
            if self._door is not None:
                self._door.sendto(data, client)
        elif (way := self._ways.get(client)) is not None:
            self._ways.move_to_end(client)
            way.sendto(data)
        elif client in self._opening:
            self._opening[client].append(data)
        else:
            self._opening[client] = [data]
            task = self._loop.create_task(self._open_way(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open_way(self, client: Address) -> None:
        """A socket of its own towards the target for each client, so that answers find back."""
        try:
            way, _ = await self._loop.create_datagram_endpoint(
                lambda: _Receiver(lambda data, _: self._put(self.to_client, data, client)), remote_addr=self.target
            )
        finally:
            held = self._opening.pop(client)
        self._ways[client] = way
        while len(self._ways) > MAX_CLIENTS:
            self._ways.popitem(last=False)[1].close()
        for data in held:
            way.sendto(data)

    async def _open(self) -> None:
        door, _ = await self._loop.create_datagram_endpoint(
            lambda: _Receiver(lambda data, client: self._put(self.to_target, data, client)),
            local_addr=("127.0.0.1", 0),
        )
        self._door = door
        self.address = door.get_extra_info("sockname")[:2]

    async def _close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for transport in (self._door, *self._ways.values()):
            if transport is not None:
                transport.close()
        await asyncio.sleep(0)  # transports close their sockets in the loop's next round


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, Address], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._received(data, addr[:2])

    def error_received(self, exc: Exception) -> None:
        """Nobody listens at the other end: on a network that is silence."""


@asynccontextmanager
async def udp_link(
    target: Address,
    to_target: Written = None,
    to_client: Written = None,
    *,
    seed: int = 0,
    script: Iterable[Change] = (),
) -> AsyncIterator[UdpLink]:
    """A link to ``target`` on an asyncio loop; leaving the block closes it, with what is on its way.

    ``to_client`` are the conditions of the way back, those of the way there unless given. ``script`` changes both.
    """
    steps = tuple(script)
    back = to_target if to_client is None else to_client
    link = UdpLink(target, Link(to_target, seed=seed, script=steps), Link(back, seed=seed + 1, script=steps))
    await link._open()
    try:
        yield link
    finally:
        await link._close()
