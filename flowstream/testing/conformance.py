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
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flowstream.errors import FlowstreamError
from flowstream.media.caps import AudioCaps, Caps, CapsConflict, EncodedCaps, VideoCaps
from flowstream.media.frames import AudioFrame, VideoFrame
from flowstream.media.packets import EncodedPacket
from flowstream.media.records import Record
from flowstream.node.base import Node, Source
from flowstream.node.config import Config
from flowstream.node.function import FunctionNode
from flowstream.testing.harness import Harness
from flowstream.testing.leaks import Open
from flowstream.testing.media import make_frame, make_sound

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
    findings = [*_documentation(checked), *_ports(checked), *_config(checked), *_imports(checked, config)]
    findings += _negotiation(checked, config)
    if opens:
        findings += _life(checked, config)
        if not findings:
            findings += _kept_promises(checked, config)
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


def _imports(node_type: type[Node[Any]], config: Config | Mapping[str, Any] | None) -> Iterator[str]:
    module = sys.modules.get(node_type.__module__)
    if module is None or importlib.util.find_spec(node_type.__module__.partition(".")[0]) is None:
        return  # a file of a folder pack, or a test's own module: there is no name to import it by
    if heavy := _heavy_imports(node_type.__module__):
        yield f"importing {node_type.__module__} imports {', '.join(heavy)}; import them inside functions"
    elif (call := _pickled_negotiation(node_type, config)) and (heavy := _heavy_imports(node_type.__module__, call)):
        yield f"negotiate() imports {', '.join(heavy)}; it is asked when a graph is checked, without them"


def _pickled_negotiation(node_type: type[Node[Any]], config: Config | Mapping[str, Any] | None) -> str:
    """What another process needs to call negotiate; empty where that cannot be."""
    made = _configured(node_type, config)
    if made is None or not _overrides_negotiate(node_type):
        return ""
    try:
        return base64.b64encode(pickle.dumps((node_type, made, list(_incoming(node_type))))).decode()
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


# --- negotiate ------------------------------------------------------------------------------------------------------

_CAPS: dict[type[Any], type[Caps]] = {VideoFrame: VideoCaps, AudioFrame: AudioCaps, EncodedPacket: EncodedCaps}
_VIDEO = ("yuv420p", "bgr24")
_SOUND = (("fltp", 48_000, "stereo"), ("s16", 44_100, "mono"))
_ENCODED = (
    EncodedCaps(codec="h264", width=64, height=48, profile="high"),
    EncodedCaps(codec="opus", rate=48_000, layout="stereo"),
)


def _incoming(node_type: type[Node[Any]]) -> Iterator[Mapping[str, Caps]]:
    """What might be known of a node's inputs: nothing, or one of a few usual formats that they take."""
    yield {}
    usual: tuple[Caps, ...] = (
        *(VideoCaps(format=format, width=64, height=48, fps=30.0) for format in _VIDEO),
        VideoCaps(),
        *(AudioCaps(format=format, rate=rate, layout=layout) for format, rate, layout in _SOUND),
        *_ENCODED,
    )
    for caps in usual:
        taken = {
            name: caps
            for name, port in node_type.inputs.items()
            if not port.feedback and any(_CAPS.get(payload) is type(caps) for payload in port.payloads)
        }
        if taken:
            yield taken


def _overrides_negotiate(node_type: type[Node[Any]]) -> bool:
    return getattr(node_type.negotiate, "__func__", None) is not getattr(Node.negotiate, "__func__", None)


def _configured(node_type: type[Node[Any]], config: Config | Mapping[str, Any] | None) -> Config | None:
    """The configuration to check with; None when it takes values that nobody gave."""
    if isinstance(config, Config):
        return config
    try:
        return node_type.config_class.model_validate(dict(config or {}))
    except ValidationError:
        return None


def _negotiation(node_type: type[Node[Any]], config: Config | Mapping[str, Any] | None) -> Iterator[str]:
    made = _configured(node_type, config)
    if made is None or not _overrides_negotiate(node_type):
        return
    for incoming in _incoming(node_type):
        known = ", ".join(f"{name}: {caps}" for name, caps in incoming.items()) or "nothing"
        try:
            told = node_type.negotiate(made, incoming)
        except Exception as error:  # noqa: BLE001 - whatever it raises is a finding
            yield f"negotiate() raises {type(error).__name__} when {known} is known to come in: {error}"
            continue
        for name, caps in told.items():
            output = node_type.outputs.get(name)
            if output is None:
                yield f"negotiate() tells of {name!r}, which is not one of its outputs"
                continue
            wanted = [_CAPS[payload] for payload in output.payloads if payload in _CAPS]
            if not isinstance(caps, tuple(wanted)):
                names = " or ".join(each.__name__ for each in wanted) or "no caps"
                yield f"negotiate() gives {type(caps).__name__} for {name!r}, which has {names}"
            elif output.caps is not None and type(output.caps) is type(caps):
                try:
                    caps.intersect(output.caps)
                except CapsConflict as error:
                    yield f"negotiate() contradicts what output {name!r} declares: {error}"


def _kept_promises(node_type: type[Node[Any]], config: Config | Mapping[str, Any] | None) -> Iterator[str]:
    """Whether what comes out is what negotiate said, where a plain picture or a plain sound brings it out."""
    made = _configured(node_type, config)
    if made is None or not _overrides_negotiate(node_type):
        return
    runs: list[Mapping[str, Caps]] = (
        [{}] if issubclass(node_type, Source) else [each for each in _incoming(node_type) if _payload_of(each)]
    )
    for incoming in runs:
        told = node_type.negotiate(made, incoming)
        with Harness(node_type, made, threads=node_type.thread) as harness:
            try:
                if issubclass(node_type, Source):
                    harness.run(emissions=1)
                else:
                    for name in incoming:
                        harness.push(_payload_of(incoming), name)
                    harness.finish()
            except (AssertionError, FlowstreamError):
                pass  # it needs more than this to run; what it gave so far counts
            emits = list(harness.emits)
        for emit in emits:
            caps, said = getattr(emit.payload, "caps", None), told.get(emit.output.name)
            if isinstance(caps, Caps) and said is not None and type(said) is type(caps):
                try:
                    caps.intersect(said)
                except CapsConflict as error:
                    known = ", ".join(map(str, incoming.values())) or "nothing"
                    yield (
                        f"from {known}, output {emit.output.name!r} gives {error.field} {error.offered}, "
                        f"but negotiate() said {error.accepted}"
                    )
                    break


def _payload_of(incoming: Mapping[str, Caps]) -> VideoFrame | AudioFrame | None:
    """A payload with such caps; None for what cannot be made of nothing."""
    for caps in incoming.values():
        if isinstance(caps, VideoCaps) and isinstance(caps.format, str):
            return make_frame(width=64, height=48, format=caps.format)
        if isinstance(caps, AudioCaps):
            return make_sound(rate=caps.rate, layout=caps.layout, format=caps.format)  # type: ignore[arg-type]
    return None


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
