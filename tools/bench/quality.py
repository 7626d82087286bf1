#!/usr/bin/env python3
"""How much of a picture is left: structural similarity of hw-encode and of the ffmpeg program at the same bitrate.

    python tools/bench/quality.py [--quick]

For every preset and every kind of content the same pictures are encoded by both with the preset's size, frame rate,
bitrate and speed, zerolatency and the same buffer; the program is asked for more or less until both give the same
within 3 %: a page that is written on now and then takes fewer bits than either is asked for. What is told is ours less
the program's, over every fifth picture. The first second, in which both find their rate, counts neither for that nor
for the bitrate. It fails when the rates do not meet, and when ours is more than 0.005 below the program's.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from measuring import is_quick, tell_ratio

CONTENTS = ("camera", "motion", "text")
PRESETS = ("low", "medium", "high", "ultra")
SECONDS = 4
TRIES = 10
CLOSE = 0.03
LEAST = -0.005

Picture = np.ndarray[Any, Any]


def pictures(content: str, width: int, height: int, fps: float, count: int) -> Iterator[Picture]:
    """Yield pictures in yuv420p: a slow pan with noise, a fast one over fine structure, or a page that is written."""
    import cv2

    rng = np.random.default_rng(7)
    grain = rng.integers(0, 255, (height // 4, width // 4), np.uint8)
    texture = cv2.resize(grain, (width + 1024, height + 512), interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(texture, (0, 0), 6)
    page = np.full((height, width), 235, np.uint8)
    line = max(12, height // 40)
    for index in range(count):
        second = index / fps
        whole = np.full((height * 3 // 2, width), 128, np.uint8)
        if content == "text":
            row = int(second * 4) % max(1, height // line - 1)
            at = (line, (row + 1) * line)
            words = " ".join(f"{number:05d}" for number in range(int(second * 4), int(second * 4) + width // line // 3))
            cv2.putText(page, words, at, cv2.FONT_HERSHEY_SIMPLEX, line / 40, 20, 1, cv2.LINE_AA)
            whole[:height] = page
        else:
            speed, source = (40, soft) if content == "camera" else (400, texture)
            x, y = int(second * speed) % 1000, int(second * speed / 3) % 500
            whole[:height] = source[y : y + height, x : x + width]
            if content == "camera":
                whole[:height] = cv2.add(whole[:height], rng.integers(0, 9, (height, width), np.uint8))
        yield whole


@dataclass(frozen=True, slots=True)
class Case:
    """What both encode: a preset's values and the content."""

    preset: str
    content: str
    width: int
    height: int
    fps: float
    bitrate_bps: int
    speed: str
    count: int

    def pictures(self) -> Iterator[Picture]:
        """Yield them, the same each time."""
        return pictures(self.content, self.width, self.height, self.fps, self.count)

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.count / self.fps


def by_us(case: Case) -> list[bytes]:
    """Encode with the node and return the packets."""
    from flowstream import VideoFrame
    from flowstream.testing.harness import Harness
    from flowstream_nodes.codec.hw_encode import HwEncode

    config = {"preset": case.preset, "content": case.content, "max": case.bitrate_bps, "keyframe_interval": "60s"}
    packets: list[bytes] = []
    with Harness(HwEncode, config) as harness:
        node = harness.node
        assert isinstance(node, HwEncode)
        for index, picture in enumerate(case.pictures()):
            frame = VideoFrame.from_array(
                picture, format="yuv420p", time_ns=round(index * 1e9 / case.fps), duration_ns=round(1e9 / case.fps)
            )
            packets += [emit.payload.data for emit in node.process(frame) if emit.output is HwEncode.packets]
    return packets


