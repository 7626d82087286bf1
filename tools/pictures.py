#!/usr/bin/env python3
"""Take the pictures of the README from what they show: a real run, looked at in a real browser and a real terminal.

    python tools/pictures.py       writes hello.png, terminal.png and hello-graph.svg in tools/pictures
    python tools/pictures.py draw  writes hello-graph.svg only, which needs no browser and no screen

Runs in the environment of ``tools/check.py``; needs Chromium, ffmpeg, Xvfb and xterm.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PICTURES = Path(__file__).resolve().parent / "pictures"
CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1280, 720
MAX_BYTES = 200_000
PATIENCE_MS = 60_000

# The first pictures are coarse, and the plots of the first seconds empty.
SETTLED = '() => document.querySelector("video").currentTime > 30'
# The bars at top and bottom are there, which hide when nothing moves.
DRESSED = '() => getComputedStyle(document.getElementById("head")).opacity === "1"'


@contextmanager
def page_of(graph: str) -> Iterator[str]:
    """The link of a graph that runs meanwhile, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "flowstream", "run", graph, "--log", "json", "--control", f"{folder}/control"]
        run = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        assert run.stdout is not None
        try:
            said = []
            for line in run.stdout:
                said.append(line)
                if (event := json.loads(line))["event"] == "page":
                    yield event["url"]
                    break
            else:
                sys.exit(f"flowstream run {graph} showed no page:\n{''.join(said)}")
        finally:
            run.send_signal(signal.SIGINT)
            run.communicate()


def photograph(url: str, picture: Path) -> None:
    """Write what the browser shows of the page once it plays, as PNG."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-background-networking", "--disable-features=WebRtcHideLocalIpsWithMdns"],
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark")
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        page.wait_for_selector("#sound", state="visible")
        page.keyboard.press("i")
        page.wait_for_function(SETTLED)
        page.mouse.move(WIDTH // 2, HEIGHT // 2)
        page.mouse.move(WIDTH // 2, HEIGHT // 3)
        page.wait_for_function(DRESSED)
        page.screenshot(path=picture)
        browser.close()


@contextmanager
def screen(width: int, height: int) -> Iterator[str]:
    """An X server of that size in pixels; its DISPLAY."""
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp"],
        pass_fds=[writing], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writing)
    try:
        with os.fdopen(reading) as number:
            yield f":{number.readline().strip()}"
    finally:
        server.terminate()
        server.wait()


def status_of(control: Path) -> dict[str, Any]:
    """The status of a run; empty while there is none."""
    from flowstream.control.client import ask
    from flowstream.control.socket import ControlError

    try:
        return ask(control, "/status")
    except ControlError:
        return {}


def until(what: str, control: Path, condition: Callable[[dict[str, Any]], bool]) -> None:
    """Returns once the status of a run is as wanted, or ends the program."""
    end = time.monotonic() + PATIENCE_MS / 1000
    pause = threading.Event()
    while not ((status := status_of(control)) and condition(status)):
        if time.monotonic() > end:
            sys.exit(f"not in time: {what}")
        pause.wait(0.2)


def photograph_terminal(picture: Path) -> None:
    """Write what a terminal shows of a run whose graph has been edited, as PNG."""
    import mss.tools

    width, height = 118 * 8 + 24, 25 * 17 + 24  # columns and rows of the font, and a border
    font = ["-fa", "DejaVu Sans Mono", "-fs", "10", "-fg", "#d6dde4", "-bg", "#0b0e11", "+sb", "-b", "12"]
    with screen(width, height) as display, tempfile.TemporaryDirectory() as folder:
        graph, control = Path(folder) / "hello.yaml", Path(folder) / "control"
        shutil.copy(PICTURES.parent.parent / "graphs" / "hello.yaml", graph)
        run = [sys.executable, "-m", "flowstream", "run", graph.name, "--control", str(control)]
        window = subprocess.Popen(
            ["xterm", "-geometry", "118x25+0+0", *font, "-e", *run], cwd=folder, env={**os.environ, "DISPLAY": display}
        )
        try:
            until("the run", control, lambda status: status["state"] == "running")
            text = graph.read_text()
            graph.write_text(text.replace("default: 2.5M", "default: 600k"))
            until("the reload", control, lambda status: status["nodes"]["encode"]["config"]["bitrate"] == "600k")
            sent = status_of(control)["nodes"]["tape"]["received"]
            until("a table", control, lambda status: status["nodes"]["tape"]["received"] > sent + 300)
            with mss.MSS(display=display) as grabber:
                shot = grabber.grab({"left": 0, "top": 0, "width": width, "height": height})
                mss.tools.to_png(shot.rgb, shot.size, output=str(picture))
        finally:
            window.terminate()
            window.wait()


def compress(raw: Path, picture: Path) -> None:
    """Write a PNG anew with 256 colours chosen for it."""
    palette = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=dither=sierra2_4a"
    smallest = ["-compression_level", "9", "-pred", "mixed"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", raw, "-vf", palette, *smallest, picture], check=True)
    if picture.stat().st_size > MAX_BYTES:
        sys.exit(f"{picture} has {picture.stat().st_size} bytes, more than {MAX_BYTES}")


def draw(graph: str, picture: Path) -> None:
    """Write a graph as ``flowstream draw`` draws it."""
    subprocess.run([sys.executable, "-m", "flowstream", "draw", graph, "-o", picture], check=True)


def main() -> None:
    """Take every picture."""
    PICTURES.mkdir(exist_ok=True)
    draw("hello", PICTURES / "hello-graph.svg")
    if sys.argv[1:] == ["draw"]:
        return
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.png"
        with page_of("hello") as url:
            photograph(url, raw)
        compress(raw, PICTURES / "hello.png")
        photograph_terminal(raw)
        compress(raw, PICTURES / "terminal.png")
    for picture in sorted(PICTURES.iterdir()):
        print(f"{picture}: {picture.stat().st_size} bytes")


if __name__ == "__main__":
    main()
