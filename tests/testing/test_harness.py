"""The harness: it drives a node as the engine does, and says what is wrong."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from flowstream import (
    Caps,
    Config,
    Context,
    Emit,
    EndOfInput,
    Holding,
    Input,
    KeyframeRequest,
    NegotiationError,
    Node,
    Output,
    Record,
    Sink,
    Source,
    Transform,
    VideoCaps,
    VideoFrame,
    field,
    live,
)
from flowstream.testing import FakeClock, Harness, make_frame, make_frames, make_packet


class EchoConfig(Config):
    """Settings."""

    times: int = live(default=1, ge=0, le=5, description="Number of copies.")
    name: str = field(default="echo", description="Name.")


class Echo(Transform[EchoConfig], type="acme/echo"):
    """Repeats."""

    thread = True
    video = Input(VideoFrame, caps=VideoCaps(format=("bgr24", "gray")))
    out = Output(VideoFrame)

    def __init__(self, config: EchoConfig | None = None) -> None:
        super().__init__(config)
        self.calls: list[Any] = []
        self.thread_names: set[str] = set()

    def open(self) -> None:
        self.calls.append("open")

    def close(self) -> None:
        self.calls.append("close")

    def accepts(self, config: EchoConfig) -> None:
        if config.times == 4:
            raise ValueError("four is too many")

    def reconfigured(self, old: EchoConfig) -> None:
        self.calls.append((old.times, self.config.times))

    def caps_changed(self, port: str, caps: Caps) -> None:
        self.calls.append((port, str(caps)))

    def process(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame]]:
        self.thread_names.add(threading.current_thread().name)
        for _ in range(self.config.times):
            yield self.out(frame)

    def finish(self) -> Iterator[Emit[VideoFrame]]:
        yield self.out(make_frame(99))


def test_a_transform_from_open_to_close() -> None:
    first, second = make_frames(2)
    with Harness(Echo) as echo:
        node = echo.node
        assert echo.push(first) == [first]
        echo.reconfigure(times=2)
        assert echo.push(second) == [second, second]
        assert echo.push(make_frame(format="gray"), "video")[0].format == "gray"
        assert [f.time_ns for f in echo.finish()] == [make_frame(99).time_ns]
        assert len(echo.payloads()) == len(echo.payloads("out")) == len(echo.payloads(Echo.out)) == 6
    assert isinstance(node, Echo)
    assert node.calls == [
        "open",
        ("video", "format bgr24, width 64, height 48"),
        (1, 2),
        ("video", "format gray, width 64, height 48"),
        "close",
    ]


@pytest.mark.parametrize("threads", [False, True])
def test_calls_run_in_place_or_on_one_thread(threads: bool) -> None:
    with Harness(Echo, threads=threads, name="repeat") as echo:
        for frame in make_frames(3):
            echo.push(frame)
        names = echo.node.thread_names  # type: ignore[attr-defined]
    assert names == ({"repeat_0"} if threads else {threading.current_thread().name})


def test_a_config_is_written_as_in_a_graph() -> None:
    with Harness(Echo, {"times": 3}) as echo:
        assert len(echo.push(make_frame())) == 3
    with Harness(Echo, EchoConfig(times=2, name="x")) as echo:
        assert len(echo.push(make_frame())) == 2


def test_live_values_that_a_node_refuses_leave_it_as_it_was() -> None:
    with Harness(Echo) as echo:
        with pytest.raises(ValueError, match="four is too many"):
            echo.reconfigure(times=4)
        with pytest.raises(AssertionError, match="'name' is not a live field of acme/echo"):
            echo.reconfigure(name="other")
        assert echo.node.config.times == 1


def test_payloads_that_do_not_belong_are_refused() -> None:
    with Harness(Echo) as echo:
        with pytest.raises(TypeError, match="input 'video' takes VideoFrame, not EncodedPacket"):
            echo.push(make_packet())
        with pytest.raises(NegotiationError, match="takes format bgr24 or gray, but the test gives yuv420p"):
            echo.push(make_frame(format="yuv420p"))
        with pytest.raises(AssertionError, match="acme/echo has no input 'audio'"):
            echo.push(make_frame(), "audio")
        with pytest.raises(AssertionError, match="acme/echo has no output 'audio'"):
            echo.request("audio")


class Stray(Transform, type="acme/stray"):
    """Emits where it has no output, then what its output does not give."""

    video = Input(VideoFrame)
    out = Output(VideoFrame)

    def process(self, frame: VideoFrame) -> Iterator[Emit[Any]]:
        if frame.time_ns == 0:
            yield Echo.out(frame)
        yield self.out(make_packet())  # type: ignore[arg-type]


def test_wrong_emits_are_named() -> None:
    first, second = make_frames(2)
    with Harness(Stray) as stray:
        with pytest.raises(TypeError) as caught:
            stray.push(first)
        assert str(caught.value) == "acme/stray emitted to <Output Echo.out>, which is not one of its outputs"
        with pytest.raises(TypeError, match="output 'out' gives VideoFrame, not EncodedPacket"):
            stray.push(second)


class Beat(Source, type="acme/beat"):
    """Emits ten times a second, ten times."""

    out = Output(Record[int])
    asked: list[str]

    async def run(self, ctx: Context) -> None:
        start_ns = ctx.now_ns()
        for n in range(10):
            await ctx.sleep_until_ns(start_ns + n * 100_000_000)
            value = await ctx.in_thread(lambda number: number * number, n)
            await ctx.emit(self.out(Record(value, ctx.media_ns())))
            ctx.report(beats=n + 1)


@pytest.mark.parametrize("threads", [False, True])
def test_time_jumps_from_one_deadline_to_the_next(threads: bool) -> None:
    with Harness(Beat, threads=threads) as beat:
        assert [r.time_ns for r in beat.run(emissions=3)] == [0, 100_000_000, 200_000_000]
        assert beat.clock.media_ns() == 200_000_000
        assert beat.facts == {"beats": 2}, "it waits in its third emit"
        assert len(beat.run(duration_ns=250_000_000)) == 2
        assert beat.clock.media_ns() == 450_000_000
        assert [r.value for r in beat.run()] == [25, 36, 49, 64, 81]
        assert not beat.is_running
        with pytest.raises(AssertionError, match="acme/beat came to its end after 0 of 1 emissions"):
            beat.run(emissions=1)


def test_a_late_call_is_a_step_of_the_clock() -> None:
    with Harness(Beat) as beat:
        beat.run(emissions=1)
        beat.clock.step(450_000_000)
        assert [r.time_ns for r in beat.run(emissions=5)] == [450_000_000] * 4 + [500_000_000]
        with pytest.raises(ValueError, match="time does not go back by 1 ns"):
            beat.clock.step(-1)


class Camera(Source, type="acme/camera"):
    """Captures three."""

    out = Output(Record[int])
    count = 0

    def capture(self) -> list[Emit[Record[int]]] | None:
        self.count += 1
        return [self.out(Record(self.count, 0))] if self.count < 4 else None


@pytest.mark.parametrize("threads", [False, True])
def test_a_source_that_captures(threads: bool) -> None:
    with Harness(Camera, threads=threads) as camera:
        assert [r.value for r in camera.run(emissions=2)] == [1, 2]
        assert [r.value for r in camera.run()] == [3]


class Router(Node, type="acme/router"):
    """Everything that a context offers."""

    main = Input(Record[int])
    side = Input(Record[int], optional=True)
    reports = Input(Record[str], feedback=True)
    out = Output(Record[Any])

    closed = False

    async def run(self, ctx: Context) -> None:
        async with ctx.mount(self._app, page=True) as path, ctx.hold("port", self._open) as port:
            ctx.ready()
            ctx.report(path=path, port=port, label=ctx.label, node=ctx.name, both=ctx.is_connected(self.side))
            ctx.request(self.main, KeyframeRequest("start"))
            async for name, record in ctx.merge(self.main, self.side):
                newest = ctx.latest(self.reports)
                await ctx.emit(self.out(Record((name, record.value, newest and newest.value), record.time_ns)))
            with pytest.raises(EndOfInput):
                await ctx.receive(self.main)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None: ...

    @asynccontextmanager
    async def _open(self, holding: Holding) -> AsyncIterator[int]:
        holding.start_soon(self._serve)
        type(self).closed = False
        yield 8080
        type(self).closed = True

    async def _serve(self) -> None:
        await self.ctx.sleep_until_ns(1 << 60)

    def close(self) -> None:
        self.ctx.log.info("closed")


def test_a_node_with_a_life_of_its_own() -> None:
    with Harness(Router, name="r", label="The router") as router:
        router.settle()
        assert router.ctx.is_ready
        assert router.facts == {"path": "/r/", "port": 8080, "label": "The router", "node": "r", "both": True}
        assert router.requests == [("main", KeyframeRequest("start"))]
        assert [(m.path, m.page) for m in router.mounts] == [("/r/", True)]
        assert router.holdings == ("port",)
        assert router.push(Record(1, 0), "main")[0].value == ("main", 1, None)
        router.push(Record("fast", 0), Router.reports)
        assert router.push(Record(2, 0), Router.side)[0].value == ("side", 2, "fast")
        router.end("side")
        assert router.push(Record(3, 0), "main")[0].value == ("main", 3, "fast")
        assert router.finish() == []
        assert not router.is_running
        assert router.mounts == []
    assert Router.closed


def test_holdings_go_over_to_a_successor() -> None:
    with Harness(Router) as router:
        router.settle()
        first = router.node
        router.replace()
        assert router.node is not first
        assert router.holdings == ("port",)
        assert not Router.closed
        assert len(router.mounts) == 1, "the old one's is gone"
        assert router.push(Record(1, 0), "main")[0].value == ("main", 1, None)
    assert Router.closed


def test_a_port_may_be_left_unconnected() -> None:
    with Harness(Router, connected={"main"}) as router:
        router.settle()
        assert router.facts["both"] is False


class Asking(Source, type="acme/asking"):
    """Says what it was asked."""

    out = Output(Record[str])

    async def run(self, ctx: Context) -> None:
        async for signal in ctx.requests(self.out):
            await ctx.emit(self.out(Record(signal.reason, 0)))


def test_requests_reach_a_node_that_waits_for_them() -> None:
    with Harness(Asking) as asking:
        asking.settle()
        asking.request("out", KeyframeRequest("first"))
        asking.request(Asking.out)
        assert [r.value for r in asking.payloads()] == ["first", "asked for"]


class Slow(Sink, type="acme/slow"):
    """Takes a second each."""

    video = Input(VideoFrame)
    opened = False

    async def open(self) -> None:
        await self.ctx.sleep_until_ns(self.ctx.now_ns() + 5)
        self.opened = True

    async def consume(self, frame: VideoFrame) -> None:
        await self.ctx.sleep_until_ns(self.ctx.now_ns() + 1_000_000_000)
        if frame.time_ns:
            import asyncio

            await asyncio.get_running_loop().create_future()


def test_async_calls_take_virtual_time_and_cannot_hang() -> None:
    first, second = make_frames(2)
    with Harness(Slow) as slow:
        assert slow.node.opened  # type: ignore[attr-defined]
        slow.push(first)
        assert slow.clock.media_ns() == 1_000_000_005
        with pytest.raises(AssertionError, match="a call of acme/slow waits for something that never comes"):
            slow.push(second)


class Failing(Node, type="acme/failing"):
    """Fails when told."""

    thing = Input(Record[int])

    async def run(self, ctx: Context) -> None:
        await ctx.receive(self.thing)
        raise RuntimeError("told so")


def test_what_a_node_raises_comes_out() -> None:
    with Harness(Failing) as failing, pytest.raises(RuntimeError, match="told so"):
        failing.push(Record(1, 0))


class Endless(Node, type="acme/endless"):
    """Does not care for the end of its input."""

    thing = Input(Record[int])

    async def run(self, ctx: Context) -> None:
        await ctx.sleep_until_ns(ctx.now_ns() + 1)
        import asyncio

        await asyncio.get_running_loop().create_future()


def test_a_node_that_goes_on_after_its_inputs_is_found() -> None:
    with Harness(Endless) as endless:
        with pytest.raises(AssertionError, match="acme/endless goes on although its inputs have ended"):
            endless.finish()
        with pytest.raises(AssertionError, match="acme/endless waits after 0 of 1 emissions"):
            endless.run(emissions=1)


def test_an_open_that_fails_is_closed_again() -> None:
    class Locked(Sink, type="acme/locked"):
        """Cannot open."""

        video = Input(VideoFrame)
        closed = 0

        def open(self) -> None:
            raise OSError("locked")

        def close(self) -> None:
            type(self).closed += 1

        def consume(self, frame: VideoFrame) -> None: ...

    with pytest.raises(OSError, match="locked"), Harness(Locked):
        pass
    assert Locked.closed == 1


def test_a_clock_may_be_shared() -> None:
    clock = FakeClock()
    with Harness(Beat, clock=clock) as one, Harness(Beat, clock=clock) as another:
        one.run(emissions=3)
        assert another.clock.media_ns() == 200_000_000
        assert clock.wallclock_ns() - FakeClock().wallclock_ns() == 200_000_000


def test_it_has_to_be_opened() -> None:
    harness = Harness(Beat)
    with pytest.raises(AssertionError, match="open the harness first"):
        harness.run()
    harness.close()
    harness.close()
