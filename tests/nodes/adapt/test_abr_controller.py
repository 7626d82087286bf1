"""abr-controller: what comes in, what goes out, and what it says when it cannot steer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flowstream import ContentStats, EncoderStats, NegotiationError, Record, Size, Target, Targets
from flowstream import ViewerReport as Viewer
from flowstream import ViewerReports as Reports
from flowstream.graph import compile_graph
from flowstream.node.registry import Registry
from flowstream.runtime.engine import Engine
from flowstream.testing import Expect, Give, Harness, check_node
from flowstream.testing.clock import VirtualClock, run_virtual
from flowstream_nodes.adapt.abr_controller import AbrController, AbrControllerConfig

K, M = 1_000, 1_000_000
MS = 1_000_000
LADDER = {"high": {"min": "1M"}, "middle": {"min": "400k", "max": "1.5M"}, "low": {"min": "150k", "max": "600k"}}


def test_conformance() -> None:
    check_node(AbrController)


def steering(config: Mapping[str, Any] | None = None, **options: Any) -> Harness[AbrControllerConfig]:
    options.setdefault("name", "abr")
    options.setdefault("connected", {"reports", "stats", "content", "targets"})
    return Harness(AbrController, config or {}, **options)


def seen(*bandwidths: int, output: str = "out") -> Record[Reports]:
    return Record(Reports(output, tuple(Viewer(f"v{n}", each) for n, each in enumerate(bandwidths))), 0)


def stats(encoder: str = "encode", *, encode_ms: float = 8.0, fps: float = 30.0) -> Record[EncoderStats]:
    return Record(
        EncoderStats(
            encoder=encoder, frames=30, encode_ms_mean=encode_ms, encode_ms_p95=encode_ms, frame_budget_ms=1000 / fps,
            overload=encode_ms > 1000 / fps, bitrate=M, size=Size(1280, 720), fps=fps, cpu_share=0.3,
        ),
        0,
    )  # fmt: skip


def last(node: Harness[AbrControllerConfig]) -> Targets:
    targets = node.payloads()[-1].value
    assert isinstance(targets, Targets)
    return targets


# --- one encoder ----------------------------------------------------------------------------------------------------


def test_without_names_the_target_is_for_whoever_listens() -> None:
    with steering({"max": "4M"}) as node:
        assert node.push(seen(2 * M), "reports") == [Record(Targets({}, rest=Target(1_900 * K)), 0)]
        assert last(node).target_of("anything") == Target(1_900 * K)
        assert node.facts == {"viewers": 1, "estimate_bps": 2_000_000, "rates": "1.9M", "limited_by": "network"}


def test_a_script_of_a_link_that_falls_and_rises() -> None:
    def rate(low: int, high: int) -> Any:
        return lambda record: low <= record.value.rest.bitrate_bps <= high

    with steering({"max": "4M"}) as node:
        node.play(
            Give("0s", seen(3 * M), port="reports"),
            Expect("0s", emitted=1, last=rate(2_850 * K, 2_850 * K)),
            Give("1s", seen(600 * K), port="reports"),
            Expect("1s", emitted=2, last=rate(570 * K, 570 * K)),
            Give("1200ms", seen(3 * M), port="reports"),
            Give("1500ms", seen(3 * M), port="reports"),
            Give("2s", seen(3 * M), port="reports"),
            Give("2500ms", seen(3 * M), port="reports"),
            Expect("2500ms", last=rate(2_850 * K, 2_850 * K), facts={"limited_by": "network"}),
        )


def test_targets_are_told_again_for_encoders_that_are_new() -> None:
    with steering() as node:
        node.push(seen(M), "reports")
        node.advance(500 * MS)
        assert node.push(seen(M), "reports") == []
        node.advance(600 * MS)
        assert node.push(seen(M), "reports") != []


def test_nothing_is_steered_before_anybody_says_who_watches() -> None:
    with steering() as node:
        assert node.push(stats(), "stats") == []
        assert node.push(seen(), "reports") != []


def test_without_reports_only_the_processor_is_looked_at() -> None:
    with steering(connected={"stats", "targets"}) as node:
        node.push(stats(), "stats")
        assert last(node).rest == Target(2_500 * K)
        for _ in range(3):
            node.advance(1_000 * MS)
            node.push(stats(encode_ms=70.0), "stats")
        target = last(node).rest
        assert target is not None
        assert target.bitrate_bps == 2_500 * K
        assert target.size is not None
        assert target.size.width < 1280
        assert node.facts["limited_by"] == "processor"


def test_a_fixed_rate_is_told_at_once_and_stays() -> None:
    with steering({"mode": "fixed", "max": "3M"}) as node:
        node.settle()
        assert last(node).rest == Target(3 * M)
        node.push(seen(400 * K), "reports")
        assert last(node).rest == Target(3 * M)
        node.reconfigure(mode="auto")
        node.push(seen(400 * K), "reports")
        assert last(node).rest == Target(380 * K)


def test_bounds_change_in_place() -> None:
    with steering({"max": "4M"}) as node:
        node.push(seen(3 * M), "reports")
        node.reconfigure(max="1M")
        node.push(seen(3 * M), "reports")
        assert last(node).rest == Target(M)
        node.reconfigure(viewer_max="500k", uplink="10M", reserve="50k", headroom=0.1, leave_out=0.1, content="text")
        node.push(seen(3 * M), "reports")
        assert last(node).rest == Target(500 * K)


@pytest.mark.parametrize(("content", "keeps_size"), [("auto", True), ("motion", False)])
def test_content_that_comes_in_counts_unless_it_is_set(content: str, keeps_size: bool) -> None:
    with steering({"content": content, "min": "100k"}) as node:
        node.push(Record(ContentStats("text"), 0), "content")
        for _ in range(20):
            node.push(stats(), "stats")
            node.push(seen(300 * K), "reports")
            node.advance(200 * MS)
        target = last(node).rest
        assert target is not None
        assert (target.size == Size(1280, 720)) is keeps_size


def test_else_what_the_encoder_sees_of_it_counts() -> None:
    with steering({"min": "100k"}, connected={"reports", "stats", "targets"}) as node:
        for _ in range(20):
            node.push(Record(replace(stats().value, content="text"), 0), "stats")
            node.push(seen(300 * K), "reports")
            node.advance(200 * MS)
        target = last(node).rest
        assert target is not None
        assert target.size == Size(1280, 720)
        assert target.fps is not None
        assert target.fps < 30


# --- a ladder -------------------------------------------------------------------------------------------------------


def test_named_encoders_get_a_target_each_and_those_of_no_use_pause() -> None:
    with steering({"encoders": LADDER, "max": "4M"}) as node:
        node.push(seen(3 * M, 500 * K), "reports")
        targets = last(node)
        assert targets.rest is None
        assert targets.of["high"] == Target(2_850 * K)
        assert targets.of["middle"] == Target(475 * K)
        assert targets.of["low"].paused
        rates = "high 2.85M, middle 475k"
        assert node.facts == {"viewers": 2, "estimate_bps": 3_500_000, "rates": rates, "limited_by": "network"}


def test_encoders_come_and_go_while_viewers_stay() -> None:
    with steering({"encoders": LADDER, "max": "4M"}) as node:
        node.push(seen(3 * M, 500 * K), "reports")
        node.reconfigure(encoders={"high": {"min": "400k"}})
        node.push(seen(3 * M, 500 * K), "reports")
        assert last(node) == Targets({"high": Target(475 * K)})
        node.reconfigure(encoders={"high": {"min": "1M"}, "small": {"max": "600k"}})
        node.push(seen(3 * M, 500 * K), "reports")
        assert last(node) == Targets({"high": Target(2_850 * K), "small": Target(475 * K)})


def test_one_that_always_runs_does() -> None:
    encoders = {**LADDER, "low": {"min": "150k", "max": "600k", "always": True}}
    with steering({"encoders": encoders, "max": "4M"}) as node:
        node.push(seen(), "reports")
        assert {name for name, each in last(node).of.items() if not each.paused} == {"low"}
        assert node.facts == {"viewers": 0, "estimate_bps": None, "rates": None, "limited_by": "nobody"}


def test_names_are_those_of_the_file_it_stands_in() -> None:
    with steering({"encoders": {"high": {}}}, name="studio/abr") as node:
        node.push(seen(M), "reports")
        assert set(last(node).of) == {"studio/high"}


def test_viewers_of_several_outputs_count_together() -> None:
    with steering({"max": "4M"}) as node:
        node.push(seen(3 * M), "reports")
        node.push(seen(M, output="other"), "reports")
        assert last(node).rest == Target(950 * K)
        node.push(seen(output="other"), "reports")
        assert last(node).rest == Target(2_850 * K)


# --- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"min": "3M"}, r"max \(2\.5M\) is below min \(3M\)"),
        ({"encoders": {"low": {"min": "900k", "max": "800k"}}}, r"low: max \(800k\) is below min \(900k\)"),
        ({"encoders": {"low": {"max": "200k"}}}, r"low: max \(200k\) is below min \(300k\)"),
        ({"encoders": {f"e{n}": {} for n in range(7)}}, "7 encoders are named; a ladder has at most 6"),
        ({"min": "0k"}, "min is 0; an encoder has at least 1 bit per second, such as 300k"),
    ],
)
def test_bounds_that_are_none_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AbrControllerConfig.model_validate(config)


def test_it_needs_something_to_go_by() -> None:
    with (
        steering(connected={"targets"}) as node,
        pytest.raises(ValueError, match="neither 'reports' nor 'stats' is connected"),
    ):
        node.settle()


def test_a_name_that_is_misspelt_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with steering({"encoders": {"hihg": {}, "low": {}}}) as node:
        for _ in range(3):
            node.push(stats("high"), "stats")
            node.push(stats("low"), "stats")
    assert [record.getMessage() for record in caplog.records] == [
        "statistics come from high, which `encoders` does not name, so that it is not steered; it names hihg, low"
    ]


def test_that_nobody_listens_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with steering(connected={"reports"}) as node:
        node.push(seen(M), "reports")
    assert [record.getMessage() for record in caplog.records] == [
        "nothing takes abr.targets, so nothing is steered; give encoders inputs: {targets: abr}"
    ]


@pytest.mark.parametrize(
    ("port", "wanted"), [("reports", "ViewerReports"), ("stats", "EncoderStats"), ("content", "ContentStats")]
)
def test_records_of_something_else_are_refused(port: str, wanted: str) -> None:
    with (
        steering() as node,
        pytest.raises(NegotiationError, match=rf"abr\.{port} takes records of {wanted}, but was given int"),
    ):
        node.push(Record(5, 0), port)


# --- in a graph -----------------------------------------------------------------------------------------------------

WATCHED = '''
from flowstream import Config, Input, Output, EncodedPacket, Record, Transform, ViewerReport, ViewerReports

class Watched(Transform, type="here/watched"):
    """An output with one viewer, whose link carries 2 Mbit/s for a second of media and 500 kbit/s from then on.

    ```yaml
    flowstream: 1
    nodes: {watched: {type: here/watched}}
    ```
    """
    video = Input(EncodedPacket)
    reports = Output(Record[ViewerReports])

    def process(self, packet):
        bandwidth = 2_000_000 if packet.time_ns < 1_000_000_000 else 500_000
        yield self.reports(Record(ViewerReports("watched", (ViewerReport("one", bandwidth),)), packet.time_ns))
'''

GRAPH = """
flowstream: 1
nodes:
  pattern: {type: test-pattern, size: 320x180, fps: 30, duration: 3s}
  encode: {type: hw-encode, inputs: {video: pattern, targets: abr}, bitrate: 1M, max: 4M}
  watched: {type: here/watched, from: encode}
  abr: {type: abr-controller, inputs: {reports: watched.reports}, max: 4M}
"""


def test_it_closes_the_loop_of_a_graph(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "nodes.py").write_text(WATCHED)
    plan = compile_graph(
        "graph.yaml", read=lambda _: GRAPH.encode(), environ={}, registry=Registry.installed([folder]),
        wallclock=__import__("datetime").datetime(2026, 1, 1, tzinfo=__import__("datetime").UTC),
    )  # fmt: skip

    async def run(clock: VirtualClock) -> tuple[Any, Any]:
        async with Engine.open(clock=clock) as engine:
            await engine.start(plan)
            await engine.wait()
            assert engine.failures == []
            status = engine.status()
            return status["encode"].facts, status["abr"].facts

    encoder, controller = run_virtual(run)
    assert encoder["bitrate_bps"] == 475_000
    assert controller == {"viewers": 1, "estimate_bps": 500_000, "rates": "475k", "limited_by": "network"}
