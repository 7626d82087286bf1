"""The soak: its judgements, and two minutes of it at a real graph."""

from __future__ import annotations

import copy
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowstream.control.files import GraphFile
from flowstream.errors import GraphError

LONG_RUNS = Path(__file__).resolve().parents[2] / "tools" / "long_runs"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(LONG_RUNS))


def looks(*, allocated: int = 0, objects: float = 0, rounds: int = 20) -> list[dict[str, Any]]:
    """Looks a minute apart, with some noise, and so much more of something at each."""
    chance = random.Random(1)
    return [
        {
            "at": 60.0 * number,
            "resident": 100_000_000 + allocated * number + chance.randrange(2_000_000),
            "allocated": 25_000_000 + allocated * number + chance.randrange(200_000),
            "objects": 90_000 + objects * number + chance.randrange(200),
            "kept": 0,
        }
        for number in range(rounds)
    ]


def growing(taken: list[dict[str, Any]]) -> list[str]:
    from soaking import verdict

    return [name for name, (slope, most) in verdict.grown(taken).items() if slope.grows(most)]


def test_noise_is_no_growth() -> None:
    assert growing(looks()) == []
    assert growing(looks(rounds=3)) == []


def test_a_leak_is_growth_and_what_fills_up_at_the_beginning_is_not() -> None:
    assert growing(looks(allocated=300_000)) == ["allocated bytes"]
    assert growing(looks(allocated=2_000_000)) == ["allocated bytes", "resident bytes"]
    assert growing(looks(objects=100)) == ["objects"]
    assert growing(looks(objects=1000, rounds=3)) == []
    assert growing(looks(objects=4000, rounds=3)) == ["objects"]
    filled = looks()
    for number, look in enumerate(filled[:5]):
        look["allocated"] -= 4_000_000 * (5 - number)
    assert growing(filled) == []


def test_what_statistics_hold_is_left_out() -> None:
    taken = looks(allocated=300_000)
    for number, look in enumerate(taken):
        look["kept"] = 300_000 * number
    assert growing(taken) == []


def test_the_slope_is_that_of_theil_and_sen() -> None:
    from soaking import verdict

    exact = verdict.slope([(float(x), 3.0 * x + 1) for x in range(10)])
    assert (exact.per_second, exact.low, exact.high, exact.growth) == (3, 3, 3, 27)
    points = [(float(x), 3.0 * x + 1) for x in range(10)]
    points[4] = (4.0, 1000.0)
    assert verdict.slope(points).per_second == pytest.approx(3, abs=0.5)


def test_what_is_left_behind_is_named_but_for_threads_that_are_shared() -> None:
    from soaking import verdict

    before: dict[str, dict[str, int]] = {"threads": {"flowstream encode": 1}, "libraries": {"cv2": 1}}
    before |= {"descriptors": {"socket": 3}, "tasks": {"live": 5}}
    now = copy.deepcopy(before)
    now["threads"]["AnyIO worker thread"] = 4
    now["libraries"]["libopenblas"] = 1
    assert verdict.left(before, now) == []
    now["threads"] = {"flowstream encode": 2, "AnyIO worker thread": 40}
    now["descriptors"] = {"socket": 2, "/tmp/tape.mp4": 1}
    now["tasks"] = {"live": 6}
    now["libraries"]["libx264"] = 100
    assert verdict.left(before, now) == [
        "thread AnyIO worker thread: 40, was 0",
        "thread flowstream encode: 2, was 1",
        "descriptor /tmp/tape.mp4: 1, was 0",
        "task live: 6, was 5",
        f"threads of libraries: {now['libraries']}, were {before['libraries']}",
    ]


def test_an_edge_that_loses_something_without_counting_it_is_named() -> None:
    from soaking import verdict

    edge = {"received": 10, "delivered": 7, "dropped": {"overflow": 2}, "queue": {"items": 1}}
    assert verdict.unaccounted({"edges": {"out.video": edge}}) == []
    (found,) = verdict.unaccounted({"edges": {"out.video": edge | {"delivered": 6}}})
    assert found.startswith("edge out.video: received 10, delivered 6")


def test_what_runs_is_held_against_a_fresh_start() -> None:
    from soaking import verdict

    ran = {"revision": "a", "nodes": {"tone": ("tone", {"frequency": 440})}, "edges": {}}
    assert verdict.differences(ran, copy.deepcopy(ran)) == []
    fresh = {"revision": "a", "nodes": {"tone": ("tone", {"frequency": 330})}, "edges": {"out.audio": [1]}}
    assert verdict.differences(ran, fresh) == [
        "node tone: ('tone', {'frequency': 440}), fresh ('tone', {'frequency': 330})",
        "edge out.audio: None, fresh [1]",
    ]


def test_its_edits_are_graphs_and_its_spoiled_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from soaking import edits
    from soaking.process import WEAR

    monkeypatch.setenv(edits.LISTEN, "127.0.0.1:0")
    kinds = set()
    for seed in range(25):
        chance = random.Random(seed)
        nodes = edits.graph(chance)
        file = tmp_path / "graph.yaml"
        file.write_text(edits.text_of(nodes))
        assert set(GraphFile(str(file), (WEAR,)).compile().nodes) >= set(nodes)
        text, kind = edits.broken(nodes, chance)
        kinds.add(kind)
        file.write_text(text)
        if kind not in ("opens", "address"):  # those can only be found out by running them
            with pytest.raises(GraphError):
                GraphFile(str(file), (WEAR,)).compile()
    assert len(kinds) > 6


@pytest.mark.real
@pytest.mark.timeout(420)
def test_two_minutes_of_it(tmp_path: Path) -> None:
    command = [sys.executable, LONG_RUNS / "soak.py", "--minutes", "2", "--seed", "4", "--keep", tmp_path / "soak"]
    soaked = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400, check=False,
        preexec_fn=lambda: os.nice(5),
    )  # fmt: skip
    assert soaked.returncode == 0, soaked.stdout
    assert soaked.stdout.endswith("holds (seed 4)\n"), soaked.stdout
