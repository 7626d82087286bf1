"""RTCP compound packets: what a sender of video writes and reads."""

import struct
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.rtcp import (
    Bye,
    FullIntraRequest,
    Nack,
    PictureLossIndication,
    ReceiverEstimate,
    ReceiverReport,
    ReportBlock,
    RtcpError,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    TransportFeedback,
    WholeFeedback,
    is_report_alone,
    looks_like_rtcp,
    pack_compound,
    parse_compound,
    read_whole_feedback,
    to_ntp,
)

U32 = st.integers(0, 0xFFFFFFFF)
BLOCKS = st.lists(
    st.builds(ReportBlock, U32, st.integers(0, 255), st.integers(-(1 << 23), (1 << 23) - 1), U32, U32, U32, U32),
    max_size=3,
).map(tuple)
PACKETS: st.SearchStrategy[RtcpPacket] = st.one_of(
    st.builds(SenderReport, U32, st.integers(0, (1 << 64) - 1), U32, U32, U32, BLOCKS),
    st.builds(ReceiverReport, U32, BLOCKS),
    st.builds(SourceDescription, st.lists(st.tuples(U32, st.text(max_size=20)), max_size=3).map(tuple)),
    st.builds(Bye, st.lists(U32, max_size=5).map(tuple)),
    st.builds(PictureLossIndication, U32, U32),
    st.builds(FullIntraRequest, U32, st.lists(st.tuples(U32, st.integers(0, 255)), max_size=3).map(tuple)),
    st.builds(
        TransportFeedback,
        U32,
        U32,
        st.integers(0, 0xFFFF),
        st.integers(-(1 << 23), (1 << 23) - 1),
        st.integers(0, 255),
        st.lists(st.none() | st.integers(0, 255) | st.integers(-0x8000, 0x7FFF), min_size=1, max_size=60).map(tuple),
    ),
    st.builds(ReceiverEstimate, U32, st.integers(0, 0x3FFFF), st.lists(U32, max_size=3).map(tuple)),
)

TWCC = bytes.fromhex("afcd0006" "00000001" "00000002" "00010003" "00010000" "2003" "0401" "0201" "0002")  # fmt: skip
"""Transport-wide feedback with padding inside, as Chromium sends it."""


@given(st.lists(PACKETS, min_size=1, max_size=5))
def test_round_trip(packets: list[RtcpPacket]) -> None:
    assert parse_compound(pack_compound(packets)) == packets


@given(sender=U32, media=U32, lost=st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=40, unique=True))
def test_a_nack_asks_for_the_same_numbers_after_a_round_trip(sender: int, media: int, lost: list[int]) -> None:
    (nack,) = parse_compound(Nack(sender, media, tuple(lost)).to_bytes())
    assert isinstance(nack, Nack)
    assert (nack.sender_ssrc, nack.media_ssrc) == (sender, media)
    assert sorted(nack.lost) == sorted(lost)


def test_a_nack_groups_neighbours_and_wraps() -> None:
    packet = Nack(1, 2, (0xFFFE, 0xFFFF, 0x0001, 0x0020))
    data = packet.to_bytes()
    assert data[12:].hex() == "fffe0005" "00200000"  # fmt: skip
    assert parse_compound(data) == [packet]


def test_known_bytes_of_a_sender_report() -> None:
    report = SenderReport(0x11223344, 0xE5F0C0DE80000000, 0xAABBCCDD, 7, 1234)
    assert report.to_bytes().hex() == "80c8000611223344e5f0c0de80000000aabbccdd00000007000004d2"


def test_known_bytes_of_a_source_description() -> None:
    # RFC 3550 section 6.5: items end with at least one zero and chunks with their word.
    assert SourceDescription(((1, "ab"),)).to_bytes().hex() == "81ca0003" "00000001" "01026162" "00000000"  # fmt: skip


def test_transport_wide_feedback_with_padding_is_read_and_does_not_spoil_the_compound() -> None:
    pli = PictureLossIndication(1, 2)
    report = ReceiverReport(1)
    feedback = TransportFeedback(1, 2, base_number=1, reference_time=256, feedback_count=0, deltas=(4, 1, 2))
    assert parse_compound(report.to_bytes() + TWCC + pli.to_bytes()) == [report, feedback, pli]
    assert parse_compound(pli.to_bytes() + TWCC) == [pli, feedback]


