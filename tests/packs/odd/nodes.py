"""Node types for the tests of runs: a quiet source, and some that behave badly, each in its own way."""

import threading
import time
from collections.abc import Iterator

from flowstream import (
    Config,
    Context,
    Emit,
    Input,
    Node,
    Output,
    PeerError,
    Record,
    Sink,
    Source,
    Transform,
    field,
    live,
)


class TicksConfig(Config):
    count: int = field(default=0, ge=0, description="How many ticks; 0 for ever.")
    every_ms: int = live(default=10, ge=1, description="Time between ticks, in milliseconds.")


class Ticks(Source[TicksConfig], type="odd/ticks"):
    """A source of numbers."""

    is_live = True
    out = Output(Record[int])

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        number = 0
        while not self.config.count or number < self.config.count:
            await ctx.sleep_until_ns(ctx.now_ns() + self.config.every_ms * 1_000_000)
            await ctx.emit(self.out(Record(number, time_ns=ctx.media_ns())))
            number += 1


class Bug(Transform, type="odd/bug"):
    """Raises what nobody expected, at the third payload."""

    numbers = Input(Record[int])
    out = Output(Record[int])

    def process(self, number: Record[int]) -> Iterator[Emit[Record[int]]]:
        if number.value == 2:
            raise LookupError("no such thing")
        yield self.out(number)


class Hangs(Sink, type="odd/hangs"):
    """A call that never returns, on a thread of its own."""

    thread = True
    numbers = Input(Record[int])

    def consume(self, number: Record[int]) -> None:
        self.ctx.log.info("about to hang")
        while True:
            time.sleep(1)


class Blocks(Sink, type="odd/blocks"):
    """A call that never returns, in the event loop."""

    numbers = Input(Record[int])

    def consume(self, number: Record[int]) -> None:
        self.ctx.log.info("about to hang")
        while True:
            time.sleep(1)


class Spins(Sink, type="odd/spins"):
    """Computes for 60 ms, in the event loop."""

    numbers = Input(Record[int])

    def consume(self, number: Record[int]) -> None:
        until = time.perf_counter() + 0.06
        while time.perf_counter() < until:
            pass


class Where(Sink, type="odd/where"):
    """Says once which thread it runs on."""

    thread = True
    numbers = Input(Record[int])

    def consume(self, number: Record[int]) -> None:
        if number.value == 0:
            self.ctx.log.info("on %s", threading.current_thread().name)


class Slow(Node, type="odd/slow"):
    """Never becomes ready."""

    numbers = Input(Record[int])

    async def run(self, ctx: Context) -> None:
        await ctx.sleep_until_ns(ctx.now_ns() + 3600 * 10**9)


class LoginConfig(Config):
    address: str = field(description="Where to, with the password in it.")


class Login(Sink[LoginConfig], type="odd/login"):
    """Fails with the whole address in the error, password and all, and logs it too."""

    numbers = Input(Record[int])

    def consume(self, number: Record[int]) -> None:
        self.ctx.log.warning("cannot log in at %s", self.config.address)
        self.ctx.report(address=self.config.address)
        if number.value == 3:
            raise PeerError(f"401 from {self.config.address}")


class Page(Node, type="odd/page"):
    """Mounts a page that says hello."""

    serves = True
    numbers = Input(Record[int])

    async def run(self, ctx: Context) -> None:
        from starlette.responses import PlainTextResponse

        async with ctx.mount(PlainTextResponse(f"hello from {ctx.name}"), page=True):
            ctx.ready()
            async for _ in ctx.stream(self.numbers):
                pass
