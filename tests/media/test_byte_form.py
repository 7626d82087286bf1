"""Every payload comes back from its bytes as it was, whatever memory it came from; anything else is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from flowstream.media.byte_form import (
    ByteFormError,
    caps_from_json,
    caps_to_json,
    from_bytes,
    loaded_form,
    to_bytes,
)
from flowstream.media.caps import AudioCaps, EncodedCaps, VideoCaps
from flowstream.media.encoder_stats import EncoderStats
from flowstream.media.frames import AudioFrame, Plane, VideoFrame
from flowstream.media.packets import EncodedPacket
from flowstream.media.pixels import ARRAY_FORMATS, rows_of
from flowstream.media.pyav import video_in_av
from flowstream.media.records import Record
from flowstream.media.samples import SAMPLE_BYTES
from flowstream.media.size import Size
from flowstream.media.targets import Target, Targets
from flowstream.testing.media import make_frame, make_packet, make_sound


def _has_memory(name: str) -> bool:
    """Whether FFmpeg keeps pictures of a format in memory that we see; those of devices it does not."""
    try:
        frame = av.VideoFrame(8, 8, name)
        return all(plane.buffer_size > 0 for plane in frame.planes) and len(frame.planes) > 0
    except (ValueError, MemoryError, av.FFmpegError):
        return False


FORMATS = sorted(name for name in av.video.format.names if not name.startswith("yuvj") and _has_memory(name))
TIMES = st.integers(-(2**40), 2**60)
MAYBE = st.none() | TIMES
ORIGIN_NS = 1_000


def again(payload: Any) -> Any:
    head, pieces = to_bytes(payload, ORIGIN_NS)
    data = b"".join(bytes(piece) for piece in pieces)
    return from_bytes(type(payload).__name__, getattr(payload, "caps", None), head, data)


def since(payload: Any) -> Any:
    """The payload with its capture counted from where the recording begins."""
    capture_ns = payload.capture_ns
    return payload if capture_ns is None else replace(payload, capture_ns=capture_ns - ORIGIN_NS)


def seen(frame: VideoFrame) -> bytes:
    """Every byte that is a pixel, and all bytes of formats whose rows are not known."""
    rows = rows_of(frame.format, frame.width, frame.height)
    if rows is None:
        return b"".join(bytes(plane.data) for plane in frame.planes)
    if len(rows) != len(frame.planes):
        return bytes(frame.planes[0].data)
    found = b""
    for plane, (count, size) in zip(frame.planes, rows, strict=True):
        data = bytes(plane.data)
        found += b"".join(data[row * plane.stride : row * plane.stride + size] for row in range(count))
    return found


def filled(name: str, width: int, height: int, seed: int) -> av.VideoFrame:
    """A picture of FFmpeg's full of noise, the padding included."""
    noise = np.random.default_rng(seed)
    frame = av.VideoFrame(width, height, name)
    for plane in frame.planes:
        plane.update(noise.bytes(plane.buffer_size))
    return frame


@given(
    name=st.sampled_from(FORMATS), width=st.integers(1, 70), height=st.integers(1, 40), seed=st.integers(0, 99),
    time_ns=TIMES, duration_ns=MAYBE, capture_ns=MAYBE,
)  # fmt: skip
def test_pictures_of_every_format_and_size(
    name: str, width: int, height: int, seed: int, time_ns: int, duration_ns: int | None, capture_ns: int | None
) -> None:
    made = filled(name, width, height, seed)
    frame = VideoFrame.from_av(made, time_ns=time_ns, duration_ns=duration_ns, capture_ns=capture_ns)
    back = again(frame)
    assert (back.caps, back.time_ns, back.duration_ns) == (frame.caps, time_ns, duration_ns)
    assert back.capture_ns == since(frame).capture_ns
    assert seen(back) == seen(frame)
    if rows_of(name, width, height) is None:
        assert [plane.stride for plane in back.planes] == [plane.stride for plane in frame.planes]
    resident = video_in_av(back)
    assert seen(resident) == seen(frame), "FFmpeg gets every pixel of it"
    assert resident.to_av().format.name == name


