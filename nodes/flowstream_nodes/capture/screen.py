"""Capture the screen."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from flowstream import (
    NS_PER_S,
    Caps,
    Config,
    Context,
    Need,
    Output,
    PeerError,
    Plane,
    Source,
    VideoCaps,
    VideoFrame,
    live,
    period_ns,
)

if TYPE_CHECKING:
    from mss import MSS
    from mss.models import Monitor

# Nothing tells when a screen has grown or moved, so its geometry is asked for now and then (1.5 ms).
_LOOK_EVERY_NS = NS_PER_S


class ScreenConfig(Config):
    """Config of ``screen``."""

    fps: float = live(default=30.0, gt=0, le=240, description="Pictures per second.")
    cursor: bool = live(
        default=True, description="Whether the mouse cursor is in the picture (X11 only; elsewhere it is not)."
    )
    monitor: int = live(
        default=1,
        ge=0,
        le=64,
        unit="number",
        description="Which monitor, counted from 1; 0 is all of them in one picture.",
    )


class Screen(Source[ScreenConfig], type="screen"):
    """Capture a monitor of this machine: an X11 display through shared memory, or a Windows or macOS desktop.

    When the monitor changes its size, so do the pictures. Pictures that cannot be taken in time are skipped and
    counted. A Wayland desktop does not let itself be captured this way: the node says so and does not start.

    ```yaml
    flowstream: 1
    nodes:
      screen: {type: screen, fps: 30}
      encode: {type: hw-encode, from: screen, bitrate: 4M}
      tape: {type: recorder, inputs: {video: encode}, path: recordings/desk.mp4}
    ```
    """

    thread = True
    is_live = True
    needs = (Need("mss"),)

    video = Output(VideoFrame, main=True, doc="Pictures of the monitor, bgr0.")

    _grabber: MSS | None = None

    @classmethod
    def negotiate(cls, config: ScreenConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """Format and rate; only the display knows its size."""
        return {"video": VideoCaps(format="bgr0", fps=config.fps)}

    def open(self) -> None:
        self._caps = VideoCaps(format="bgr0")
        self._skipped = 0
        self._looked_ns = self.ctx.now_ns()
        self._reopen()

    def close(self) -> None:
        if self._grabber is not None:
            self._grabber.close()
            self._grabber = None

    def accepts(self, config: ScreenConfig, /) -> None:
        if config.monitor >= max(2, len(self._monitors)):  # whoever opens the display anew may find it, or says why not
            raise ValueError(f"there was no monitor {config.monitor} when the display was opened")

    async def run(self, ctx: Context) -> None:
        """Takes a picture at each beat of the clock."""
        beat_ns = ctx.now_ns()
        to_media_ns = ctx.media_ns() - beat_ns
        while True:
            await ctx.sleep_until_ns(beat_ns)
            frame = await ctx.in_thread(self._take, beat_ns + to_media_ns)
            await ctx.emit(self.video(frame))
            step_ns = period_ns(self.config.fps)
            beat_ns += step_ns
            late = (ctx.now_ns() - beat_ns) // step_ns
            if late > 0:
                beat_ns += late * step_ns
                self._skipped += late
                ctx.report(skipped=self._skipped)

    def _take(self, time_ns: int) -> VideoFrame:
        """The picture for a beat. Raises PeerError when there is none to be had."""
        from mss.exception import ScreenShotError

        now_ns = self.ctx.now_ns()
        if self._is_changed(now_ns):
            self._reopen()
        assert self._grabber is not None
        try:
            shot = self._grabber.grab(self._monitor)
        except ScreenShotError:  # a monitor that has shrunk or gone; if it is worse, the second try says it
            self._reopen()
            try:
                shot = self._grabber.grab(self._monitor)
            except ScreenShotError as error:
                raise PeerError(f"the screen cannot be captured: {error}") from error
        width, height = shot.size
        if (width, height) != (self._caps.width, self._caps.height):
            self._caps = VideoCaps(format="bgr0", width=width, height=height)
            self.ctx.report(size=f"{width}x{height}")
        return VideoFrame(
            caps=self._caps,
            planes=(Plane(memoryview(shot.raw).toreadonly(), width * 4),),
            time_ns=time_ns,
            duration_ns=period_ns(self.config.fps),
            capture_ns=now_ns,
            origin=shot.raw,
        )

    def _is_changed(self, now_ns: int) -> bool:
        if self._opened_for != (self.config.monitor, self.config.cursor):
            return True
        if now_ns - self._looked_ns < _LOOK_EVERY_NS:
            return False
        from mss import MSS
        from mss.exception import ScreenShotError

        self._looked_ns = now_ns
        try:
            with MSS() as look:
                return look.monitors != self._monitors
        except ScreenShotError:
            return True

    def _reopen(self) -> None:
        """Opens the display and finds the monitor. Raises PeerError, in the user's terms."""
        from mss import MSS
        from mss.exception import ScreenShotError

        self.close()
        on_x11 = sys.platform.startswith("linux")
        if on_x11:
            _require_display()
        try:
            self._grabber = MSS(with_cursor=self.config.cursor) if on_x11 else MSS()
            self._monitors = self._grabber.monitors
        except ScreenShotError as error:
            display = f" {os.environ['DISPLAY']}" if on_x11 else ""
            raise PeerError(f"cannot open the display{display}: {error}") from error
        if on_x11 and _is_xwayland(self._monitors):
            raise _wayland(
                f"the display {os.environ['DISPLAY']} belongs to a Wayland desktop and shows nothing but black"
            )
        self._opened_for = (self.config.monitor, self.config.cursor)
        # Without RandR there is no list of monitors, only the whole.
        found = max(1, len(self._monitors) - 1)
        if self.config.monitor > found:
            there = "is one monitor" if found == 1 else f"are {found} monitors"
            raise PeerError(f"there is no monitor {self.config.monitor}: there {there}", hint="monitor: 0 takes all")
        self._monitor: Monitor = self._monitors[min(self.config.monitor, len(self._monitors) - 1)]


