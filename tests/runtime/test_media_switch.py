"""Real pictures through a switch: none lost, none twice, no step in their times."""

import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import av
import pytest

from flowstream import EncodedPacket
from flowstream.control.files import GraphFile
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Event
from flowstream.testing.barcode import read_counter
from flowstream.testing.clock import VirtualClock
from flowstream.testing.leaks import Open
from flowstream_nodes.codec.hw_encode import HwEncode  # noqa: F401 - loaded before a loop runs, which must not block
from tests.runtime.parts import Watch, run

TAPE = '''
from tests.runtime.parts import Watch


class Tape(Watch, type="acme/tape"):
    """Keeps packets with the time at which they came."""

    def open(self):
        self.arrivals = []

    def consume(self, packet):
        self.arrivals.append(self.ctx.now_ns())
        super().consume(packet)
'''

GRAPH = """
nodes:
  pattern: {type: test-pattern, size: 320x180, fps: 30}
  encode: {type: hw-encode, from: pattern, bitrate: 400k}
  tape: {type: acme/tape, from: encode}
  film: {type: recorder, inputs: {video: encode}, path: FOLDER/film.mp4}
"""

Apply = Callable[..., Awaitable[Any]]
Main = Callable[[Engine, Apply], Awaitable[None]]
PERIOD_NS = 33_333_333


def filming(folder: Path, main: Main, graph: str = GRAPH) -> list[EncodedPacket]:
    """Runs ``main(engine, apply)``, where ``apply(old, new)`` saves the graph with a text replaced, then drains."""
    (folder / "acme").mkdir()
    (folder / "acme" / "tape.py").write_text(TAPE)
    path = folder / "graph.yaml"
    text = graph.replace("FOLDER", str(folder))
    path.write_text(text)
    file = GraphFile(str(path), folders=(folder / "acme",))
    opened = Open.now()

    async def call(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        async def apply(old: str, new: str) -> Any:
            nonlocal text
            assert old in text
            text = text.replace(old, new)
            clock.hold()
            await anyio.to_thread.run_sync(path.write_text, text)
            plan = await anyio.to_thread.run_sync(file.compile)
            clock.release()
            return await engine.apply(plan)

        await engine.start(await anyio.to_thread.run_sync(file.compile))
        await main(engine, apply)
        await engine.stop()

    run(call)
    assert opened.left() == []
    return Watch.seen["tape"]


def counters(packets: list[EncodedPacket]) -> list[int]:
    """The numbers in the pictures, decoded in one go as a player would."""
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for packet in packets for frame in decoder.decode(av.Packet(packet.data))]  # type: ignore[attr-defined]
    frames += decoder.decode(None)  # type: ignore[attr-defined]
    found = [read_counter(frame.to_ndarray(format="gray")) for frame in frames]
    assert None not in found
    return [each.frame for each in found if each is not None]


def steps(packets: list[EncodedPacket]) -> set[int]:
    return {b.time_ns - a.time_ns for a, b in itertools.pairwise(packets)}


@pytest.mark.usefixtures("backend")
def test_a_replaced_encoder_is_cut_between_two_pictures(tmp_path: Path) -> None:
    arrivals: list[int] = []

    async def main(engine: Engine, apply: Apply) -> None:
        await anyio.sleep(2.01)
        for old, new in (
            ("400k", "400k, threads: 2"),
            ("threads: 2", "profile: high"),
            ("profile: high", "max: 9M"),
        ):
            encoder, tape = engine.runners["encode"], engine.runners["tape"]
            patch = await apply(old, new)
            assert patch.of("encode").action == "replace"
            assert engine.runners["encode"] is not encoder
            assert engine.runners["tape"] is tape
            await anyio.sleep(2.01)
        arrivals.extend(engine.runners["tape"].node.arrivals)  # type: ignore[attr-defined]
        film = engine.status()["film"]
        assert not any(film.dropped.values())
        assert film.facts["left_out"] is None

    packets = filming(tmp_path, main)
    numbers = counters(packets)
    assert numbers == list(range(len(packets)))
    assert len(packets) >= 240
    assert steps(packets) <= {PERIOD_NS, PERIOD_NS + 1}
    gaps = [b - a for a, b in itertools.pairwise(arrivals)]
    assert max(gaps) <= PERIOD_NS + 1_000_000
    films = sorted(tmp_path.glob("film*.mp4"), key=lambda each: (len(each.name), each.name))
    recorded = 0
    for each in films:
        with av.open(str(each)) as container:
            stream = container.streams.video[0]
            times = [packet.pts * stream.time_base for packet in container.demux(stream) if packet.pts is not None]
            recorded += len(times)
            assert {round(float(b - a), 3) for a, b in itertools.pairwise(times)} == {0.033}
    assert recorded == len(packets)


def test_a_replaced_pattern_counts_on_and_its_consumers_run_on_the_same_timeline(tmp_path: Path) -> None:
    async def main(engine: Engine, apply: Apply) -> None:
        await anyio.sleep(2.01)
        kept = {id: engine.runners[id] for id in ("encode", "tape", "film")}
        await apply("320x180", "640x360")
        await anyio.sleep(2.01)
        assert {id: engine.runners[id] for id in kept} == kept

    packets = filming(tmp_path, main)
    assert counters(packets) == list(range(len(packets)))
    assert len(packets) >= 120
    assert max(steps(packets)) < 2 * PERIOD_NS
    assert min(steps(packets)) > 0


@pytest.mark.real
def test_a_file_that_replaces_another_faster_than_time_begins_where_that_stopped(tmp_path: Path) -> None:
    import subprocess

    for name, rate in (("a", 25), ("b", 50)):
        subprocess.run(
            ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"testsrc=size=320x180:rate={rate}:duration=20",
             "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", str(tmp_path / f"{name}.mp4")],
            check=True,
        )  # fmt: skip
    graph = """
nodes:
  talk: {type: file, path: FOLDER/a.mp4, pace: fast}
  encode: {type: hw-encode, from: talk, bitrate: 400k}
  tape: {type: acme/tape, from: encode}
"""

    async def main(engine: Engine, apply: Apply) -> None:
        with anyio.fail_after(20):
            while len(Watch.seen.get("tape", ())) < 60:
                await anyio.lowlevel.checkpoint()
        await apply("a.mp4", "b.mp4")
        await engine.wait()

    packets = filming(tmp_path, main, graph)
    times = [packet.time_ns for packet in packets]
    assert times == sorted(set(times))
    assert 1060 < len(packets) < 1500
    assert {round(step / 1e6) for step in steps(packets)} <= {20, 40}