@given(
    name=st.sampled_from(sorted(ARRAY_FORMATS)), width=st.integers(1, 40), height=st.integers(1, 40),
    more=st.integers(0, 9), seed=st.integers(0, 99),
)  # fmt: skip
def test_pictures_from_arrays_with_and_without_space_between_rows(
    name: str, width: int, height: int, more: int, seed: int
) -> None:
    if not ARRAY_FORMATS[name]:
        width, height = 2 * width, 2 * height
    shape = make_frame(0, width=width, height=height, format=name).array().shape
    array = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    frame = VideoFrame.from_array(array, format=name, time_ns=5)
    row = frame.planes[0].stride
    wide = np.random.default_rng(seed + 1).integers(0, 256, (shape[0], row + more), np.uint8)
    wide[:, :row] = array.reshape(shape[0], row)
    spaced = frame.replace(planes=(Plane(wide.data.toreadonly(), row + more),))
    assert np.array_equal(again(frame).array(), array)
    assert np.array_equal(again(spaced).array(), array)
    assert to_bytes(frame, 0)[0] == to_bytes(spaced, 0)[0]
    assert b"".join(to_bytes(frame, 0)[1]) == b"".join(to_bytes(spaced, 0)[1]), "the same picture, the same bytes"


@given(
    name=st.sampled_from(sorted(SAMPLE_BYTES)), layout=st.sampled_from(["mono", "stereo", "5.1", "hexagonal"]),
    samples=st.integers(1, 2000), rate=st.sampled_from([8_000, 44_100, 48_000]), time_ns=TIMES, capture_ns=MAYBE,
    seed=st.integers(0, 99),
)  # fmt: skip
def test_sound_packed_and_planar(
    name: str, layout: str, samples: int, rate: int, time_ns: int, capture_ns: int | None, seed: int
) -> None:
    made = av.AudioFrame(name, layout, samples)
    for plane in made.planes:
        plane.update(np.random.default_rng(seed).bytes(plane.buffer_size))
    made.sample_rate = rate
    frame = AudioFrame.from_av(made, time_ns=time_ns, capture_ns=capture_ns)
    back = again(frame)
    assert (back.caps, back.samples, back.time_ns) == (frame.caps, samples, time_ns)
    assert back.capture_ns == since(frame).capture_ns
    size, is_planar = SAMPLE_BYTES[name]
    each = samples * size * (1 if is_planar else made.layout.nb_channels)
    assert [bytes(p.data)[:each] for p in back.planes] == [bytes(p.data)[:each] for p in frame.planes]


def test_sound_of_all_channels_in_one_plane() -> None:
    for name in ("s16", "s16p", "fltp", "s32"):
        sound = make_sound(3, format=name, capture_ns=ORIGIN_NS + 1)
        assert np.array_equal(again(sound).array(), sound.array())
        assert again(sound).planes[0].stride == sound.planes[0].stride


CODED = st.builds(
    EncodedCaps,
    codec=st.sampled_from(["h264", "opus", "vp8"]), width=st.none() | st.integers(1, 9000),
    height=st.none() | st.integers(1, 9000), rate=st.none() | st.just(48_000), layout=st.none() | st.just("stereo"),
    profile=st.none() | st.text(max_size=9), extradata=st.none() | st.binary(max_size=40),
)  # fmt: skip
PACKETS = st.builds(
    EncodedPacket, caps=CODED, data=st.binary(min_size=1, max_size=300), time_ns=TIMES, keyframe=st.booleans(),
    decode_ns=MAYBE, duration_ns=MAYBE, capture_ns=MAYBE,
)  # fmt: skip


@given(packet=PACKETS)
def test_packets(packet: EncodedPacket) -> None:
    assert again(packet) == since(packet)
    assert caps_from_json(caps_to_json(packet.caps)) == packet.caps


class Box(BaseModel):
    """What a detector says."""

    name: str
    at: tuple[int, int]
    score: float


@dataclass(frozen=True)
class Boxes:
    """All of a picture."""

    of: Mapping[str, Box]


class Pair(NamedTuple):
    """Two numbers."""

    first: int
    second: float


