"""Graphs as nodes: the graph of a file in the place of each node that uses it, under ids that begin with the node's.

A subgraph has a namespace of its own: what its file says refers to its own nodes, by their own ids. Its ``inputs:`` and
``outputs:`` are what the graph around it sees; ``vars:`` are its parameters, which the node that uses it gives as its
settings. Restart policy, ``enabled``, ``convert`` and ``placement`` of that node hold for all nodes in it that do not
say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from flowstream.graph.diagnostics import Findings, Span, listed
from flowstream.graph.load import MAX_VALUES, List, Map, Scalar, spoken, weight_of, with_value
from flowstream.graph.sources import Sources, beside, loop_to
from flowstream.graph.spec import (
    MAX_EDGES,
    MAX_NODES,
    EdgeSpec,
    Export,
    GraphSpec,
    GroupSpec,
    NodeSpec,
    Reference,
    build,
)
from flowstream.graph.variables import Surroundings, Use, Variables

MAX_USES = 1_000
MAX_DEPTH = 16
_OF_THE_RUN = ("serve", "log", "placement")


class Expansion:
    """Makes one graph of a tree and of everything that its nodes use."""

    def __init__(
        self, sources: Sources, surroundings: Surroundings, findings: Findings, *, is_part: bool = False
    ) -> None:
        self._is_part = is_part
        self._sources = sources
        self._surroundings = surroundings
        self._findings = findings
        self._uses = self._nodes = self._values = self._edges = 0
        self._variables: list[tuple[Variables, tuple[str, ...]]] = []

    def whole(self, tree: Map, paths: tuple[str, ...], sets: Mapping[str, str]) -> tuple[GraphSpec, Map]:
        """The graph of the files that are run, and their tree with the variables put in."""
        variables = Variables(self._findings, self._surroundings, sets=sets, may_lack=self._is_part)
        substituted = self._substituted(tree, variables, paths)
        variables.check_sets()
        spec = build(substituted, self._findings)
        self._nodes += len(spec.nodes)
        self._edges += sum(len(node.edges) for node in spec.nodes.values())
        return self._expanded(spec, "", paths), substituted

    def check_use(self) -> None:
        """Warns of variables that nothing uses."""
        for variables, files in self._variables:
            variables.check_use(files)

    def _substituted(self, tree: Map, variables: Variables, files: tuple[str, ...]) -> Map:
        self._variables.append((variables, files))
        block = tree.get("vars")
        if isinstance(block, Scalar | List):
            self._findings.add("FS111", block.span, f"vars takes a map of names and values, not {spoken(block)}")
        variables.declare(block if isinstance(block, Map) else Map(tree.span))
        rest = Map(tree.span, {key: entry for key, entry in tree.entries.items() if key != "vars"})
        substituted = variables.substitute(rest)
        variables.check_types()
        assert isinstance(substituted, Map)
        return substituted

    def _expanded(self, spec: GraphSpec, prefix: str, files: tuple[str, ...]) -> GraphSpec:
        """The same graph with subgraphs in the places of the nodes that use them; ``files`` are those it stands in."""
        result = replace(spec, nodes={}, groups={})
        uses = {node.id: node for node in spec.nodes.values() if node.use is not None}
        for node in spec.nodes.values():
            inner = None
            if (owner := _owner(node.id, uses)) is not None:
                self._findings.add(
                    "FS213", node.span, f"{node.id} would stand in {owner.id}, where only the nodes of its file do",
                    "give one of them another id", [(owner.span, f"{owner.id} is here")],
                )  # fmt: skip
                node.type, node.broken = None, True
            elif node.use is not None:
                inner = self._used(node, prefix, files)
                node.broken |= inner is None
            if inner is not None:
                self._insert(node, *inner, result)
            else:
                result.nodes.setdefault(node.id, node)  # also a broken one: what takes from it is not reported too
        return result

    def _used(self, node: NodeSpec, prefix: str, files: tuple[str, ...]) -> tuple[str, GraphSpec] | None:
        """The file that a node uses, and its graph, with ids as the file writes them."""
        assert node.use is not None
        span = node.use.span
        path = beside(span.file, str(node.use.value))
        if (loop := loop_to(path, files)) is not None:
            said = f"{path} uses itself" if len(loop) == 1 else f"graphs use one another: {' -> '.join((*loop, path))}"
            self._findings.add("FS131", span, said, "take one of these uses out")
            return None
        self._uses += 1
        if self._uses > MAX_USES or len(files) > MAX_DEPTH:
            self._findings.add("FS109", span, f"graphs are used {MAX_USES:,} times and {MAX_DEPTH} levels deep at most")
            return None
        tree = self._sources.subgraph(path, span)
        if tree is None:
            return None
        self._values += weight_of(tree)
        if self._values > MAX_VALUES:
            self._findings.add("FS109", span, f"subgraphs have at most {MAX_VALUES:,} values, counted at every use")
            return None
        self._findings.about = f"{prefix}{node.id}"
        self._findings.used_by(path, f"{prefix}{node.id}", node.span)
        for key in _OF_THE_RUN:
            if key in tree.entries:
                self._findings.add(
                    "FS135", tree.entries[key].key.span, f"{key} says nothing in a graph that is used as a node; it "
                    "belongs into the graph that is run", "take it out here",
                )  # fmt: skip
        use = Use(node.id, node.span, path, dict(node.settings.entries))
        inner = self._substituted(tree, Variables(self._findings, self._surroundings, use=use), (path,))
        spec = build(inner, self._findings)
        self._nodes += len(spec.nodes)
        self._edges += sum(len(node.edges) for node in spec.nodes.values())
        if self._nodes > MAX_NODES:
            self._findings.add("FS109", span, f"a graph has at most {MAX_NODES:,} nodes, those of subgraphs included")
            return None
        return path, self._expanded(spec, f"{prefix}{node.id}/", (*files, path))

    def _insert(self, node: NodeSpec, file: str, inner: GraphSpec, into: GraphSpec) -> None:
        """Puts a subgraph's nodes into the graph around it, under their full ids."""
        prefix = f"{node.id}/"
        was = f"{node.id if node.was is None else node.was.value}/"
        group = GroupSpec(node, file, _moved(inner.inputs, prefix), _moved(inner.outputs, prefix))
        into.groups[node.id] = group
        for id_, nested in inner.groups.items():
            self._rename(nested.node, prefix, was, node)
            into.groups[prefix + id_] = GroupSpec(
                nested.node, nested.file, _moved(nested.inputs, prefix), _moved(nested.outputs, prefix)
            )
        for each in inner.nodes.values():
            self._rename(each, prefix, was, node)
            self._inherit(each, node)
            into.nodes[each.id] = each
        for edge in node.edges:
            self._distribute(edge, group, into)

    @staticmethod
    def _inherit(each: NodeSpec, group: NodeSpec) -> None:
        """What is said of a subgraph holds for each node in it that does not say otherwise."""
        for key in ("restart", "convert", "placement"):
            if key in group.entries:
                each.entries.setdefault(key, group.entries[key])
        if not group.enabled:
            each.entries["enabled"] = group.entries["enabled"]
        each.restart = each.restart or group.restart
        each.enabled &= group.enabled
        each.converts = group.converts if each.converts is None else each.converts
        each.placement = each.placement or group.placement

    @staticmethod
    def _rename(each: NodeSpec, prefix: str, was: str, group: NodeSpec) -> None:
        """Gives a node its id in the graph around its own, and the same to what it was called before."""
        if each.was is not None and not str(each.was.value).startswith("/"):
            each.was = with_value(each.was, was + str(each.was.value))
        elif each.was is None and group.was is not None:
            each.was = with_value(group.was, was + each.id)
        each.id = prefix + each.id
        for edge in each.edges:
            edge.consumer = prefix + edge.consumer
            edge.producer = prefix + edge.producer
            edge.scope = prefix + edge.scope

    def _distribute(self, edge: EdgeSpec, group: GroupSpec, into: GraphSpec) -> None:
        """An edge into a subgraph, as edges into what its input stands for inside."""
        if edge.input is None and len(group.inputs) == 1:
            export = next(iter(group.inputs.values()))
        elif edge.input is None:
            names = listed(group.inputs)
            said = f"{group.node.id} has several inputs: {names}" if names else f"{group.node.id} takes no inputs"
            first = next(iter(group.inputs), "")
            hint = f"name it: inputs: {{{first}: {edge.producer}}}" if names else f"{group.file} has no inputs:"
            self._findings.add("FS311" if names else "FS303", edge.input_span, said, hint)
            return
        else:
            found = group.inputs.get(edge.input)
            if found is None:
                close = self._findings.guess(edge.input, group.inputs)
                known = f"it takes {listed(group.inputs)}" if group.inputs else f"{group.file} has no inputs:"
                said = f"{group.node.id} ({group.file}) has no input {edge.input}"
                self._findings.add("FS303", edge.input_span, said, f"did you mean {close}?" if close else known)
                return
            export = found
        targets = [each for each in into.entrances(export.targets) if each.node in into.nodes]
        self._edges += len(targets)
        if self._edges > MAX_EDGES:
            said = f"a graph has at most {MAX_EDGES:,} edges, those of subgraphs included"
            self._findings.add("FS109", edge.span, said)
            return
        for target in targets:
            copied = replace(edge, consumer=target.node, input=target.port, is_through_export=True)
            into.nodes[target.node].edges.append(copied)


def _owner(id_: str, uses: Mapping[str, NodeSpec]) -> NodeSpec | None:
    """The one of these nodes that an id says it stands in."""
    while id_ := id_.rpartition("/")[0]:
        if id_ in uses:
            return uses[id_]
    return None


def _moved(exports: dict[str, Export], prefix: str) -> dict[str, Export]:
    return {
        name: Export(name, export.span, [Reference(prefix + t.node, t.port, t.span) for t in export.targets])
        for name, export in exports.items()
    }


def span_of(spec: GraphSpec, id_: str) -> Span | None:
    """Where a node or a subgraph stands."""
    if id_ in spec.nodes:
        return spec.nodes[id_].span
    return spec.groups[id_].node.span if id_ in spec.groups else None
