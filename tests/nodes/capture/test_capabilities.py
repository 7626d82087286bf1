"""What doctor is told of cameras, screens and permissions."""

from __future__ import annotations

import pytest

from flowstream import Capability
from flowstream_nodes.capture import capabilities as told


def rows(monkeypatch: pytest.MonkeyPatch, *, devices: dict[str, list[str]], open_: bool = True) -> list[Capability]:
    monkeypatch.setattr(told.sys, "platform", "linux")
    monkeypatch.setattr(told.glob, "glob", lambda pattern: devices.get(pattern, []))
    monkeypatch.setattr(told.os, "access", lambda path, mode: open_)
    return list(told.capabilities(False))


@pytest.fixture(autouse=True)
def no_desktop(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "XDG_SESSION_TYPE"):
        monkeypatch.delenv(name, raising=False)


def test_a_bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    camera, screen = rows(monkeypatch, devices={})
    assert (camera.state, camera.detail) == ("absent", "no /dev/video*")
    assert (screen.state, screen.detail) == ("absent", "DISPLAY is not set")
    assert "DISPLAY=:0 flowstream run" in screen.advice


def test_devices_that_may_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = {"/dev/video*": ["/dev/video9"], "/dev/dri/renderD*": ["/dev/dri/renderD128"]}
    found = {each.name: each for each in rows(monkeypatch, devices=devices)}
    assert found["/dev/video9"].state == found["video"].state == found["render"].state == "works"
    assert "audio" not in found
    assert found["/dev/video9"].detail == "a video device"


def test_devices_that_may_not_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {each.name: each for each in rows(monkeypatch, devices={"/dev/video*": ["/dev/video9"]}, open_=False)}
    assert found["/dev/video9"].state == "broken"
    assert (found["video"].detail, found["video"].advice) == (
        "/dev/video9 may not be opened", "sudo usermod -aG video $USER, and log in anew",
    )  # fmt: skip


def test_a_screen_of_wayland_and_one_that_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")
    (_, screen) = rows(monkeypatch, devices={})
    assert (screen.name, screen.state) == ("screen :4711", "broken")
    assert screen.detail.startswith("does not open: ")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    (_, screen) = rows(monkeypatch, devices={})
    assert (screen.state, screen.detail) == ("absent", "Wayland lets no program capture it")
