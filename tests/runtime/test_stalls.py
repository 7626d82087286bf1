"""Real engines on virtual time: what stalls is told once, with its cause, and once more when it goes on."""

from collections.abc import Awaitable, Callable

import anyio
import pytest

from flowstream.graph.plan import Plan
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Event, Recovered, Refused, Stalled
from flowstream.runtime.reload import Revisions
from flowstream.runtime.runner import Runner
from flowstream.runtime.stalls import Stalls
from flowstream.runtime.stats import Statistics
from flowstream.runtime.why import verdict
from flowstream.testing.clock import VirtualClock, run_virtual
from tests.runtime.flows import SOON, flow
from tests.runtime.parts import Loop

pytestmark = pytest.mark.usefixtures("backend")


class Watched:
    """An engine with a plan, its statistics, and what was told."""

    def __init__(self, engine: Engine, clock: VirtualClock) -> None:
        self.engine = engine
        self.clock = clock
        self.revisions = Revisions("6dfc9a0e1b2c", "6dfc9a0e1b2c")
        self.statistics = Statistics(engine)
        self.stalls = Stalls(self.statistics, self.revisions)
        self.events: list[Event] = []
        engine.listen(self.events.append)

    @property
    def sentences(self) -> list[str]:
        return [cause.sentence for cause in self.stalls.causes()]

    @property
    def stalled(self) -> list[str]:
        return [event.cause.kind for event in self.events if isinstance(event, Stalled)]

    @property
    def recovered(self) -> list[str]:
        return [event.cause.kind for event in self.events if isinstance(event, Recovered)]


def watch(plan: Plan, main: Callable[[Watched], Awaitable[None]]) -> None:
    """Runs a plan and, beside it, the one who looks at it each second."""

    async def call(clock: VirtualClock) -> None:
        async with Engine.open(clock=clock) as engine, anyio.create_task_group() as tasks:
            watched = Watched(engine, clock)
            await engine.start(plan)
            tasks.start_soon(watched.stalls.run)
            await main(watched)
            await engine.stop(drain_seconds=0)
            tasks.cancel_scope.cancel()

    run_virtual(call, backend=Loop.backend)


CHAIN = {"encode": ("test/relay", {}), "out": ("test/taker", {})}
WIRES = {"encode.video": "screen.out", "out.video": "encode.out"}


def test_a_graph_that_flows_is_well() -> None:
    async def main(watched: Watched) -> None:
        await anyio.sleep(30)
        assert watched.sentences == []
        assert watched.events == []
        view = watched.stalls.view()
        assert verdict(view, ()) == ["all is well: 3 nodes work and nothing waits for long"]
        assert verdict(view, (), "encode") == ["encode is well: it takes 50/s from screen, out takes 50/s from it"]

    watch(flow({"screen": ("test/pictures", {}), **CHAIN}, WIRES), main)


@pytest.mark.parametrize("relay", ["test/relay", "test/thread-relay"])
def test_a_silent_source_is_told_once_and_so_is_its_return(relay: str) -> None:
    async def main(watched: Watched) -> None:
        await anyio.sleep(9)  # it falls silent after 4 s, the looks are a second apart
        (sentence,) = watched.sentences
        since = sentence.rpartition(" ")[2]
        assert sentence == (
            f"out is starved: encode has waited 5 s for screen, which has delivered nothing since {since}"
        )
        assert watched.stalled == ["silent-source"]
        await anyio.sleep(30)
        assert watched.stalled == ["silent-source"]
        assert watched.recovered == []
        await anyio.sleep(10)  # it was silent for 40 s
        assert watched.sentences == []
        assert watched.recovered == ["silent-source"]

    pictures = ("test/pictures", {"pause_at": 200, "pause": 40})
    watch(flow({"screen": pictures, "encode": (relay, {}), "out": ("test/taker", {})}, WIRES), main)


