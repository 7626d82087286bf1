#!/usr/bin/env python3
"""How long viewers wait, in a real Chromium: from opening the page to the first picture, from capture to display.

    python tools/bench/latency.py [--quick] [--joins N] [--seconds S]

A run in a process of its own encodes 720p30 with x264 and serves it on loopback; each picture carries the time at which
it was captured. The page is opened afresh for every join, in a browser that runs already; each part of a join is
printed, and each part of the way of a picture. A ratio is a measure over its bound, so that below 1 is well: ``join``
the median over 250 ms, ``jitter_buffer`` the median of each second's mean over 10 ms, ``display_p50`` over 50 ms and
``display_p95`` over 120 ms. These are of the picture alone. With sound beside it a browser holds the picture back until
the sound of the same moment, which it buffers for longer, is heard: that is printed and bound by nothing here.

It takes a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring import ROOT, tell, tell_ratio

CHROMIUM = "/usr/bin/chromium"
BARCODE = ROOT / "tests" / "e2e" / "barcode.js"
JOIN_MS, JITTER_MS, P50_MS, P95_MS = 250, 10, 50, 120

PICTURE = """\
nodes:
  pattern: {type: test-pattern, size: 1280x720, fps: 30}
  encode: {type: hw-encode, from: pattern, bitrate: 2.5M}
  out: {type: webrtc-out, inputs: {video: encode}}
"""
SOUND = (
    PICTURE.replace("{video: encode}", "{video: encode, audio: voice}")
    + """\
  tone: {type: tone}
  voice: {type: opus-encode, from: tone}
"""
)

# Notes when each part of a join is done, and of each picture when it was captured, had arrived and was shown.
WATCH = """
window.parts = {};
window.frames = [];
window.shown = new Promise((resolve) => { window.isShown = resolve; });
const done = (name) => { window.parts[name] ??= performance.now(); };
const Given = window.RTCPeerConnection;
window.RTCPeerConnection = class extends Given {
  constructor(...args) {
    super(...args);
    done("page");
    window.connection = this;
    this.addEventListener("iceconnectionstatechange", () => {
      if (["connected", "completed"].includes(this.iceConnectionState)) done("ice");
    });
    this.addEventListener("connectionstatechange", () => { if (this.connectionState === "connected") done("dtls"); });
    this.addEventListener("track", ({ track }) => {
      if (track.kind === "video") track.addEventListener("unmute", () => done("packet"));
    });
  }
  async setLocalDescription(...args) { await super.setLocalDescription(...args); done("offer"); }
  async setRemoteDescription(...args) { done("answer"); await super.setRemoteDescription(...args); }
};
const canvas = new OffscreenCanvas(320, 180);
const context = canvas.getContext("2d", { willReadFrequently: true });
const look = (now, metadata) => {
  const video = document.querySelector("video");
  done("picture");
  window.isShown();
  if (window.isReading) {
    context.drawImage(video, 0, 0, 320, 180);
    const counter = flowstreamBarcode.readPixels(context.getImageData(0, 0, 320, 180).data, 320, 180);
    if (counter) {
      const at = (ms) => { // after its capture, in ms; both clocks are this machine's
        const age = (Math.round(performance.timeOrigin + ms) - counter.captureMs) >>> 0;
        return age > 0x7fffffff ? age - 0x100000000 : age;
      };
      window.frames.push([at(metadata.receiveTime), at(metadata.presentationTime), at(metadata.expectedDisplayTime)]);
    }
  }
  video.requestVideoFrameCallback(look);
};
addEventListener("DOMContentLoaded", () => document.querySelector("video").requestVideoFrameCallback(look));
"""
PARTS = ("page", "offer", "answer", "ice", "dtls", "packet", "picture")


@contextmanager
def serving(graph: str) -> Iterator[str]:
    """Run a graph; give the link of its page."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "latency.yaml").write_text(graph)
        command = [sys.executable, "-m", "flowstream", "run", "latency.yaml", "--log", "json"]
        variables = {**os.environ, "XDG_RUNTIME_DIR": folder}
        with subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                link = ""
                for line in process.stdout:
                    said = json.loads(line)
                    link = said.get("url", link)
                    if said.get("event") == "running":
                        break
                yield link
            finally:
                process.terminate()
                process.communicate()


