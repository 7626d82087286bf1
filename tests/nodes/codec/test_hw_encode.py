"""hw-encode: rates that are really reached, keyframes, formats, changes while running."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest

from flowstream import (
    EncodedPacket,
    KeyframeRequest,
    NegotiationError,
    Record,
    Size,
    Target,
    Targets,
    VideoCaps,
    VideoFrame,
)
from flowstream.proto.h264 import profile_level_id, split_annex_b
from flowstream.testing import Harness, make_frame
from flowstream_nodes.codec import _libyuv
from flowstream_nodes.codec._ffmpeg import PictureRate
from flowstream_nodes.codec._pictures import Pictures, kind_of
from flowstream_nodes.codec.hw_encode import HwEncode, HwEncodeConfig

FRAME_NS = 33_333_333


class Encoding:
    """Drives one node: frames in, packets out, media time stepped."""

    def __init__(self, *, interval_ns: int = FRAME_NS, **config: Any) -> None:
        self.node = HwEncode(HwEncodeConfig.model_validate(config))
        self.facts: dict[str, Any] = {}
        self.node.ctx = SimpleNamespace(
            name="encode", report=self.facts.update, now_ns=lambda: 0, log=logging.getLogger("test")
        )
        self.node.open()
        self.interval_ns = interval_ns
        self.time_ns = 0
        self.packets: list[EncodedPacket] = []
        self.records: list[Record[Any]] = []

    def give(self, array: np.ndarray[Any, Any], format: str, **fields: Any) -> list[EncodedPacket]:
        frame = VideoFrame.from_array(array, format=format, time_ns=self.time_ns, **fields)
        return self.give_frame(frame)

    def give_frame(self, frame: VideoFrame) -> list[EncodedPacket]:
        given = [emit.payload for emit in self.node.process(frame)]
        new = [each for each in given if isinstance(each, EncodedPacket)]
        self.records += [each for each in given if isinstance(each, Record)]
        self.time_ns += self.interval_ns
        self.packets += new
        return new

    def set(self, **config: Any) -> None:
        old = self.node.config
        new = HwEncodeConfig.model_validate({**old.model_dump(), **config})
        self.node.accepts(new)
        self.node.config = new
        self.node.reconfigured(old)

    def rate_bps(self, from_ns: int, to_ns: int) -> float:
        bits = sum(len(p.data) * 8 for p in self.packets if from_ns <= p.time_ns < to_ns)
        return bits * 1e9 / (to_ns - from_ns)


def decoded(packets: list[EncodedPacket]) -> list[av.VideoFrame]:
    context = av.CodecContext.create("h264", "r")
    assert isinstance(context, av.VideoCodecContext)
    frames = [frame for packet in packets for frame in context.decode(packet.to_av())]
    return frames + context.decode(None)


@pytest.fixture(scope="module")
def moving() -> list[np.ndarray[Any, Any]]:
    """Two seconds of moving, noisy 720p."""
    rng = np.random.default_rng(1)
    width, height = 1280, 720
    texture = cv2.resize(rng.integers(0, 255, (180, 320), np.uint8), (2560, 1440), interpolation=cv2.INTER_CUBIC)
    frames = []
    for i in range(60):
        frame = np.full((height * 3 // 2, width), 128, np.uint8)
        frame[:height] = texture[i * 3 : i * 3 + height, i * 7 : i * 7 + width]
        frame[:height] += rng.integers(0, 12, (height, width), np.uint8)
        frames.append(frame)
    return frames


def there_and_back(frames: list[np.ndarray[Any, Any]]) -> Iterator[np.ndarray[Any, Any]]:
    """The same motion for ever, without a jump."""
    return itertools.cycle(frames + frames[-2:0:-1])


@pytest.mark.parametrize(("interval_ns", "states_it"), [(FRAME_NS, True), (FRAME_NS, False), (2 * FRAME_NS, False)])
def test_the_rate_follows_a_change_within_a_second(
    moving: list[np.ndarray[Any, Any]], interval_ns: int, states_it: bool
) -> None:
    encoding = Encoding(interval_ns=interval_ns, bitrate="2.5M", max="8M", keyframe_interval="10s")
    source = there_and_back(moving)
    second = 1_000_000_000

    def run_for(duration_ns: int) -> int:
        end_ns = encoding.time_ns + duration_ns
        while encoding.time_ns < end_ns:
            encoding.give(next(source), "yuv420p", duration_ns=interval_ns if states_it else None)
        return encoding.time_ns

    start = run_for(3 * second)
    assert encoding.rate_bps(start - second, start) == pytest.approx(2_500_000, rel=0.15)

    encoding.set(bitrate="600k")
    low = run_for(3 * second)
    assert encoding.rate_bps(start + 600_000_000, start + 1_600_000_000) == pytest.approx(600_000, rel=0.35)
    assert encoding.rate_bps(low - second, low) == pytest.approx(600_000, rel=0.2)

    encoding.set(bitrate="2.5M")
    middle = run_for(3 * second)
    encoding.set(bitrate="6M")
    high = run_for(5 * second)
    assert encoding.rate_bps(middle + second, middle + 2 * second) > 4_500_000
    assert encoding.rate_bps(high - second, high) == pytest.approx(6_000_000, rel=0.2)
    assert sum(packet.keyframe for packet in encoding.packets) <= 3  # nothing was reopened on the way


@pytest.mark.parametrize("top", ["auto", "8M"])
def test_a_step_down_is_reached_in_600_ms_and_back_up_in_a_second(moving: list[np.ndarray[Any, Any]], top: str) -> None:
    encoding = Encoding(bitrate="2.5M", max=top, keyframe_interval="60s")
    source, second = there_and_back(moving), 1_000_000_000

    def run_for(duration_ns: int) -> int:
        end_ns = encoding.time_ns + duration_ns
        while encoding.time_ns < end_ns:
            encoding.give(next(source), "yuv420p", duration_ns=FRAME_NS)
        return encoding.time_ns

    down = run_for(2 * second)
    encoding.set(bitrate="600k")
    up = run_for(2 * second)
    encoding.set(bitrate="2.5M")
    end = run_for(3 * second)
    # Over half a second, beginning when the rate has to be there.
    for at_ns in range(down + 600_000_000, up - second // 2, 100_000_000):
        assert encoding.rate_bps(at_ns, at_ns + second // 2) == pytest.approx(600_000, rel=0.1), at_ns - down
    for at_ns in range(up + second, end - second // 2, 100_000_000):
        assert encoding.rate_bps(at_ns, at_ns + second // 2) == pytest.approx(2_500_000, rel=0.1), at_ns - up
    assert sum(packet.keyframe for packet in encoding.packets) == 1, "no keyframe but the first"


def test_pictures_that_become_rare_reach_the_rate_with_the_same_parameter_sets(
    moving: list[np.ndarray[Any, Any]],
) -> None:
    encoding = Encoding(bitrate="2.5M", keyframe_interval="60s")
    source = there_and_back(moving)
    while encoding.time_ns < 1_000_000_000:
        encoding.give(next(source), "yuv420p")
    encoding.interval_ns = 8 * FRAME_NS
    while encoding.time_ns < 14_000_000_000:
        encoding.give(next(source), "yuv420p")
    assert sum(packet.keyframe for packet in encoding.packets) > 1, "it was opened anew for the rare pictures"
    assert len({id(packet.caps) for packet in encoding.packets}) == 1, "a recording goes on in the same file"
    assert encoding.rate_bps(9_000_000_000, 14_000_000_000) == pytest.approx(2_500_000, rel=0.25)


def test_a_rate_above_the_ceiling_is_refused_with_the_reason() -> None:
    encoding = Encoding(bitrate="2.5M")
    with pytest.raises(ValueError, match="bitrate 6M is above the 5M that the encoder was opened for; a larger max"):
        encoding.set(bitrate="6M")
    encoding.set(bitrate="5M")
    encoding.set(bitrate="600k")
    with pytest.raises(ValueError, match="above the 5M"):  # what it was opened for, not twice what it has now
        encoding.set(bitrate="5.1M")


def test_the_plan_is_told_the_same() -> None:
    old = HwEncodeConfig.model_validate({"bitrate": "2.5M"})
    inside, above = (HwEncodeConfig.model_validate({"bitrate": rate}) for rate in ("5M", "6M"))
    assert HwEncode.updates_in_place(old, inside) is True
    assert "6M is above the 5M" in str(HwEncode.updates_in_place(old, above))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"bitrate": "3M", "max": "2M"}, "max (2M) is below bitrate (3M)"),
        ({"threads": 17}, "threads is 17; it goes from 1 to 16, or is auto"),
        ({"bitrate": "1k"}, "a bitrate of 1k carries no picture"),
        ({"codec": "mpeg2"}, "h264"),
        ({"codec": "vp8", "profile": "high"}, "profile (high) is for h264, and codec is vp8; leave it out"),
        ({"temporal_layers": 2}, "temporal_layers (2) is for vp8 and vp9: encoders of h264 make none"),
        ({"encoder": "libx265"}, "libx265 is no encoder for h264; these are: auto, h264_nvenc, "),
        ({"codec": "vp9", "temporal_layers": 2, "encoder": "vp9_qsv"}, "these are: auto, libvpx-vp9"),
        ({"fps": 0}, "fps is 0; it is above 0, to 240, or auto or source"),
        ({"keyframe_interval": "50ms"}, "keyframe_interval is below 100ms"),
        ({"preset": "ultra", "max": "5M"}, "max (5M) is below bitrate (14M)"),
    ],
)
def test_a_config_that_cannot_be_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as refusal:
        HwEncodeConfig.model_validate(config)
    assert words in str(refusal.value)


def grey(width: int = 320, height: int = 180, level: int = 90) -> np.ndarray[Any, Any]:
    return np.full((height, width, 3), level, np.uint8)


def test_packets_are_constrained_baseline_annex_b_with_one_caps_object() -> None:
    encoding = Encoding(bitrate="500k")
    for level in range(20):
        encoding.give(grey(level=level * 10), "bgr24")
    packets = encoding.packets
    assert [p.keyframe for p in packets] == [True] + 19 * [False]
    assert len({id(p.caps) for p in packets}) == 1
    caps = packets[0].caps
    assert (caps.codec, caps.width, caps.height, caps.profile) == ("h264", 320, 180, "baseline")
    units = split_annex_b(packets[0].data)
    kinds = [unit[0] & 0x1F for unit in units]
    assert kinds.index(7) < kinds.index(8) < kinds.index(5)
    level_id = profile_level_id(units)
    assert level_id is not None
    assert level_id.startswith("42c0")
    assert caps.extradata is not None
    assert [unit[0] & 0x1F for unit in split_annex_b(caps.extradata)] == [7, 8]


def test_times_are_carried_through_without_delay() -> None:
    encoding = Encoding()
    for i in range(5):
        (packet,) = encoding.give(grey(), "bgr24", capture_ns=1000 + i, duration_ns=FRAME_NS)
        assert (packet.time_ns, packet.capture_ns, packet.duration_ns) == (i * FRAME_NS, 1000 + i, FRAME_NS)
        assert packet.decode_ns is None
    assert list(encoding.node.finish()) == []


def test_requests_make_one_keyframe_and_go_no_further() -> None:
    encoding = Encoding(keyframe_interval="60s")  # a request passed on would need ctx.request, which is not there
    for _ in range(4):
        encoding.give(grey(), "bgr24")
    encoding.node.requested("packets", KeyframeRequest())
    encoding.node.requested("packets", KeyframeRequest("a second viewer"))
    flags = [encoding.give(grey(), "bgr24")[0].keyframe for _ in range(4)]
    assert flags == [True, False, False, False]


def test_keyframes_come_by_time_at_any_picture_rate() -> None:
    for interval_ns in (FRAME_NS, 4 * FRAME_NS):
        encoding = Encoding(interval_ns=interval_ns, keyframe_interval="1s")
        while encoding.time_ns < 3_500_000_000:
            encoding.give(grey(), "bgr24")
        times = [p.time_ns / 1e9 for p in encoding.packets if p.keyframe]
        assert times == pytest.approx([0, 1, 2, 3], abs=0.2)


def test_a_new_size_or_format_continues_with_a_keyframe() -> None:
    encoding = Encoding(bitrate="500k")
    for array, format in [
        (grey(), "bgr24"),
        (grey(320, 180), "bgr24"),
        (grey(640, 360), "bgr24"),
        (np.full((540, 640), 128, np.uint8), "nv12"),
        (np.full((360, 640, 4), 128, np.uint8), "bgra"),
    ]:
        encoding.give(array, format)
    assert [(p.keyframe, p.caps.width) for p in encoding.packets] == [
        (True, 320), (False, 320), (True, 640), (True, 640), (True, 640),
    ]  # fmt: skip
    times = [p.time_ns for p in encoding.packets]
    assert times == sorted(set(times))
    assert [(f.width, f.height) for f in decoded(encoding.packets)] == 2 * [(320, 180)] + 3 * [(640, 360)]
    assert encoding.facts["size"] == "640x360"


def test_a_picture_that_is_not_later_is_left_out_and_counted() -> None:
    encoding = Encoding(interval_ns=0)
    encoding.give(grey(), "bgr24")
    assert encoding.give(grey(), "bgr24") == []
    assert encoding.facts["left_out"] == 1


@pytest.mark.parametrize(
    "format", ["bgr24", "rgb24", "bgra", "rgba", "bgr0", "gray", "yuv420p", "nv12", "yuyv422", "yuv444p"]
)
@pytest.mark.parametrize("size", [(64, 48), (65, 47)])
def test_any_format_comes_out_as_the_picture_that_went_in(format: str, size: tuple[int, int]) -> None:
    width, height = size
    bgr = np.zeros((height, width, 3), np.uint8)
    bgr[:, : width // 2] = (40, 60, 200) if format != "gray" else (90, 90, 90)
    bgr[:, width // 2 :] = (180, 120, 30) if format != "gray" else (200, 200, 200)
    av_frame = av.VideoFrame.from_ndarray(bgr, format="bgr24").reformat(format=format)
    encoding = Encoding(bitrate="4M")
    encoding.give_frame(VideoFrame.from_av(av_frame, time_ns=0))
    (frame,) = decoded(encoding.packets)
    assert (frame.width, frame.height) == (64, 48 if height == 48 else 46)
    back = frame.to_ndarray(format="bgr24").astype(int)
    for column in (8, 56):
        assert np.abs(back[24, column] - bgr[24, column]).max() <= 12


PACKED = ["bgr24", "rgb24", "bgra", "bgr0", "rgba"]


@pytest.fixture(params=["libyuv", "opencv", "swscale"])
def converter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What converts packed pictures; those that would be preferred are not there."""
    if request.param != "libyuv":
        monkeypatch.setattr(_libyuv, "libyuv", lambda: None)
    if request.param == "swscale":
        monkeypatch.setitem(sys.modules, "cv2", None)
    return str(request.param)


