"""Graphs made by code: the same language as in YAML, and the same plan.

A `Graph` holds what a graph file says, as plain values. `Graph.to_yaml` writes that file, `Graph.from_yaml` reads one,
and `Graph.plan` compiles it, so that every mistake is found by the same rules and shown in the text.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any, Literal, TypeAlias

from flowstream.errors import GraphError
from flowstream.graph.compile import compile_graph
from flowstream.graph.diagnostics import Findings, Span, did_you_mean
from flowstream.graph.load import MAX_BYTES, List, Map, Scalar, Value, load, plain_value, spoken
from flowstream.graph.plan import Plan
from flowstream.graph.write import Written, decimal, scalar, text_of
from flowstream.media.size import Size
from flowstream.node.config import RESERVED
from flowstream.node.quantities import format_aspect, format_bytes, format_duration
from flowstream.node.registry import Registry
from flowstream.proto.overflow import POLICIES, Overflow

Setting: TypeAlias = (
    "str | int | float | bool | PurePath | timedelta | Fraction | Sequence[Setting] | Mapping[str, Setting] | None"
)
"""What a setting can be given: what YAML can say, and Python's own words for a path, a duration and an aspect ratio."""

Source: TypeAlias = "GraphNode | GraphPort | GraphEdge | str"
"""Where an input takes from: a node, one of its outputs, either with options, or text such as ``encode.packets``."""

Tree: TypeAlias = dict[str, Any]

_ID = re.compile(r"[a-z][a-z0-9-]{0,62}", re.ASCII)
_REFERENCE = re.compile(r"[a-z][a-z0-9-]*(?:/[a-z][a-z0-9-]*)*(?:\.[a-z][a-z0-9_-]*)?", re.ASCII)
_NAME = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII)
_RUN_TIME = re.compile(rb"(?<!\$)(?:\$\$)*\$\((?:date|time)\)")
_PARAMETERS = {"from": "from_=", "type": "the first argument of add()", "use": "use()"}
_WORDS = ("label", "enabled", "was", "restart", "convert", "placement")
_MAX_DEPTH = 24  # of a setting; a file is not read beyond 32
_MAX_KEY = 100  # characters; a key of more than 1024, escapes written out, needs another form


@dataclass(frozen=True, slots=True, eq=False)
class GraphNode:
    """A node of a `Graph`. ``node["packets"]`` is its port of that name; the node itself is its one or main output."""

    graph: Graph
    id: str

    def __getitem__(self, port: str) -> GraphPort:
        """A port by name: an output where something takes from it, an input where it is connected or exported.

        Whether the node has such a port is found when the graph is compiled. Raises ValueError for what is no name.
        """
        return GraphPort(self, _name(port, f"a port of {self.id}"))

    def set(self, *, settings: Mapping[str, Setting] | None = None, **more: Setting) -> GraphNode:
        """Gives settings another value, as for `Graph.add`; None takes one out, so that its default counts again.

        ``label``, ``enabled``, ``was``, ``restart``, ``convert`` and ``placement`` can be set too; edges are made by
        `Graph.connect`.
        """
        node = self.graph._nodes[self.id]
        for key, value in _names(more, settings, _WORDS).items():
            if value is None:
                node.pop(key, None)
            else:
                node[key] = plain(value, key)
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GraphNode) and self.graph is other.graph and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<node {self.id}>"


@dataclass(frozen=True, slots=True)
class GraphPort:
    """A port of a node of a `Graph`, by its name."""

    node: GraphNode
    name: str

    def __str__(self) -> str:
        return f"{self.node.id}.{self.name}"

    def __repr__(self) -> str:
        return f"<port {self}>"


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """Where an input takes from, with what the edge does when it is full; made by `edge`."""

    source: GraphNode | GraphPort | str
    overflow: Overflow | None = None
    limit: Mapping[str, str | int] = field(default_factory=dict)


