"""hw-encode while it runs: presets and what overrides them, size, frame rate, content, and what it measures."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from flowstream import EncodedCaps, EncodedPacket, EncoderStats, Record, Size, Target, Targets, VideoCaps, VideoFrame
from flowstream.graph import compile_graph
from flowstream.node.registry import Registry
from flowstream.testing import Harness
from flowstream.testing.fake_clock import FakeClock
from flowstream_nodes.codec._measuring import Measuring, Ssim, ssim
from flowstream_nodes.codec._pictures import fitted
from flowstream_nodes.codec._quality import PRESETS, ContentSense
from flowstream_nodes.codec.hw_encode import HwEncode, HwEncodeConfig

FRAME_NS = 33_333_333


def config(**given: Any) -> HwEncodeConfig:
    return HwEncodeConfig.model_validate(given)


class Stream:
    """Pictures of one size at a steady rate into one encoder."""

    def __init__(self, encode: Harness[Any], *, size: str = "320x180", format: str = "bgr24") -> None:
        self.encode = encode
        width, _, height = size.partition("x")
        self._array = np.random.default_rng(1).integers(0, 255, (int(height), int(width), 3), np.uint8)
        self._format = format
        self.time_ns = 0

    def give(self, count: int = 1, *, step_ns: int = FRAME_NS, still: bool = False) -> list[EncodedPacket]:
        packets: list[EncodedPacket] = []
        for _ in range(count):
            if not still:
                self._array = np.ascontiguousarray(np.roll(self._array, 5, axis=1))
            frame = VideoFrame.from_array(self._array, time_ns=self.time_ns, duration_ns=step_ns)
            if self._format != "bgr24":
                frame = frame.writable(self._format)
            packets += [each for each in self.encode.push(frame, "video") if isinstance(each, EncodedPacket)]
            self.time_ns += step_ns
        return packets

    @property
    def records(self) -> list[EncoderStats]:
        return [each.value for each in self.encode.payloads("stats")]


@pytest.fixture
def encode() -> Iterator[Harness[Any]]:
    with Harness(HwEncode, {"bitrate": "1M", "keyframe_interval": "60s"}, name="encode") as harness:
        yield harness


# --- presets --------------------------------------------------------------------------------------------------------


def test_a_preset_gives_size_rate_bitrate_and_speed_and_each_is_overridden() -> None:
    assert config(preset="low").aim == PRESETS["low"]
    assert config(preset="low").bitrate == 400_000
    assert config().aim == PRESETS["off"]
    over = config(preset="high", size="800x600", fps=12, bitrate="1M", speed="fast").aim
    assert (over.size, over.fps, over.bitrate_bps, over.speed) == (Size(800, 600), 12, 1_000_000, "fast")
    assert config(preset="low", size="source", fps="source").aim == replace(PRESETS["low"], size=None, fps=None)


def test_presets_grow() -> None:
    order = [PRESETS[name] for name in ("low", "medium", "high", "ultra")]
    for less, more in itertools.pairwise(order):
        assert less.size is not None
        assert more.size is not None
        assert less.fps is not None
        assert more.fps is not None
        assert (less.size, less.fps, less.bitrate_bps) < (more.size, more.fps, more.bitrate_bps)
        assert less.fps <= more.fps


def test_the_settings_describe_every_preset() -> None:
    told = HwEncodeConfig.model_fields["preset"].description or ""
    assert all(f"{name} is {preset}" in told for name, preset in PRESETS.items())


def test_a_lower_preset_is_taken_while_it_runs(encode: Harness[Any]) -> None:
    stream = Stream(encode, size="1280x720")
    assert stream.give()[0].caps.width == 1280
    encode.reconfigure_to(config(preset="low", keyframe_interval="60s", bitrate="400k"))
    packets = stream.give(30)
    assert len(packets) == 15
    assert packets[0].keyframe
    assert not any(each.keyframe for each in packets[1:])
    assert {(each.caps.width, each.caps.height) for each in packets} == {(640, 360)}


@pytest.mark.parametrize(
    ("size", "bound", "expected"),
    [
        ((1920, 1080), Size(1280, 720), (1280, 720)),
        ((1080, 1920), Size(1280, 720), (720, 1280)),
        ((1920, 1080), Size(640, 640), (640, 360)),
        ((640, 480), Size(1280, 720), (640, 480)),
        ((4096, 100), Size(640, 360), (640, 16)),
        ((641, 361), None, (640, 360)),
        ((1921, 3), Size(64, 64), (64, 2)),
    ],
)
def test_a_size_is_a_bound(size: tuple[int, int], bound: Size | None, expected: tuple[int, int]) -> None:
    assert fitted(*size, bound) == expected


def test_the_plan_is_told_the_size() -> None:
    given = {"video": VideoCaps(format="yuv420p", width=1920, height=1080)}
    assert HwEncode.negotiate(config(preset="medium", codec="vp9"), given) == {
        "packets": EncodedCaps(codec="vp9", width=1280, height=720)
    }


@pytest.mark.parametrize("format", ["bgr24", "bgra", "bgr0", "rgb24", "yuv420p", "nv12", "gray"])
@pytest.mark.parametrize("without_cv2", [False, True])
def test_a_smaller_picture_shows_the_same(format: str, without_cv2: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    picture = np.zeros((360, 640, 3), np.uint8)
    picture[:, :320] = (200, 60, 30) if format != "gray" else (90, 90, 90)
    picture[:, 320:] = (30, 140, 220) if format != "gray" else (190, 190, 190)
    frame = VideoFrame.from_array(picture, time_ns=0).writable(format)
    if without_cv2:
        monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with Harness(HwEncode, {"size": "320x180", "bitrate": "4M"}) as encode:
        (packet,) = encode.push(frame, "video")
    decoder: Any = av.CodecContext.create("h264", "r")
    shown = (decoder.decode(packet.to_av()) + decoder.decode(None))[0].to_ndarray(format="bgr24").astype(int)
    assert shown.shape == (180, 320, 3)
    for column, source in ((40, 80), (280, 560)):
        assert np.abs(shown[90, column] - picture[180, source]).max() <= 12


# --- while it runs --------------------------------------------------------------------------------------------------


def test_the_frame_rate_changes_in_place_and_without_a_keyframe(encode: Harness[Any]) -> None:
    stream = Stream(encode)
    assert len(stream.give(30)) == 30
    encode.reconfigure(fps=10.0)
    thinned = stream.give(60)
    assert len(thinned) == 20
    assert {round((b.time_ns - a.time_ns) / 1e6) for a, b in itertools.pairwise(thinned)} == {100}
    assert {each.duration_ns for each in thinned} == {100_000_000}
    encode.reconfigure(fps="source")
    assert len(stream.give(30)) == 30
    assert sum(each.keyframe for each in encode.payloads("packets")) == 1


def test_a_rate_that_comes_is_not_thinned_by_its_own_jitter(encode: Harness[Any]) -> None:
    encode.reconfigure(fps=30.0)
    stream = Stream(encode)
    for late_ns in itertools.islice(itertools.cycle((-3_000_000, 2_000_000, 0, 1_000_000)), 100):
        stream.time_ns += late_ns
        assert len(stream.give(1, step_ns=FRAME_NS)) == 1
        stream.time_ns -= late_ns


def test_targets_steer_frame_rate_and_size_until_a_reload_of_them(encode: Harness[Any]) -> None:
    stream = Stream(encode, size="640x360")
    stream.give(10)
    encode.push(Record(Targets({"encode": Target(300_000, fps=15.0, size=Size(320, 180))}), 0), "targets")
    packets = stream.give(30)
    assert len(packets) == 15
    assert [each.keyframe for each in packets] == [True] + 14 * [False]
    assert {each.caps.height for each in packets} == {180}
    encode.reconfigure(stats_interval="2s")
    assert len(stream.give(30)) == 15
    encode.push(Record(Targets({"encode": Target(300_000, fps=15.0)}), 0), "targets")
    assert {each.caps.height for each in stream.give(30)} == {360}, "what a target leaves open is as the settings say"
    encode.reconfigure(bitrate="900k")
    packets = stream.give(30)
    assert len(packets) == 30
    assert {each.caps.height for each in packets} == {360}


def test_a_target_never_asks_for_more_frames_than_the_settings(encode: Harness[Any]) -> None:
    encode.reconfigure(fps=10.0)
    encode.push(Record(Targets({"encode": Target(300_000, fps=60.0)}), 0), "targets")
    assert len(Stream(encode).give(30)) == 10


@pytest.mark.parametrize("change", [{"speed": "veryfast"}, {"content": "text"}, {"intra_refresh": True}])
def test_what_only_a_new_encoder_can_change_begins_with_one_keyframe(
    encode: Harness[Any], change: dict[str, Any]
) -> None:
    stream = Stream(encode)
    stream.give(5)
    node = encode.node
    assert HwEncode.updates_in_place(node.config, config(**{**node.config.model_dump(), **change})) is True
    encode.reconfigure(**change)
    assert [each.keyframe for each in stream.give(5)] == [True] + 4 * [False]


def test_intra_refresh_spreads_what_a_keyframe_costs() -> None:
    with Harness(HwEncode, {"bitrate": "600k", "intra_refresh": True}) as encode:
        stream = Stream(encode)
        packets = stream.give(240)
        assert [each.keyframe for each in packets] == [True] + 239 * [False]
        encode.request("packets")
        assert stream.give()[0].keyframe, "who joins gets one"


# --- content --------------------------------------------------------------------------------------------------------


def looked(frames: Any) -> list[str | None]:
    sense, said = ContentSense(), []
    for index, array in enumerate(frames):
        sense.look(VideoFrame.from_array(array, time_ns=index * 100_000_000))
        said.append(sense.content)
    return said


def test_text_is_told_from_a_camera() -> None:
    rng = np.random.default_rng(2)
    page = np.kron(rng.integers(0, 2, (90, 160, 1), np.uint8) * 255, np.ones((2, 2, 3), np.uint8))

    def typed() -> Iterator[np.ndarray[Any, Any]]:
        for index in range(40):
            page[index : index + 4, 10:60] = index * 5
            yield page.copy()

    def noisy() -> Iterator[np.ndarray[Any, Any]]:
        for _ in range(40):
            yield (page // 2 + rng.integers(0, 12, page.shape, np.uint8)).astype(np.uint8)

    assert looked(typed())[19:22] == [None, "text", "text"]
    assert looked(noisy())[19:22] == [None, "camera", "camera"]
    assert looked(itertools.chain(typed(), noisy()))[-1] == "camera"


def test_every_format_can_be_looked_at() -> None:
    for format in ("yuv420p", "nv12", "bgr0", "gray"):
        sense = ContentSense()
        for index in range(25):
            frame = VideoFrame.from_array(np.full((48, 64, 3), 9, np.uint8), time_ns=index * 100_000_000)
            sense.look(frame.writable(format))
        assert sense.content == "text", format


def test_auto_changes_to_text_at_a_keyframe_that_comes_anyway() -> None:
    with Harness(HwEncode, {"bitrate": "1M"}, name="encode") as encode:
        stream = Stream(encode)
        packets = stream.give(240, still=True)
        times = [each.time_ns / 1e9 for each in packets if each.keyframe]
        assert times == pytest.approx([0, 4], abs=0.1), "every 4 s from when it is known to be text"
        node = encode.node
        assert isinstance(node, HwEncode)
        assert node._opened is not None
        assert node._opened.settings.content == "text"


# --- overload -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "written", "items"),
    [("test-pattern", "from: a", 1), ("test-pattern", "from: {output: a, limit: {items: 5}}", 5)],
)
def test_one_picture_waits_before_it_on_a_live_graph(source: str, written: str, items: int) -> None:
    text = f"nodes: {{a: {{type: {source}}}, b: {{type: hw-encode, {written}}}, c: {{type: discard, from: b}}}}"
    plan = compile_graph(
        "g.yaml", read=lambda _: text.encode(), environ={}, registry=Registry.installed(),
        wallclock=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    (edge,) = [each for each in plan.edges if each.name == "b.video"]
    assert (edge.overflow, edge.limit.items) == ("drop-oldest", items)


# --- measuring ------------------------------------------------------------------------------------------------------


def test_a_record_a_second_says_what_was_done(encode: Harness[Any]) -> None:
    stream = Stream(encode)
    packets = stream.give(95)
    records = stream.records
    assert [each.frames for each in records] == [30, 30, 30]
    last = records[-1]
    assert (last.encoder, last.size, last.overload, last.ssim) == ("encode", Size(320, 180), False, None)
    assert last.fps == pytest.approx(30, rel=0.04)
    assert last.frame_budget_ms == pytest.approx(33.333, abs=0.01)
    sizes = sum(len(each.data) for each in packets[60:90]) * 8
    assert last.bitrate == pytest.approx(sizes, rel=0.08)
    assert last.qp_mean is not None
    assert 0 < last.qp_mean <= 51
    assert 0 < last.cpu_share < 1
    assert encode.facts["qp"] == last.qp_mean


def test_the_interval_and_the_sample_change_in_place(encode: Harness[Any]) -> None:
    stream = Stream(encode)
    stream.give(40)
    encode.reconfigure(stats_interval="200ms", ssim=True)
    encode.request("packets")
    stream.give(60)
    sampled = [each.ssim for each in stream.records if each.ssim is not None]
    assert len(sampled) >= 7
    assert all(0 < each < 1 for each in sampled)
    encode.reconfigure(ssim=False)
    stream.give(30)
    assert stream.records[-1].ssim is None


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp8", "vp9", "av1"])
def test_quality_is_measured_of_every_codec(codec: str) -> None:
    with Harness(HwEncode, {"codec": codec, "bitrate": "3M", "ssim": True}, name="encode") as encode:
        stream = Stream(encode)
        stream.give(70, still=True)
        assert stream.records[-1].ssim is not None
        assert stream.records[-1].ssim > 0.9, "a still picture is sharp after two seconds"


def test_taking_longer_than_a_picture_stands_is_overload(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    with (
        caplog.at_level(logging.INFO),
        Harness(HwEncode, {"bitrate": "1M"}, name="encode", clock=clock) as encode,
    ):
        node = encode.node
        assert isinstance(node, HwEncode)
        stream = Stream(encode)
        stream.give(1)
        real = node._pictures.prepare

        def slow(*given: Any) -> Any:
            clock.step(45_000_000)
            return real(*given)

        node._pictures.prepare = slow  # type: ignore[method-assign]
        # It gets every second picture: the others are dropped while it is at work.
        for _ in range(40):
            stream.give(1)
            stream.time_ns += FRAME_NS
        last = stream.records[-1]
        assert last.overload
        assert last.frame_budget_ms == pytest.approx(33.333, abs=0.01)
        assert last.encode_ms_mean == pytest.approx(45, abs=0.1)
        assert last.encode_ms_p95 == pytest.approx(45, abs=0.1)
        assert last.fps == pytest.approx(15, rel=0.1)
        said = [each.getMessage() for each in caplog.records if "encoding takes" in each.getMessage()]
        assert said == [
            "encoding takes up to 45 ms for a picture, and they come every 33 ms: some are dropped before it; "
            "a smaller size, a lower fps or a faster speed helps"
        ], "once, while it lasts"
        node._pictures.prepare = real  # type: ignore[method-assign]
        stream.give(70)
        assert not stream.records[-1].overload


def test_nothing_encoded_gives_no_record() -> None:
    measuring = Measuring()
    measuring.begin(0)
    assert measuring.close(10, encoder="x", size=Size(2, 2), ssim=None) is None


def test_ssim_is_that_of_ffmpeg() -> None:
    rng = np.random.default_rng(4)
    one = np.kron(rng.integers(0, 255, (30, 40), np.uint8), np.ones((4, 4), np.uint8))
    other = np.clip(one.astype(int) + rng.integers(-20, 20, one.shape), 0, 255).astype(np.uint8)
    assert ssim(one, one) == 1
    assert ssim(one, other) == pytest.approx(by_ffmpeg(one, other), abs=0.002)
    assert ssim(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)) == 1


def by_ffmpeg(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """What FFmpeg's filter says of the two, of their brightness."""
    import av
    from av.filter import Graph

    graph: Any = Graph()
    height, width = one.shape
    sources = [
        graph.add_buffer(width=width, height=height, format=av.VideoFormat("gray"), time_base=Fraction(1, 30))
        for _ in range(2)
    ]
    measure, sink = graph.add("ssim"), graph.add("buffersink")
    for index, source in enumerate(sources):
        source.link_to(measure, 0, index)
    measure.link_to(sink)
    graph.configure()
    for source, array in zip(sources, (one, other), strict=True):
        frame = av.VideoFrame.from_ndarray(array, format="gray")
        frame.pts = 0
        source.push(frame)
        source.push(None)
    metadata: dict[str, str] = graph.pull().metadata
    return float(metadata["lavfi.ssim.Y"])


def test_a_sampler_that_begins_in_the_middle_says_nothing_before_a_keyframe() -> None:
    import av

    with Harness(HwEncode, {"bitrate": "1M"}, name="encode") as encode:
        packets = Stream(encode).give(3)
    sampler = Ssim("h264")
    sampler.original(av.VideoFrame(320, 180, "yuv420p"))
    for packet in packets[1:]:
        sampler.decode(av.Packet(packet.data))
    assert sampler.value is None


def test_records_say_what_the_pictures_seem_to_show(encode: Harness[Any]) -> None:
    stream = Stream(encode)
    stream.give(40)
    assert stream.records[-1].content is None, "too few to say"
    stream.give(100, still=True)
    assert stream.records[-1].content == "text"
    encode.reconfigure_to(config(content="motion", keyframe_interval="60s", bitrate="1M"))
    stream.give(40)
    assert stream.records[-1].content == "motion"
