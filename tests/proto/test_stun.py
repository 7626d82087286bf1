"""STUN messages, against the vectors of RFC 5769."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto import stun
from flowstream.proto.stun import Class, Message, StunError

PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")

REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff"
    "80290008932ff9b151263b36"
    "00060009" "6576746a3a68367659202020"
    "00080014" "9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004" "e57a3bcf"
)  # fmt: skip
RESPONSE_IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000080001a147e112a643"
    "00080014" "2b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004" "c07d4c96"
)  # fmt: skip
RESPONSE_IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014" "a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004" "c8fb0b4c"
)  # fmt: skip


def test_reads_the_sample_request_of_rfc_5769() -> None:
    message = Message.parse(REQUEST)
    assert message.kind is Class.REQUEST
    assert message.method == stun.BINDING
    assert message.transaction_id == TRANSACTION
    assert message.get(stun.USERNAME) == b"evtj:h6vY"
    assert message.get(stun.SOFTWARE) == b"STUN test client"
    assert message.get(stun.PRIORITY) == bytes.fromhex("6e0001ff")
    assert stun.ICE_CONTROLLED in message
    assert message.has_fingerprint
    assert message.verify(PASSWORD)
    assert not message.verify(PASSWORD + b"x")


@pytest.mark.parametrize(
    ("data", "address"),
    [
        (RESPONSE_IPV4, ("192.0.2.1", 32853)),
        (RESPONSE_IPV6, ("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
    ],
)
def test_reads_and_writes_the_sample_addresses_of_rfc_5769(data: bytes, address: tuple[str, int]) -> None:
    message = Message.parse(data)
    value = message.get(stun.XOR_MAPPED_ADDRESS)
    assert message.kind is Class.SUCCESS
    assert message.verify(PASSWORD)
    assert value is not None
    assert stun.unpack_xor_address(value, TRANSACTION) == address
    assert stun.pack_xor_address(address, TRANSACTION) == value


def test_what_follows_message_integrity_is_not_believed() -> None:
    first = Message(stun.BINDING, Class.REQUEST, TRANSACTION, ((stun.USERNAME, b"a:b"),))
    data = bytearray(first.to_bytes(PASSWORD, fingerprint=False))
    data += b"\x00\x25\x00\x00"  # USE-CANDIDATE, appended by somebody on the way
    data[2:4] = (len(data) - stun.HEADER_SIZE).to_bytes(2, "big")
    message = Message.parse(bytes(data))
    assert message.verify(PASSWORD)
    assert stun.USE_CANDIDATE not in message


def test_one_flipped_bit_is_found_by_the_fingerprint() -> None:
    for position in range(stun.HEADER_SIZE, len(REQUEST)):
        damaged = bytearray(REQUEST)
        damaged[position] ^= 1
        try:
            assert not Message.parse(bytes(damaged)).has_fingerprint
        except StunError:
            continue


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a STUN message"),
        (REQUEST[:19], "not a STUN message"),
        (b"\x80" + REQUEST[1:], "not a STUN message"),
        (REQUEST[:-4], "does not fit"),
        (REQUEST + b"\x00\x00\x00\x00", "does not fit"),
    ],
)
def test_says_why_a_datagram_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(StunError, match=reason):
        Message.parse(data)


def test_error_codes() -> None:
    assert stun.pack_error(487, "Role Conflict") == b"\x00\x00\x04\x57Role Conflict"
    assert stun.unpack_error(stun.pack_error(401, "Unauthorized")) == 401
    with pytest.raises(StunError, match="too short"):
        stun.unpack_error(b"\x00\x00\x04")


PLAIN = st.integers(0, 0xFFFF).filter(lambda number: number not in (stun.MESSAGE_INTEGRITY, stun.FINGERPRINT))


@given(
    method=st.integers(0, 0xFF),  # RFC 7983 leaves STUN the first bytes 0 to 3
    kind=st.sampled_from(list(Class)),
    transaction_id=st.binary(min_size=12, max_size=12),
    attributes=st.lists(st.tuples(PLAIN, st.binary(max_size=40)), max_size=6),
    key=st.none() | st.binary(min_size=1, max_size=40),
    fingerprint=st.booleans(),
)
def test_round_trip(
    method: int,
    kind: Class,
    transaction_id: bytes,
    attributes: list[tuple[int, bytes]],
    key: bytes | None,
    fingerprint: bool,
) -> None:
    data = Message(method, kind, transaction_id, tuple(attributes)).to_bytes(key, fingerprint=fingerprint)
    message = Message.parse(data)
    assert (message.method, message.kind, message.transaction_id) == (method, kind, transaction_id)
    assert message.attributes == tuple(attributes)
    assert message.has_fingerprint is fingerprint
    assert message.verify(key or b"") is (key is not None)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: REQUEST[:8] + tail))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        Message.parse(data)
    except StunError:
        pass


@given(st.binary(max_size=24))
def test_any_address_is_read_or_refused(value: bytes) -> None:
    try:
        stun.unpack_xor_address(value, TRANSACTION)
    except StunError:
        pass
