"""Payload classes that nodes share: whether those that stay still know what those that are replaced give them."""

from __future__ import annotations

import itertools
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flowstream.graph.patch import Change, Patch
from flowstream.graph.plan import Plan
from flowstream.node.base import Node
from flowstream.node.folder import PREFIX, file_of


@dataclass(frozen=True, slots=True)
class Stranger:
    """A payload class that a kept node shares with one that would come back with another class of the same name."""

    kept: Change
    replaced: Change
    known: type[Any]
    other: type[Any]

    @property
    def message(self) -> str:
        """What is wrong: class, files, both nodes."""
        kept, replaced, name = self.kept.new, self.replaced.new, self.known.__qualname__
        assert kept is not None
        assert replaced is not None
        return (
            f"{replaced.id} ({replaced.type_id}) is to be replaced and would go by the {name} of {_file(self.other)}, "
            f"but {kept.id} ({kept.type_id}) stays and goes by the {name} of {_file(self.known)}: two classes of one "
            "name, and what is of one is not of the other"
        )

    @property
    def hint(self) -> str:
        """The way out."""
        kept = self.kept.new
        assert kept is not None
        stem, name = file_of(self.other.__module__).removesuffix(".py"), self.known.__qualname__
        return (
            f"import the same one in {_file(kept.node_type)} (from .{stem} import {name}), so that both are replaced, "
            "or give one of the two another name"
        )


def strangers(patch: Patch, plan: Plan) -> Iterator[Stranger]:
    """The payload classes over which a kept node and a replaced one, between which something flows, would part.

    Only those of packs under development are looked at: no others change while a graph runs.
    """
    kept = [(each, known) for each in patch.changes if _stays(each) and (known := _payloads(each))]
    if not kept:
        return
    for change in patch.changes:
        if change.action != "replace" or change.old is None or change.new is None:
            continue
        before, now = payload_classes_of(change.old.node_type), payload_classes_of(change.new.node_type)
        lost = {name: cls for name, cls in before.items() if name in now and now[name] is not cls}
        if not lost:
            continue
        near = _reached(change.node, plan)
        for other, known in kept:
            for name, cls in lost.items():
                if other.node in near and known.get(name) is cls:
                    yield Stranger(other, change, cls, now[name])


def payload_classes_of(node_type: type[Node[Any]]) -> Mapping[str, type[Any]]:
    """The payload classes of packs under development that a node type names in its ports and handlers, by name."""
    found: dict[str, type[Any]] = {}
    declared = [port.declared for port in node_type.inputs.values()]
    declared += [port.declared for port in node_type.outputs.values()]
    for each in itertools.chain(*declared):
        found.update(_classes(each))
    for method in {*node_type.handlers.values(), "capture", "process", "consume"}:
        try:
            hints = typing.get_type_hints(getattr(node_type, method, None))
        except (NameError, TypeError):  # an annotation that exists for type checkers only, or no function
            continue
        for hint in hints.values():
            found.update(_classes(hint))
    return found


def _stays(change: Change) -> bool:
    return change.action in ("keep", "update", "rewire")


def _payloads(change: Change) -> Mapping[str, type[Any]]:
    return payload_classes_of(change.new.node_type) if change.new is not None else {}


def _classes(hint: Any) -> Iterator[tuple[str, type[Any]]]:
    if isinstance(hint, type) and hint.__module__.startswith(PREFIX):
        yield hint.__qualname__, hint
    for argument in typing.get_args(hint):
        yield from _classes(argument)


def _reached(node: str, plan: Plan) -> set[str]:
    """The nodes that get something from a node, or that it gets something from, directly or through others."""
    found = set()
    for step in (plan.outputs_of, plan.inputs_of):
        waiting = [node]
        while waiting:
            for edge in step(waiting.pop()):
                each = edge.consumer if step == plan.outputs_of else edge.producer
                if each not in found:
                    found.add(each)
                    waiting.append(each)
    return found


def _file(cls: type[Any]) -> str:
    return file_of(cls.__module__)
