"""file: what is in it comes out, in order, on one timeline, at the pace asked for."""

from __future__ import annotations

import itertools
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowstream import AudioFrame, PeerError, VideoFrame
from flowstream.testing.conformance import check_node
from flowstream.testing.harness import Harness
from flowstream_nodes.file._reader import MediaFile
from flowstream_nodes.file.file import File, FileConfig

pytestmark = pytest.mark.real
S = 1_000_000_000
PICTURES = "testsrc=size=160x120:rate=25:duration=2"
TONE = "sine=frequency=440:sample_rate=44100:duration=2"


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments], check=True)


def turned(film: bytes) -> bytes:
    """The film with a quarter turn in the matrix of its track header (ISO 14496-12 section 8.3.2, version 0)."""
    matrix = film.index(b"tkhd") + 4 + 40
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    return film[:matrix] + quarter + film[matrix + len(quarter) :]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    x264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    ffmpeg("-f", "lavfi", "-i", PICTURES, "-f", "lavfi", "-i", TONE, *x264, "-c:a", "aac", folder / "both.mp4")
    ffmpeg("-f", "lavfi", "-i", PICTURES, *x264, "-bf", "2", folder / "silent.mp4")
    ffmpeg("-f", "lavfi", "-i", TONE, "-c:a", "pcm_u8", folder / "tone.wav")
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=1280x720:rate=25:duration=0.2", *x264, folder / "high.mp4")
    (folder / "turned.mp4").write_bytes(turned((folder / "silent.mp4").read_bytes()))
    (folder / "text.mp4").write_text("this is no film\n" * 100)
    return folder


def playing(path: Path, *, connected: tuple[str, ...] = ("video", "audio"), **config: Any) -> Harness[FileConfig]:
    return Harness(File, {"path": str(path), **config}, connected=connected)


def test_everything_comes_out_in_order_of_time(folder: Path) -> None:
    with playing(folder / "both.mp4", pace="fast") as file:
        frames = file.run()
    pictures = [frame for frame in frames if isinstance(frame, VideoFrame)]
    sounds = [frame for frame in frames if isinstance(frame, AudioFrame)]
    assert [frame.time_ns for frame in frames] == sorted(frame.time_ns for frame in frames)
    assert len(pictures) == 50
    assert pictures[1].time_ns - pictures[0].time_ns == S // 25
    assert pictures[0].duration_ns == S // 25
    assert (pictures[0].width, pictures[0].height, pictures[0].format) == (160, 120, "yuv420p")
    assert sum(frame.samples for frame in sounds) == pytest.approx(2 * 44_100, abs=2_048)
    assert (sounds[0].rate, sounds[0].layout) == (44_100, "mono")
    assert pictures[0].capture_ns is None
    assert not np.array_equal(pictures[0].array(), pictures[-1].array())


def test_realtime_gives_each_frame_at_its_time_and_fast_does_not_wait(folder: Path) -> None:
    with playing(folder / "both.mp4", pace="realtime") as file:
        file.clock.step(5 * S)  # the graph has been running for a while
        start_ns = file.clock.now_ns()
        for _ in range(100):
            (frame,) = file.run(emissions=1)
            assert file.clock.now_ns() - start_ns == frame.time_ns - 5 * S
    with playing(folder / "both.mp4", pace="fast") as file:
        before_ns = file.clock.now_ns()
        file.run()
        assert file.clock.now_ns() == before_ns


