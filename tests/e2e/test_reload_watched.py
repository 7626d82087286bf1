"""Reloads while somebody watches: what a browser receives, by the media time of each coded picture.

Every picture that arrives is seen before it is decoded, so a browser that is late in showing it changes nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running import Run, browsing, running, until

pytestmark = [pytest.mark.real, pytest.mark.alone]

FPS = 30
TICKS = 90_000 // FPS  # of the RTP clock, between two pictures
GOP_S = 2

GRAPH = f"""\
log: {{level: info}}
nodes:
  pattern: {{type: test-pattern, size: 640x360, fps: {FPS}}}
  encode: {{type: hw-encode, from: pattern, bitrate: 1M, keyframe_interval: {GOP_S}s}}
  out: {{type: webrtc-out, from: encode}}
"""

TAPE = "  tape: {type: recorder, from: encode, path: tape-$(time).mp4}\n"

# Looks at every coded picture on its way to the decoder.
TAP = """
(() => {
  window.received = [];
  const Given = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Given {
    constructor(config) {
      super({ ...config, encodedInsertableStreams: true });
      this.addEventListener("track", ({ receiver, track }) => {
        const { readable, writable } = receiver.createEncodedStreams();
        const look = new TransformStream({
          transform(frame, controller) {
            if (track.kind === "video") {
              window.received.push([frame.timestamp, frame.type === "key"]);
            }
            controller.enqueue(frame);
          },
        });
        readable.pipeThrough(look).pipeTo(writable);
      });
    }
  };
})();
"""


class Watching:
    """A run and the browser that watches it."""

    def __init__(self, run: Run, page: Any, graph: Path) -> None:
        self.run = run
        self.page = page
        self.graph = graph

    def received(self) -> list[tuple[int, bool]]:
        """RTP timestamp of every coded picture so far, unwrapped, and whether it is a keyframe."""
        found: list[tuple[int, bool]] = []
        for timestamp, is_key in self.page.evaluate("window.received"):
            before = found[-1][0] if found else timestamp
            found.append((before + (timestamp - before + 2**31) % 2**32 - 2**31, is_key))
        return found

    def more(self, pictures: int) -> None:
        """Waits until so many more pictures have arrived."""
        there = len(self.received())
        until(f"{pictures} more pictures", lambda: len(self.received()) >= there + pictures)

    def save(self, text: str, event: str = "applied") -> dict[str, Any]:
        """Saves the graph and gives what the run says to it."""
        before = len(self.run.lines)
        self.graph.write_text(text)
        return self.run.wait_for(event, after=before)

    def announced(self, text: str, node: str) -> dict[str, Any]:
        """What ``flowstream plan`` says would become of a node, asked before anybody saves."""
        (self.graph.parent / "next.yaml").write_text(text)
        command = [sys.executable, "-m", "flowstream", "plan", "next.yaml", "--run", "graph", "--format", "json"]
        planned = subprocess.run(
            command, cwd=self.graph.parent, env={**os.environ, "XDG_RUNTIME_DIR": str(self.graph.parent)},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert planned.returncode == 0, planned.stderr
        (change,) = [each for each in json.loads(planned.stdout)["changes"] if each["node"] == node]
        return dict(change)

    def during(self, change: Callable[[], object]) -> list[tuple[int, bool]]:
        """What arrives from a second before a change to two groups of pictures after it."""
        self.more(FPS)
        there = len(self.received())
        change()
        self.more(2 * GOP_S * FPS)
        return self.received()[there - FPS :]


def gaps(pictures: list[tuple[int, bool]]) -> list[int]:
    """The distances of pictures, in RTP ticks; one that was sent again to probe the path is the same picture."""
    return [after - before for before, after in pairwise(dict.fromkeys(time for time, _ in pictures))]


def since_keyframe(pictures: list[tuple[int, bool]]) -> int:
    """How many pictures came since the last keyframe."""
    return next((count for count, (_, is_key) in enumerate(reversed(pictures)) if is_key), len(pictures))


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    graph = tmp_path / "graph.yaml"
    graph.write_text(GRAPH)
    with running(graph.name, tmp_path) as run, browsing() as page:
        page.add_init_script(TAP)
        page.goto(run.link())
        watching = Watching(run, page, graph)
        until("pictures", lambda: len(watching.received()) > FPS)
        yield watching
        assert page.evaluate("window.connections.length") == 1, "the page never reconnected"
        assert page.evaluate("window.connections[0].connectionState") == "connected"


@pytest.mark.timeout(200)
def test_reloads_that_nobody_may_notice(watching: Watching) -> None:
    """A broken save, another log level, a recorder added and removed: every picture arrives, at the same distances."""

    def changes() -> None:
        watching.save(GRAPH.replace("hw-encode", "hw-encod"), "refused")
        watching.more(FPS // 2)
        applied = watching.save(GRAPH.replace("info", "warning"))
        assert {change["action"] for change in applied["changes"].values()} == {"keep"}
        watching.more(FPS // 2)
        applied = watching.save(GRAPH + TAPE)
        assert {
            node: change["action"] for node, change in applied["changes"].items() if change["action"] != "keep"
        } == {"tape": "add"}
        watching.more(FPS)
        applied = watching.save(GRAPH)
        assert applied["changes"]["tape"]["action"] == "remove"

    pictures = watching.during(changes)
    assert set(gaps(pictures)) == {TICKS}


@pytest.mark.timeout(200)
def test_the_encoder_is_replaced(watching: Watching) -> None:
    """The old one codes up to a picture, the new one from the next one on, which is a keyframe."""

    def change() -> None:
        until("the midst of a group", lambda: 10 <= since_keyframe(watching.received()) <= 25)
        applied = watching.save(GRAPH.replace("1M,", "1M, profile: main,"))
        assert applied["changes"]["encode"]["action"] == "replace"

    pictures = watching.during(change)
    assert max(gaps(pictures)) <= 2 * TICKS, "at most one picture more than usual"
    assert min(gaps(pictures)) > 0, "no picture twice, and none goes back in time"
    began = pictures[FPS][0]
    keys = [(time, is_key) for time, is_key in watching.received() if is_key]
    last = max(time for time, _ in keys if time < began)
    groups = gaps([(time, is_key) for time, is_key in keys if time >= last])
    assert min(groups) < GOP_S * 90_000, "the new one begins with a keyframe, in the midst of the old one's group"


@pytest.mark.timeout(200)
def test_the_source_is_replaced(watching: Watching) -> None:
    """By one of another size: the encoder follows, with a keyframe."""

    def change() -> None:
        applied = watching.save(smaller)
        assert applied["changes"]["pattern"]["action"] == "replace"

    smaller = GRAPH.replace("640x360", "320x180")
    announced = watching.announced(smaller, "pattern")
    assert (announced["felt_by"], announced["at_most_seconds"]) == (["out"], GOP_S)
    pictures = watching.during(change)
    assert max(gaps(pictures)) <= announced["at_most_seconds"] * 90_000
    assert min(gaps(pictures)) > 0
    until("the new size", lambda: watching.page.evaluate("document.querySelector('video').videoWidth") == 320)


@pytest.mark.timeout(200)
def test_the_page_is_renamed(watching: Watching) -> None:
    """The picture goes on, and the page, opened under the old name, is told its title under the new one."""

    def change() -> None:
        applied = watching.save(
            GRAPH.replace("out: {type: webrtc-out,", "wall: {type: webrtc-out, was: out, title: Wall,")
        )
        assert applied["changes"]["wall"]["action"] == "update"

    pictures = watching.during(change)
    assert set(gaps(pictures)) == {TICKS}
    until("the title", lambda: watching.page.title() == "Wall")
    assert "/out/" in watching.page.url
