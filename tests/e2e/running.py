"""A real `flowstream run` and a real browser, for tests that look at both from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flowstream.control.files import GraphFile
from flowstream.runtime.engine import Engine
from flowstream.testing.clock import VirtualClock, run_virtual

BARCODE = (Path(__file__).parent / "barcode.js").read_text()
CHROMIUM = "/usr/bin/chromium"
PATIENCE_S = 60.0

# Keeps every RTCPeerConnection that the page makes, and samples the picture and the sound.
WATCH = (
    """
window.connections = [];
window.RTCPeerConnection = class extends window.RTCPeerConnection {
  constructor(...args) { super(...args); window.connections.push(this); }
};
window.samples = [];
window.startSampling = () => {
  const video = document.querySelector("video");
  const sample = (now, metadata) => {
    const counter = flowstreamBarcode.readCounter(video);
    window.samples.push({ now, frame: counter ? counter.frame : null, width: video.videoWidth });
    video.requestVideoFrameCallback(sample);
  };
  video.requestVideoFrameCallback(sample);
};
window.listen = async () => {
  const video = document.querySelector("video");
  const context = new AudioContext();
  await context.resume();
  const analyser = new AnalyserNode(context, { fftSize: 8192 });
  context.createMediaStreamSource(video.srcObject).connect(analyser);
  const wave = new Float32Array(analyser.fftSize);
  window.level = () => {
    analyser.getFloatTimeDomainData(wave);
    return Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length);
  };
};
"""
    + BARCODE
)


class Run:
    """A `flowstream run` in a process of its own; ``lines`` are what it logged, one JSON object each."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.text: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.text.append(line.rstrip())
                if line.startswith("{"):
                    self.lines.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for(self, event: str, *, after: int = 0) -> dict[str, Any]:
        """The first line of an event from the given number of lines on."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.lines[after:] if line.get("event") == event), None)

        with self._news:
            self._news.wait_for(lambda: found() or self.process.poll() is not None, PATIENCE_S)
            line = found()
        if line is None:
            pytest.fail(f"no line {event!r} from flowstream run:\n" + "\n".join(self.text))
        return line

    def link(self) -> str:
        """The link that it printed."""
        url: str = self.wait_for("page")["url"]
        return url

    def end(self) -> int:
        """Ctrl-C, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            status = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail("flowstream run did not end on Ctrl-C:\n" + "\n".join(self.text))
        finally:
            self.process.wait()
            self._reader.join()
            assert self.process.stdout is not None
            self.process.stdout.close()
        return status


def _put_ahead(pid: int) -> None:
    """Its session comes before the browsers', where the kernel lets one say so: viewers watch from other machines."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text("-10")


@contextmanager
def running(graph: str | Path, folder: Path, *options: str, **environment: str) -> Iterator[Run]:
    """`flowstream run GRAPH` in a folder, with its log as JSON; ended with Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flowstream", "run", str(graph), "--log", "json", *options],
        cwd=folder,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    _put_ahead(process.pid)
    run = Run(process)
    try:
        yield run
    finally:
        run.end()


@contextmanager
def browsing(width: int = 1280, height: int = 800) -> Iterator[Any]:
    """A page of headless Chromium that records the connections it makes."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            headless=True,
            args=[
                "--no-sandbox",
                "--autoplay-policy=no-user-gesture-required",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-features=WebRtcHideLocalIpsWithMdns",
            ],
        )
        try:
            context = browser.new_context(viewport={"width": width, "height": height})
            page = context.new_page()
            page.add_init_script(WATCH)
            yield page
        finally:
            browser.close()


@contextmanager
def screen(width: int, height: int) -> Iterator[str]:
    """An X server of our own with one screen; its DISPLAY."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        with os.fdopen(read) as number:
            yield f":{number.readline().strip()}"
    finally:
        server.terminate()
        server.wait(20)


def until(what: str, condition: Any, seconds: float = PATIENCE_S) -> Any:
    """What ``condition()`` gives once it is true; asks again every 50 ms and fails with ``what`` when it takes long."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        pause.wait(0.05)
    return value


def comes_true(condition: Callable[[], object], seconds: float) -> bool:
    """Whether ``condition()`` becomes true in time; asks again every 50 ms."""
    pause = threading.Event()
    for _ in range(round(seconds / 0.05)):
        if condition():
            return True
        pause.wait(0.05)
    return False


def counters(page: Any) -> list[int]:
    """The frame counters read from the page's pixels so far."""
    frames: list[int] = page.evaluate("window.samples.map(s => s.frame).filter(f => f !== null)")
    return frames


def made_film(path: Path, seconds: int = 20) -> Path:
    """A real H.264 and Opus file with the test pattern's counter in it, made by flowstream itself in virtual time."""
    graph = path.with_suffix(".film.yaml")
    graph.write_text(
        "nodes:\n"
        f"  pattern: {{type: test-pattern, size: 640x360, duration: {seconds}s}}\n"
        f"  tone: {{type: tone, duration: {seconds}s}}\n"
        "  encode: {type: hw-encode, from: pattern, bitrate: 1M}\n"
        "  voice: {type: opus-encode, from: tone}\n"
        f"  tape: {{type: recorder, inputs: {{video: encode, audio: voice}}, path: {path}}}\n"
    )
    plan = GraphFile(str(graph)).compile()

    async def record(clock: VirtualClock) -> None:
        async with Engine.open(clock=clock) as engine:
            await engine.start(plan)
            await engine.wait()
            assert engine.failures == []

    run_virtual(record)
    return path
