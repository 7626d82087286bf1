"""The main job, seen from a browser: the page plays, the graph is edited three times, nobody reconnects."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.running import browsing, counters, made_film, running, until

GRAPHS = Path(__file__).parents[2] / "graphs"

pytestmark = [pytest.mark.real, pytest.mark.alone]


@pytest.mark.timeout(300)
def test_the_page_plays_hello_and_lives_through_three_edits(tmp_path: Path) -> None:
    made_film(tmp_path / "film.mp4")
    graph = tmp_path / "hello.yaml"
    shutil.copy(GRAPHS / "hello.yaml", graph)

    def edit(old: str, new: str) -> list[str]:
        text = graph.read_text()
        assert old in text
        before = len(run.lines)
        page.evaluate("window.samples.length = 0")
        graph.write_text(text.replace(old, new))
        applied = run.wait_for("applied", after=before)
        return [f"{node}: {change['action']}" for node, change in applied["changes"].items()]

    with running(graph.name, tmp_path) as run, browsing() as page:
        page.goto(run.link())
        until("the picture", lambda: page.evaluate("document.querySelector('video').videoWidth > 0"))
        page.evaluate("window.startSampling()")
        until("a moving picture", lambda: len(set(counters(page))) > 30)
        frames = counters(page)
        assert frames == sorted(frames), "the counter goes forward"

        page.evaluate("window.listen()")
        until("a tone above silence", lambda: page.evaluate("window.level()") > 0.005)
        (connection,) = page.evaluate_handle("window.connections").get_properties().values()

        # A live field: nothing is interrupted.
        changes = edit("default: 2.5M", "default: 600k")
        assert "encode: update" in changes
        until("pictures after the live edit", lambda: len(counters(page)) > 60)
        frames = counters(page)
        assert frames == sorted(frames)
        assert max(b - a for a, b in itertools.pairwise(frames)) <= 15

        # An overlay in between: the encoder is rewired, the connection stays.
        changes = edit(
            "  encode: {type: hw-encode, from: pattern,",
            "  clock: {type: overlay, from: pattern, text: '%H:%M:%S', position: top-left}\n"
            "  encode: {type: hw-encode, from: clock,",
        )
        assert "clock: add" in changes
        assert "encode: rewire" in changes
        until("pictures after the overlay", lambda: len(counters(page)) > 60)
        frames = counters(page)
        assert frames == sorted(frames)
        assert max(b - a for a, b in itertools.pairwise(frames)) <= 15

        # A broken save: the graph goes on as it was.
        before = len(run.lines)
        good = graph.read_text()
        graph.write_text(good.replace("type: overlay", "type: overlya"))
        refused = run.wait_for("refused", after=before)
        assert "did you mean overlay?" in str(refused)
        graph.write_text(good)
        run.wait_for("applied", after=before)

        # The pattern becomes a film, of another size.
        changes = edit("{type: test-pattern, size: 1280x720, fps: 30}", "{type: file, path: film.mp4, loop: true}")
        assert "pattern: replace" in changes
        until("the film", lambda: page.evaluate("window.samples.some(s => s.width === 640)"))
        until("the film's own counter", lambda: len([f for f in counters(page) if f < 300]) > 30)
        gaps = page.evaluate(
            "window.samples.slice(1).map((s, i) => s.now - window.samples[i].now).reduce((a, b) => Math.max(a, b), 0)"
        )
        assert gaps < 2_000, "longest time without a new picture, in ms"

        assert page.evaluate("window.connections.length") == 1, "the page never reconnected"
        assert page.evaluate("c => c.connectionState", connection) == "connected"
        assert page.evaluate("window.level()") > 0.005
        page.screenshot(path=tmp_path / "hello.png")

    assert run.process.returncode == 0, run.text
    for recording in sorted((tmp_path / "recordings").iterdir()):
        probed = subprocess.run(
            ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", recording],
            capture_output=True,
            text=True,
            check=True,
        )
        assert probed.stderr == ""
        assert sorted(probed.stdout.split()) == ["h264", "opus"]
