#!/usr/bin/env python3
"""Take the pictures of the README from what they show: a real run, looked at in a real browser.

    python tools/pictures.py       writes tools/pictures/hello.png

Runs in the environment of ``tools/check.py``; needs Chromium and ffmpeg.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PICTURES = Path(__file__).resolve().parent / "pictures"
CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1280, 720
MAX_BYTES = 200_000
PATIENCE_MS = 60_000

# The first pictures are coarse.
SETTLED = '() => document.querySelector("video").currentTime > 4'
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
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        page.wait_for_selector("#sound", state="visible")
        page.wait_for_function(SETTLED)
        page.mouse.move(WIDTH // 2, HEIGHT // 2)
        page.mouse.move(WIDTH // 2, HEIGHT // 3)
        page.wait_for_function(DRESSED)
        page.screenshot(path=picture)
        browser.close()


def compress(raw: Path, picture: Path) -> None:
    """Write a PNG anew with 256 colours chosen for it."""
    palette = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=dither=sierra2_4a"
    smallest = ["-compression_level", "9", "-pred", "mixed"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", raw, "-vf", palette, *smallest, picture], check=True)
    if picture.stat().st_size > MAX_BYTES:
        sys.exit(f"{picture} has {picture.stat().st_size} bytes, more than {MAX_BYTES}")


def main() -> None:
    """Take every picture."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.png"
        with page_of("hello") as url:
            photograph(url, raw)
        compress(raw, PICTURES / "hello.png")
    print(f"{PICTURES / 'hello.png'}: {(PICTURES / 'hello.png').stat().st_size} bytes")


if __name__ == "__main__":
    main()
