"""The file of a recording: what was written is read, a cut or damaged one up to there, and anything else is refused."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.media import recording
from flowstream.media.caps import EncodedCaps
from flowstream.media.packets import EncodedPacket
from flowstream.media.recording import (
    MAGIC,
    Arrived,
    Ended,
    Header,
    Lost,
    Reader,
    RecordingError,
    Stream,
    Tick,
    Writer,
    contents,
    difference,
    end_chunk,
)
from flowstream.media.records import Record
from flowstream.testing.media import make_frame, make_packet, make_sound

STREAMS = (
    Stream(name="camera.video", node="camera", output="video", type="camera", payloads=("VideoFrame",), live=True),
    Stream(name="out.audio", node="mic", output="audio", type="tone", payloads=("AudioFrame",), main=True),
    Stream(name="encode.packets", node="encode", output="packets", payloads=("EncodedPacket",)),
    Stream(name="encode.report", node="encode", output="report", payloads=("Record",)),
)
HEADER = Header(
    graph="hello", revision="0123456789ab", files={"hello.yaml": "nodes: {}\n"}, began="2026-11-26T10:00:00.000000Z",
    software="flowstream 0.1.0", streams=STREAMS,
)  # fmt: skip
OLD = Path(__file__).parent / "recordings" / "version-1.fsrec"
BEGAN_NS = 5_000


def joined(pieces: list[Any]) -> bytes:
    return b"".join(bytes(piece) for piece in pieces)


def written(header: Header = HEADER) -> bytes:
    """A recording with one of everything."""
    writer = Writer(header, BEGAN_NS)
    parts = [writer.begin()]
    for index in range(3):
        now_ns = BEGAN_NS + index * 1_000_000
        parts.append(writer.payload(0, make_frame(index, width=8, height=4, capture_ns=BEGAN_NS + index), now_ns))
        parts.append(writer.payload(1, make_sound(index, samples=4), now_ns + 1))
        parts.append(writer.payload(2, make_packet(index), now_ns + 2))
    parts += [
        writer.payload(0, make_frame(3, width=4, height=4, format="gray"), BEGAN_NS + 4_000_000),
        writer.lost(2, 7, "the file was not written fast enough", BEGAN_NS + 5_000_000),
        writer.tick(BEGAN_NS + 6_000_000),
        writer.payload(3, Record({"bitrate": 5}, 9), BEGAN_NS + 7_000_000),
        writer.end("2 s were asked for", BEGAN_NS + 8_000_000),
    ]
    return b"".join(joined(each) for each in parts)


WHOLE = written()


def read(data: bytes) -> tuple[Reader, list[Any]]:
    reader = Reader(io.BytesIO(data).read)
    return reader, list(reader)


def test_what_was_written_is_read() -> None:
    reader, items = read(WHOLE)
    assert reader.header == HEADER
    assert (reader.problem, reader.end, reader.at_ns) == ("", Ended("2 s were asked for", 8_000_000), 8_000_000)
    payloads = [item.payload() for item in items if isinstance(item, Arrived)]
    frame = make_frame(1, width=8, height=4, capture_ns=1)
    assert (payloads[3].caps, payloads[3].time_ns, payloads[3].capture_ns) == (frame.caps, frame.time_ns, 1)
    assert (payloads[3].array() == frame.array()).all()
    assert (payloads[4].array() == make_sound(1, samples=4).array()).all()
    assert payloads[5] == make_packet(1)
    assert payloads[9].format == "gray"
    assert payloads[10] == Record({"bitrate": 5}, 9)
    assert items[10:12] == [Lost(STREAMS[2], 7, "the file was not written fast enough", 5_000_000), Tick(6_000_000)]
    assert [item.at_ns for item in items[:4]] == [0, 1, 2, 1_000_000]


def test_what_is_in_it() -> None:
    found = contents(io.BytesIO(WHOLE).read)
    assert not found.is_exact
    assert (found.first_ns, found.duration_ns, found.problem) == (0, 8_000_000, "")
    assert [each.count for each in found.streams] == [4, 3, 3, 1]
    assert [len(each.caps) for each in found.streams] == [2, 1, 1, 0]
    assert found.streams[2].lost == {"the file was not written fast enough": 7}
    assert (found.streams[2].keyframes, found.streams[2].bytes) == (
        sum(make_packet(index).keyframe for index in range(3)), sum(len(make_packet(index).data) for index in range(3))
    )  # fmt: skip
    assert found.nodes == ("camera", "mic", "encode")
    assert [each.stream.output for each in found.of("encode")] == ["packets", "report"]


def test_caps_are_written_when_they_change() -> None:
    assert WHOLE.count(b'"stream":0,"payload":"VideoFrame"') == 2
    assert WHOLE.count(b'"stream":2,"payload":"EncodedPacket"') == 1


def test_a_recording_of_this_version_stays_readable() -> None:
    """The file was written once and is never written again."""
    assert contents(io.BytesIO(OLD.read_bytes()).read) == contents(io.BytesIO(WHOLE).read)
    assert difference(payloads(OLD.read_bytes()), payloads(WHOLE)) == ""


def payloads(data: bytes) -> list[Arrived]:
    return [each for each in read(data)[1] if isinstance(each, Arrived)]


@given(cut=st.integers(0, len(WHOLE) - 1))
def test_of_a_file_that_is_cut_off_everything_before_is_read(cut: int) -> None:
    data = WHOLE[:cut]
    begin = WHOLE.index(b'"stream":0') - 6  # the first chunk after the header
    if cut < begin:
        with pytest.raises(RecordingError, match=r"^the file is .*(is empty|cut off|no header)"):
            read(data)
        return
    reader, items = read(data)
    assert reader.problem.startswith("it is cut off")
    assert reader.end is None
    whole = read(WHOLE)[1]
    assert items == whole[: len(items)]
    assert len(items) == kinds(WHOLE, cut), "what came whole is given"


def places(data: bytes) -> list[int]:
    """Where each chunk ends."""
    found, place = [], len(MAGIC) + 2
    while place < len(data):
        (size,) = struct.unpack_from(">I", data, place)
        place += 4 + 1 + size + 4
        found.append(place)
    return found


def kinds(data: bytes, cut: int) -> int:
    """How many items are whole before the cut."""
    count, place = 0, len(MAGIC) + 2
    for end in places(data):
        count += end <= cut and data[place + 4 : place + 5] in b"PLTE"
        place = end
    return count


@given(place=st.integers(0, len(WHOLE) - 1), change=st.integers(1, 255))
def test_a_byte_that_changed_is_noticed(place: int, change: int) -> None:
    data = bytearray(WHOLE)
    data[place] ^= change
    try:
        reader, items = read(bytes(data))
    except RecordingError:
        return
    assert reader.problem
    assert items == read(WHOLE)[1][: len(items)], "what comes before it is as it was"


@given(junk=st.binary(max_size=400), kind=st.sampled_from(b"HCPLTExZ"))
def test_junk_is_a_sentence(junk: bytes, kind: int) -> None:
    for data in (junk, MAGIC + junk, MAGIC + b"\0\1" + junk, joined(Writer(HEADER, 0).begin()) + chunk(kind, junk)):
        try:
            reader, items = read(data)
        except RecordingError:
            continue
        assert reader.problem or reader.end
        for item in items:
            if isinstance(item, Arrived):
                with_payload(item)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=5,
)  # fmt: skip
HEADS = st.fixed_dictionaries(
    {}, optional={name: JSON | st.integers(0, 9) for name in (
        "at_ns", "time_ns", "stream", "count", "payload", "caps", "samples", "lengths", "strides", "planes", "keyframe",
    )}
)  # fmt: skip
CAPS = st.fixed_dictionaries(
    {"type": st.sampled_from(["VideoCaps", "AudioCaps", "EncodedCaps", "Caps"])},
    optional={name: JSON | st.sampled_from(["gray", "fltp", "pal8", 4, 2]) for name in (
        "format", "width", "height", "rate", "layout", "codec", "extradata", "matrix",
    )},
)  # fmt: skip


@given(kind=st.sampled_from(b"HCLTE"), told=HEADS, caps=CAPS, head=HEADS, data=st.binary(max_size=40),
       payload=st.sampled_from(["VideoFrame", "AudioFrame", "EncodedPacket", "Record"]))  # fmt: skip
def test_chunks_that_make_no_sense_are_a_sentence(
    kind: int, told: Any, caps: Any, head: Any, data: bytes, payload: str
) -> None:
    begin = joined(Writer(HEADER, 0).begin())
    caps_chunk = chunk(ord("C"), json.dumps({"stream": 0, "payload": payload, "caps": caps}).encode())
    text = json.dumps(head).encode()
    arrived = chunk(ord("P"), struct.pack(">HI", 0, len(text)) + text + data)
    for each in (chunk(kind, json.dumps(told).encode()), caps_chunk + arrived):
        reader, items = read(begin + each)
        assert reader.problem or reader.end
        for item in items:
            if isinstance(item, Arrived):
                with_payload(item)


def with_payload(item: Arrived) -> None:
    """Makes it, or says that it cannot be made."""
    try:
        payload = item.payload()
    except RecordingError:
        return
    assert payload.size_bytes >= 0
    if hasattr(payload, "array"):
        try:
            payload.array()
        except ValueError:  # no array form
            pass


def chunk(kind: int, body: bytes) -> bytes:
    head = bytes((kind,))
    return struct.pack(">I", len(body)) + head + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(head)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is no recording: it is empty (flowstream record makes recordings)"),
        (b"nodes:\n  a: {}\n", "the file is no recording: it begins with b'nodes:\\n  a' "
                              "(flowstream record makes recordings)"),
        (MAGIC[:4], "the file is no recording: it is cut off after 4 bytes (flowstream record makes recordings)"),
        (MAGIC + b"\0\2", "the file is a recording of version 2, and this flowstream reads version 1 "
                         "(install a newer flowstream)"),
        (MAGIC + b"\0\1", "the file is a recording without a header that can be read: it has no header at byte 12"),
        (MAGIC + b"\0\1" + chunk(ord("T"), b'{"at_ns":1}'),
         "the file is a recording without a header that can be read: it has no header at byte 12"),
        (MAGIC + b"\0\1" + chunk(ord("H"), b'{"streams":[]}'),
         "the file is a recording without a header that can be read: "
         "Tuple should have at least 1 item after validation, not 0"),
        (MAGIC + b"\0\1" + chunk(ord("H"), b"[]"),
         "the file is a recording without a header that can be read: it is damaged at byte 12: what stands there is "
         "no JSON map"),
    ],
)  # fmt: skip
def test_what_is_no_recording(data: bytes, said: str) -> None:
    with pytest.raises(RecordingError) as refused:
        read(data)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (b"", "it is cut off after {n} bytes, without its end"),
        (b"\0\0\0", "it is cut off within the chunk at byte {n}"),
        (b"\xff" * 9, "it is damaged at byte {n}: no chunk has 4294967295 bytes"),
        (chunk(ord("T"), b'{"at_ns":1}')[:-1] + b"x", "it is damaged at byte {n}: the checksum is another"),
        (chunk(ord("Z"), b""), "it has a chunk of the kind 'Z' at byte {n}, which is not known here"),
        (chunk(ord("T"), b"{"), "it is damaged at byte {n}: what stands there is no JSON map"),
        (chunk(ord("T"), b'{"at_ns":"now"}'), "it is damaged at byte {n}: at_ns is 'now'"),
        (chunk(ord("L"), b'{"at_ns":1,"count":1,"stream":9}'), "it is damaged at byte {n}: there is no stream 9"),
        (chunk(ord("C"), b'{"stream":0,"payload":"Smell"}'),
         "it tells at byte {n} of a payload 'Smell', which is not known here"),
        (chunk(ord("C"), b'{"stream":0,"payload":"VideoFrame","caps":3}'),
         "it is damaged at byte {n}: these are no caps"),
        (chunk(ord("P"), b"\0\0"), "it is damaged at byte {n}: a payload without a head"),
        (chunk(ord("P"), b"\0\0\0\0\0\7{}"), "it is damaged at byte {n}: a head of 7 bytes"),
        (chunk(ord("P"), b"\0\0\0\0\0\2{}"), "it is damaged at byte {n}: nothing tells what the payload is"),
    ],
)  # fmt: skip
def test_where_it_cannot_be_read_on(rest: bytes, said: str) -> None:
    begin = joined(Writer(HEADER, 0).begin())
    reader, items = read(begin + rest)
    assert (items, reader.problem) == ([], said.format(n=len(begin)))


def test_chunks_that_may_be_passed_over_are() -> None:
    begin = joined(Writer(HEADER, 0).begin())
    reader, items = read(begin + chunk(ord("x"), b"whatever") + joined(end_chunk("enough", 3)))
    assert (items, reader.problem) == ([Ended("enough", 3)], "")


def test_a_payload_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_CHUNK_BYTES", 1000)
    with pytest.raises(ValueError, match=r"^it has \d+ bytes, and 1000 is the most that a recording takes$"):
        Writer(HEADER, 0).payload(0, make_frame(0), 0)


def packet(change: Callable[[dict[str, Any]], None] = lambda fields: None) -> Arrived:
    fields: dict[str, Any] = {
        "caps": EncodedCaps(codec="h264"), "data": b"abc", "time_ns": 5, "keyframe": True, "capture_ns": 1
    }  # fmt: skip
    change(fields)
    writer = Writer(HEADER, 0)
    data = joined(writer.begin()) + joined(writer.payload(2, EncodedPacket(**fields), 9))
    (found,) = payloads(data)
    return found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"capture_ns": 77}, ""),
        ({"time_ns": 6}, "number 1 of 1 differs: time_ns is 6, not 5"),
        ({"keyframe": False}, "number 1 of 1 differs: keyframe is False, not True"),
        ({"data": b"abcd"}, "number 1 of 1 differs: 4 bytes, not 3"),
        ({"data": b"abd"}, "number 1 of 1 differs: byte 2 of 3 is 100, not 99"),
        ({"caps": EncodedCaps(codec="hevc")}, "number 1 of 1 differs: codec hevc, not codec h264"),
    ],
)
def test_two_runs_are_compared(changes: dict[str, Any], said: str) -> None:
    assert difference([packet(lambda fields: fields.update(changes))], [packet()]) == said


def test_runs_of_other_lengths_and_kinds_differ() -> None:
    assert difference([packet()], []) == "1 came, not 0"
    assert difference([], [packet()]) == "0 came, not 1"
    assert difference(payloads(WHOLE)[:1], [packet()]) == "number 1 of 1 differs: a VideoFrame, not a EncodedPacket"
