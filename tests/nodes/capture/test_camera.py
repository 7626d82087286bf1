"""camera: a real V4L2 driver (vivid, in a virtual machine), and the mapping of its clock."""

from __future__ import annotations

import compileall
import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import PeerError
from flowstream_nodes.capture import camera as camera_module
from flowstream_nodes.capture.camera import CameraConfig, DeviceClock, find_device

MS = 1_000_000
S = 1_000_000_000
ROOT = Path(__file__).parents[3]


def camera_vm() -> ModuleType:
    spec = importlib.util.spec_from_file_location("camera_vm", ROOT / "tools" / "camera_vm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["camera_vm"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def in_vm() -> Any:
    """What happened to the node in a machine with one virtual webcam."""
    vm = camera_vm()
    for folder in ("flowstream", "nodes"):  # or it would be done in there, many times slower and for every process
        assert compileall.compile_dir(ROOT / folder, quiet=1)
    script = Path(__file__).with_name("camera_in_vm.py")
    status, found = vm.run_for_result([sys.executable, str(script)], timeout_s=200)
    assert status == 0
    return json.loads(found)


@pytest.mark.real
@pytest.mark.alone
def test_pictures_of_the_wanted_size_come_at_increasing_times(in_vm: Any) -> None:
    assert in_vm["sizes"] in ([[640, 360, "yuv420p"]], [[640, 360, "yuyv422"]])  # FFmpeg chooses
    steps = [b - a for a, b in itertools.pairwise(in_vm["times"])]
    assert min(steps) > 0
    assert sum(steps) / len(steps) == pytest.approx(S / 30, rel=0.35)
    assert in_vm["distinct"] > 25  # it is a moving picture
    assert 0 <= in_vm["delays"][0] < S
    assert in_vm["facts"] == {"device": "/dev/video0", "size": "640x360", "fps": 30.0}


@pytest.mark.real
@pytest.mark.alone
def test_the_graph_camera_runs_with_it(in_vm: Any) -> None:
    graph = in_vm["graph"]
    assert graph["status"] == 0, graph["said"]
    assert {name: node["state"] for name, node in graph["nodes"].items()} == dict.fromkeys(
        ("camera", "clock", "encode", "out"), "running"
    ), graph["said"]
    assert graph["nodes"]["encode"]["emitted"]["packets"] >= 5


@pytest.mark.real
@pytest.mark.alone
def test_the_nearest_is_taken_where_the_wish_cannot_be_met(in_vm: Any) -> None:
    best_fps = in_vm["nearest"]["fps"]
    assert best_fps in (12.5, 30.0)  # of the driver at this size, in Linux 6.1 and in 6.12
    assert in_vm["nearest"] == {"device": "/dev/video0", "size": "1280x720", "fps": best_fps}


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.parametrize(
    ("what", "kind", "text"),
    [
        ("unplugged", "PeerError", "camera /dev/video0 has gone: "),
        ("busy", "ResourceBusy", "camera /dev/video0 is in use by another program (close that program)"),
        ("missing", "PeerError", "there is no camera /dev/video7 (there is /dev/video0)"),
        ("no camera", "PeerError", "/dev/null is no camera (there is /dev/video0)"),
        (
            "no such format",
            "PeerError",
            "camera /dev/video0 does not give 640x360 at 30 fps as mjpeg: Invalid argument",
        ),
        (
            "forbidden",
            "PeerError",
            "camera /dev/video0 may not be opened by this user "
            "(add the user to the group video: sudo usermod -aG video $USER, then log in again)",
        ),
        ("gone", "PeerError", "there is no camera on this machine (plug one in)"),
    ],
)
def test_what_goes_wrong_is_said_plainly(in_vm: Any, what: str, kind: str, text: str) -> None:
    assert in_vm[what][0] == kind
    assert in_vm[what][1].startswith(text)


@pytest.mark.real
@pytest.mark.alone
def test_a_camera_that_comes_back_can_be_opened_again(in_vm: Any) -> None:
    assert in_vm["back"] >= 3


def test_the_first_camera_is_the_one_with_the_lowest_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("video10", "video2", "videoflinger", "audio0"):
        (tmp_path / name).touch()
    monkeypatch.setattr(camera_module, "Path", lambda path: tmp_path if path == "/dev" else Path(path))
    assert find_device("first") == str(tmp_path / "video2")
    assert find_device(str(tmp_path / "video10")) == str(tmp_path / "video10")
    with pytest.raises(PeerError, match="there is no camera /dev/video77"):
        find_device("/dev/video77")


@pytest.mark.parametrize("config", [{"size": "big"}, {"fps": 0}, {"format": "../x"}, {"device": ""}])
def test_a_config_that_cannot_be_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(config))):
        CameraConfig.model_validate(config)


