"""RTP payloads of VP8, VP9 and AV1: what a receiver puts together again is what real encoders made."""

import shutil
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto import av1, vp8, vp9
from flowstream.proto.rtp import HeaderWriter
from flowstream_nodes.codec._scheduling import kept_scheduling

SIZE = (320, 180)


@dataclass
class Vp8Head:
    """The payload descriptor of RFC 7741 section 4.2."""

    starts: bool
    is_droppable: bool
    picture_id: int | None = None
    base_index: int | None = None
    temporal_id: int | None = None
    is_sync: bool = False


def read_vp8(payload: bytes) -> tuple[Vp8Head, bytes]:
    first, position = payload[0], 1
    assert first & 0x4F == 0, "reserved, and partition 0"
    head = Vp8Head(bool(first & 0x10), bool(first & 0x20))
    if first & 0x80:
        bits, position = payload[1], 2
        if bits & 0x80:
            assert payload[position] & 0x80, "15 bits"
            head.picture_id = (payload[position] & 0x7F) << 8 | payload[position + 1]
            position += 2
        if bits & 0x40:
            head.base_index = payload[position]
            position += 1
        if bits & 0x30:
            head.temporal_id = payload[position] >> 6
            head.is_sync = bool(payload[position] & 0x20)
            position += 1
    return head, payload[position:]


@dataclass
class Vp9Head:
    """The payload descriptor of RFC 9628 section 4.2."""

    starts: bool
    ends: bool
    needs_others: bool
    picture_id: int | None = None
    temporal_id: int | None = None
    is_switch_up: bool = False
    references: tuple[int, ...] = ()
    size: tuple[int, int] | None = None


def read_vp9(payload: bytes) -> tuple[Vp9Head, bytes]:
    first, position = payload[0], 1
    head = Vp9Head(bool(first & 0x08), bool(first & 0x04), bool(first & 0x40))
    if first & 0x80:
        head.picture_id = (payload[1] & 0x7F) << 8 | payload[2]
        position = 3
    if first & 0x20:
        head.temporal_id, head.is_switch_up = payload[position] >> 5, bool(payload[position] & 0x10)
        assert payload[position] & 0x0F == 0, "one spatial layer"
        position += 1
        assert first & 0x10, "flexible, so that no base index follows"
    if first & 0x50 == 0x50:
        while True:
            head.references += (payload[position] >> 1,)
            position += 1
            if not payload[position - 1] & 1:
                break
    if first & 0x02:
        assert payload[position] == 0x10, "one layer with a size, no group of pictures"
        head.size = (
            int.from_bytes(payload[position + 1 : position + 3], "big"),
            int.from_bytes(payload[position + 3 : position + 5], "big"),
        )
        position += 5
    return head, payload[position:]


def read_av1(payloads: list[bytes]) -> list[bytes]:
    """The OBUs of one temporal unit (section 4.3)."""
    obus: list[bytes] = []
    is_open = False
    for index, payload in enumerate(payloads):
        head, position = payload[0], 1
        continues, goes_on, count = head >> 7 & 1, head >> 6 & 1, head >> 4 & 3
        assert bool(continues) == is_open
        assert head & 0x07 == 0
        assert not head & 0x08 or index == 0
        number = 0
        while position < len(payload):
            number += 1
            if number == count:
                size = len(payload) - position
            else:
                size, position = av1._read_leb128(payload, position)
            piece = payload[position : position + size]
            assert len(piece) == size > 0
            position += size
            if number == 1 and continues:
                obus[-1] += piece
            else:
                obus.append(piece)
        assert count in (0, number)
        is_open = bool(goes_on)
    assert not is_open
    return obus


def with_sizes(obus: list[bytes]) -> bytes:
    """A temporal unit in the low-overhead format, as decoders take it."""
    unit = b"\x12\x00"
    for obu in obus:
        head = 2 if obu[0] & 4 else 1
        unit += bytes((obu[0] | 2,)) + obu[1:head] + av1._leb128(len(obu) - head) + obu[head:]
    return unit


# --- made-up frames -------------------------------------------------------------------------------------------------


