"""The main job on real input: a screen with a moving window, and a film, seen in a browser and recorded."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import pytest

from tests.e2e.running import browsing, comes_true, counters, made_film, running, until
from tests.e2e.running import screen as x_screen

GRAPHS = Path(__file__).parents[2] / "graphs"

pytestmark = [pytest.mark.real, pytest.mark.alone]


@pytest.fixture
def screen() -> Iterator[str]:
    with x_screen(1280, 720) as display:
        yield display


@contextmanager
def painted_window(graph: Path, display: str) -> Iterator[None]:
    """A graph with a window that has painted. Qt misses now and then that it is there, with no window manager."""
    for _ in range(5):
        with running(graph.name, graph.parent, DISPLAY=display) as moving:
            moving.wait_for("running")
            if comes_true(lambda: is_painted(display), 8):
                yield
                return
    pytest.fail("no window was painted")


def is_painted(display: str) -> bool:
    """Whether anything but black is on the screen."""
    import mss

    with mss.MSS(display=display) as grabber:
        return any(bytes(grabber.grab(grabber.monitors[0]).rgb))


def streams(recording: Path) -> dict[str, dict[str, str]]:
    """What ffprobe reads of a recording, by kind of stream."""
    probed = subprocess.run(
        ["ffprobe", "-v", "error", "-count_packets", "-show_streams", "-of", "json", recording],
        capture_output=True,
        text=True,
        check=True,
    )
    assert probed.stderr == ""
    return {stream["codec_type"]: stream for stream in json.loads(probed.stdout)["streams"]}


@pytest.mark.timeout(300)
def test_the_desk_is_seen_in_a_browser_and_recorded(tmp_path: Path, screen: str) -> None:
    shutil.copy(GRAPHS / "desk.yaml", tmp_path)
    window = tmp_path / "window.yaml"
    window.write_text(
        "nodes:\n  pattern: {type: test-pattern, size: 1280x720, fps: 15}\n  window: {type: display, from: pattern}\n"
    )
    with painted_window(window, screen):
        with running("desk.yaml", tmp_path, DISPLAY=screen) as run, browsing() as page:
            page.goto(run.link())
            until("the desk", lambda: page.evaluate("document.querySelector('video').videoWidth > 0"))
            page.evaluate("window.startSampling()")
            until("the moving window on the desk", lambda: len(set(counters(page))) > 20)
            frames = counters(page)
            assert frames == sorted(frames)
        assert run.process.returncode == 0, run.text
    (recording,) = (tmp_path / "recordings").iterdir()
    video = streams(recording)["video"]
    assert (video["codec_name"], video["width"], video["height"]) == ("h264", 1280, 720)
    assert int(video["nb_read_packets"]) > 20


@pytest.mark.timeout(300)
def test_a_film_is_played_in_a_browser_and_recorded(tmp_path: Path) -> None:
    film = made_film(tmp_path / "film.mp4", seconds=8)
    tape = "  tape: {type: recorder, inputs: {video: encode, audio: opus}, path: recordings/film.mp4}\n"
    (tmp_path / "file.yaml").write_text((GRAPHS / "file.yaml").read_text() + "\n" + tape)
    with browsing() as page, running("file.yaml", tmp_path, "--set", "path=film.mp4") as run:
        page.goto(run.link())
        until("the film", lambda: page.evaluate("document.querySelector('video').videoWidth > 0"))
        page.evaluate("window.startSampling()")
        until("most of the film", lambda: len(set(counters(page))) > 150)
        page.evaluate("window.listen()")
        until("the film's sound", lambda: page.evaluate("window.level()") > 0.005)
    assert run.process.returncode == 0, run.text
    (recording,) = (tmp_path / "recordings").iterdir()
    ours, theirs = streams(recording), streams(film)
    assert theirs["video"]["codec_name"] == "h264"
    assert (ours["video"]["codec_name"], ours["video"]["width"]) == ("h264", 1280)
    assert ours["audio"]["codec_name"] == "opus"
    assert Fraction(ours["video"]["avg_frame_rate"]) == pytest.approx(30, abs=3)
