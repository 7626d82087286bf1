"""A recording in a node's place: the same payloads at the same times, through reloads, to its end."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowstream.control.files import GraphFile
from flowstream.errors import GraphError
from flowstream.graph.described import describe, describe_plan
from flowstream.graph.diff import diff
from flowstream.graph.plan import Plan
from flowstream.graph.replays import Replay, ReplayError, require_replays
from flowstream.media.recording import Header, RecordingError, Stream, Writer
from flowstream.media.records import Record
from flowstream.runtime.engine import Engine
from flowstream.runtime.recording import Recorder
from flowstream.runtime.replay import contents_of, replays_of
from flowstream.runtime.tap import Tap, TapError
from flowstream.testing.clock import VirtualClock, run_virtual
from flowstream.testing.media import make_frame, make_packet, make_sound
from tests.runtime.parts import Loop

pytestmark = pytest.mark.usefixtures("backend")

GRAPH = """\
nodes:
  pattern: {type: test-pattern, size: 160x90, fps: 10, duration: 2s}
  tone: {type: tone, duration: 2s}
  encode: {type: hw-encode, from: pattern, bitrate: 200k}
  end: {type: discard, from: encode}
  ear: {type: discard, from: tone}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(
    path: Path, payloads: Mapping[str, list[Any]], *, live: bool = True, each_ms: int = 100, ends: bool = True,
    lost: int = 0,
) -> Path:  # fmt: skip
    """A recording of payloads by NODE.OUTPUT, one of each output every so often."""
    streams = []
    for name, given in payloads.items():
        node, output = name.split(".")
        kind = type(given[0]).__name__
        streams.append(Stream(name=name, node=node, output=output, type="camera", payloads=(kind,), live=live))
    writer = Writer(Header(graph="it", streams=tuple(streams)), 0)
    parts = [writer.begin()]
    for index in range(max(map(len, payloads.values()))):
        for number, given in enumerate(payloads.values()):
            parts.append(writer.payload(number, given[index], 3_000_000_000 + index * each_ms * 1_000_000))
    if lost:
        parts.append(writer.lost(0, lost, "the file was not written fast enough", 9_000_000_000))
    if ends:
        parts.append(writer.end("enough", 10_000_000_000))
    path.write_bytes(b"".join(bytes(piece) for part in parts for piece in part))
    return path


def frames(count: int = 20, **how: Any) -> list[Any]:
    return [make_frame(index, fps=10, capture_ns=1_000 + index, **how) for index in range(count)]


def compiled(folder: Path, text: str, replays: Mapping[str, Replay]) -> Plan:
    path = folder / "it.yaml"
    path.write_text(text)
    plan = GraphFile(str(path), replays=replays).compile()
    require_replays(plan, replays)
    return plan


def run(plan: Plan, main: Callable[[Engine, VirtualClock], Awaitable[None]]) -> None:
    async def call(clock: VirtualClock) -> None:
        async with Engine.open(clock=clock) as engine:
            await engine.start(plan)
            await main(engine, clock)

    run_virtual(call, backend=Loop.backend)


def given(plan: Plan, output: str) -> list[tuple[int, Any]]:
    """What an output gives until it ends, each with when."""
    found: list[tuple[int, Any]] = []

    async def main(engine: Engine, clock: VirtualClock) -> None:
        begin_ns = clock.now_ns()
        with Tap(engine, output) as tap:
            try:
                while True:
                    if (payload := await tap.next(1)) is not None:
                        found.append((clock.now_ns() - begin_ns, payload))
            except TapError:  # it has ended
                pass
        await engine.wait()

    run(plan, main)
    return found


def test_it_gives_what_was_recorded_when_it_came_then_and_ends(here: Path) -> None:
    written(here / "bug.fsrec", {"pattern.video": frames()})
    plan = compiled(here, GRAPH, replays_of(["pattern=bug.fsrec"]))
    assert plan.is_live
    came = given(plan, "pattern.video")
    assert [payload.time_ns for _, payload in came] == [frame.time_ns for frame in frames()]
    assert all((a.array() == b.array()).all() for (_, a), b in zip(came, frames(), strict=True))
    assert [at_ns for at_ns, _ in came] == [each * 100_000_000 for each in range(20)]
    captured = [payload.capture_ns for _, payload in came]
    assert [each - captured[0] for each in captured] == list(range(20))


