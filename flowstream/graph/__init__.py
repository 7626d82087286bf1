"""Pure: everything between the text of a graph and an immutable plan, and between two plans and a patch."""

from flowstream.graph.compile import Examined, compile_graph, examine
from flowstream.graph.described import describe, describe_plan
from flowstream.graph.diff import apply, diff
from flowstream.graph.patch import Change, EdgeChange, Patch
from flowstream.graph.plan import Edge, Log, Plan, PlannedNode, Restart, Serve

__all__ = [
    "Change",
    "Edge",
    "EdgeChange",
    "Examined",
    "Log",
    "Patch",
    "Plan",
    "PlannedNode",
    "Restart",
    "Serve",
    "apply",
    "compile_graph",
    "describe",
    "describe_plan",
    "diff",
    "examine",
]
