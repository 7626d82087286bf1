"""Firefox, driven by Marionette, its own remote protocol: no program or package stands in between.

https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream

START_S = 60
CLOSE_S = 15

PREFERENCES: dict[str, bool | int | str] = {
    "marionette.port": 0,
    # Media plays without a click.
    "media.autoplay.default": 0,
    # It says nothing to anybody and fetches nothing, its H.264 decoder among that.
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.region.network.url": "",
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.systemAddon.update.enabled": False,
    "extensions.update.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "media.gmp-manager.url": "",
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
}


class Firefox:
    """A headless Firefox with one page."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._buffer = b""
        self._last = 0

    async def command(self, name: str, **parameters: Any) -> Any:
        """The answer to one command; RuntimeError with what Firefox says when it fails."""
        self._last += 1
        body = json.dumps([0, self._last, name, parameters]).encode()
        await self._stream.send(b"%d:%s" % (len(body), body))
        _, number, error, result = await self.read()
        assert number == self._last
        if error is not None:
            raise RuntimeError(f"{name}: {error['message']}")
        return result["value"] if isinstance(result, dict) and set(result) == {"value"} else result

    async def read(self) -> Any:
        """The next message: its length, a colon, and JSON."""
        while b":" not in self._buffer:
            self._buffer += await self._stream.receive()
        length, _, self._buffer = self._buffer.partition(b":")
        while len(self._buffer) < int(length):
            self._buffer += await self._stream.receive()
        body, self._buffer = self._buffer[: int(length)], self._buffer[int(length) :]
        return json.loads(body)

    async def open(self, url: str) -> None:
        """Goes to a page and waits until it is loaded."""
        await self.command("WebDriver:Navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return await self.command("WebDriver:ExecuteScript", script=f"return ({expression})", args=[])

    async def wait_for(self, condition: str) -> None:
        """Waits until an expression in the page holds."""
        script = (
            "const [done] = arguments; const look = () => { "
            f"if ({condition}) done(true); else setTimeout(look, 50); }}; look();"
        )
        await self.command("WebDriver:ExecuteAsyncScript", script=script, args=[])

    async def see(self, pictures: int) -> None:
        """Waits until the page's video has shown so many new pictures."""
        script = (
            "const [wanted, done] = arguments; const video = document.querySelector('video'); let seen = 0;"
            "const count = () => { if (++seen === wanted) done(); else video.requestVideoFrameCallback(count); };"
            "video.requestVideoFrameCallback(count);"
        )
        await self.command("WebDriver:ExecuteAsyncScript", script=script, args=[pictures])

    async def picture(self, path: Path) -> None:
        """Writes what is seen of the page as PNG."""
        picture = base64.b64decode(await self.command("WebDriver:TakeScreenshot", full=False))
        await anyio.Path(path).write_bytes(picture)


@asynccontextmanager
async def open_firefox(folder: Path, preferences: dict[str, bool | int | str] | None = None) -> AsyncIterator[Firefox]:
    """A Firefox with a profile of its own in an empty folder; the test is skipped where there is none."""
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("there is no Firefox")
    lines = [
        f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
        for name, value in {**PREFERENCES, **(preferences or {})}.items()
    ]
    await anyio.Path(folder / "user.js").write_text("".join(lines))
    command = [program, "--headless", "--no-remote", "--profile", str(folder), "--marionette", "about:blank"]
    variables = {**os.environ, "HOME": str(folder), "MOZ_HEADLESS": "1", "MOZ_CRASHREPORTER_DISABLE": "1"}
    process = await anyio.open_process(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=variables
    )
    async with process:
        try:
            with anyio.fail_after(START_S):
                stream = await anyio.connect_tcp("127.0.0.1", await _port_of(folder / "MarionetteActivePort"))
            async with stream:
                firefox = Firefox(stream)
                with anyio.fail_after(START_S):
                    await firefox.read()  # it introduces itself
                    await firefox.command("WebDriver:NewSession", capabilities={})
                    await firefox.command("WebDriver:SetTimeouts", script=60_000)
                yield firefox
                with anyio.fail_after(CLOSE_S):
                    await firefox.command("Marionette:Quit", flags=["eForceQuit"])
            with anyio.fail_after(CLOSE_S):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()


async def _port_of(file: Path) -> int:
    """What Firefox writes when it listens."""
    while True:
        try:
            if text := await anyio.Path(file).read_text():
                return int(text)
        except FileNotFoundError:
            pass
        await anyio.sleep(0.05)
