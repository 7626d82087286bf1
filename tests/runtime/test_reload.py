"""One plan in the place of another: what is kept is not touched, all or nothing."""

import anyio
import pytest

from flowstream.graph.plan import Plan, Serve
from flowstream.runtime.engine import Engine, ReloadError
from flowstream.runtime.events import Applied, Event
from flowstream.testing.clock import VirtualClock
from tests.runtime.parts import Busy, Hold, Keep, Watch, plan, run

pytestmark = pytest.mark.usefixtures("backend")


def chain(
    count: dict[str, object] | None = None, add: dict[str, object] | None = None, add_type: str = "test/add"
) -> Plan:
    return plan(
        {"count": ("test/counter", count or {}), "add": (add_type, add or {}), "keep": ("test/keep", {})},
        {"add.numbers": "count.out", "keep.numbers": "add.sums"},
    )


def test_a_live_field_changes_in_place_and_nothing_else_is_touched() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain())
        before = dict(engine.runners)
        await anyio.sleep(0.095)
        patch = await engine.apply(chain(add={"add": 1000}))
        await anyio.sleep(0.1)
        assert {c.node: c.action for c in patch.changes} == {"count": "keep", "add": "update", "keep": "keep"}
        assert engine.runners == before
        assert Keep.kept["keep"][:20] == [*range(10), *range(1010, 1020)]
        assert isinstance(events[-1], Applied)

    run(main)


def test_a_replaced_transform_loses_nothing_and_its_tail_comes_first() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain())
        await anyio.sleep(0.095)
        await engine.apply(chain(add={"add": 1000, "kind": "b"}))
        await anyio.sleep(0.1)
        assert Keep.kept["keep"][:21] == [*range(10), -1, *range(1010, 1020)]

    run(main)


def test_a_replaced_source_leaves_the_rest_running() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain())
        keep = engine.runners["keep"]
        await anyio.sleep(0.095)
        await engine.apply(chain(count={"count": 3}))
        await engine.wait()
        assert engine.runners["keep"] is keep
        assert Keep.kept["keep"] == [*range(10), 0, 1, 2, -1]

    run(main)


def test_a_consumer_is_added_and_removed_beside_a_running_one() -> None:
    both = plan(
        {"count": ("test/counter", {}), "a": ("test/keep", {}), "b": ("test/keep", {})},
        {"a.numbers": "count.out", "b.numbers": "count.out"},
    )
    one = plan({"count": ("test/counter", {}), "a": ("test/keep", {})}, {"a.numbers": "count.out"})

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(one)
        await anyio.sleep(0.095)
        await engine.apply(both)
        await anyio.sleep(0.1)
        await engine.apply(one)
        await anyio.sleep(0.1)
        assert Keep.kept["a"] == list(range(30))
        assert Keep.kept["b"] == list(range(10, 20))
        assert Keep.closed == ["b"]

    run(main)


def test_a_consumer_is_rewired_to_another_producer() -> None:
    nodes = {
        "one": ("test/counter", {}),
        "two": ("test/counter", {"step": 100}),
        "keep": ("test/keep", {}),
        "rest": ("test/keep", {}),
    }

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(plan(nodes, {"keep.numbers": "one.out", "rest.numbers": "two.out"}))
        await anyio.sleep(0.095)
        await engine.apply(plan(nodes, {"keep.numbers": "two.out", "rest.numbers": "one.out"}))
        await anyio.sleep(0.1)
        assert Keep.kept["keep"] == [*range(10), *range(1000, 2000, 100)]

    run(main)


def test_a_new_node_that_cannot_open_changes_nothing() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        running = chain()
        await engine.start(running)
        await anyio.sleep(0.095)
        broken = plan(
            {
                "count": ("test/counter", {"step": 7}),
                "add": ("test/busy", {"kind": "broken"}),
                "keep": ("test/keep", {}),
            },
            {"add.numbers": "count.out", "keep.numbers": "add.sums"},
        )
        with pytest.raises(ReloadError, match="the adder is broken"):
            await engine.apply(broken)
        await anyio.sleep(0.1)
        assert engine.plan is running
        assert Keep.kept["keep"] == list(range(20))
        assert events == []

    run(main)


