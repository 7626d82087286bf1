"""RTP packets, header extensions and wrapping counters."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.rtp import (
    HeaderWriter,
    RtpError,
    RtpPacket,
    Unwrapper,
    pack_capture_time,
    pack_extensions,
    pack_playout_delay,
)

EXTENSION = st.tuples(st.integers(1, 14), st.binary(min_size=1, max_size=16))
PACKETS = st.builds(
    RtpPacket,
    payload_type=st.integers(0, 127),
    sequence_number=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
    ssrc=st.integers(0, 0xFFFFFFFF),
    payload=st.binary(max_size=60),
    marker=st.booleans(),
    csrcs=st.lists(st.integers(0, 0xFFFFFFFF), max_size=15).map(tuple),
    extensions=st.lists(EXTENSION, max_size=4).map(tuple),
    padding=st.integers(0, 255),
)


@given(PACKETS)
def test_round_trip(packet: RtpPacket) -> None:
    assert RtpPacket.parse(packet.to_bytes()) == packet


def test_known_bytes() -> None:
    packet = RtpPacket(
        payload_type=96,
        sequence_number=0x1234,
        timestamp=0xDEADBEEF,
        ssrc=0x01020304,
        payload=b"\x65abc",
        marker=True,
        extensions=((3, b"0"), (5, b"\x00\x01\x90")),
    )
    expected = "90e01234deadbeef01020304" "bede0002" "3030" "52000190" "0000" "65616263"  # fmt: skip
    assert packet.to_bytes().hex() == expected


def test_extension_block_of_rfc_8285_with_padding_between_elements() -> None:
    # RFC 8285 section 4.2: padding bytes may stand between elements; id 15 ends the reading.
    block = bytes.fromhex("10aa" "0000" "21bbbb" "f0" "30cc0000")  # fmt: skip
    head = bytes.fromhex("900000010000000200000003bede0003")
    packet = RtpPacket.parse(head + block + b"x")
    assert packet.extensions == ((1, b"\xaa"), (2, b"\xbb\xbb"))
    assert packet.payload == b"x"


def test_an_extension_of_another_form_is_skipped() -> None:
    packet = RtpPacket.parse(bytes.fromhex("900000010000000200000003" "10000001" "01020304") + b"pay")  # fmt: skip
    assert packet.extensions == ()
    assert packet.payload == b"pay"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("80", "too short"),
        ("400000010000000200000003", "version 1"),
        ("810000010000000200000003", "CSRC list"),
        ("900000010000000200000003be", "cut off"),
        ("900000010000000200000003bede0001", "longer than the packet"),
        ("900000010000000200000003bede00011f000000", "longer than its block"),
        ("a0000001000000020000000305", "padding"),
        ("a0000001000000020000000300", "padding"),
    ],
)
def test_says_why_a_packet_is_refused(data: str, reason: str) -> None:
    with pytest.raises(RtpError, match=reason):
        RtpPacket.parse(bytes.fromhex(data))


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: b"\xb1" + tail))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        RtpPacket.parse(data)
    except RtpError:
        pass


@pytest.mark.parametrize("extension", [(0, b"x"), (15, b"x"), (1, b""), (1, bytes(17))])
def test_what_the_one_byte_form_cannot_carry_is_refused(extension: tuple[int, bytes]) -> None:
    with pytest.raises(RtpError, match="one-byte form"):
        pack_extensions((extension,))


def test_playout_delay_counts_ten_milliseconds() -> None:
    assert pack_playout_delay(min_ms=0, max_ms=400).hex() == "000028"
    assert pack_playout_delay(min_ms=100, max_ms=40_950).hex() == "00afff"
    with pytest.raises(RtpError, match="does not fit"):
        pack_playout_delay(min_ms=20, max_ms=10)


@given(PACKETS)
def test_headers_written_for_a_stream_are_those_of_its_packets(packet: RtpPacket) -> None:
    plain = replace(packet, csrcs=(), padding=0)
    writer = HeaderWriter(payload_type=plain.payload_type, ssrc=plain.ssrc, extensions=plain.extensions)
    header = writer.pack(sequence_number=plain.sequence_number, timestamp=plain.timestamp, marker=plain.marker)
    assert header + plain.payload == plain.to_bytes()
    assert len(header) == writer.size


@given(PACKETS, st.integers(0, 0xFFFF), st.lists(EXTENSION, max_size=2).map(tuple))
def test_headers_carry_their_transport_number_last(
    packet: RtpPacket, number: int, own: tuple[tuple[int, bytes], ...]
) -> None:
    plain = replace(packet, csrcs=(), padding=0)
    writer = HeaderWriter(
        payload_type=plain.payload_type, ssrc=plain.ssrc, extensions=plain.extensions, transport_number_extension=9
    )
    last = ((9, number.to_bytes(2, "big")),)
    numbers = {
        "sequence_number": plain.sequence_number,
        "timestamp": plain.timestamp,
        "marker": plain.marker,
        "transport_number": number,
    }
    header = writer.pack(**numbers)
    assert header + plain.payload == replace(plain, extensions=plain.extensions + last).to_bytes()
    assert len(header) == writer.size
    longer = writer.pack_with(own, **numbers)
    assert longer + plain.payload == replace(plain, extensions=plain.extensions + own + last).to_bytes()


def test_a_capture_time_is_an_ntp_time_and_maybe_an_offset() -> None:
    assert pack_capture_time(0xE5F0C0DE80000000).hex() == "e5f0c0de80000000"
    assert pack_capture_time(1, offset=-2).hex() == "0000000000000001" "fffffffffffffffe"  # fmt: skip
    for time, offset in ((1 << 64, None), (-1, None), (0, 1 << 63)):
        with pytest.raises(RtpError, match="64 bits"):
            pack_capture_time(time, offset=offset)


@given(start=st.integers(0, 0xFFFF), steps=st.lists(st.integers(-0x7FFF, 0x7FFF), max_size=50))
def test_a_sequence_is_followed_through_every_wrap(start: int, steps: list[int]) -> None:
    unwrapper = Unwrapper(16)
    true = start
    assert unwrapper.unwrap(start) == start
    for step in steps:
        true += step
        assert unwrapper.unwrap(true & 0xFFFF) == true


@pytest.mark.parametrize("numbers", [None, 6])
@pytest.mark.parametrize("marks_last", [False, True])
def test_a_run_of_headers_is_what_each_is_by_itself(numbers: int | None, marks_last: bool) -> None:
    writer = HeaderWriter(payload_type=96, ssrc=7, extensions=((3, b"0"),), transport_number_extension=numbers)
    run = writer.pack_run(4, sequence_number=65_534, timestamp=9, marks_last=marks_last, transport_number=65_535)
    assert run == [
        writer.pack(
            sequence_number=number, timestamp=9, marker=marks_last and index == 3, transport_number=(index - 1) & 0xFFFF
        )
        for index, number in enumerate((65_534, 65_535, 0, 1))
    ]
    assert writer.pack_run(0, sequence_number=1, timestamp=9, marks_last=True) == []


@pytest.mark.parametrize("numbers", [None, 6])
@pytest.mark.parametrize("marks_last", [False, True])
@pytest.mark.parametrize(("first", "transport_first"), [(5, 7), (65_534, 65_535)])
def test_headers_written_in_place_are_those_of_the_run(
    numbers: int | None, marks_last: bool, first: int, transport_first: int
) -> None:
    writer = HeaderWriter(payload_type=96, ssrc=7, extensions=((3, b"0"),), transport_number_extension=numbers)
    told = {"sequence_number": first, "timestamp": 9, "marks_last": marks_last, "transport_number": transport_first}
    offsets = [3, 100, 150, 400]
    buffer = bytearray(b"\xff" * 500)
    writer.write_run(buffer, offsets, **told)
    assert [bytes(buffer[each : each + writer.size]) for each in offsets] == writer.pack_run(4, **told)
    assert buffer.count(b"\xff", 0, 3) == 3
    assert buffer[3 + writer.size : 100] == b"\xff" * (97 - writer.size)
    writer.write_run(buffer, [], **told)
