"""The graph as written: nodes, edges and settings with their places, before any node type is looked up.

What one file says; subgraphs.py puts the files that nodes use in their places.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, cast, get_args

from flowstream.graph.diagnostics import Findings, Span, listed
from flowstream.graph.load import Entry, List, Map, Scalar, Value, plain_value, spoken
from flowstream.graph.plan import CertificateFiles, Log, Restart, RestartOn, Serve, Tls
from flowstream.node.config import RESERVED
from flowstream.node.quantities import parse_bytes, parse_duration
from flowstream.proto.overflow import POLICIES, Overflow

TOP = ("flowstream", "vars", "include", "inputs", "outputs", "serve", "log", "placement", "nodes")
NOT_YET = {"needs": "starting nodes in a given order"}
VERSION = 1
MAX_NODES = 2_000
MAX_EDGES = 10_000
MAX_PORTS = 200  # that a file exports as inputs, or as outputs
MAX_ITEMS = 100_000
MIN_TOKEN, MAX_TOKEN = 16, 512  # characters; fewer can be guessed

_WORD = r"[a-z][a-z0-9-]{0,62}"
_ID = re.compile(rf"{_WORD}(?:/{_WORD}){{0,15}}", re.ASCII)
_WAS = re.compile(rf"/?{_WORD}(?:/{_WORD}){{0,15}}", re.ASCII)
_PORT = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
_REFERENCE = re.compile(rf"({_WORD}(?:/{_WORD}){{0,15}})(?:\.([a-z][a-z0-9_]*))?", re.ASCII)
_LISTEN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})", re.ASCII)


def listen_of(text: str) -> Serve | None:
    """What HOST:PORT says; None for what is none."""
    match = _LISTEN.fullmatch(text)
    return None if match is None or int(match[2]) > 65535 else Serve(match[1].strip("[]"), int(match[2]))


@dataclass(slots=True)
class EdgeSpec:
    """One edge as written on its consumer. ``input`` is None for ``from:``; ``output`` is None for a bare node.

    ``scope`` is what the ids of nodes beside the consumer begin with: ``ladder/`` in the subgraph ladder. An edge
    ``is_through_export`` when the graph names an input of a subgraph and not the consumer itself.
    """

    consumer: str
    input: str | None
    input_span: Span
    producer: str
    output: str | None
    span: Span
    overflow: Overflow | None = None
    overflow_span: Span | None = None
    items: int | None = None
    bytes: int | None = None
    time_ns: int | None = None
    limit_spans: dict[str, Span] = field(default_factory=dict)
    options: Map | None = None
    scope: str = ""
    is_through_export: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """A node, and one of its ports where it is named."""

    node: str
    port: str | None
    span: Span


@dataclass(slots=True)
class Export:
    """A port of a file's graph: its name, and what it is inside. An output is one port, an input may be several."""

    name: str
    span: Span
    targets: list[Reference]


@dataclass(slots=True)
class WorkerSpec:
    """An entry of ``placement:``: which nodes are to run on one worker."""

    name: str
    span: Span
    nodes: list[Reference]


@dataclass(slots=True)
class NodeSpec:
    """One node as written. ``broken`` when something about its edges has been reported already.

    A node with ``use`` stands for the graph of a file; its ``settings`` are the parameters of that. ``entries`` are the
    language's own keys as they are written.
    """

    id: str
    span: Span
    type: Scalar | None = None
    use: Scalar | None = None
    edges: list[EdgeSpec] = field(default_factory=list)
    settings: Map = field(default_factory=lambda: Map(Span("", 1, 1)))
    label: str = ""
    enabled: bool = True
    restart: Restart | None = None
    was: Scalar | None = None
    converts: bool | None = None
    placement: Scalar | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    broken: bool = False


