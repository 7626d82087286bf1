"""A plan at work: order, ends, failures, restarts, stopping."""

import anyio
import anyio.lowlevel
import pytest

from flowstream import Context, NodeError, Record
from flowstream.graph.plan import Restart
from flowstream.runtime.engine import READY_SECONDS, Engine, ReloadError
from flowstream.runtime.events import Event, NodeFailed, NodeRestarted
from flowstream.testing.clock import VirtualClock
from tests.runtime.parts import Busy, Counter, Keep, plan, run, run_real

pytestmark = pytest.mark.usefixtures("backend")


def test_what_a_source_makes_comes_out_changed_and_the_graph_ends_by_itself() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {"count": ("test/counter", {"count": 3}), "add": ("test/add", {"add": 10}), "keep": ("test/keep", {})},
                {"add.numbers": "count.out", "keep.numbers": "add.sums"},
            )
        )
        await engine.wait()
        assert Keep.kept["keep"] == [10, 11, 12, -1]
        assert Keep.closed == ["keep"]
        assert {id: status.state for id, status in engine.status().items()} == dict.fromkeys(
            ("count", "add", "keep"), "ended"
        )
        assert engine.state == "ended"

    run(main)


@pytest.mark.parametrize("type_id", ["test/add", "test/threaded-add"])
def test_a_thread_changes_nothing_but_where_the_work_is_done(type_id: str) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {"count": ("test/counter", {"count": 50}), "add": (type_id, {}), "keep": ("test/keep", {})},
                {"add.numbers": "count.out", "keep.numbers": "add.sums"},
            )
        )
        await engine.wait()
        assert Keep.kept["keep"] == [*range(50), -1]

    run(main)


def test_a_block_edge_loses_nothing_even_when_its_consumer_is_far_slower() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {"count": ("test/counter", {"count": 100}), "keep": ("test/keep", {})},
                {"keep.numbers": "count.out"},
                items=1,
            )
        )
        await engine.wait()
        assert Keep.kept["keep"] == list(range(100))
        assert engine.status()["keep"].dropped == {}

    run(main)


