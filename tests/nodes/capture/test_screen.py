"""screen: a real X server, its pixels, its monitors, and what is said where there is nothing to capture."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowstream import PeerError
from flowstream.testing.conformance import check_node
from flowstream.testing.harness import Harness
from flowstream_nodes.capture import screen as screen_module
from flowstream_nodes.capture.capabilities import capabilities
from flowstream_nodes.capture.screen import Screen, ScreenConfig

pytestmark = pytest.mark.real
MS = 1_000_000


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An X server of 640x480 with a free number, as DISPLAY."""
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "640x480x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=(writing,), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writing)
    try:
        with os.fdopen(reading) as numbers:
            number = numbers.readline().strip()
        assert number, "Xvfb did not start"
        monkeypatch.setenv("DISPLAY", f":{number}")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.delenv("XDG_SESSION_TYPE", raising=False)
        yield f":{number}"
    finally:
        server.terminate()
        server.wait()


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def resize(mode: str, timings: str) -> None:
    run("xrandr", "--newmode", mode, *timings.split())
    run("xrandr", "--addmode", "screen", mode)
    run("xrandr", "--output", "screen", "--mode", mode)


def capturing(**config: Any) -> Harness[ScreenConfig]:
    return Harness(Screen, {"cursor": False, **config})


@pytest.mark.usefixtures("display")
def test_what_is_on_the_screen_is_in_the_picture() -> None:
    run("xsetroot", "-solid", "#204080")
    with capturing() as screen:
        (frame,) = screen.run(emissions=1)
        assert (frame.width, frame.height, frame.format) == (640, 480, "bgr0")
        assert frame.array()[100, 100, :3].tolist() == [0x80, 0x40, 0x20]
        assert frame.array("bgr24").mean(axis=(0, 1)).tolist() == [0x80, 0x40, 0x20]
        run("xsetroot", "-solid", "#ff0000")
        (later,) = screen.run(emissions=1)
    assert later.array()[100, 100, :3].tolist() == [0, 0, 0xFF]
    assert frame.array()[100, 100, :3].tolist() == [0x80, 0x40, 0x20]  # the picture before is untouched
    assert screen.facts["size"] == "640x480"


def test_doctor_tells_of_the_screen(display: str) -> None:
    (screen,) = [each for each in capabilities(False) if each.kind == "screen"]
    assert (screen.state, screen.name, screen.detail) == ("works", f"screen {display}", "640x480")


@pytest.mark.usefixtures("display")
def test_pictures_come_on_an_even_beat_with_the_time_of_capture() -> None:
    with capturing(fps=25) as screen:
        first, *rest = screen.run(emissions=10)
        assert [f.time_ns - first.time_ns for f in rest] == [40 * MS * i for i in range(1, 10)]
        assert {f.duration_ns for f in rest} == {40 * MS}
        assert all(f.capture_ns is not None for f in rest)
        screen.clock.step(100 * MS)  # something took its time
        before = rest[-1]
        late, next_one = screen.run(emissions=2)
        assert late.time_ns - before.time_ns == 80 * MS
        assert next_one.time_ns - late.time_ns == 40 * MS
        assert screen.facts["skipped"] == 1
        screen.reconfigure(fps=50)
        frames = screen.run(emissions=3)
        assert frames[2].time_ns - frames[1].time_ns == 20 * MS


@pytest.mark.usefixtures("display")
def test_a_screen_that_shrinks_and_grows_is_followed() -> None:
    with capturing() as screen:
        assert screen.run(emissions=1)[0].caps.size == "640x480"
        resize("small", "23.86 320 336 368 416 240 241 244 255")
        assert screen.run(emissions=1)[0].caps.size == "320x240"
        run("xrandr", "--output", "screen", "--mode", "640x480")
        frames = screen.run(emissions=45)  # looked for once a second
        assert frames[-1].caps.size == "640x480"
    assert len({id(frame.caps) for frame in frames}) == 2


@pytest.mark.usefixtures("display")
def test_one_of_several_monitors_or_all() -> None:
    run("xrandr", "--setmonitor", "left", "320/100x480/100+0+0", "screen")
    run("xrandr", "--setmonitor", "right", "320/100x480/100+320+0", "none")
    with capturing(monitor=2) as screen:
        assert screen.run(emissions=1)[0].caps.size == "320x480"
        screen.reconfigure(monitor=0)
        assert screen.run(emissions=1)[-1].caps.size == "640x480"
        with pytest.raises(ValueError, match="there was no monitor 3"):
            screen.reconfigure(monitor=3)
    with pytest.raises(PeerError) as refusal, capturing(monitor=3):
        pass
    assert str(refusal.value) == "there is no monitor 3: there are 2 monitors (monitor: 0 takes all)"