def test_feedback_of_the_draft_is_written_as_it_is_there() -> None:
    # Section 3.1: runs where nothing or everything arrived, vectors of one bit and of two between them.
    lost, small, large = [None] * 20, [1] * 15, [-1]
    feedback = TransportFeedback(1, 2, 0xFFFE, -1, 255, (*lost, *small, *large, None, 300, 3))
    data = feedback.to_bytes()
    assert data[12:20].hex() == "fffe0027" "ffffffff"  # fmt: skip
    assert data[20:26].hex() == "0014" "200f" "e240"  # fmt: skip
    assert data[0] == 0xAF  # padded
    assert parse_compound(data) == [feedback]
    alternating = TransportFeedback(1, 2, 0, 0, 0, (7, None) * 7)
    assert alternating.to_bytes()[20:22].hex() == "aaaa"
    assert parse_compound(alternating.to_bytes()) == [alternating]


def test_feedback_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(RtcpError, match="0 packets"):
        TransportFeedback(1, 2, 0, 0, 0, ()).to_bytes()
    with pytest.raises(RtcpError, match="too far apart"):
        TransportFeedback(1, 2, 0, 0, 0, (0x8000,)).to_bytes()


def test_a_receivers_estimate_has_18_bits_of_precision() -> None:
    (read,) = parse_compound(ReceiverEstimate(1, 123_456_789, (5,)).to_bytes())
    assert isinstance(read, ReceiverEstimate)
    assert 0 <= 123_456_789 - read.bitrate_bps < 123_456_789 >> 17
    assert read.ssrcs == (5,)


def test_unknown_kinds_are_skipped() -> None:
    application = bytes.fromhex("8fce0003" "00000001" "00000000" "41424344")  # fmt: skip
    extended = bytes.fromhex("80cf0002" "00000001" "04000000")  # fmt: skip
    bye = Bye((9,))
    assert parse_compound(application + extended + bye.to_bytes()) == [bye]


