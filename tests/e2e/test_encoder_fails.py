"""An encoder that fails while somebody watches: the next one goes on within two pictures, and nobody reconnects."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.running import browsing, running, until
from tests.e2e.test_reload_watched import FPS, TAP, TICKS, Watching, gaps

pytestmark = [pytest.mark.real, pytest.mark.alone]

# A pack that puts an encoder into the public list, ahead of all others; it opens, and raises at its frame 90.
PACK = '''
"""A chip that gives up."""

from flowstream import Config, Input, Output, Transform, VideoFrame
from flowstream_nodes.codec._ffmpeg import open_encoder
from flowstream_nodes.codec.encoders import CANDIDATES, Candidate


class Chip:
    def __init__(self, settings):
        self._real = open_encoder(next(each for each in CANDIDATES if each.name == "libx264"), settings)
        self._count = 0

    def __getattr__(self, name):
        return getattr(self._real, name)

    def encode(self, picture, tag, /, *, time_ns, keyframe):
        self._count += 1
        if self._count == 90:
            raise ValueError("chip failed: the device is gone")
        return self._real.encode(picture, tag, time_ns=time_ns, keyframe=keyframe)


CANDIDATES.insert(0, Candidate("chip", "h264", is_hardware=True, open=Chip))


class Pass(Transform, type="acme/pass"):
    """Passes pictures on."""

    video = Input(VideoFrame)
    passed = Output(like=video)

    def process(self, frame):
        yield self.passed(frame)
'''

GRAPH = f"""\
nodes:
  pattern: {{type: test-pattern, size: 640x360, fps: {FPS}}}
  same: {{type: acme/pass, from: pattern}}
  encode: {{type: hw-encode, from: same, bitrate: 1M, keyframe_interval: 60s}}
  out: {{type: webrtc-out, from: encode}}
"""


@pytest.mark.timeout(200)
def test_the_next_encoder_goes_on(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "pass.py").write_text(PACK)
    graph = tmp_path / "graph.yaml"
    graph.write_text(GRAPH)
    with running(graph.name, tmp_path, "--nodes", "acme") as run, browsing() as page:
        page.add_init_script(TAP)
        page.goto(run.link())
        watching = Watching(run, page, graph)
        until("pictures", lambda: len(watching.received()) > FPS)
        said = len(run.text)
        watching.save(GRAPH.replace("60s", "59s, threads: 2"))  # another instance, with 90 pictures to go
        watching.more(FPS)
        there = len(watching.received())
        until("the failure", lambda: any("chip failed" in line for line in run.text[said:]))
        watching.more(2 * FPS)
        pictures = watching.received()[there:]
        assert max(gaps(pictures)) <= 2 * TICKS, "within two pictures"
        assert min(gaps(pictures)) > 0
        assert sum(is_key for _, is_key in pictures) == 1, "the next encoder's first"
        assert page.evaluate("window.connections.length") == 1, "the page never reconnected"
        assert page.evaluate("window.connections[0].connectionState") == "connected"
        assert page.evaluate("document.querySelector('video').videoWidth") == 640
