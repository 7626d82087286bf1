"""Adaptation seen from a browser: an encoder that waits for somebody to watch, follows what it may, and waits again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.docs.graphs import Watched
from tests.e2e.running import browsing, counters, running, until

pytestmark = [pytest.mark.real, pytest.mark.alone]

GRAPH = """\
nodes:
  pattern: {type: test-pattern, size: 640x360, fps: 30}
  encode: {type: hw-encode, inputs: {video: pattern, targets: abr}, bitrate: 500k, max: 4M}
  out: {type: webrtc-out, from: encode}
  abr:
    type: abr-controller
    inputs: {reports: out.reports, stats: encode.stats}
    encoders: {encode: {}}
    min: 200k
    max: 4M
"""


@pytest.mark.timeout(200)
def test_the_encoder_works_while_somebody_watches(tmp_path: Path) -> None:
    graph = tmp_path / "watched.yaml"
    graph.write_text(GRAPH)

    with running(graph.name, tmp_path) as run, browsing() as page:
        link = run.link()
        watched = Watched(run, tmp_path, "watched")

        def facts(node: str) -> dict[str, Any]:
            found: dict[str, Any] = watched.status()["nodes"][node]["facts"]
            return found

        def is_paused() -> bool:
            return facts("abr").get("limited_by") == "nobody" and facts("encode").get("paused") == "by its target"

        until("nobody to encode for", is_paused)
        page.goto(link)
        until("the picture", lambda: page.evaluate("document.querySelector('video').videoWidth > 0"))
        page.evaluate("window.startSampling()")
        until("a moving picture", lambda: len(set(counters(page))) > 30)
        assert facts("abr")["viewers"] == 1
        until("a rate that has risen", lambda: facts("encode")["bitrate_bps"] > 1_100_000)

        before = len(run.lines)
        graph.write_text(GRAPH + "    viewer_max: 300k\n")
        run.wait_for("applied", after=before)
        until("the cap", lambda: facts("encode")["bitrate_bps"] == 300_000)
        page.evaluate("window.samples.length = 0")
        until("pictures at the new rate", lambda: len(set(counters(page))) > 30)
        assert page.evaluate("window.connections.length") == 1, "the page never reconnected"

        page.goto("about:blank")
        until("nobody to encode for again", is_paused)
    assert run.process.returncode == 0, run.text
    assert [line for line in run.lines if line["level"] == "error"] == []
