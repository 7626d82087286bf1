"""SCTP of viewers that are not honest: it ends their own data channels at most, and costs no more than is allowed."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest
from aiortc.rtcsctptransport import RTCSctpTransport, crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from flowstream import Caller
from flowstream.proto.sctp import WINDOW
from flowstream.proto.sdpdata import DataSection
from flowstream_nodes.webrtc._association import MOST_CHANNELS, MOST_CHUNKS_A_SECOND, ROOM, Association
from tests.nodes.webrtc.data_viewer import DataViewer
from tests.proto.test_sctp import INIT, chunk, data, parameter, sack

LOG = logging.LoggerAdapter(logging.getLogger("flowstream.test"), {})


class Dtls:
    """What carries an association: keeps what is sent."""

    _role = "client"
    state = "connected"

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.receiver: Any = None
        self.is_broken = False

    def _register_data_receiver(self, receiver: Any) -> None:
        self.receiver = receiver

    def _unregister_data_receiver(self, receiver: Any) -> None:
        self.receiver = None

    async def _send_data(self, data: bytes) -> None:
        if self.is_broken:
            raise ConnectionError
        self.sent.append(data)


class Peer:
    """Whoever is at the other end: sends chunks with a right checksum and a right tag."""

    def __init__(self, now_ns: Callable[[], int] = lambda: 0) -> None:
        self.dtls = Dtls()
        self.association = Association(self.dtls, DataSection(5000, 65_536), now_ns=now_ns, log=LOG, viewer="heron")

    @property
    def sctp(self) -> RTCSctpTransport:
        assert self.association._sctp is not None
        return self.association._sctp

    async def start(self, *, tsn: int = 1) -> None:
        """Up to the end of the handshake."""
        await self.association.start()
        body = struct.pack("!LLHHL", 1, 65_536, 64, 64, tsn)
        await self.send(chunk(1, body + parameter(0xC000, b"")), tag=0)
        answer = self.dtls.sent[-1]
        cookie = answer[answer.index(struct.pack("!HH", 7, 28)) + 4 :][:24]
        await self.send(chunk(10, cookie))
        assert self.association.is_up

    async def send(self, *chunks: bytes, tag: int | None = None) -> None:
        """One packet."""
        tag = self.sctp._local_verification_tag if tag is None else tag
        head, body = struct.pack("!HHL", 5000, 5000, tag), b"".join(chunks)
        checksum = struct.pack("<L", crc32c(head + bytes(4) + body))
        await self.association._handle_data(head + checksum + body)

    @property
    def kept(self) -> int:
        """Bytes of messages that are not complete."""
        return sum(len(each.user_data) for stream in self.sctp._inbound_streams.values() for each in stream.reassembly)


BOTH_ENDS = 3
"""Of a message that is in one part."""

CONTROL, TEXT = 50, 51


def part(tsn: int, text: bytes, *, flags: int = 0, stream: int = 0, kind: int = TEXT) -> bytes:
    """A part of a message, by default one in its middle."""
    size = 16 + len(text)
    return struct.pack("!BBHLHHL", 0, flags, size, tsn, stream, 0, kind) + text + bytes(-size % 4)


def opening(tsn: int, *, stream: int = 0, label: bytes = b"c") -> bytes:
    """What opens a channel (RFC 8832)."""
    text = struct.pack("!BBHLHH", 3, 0x80, 0, 0, len(label), 0) + label
    return part(tsn, text, flags=BOTH_ENDS | 4, stream=stream, kind=CONTROL)


HOSTILE = {
    "a parameter without end": ([chunk(1, INIT + parameter(7, b"", 0))], "a parameter of 0 bytes"),
    "acknowledges everything": ([sack((1, 60_000))], "SACK of 1 to 60000"),
    "is far ahead": ([data(2 + 2 * WINDOW)], "data that is"),
    "another stream": ([data(1, 6000)], "stream 6000"),
    "no data": ([part(1, b"")], "DATA without data"),
    "opens one twice": ([opening(1), opening(2)], "AssertionError"),
    "a name that is no text": ([opening(1, label=b"\xff\xfe")], "UnicodeDecodeError"),
    "a text that is none": ([opening(1), part(2, b"\xff\xfe", flags=BOTH_ENDS)], "UnicodeDecodeError"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("what", HOSTILE)
async def test_what_no_honest_viewer_sends_ends_its_data_channels(what: str) -> None:
    chunks, reason = HOSTILE[what]
    peer = Peer()
    await peer.start()
    for each in chunks:
        if peer.association.ended_because is None:
            await peer.send(each, tag=0 if each[0] == 1 else None)
    assert peer.association.ended_because is not None
    assert reason in peer.association.ended_because
    assert not peer.association.is_up
    assert peer.dtls.receiver is None
    count = len(peer.dtls.sent)
    await peer.association._handle_data(bytes(100))
    await peer.association.stop("again")
    assert len(peer.dtls.sent) == count


@pytest.mark.anyio
async def test_a_message_without_end_is_not_kept() -> None:
    now_ns = 0
    peer = Peer(lambda: now_ns)
    await peer.start()
    tsn, most = 1, 0
    while peer.association.ended_because is None:
        now_ns += 1_000_000_000
        await peer.send(part(tsn, b"x" * 1000, flags=2 if tsn == 1 else 0))
        tsn += 1
        if peer.association.ended_because is None:
            most = max(most, peer.kept)
    assert peer.association.ended_because == f"it sent messages of more than {ROOM} bytes"
    assert most <= ROOM


@pytest.mark.anyio
async def test_a_message_in_very_many_parts_is_not_kept() -> None:
    now_ns = 0
    peer = Peer(lambda: now_ns)
    await peer.start()
    tsn = 1
    while peer.association.ended_because is None:
        now_ns += 1_000_000_000
        await peer.send(part(tsn, b"x", flags=2 if tsn == 1 else 0))
        tsn += 1
    assert peer.association.ended_because == "it sent a message in too many parts"
    assert tsn < 300


@pytest.mark.anyio
async def test_more_than_is_allowed_is_not_looked_at() -> None:
    now_ns = 0
    peer = Peer(lambda: now_ns)
    await peer.start()
    answered = len(peer.dtls.sent)
    for _ in range(3 * MOST_CHUNKS_A_SECOND):
        await peer.send(chunk(4, parameter(1, b"beat")))
    assert len(peer.dtls.sent) - answered <= MOST_CHUNKS_A_SECOND
    assert peer.association.ignored_packets >= 2 * MOST_CHUNKS_A_SECOND
    now_ns += 1_000_000_000
    await peer.send(chunk(4, parameter(1, b"beat")))
    assert peer.association.is_up


@pytest.mark.anyio
async def test_only_so_many_channels_are_opened() -> None:
    peer = Peer()
    opened: list[str] = []
    peer.association.on_channel = lambda channel: opened.append(channel.label)
    await peer.start()
    for number in range(2 * MOST_CHANNELS):
        await peer.send(opening(1 + number, stream=2 * number))
    assert len(opened) == MOST_CHANNELS
    assert peer.association.is_up
    await peer.association.stop("enough")


@pytest.mark.anyio
async def test_a_connection_that_breaks_is_no_error() -> None:
    peer = Peer()
    await peer.start()
    peer.dtls.is_broken = True
    await peer.send(chunk(4, parameter(1, b"beat")))
    assert peer.association.ended_because == "the connection ended"
    await peer.association.stop("the session ended")
    assert peer.association._sctp is None


TEXTS = st.binary(min_size=1, max_size=40)
CHUNKS = st.one_of(
    st.builds(chunk, st.sampled_from([*range(12), 14, 130, 192]), st.binary(max_size=64)),
    st.builds(data, st.integers(0, 200), st.integers(0, 70), TEXTS),
    st.builds(opening, st.integers(0, 20), stream=st.integers(0, 4), label=TEXTS),
    st.builds(
        part,
        st.integers(0, 20),
        TEXTS,
        flags=st.integers(0, 7),
        stream=st.integers(0, 4),
        kind=st.sampled_from([CONTROL, TEXT, 53, 56, 57, 99]),
    ),
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), max_size=4).map(lambda gaps: sack(*gaps)),
    st.builds(parameter, st.sampled_from([13, 16, 17]), st.binary(min_size=8, max_size=20)).map(
        lambda each: chunk(130, each)
    ),
)


@given(st.lists(st.lists(CHUNKS, min_size=1, max_size=4), max_size=25))
@settings(max_examples=60)
def test_whatever_comes_stays_bounded_and_never_gets_out(packets: list[list[bytes]]) -> None:
    async def receive() -> None:
        peer = Peer()
        peer.association.on_channel = lambda channel: channel.send("hello")
        await peer.start()
        for chunks in packets:
            await peer.send(*chunks)
            if peer.association.ended_because is not None:
                break
            assert peer.kept <= ROOM
            assert len(peer.sctp._sack_misordered) <= WINDOW
            assert len(peer.sctp._data_channels) <= 2 * MOST_CHANNELS + 64
        await peer.association.stop("the test ends")
        await asyncio.sleep(0)

    asyncio.run(receive())


@pytest.mark.anyio
async def test_other_viewers_notice_nothing(stage_of: Callable[..., Any], make_viewer: Callable[[], Any]) -> None:
    async with stage_of() as stage:
        stage.tasks.start_soon(stage.play)
        honest, hostile = make_viewer(), DataViewer()
        admitted = stage.viewers.admit(honest.offer(), Caller("127.0.0.1"))
        with anyio.fail_after(20):
            await honest.connect(admitted.answer)
            session = stage.viewers.sessions[admitted.session_id]
            admitted = stage.viewers.admit(hostile.offer_data(), Caller("127.0.0.1"))
            await hostile.connect(admitted.answer)
            await hostile.start()
            await hostile.until(lambda: bool(hostile.said))
            its_own = stage.viewers.sessions[admitted.session_id]
            tag = hostile.sctp._remote_verification_tag
            for kind in (1, 3, 130):
                for length in range(4, 60, 4):
                    body = struct.pack("!BBH", kind, 0, length) + bytes(length)
                    head = struct.pack("!HHL", 5000, 5000, tag)
                    await hostile.dtls._send_data(head + struct.pack("<L", crc32c(head + bytes(4) + body)) + body)
            while its_own.association.ended_because is None:
                await anyio.lowlevel.checkpoint()
            seen = len(honest.rtp)
            await honest.until(lambda: len(honest.rtp) > seen + 60)
            seen = len(hostile.rtp)
            await hostile.until(lambda: len(hostile.rtp) > seen + 20)
        assert session.connected
        assert its_own.connected, "it goes on to see the picture, too"
        numbers = [packet.sequence_number for packet in honest.rtp if packet.payload_type == 96]
        assert {(b - a) & 0xFFFF for a, b in pairwise(numbers)} == {1}
        await hostile.leave()
        hostile.vanish()
