#!/usr/bin/env python3
"""Pictures to x264 by hw-encode and by the ffmpeg program: what encoding takes, of the same pictures and settings.

    python tools/bench/encode.py [--quick]

1080p30 and 720p30 in yuv420p, as a camera gives them, and 1080p30 in BGRA, as a screen does. Both read raw pictures
from a file, again and again, and write no packets. A live encoder runs for hours, so start-up does not count: of each,
the time for one turn through the file is taken off the time for many. In the last row it does, over half a minute,
and is told, not judged; `transcode.py` and `startup.py` have it for a whole graph. The two are not the same build of
x264: ours comes with PyAV, the program's with the system. It fails when another ratio is above what is promised: 1.10,
and 0.85 for BGRA.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from measuring import RUNS, cpu_of, is_quick, medians, tell, tell_ratio

FPS = 30
PICTURES = 30  # in the file
THREADS = 2


@dataclass(frozen=True, slots=True)
class Work:
    """What is encoded: size, pixel format, at how many bits per second, and what it may take."""

    name: str
    width: int
    height: int
    format: str
    bitrate_bps: int
    most: float | None  # times what the program takes


WORKS = (
    Work("encode_1080p30", 1920, 1080, "yuv420p", 5_000_000, 1.10),
    Work("encode_720p30", 1280, 720, "yuv420p", 2_500_000, 1.10),
    Work("capture_1080p30", 1920, 1080, "bgra", 5_000_000, 0.85),
)
WITH_START = Work("with_start_720p30", 1280, 720, "yuv420p", 2_500_000, None)


def make_pictures(work: Work, path: Path) -> None:
    """Write raw pictures with motion and the noise of a camera, or a screen's without noise."""
    noise = "" if work.format == "bgra" else ",noise=alls=8:allf=t"
    source = f"testsrc2=size={work.width}x{work.height}:rate={FPS}{noise},format={work.format}"
    cpu_of(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, "-frames:v", f"{PICTURES}", "-f", "rawvideo",
            path])  # fmt: skip


def by_ffmpeg(work: Work, path: Path, turns: int) -> float:
    """Encode with the program and return its CPU time in seconds."""
    bitrate = work.bitrate_bps
    command: list[str | Path] = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-stream_loop", f"{turns - 1}"]
    command += ["-f", "rawvideo", "-pix_fmt", work.format, "-s", f"{work.width}x{work.height}", "-r", f"{FPS}"]
    command += ["-i", path, "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "superfast", "-tune", "zerolatency"]
    command += ["-profile:v", "baseline", "-threads", f"{THREADS}", "-b:v", f"{bitrate}", "-maxrate", f"{bitrate}"]
    command += ["-bufsize", f"{bitrate // 5}", "-forced-idr", "1", "-force_key_frames", "expr:gte(t,n_forced*2)"]
    command += ["-x264-params", "keyint=infinite:scenecut=0:aq-mode=1", "-f", "null", "-"]
    return cpu_of(command)


def by_us(work: Work, path: Path, turns: int) -> float:
    """Encode with the node in a process of its own and return its CPU time in seconds."""
    return cpu_of([sys.executable, __file__, "--encode", work.name, path, f"{turns}"])


def beyond_start(encoder: Callable[[Work, Path, int], float], work: Work, path: Path, turns: int) -> float:
    """Return the CPU time for so many turns more than one."""
    return encoder(work, path, turns + 1) - encoder(work, path, 1)


def encode(work: Work, path: Path, turns: int) -> None:
    """Be that process."""
    import numpy as np

    from flowstream import VideoFrame
    from flowstream.testing.harness import Harness
    from flowstream_nodes.codec.hw_encode import HwEncode

    shape = (work.height, work.width, 4) if work.format == "bgra" else (work.height * 3 // 2, work.width)
    config = {"bitrate": work.bitrate_bps, "max": work.bitrate_bps, "threads": THREADS, "content": "camera"}
    buffers = [np.empty(shape, np.uint8) for _ in range(3)]
    with Harness(HwEncode, config) as harness:
        node = harness.node
        assert isinstance(node, HwEncode)
        count = given = 0
        for _ in range(turns):
            with path.open("rb", buffering=0) as file:
                while file.readinto(memoryview(buffers[given % 3]).cast("B")):
                    time_ns = given * 1_000_000_000 // FPS
                    frame = VideoFrame.from_array(
                        buffers[given % 3], format=work.format, time_ns=time_ns, duration_ns=1_000_000_000 // FPS
                    )
                    count += sum(1 for emit in node.process(frame) if emit.output is HwEncode.packets)
                    given += 1
    if count != turns * PICTURES:
        raise RuntimeError(f"{count} packets of {turns * PICTURES} pictures")


def main() -> None:
    """Measure and tell."""
    if sys.argv[1:2] == ["--encode"]:
        name, path, turns = sys.argv[2:]
        encode(next(each for each in (*WORKS, WITH_START) if each.name == name), Path(path), int(turns))
        return
    quick = is_quick(__doc__)
    turns = 1 if quick else 10
    ratios: list[tuple[Work, float]] = []
    for work in (*WORKS, WITH_START):
        with tempfile.TemporaryDirectory(prefix="flowstream-bench-", dir=_memory()) as folder:
            path = Path(folder) / "pictures.raw"
            make_pictures(work, path)
            by_us(work, path, 1)  # compiles and caches what has changed since
            encoders = (("ffmpeg", by_ffmpeg), ("hw-encode", by_us))
            if work is WITH_START:
                works = {
                    f"{name} {work.name}": partial(each, work, path, 1 if quick else 3 * turns)
                    for name, each in encoders
                }
            else:
                works = {
                    f"{name} {work.name}": partial(beyond_start, each, work, path, turns) for name, each in encoders
                }
            cpu_s = medians(works, runs=1 if quick else RUNS)
        tell(list(cpu_s.items()), "CPU s")
        peer, ours = cpu_s.values()
        ratios.append((work, ours / peer))
    for work, ratio in ratios:
        tell_ratio(work.name, ratio)
    if not quick and any(work.most is not None and ratio > work.most for work, ratio in ratios):
        sys.exit(1)


def _memory() -> str | None:
    """A folder in memory where there is one, so that no disk is measured."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    main()
