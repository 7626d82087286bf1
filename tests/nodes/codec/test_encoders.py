"""The list of encoders: which are tried, what they say when they do not open, and what happens when one fails."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowstream import EncodedPacket, FlowstreamError, KeyframeRequest, VideoFrame
from flowstream.testing import Harness
from flowstream_nodes.codec import _choice, encoders, probing
from flowstream_nodes.codec._ffmpeg import open_encoder
from flowstream_nodes.codec.encoders import CANDIDATES, Candidate, EncoderSettings, OpenEncoder
from flowstream_nodes.codec.hw_encode import HwEncode

FRAME_NS = 33_333_333
X264 = next(each for each in CANDIDATES if each.name == "libx264")


class Dying:
    """An encoder that works for so many pictures and then raises."""

    def __init__(self, settings: EncoderSettings, *, pictures: int) -> None:
        self._real = open_encoder(X264, settings)
        self._left = pictures

    @property
    def interval_ns(self) -> int | None:
        return self._real.interval_ns

    @property
    def nominal_ns(self) -> int:
        return self._real.nominal_ns

    @property
    def is_outgrown(self) -> bool:
        return False

    def set_bitrate(self, bitrate_bps: int, /) -> bool:
        return self._real.set_bitrate(bitrate_bps)

    def encode(self, picture: Any, tag: Any, /, *, time_ns: int, keyframe: bool) -> list[tuple[Any, Any]]:
        self._left -= 1
        if self._left < 0:
            raise ValueError("chip failed: the device is gone")
        return self._real.encode(picture, tag, time_ns=time_ns, keyframe=keyframe)

    def flush(self) -> list[tuple[Any, Any]]:
        return []


def chip(*, pictures: int = 90, codec: encoders.Codec = "h264") -> Candidate:
    def opened(settings: EncoderSettings) -> OpenEncoder:
        return Dying(settings, pictures=pictures)

    return Candidate("chip", codec, is_hardware=True, open=opened)


@pytest.fixture
def listed() -> Iterator[list[Candidate]]:
    """The public list, put back afterwards; what was said is forgotten."""
    before = list(CANDIDATES)
    _choice._said.clear()
    yield CANDIDATES
    CANDIDATES[:] = before
    _choice._said.clear()


def give(encode: Harness[Any], index: int) -> list[EncodedPacket]:
    array = np.full((48, 64, 3), 40 + index % 50, np.uint8)
    frame = VideoFrame.from_array(array, time_ns=index * FRAME_NS, capture_ns=7_000 + index, duration_ns=FRAME_NS)
    return [each for each in encode.push(frame, "video") if isinstance(each, EncodedPacket)]


def give_all(encode: Harness[Any], indices: range) -> None:
    for index in indices:
        give(encode, index)


def test_hardware_is_preferred_and_left_at_the_picture_at_which_it_fails(
    listed: list[Candidate], caplog: pytest.LogCaptureFixture
) -> None:
    listed.insert(0, chip())
    with caplog.at_level(logging.INFO), Harness(HwEncode, {"keyframe_interval": "60s"}, name="encode") as encode:
        for index in range(120):
            (packet,) = give(encode, index)
            assert packet.capture_ns == 7_000 + index
            assert packet.keyframe == (index in (0, 90)), "one picture on, it goes on by the next, with a keyframe"
            assert encode.facts["encoder"] == ("chip" if index < 90 else "libx264")
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        "chip failed: the device is gone; going on with libx264"
    ]


def test_why_each_was_passed_over_is_said_once(listed: list[Candidate], caplog: pytest.LogCaptureFixture) -> None:
    def refuse(settings: EncoderSettings) -> OpenEncoder:
        raise ValueError("no licence for it")

    listed.insert(0, Candidate("first", "h264", is_hardware=True, open=refuse))
    listed.insert(1, Candidate("second", "h264", is_hardware=True, platforms=("amiga",), open=refuse))
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            with Harness(HwEncode, name="encode") as encode:
                assert len(give(encode, 0)) == 1
    (said,) = [r.getMessage() for r in caplog.records if "on the processor" in r.getMessage()]
    assert said.startswith("h264 is encoded by libx264, on the processor (first: no licence for it")
    assert "second" not in said, "what is for another system was not passed over"


def test_where_all_fail_it_says_so_with_the_way_out(listed: list[Candidate]) -> None:
    listed[:] = [chip(pictures=5)]
    with Harness(HwEncode, name="encode") as encode:
        for index in range(2):  # the trial is another instance
            give(encode, index)
        with pytest.raises(FlowstreamError, match="encode cannot encode h264: chip failed: the device is gone") as end:
            give_all(encode, range(2, 9))
    assert end.value.hint == "flowstream doctor shows the encoders of this machine; encoder: auto takes any of them"


def test_an_encoder_asked_for_by_name_is_taken_or_nothing(listed: list[Candidate]) -> None:
    listed.insert(0, chip(pictures=3))
    with Harness(HwEncode, {"encoder": "libx264"}, name="encode") as encode:
        give(encode, 0)
        assert encode.facts["encoder"] == "libx264"
    with Harness(HwEncode, {"encoder": "chip"}, name="encode") as encode, pytest.raises(FlowstreamError):
        give_all(encode, range(4))


def test_a_picture_too_small_for_an_encoder_goes_to_the_next(listed: list[Candidate]) -> None:
    small = Candidate("large-only", "h264", is_hardware=True, least=encoders.Size(400, 300), open=lambda s: 1 / 0)  # type: ignore[arg-type, return-value]
    listed.insert(0, small)
    with Harness(HwEncode, name="encode") as encode:
        assert len(give(encode, 0)) == 1
        assert encode.facts["encoder"] == "libx264"


# --- what opens -----------------------------------------------------------------------------------------------------


def test_software_encoders_open_here() -> None:
    found = {each.candidate.name: each for each in probing.find(CANDIDATES, cache=None) if each.opens}
    assert {"libx264", "libx265", "libvpx", "libvpx-vp9", "libsvtav1"} <= set(found)


@pytest.mark.skipif(sys.platform != "linux", reason="devices are files on Linux only")
def test_what_is_not_there_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_child", lambda names: pytest.fail(f"tried {names}"))
    wanted = [
        Candidate("h264_nvenc", "h264", is_hardware=True, devices=("/dev/no-such-device*",)),
        Candidate("h264_qsv", "h264", is_hardware=True, platforms=("win32",)),
        Candidate("h264_unheard_of", "h264", is_hardware=True),
    ]
    assert [each.reason for each in probing.find(wanted, cache=None)] == [
        "no /dev/no-such-device*", "not for this system", "not in this build of FFmpeg",
    ]  # fmt: skip


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was given to child processes; the encoders are said to work but for nvenc."""
    asked: list[list[str]] = []

    def child(names: list[str]) -> tuple[dict[str, str], str]:
        asked.append(names)
        return {name: "no driver" if "nvenc" in name else "" for name in names}, ""

    monkeypatch.setattr(probing, "_child", child)
    return asked