def test_a_transform_that_gives_nothing() -> None:
    async def main(watched: Watched) -> None:
        await anyio.sleep(10)
        (cause,) = watched.stalls.causes()
        assert (cause.kind, cause.node, cause.chain) == ("starvation", "encode", ("out", "encode"))
        assert "encode, which takes what screen gives and has delivered nothing since" in cause.sentence

    watch(flow({"screen": ("test/pictures", {}), "encode": ("test/half", {}), "out": ("test/taker", {})}, WIRES), main)


def test_a_sink_that_takes_nothing_any_more() -> None:
    async def main(watched: Watched) -> None:
        await anyio.sleep(10)
        (cause,) = watched.stalls.causes()
        assert (cause.kind, cause.node) == ("slow-consumer", "out")
        assert cause.sentence.startswith("out has taken nothing since ")
        assert cause.sentence.endswith(
            "(8 s): it is still busy with what it took last, and 4 wait on out.video; 50/s are dropped there"
        )
        await anyio.sleep(20)
        assert watched.sentences == []
        assert (watched.stalled, watched.recovered) == (["slow-consumer"], ["slow-consumer"])

    out = ("test/taker", {"stall_at": 100, "stall": 20})
    watch(flow({"screen": ("test/pictures", {}), "out": out}, {"out.video": "screen.out"}), main)


def test_a_consumer_that_blocks_stops_the_others() -> None:
    async def main(watched: Watched) -> None:
        await anyio.sleep(10)
        (cause,) = watched.stalls.causes()
        assert (cause.kind, cause.node) == ("blocked-siblings", "tape")
        assert cause.sentence.startswith("tape holds up out: it has taken nothing since ")
        assert cause.sentence.endswith(
            "4 wait on tape.video; tape.video makes encode wait (overflow: block), and with it all that take from it"
        )

    nodes = {"screen": ("test/pictures", {}), **CHAIN, "tape": ("test/taker", {"stall_at": 100})}
    watch(flow(nodes, {**WIRES, "tape.video": "encode.out"}, block=("tape.video",)), main)


def test_a_consumer_that_blocks_slows_the_others() -> None:
    async def main(watched: Watched) -> None:
        await anyio.sleep(10)
        (cause,) = watched.stalls.causes()
        assert cause.sentence == (
            "tape holds up out: it takes only 10/s; tape.video makes screen wait (overflow: block), "
            "and with it all that take from it"
        )

    nodes = {"screen": ("test/pictures", {}), "out": ("test/taker", {}), "tape": ("test/taker", {"each_ms": 100})}
    watch(flow(nodes, {"out.video": "screen.out", "tape.video": "screen.out"}, block=("tape.video",)), main)


def test_a_slow_consumer_that_drops() -> None:
    async def main(watched: Watched) -> None:
        await anyio.sleep(10)
        assert watched.sentences == ["out takes 10/s of the 50/s that screen gives; out.video drops 40/s (overflow)"]
        assert watched.stalled == ["drop-storm"]

    out = ("test/taker", {"each_ms": 100})
    watch(flow({"screen": ("test/pictures", {}), "out": out}, {"out.video": "screen.out"}), main)


