"""A plan: the graph checked, resolved and ordered, as immutable values that the runtime carries out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flowstream.errors import Diagnostic, Place
from flowstream.graph.negotiate import Carried, Cost
from flowstream.node.base import Node
from flowstream.node.config import Config
from flowstream.proto.hosts import is_loopback
from flowstream.proto.overflow import Limit, Overflow

RestartOn = Literal["peer", "any", "end"]


@dataclass(frozen=True, slots=True)
class Restart:
    """When a node is started anew, and how soon.

    ``on``: ``peer`` after the other side failed it, ``any`` after every failure, ``end`` also when it ended. Waits
    double from ``first_ns`` to ``max_ns``, and begin anew after the node ran that long. After ``limit`` failures (None:
    no limit) the node stays failed: in a row, or within ``window_ns`` if that is set, however well it ran in between.
    """

    on: RestartOn = "peer"
    first_ns: int = 1_000_000_000
    max_ns: int = 30_000_000_000
    limit: int | None = None
    window_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """One output to one input. Named by its consumer's port; ``index`` counts the edges of a ``many`` input.

    ``carried`` is what travels on it, as far as that is known before the start.
    """

    consumer: str
    input: str
    producer: str
    output: str
    overflow: Overflow
    limit: Limit
    index: int = 0
    feedback: bool = False
    place: Place | None = field(default=None, compare=False)
    carried: Carried | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """``consumer.input``, with the index where the input takes many."""
        return f"{self.consumer}.{self.input}" + (f"[{self.index}]" if self.index else "")

    @property
    def key(self) -> tuple[str, str, int]:
        """What identifies the edge across plans: its consumer's port."""
        return (self.consumer, self.input, self.index)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a converter is for: a node that the plan puts on an edge whose two sides could not meet without it.

    ``edge`` is the name of the edge (``view.video``), ``does`` says what it does ("decode", "pixel format bgr24"),
    ``cost`` how much processor time that takes. It is ``certain`` when both sides are known to differ; otherwise it
    passes on what fits already.
    """

    edge: str
    does: str
    cost: Cost
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """A subgraph in the plan: its nodes are those whose id begins with its own and a slash."""

    id: str
    file: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """One node: what it is, how it is configured and what becomes of it when it fails.

    ``implementation`` is a digest of the node type's source; it differs when a type under development was edited.
    ``was`` is the id it had before it was renamed. ``written`` gives, for each config value that holds a secret, its
    dotted path and what the file says in its place (``$(env:NAME)``): the secret itself is never shown. ``opened`` is,
    in the plan of a running graph, the configuration that the instance was opened with, before any live change;
    ``ready_in_ns`` is how long that took, and ``holds`` whether it holds something that a successor would get.
    ``conversion`` is set for converters only, whose ids are ``EDGE~KIND`` (``view.video~decode``). ``replayed`` says
    from what, of a node in whose place a recording is played.
    """

    id: str
    type_id: str
    node_type: type[Node[Any]]
    config: Config
    label: str = ""
    restart: Restart | None = None
    implementation: str = ""
    place: Place | None = field(default=None, compare=False)
    was: str = field(default="", compare=False)
    written: Mapping[str, str] = field(default_factory=dict, compare=False)
    opened: Config | None = field(default=None, compare=False, repr=False)
    ready_in_ns: int | None = field(default=None, compare=False, repr=False)
    holds: bool = field(default=False, compare=False, repr=False)
    conversion: Conversion | None = field(default=None, compare=False)
    replayed: str = field(default="", compare=False)

    @property
    def group(self) -> str:
        """The id of the subgraph that the node stands in; empty at the top."""
        return self.id.rpartition("/")[0]

    def shown_config(self) -> dict[str, Any]:
        """The configuration as JSON values, quantities as people write them, secrets as the file writes them."""
        dumped = self.config.model_dump(mode="json", fallback=str)
        return {key: _masked(value, key, self.written) for key, value in dumped.items()}


def _masked(value: Any, path: str, written: Mapping[str, str]) -> Any:
    if path in written:
        return written[path]
    if isinstance(value, dict):
        return {key: _masked(item, f"{path}.{key}", written) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, f"{path}.{index}", written) for index, item in enumerate(value)]
    return value


@dataclass(frozen=True, slots=True)
class Log:
    """How the graph logs; None leaves it to the command line."""

    level: Literal["debug", "info", "warning", "error"] | None = None
    format: Literal["text", "json"] | None = None


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A certificate, with those that vouch for it, and its key: PEM files, from the working directory."""

    cert: str
    key: str


Tls = Literal["auto", "off"] | CertificateFiles
"""``auto`` makes a certificate of its own, ``off`` serves in the clear on purpose."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Where the graph serves viewers: host and port (0: any free one).

    ``api`` serves the control API there too, for whoever has the ``token``; without one each run makes its own. Without
    ``tls`` it serves in the clear, and this machine alone.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api: bool = False
    token: str | None = field(default=None, repr=False)
    tls: Tls | None = None

    @property
    def is_encrypted(self) -> bool:
        """Whether it is served over TLS."""
        return self.tls not in (None, "off")

    @property
    def is_exposed(self) -> bool:
        """Whether other machines reach it, and nobody has said how it is to be protected."""
        return self.tls is None and not is_loopback(self.host)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port


@dataclass(frozen=True, slots=True)
class Override:
    """A value that one setting of one node was given while the graph runs.

    ``field`` is its dotted path, ``text`` the value as YAML (``null``: back to the default). ``beneath`` is a digest of
    what the files say there, empty while that is not known; ``written`` is what they say, as it may be shown, empty
    when they say nothing.
    """

    node: str
    field: str
    text: str
    beneath: str = ""
    written: str = ""

    @property
    def target(self) -> str:
        """NODE.FIELD."""
        return f"{self.node}.{self.field}"

    @property
    def path(self) -> tuple[str, ...]:
        """The steps from the node to the setting."""
        return tuple(self.field.split("."))

    def __str__(self) -> str:
        """What the value differs from: ``encode.bitrate is 600k (the file says 2.5M)``."""
        said = f"the file says {self.written}" if self.written else "the file does not say"
        return f"{self.target} is {self.text} ({said})"


@dataclass(frozen=True, slots=True)
class Plan:
    """Nodes in topological order along media edges, and the edges between them.

    ``files`` are the paths the plan was made from, in the order they were read; ``content`` is a digest of what they
    hold, ``revision`` one of that and of the values that were given while the graph runs (``overrides``). ``warnings``
    are findings that do not keep the graph from running. ``groups`` are its subgraphs by id. ``left_out`` are nodes
    that would only work for others which are replayed.
    """

    name: str
    nodes: Mapping[str, PlannedNode]
    edges: tuple[Edge, ...]
    serve: Serve | None = None
    is_live: bool = False
    log: Log | None = None
    files: tuple[str, ...] = field(default=(), compare=False)
    revision: str = field(default="", compare=False)
    warnings: tuple[Diagnostic, ...] = field(default=(), compare=False)
    groups: Mapping[str, Group] = field(default_factory=dict, compare=False)
    content: str = field(default="", compare=False)
    overrides: tuple[Override, ...] = field(default=(), compare=False)
    left_out: tuple[str, ...] = field(default=(), compare=False)

    def inputs_of(self, node: str) -> tuple[Edge, ...]:
        """The edges into a node."""
        return tuple(edge for edge in self.edges if edge.consumer == node)

    def outputs_of(self, node: str) -> tuple[Edge, ...]:
        """The edges out of a node."""
        return tuple(edge for edge in self.edges if edge.producer == node)
