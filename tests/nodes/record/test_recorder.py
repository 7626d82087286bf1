"""recorder: files that FFmpeg reads, in sync, whole up to the last fragment, never over another file."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowstream import AudioFrame, EncodedPacket, FlowstreamError, PeerError, VideoFrame
from flowstream.testing.harness import Harness
from flowstream_nodes.codec.hw_encode import HwEncode
from flowstream_nodes.codec.opus_encode import OpusEncode
from flowstream_nodes.record.recorder import Recorder, RecorderConfig

S = 1_000_000_000
FRAME_NS = 33_333_333


@cache
def pictures(*, width: int = 64, start_ns: int = 0, seconds: float = 3.0, keyframe_interval: str = "60s") -> Any:
    """Encoded pictures: black, and white in the first tenth of every second."""
    config = {"bitrate": "200k", "keyframe_interval": keyframe_interval, "threads": 1}
    with Harness(HwEncode, config) as encode:
        for time_ns in range(start_ns, start_ns + int(seconds * S), FRAME_NS):
            level = 255 if time_ns % S < S // 10 else 0
            array = np.full((48, width, 3), level, np.uint8)
            encode.push(VideoFrame.from_array(array, time_ns=time_ns, duration_ns=FRAME_NS))
        return tuple(encode.payloads("packets"))


@cache
def sound(*, start_ns: int = 0, seconds: float = 3.0, layout: str = "stereo") -> Any:
    """Encoded sound: silence, and a tone in the first tenth of every second."""
    with Harness(OpusEncode) as encode:
        for time_ns in range(start_ns, start_ns + int(seconds * S), S // 100):
            samples = np.arange(480) + time_ns * 48_000 // S
            wave = np.where((samples % 48_000) < 4_800, np.sin(samples * 2 * np.pi * 1_000 / 48_000), 0)
            array = np.tile(wave.astype(np.float32), (2 if layout == "stereo" else 1, 1))
            encode.push(AudioFrame.from_array(array, rate=48_000, layout=layout, time_ns=time_ns))
        encode.finish()
        return tuple(encode.payloads())


def merged(*sequences: Any) -> Iterator[EncodedPacket]:
    return iter(sorted((packet for sequence in sequences for packet in sequence), key=lambda packet: packet.time_ns))


class Recording(Harness[RecorderConfig]):
    """The node, fed with pictures and sound of one timeline."""

    def __init__(self, path: Path, *, connected: tuple[str, ...] = ("video", "audio")) -> None:
        super().__init__(Recorder, {"path": str(path)}, name="tape", connected=connected)

    def give(self, *sequences: Any) -> None:
        for packet in merged(*sequences):
            self.push(packet, "video" if packet.is_video else "audio")


def probe(path: Path) -> dict[str, dict[str, Any]]:
    """What ffprobe says of the streams, by type; with packet times."""
    done = subprocess.run(
        ["ffprobe", "-v", "warning", "-show_streams", "-show_packets", "-of", "json", str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    found = json.loads(done.stdout)
    streams = {stream["codec_type"]: stream for stream in found["streams"]}
    for kind, stream in streams.items():
        stream["times"] = [float(p["pts_time"]) for p in found["packets"] if p["codec_type"] == kind]
    return streams


def decode_errors(path: Path) -> str:
    """What ffmpeg complains of while it decodes the whole file."""
    as_they_are = ["-fps_mode", "passthrough", "-enc_time_base", "-1"]
    command = ["ffmpeg", "-v", "warning", "-i", str(path), *as_they_are, "-f", "null", "-"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    # FFmpeg 5 knows no other way to say it than the one that FFmpeg 7 regrets.
    return "".join(line for line in told.splitlines(keepends=True) if "-enc_time_base -1 is deprecated" not in line)


def boxes(data: bytes) -> list[str]:
    """The top-level boxes (ISO 14496-12 section 4.2); raises AssertionError when the last one is not whole."""
    found, position = [], 0
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        found.append(data[position + 4 : position + 8].decode("ascii"))
        assert size >= 8
        position += size
    assert position == len(data)
    return found


@pytest.mark.real
def test_video_and_sound_in_one_file_that_ffmpeg_reads(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "tape.mp4"
    with Recording(path) as tape:
        assert [port for port, _ in tape.requests] == ["video"]  # it begins with a keyframe
        tape.give(pictures(), sound())
        tape.finish()
    streams = probe(path)
    assert decode_errors(path) == ""
    video, audio = streams["video"], streams["audio"]
    assert (video["codec_name"], video["codec_tag_string"], video["width"]) == ("h264", "avc1", 64)
    assert (audio["codec_name"], audio["sample_rate"], audio["channels"]) == ("opus", "48000", 2)
    assert video["times"] == pytest.approx([packet.time_ns / S for packet in pictures()], abs=1e-5)
    assert audio["times"] == pytest.approx([packet.time_ns / S for packet in sound()[1:]], abs=1e-4)
    assert tape.facts["left_out"] is None
    assert tape.facts["path"] == str(path)
    assert tape.facts["bytes"] == path.stat().st_size
    assert tape.facts["seconds"] == pytest.approx(3.0, abs=0.1)


@pytest.mark.real
@pytest.mark.parametrize("sound_start_ns", [0, 250_000_000])
def test_a_flash_and_a_beep_at_one_moment_stay_together(tmp_path: Path, sound_start_ns: int) -> None:
    path = tmp_path / "tape.mp4"
    with Recording(path) as tape:
        tape.give(pictures(start_ns=7 * S), sound(start_ns=7 * S + sound_start_ns))
        tape.finish()
    luma = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-vf", "scale=1:1", "-pix_fmt", "gray", "-f", "rawvideo", "-"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    flashes = [time for time, level in zip(probe(path)["video"]["times"], luma, strict=True) if level > 128]
    wave = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", path, "-af", "aresample=async=1:first_pts=0", "-ac", "1", "-f", "f32le", "-"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    loud = np.flatnonzero(np.abs(np.frombuffer(wave, np.float32)) > 0.3) / 48_000
    for second in (1.0, 2.0):
        flash = min(time for time in flashes if time > second - 0.5)
        beep = loud[loud > second - 0.5][0]
        assert flash == pytest.approx(second, abs=0.034)
        assert beep == pytest.approx(second, abs=0.008)


def test_every_second_is_handed_over_whole_even_when_keyframes_are_rare(tmp_path: Path) -> None:
    path = tmp_path / "tape.mp4"
    with Recording(path) as tape:
        for packet in merged(pictures(seconds=5.0), sound(seconds=5.0)):
            tape.push(packet, "video" if packet.is_video else "audio")
            if not path.exists():
                continue
            found = boxes(path.read_bytes())
            assert found[:2] == ["ftyp", "moov"]
            recorded = found.count("moof")
            assert recorded >= packet.time_ns // S - 1
        assert recorded >= 4


@pytest.mark.real
def test_a_gap_stays_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "tape.mp4"
    with Recording(path) as tape:
        tape.give(pictures(seconds=1.0), sound(seconds=0.5))
        tape.give(pictures(start_ns=3 * S, seconds=1.0), sound(start_ns=3 * S, seconds=1.0))
        tape.finish()
    streams = probe(path)
    for kind in ("video", "audio"):
        times = streams[kind]["times"]
        assert times == sorted(times)
        assert any(abs(time - 3.0) < 0.021 for time in times)
        assert max(b - a for a, b in itertools.pairwise(times)) > 1.9


@pytest.mark.real
@pytest.mark.parametrize("kind", ["video", "audio"])
def test_one_input_is_enough(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tape.mp4"
    with Recording(path, connected=(kind,)) as tape:
        tape.give(pictures() if kind == "video" else sound())
        tape.finish()
    assert set(probe(path)) == {kind}
    assert decode_errors(path) == ""


def test_with_no_input_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(FlowstreamError, match="tape has nothing to record"):
        Recording(tmp_path / "tape.mp4", connected=()).__enter__()


def test_nothing_came_so_there_is_no_file(tmp_path: Path) -> None:
    with Recording(tmp_path / "tape.mp4") as tape:
        tape.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
def test_it_starts_at_a_keyframe_and_asks_for_one(tmp_path: Path) -> None:
    path = tmp_path / "tape.mp4"
    late = pictures(start_ns=S, seconds=1.0)
    with Recording(path) as tape:
        tape.give(pictures(seconds=1.0)[10:], sound(seconds=2.0), late)
        assert [port for port, _ in tape.requests] == ["video", "video"]  # at once, and when none came
        tape.finish()
    assert len(probe(path)["video"]["times"]) == len(late)
    assert decode_errors(path) == ""


@pytest.mark.real
def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tape.mp4"
    path.write_bytes(b"dear")
    (tmp_path / "tape-2.mp4").write_bytes(b"too")
    with Recording(path) as tape:
        tape.give(pictures(), sound())
        tape.finish()
    assert path.read_bytes() == b"dear"
    assert (tmp_path / "tape-2.mp4").read_bytes() == b"too"
    assert "video" in probe(tmp_path / "tape-3.mp4")


@pytest.mark.real
def test_another_size_goes_on_in_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "tape.mp4"
    with Recording(path) as tape:
        tape.give(pictures(), sound(seconds=6.0), pictures(width=96, start_ns=3 * S))
        tape.finish()
    first, second = probe(path), probe(tmp_path / "tape-2.mp4")
    assert (first["video"]["width"], second["video"]["width"]) == (64, 96)
    assert len(first["video"]["times"]) == len(second["video"]["times"]) == len(pictures())
    assert len(first["audio"]["times"]) + len(second["audio"]["times"]) >= 299
    assert second["video"]["times"][0] == 0
    assert decode_errors(path) + decode_errors(tmp_path / "tape-2.mp4") == ""
    assert tape.facts["path"] == str(tmp_path / "tape-2.mp4")


@pytest.mark.real
def test_another_size_while_it_waits_for_sound_goes_on_in_a_new_file(tmp_path: Path) -> None:
    with Recording(tmp_path / "tape.mp4") as tape:
        tape.give(pictures(width=64, seconds=0.3), pictures(width=96, start_ns=3 * S // 10), sound(start_ns=S // 2))
        tape.finish()
    assert {file.name: probe(file)["video"]["width"] for file in tmp_path.iterdir()} == {
        "tape.mp4": 64,
        "tape-2.mp4": 96,
    }
    assert decode_errors(tmp_path / "tape.mp4") == decode_errors(tmp_path / "tape-2.mp4") == ""


@pytest.mark.real
def test_sound_that_begins_late_gets_a_new_file_at_a_keyframe(tmp_path: Path) -> None:
    path = tmp_path / "tape.mp4"
    video = pictures(seconds=6.0, keyframe_interval="1s")
    with Recording(path) as tape:
        tape.give(video, sound(start_ns=S * 5 // 2))
        tape.finish()
    first, second = probe(path), probe(tmp_path / "tape-2.mp4")
    assert set(first) == {"video"}
    assert set(second) == {"video", "audio"}
    assert len(first["video"]["times"]) + len(second["video"]["times"]) == len(video)
    assert len(tape.requests) >= 2


def test_a_packet_out_of_order_does_not_break_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tape.mp4"
    packets = list(pictures())
    with Recording(path, connected=("video",)) as tape:
        tape.give(packets[:40])
        for packet in (packets[39], packets[2], *packets[40:]):
            tape.push(packet, "video")
        tape.finish()
    assert tape.facts["left_out"] == 1  # packets[39] again is put a tick later
    assert boxes(path.read_bytes())[-1] == "mfra"


def test_a_full_disk_is_said_plainly(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "tape.mp4"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, before[1]))
        with pytest.raises(PeerError) as refusal, Recording(path) as tape:
            tape.give(pictures(), sound())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert str(refusal.value) == f"cannot write {path}: File too large"


def test_a_folder_that_cannot_be_made_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "tape.mp4"
    with pytest.raises(PeerError) as refusal, Recording(path) as tape:
        tape.give(pictures(), sound())
    assert str(refusal.value) == f"cannot write {path}: {tmp_path / 'file'} is not a folder"


@pytest.mark.parametrize("path", ["tape.mkv", "tape", ".mp4", ""])
def test_a_name_that_is_no_mp4_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is no name of an MP4 file"):
        RecorderConfig.model_validate({"path": path})


def kill_while_recording(path: Path, *, after_bytes: int) -> None:
    """Records in a child process without pause, kills it when the file has ``after_bytes``, and waits for its end."""
    program = f"""
