"""What goes beside the picture, seen from a browser: records as events, and the delay from capture to screen."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

import pytest

from tests.e2e.running import browsing, running, until

GRAPHS = Path(__file__).parents[2] / "graphs"

pytestmark = [pytest.mark.real, pytest.mark.alone]

LISTEN = """
window.records = [];
addEventListener("flowstream:data", (event) => window.records.push(event.detail));
"""
MEASURE = """
async () => {
  const { Panel } = modules["panel.js"];  // of the page's own scripts
  const video = document.querySelector("video"), shown = Panel.prototype.shown;
  window.delays = [];
  Panel.prototype.shown = function (now, metadata, channel) {
    shown.call(this, now, metadata, channel);
    const counter = flowstreamBarcode.readCounter(video);
    if (!counter || !channel.clocks.length || !channel.stats?.capture) return;
    // At the moment at which the picture is on the screen.
    const seen = flowstreamBarcode.ageMs(counter) + (metadata.expectedDisplayTime ?? now) - performance.now();
    window.delays.push({ seen, said: this.captureMs });
  };
}
"""


@pytest.mark.timeout(180)
def test_the_page_gets_what_encoders_measure_and_its_latency_is_that_of_the_picture(tmp_path: Path) -> None:
    shutil.copy(GRAPHS / "data.yaml", tmp_path / "data.yaml")
    with running("data.yaml", tmp_path) as run, browsing() as page:
        page.add_init_script(LISTEN)
        page.goto(run.link())
        until("the picture", lambda: page.evaluate("document.querySelector('video').videoWidth > 0"))
        page.click("#stats")
        until("a figure", lambda: page.inner_text("#delay-label").lower() == "capture to screen")
        page.evaluate(MEASURE)
        until("pictures with both", lambda: page.evaluate("window.delays.length") >= 60)
        delays = page.evaluate("window.delays")
        apart = [each["said"] - each["seen"] for each in delays]
        assert abs(statistics.median(apart)) < 10, "the page's figure and the clock in the picture, in ms"
        # A browser that is busy draws a picture into the canvas that is newer than the one it tells of.
        assert statistics.median(abs(each) for each in apart) < 25

        until("records of both", lambda: {r["node"] for r in page.evaluate("window.records")} == {"high", "low"})
        record = page.evaluate("window.records.find((each) => each.node === 'low')")
        assert record["type"] == "EncoderStats"
        assert record["value"]["size"] == [640, 360]
        assert record["value"]["frames"] > 0

        options = page.locator("#quality option").all_inner_texts()
        assert [each.partition(",")[0] for each in options[1:]] == ["720p", "360p"]
        page.select_option("#quality", "low")
        until("the lower one", lambda: page.evaluate("document.querySelector('video').videoWidth === 640"))
        assert page.evaluate("window.connections.length") == 1
    assert run.process.returncode == 0, run.text