REAL = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(
    st.builds(Box, name=st.text(), at=st.tuples(st.integers(), st.integers()), score=REAL),
    st.builds(Pair, first=st.integers(), second=REAL),
    st.builds(Target, bitrate_bps=st.integers(1, 10**9), fps=st.none() | st.floats(0.1, 240)),
    st.text(), st.integers(), st.booleans(), st.none(), st.lists(st.integers()),
)  # fmt: skip


@given(value=VALUES, time_ns=TIMES, capture_ns=MAYBE)
def test_records(value: Any, time_ns: int, capture_ns: int | None) -> None:
    record = Record(value, time_ns, capture_ns)
    back = again(record)
    assert back == since(record)
    assert type(back.value) is type(value)


def test_records_of_records() -> None:
    for value in (Boxes({"a": Box(name="cat", at=(1, 2), score=0.5)}), Targets({"encode": Target(5, 30.0, None)})):
        assert again(Record(value, 3)) == Record(value, 3)


def test_values_that_would_not_come_back_are_refused() -> None:
    class Hidden(BaseModel):
        """A class that nobody can find by its name."""

        at: int

    class Odd:
        """Nothing that JSON has."""

    with pytest.raises(ByteFormError, match=r"^a value of float does not come back from JSON as it was$|cannot be"):
        to_bytes(Record(float("nan"), 0), 0)
    with pytest.raises(ByteFormError, match=r"^a Odd has no form in JSON: "):
        to_bytes(Record(Odd(), 0), 0)
    with pytest.raises(ByteFormError, match=r"^a value of bytes cannot be written: "):
        to_bytes(Record(b"\xff", 0), 0)
    with pytest.raises(ByteFormError, match=r"^a str has no form in bytes$"):
        to_bytes("text", 0)
    head, (data,) = to_bytes(Record(Hidden(at=3), 0), 0)
    with pytest.raises(ByteFormError, match=r"^nothing that is loaded has the class .*Hidden of a record's value$"):
        from_bytes("Record", None, head, bytes(data))
    assert from_bytes("Record", None, head, bytes(data), forms=lambda name: Hidden).value == Hidden(at=3)
    with pytest.raises(ByteFormError, match=r"^a record's value is no Box: "):
        from_bytes("Record", None, head, bytes(data), forms=lambda name: Box)


def test_reading_imports_nothing() -> None:
    import sys

    assert "antigravity" not in sys.modules
    assert loaded_form("antigravity:geohash") is None
    assert "antigravity" not in sys.modules
    assert loaded_form("builtins:eval") is None, "no class"
    assert loaded_form(f"{__name__}:Box") is Box


def test_a_folders_class_is_found_in_another_version_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("flowstream_folder_acme_0123456789ab.detect")
    module.Box = Box  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert loaded_form("flowstream_folder_acme_ffffffffffff.detect:Box") is Box
    assert loaded_form("flowstream_folder_other_ffffffffffff.detect:Box") is None


PICTURE = VideoCaps(format="yuv420p", width=4, height=4)
SOUND = AudioCaps(format="s16", rate=48_000, layout="stereo")