def test_it_is_as_fast_as_it_is_taken(here: Path) -> None:
    written(here / "bug.fsrec", {"pattern.video": frames(), "tone.audio": [make_sound(index) for index in range(20)]})
    plan = compiled(here, GRAPH, replays_of(["bug.fsrec"], "max"))
    assert not plan.is_live, "so every edge waits"

    async def main(engine: Engine, clock: VirtualClock) -> None:
        begin_ns = clock.now_ns()
        await engine.wait()
        assert clock.now_ns() - begin_ns < 1_000_000_000
        status = engine.status()
        assert (status["end"].received, status["ear"].received) == (20, 20)
        assert not any(each.dropped for each in status.values())
        assert status["pattern"].facts["seconds"] == 1

    run(plan, main)


def test_the_plan_says_so_and_knows_the_formats(here: Path) -> None:
    """What was recorded decides on the converters."""
    written(here / "bug.fsrec", {"pattern.video": [make_packet(0)] * 9, "tone.audio": [make_sound(0)] * 9})
    plan = compiled(here, GRAPH, replays_of(["bug.fsrec"]))
    assert describe_plan(plan) == [
        "it: 6 nodes, 4 edges, live",
        "  pattern              replay     replayed from bug.fsrec in place of camera",
        "  tone                 replay     replayed from bug.fsrec in place of camera",
        "  encode.video~decode  decode     decode h264 of pattern.video (cost high)",
        "  encode               hw-encode  video from encode.video~decode.video (VideoFrame 640x360)",
        "  end                  discard    anything from encode.packets (h264 baseline 640x360)",
        "  ear                  discard    anything from tone.audio (fltp 48 kHz stereo)",
    ]


def test_what_worked_for_a_replayed_node_alone_is_left_out(here: Path) -> None:
    beside = "  end: {type: discard, from: encode}\n  encode: {type: hw-encode, from: pattern, bitrate: 200k}\n"
    text = """\
nodes:
  pattern: {type: test-pattern}
  more: {type: scale, from: pattern, size: 32x24}
  last: {type: hw-encode, from: more, bitrate: 1M}
  out: {type: discard, from: last}
"""
    written(here / "bug.fsrec", {"last.packets": [make_packet(index) for index in range(5)]})
    plan = compiled(here, text + beside, replays_of(["bug.fsrec"]))
    assert plan.left_out == ("more",)
    assert "pattern" in plan.nodes, "something else takes from it"
    assert describe_plan(plan)[-1] == "  left out, since only what is replayed takes from it: more"
    plan = compiled(here, text, replays_of(["bug.fsrec"]))
    assert plan.left_out == ("pattern", "more")
    assert [each.code for each in plan.warnings] == []


def test_neither_the_device_nor_its_password_nor_its_pack_is_needed(here: Path) -> None:
    text = GRAPH.replace("type: test-pattern, size: 160x90,", "type: acme/eye, url: $(env:NOWHERE),")
    written(here / "bug.fsrec", {"pattern.video": frames()})
    with pytest.raises(GraphError, match="NOWHERE is not set in the environment"):
        compiled(here, text, {})
    plan = compiled(here, text, replays_of(["pattern=bug.fsrec"]))
    assert plan.nodes["pattern"].type_id == "replay"


def test_in_a_subgraph(here: Path) -> None:
    (here / "part.yaml").write_text(
        "inputs: {video: small}\noutputs: {video: small}\nnodes:\n  small: {type: scale, size: 32x24}\n"
    )
    text = """\
nodes:
  pattern: {type: test-pattern}
  left: {use: part.yaml, from: pattern}
  end: {type: discard, from: left}
"""
    written(here / "bug.fsrec", {"left/small.scaled": frames()})
    plan = compiled(here, text, replays_of(["left/small=bug.fsrec"]))
    assert list(plan.nodes) == ["left/small", "end"]
    assert plan.left_out == ("pattern",)
    assert len(given(plan, "left/small.scaled")) == 20


