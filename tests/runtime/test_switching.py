"""The moment of a switch: what is exclusive, what is handed on, what was given up, where packets are cut."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flowstream import (
    Config,
    Context,
    Emit,
    EncodedPacket,
    Input,
    Node,
    NodeError,
    Output,
    PeerError,
    Record,
    Sink,
    Snapshot,
    Source,
    Transform,
    field,
)
from flowstream.graph.described import describe, patch_to_json
from flowstream.graph.plan import Plan, Restart
from flowstream.runtime.engine import Engine, ReloadError
from flowstream.runtime.events import Applied, Event
from flowstream.testing.clock import VirtualClock
from tests.runtime import parts
from tests.runtime.parts import H264, Add, AddConfig, Keep, Watch, plan, run, run_real

pytestmark = pytest.mark.usefixtures("backend")


class DeviceConfig(Config):
    device: str = field(default="one", description="Which device.")
    kind: str = field(default="a", description="Any change of it makes another node; 'bad' does not open.")


class Device(Transform[DeviceConfig], type="test/device"):
    """Takes 0.3 s to open a device that only one can have."""

    numbers = Input(Record)
    sums = Output(Record)
    log: list[str] = []

    @classmethod
    def exclusive(cls, config: DeviceConfig) -> str:
        return f"device {config.device}"

    async def open(self) -> None:
        Device.log.append(f"{self.ctx.name} opens {self.config.device}")
        await anyio.sleep(0.3)
        if self.config.kind == "bad":
            raise PeerError("the device does not answer")

    def close(self) -> None:
        Device.log.append(f"{self.ctx.name} closes {self.config.device}")

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        yield self.sums(item)


class Tally(Add, type="test/tally"):
    """Adds up everything that ever came in."""

    restores = (1, 2)
    written = 2
    total = 0

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        self.total += item.value
        yield self.sums(Record(self.total, item.time_ns))

    def finish(self) -> None:  # type: ignore[override]
        pass

    def snapshot(self) -> Snapshot:
        return Snapshot(self.written, {"total": self.total})

    def restore(self, snapshot: Snapshot) -> None:
        self.total = snapshot.values["total"]


class ThreadedTally(Tally, type="test/threaded-tally"):
    """Adds up on a thread."""

    thread = True


class RunningTally(Node[AddConfig], type="test/running-tally"):
    """Adds up in a life of its own."""

    numbers = Input(Record)
    sums = Output(Record)
    restores = (1,)
    total = 0

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        async for item in ctx.stream(self.numbers):
            self.total += item.value
            await ctx.emit(self.sums(Record(self.total, item.time_ns)))

    def snapshot(self) -> Snapshot:
        return Snapshot(1, {"total": self.total})

    def restore(self, snapshot: Snapshot) -> None:
        self.total += snapshot.values["total"]


class SlowTaker(Add, type="test/slow-taker"):
    """Is busy with number 3 until it is let go; takes 5 only slowly."""

    thread = True
    gate = threading.Event()
    hangs = threading.Event()
    taken: list[int] = []

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        if item.value == 3 and self.config.kind == "busy":
            SlowTaker.hangs.set()
            SlowTaker.gate.wait(10)
        yield self.sums(Record(self.config.add, item.time_ns))

    def reconfigured(self, old: AddConfig) -> None:
        if self.config.add == 5 and self.config.kind == "slow":
            SlowTaker.hangs.set()
            SlowTaker.gate.wait(10)
        SlowTaker.taken.append(self.config.add)


class Early(Node[AddConfig], type="test/early"):
    """Has something to give the moment it is ready."""

    numbers = Input(Record)
    sums = Output(Record)

    async def run(self, ctx: Context) -> None:
        if self.config.kind == "too early":
            await ctx.emit(self.sums(Record(0, 0)))
        ctx.ready()
        for number in (-13, -12, -11):
            await ctx.emit(self.sums(Record(number, 0)))
        async for item in ctx.stream(self.numbers):
            await ctx.emit(self.sums(item))


class Asks(Source, type="test/asks"):
    """Gives a keyframe for each request, which it looks for late."""

    out = Output(EncodedPacket)
    is_live = True

    async def run(self, ctx: Context) -> None:
        await anyio.sleep(0.05)
        async for _ in ctx.requests(self.out):
            await ctx.emit(self.out(EncodedPacket(H264, b"key", ctx.media_ns(), keyframe=True)))


class Film(Source[DeviceConfig], type="test/film"):
    """Gives pictures of 40 ms as fast as they are taken, from the moment when it begins; device says how many."""

    out = Output(Record)

    async def run(self, ctx: Context) -> None:
        begin_ns = ctx.media_ns()
        for number in range(int(self.config.device)):
            if self.config.kind == "breaks" and number == 20:
                raise PeerError("torn")
            await ctx.emit(self.out(Timed(number, begin_ns + number * 40_000_000)))
        await anyio.sleep_forever()


class Timed(Record[int]):
    """A number that lasts 40 ms."""

    duration_ns = 40_000_000


class Times(Sink, type="test/times"):
    """Takes one each 10 ms, and keeps their times by node name."""

    numbers = Input(Record)
    seen: dict[str, list[int]] = {}

    async def consume(self, item: Record[int]) -> None:
        Times.seen.setdefault(self.ctx.name, []).append(item.time_ns // 1_000_000)
        await anyio.sleep(0.01)


class AsksInside(Node, type="test/asks-inside"):
    """Gives a keyframe for each request, which it looks for late, and has an input."""

    numbers = Input(Record)
    out = Output(EncodedPacket)

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        await anyio.sleep(0.05)
        async for _ in ctx.requests(self.out):
            await ctx.emit(self.out(EncodedPacket(H264, b"key", ctx.media_ns(), keyframe=True)))


@pytest.fixture(autouse=True)
def types(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (Device, Tally, ThreadedTally, RunningTally, SlowTaker, Early, Asks, AsksInside, Film, Times):
        monkeypatch.setitem(parts.TYPES, each.type_id, each)
    Device.log.clear()
    SlowTaker.gate.clear()
    SlowTaker.hangs.clear()
    SlowTaker.taken.clear()
    Times.seen.clear()


def chain(middle: str, config: dict[str, Any], *, overflow: str = "block", items: int = 40, live: bool = True) -> Plan:
    return plan(
        {"count": ("test/counter", {}), "mid": (middle, config), "keep": ("test/keep", {})},
        {"mid.numbers": "count.out", "keep.numbers": "mid.sums"},
        overflow=overflow,
        items=items,
        is_live=live,
    )


# --- break before make ----------------------------------------------------------------------------------------------


def test_the_plan_says_that_a_device_is_gone_for_a_while_and_for_how_long() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain("test/device", {}))
        patch = engine.preview(chain("test/device", {"kind": "b"}))
        assert describe(patch)[1] == "mid    replaced, break-before-make, gap about 300ms  (kind a -> b)"
        told = patch_to_json(patch)["changes"][1]
        assert (told["breaks"], told["gap_seconds"]) == (["mid"], 0.3)
        other = engine.preview(chain("test/device", {"device": "two"}))
        assert other.of("mid").gap_ns is None

    run(main)


def test_without_a_running_instance_the_gap_is_guessed() -> None:
    from flowstream.graph.diff import diff

    patch = diff(chain("test/device", {}), chain("test/device", {"kind": "b"}))
    assert "break-before-make, gap about 500ms" in describe(patch)[1]


def test_a_device_is_closed_before_it_is_opened_and_what_comes_meanwhile_waits() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain("test/device", {}))
        await anyio.sleep(0.095)
        began_ns = clock.now_ns()
        await engine.apply(chain("test/device", {"kind": "b"}))
        assert clock.now_ns() - began_ns == pytest.approx(300_000_000, abs=1_000_000)
        await anyio.sleep(0.1)
        assert Device.log == ["mid opens one", "mid closes one", "mid opens one"]
        assert Keep.kept["keep"] == list(range(50))
        assert [type(event) for event in events] == [Applied]

    run(main)


def test_what_does_not_fit_while_a_device_is_gone_is_counted() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain("test/device", {}, overflow="drop-oldest", items=4))
        await anyio.sleep(0.095)
        await engine.apply(chain("test/device", {"kind": "b"}, overflow="drop-oldest", items=4))
        await anyio.sleep(0.1)
        dropped = engine.status()["mid"].dropped["overflow"]
        assert dropped == 26
        assert Keep.kept["keep"] == [*range(10), *range(10 + dropped, 50)]

    run(main)


@pytest.mark.parametrize("moment", ["it does not open", "another does not open", "a newer save"])
def test_a_device_comes_back_when_its_successor_does_not_come(moment: str) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        running = chain("test/device", {})
        await engine.start(running)
        await anyio.sleep(0.095)
        before = engine.runners["mid"]
        if moment == "a newer save":
            with anyio.move_on_after(0.1):
                await engine.apply(chain("test/device", {"kind": "b"}))
        elif moment == "it does not open":
            with pytest.raises(ReloadError, match="mid \\(test/device\\): the device does not answer"):
                await engine.apply(chain("test/device", {"kind": "bad"}))
        else:  # a failure beside it is found out before anything is broken
            more = chain("test/device", {"kind": "b"})
            bad = plan({"x": ("test/device", {"device": "two", "kind": "bad"})}, {})
            with pytest.raises(ReloadError, match="x \\(test/device\\): the device does not answer"):
                await engine.apply(replace(more, nodes={**more.nodes, **bad.nodes}))
            assert engine.runners["mid"] is before
        assert engine.plan is running
        assert engine.state == "running"
        await anyio.sleep(0.1)
        tail = Keep.kept["keep"][-9:]
        assert tail == list(range(tail[0], tail[0] + 9))
        assert [event for event in events if not isinstance(event, Applied)] == []

    run(main)


def test_two_nodes_swap_their_devices() -> None:
    def two(first: str, second: str) -> Plan:
        return plan(
            {
                "count": ("test/counter", {}),
                "a": ("test/device", {"device": first}),
                "b": ("test/device", {"device": second}),
            },
            {"a.numbers": "count.out", "b.numbers": "count.out"},
        )

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(two("one", "two"))
        await engine.apply(two("two", "one"))
        assert sorted(Device.log[2:4]) == ["a closes one", "b closes two"]
        assert sorted(Device.log[4:]) == ["a opens two", "b opens one"]
        assert engine.state == "running"

    run(main)


def test_a_device_goes_from_a_node_that_is_removed_to_one_that_is_added() -> None:
    def one(name: str) -> Plan:
        return plan({"count": ("test/counter", {}), name: ("test/device", {})}, {f"{name}.numbers": "count.out"})

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(one("a"))
        patch = await engine.apply(one("b"))
        assert patch.of("b").breaks == ("a",)
        assert Device.log == ["a opens one", "a closes one", "b opens one"]
        with pytest.raises(ReloadError, match="does not answer"):
            await engine.apply(
                plan({"count": ("test/counter", {}), "c": ("test/device", {"kind": "bad"})}, {"c.numbers": "count.out"})
            )
        assert engine.status()["b"].state == "running"

    run(main)


def test_a_device_that_a_node_keeps_is_not_to_be_had() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        both = plan(
            {"count": ("test/counter", {}), "a": ("test/device", {}), "b": ("test/device", {})},
            {"a.numbers": "count.out", "b.numbers": "count.out"},
        )
        await engine.start(plan({"count": ("test/counter", {}), "a": ("test/device", {})}, {"a.numbers": "count.out"}))
        with pytest.raises(ReloadError, match="b needs device one, which a has"):
            await engine.apply(both)
        assert engine.status()["a"].state == "running"

    run(main)


# --- state ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_id", ["test/tally", "test/threaded-tally", "test/running-tally"])
def test_a_replaced_node_goes_on_with_the_state_of_the_one_before(type_id: str) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain(type_id, {}))
        for kind in "bcd":
            await anyio.sleep(0.095)
            await engine.apply(chain(type_id, {"kind": kind}))
        await anyio.sleep(0.095)
        values = Keep.kept["keep"]
        assert values == [sum(range(n + 1)) for n in range(len(values))]
        assert len(values) > 35

    run(main)


def test_a_version_that_the_successor_does_not_know_is_dropped_with_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Tally, "written", 3)
    caplog.set_level("INFO")

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain("test/tally", {}))
        await anyio.sleep(0.095)
        await engine.apply(chain("test/tally", {"kind": "b"}))
        await anyio.sleep(0.02)
        assert Keep.kept["keep"][10] == 10
        assert "mid: the state of the replaced instance is dropped: version 3, known: 1, 2" in caplog.text

    run(main)


def test_state_goes_back_to_a_node_that_has_to_be_started_again() -> None:
    class Owned(Tally, type="test/owned-tally"):
        """Has something for itself."""

        @classmethod
        def exclusive(cls, config: AddConfig) -> str:
            return "tally"

        def open(self) -> None:
            if self.config.kind == "bad":
                raise PeerError("no")

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        parts.TYPES["test/owned-tally"] = Owned
        await engine.start(chain("test/owned-tally", {}))
        await anyio.sleep(0.095)
        with pytest.raises(ReloadError, match="no"):
            await engine.apply(chain("test/owned-tally", {"kind": "bad"}))
        await anyio.sleep(0.095)
        values = Keep.kept["keep"]
        assert values == [sum(range(n + 1)) for n in range(len(values))]

    try:
        run(main)
    finally:
        del parts.TYPES["test/owned-tally"]


# --- values that were given up ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["busy", "slow"])
def test_values_that_were_given_up_are_not_taken_later(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while they wait for a busy thread, nor when the call that takes them comes back."""
    monkeypatch.setattr("flowstream.runtime.switching.TAKE_SECONDS", 0.1)

    async def main() -> None:
        async with Engine.open() as engine:
            await engine.start(chain("test/slow-taker", {"kind": kind}, overflow="drop-oldest"))
            runner = engine.runners["mid"]
            monkeypatch.setattr(runner, "accepts", takes_all)
            if kind == "busy":
                assert await anyio.to_thread.run_sync(SlowTaker.hangs.wait, 5)
            with pytest.raises(ReloadError, match="mid did not take its new values: no answer"):
                await engine.apply(chain("test/slow-taker", {"kind": kind, "add": 5}, overflow="drop-oldest"))
            assert engine.status()["mid"].config["add"] == 0
            seen = runner.received
            SlowTaker.gate.set()
            with anyio.fail_after(5):
                while runner.received < seen + 5:  # noqa: ASYNC110 - the node tells nobody
                    await anyio.sleep(0.005)
            assert runner.node.config.add == 0  # type: ignore[attr-defined]
            assert SlowTaker.taken == ([] if kind == "busy" else [5, 0])
            assert set(Keep.kept["keep"]) == {0}
            assert engine.runners["mid"] is runner

    run_real(main)


