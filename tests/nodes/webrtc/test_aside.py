"""What viewers report of their packets comes in by itself where the kernel can tell it apart, and can wait there."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.ice import Pair
from flowstream.proto.rtcp import (
    Nack,
    PictureLossIndication,
    ReceiverReport,
    ReportBlock,
    RtcpPacket,
    TransportFeedback,
    is_report_alone,
    pack_compound,
)
from flowstream_nodes.webrtc import _aside, _mux
from flowstream_nodes.webrtc._mux import UdpMux

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has sockets that a filter chooses from"),
]


def protected(packets: Sequence[RtcpPacket]) -> bytes:
    """As long as SRTCP makes it."""
    return pack_compound(packets) + bytes(14)


FEEDBACK = TransportFeedback(1, 2, 7, 0, 0, (0, 4, None))
PADDED = replace(FEEDBACK, deltas=(0, 4, None, 4))
OTHERS = (
    protected([Nack(1, 2, (7,))]),
    protected([PictureLossIndication(1, 2)]),
    protected([ReceiverReport(1), PictureLossIndication(1, 2)]),
    protected([FEEDBACK, Nack(1, 2, (7,))]),
    b"\x80\x60 media",
    b"\x16\xfe\xff a handshake",
    b"\x8f",
)
PATIENCE_S = 10


class _Owner:
    """Whose the pair is: what came, and how."""

    def __init__(self) -> None:
        self.plain: list[bytes] = []
        self.reports: list[bytes] = []
        self.waited_ns: list[int] = []
        self.came = asyncio.Event()

    def handle_datagram(self, data: bytes, pair: Pair) -> None:
        self.plain.append(data)
        self.came.set()

    def handle_reports(self, data: bytes, pair: Pair, *, waited_ns: int) -> None:
        self.reports.append(data)
        self.waited_ns.append(waited_ns)
        self.came.set()


class _Scene:
    """A mux, a peer of it, and who owns what that sends."""

    def __init__(self, mux: UdpMux, peer: socket.socket) -> None:
        self.mux = mux
        self.peer = peer
        self.owner = _Owner()
        self.local = mux.candidates()[0]
        self.mux.claim(Pair(self.local, peer.getsockname()[:2]), self.owner)

    def send(self, *datagrams: bytes) -> None:
        for data in datagrams:
            self.peer.sendto(data, self.local)

    async def until(self, *, plain: int = 0, reports: int = 0) -> None:
        with anyio.fail_after(PATIENCE_S):
            while len(self.owner.plain) < plain or len(self.owner.reports) < reports:
                await self.owner.came.wait()
                self.owner.came.clear()


@pytest.fixture(params=["127.0.0.1", "::1"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[_Scene]:
    host = request.param
    mux = UdpMux(host, 0, log=logging.LoggerAdapter(logging.getLogger("flowstream.test"), {}))
    await mux.open()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((host, 0))
        yield _Scene(mux, peer)
    mux.close()


async def test_reports_come_in_by_themselves_and_all_else_as_before(scene: _Scene) -> None:
    report = ReceiverReport(1, (ReportBlock(2, 0, 0, 7, 0, 0, 0),))
    reports = [protected([each]) for each in (FEEDBACK, PADDED, report)]
    assert PADDED.to_bytes()[0] & 0x20, "one of them is padded"
    scene.send(*OTHERS, *reports)
    await scene.until(plain=len(OTHERS), reports=len(reports))
    assert scene.owner.plain == list(OTHERS)
    assert scene.owner.reports == reports
    assert max(scene.owner.waited_ns) < PATIENCE_S * 1e9


async def test_held_reports_wait_until_they_are_asked_for(scene: _Scene) -> None:
    scene.mux.hold_reports(True)
    scene.send(protected([FEEDBACK]), *OTHERS)
    await scene.until(plain=len(OTHERS))
    assert not scene.owner.reports, "what else comes waits for nothing"
    assert scene.mux.take_reports() == 1
    assert scene.owner.reports == [protected([FEEDBACK])]
    assert scene.mux.take_reports() == 0


async def test_they_say_for_how_long_they_have_waited(scene: _Scene) -> None:
    scene.mux.hold_reports(True)
    until_ns = time.monotonic_ns() + PATIENCE_S * 1_000_000_000
    while time.monotonic_ns() < until_ns:  # the kernel begins to note times a moment after it was asked to
        begun_ns = time.monotonic_ns()
        scene.send(protected([FEEDBACK]))
        while time.monotonic_ns() < begun_ns + 5_000_000:
            pass  # the kernel's clock is the real one
        scene.mux.take_reports()
        took_ns = time.monotonic_ns() - begun_ns
        waited_ns = scene.owner.waited_ns.pop()
        assert waited_ns <= took_ns + 5_000_000
        if waited_ns >= 4_000_000:
            return
    pytest.fail("it never says so")


async def test_what_was_there_before_something_else_on_a_pair_can_be_taken_first(scene: _Scene) -> None:
    scene.mux.hold_reports(True)
    scene.send(protected([FEEDBACK]))
    scene.mux.take_reports_before(Pair(("203.0.113.9", 9), ("127.0.0.1", 9)))
    assert not scene.owner.reports, "that comes in elsewhere"
    scene.mux.take_reports_before(Pair(scene.local, ("127.0.0.1", 9)))
    assert scene.owner.reports == [protected([FEEDBACK])]


async def test_what_has_waited_comes_when_it_is_held_no_more(scene: _Scene) -> None:
    scene.mux.hold_reports(True)
    scene.send(protected([FEEDBACK]), protected([PADDED]))
    scene.mux.hold_reports(False)
    await scene.until(reports=2)


async def test_reports_of_strangers_are_dropped(scene: _Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.mux.release(Pair(scene.local, scene.peer.getsockname()[:2]), scene.owner)
    scene.send(protected([FEEDBACK]))
    assert scene.mux.take_reports() == 1
    pair = Pair(scene.local, scene.peer.getsockname()[:2])
    scene.mux.claim(pair, scene.owner)
    with monkeypatch.context() as patch:
        patch.setattr(scene.mux, "_own", frozenset())
        scene.send(protected([FEEDBACK]))
        assert scene.mux.take_reports() == 1
    assert not scene.owner.reports, "only this machine may watch on loopback"
    scene.send(protected([PADDED]))
    scene.mux.take_reports()
    assert scene.owner.reports == [protected([PADDED])]


async def test_a_flood_is_fetched_in_parts(scene: _Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mux, "MOST_TAKEN", 3)
    scene.mux.hold_reports(True)
    scene.send(*[protected([FEEDBACK])] * 5)
    scene.mux.take_reports()
    assert len(scene.owner.reports) == 3
    scene.mux.take_reports()
    assert len(scene.owner.reports) == 5


async def test_where_the_kernel_only_says_that_it_can_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some sandboxes take every option and do nothing: then it is chance on which socket a peer comes in."""
    monkeypatch.setattr(_aside, "SO_ATTACH_REUSEPORT_CBPF", socket.SO_PRIORITY)
    monkeypatch.setattr(_aside, "_Program", lambda length, code: struct.pack("=i", 0))
    mux = UdpMux("127.0.0.1", 0, log=logging.LoggerAdapter(logging.getLogger("flowstream.test"), {}))
    await mux.open()
    port = mux._ports["127.0.0.1"]
    try:
        came: set[int] = set()
        while port.aside is not None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind(("127.0.0.1", 0))
                scene = _Scene(mux, peer)
                scene.send(*OTHERS)
                await scene.until(plain=len(OTHERS))
                assert scene.owner.plain == list(OTHERS)
                came.add(peer.getsockname()[1])
        assert came
    finally:
        mux.close()


