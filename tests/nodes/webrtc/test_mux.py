"""Sending many datagrams in one call, and without that where the kernel cannot."""

from __future__ import annotations

import errno
import logging
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowstream.proto import stun
from flowstream.proto.ice import Address, Pair
from flowstream_nodes.webrtc._mux import UdpMux

pytestmark = pytest.mark.anyio

SIZES = [900, 900, 900, 400, 900, 1200, 1200, 7]


@pytest.fixture
async def mux() -> AsyncIterator[UdpMux]:
    mux = UdpMux("127.0.0.1", 0, log=logging.LoggerAdapter(logging.getLogger("flowstream.test"), {}))
    await mux.open()
    yield mux
    mux.close()


@pytest.fixture
def peer() -> Any:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.settimeout(5)
        yield bound


def send_all(mux: UdpMux, peer: socket.socket) -> list[bytes]:
    local = mux.candidates()[0]
    datagrams = [bytes([index]) * size for index, size in enumerate(SIZES)]
    data = memoryview(b"".join(datagrams))
    assert mux.send_run(data, SIZES, Pair(local, peer.getsockname()[:2])) == len(SIZES)
    assert [peer.recv(2048) for _ in SIZES] == datagrams
    return datagrams


class _Counting:
    """A socket that counts its calls, and can refuse to cut datagrams up."""

    def __init__(self, bound: socket.socket, refusal: int | None = None) -> None:
        self._bound = bound
        self._refusal = refusal
        self.calls: list[str] = []

    def sendmsg(self, *given: Any) -> int:
        self.calls.append("sendmsg")
        if self._refusal is not None:
            raise OSError(self._refusal, "no")
        return self._bound.sendmsg(*given)

    def sendto(self, *given: Any) -> int:
        self.calls.append("sendto")
        return self._bound.sendto(*given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bound, name)


@pytest.mark.skipif(sys.platform != "linux", reason="UDP_SEGMENT is Linux's")
async def test_runs_of_one_size_go_in_one_call(mux: UdpMux, peer: socket.socket) -> None:
    port = mux._ports["127.0.0.1"]
    port.socket = counting = _Counting(port.socket)  # type: ignore[assignment]
    send_all(mux, peer)
    assert counting.calls == ["sendmsg", "sendto", "sendmsg"]


@pytest.mark.parametrize("refusal", [errno.EINVAL, errno.EIO, errno.EOPNOTSUPP])
async def test_where_the_kernel_cannot_each_goes_by_itself(mux: UdpMux, peer: socket.socket, refusal: int) -> None:
    port = mux._ports["127.0.0.1"]
    port.cuts_up = True
    port.socket = counting = _Counting(port.socket, refusal)  # type: ignore[assignment]
    send_all(mux, peer)
    assert counting.calls == ["sendmsg"] + ["sendto"] * len(SIZES)
    send_all(mux, peer)
    assert counting.calls.count("sendmsg") == 1, "it is not tried again"
    assert mux.unsent_packets == 0


async def test_what_does_not_fit_the_buffer_is_lost_and_counted(mux: UdpMux, peer: socket.socket) -> None:
    local = mux.candidates()[0]
    port = mux._ports["127.0.0.1"]
    port.cuts_up = True
    port.socket = _Counting(port.socket, errno.EAGAIN)  # type: ignore[assignment]
    assert mux.send_run(memoryview(bytes(900 * 3)), [900] * 3, Pair(local, peer.getsockname()[:2])) == 0
    assert mux.unsent_packets == 3
    assert port.cuts_up


class _Noting:
    """A receiver, or a relay's address, that notes what it gets."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, Any]] = []

    def handle_datagram(self, data: bytes, pair: Pair) -> None:
        self.got.append((data, pair))

    def sendto(self, data: bytes | memoryview, address: Address, /) -> int:
        self.got.append((bytes(data), address))
        return len(data)


def answer(tag: bytes) -> bytes:
    """A STUN response to what was asked with a tag."""
    return stun.Message(stun.BINDING, stun.Class.SUCCESS, tag + bytes(6)).to_bytes()


async def test_an_answer_goes_to_who_asked_and_to_nobody_else(mux: UdpMux) -> None:
    asker, owner = _Noting(), _Noting()
    pair = Pair(mux.candidates()[0], ("127.0.0.1", 9))
    mux.expect(b"asking", asker)
    mux.claim(pair, owner)
    mux.take(answer(b"asking"), pair)
    mux.take(answer(b"others"), pair)
    assert asker.got == [(answer(b"asking"), pair)]
    mux.expect_no_more(b"asking")
    mux.take(answer(b"asking"), pair)
    assert (len(asker.got), owner.got) == (1, []), "whoever holds the pair did not ask"
    mux.take(b"\x80 media", pair)
    assert owner.got == [(b"\x80 media", pair)]


async def test_a_lent_address_sends_and_receives_like_a_socket(mux: UdpMux) -> None:
    lent, receiver = _Noting(), _Noting()
    own = mux.candidates()
    base = mux.lend(("203.0.113.1", 50_000), lent)
    assert base != mux.lend(("203.0.113.1", 50_001), _Noting())
    assert mux.candidates() == own
    pair = Pair(base, ("127.0.0.1", 9))
    assert mux.send((b"one", b"two"), pair) == 2
    datagrams = [bytes([index]) * size for index, size in enumerate(SIZES)]
    assert mux.send_run(memoryview(b"".join(datagrams)), SIZES, pair) == len(SIZES)
    assert lent.got == [(data, pair.remote) for data in (b"one", b"two", *datagrams)]
    mux.claim(pair, receiver)
    mux.take(b"\x80 media", pair)
    assert receiver.got == [(b"\x80 media", pair)]
    mux.give_back(base[0])
    assert mux.send((b"late",), pair) == 0