def edge(
    source: GraphNode | GraphPort | str,
    *,
    overflow: Overflow | None = None,
    items: int | None = None,
    bytes: int | str | None = None,
    time: int | str | timedelta | None = None,
) -> GraphEdge:
    """An output with options of the edge: what happens when it is full, and how much may wait.

    ``bytes`` is a number of bytes or text such as ``"4MiB"``, ``time`` a number of nanoseconds, a timedelta or text
    such as ``"2s"``. Raises TypeError or ValueError for what cannot be an option.
    """
    if not isinstance(source, GraphNode | GraphPort | str):
        raise TypeError(f"edge() takes a node, one of its outputs or text such as 'encode.packets', not {source!r}")
    if overflow is not None and overflow not in POLICIES:
        close = did_you_mean(str(overflow), POLICIES)
        raise ValueError(f"overflow takes {', '.join(POLICIES)}, not {overflow!r}" + _meant(close))
    limit: dict[str, str | int] = {}
    if items is not None:
        limit["items"] = _count(items, "items")
    if bytes is not None:
        limit["bytes"] = _quantity(bytes, "bytes", format_bytes)
    if time is not None:
        limit["time"] = _quantity(_ns(time) if isinstance(time, timedelta) else time, "time", format_duration)
    return GraphEdge(source, overflow, limit)


