"""Looking at an edge does not change what goes over it, whatever becomes of its ends."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from flowstream.graph.plan import Plan
from flowstream.media.pyav import AvHeaders
from flowstream.runtime.engine import Engine
from flowstream.runtime.tap import Tap, TapError, describe, png_of
from flowstream.testing.clock import VirtualClock, run_virtual
from flowstream.testing.media import make_frame, make_sound
from tests.runtime.flows import SOON, flow
from tests.runtime.parts import Loop

pytestmark = pytest.mark.usefixtures("backend")

NODES: dict[str, tuple[Any, ...]] = {"screen": ("test/pictures", {}), "out": ("test/taker", {})}
WIRES = {"out.video": "screen.out"}


def tapped(plan: Plan, main: Callable[[Engine], Awaitable[None]]) -> None:
    async def call(clock: VirtualClock) -> None:
        async with Engine.open(clock=clock) as engine:
            await engine.start(plan)
            await main(engine)

    run_virtual(call, backend=Loop.backend)


def test_one_who_does_not_take_misses_and_holds_nobody_up() -> None:
    async def main(engine: Engine) -> None:
        with Tap(engine, "out.video") as tap:
            await anyio.sleep(10.01)
            assert engine.status()["out"].received == 501, "the consumer got everything"
            assert tap.missed == 501 - 16
            packet = await tap.next(1)
            assert packet is not None
            assert packet.time_ns == pytest.approx(9.7e9, abs=2e7)
        assert len(engine.runners["screen"].outlets["out"].feeds) == 1

    tapped(flow(NODES, WIRES, block=("out.video",)), main)


def test_it_sees_what_the_edge_loses() -> None:
    async def main(engine: Engine) -> None:
        with Tap(engine, "out.video") as tap:
            for _ in range(100):
                assert await tap.next(1) is not None
            assert tap.missed == 0
            assert engine.status()["out"].received < 30

    tapped(flow({**NODES, "out": ("test/taker", {"each_ms": 100})}, WIRES), main)


def test_it_follows_a_restart_and_a_reload() -> None:
    async def main(engine: Engine) -> None:
        with Tap(engine, "out.video") as tap:
            came, silent = 0, 0
            for _ in range(500):
                came, silent = (came + 1, silent) if await tap.next(0.5) is not None else (came, silent + 1)
            assert (came, silent) == (480, 20), "it failed five times, for two seconds each, after a hundred each"
            assert came + tap.missed == 500 + engine.runners["screen"].outlets["out"].emitted
            await engine.apply(flow({"screen": ("test/pictures", {"each_us": 10_000}), "out": NODES["out"]}, WIRES))
            assert await tap.next(1) is not None
            while await tap.next(0) is not None:  # takes what waits
                pass
            await engine.apply(flow({"screen": NODES["screen"], "end": NODES["out"]}, {"end.video": "screen.out"}))
            with pytest.raises(TapError, match=r"^the edge out.video was taken out of the graph$"):
                await tap.next(1)

    tapped(flow({**NODES, "screen": ("test/pictures", {"fail_after": 100}, SOON)}, WIRES), main)


def test_an_output_is_tapped_without_an_edge_of_its_own() -> None:
    async def main(engine: Engine) -> None:
        with Tap(engine, "screen.out") as tap, Tap(engine, "screen") as same:
            assert (tap.edge.name, tap.edge.producer, same.edge.name) == ("screen.out", "screen", "screen.out")
            assert [await tap.next(1) for _ in range(10)] == [await same.next(1) for _ in range(10)]
            assert engine.status()["screen"].emitted["out"] >= 10
            await engine.apply(flow({"other": ("test/pictures", {}), "out": NODES["out"]}, {"out.video": "other.out"}))
            while tap._channel.poll() is not None:  # takes what waits
                pass
            with pytest.raises(TapError, match=r"^the output screen.out was taken out of the graph$"):
                await tap.next(1)

    tapped(flow(NODES, WIRES), main)


def test_a_name_that_means_several() -> None:
    async def main(engine: Engine) -> None:
        with pytest.raises(TapError, match=r"^join has 2 inputs: join.left and join.right$"):
            Tap(engine, "join")

    nodes = {"screen": ("test/pictures", {}), "join": ("test/join", {})}
    tapped(flow(nodes, {"join.left": "screen.out", "join.right": "screen.out"}), main)


def test_nobody_runs_yet() -> None:
    async def call(clock: VirtualClock) -> None:
        async with Engine.open(clock=clock) as engine:
            with pytest.raises(TapError, match="the graph is not running yet"):
                Tap(engine, "out.video")

    run_virtual(call, backend=Loop.backend)


@pytest.mark.parametrize("format", ["bgr24", "yuv420p", "gray", "bgra"])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (2, 2), (66, 50)])
def test_a_png_has_the_pixels(format: str, width: int, height: int) -> None:
    import cv2
    import numpy as np

    frame = make_frame(7, width=width, height=height, format=format)
    read = cv2.imdecode(np.frombuffer(png_of(frame), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(read[..., ::-1], frame.array("rgb24"))


def test_a_png_of_a_frame_in_a_format_without_an_array() -> None:
    import cv2
    import numpy as np

    from flowstream import VideoFrame

    deep = make_frame(3).to_av(AvHeaders()).reformat(format="yuv422p10le")
    picture = png_of(VideoFrame.from_av(deep, time_ns=0))
    read = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert read.shape == (48, 64, 3)
    assert abs(read.astype(int) - make_frame(3).array()).mean() < 4


def test_payloads_in_words() -> None:
    said = describe(make_sound(0, capture_ns=5), 1_000_005)
    assert (said["kind"], said["samples"], said["latency_ns"]) == ("AudioFrame", 960, 1_000_000)
    said = describe(make_frame(0), 9)
    assert (said["kind"], said["latency_ns"], said["size_bytes"]) == ("VideoFrame", None, 64 * 48 * 3)
    from flowstream import Record

    said = describe(Record("x" * 1000, 3), 9)
    assert (said["kind"], said["caps"]) == ("Record", "x" * 200)