@pytest.mark.parametrize(
    ("kind", "caps", "head", "data", "said"),
    [
        ("Nothing", None, {"time_ns": 0}, b"", "there is no payload 'Nothing'"),
        ("VideoFrame", PICTURE, {}, bytes(24), "it has no media time"),
        ("VideoFrame", PICTURE, {"time_ns": 1 << 62}, bytes(24), "time_ns is no time or count"),
        ("VideoFrame", PICTURE, {"time_ns": True}, bytes(24), "time_ns is no time or count"),
        ("VideoFrame", None, {"time_ns": 0}, bytes(24), "a VideoFrame has no NoneType"),
        ("VideoFrame", SOUND, {"time_ns": 0}, bytes(24), "a VideoFrame has no AudioCaps"),
        ("VideoFrame", PICTURE, {"time_ns": 0}, bytes(23), "23 bytes are not 3 planes of 24"),
        ("VideoFrame", replace(PICTURE, width=0), {"time_ns": 0}, b"", "a width of 0 is no size of a picture"),
        ("VideoFrame", replace(PICTURE, height=1 << 17), {"time_ns": 0}, b"", "a height of 131072 is no size of a"),
        ("VideoFrame", replace(PICTURE, width=3), {"time_ns": 0, "planes": 1}, bytes(9), "yuv420p of 3x4 has no form"),
        ("VideoFrame", replace(PICTURE, format="pal8"), {"time_ns": 0}, b"", "the strides of a picture are not told"),
        ("VideoFrame", replace(PICTURE, format="pal8"), {"time_ns": 0, "strides": [4], "lengths": [2, 2]}, bytes(4),
         "2 planes have 1 strides"),
        ("AudioFrame", SOUND, {"time_ns": 0, "samples": 2, "lengths": [7]}, bytes(7), "7 bytes are not 2 samples"),
        ("AudioFrame", SOUND, {"time_ns": 0, "samples": -1, "lengths": [7]}, bytes(7), "-1 is no count of samples"),
        ("AudioFrame", SOUND, {"time_ns": 0, "samples": 2, "lengths": "7"}, bytes(7), "the lengths of the planes are"),
        ("EncodedPacket", EncodedCaps(codec="h264"), {"time_ns": 0}, b"", "a packet is never empty"),
        ("EncodedPacket", EncodedCaps(codec="h264"), {"time_ns": 0, "keyframe": 1}, b"x", "keyframe is neither true"),
        ("EncodedPacket", EncodedCaps(codec="vp8"), {"time_ns": 0, "temporal_layer": 8}, b"x", "temporal_layer is no"),
        ("EncodedPacket", EncodedCaps(codec="vp8"), {"time_ns": 0, "temporal_layer": "1"}, b"x", "temporal_layer is"),
        ("Record", None, {"time_ns": 0, "form": "nowhere:At"}, b"1", "nothing that is loaded has the class nowhere:At"),
        ("Record", None, {"time_ns": 0}, b"1", "nothing that is loaded has the class None"),
    ],
)  # fmt: skip
def test_what_is_no_payload_is_refused(kind: str, caps: Any, head: dict[str, Any], data: bytes, said: str) -> None:
    with pytest.raises(ByteFormError) as refused:
        from_bytes(kind, caps, head, data)
    assert str(refused.value).startswith(said)


def test_fields_of_a_newer_version_are_left_out() -> None:
    packet = make_packet(3)
    head, pieces = to_bytes(packet, 0)
    assert from_bytes("EncodedPacket", packet.caps, {**head, "mood": "good"}, bytes(pieces[0])) == packet
    assert caps_from_json({**caps_to_json(packet.caps), "mood": "good"}) == packet.caps


@pytest.mark.parametrize(
    "told",
    [
        None, {}, {"type": "Hat"}, {"type": "EncodedCaps", "extradata": 3}, {"type": "EncodedCaps", "extradata": "xy"},
        {"type": "VideoCaps", "width": {}},
    ],
)  # fmt: skip
def test_what_are_no_caps_is_refused(told: Any) -> None:
    with pytest.raises(ByteFormError):
        caps_from_json(told)


def test_a_plane_that_is_too_short_is_refused() -> None:
    frame = make_frame(0, width=8, height=4)
    with pytest.raises(ByteFormError, match=r"^a plane of 95 bytes does not hold 4 rows of 24$"):
        to_bytes(frame.replace(planes=(Plane(bytes(95), 24),)), 0)
    with pytest.raises(ByteFormError, match=r"^a plane lacks 1 bytes of 960 samples$"):
        to_bytes(make_sound(0).replace(planes=(Plane(bytes(2 * 3840 - 1), 7680),)), 0)


def test_what_an_encoder_tells_and_its_layers_come_back() -> None:
    stats = EncoderStats("a/b", 30, 4.5, 7.0, 33.3, True, 998_000, Size(640, 360), 30.0, 0.14, qp_mean=31.5)
    for payload in (
        Record(stats, 5, capture_ns=9),
        EncodedPacket(EncodedCaps(codec="vp9"), b"x", 1, keyframe=False, temporal_layer=2),
        EncodedPacket(EncodedCaps(codec="vp9"), b"x", 1, temporal_layer=0),
    ):
        head, _ = to_bytes(payload, ORIGIN_NS)
        assert json.loads(json.dumps(head)) == head
        assert again(payload) == since(payload)