class Graph:
    """A graph made by code, which says what a graph file says.

    ```python
    graph = Graph()
    screen = graph.add("screen", fps=30)
    encode = graph.add("hw-encode", id="encode", from_=screen, bitrate="2.5M")
    graph.add("webrtc-out", id="out", from_=encode["packets"], viewers={"max": 10})
    graph.add("recorder", from_=edge(encode, overflow="drop-to-keyframe", time="4s"), path="tapes/$(date).mp4")
    print(graph.to_yaml())
    ```

    ``path`` is where its text would stand: it names the plan and the places of findings, and paths in the graph are
    relative to it. Two graphs are equal when they say the same.

    What a call can tell to be wrong, it refuses with a TypeError or ValueError. All else, such as a node type that
    does not exist, is found by `plan`.
    """

    def __init__(self, path: str | PurePath = "graph.yaml") -> None:
        self.path: str = str(path)
        self._tree: Tree = {"flowstream": 1}

    # --- nodes ------------------------------------------------------------------------------------------------------

    def add(
        self,
        type: str,
        /,
        *,
        id: str | None = None,
        from_: Source | Sequence[Source] | None = None,
        inputs: Mapping[str, Source | Sequence[Source]] | None = None,
        label: str | None = None,
        enabled: bool | str | None = None,
        was: str | None = None,
        restart: Mapping[str, Setting] | None = None,
        convert: Literal["auto", "never"] | None = None,
        placement: str | None = None,
        settings: Mapping[str, Setting] | None = None,
        **more: Setting,
    ) -> GraphNode:
        """Adds a node of a type and gives it back, for others to take from.

        ``id`` is the type's name unless given; a second one gets ``-2``. ``from_`` is where its one input takes from,
        ``inputs`` names several; each takes a node, an output of one (``encode["packets"]``), `edge` for one with
        options, text for a node that is added later (``"out.reports"``), or a list of those. Every other keyword is a
        setting of the node type. ``settings`` is for those whose names are taken here (``id``); one that is a word of
        Python gets an underscore behind it (``class_``).

        Settings are what a graph says: quantities with their unit, ``"2.5M"``, ``"720p"``, ``"50%"``. `format_bitrate`
        and its like write numbers so; a timedelta, a `Size` and a Fraction (an aspect ratio) may stand for theirs. In
        text, ``$(name)`` is a variable and ``$$`` a dollar sign. None leaves a setting out.

        Raises TypeError or ValueError for what cannot stand in a graph, an id that is there already, and a node of
        another graph.
        """
        if not isinstance(type, str):
            raise TypeError(f"add() takes the name of a node type, such as 'hw-encode', not {type!r}")
        if not type.strip():
            raise ValueError("add() takes the name of a node type, such as 'hw-encode'; this one is empty")
        head = {"type": type}
        words = {
            "label": label, "enabled": enabled, "was": was, "convert": convert, "placement": placement,
            "restart": restart,
        }  # fmt: skip
        return self._add(head, id, type.rpartition("/")[2], from_, inputs, words, _names(more, settings))

    def use(
        self,
        path: str | PurePath,
        /,
        *,
        id: str | None = None,
        from_: Source | Sequence[Source] | None = None,
        inputs: Mapping[str, Source | Sequence[Source]] | None = None,
        label: str | None = None,
        enabled: bool | str | None = None,
        was: str | None = None,
        restart: Mapping[str, Setting] | None = None,
        convert: Literal["auto", "never"] | None = None,
        placement: str | None = None,
        settings: Mapping[str, Setting] | None = None,
        **more: Setting,
    ) -> GraphNode:
        """Adds another graph file as a node: its exported inputs and outputs are the node's ports.

        ``path`` is relative to this graph's. ``id`` is the file's name without ``.yaml`` unless given. Every other
        keyword gives a variable of that file its value. The rest is as for `add`.
        """
        if not isinstance(path, str | PurePath):
            raise TypeError(f"use() takes the path of a graph file, not {path!r}")
        file = path.as_posix() if isinstance(path, PurePath) else path
        if not file.strip():
            raise ValueError("use() takes the path of a graph file; this one is empty")
        words = {
            "label": label, "enabled": enabled, "was": was, "convert": convert, "placement": placement,
            "restart": restart,
        }  # fmt: skip
        return self._add({"use": file}, id, PurePath(file).stem, from_, inputs, words, _names(more, settings))

    def _add(
        self,
        head: Tree,
        id: str | None,
        name: str,
        from_: Any,
        inputs: Any,
        words: Mapping[str, Any],
        settings: Mapping[str, Any],
    ) -> GraphNode:
        id = self._free_id(name) if id is None else self._new_id(id)
        if from_ is not None and inputs is not None:
            raise TypeError(f"{id} is given from_= and inputs=; name in inputs= the input that from_= was for")
        node = head
        if from_ is not None:
            node["from"] = self._sources(from_, "from_")
        if inputs is not None:
            if not isinstance(inputs, Mapping):
                raise TypeError(f"inputs= takes each input with what it takes, {{'video': encode}}, not {inputs!r}")
            node["inputs"] = {_key(port, "inputs"): self._sources(each, str(port)) for port, each in inputs.items()}
        node |= {key: plain(value, key) for key, value in settings.items() if value is not None}
        node |= {key: plain(value, key) for key, value in words.items() if value is not None}
        self._part("nodes")[id] = node
        return GraphNode(self, id)

    @property
    def nodes(self) -> Mapping[str, GraphNode]:
        """The nodes by id, in the order of the graph."""
        return {id: GraphNode(self, id) for id, node in self._nodes.items() if isinstance(node, dict)}

    @property
    def _nodes(self) -> Tree:
        nodes: Tree = self._tree.get("nodes", {})
        return nodes

    def _new_id(self, id: str) -> str:
        if not isinstance(id, str):
            raise TypeError(f"id= takes text, not {id!r}")
        if not _ID.fullmatch(id):
            better = _slug(id)
            raise ValueError(
                f"{id!r} cannot be the id of a node: lower case letters, digits and -, a letter first"
                + (f"; write {better!r}" if better else "")
            )
        if id in self._nodes:
            raise ValueError(f"{id} is there already; give id= another name")
        return id

    def _free_id(self, name: str) -> str:
        first = _slug(name)
        if not first:
            raise ValueError(f"{name!r} makes no id; give id= a name")
        number, found = 1, first
        while found in self._nodes:
            number += 1
            found = f"{first[: 62 - len(str(number))]}-{number}"
        return found

    # --- edges ------------------------------------------------------------------------------------------------------

    def connect(self, source: Source, to: GraphNode | GraphPort | str) -> None:
        """Lets an input take from an output: what ``from_=`` and ``inputs=`` do, for nodes that are there already.

        ``to`` is an input (``abr["reports"]`` or ``"abr.reports"``), or a node, for its one input. An input that
        takes something already takes this too. Raises TypeError or ValueError for what names no port, or a node that
        is not there.
        """
        given = self._source(source, "source")
        if not isinstance(to, GraphNode | GraphPort | str):
            raise TypeError(f"to= takes a node or an input of one, such as abr['reports'], not {to!r}")
        id, _, port = self._reference(to).partition(".")
        node = self._nodes.get(id)
        if not isinstance(node, dict):
            raise ValueError(f"there is no node {id}" + _meant(did_you_mean(id, self._nodes)))
        other = "from" if port else "inputs"
        if other in node:
            way_out = f"name the input: {id}.INPUT" if other == "inputs" else "give that one in inputs= too"
            raise ValueError(f"{id} has {other}: already, and a node has from: or inputs:, not both; {way_out}")
        if not port:
            node["from"] = _joined(node.get("from"), given)
            return
        inputs = node.setdefault("inputs", {})
        if not isinstance(inputs, dict):
            raise ValueError(f"inputs of {id} is no map of inputs")
        inputs[port] = _joined(inputs.get(port), given)

    def _sources(self, value: Any, name: str) -> Any:
        if isinstance(value, Sequence) and not isinstance(value, str):
            if not value:
                raise ValueError(f"{name} is an empty list; leave it out if it takes nothing")
            return [self._source(each, name) for each in value]
        return self._source(value, name)

    def _source(self, value: Any, name: str) -> Any:
        if isinstance(value, GraphEdge):
            made: Tree = {"output": self._reference(value.source)}
            if value.overflow is not None:
                made["overflow"] = value.overflow
            if value.limit:
                made["limit"] = dict(value.limit)
            return made
        if isinstance(value, GraphNode | GraphPort | str):
            return self._reference(value)
        raise TypeError(
            f"{name} takes a node, an output of one, text such as 'encode.packets', edge(...), or a list of those; "
            f"not {value!r}"
        )

    def _reference(self, value: GraphNode | GraphPort | str) -> str:
        if isinstance(value, str):
            if not _REFERENCE.fullmatch(value) and "$(" not in value:
                raise ValueError(f"{value!r} names no output; write 'NODE' or 'NODE.OUTPUT'")
            return value
        node = value if isinstance(value, GraphNode) else value.node
        if node.graph is not self:
            raise ValueError(f"{value} is of another graph; add such a node to this one")
        return str(value)

    # --- the graph as a whole ---------------------------------------------------------------------------------------

    def var(
        self,
        name: str,
        default: str | int | float | bool | None = None,
        /,
        *,
        description: str | None = None,
        type: str | None = None,
    ) -> str:
        """Declares a variable, which ``--set`` can give another value, and gives what to write for it: ``$(name)``.

        Without a default it has to be given at every run. Raises ValueError for a name that cannot be one, or is there.
        """
        _name(name, "a variable")
        block = self._part("vars")
        if name in block:
            raise ValueError(f"the variable {name} is there already")
        given = {"default": default, "description": description, "type": type}
        made = {key: plain(value, f"{key} of {name}") for key, value in given.items() if value is not None}
        if isinstance(made.get("default"), dict | list):
            raise TypeError(f"a variable is a single value, not {default!r}")
        if not made:
            raise ValueError(f"{name} is given nothing; give a default, or a description of what to give")
        block[name] = made["default"] if set(made) == {"default"} else made
        return f"$({name})"

    def include(self, *paths: str | PurePath) -> None:
        """Takes other graph files as layers beneath this one; paths are relative to this graph's."""
        for path in paths:
            if not isinstance(path, str | PurePath):
                raise TypeError(f"include() takes paths of graph files, not {path!r}")
            file = path.as_posix() if isinstance(path, PurePath) else path
            self._tree["include"] = _joined(self._tree.get("include"), file)

    def input(self, name: str, *ports: GraphPort | GraphNode | str) -> None:
        """Exports inputs of nodes under a name, as an input of this graph where another one uses it."""
        self._export("inputs", name, ports)

    def output(self, name: str, port: GraphPort | GraphNode | str) -> None:
        """Exports an output of a node under a name, as an output of this graph where another one uses it."""
        self._export("outputs", name, (port,))

    def _export(self, part: str, name: str, ports: Sequence[Any]) -> None:
        _name(name, "a port")
        if not ports:
            raise ValueError(f"{name} stands for no port; name at least one, such as scale['video']")
        for port in ports:
            if not isinstance(port, GraphNode | GraphPort | str):
                raise TypeError(f"{name} takes a port of a node, such as scale['video'], not {port!r}")
        made = [self._reference(port) for port in ports]
        block = self._part(part)
        if name in block:
            raise ValueError(f"{name} is among the {part} already")
        block[name] = made[0] if len(made) == 1 else made

    def serve(
        self,
        listen: str | None = None,
        api: bool | None = None,
        token: str | None = None,
        tls: str | Mapping[str, str] | None = None,
        **more: Setting,
    ) -> None:
        """Says where viewers are served: ``listen`` is HOST:PORT.

        ``tls`` is ``auto``, ``off`` or the files ``{"cert": FILE, "key": FILE}``; where other machines reach the
        address it has to be given. ``api`` serves the control API there too, for whoever has the ``token``
        (``$(env:NAME)``).
        """
        self._options("serve", {"listen": listen, "tls": tls, "api": api, "token": token, **more})

    def log(self, level: str | None = None, format: str | None = None, **more: Setting) -> None:
        """Says what is logged (``debug``, ``info``, ``warning``, ``error``) and how (``text``, ``json``)."""
        self._options("log", {"level": level, "format": format, **more})

    def place(self, worker: str, *nodes: GraphNode | str, address: str | None = None) -> None:
        """Places nodes on a worker, another machine that runs a part of the graph, at HOST:PORT."""
        _name(worker, "a worker")
        for node in nodes:
            if not isinstance(node, GraphNode | str):
                raise TypeError(f"place() takes nodes, not {node!r}")
        given = {"nodes": [self._reference(node) for node in nodes] or None, "address": address}
        block = self._part("placement")
        block[worker] = {key: value for key, value in given.items() if value is not None}

    def _options(self, part: str, given: Mapping[str, Any]) -> None:
        made = {_key(key, part): plain(value, key) for key, value in given.items() if value is not None}
        self._part(part).update(made)

    def _part(self, key: str) -> Tree:
        part = self._tree.setdefault(key, {})
        if not isinstance(part, dict):
            raise ValueError(f"{key} of this graph is {scalar(part, is_flow=False)}, which nothing can be added to")
        return part

    # --- text and plan ----------------------------------------------------------------------------------------------

    def to_yaml(self) -> str:
        """The text of a graph file that says this. `from_yaml` reads the same graph from it."""
        return text_of(self._tree)

    @classmethod
    def from_yaml(cls, source: str | Path) -> Graph:
        """The graph of a text, or of the file at a Path. Comments are not kept, and aliases are written out.

        Raises GraphError when it cannot be read as a graph file, OSError when the file cannot be read.
        """
        if isinstance(source, Path):
            with source.open("rb") as file:
                content, path = file.read(MAX_BYTES + 1), str(source)
        elif isinstance(source, str):
            content, path = source.encode("utf-8", "surrogatepass"), "graph.yaml"
        else:
            raise TypeError(f"from_yaml() takes the text of a graph, or the Path of a file, not {source!r}")
        findings = Findings()
        root = load(path, content, findings)
        for span, said in _misshapen(root, path) if not findings.has_errors else ():
            is_path = isinstance(root, Scalar) and isinstance(source, str)
            findings.add("FS111", span, said, "give a file as a Path: from_yaml(Path(...))" if is_path else None)
        if findings.has_errors:
            raise GraphError(findings.sorted())
        assert isinstance(root, Map)
        graph = cls(path)
        graph._tree = {"flowstream": 1} | {key: _read(each.value) for key, each in root.entries.items()}
        return graph

    def plan(
        self,
        *,
        registry: Registry | None = None,
        environ: Mapping[str, str] | None = None,
        wallclock: datetime | None = None,
        sets: Mapping[str, str] | None = None,
        read: Callable[[str], bytes] | None = None,
    ) -> Plan:
        """The plan of the graph: checked, resolved and ordered, the same as its text would give.

        ``registry`` has the node types; those that are installed unless given. ``environ`` answers ``$(env:NAME)``,
        ``wallclock`` is when the run began, for ``$(date)`` and ``$(time)``; neither is taken from the machine.
        ``sets`` gives variables another value. ``read`` gives the bytes of a file that the graph includes or uses; it
        reads from disk unless given.

        Raises GraphError with every finding, its places in the text of `to_yaml`; ValueError when a wallclock is
        needed.
        """
        text = self.to_yaml().encode()

        def content(path: str) -> bytes:
            found = text if path == self.path else (read or _from_disk)(path)
            if wallclock is None and _RUN_TIME.search(found):
                raise ValueError(f"{path} says $(date) or $(time); give plan() the wallclock= at which the run began")
            return found

        return compile_graph(
            self.path,
            read=content,
            environ=environ or {},
            registry=registry or Registry.installed(),
            wallclock=wallclock or datetime.min,
            sets=sets,
        )

    def __eq__(self, other: object) -> bool:
        return self._tree == other._tree if isinstance(other, Graph) else NotImplemented

    def __repr__(self) -> str:
        return f"<graph of {len(self._nodes)} node{'' if len(self._nodes) == 1 else 's'}>"