def test_jitter_of_arrival_does_not_show_in_the_times() -> None:
    clock = DeviceClock()
    delays = [9, 5, 7, 5, 20, 6, 5, 30, 5]
    times = [clock.now_of(i * 40 * MS, now_ns=100 * S + i * 40 * MS + delay * MS) for i, delay in enumerate(delays)]
    assert times[1] == 100 * S + 45 * MS
    steps = [b - a for a, b in itertools.pairwise(times[1:])]
    assert all(abs(step - 40 * MS) <= 40 * MS // 500 for step in steps)


def test_a_slow_device_clock_is_followed() -> None:
    clock = DeviceClock()
    for i in range(30_000):  # a thousand seconds at 30 fps, 100 ppm slow
        now_ns = i * S // 30
        time_ns = clock.now_of(now_ns - now_ns // 10_000, now_ns=now_ns + 5 * MS)
    assert abs(time_ns - now_ns - 5 * MS) < 2 * MS


def test_a_jump_of_the_device_clock_starts_afresh() -> None:
    clock = DeviceClock()
    assert clock.now_of(5 * S, now_ns=100 * S) == 100 * S
    assert clock.now_of(900 * S, now_ns=101 * S) == 101 * S
    assert clock.now_of(0, now_ns=102 * S) == 102 * S


def test_pictures_that_waited_for_their_reader_keep_their_times() -> None:
    clock = DeviceClock()
    first_ns = clock.now_of(0, now_ns=100 * S)
    taken = [i * 33 * MS for i in range(1, 70)]
    read = [102 * S + i * 5 * MS for i in range(1, 70)]  # the reader was away for two seconds
    times = [clock.now_of(device_ns, now_ns=now_ns) for device_ns, now_ns in zip(taken, read, strict=True)]
    for device_ns, time_ns in zip(taken, times, strict=True):
        assert abs(time_ns - first_ns - device_ns) <= device_ns // 500


def test_a_device_clock_that_stood_still_is_late_for_five_seconds() -> None:
    clock = DeviceClock()
    clock.now_of(0, now_ns=100 * S)
    delays = [
        now_ns - clock.now_of(now_ns - 103 * S, now_ns=now_ns)  # three seconds are missing from now on
        for now_ns in range(104 * S, 112 * S, 40 * MS)
    ]
    assert delays[0] > 2 * S
    assert delays[100] > 2 * S
    assert delays[-1] < 10 * MS


@given(
    st.lists(
        st.tuples(st.integers(-(10**12), 10**12), st.integers(1, 10**10)),
        min_size=1,
        max_size=50,
    )
)
def test_times_always_increase_and_never_lie_in_the_future(arrivals: list[tuple[int, int]]) -> None:
    clock, now_ns, last_ns = DeviceClock(), 0, -1
    for device_ns, step_ns in arrivals:
        now_ns += step_ns
        time_ns = clock.now_of(device_ns, now_ns=now_ns)
        assert last_ns < time_ns <= now_ns
        last_ns = time_ns


def test_the_kernel_is_found_in_its_image() -> None:
    import lzma
    import struct

    vm = camera_vm()
    elf = b"\x7fELF" + bytes(1_000)
    packed = lzma.compress(elf, check=lzma.CHECK_CRC32)
    image = bytearray(5 * 512)
    image[0x1F1] = 4
    struct.pack_into("<II", image, 0x248, 16, len(packed))
    assert vm.unpack_image(bytes(image) + bytes(16) + packed + b"tail") == elf
    with pytest.raises(vm.VmError, match="packed neither by xz nor by zstd"):
        vm.unpack_image(bytes(8_192))
