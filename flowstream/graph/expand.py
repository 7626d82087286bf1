"""A graph written out: layers, includes, variables and subgraphs put in, and where each value came from beside it.

What depends on the run stays as it is written: the environment (secrets stand by their names), ``$(date)`` and
``$(time)``. The text is a graph file itself and makes the same plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from flowstream.errors import GraphError
from flowstream.graph.compile import Compilation
from flowstream.graph.diagnostics import Span
from flowstream.graph.load import Entry, List, Map, Scalar, Value
from flowstream.graph.resolve import ResolvedEdge
from flowstream.graph.spec import NodeSpec
from flowstream.graph.variables import escaped
from flowstream.graph.write import Written, scalar
from flowstream.node.registry import Registry

_COMMENTS_FROM = 40  # the column where comments stand, if what is before leaves room
_OPTIONS = ("overflow", "limit")
_LAST = ("convert", "restart", "placement", "enabled", "was")
_NUMBERS = frozenset({"enabled", "limit.items", "restart.limit"})  # where the language takes no text


def expand(
    path: str,
    *,
    read: Callable[[str], bytes],
    environ: Mapping[str, str],
    registry: Registry,
    wallclock: datetime,
    sets: Mapping[str, str] | None = None,
    layers: Sequence[str] = (),
) -> str:
    """The text of the whole graph; arguments as for ``compile_graph``. Raises GraphError when it cannot be run."""
    made = Compilation(
        path, read=read, environ=environ, registry=registry, wallclock=wallclock, sets=sets, layers=layers,
        as_part=True, may_lack=False,
    )  # fmt: skip
    if made.plan is None or made.spec is None or made.tree is None:
        raise GraphError(made.diagnostics, files=made.files)
    return "\n".join([*_head(path, layers), *_Writing(made).lines()]) + "\n"


def _head(path: str, layers: Sequence[str]) -> Iterator[str]:
    over = f" with {', '.join(layers)} over it" if layers else ""
    yield f"# {path}{over}, written out by `flowstream expand`. Behind # stands where a value came from."


class _Writing:
    def __init__(self, made: Compilation) -> None:
        assert made.spec is not None
        self._spec = made.spec
        self._made = made
        self._findings = made.findings
        self._edges: dict[str, list[ResolvedEdge]] = {}
        for edge in made.edges:
            self._edges.setdefault(edge.spec.consumer, []).append(edge)

    def lines(self) -> Iterator[str]:
        assert self._made.tree is not None
        yield "flowstream: 1"
        top = self._made.tree.entries
        yield from self._exports()
        for key in ("serve", "log"):
            if key in top:
                yield ""
                yield from self._entry(key, top[key], 0)
        yield from self._workers()
        yield ""
        yield "nodes:"
        for index, node in enumerate(self._spec.nodes.values()):
            if index:
                yield ""
            yield from self._node(node)

    def _exports(self) -> Iterator[str]:
        """What the file offers to graphs that use it, by the nodes and ports that there are now."""
        spec = self._spec
        for key, exports in (("inputs", spec.inputs), ("outputs", spec.outputs)):
            if exports:
                yield from ("", f"{key}:")
            for export in exports.values():
                if key == "inputs":
                    said = [_port(each.node, each.port) for each in spec.entrances(export.targets)]
                else:
                    leaves = [leaf for each in export.targets for leaf in spec.leaves(each.node, each.port)]
                    said = [_port(leaf.node, leaf.output) for leaf in leaves]
                text = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
                yield _commented(f"  {export.name}: {text}", self._place(export.span))

    def _workers(self) -> Iterator[str]:
        assert self._made.tree is not None
        block = self._made.tree.get("placement")
        if not isinstance(block, Map):
            return
        yield from ("", "placement:")
        for worker in self._spec.workers.values():
            written = block.get(worker.name)
            address = written.entries.get("address") if isinstance(written, Map) else None
            nodes = [id_ for ref in worker.nodes for id_ in self._spec.nodes
                     if id_ == ref.node or id_.startswith(f"{ref.node}/")]  # fmt: skip
            if not nodes and address is None:
                yield _commented(f"  {worker.name}: {{}}", self._place(worker.span))
                continue
            yield f"  {worker.name}:"
            if nodes:
                yield _commented(f"    nodes: [{', '.join(nodes)}]", self._place(worker.span))
            if address is not None:
                yield from self._entry("address", address, 4)

    def _node(self, node: NodeSpec) -> Iterator[str]:
        yield _commented(f"  {node.id}:", self._place(node.span))
        entries = node.entries
        for key in ("type", "label"):
            if key in entries:
                yield from self._entry(key, entries[key], 4)
        yield from self._inputs(node)
        for key, entry in node.settings.entries.items():
            yield from self._entry(key, entry, 4, self._made.read_as.get(node.id, frozenset()))
        for key in _LAST:
            if key == "was" and node.was is not None:
                name = str(node.was.value).lstrip("/")
                yield _commented(f"    was: {scalar(name, is_flow=False)}", self._place(node.was.span))
            elif key in entries and key != "was":
                yield from self._entry(key, entries[key], 4)

    def _inputs(self, node: NodeSpec) -> Iterator[str]:
        by_input: dict[str, list[ResolvedEdge]] = {}
        for edge in self._edges.get(node.id, ()):
            by_input.setdefault(edge.input.name, []).append(edge)
        if not node.enabled:
            yield from self._disabled_inputs(node)
        if not by_input:
            return
        yield "    inputs:"
        for name, edges in by_input.items():
            if len(edges) == 1:
                yield from self._edge(f"      {name}:", edges[0], 8)
                continue
            yield f"      {name}:"
            for edge in edges:
                yield from self._edge("        -", edge, 10)

    def _disabled_inputs(self, node: NodeSpec) -> Iterator[str]:
        """Where a disabled node would take from: nobody has found out which ports are meant."""
        by_input: dict[str, list[str]] = {}
        for edge in node.edges:
            leaves = self._spec.leaves(edge.producer, edge.output)
            said = _port(leaves[0].node, leaves[0].output) if leaves else _port(edge.producer, edge.output)
            by_input.setdefault(edge.input or "", []).append(said)
        if by_input and "" not in by_input:
            yield "    inputs:"
        for name, outputs in by_input.items():
            text = outputs[0] if len(outputs) == 1 else f"[{', '.join(outputs)}]"
            yield f"      {name}: {text}" if "" not in by_input else f"    from: {text}"

    def _edge(self, head: str, edge: ResolvedEdge, indent: int) -> Iterator[str]:
        said = f"{edge.producer}.{edge.output.name}"
        place = self._place(edge.spec.span)
        options = edge.spec.options
        if options is None:
            yield _commented(f"{head} {said}", place)
            return
        lines = [_commented(f"{' ' * indent}output: {said}", place)]
        for key in _OPTIONS:
            if key in options.entries:
                lines += self._entry(key, options.entries[key], indent)
        if head.endswith("-"):
            lines[0] = f"{head} {lines[0].lstrip()}"
        else:
            yield head
        yield from lines

    def _entry(
        self, key: str, entry: Entry, indent: int, numbers: frozenset[str] = _NUMBERS, path: str = ""
    ) -> Iterator[str]:
        head = f"{' ' * indent}{scalar(key, is_flow=True)}:"
        path = f"{path}.{key}" if path else key
        yield from self._value(head, entry.value, indent + 2, numbers, path)

    def _value(self, head: str, value: Value, indent: int, numbers: frozenset[str], path: str) -> Iterator[str]:
        if isinstance(value, Scalar):
            yield _commented(f"{head} {self._scalar(value, path in numbers)}", self._origin(value))
        elif isinstance(value, Map):
            if not value.entries:
                yield _commented(f"{head} {{}}", self._place(value.span))
                return
            lines = [
                line for key, entry in value.entries.items() for line in self._entry(key, entry, indent, numbers, path)
            ]
            if head.endswith("-"):
                yield f"{head} {lines[0].lstrip()}"
                yield from lines[1:]
            else:
                yield head
                yield from lines
        else:
            yield from self._list(head, value, indent, numbers, path)

    def _list(self, head: str, value: List, indent: int, numbers: frozenset[str], path: str) -> Iterator[str]:
        if not value.items:
            yield _commented(f"{head} []", self._place(value.span))
            return
        if head.endswith("-"):  # a list in a list: on one line, which is how people write those
            inner = ", ".join(
                self._scalar(each, f"{path}.{i}" in numbers) if isinstance(each, Scalar) else "[]"
                for i, each in enumerate(value.items)
            )
            yield _commented(f"{head} [{inner}]", self._place(value.span))
            return
        yield head
        for index, each in enumerate(value.items):
            yield from self._value(f"{' ' * indent}-", each, indent + 2, numbers, f"{path}.{index}")

    @staticmethod
    def _scalar(value: Scalar, is_number: bool) -> str:
        if value.template is not None and (value.secret or isinstance(value.value, str)):
            text = value.template
        elif isinstance(value.value, str):
            text = escaped(value.value)
        else:
            # As it is written: 1.10 stays 1.10.
            return scalar(value.value if value.template or not value.plain else Written(value.text), is_flow=False)
        return text if is_number and not value.secret else scalar(text, is_flow=True)

    def _origin(self, value: Scalar) -> str:
        place = self._place(value.span)
        if value.origin is None:
            return place
        if value.loose and not value.secret:
            line = self._findings.line(value.origin)
            name = line[value.origin.column - 1 :][: value.origin.length]
            return f"{place}, --set {name}"
        return f"{place}, {self._place(value.origin)}"

    @staticmethod
    def _place(span: Span) -> str:
        return f"{span.file}:{span.line}"


def _port(node: str, port: str | None) -> str:
    return f"{node}.{port}" if port else node


def _commented(text: str, comment: str) -> str:
    return f"{text.ljust(_COMMENTS_FROM)}  # {comment}"