@pytest.mark.parametrize("format", PACKED)
def test_whatever_converts_the_picture_is_the_same(format: str, converter: str) -> None:
    colours = np.array([(40, 60, 200), (180, 120, 30), (10, 200, 90)], np.uint8)
    for width, height in ((96, 48), (97, 47)):
        bgr = colours[np.arange(width) * 3 // width][np.newaxis].repeat(height, axis=0)
        frame = VideoFrame.from_array(np.ascontiguousarray(bgr), time_ns=0).writable(format)
        kind = kind_of(frame, ("yuv420p",))
        back = Pictures().prepare(frame, kind).to_ndarray(format="bgr24").astype(int)
        assert back.shape[:2] == (height & ~1, width & ~1)
        for column in (16, 48, 80):
            assert np.abs(back[24, column] - bgr[24, column]).max() <= 4, converter


@pytest.mark.real
def test_the_fastest_converter_that_there_is_converts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(_libyuv.libyuv(), _libyuv.Libyuv), "install libyuv0"
    monkeypatch.setitem(sys.modules, "cv2", None)
    reformatted: list[str] = []
    pictures = Pictures()
    monkeypatch.setattr(pictures, "_reformatter", reformatted)
    for format in PACKED:
        frame = VideoFrame.from_array(np.full((48, 64, 3), 90, np.uint8), time_ns=0).writable(format)
        assert pictures.prepare(frame, kind_of(frame, ("yuv420p",))).format.name == "yuv420p"


def test_pixels_that_libyuv_does_not_take_as_they_lie_go_another_way() -> None:
    whole = np.full((48, 64, 3), (40, 60, 200), np.uint8)
    whole[:, :32] = (180, 120, 30)
    for pixels in (whole[::-1], whole[:, ::-1]):
        frame = VideoFrame.from_array(np.ascontiguousarray(pixels), time_ns=0)
        library, i420 = _libyuv.libyuv(), np.empty((72, 64), np.uint8)
        assert library is None or not library.convert(pixels, "bgr24", i420)
        kind = kind_of(frame, ("yuv420p",))
        made = Pictures()._converted(pixels, "bgr24", kind).to_ndarray(format="bgr24").astype(int)
        assert np.abs(made[24, 8] - pixels[24, 8]).max() <= 4


@pytest.mark.parametrize("names", [(), ("libno-such.so.0",), ("libc.so.6",)])
def test_a_system_without_libyuv_or_with_something_else_of_its_name_has_none(names: tuple[str, ...]) -> None:
    with pytest.raises(OSError, match=r"(libyuv has|there is) no "):
        _libyuv.Libyuv(*names)


@pytest.mark.parametrize(
    ("caps", "matrix", "full_range"),
    [
        (VideoCaps(matrix="bt709", full_range=False), 1, 1),
        (VideoCaps(matrix="smpte170m", full_range=True), 6, 2),
        (VideoCaps(), 6, 1),
    ],
)
def test_the_colours_are_stated_in_the_stream(caps: VideoCaps, matrix: int, full_range: int) -> None:
    frame = VideoFrame.from_array(np.full((72, 64), 128, np.uint8), format="yuv420p", time_ns=0)
    from dataclasses import replace

    encoding = Encoding()
    encoding.give_frame(frame.replace(caps=replace(frame.caps, matrix=caps.matrix, full_range=caps.full_range)))
    (frame_out,) = decoded(encoding.packets)
    assert (int(frame_out.colorspace), int(frame_out.color_range)) == (matrix, full_range)


def test_one_frame_may_go_to_two_encoders() -> None:
    frame = VideoFrame.from_av(av.VideoFrame(64, 48, "yuv420p"), time_ns=123_456_789)
    first, second = Encoding(), Encoding()
    for encoding in (first, second):
        (packet,) = encoding.give_frame(frame)
        assert packet.time_ns == 123_456_789
    assert frame.origin.pts is None


def test_a_picture_too_small_for_4_2_0_is_refused() -> None:
    with pytest.raises(NegotiationError, match="1x8 is too small to encode"):
        Encoding().give(np.zeros((8, 1, 3), np.uint8), "bgr24")


def test_the_picture_rate_is_not_fooled_by_a_pause() -> None:
    rate = PictureRate(None)
    for time_ns in range(0, 50 * FRAME_NS, FRAME_NS):
        rate.add(time_ns)
    rate.add(60_000_000_000)
    assert rate.interval_ns is not None
    assert rate.interval_ns == pytest.approx(FRAME_NS, rel=0.2)


def test_encoders_of_one_picture_have_their_keyframes_together_whenever_they_began() -> None:
    early, late = Encoding(keyframe_interval="1s"), Encoding(keyframe_interval="1s")
    late.time_ns = 17 * FRAME_NS
    while early.time_ns < 3_500_000_000:
        early.give(grey(), "bgr24")
        if early.time_ns > late.time_ns:
            late.give(grey(), "bgr24")
        if early.time_ns == 45 * FRAME_NS:
            late.node.requested("packets", KeyframeRequest())
    first, second = ([p.time_ns for p in each.packets if p.keyframe] for each in (early, late))
    assert first == [0, 31 * FRAME_NS, 61 * FRAME_NS, 91 * FRAME_NS]
    assert len(second) == 5, "its own beginning and a request move nothing"
    assert second[1:2] + second[3:] == first[1:]


# --- targets --------------------------------------------------------------------------------------------------------


def targets(**bitrates_bps: int) -> Record[Targets]:
    return Record(Targets({name: Target(bitrate_bps) for name, bitrate_bps in bitrates_bps.items()}), 0)


def test_a_target_is_taken_in_place_and_stays_until_the_next() -> None:
    with Harness(HwEncode, {"bitrate": "1M", "max": "3M"}, name="encode", threads=True) as encode:
        for index, (given, bitrate_bps) in enumerate(
            [
                (targets(encode=250_000, other=1), 250_000),
                (targets(other=2_000_000), 250_000),
                (targets(), 250_000),
                (targets(encode=9_000_000), 3_000_000),
                (targets(encode=1), 10_000),
            ]
        ):
            assert encode.push(given, "targets") == []
            assert encode.facts["bitrate_bps"] == bitrate_bps
            (packet,) = encode.push(make_frame(index), "video")
            assert packet.keyframe == (index == 0)


def test_a_target_before_the_first_picture_counts_and_so_does_one_over_a_new_size() -> None:
    frames = [np.random.default_rng(n).integers(0, 255, (180, 320, 3), np.uint8) for n in range(40)]
    with Harness(HwEncode, {"bitrate": "4M"}, name="encode") as encode:
        encode.push(targets(encode=200_000), "targets")
        for n, array in enumerate(frames):
            picture = array if n < 20 else array[:90]
            encode.push(VideoFrame.from_array(picture, time_ns=n * FRAME_NS, duration_ns=FRAME_NS), "video")
        encode.finish()
        packets = encode.payloads("packets")
    assert sum(len(packet.data) for packet in packets[10:20]) * 8 * 3 < 1_000_000
    assert sum(len(packet.data) for packet in packets[30:]) * 8 * 3 < 1_000_000


def test_a_reload_of_the_bitrate_comes_before_the_target_and_one_of_something_else_does_not() -> None:
    with Harness(HwEncode, {"bitrate": "1M"}, name="encode") as encode:
        node = encode.node
        assert isinstance(node, HwEncode)
        encode.push(targets(encode=300_000), "targets")
        encode.reconfigure(keyframe_interval="5s")
        assert node._aim.bitrate_bps == 300_000
        encode.reconfigure(bitrate="800k")
        assert node._aim.bitrate_bps == 800_000


def test_a_paused_encoder_encodes_nothing_and_goes_on_with_a_keyframe() -> None:
    def told(is_paused: bool) -> Record[Targets]:
        return Record(Targets({}, rest=Target(300_000, paused=is_paused)), 0)

    with Harness(HwEncode, {"bitrate": "1M", "keyframe_interval": "60s"}, name="encode", threads=True) as encode:
        assert len(encode.push(make_frame(0), "video")) == 1
        encode.push(told(True), "targets")
        assert (encode.facts["bitrate_bps"], encode.facts["paused"]) == (None, "by its target")
        assert [encode.push(make_frame(n), "video") for n in range(1, 4)] == [[], [], []]
        encode.push(told(False), "targets")
        assert (encode.facts["bitrate_bps"], encode.facts["paused"]) == (300_000, None)
        (first,) = encode.push(make_frame(4), "video")
        (second,) = encode.push(make_frame(5), "video")
        assert (first.keyframe, second.keyframe) == (True, False)


def test_a_target_that_names_no_size_or_rate_takes_what_comes_again() -> None:
    def told(**target: Any) -> Record[Targets]:
        return Record(Targets({"encode": Target(500_000, **target)}), 0)

    with Harness(HwEncode, {"bitrate": "1M"}, name="encode", threads=True) as encode:

        def shown(first: int) -> tuple[int, int | None]:
            frames = [VideoFrame.from_array(grey(), time_ns=n * FRAME_NS) for n in range(first, first + 30)]
            packets = [each for frame in frames for each in encode.push(frame, "video") if not isinstance(each, Record)]
            return len(packets), packets[-1].caps.width

        width = grey().shape[1]
        assert shown(0) == (30, width)
        encode.push(told(size=Size(width // 2, width // 2), fps=10.0), "targets")
        assert shown(30) == (10, width // 2)
        encode.push(told(), "targets")
        assert shown(60) == (30, width)


def test_a_record_of_something_else_is_refused() -> None:
    with (
        Harness(HwEncode, name="encode") as encode,
        pytest.raises(NegotiationError, match=r"encode\.targets takes records of Targets, but was given int"),
    ):
        encode.push(Record(5, 0), "targets")


# --- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height", [48, 50, 270])
@pytest.mark.parametrize("format", ["yuv420p", "nv12", "bgr24", "bgr0"])
def test_every_row_of_any_even_height_is_encoded(format: str, height: int) -> None:
    picture = np.zeros((height, 64, 3), np.uint8)
    picture[:] = (20, 60, 200)
    picture[-16:] = (200, 60, 20)
    with Harness(HwEncode, {"bitrate": "5M"}) as encode:
        encode.push(VideoFrame.from_array(picture, time_ns=0).writable(format), "video")
        encode.finish()
        (frame,) = decoded(encode.payloads("packets"))
    assert (frame.width, frame.height) == (64, height)
    off = np.abs(frame.reformat(format="bgr24").to_ndarray().astype(int) - picture)
    assert max(off[: height - 24].max(), off[-8:].max()) <= 16
