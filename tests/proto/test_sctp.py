"""What is let through to an SCTP association, and what is not."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.sctp import (
    HEADER,
    LONGEST,
    MOST_ACKED,
    MOST_CHUNKS,
    MOST_STREAMS,
    WINDOW,
    Inbound,
    SctpError,
    examine,
)

FRESH = Inbound(None, 0)
GOING = Inbound(1000, 0)


def chunk(kind: int, body: bytes, length: int | None = None) -> bytes:
    size = len(body) + 4
    return struct.pack("!BBH", kind, 3, size if length is None else length) + body + bytes(-size % 4)


def packet(*chunks: bytes) -> bytes:
    return bytes(HEADER) + b"".join(chunks)


def data(tsn: int, stream: int = 0, text: bytes = b"x") -> bytes:
    return chunk(0, struct.pack("!LHHL", tsn, stream, 0, 51) + text)


def sack(*gaps: tuple[int, int], duplicates: int = 0, claims: int | None = None) -> bytes:
    body = struct.pack("!LLHH", 1, 1, len(gaps) if claims is None else claims, duplicates)
    body += b"".join(struct.pack("!HH", *gap) for gap in gaps) + bytes(4 * duplicates)
    return chunk(3, body)


def parameter(kind: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("!HH", kind, len(value) + 4 if length is None else length) + value + bytes(-len(value) % 4)


INIT = struct.pack("!LLHHL", 1, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("honest", "inbound"),
    [
        (packet(chunk(1, INIT + parameter(0xC000, b"") + parameter(0x8008, b"\xc0\x82"))), FRESH),
        (packet(chunk(2, INIT + parameter(7, bytes(24)))), FRESH),
        (packet(chunk(10, bytes(24)), data(1001)), GOING),
        (packet(data(1001), data(1002), sack()), GOING),
        (packet(data(1000)), GOING),  # a second time
        (packet(data(1000 + WINDOW, MOST_STREAMS - 1)), GOING),
        (packet(data(3)), Inbound(0xFFFFFFFF, 0)),  # over the end of the numbers
        (packet(sack((2, 3), (5, 5), duplicates=2)), GOING),
        (packet(chunk(4, parameter(1, b"beat"))), GOING),
        (packet(chunk(6, b"")), GOING),
        (packet(chunk(7, bytes(4))), GOING),
        (packet(chunk(130, parameter(13, bytes(14)))), GOING),
        (packet(chunk(130, parameter(16, bytes(8)))), GOING),
        (packet(chunk(192, struct.pack("!LHH", 1004, 1, 7))), GOING),
        (packet(chunk(77, b"of a later version")), GOING),
    ],
)
def test_what_peers_send_passes(honest: bytes, inbound: Inbound) -> None:
    assert examine(honest, inbound) >= 1


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (b"", "a packet of 0 bytes"),
        (bytes(HEADER + 3), "a packet of 15 bytes"),
        (bytes(LONGEST + 1), "a packet of 1501 bytes"),
        (packet(chunk(0, b"", 3)), "a chunk of 3 bytes in the 4 that are left"),
        (packet(chunk(0, b"", 5)), "a chunk of 5 bytes in the 4 that are left"),
        (packet(data(1001)) + b"\0\0", "2 bytes behind the last chunk"),
        (packet(*(MOST_CHUNKS + 1) * [chunk(11, b"")]), "more than 64 chunks"),
        (packet(chunk(1, INIT), chunk(11, b"")), "something beside INIT"),
        (packet(chunk(1, INIT[:-1])), "INIT of 15 bytes"),
        # A parameter without a size would be passed over for ever.
        (packet(chunk(1, INIT + parameter(7, b"", 0))), "a parameter of 0 bytes in the 4 that are left"),
        (packet(chunk(4, parameter(1, b"beat", 9))), "a parameter of 9 bytes in the 8 that are left"),
        (packet(chunk(0, bytes(12))), "DATA without data"),
        (packet(data(1001 + WINDOW)), "data that is 129 ahead"),
        (packet(data(1001, MOST_STREAMS)), "stream 64, of 64"),
        (packet(sack(claims=3)), "SACK of 12 bytes with 3 blocks and 0 duplicates"),
        (packet(chunk(3, bytes(11))), "SACK of 11 bytes"),
        (packet(sack((2, 3), (3, 4))), "SACK of 3 to 4 behind 3"),
        (packet(sack((0, 0))), "SACK of 0 to 0 behind 0"),
        (packet(sack((5, 4))), "SACK of 5 to 4 behind 0"),
        (packet(sack((1, MOST_ACKED + 1))), "SACK of 1 to 4097 behind 0"),
        (packet(chunk(7, b"")), "SHUTDOWN of 0 bytes"),
        (packet(chunk(130, parameter(13, bytes(13)))), "a parameter 13 of 13 bytes"),
        (packet(chunk(130, parameter(16, bytes(7)))), "a parameter 16 of 7 bytes"),
        (packet(chunk(192, bytes(5))), "FORWARD TSN of 5 bytes"),
        (packet(chunk(192, struct.pack("!L", 0x40000000))), "data that is 1073740824 ahead"),
        (packet(chunk(192, struct.pack("!LHH", 1001, 64, 0))), "stream 64, of 64"),
    ],
)
def test_what_no_honest_peer_sends_is_refused_and_named(wrong: bytes, reason: str) -> None:
    with pytest.raises(SctpError) as caught:
        examine(wrong, GOING)
    assert str(caught.value) == reason


def test_data_before_there_is_an_association_is_refused() -> None:
    with pytest.raises(SctpError, match="data before the association"):
        examine(packet(data(1)), FRESH)


def test_a_message_has_a_bounded_number_of_parts() -> None:
    examine(packet(data(1001)), Inbound(1000, MOST_CHUNKS + WINDOW - 1))
    with pytest.raises(SctpError, match="in too many parts"):
        examine(packet(data(1001)), Inbound(1000, MOST_CHUNKS + WINDOW))


def test_what_takes_long_to_handle_costs_more() -> None:
    assert examine(packet(sack()), GOING) == 1
    assert examine(packet(*10 * [data(1001)]), GOING) == 10
    assert examine(packet(sack((1, MOST_ACKED))), GOING) == 1 + MOST_ACKED // 64


CHUNKS = st.builds(
    chunk,
    st.sampled_from([*range(12), 14, 130, 192]),
    st.binary(max_size=64),
    st.none() | st.integers(0, 80),
)


@given(st.binary(max_size=200) | st.lists(CHUNKS, max_size=6).map(lambda chunks: packet(*chunks)))
def test_whatever_comes_passes_or_is_refused(noise: bytes) -> None:
    with suppress(SctpError):
        assert 1 <= examine(noise, GOING) <= len(noise)
