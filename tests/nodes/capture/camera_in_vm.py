"""What test_camera.py runs inside the machine with a virtual camera: prints one JSON object of what happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flowstream import PeerError, VideoFrame
from flowstream.control.client import ask
from flowstream.control.socket import ControlError
from flowstream_nodes.capture.camera import Camera, CameraConfig

DRIVER = Path("/sys/bus/platform/drivers/vivid")
started_ns = time.monotonic_ns()
facts: dict[str, Any] = {}


def opened(**config: Any) -> Camera:
    camera = Camera(CameraConfig.model_validate(config))
    context: Any = SimpleNamespace(
        now_ns=time.monotonic_ns, media_ns=lambda: time.monotonic_ns() - started_ns, report=facts.update
    )
    camera.ctx = context
    try:
        camera.open()
    except BaseException:
        camera.close()
        raise
    return camera


def frames(camera: Camera, count: int) -> list[VideoFrame]:
    found: list[VideoFrame] = []
    while len(found) < count:
        found += [emit.payload for emit in camera.capture()]
    return found


def failure(**config: Any) -> list[str]:
    try:
        opened(**config).close()
    except PeerError as error:
        return [type(error).__name__, str(error)]
    return []


found: dict[str, Any] = {}

camera = opened(size="640x360")
taken = frames(camera, 30)
found["facts"] = dict(facts)
found["sizes"] = sorted({(frame.width, frame.height, frame.format) for frame in taken})
found["times"] = [frame.time_ns for frame in taken]
found["delays"] = [time.monotonic_ns() - (frame.capture_ns or 0) for frame in taken[-1:]]
found["distinct"] = len({bytes(frame.planes[0].data) for frame in taken})
found["busy"] = failure(size="320x180")
camera.close()

camera = opened(size="1280x720")  # which this camera has at 12.5 fps only
found["nearest"] = dict(facts)
frames(camera, 2)
camera.close()

found["missing"] = failure(device="/dev/video7")
found["no camera"] = failure(device="/dev/null")
found["no such format"] = failure(format="mjpeg", size="640x360")
os.seteuid(65534)
found["forbidden"] = failure()
os.seteuid(0)

camera = opened(size="640x360")
frames(camera, 3)
threading.Thread(target=lambda: (DRIVER / "unbind").write_text("vivid.0")).start()
try:
    frames(camera, 300)
    found["unplugged"] = []
except PeerError as error:
    found["unplugged"] = [type(error).__name__, str(error)]
camera.close()
found["gone"] = failure()

(DRIVER / "bind").write_text("vivid.0")
deadline = time.monotonic() + 20
while not Path("/dev/video0").exists() and time.monotonic() < deadline:
    os.sched_yield()
camera = opened(size="640x360")
found["back"] = len(frames(camera, 3))
camera.close()


def run_graph() -> dict[str, Any]:
    """The graph ``camera`` as a person starts it, until its encoder has given pictures; its nodes by then."""
    subprocess.run(["/bin/busybox", "ip", "link", "set", "lo", "up"], check=False)
    control = Path("/run/camera.sock")
    process = subprocess.Popen(
        [sys.executable, "-m", "flowstream", "run", "camera", "--no-watch", "--log", "json", "--control", str(control)],
        cwd="/run",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    nodes: dict[str, Any] = {}
    deadline = time.monotonic() + 60
    pause = threading.Event()
    while time.monotonic() < deadline and process.poll() is None:
        pause.wait(1)  # the graph needs the only, emulated, processor for itself
        if not control.exists():
            continue
        try:
            nodes = ask(control, "/status")["nodes"]
        except ControlError:
            continue
        if nodes["encode"]["emitted"].get("packets", 0) >= 5:
            break
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=40)
    return {"status": process.returncode, "nodes": nodes, "said": said}


found["graph"] = run_graph()

Path(sys.argv[1]).write_text(json.dumps(found))