@given(
    frame=st.binary(min_size=1, max_size=3000),
    max_size=st.integers(16, 300),
    picture_id=st.none() | st.integers(0, 0x7FFF),
    layer=st.none() | st.builds(vp8.Layer, st.integers(0, 3), st.integers(0, 255), st.booleans()),
    is_droppable=st.booleans(),
)
def test_vp8_payloads_fit_and_carry_the_frame(
    frame: bytes, max_size: int, picture_id: int | None, layer: vp8.Layer | None, is_droppable: bool
) -> None:
    payloads = vp8.packetize(frame, max_size=max_size, picture_id=picture_id, layer=layer, is_droppable=is_droppable)
    read = [read_vp8(payload) for payload in payloads]
    assert b"".join(data for _, data in read) == frame
    for index, (head, data) in enumerate(read):
        assert data
        assert (head.starts, head.is_droppable, head.picture_id) == (index == 0, is_droppable, picture_id)
        told = None if head.temporal_id is None else vp8.Layer(head.temporal_id, head.base_index or 0, head.is_sync)
        assert told == layer
    assert_equal_sizes(payloads, max_size)


@given(
    frame=st.binary(min_size=1, max_size=3000),
    max_size=st.integers(24, 300),
    picture_id=st.none() | st.integers(0, 0x7FFF),
    layer=st.none()
    | st.builds(
        vp9.Layer, st.integers(0, 7), st.lists(st.integers(1, 127), min_size=1, max_size=3).map(tuple), st.booleans()
    ),
    size=st.none() | st.just((1920, 1080)),
)
def test_vp9_payloads_fit_and_carry_the_frame(
    frame: bytes,
    max_size: int,
    picture_id: int | None,
    layer: vp9.Layer | None,
    size: tuple[int, int] | None,
) -> None:
    if layer is not None and picture_id is None:
        with pytest.raises(vp9.Vp9Error, match="picture id"):
            vp9.packetize(frame, max_size=max_size, layer=layer)
        return
    payloads = vp9.packetize(frame, max_size=max_size, picture_id=picture_id, layer=layer, size=size)
    read = [read_vp9(payload) for payload in payloads]
    assert b"".join(data for _, data in read) == frame
    keyframe = vp9.is_keyframe(frame)
    for index, (head, data) in enumerate(read):
        assert data
        assert (head.starts, head.ends) == (index == 0, index == len(read) - 1)
        assert head.needs_others is not keyframe
        assert head.picture_id == picture_id
        assert head.temporal_id == (layer.temporal_id if layer else None)
        assert head.references == (tuple(layer.references) if layer and not keyframe else ())
        assert head.size == (size if keyframe and index == 0 else None)
    assert_equal_sizes(payloads, max_size)


@st.composite
def obus(draw: st.DrawFn) -> bytes:
    head = draw(st.sampled_from([1, 3, 4, 5, 6, 7])) << 3
    data = draw(st.binary(max_size=draw(st.sampled_from([0, 20, 130, 1500]))))
    return bytes((head | 4, 0x20)) + data if draw(st.booleans()) else bytes((head,)) + data


@given(unit=st.lists(obus(), min_size=1, max_size=6), max_size=st.integers(16, 300))
def test_av1_payloads_fit_and_carry_every_obu(unit: list[bytes], max_size: int) -> None:
    payloads = av1.packetize(unit, max_size=max_size)
    assert read_av1(payloads) == unit
    assert max(map(len, payloads)) <= max_size
    assert bool(payloads[0][0] & 0x08) is av1.starts_sequence(unit)
    if all(len(obu) > 1 for obu in unit):
        # What Chromium goes by: only the first packet begins an OBU of a frame, only the last one ends one.
        assert [payload[0] >> 7 for payload in payloads] == [0] + [1] * (len(payloads) - 1)
        assert [payload[0] >> 6 & 1 for payload in payloads] == [1] * (len(payloads) - 1) + [0]
    assert av1.split_obus(with_sizes(unit))[1:] == unit


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    vp8.is_keyframe(data)
    vp9.is_keyframe(data)
    try:
        found = av1.split_obus(data)
        av1.packetize(found, max_size=20)
    except av1.Av1Error:
        pass


def assert_equal_sizes(payloads: list[bytes], max_size: int) -> None:
    sizes = [len(payload) for payload in payloads]
    assert max(sizes) <= max_size
    assert len(set(sizes[:-1])) <= 1
    assert sizes[-1] <= sizes[0]


