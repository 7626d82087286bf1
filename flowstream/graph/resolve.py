"""Names to node types and ports: which output each edge takes, and what it carries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flowstream.errors import PackError
from flowstream.graph.diagnostics import Findings, listed
from flowstream.graph.negotiate import Carried, Step, carried_by, conversion, meet
from flowstream.graph.spec import EdgeSpec, GraphSpec, Leaf, NodeSpec, shown
from flowstream.media.caps import Caps, CapsConflict
from flowstream.media.records import Record
from flowstream.node.base import Need, Node
from flowstream.node.config import Config
from flowstream.node.folder import file_of
from flowstream.node.ports import Input, Output
from flowstream.node.registry import Registry, UnknownType, cause_of, missing_needs

CONVERTERS: Mapping[tuple[str, str], str] = {
    ("VideoFrame", "EncodedPacket"): "put an encoder between them, such as type: hw-encode",
    ("AudioFrame", "EncodedPacket"): "put an encoder between them, such as type: opus-encode",
    ("EncodedPacket", "VideoFrame"): "put a decoder between them: type: decode",
    ("EncodedPacket", "AudioFrame"): "put a decoder between them: type: decode",
}


@dataclass(slots=True)
class ResolvedEdge:
    """An edge with its ports. ``carried`` is None when what it carries could not be found out.

    ``producer`` is the node itself, also where the graph names a subgraph. ``steps`` are the converters on the edge.
    """

    spec: EdgeSpec
    input: Input[Any]
    producer: str
    output: Output[Any]
    carried: Carried | None
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class _Offer:
    """An output that an edge may mean. ``said`` is how the graph calls it."""

    node: str
    output: Output[Any]
    said: str
    carried: Carried | None


@dataclass(frozen=True, slots=True)
class _Fit:
    """How what is carried and an input meet: what comes in, or why it cannot; the converters that would mend it.

    There may be converters also where both fit as far as is known.
    """

    met: Carried | None
    conflict: CapsConflict | None
    steps: tuple[Step, ...]


class Resolver:
    """Looks up the types and ports of a graph's enabled nodes; every failure is among the findings."""

    def __init__(self, spec: GraphSpec, registry: Registry, findings: Findings) -> None:
        self.spec = spec
        self.findings = findings
        self.registry = registry
        self.types: dict[str, type[Node[Any]]] = {}
        self.edges: list[ResolvedEdge] = []
        self._carried: dict[tuple[str, str], Carried | None] = {}
        self._fits: dict[tuple[Carried | None, Input[Any]], _Fit] = {}
        self._missing: dict[type[Node[Any]], tuple[Need, ...]] = {}

    def nodes(self, known: Mapping[str, type[Node[Any]]]) -> None:
        """Finds the node type of every enabled node, but for those of which it is ``known``."""
        for node in self.spec.nodes.values():
            if node.enabled and node.type is not None:
                found = known.get(node.id) or self._type(node)
                if found is not None:
                    self.types[node.id] = found

    def _type(self, node: NodeSpec) -> type[Node[Any]] | None:
        assert node.type is not None
        span = node.type.span
        self.findings.about = node.id
        try:
            found = self.registry.get(str(node.type.value))
        except UnknownType as error:
            said = f"no pack has a node type {shown(node.type)}" if "/" not in str(node.type.value) else error.message
            self.findings.add("FS203", span, said, error.hint)
            return None
        except PackError as error:
            self.findings.add("FS204", span, error.message, error.hint)
            return None
        if missing := self._needs(found):
            self.findings.add(
                "FS205", span, f"{found.type_id} needs {listed([need.module for need in missing])}, which is not "
                "installed", f"pip install {' '.join(need.install for need in missing)}",
            )  # fmt: skip
        return found

    def _needs(self, node_type: type[Node[Any]]) -> tuple[Need, ...]:
        """The libraries that a node type lacks; each type is looked at once."""
        if node_type not in self._missing:
            self._missing[node_type] = missing_needs(node_type)
        return self._missing[node_type]

    def resolve(self, order: Iterable[str], configs: Mapping[str, Config]) -> None:
        """Finds the ports of every edge, node by node in topological order, so that what comes in is known."""
        for id_ in order:
            node = self.spec.nodes[id_]
            self.findings.about = id_
            mine = [found for edge in node.edges if (found := self._resolve(edge)) is not None]
            self.edges.extend(mine)
            node_type = self.types.get(id_)
            if node_type is None or not node_type.outputs:
                continue
            known = self._negotiated(node, node_type, configs.get(id_), mine)
            for output in node_type.outputs.values():
                gives = self._gives(output, mine, bool(node.edges))
                self._carried[id_, output.name] = gives.known(known.get(output.name)) if gives else None

    def _negotiated(
        self, node: NodeSpec, node_type: type[Node[Any]], config: Config | None, edges: list[ResolvedEdge]
    ) -> Mapping[str, Caps]:
        """What a node's outputs give, as far as its configuration and its inputs tell."""
        if config is None or node_type.negotiate.__func__ is Node.negotiate.__func__:  # type: ignore[attr-defined]
            return {}
        incoming = {}
        for edge in edges:
            carried = edge.steps[-1].gives if edge.steps else edge.carried
            if carried is not None and carried.caps is not None:
                incoming[edge.input.name] = carried.caps
        try:
            return node_type.negotiate(config, incoming)
        except Exception as error:  # noqa: BLE001 - a pack's mistake, which is said as such
            assert node.type is not None
            self.findings.add("FS204", node.type.span, f"{named(node.id, node_type)} cannot say what it gives: "
                              f"{cause_of(error)}", "that is a mistake in the node type")  # fmt: skip
            return {}

    @staticmethod
    def _gives(output: Output[Any], edges: list[ResolvedEdge], is_fed: bool) -> Carried | None:
        """What an output gives in this graph: for one that is ``like`` an input, what comes in there."""
        declared = carried_by(output)
        if output.like is None:
            return declared
        for edge in edges:
            if edge.input.name == output.like.name:
                came = edge.steps[-1].gives if edge.steps else edge.carried
                return came.narrowed(declared) if came else None
        return None if is_fed and len(declared.payloads) > 1 else declared

    def _resolve(self, edge: EdgeSpec) -> ResolvedEdge | None:
        leaves = self._leaves(edge)
        consumer_type = self.types.get(edge.consumer)
        input_ = self._named_input(edge, consumer_type) if consumer_type and edge.input is not None else None
        if not leaves or consumer_type is None or (edge.input is not None and input_ is None):
            return None
        by_output: dict[tuple[str, str], _Offer] = {}  # what is exported under two names is one output
        for leaf in leaves:
            for offer in self._offers(edge, leaf):
                by_output.setdefault((offer.node, offer.output.name), offer)
        offers = list(by_output.values())
        if not offers:
            return None
        inputs = [input_] if input_ is not None else self._from_inputs(edge, consumer_type)
        if not inputs:
            return None
        return self._match(edge, inputs, offers)

    def _leaves(self, edge: EdgeSpec) -> list[Leaf]:
        """The enabled nodes that an edge may take from; none when there is nothing to take, which is said."""
        if edge.producer in self.spec.groups:
            group = self.spec.groups[edge.producer]
            if edge.output is not None and edge.output not in group.outputs:
                close = self.findings.guess(edge.output, group.outputs)
                name = edge.producer.removeprefix(edge.scope)
                known = f"it has {listed(group.outputs)}" if group.outputs else f"{group.file} has no outputs:"
                self.findings.add("FS302", edge.span, f"{name} ({group.file}) has no output {edge.output}",
                                  f"did you mean {name}.{close}?" if close else known)  # fmt: skip
                return []
            if not group.outputs:
                name = edge.producer.removeprefix(edge.scope)
                self.findings.add("FS302", edge.span, f"{name} ({group.file}) has no outputs",
                                  f"name some in {group.file}: outputs: {{NAME: NODE.OUTPUT}}")  # fmt: skip
                return []
        elif edge.producer not in self.spec.nodes:
            self._unknown_node(edge)
            return []
        leaves = self.spec.leaves(edge.producer, edge.output)
        enabled = [leaf for leaf in leaves if self.spec.nodes[leaf.node].enabled]
        if leaves and not enabled:
            off = self._switched_off(leaves[0].node)
            takes = f"takes from {off.id}" if off.id == edge.producer else f"takes {leaves[0].said} from {off.id}"
            self.findings.add("FS310", edge.span, f"{edge.consumer} {takes}, which is disabled",
                              f"enable {off.id}, or disable {edge.consumer} too",
                              [(off.span, f"{off.id} has enabled: false")])  # fmt: skip
        return enabled

    def _switched_off(self, id_: str) -> NodeSpec:
        """The node with ``enabled: false`` that keeps a node from running: itself, or a subgraph that it stands in."""
        off, owner = self.spec.nodes[id_], id_
        while owner := owner.rpartition("/")[0]:
            if owner in self.spec.groups and not self.spec.groups[owner].node.enabled:
                off = self.spec.groups[owner].node
        return off

    def _unknown_node(self, edge: EdgeSpec) -> None:
        name = edge.producer.removeprefix(edge.scope)
        beside = [id_.removeprefix(edge.scope) for id_ in (*self.spec.nodes, *self.spec.groups)
                  if id_.startswith(edge.scope) and id_ != edge.consumer]  # fmt: skip
        near = [id_ for id_ in beside if "/" not in id_] if "/" not in name else beside
        close = self.findings.guess(name, near)
        self.findings.add("FS301", edge.span, f"there is no node {name}",
                          f"did you mean {close}?" if close else f"there {'is' if len(near) == 1 else 'are'} "
                          f"{listed(near)}" if 0 < len(near) <= 12 else None)  # fmt: skip

    def _offers(self, edge: EdgeSpec, leaf: Leaf) -> list[_Offer]:
        node_type = self.types.get(leaf.node)
        if node_type is None:
            return []
        outputs: list[Output[Any]] = list(node_type.outputs.values())
        if leaf.output is not None:
            found = node_type.outputs.get(leaf.output)
            outputs = [found] if found is not None else []
            if found is None and edge.producer in self.spec.nodes:
                close = self.findings.guess(leaf.output, node_type.outputs)
                said = f"it has {listed(node_type.outputs)}" if node_type.outputs else "it has none"
                name = leaf.node.removeprefix(edge.scope)
                self.findings.add(
                    "FS302", edge.span, f"{named(name, node_type)} has no output {leaf.output}",
                    f"did you mean {name}.{close}?" if close else said,
                )  # fmt: skip
        elif not outputs and edge.producer in self.spec.nodes:
            self.findings.add("FS302", edge.span, f"{named(leaf.node, node_type)} has no outputs",
                              "take from a node that gives something")  # fmt: skip
        is_group = edge.producer in self.spec.groups
        return [
            _Offer(leaf.node, each, leaf.said if is_group or leaf.output else f"{leaf.said}.{each.name}",
                   self.carried(leaf.node, each))
            for each in outputs
        ]  # fmt: skip

    def _named_input(self, edge: EdgeSpec, consumer: type[Node[Any]]) -> Input[Any] | None:
        assert edge.input is not None
        found = consumer.inputs.get(edge.input)
        if found is None and not edge.is_through_export:
            close = self.findings.guess(edge.input, consumer.inputs)
            said = f"it takes {listed(consumer.inputs)}" if consumer.inputs else f"{consumer.type_id} takes no inputs"
            self.findings.add(
                "FS303", edge.input_span, f"{named(edge.consumer, consumer)} has no input {edge.input}",
                f"did you mean {close}?" if close else said,
            )  # fmt: skip
        return found

    def _from_inputs(self, edge: EdgeSpec, consumer: type[Node[Any]]) -> list[Input[Any]]:
        """The inputs that ``from:`` can mean: those for media, or all where there are no others."""
        media = [port for port in consumer.inputs.values() if not port.feedback]
        found = media or list(consumer.inputs.values())
        if not found:
            self.findings.add("FS303", edge.input_span, f"{named(edge.consumer, consumer)} takes no inputs",
                              "take from: out, or use another node type")  # fmt: skip
        return found

    def _match(self, edge: EdgeSpec, inputs: list[Input[Any]], offers: list[_Offer]) -> ResolvedEdge | None:
        pairs: list[tuple[Input[Any], _Offer]] = []
        conflict: tuple[Input[Any], _Offer, CapsConflict] | None = None
        for offer in offers:
            for port in inputs:
                fit = self._fit(offer, port)
                if fit.conflict is not None:
                    conflict = conflict or (port, offer, fit.conflict)
                elif fit.met is not None or offer.carried is None:
                    pairs.append((port, offer))
        converts = self.spec.nodes[edge.consumer].converts is not False
        convertible = [(p, o) for o in offers for p in inputs if not pairs and converts and self._fit(o, p).steps]
        if not pairs and not convertible:
            self._mismatch(edge, inputs, offers, conflict)
            return None
        chosen = self._chosen(edge, pairs or convertible)
        if chosen is None:
            return None
        port, offer = chosen
        fit = self._fit(offer, port)
        steps = fit.steps if converts else ()
        return ResolvedEdge(edge, port, offer.node, offer.output, offer.carried if steps else fit.met, steps)

    def _chosen(
        self, edge: EdgeSpec, pairs: list[tuple[Input[Any], _Offer]]
    ) -> tuple[Input[Any], _Offer] | None:  # fmt: skip
        """The one of several inputs and outputs that is meant; None, and said, when that is not clear."""
        if media := [each for each in pairs if not _gives_records(each[1])]:
            pairs = media  # a report or a statistic is meant only where no media is
        fitting = {port.name: port for port, _ in pairs}
        if len(fitting) > 1:
            required = [port for port in fitting.values() if not port.optional]
            if len(required) != 1:
                self.findings.add(
                    "FS311", edge.span, f"{edge.producer} fits several inputs of {edge.consumer}: "
                    f"{listed(fitting)}", f"name it: inputs: {{{next(iter(fitting))}: {edge.producer}}}",
                )  # fmt: skip
                return None
            pairs = [each for each in pairs if each[0] is required[0]]
        if len({offer.node for _, offer in pairs}) == 1 and (main := [each for each in pairs if each[1].output.main]):
            pairs = main
        if len(pairs) > 1:
            names = [offer.said for _, offer in pairs]
            hint = f"write the one that is meant, such as {names[0]}"
            if len(set(names)) < len(names):  # a file exports a node, and that has several
                names = [f"{offer.said} ({offer.node}.{offer.output.name})" for _, offer in pairs]
                hint = f"name one output under outputs: in {self.spec.groups[edge.producer].file}"
            self.findings.add(
                "FS304", edge.span, f"{edge.producer} has several outputs that {edge.consumer}.{pairs[0][0].name} "
                f"takes: {listed(names)}", hint,
            )  # fmt: skip
            return None
        return pairs[0]

    def _fit(self, offer: _Offer, port: Input[Any]) -> _Fit:
        """How an output and an input meet; found out once for each two kinds of them."""
        key = (offer.carried, port)
        if (known := self._fits.get(key)) is not None:
            return known
        met = conflict = None
        try:
            met = meet(offer.carried, port)
        except CapsConflict as error:
            conflict = error
        steps = () if port.feedback else conversion(offer.carried, port) or ()
        if any(self.converter(step) is None for step in steps):
            steps = ()
        self._fits[key] = _Fit(met, conflict, steps)
        return self._fits[key]

    def converter(self, step: Step) -> type[Node[Any]] | None:
        """The node type that does what a step says; None when it is not to be had here."""
        try:
            node_type = self.registry.get(step.kind)
        except PackError:
            return None
        return None if self._needs(node_type) else node_type

    def _mismatch(
        self,
        edge: EdgeSpec,
        inputs: list[Input[Any]],
        offers: list[_Offer],
        conflict: tuple[Input[Any], _Offer, CapsConflict] | None,
    ) -> None:
        producer, consumer = self.spec.nodes[offers[0].node], self.spec.nodes[edge.consumer]
        related = [(producer.span, f"{producer.id} is here")] if producer.span[:2] != edge.span[:2] else []
        if consumer.span.file != edge.span.file:
            related.append((consumer.span, f"{consumer.id} is here"))
        is_kept_off = consumer.converts is False and any(
            self._fit(offer, port).steps for offer in offers for port in inputs
        )
        never = f"take convert: never of {self._keeping_off(consumer)} out"
        if conflict is not None:
            port, offer, error = conflict
            offered, accepted = (listed(_words(each), "or") for each in (error.offered, error.accepted))
            self.findings.add(
                "FS306", edge.span, f"{edge.consumer}.{port.name} takes {error.field} {accepted}, but "
                f"{offer.said} gives {offered}", never if is_kept_off else
                "put a node between them that converts it, or take another output", related,
            )  # fmt: skip
            return
        given = {each.__name__ for offer in offers for each in self._payloads(offer)}
        twins = given & {each.__name__ for port in inputs for each in port.payloads}  # of one name, and not the same
        takes = listed([payload_names(port.payloads, twins) for port in inputs[:1]])
        name = f"{edge.consumer}.{inputs[0].name}" if len(inputs) == 1 else edge.consumer
        if len(inputs) > 1:
            takes = listed(list(dict.fromkeys(payload_names(port.payloads, twins) for port in inputs)), "or")
        gives = [f"{offer.said} gives {payload_names(self._payloads(offer), twins)}" for offer in offers]
        hint = f"{never}, or put a decoder between them" if is_kept_off else None
        if twins:
            hint = (
                f"these are two classes of one name: let both node types import {listed(sorted(twins))} from one file"
            )
        for offer in offers:
            for gave in offer.carried.payloads if offer.carried else ():
                for port in inputs:
                    for took in port.payloads:
                        hint = hint or CONVERTERS.get((gave.__name__, took.__name__))
        self.findings.add("FS305", edge.span, f"{name} takes {takes}, but {listed(gives)}", hint, related)

    def _keeping_off(self, node: NodeSpec) -> str:
        """The id of what has the ``convert: never`` that holds for a node: itself, or a subgraph that it stands in."""
        owners = (group.node for group in self.spec.groups.values() if node.id.startswith(f"{group.node.id}/"))
        said = node.entries.get("convert")
        return next((owner.id for owner in owners if owner.entries.get("convert") is said), node.id)

    @staticmethod
    def _payloads(offer: _Offer) -> tuple[type[Any], ...]:
        return offer.carried.payloads if offer.carried else offer.output.payloads

    def carried(self, node: str, output: Output[Any]) -> Carried | None:
        """What an output gives; as declared while its node has not been resolved. None when that is unknown."""
        return self._carried.get((node, output.name), carried_by(output))


def _gives_records(offer: _Offer) -> bool:
    return all(issubclass(each, Record) for each in offer.output.payloads)


def _words(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, tuple) else [str(value)]


def named(id_: str, node_type: type[Node[Any]]) -> str:
    """A node with its type, where the id does not tell it."""
    return id_ if id_ == node_type.type_id else f"{id_} ({node_type.type_id})"


def payload_names(payloads: tuple[type[Any], ...], twins: Collection[str] = ()) -> str:
    """Payload classes as people name them; those among ``twins`` with the file or module that they are of."""

    def called(each: type[Any]) -> str:
        if each is object:
            return "anything"
        where = file_of(each.__module__) or each.__module__
        return f"the {each.__name__} of {where}" if each.__name__ in twins else each.__name__

    return listed([called(each) for each in payloads], "or")