def by_ffmpeg(case: Case, bitrate_bps: int) -> list[bytes]:
    """Encode with the program and return the packets."""
    import av

    from flowstream import Size
    from flowstream_nodes.codec._ffmpeg import threads_for

    threads = threads_for(Size(case.width, case.height))
    command = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p"]
    command += ["-s", f"{case.width}x{case.height}", "-r", f"{case.fps:g}", "-i", "pipe:0", "-c:v", "libx264"]
    command += ["-preset", case.speed, "-tune", "zerolatency", "-profile:v", "baseline", "-threads", f"{threads}"]
    command += ["-b:v", f"{bitrate_bps}", "-maxrate", f"{bitrate_bps}", "-bufsize", f"{bitrate_bps // 5}"]
    command += ["-x264-params", "keyint=infinite:scenecut=0", "-f", "h264", "pipe:1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        stdin = program.stdin

        def feed() -> None:
            for picture in case.pictures():
                stdin.write(picture.tobytes())
            stdin.close()

        feeding = threading.Thread(target=feed)
        feeding.start()
        with av.open(program.stdout, format="h264") as container:
            packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
        feeding.join()
    return packets


def similarity(case: Case, packets: list[bytes]) -> float:
    """Return the mean over every fifth picture, the first second left out."""
    import av

    from flowstream_nodes.codec._measuring import luma_of, ssim

    decoder: Any = av.CodecContext.create("h264", "r")
    values: list[float] = []
    for index, (picture, packet) in enumerate(zip(case.pictures(), packets, strict=True)):
        (frame,) = decoder.decode(av.Packet(packet))
        if index >= case.fps and index % 5 == 0:
            values.append(ssim(picture[: case.height], luma_of(frame)))
    return statistics.mean(values)


def rate(case: Case, packets: list[bytes]) -> float:
    """Return bits per second, the first second left out."""
    first = math.ceil(case.fps)
    return sum(map(len, packets[first:])) * 8 * case.fps / (case.count - first)


def at_rate(case: Case, wanted_bps: float) -> list[bytes]:
    """Encode with the program so that it gives a rate, whatever it has to be asked for.

    Raise RuntimeError when no rate that it is asked for gives that.
    """
    tried: list[tuple[float, float]] = []  # asked and given, as shares of what is wanted, in logarithms
    asked_bps = float(case.bitrate_bps)
    for _ in range(TRIES):
        packets = by_ffmpeg(case, round(asked_bps))
        given_bps = rate(case, packets)
        if abs(given_bps / wanted_bps - 1) <= CLOSE:
            return packets
        tried.append((math.log(asked_bps / wanted_bps), math.log(given_bps / wanted_bps)))
        asked_bps = wanted_bps * math.exp(_next(tried))
    raise RuntimeError(f"{case}: ffmpeg does not give {wanted_bps / 1e6:.3f}M; asked and given: {tried}")


def _next(tried: list[tuple[float, float]]) -> float:
    """Return what to ask for after these answers, where 0 is to come of it."""
    below = max((each for each in tried if each[1] < 0), key=lambda each: each[1], default=None)
    above = min((each for each in tried if each[1] > 0), key=lambda each: each[1], default=None)
    if below is not None and above is not None:
        share = -below[1] / (above[1] - below[1])
        return below[0] + min(0.8, max(0.2, share)) * (above[0] - below[0])
    asked, given = tried[-1]
    return asked - 2 * given  # more than it takes when every bit is used, so that the next answer is beyond


def compared(case: Case) -> float:
    """Encode with both and return ours less theirs; tell what came out."""
    ours = by_us(case)
    wanted_bps = rate(case, ours)
    theirs = at_rate(case, wanted_bps)
    ssim_ours, ssim_theirs = similarity(case, ours), similarity(case, theirs)
    print(
        f"{case.preset:7} {case.content:7} hw-encode {ssim_ours:.4f} at {wanted_bps / 1e6:6.3f}M   "
        f"ffmpeg {ssim_theirs:.4f} at {rate(case, theirs) / 1e6:6.3f}M   {ssim_ours - ssim_theirs:+.4f}",
        flush=True,
    )
    return ssim_ours - ssim_theirs


def main() -> None:
    """Compare, and tell the worst."""
    from flowstream_nodes.codec._quality import PRESETS as VALUES

    quick = is_quick(__doc__)
    worst = 1.0
    for name in PRESETS[:1] if quick else PRESETS:
        preset = VALUES[name]
        assert preset.size is not None
        assert preset.fps is not None
        count = round(preset.fps * (3 if quick else SECONDS))
        for content in CONTENTS:
            case = Case(
                name, content, *preset.size, preset.fps, preset.bitrate_bps, preset.speed, count
            )  # fmt: skip
            worst = min(worst, compared(case))
    tell_ratio("worst_ssim_difference", worst)
    if worst < LEAST:
        sys.exit(1)


if __name__ == "__main__":
    main()
