"""Show pictures in a window on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from typing import IO

from flowstream import Config, Input, Need, PeerError, Sink, VideoFrame, field

OPEN_SECONDS = 20.0
CLOSE_SECONDS = 5.0


class DisplayConfig(Config):
    """The window."""

    title: str = field(
        default="", max_length=200, description="What the window's title says; empty is the node's label."
    )
    fullscreen: bool = field(default=False, description="Whether it fills the screen.")


class Display(Sink[DisplayConfig], type="display"):
    """A window with the pictures as they come. When somebody closes the window, the node fails as one whose peer left.

    The window lives in a process of its own and shows the newest picture; a slow screen holds nobody up.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, duration: 2s}
      window: {type: display, from: pattern}
    ```
    """

    thread = True
    needs = (Need("cv2", "opencv-python"),)

    video = Input(VideoFrame, follows={"size"}, doc="Pictures of any size and format.")

    _process: subprocess.Popen[bytes] | None = None
    _said: IO[bytes] | None = None

    def open(self) -> None:
        """Opens the window. Raises PeerError, saying what to do, when there is no display or OpenCV has no windows."""
        import cv2

        if not cv2.currentUIFramework():
            raise PeerError(
                "this OpenCV cannot open windows: it is the headless build",
                hint="pip uninstall opencv-python-headless && pip install --force-reinstall opencv-python",
            )
        if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
            raise PeerError(
                "there is no display to open a window on: DISPLAY is not set",
                hint="start it from a desktop session, or watch in a browser with a webrtc-out node",
            )
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        title = self.config.title or self.ctx.label
        mode = "fullscreen" if self.config.fullscreen else "window"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flowstream_nodes.view._window", title, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,  # an interrupt at the terminal is for the graph, which then closes the window
        )
        assert self._process.stdout is not None
        watchdog = threading.Timer(OPEN_SECONDS, self._process.kill)
        watchdog.start()
        try:
            answer = self._process.stdout.readline()
        finally:
            watchdog.cancel()
            watchdog.join()
        if answer != b"ready\n":
            raise self._failure()

    def consume(self, frame: VideoFrame) -> None:
        """Shows one picture. Raises PeerError when somebody closed the window."""
        from flowstream_nodes.view._window import BGR, HEADER, I420

        assert self._process is not None
        assert self._process.stdin is not None
        even = frame.width % 2 == 0 and frame.height % 2 == 0
        planar = frame.format in ("yuv420p", "nv12") and even
        pixels = frame.array("yuv420p" if planar else "bgr24")
        data = pixels.tobytes()
        try:
            self._process.stdin.write(HEADER.pack(I420 if planar else BGR, frame.width, frame.height, len(data)))
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError as error:
            raise self._failure() from error

    def close(self) -> None:
        """Closes the window."""
        process, said = self._process, self._said
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.close()
            except OSError:
                pass  # the process is gone, and with it what was still to be written
            try:
                process.wait(CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        if said is not None:
            said.close()

    def _failure(self) -> PeerError:
        """What became of the window's process."""
        from flowstream_nodes.view._window import CLOSED_BY_USER

        assert self._process is not None
        assert self._said is not None
        try:
            code = self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            return PeerError("the window does not take pictures any more")
        if code == CLOSED_BY_USER:
            return PeerError("the window was closed")
        self._said.seek(0)
        said = self._said.read(64_000).decode(errors="replace")
        if "could not connect to display" in said:
            return PeerError(
                f"the display {os.environ.get('DISPLAY')} (from DISPLAY) cannot be opened",
                hint="check that an X server runs there and lets this user in",
            )
        last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), f"exit status {code}")
        return PeerError(f"the window's process ended: {last}")
