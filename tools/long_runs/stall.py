"""A million payloads through a graph that stalls and goes on: memory stays flat, every payload is accounted for.

    tools/long stall [--items 1000000] [--overflow block]

Each overflow policy in turn; memory is what Python has allocated, and the process's resident set.
"""

from __future__ import annotations

import argparse
import os
import sys

import anyio
import anyio.lowlevel

from flowstream import Config, Context, Emit, EncodedCaps, EncodedPacket, Input, Node, Output, Source, Transform, field
from flowstream.graph.plan import Edge, Plan, PlannedNode
from flowstream.proto.overflow import POLICIES, Limit, Overflow
from flowstream.runtime.engine import Engine

CAPS = EncodedCaps("h264")
LOOKS = 20
STALL_TURNS = 100
"""How many turns of the loop the consumer lets go by: in each of them the source gives some."""
BLOCKS = 2_000
"""How many more objects may be there at one look than at another, once it has settled."""
GROWTH_BYTES = 8_000_000
"""How much the resident set may grow meanwhile: what the allocator rounds up."""


class FloodConfig(Config):
    """Config of ``long/flood``."""

    count: int = field(ge=1, description="How many to give.")


class Flood(Source[FloodConfig], type="long/flood"):
    """Gives packets as fast as it can, every 30th of them a keyframe."""

    is_live = True
    out = Output(EncodedPacket)
    seen: list[tuple[int, int]] = []  # allocated blocks and resident bytes

    async def run(self, ctx: Context) -> None:
        """Give, and look at the memory now and then."""
        for number in range(self.config.count):
            if number % (self.config.count // LOOKS) == 0:
                Flood.seen.append((sys.getallocatedblocks(), resident_bytes()))
            await ctx.emit(self.out(EncodedPacket(CAPS, b"packet", number, keyframe=number % 30 == 0)))
            if number % 16 == 15:
                await anyio.lowlevel.checkpoint()


class Pass(Transform, type="long/pass"):
    """Passes on."""

    items = Input(EncodedPacket)
    out = Output(like=items)

    def process(self, item: EncodedPacket) -> list[Emit[EncodedPacket]]:
        """Pass on."""
        return [self.out(item)]


class Stall(Node, type="long/stall"):
    """Stands still now and then."""

    items = Input(EncodedPacket)
    taken = 0

    async def run(self, ctx: Context) -> None:
        """Take, and wait at every 5000th."""
        ctx.ready()
        async for _ in ctx.stream(self.items):
            Stall.taken += 1
            if Stall.taken % 5_000 == 0:
                for _ in range(STALL_TURNS):
                    await anyio.lowlevel.checkpoint()


def resident_bytes() -> int:
    """Return the resident set of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def flood(overflow: Overflow, count: int) -> bool:
    """Run it with one policy, print what came of it, and return whether the proof holds."""
    Flood.seen.clear()
    Stall.taken = 0
    types = {"flood": Flood, "pass": Pass, "stall": Stall}
    nodes = {
        id: PlannedNode(id, each.type_id, each, FloodConfig(count=count) if each is Flood else each.config_class())
        for id, each in types.items()
    }
    edges = (
        Edge("pass", "items", "flood", "out", overflow, Limit(64)),
        Edge("stall", "items", "pass", "out", overflow, Limit(64)),
    )
    async with Engine.open() as engine:
        await engine.start(Plan("flood", nodes, edges, is_live=True))
        await engine.wait()
        dropped = sum(sum(node.dropped.values()) for node in engine.status().values())
    blocks = [each for each, _ in Flood.seen[LOOKS // 4 :]]
    grown = Flood.seen[-1][1] - Flood.seen[LOOKS // 4][1]
    is_whole = Stall.taken + dropped == count and (dropped == 0) == (overflow == "block")
    is_flat = max(blocks) - min(blocks) < BLOCKS and grown < GROWTH_BYTES
    print(
        f"{overflow:16} {Stall.taken} came through, {dropped} dropped; objects {min(blocks)} to {max(blocks)}, "
        f"resident set {grown / 1e6:+.1f} MB: {'holds' if is_whole and is_flat else 'BROKEN'}",
        flush=True,
    )
    return is_whole and is_flat


def main() -> int:
    """Run every policy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000, help="how many payloads")
    parser.add_argument("--overflow", choices=POLICIES, action="append", help="this policy alone; may be given again")
    asked = parser.parse_args()
    return 0 if all(anyio.run(flood, policy, asked.items) for policy in asked.overflow or POLICIES) else 1


if __name__ == "__main__":
    sys.exit(main())