async def test_where_the_kernel_cannot_all_comes_in_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_aside, "SO_ATTACH_REUSEPORT_CBPF", 9_999)
    mux = UdpMux("127.0.0.1", 0, log=logging.LoggerAdapter(logging.getLogger("flowstream.test"), {}))
    await mux.open()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            scene = _Scene(mux, peer)
            mux.hold_reports(True)
            scene.send(protected([FEEDBACK]), *OTHERS)
            await scene.until(plain=1 + len(OTHERS))
            assert not scene.owner.reports
    finally:
        mux.close()


async def test_nobody_else_gets_the_port(scene: _Scene) -> None:
    host, port = scene.local
    second = UdpMux(host, port, log=logging.LoggerAdapter(logging.getLogger("flowstream.test"), {}))
    await second.open()
    try:
        assert second.candidates()[0][1] != port, "another output"
    finally:
        second.close()


def test_how_long_it_waited_is_never_less_than_nothing_nor_more_than_a_second() -> None:
    def said(ago_s: float) -> list[tuple[int, int, bytes]]:
        at_ns = time.time_ns() - int(ago_s * 1e9)
        return [(socket.SOL_SOCKET, _aside.SO_TIMESTAMPNS, _aside._TIME.pack(*divmod(at_ns, 10**9)))]

    assert _aside.waited_ns([]) == 0
    assert _aside.waited_ns([(socket.SOL_SOCKET, 1, b"else")]) == 0
    assert _aside.waited_ns(said(-5)) == 0, "the wall clock was set back"
    assert _aside.waited_ns(said(3600)) == _aside.LONGEST_NS
    assert 100_000_000 <= _aside.waited_ns(said(0.1)) < _aside.LONGEST_NS


HEADS = st.sampled_from(
    [b"", b"\x8f\xcd", b"\xaf\xcd", b"\x81\xcd", b"\x4f\xcd", b"\x80\xc9", b"\xa1\xc9", b"\x41\xc9", b"\x80\xc8"]
)
LENGTHS = st.integers(0, 9).map(lambda words: words.to_bytes(2, "big")) | st.binary(max_size=2)


@given(st.tuples(HEADS, LENGTHS, st.binary(max_size=60)).map(b"".join))
def test_the_kernel_tells_them_as_we_do(data: bytes) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        bound.bind(("127.0.0.1", 0))
        aside: Any = _aside.split_off(bound, buffer_bytes=1 << 16)
        assert aside is not None
        with aside:
            peer.sendto(data, bound.getsockname())
            chosen = aside if is_report_alone(data) else bound
            chosen.settimeout(PATIENCE_S)
            assert chosen.recv(128) == data
