"""Small node types and plans for tests of the runtime."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from flowstream import (
    AudioFrame,
    Config,
    Context,
    Emit,
    EncodedCaps,
    EncodedPacket,
    Input,
    KeyframeRequest,
    Node,
    Output,
    PeerError,
    Record,
    ResourceBusy,
    Sink,
    Source,
    Transform,
    field,
    live,
)
from flowstream.graph.plan import Edge, Plan, PlannedNode, Restart
from flowstream.proto.overflow import Limit
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Event
from flowstream.testing.clock import Backend, VirtualClock, run_virtual

Item = Record[int]
H264 = EncodedCaps(codec="h264", width=64, height=64)


class CountConfig(Config):
    count: int = field(default=0, ge=0, description="How many to make; 0 never ends.")
    step: int = live(default=1, description="What each adds to the number.")
    fail_at: int = field(default=-1, description="Number at which to fail.")
    peer: bool = field(default=False, description="Whether the failure is the other side's.")
    refuse_step: int = field(default=-1, description="A step that cannot be taken in place.")
    fail_step: int = field(default=-1, description="A step whose taking fails.")


class Counter(Source[CountConfig], type="test/counter"):
    """Makes numbers, one each 10 ms."""

    is_live = True
    out = Output(Record)
    number = 0

    async def run(self, ctx: Context) -> None:
        begin_ns = ctx.now_ns()
        made = 0
        while not self.config.count or made < self.config.count:
            if self.number == self.config.fail_at:
                raise PeerError("unplugged") if self.config.peer else RuntimeError("a bug")
            await ctx.emit(self.out(Record(self.number, ctx.media_ns())))
            self.number += self.config.step
            made += 1
            await ctx.sleep_until_ns(begin_ns + made * 10_000_000)

    def accepts(self, config: CountConfig) -> None:
        if config.step == config.refuse_step:
            raise ValueError("that step needs a new counter")

    def reconfigured(self, old: CountConfig) -> None:
        if self.config.step == self.config.fail_step:
            raise RuntimeError("cannot step so")


class AddConfig(Config):
    add: int = live(default=0, description="What to add.")
    kind: str = field(default="a", description="Any change of it makes another node.")


class Add(Transform[AddConfig], type="test/add"):
    """Adds to numbers; gives -1 when its input ends."""

    numbers = Input(Record)
    sums = Output(Record)

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        yield self.sums(Record(item.value + self.config.add, item.time_ns))

    def finish(self) -> Iterator[Emit[Record[int]]]:
        yield self.sums(Record(-1, 0))


class ThreadedAdd(Add, type="test/threaded-add"):
    """Adds on a thread of its own."""

    thread = True


class Busy(Add, type="test/busy"):
    """Adds, but only one instance can be open."""

    holder: "Busy | None" = None

    def open(self) -> None:
        if Busy.holder is not None:
            raise ResourceBusy("the adder is taken")
        if self.config.kind == "broken":
            raise PeerError("the adder is broken")
        Busy.holder = self

    def close(self) -> None:
        if Busy.holder is self:
            Busy.holder = None


class KeepConfig(Config):
    fail_at: int = field(default=-2, description="Number at which to fail.")
    slow: bool = field(default=False, description="Whether to never return.")


class Keep(Sink[KeepConfig], type="test/keep"):
    """Keeps what comes in, by node name, for the test to look at."""

    numbers = Input(Record)
    kept: dict[str, list[int]] = {}
    closed: list[str] = []

    def open(self) -> None:
        Keep.kept.setdefault(self.ctx.name, [])

    async def consume(self, item: Record[int]) -> None:
        if item.value == self.config.fail_at:
            raise RuntimeError("cannot keep that")
        Keep.kept[self.ctx.name].append(item.value)
        if self.config.slow:
            await anyio.sleep_forever()

    def close(self) -> None:
        Keep.closed.append(self.ctx.name)


class EncodeConfig(Config):
    rate: int = live(default=1, description="At most twice what the encoder was opened with.")
    name: str = field(default="a", description="Told apart by tests.")
    interval: int = field(default=50, description="A keyframe each so many.")


class Encode(Transform[EncodeConfig], type="test/encode"):
    """Makes packets of numbers: keyframes at its start, at an interval and when asked."""

    numbers = Input(Record)
    packets = Output(EncodedPacket)
    since = -1

    @classmethod
    def updates_in_place(cls, opened: EncodeConfig, new: EncodeConfig) -> bool:
        return new.rate <= 2 * opened.rate

    def process(self, item: Record[int]) -> Iterator[Emit[EncodedPacket]]:
        self.since = 0 if self.since < 0 or self.since + 1 >= self.config.interval else self.since + 1
        yield self.packets(
            EncodedPacket(H264, f"{self.config.name}{item.value}".encode(), item.time_ns, keyframe=self.since == 0)
        )

    def requested(self, port: str, signal: KeyframeRequest) -> None:
        self.since = -1


class Watch(Sink, type="test/watch"):
    """Keeps packets by node name."""

    packets = Input(EncodedPacket)
    seen: dict[str, list[EncodedPacket]] = {}

    def consume(self, packet: EncodedPacket) -> None:
        Watch.seen.setdefault(self.ctx.name, []).append(packet)


class HoldConfig(Config):
    title: str = field(default="a", description="Any change of it makes another node.")


class Hold(Node[HoldConfig], type="test/hold"):
    """Holds something across reloads and counts how often it was opened and closed."""

    numbers = Input(Record)
    log: list[str] = []

    async def run(self, ctx: Context) -> None:
        @asynccontextmanager
        async def session(holding: Any) -> Any:
            Hold.log.append("open")
            try:
                yield object()
            finally:
                Hold.log.append("close")

        async with ctx.hold("session", session) as held:
            ctx.ready()
            Hold.log.append(f"{self.config.title} has {id(held)}")
            async for _ in ctx.stream(self.numbers):
                pass


class Stuck(Source, type="test/stuck"):
    """Never becomes ready."""

    out = Output(Record)

    async def open(self) -> None:
        await anyio.sleep_forever()

    async def run(self, ctx: Context) -> None:
        pass


class Sound(Source, type="test/sound"):
    """Gives what its type does not."""

    out = Output(AudioFrame)

    async def run(self, ctx: Context) -> None:
        await ctx.emit(Counter.out(Record(1, 1)))


class Wrong(Source, type="test/wrong"):
    """Gives a payload that its output does not carry."""

    out = Output(AudioFrame)

    async def run(self, ctx: Context) -> None:
        await ctx.emit(self.out(Record(1, 1)))  # type: ignore[arg-type]


TYPES = {t.type_id: t for t in (Counter, Add, ThreadedAdd, Busy, Keep, Encode, Watch, Hold, Stuck, Sound, Wrong)}


def plan(
    nodes: dict[str, tuple[str, dict[str, Any]] | tuple[str, dict[str, Any], Restart]],
    edges: dict[str, str],
    *,
    overflow: str = "block",
    items: int = 4,
    is_live: bool = True,
) -> Plan:
    """A plan by hand: ``{"add": ("test/add", {...})}`` and ``{"add.numbers": "count.out"}``."""
    planned = {}
    for id, (type_id, config, *rest) in nodes.items():
        node_type = TYPES[type_id]
        planned[id] = PlannedNode(
            id, type_id, node_type, node_type.config_class(**config), restart=rest[0] if rest else None
        )
    wired = []
    for to, of in edges.items():
        (consumer, input), (producer, output) = to.split("."), of.split(".")
        wired.append(Edge(consumer, input, producer, output, overflow, Limit(items)))  # type: ignore[arg-type]
    revision = str(abs(hash((repr(planned), repr(wired)))))[:12]
    return Plan("test", planned, tuple(wired), is_live=is_live, revision=revision)


class Loop:
    """On which kind of event loop tests run at the moment; see the fixture ``backend``."""

    backend: Backend = "asyncio"


def forget() -> None:
    """Forgets what the parts kept."""
    for kept in (Keep.kept, Keep.closed, Watch.seen, Hold.log):
        kept.clear()
    Busy.holder = None


def run(main: Callable[[Engine, VirtualClock, list[Event]], Awaitable[None]]) -> None:
    """Runs ``main(engine, clock, events)`` on virtual time, with what the parts kept before forgotten."""
    forget()

    async def call(clock: VirtualClock) -> None:
        events: list[Event] = []
        async with Engine.open(clock=clock) as engine:
            engine.listen(events.append)
            await main(engine, clock, events)

    run_virtual(call, backend=Loop.backend)


def run_real(main: Callable[[], Awaitable[None]]) -> None:
    """Runs ``main()`` on real time."""
    forget()
    anyio.run(main, backend=Loop.backend)