WANTED = [Candidate("h264_nvenc", "h264", is_hardware=True), Candidate("h264_qsv", "h264", is_hardware=True)]


def test_what_was_found_is_kept_for_the_machine_and_its_driver(
    tmp_path: Path, tried: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "a" / "encoders.json"
    for _ in range(2):
        assert [each.reason for each in probing.find(WANTED, cache=cache)] == ["no driver", ""]
    assert tried == [["h264_nvenc", "h264_qsv"]]
    probing.find(WANTED, cache=cache, afresh=True)
    assert len(tried) == 2
    other = {**probing.machine(), "driver": "595.1"}
    monkeypatch.setattr(probing, "machine", lambda: other)
    probing.find(WANTED, cache=cache)
    assert len(tried) == 3
    assert json.loads(cache.read_text())["for"]["driver"] == "595.1"


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"for": 1}', b'{"for": null, "reasons": []}'])
def test_a_broken_cache_is_no_cache(tmp_path: Path, tried: list[list[str]], content: bytes) -> None:
    cache = tmp_path / "encoders.json"
    cache.write_bytes(content)
    assert len(probing.find(WANTED, cache=cache)) == 2
    assert tried == [["h264_nvenc", "h264_qsv"]]


def test_where_nothing_can_be_kept_it_is_tried_again(tmp_path: Path, tried: list[list[str]]) -> None:
    (tmp_path / "file").write_text("")
    for _ in range(2):
        probing.find(WANTED, cache=tmp_path / "file" / "encoders.json")
    assert len(tried) == 2


