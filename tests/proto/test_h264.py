"""Splitting of H.264 byte streams and their RTP payloads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.h264 import H264Error, packetize, profile_level_id, split_annex_b

SPS = bytes.fromhex("6742c01f" "da0280f68400")[:-1]  # fmt: skip
PPS = bytes.fromhex("68ce0d48")


@st.composite
def nal_units(draw: st.DrawFn, max_size: int = 60) -> bytes:
    """A unit that is legal in a byte stream: no start code inside, no trailing zero."""
    body = draw(st.binary(max_size=max_size)).replace(b"\x00\x00", b"\x00\x03").rstrip(b"\x00")
    return bytes((draw(st.integers(0, 3)) << 5 | draw(st.integers(1, 12)),)) + body


def reassemble(payloads: list[bytes]) -> list[bytes]:
    """The receiver's side of RFC 6184, mode 1, for payloads that all arrived."""
    units: list[bytes] = []
    fragments = b""
    for payload in payloads:
        kind = payload[0] & 0x1F
        if kind == 24:
            position = 1
            while position < len(payload):
                size = int.from_bytes(payload[position : position + 2], "big")
                units.append(payload[position + 2 : position + 2 + size])
                position += 2 + size
        elif kind == 28:
            start, end = payload[1] & 0x80, payload[1] & 0x40
            assert bool(start) is not bool(fragments), "the first fragment, and it alone, is marked as the start"
            fragments = fragments or bytes((payload[0] & 0xE0 | payload[1] & 0x1F,))
            fragments += payload[2:]
            if end:
                units.append(fragments)
                fragments = b""
        else:
            units.append(payload)
    assert not fragments
    return units


@given(units=st.lists(nal_units(), max_size=6), codes=st.lists(st.sampled_from([3, 4]), min_size=6, max_size=6))
def test_a_byte_stream_is_split_where_it_was_joined(units: list[bytes], codes: list[int]) -> None:
    stream = b"".join(bytes(code - 1) + b"\x01" + unit for unit, code in zip(units, codes, strict=False))
    assert split_annex_b(stream) == units


def test_bytes_without_a_start_code_have_no_units() -> None:
    assert split_annex_b(b"") == []
    assert split_annex_b(b"\x00\x00\x02abc") == []
    assert split_annex_b(b"junk\x00\x00\x01\x65x\x00\x00\x00") == [b"\x65x"]


@given(units=st.lists(nal_units(max_size=400), max_size=8), max_size=st.integers(8, 120))
def test_payloads_fit_and_carry_every_unit(units: list[bytes], max_size: int) -> None:
    payloads = packetize(units, max_size=max_size)
    assert all(0 < len(payload) <= max_size for payload in payloads)
    assert reassemble(payloads) == units


@given(size=st.integers(101, 5000), max_size=st.integers(8, 100))
def test_fragments_are_equal_but_the_last_and_as_few_as_can_be(size: int, max_size: int) -> None:
    payloads = packetize([b"\x65" + bytes(size - 1)], max_size=max_size)
    sizes = [len(payload) for payload in payloads]
    assert len(set(sizes[:-1])) == 1
    assert sizes[-1] <= sizes[0]
    assert len(sizes) == -(-(size - 1) // (max_size - 2))


def test_fragment_heads_of_rfc_6184() -> None:
    payloads = packetize([b"\x65" + b"abcdefghij"], max_size=8)
    assert payloads == [b"\x7c\x85abcde", b"\x7c\x45fghij"]


def test_small_units_share_a_payload() -> None:
    (payload,) = packetize([SPS, PPS], max_size=1200)
    assert payload[0] == 0x78
    assert payload == b"\x78\x00\x09" + SPS + b"\x00\x04" + PPS


def test_one_small_unit_goes_as_it_is() -> None:
    assert packetize([b"\x41slice"], max_size=1200) == [b"\x41slice"]


def test_the_profile_comes_from_the_parameter_set() -> None:
    assert profile_level_id([PPS, SPS]) == "42c01f"
    assert profile_level_id([PPS, b"\x67\x42"]) is None


def test_refuses_what_makes_no_payload() -> None:
    with pytest.raises(H264Error, match="empty"):
        packetize([b""], max_size=100)
    with pytest.raises(H264Error, match="7 bytes are too small"):
        packetize([b"\x65x"], max_size=7)


@given(st.binary(max_size=300))
def test_any_bytes_can_be_sent(data: bytes) -> None:
    units = split_annex_b(data)
    assert all(units)
    payloads = packetize(units, max_size=20)
    assert all(len(payload) <= 20 for payload in payloads)
    profile_level_id(units)