async def takes_all(config: Config) -> None:
    """Stands for an answer that came in time."""


# --- nothing is lost before the wiring --------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["start", "reload"])
def test_what_a_node_gives_before_its_edges_are_there_waits_for_them(moment: str) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        if moment == "reload":
            await engine.start(chain("test/add", {}))
            await anyio.sleep(0.055)
        before = len(Keep.kept.get("keep", ()))
        await (engine.apply if moment == "reload" else engine.start)(chain("test/early", {}))
        await anyio.sleep(0.05)
        come = [value for value in Keep.kept["keep"][before:] if value < -1]
        assert come == [-13, -12, -11]

    run(main)


def test_a_node_that_gives_before_it_says_that_it_is_ready_is_told() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        with pytest.raises(NodeError, match="test/early gave a payload before it was ready"):
            await engine.start(chain("test/early", {"kind": "too early"}))

    run(main)


def test_a_keyframe_request_waits_for_a_node_that_asks_for_requests_later() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan({"asks": ("test/asks", {}), "watch": ("test/watch", {})}, {"watch.packets": "asks.out"})
        )
        await anyio.sleep(0.1)
        assert [packet.data for packet in Watch.seen["watch"]] == [b"key"]

    run(main)


def test_a_keyframe_request_waits_for_a_node_with_inputs_too() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {"count": ("test/counter", {}), "asks": ("test/asks-inside", {}), "watch": ("test/watch", {})},
                {"asks.numbers": "count.out", "watch.packets": "asks.out"},
            )
        )
        await anyio.sleep(0.1)
        assert [packet.data for packet in Watch.seen["watch"]] == [b"key"]

    run(main)