@dataclass(slots=True)
class GroupSpec:
    """A subgraph: the node that uses it, the file, and its ports with the full ids of what they are inside."""

    node: NodeSpec
    file: str
    inputs: dict[str, Export] = field(default_factory=dict)
    outputs: dict[str, Export] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A node that gives something, one of its outputs if it is named, and how the graph calls that."""

    node: str
    output: str | None
    said: str


@dataclass(slots=True)
class GraphSpec:
    """A graph as written: one file's, and once subgraphs are in their places, all of it.

    ``inputs`` and ``outputs`` are what the file offers to graphs that use it.
    """

    nodes: dict[str, NodeSpec] = field(default_factory=dict)
    groups: dict[str, GroupSpec] = field(default_factory=dict)
    inputs: dict[str, Export] = field(default_factory=dict)
    outputs: dict[str, Export] = field(default_factory=dict)
    workers: dict[str, WorkerSpec] = field(default_factory=dict)
    serve: Serve | None = None
    log: Log | None = None
    _leaves: dict[tuple[str, str | None], list[Leaf]] = field(default_factory=dict, repr=False, compare=False)

    def scope(self, id_: str) -> str:
        """What the ids of the nodes beside a node begin with: that of the subgraph it stands in, and a slash."""
        while id_ := id_.rpartition("/")[0]:
            if id_ in self.groups:
                return f"{id_}/"
        return ""

    def leaves(self, producer: str, output: str | None) -> list[Leaf]:
        """The nodes, and their outputs where these are named, that an output of a node or a subgraph stands for.

        Each once, by its first name. Ask when all subgraphs are in their places.
        """
        if (known := self._leaves.get((producer, output))) is not None:
            return known
        found: dict[tuple[str, str | None], Leaf] = {}
        if producer in self.nodes:
            found[producer, output] = Leaf(producer, output, f"{producer}.{output}" if output else producer)
        elif producer in self.groups:
            for name, export in self.groups[producer].outputs.items():
                for target in export.targets if output in (None, name) else ():
                    for leaf in self.leaves(target.node, target.port):
                        found.setdefault((leaf.node, leaf.output), replace(leaf, said=f"{producer}.{name}"))
        self._leaves[producer, output] = list(found.values())
        return self._leaves[producer, output]

    def entrances(self, targets: Iterable[Reference]) -> list[Reference]:
        """The inputs of nodes that references to inputs of nodes and subgraphs stand for, each once."""
        found: dict[tuple[str, str | None], Reference] = {}
        seen: set[tuple[str, str | None]] = set()
        waiting = list(targets)[::-1]
        while waiting:
            target = waiting.pop()
            if (target.node, target.port) in seen:
                continue
            seen.add((target.node, target.port))
            group = self.groups.get(target.node)
            if group is None:
                found[target.node, target.port] = target
                continue
            exports = [each for name, each in group.inputs.items() if target.port in (None, name)]
            waiting += [each for export in exports[::-1] for each in export.targets[::-1]]
        return list(found.values())


def build(root: Map, findings: Findings) -> GraphSpec:
    """The graph of a substituted tree; what does not fit is among the findings."""
    return _Builder(findings).graph(root)


class _Builder:
    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.add = findings.add

    def graph(self, root: Map) -> GraphSpec:
        spec = GraphSpec()
        for key, entry in root.entries.items():
            if key in NOT_YET:
                self.add("FS113", entry.key.span, f"{NOT_YET[key]} ({key}:) is not supported yet", "take the key out")
            elif key not in TOP:
                close = self.findings.guess(key, TOP)
                hint = f"did you mean {close}?" if close else None
                if isinstance(entry.value, Map) and "type" in entry.value.entries:
                    hint = "a node stands under nodes:"
                self.add("FS112", entry.key.span, f"a graph has no {key}; it has {listed(TOP)}", hint)
        self._version(root.get("flowstream"))
        spec.serve = self._serve(root)
        spec.log = self._log(root)
        spec.inputs = self._exports(root, "inputs")
        spec.outputs = self._exports(root, "outputs")
        spec.workers = self._placement(root)
        nodes = self._map(root, "nodes", "each node by its id")
        if nodes is None:
            if "nodes" not in root.entries:
                self.add(
                    "FS111", root.span, "the file has no nodes:", "nodes: {ID: {type: TYPE}} is the least there is"
                )
            return spec
        if not nodes.entries:
            self.add("FS111", nodes.span, "nodes: is empty; a graph has at least one node")
        if len(nodes.entries) > MAX_NODES:
            self.add("FS109", nodes.span, f"a graph has at most {MAX_NODES:,} nodes, not {len(nodes.entries):,}")
            return spec
        for id_, entry in nodes.entries.items():
            if not _ID.fullmatch(id_):
                better = re.sub(r"[^a-z0-9]+", "-", id_.lower()).strip("-")[:63]
                hint = (
                    f"write {better}"
                    if _ID.fullmatch(better) and id_.isascii()
                    else "lower case letters, digits and -, a letter first"
                )
                self.add("FS201", entry.key.span, f"{id_[:80]!r} cannot be the id of a node", hint)
                continue
            spec.nodes[id_] = self._node(id_, entry.key.span, entry.value)
        edges = sum(len(node.edges) for node in spec.nodes.values())
        if edges > MAX_EDGES:
            self.add("FS109", nodes.span, f"a graph has at most {MAX_EDGES:,} edges, not {edges:,}")
            spec.nodes = {}
        return spec

    def _map(self, parent: Map, key: str, holds: str) -> Map | None:
        value = parent.get(key)
        if value is None or (isinstance(value, Scalar) and value.broken):
            return None
        if not isinstance(value, Map):
            span = parent.entries[key].key.span
            if isinstance(value, Scalar) and value.value is None:
                self.add("FS115", span, f"{key} has no value; it takes a map: {holds}", "leave it out if there is none")
            else:
                self.add("FS111", value.span, f"{key} takes a map ({holds}), not {spoken(value)}")
            return None
        return value

    def _known(self, block: Map, what: str, keys: tuple[str, ...]) -> None:
        for key, entry in block.entries.items():
            if key not in keys:
                close = self.findings.guess(key, keys)
                self.add("FS112", entry.key.span, f"{what} has no {key}; it has {listed(keys)}",
                         f"did you mean {close}?" if close else None)  # fmt: skip

    def _version(self, value: Value | None) -> None:
        if value is None or (isinstance(value, Scalar) and value.broken):
            return
        if isinstance(value, Scalar) and value.value == VERSION and not isinstance(value.value, bool):
            return
        if isinstance(value, Scalar) and isinstance(value.value, int | float) and value.value > VERSION:
            self.add("FS114", value.span, f"the file is for graph language {value.text}; this is {VERSION}",
                     "install a newer flowstream")  # fmt: skip
        else:
            self.add("FS114", value.span, f"flowstream: takes the version of the graph language, which is {VERSION}",
                     "write flowstream: 1")  # fmt: skip

    def _scalar(self, block: Map, key: str, name: str) -> Scalar | None:
        """A single value that is there, not empty and not reported already."""
        value = block.get(key)
        if value is None:
            return None
        if not isinstance(value, Scalar):
            self.add("FS111", value.span, f"{name} takes a single value, not {spoken(value)}")
            return None
        if value.broken:
            return None
        if value.value is None:
            self.add(
                "FS115", block.entries[key].key.span, f"{name} has no value", f"write {key}: VALUE, or leave it out"
            )
            return None
        return value

    def _text(self, block: Map, key: str, name: str, example: str) -> Scalar | None:
        value = self._scalar(block, key, name)
        if value is not None and not isinstance(value.value, str):
            hint = f"for example {key}: {example}" if example else f'put it in quotes: {key}: "{value.text}"'
            self.add("FS208", value.span, f"{name} takes text, and {value.text} is {spoken(value)}", hint)
            return None
        return value

    def _choice(self, block: Map, key: str, name: str, allowed: tuple[str, ...]) -> str | None:
        value = self._scalar(block, key, name)
        if value is None:
            return None
        if value.value not in allowed:
            close = self.findings.guess(str(value.text), allowed)
            self.add("FS208", value.span, f"{name} takes {listed(allowed, 'or')}, not {shown(value)}",
                     f"did you mean {close}?" if close else None)  # fmt: skip
            return None
        return str(value.value)

    def _quantity(self, block: Map, key: str, name: str, parse: Callable[[str], int]) -> int | None:
        value = self._scalar(block, key, name)
        if value is None:
            return None
        readings = {"bytes": "KiB or MiB"}.get(key, "s or ms")
        if not isinstance(value.value, str):
            self.add("FS208", value.span, f"{name} takes a {'duration' if 's' in readings.split() else 'size'}; "
                     f"{shown(value)} has no unit", f"write it with {readings}")  # fmt: skip
            return None
        try:
            found = parse(value.value)
        except ValueError as error:
            self.add(
                "FS208", value.span, f"{name}: {shown(value)} does not fit" if value.secret else f"{name}: {error}"
            )
            return None
        if found < 1:
            self.add("FS208", value.span, f"{name} takes more than 0")
            return None
        return found

    def _count(self, block: Map, key: str, name: str, most: int) -> int | None:
        value = self._scalar(block, key, name)
        if value is None:
            return None
        number = value.value
        if value.loose and isinstance(number, str) and number.isdecimal() and len(number) < 9:
            number = int(number)
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
            self.add("FS208", value.span, f"{name} takes a whole number from 1 to {most:,}, not {shown(value)}")
            return None
        return number

    def _serve(self, root: Map) -> Serve | None:
        block = self._map(root, "serve", 'listen: "127.0.0.1:8080"')
        if block is None:
            return None
        self._known(block, "serve", ("listen", "tls", "api", "token"))
        has_api = self._switch(block, "api", "api") or False
        token = self._token(block)
        tls = self._tls(block)
        listen = self._scalar(block, "listen", "listen")
        if listen is None:
            return Serve(api=has_api, token=token, tls=tls)
        serve = listen_of(listen.value) if isinstance(listen.value, str) else None
        if serve is None:
            hint = f'write listen: "127.0.0.1:{listen.text}"' if isinstance(listen.value, int) else None
            self.add("FS208", listen.span, f"listen takes HOST:PORT, not {shown(listen)}",
                     hint or 'write listen: "127.0.0.1:8080" to serve this machine alone')  # fmt: skip
            return None
        serve = replace(serve, api=has_api, token=token, tls=tls)
        if serve.is_exposed and "tls" not in block.entries:
            self.add("FS214", listen.span, f"other machines reach {serve.host}, and what they are shown would go over "
                     "the network in the clear",
                     "add tls: auto, which makes a certificate; tls: {cert: FILE, key: FILE} for one of yours; or "
                     "tls: off when something in front of it encrypts")  # fmt: skip
        return serve

    def _tls(self, block: Map) -> Tls | None:
        value = block.get("tls")
        if not isinstance(value, Map):
            return cast("Tls | None", self._choice(block, "tls", "tls", ("auto", "off")))
        self._known(value, "tls", ("cert", "key"))
        files = {key: self._text(value, key, key, f"{key}.pem") for key in ("cert", "key")}
        for name in files:
            if name not in value.entries:
                self.add("FS207", value.span, f"tls has no {name}", f"add {name}: FILE, or write tls: auto")
        cert, key = files["cert"], files["key"]
        return CertificateFiles(str(cert.value), str(key.value)) if cert is not None and key is not None else None

    def _switch(self, block: Map, key: str, name: str) -> bool | None:
        value = self._scalar(block, key, name)
        if value is None:
            return None
        on = value.value
        if value.loose and isinstance(on, str):
            on = plain_value(on)
        if not isinstance(on, bool):
            self.add("FS208", value.span, f"{name} takes true or false, not {shown(value)}")
            return None
        return on

    def _token(self, block: Map) -> str | None:
        value = self._scalar(block, "token", "token")
        if value is None:
            return None
        if not value.secret or not isinstance(value.value, str):
            self.add("FS208", value.span, "a token that stands in a file is no secret",
                     "write token: $(env:NAME), or leave it out: then each run makes one of its own")  # fmt: skip
            return None
        if not MIN_TOKEN <= len(value.value) <= MAX_TOKEN or not value.value.isascii() or not value.value.isprintable():
            self.add("FS208", value.span, f"what {value.text} holds does not fit token; it takes {MIN_TOKEN} to "
                     f"{MAX_TOKEN} characters of ASCII")  # fmt: skip
            return None
        return value.value

    def _log(self, root: Map) -> Log | None:
        block = self._map(root, "log", "level and format")
        if block is None:
            return None
        self._known(block, "log", ("level", "format"))
        level = self._choice(block, "level", "level", ("debug", "info", "warning", "error"))
        form = self._choice(block, "format", "format", ("text", "json"))
        return Log(cast("Any", level), cast("Any", form))

    def _exports(self, root: Map, key: str) -> dict[str, Export]:
        """``inputs:`` or ``outputs:`` of a file: names, and the ports inside that they stand for."""
        block = self._map(root, key, "the ports that graphs which use this one see, by name")
        found: dict[str, Export] = {}
        if block is not None and len(block.entries) > MAX_PORTS:
            self.add("FS109", block.span, f"a graph has at most {MAX_PORTS} {key}, not {len(block.entries):,}")
        for name, entry in islice(block.entries.items(), MAX_PORTS) if block else ():
            if not _PORT.fullmatch(name):
                self.add("FS127", entry.key.span, f"{name[:80]!r} cannot be the name of a port",
                         "use lower case letters, digits and _, a letter first")  # fmt: skip
                continue
            values = entry.value.items if isinstance(entry.value, List) else [entry.value]
            if key == "outputs" and len(values) != 1:
                self.add("FS111", entry.value.span, f"the output {name} is one output of one node, not a list",
                         f"write {name}: NODE.OUTPUT")  # fmt: skip
                continue
            if not values:
                self.add("FS115", entry.value.span, f"{name} is an empty list", "name an input, or take it out")
            targets = [ref for value in values if (ref := self._reference(entry.key.span, name, value)) is not None]
            if targets and len(targets) == len(values):
                found[name] = Export(name, entry.key.span, targets)
        return found

    def _reference(self, key: Span, name: str, value: Value) -> Reference | None:
        """NODE or NODE.PORT."""
        if not isinstance(value, Scalar):
            self.add("FS111", value.span, f"{name} takes NODE or NODE.PORT, not {spoken(value)}")
            return None
        if value.broken:
            return None
        if value.value is None:
            self.add("FS115", key, f"{name} has no value", f"write {name}: NODE.PORT, or leave it out")
            return None
        match = _REFERENCE.fullmatch(value.value) if isinstance(value.value, str) else None
        if match is None:
            self.add("FS312", value.span, f"{shown(value)} names no port", "write NODE or NODE.PORT")
            return None
        return Reference(match[1], match[2], value.span)

    def _placement(self, root: Map) -> dict[str, WorkerSpec]:
        block = self._map(root, "placement", "the workers, each with its nodes")
        found: dict[str, WorkerSpec] = {}
        for name, entry in block.entries.items() if block else ():
            if not re.fullmatch(_WORD, name, re.ASCII):
                self.add("FS201", entry.key.span, f"{name[:80]!r} cannot be the name of a worker",
                         "lower case letters, digits and -, a letter first")  # fmt: skip
                continue
            worker = self._map(cast("Map", block), name, "nodes and address")
            if worker is None:
                continue
            self._known(worker, f"worker {name}", ("nodes", "address"))
            address = self._text(worker, "address", "address", "edge-1:7000")
            if address is not None and _LISTEN.fullmatch(str(address.value)) is None:
                self.add("FS208", address.span, f"address takes HOST:PORT, not {shown(address)}")
            nodes = worker.get("nodes")
            values = nodes.items if isinstance(nodes, List) else [nodes] if nodes is not None else []
            refs = [self._reference(entry.key.span, "nodes", value) for value in values]
            found[name] = WorkerSpec(name, entry.key.span, [ref for ref in refs if ref is not None])
        return found

    def _node(self, id_: str, span: Span, value: Value) -> NodeSpec:
        node = NodeSpec(id_, span)
        if not isinstance(value, Map):
            node.broken = True
            if isinstance(value, Scalar) and value.value is None:
                self.add("FS115", span, f"node {id_} is empty", f"write {id_}: {{type: TYPE}}, or take it out")
            else:
                hint = None
                if isinstance(value, Scalar) and isinstance(value.value, str):
                    hint = f"write {id_}: {{type: {value.text[:40]}}}"
                self.add("FS111", value.span, f"a node is a map of its settings, not {spoken(value)}", hint)
            return node
        node.broken = value.is_damaged
        node.settings = Map(
            value.span, {k: e for k, e in value.entries.items() if k not in RESERVED}, is_damaged=value.is_damaged
        )
        node.entries = {key: entry for key, entry in value.entries.items() if key in RESERVED}
        for key, entry in node.entries.items():
            if key in NOT_YET:
                self.add("FS113", entry.key.span, f"{NOT_YET[key]} ({key}:) is not supported yet", "take the key out")
        if "type" in value.entries and "use" in value.entries:
            self.add("FS210", value.entries["use"].key.span, f"{id_} has both type: and use:",
                     "a node is of a type, or stands for the graph of a file; keep one of them",
                     [(value.entries["type"].key.span, "type: is here")])  # fmt: skip
            node.broken = True
        elif "type" in value.entries:
            node.type = self._text(value, "type", "type", "test-pattern")
            node.broken |= node.type is None
        elif "use" in value.entries:
            node.use = self._text(value, "use", "use", "lib/part.yaml")
            if node.use is not None and node.use.secret:
                self.add("FS208", node.use.span, f"use: {node.use.text} comes from the environment, which is secret; "
                         "the path of a file is shown", "give it as a variable, by --set")  # fmt: skip
                node.use = None
            node.broken |= node.use is None
        else:
            node.broken = True
            close = self.findings.guess("type", value.entries)
            self.add("FS202", span, f"node {id_} does not say what it is",
                     f"did you mean type: where it says {close}:?" if close else "add type: NAME; "
                     "`flowstream nodes` lists what there is")  # fmt: skip
        if (label := self._text(value, "label", "label", "")) is not None:
            node.label = label.text if label.secret else str(label.value)
        if (enabled := self._switch(value, "enabled", "enabled")) is not None:
            node.enabled = enabled
        if (was := self._text(value, "was", "was", "old-name")) is not None:
            if _WAS.fullmatch(str(was.value)):
                node.was = was
            else:
                self.add("FS201", was.span, f"{shown(was)} cannot be the id of a node")
        if (convert := self._choice(value, "convert", "convert", ("auto", "never"))) is not None:
            node.converts = convert == "auto"
        node.placement = self._text(value, "placement", "placement", "edge")
        node.restart = self._restart(value)
        if "from" in value.entries and "inputs" in value.entries:
            self.add("FS209", value.entries["from"].key.span, f"{id_} has both from: and inputs:",
                     "keep inputs:, and name there the input that from: was for",
                     [(value.entries["inputs"].key.span, "inputs: is here")])  # fmt: skip
            node.broken = True
        elif "from" in value.entries:
            entry = value.entries["from"]
            node.edges.extend(self._edges(node, None, entry.key.span, entry.value))
        elif (inputs := self._map(value, "inputs", "each input with what it takes")) is not None:
            for port, entry in inputs.entries.items():
                node.edges.extend(self._edges(node, port, entry.key.span, entry.value))
        elif "inputs" in value.entries:
            node.broken = True
        taken = value.get("inputs")
        node.broken |= isinstance(taken, Map) and taken.is_damaged
        return node

    def _restart(self, node: Map) -> Restart | None:
        value = node.get("restart")
        if isinstance(value, Scalar) and value.value in get_args(RestartOn):
            self.add("FS111", value.span, "restart takes a map", f"write restart: {{on: {value.value}}}")
            return None
        block = self._map(node, "restart", "on, backoff, limit, window")
        if block is None:
            return None
        self._known(block, "restart", ("on", "backoff", "limit", "window"))
        default = Restart()
        on = self._choice(block, "on", "on", get_args(RestartOn))
        limit = self._count(block, "limit", "limit", 1_000_000)
        window = self._quantity(block, "window", "window", parse_duration)
        if window and "limit" not in block.entries:
            self.add("FS208", block.entries["window"].value.span, "window is the time in which limit failures count",
                     "add limit: COUNT, or leave window out")  # fmt: skip
        first = maximum = None
        if (backoff := self._map(block, "backoff", "first and max")) is not None:
            self._known(backoff, "backoff", ("first", "max"))
            first = self._quantity(backoff, "first", "first", parse_duration)
            maximum = self._quantity(backoff, "max", "max", parse_duration)
            if first and maximum and first > maximum:
                self.add("FS208", backoff.entries["first"].value.span, "first is longer than max")
        first = first or min(default.first_ns, maximum or default.first_ns)
        maximum = maximum or max(default.max_ns, first)
        return Restart(cast("RestartOn", on) if on else default.on, first, maximum, limit, window or None)

    def _edges(self, node: NodeSpec, port: str | None, span: Span, value: Value) -> Iterator[EdgeSpec]:
        values = value.items if isinstance(value, List) else [value]
        if not values:
            self.add("FS115", value.span, f"{port or 'from'} is an empty list", "name an output, or leave the key out")
        for each in values:
            edge = self._edge(node, port, span, each)
            if edge is None:
                node.broken = True
            else:
                yield edge

    def _edge(self, node: NodeSpec, port: str | None, span: Span, value: Value) -> EdgeSpec | None:
        name = port or "from"
        if isinstance(value, List):
            self.add("FS111", value.span, f"{name} takes an output, a map with output:, or a list of those")
            return None
        options = value if isinstance(value, Map) else None
        if options is not None:
            self._known(options, f"an edge ({name})", ("output", "overflow", "limit"))
            if "output" not in options.entries:
                self.add("FS207", options.span, f"{name} does not say which output it takes", "add output: NODE")
                return None
        target = self._scalar(options, "output", "output") if options is not None else cast("Scalar", value)
        if target is None or target.broken:
            return None
        if target.value is None:
            self.add("FS115", span, f"{name} has no value", f"write {name}: NODE, or leave it out")
            return None
        match = _REFERENCE.fullmatch(target.value) if isinstance(target.value, str) else None
        if match is None:
            small = str(target.value).lower()
            is_case = not target.secret and _REFERENCE.fullmatch(small) is not None
            hint = f"write {small}" if is_case else "write NODE or NODE.OUTPUT"
            self.add("FS312", target.span, f"{shown(target)} names no output", hint)
            return None
        edge = EdgeSpec(node.id, port, span, match[1], match[2], target.span)
        if options is not None:
            edge.options = options
            self._options(edge, options)
        return edge

    def _options(self, edge: EdgeSpec, options: Map) -> None:
        policy = self._choice(options, "overflow", "overflow", POLICIES)
        if policy is not None:
            edge.overflow = cast("Overflow", policy)
            edge.overflow_span = options.entries["overflow"].key.span
        bare = options.get("limit")
        if isinstance(bare, Scalar) and bare.value is not None and not bare.broken:
            self.add("FS111", bare.span, f"limit: {shown(bare)} does not say what it counts",
                     "write limit: {items: 100}, {bytes: 4MiB} or {time: 2s}, or several of them")  # fmt: skip
            return
        limit = self._map(options, "limit", "items, bytes, time")
        if limit is None:
            return
        self._known(limit, "limit", ("items", "bytes", "time"))
        edge.items = self._count(limit, "items", "items", MAX_ITEMS)
        edge.bytes = self._quantity(limit, "bytes", "bytes", parse_bytes)
        edge.time_ns = self._quantity(limit, "time", "time", parse_duration)
        edge.limit_spans = {key: entry.key.span for key, entry in limit.entries.items()}


def shown(value: Scalar) -> str:
    """A value as it may be shown: text in quotes as it was written, secrets by their name."""
    if value.secret:
        return value.text
    text = value.text if len(value.text) <= 60 else f"{value.text[:57]}..."
    return repr(text) if isinstance(value.value, str) else text