@pytest.mark.parametrize(
    ("environ", "expected"),
    [({"XDG_CACHE_HOME": "/x/y"}, "/x/y/flowstream/encoders.json")],
)
def test_the_cache_is_in_the_users_folder(environ: dict[str, str], expected: str) -> None:
    assert probing.cache_file(environ).as_posix() == expected


def test_hardware_is_tried_in_a_process_of_its_own_and_gives_the_drivers_reason() -> None:
    reasons = probing._tried_in_child(["libx264", "h264_no_such_encoder", "libvpx"])
    assert reasons["libx264"] == reasons["libvpx"] == ""
    assert reasons["h264_no_such_encoder"] == "the trial failed"


def test_a_driver_that_ends_the_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = iter([({"a": ""}, "its driver ended the process (signal 11)"), ({"c": "no"}, "")])
    monkeypatch.setattr(probing, "_child", lambda names: next(ends))
    assert probing._tried_in_child(["a", "b", "c"]) == {
        "a": "", "b": "its driver ended the process (signal 11)", "c": "no",
    }  # fmt: skip


def test_a_signal_in_a_child_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho \'["a", ""]\'\necho noise\nkill -SEGV $$\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert probing._child(["a", "b"]) == ({"a": ""}, "its driver ended the process (signal 11)")


# --- codecs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp8", "vp9", "av1"])
def test_every_codec_answers_a_request_with_one_keyframe_and_gives_each_packet_at_once(codec: str) -> None:
    with Harness(HwEncode, {"codec": codec, "keyframe_interval": "60s", "bitrate": "500k"}, name="encode") as encode:
        packets: list[EncodedPacket] = []
        for index in range(12):
            if index == 6:
                encode.request("packets", KeyframeRequest())
                encode.request("packets", KeyframeRequest("another viewer"))
            array = np.full((96, 128, 3), 40 + index, np.uint8)
            frame = VideoFrame.from_array(array, time_ns=index * FRAME_NS, duration_ns=FRAME_NS, capture_ns=index)
            (packet,) = encode.push(frame, "video")
            packets.append(packet)
        assert encode.finish() == []
    assert [each.keyframe for each in packets] == [index in (0, 6) for index in range(12)]
    assert [each.capture_ns for each in packets] == list(range(12))
    assert {each.caps.codec for each in packets} == {codec}
    assert len({id(each.caps) for each in packets}) == 1
    if codec == "hevc":
        assert packets[0].caps.extradata is not None
        assert [unit[0] >> 1 for unit in packets[0].caps.extradata.split(b"\x00\x00\x00\x01")[1:]] == [32, 33, 34]


@pytest.mark.parametrize("codec", ["hevc", "vp8", "vp9", "av1"])
def test_a_codec_whose_encoder_is_not_steered_opens_anew_for_a_target(codec: str) -> None:
    from flowstream import Record, Target, Targets

    noise = np.random.default_rng(5).integers(0, 255, (60, 96, 128, 3), np.uint8)
    sizes: list[int] = []
    keyframes: list[int] = []
    with Harness(HwEncode, {"codec": codec, "keyframe_interval": "60s", "bitrate": "800k"}, name="encode") as encode:
        for index in range(150):
            if index == 60:
                encode.push(Record(Targets({"encode": Target(150_000)}), 0), "targets")
            if index == 75:
                encode.push(Record(Targets({"encode": Target(152_000)}), 0), "targets")
            frame = VideoFrame.from_array(noise[index % 60], time_ns=index * FRAME_NS, duration_ns=FRAME_NS)
            for each in encode.push(frame, "video"):
                if isinstance(each, EncodedPacket):
                    sizes.append(len(each.data))
                    if each.keyframe:
                        keyframes.append(index)
    assert keyframes == [0, 60], "at once for less, since it opened two seconds ago, and not for a percent more"
    assert sum(sizes[100:]) / 50 < 0.5 * sum(sizes[20:60]) / 40