def test_a_live_value_that_is_not_taken_undoes_those_that_were() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain({"fail_step": 5}))
        await anyio.sleep(0.095)
        changed = plan(
            {
                "add": ("test/add", {"add": 1000}),
                "count": ("test/counter", {"step": 5, "fail_step": 5}),
                "keep": ("test/keep", {}),
            },
            {"add.numbers": "count.out", "keep.numbers": "add.sums"},
        )
        with pytest.raises(ReloadError, match="count did not take its new values: cannot step so"):
            await engine.apply(changed)
        await anyio.sleep(0.1)
        assert Keep.kept["keep"] == list(range(20))
        assert engine.status()["add"].config["add"] == 0

    run(main)


def test_a_live_value_that_the_instance_refuses_replaces_it() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain({"refuse_step": 2}))
        count = engine.runners["count"]
        await anyio.sleep(0.095)
        await engine.apply(chain({"refuse_step": 2, "step": 2}))
        await anyio.sleep(0.045)
        assert engine.runners["count"] is not count
        assert Keep.kept["keep"] == [*range(10), 0, 2, 4, 6, 8]

    run(main)


def test_what_can_only_be_opened_once_is_broken_before_it_is_made_and_comes_back_when_that_fails() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain(add_type="test/busy"))
        await anyio.sleep(0.095)
        await engine.apply(chain(add={"kind": "b", "add": 100}, add_type="test/busy"))
        await anyio.sleep(0.1)
        with pytest.raises(ReloadError, match="the adder is broken"):
            await engine.apply(chain(add={"kind": "broken", "add": 200}, add_type="test/busy"))
        await anyio.sleep(0.1)
        kept = [number for number in Keep.kept["keep"] if number >= 0]
        assert kept == [*range(10), *range(110, 130)]
        assert Busy.holder is engine.runners["add"].node
        assert engine.state == "running"

    run(main)


def test_a_failed_node_is_given_another_chance_by_an_edit_of_it() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain(count={"fail_at": 3}))
        other = plan(
            {"count": ("test/counter", {"fail_at": 3}), "more": ("test/counter", {}), "keep": ("test/keep", {})},
            {"keep.numbers": "more.out"},
        )
        await engine.apply(other)
        await anyio.sleep(0.1)
        assert engine.state == "degraded"
        await engine.apply(
            plan(
                {"count": ("test/counter", {}), "more": ("test/counter", {}), "keep": ("test/keep", {})},
                {"keep.numbers": "count.out"},
            )
        )
        await anyio.sleep(0.1)
        assert engine.state == "running"
        assert Keep.kept["keep"][-3:] == [7, 8, 9]

    run(main)


def encoded(name: str = "a", *, watchers: tuple[str, ...] = ("watch",)) -> Plan:
    return plan(
        {
            "count": ("test/counter", {}),
            "encode": ("test/encode", {"name": name}),
            **{watcher: ("test/watch", {}) for watcher in watchers},
        },
        {"encode.numbers": "count.out", **{f"{watcher}.packets": "encode.packets" for watcher in watchers}},
    )


def test_a_replaced_encoder_goes_on_at_a_keyframe_with_growing_times_and_no_gap() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(encoded())
        await anyio.sleep(0.095)
        await engine.apply(encoded("b"))
        await anyio.sleep(0.1)
        packets = Watch.seen["watch"]
        assert [p.data.decode() for p in packets] == [f"a{n}" for n in range(10)] + [f"b{n}" for n in range(10, 20)]
        assert packets[10].keyframe
        assert [p.time_ns for p in packets] == sorted({p.time_ns for p in packets})

    run(main)


def test_an_added_consumer_of_encoded_pictures_begins_at_a_keyframe_at_once() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(encoded())
        await anyio.sleep(0.095)
        await engine.apply(encoded(watchers=("watch", "late")))
        await anyio.sleep(0.1)
        first = Watch.seen["late"][0]
        assert first.keyframe
        assert first.data == b"a10"
        assert len(Watch.seen["watch"]) == 20

    run(main)