def test_a_loop_goes_on_without_a_jump_until_it_is_told_to_end(folder: Path) -> None:
    with playing(folder / "silent.mp4", pace="fast", loop=True) as file:
        frames = file.run(emissions=120)
        steps = {b.time_ns - a.time_ns for a, b in itertools.pairwise(frames)}
        assert steps == {S // 25}
        assert np.array_equal(frames[0].array(), frames[50].array())
        file.reconfigure(loop=False)
        file.run()
        assert len(file.payloads()) == 150


def test_only_what_is_connected_is_decoded(folder: Path) -> None:
    with playing(folder / "both.mp4", pace="fast", connected=("audio",)) as file:
        assert {type(frame) for frame in file.run()} == {AudioFrame}


def test_what_is_not_connected_is_not_searched_for_through_the_whole_file(folder: Path) -> None:
    file = MediaFile(str(folder / "both.mp4"), lambda kind: kind == "video")
    file.next()
    waiting = {track.kind: len(track.packets) for track in file.tracks}
    file.close()
    assert waiting == {"video": 0, "audio": 0}


def test_sound_in_any_form_comes_out_in_one_that_nodes_can_read(folder: Path) -> None:
    with playing(folder / "tone.wav", pace="fast", connected=("audio",)) as file:
        frames = file.run()
    wave = np.concatenate([frame.array("fltp")[0] for frame in frames])
    assert len(wave) == 2 * 44_100
    spectrum = np.abs(np.fft.rfft(wave))
    assert np.argmax(spectrum) / 2 == pytest.approx(440, abs=1)


def test_an_untagged_picture_has_the_colours_that_players_assume(folder: Path) -> None:
    for name, matrix in (("silent.mp4", "smpte170m"), ("high.mp4", "bt709")):
        with playing(folder / name, pace="fast", connected=("video",)) as file:
            frames = file.run()
        assert frames[0].caps.matrix == matrix
        assert len({id(frame.caps) for frame in frames}) == 1


def test_a_film_made_sideways_stands_upright(folder: Path) -> None:
    with playing(folder / "silent.mp4", pace="fast", connected=("video",)) as file:
        lying = file.run()
    with playing(folder / "turned.mp4", pace="fast", connected=("video",)) as file:
        upright = file.run()
    assert (upright[0].width, upright[0].height) == (120, 160)
    assert [frame.time_ns for frame in upright] == [frame.time_ns for frame in lying]
    ffmpeg("-i", folder / "turned.mp4", "-pix_fmt", "yuv420p", "-f", "rawvideo", folder / "turned.yuv")
    theirs = np.fromfile(folder / "turned.yuv", np.uint8)[: 240 * 120].reshape(240, 120)
    assert np.array_equal(upright[0].array(), theirs)


def test_a_file_without_sound_leaves_that_output_silent(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with playing(folder / "silent.mp4", pace="fast") as file:
        assert len(file.run()) == 50
    assert "silent.mp4 has no sound; output audio gives nothing" in caplog.text


def error_of(path: Path | str, **options: Any) -> str:
    with pytest.raises(PeerError) as refusal, playing(Path(path), pace="fast", **options) as file:
        file.run()
    return str(refusal.value)


def test_what_cannot_be_played_is_said_plainly(folder: Path, tmp_path: Path) -> None:
    assert error_of(tmp_path / "none.mp4") == f"there is no file {tmp_path}/none.mp4"
    assert error_of("none.mp4") == f"there is no file none.mp4 (looked in {Path.cwd()})"
    text = folder / "text.mp4"
    assert error_of(text) == f"cannot read {text}: Invalid data found when processing input"
    assert error_of(tmp_path) == f"cannot read {tmp_path}: Is a directory"
    assert error_of(folder / "tone.wav", connected=("video",)) == f"{folder}/tone.wav has no video"


def test_a_file_broken_in_the_middle_plays_on_and_counts(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "both.mp4").read_bytes())
    middle = data.index(b"mdat") + 4_000
    data[middle : middle + 3_000] = b"\xff" * 3_000
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(bytes(data))
    with playing(broken, pace="fast") as file:
        frames = file.run()
    assert len(frames) > 40
    assert [frame.time_ns for frame in frames] == sorted(frame.time_ns for frame in frames)


def test_a_file_in_which_nothing_decodes_is_an_error(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "silent.mp4").read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[start:end] = b"\xff" * (end - start)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(bytes(data))
    assert error_of(broken) == f"nothing in {broken} can be decoded"


def test_only_a_paced_file_makes_a_graph_live() -> None:
    paced = FileConfig.model_validate({"path": "x.mp4"})
    fast = FileConfig.model_validate({"path": "x.mp4", "pace": "fast"})
    assert (File.live_with(paced), File.live_with(fast)) == (True, False)


def test_it_keeps_the_rules_of_node_types(folder: Path) -> None:
    check_node(File, {"path": str(folder / "both.mp4")})