@pytest.mark.usefixtures("display")
def test_a_monitor_that_is_taken_away_is_a_loss() -> None:
    run("xrandr", "--setmonitor", "left", "320/100x480/100+0+0", "screen")
    run("xrandr", "--setmonitor", "right", "320/100x480/100+320+0", "none")
    with capturing(monitor=2) as screen:
        screen.run(emissions=1)
        run("xrandr", "--delmonitor", "right")
        with pytest.raises(PeerError, match="there is no monitor 2: there is one monitor"):
            screen.run(emissions=60)


@pytest.mark.usefixtures("display")
def test_the_cursor_is_in_the_picture_if_wanted() -> None:
    run("xsetroot", "-solid", "#808080", "-cursor_name", "X_cursor")
    pictures = []
    for cursor in (False, True):
        with capturing(cursor=cursor) as screen:
            pictures.append(screen.run(emissions=1)[0].array().copy())
    changed = np.argwhere((pictures[0] != pictures[1]).any(axis=2))
    assert len(changed) > 20
    assert np.ptp(changed, axis=0).max() < 64


def error_of(**environment: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "XDG_SESSION_TYPE"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(PeerError) as refusal, capturing():
            pass
    return str(refusal.value)


def test_where_there_is_no_screen_it_says_what_to_do() -> None:
    assert error_of() == (
        "there is no display to capture: DISPLAY is not set "
        "(start it inside the desktop session, or name the display: DISPLAY=:0 flowstream run ...)"
    )
    assert error_of(DISPLAY=":987").startswith("cannot open the display :987: ")


def test_on_wayland_it_names_the_remedy() -> None:
    remedy = "(log in to an X11 session: the login screen offers it as 'Xorg' or 'X11')"
    for environment in ({"WAYLAND_DISPLAY": "wayland-0"}, {"XDG_SESSION_TYPE": "wayland"}):
        assert error_of(**environment) == (
            f"this is a Wayland desktop, and Wayland lets no program capture it this way {remedy}"
        )


def test_the_black_root_of_xwayland_is_refused(display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen_module, "_has_extension", lambda name: name == b"XWAYLAND")
    text = error_of(DISPLAY=display, WAYLAND_DISPLAY="wayland-0")
    assert text.startswith(f"the display {display} belongs to a Wayland desktop and shows nothing but black (log in")
    assert screen_module._is_xwayland([{"left": 0, "top": 0, "width": 1, "height": 1, "output": "XWAYLAND0"}])


def test_a_real_wayland_desktop_with_xwayland_is_refused(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    (runtime / "config").write_text(
        f"output HEADLESS-1 mode 640x480\nxwayland force\nexec echo $DISPLAY > {runtime}/display\n"
    )
    environment = {
        **os.environ, "XDG_RUNTIME_DIR": str(runtime), "WLR_BACKENDS": "headless", "WLR_RENDERER": "pixman",
        "WLR_LIBINPUT_NO_DEVICES": "1",
    }  # fmt: skip
    as_user: list[str] = []
    if os.geteuid() == 0:  # sway refuses to run as root
        as_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        for folder in (runtime, *runtime.parents):
            if folder == Path(tempfile.gettempdir()):
                break
            folder.chmod(0o755)
        os.chown(runtime, 65534, 65534)
    log = (tmp_path / "sway.log").open("w+")
    desktop = subprocess.Popen([*as_user, "sway", "-c", f"{runtime}/config"], env=environment, stdout=log, stderr=log)
    try:
        display = runtime / "display"
        while not (display.exists() and display.read_text().strip()):
            assert desktop.poll() is None, (tmp_path / "sway.log").read_text()
            os.sched_yield()
        program = (
            "from flowstream import PeerError\nfrom flowstream.testing.harness import Harness\n"
            "from flowstream_nodes.capture.screen import Screen\n"
            "try:\n    Harness(Screen).__enter__()\nexcept PeerError as error:\n    print(error)\n"
        )
        session = {**environment, "DISPLAY": display.read_text().strip(), "WAYLAND_DISPLAY": "wayland-1"}
        said = subprocess.run(
            [*as_user, sys.executable, "-c", program], env=session, capture_output=True, text=True, check=True
        )
    finally:
        desktop.terminate()
        desktop.wait()
        log.close()
    assert said.stdout.startswith(
        f"the display {session['DISPLAY']} belongs to a Wayland desktop and shows nothing but black (log in to an X11"
    )


@pytest.mark.usefixtures("display")
def test_an_x_server_is_asked_for_an_extension() -> None:
    assert screen_module._has_extension(b"RANDR")
    assert not screen_module._has_extension(b"XWAYLAND")


@pytest.mark.usefixtures("display")
def test_it_keeps_the_rules_of_node_types() -> None:
    check_node(Screen)