# --- sources that are faster than time --------------------------------------------------------------------------------


def films(*, restart: Restart | None = None, **sources: tuple[str, str]) -> Plan:
    """An offline graph: by id of the consumer, the id and the kind of the film that it takes."""
    nodes: dict[str, Any] = {}
    for consumer, (source, kind) in sources.items():
        nodes[source] = ("test/film", {"device": "1000", "kind": kind}, restart)
        nodes[consumer] = ("test/times", {})
    return plan(nodes, {f"{each}.numbers": f"{source}.out" for each, (source, _) in sources.items()}, is_live=False)


@pytest.mark.parametrize("successor", [("a", "another"), ("b", "one")], ids=["replaced", "another node"])
def test_a_source_begins_where_the_faster_than_time_one_in_its_place_stopped(successor: tuple[str, str]) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(films(x=("a", "one")))
        await anyio.sleep(0.505)
        await engine.apply(films(x=successor))
        await anyio.sleep(0.505)
        times = Times.seen["x"]
        assert len(times) > 90
        assert times == [40 * number for number in range(len(times))]

    run(main)


def test_a_source_that_comes_beside_others_begins_where_they_are() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(films(x=("a", "one")))
        await anyio.sleep(0.505)
        await engine.apply(films(x=("a", "one"), y=("b", "one")))
        begun = Times.seen["x"][-1]
        await anyio.sleep(0.105)
        assert begun < Times.seen["y"][0] <= begun + 6 * 40  # as many as may wait, and the one that waits for room
        assert Times.seen["y"][0] > 1_500  # though only half a second has gone by

    run(main)


