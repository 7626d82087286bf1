"""How fast this machine encodes: a few pictures through ``hw-encode`` at each speed, kept for the next time."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowstream.node.base import Node
from flowstream.node.folders import cache_folder
from flowstream.node.registry import Registry

SPEEDS = ("medium", "fast", "faster", "veryfast", "superfast", "ultrafast")
"""From the slowest on, as hw-encode names them."""

SIZE = (1280, 720)
_PICTURES = 24
_WARM = 4  # the first ones load libraries and fill the encoder
_FRAME_NS = 33_333_333


@dataclass(frozen=True, slots=True)
class Speeds:
    """Milliseconds of a core for a megapixel at each speed, by which encoder, and whether it was measured just now."""

    ms_per_megapixel: dict[str, float]
    encoder: str
    is_fresh: bool


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_file(environ: Mapping[str, str]) -> Path:
    """Where the measurement is kept: ``encode-speed.json`` in the user's cache folder."""
    return cache_folder(environ) / "encode-speed.json"


def machine() -> dict[str, Any]:
    """What a measurement holds for: this machine, its cores and the libraries."""
    import av

    from flowstream import __version__

    return {
        "machine": f"{platform.node()} {platform.machine()} {_processor()}",
        "cores": cores(),
        "av": av.__version__,
        "flowstream": __version__,
    }


def speeds(
    environ: Mapping[str, str], *, is_fresh: bool = False, measure: Callable[[str], tuple[float, str]] | None = None
) -> Speeds:
    """What was kept for this machine, else what is measured now, which takes a few seconds and is kept.

    ``measure`` gives the milliseconds for a megapixel at a speed, and the encoder's name.
    """
    path, here = cache_file(environ), machine()
    if not is_fresh and (kept := _kept(path, here)) is not None:
        return kept
    found: dict[str, float] = {}
    encoder = ""
    for speed in SPEEDS:
        found[speed], encoder = (measure or measured)(speed)
    # A slower speed does not take less; where it seems to, something else took the processor.
    for slower, faster in zip(reversed(SPEEDS[:-1]), reversed(SPEEDS[1:]), strict=True):
        found[slower] = max(found[slower], found[faster])
    made = Speeds(found, encoder, is_fresh=True)
    _keep(path, {"of": here, **asdict(made)})
    return made


def measured(speed: str) -> tuple[float, str]:
    """Encodes moving pictures at a speed: milliseconds of a core for a megapixel, and the encoder that it was.

    Processor time where the processor encodes, else the time that it takes.
    """
    from flowstream.media.frames import VideoFrame
    from flowstream.testing.harness import Harness

    node_type: type[Node[Any]] = Registry.installed().get("hw-encode")
    width, height = SIZE
    with Harness(node_type, {"speed": speed, "bitrate": "2.5M", "content": "camera"}, threads=False) as encode:
        begun_s, begun_wall_s = 0.0, 0.0
        for index, picture in enumerate(_moving(_PICTURES + _WARM)):
            if index == _WARM:
                begun_s, begun_wall_s = time.process_time(), time.perf_counter()
            frame = VideoFrame.from_array(picture, format="yuv420p", time_ns=index * _FRAME_NS, duration_ns=_FRAME_NS)
            encode.push(frame, "video")
        encode.finish()
        took_s, took_wall_s = time.process_time() - begun_s, time.perf_counter() - begun_wall_s
        encoder = str(encode.facts.get("encoder", "libx264"))
    spent_s = took_s if encoder.startswith("lib") else took_wall_s
    return round(spent_s * 1000 / _PICTURES / (width * height / 1e6), 3), encoder


def _moving(count: int) -> list[Any]:
    """Pictures that move and have some noise, as a camera's do."""
    import numpy as np

    width, height = SIZE
    chance = np.random.default_rng(1)
    coarse = chance.integers(40, 216, (height // 8 + count, width // 8 + count), np.uint8)
    texture = np.kron(coarse, np.ones((8, 8), np.uint8))
    pictures = []
    for index in range(count):
        picture = np.full((height * 3 // 2, width), 128, np.uint8)
        picture[:height] = texture[index * 3 : index * 3 + height, index * 5 : index * 5 + width]
        picture[:height] += chance.integers(0, 8, (height, width), np.uint8)
        pictures.append(picture)
    return pictures


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


def _kept(path: Path, here: Mapping[str, Any]) -> Speeds | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["of"] != dict(here) or set(values["ms_per_megapixel"]) != set(SPEEDS):
            return None
        found = {speed: float(values["ms_per_megapixel"][speed]) for speed in SPEEDS}
        return Speeds(found, str(values["encoder"]), is_fresh=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, of another version, or damaged: measured anew


def _keep(path: Path, values: Mapping[str, Any]) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(values), encoding="utf-8")
        part.replace(path)
    except OSError:
        pass  # a folder that cannot be written: then it is measured each time
