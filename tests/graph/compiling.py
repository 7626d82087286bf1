"""Compiles texts with the node types of the tests."""

from collections.abc import Mapping
from datetime import datetime

from flowstream.errors import Diagnostic, GraphError
from flowstream.graph import Plan, compile_graph
from flowstream.node.registry import Pack, Registry

BEGAN = datetime(2026, 11, 22, 13, 5, 59)
REGISTRY = Registry(
    [
        Pack("flowstream", "the tests", module="tests.graph.pack"),
        Pack("acme", "flowstream-acme 1.0", module="tests.graph.broken_pack"),
        Pack("future", "flowstream-future 3.1", module="tests.graph.future_pack"),
    ]
)


def compiled(
    text: str | bytes,
    *,
    environ: Mapping[str, str] | None = None,
    sets: Mapping[str, str] | None = None,
    path: str = "graph.yaml",
) -> Plan:
    """The plan of a text. Raises GraphError."""
    content = text.encode() if isinstance(text, str) else text
    return compile_graph(
        path, read=lambda _: content, environ=environ or {}, registry=REGISTRY, wallclock=BEGAN, sets=sets
    )


def findings(
    text: str | bytes, *, environ: Mapping[str, str] | None = None, sets: Mapping[str, str] | None = None
) -> tuple[Diagnostic, ...]:
    """What is found in a text, in an error or as warnings."""
    try:
        return compiled(text, environ=environ, sets=sets).warnings
    except GraphError as error:
        return error.diagnostics


def codes(text: str | bytes, **given: Mapping[str, str]) -> list[str]:
    """The codes of what is found in a text."""
    return [each.code for each in findings(text, **given)]
