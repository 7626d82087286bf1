#!/usr/bin/env python3
"""What checking, planning and diffing a large graph cost, against ruamel's own read of the file.

    python tools/bench/language.py [--quick]

200 nodes and 1,000 edges, in one process after all imports, CPU time. ``check`` is everything from the bytes of the
file to its findings; ``plan`` is what comes after that, up to the plan; ``diff`` is the patch of two
plans that differ in a tenth of the nodes. ``replan`` is what a save of one changed setting costs beyond reading the
file, in milliseconds of CPU time.
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measuring import RUNS, is_quick, medians, tell, tell_ratio
from ruamel.yaml import YAML

from flowstream.graph.compile import Compilation
from flowstream.graph.diagnostics import Findings
from flowstream.graph.diff import diff
from flowstream.graph.load import load
from flowstream.graph.plan import Plan
from flowstream.node.registry import Registry

NODES = 200
EDGES = 1_000
NAME = "large.yaml"


def graph(*, bitrate: str = "2.5M", size: str = "640x360", every: int = 0) -> bytes:
    """Return the text of a graph of NODES nodes and EDGES edges; every so many-th node differs from the usual."""
    chance = random.Random(1)
    lines = ["flowstream: 1", "vars:", f"  bitrate: {{default: {bitrate}, type: bitrate}}", "nodes:"]
    patterns = [f"pattern-{number}" for number in range(40)]
    for number, id in enumerate(patterns):
        fps = 25 if every and number % every == 0 else 30
        lines.append(f"  {id}: {{type: test-pattern, size: 1280x720, fps: {fps}}}")
    scales = [f"scale-{number}" for number in range(50)]
    for number, id in enumerate(scales):
        size_here = "320x180" if every and number % every == 0 else size
        lines.append(f"  {id}: {{type: scale, from: {patterns[number % 40]}, size: {size_here}, fit: contain}}")
    encoders = [f"encode-{number}" for number in range(50)]
    for number, id in enumerate(encoders):
        lines.append(f"  {id}:")
        lines.append("    type: hw-encode")
        lines.append(f"    from: {{output: {scales[number]}.scaled, overflow: drop-oldest, limit: {{items: 3}}}}")
        lines.append("    bitrate: $(bitrate)")
        lines.append(f"    max: {'12M' if every and number % every == 0 else '10M'}")
        lines.append("    restart: {on: peer, backoff: {first: 1s, max: 30s}}")
    sinks = [f"sink-{number}" for number in range(NODES - 40 - 50 - 50)]
    left = EDGES - 50 - 50
    for number, id in enumerate(sinks):
        count = left // (len(sinks) - number)
        left -= count
        taken = chance.sample(encoders, min(count, len(encoders)))
        lines.append(f"  {id}: {{type: wide/sink, inputs: {{all: [{', '.join(taken)}]}}}}")
    return "\n".join(lines).encode() + b"\n"


def cpu(work: Callable[[], Any], times: int) -> float:
    """Return the CPU time of one call in seconds, of ``times`` in a row, with no garbage to collect from before."""
    gc.collect()
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


def main() -> None:
    """Measure and tell."""
    times = 1 if is_quick(__doc__) else 3
    registry = Registry.installed([Path(__file__).parent / "wide"])
    before, after = graph(), graph(every=10)
    one_field = before.replace(b"max: 10M", b"max: 11M", 1)
    texts = iter(range(1_000_000))

    def compiled(content: bytes) -> Compilation:
        made = Compilation(
            NAME, read=lambda _: content, environ=os.environ, registry=registry, wallclock=datetime.now(UTC)
        )  # fmt: skip
        assert not made.findings.has_errors, made.diagnostics[:3]
        return made

    def planning() -> float:
        made = [compiled(before) for _ in range(times)]
        return cpu(lambda: made.pop().plan, times)

    def another() -> bytes:
        """A file that nobody has seen, so that nothing is remembered of it."""
        return before + b"# %d\n" % next(texts)

    old, new = compiled(before).plan, compiled(after).plan
    assert old is not None
    assert new is not None
    assert (len(old.nodes), len(old.edges)) == (NODES, EDGES)

    def saved(running: Plan, made: Compilation) -> None:
        assert made.plan is not None
        diff(running, made.plan)

    saves = iter([one_field, before] * 1_000)
    works = {
        "ruamel's read": lambda: cpu(lambda: YAML(typ="safe", pure=True).load(before.decode()), times),
        "our read": lambda: cpu(lambda: load(NAME, before, Findings()), times),
        "check": lambda: cpu(lambda: compiled(another()), times),
        "plan": planning,
        "diff": lambda: cpu(lambda: diff(old, new), times),
        "save of one field": lambda: cpu(lambda: saved(old, compiled(next(saves))), times),
    }
    for work in works.values():
        work()
    cpu_s = medians(works, runs=1 if times == 1 else RUNS)
    tell([(name, seconds * 1e3) for name, seconds in cpu_s.items()], "ms")
    ruamel, read, check, plan, patch, save = cpu_s.values()
    print(f"replan of one field beyond reading the file: {(save - read) * 1e3:.0f} ms")
    tell_ratio("check", check / ruamel)
    tell_ratio("plan", plan / ruamel)
    tell_ratio("diff", patch / ruamel)


if __name__ == "__main__":
    main()
