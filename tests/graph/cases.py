"""The case files of the graph language: a graph, and beside it the exact text that comes of it.

``python -m tests.graph.cases`` writes those texts anew; read the difference before you believe it. A file may say in
comments what it is run with: ``# --set NAME=VALUE``, ``# env: NAME=VALUE NAME=VALUE``, ``# layers: FILE FILE`` and
``# as a part``. A case of several files is a folder; its ``main.yaml`` is the graph.
"""

import re
from pathlib import Path

from flowstream.graph import Plan, describe_plan, examine
from flowstream.graph.described import limit_text
from flowstream.graph.diagnostics import render
from flowstream.graph.sources import beside
from tests.graph.compiling import BEGAN, REGISTRY

FOLDER = Path(__file__).parent.parent / "cases" / "graphs"
GENERATED = {
    "FS103-too-large.yaml": b"# padding\n" * 200_000,
    "FS199-many.yaml": b"nodes: {pattern: {type: pattern}, out: {type: discard, from: pattern}}\n"
    + b"".join(b"key%d: 1\n" % number for number in range(203)),
}
"""Cases whose content is not worth a file."""


def case_names(kind: str) -> list[str]:
    """The cases of a kind (``valid`` or ``invalid``), by their text files and graphs."""
    found = {path.stem if path.is_file() else path.name for path in (FOLDER / kind).iterdir()}
    return sorted(
        found | ({"FS101-missing", *(each.removesuffix(".yaml") for each in GENERATED)} if kind == "invalid" else set())
    )


def _read(path: str) -> bytes:
    return GENERATED[path] if path in GENERATED else next(FOLDER.glob(f"*/{path}"), FOLDER / path).read_bytes()


def _path(name: str) -> str:
    """The graph of a case, as findings name it."""
    return f"{name}/main.yaml" if any(FOLDER.glob(f"*/{name}/")) else f"{name}.yaml"


def read_case(name: str) -> tuple[str, str, dict[str, str], dict[str, str]]:
    """The path of a case, its text, and what it is run with: variables set, and the environment."""
    path = _path(name)
    try:
        head = _read(path).decode("utf-8", "replace")
    except FileNotFoundError:
        head = ""
    sets = dict(re.findall(r"^# --set (\w+)=(\S+)", head, re.MULTILINE))
    environ = {
        pair.partition("=")[0]: pair.partition("=")[2]
        for line in re.findall(r"^# env: (.*)", head, re.MULTILINE)
        for pair in line.split()
    }
    return path, head, sets, environ


def outcome(name: str) -> str:
    """What comes of a case: its findings, or its plan and warnings."""
    path, head, sets, environ = read_case(name)
    layers = [
        beside(path, each) for line in re.findall(r"^# layers: (.*)", head, re.MULTILINE) for each in line.split()
    ]
    found = examine(
        path, read=_read, environ=environ, registry=REGISTRY, wallclock=BEGAN, sets=sets, layers=layers,
        as_part="# as a part\n" in head,
    )  # fmt: skip
    if found.plan is not None:
        return _told(found.plan)
    return render(found.diagnostics) + "\n"


def _told(plan: Plan) -> str:
    lines = describe_plan(plan)
    for edge in plan.edges:
        feedback = " (feedback)" if edge.feedback else ""
        lines.append(f"{edge.name} <- {edge.producer}.{edge.output}: {edge.overflow}, {limit_text(edge)}{feedback}")
    for node in plan.nodes.values():
        was = f" (was {node.was})" if node.was else ""
        lines.append(f"{node.id}: {node.shown_config()}{was}")
    lines += [f"group {group.id}: {group.file} {group.label}".rstrip() for group in plan.groups.values()]
    lines += [
        f"serve {plan.serve}",
        f"log {plan.log}",
        *(f"restart {n.restart}" for n in plan.nodes.values() if n.restart),
    ]
    if plan.warnings:
        lines += ["", render(plan.warnings)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for kind in ("valid", "invalid"):
        for name in case_names(kind):
            (FOLDER / kind / f"{name}.txt").write_text(outcome(name))