def test_it_is_kept_over_edits_and_goes_when_its_node_goes(here: Path) -> None:
    written(here / "bug.fsrec", {"pattern.video": frames(200)})
    replays = replays_of(["pattern=bug.fsrec"])
    plan = compiled(here, GRAPH, replays)

    async def main(engine: Engine, clock: VirtualClock) -> None:
        await anyio.sleep(1.05)
        runner = engine.runners["pattern"]
        edited = GRAPH.replace("size: 160x90, fps: 10", "size: 640x480, fps: 5").replace("200k", "300k")
        patch = await engine.apply(compiled(here, edited, replays))
        assert describe(patch)[0] == "pattern  kept"
        assert engine.runners["pattern"] is runner
        await anyio.sleep(1)
        assert engine.status()["pattern"].emitted == {"video": 21}
        renamed = GRAPH.replace("pattern:", "bars:").replace("from: pattern", "from: bars")
        (here / "it.yaml").write_text(renamed)
        patch = await engine.apply(GraphFile(str(here / "it.yaml"), replays=replays).compile())
        assert patch.of("bars").action == "add"
        assert engine.status()["bars"].type == "test-pattern"

    run(plan, main)
    assert diff(plan, compiled(here, GRAPH, replays)).is_empty


def test_pictures_without_an_array_form_go_on_all_the_same(here: Path) -> None:
    """Odd sizes, and formats that only FFmpeg knows, come out of the file in FFmpeg's memory."""
    from flowstream import VideoFrame
    from flowstream.media.pyav import AvHeaders

    whole = make_frame(0).to_av(AvHeaders())
    odd = [
        VideoFrame.from_av(whole.reformat(width=33, height=21, format=name), time_ns=index * 100_000_000)
        for index, name in enumerate(["yuv420p", "yuv422p10le", "yuv444p", "rgb565le"] * 3)
    ]
    written(here / "bug.fsrec", {"pattern.video": odd})
    text = GRAPH.replace("hw-encode, from: pattern, bitrate: 200k", "convert, from: pattern, format: bgr24")
    came = given(compiled(here, text, replays_of(["pattern=bug.fsrec"])), "encode.converted")
    assert len(came) == 12
    assert all(payload.array().shape == (21, 33, 3) for _, payload in came)
    for (_, payload), frame in zip(came, odd, strict=True):
        assert (payload.array() == frame.array("bgr24")).all(), frame.format


def test_records_come_back_as_what_they_were(here: Path) -> None:
    from flowstream_nodes.flow.probe import ProbeReport

    text = """\
nodes:
  eye: {type: test-pattern}
  probe: {type: probe, from: eye}
  end: {type: discard, from: probe.report}
"""
    plan = compiled(here, text, {})

    async def record(engine: Engine, clock: VirtualClock) -> None:
        with Recorder(engine, ["probe.report"]) as recorder, (here / "bug.fsrec").open("wb") as file:
            await recorder.write(file, seconds=5)

    run(plan, record)
    came = given(compiled(here, text, replays_of(["bug.fsrec"])), "probe.report")
    assert len(came) >= 4
    assert all(type(payload) is Record and type(payload.value) is ProbeReport for _, payload in came)