def test_a_slow_consumer_that_only_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processor time stands for what a run in real time measures; on virtual time work takes none."""
    used_ns: dict[str, Callable[[], int]] = {}
    monkeypatch.setattr(Runner, "cpu_ns", property(lambda runner: used_ns.get(runner.planned.id, int)()))

    async def main(watched: Watched) -> None:
        used_ns["out"] = lambda: watched.clock.now_ns() * 97 // 100
        await anyio.sleep(10)
        assert watched.sentences == [
            "out takes 10/s of the 50/s that screen gives (computing without a pause: 97% of a processor); "
            "out.video drops 40/s (overflow)"
        ]

    out = ("test/taker", {"each_ms": 100})
    watch(flow({"screen": ("test/pictures", {}), "out": out}, {"out.video": "screen.out"}), main)


def test_edges_that_block_lock_a_diamond() -> None:
    async def main(watched: Watched) -> None:
        await anyio.sleep(10)
        (cause,) = watched.stalls.causes()
        assert (cause.kind, cause.node) == ("deadlock", "screen")
        assert set(cause.chain) == {"screen", "left", "join", "right"}
        _, _, steps = cause.sentence.partition(": ")
        assert steps == (
            "screen waits for left to take what is on left.video, left waits for join to take what is on join.left, "
            "join waits for right and right waits for screen; "
            "raise limit: of left.video, or let it drop (overflow: drop-oldest)"
        )
        assert watched.stalled == ["deadlock"]

    nodes = {
        "screen": ("test/pictures", {}),
        "left": ("test/relay", {}),
        "right": ("test/half", {"keep": 50}),  # what it lacks keeps the join from the left
        "join": ("test/join", {"ahead": 3}),
    }
    wires = {
        "left.video": "screen.out",
        "right.video": "screen.out",
        "join.left": "left.out",
        "join.right": "right.out",
    }
    nodes["right"] = ("test/relay", {})
    watch(flow(nodes, wires, block=tuple(wires), items=2), main)


def test_a_source_that_fails_and_is_started_again() -> None:
    async def main(watched: Watched) -> None:
        await anyio.sleep(2.5)  # it fails after 2 s and is tried again 2 s later
        (sentence,) = watched.sentences
        assert sentence.startswith("out is starved: encode has waited 520 ms for screen, which has delivered nothing ")
        assert sentence.endswith("; the X server closed the connection; next attempt in 1.5 s")
        assert watched.stalled == [], "the failure is an event of its own"
        await anyio.sleep(1.9)
        assert watched.sentences == []
        await anyio.sleep(8)  # the third failure
        (cause,) = watched.stalls.causes()
        assert cause.kind == "restart-loop"
        assert "has failed 3 times in the last minute" in cause.sentence
        assert watched.stalled == ["restart-loop"]
        await anyio.sleep(60)
        assert watched.stalled == ["restart-loop"], "told once, though it runs in between"

    screen = ("test/pictures", {"fail_after": 100}, SOON)
    watch(flow({"screen": screen, **CHAIN}, WIRES), main)


def test_a_source_that_fails_for_good() -> None:
    async def main(watched: Watched) -> None:
        await anyio.sleep(6)
        (cause,) = watched.stalls.causes()
        assert (cause.kind, cause.node) == ("refused-peer", "screen")
        assert cause.sentence.endswith(
            "; the X server closed the connection; it stays down until it is changed in the graph"
        )
        assert verdict(watched.stalls.view(), [cause], "encode") == [cause.sentence]

    nodes = {"screen": ("test/pictures", {"fail_after": 100}), **CHAIN}
    others = {"camera": ("test/pictures", {}), "view": ("test/taker", {})}
    watch(flow(nodes | others, {**WIRES, "view.video": "camera.out"}), main)


def test_a_refused_save_is_a_cause() -> None:
    async def main(watched: Watched) -> None:
        watched.revisions.file, watched.revisions.refused = "0a1b2c3d4e5f", "2 findings in the file"
        watched.engine.tell(Refused("0a1b2c3d4e5f", "2 findings in the file"))
        await anyio.sleep(3)
        (cause,) = watched.stalls.causes()
        assert cause.sentence.startswith("the file holds 0a1b2c3d4e5f, which was refused at ")
        assert cause.sentence.endswith(": 2 findings in the file; 6dfc9a0e1b2c goes on")
        assert watched.stalled == []

    watch(flow({"screen": ("test/pictures", {}), **CHAIN}, WIRES), main)


def test_a_graph_that_has_ended_is_not_stalled() -> None:
    async def main(watched: Watched) -> None:
        await watched.engine.wait()
        await anyio.sleep(30)
        assert watched.sentences == []
        assert watched.events == []
        assert verdict(watched.stalls.view(), ()) == ["the graph has come to its end"]

    watch(flow({"screen": ("test/pictures", {"count": 100}), **CHAIN}, WIRES), main)
