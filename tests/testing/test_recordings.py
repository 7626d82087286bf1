"""Recordings in tests: real graphs give the same bytes again from a recording of what went in."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from flowstream import Record
from flowstream.errors import GraphError
from flowstream.media.recording import Header, RecordingError, Stream, Writer
from flowstream.runtime.replay import contents_of
from flowstream.testing import (
    Expect,
    Harness,
    assert_recorded,
    gives,
    make_frame,
    make_sound,
    payloads_of,
    record_graph,
)
from flowstream.testing.graph_run import run_test
from flowstream.testing.graph_test import read_test
from flowstream_nodes.video.scale import Scale

GRAPH = """\
nodes:
  pattern: {type: test-pattern, size: 320x180, fps: 30, duration: 3s}
  tone: {type: tone, duration: 3s}
  clock: {type: overlay, from: pattern, text: Hello, position: top-left}
  encode: {type: hw-encode, from: clock, bitrate: 500k, keyframe_interval: 1s}
  voice: {type: opus-encode, from: tone}
  view: {type: discard, from: encode}
  ear: {type: discard, from: voice}
"""
OUTPUTS = ["pattern.video", "tone.audio", "clock.titled", "encode.packets", "voice.packets"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "graph.yaml").write_text(GRAPH)
    return tmp_path


def test_from_a_recording_a_graph_gives_the_same_bytes_again(here: Path) -> None:
    """Every stage of it: pictures, titles, H.264 and Opus, bit for bit."""
    found = record_graph("graph.yaml", OUTPUTS, "live.fsrec")
    assert found.is_exact
    counts = {each.stream.source: each.count for each in found.streams}
    assert counts["pattern.video"] == counts["clock.titled"] == counts["encode.packets"] == 90
    assert counts["tone.audio"] >= 149
    assert [each.keyframes for each in found.streams if each.stream.source == "encode.packets"] == [3]
    again = record_graph("graph.yaml", OUTPUTS, "again.fsrec", replay={"pattern": "live.fsrec", "tone": "live.fsrec"})
    assert again.is_exact
    for output in OUTPUTS:
        assert_recorded("again.fsrec", "live.fsrec", output)
    coded = {"encode": "live.fsrec", "voice": "live.fsrec"}
    record_graph("graph.yaml", ["encode", "voice"], "coded.fsrec", replay=coded)
    for output in ("encode.packets", "voice.packets"):
        assert_recorded("coded.fsrec", "live.fsrec", output)


def test_a_file_recorded_from_either_is_the_same(here: Path) -> None:
    """What a recorder makes of replayed packets is, byte for byte, what it made of those that were recorded."""
    text = GRAPH + "  tape: {type: recorder, from: encode, path: live.mp4}\n"
    (here / "tape.yaml").write_text(text)
    record_graph("tape.yaml", ["encode"], "coded.fsrec")
    record_graph("tape.yaml", ["tone"], "tone.fsrec")
    (here / "tape.yaml").write_text(text.replace("live.mp4", "again.mp4"))
    record_graph("tape.yaml", ["encode"], "again.fsrec", replay={"encode": "coded.fsrec", "tone": "tone.fsrec"})
    live, again = (here / "live.mp4").read_bytes(), (here / "again.mp4").read_bytes()
    assert len(live) > 50_000
    assert again == live


def test_what_lies_behind_the_recorded_output_is_finished_too(here: Path) -> None:
    """Although it is still busy when the last payload has been recorded."""
    text = GRAPH + "  slow: {type: fault, from: encode, delay: 100ms}\n"
    text += "  tape: {type: recorder, from: slow, path: tape.mp4}\n"
    (here / "tape.yaml").write_text(text)
    record_graph("graph.yaml", ["encode", "tone"], "coded.fsrec")
    record_graph("tape.yaml", ["encode"], "again.fsrec", replay={"encode": "coded.fsrec", "tone": "coded.fsrec"})
    with av.open(str(here / "tape.mp4")) as file:
        assert sum(1 for packet in file.demux(video=0) if packet.size) == 90


def test_the_first_difference_is_said(here: Path) -> None:
    record_graph("graph.yaml", ["encode"], "good.fsrec")
    (here / "graph.yaml").write_text(GRAPH.replace("text: Hello", "text: Hullo"))
    record_graph("graph.yaml", ["encode"], "bad.fsrec")
    with pytest.raises(AssertionError, match=r"^encode.packets is not as in good.fsrec: number 1 of 90 differs: "):
        assert_recorded("bad.fsrec", "good.fsrec", "encode.packets")


def test_a_part_of_a_run(here: Path) -> None:
    found = record_graph("graph.yaml", ["pattern"], "some.fsrec", seconds=1)
    assert (found.streams[0].count, found.end and found.end.reason) == (30, "1 s were asked for")
    assert [frame.time_ns for frame in payloads_of("some.fsrec")] == [round(index * 1e9 / 30) for index in range(30)]


def test_a_recording_as_the_input_of_one_node(here: Path) -> None:
    record_graph("graph.yaml", ["pattern", "tone"], "live.fsrec", seconds=1)
    steps = gives("live.fsrec", "pattern.video")
    assert (len(steps), steps[0].at, steps[-1].at_ns) == (30, 0, pytest.approx(29e9 / 30, abs=2))
    with Harness(Scale, {"size": "160x90"}) as scale:
        emissions = scale.play(*steps, Expect("1s", emitted=30, last=lambda frame: frame.width == 160))
    assert [each.payload.time_ns for each in emissions] == [step.payload.time_ns for step in steps]
    assert {step.port for step in gives("live.fsrec", "tone.audio", "audio")} == {"audio"}


def test_what_a_recording_has_not(here: Path) -> None:
    record_graph("graph.yaml", ["pattern", "tone"], "live.fsrec", seconds=0.2)
    with pytest.raises(RecordingError) as refused:
        payloads_of("live.fsrec", "mic.audio")
    assert str(refused.value) == "live.fsrec has nothing of mic.audio (it has pattern.video and tone.audio)"
    with pytest.raises(RecordingError) as refused:
        gives("live.fsrec")
    assert str(refused.value) == (
        "live.fsrec has several outputs, so one has to be named (it has pattern.video and tone.audio)"
    )
    data = (here / "live.fsrec").read_bytes()
    (here / "cut.fsrec").write_bytes(data[:-5])
    with pytest.raises(RecordingError, match=r"^cut.fsrec: it is cut off within the chunk at byte \d+$"):
        payloads_of("cut.fsrec", "pattern.video")


def test_what_is_not_exact_proves_nothing(here: Path) -> None:
    streams = tuple(Stream(name=f"a.{output}", node="a", output=output) for output in ("out", "other"))
    writer = Writer(Header(streams=streams), 0)
    parts = [writer.begin(), writer.payload(0, make_frame(0), 1), writer.payload(1, make_sound(0), 2)]
    parts += [writer.lost(0, 4, "the disk is full", 3), writer.payload(1, Record(5, 6), 4), writer.end("", 5)]
    (here / "bad.fsrec").write_bytes(b"".join(bytes(piece) for part in parts for piece in part))
    assert len(payloads_of("bad.fsrec", "a.other")) == 2
    with pytest.raises(RecordingError) as refused:
        payloads_of("bad.fsrec", "a.out")
    assert str(refused.value) == "bad.fsrec is not exact: 4 of a.out were lost (the disk is full)"
    assert not contents_of("bad.fsrec").is_exact


TEST = """\
graph: graph.yaml
clock: virtual
replay: {pattern: live.fsrec, tone: live.fsrec}
steps:
  - wait: 1s
  - expect: {node: view, state: ended, count: 90}
  - expect: {output: encode.packets, equals: live.fsrec}
  - expect: {output: voice.packets, equals: live.fsrec}