def test_a_payload_of_an_async_handler_does_not_take_a_turn_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many go on in one turn as the edge holds: between nodes that do not wait, nobody else is let in for each."""
    turns, taken = 0, 0

    async def consume(self: Keep, item: Record[int]) -> None:
        nonlocal taken
        taken += 1

    async def run_fast(self: Counter, ctx: Context) -> None:
        for number in range(1000):
            await ctx.emit(self.out(Record(number, number)))

    monkeypatch.setattr(Keep, "consume", consume)
    monkeypatch.setattr(Counter, "run", run_fast)

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        async def count() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            edges = {"keep.numbers": "count.out"}
            await engine.start(plan({"count": ("test/counter", {}), "keep": ("test/keep", {})}, edges, items=50))
            await engine.wait()
            tasks.cancel_scope.cancel()
        assert taken == 1000
        assert turns < 500

    run(main)


def test_a_slow_consumer_does_not_delay_its_sibling() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {
                    "count": ("test/counter", {"count": 100}),
                    "slow": ("test/keep", {"slow": True}),
                    "quick": ("test/keep", {}),
                },
                {"slow.numbers": "count.out", "quick.numbers": "count.out"},
                overflow="drop-oldest",
                items=2,
            )
        )
        await anyio.sleep(2)
        assert Keep.kept["quick"] == list(range(100))
        assert Keep.kept["slow"] == [0]
        assert engine.status()["slow"].dropped == {"overflow": 97}

    run(main)


def test_a_node_that_cannot_open_stops_the_start_and_leaves_nothing_running() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        with pytest.raises(NodeError, match=r"add \(test/busy\): the adder is broken"):
            await engine.start(
                plan(
                    {
                        "count": ("test/counter", {}),
                        "add": ("test/busy", {"kind": "broken"}),
                        "keep": ("test/keep", {}),
                    },
                    {"add.numbers": "count.out", "keep.numbers": "add.sums"},
                )
            )
        assert Keep.closed == ["keep"]
        assert Busy.holder is None

    run(main)


def test_a_node_that_needs_asyncio_says_so_on_trio(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keep, "asyncio_only", True)

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        keeping = plan({"count": ("test/counter", {}), "keep": ("test/keep", {})}, {"keep.numbers": "count.out"})
        if backend == "asyncio":
            await engine.start(keeping)
            return
        with pytest.raises(NodeError, match=r"keep \(test/keep\): this node type needs asyncio, but the program runs"):
            await engine.start(keeping)
        await engine.start(plan({"count": ("test/counter", {})}, {}))
        with pytest.raises(ReloadError, match="needs asyncio"):
            await engine.apply(keeping)
        assert list(engine.runners) == ["count"]

    run(main)


def test_a_node_that_never_gets_ready_is_named_after_a_while() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        began_ns = clock.now_ns()
        with pytest.raises(NodeError, match=r"stuck \(test/stuck\) was not ready within 30 s"):
            await engine.start(
                plan({"stuck": ("test/stuck", {}), "keep": ("test/keep", {})}, {"keep.numbers": "stuck.out"})
            )
        assert clock.now_ns() - began_ns == READY_SECONDS * 1e9

    run(main)


def test_a_failed_node_says_what_depended_on_it_and_a_live_graph_goes_on() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {
                    "count": ("test/counter", {}),
                    "bad": ("test/keep", {"fail_at": 3}),
                    "good": ("test/keep", {}),
                },
                {"bad.numbers": "count.out", "good.numbers": "count.out"},
            )
        )
        await anyio.sleep(1)
        (event,) = events
        assert isinstance(event, NodeFailed)
        assert str(event.error) == "bad (test/keep): RuntimeError: cannot keep that"
        assert engine.state == "degraded"
        assert engine.status()["bad"].state == "failed"
        assert len(Keep.kept["good"]) >= 99

    run(main)


def test_when_every_source_has_failed_the_graph_ends_and_sinks_are_closed() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {"count": ("test/counter", {"fail_at": 2}), "add": ("test/add", {}), "keep": ("test/keep", {})},
                {"add.numbers": "count.out", "keep.numbers": "add.sums"},
            )
        )
        await engine.wait()
        (event,) = events
        assert isinstance(event, NodeFailed)
        assert event.dependents == ("add",)
        assert Keep.kept["keep"] == [0, 1, -1]
        assert [failure.node for failure in engine.failures] == ["count"]

    run(main)


def test_when_a_transform_fails_offline_nothing_hangs() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {"count": ("test/counter", {"count": 40}), "bad": ("test/keep", {"fail_at": 3})},
                {"bad.numbers": "count.out"},
                items=1,
                is_live=False,
            )
        )
        with anyio.fail_after(10):
            await engine.wait()
        assert engine.status()["bad"].state == "failed"

    run(main)


def test_a_lost_peer_is_tried_again_with_growing_waits() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        restart = Restart(on="peer", first_ns=10**9, max_ns=4 * 10**9, limit=3)
        await engine.start(
            plan(
                {"count": ("test/counter", {"fail_at": 0, "peer": True}, restart), "keep": ("test/keep", {})},
                {"keep.numbers": "count.out"},
            )
        )
        began_ns = clock.now_ns()
        await engine.wait()
        waits = [event.retry_in_ns for event in events if isinstance(event, NodeFailed)]
        assert waits == [10**9, 2 * 10**9, 4 * 10**9, None]
        assert clock.now_ns() - began_ns == 7 * 10**9
        assert [event.node for event in events if isinstance(event, NodeRestarted)] == ["count"] * 3

    run(main)


def test_on_the_clock_of_the_machine_waits_are_spread_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowstream.runtime.engine.random.random", lambda: 0.5)

    async def main() -> None:
        events: list[Event] = []
        async with Engine.open() as engine:
            engine.listen(events.append)
            restart = Restart(on="peer", first_ns=8_000_000, max_ns=8_000_000, limit=1)
            gone = ("test/counter", {"fail_at": 0, "peer": True}, restart)
            await engine.start(plan({"count": gone, "keep": ("test/keep", {})}, {"keep.numbers": "count.out"}))
            with anyio.fail_after(30):
                await engine.wait()
        assert [event.retry_in_ns for event in events if isinstance(event, NodeFailed)] == [7_000_000, None]

    run_real(main)


def test_a_node_that_fails_too_often_within_the_window_stays_down() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        restart = Restart(on="any", first_ns=10**9, max_ns=10**9, limit=2, window_ns=60 * 10**9)
        await engine.start(
            plan(
                {"count": ("test/counter", {"fail_at": 500}, restart), "keep": ("test/keep", {})},
                {"keep.numbers": "count.out"},
            )
        )
        await engine.wait()
        waits = [event.retry_in_ns for event in events if isinstance(event, NodeFailed)]
        assert waits == [10**9, 10**9, None], "each time it ran for 5 s before"
        assert engine.status()["count"].state == "failed"

    run(main)


def test_no_source_begins_before_every_node_is_ready() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        async def open_late(self: Keep) -> None:
            Keep.kept.setdefault(self.ctx.name, [])
            assert not Keep.kept.get("early")
            await anyio.sleep(2)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Keep, "open", open_late)
            await engine.start(
                plan(
                    {"count": ("test/counter", {"count": 3}), "early": ("test/keep", {}), "late": ("test/keep", {})},
                    {"early.numbers": "count.out", "late.numbers": "count.out"},
                )
            )
        assert Keep.kept == {"early": [], "late": []}
        await engine.wait()
        assert Keep.kept == {"early": [0, 1, 2], "late": [0, 1, 2]}

    run(main)


def test_a_restarted_source_feeds_the_same_consumer() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        restart = Restart(on="end", first_ns=10**9, max_ns=10**9)
        await engine.start(
            plan(
                {"count": ("test/counter", {"count": 2}, restart), "keep": ("test/keep", {})},
                {"keep.numbers": "count.out"},
            )
        )
        await anyio.sleep(2.5)
        assert Keep.kept["keep"] == [0, 1, 0, 1, 0, 1]
        assert engine.status()["count"].restarts == 2

    run(main)


def test_a_bug_is_not_restarted_as_if_the_peer_had_left() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {"count": ("test/counter", {"fail_at": 1}, Restart(on="peer")), "keep": ("test/keep", {})},
                {"keep.numbers": "count.out"},
            )
        )
        await engine.wait()
        (event,) = events
        assert isinstance(event, NodeFailed)
        assert event.retry_in_ns is None

    run(main)


def test_stopping_drains_what_is_under_way() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {"count": ("test/counter", {}), "add": ("test/add", {}), "keep": ("test/keep", {})},
                {"add.numbers": "count.out", "keep.numbers": "add.sums"},
            )
        )
        await anyio.sleep(0.1)
        assert await engine.stop()
        assert Keep.kept["keep"][-1] == -1
        assert Keep.closed == ["keep"]
        assert engine.failures == []

    run(main)


def test_stopping_takes_bounded_time_whatever_is_stuck() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {"count": ("test/counter", {}), "keep": ("test/keep", {"slow": True})},
                {"keep.numbers": "count.out"},
            )
        )
        await anyio.sleep(0.1)
        began_ns = clock.now_ns()
        assert not await engine.stop(drain_seconds=3)
        assert clock.now_ns() - began_ns == 3 * 10**9

    run(main)


def test_emitting_to_another_nodes_output_is_a_named_failure() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(plan({"sound": ("test/sound", {})}, {}))
        await engine.wait()
        assert "emitted to <Output Counter.out>, which is not one of its outputs" in str(engine.failures[0])

    run(main)


def test_a_payload_that_the_output_does_not_carry_is_the_failure_of_its_giver() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(plan({"wrong": ("test/wrong", {})}, {}))
        await engine.wait()
        assert "test/wrong gave Record on out, which carries AudioFrame" in str(engine.failures[0])

    run(main)