def test_padding_is_removed() -> None:
    data = bytes.fromhex("a1ce0003" "00000001" "00000002" "00000004")  # fmt: skip
    assert parse_compound(data) == [PictureLossIndication(1, 2)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "0 bytes"),
        ("80c8", "2 bytes"),
        ("00c80000", "version 0"),
        ("80c80001", "longer than its datagram"),
        ("80c80000", "SR is cut off"),
        ("81c9000100000001", "RR is cut off"),
        ("81cb0000", "BYE is cut off"),
        ("81cd000100000001", "NACK is cut off"),
        ("81ce000100000001", "PLI is cut off"),
        ("84ce000100000001", "FIR is cut off"),
        ("8fcd000100000001", "feedback is cut off"),
        ("8fcd000400000001000000020001000300010000", "feedback is cut off"),
        ("8fcd00050000000100000002000100030001000000000000", "empty run"),
        ("8fcd00050000000100000002000100030001000020030000", "cut off in its deltas"),
        ("8fcd00050000000100000002000100030001000040030000", "cut off in its deltas"),
        ("8fcd00050000000100000002000100030001000060030000", "reserved symbol"),
        ("8fce0003000000010000000052454d42", "REMB is cut off"),
        ("8fce0004000000010000000052454d4201000001", "REMB is cut off"),
        ("81ca0000", "SDES is cut off"),
        ("81ca00020000000101ff6161", "SDES is cut off"),
        ("80c9000100000001aabb", "stray"),
        ("a1ce00020000000100000009", "padding"),
    ],
)
def test_says_why_a_compound_is_refused(data: str, reason: str) -> None:
    with pytest.raises(RtcpError, match=reason):
        parse_compound(bytes.fromhex(data))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """One head of any kind with a body that need not suit it."""
    body = draw(st.binary(max_size=60))
    body += bytes(-len(body) % 4)
    first = 0x80 | draw(st.integers(0, 0x3F))
    return struct.pack("!BBH", first, draw(st.integers(198, 208)), len(body) // 4) + body


@given(st.binary(max_size=100) | st.lists(damaged(), max_size=3).map(b"".join))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        parse_compound(data)
    except RtcpError:
        pass


def test_round_trip_time_is_arrival_less_report_less_delay() -> None:
    sent_ns = 1_700_000_000_250_000_000
    middle = (to_ntp(sent_ns) >> 16) & 0xFFFFFFFF
    block = ReportBlock(1, 0, 0, 0, 0, middle, 65536 // 2)  # held for half a second
    round_trip_ns = block.round_trip_ns(wallclock_ns=sent_ns + 530_000_000)
    assert round_trip_ns == pytest.approx(30_000_000, abs=40_000)
    assert block.round_trip_ns(wallclock_ns=sent_ns + 499_000_000) == 0
    assert ReportBlock(1, 0, 0, 0, 0, 0, 0).round_trip_ns(wallclock_ns=sent_ns) is None


def test_ntp_time_of_the_unix_epoch_and_of_half_a_second() -> None:
    assert to_ntp(0) == 2_208_988_800 << 32
    assert to_ntp(500_000_000) & 0xFFFFFFFF == 1 << 31


def test_rtcp_is_told_from_rtp_by_its_second_byte() -> None:
    assert looks_like_rtcp(ReceiverReport(1).to_bytes())
    assert not looks_like_rtcp(bytes.fromhex("80600001"))
    assert not looks_like_rtcp(bytes.fromhex("16fefd00"))
    assert not looks_like_rtcp(b"\x80")


@given(st.lists(PACKETS, min_size=1, max_size=3), st.sampled_from([14, 20]))
def test_the_clear_header_tells_of_reports_that_are_alone(packets: list[RtcpPacket], trailer: int) -> None:
    first, *rest = (packet.to_bytes() for packet in packets)
    protected = first[:8] + bytes(len(first) - 8 + sum(map(len, rest)) + trailer)
    fits = sum(map(len, rest)) <= 20 - trailer  # then it holds nothing
    assert is_report_alone(protected) == (isinstance(packets[0], TransportFeedback | ReceiverReport) and fits)


@given(st.binary(max_size=40))
def test_anything_may_be_asked_whether_it_is_a_report_alone(data: bytes) -> None:
    assert is_report_alone(data) in (True, False)
    assert not is_report_alone(data[:3])


def test_a_cname_has_at_most_255_bytes() -> None:
    with pytest.raises(RtcpError, match="256 bytes"):
        SourceDescription(((1, "x" * 256),)).to_bytes()


@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=60),
    st.integers(0, 0xFFFF),
    st.integers(-(1 << 23), (1 << 23) - 1),
)
def test_feedback_on_packets_that_all_arrived_is_read_in_one_step(deltas: list[int], base: int, reference: int) -> None:
    packet = TransportFeedback(1, 2, base, reference, 7, tuple(deltas))
    assert read_whole_feedback(packet.to_bytes()) == WholeFeedback(base, reference, bytes(deltas))


@given(PACKETS.map(lambda packet: packet.to_bytes()), st.integers(0, 40), st.integers(0, 255), st.binary(max_size=4))
def test_what_is_read_in_one_step_is_read_alike_in_several(data: bytes, place: int, value: int, behind: bytes) -> None:
    """Whatever is damaged in it."""
    damaged = bytearray(data + behind)
    damaged[place % len(damaged)] = value
    whole = read_whole_feedback(bytes(damaged))
    if whole is not None:
        (packet,) = parse_compound(bytes(damaged))
        assert isinstance(packet, TransportFeedback)
        assert whole == (packet.base_number, packet.reference_time, bytes(cast("tuple[int, ...]", packet.deltas)))


@pytest.mark.parametrize("deltas", [(None, 1), (1, None), (256,), (-1, 3)])
def test_other_feedback_is_not(deltas: tuple[int | None, ...]) -> None:
    assert read_whole_feedback(TransportFeedback(1, 2, 3, 4, 5, deltas).to_bytes()) is None
