"""The process of a window. Reads pictures from its standard input and shows the newest; its parent is ``display``.

A process of its own because window libraries want the main thread, allow one application each and end the whole
process when they lose the display.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from typing import Any, BinaryIO

import cv2
import numpy as np

HEADER = struct.Struct("<4sIII")
"""Format, width, height, bytes of pixels that follow."""

I420, BGR = b"I420", b"BGR "
CLOSED_BY_USER = 3
PUMP_SECONDS = 0.02


class Pictures:
    """The newest picture on a stream; read on a thread so that the writer never waits for the window."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._changed = threading.Condition()
        self._newest: np.ndarray[Any, Any] | None = None
        self._is_over = False
        threading.Thread(target=self._read, name="pictures", daemon=True).start()

    def wait(self) -> tuple[np.ndarray[Any, Any] | None, bool]:
        """A new picture, if one comes soon, and whether the stream is over."""
        with self._changed:
            if self._newest is None and not self._is_over:
                self._changed.wait(PUMP_SECONDS)
            newest, self._newest = self._newest, None
            return newest, self._is_over

    def _read(self) -> None:
        while (picture := read_picture(self._stream)) is not None:
            with self._changed:
                self._newest = picture
                self._changed.notify()
        with self._changed:
            self._is_over = True
            self._changed.notify()


def read_picture(stream: BinaryIO) -> np.ndarray[Any, Any] | None:
    """The next picture, (h, w, 3) blue green red; None at the end of the stream, also within a picture."""
    head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    format, width, height, size = HEADER.unpack(head)
    data = stream.read(size)
    if len(data) < size:
        return None
    pixels = np.frombuffer(data, np.uint8)
    if format == I420:
        picture: np.ndarray[Any, Any] = cv2.cvtColor(pixels.reshape(height * 3 // 2, width), cv2.COLOR_YUV2BGR_I420)
        return picture
    return pixels.reshape(height, width, 3)


def main(title: str, fullscreen: bool) -> int:
    """Shows pictures until the stream is over (0) or somebody closes the window (CLOSED_BY_USER)."""
    name = "flowstream"
    cv2.namedWindow(name, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    cv2.setWindowTitle(name, title)
    if fullscreen:
        cv2.setWindowProperty(name, cv2.WND_PROP_FULLSCREEN, cv2.WINDOW_FULLSCREEN)
    cv2.waitKey(1)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    pictures = Pictures(sys.stdin.buffer)
    has_shown = was_open = False
    while True:
        picture, is_over = pictures.wait()
        is_open = _is_open(name)
        if was_open and not is_open:  # before the first picture too: to show one would open the window again
            return CLOSED_BY_USER
        was_open = was_open or is_open
        if picture is not None:
            cv2.imshow(name, picture)
            if not has_shown and not fullscreen:
                cv2.resizeWindow(name, picture.shape[1], picture.shape[0])
            has_shown = True
        cv2.waitKey(1)
        if is_over:
            return 0


def _is_open(name: str) -> bool:
    try:
        return bool(cv2.getWindowProperty(name, cv2.WND_PROP_VISIBLE) >= 1)
    except cv2.error:  # the Qt backend forgets itself with its last window
        return False


if __name__ == "__main__":
    # Not sys.exit: the thread that reads may be inside a read for as long as the parent lives.
    os._exit(main(sys.argv[1], sys.argv[2] == "fullscreen"))