@pytest.mark.parametrize("layer", [None, vp8.Layer(temporal_id=2, base_index=200, is_sync=True)])
def test_another_reader_of_vp8_descriptors_agrees(layer: vp8.Layer | None) -> None:
    from aiortc.codecs.vpx import VpxPayloadDescriptor

    payloads = vp8.packetize(bytes(range(100)), max_size=40, picture_id=5000, layer=layer)
    read = [VpxPayloadDescriptor.parse(payload) for payload in payloads]
    assert b"".join(rest for _, rest in read) == bytes(range(100))
    assert [head.partition_start for head, _ in read] == [1] + [0] * (len(read) - 1)
    assert {head.picture_id for head, _ in read} == {5000}
    assert {head.tl0picidx for head, _ in read} == {layer and layer.base_index}
    assert {head.tid for head, _ in read} == {layer and (layer.temporal_id, 1)}


def test_known_bytes() -> None:
    layer = vp8.Layer(temporal_id=1, base_index=7, is_sync=True)
    assert vp8.packetize(b"\x01ab", max_size=99, picture_id=0x1234, layer=layer, is_droppable=True) == [
        bytes.fromhex("b0e092340760") + b"\x01ab"
    ]
    assert vp8.packetize(b"\x00ab", max_size=99) == [b"\x10\x00ab"]
    flexible = vp9.Layer(temporal_id=2, references=(1, 3), is_switch_up=True)
    assert vp9.packetize(b"\x86x", max_size=99, picture_id=5, layer=flexible) == [
        bytes.fromhex("fd8005500306") + b"\x86x"
    ]
    assert vp9.packetize(b"\x82x", max_size=99, picture_id=5, size=(320, 180)) == [
        bytes.fromhex("8f800510014000b4") + b"\x82x"
    ]
    assert av1.packetize([b"\x08abc", b"\x30frame"], max_size=99) == [b"\x28\x04\x08abc\x30frame"]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: vp8.packetize(b"", max_size=99), "empty"),
        (lambda: vp8.packetize(b"x", max_size=15), "15 bytes are too small"),
        (lambda: vp9.packetize(b"", max_size=99), "empty"),
        (lambda: vp9.packetize(b"x", max_size=23), "23 bytes are too small"),
        (lambda: vp9.packetize(b"\x86", max_size=99, picture_id=1, layer=vp9.Layer(0)), "one to three"),
        (lambda: vp9.packetize(b"\x86", max_size=99, picture_id=1, layer=vp9.Layer(0, (128,))), "one to three"),
        (lambda: av1.packetize([], max_size=99), "without a frame"),
        (lambda: av1.packetize([b"\x10", b"\x78pad"], max_size=99), "without a frame"),
        (lambda: av1.packetize([b"\x30x"], max_size=15), "15 bytes are too small"),
        (lambda: av1.split_obus(b"\x80"), "forbidden"),
        (lambda: av1.split_obus(b"\x32\x05abc"), "longer than its unit"),
        (lambda: av1.split_obus(b"\x32\x85"), "cut off"),
        (lambda: av1.split_obus(b"\x32" + b"\xff" * 9), "does not end"),
        (lambda: av1.split_obus(b"\x34"), "longer than its unit"),
    ],
)
def test_says_why_it_refuses(call, reason: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=reason):
        call()


# --- real encoders and decoders -------------------------------------------------------------------------------------


def encode(codec: str, options: dict[str, str]) -> list[tuple[bytes, bool]]:
    """Moving pictures with enough detail for several packets."""
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height = SIZE
    encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, 30), Fraction(30)
    encoder.bit_rate, encoder.thread_count, encoder.gop_size = 1_500_000, 1, 6
    encoder.options = options
    with kept_scheduling():
        encoder.open()
    noise = np.random.default_rng(1).integers(0, 255, (SIZE[1], SIZE[0] + 64, 3), np.uint8)
    packets = []
    for index in range(14):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(noise[:, index : index + SIZE[0]]), "bgr24")
        frame.pts, frame.time_base = index, Fraction(1, 30)
        packets += encoder.encode(frame.reformat(format="yuv420p"))
    packets += encoder.encode(None)
    return [(bytes(packet), packet.is_keyframe) for packet in packets]


