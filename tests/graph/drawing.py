"""Plans put together by hand, for the tests of pictures."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from flowstream import AudioFrame, EncodedCaps, EncodedPacket, Node, Record, VideoCaps, VideoFrame
from flowstream.graph.negotiate import Carried
from flowstream.graph.plan import Conversion, Cost, Edge, Group, Plan, PlannedNode
from flowstream.node.config import Config
from flowstream.proto.overflow import Limit
from tests.graph import pack

PICTURES = Carried((VideoFrame,), VideoCaps(format="yuv420p", width=1280, height=720, fps=30))
H264 = Carried((EncodedPacket,), EncodedCaps(codec="h264"))
OPUS = Carried((EncodedPacket,), EncodedCaps(codec="opus"))
SOUND = Carried((AudioFrame,))
RECORDS = Carried((Record,))


def planned(id_: str, node_type: type[Node[Any]], label: str = "", type_id: str = "") -> PlannedNode:
    """A node that nobody will run."""
    return PlannedNode(id_, type_id or node_type.__name__.lower(), node_type, Config(), label)


def converter(id_: str, does: str, cost: Cost, *, certain: bool = True) -> PlannedNode:
    """A converter on the edge that its id names."""
    return replace(planned(id_, pack.Pass), conversion=Conversion(id_.partition("~")[0], does, cost, certain))


def edge(producer: str, consumer: str, carried: Carried | None = None, *, feedback: bool = False) -> Edge:
    """An edge between ``node:port`` and ``node:port``."""
    (source, _, output), (target, _, taken) = producer.partition(":"), consumer.partition(":")
    return Edge(target, taken, source, output, "block", Limit(4), feedback=feedback, carried=carried)


def plan(nodes: Iterable[PlannedNode], edges: Iterable[Edge], *groups: Group, name: str = "graph") -> Plan:
    """All that as a plan."""
    return Plan(name, {node.id: node for node in nodes}, tuple(edges), groups={group.id: group for group in groups})


STUDIO = plan(
    [
        planned("camera", pack.Pattern),
        planned("studio/clean", pack.Blur),
        planned("studio/ladder/high", pack.Encode),
        planned("studio/ladder/low", pack.Encode, label="For phones"),
        planned("out", pack.Show),
        planned("abr", pack.Abr),
        planned("tape", pack.Tape),
    ],
    [
        edge("camera:video", "studio/clean:frames", PICTURES),
        edge("studio/clean:blurred", "studio/ladder/high:video", PICTURES),
        edge("studio/clean:blurred", "studio/ladder/low:video"),
        edge("studio/ladder/high:packets", "out:video", H264),
        edge("studio/ladder/low:packets", "tape:video"),
        edge("out:reports", "abr:reports", RECORDS, feedback=True),
        edge("abr:targets", "studio/ladder/high:targets", RECORDS, feedback=True),
    ],
    Group("studio", "lib/studio.yaml", "The studio"),
    Group("studio/ladder", "lib/ladder.yaml"),
    Group("unused", "lib/unused.yaml"),
)
"""Two subgraphs, one in the other, and a loop of feedback through them."""

CONVERTED = plan(
    [
        planned("film", pack.Film),
        converter("view.video~decode", "decode", "high"),
        converter("view.video~format", "pixel format bgr24", "medium", certain=False),
        planned("view", pack.Drop),
    ],
    [
        edge("film:video", "view.video~decode:anything", H264),
        edge("view.video~decode:same", "view.video~format:anything", PICTURES),
        edge("view.video~format:same", "view:anything"),
    ],
)
"""Two converters, of which the second may have nothing to do."""