def _from_disk(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _slug(name: str) -> str:
    """The id that a name makes; empty when it makes none."""
    made = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-")
    return made if _ID.fullmatch(made) else ""


def _meant(close: str | None) -> str:
    return f"; did you mean {close}?" if close else ""


def _joined(there: Any, more: Any) -> Any:
    """One value, or the list of several."""
    if there is None:
        return more
    return [*there, more] if isinstance(there, list) else [there, more]


def _names(given: Mapping[str, Any], settings: Mapping[str, Any] | None, words: Sequence[str] = ()) -> dict[str, Any]:
    """Settings, and those of the language's own words that are allowed, by the names that a graph has for them."""
    if settings is not None and not isinstance(settings, Mapping):
        raise TypeError(f"settings= takes a map of settings, not {settings!r}")
    made: dict[str, Any] = {}
    for name, value in [*given.items(), *(settings or {}).items()]:
        word = name
        if name in given and name.endswith("_") and keyword.iskeyword(name[:-1]):
            word = name[:-1]
        _key(word, "settings")
        if word in RESERVED and (word not in words or name not in given):
            way_out = f"; it is {_PARAMETERS[word]}" if word in _PARAMETERS else ""
            raise TypeError(f"{word} is a word of the graph language and no setting{way_out}")
        if word in made:
            raise TypeError(f"{word} is given twice")
        made[word] = value
    return made


def _name(name: Any, of: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{of} is named by text, not {name!r}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of {of}: lower case letters, digits, - and _, a letter first")
    return name


def _key(key: Any, of: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"keys of {of} are text, not {key!r}")
    if len(key) > _MAX_KEY:
        raise ValueError(f"keys of {of} have at most {_MAX_KEY} characters, not {len(key):,}")
    return _sound(key, of)


def _sound(text: str, name: str) -> str:
    """Text that a file can hold. Raises ValueError."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name}: {text!r} has half a character (a lone surrogate), which no file can hold") from None
    return str.__str__(text)  # of a member of an enumeration, its value


def plain(value: Any, name: str, depth: int = 0) -> Any:
    """A setting as the plain values of YAML, copied. Raises TypeError or ValueError."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"{name} is nested more than {_MAX_DEPTH} levels deep")
    match value:
        case bool():
            return value
        case str():
            return _sound(value, name)
        case PurePath():
            return _sound(str(value), name)
        case timedelta():
            return format_duration(_ns(value))
        case Size():
            return str(value)
        case Fraction():
            return format_aspect(value)
        case int():
            if not isinstance(plain_value(str(int(value))), int):
                raise ValueError(f"{name}: {value} has more than 18 digits, which a graph does not take")
            return int(value)
        case float():
            if not math.isfinite(value) or not isinstance(plain_value(decimal(float(value))), float):
                raise ValueError(f"{name}: {value!r} has no form in plain decimals, which a graph takes")
            return float(value)
        case Mapping():
            return {
                _key(key, name): plain(each, f"{name}.{key}", depth + 1)
                for key, each in value.items()
                if each is not None
            }
        case list() | tuple():
            return [plain(each, f"{name}[{index}]", depth + 1) for index, each in enumerate(value)]
    if isinstance(value, GraphNode | GraphPort | GraphEdge):
        raise TypeError(f"{name} takes a value, not {value!r}; nodes are given to from_= or inputs=")
    raise TypeError(f"{name}: {value!r} cannot stand in a graph; text, numbers, true and false, lists and maps can")


def _count(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} takes a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} takes more than 0, not {value}")
    return value


def _quantity(value: Any, name: str, write: Callable[[int], str]) -> str:
    return _sound(value, name) if isinstance(value, str) else write(_count(value, name))


def _ns(value: timedelta) -> int:
    if value < timedelta():
        raise ValueError(f"a duration is not negative, as {value!r} is")
    return value // timedelta(microseconds=1) * 1000


def _misshapen(root: Value | None, path: str) -> Iterator[tuple[Span, str]]:
    """What keeps a file from being a graph that can be added to, each with its place."""
    if not isinstance(root, Map):
        said = "the file is empty" if root is None else f"a graph is a map with nodes:, not {spoken(root)}"
        yield (root.span if root else Span(path, 1, 1)), said
        return
    nodes = root.get("nodes")
    if nodes is not None and not isinstance(nodes, Map):
        yield nodes.span, f"nodes takes a map (each node by its id), not {spoken(nodes)}"
    for entry in nodes.entries.values() if isinstance(nodes, Map) else ():
        is_removed = isinstance(entry.value, Scalar) and entry.value.value is None
        if not isinstance(entry.value, Map) and not is_removed:
            yield entry.value.span, f"a node is a map of its settings, not {spoken(entry.value)}"


def _read(value: Value) -> Any:
    """A value of a file as it is kept: numbers and switches that are written in a way of their own keep it."""
    if isinstance(value, Map):
        return {key: _read(entry.value) for key, entry in value.entries.items()}
    if isinstance(value, List):
        return [_read(item) for item in value.items]
    is_usual = isinstance(value.value, str) or scalar(value.value, is_flow=False) == value.text
    return value.value if is_usual or value.value is None else Written(value.text)
