"""Names to node types and ports: which output each edge takes, and what it carries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flowstream.errors import PackError
from flowstream.graph.diagnostics import Findings, did_you_mean, listed
from flowstream.graph.negotiate import Carried, carried_by, meet
from flowstream.graph.spec import EdgeSpec, GraphSpec, NodeSpec, shown
from flowstream.media.caps import CapsConflict
from flowstream.node.base import Node
from flowstream.node.ports import Input, Output
from flowstream.node.registry import Registry, UnknownType, missing_needs

CONVERTERS: Mapping[tuple[str, str], str] = {
    ("VideoFrame", "EncodedPacket"): "put an encoder between them, such as type: hw-encode",
    ("AudioFrame", "EncodedPacket"): "put an encoder between them, such as type: opus-encode",
    ("EncodedPacket", "VideoFrame"): "put a decoder between them: type: decode",
    ("EncodedPacket", "AudioFrame"): "put a decoder between them: type: decode",
}


@dataclass(slots=True)
class ResolvedEdge:
    """An edge with its ports. ``carried`` is None when what it carries could not be found out."""

    spec: EdgeSpec
    input: Input[Any]
    output: Output[Any]
    carried: Carried | None


class Resolver:
    """Looks up the types and ports of a graph's enabled nodes; every failure is among the findings."""

    def __init__(self, spec: GraphSpec, registry: Registry, findings: Findings) -> None:
        self.spec = spec
        self.findings = findings
        self.registry = registry
        self.types: dict[str, type[Node[Any]]] = {}
        self.edges: list[ResolvedEdge] = []
        self._carried: dict[tuple[str, str], Carried | None] = {}

    def nodes(self) -> None:
        """Finds the node type of every enabled node."""
        for node in self.spec.nodes.values():
            if node.enabled and node.type is not None and (found := self._type(node)) is not None:
                self.types[node.id] = found

    def _type(self, node: NodeSpec) -> type[Node[Any]] | None:
        assert node.type is not None
        span = node.type.span
        try:
            found = self.registry.get(str(node.type.value))
        except UnknownType as error:
            said = f"no pack has a node type {shown(node.type)}" if "/" not in str(node.type.value) else error.message
            self.findings.add("FS203", span, said, error.hint)
            return None
        except PackError as error:
            self.findings.add("FS204", span, error.message, error.hint)
            return None
        if missing := missing_needs(found):
            self.findings.add(
                "FS205", span, f"{found.type_id} needs {listed([need.module for need in missing])}, which is not "
                "installed", f"pip install {' '.join(need.install for need in missing)}",
            )  # fmt: skip
        return found

    def resolve(self, order: Iterable[str]) -> None:
        """Finds the ports of every edge, node by node in topological order, so that what comes in is known."""
        for id_ in order:
            node = self.spec.nodes[id_]
            mine = [found for edge in node.edges if (found := self._resolve(edge)) is not None]
            self.edges.extend(mine)
            for output in self.types[id_].outputs.values() if id_ in self.types else ():
                self._carried[id_, output.name] = self._gives(output, mine, bool(node.edges))

    @staticmethod
    def _gives(output: Output[Any], edges: list[ResolvedEdge], is_fed: bool) -> Carried | None:
        """What an output gives in this graph: for one that is ``like`` an input, what comes in there."""
        declared = carried_by(output)
        if output.like is None:
            return declared
        for edge in edges:
            if edge.input.name == output.like.name:
                return edge.carried.narrowed(declared) if edge.carried else None
        return None if is_fed and len(declared.payloads) > 1 else declared

    def _resolve(self, edge: EdgeSpec) -> ResolvedEdge | None:
        producer = self.spec.nodes.get(edge.producer)
        if producer is None:
            close = did_you_mean(edge.producer, (n for n in self.spec.nodes if n != edge.consumer))
            self.findings.add("FS301", edge.span, f"there is no node {edge.producer}",
                              f"did you mean {close}?" if close else f"there are {listed(self.spec.nodes)}"
                              if 0 < len(self.spec.nodes) <= 12 else None)  # fmt: skip
            return None
        if not producer.enabled:
            self.findings.add("FS310", edge.span, f"{edge.consumer} takes from {edge.producer}, which is disabled",
                              f"enable {edge.producer}, or disable {edge.consumer} too",
                              [(producer.span, f"{edge.producer} has enabled: false")])  # fmt: skip
            return None
        consumer_type = self.types.get(edge.consumer)
        input_ = self._named_input(edge, consumer_type) if consumer_type and edge.input is not None else None
        producer_type = self.types.get(edge.producer)
        if consumer_type is None or producer_type is None or (edge.input is not None and input_ is None):
            return None
        outputs = self._outputs(edge, producer_type)
        if not outputs:
            return None
        inputs = [input_] if input_ is not None else self._from_inputs(edge, consumer_type)
        if not inputs:
            return None
        return self._match(edge, inputs, outputs)

    def _named_input(self, edge: EdgeSpec, consumer: type[Node[Any]]) -> Input[Any] | None:
        assert edge.input is not None
        found = consumer.inputs.get(edge.input)
        if found is None:
            close = did_you_mean(edge.input, consumer.inputs)
            said = f"it takes {listed(consumer.inputs)}" if consumer.inputs else f"{consumer.type_id} takes no inputs"
            self.findings.add(
                "FS303", edge.input_span, f"{named(edge.consumer, consumer)} has no input {edge.input}",
                f"did you mean {close}?" if close else said,
            )  # fmt: skip
        return found

    def _outputs(self, edge: EdgeSpec, producer: type[Node[Any]]) -> list[Output[Any]]:
        if edge.output is None:
            if not producer.outputs:
                self.findings.add("FS302", edge.span, f"{named(edge.producer, producer)} has no outputs",
                                  "take from a node that gives something")  # fmt: skip
            return list(producer.outputs.values())
        found = producer.outputs.get(edge.output)
        if found is None:
            close = did_you_mean(edge.output, producer.outputs)
            said = f"it has {listed(producer.outputs)}" if producer.outputs else "it has none"
            self.findings.add("FS302", edge.span, f"{named(edge.producer, producer)} has no output {edge.output}",
                              f"did you mean {edge.producer}.{close}?" if close else said)  # fmt: skip
            return []
        return [found]

    def _from_inputs(self, edge: EdgeSpec, consumer: type[Node[Any]]) -> list[Input[Any]]:
        """The inputs that ``from:`` can mean: those for media, or all where there are no others."""
        media = [port for port in consumer.inputs.values() if not port.feedback]
        found = media or list(consumer.inputs.values())
        if not found:
            self.findings.add("FS303", edge.input_span, f"{named(edge.consumer, consumer)} takes no inputs",
                              "take from: out, or use another node type")  # fmt: skip
        return found

    def _match(self, edge: EdgeSpec, inputs: list[Input[Any]], outputs: list[Output[Any]]) -> ResolvedEdge | None:
        pairs: list[tuple[Input[Any], Output[Any], Carried | None]] = []
        conflict: tuple[Input[Any], Output[Any], CapsConflict] | None = None
        for output in outputs:
            carried = self.carried(edge.producer, output)
            for port in inputs:
                try:
                    met = meet(carried, port)
                except CapsConflict as error:
                    conflict = conflict or (port, output, error)
                    continue
                if met is not None or carried is None:
                    pairs.append((port, output, met))
        if not pairs:
            self._mismatch(edge, inputs, outputs, conflict)
            return None
        fitting = {port.name: port for port, _, _ in pairs}
        if len(fitting) > 1:
            required = [port for port in fitting.values() if not port.optional]
            if len(required) != 1:
                self.findings.add(
                    "FS311", edge.span, f"{edge.producer} fits several inputs of {edge.consumer}: "
                    f"{listed(fitting)}", f"name it: inputs: {{{next(iter(fitting))}: {edge.producer}}}",
                )  # fmt: skip
                return None
            pairs = [each for each in pairs if each[0] is required[0]]
        if len(pairs) > 1 and (main := [each for each in pairs if each[1].main]):
            pairs = main
        if len(pairs) > 1:
            names = [f"{edge.producer}.{output.name}" for _, output, _ in pairs]
            self.findings.add(
                "FS304", edge.span, f"{edge.producer} has several outputs that {edge.consumer}.{pairs[0][0].name} "
                f"takes: {listed(names)}", f"write the one that is meant, such as {names[0]}",
            )  # fmt: skip
            return None
        port, output, met = pairs[0]
        return ResolvedEdge(edge, port, output, met)

    def _mismatch(
        self,
        edge: EdgeSpec,
        inputs: list[Input[Any]],
        outputs: list[Output[Any]],
        conflict: tuple[Input[Any], Output[Any], CapsConflict] | None,
    ) -> None:
        producer = self.spec.nodes[edge.producer]
        related = [(producer.span, f"{edge.producer} is here")] if producer.span.line != edge.span.line else []
        if conflict is not None:
            port, output, error = conflict
            offered, accepted = (listed(_words(each), "or") for each in (error.offered, error.accepted))
            self.findings.add(
                "FS306", edge.span, f"{edge.consumer}.{port.name} takes {error.field} {accepted}, but "
                f"{edge.producer}.{output.name} gives {offered}", "put a node between them that converts it, or take "
                "another output", related,
            )  # fmt: skip
            return
        takes = listed([payload_names(port.payloads) for port in inputs[:1]])
        name = f"{edge.consumer}.{inputs[0].name}" if len(inputs) == 1 else edge.consumer
        if len(inputs) > 1:
            takes = listed(list(dict.fromkeys(payload_names(port.payloads) for port in inputs)), "or")
        gives = [f"{edge.producer}.{output.name} gives {self._given(edge.producer, output)}" for output in outputs]
        hint = None
        for output in outputs:
            carried = self.carried(edge.producer, output)
            for gave in carried.payloads if carried else ():
                for port in inputs:
                    for took in port.payloads:
                        hint = hint or CONVERTERS.get((gave.__name__, took.__name__))
        self.findings.add("FS305", edge.span, f"{name} takes {takes}, but {listed(gives)}", hint, related)

    def _given(self, node: str, output: Output[Any]) -> str:
        carried = self.carried(node, output)
        return payload_names(carried.payloads) if carried else payload_names(output.payloads)

    def carried(self, node: str, output: Output[Any]) -> Carried | None:
        """What an output gives; as declared while its node has not been resolved. None when that is unknown."""
        return self._carried.get((node, output.name), carried_by(output))


def _words(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, tuple) else [str(value)]


def named(id_: str, node_type: type[Node[Any]]) -> str:
    """A node with its type, where the id does not tell it."""
    return id_ if id_ == node_type.type_id else f"{id_} ({node_type.type_id})"


def payload_names(payloads: tuple[type[Any], ...]) -> str:
    """Payload classes as people name them."""
    return listed(["anything" if each is object else each.__name__ for each in payloads], "or")
