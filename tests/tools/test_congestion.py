"""What our congestion control makes of the traces: a steered encoder, one viewer, virtual time."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from flowstream.testing import Change

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look there for the names in their annotations
    spec.loader.exec_module(module)
    return module


steering = load(TOOLS / "bench" / "steering.py")
traces = load(TOOLS / "traces" / "traces.py")
LASTS_MS = traces.LASTS_MS


@pytest.mark.parametrize("name", traces.TRACES)
def test_the_traces_are_what_their_generator_makes(name: str) -> None:
    text = (TOOLS / "traces" / f"{name}.csv").read_text(encoding="utf-8")
    assert text == traces.text_of(name)
    assert traces.read(name) == traces.TRACES[name]()
    assert len(text) < 20_000


@pytest.mark.parametrize("name", ["step", "lte", "lossy", "cross"])
def test_a_trace_is_used_without_making_packets_wait(name: str) -> None:
    trace = traces.read(name)
    outcome = steering.run(trace, steering.Ours, lasts_ms=LASTS_MS)
    waits_ms = [waited for _, waited in outcome.waits_ms]
    assert steering.utilisation(outcome, trace, lasts_ms=LASTS_MS) >= 0.85
    assert steering.quantile(waits_ms, 0.95) <= 100
    assert steering.quantile(outcome.ages_ms, 0.95) <= 100
    assert outcome.dropped == 0
    if name == "step":
        recoveries_s = steering.recoveries_s(outcome, trace, lasts_ms=LASTS_MS)
        assert len(recoveries_s) == 2
        assert max(recoveries_s) <= 2


@pytest.mark.parametrize("seed", [1, 2])
def test_at_a_steady_rate_the_quality_stays(seed: int) -> None:
    trace = traces.read("steady")
    outcome = steering.run(trace, steering.Ours, lasts_ms=65_000, seed=seed)
    assert steering.switches(outcome, since_ms=5_000) <= 2
    assert steering.utilisation(outcome, trace, lasts_ms=65_000) >= 0.85


@pytest.mark.parametrize(
    ("rate_bps", "conditions", "least"),
    [
        (2_000_000, {"jitter": "20ms"}, 0.85),
        (2_000_000, {"queue_time": "25ms"}, 0.85),
        (2_000_000, {"reorder": 0.05, "reorder_by": "15ms", "duplicate": 0.02}, 0.85),
        (2_000_000, {"delay": "150ms"}, 0.85),
        (2_000_000, {"burst_enter": 0.01, "burst_leave": 0.2}, 0.75),
        (200_000, {}, 0.85),
        (20_000_000, {}, 0.85),
    ],
)
def test_other_paths_are_used_too(rate_bps: int, conditions: dict[str, object], least: float) -> None:
    trace = [traces.Stretch(0, rate_bps)]
    outcome = steering.run(trace, steering.Ours, lasts_ms=20_000, also=conditions)
    assert steering.utilisation(outcome, trace, lasts_ms=20_000) >= least
    assert outcome.dropped == 0


@pytest.mark.parametrize(("lasts", "down"), [(1, "losing"), (1, "holding"), (10, "losing")])
def test_a_blackout_is_over_a_second_after_its_end(lasts: int, down: str) -> None:
    trace = [traces.Stretch(0, 2_000_000)]
    changes = [Change("6s", down=down), Change(f"{6 + lasts}s", down="no")]
    outcome = steering.run(trace, steering.Ours, lasts_ms=1000 * (10 + lasts), changes=changes)
    back = outcome.received[7 + lasts : 9 + lasts]
    assert min(back) * 8 >= 0.7 * 2_000_000


def test_somebody_else_who_does_not_yield_leaves_us_what_is_left() -> None:
    trace = [traces.Stretch(0, 2_000_000, 0.0, 1_400_000)]
    outcome = steering.run(trace, steering.Ours, lasts_ms=20_000)
    assert steering.utilisation(outcome, trace, lasts_ms=20_000) >= 0.6


def test_the_same_seed_gives_the_same_run() -> None:
    trace = traces.read("lossy")
    runs = [steering.run(trace, steering.Ours, lasts_ms=3_000) for _ in range(2)]
    assert runs[0] == runs[1]
