"""Packets and records: their sizes, their way to PyAV and back."""

from flowstream import EncodedCaps, EncodedPacket, Record
from flowstream.testing import make_packet


def test_a_packet_goes_to_pyav_and_back() -> None:
    packet = EncodedPacket(
        caps=EncodedCaps(codec="h264"), data=b"abc", time_ns=7, decode_ns=5, duration_ns=2, keyframe=False
    )
    theirs = packet.to_av()
    assert (bytes(theirs), theirs.pts, theirs.dts, theirs.duration, theirs.is_keyframe) == (b"abc", 7, 5, 2, False)
    again = EncodedPacket.from_av(theirs, caps=packet.caps, time_ns=7, decode_ns=5)
    assert again == packet


def test_without_reordering_decoding_is_presentation() -> None:
    theirs = make_packet(1).to_av()
    assert theirs.dts == theirs.pts == make_packet(1).time_ns
    assert make_packet(30).to_av().is_keyframe


def test_sizes_for_limits() -> None:
    assert make_packet(size=1234).size_bytes == 1234
    assert make_packet().is_video
    assert Record({"a": 1}, 5).size_bytes == 0


def test_a_record_can_be_made_with_its_type_written_out() -> None:
    assert Record[int](3, 4) == Record(3, 4)
