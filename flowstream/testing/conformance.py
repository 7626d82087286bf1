"""The rules that every node type passes: what a user reads about it is there and true, and it cleans up."""

from __future__ import annotations

import base64
import importlib.util
import inspect
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flowstream.media.records import Record
from flowstream.node.base import Node
from flowstream.node.config import Config
from flowstream.node.folder import file_of
from flowstream.node.function import FunctionNode
from flowstream.node.registry import Registry
from flowstream.testing.life import what_it_lives_through
from flowstream.testing.negotiation import configured, tells_caps, usual_inputs, what_is_kept, what_is_told

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
    breaking: Collection[str] = (),
) -> None:
    """Checks a node type against the rules. Raises ConformanceError with all findings.

    ``config`` is what to open it with: needed where a field has no default. ``opens=False`` leaves out opening and
    closing, and everything that it lives through between, for a node that needs a device or another machine; its own
    tests do that then. ``breaking`` names live fields that are there to make it fail.
    """
    checked = node_type.node_type if isinstance(node_type, FunctionNode) else node_type
    findings = [*_documentation(checked), *_ports(checked), *_config(checked), *_imports(checked, config)]
    findings += what_is_told(checked, config)
    if opens:
        findings += what_it_lives_through(checked, config, breaking)
        if not findings:
            findings += what_is_kept(checked, config)
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
        return
    yield from _compiled(node_type)


class _Known(Registry):
    """The installed packs, and before them the node type under test and its neighbours, installed or not."""

    def __init__(self, node_type: type[Node[Any]]) -> None:
        super().__init__(Registry.installed().packs)
        package = node_type.__module__.rpartition(".")[0] or node_type.__module__
        self._here = {
            each.type_id: each
            for each in _descendants(Node)
            if each.__module__.startswith(package) and "/" in each.type_id
        }
        self._here[node_type.type_id] = node_type

    def get(self, type_id: str) -> type[Node[Any]]:
        """See Registry.get."""
        return self._here.get(type_id) or super().get(type_id)


def _descendants(base: type[Node[Any]]) -> Iterator[type[Node[Any]]]:
    for each in base.__subclasses__():
        yield each
        yield from _descendants(each)


def _compiled(node_type: type[Node[Any]]) -> Iterator[str]:
    """Whether the graph of the docstring is one that could run."""
    from flowstream.graph.compile import examine

    text = graph_of(node_type).encode()
    found = examine(
        "docstring", read=lambda _: text, environ={}, registry=_Known(node_type),
        wallclock=datetime(2026, 1, 1, tzinfo=UTC), sets={}, layers=(),
    )  # fmt: skip
    for each in found.diagnostics:
        if each.severity == "error":
            where = f"line {each.place.line} of " if each.place else ""
            yield f"{where}the graph in the docstring: {each.code} {each.message}"


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


def _imports(node_type: type[Node[Any]], config: Config | Mapping[str, Any] | None) -> Iterator[str]:
    name = node_type.__module__
    if name not in sys.modules or file_of(name) or importlib.util.find_spec(name.partition(".")[0]) is None:
        return  # a file of a folder pack, or a test's own module: there is no name to import it by
    if heavy := _heavy_imports(node_type.__module__):
        yield f"importing {node_type.__module__} imports {', '.join(heavy)}; import them inside functions"
    elif (call := _pickledwhat_is_told(node_type, config)) and (heavy := _heavy_imports(node_type.__module__, call)):
        yield f"negotiate() imports {', '.join(heavy)}; it is asked when a graph is checked, without them"


def _pickledwhat_is_told(node_type: type[Node[Any]], config: Config | Mapping[str, Any] | None) -> str:
    """What another process needs to call negotiate; empty where that cannot be."""
    made = configured(node_type, config)
    if made is None or not tells_caps(node_type):
        return ""
    try:
        return base64.b64encode(pickle.dumps((node_type, made, list(usual_inputs(node_type))))).decode()
    except (pickle.PicklingError, AttributeError):  # a class that another process does not find by its name
        return ""


_NEGOTIATE = """
import base64, pickle
node_type, config, several = pickle.loads(base64.b64decode({call!r}))
for incoming in several:
    node_type.negotiate(config, incoming)
"""


@lru_cache
def _heavy_imports(module: str, call: str = "") -> tuple[str, ...]:
    """Which heavy libraries come along when a module is imported, and negotiate called, in a fresh interpreter."""
    code = f"import sys, {module}\n" + (_NEGOTIATE.format(call=call) if call else "")
    code += f"print(*(name for name in {HEAVY!r} if name in sys.modules))"
    found_here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=found_here
    )
    if done.returncode:
        return (f"nothing at all, it fails: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}",)
    return tuple(done.stdout.split())
