"""A node tells the edges of an input apart that takes many, and asks one of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowstream import Context, EncodedPacket, Input, KeyframeRequest, Node, Origin
from flowstream.graph.plan import PlannedNode
from flowstream.proto.overflow import Limit
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Event
from flowstream.testing import Harness, make_packet
from flowstream.testing.clock import VirtualClock
from tests.runtime.parts import plan, run

pytestmark = pytest.mark.usefixtures("backend")


class Mixer(Node, type="acme/mixer"):
    """Takes packets of many, and asks the second one for a keyframe once."""

    packets = Input(EncodedPacket, many=True)

    def open(self) -> None:
        self.seen: list[tuple[Origin, bytes, bool]] = []
        self.known: tuple[Origin, ...] = ()

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        async for origin, packet in ctx.each(self.packets):
            self.known = ctx.origins(self.packets)
            self.seen.append((origin, packet.data, packet.keyframe))
            if len(self.seen) == 10:
                ctx.request(self.packets, KeyframeRequest("the second"), index=1)


def test_each_payload_says_by_which_edge_it_came_and_one_can_be_asked() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        made = plan(
            {
                "count": ("test/counter", {"count": 60}),
                "left": ("test/encode", {"name": "l", "interval": 1000}),
                "right": ("test/encode", {"name": "r", "interval": 1000}),
            },
            {"left.numbers": "count.out", "right.numbers": "count.out"},
        )
        (edge, _) = made.edges
        into = replace(edge, consumer="mixer", input="packets", output="packets", limit=Limit(4))
        mixer = PlannedNode("mixer", "acme/mixer", Mixer, Mixer.config_class())
        edges = (*made.edges, replace(into, producer="left"), replace(into, producer="right", index=1))
        await engine.start(replace(made, nodes={**made.nodes, "mixer": mixer}, edges=edges))
        node = engine.runners["mixer"].node
        assert isinstance(node, Mixer)
        await engine.wait()
        left, right = Origin("packets", 0, "left"), Origin("packets", 1, "right")
        assert node.known == (left, right)
        assert {(origin, data[:1]) for origin, data, _ in node.seen} == {(left, b"l"), (right, b"r")}
        keyframes = {origin.node: sum(key for each, _, key in node.seen if each == origin) for origin in (left, right)}
        assert keyframes == {"left": 1, "right": 2}

    run(main)


def test_the_harness_has_edges_too() -> None:
    with Harness(Mixer, connected=["packets"]) as harness:
        node = harness.node
        assert isinstance(node, Mixer)
        assert harness.ctx.origins(node.packets) == (Origin("packets", 0, "packets-0"),)
        for index in (1, 0):
            harness.push(make_packet(), index=index)
        assert [origin.index for origin, _, _ in node.seen] == [1, 0]
        assert [origin.node for origin in node.known] == ["packets-0", "packets-1"]