"""


def reported(here: Path, text: str) -> list[str]:
    (here / "it.test.yaml").write_text(text)
    result = run_test(read_test("it.test.yaml", text.encode()), lambda path: Path(path).read_bytes())
    assert result.error == ""
    return [str(each) for each in result.missed]


def test_a_scripted_run_of_a_recording(here: Path) -> None:
    record_graph("graph.yaml", OUTPUTS, "live.fsrec")
    assert reported(here, TEST) == []
    (here / "graph.yaml").write_text(GRAPH.replace("bitrate: 500k", "bitrate: 400k"))
    (missed,) = reported(here, TEST)
    assert missed.startswith("it.test.yaml:7:46: expected encode.packets as in live.fsrec, number ")
    assert " of 90 differs: " in missed


def test_a_script_that_cannot_be_played(here: Path) -> None:
    (here / "it.test.yaml").write_text(TEST)
    result = run_test(read_test("it.test.yaml", TEST.encode()), lambda path: Path(path).read_bytes())
    assert result.error == "cannot read live.fsrec: No such file or directory"


def test_an_output_is_compared_with_something() -> None:
    text = TEST.replace("output: voice.packets, equals: live.fsrec", "output: voice.packets")
    with pytest.raises(GraphError, match=r"output and equals go together: output: encode.packets, equals: good.fsrec"):
        read_test("it.test.yaml", text.encode())