@pytest.mark.parametrize("codec", ["hevc", "vp8", "vp9", "av1"])
def test_the_plan_says_that_another_bitrate_takes_a_new_encoder(codec: str) -> None:
    opened, new = (HwEncode.config_class.model_validate({"codec": codec, "bitrate": rate}) for rate in ("1M", "900k"))
    said = HwEncode.updates_in_place(opened, new)
    assert said == f"an encoder of {codec} takes no other bitrate while it is open; the new one begins with a keyframe"
    with Harness(HwEncode, {"codec": codec, "bitrate": "1M"}) as encode, pytest.raises(ValueError, match=str(said)):
        encode.node.accepts(new)


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("codec", ["vp8", "vp9"])
def test_packets_of_higher_temporal_layers_can_be_left_out(codec: str, layers: int) -> None:
    import av

    noise = np.random.default_rng(7)
    texture = np.kron(noise.integers(0, 255, (20, 24, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    config = {"codec": codec, "temporal_layers": layers, "bitrate": "600k", "keyframe_interval": "60s"}
    with Harness(HwEncode, config, name="encode") as encode:
        for index in range(24):
            if index == 9:  # in the middle of the pattern, which begins again
                encode.request("packets")
            picture = np.ascontiguousarray(np.roll(texture, 3 * index, axis=1))
            encode.push(VideoFrame.from_array(picture, time_ns=index * FRAME_NS, duration_ns=FRAME_NS), "video")
        packets = encode.payloads("packets")
    pattern = {2: [0, 1], 3: [0, 2, 1, 2]}[layers]
    assert [each.temporal_layer for each in packets[:9]] == [pattern[i % len(pattern)] for i in range(9)]
    assert [each.temporal_layer for each in packets[9:]] == [pattern[i % len(pattern)] for i in range(15)]
    assert [each.is_droppable for each in packets[:2]] == [False, True]

    def shown(up_to: int) -> dict[int, bytes]:
        context: Any = av.CodecContext.create(codec, "r")
        pictures: dict[int, bytes] = {}
        for packet in packets:
            if packet.temporal_layer <= up_to:
                for frame in context.decode(packet.to_av()):
                    pictures[packet.time_ns] = frame.to_ndarray().tobytes()
        return pictures

    whole = shown(layers)
    for up_to in range(layers):
        part = shown(up_to)
        assert len(part) == sum(each.temporal_layer <= up_to for each in packets)
        assert all(whole[time_ns] == picture for time_ns, picture in part.items()), "bit for bit the same"


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp8", "vp9", "av1"])
def test_no_encoder_writes_to_the_terminal(codec: str) -> None:
    # In a process of its own: SVT-AV1 asks once whether it may, when it is first used, whoever uses it.
    script = f"""if True:
        import numpy as np
        from flowstream import VideoFrame
        from flowstream.testing import Harness
        from flowstream_nodes.codec.hw_encode import HwEncode

        with Harness(HwEncode, {{"codec": {codec!r}}}) as encode:  # which closes it without the end of its input
            encode.push(VideoFrame.from_array(np.zeros((96, 128, 3), np.uint8), time_ns=0), "video")
            assert encode.facts["encoder"]
    """
    variables = {name: value for name, value in os.environ.items() if name != "SVT_LOG"}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=variables, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no such scheduling")
def test_no_thread_is_left_in_real_time_by_an_encoder() -> None:
    """SVT-AV1 makes threads of root real-time ones, which starve all others."""

    def policies() -> set[int]:
        return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}

    before = policies()
    with Harness(HwEncode, {"codec": "av1", "encoder": "libsvtav1"}) as encode:
        encode.push(VideoFrame.from_array(np.zeros((96, 128, 3), np.uint8), time_ns=0), "video")
        assert encode.facts["encoder"] == "libsvtav1"
        assert policies() == before
    assert policies() == before