@contextmanager
def opened(browser: Any, link: str) -> Iterator[Any]:
    """Open the page in a window of its own, and wait for the first picture."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        page = context.new_page()
        page.add_init_script(WATCH + BARCODE.read_text())
        page.goto(link, wait_until="commit")
        page.evaluate("() => window.shown")
        yield page
    finally:
        context.close()


def jitter_of(page: Any) -> tuple[float, int]:
    """What the jitter buffer has held pictures back in all, in seconds, and how many."""
    found = page.evaluate(
        "async () => { for (const each of (await connection.getStats()).values())"
        " if (each.type === 'inbound-rtp' && each.kind === 'video')"
        " return [each.jitterBufferDelay, each.jitterBufferEmittedCount]; }"
    )
    return float(found[0]), int(found[1])


def share(values: list[float], part: float) -> float:
    """Give the value below which a part of all is."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


class Watched:
    """Pictures as they were shown: their ages in ms, and how long each second's were held back, on average."""

    def __init__(self, browser: Any, link: str, seconds: int) -> None:
        self.held_ms: list[float] = []
        with opened(browser, link) as page:
            page.wait_for_timeout(2000)  # what a join brings with it is over
            before_s, before = jitter_of(page)
            page.evaluate("window.isReading = true")
            for _ in range(seconds):
                page.wait_for_timeout(1000)
                held_s, count = jitter_of(page)
                if count > before:
                    self.held_ms.append(1000 * (held_s - before_s) / (count - before))
                before_s, before = held_s, count
            frames = page.evaluate("window.frames")
        self.arrived, self.decoded, self.displayed = ([each[place] for each in frames] for place in range(3))
        self.missing = 30 * seconds - len(frames)

    def rows(self, beside: str = "") -> list[tuple[str, float]]:
        """Give what is printed of it."""
        ages = {"arrived": self.arrived, "decoded": self.decoded, "displayed": self.displayed}
        rows = [
            (f"{name}{beside}, {said}", share(found, part))
            for name, found in ages.items()
            for said, part in (("median", 0.5), ("p95", 0.95))
        ]
        return [*rows, (f"held back{beside}, median", statistics.median(self.held_ms))]


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one join, two seconds: its numbers say nothing")
    parser.add_argument("--joins", type=int, default=15, help="how often the page is opened (default: 15)")
    parser.add_argument("--seconds", type=int, default=20, help="how long pictures are watched (default: 20)")
    given = parser.parse_args()
    joins, seconds = (1, 2) if given.quick else (given.joins, given.seconds)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            headless=True,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required",
                  "--disable-features=WebRtcHideLocalIpsWithMdns"],
        )  # fmt: skip
        parts: list[dict[str, float]] = []
        with serving(PICTURE) as link:
            with opened(browser, link):
                pass  # the first one pays for what the browser loads once
            for _ in range(joins):
                with opened(browser, link) as page:
                    parts.append(page.evaluate("window.parts"))
            alone = Watched(browser, link, seconds)
        with serving(SOUND) as link:
            beside = Watched(browser, link, seconds)
        browser.close()
    medians = {name: [each[name] for each in parts if name in each] for name in PARTS}
    rows = [(f"join: {name}", statistics.median(found)) for name, found in medians.items() if found]
    tell([*rows, *alone.rows(), *beside.rows(" with sound")], "ms")
    print(f"{joins} joins; {alone.missing} of {30 * seconds} pictures were not shown, with sound {beside.missing}")
    tell_ratio("join", statistics.median(medians["picture"]) / JOIN_MS)
    tell_ratio("jitter_buffer", statistics.median(alone.held_ms) / JITTER_MS)
    tell_ratio("display_p50", share(alone.displayed, 0.5) / P50_MS)
    tell_ratio("display_p95", share(alone.displayed, 0.95) / P95_MS)


if __name__ == "__main__":
    main()
