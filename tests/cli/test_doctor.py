"""doctor: what the machine can do, and what to do about what is missing."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from flowstream import Capability
from flowstream.cli import doctor
from tests.cli.calling import Call

WORKS = Capability("encoders", "libx264", "works", "h264", "processor")
ABSENT = Capability("encoders", "h264_nvenc", "absent", "h264", "no /dev/nvidia*", "install the driver")
BROKEN = Capability("permissions", "video", "broken", "group", "/dev/video0 may not be opened", "join it")


def test_the_table_of_this_machine(call: Call) -> None:
    called = call("doctor")
    for topic in ("encoders", "decoders", "devices", "ports", "clock", "versions"):
        assert f"{topic}:\n" in called.out
    rows = {" ".join(line.split()) for line in called.out.splitlines()}
    assert {"ok libx264 h264 processor", "ok libsvtav1 av1 processor", "ok libdav1d av1 processor"} <= rows
    assert any(row.startswith("ok flowstream 0.1.0") for row in rows)
    assert any(row.startswith("ok av ") and "FFmpeg" in row for row in rows)
    if sys.platform == "linux":
        assert "videotoolbox" not in called.out


def test_programs_get_everything(call: Call) -> None:
    called = call("doctor", "--format", "json")
    found = {(each["topic"], each["name"], each["kind"]): each for each in called.json}
    assert found["encoders", "libx264", "h264"]["state"] == "works"
    assert ("encoders", "h264_videotoolbox", "h264") in found
    assert called.status == (1 if any(each["state"] == "broken" for each in called.json) else 0)
    for each in called.json:
        assert set(each) == {"topic", "name", "state", "kind", "detail", "advice"}
        if each["state"] == "broken":
            assert each["advice"] or each["topic"] == "devices"


def test_what_is_missing_comes_once_with_what_to_do_and_the_broken_first() -> None:
    other = Capability("encoders", "hevc_nvenc", "absent", "hevc", "no /dev/nvidia*", "install the driver")
    elsewhere = Capability("encoders", "h264_mf", "absent", "h264", "not for this system")
    assert list(doctor.table([WORKS, ABSENT, other, elsewhere, BROKEN])) == [
        "encoders:",
        "  ok      libx264     h264   processor",
        "  -       h264_nvenc  h264   no /dev/nvidia*",
        "  -       hevc_nvenc  hevc   no /dev/nvidia*",
        "",
        "permissions:",
        "  BROKEN  video       group  /dev/video0 may not be opened",
        "",
        "what to do about what is missing:",
        "  video",
        "      join it",
        "  h264_nvenc, hevc_nvenc",
        "      install the driver",
    ]
    assert list(doctor.table([WORKS]))[-1] == "nothing is missing"


def test_packs_tell_theirs_and_one_that_fails_is_broken(call: Call, here: Path) -> None:
    (here / "acme").mkdir()
    (here / "acme" / "laser.py").write_text(
        'from flowstream import Capability\nCAPABILITIES = ("json:no_such_function", "tests.cli.test_doctor:lasers")\n'
    )
    called = call("doctor", "--nodes", "acme")
    assert called.status == 1
    assert "lasers:\n  ok      red" in called.out
    assert "json:no_such_function: " in called.out


def lasers(afresh: bool) -> list[Capability]:
    assert not afresh
    return [Capability("lasers", "red", "works")]


def test_a_port_that_is_taken_is_no_fault(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowstream.control import door
    from flowstream.graph.spec import Serve

    with socket.create_server(("127.0.0.1", 0)) as holder:
        monkeypatch.setattr(door, "DEFAULT", Serve("127.0.0.1", holder.getsockname()[1]))
        (port, *_) = [each for each in doctor.own() if each.topic == "ports"]
    assert port.state == "absent"
    assert "is taken by " in port.detail
    assert port.advice.startswith("nothing: a graph takes the next free port")


def test_a_clock_that_wakes_late_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "wakes_late_ms", lambda: 40.0)
    monkeypatch.setattr(doctor, "is_synchronised", lambda: False)
    wakes, utc = (each for each in doctor.own() if each.topic == "clock")
    assert (wakes.detail, wakes.state) == ("40.0 ms late at worst, of 20", "absent")
    assert "the machine is busy" in wakes.advice
    assert utc.advice.startswith("run a time service")
    monkeypatch.setattr(doctor, "is_synchronised", lambda: True)
    assert [each.detail for each in doctor.own() if each.name == "UTC"] == ["synchronised"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own word")
def test_the_kernel_says_whether_the_clock_is_kept() -> None:
    assert doctor.is_synchronised() in (True, False)
    assert 0 <= doctor.wakes_late_ms() < 10_000


def test_a_library_that_is_not_there_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", (("no-such-library", "nor-this"),))
    (row,) = [each for each in doctor.own() if each.state == "broken"]
    assert (row.name, row.detail, row.advice) == (
        "no-such-library", "not installed", "pip install no-such-library",
    )  # fmt: skip
