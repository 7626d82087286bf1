"""What the plan says of nodes that stay when other formats come in to them."""

from typing import Any

import pytest

from flowstream import EncodedCaps, EncodedPacket, Input, Output, Sink, Source
from flowstream.graph import Edge, Plan, PlannedNode, compile_graph, describe, diff
from flowstream.graph.described import patch_to_json
from flowstream.graph.negotiate import Carried
from flowstream.node.registry import Pack, Registry
from flowstream.proto.overflow import Limit
from tests.graph.compiling import BEGAN

BUILT_IN = Registry([Pack("flowstream", "flowstream", module="flowstream_nodes")])
GRAPH = """
serve: {listen: "127.0.0.1:0"}
nodes:
  pattern: {type: test-pattern, size: 640x360}
  tone: {type: tone}
  encode: {type: hw-encode, from: pattern, bitrate: 1M}
  spare: {type: hw-encode, from: pattern, bitrate: 1M}
  voice: {type: opus-encode, from: tone}
  out: {type: webrtc-out, inputs: {video: encode, audio: voice}}
  tape: {type: recorder, inputs: {video: encode, audio: voice}, path: x.mp4}
  film: {type: recorder, from: spare, path: y.mp4}
"""


def compiled(text: str) -> Plan:
    return compile_graph("graph.yaml", read=lambda _: text.encode(), environ={}, registry=BUILT_IN, wallclock=BEGAN)


def reactions(old: str, new: str) -> dict[str, str]:
    """What saving the graph with a text replaced would have nodes do that stay."""
    assert old in GRAPH
    found = diff(compiled(GRAPH), compiled(GRAPH.replace(old, new)))
    told = {each["node"]: each["reaction"] for each in patch_to_json(found)["changes"]}
    lines = {line.split()[0]: line for line in describe(found)}
    assert all(said in lines[node] for node, said in told.items() if said)
    return {node: said for node, said in told.items() if said}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("bitrate: 1M", "bitrate: 2M", {}),
        ("size: 640x360}", "size: 640x360, fps: 25}", {}),
        ("640x360", "1280x720", {"tape": "will begin a new file", "film": "will begin a new file"}),
        ("encode: {type: hw-encode,", "encode: {type: hw-encode, threads: 2,", {"tape": "may begin a new file"}),
        ("tape: {type: recorder, inputs: {video: encode", "tape: {type: recorder, inputs: {video: spare",
         {"tape": "may begin a new file"}),
        ("voice: {type: opus-encode, from: tone}",
         "other: {type: opus-encode, from: tone}\n  voice: {type: fault, from: other}",
         {"tape": "may begin a new file"}),
        ("tape: {type: recorder,", "more: {type: discard, from: encode}\n  tape: {type: recorder,", {}),
    ],
    ids=["in place", "no format", "another size", "another encoder", "from elsewhere", "other sound", "beside it"],
)  # fmt: skip
def test_a_recorder_begins_a_new_file_and_a_page_follows(old: str, new: str, said: dict[str, str]) -> None:
    assert reactions(old, new) == said


class Gives(Source, type="test/gives"):
    """Gives packets."""

    out = Output(EncodedPacket)

    async def run(self, ctx: Any) -> None:
        """Gives none."""


class Silent(Sink, type="test/silent"):
    """Follows another size, and says nothing of the rest."""

    packets = Input(EncodedPacket, follows={"size"})

    def consume(self, packet: EncodedPacket) -> None:
        """Takes it."""


@pytest.mark.parametrize(
    ("caps", "said"),
    [
        ({"width": 1280, "height": 720}, ""),
        ({"codec": "h265"}, "does not say that it follows another codec"),
        ({"codec": "h265", "profile": "main"}, "does not say that it follows another codec and profile"),
        ({"width": None}, ""),
    ],
)
def test_what_an_input_does_not_follow_is_told_when_it_is_certain(caps: dict[str, Any], said: str) -> None:
    def planned(**more: Any) -> Plan:
        carried = EncodedCaps(**{"codec": "h264", "width": 640, "height": 360, "profile": "high", **more})
        nodes = {
            "a": PlannedNode("a", "test/gives", Gives, Gives.config_class()),
            "b": PlannedNode("b", "test/silent", Silent, Silent.config_class()),
        }
        edge = Edge("b", "packets", "a", "out", "block", Limit(4), carried=Carried((EncodedPacket,), carried))
        return Plan("test", nodes, (edge,))

    assert diff(planned(), planned(**caps)).of("b").reaction == said
