"""What is known of the way to this machine: what servers say, what changes, what is told of those that are silent."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from flowstream.proto import stun
from flowstream.proto.ice import Address, Credentials, IceLite, Pair
from flowstream.proto.ice_agent import IceAgent, Path
from flowstream.proto.ice_servers import IceServer
from flowstream.proto.stun import Class, Message
from flowstream_nodes.webrtc import _gathering
from flowstream_nodes.webrtc._gathering import Gatherer, Reach
from flowstream_nodes.webrtc._turn import TurnError
from tests.nodes.webrtc.conftest import Clock, StageHolding

pytestmark = pytest.mark.anyio

INSIDE, LOOPBACK = ("192.168.1.2", 8080), ("127.0.0.1", 8080)
OUTSIDE = ("203.0.113.2", 8080)
SERVER = ("203.0.113.1", 3478)
STUN_SERVER = IceServer(("stun:203.0.113.1",))
TURN_SERVER = IceServer(("turn:203.0.113.1",), "viewer", "a password")
RELAYED = ("203.0.113.1", 50_000)
CREDENTIALS = Credentials("ours", b"k" * 22, "peer", b"p" * 22)
AGREEMENT: Any = SimpleNamespace(candidates=(), offer=SimpleNamespace(is_lite=False))


class Mux:
    """Ports that send nothing: ``answers`` says how a server sees each, None if it is silent."""

    def __init__(self) -> None:
        self.is_local = False
        self.ports = [INSIDE, LOOPBACK]
        self.answers: Callable[[Pair], Address | None] = lambda pair: OUTSIDE
        self.asked: list[Pair] = []
        self.expected: dict[bytes, Any] = {}
        self.lent: dict[str, Any] = {}

    def candidates(self) -> list[Address]:
        return list(self.ports)

    def expect(self, tag: bytes, receiver: Any) -> None:
        self.expected[tag] = receiver

    def expect_no_more(self, tag: bytes) -> None:
        del self.expected[tag]

    def send(self, datagrams: tuple[bytes, ...], pair: Pair) -> int:
        self.asked.append(pair)
        (request,) = datagrams
        key = Message.parse(request).transaction_id
        if (seen := self.answers(pair)) is not None:
            value = stun.pack_xor_address(seen, key)
            answer = Message(stun.BINDING, Class.SUCCESS, key, ((stun.XOR_MAPPED_ADDRESS, value),)).to_bytes()
            self.expected[key[:6]].handle_datagram(answer, Pair(pair.local, ("198.51.100.9", 3478)))  # somebody else
            self.expected[key[:6]].handle_datagram(answer, pair)
        return 1

    def lend(self, address: Address, lent: Any) -> Address:
        base = (f"relay {address[0]}", address[1])
        self.lent[base[0]] = lent
        return base

    def give_back(self, base: str) -> None:
        del self.lent[base]


class Relay:
    """What a TURN server lends; ``refusal`` is why it does not."""

    refusal: str | None = None
    opened = 0

    def __init__(self, on_datagram: Any) -> None:
        self.address, self.related = RELAYED, OUTSIDE
        self.lost = anyio.Event()
        self.closed = False

    async def open(self, url: Any, where: Address, username: str | None, credential: str | None) -> None:
        if Relay.refusal is not None:
            raise TurnError(Relay.refusal)
        assert (where, username, credential) == (SERVER, "viewer", "a password")
        Relay.opened += 1

    async def close(self) -> None:
        self.closed = True


class Scene:
    """A gatherer with what it stands on."""

    def __init__(self, tasks: Any) -> None:
        self.mux, self.clock = Mux(), Clock()
        self.paths: list[Path] = []
        mux: Any = self.mux
        self.gatherer = Gatherer(mux, StageHolding(tasks, self.clock), on_path=self.paths.append)

    def lines(self) -> list[str]:
        return [each.line(number) for number, each in enumerate(self.gatherer.candidates(), 1)]

    async def until(self, condition: Callable[[], object]) -> None:
        with anyio.fail_after(5):
            while not condition():
                await anyio.lowlevel.checkpoint()


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(_gathering, "TurnRelay", Relay)
    Relay.refusal, Relay.opened = None, 0
    async with anyio.create_task_group() as tasks:
        found = Scene(tasks)
        yield found
        await found.gatherer.close()
        tasks.cancel_scope.cancel()
    assert not found.mux.expected
    assert not found.mux.lent


async def test_without_servers_the_agent_is_lite_and_the_machines_addresses_are_all(scene: Scene) -> None:
    assert isinstance(scene.gatherer.make_ice(CREDENTIALS, AGREEMENT), IceLite)
    scene.gatherer.follow(Reach(public=(("203.0.113.7", 0), ("203.0.113.7", 5000), ("2001:db8::7", 0), INSIDE)))
    assert [line.split(" ", 4)[4] for line in scene.lines()] == [
        "192.168.1.2 8080 typ host",
        "127.0.0.1 8080 typ host",
        "203.0.113.7 8080 typ host",
        "203.0.113.7 5000 typ host",
    ], "what is said to lead here is another of its addresses, where there is a port for it"
    assert isinstance(scene.gatherer.make_ice(CREDENTIALS, AGREEMENT), IceLite)


async def test_servers_add_how_the_port_looks_from_outside_and_what_they_lend(scene: Scene) -> None:
    scene.gatherer.follow(Reach((STUN_SERVER, TURN_SERVER)))
    with anyio.fail_after(5):
        await scene.gatherer.settled()
    assert [line.split(" ", 4)[4] for line in scene.lines()] == [
        "192.168.1.2 8080 typ host",
        "127.0.0.1 8080 typ host",
        "203.0.113.2 8080 typ srflx raddr 192.168.1.2 rport 8080",
        "203.0.113.1 50000 typ relay raddr 203.0.113.2 rport 8080",
    ]
    assert scene.mux.asked[0] == Pair(INSIDE, SERVER)
    assert LOOPBACK not in [pair.local for pair in scene.mux.asked]
    agent = scene.gatherer.make_ice(CREDENTIALS, AGREEMENT)
    assert isinstance(agent, IceAgent)
    assert not agent.is_controlling
    assert [(path.host, path.kind) for path in scene.paths] == [(RELAYED[0], "relay")]


async def test_an_address_that_is_the_same_from_outside_is_told_once(scene: Scene) -> None:
    scene.mux.answers = lambda pair: pair.local
    scene.gatherer.follow(Reach((STUN_SERVER,)))
    await scene.gatherer.settled()
    assert len(scene.lines()) == 2


async def test_where_only_this_machine_may_watch_nobody_is_asked(scene: Scene) -> None:
    scene.mux.is_local = True
    scene.gatherer.follow(Reach((STUN_SERVER, TURN_SERVER), (("203.0.113.7", 0),)))
    with anyio.fail_after(0.5):
        await scene.gatherer.settled()
    assert len(scene.lines()) == 2
    assert (scene.mux.asked, Relay.opened) == ([], 0)
    assert isinstance(scene.gatherer.make_ice(CREDENTIALS, AGREEMENT), IceLite)


async def test_viewers_wait_a_second_for_a_silent_server_and_then_never_again(scene: Scene) -> None:
    scene.mux.answers = lambda pair: None
    scene.gatherer.follow(Reach((STUN_SERVER,)))
    started = anyio.current_time()
    await scene.gatherer.settled()
    assert 0.9 <= anyio.current_time() - started < 2
    with anyio.fail_after(0.5):
        await scene.gatherer.settled()


async def test_a_silent_server_is_told_of_once_until_it_has_answered(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def wait(watch: Any) -> None:
        scene.clock.skip(max(0, watch._due_ns - scene.clock.now_ns()) / 1e9)
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(_gathering._Watch, "wait", wait)
    monkeypatch.setattr(_gathering, "RETRY_S", 0.001)
    scene.mux.answers = lambda pair: None
    with caplog.at_level(logging.WARNING):
        scene.gatherer.follow(Reach((STUN_SERVER,)))
        await scene.until(lambda: scene.clock.skip(30) or len(scene.mux.asked) > 14)
        told = [record.getMessage() for record in caplog.records]
        assert told == [
            "the STUN server stun:203.0.113.1 is no help to viewers from outside: it does not answer; "
            "it is asked again now and then"
        ]
        scene.mux.answers = lambda pair: OUTSIDE
        await scene.until(lambda: scene.clock.skip(30) or len(scene.lines()) == 3)
        scene.mux.answers = lambda pair: None
        await scene.until(lambda: len(caplog.records) == 2)
        assert len(scene.lines()) == 2, "what is not confirmed is no longer told"


async def test_a_name_that_nobody_knows_is_told_of(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        scene.gatherer.follow(Reach((IceServer(("stun:nowhere.invalid", "turn:nowhere.invalid"), "viewer", "secret"),)))
        await scene.until(lambda: len(caplog.records) == 2)
    reports = [record.getMessage() for record in caplog.records]
    (stun,) = (text for text in reports if text.startswith("the STUN server stun:nowhere.invalid is no help"))
    assert ": the name nowhere.invalid cannot be looked up" in stun
    (turn,) = (text for text in reports if text.startswith("no relay for viewers from outside"))
    assert ": turn:nowhere.invalid cannot be found: the name nowhere.invalid cannot be looked up" in turn
    assert "secret" not in stun + turn


async def test_a_relay_that_is_lost_is_lent_again(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.gatherer.follow(Reach((TURN_SERVER,)))
    await scene.gatherer.settled()
    (lost,) = scene.mux.lent.values()
    with caplog.at_level(logging.WARNING):
        lost.lost.set()
        await scene.until(lambda: not scene.mux.lent)
        assert lost.closed
        await scene.until(lambda: scene.mux.lent)
    assert Relay.opened == 2
    (record,) = caplog.records
    assert ": turn:203.0.113.1 lends its address no longer; it is tried again" in record.getMessage()


async def test_a_refusal_is_told_and_the_next_address_tried(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    Relay.refusal = "refuses the user name or the credential (error 401)"
    both = IceServer(("turn:203.0.113.1", "turns:203.0.113.1"), "viewer", "a password")
    with caplog.at_level(logging.WARNING):
        scene.gatherer.follow(Reach((both,)))
        await scene.until(lambda: caplog.records)
    (record,) = caplog.records
    assert record.getMessage() == (
        "no relay for viewers from outside: turn:203.0.113.1 refuses the user name or the credential (error 401); "
        "turns:203.0.113.1 refuses the user name or the credential (error 401); it is tried again now and then"
    )


async def test_a_change_of_the_list_leaves_the_others_as_they_are(scene: Scene) -> None:
    scene.gatherer.follow(Reach((STUN_SERVER, TURN_SERVER)))
    await scene.gatherer.settled()
    (lent,) = scene.mux.lent.values()
    scene.gatherer.follow(Reach((TURN_SERVER,)))
    await scene.until(lambda: len(scene.lines()) == 4)  # coturn answers STUN too
    assert list(scene.mux.lent.values()) == [lent]
    scene.gatherer.follow(Reach((STUN_SERVER,)))
    await scene.until(lambda: not scene.mux.lent)
    assert lent.closed
    scene.gatherer.follow(Reach())
    await scene.until(lambda: not scene.mux.expected)
    assert len(scene.lines()) == 2