def test_a_file_that_is_cut_off_is_replayed_to_there(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(here / "bug.fsrec", {"pattern.video": frames()}, ends=False)
    path.write_bytes(path.read_bytes()[:-5])
    plan = compiled(here, GRAPH, replays_of(["pattern=bug.fsrec"]))
    assert len(given(plan, "pattern.video")) == 19
    said = [record.getMessage() for record in caplog.records]
    assert any("pattern: bug.fsrec is not exact: it is cut off within the chunk at byte" in each for each in said)
    assert any("pattern: bug.fsrec was replayed up to here: it is cut off within the chunk" in each for each in said)


def test_what_was_lost_is_said(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(here / "bug.fsrec", {"pattern.video": frames()}, lost=3)
    given(compiled(here, GRAPH, replays_of(["pattern=bug.fsrec"])), "pattern.video")
    said = "bug.fsrec is not exact: 3 of pattern.video were lost (the file was not written fast enough)"
    assert any(said in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pattern=gone.fsrec"], "cannot read gone.fsrec: No such file or directory"),
        (["gone.fsrec"], "cannot read gone.fsrec: No such file or directory"),
        (["pattern=it.yaml"], "it.yaml is no recording: it begins with b'nodes:\\n  p' "
                             "(flowstream record makes recordings)"),
        (["patern=bug.fsrec"], "bug.fsrec has nothing of a node patern (did you mean pattern?)"),
        (["camera=bug.fsrec"], "bug.fsrec has nothing of a node camera (it has pattern.video)"),
        (["pattern=bug.fsrec", "bug.fsrec"], "pattern is replayed from bug.fsrec already"),
        (["stage.fsrec"], "stage.fsrec has nothing that a node of a graph gave: end.video~convert came with the plan "
                          "(record the output of a node)"),
    ],
)  # fmt: skip
def test_what_cannot_be_replayed(here: Path, words: list[str], said: str) -> None:
    (here / "it.yaml").write_text(GRAPH)
    written(here / "bug.fsrec", {"pattern.video": frames(1)})
    _staged(here / "stage.fsrec")
    with pytest.raises(RecordingError) as refused:
        replays_of(words)
    assert str(refused.value) == said


def _staged(path: Path) -> None:
    stream = Stream(name="end.video", node="end.video~convert", output="converted", payloads=("VideoFrame",))
    writer = Writer(Header(streams=(stream,)), 0)
    parts = [writer.begin(), writer.payload(0, make_frame(), 0), writer.end("", 1)]
    path.write_bytes(b"".join(bytes(piece) for part in parts for piece in part))


def test_a_node_that_is_not_there(here: Path) -> None:
    written(here / "bug.fsrec", {"camera.video": frames(1)})
    with pytest.raises(ReplayError) as refused:
        compiled(here, GRAPH, replays_of(["bug.fsrec"]))
    assert str(refused.value) == (
        "bug.fsrec is to be replayed in the place of camera, but no such node runs in it "
        "(there is pattern, tone, encode, end and ear)"
    )


def test_an_output_that_was_not_recorded(here: Path) -> None:
    written(here / "bug.fsrec", {"pattern.sound": [make_sound(0)]})
    with pytest.raises(GraphError) as refused:
        compiled(here, GRAPH.replace("from: pattern", "from: pattern.video"), replays_of(["bug.fsrec"]))
    assert "pattern (replay) has no output video" in str(refused.value)


def test_beside_what_cannot_be_slowed_down(here: Path) -> None:
    written(here / "bug.fsrec", {"pattern.video": frames(1)})
    with pytest.raises(ReplayError) as refused:
        compiled(here, GRAPH, replays_of(["bug.fsrec"], "max"))
    assert str(refused.value) == (
        "tone cannot be slowed down, so what is replayed as fast as possible would be lost beside it "
        "(replay tone too, or take --replay-speed real)"
    )


def test_a_class_that_is_not_there_is_said(here: Path) -> None:
    stream = Stream(name="pattern.video", node="pattern", output="video", payloads=("Record",))
    writer = Writer(Header(streams=(stream,)), 0)
    parts = [writer.begin(), writer.payload(0, Record(5, 7), 0), writer.end("", 1)]
    data = b"".join(bytes(piece) for part in parts for piece in part)
    assert data.count(b"builtins:int") == 1
    changed = data.replace(b"builtins:int", b"nowhere_:int")
    begin = changed.index(b"P\0\0\0\0\0")
    (size,) = (int.from_bytes(changed[begin - 4 : begin], "big"),)
    body = changed[begin + 1 : begin + 1 + size]
    crc = zlib.crc32(body, zlib.crc32(b"P")).to_bytes(4, "big")
    (here / "bug.fsrec").write_bytes(changed[: begin + 1 + size] + crc + changed[begin + 5 + size :])
    assert contents_of("bug.fsrec").problem == ""
    text = "nodes:\n  pattern: {type: test-pattern}\n  end: {type: discard, from: pattern}\n"

    async def main(engine: Engine, clock: VirtualClock) -> None:
        await engine.wait()
        (failure,) = engine.failures
        assert failure.message.startswith("pattern (replay): what was recorded of pattern.video at byte ")
        assert failure.message.endswith(
            " is no Record: nothing that is loaded has the class nowhere_:int of a record's value"
        )  # fmt: skip

    run(compiled(here, text, replays_of(["bug.fsrec"])), main)


def test_only_what_is_connected_is_given(here: Path) -> None:
    written(here / "bug.fsrec", {"pattern.video": frames(), "pattern.sound": [make_sound(0)] * 20})
    plan = compiled(here, GRAPH.replace("from: pattern", "from: pattern.video"), replays_of(["bug.fsrec"]))

    async def main(engine: Engine, clock: VirtualClock) -> None:
        await engine.wait()
        assert engine.status()["pattern"].emitted == {"video": 20, "sound": 0}

    run(plan, main)
