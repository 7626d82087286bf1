"""The rules that every node type passes: what a user reads about it is there and true, and it cleans up."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flowstream.media.records import Record
from flowstream.node.base import Node
from flowstream.node.config import Config
from flowstream.node.function import FunctionNode
from flowstream.testing.harness import Harness
from flowstream.testing.leaks import Open

HEAVY = (
    "av",
    "cv2",
    "numpy",
    "aiortc",
    "aioquic",
    "mss",
    "cryptography",
    "starlette",
    "uvicorn",
    "aioice",
    "pylibsrtp",
)
"""Libraries that no pack may import just by being imported: `flowstream check` imports packs and has to be quick."""

_FENCE = re.compile(r"^```yaml\n(.*?)^```\s*\Z", re.MULTILINE | re.DOTALL)
# A number's description says what it counts or in what it is measured.
_UNIT = re.compile(
    r"\bin (percent|pixels|hertz|decibels|seconds|bits|bytes|frames|samples|degrees|kilo|milli|packets|units?)"
    r"|\bper (second|minute|frame)|\b(number|count|how many|port|index|times|factor|seed)\b",
    re.IGNORECASE,
)


class ConformanceError(AssertionError):
    """Raised by check_node with every rule that the node type breaks, one in a line."""

    def __init__(self, node_type: str, findings: list[str]) -> None:
        super().__init__(f"{node_type}:\n" + "\n".join(f"  - {finding}" for finding in findings))
        self.findings: tuple[str, ...] = tuple(findings)


def check_node(
    node_type: type[Node[Any]] | FunctionNode[..., Any],
    config: Config | Mapping[str, Any] | None = None,
    *,
    opens: bool = True,
) -> None:
    """Checks a node type against the rules. Raises ConformanceError with all findings.

    ``config`` is what to open it with: needed where a field has no default. ``opens=False`` leaves out opening and
    closing, for a node that needs a device or another machine; its own tests do that then.
    """
    checked = node_type.node_type if isinstance(node_type, FunctionNode) else node_type
    findings = [*_documentation(checked), *_ports(checked), *_config(checked), *_imports(checked)]
    if opens:
        findings += _life(checked, config)
    if findings:
        raise ConformanceError(checked.type_id or checked.__qualname__, findings)


def graph_of(node_type: type[Node[Any]]) -> str:
    """The YAML graph at the end of a node type's docstring. Raises ValueError when there is none."""
    match = _FENCE.search(inspect.cleandoc(node_type.__doc__ or ""))
    if match is None:
        raise ValueError(f"the docstring of {node_type.__qualname__} does not end with a ```yaml block")
    return match[1]


def _documentation(node_type: type[Node[Any]]) -> Iterator[str]:
    if not node_type.type_id:
        yield 'it has no type id: class Blur(Transform[BlurConfig], type="acme/blur")'
    text = inspect.cleandoc(node_type.__dict__.get("__doc__") or "")
    first = text.partition("\n")[0]
    if not first:
        yield "it has no docstring of its own"
        return
    if not first.endswith("."):
        yield "the first line of the docstring is no sentence; `flowstream nodes` shows it"
    if len(first) > 120:
        yield f"the first line of the docstring has {len(first)} characters; 120 fit a line"
    try:
        graph = YAML(typ="safe", pure=True).load(graph_of(node_type))
    except ValueError as error:
        yield str(error)
        return
    except YAMLError as error:
        yield f"the graph in the docstring is no YAML: {' '.join(str(error).split())}"
        return
    if not isinstance(graph, dict) or graph.get("flowstream") != 1 or not isinstance(graph.get("nodes"), dict):
        yield "the graph in the docstring is not complete; it begins with `flowstream: 1` and has `nodes:`"
        return
    types = [node.get("type") for node in graph["nodes"].values() if isinstance(node, dict)]
    if node_type.type_id not in types:
        yield f"the graph in the docstring does not use {node_type.type_id}"


def _ports(node_type: type[Node[Any]]) -> Iterator[str]:
    for kind, ports in (("input", node_type.inputs), ("output", node_type.outputs)):
        for name, port in ports.items():
            if not port.doc and len(ports) > 1:
                yield f"{kind} {name!r} has no doc; with several {kind}s the name alone does not tell them apart"
    outputs = list(node_type.outputs.values())
    media = [port for port in outputs if not issubclass(port.payloads[0], Record)]
    if len(outputs) > 1 and len(media) == 1 and not media[0].main:
        yield f"output {media[0].name!r} should be main=True, so that a bare node name goes on to mean it"


def _config(node_type: type[Node[Any]]) -> Iterator[str]:
    config_class = node_type.config_class
    try:
        schema = config_class.model_json_schema()
    except Exception as error:  # noqa: BLE001 - whatever a field's type raises is a finding
        yield f"no JSON Schema can be made of {config_class.__name__}: {error}"
        return
    required = {name for name, info in config_class.model_fields.items() if info.is_required()}
    try:
        # Only what is missing may be wrong: every default passes its own field's checks.
        config_class()
    except ValidationError as error:
        for each in error.errors():
            if not (each["type"] == "missing" and each["loc"][0] in required):
                yield f"the default of {'.'.join(map(str, each['loc']))} is not valid: {each['msg']}"
    for name, info in config_class.model_fields.items():
        described = schema["properties"].get(name, {})
        extra = info.json_schema_extra
        if not isinstance(extra, dict) or "x-live" not in extra:
            yield f"field {name!r} is made neither by live() nor by field(): say whether a reload may change it"
        if not info.description:
            yield f"field {name!r} has no description"
        elif not info.description.rstrip().endswith("."):
            yield f"the description of field {name!r} is no sentence"
        kinds = {described.get("type"), *(each.get("type") for each in described.get("anyOf", ()))}
        unit = described.get("x-unit") or (isinstance(extra, dict) and extra.get("x-unit"))
        if kinds & {"integer", "number"} and not unit and not _UNIT.search(info.description or ""):
            yield f"field {name!r} is a number without a unit; name it in the description or by unit="


def _imports(node_type: type[Node[Any]]) -> Iterator[str]:
    module = sys.modules.get(node_type.__module__)
    if module is None or importlib.util.find_spec(node_type.__module__.partition(".")[0]) is None:
        return  # a file of a folder pack, or a test's own module: there is no name to import it by
    if heavy := _heavy_imports(node_type.__module__):
        yield f"importing {node_type.__module__} imports {', '.join(heavy)}; import them inside functions"


@lru_cache
def _heavy_imports(module: str) -> tuple[str, ...]:
    """Which heavy libraries come along when a module is imported in a fresh interpreter."""
    code = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    found_here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=found_here
    )
    if done.returncode:
        return (f"nothing at all, it fails: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}",)
    return tuple(done.stdout.split())


def _life(node_type: type[Node[Any]], config: Config | Mapping[str, Any] | None) -> Iterator[str]:
    required = [name for name, info in node_type.config_class.model_fields.items() if info.is_required()]
    if config is None and required:
        yield f"to open it, check_node needs config= with {', '.join(required)}"
        return
    # What libraries open once for the process, on first use, is not the node's.
    with Harness(node_type, config, threads=node_type.thread):
        pass
    before = Open.now()
    with Harness(node_type, config, threads=node_type.thread):
        pass
    for left in before.left():
        yield f"after open() and close() it leaves {left}"