def holding(title: str) -> Plan:
    return plan({"count": ("test/counter", {}), "hold": ("test/hold", {"title": title})}, {"hold.numbers": "count.out"})


def test_a_holding_passes_to_the_successor_and_is_closed_with_the_last_of_them() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(holding("a"))
        await anyio.sleep(0.05)
        await engine.apply(holding("b"))
        await anyio.sleep(0.05)
        first, second = (line.partition(" has ")[2] for line in Hold.log if " has " in line)
        assert first == second
        assert Hold.log.count("open") == 1
        assert "close" not in Hold.log
        await engine.apply(
            plan({"count": ("test/counter", {}), "keep": ("test/keep", {})}, {"keep.numbers": "count.out"})
        )
        await anyio.sleep(0.05)
        assert Hold.log[-1] == "close"

    run(main)


def test_the_address_that_viewers_are_connected_to_does_not_change_under_them() -> None:
    from dataclasses import replace

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(chain())
        engine.mounts.listen = ("127.0.0.1", 8080)
        with pytest.raises(ReloadError, match="restart flowstream to serve elsewhere"):
            await engine.apply(replace(chain(), serve=Serve("127.0.0.1", 9999)))

    run(main)


def test_an_apply_that_is_cancelled_while_it_prepares_changes_nothing() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        running = chain()
        await engine.start(running)
        stuck = plan(
            {"stuck": ("test/stuck", {}), "add": ("test/add", {"add": 5}), "keep": ("test/keep", {})},
            {"add.numbers": "stuck.out", "keep.numbers": "add.sums"},
        )
        with anyio.move_on_after(1):
            await engine.apply(stuck)
        assert engine.plan is running
        await engine.apply(chain(add={"add": 1}))
        await anyio.sleep(0.1)
        assert engine.status()["add"].config["add"] == 1

    run(main)


def test_a_renamed_node_is_the_same_node_with_what_it_holds() -> None:
    from dataclasses import replace

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(holding("a"))
        await anyio.sleep(0.05)
        runner = engine.runners["hold"]
        other = plan(
            {"count": ("test/counter", {}), "page": ("test/hold", {"title": "a"})}, {"page.numbers": "count.out"}
        )
        nodes = {**other.nodes, "page": replace(other.nodes["page"], was="hold")}
        await engine.apply(replace(other, nodes=nodes))
        assert engine.runners["page"] is runner
        assert engine.status()["page"].state == "running"
        nodes = {**nodes, "page": replace(nodes["page"], was="", config=type(nodes["page"].config)(title="b"))}
        await engine.apply(replace(other, nodes=nodes))
        await anyio.sleep(0.05)
        assert engine.runners["page"] is not runner
        assert Hold.log.count("open") == 1
        assert "close" not in Hold.log

    run(main)


def test_a_rewired_node_takes_its_new_live_values_too() -> None:
    nodes = {"one": ("test/counter", {}), "two": ("test/counter", {"step": 100}), "keep": ("test/keep", {})}

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        wires = {"add.numbers": "one.out", "keep.numbers": "add.sums"}
        await engine.start(plan({**nodes, "add": ("test/add", {})}, wires))
        add = engine.runners["add"]
        await anyio.sleep(0.095)
        await engine.apply(plan({**nodes, "add": ("test/add", {"add": 5})}, {**wires, "add.numbers": "two.out"}))
        await anyio.sleep(0.1)
        assert engine.runners["add"] is add
        assert Keep.kept["keep"] == [*range(10), *range(1005, 2005, 100)]

    run(main)


def test_what_an_instance_was_opened_with_decides_whether_it_takes_a_value_in_place() -> None:
    def at(rate: int) -> Plan:
        return plan(
            {"count": ("test/counter", {}), "encode": ("test/encode", {"rate": rate}), "watch": ("test/watch", {})},
            {"encode.numbers": "count.out", "watch.packets": "encode.packets"},
        )

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(at(10))
        for rate, action in ((3, "update"), (20, "update"), (21, "replace"), (42, "update")):
            patch = await engine.apply(at(rate))
            assert patch.of("encode").action == action, rate
            await anyio.sleep(0.05)

    run(main)
