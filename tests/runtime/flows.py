"""Node types that keep the flow of pictures, lose it, hold it up or lock each other."""

from collections.abc import Iterator
from typing import Any

import anyio

from flowstream import (
    Config,
    Context,
    Emit,
    EncodedCaps,
    EncodedPacket,
    Input,
    Node,
    Output,
    PeerError,
    Sink,
    Source,
    Transform,
    field,
)
from flowstream.graph.plan import Edge, Plan, PlannedNode, Restart
from flowstream.proto.overflow import Limit, Overflow

CAPS = EncodedCaps(codec="h264", width=64, height=64)


class PicturesConfig(Config):
    pause_at: int = field(default=-1, description="Picture before which to pause.")
    pause: int = field(default=3600, description="For how long, in seconds.")
    fail_after: int = field(default=-1, description="After how many pictures to fail.")
    each_us: int = field(default=20_000, ge=1, description="Microseconds between two.")
    slow_us: int = field(default=20_000, ge=1, description="The same after a pause.")
    count: int = field(default=0, description="How many to make; 0 never ends.")


class Pictures(Source[PicturesConfig], type="test/pictures"):
    """A packet of 100 bytes each so often, captured 3 ms before it is given."""

    is_live = True
    out = Output(EncodedPacket)

    async def run(self, ctx: Context) -> None:
        made, next_ns, each_us = 0, ctx.now_ns(), self.config.each_us
        while not self.config.count or made < self.config.count:
            if made == self.config.fail_after:
                raise PeerError("the X server closed the connection")
            if made == self.config.pause_at:
                next_ns += self.config.pause * 1_000_000_000
                each_us = self.config.slow_us
            await ctx.sleep_until_ns(next_ns)
            packet = EncodedPacket(CAPS, bytes(100), ctx.media_ns(), capture_ns=ctx.now_ns() - 3_000_000)
            await ctx.emit(self.out(packet))
            made += 1
            next_ns += each_us * 1000


class Relay(Transform, type="test/relay"):
    """Passes on."""

    video = Input(EncodedPacket)
    out = Output(EncodedPacket)

    def process(self, packet: EncodedPacket) -> Iterator[Emit[EncodedPacket]]:
        yield self.out(packet)


class ThreadRelay(Relay, type="test/thread-relay"):
    """Passes on, on a thread of its own."""

    thread = True


class HalfConfig(Config):
    keep: int = field(default=100, description="How many to pass on before giving nothing any more.")


class Half(Transform[HalfConfig], type="test/half"):
    """Passes on for a while, then takes and gives nothing."""

    video = Input(EncodedPacket)
    out = Output(EncodedPacket)
    passed = 0

    def process(self, packet: EncodedPacket) -> Iterator[Emit[EncodedPacket]]:
        self.passed += 1
        if self.passed <= self.config.keep:
            yield self.out(packet)


class TakerConfig(Config):
    stall_at: int = field(default=-1, description="Which payload to stall on.")
    stall: int = field(default=3600, description="For how long, in seconds.")
    each_ms: int = field(default=0, description="How long each payload takes.")


class Taker(Sink[TakerConfig], type="test/taker"):
    """Takes, slowly or not any more if told so."""

    video = Input(EncodedPacket)
    taken = 0

    async def consume(self, packet: EncodedPacket) -> None:
        self.taken += 1
        if self.taken == self.config.stall_at:
            await anyio.sleep(self.config.stall)
        if self.config.each_ms:
            await anyio.sleep(self.config.each_ms / 1e3)


class JoinConfig(Config):
    ahead: int = field(default=1, description="How many of the left to take before each of the right.")


class Join(Node[JoinConfig], type="test/join"):
    """Takes from the left and from the right in turn."""

    left = Input(EncodedPacket)
    right = Input(EncodedPacket)

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        while True:
            for _ in range(self.config.ahead):
                await ctx.receive(self.right)
            await ctx.receive(self.left)


TYPES: dict[str, type[Any]] = {each.type_id: each for each in (Pictures, Relay, ThreadRelay, Half, Taker, Join)}


def flow(
    nodes: dict[str, tuple[Any, ...]],
    edges: dict[str, str],
    *,
    block: tuple[str, ...] = (),
    overflow: Overflow = "drop-oldest",
    items: int = 4,
    is_live: bool = True,
) -> Plan:
    """A plan: ``{"out": ("test/taker", {...}, restart)}``, ``{"out.video": "screen.out"}``; those in ``block`` wait."""
    planned = {
        id: PlannedNode(id, type_id, TYPES[type_id], TYPES[type_id].config_class(**config), restart=(*more, None)[0])
        for id, (type_id, config, *more) in nodes.items()
    }
    wired = []
    for to, of in edges.items():
        (consumer, input), (producer, output) = to.split("."), of.split(".")
        policy: Overflow = "block" if to in block else overflow
        wired.append(Edge(consumer, input, producer, output, policy, Limit(items)))
    return Plan("flow", planned, tuple(wired), is_live=is_live, revision=str(abs(hash(repr(planned))))[:12])


SOON = Restart("any", first_ns=2_000_000_000, max_ns=2_000_000_000)
