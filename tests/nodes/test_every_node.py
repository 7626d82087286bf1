"""What holds for every built-in: it is in the index, keeps the rules, has a test, and its documented graph runs."""

import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flowstream import PackError
from flowstream.graph import Plan, compile_graph
from flowstream.node.registry import Registry
from flowstream.runtime.engine import Engine, NodeStatus
from flowstream.testing import check_node, graph_of
from flowstream.testing.clock import VirtualClock, run_virtual
from flowstream_nodes import NODES

HERE = Path(__file__).parent
REGISTRY = Registry.installed()
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "throttle": {"max_fps": 10.0},
    "scale": {"size": "640x360"},
    "frame-rate": {"fps": 30.0},
    "file": {"path": "talk.mp4"},
    "recorder": {"path": "talk.mp4"},
}
BREAKING = {"fault": ("fail_after",)}
"""Live settings that are there to make a node fail."""
PERIPHERAL = {
    "app-in": "a program that pushes",
    "camera": "a camera",
    "screen": "a screen",
    "display": "a screen",
    "file": "a file",
    "webrtc-out": "a port to listen on, and it never ends",
    "abr-controller": "a page that somebody watches",
}
"""Types whose graph needs something that is not in every machine; their own tests run it."""


@pytest.mark.parametrize("type_id", NODES)
def test_it_keeps_the_rules(type_id: str) -> None:
    breaking = BREAKING.get(type_id, ())
    check_node(REGISTRY.get(type_id), CONFIGS.get(type_id), opens=type_id not in PERIPHERAL, breaking=breaking)


@pytest.mark.parametrize("type_id", NODES)
def test_it_has_a_test_of_its_own(type_id: str) -> None:
    _, pack, module = NODES[type_id].partition(":")[0].split(".")
    assert (HERE / pack / f"test_{module}.py").is_file()


@pytest.mark.parametrize("type_id", NODES)
def test_it_stands_under_its_name(type_id: str) -> None:
    module, _, name = NODES[type_id].rpartition(".")[2].partition(":")
    assert module == type_id.replace("-", "_")
    assert name == "".join(word.title() for word in type_id.split("-"))


def plan_of(type_id: str) -> Plan:
    text = graph_of(REGISTRY.get(type_id)).encode()
    return compile_graph(
        f"{type_id}.yaml",
        read=lambda path: text,
        environ={},
        registry=REGISTRY,
        wallclock=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize("type_id", NODES)
def test_its_documented_graph_is_right(type_id: str) -> None:
    plan = plan_of(type_id)
    assert type_id in {node.type_id for node in plan.nodes.values()}
    assert plan.warnings == ()


@pytest.mark.parametrize("type_id", [type_id for type_id in NODES if type_id not in PERIPHERAL])
def test_its_documented_graph_runs_to_its_end(type_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_of(type_id)

    async def run(clock: VirtualClock) -> dict[str, NodeStatus]:
        async with Engine.open(clock=clock) as engine:
            await engine.start(plan)
            await engine.wait()
            assert engine.failures == []
            return engine.status()

    status = run_virtual(run)
    for id, node in plan.nodes.items():
        assert status[id].state == "ended", id
        if node.type_id == type_id and plan.inputs_of(id):
            assert status[id].received > 0, "something went through it"


def test_the_index_says_everything_that_there_is() -> None:
    found = {type_id for type_id, node_type in REGISTRY.types() if not isinstance(node_type, PackError)}
    assert {type_id for type_id in found if "/" not in type_id} == set(NODES)


def test_importing_the_index_imports_no_node() -> None:
    code = "import sys, flowstream_nodes; print([name for name in sys.modules if name.startswith('flowstream_nodes.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
