"""Node types that close a loop: packets in, targets out."""

from flowstream import Config, Context, EncodedPacket, Input, Node, Output, Record, Sink, Target, Targets, field

__all__ = ["Steer", "Tape"]


class SteerConfig(Config):
    every: int = field(default=10, ge=1, description="Number of packets after which the next targets are given.")


class Steer(Node[SteerConfig], type="test/steer"):
    """Looks at what one encoder gives and tells all of them what to aim at, once in a while."""

    packets = Input(EncodedPacket)
    targets = Output(Record[Targets])
    steps: list[dict[str, Target]] = []

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        count, steps = 0, iter(Steer.steps)
        async for packet in ctx.stream(self.packets):
            count += 1
            if count % self.config.every == 0 and (step := next(steps, None)) is not None:
                await ctx.emit(self.targets(Record(Targets(step), packet.time_ns)))


class Tape(Sink, type="test/tape"):
    """Keeps packets by node name."""

    packets = Input(EncodedPacket)
    kept: dict[str, list[EncodedPacket]] = {}

    def consume(self, packet: EncodedPacket) -> None:
        Tape.kept.setdefault(self.ctx.name, []).append(packet)
