"""What this machine captures with: cameras and screens, and whether they may be opened."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from flowstream import Capability

_RELOGIN = "and log in anew"


def capabilities(afresh: bool) -> Iterator[Capability]:
    """The cameras, the screen, and what the user may not open."""
    yield from _cameras()
    yield _screen()
    yield from _permissions()


def _cameras() -> Iterator[Capability]:
    if sys.platform != "linux":
        yield Capability("devices", "camera", "absent", detail="is looked for on Linux only, and opened by its name")
        return
    found = sorted(glob.glob("/dev/video*"))
    for path in found:
        name = _text(f"/sys/class/video4linux/{Path(path).name}/name") or "a video device"
        may = os.access(path, os.R_OK | os.W_OK)
        yield Capability("devices", path, "works" if may else "broken", "camera", name if may else f"{name}: not yours")
    if not found:
        yield Capability("devices", "camera", "absent", "camera", "no /dev/video*", "plug one in; in a virtual machine "
                         "or a container, pass it through (--device /dev/video0)")  # fmt: skip


def _screen() -> Capability:
    if sys.platform in ("win32", "darwin"):
        return Capability("devices", "screen", "works", "screen", "of this desktop; on macOS, once it is allowed")
    display = os.environ.get("DISPLAY", "")
    is_wayland = bool(os.environ.get("WAYLAND_DISPLAY")) or os.environ.get("XDG_SESSION_TYPE") == "wayland"
    if is_wayland:
        advice = "log in to an X11 session: the login screen offers it as 'Xorg' or 'X11'"
        return Capability("devices", "screen", "absent", "screen", "Wayland lets no program capture it", advice)
    if not display:
        return Capability(
            "devices", "screen", "absent", "screen", "DISPLAY is not set",
            "start it inside the desktop session, or name the display: DISPLAY=:0 flowstream run",
        )  # fmt: skip
    from mss import MSS
    from mss.exception import ScreenShotError

    try:
        with MSS() as capture:
            whole = capture.monitors[0]
    except (ScreenShotError, OSError) as error:
        return Capability("devices", f"screen {display}", "broken", "screen", f"does not open: {error}",
                          "look whether the X server runs, and for its access list (xhost, XAUTHORITY)")  # fmt: skip
    return Capability("devices", f"screen {display}", "works", "screen", f"{whole['width']}x{whole['height']}")


def _permissions() -> Iterator[Capability]:
    """One line for each group whose devices are here: whether they may be opened."""
    if sys.platform != "linux":
        return
    groups = (("video", "/dev/video*"), ("render", "/dev/dri/renderD*"), ("audio", "/dev/snd/pcm*"))
    for group, pattern in groups:
        devices = sorted(glob.glob(pattern))
        if not devices:
            continue
        closed = [each for each in devices if not os.access(each, os.R_OK | os.W_OK)]
        if closed:
            yield Capability(
                "permissions", group, "broken", "group", f"{closed[0]} may not be opened",
                f"sudo usermod -aG {group} $USER, {_RELOGIN}",
            )  # fmt: skip
        else:
            yield Capability("permissions", group, "works", "group", f"{pattern} may be opened")


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, ValueError):
        return ""
