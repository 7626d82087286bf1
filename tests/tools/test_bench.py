"""The benchmarks run and give their ratios; how fast anything is is not tested here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"
RATIOS = {"hop": ["hop"], "thread_hop": ["thread_hop"], "transcode": ["transcode"], "startup": ["help", "check"],
          "language": ["check", "plan", "diff"], "quality": ["worst_ssim_difference"],
          "encode": ["encode_1080p30", "encode_720p30", "capture_1080p30", "with_start_720p30"],
          "adaptation": ["step", "lte", "lossy", "cross_traffic", "cpu_overload", "steady"],
          "congestion": ["congestion_unused", "congestion_waits", "congestion_cpu"],
          "latency": ["join", "jitter_buffer", "display_p50", "display_p95"],
          "fanout": ["fanout_few_aiortc", "fanout_many_aiortc", "fanout_hundred_of_a_core"]}  # fmt: skip
WHERE_INSTALLED = {f"fanout_{count}_{peer}" for count in ("few", "many") for peer in ("janus", "webrtcbin")}


def test_every_benchmark_is_tried_here() -> None:
    scripts = {path.stem for path in BENCH.glob("*.py") if path.read_text(encoding="utf-8").startswith("#!")}
    assert scripts == set(RATIOS)


@pytest.mark.real
@pytest.mark.parametrize("name", RATIOS)
def test_it_runs_and_its_last_lines_are_its_ratios(name: str) -> None:
    ran = subprocess.run(
        [sys.executable, BENCH / f"{name}.py", "--quick"], capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    found = [re.fullmatch(r"ratio (\w+) -?\d+\.\d{3}", line) for line in ran.stdout.splitlines()]
    assert [match[1] for match in found if match and match[1] not in WHERE_INSTALLED] == RATIOS[name]
    assert found[-1] is not None
