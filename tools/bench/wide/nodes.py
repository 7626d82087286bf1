"""A node type with an input for any number of edges, for graphs with many of them."""

from flowstream import Config, Context, EncodedPacket, Input, Node, live


class SinkConfig(Config):
    """Settings of ``wide/sink``."""

    weight: float = live(default=1.0, ge=0, description="How much it counts.")


class WideSink(Node[SinkConfig], type="wide/sink"):
    """Takes packets from many."""

    all = Input(EncodedPacket, many=True)

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        async for _ in ctx.merge(self.all):
            pass
