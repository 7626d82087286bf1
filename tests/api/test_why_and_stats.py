"""How a run is doing, as a program is told."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

import flowstream
from flowstream import FlowstreamError, Run, RunStats, Verdict
from tests.api.graphs import ticking, until, until_received

pytestmark = pytest.mark.anyio

FAILING = """\
nodes:
  pattern: {type: test-pattern, size: 160x90, fps: 50}
  bug: {type: fault, from: pattern, fail_after: 3}
  end: {type: discard, from: bug}
"""

LOGIN = """\
from flowstream import VideoFrame, node


@node("acme/login")
def login(frame: VideoFrame, *, password: str) -> None:
    \"\"\"Log in.\"\"\"
    raise RuntimeError(f"nobody knows {password}")
"""


async def over_socket(run: Run, path: str) -> Any:
    """What a client of the control socket is told."""
    transport = httpx.AsyncHTTPTransport(uds=str(run.control))
    async with httpx.AsyncClient(transport=transport, base_url="http://run") as http:
        return (await http.get(path)).json()


async def test_stats_are_those_that_clients_of_the_control_socket_get(tmp_path: Path) -> None:
    async with flowstream.open(ticking(), control=tmp_path / "run.sock") as run:
        await until_received(run, "nowhere", 100)
        await until(lambda: run._run.statistics.snapshot().span_ns > 0)
        stats = await run.stats()
        assert isinstance(stats, RunStats)
        assert [node.id for node in stats.nodes] == ["pattern", "out", "nowhere"]
        edge = next(each for each in stats.edges if each.consumer == "nowhere")
        assert edge.received == edge.delivered + sum(edge.dropped.values()) + edge.queue.items
        assert edge.delivered >= 100
        assert edge.rate > 0
        assert edge.latency is not None
        assert 0 < edge.latency.p50_ns <= edge.latency.p95_ns
        told = await over_socket(run, "/stats")
        mine = json.loads(json.dumps((await run.stats()).to_json()))
        assert shape(told) == shape(mine)
        assert told["nodes"]["nowhere"]["received"] <= mine["nodes"]["nowhere"]["received"]
        with pytest.raises(dataclasses.FrozenInstanceError):
            stats.graph = "other"  # type: ignore[misc]


def without_age(sentence: str) -> str:
    """A sentence without how long it has been so."""
    return re.sub(r"waited [\d.]+ m?s", "waited", sentence)


def shape(value: Any) -> Any:
    """The keys, without the values, which go on changing."""
    return {key: shape(each) for key, each in value.items()} if isinstance(value, dict) else None


@pytest.mark.parametrize("over", [0, 0.5, -1, 3601, float("nan"), float("inf")])
async def test_a_span_that_makes_no_sense_is_told(over: float) -> None:
    async with flowstream.open(ticking()) as run:
        with pytest.raises(ValueError, match="over= is a number of seconds from 1 to 3600, not "):
            await run.stats(over=over)


async def test_all_is_well() -> None:
    async with flowstream.open(ticking()) as run:
        await until_received(run, "nowhere")
        verdict = await run.why()
        assert verdict == Verdict(True, ("all is well: 3 nodes work and nothing waits for long",), ())
        assert (await run.why("nowhere")).is_healthy
        with pytest.raises(FlowstreamError, match=r"there is no node nowere \(did you mean nowhere\?\)"):
            await run.why("nowere")


async def test_why_is_what_clients_of_the_control_socket_are_told(tmp_path: Path) -> None:
    file = tmp_path / "graph.yaml"
    file.write_text(FAILING)
    async with flowstream.open(file, control=tmp_path / "run.sock") as run:
        await until(lambda: run.status().nodes["bug"].state == "failed")
        verdict = await run.why("end")
        told = await over_socket(run, "/why?node=end")
        (reason,) = verdict.reasons
        (cause,) = told["causes"]
        assert not verdict.is_healthy
        assert verdict.sentences == (str(reason),) == (str(verdict),)
        assert (reason.node, reason.kind, reason.chain) == ("bug", "failed", ("end", "bug"))
        assert (cause["node"], cause["kind"], cause["chain"]) == ("bug", "failed", ["end", "bug"])
        assert without_age(reason.sentence) == without_age(cause["sentence"])
        assert f"{reason.since:%Y-%m-%dT%H:%M:%SZ}" == cause["since"]
        assert reason.since.tzinfo is UTC
        assert timedelta() <= datetime.now(UTC) - reason.since < timedelta(minutes=1)
        assert 0 <= reason.for_seconds <= cause["for_seconds"]
        assert (await run.why("pattern")).is_healthy


async def test_secrets_show_as_the_graph_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "correct-horse")
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "login.py").write_text(LOGIN)
    file = tmp_path / "graph.yaml"
    file.write_text(
        "nodes:\n  pattern: {type: test-pattern, size: 160x90}\n"
        "  in: {type: acme/login, from: pattern, password: $(env:PASSWORD)}\n"
    )
    async with flowstream.open(file, nodes=[tmp_path / "acme"]) as run:
        await until(lambda: run.status().nodes["in"].state == "failed")
        (sentence,) = (await run.why()).sentences
        assert "nobody knows $(env:PASSWORD)" in sentence


def test_a_program_without_async_is_told_the_same() -> None:
    with flowstream.open_sync(ticking()) as run:
        assert run.why().is_healthy
        stats = run.stats(over=5)
        assert {node.id for node in stats.nodes} == {"pattern", "out", "nowhere"}
        with pytest.raises(FlowstreamError, match="there is no node nobody"):
            run.why("nobody")
        with pytest.raises(ValueError, match="over="):
            run.stats(over=0)
