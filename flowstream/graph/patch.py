"""What a reload must do to each node and edge, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flowstream.graph.plan import Edge, Log, PlannedNode, Serve

Action = Literal["keep", "update", "rewire", "replace", "add", "remove"]

INTERRUPTED = "interrupted until the next keyframe"
EFFECTS: Mapping[Action, str] = {
    "keep": "kept",
    "update": "changed in place",
    "rewire": "rewired",
    "replace": "replaced",
    "add": "added",
    "remove": "removed",
}


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one node.

    ``node`` is its id in the new plan (in the old one for ``remove``); ``was`` its old id when it was renamed.
    ``causes`` say why, one per line; ``fields`` are the dotted paths of settings that changed. An update without fields
    is one of label, restart policy or id only: the node itself is not told. A rewired node may have live settings that
    changed too. ``effect`` says what people notice, ``felt_by`` names the nodes at the end whose viewers, files or
    windows notice it, and ``at_most_ns`` for how long, where that is known: until the next keyframe, for which the
    encoder is asked at once. ``breaks`` are the running nodes, by their ids there, that have to end before this one can
    open (``break-before-make``), and ``gap_ns`` about how long that takes. ``reaction`` is what a node that stays does
    because what comes in to it changes (``will begin a new file``).
    """

    node: str
    action: Action
    causes: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    effect: str = ""
    was: str = ""
    old: PlannedNode | None = None
    new: PlannedNode | None = None
    felt_by: tuple[str, ...] = ()
    at_most_ns: int | None = None
    breaks: tuple[str, ...] = ()
    gap_ns: int | None = None
    reaction: str = ""


@dataclass(frozen=True, slots=True)
class EdgeChange:
    """What becomes of one edge. ``changed``: same consumer port, other producer, policy or limit."""

    kind: Literal["added", "removed", "changed"]
    old: Edge | None = None
    new: Edge | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """The edge's key in the new plan; in the old one when it was removed."""
        edge = self.new or self.old
        assert edge is not None
        return edge.key


@dataclass(frozen=True, slots=True)
class Patch:
    """What leads from one plan to another: every node in the new plan's order, then those that leave.

    ``edges`` holds only those that changed; their keys are the new plan's, where a renamed node has its new id.
    """

    changes: tuple[Change, ...]
    edges: tuple[EdgeChange, ...]
    name: str
    serve: Serve | None
    log: Log | None
    is_live: bool
    old_serve: Serve | None = None
    old_log: Log | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all changes."""
        is_same = self.serve == self.old_serve and self.log == self.old_log
        return is_same and not self.edges and all(each.action == "keep" for each in self.changes)

    def of(self, node: str) -> Change:
        """The change of a node. Raises KeyError when it is in neither plan."""
        for each in self.changes:
            if each.node == node:
                return each
        raise KeyError(node)

    @property
    def renamed(self) -> Mapping[str, str]:
        """Old id to new id of the nodes that were renamed."""
        return {each.was: each.node for each in self.changes if each.was}
