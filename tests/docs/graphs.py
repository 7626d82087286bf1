"""Graphs under test: checked, run for a moment in this process, or watched in another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import anyio

from flowstream.control.client import NobodyThere, ask
from flowstream.control.files import GraphFile
from flowstream.errors import Diagnostic, GraphError
from flowstream.graph.plan import Edge, Plan
from flowstream.media.records import Record
from flowstream.runtime.engine import Engine, NodeStatus
from tests.e2e.running import PATIENCE_S, Run, until

ENOUGH = 5
"""Payloads at the end of a graph that show that it works."""


def compiled(graph: Path, folders: Iterable[Path] = (), sets: Mapping[str, str] | None = None) -> Plan:
    """The plan of a graph file. Raises GraphError."""
    return GraphFile(str(graph), tuple(folders), sets or {}).compile()


def checked(graph: Path, folders: Iterable[Path] = (), sets: Mapping[str, str] | None = None) -> tuple[Diagnostic, ...]:
    """Everything that is found in a graph file, warnings too."""
    try:
        return compiled(graph, folders, sets).warnings
    except GraphError as error:
        return error.diagnostics


def ends_of(plan: Plan) -> list[str]:
    """The nodes from which no media goes on; they may tell others about it, or steer them.

    Not those that are fed by encoders which a controller pauses as long as nobody watches.
    """

    def is_media(edge: Edge) -> bool:
        payloads = plan.nodes[edge.producer].node_type.outputs[edge.output].payloads
        return not edge.feedback and not all(issubclass(each, Record) for each in payloads)

    steered = {
        edge.consumer for id in plan.nodes if plan.nodes[id].type_id == "abr-controller" for edge in plan.outputs_of(id)
    }
    resting = {edge.consumer for id in steered for edge in plan.outputs_of(id) if is_media(edge)}
    return [id for id in plan.nodes if id not in resting and not any(is_media(edge) for edge in plan.outputs_of(id))]


async def run_for_a_moment(plan: Plan) -> dict[str, NodeStatus]:
    """Runs a plan until enough has arrived at every end of it, or it ended by itself, and gives how its nodes stood.

    Raises AssertionError when a node fails, or too little arrives.
    """
    ends = ends_of(plan)
    async with Engine.open() as engine:

        def is_enough() -> bool:
            status = engine.status()
            return all(status[id].received >= ENOUGH for id in ends)

        await engine.start(plan)
        with anyio.fail_after(PATIENCE_S):
            has_ended = False
            while not (has_ended or is_enough() or engine.failures):
                with anyio.move_on_after(0.05):
                    await engine.wait()
                    has_ended = True
        await engine.stop()
        assert engine.failures == []
        assert is_enough(), engine.status()
        return engine.status()


class Watched:
    """A run of the graph ``name`` in another process, asked over its control socket in ``folder``, XDG_RUNTIME_DIR."""

    def __init__(self, run: Run, folder: Path, name: str) -> None:
        self._run = run
        self._socket = folder / "flowstream" / f"{name}.sock"

    def status(self) -> dict[str, Any]:
        """What ``flowstream status --format json`` prints. Raises NobodyThere."""
        return ask(self._socket, "/status")

    def until_received(self, *nodes: str) -> None:
        """Returns once enough has arrived at each of the nodes; fails the test when the run ends before that."""
        until(f"payloads at {' and '.join(nodes)}", lambda: self._have_received(nodes))

    def _have_received(self, nodes: Iterable[str]) -> bool:
        try:
            status = self.status()
        except NobodyThere:
            assert self._run.process.poll() is None, self._run.text
            return False
        return all(status["nodes"][node]["received"] >= ENOUGH for node in nodes)
