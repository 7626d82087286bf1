#!/usr/bin/env python3
"""A file to x264 to MP4, as a graph and by the ffmpeg program: the same input, the same settings, start-up included.

    python tools/bench/transcode.py [--quick]

The two are not the same build of x264: ours comes with PyAV, the program's with the system.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import RUNS, cpu_of, is_quick, medians, tell, tell_ratio

FPS = 30
BITRATE_BPS = 2_500_000
BUFFER_BITS = BITRATE_BPS // 5  # hw-encode's own
KEYFRAME_S = 2
THREADS = 2
GRAPH = f"""
flowstream: 1
nodes:
  clip: {{type: file, path: clip.mp4, pace: fast}}
  encode:
    type: hw-encode
    from: clip.video
    bitrate: {BITRATE_BPS // 1000}k
    max: {BITRATE_BPS // 1000}k
    keyframe_interval: {KEYFRAME_S}s
    profile: baseline
    speed: superfast
    threads: {THREADS}
  tape: {{type: recorder, from: encode, path: ours.mp4}}
"""


def make_clip(path: Path, seconds: int) -> None:
    """Make 720p30 with motion and the noise of a camera."""
    source = f"testsrc2=size=1280x720:rate={FPS}:duration={seconds},noise=alls=8:allf=t,format=yuv420p"
    made = ["-c:v", "libx264", "-preset", "superfast", "-b:v", "8M", "-g", "60"]
    cpu_of(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, *made, path])


def by_ffmpeg(folder: Path) -> float:
    """Transcode with the program and return its CPU time in seconds."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", "clip.mp4", "-an", "-c:v", "libx264"]
    command += ["-preset", "superfast", "-tune", "zerolatency", "-profile:v", "baseline", "-threads", f"{THREADS}"]
    command += ["-b:v", f"{BITRATE_BPS}", "-maxrate", f"{BITRATE_BPS}", "-bufsize", f"{BUFFER_BITS}"]
    command += ["-forced-idr", "1", "-force_key_frames", f"expr:gte(t,n_forced*{KEYFRAME_S})"]
    command += ["-x264-params", "keyint=infinite:scenecut=0"]
    command += ["-movflags", "frag_keyframe+empty_moov+default_base_moof", "peer.mp4"]
    (folder / "peer.mp4").unlink(missing_ok=True)
    return cpu_of(command, cwd=folder)


def by_us(folder: Path) -> float:
    """Transcode with the graph and return the CPU time of ``flowstream run`` in seconds."""
    (folder / "ours.mp4").unlink(missing_ok=True)
    command: list[str | Path] = [sys.executable, "-m", "flowstream", "run", "--no-watch", "graph.yaml"]
    return cpu_of(command, cwd=folder)


def pictures(path: Path) -> int:
    """Return how many pictures a file has."""
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-count_packets", "-of", "csv=p=0"]
    command += ["-show_entries", "stream=nb_read_packets", str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().rstrip(","))


def main() -> None:
    """Measure, check that both did the work, and tell."""
    quick = is_quick(__doc__)
    seconds = 1 if quick else 30
    with tempfile.TemporaryDirectory(prefix="flowstream-bench-") as name:
        folder = Path(name)
        make_clip(folder / "clip.mp4", seconds)
        (folder / "graph.yaml").write_text(GRAPH)
        by_us(folder)  # compiles and caches what has changed since
        works = {"ffmpeg": lambda: by_ffmpeg(folder), "flowstream run": lambda: by_us(folder)}
        cpu_s = medians(works, runs=1 if quick else RUNS)
        tell(list(cpu_s.items()), "CPU s")
        for each in ("peer.mp4", "ours.mp4"):
            count = pictures(folder / each)
            rate_bps = (folder / each).stat().st_size * 8 // seconds
            print(f"{each}: {count} pictures, {rate_bps / 1e6:.2f} Mbit/s")
            if count != seconds * FPS:
                raise RuntimeError(f"{each} has {count} pictures of {seconds * FPS}")
    tell_ratio("transcode", cpu_s["flowstream run"] / cpu_s["ffmpeg"])


if __name__ == "__main__":
    main()
