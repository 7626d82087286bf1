"""How viewers from outside reach this machine: what STUN servers see of its ports, and what TURN servers lend."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from flowstream.proto.backoff import Backoff
from flowstream.proto.candidates import Candidate, host_candidates, priority_of, read_candidates
from flowstream.proto.ice import Address, Credentials, IceLite, Pair
from flowstream.proto.ice_agent import MAX_REMOTES, IceAgent, Path
from flowstream.proto.ice_servers import IceServer, ServerUrl
from flowstream.proto.reflexive import Reflexive
from flowstream_nodes.webrtc._turn import TurnError, TurnRelay

if TYPE_CHECKING:
    from flowstream import Holding
    from flowstream.proto.sdp import Agreement
    from flowstream_nodes.webrtc._mux import UdpMux

SETTLE_S: Final = 1.0
"""The longest that viewers wait for servers to answer, from when those were named."""

TRY_S: Final = 5.0
"""How long a name may take to be looked up, or a relay to be lent."""

CLOSE_S: Final = 0.5
"""How long giving a relay back may take."""

RETRY_S: Final = 60.0
"""Before a name that was not found is looked up again."""

MAX_PORTS: Final = 8
"""Local ports that each STUN server is asked about."""

NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Reach:
    """What is known of the way to this machine: servers to ask, and addresses (port 0: that of the socket) that lead
    here."""

    servers: tuple[IceServer, ...] = ()
    public: tuple[Address, ...] = ()


class _Watch:
    """What one STUN server sees of our ports."""

    def __init__(self, mux: UdpMux, holding: Holding) -> None:
        self._mux = mux
        self._holding = holding
        self._keepers: dict[Pair, Reflexive] = {}
        self._by_tag: dict[bytes, tuple[Pair, Reflexive]] = {}
        self._news = anyio.Event()
        self._due_ns: int = 0

    @property
    def mapped(self) -> list[tuple[Address, Address]]:
        """(address seen, our own) of each port that it sees."""
        return [(each.mapped, pair.local) for pair, each in self._keepers.items() if each.mapped is not None]

    @property
    def has_ports(self) -> bool:
        """Whether there is any port that it could see."""
        return bool(self._keepers)

    @property
    def is_silent(self) -> bool:
        """Whether it has answered for none of the ports, although it had its time."""
        return all(each.is_silent for each in self._keepers.values())

    @property
    def is_settled(self) -> bool:
        """Whether every port has an answer, or will have none."""
        return all(each.is_silent or each.mapped is not None for each in self._keepers.values())

    def handle_datagram(self, data: bytes, pair: Pair) -> None:
        """Takes what the server sent, and from nobody else."""
        pair_asked, keeper = self._by_tag.get(data[8:14], (None, None))
        if keeper is not None and pair == pair_asked:
            keeper.handle_datagram(data, now_ns=self._holding.now_ns())
            self._news.set()

    def ask(self, servers: list[Address]) -> None:
        """Sends what is due, from ports that may have come or gone."""
        now_ns = self._holding.now_ns()
        ports = [each for each in self._mux.candidates() if not ipaddress.ip_address(each[0]).is_loopback][:MAX_PORTS]
        pairs = [Pair(port, server) for port in ports for server in servers if (":" in port[0]) == (":" in server[0])]
        for gone in self._keepers.keys() - set(pairs):
            self._drop(gone)
        for pair in pairs:
            if pair not in self._keepers:
                keeper = self._keepers[pair] = Reflexive(draw=secrets.token_bytes, now_ns=now_ns)
                self._by_tag[keeper.tag] = (pair, keeper)
                self._mux.expect(keeper.tag, self)
            if (request := self._keepers[pair].handle_deadline(now_ns=now_ns)) is not None:
                self._mux.send((request,), pair)
        self._due_ns = min((each.deadline_ns for each in self._keepers.values()), default=now_ns + 5 * NANOSECONDS)

    async def wait(self) -> None:
        """Until there is something to send, or something has come."""
        self._news = anyio.Event()
        with anyio.move_on_after(max(0.0, (self._due_ns - self._holding.now_ns()) / NANOSECONDS)):
            await self._news.wait()

    def close(self) -> None:
        """Nothing is expected any more."""
        for pair in list(self._keepers):
            self._drop(pair)

    def _drop(self, pair: Pair) -> None:
        tag = self._keepers.pop(pair).tag
        del self._by_tag[tag]
        self._mux.expect_no_more(tag)


class Gatherer:
    """Keeps candidates of the machine: its own addresses, those said to lead here, and what servers know or lend.

    Servers are asked from the ports that serve viewers, all the time, which keeps NATs open; each is reported once when
    it does not answer. With servers the agents are full ones, without they are lite.

    Where only this machine may watch, nobody is asked.
    """

    def __init__(self, mux: UdpMux, holding: Holding, *, on_path: Callable[[Path], None]) -> None:
        """``on_path`` is told of each relay, once it is there."""
        self._mux = mux
        self._holding = holding
        self._on_path = on_path
        self._reach = Reach()
        self._scopes: dict[IceServer, anyio.CancelScope] = {}
        self._watches: dict[tuple[IceServer, ServerUrl], _Watch] = {}
        self._relays: dict[Address, TurnRelay] = {}
        self._pending: set[object] = set()
        self._is_settled = anyio.Event()
        self._settle_ns = 0
        self._running = 0
        self._ended = anyio.Event()

    @property
    def is_full(self) -> bool:
        """Whether new viewers get an agent that sends checks."""
        return bool(self._reach.servers) and not self._mux.is_local

    def follow(self, reach: Reach) -> None:
        """From now on it is this; what was there before and still is goes on."""
        if reach == self._reach:
            return
        self._reach = reach
        servers = () if self._mux.is_local else reach.servers
        for server in self._scopes.keys() - set(servers):
            self._scopes.pop(server).cancel()
        for server in servers:
            if server not in self._scopes:
                self._scopes[server] = anyio.CancelScope()
                self._running += 1
                self._settle_ns = self._holding.now_ns() + round(SETTLE_S * NANOSECONDS)
                self._is_settled = anyio.Event()
                urls = [ServerUrl.parse(text) for text in server.urls]
                self._pending |= {(server, url) for url in urls if url.transport == "udp"}
                self._pending |= {(server, "relay")} if any(url.lends for url in urls) else set()
                self._holding.start_soon(self._attend, server, urls, self._scopes[server])

    async def settled(self) -> None:
        """Waits until every server has answered or is known not to, and never beyond `SETTLE_S` after it was named."""
        if self._pending and (left_ns := self._settle_ns - self._holding.now_ns()) > 0:
            with anyio.move_on_after(left_ns / NANOSECONDS):
                await self._is_settled.wait()

    def candidates(self) -> list[Candidate]:
        """All there are, the preferred ones first."""
        own = self._mux.candidates()
        found = host_candidates([*own, *self._public(own)])
        known = {each.address for each in found}
        reflexive = dict(pair for watch in self._watches.values() for pair in watch.mapped)
        for rank, (seen, base) in enumerate(reflexive.items()):
            if seen not in known:
                found.append(Candidate("srflx", seen, priority_of("srflx", rank), base))
        for rank, relay in enumerate(self._relays.values()):
            found.append(Candidate("relay", relay.address, priority_of("relay", rank), relay.related))
        return found

    def make_ice(self, credentials: Credentials, agreement: Agreement) -> IceLite | IceAgent:
        """The agent for a new viewer."""
        now_ns = self._holding.now_ns()
        if not self.is_full:
            return IceLite(credentials, now_ns=now_ns)
        paths = [Path(each, each[0], "host", rank) for rank, each in enumerate(self._mux.candidates())]
        paths += [self._path(base, relay) for base, relay in self._relays.items()]
        return IceAgent(
            credentials,
            paths=paths,
            remotes=read_candidates(agreement.candidates, most=MAX_REMOTES),
            draw=secrets.token_bytes,
            now_ns=now_ns,
            is_controlling=agreement.offer.is_lite,
        )

    async def close(self) -> None:
        """Gives back what was lent."""
        self._reach = Reach()
        for scope in self._scopes.values():
            scope.cancel()
        self._scopes.clear()
        with anyio.move_on_after(2 * CLOSE_S, shield=True):
            while self._running:
                self._ended = anyio.Event()
                await self._ended.wait()

    def _public(self, own: list[Address]) -> list[Address]:
        if self._mux.is_local:
            return []
        named = []
        for host, port in self._reach.public:
            alike = (each[1] for each in own if (":" in each[0]) == (":" in host))
            if port := port or next(alike, 0):
                named.append((host, port))
        return [each for each in named if each not in own]

    def _path(self, base: Address, relay: TurnRelay) -> Path:
        return Path(base, relay.address[0], "relay", list(self._relays).index(base))

    async def _attend(self, server: IceServer, urls: list[ServerUrl], scope: anyio.CancelScope) -> None:
        try:
            with scope:
                async with anyio.create_task_group() as tasks:
                    for url in urls:
                        if url.transport == "udp":
                            tasks.start_soon(self._watch, server, url)
                    if any(url.lends for url in urls):
                        tasks.start_soon(self._borrow, server, [url for url in urls if url.lends])
        finally:
            self._pending = {each for each in self._pending if not (isinstance(each, tuple) and each[0] == server)}
            self._done(None)
            self._running -= 1
            self._ended.set()

    def _done(self, what: object) -> None:
        self._pending.discard(what)
        if not self._pending:
            self._is_settled.set()

    async def _watch(self, server: IceServer, url: ServerUrl) -> None:
        """Asks one server what it sees, for as long as it is listed."""
        watch = self._watches[server, url] = _Watch(self._mux, self._holding)
        is_reported = False
        try:
            while True:
                addresses, problem = await self._find(url)
                while addresses:
                    watch.ask(addresses)
                    if watch.mapped:
                        is_reported = False
                    if watch.is_settled:
                        self._done((server, url))
                    if watch.is_silent:
                        problem = "it does not answer" if watch.has_ports else "this machine is on no network"
                        break
                    await watch.wait()
                self._done((server, url))
                if not is_reported and not url.lends:  # of a relay it is said what it does not lend
                    is_reported = True
                    self._holding.log.warning(
                        "the STUN server %s is no help to viewers from outside: %s; it is asked again now and then",
                        url.text,
                        problem,
                    )
                await anyio.sleep(RETRY_S)
        finally:
            watch.close()
            del self._watches[server, url]

    async def _borrow(self, server: IceServer, urls: list[ServerUrl]) -> None:
        """Has one server lend an address, for as long as it is listed, by the first of its URLs that works."""
        backoff = Backoff(first_ns=NANOSECONDS, max_ns=round(RETRY_S * NANOSECONDS))
        is_reported = False
        while True:
            problems: list[str] = []
            for url in urls:
                try:
                    relay = await self._open(server, url)
                except TurnError as error:
                    problems.append(f"{url.text} {error}")
                    continue
                backoff.started(now_ns=self._holding.now_ns())
                is_reported = False
                await self._keep(server, relay)
                problems.append(f"{url.text} lends its address no longer")
                break
            self._done((server, "relay"))
            if not is_reported:
                is_reported = True
                self._holding.log.warning(
                    "no relay for viewers from outside: %s; it is tried again now and then", "; ".join(problems)
                )
            wait_ns = backoff.failed(now_ns=self._holding.now_ns())
            await anyio.sleep((wait_ns or 0) / NANOSECONDS)

    async def _open(self, server: IceServer, url: ServerUrl) -> TurnRelay:
        """The address that the server lends; by the first of its own that can be reached.

        Raises:
            TurnError: it lends none.
        """
        addresses, problem = await self._find(url)
        failure = TurnError(f"cannot be found: {problem}")
        for where in addresses:
            try:
                return await self._open_at(where, server, url)
            except TurnError as error:
                failure = error
        raise failure

    async def _open_at(self, where: Address, server: IceServer, url: ServerUrl) -> TurnRelay:
        base: list[Address] = []

        def take(data: bytes, peer: Address) -> None:
            if base:
                self._mux.take(data, Pair(base[0], peer))

        relay = TurnRelay(take)
        login = server.login("flowstream", wallclock_ns=self._holding.wallclock_ns())
        try:
            with anyio.fail_after(TRY_S):
                await relay.open(url, where, login.username, login.credential)
        except TimeoutError:
            raise TurnError("does not answer") from None
        base.append(self._mux.lend(relay.address, relay))
        self._relays[base[0]] = relay
        return relay

    async def _keep(self, server: IceServer, relay: TurnRelay) -> None:
        base = next(each for each, known in self._relays.items() if known is relay)
        try:
            self._done((server, "relay"))
            self._on_path(self._path(base, relay))
            await relay.lost.wait()
        finally:
            del self._relays[base]
            self._mux.give_back(base[0])
            with anyio.move_on_after(CLOSE_S, shield=True):
                await relay.close()

    async def _find(self, url: ServerUrl) -> tuple[list[Address], str]:
        """The server's first address of each family; none, and why, if the name is not found."""
        try:
            with anyio.fail_after(TRY_S):
                found = await anyio.getaddrinfo(url.host, url.port, type=socket.SOCK_DGRAM)
        except TimeoutError:
            return [], f"the name {url.host} cannot be looked up"
        except OSError as error:
            return [], f"the name {url.host} cannot be looked up ({error.strerror or error})"
        addresses: dict[bool, Address] = {}
        for _, _, _, _, where in found:
            addresses.setdefault(":" in str(where[0]), (str(where[0]), int(where[1])))
        return list(addresses.values()), ""