import itertools, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_recorder import Recording, pictures, sound, merged, S
with Recording(Path(sys.argv[1])) as tape:
    for second in itertools.count(0, 3):
        shift = second * S
        for packet in merged(pictures(), sound()):
            moved = packet.__class__(caps=packet.caps, data=packet.data, time_ns=packet.time_ns + shift,
                                     keyframe=packet.keyframe, duration_ns=packet.duration_ns)
            tape.push(moved, "video" if moved.is_video else "audio")
"""
    child = subprocess.Popen([sys.executable, "-c", program, str(path)])
    try:
        while not path.exists() or path.stat().st_size < after_bytes:
            assert child.poll() is None
            os.sched_yield()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


@pytest.mark.real
def test_a_kill_in_the_middle_of_a_write_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tape.mp4"
    states: list[bytes] = []
    put = os.pwrite

    def put_slowly(descriptor: int, data: memoryview, position: int) -> int:
        count = put(descriptor, data[: max(8, len(data) // 3)], position)
        states.append(path.read_bytes())
        return count

    monkeypatch.setattr("os.pwrite", put_slowly)
    with Recording(path) as tape:
        tape.give(pictures(), sound())
        tape.finish()
    left = tmp_path / "left.mp4"
    pictures_seen = []
    for state in [state for state in states if b"moof" in state][::5]:
        left.write_bytes(state)
        assert decode_errors(left) == ""
        pictures_seen.append(len(probe(left)["video"]["times"]))
    assert pictures_seen == sorted(pictures_seen)
    assert pictures_seen[-1] >= 60


@pytest.mark.real
@pytest.mark.parametrize("after_bytes", [20_000, 100_000, 1_000_000])
def test_a_killed_recording_plays_to_its_last_fragment(tmp_path: Path, after_bytes: int) -> None:
    path = tmp_path / "tape.mp4"
    kill_while_recording(path, after_bytes=after_bytes)
    streams = probe(path)
    assert decode_errors(path) == ""
    assert len(streams["video"]["times"]) >= 30
    assert len(streams["audio"]["times"]) >= 45
