"""Formats that change while a graph runs: an input says what it does not take, a converter follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import cv2  # noqa: F401 - loading it takes long, which is nothing for the event loop
import pytest

from flowstream import (
    AudioCaps,
    AudioFrame,
    Context,
    EncodedCaps,
    EncodedPacket,
    Input,
    NegotiationError,
    Node,
    Output,
    Sink,
    Source,
    Transform,
    VideoCaps,
    VideoFrame,
)
from flowstream.graph.plan import Plan
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Event, NodeFailed
from flowstream.testing import Harness, make_frame, make_packet, make_sound
from flowstream.testing.clock import VirtualClock
from flowstream_nodes.audio.resample import Resample
from flowstream_nodes.video.convert import Convert
from tests.runtime import parts
from tests.runtime.parts import plan, run

pytestmark = pytest.mark.usefixtures("backend")

FORMATS = ("bgr24", "yuv420p", "nv12", "rgb24")
SIZES = ((64, 48), (64, 48), (128, 96), (32, 24))
EACH = 10


class Fickle(Source, type="test/fickle"):
    """Gives pictures whose format and size change every now and then, and sound whose rate does."""

    is_live = True
    video = Output(VideoFrame, main=True)
    audio = Output(AudioFrame)

    async def run(self, ctx: Context) -> None:
        for n in range(EACH * len(FORMATS)):
            turn = n // EACH
            width, height = SIZES[turn]
            await ctx.emit(self.video(make_frame(n, format=FORMATS[turn], width=width, height=height)))
            rate = 48_000 if turn == 0 else 44_100
            sound = make_sound(n, samples=rate // 50, rate=rate)
            await ctx.emit(self.audio(sound.replace(time_ns=n * 20_000_000)))
            await ctx.sleep_until_ns(ctx.now_ns() + 20_000_000)


class Picky(Sink, type="test/picky"):
    """Takes pictures of one format and size."""

    video = Input(VideoFrame, caps=VideoCaps(format="bgr24", width=64, height=48))
    told: list[VideoCaps] = []
    seen: list[VideoFrame] = []

    def caps_changed(self, port: str, caps: Any) -> None:
        Picky.told.append(caps)

    def consume(self, frame: VideoFrame) -> None:
        Picky.seen.append(frame)


class PickyThread(Picky, type="test/picky-thread"):
    """The same on a thread."""

    thread = True


class PickyAsync(Picky, type="test/picky-async"):
    """The same, waiting."""

    async def consume(self, frame: VideoFrame) -> None:
        Picky.seen.append(frame)


class PickyRun(Node, type="test/picky-run"):
    """The same, by a life of its own."""

    video = Input(VideoFrame, caps=VideoCaps(format=("bgr24", "gray"), width=64, height=48))

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        async for frame in ctx.stream(self.video):
            Picky.seen.append(frame)


class PickyEar(Sink, type="test/picky-ear"):
    """Takes sound of one rate."""

    audio = Input(AudioFrame, caps=AudioCaps(rate=48_000))
    seen: list[AudioFrame] = []

    def consume(self, frame: AudioFrame) -> None:
        PickyEar.seen.append(frame)


class Pass(Transform, type="test/pass"):
    """Passes pictures on."""

    frames = Input(VideoFrame)
    passed = Output(VideoFrame, like=frames)

    def process(self, frame: VideoFrame) -> Iterator[Any]:
        yield self.passed(frame)


@pytest.fixture(autouse=True)
def types(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (Fickle, Picky, PickyThread, PickyAsync, PickyRun, PickyEar, Pass, Convert, Resample):
        monkeypatch.setitem(parts.TYPES, each.type_id, each)
    for kept in (Picky.told, Picky.seen, PickyEar.seen):
        kept.clear()


def seen_by(type_id: str) -> Plan:
    return plan({"camera": ("test/fickle", {}), "view": (type_id, {})}, {"view.video": "camera.video"})


# --- without a converter --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_id", ["test/picky", "test/picky-thread", "test/picky-async", "test/picky-run"])
def test_a_format_that_an_input_does_not_take_fails_its_node_and_names_edge_field_and_both_sides(type_id: str) -> None:
    formats = "bgr24 or gray" if type_id == "test/picky-run" else "bgr24"

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(seen_by(type_id))
        await engine.wait()
        (event,) = events
        assert isinstance(event, NodeFailed)
        assert event.node == "view"
        assert isinstance(event.error.__cause__, NegotiationError)
        assert event.error.message == (
            f"view ({type_id}): view.video takes format {formats}, but camera.video now gives yuv420p"
        )
        assert event.error.hint == "take `convert: never` out, or put a node of type convert between them"
        assert len(Picky.seen) == EACH, "what fits is taken, nothing after it"
        states = {id: status.state for id, status in engine.status().items()}
        assert states == {"camera": "ended", "view": "failed"}, "it is not the producer's mistake"

    run(main)


def test_what_never_fitted_is_not_called_new() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {"camera": ("test/fickle", {}), "small": ("convert", {"size": (32, 32)}), "view": ("test/picky", {})},
                {"small.video": "camera.video", "view.video": "small.converted"},
            )
        )
        await engine.wait()
        (event,) = events
        assert isinstance(event, NodeFailed)
        assert event.error.message.endswith("view.video takes width 64, but small.converted gives 32")

    run(main)


def test_sound_too() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan({"camera": ("test/fickle", {}), "ear": ("test/picky-ear", {})}, {"ear.audio": "camera.audio"})
        )
        await engine.wait()
        (event,) = events
        assert isinstance(event, NodeFailed)
        assert event.error.message.endswith("ear.audio takes rate 48000, but camera.audio now gives 44100")
        assert event.error.hint == "take `convert: never` out, or put a node of type resample between them"

    run(main)


def test_in_a_live_graph_the_others_go_on() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {"camera": ("test/fickle", {}), "view": ("test/picky", {}), "pass": ("test/pass", {}),
                 "rest": ("test/picky-run", {})},
                {"view.video": "camera.video", "pass.frames": "camera.video", "rest.video": "pass.passed"},
            )
        )  # fmt: skip
        await anyio.sleep(0.35)
        assert {id: status.state for id, status in engine.status().items()} == {
            "camera": "running", "view": "failed", "pass": "running", "rest": "failed"
        }  # fmt: skip
        await engine.wait()
        assert engine.status()["pass"].received == EACH * len(FORMATS)

    run(main)


def test_harness_and_engine_say_it_alike() -> None:
    with Harness(Picky, name="view") as view:
        view.push(make_frame())
        with pytest.raises(NegotiationError, match=r"view\.video takes format bgr24, but the test now gives yuv420p"):
            view.push(make_frame(format="yuv420p"))


def test_packets_need_more_than_a_converter() -> None:
    class Tape(Sink, type="test/tape"):
        """Takes one codec."""

        packets = Input(EncodedPacket, caps=EncodedCaps(codec=("h264", "hevc")))

        def consume(self, packet: EncodedPacket) -> None: ...

    with Harness(Tape, name="tape") as tape, pytest.raises(NegotiationError) as caught:
        tape.push(make_packet(codec="vp8"))
    assert caught.value.message == "tape.packets takes codec h264 or hevc, but the test gives vp8"
    assert caught.value.hint == "put a node of type decode and an encoder between them"


# --- with one -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_id", ["test/picky", "test/picky-thread", "test/picky-run"])
def test_a_converter_follows_every_change_and_nothing_is_lost(type_id: str) -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        before = plan(
            {
                "camera": ("test/fickle", {}),
                "fit": ("convert", {"format": "bgr24", "size": (64, 48)}),
                "view": (type_id, {}),
            },
            {"fit.video": "camera.video", "view.video": "fit.converted"},
        )
        await engine.start(before)
        await engine.wait()
        assert (events, engine.failures) == ([], [])
        assert engine.plan is before
        assert len(Picky.seen) == EACH * len(FORMATS)
        assert {str(frame.caps) for frame in Picky.seen} == {"format bgr24, width 64, height 48"}
        assert [frame.time_ns for frame in Picky.seen] == [make_frame(n).time_ns for n in range(EACH * len(FORMATS))]
        if type_id != "test/picky-run":
            assert len(Picky.told) == 1, "downstream of it nothing changes"

    run(main)


def test_sound_is_resampled_when_its_rate_changes() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {
                    "camera": ("test/fickle", {}),
                    "fit": ("resample", {"rate": 48_000}),
                    "ear": ("test/picky-ear", {}),
                },
                {"fit.audio": "camera.audio", "ear.audio": "fit.resampled"},
            )
        )
        await engine.wait()
        assert (events, engine.failures) == ([], [])
        assert abs(sum(frame.samples for frame in PickyEar.seen) - EACH * len(FORMATS) * 960) <= 2

    run(main)


def test_what_is_the_same_caps_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[VideoCaps] = []
    require = Input.require

    def counted(self: Input[Any], caps: Any, **sides: Any) -> None:
        looked.append(caps)
        require(self, caps, **sides)

    monkeypatch.setattr(Input, "require", counted)

    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(
            plan(
                {"camera": ("test/fickle", {}), "pass": ("test/pass", {}), "end": ("test/pass", {})},
                {"pass.frames": "camera.video", "end.frames": "pass.passed"},
            )
        )
        await engine.wait()
        assert engine.failures == []

    run(main)
    assert len(looked) == 2 * len(FORMATS)
