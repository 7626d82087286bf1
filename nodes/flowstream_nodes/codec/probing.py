"""Which encoders and decoders really open on this machine: found by coding a few pictures, once per machine and driver.

Hardware is tried in a process of its own, since a broken driver takes the process with it that calls it. What was found
is kept in the user's cache folder until another machine, kernel, driver or FFmpeg shows.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowstream import Size, cache_folder
from flowstream_nodes.codec._pictures import PictureKind
from flowstream_nodes.codec.encoders import CANDIDATES, Candidate, EncoderSettings

PATIENCE_S = 20.0
"""How long one encoder may take to show that it works; on a machine with hardware most of it is loading the driver."""

ELSEWHERE = "not for this system"
"""The reason of what only another operating system has."""

_TRIAL_SIZE = Size(320, 240)
_TRIAL_PICTURES = 3


@dataclass(frozen=True, slots=True)
class Found:
    """Whether a candidate opens; if not, the reason in a few words."""

    candidate: Candidate
    reason: str = ""

    @property
    def opens(self) -> bool:
        """Whether it does."""
        return not self.reason


def cache_file(environ: Mapping[str, str] | None = None) -> Path:
    """Where what was found is kept: ``encoders.json`` in the user's cache folder."""
    return cache_folder(os.environ if environ is None else environ) / "encoders.json"


def machine() -> dict[str, Any]:
    """What the findings hold for: this machine, kernel, driver, devices and FFmpeg."""
    import av

    return {
        "machine": _text("/etc/machine-id") or platform.node(),
        "kernel": platform.release(),
        "driver": _text("/sys/module/nvidia/version"),
        "devices": sorted(glob.glob("/dev/nvidia*") + glob.glob("/dev/dri/*") + glob.glob("/dev/video*")),
        "av": av.__version__,
        "ffmpeg": ".".join(map(str, av.library_versions["libavcodec"])),
    }


def absent(candidate: Candidate) -> str:
    """Why a candidate cannot be here, as far as that shows without trying; nothing when it may be."""
    import av

    if candidate.platforms and sys.platform not in candidate.platforms:
        return ELSEWHERE
    if candidate.open is None and candidate.name not in av.codecs_available:
        return "not in this build of FFmpeg"
    if sys.platform == "linux" and candidate.devices and not any(glob.glob(each) for each in candidate.devices):
        return f"no {' or '.join(candidate.devices)}"
    return ""


def trial(candidate: Candidate) -> str:
    """Codes a few pictures in this process; the reason why that failed, or nothing."""
    import av.logging
    import numpy as np

    from flowstream import VideoFrame
    from flowstream_nodes.codec._ffmpeg import open_encoder
    from flowstream_nodes.codec._guarded import GuardedEncoder
    from flowstream_nodes.codec._pictures import Pictures

    kind = PictureKind(_TRIAL_SIZE, candidate.formats[0], "smpte170m", False)
    settings = EncoderSettings(kind, bitrate_bps=500_000, ceiling_bps=1_000_000, interval_ns=33_333_333)
    before = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=True) as logged:
            try:
                encoder, pictures, packets = open_encoder(candidate, settings), Pictures(), 0
                for index in range(_TRIAL_PICTURES):
                    grey = np.full((_TRIAL_SIZE.height, _TRIAL_SIZE.width, 3), 90 + 10 * index, np.uint8)
                    frame = VideoFrame.from_array(grey, time_ns=index * 33_333_333)
                    picture = pictures.prepare(frame, kind)
                    packets += len(encoder.encode(picture, frame, time_ns=frame.time_ns, keyframe=index == 0))
                packets += len(encoder.flush())
                if isinstance(encoder, GuardedEncoder):
                    encoder.close()
            except (ValueError, OSError, RuntimeError) as error:
                return logged[0][2].strip().rstrip(".") if logged else str(error)
    finally:
        av.logging.set_level(before)
    return "" if packets else "it gave no packets"


def find(candidates: Iterable[Candidate], *, cache: Path | None, afresh: bool = False) -> list[Found]:
    """Which of these open, in their order.

    ``cache`` is the file that keeps what was found of hardware (None: nothing is kept); ``afresh`` tries again.
    """
    wanted = list(candidates)
    reasons = {each.name: reason for each in wanted if (reason := absent(each))}
    tried = [each for each in wanted if each.name not in reasons]
    foreign = [each.name for each in tried if each.is_hardware and each.open is None]
    if foreign:
        reasons |= _found_in_child(foreign, cache, afresh=afresh)
    for each in tried:
        if each.name not in reasons:
            reasons[each.name] = trial(each)
    return [Found(each, reasons[each.name]) for each in wanted]


def _found_in_child(names: list[str], cache: Path | None, *, afresh: bool) -> dict[str, str]:
    known = machine()
    kept: dict[str, str] = {} if cache is None or afresh else _read(cache, known)
    missing = [name for name in names if name not in kept]
    if missing:
        kept |= _tried_in_child(missing)
        if cache is not None:
            _write(cache, known, kept)
    return {name: kept[name] for name in names}


def _tried_in_child(names: list[str]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    left = list(names)
    while left:
        said, end = _child(left)
        reasons |= said
        left = [name for name in left if name not in reasons]
        if left:  # what the child was at when it ended
            reasons[left.pop(0)] = end
    return reasons


def _child(names: list[str]) -> tuple[dict[str, str], str]:
    """What a child process found, and how it ended before it was through."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    command = [sys.executable, "-m", "flowstream_nodes.codec.probing", *names]
    try:
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired as late:
        return _lines(late.stdout or b""), f"it did not answer within {PATIENCE_S:g} s"
    except OSError as error:
        return {}, f"it could not be tried: {error.strerror}"
    end = f"its driver ended the process (signal {-done.returncode})" if done.returncode < 0 else "the trial failed"
    return _lines(done.stdout), end


def _lines(output: bytes) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for line in output.splitlines():
        try:
            name, reason = json.loads(line)
        except (ValueError, TypeError):  # a driver's own words
            continue
        reasons[str(name)] = str(reason)
    return reasons


def _read(file: Path, known: dict[str, Any]) -> dict[str, str]:
    try:
        kept = json.loads(file.read_text("utf-8"))
        if kept["for"] != known:
            return {}
        return {str(name): str(reason) for name, reason in kept["reasons"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(file: Path, known: dict[str, Any], reasons: dict[str, str]) -> None:
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps({"for": known, "reasons": reasons}, indent=1, sort_keys=True), "utf-8")
        fresh.replace(file)
    except OSError:  # then it is tried again next time
        return


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, ValueError):
        return ""


def _main(names: list[str]) -> None:
    by_name = {each.name: each for each in CANDIDATES}
    for name in names:
        sys.stdout.write(json.dumps([name, trial(by_name[name])]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main(sys.argv[1:])
