"""display: a real window on a real X server."""

import ctypes
import io
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from flowstream import PeerError
from flowstream.testing import Harness, check_node, make_frame
from flowstream_nodes.view._window import BGR, HEADER, I420, read_picture
from flowstream_nodes.view.display import Display


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The name of a display of its own."""
    assert shutil.which("Xvfb"), "install xvfb"
    read, write = os.pipe()
    process = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as answer:
        number = answer.readline().strip()
    yield f":{number}"
    process.terminate()
    process.wait(10)


@pytest.fixture
def display(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """DISPLAY set to it."""
    monkeypatch.setenv("DISPLAY", server)
    return server


def screen(display: str) -> np.ndarray:  # type: ignore[type-arg]
    """What the X server shows, (h, w, 3) blue green red."""
    import mss

    with mss.MSS(display=display) as grabber:
        return np.asarray(grabber.grab(grabber.monitors[0]))[..., :3].copy()


class ClientMessage(ctypes.Structure):
    """XClientMessageEvent of Xlib.h, padded to the size of an XEvent."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("padding", ctypes.c_long * 12),
    ]


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def unheard(display: Any, error: Any) -> int:
    """Takes the place of Xlib's handler, which ends the process: a window that was listed may have gone since."""
    return 0


class WindowManager:
    """As much of a window manager as the tests need: it finds a window by its title and asks it to close."""

    def __init__(self, display: str) -> None:
        self._x = ctypes.CDLL("libX11.so.6")
        self._x.XSetErrorHandler(unheard)
        self._x.XOpenDisplay.restype = ctypes.c_void_p
        self._x.XInternAtom.restype = self._x.XDefaultRootWindow.restype = ctypes.c_ulong
        self._display = ctypes.c_void_p(self._x.XOpenDisplay(display.encode()))
        assert self._display.value

    def close(self) -> None:
        self._x.XCloseDisplay(self._display)

    def window(self, title: str) -> int | None:
        """The window with that title."""
        root, parent, count = ctypes.c_ulong(), ctypes.c_ulong(), ctypes.c_uint()
        children = ctypes.POINTER(ctypes.c_ulong)()
        top = ctypes.c_ulong(self._x.XDefaultRootWindow(self._display))
        self._x.XQueryTree(
            self._display, top, *map(ctypes.byref, (root, parent)), ctypes.byref(children), ctypes.byref(count)
        )
        found = None
        for window in children[: count.value]:
            name = ctypes.c_char_p()
            self._x.XFetchName(self._display, ctypes.c_ulong(window), ctypes.byref(name))
            if name.value == title.encode():
                found = window
            if name:
                self._x.XFree(name)
        if children:
            self._x.XFree(children)
        return found

    def ask_to_close(self, window: int) -> None:
        """What the cross in a title bar does (ICCCM section 4.2.8.1)."""
        protocols, delete = (
            self._x.XInternAtom(self._display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")
        )
        message = ClientMessage(type=33, send_event=1, window=window, message_type=protocols, format=32)
        message.data[0] = delete
        self._x.XSendEvent(self._display, ctypes.c_ulong(window), 0, ctypes.c_long(0), ctypes.byref(message))
        self._x.XFlush(self._display)


@pytest.fixture
def windows(display: str) -> Iterator[WindowManager]:
    """Finds and closes windows on the display."""
    manager = WindowManager(display)
    yield manager
    manager.close()


def comes_true(condition: Callable[[], object], seconds: float) -> bool:
    """Waits for something that another process does."""
    pause = threading.Event()
    for _ in range(round(seconds / 0.05)):
        if condition():
            return True
        pause.wait(0.05)
    return False


def until(condition: Callable[[], object], what: str) -> None:
    """Waits for something that another process does; fails after 30 s."""
    if not comes_true(condition, 30):
        pytest.fail(f"it never came to this: {what}")


def test_conformance() -> None:
    check_node(Display, opens=False)


@pytest.mark.real
@pytest.mark.parametrize("format", ["yuv420p", "bgr24", "nv12", "gray"])
def test_the_picture_is_on_the_screen(display: str, format: str) -> None:
    frame = make_frame(width=320, height=240).writable()
    frame.array()[:] = (40, 160, 220)
    frame = frame.writable(format)
    shown = frame.array("bgr24")[100, 100].astype(int)

    def shows() -> bool:
        return bool((np.abs(screen(display).astype(int) - shown).max(axis=2) <= 3).sum() > 50_000)

    # Where no window manager runs, Qt misses now and then that its window is there, and paints nothing.
    for _ in range(5):
        with Harness(Display, threads=True, label="The stage") as window:
            window.push(frame)
            if comes_true(shows, 5):
                break
    else:
        pytest.fail("no window showed the picture")
    until(lambda: screen(display).max() == 0, "the window is gone")


@pytest.mark.real
def test_the_title_is_the_label_or_what_the_config_says(display: str, windows: WindowManager) -> None:
    with Harness(Display, label="The stage", threads=True) as window:
        window.push(make_frame())
        until(lambda: windows.window("The stage"), "the title shows")
    with Harness(Display, {"title": "Camera 2"}, label="The stage", threads=True) as window:
        window.push(make_frame())
        until(lambda: windows.window("Camera 2"), "the title shows")


@pytest.mark.real
def test_two_windows_at_once(display: str) -> None:
    with Harness(Display, threads=True) as one, Harness(Display, threads=True) as another:
        one.push(make_frame(width=64, height=64))
        another.push(make_frame(width=64, height=64))


def push_on(window: Harness[Any]) -> None:
    """Pushes pictures until the window takes none."""
    pause = threading.Event()
    for n in range(200):
        window.push(make_frame(n, width=640, height=480))
        pause.wait(0.02)


@pytest.mark.real
def test_closing_the_window_is_the_other_side_leaving(display: str, windows: WindowManager) -> None:
    with Harness(Display, label="closes", threads=True) as window:
        window.push(make_frame())
        until(lambda: windows.window("closes"), "the window is there")
        found = windows.window("closes")
        assert found is not None
        windows.ask_to_close(found)
        with pytest.raises(PeerError) as caught:
            push_on(window)
        assert str(caught.value) == "the window was closed"


@pytest.mark.real
def test_closing_it_before_there_was_a_picture_is_too(display: str, windows: WindowManager) -> None:
    with Harness(Display, label="early", threads=True) as window:
        until(lambda: windows.window("early"), "the window is there")
        found = windows.window("early")
        assert found is not None
        windows.ask_to_close(found)
        until(lambda: windows.window("early") is None, "the window is gone")
        with pytest.raises(PeerError) as caught:
            push_on(window)
        assert str(caught.value) == "the window was closed"


@pytest.mark.real
def test_a_process_that_dies_is_reported(display: str) -> None:
    with Harness(Display, threads=True) as window:
        window.push(make_frame())
        assert window.node._process is not None
        window.node._process.kill()
        with pytest.raises(PeerError, match="the window's process ended: "):
            push_on(window)


def test_without_a_display_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(PeerError) as caught, Harness(Display, threads=True):
        pass
    assert str(caught.value) == (
        "there is no display to open a window on: DISPLAY is not set "
        "(start it from a desktop session, or watch in a browser with a webrtc-out node)"
    )


@pytest.mark.real
def test_a_display_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":9999")
    with pytest.raises(PeerError) as caught, Harness(Display, threads=True):
        pass
    assert str(caught.value) == (
        "the display :9999 (from DISPLAY) cannot be opened (check that an X server runs there and lets this user in)"
    )


def test_the_headless_build_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")
    with pytest.raises(PeerError, match="this OpenCV cannot open windows: it is the headless build"), Harness(Display):
        pass


def test_pictures_are_read_as_they_were_written() -> None:
    frame = make_frame(width=8, height=4)
    planar = frame.array("yuv420p").tobytes()
    cut_off = HEADER.pack(BGR, 8, 4, 96) + b"\0" * 20
    stream = io.BytesIO(
        HEADER.pack(BGR, 8, 4, 96) + frame.array().tobytes() + HEADER.pack(I420, 8, 4, 48) + planar + cut_off
    )
    first, second = read_picture(stream), read_picture(stream)
    assert first is not None
    assert second is not None
    assert (first == frame.array()).all()
    assert second.shape == (4, 8, 3)
    assert read_picture(stream) is None, "what is cut off is the end"
