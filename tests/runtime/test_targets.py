"""Feedback: targets go up to encoders while pictures go down, and the loop keeps nobody alive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import anyio
import pytest

from flowstream import Target
from flowstream.graph import Plan, compile_graph
from flowstream.node.registry import Pack, Registry
from flowstream.runtime.engine import Engine
from flowstream.testing.clock import VirtualClock, run_virtual
from tests.runtime.parts import Loop
from tests.runtime.steering import Steer, Tape

pytestmark = pytest.mark.usefixtures("backend")

REGISTRY = Registry(
    [
        Pack("flowstream", "flowstream", module="flowstream_nodes"),
        Pack("test", "the tests", module="tests.runtime.steering"),
    ]
)
GRAPH = """
flowstream: 1
nodes:
  pattern: {type: test-pattern, size: 160x90, fps: 50, duration: DURATION}
  high:
    type: hw-encode
    inputs: {video: pattern, targets: steer}
    bitrate: 1M
    keyframe_interval: 60s
  low:
    type: hw-encode
    inputs: {video: pattern, targets: steer}
    bitrate: 400k
    max: 500k
    keyframe_interval: 60s
  steer: {type: test/steer, from: high}
  tape-high: {type: test/tape, from: {output: high, overflow: block}}
  tape-low: {type: test/tape, from: {output: low, overflow: block}}
"""


def compiled(text: str) -> Plan:
    return compile_graph(
        "loop.yaml",
        read=lambda path: text.encode(),
        environ={},
        registry=REGISTRY,
        wallclock=datetime(2026, 1, 1, tzinfo=UTC),
    )


def run(main: Callable[[Engine], Awaitable[None]]) -> None:
    Tape.kept.clear()

    async def call(clock: VirtualClock) -> None:
        async with Engine.open(clock=clock) as engine:
            await main(engine)

    run_virtual(call, backend=Loop.backend)


def rate_bps(node: str, from_s: float, to_s: float) -> float:
    packets = [packet for packet in Tape.kept[node] if from_s * 1e9 <= packet.time_ns < to_s * 1e9]
    return sum(len(packet.data) for packet in packets) * 8 / (to_s - from_s)


def test_one_edge_of_targets_goes_to_every_encoder_and_each_takes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Steer,
        "steps",
        [
            {"high": Target(120_000), "low": Target(60_000)},
            {"high": Target(900_000)},
            {"low": Target(9_000_000), "elsewhere": Target(1_000)},
            {"high": Target(1)},
        ],
    )
    seen: list[tuple[object, object]] = []

    async def main(engine: Engine) -> None:
        await engine.start(compiled(GRAPH.replace("DURATION", "1s")))
        for _ in range(10):
            await anyio.sleep(0.099)
            status = engine.status()
            now = (status["high"].facts.get("bitrate_bps"), status["low"].facts.get("bitrate_bps"))
            if not seen or seen[-1] != now:
                seen.append(now)
        await engine.wait()
        assert engine.failures == []
        assert {status.state for status in engine.status().values()} == {"ended"}

    run(main)
    assert seen == [(None, None), (120_000, 60_000), (900_000, 60_000), (900_000, 500_000), (10_000, 500_000)]
    for tape in ("tape-high", "tape-low"):
        assert [packet.keyframe for packet in Tape.kept[tape]] == [True] + [False] * 49, "no keyframe for it"
        assert len({id(packet.caps) for packet in Tape.kept[tape]}) == 1, "nor another encoder"


def test_the_rate_that_comes_out_is_the_one_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Steer, "steps", [{"high": Target(60_000)}] * 20)

    async def main(engine: Engine) -> None:
        await engine.start(compiled(GRAPH.replace("DURATION", "4s")))
        await engine.wait()
        assert engine.failures == []

    run(main)
    assert rate_bps("tape-high", 2, 4) < 80_000
    assert rate_bps("tape-low", 2, 4) > 2 * rate_bps("tape-high", 2, 4)


def test_records_of_something_else_are_named() -> None:
    text = """
    nodes:
      pattern: {type: test-pattern, size: 160x90, fps: 50, duration: 3s}
      probe: {type: probe, from: pattern}
      encode: {type: hw-encode, inputs: {video: probe, targets: probe.report}}
      tape: {type: test/tape, from: encode}
    """

    async def main(engine: Engine) -> None:
        await engine.start(compiled(text))
        await engine.wait()
        (failure,) = engine.failures
        assert failure.message == (
            "encode (hw-encode): encode.targets takes records of Targets, but was given ProbeReport"
        )

    run(main)