def decode(codec: str, units: list[bytes]) -> list[bytes]:
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    frames = [frame for unit in units for frame in decoder.decode(av.Packet(unit))]
    frames += decoder.decode(None)
    return [frame.to_ndarray().tobytes() for frame in frames]


LIVE = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}


@pytest.mark.parametrize("temporal", [False, True])
def test_vp8_of_libvpx_decodes_as_it_was_made(temporal: bool) -> None:
    made = encode("libvpx", LIVE)
    carried, counts = [], []
    for index, (frame, is_keyframe) in enumerate(made):
        assert vp8.is_keyframe(frame) is is_keyframe
        layer = vp8.Layer(0, index) if temporal else None
        payloads = vp8.packetize(frame, max_size=1160, picture_id=index, layer=layer)
        carried.append(b"".join(read_vp8(payload)[1] for payload in payloads))
        counts.append(len(payloads))
    assert max(counts) > 3
    assert decode("libvpx", carried) == decode("vp8", [frame for frame, _ in made])
    assert sum(is_keyframe for _, is_keyframe in made) >= 2


@pytest.mark.parametrize("flexible", [False, True])
def test_vp9_of_libvpx_decodes_as_it_was_made(flexible: bool) -> None:
    made = encode("libvpx-vp9", LIVE)
    carried, counts = [], []
    for index, (frame, is_keyframe) in enumerate(made):
        assert vp9.is_keyframe(frame) is is_keyframe
        layer = vp9.Layer(0, (1,)) if flexible else None
        payloads = vp9.packetize(frame, max_size=1160, picture_id=index, layer=layer, size=SIZE)
        carried.append(b"".join(read_vp9(payload)[1] for payload in payloads))
        counts.append(len(payloads))
    assert max(counts) > 3
    assert decode("libvpx-vp9", carried) == decode("vp9", [frame for frame, _ in made])
    assert sum(is_keyframe for _, is_keyframe in made) >= 2


def test_av1_of_svt_decodes_as_it_was_made() -> None:
    made = encode("libsvtav1", {"preset": "12", "svtav1-params": "rc=2:pred-struct=1:rtc=1:lp=1"})
    carried, counts = [], []
    for unit, is_keyframe in made:
        split = av1.split_obus(unit)
        assert av1.starts_sequence(split) is is_keyframe
        payloads = av1.packetize(split, max_size=1160)
        assert_equal_sizes(payloads, 1160)
        carried.append(with_sizes(read_av1(payloads)))
        counts.append(len(payloads))
    assert max(counts) > 3
    assert decode("libdav1d", carried) == decode("libdav1d", [unit for unit, _ in made])
    assert sum(is_keyframe for _, is_keyframe in made) >= 2


@pytest.mark.real
@pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="gst-launch-1.0 is not installed")
@pytest.mark.parametrize("name", ["VP8", "VP9"])
def test_gstreamer_puts_the_frames_together_again(name: str, tmp_path: Path) -> None:
    made = encode("libvpx" if name == "VP8" else "libvpx-vp9", LIVE)
    writer = HeaderWriter(payload_type=96, ssrc=7)
    stream, number = b"", 0xFFF0
    for index, (frame, _) in enumerate(made):
        if name == "VP8":
            payloads = vp8.packetize(frame, max_size=1160, picture_id=index, layer=vp8.Layer(0, index))
        else:
            layer = vp9.Layer(0, references=(1, 2))
            payloads = vp9.packetize(frame, max_size=1160, picture_id=index, layer=layer, size=SIZE)
        for place, payload in enumerate(payloads):
            header = writer.pack(
                sequence_number=number & 0xFFFF, timestamp=3000 * index, marker=place == len(payloads) - 1
            )
            stream += len(header + payload).to_bytes(2, "big") + header + payload  # RFC 4571
            number += 1
    (tmp_path / "in").write_bytes(stream)
    caps = f"application/x-rtp-stream,media=video,encoding-name={name},payload=96,clock-rate=90000"
    elements = f"filesrc location={tmp_path}/in ! {caps} ! rtpstreamdepay ! rtp{name.lower()}depay"
    command = ["gst-launch-1.0", "-q", *elements.split(), "!", "filesink", f"location={tmp_path}/out"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out").read_bytes() == b"".join(frame for frame, _ in made)
