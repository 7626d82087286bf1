"""What a node reads from: it is cancelled in the midst of it, and nothing is left open."""

import gc
from typing import Any

import anyio
import pytest

from flowstream import Context, Input, KeyframeRequest, Node, Output, Record
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Event
from flowstream.testing.clock import VirtualClock
from tests.runtime import parts
from tests.runtime.parts import plan, run

pytestmark = pytest.mark.usefixtures("backend")


class Reads(Node):
    """Begins with one of what it reads, and never ends."""

    begun: list[Any] = []
    numbers = Input(Record)
    out = Output(Record)

    def reads(self, ctx: Context) -> Any:
        raise NotImplementedError

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        async for each in self.reads(ctx):
            Reads.begun.append(each)
            await anyio.sleep_forever()


class Streams(Reads, type="test/streams"):
    """Reads one input."""

    def reads(self, ctx: Context) -> Any:
        return ctx.stream(self.numbers)


class Merges(Reads, type="test/merges"):
    """Reads several."""

    def reads(self, ctx: Context) -> Any:
        return ctx.merge(self.numbers)


class Tells(Reads, type="test/tells"):
    """Reads several and tells their edges apart."""

    def reads(self, ctx: Context) -> Any:
        return ctx.each(self.numbers)


class Heeds(Reads, type="test/heeds"):
    """Reads what is asked of it."""

    def reads(self, ctx: Context) -> Any:
        return ctx.requests(self.out)


@pytest.mark.parametrize("kind", [Streams, Merges, Tells, Heeds])
def test_a_node_that_is_cancelled_at_its_work_leaves_nothing_that_has_to_be_closed(
    kind: type[Reads], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An async generator would be: trio warns of each that is collected before it has come to its end."""
    monkeypatch.setitem(parts.TYPES, kind.type_id, kind)
    Reads.begun.clear()

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        nodes: Any = {"count": ("test/counter", {}), "reads": (kind.type_id, {}), "keep": ("test/keep", {})}
        await engine.start(plan(nodes, {"reads.numbers": "count.out", "keep.numbers": "reads.out"}))
        engine.runners["keep"].request("numbers", KeyframeRequest("asked for"))
        await anyio.sleep(0.1)
        await engine.stop(drain_seconds=0)

    run(main)
    gc.collect()
    assert len(Reads.begun) == 1