def test_a_restarted_source_begins_where_it_broke() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        restart = Restart("any", first_ns=1_000_000, max_ns=1_000_000)
        await engine.start(films(restart=restart, x=("a", "breaks")))
        await anyio.sleep(0.505)
        times = Times.seen["x"]
        assert len(times) > 45
        assert times == [40 * number for number in range(len(times))]

    run(main)


def test_what_comes_after_a_handover_took_too_long_is_counted() -> None:
    class SlowNode(Node[AddConfig], type="test/slow-node"):
        """Takes 2 s to end, then gives three numbers."""

        numbers = Input(Record)
        sums = Output(Record)

        async def run(self, ctx: Context) -> None:
            ctx.ready()
            async for item in ctx.stream(self.numbers):
                await ctx.emit(self.sums(item))
            await anyio.sleep(2)
            for number in (-5, -6, -7):
                await ctx.emit(self.sums(Record(number, 0)))

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        parts.TYPES["test/slow-node"] = SlowNode
        await engine.start(chain("test/slow-node", {}))
        await anyio.sleep(0.095)
        await engine.apply(chain("test/add", {}))
        await anyio.sleep(3)
        assert engine.status()["keep"].dropped["reload-deadline"] == 3
        assert min(Keep.kept["keep"]) == 0
        (channel,) = engine.runners["keep"].inbox.channels.values()
        counts = channel.counts()
        assert counts["received"] == counts["delivered"] + counts["dropped"] + counts["queued"]

    try:
        run(main)
    finally:
        del parts.TYPES["test/slow-node"]


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_plan_that_would_drop_what_is_held_says_how_to_keep_it() -> None:
    def held(name: str) -> Plan:
        return plan({"count": ("test/counter", {}), name: ("test/hold", {})}, {f"{name}.numbers": "count.out"})

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(held("hold"))
        lines = describe(engine.preview(held("page")))
        assert lines[-1] == "hint: if page is hold under another name, 'was: hold' on it keeps what it holds"
        nodes = held("page").nodes
        kept = replace(held("page"), nodes={**nodes, "page": replace(nodes["page"], was="hold")})
        assert not any("hint" in line for line in describe(engine.preview(kept)))

    run(main)