def _require_display() -> None:
    if os.environ.get("DISPLAY"):
        return
    if os.environ.get("WAYLAND_DISPLAY") or os.environ.get("XDG_SESSION_TYPE") == "wayland":
        raise _wayland("this is a Wayland desktop, and Wayland lets no program capture it this way")
    raise PeerError(
        "there is no display to capture: DISPLAY is not set",
        hint="start it inside the desktop session, or name the display: DISPLAY=:0 flowstream run ...",
    )


def _wayland(what: str) -> PeerError:
    return PeerError(what, hint="log in to an X11 session: the login screen offers it as 'Xorg' or 'X11'")


def _is_xwayland(monitors: list[Monitor]) -> bool:
    """Whether an X server only shows single windows on a Wayland desktop: its own root is black."""
    # Xwayland before 22 names its outputs so; since 23.1 it has an extension of that name.
    if any(str(monitor.get("output", "")).startswith("XWAYLAND") for monitor in monitors):
        return True
    return bool(os.environ.get("WAYLAND_DISPLAY")) and _has_extension(b"XWAYLAND")


def _has_extension(name: bytes) -> bool:
    """Asks the X server for an extension, by libxcb, which mss has loaded."""
    import ctypes

    xcb, libc = ctypes.CDLL("libxcb.so.1"), ctypes.CDLL(None)
    xcb.xcb_connect.restype = xcb.xcb_query_extension_reply.restype = ctypes.c_void_p
    xcb.xcb_query_extension.restype = ctypes.c_uint
    connection = ctypes.c_void_p(xcb.xcb_connect(None, None))
    try:
        cookie = xcb.xcb_query_extension(connection, ctypes.c_uint16(len(name)), name)
        reply = ctypes.c_void_p(xcb.xcb_query_extension_reply(connection, ctypes.c_uint(cookie), None))
        if reply.value is None:
            return False
        present: int = ctypes.cast(reply, ctypes.POINTER(ctypes.c_uint8))[8]  # after type, pad, sequence and length
        libc.free(reply)
        return present != 0
    finally:
        xcb.xcb_disconnect(connection)
