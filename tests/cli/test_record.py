"""record, and run --replay: from a run into a file, and back into a run."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowstream.media.recording import Header, Stream, Writer
from flowstream.runtime.replay import contents_of
from flowstream.testing import make_frame, make_packet
from tests.cli.calling import Call, running
from tests.e2e.running import until

GRAPH = """\
nodes:
  pattern: {type: test-pattern, size: 320x180, fps: 30}
  encode: {type: hw-encode, from: pattern, bitrate: 500k}
  tape: {type: discard, from: encode}
"""


def written(path: Path, count: int = 30, *, ends: bool = True, lost: int = 0) -> None:
    streams = (
        Stream(name="pattern.video", node="pattern", output="video", type="test-pattern", live=True),
        Stream(name="tape.anything", node="encode", output="packets", type="hw-encode"),
    )
    header = Header(
        graph="it", revision="0123456789ab", files={"it.yaml": GRAPH}, began="2026-11-26T10:00:00.250000Z",
        streams=streams,
    )  # fmt: skip
    writer = Writer(header, 0)
    parts = [writer.begin()]
    for index in range(count):
        parts.append(writer.payload(0, make_frame(index, width=320, height=180, format="yuv420p"), index * 33_333_333))
        parts.append(writer.payload(1, make_packet(index), index * 33_333_333 + 1))
    parts += [writer.lost(1, lost, "the file was not written fast enough", 999_000_000)] if lost else []
    parts += [writer.end("1 s were asked for", 1_000_000_000)] if ends else []
    path.write_bytes(b"".join(bytes(piece) for part in parts for piece in part))


def test_from_a_run_into_a_file_and_back(here: Path, call: Call) -> None:
    graph = here / "it.yaml"
    graph.write_text(GRAPH)
    with running(graph) as run:
        run.wait_for("running")
        said = call("record", "pattern,tape.anything", "-o", "bug.fsrec", "--seconds", "1.5")
        assert (said.status, said.err) == (0, "recording pattern.video, tape.anything to bug.fsrec; Ctrl-C ends it\n")
        assert said.out == call("record", "--list", "bug.fsrec").out
        run.interrupt()
        assert run.ended() == 0, "nothing of it is left behind"
    first, video, coded = said.out.splitlines()
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    assert re.fullmatch(rf"bug.fsrec: it [0-9a-f]{{12}}, {when}, 1.5 s, [\d.]+ MB, exact", first)
    assert re.fullmatch(r"  pattern.video   test-pattern  \d+ frames +[\d.]+ s  [\d.]+ MB +yuv420p 320x180", video)
    packets = r"\d+ packets \(\d keyframes?\)"
    assert re.fullmatch(
        rf"  encode.packets  hw-encode     {packets}  [\d.]+ s  [\d.]+ kB +h264 baseline 320x180", coded
    )
    with running(graph, "--replay", "pattern=bug.fsrec") as run:
        assert run.wait_for("plan")["nodes"] == {"pattern": "replay", "encode": "hw-encode", "tape": "discard"}
        assert run.ended() == 0, "it ends as a file does"


def test_ctrl_c_ends_a_recording_properly(here: Path) -> None:
    graph = here / "it.yaml"
    graph.write_text(GRAPH)
    with running(graph) as run:
        run.wait_for("running")
        command = [sys.executable, "-m", "flowstream", "record", "encode"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here) as record:
            assert record.stderr is not None
            assert record.stdout is not None
            assert record.stderr.readline().startswith("recording encode.packets, encode.stats to it-")
            record.send_signal(signal.SIGINT)
            said = record.stdout.read()
            assert record.wait() == 0
        (path,) = here.glob("it-*.fsrec")
        assert ", exact\n" in said
        found = contents_of(str(path))
        assert found.end is not None
        assert found.end.reason == "it was stopped"
        run.process.kill()


def test_a_run_that_dies_leaves_what_came_before(here: Path) -> None:
    graph = here / "it.yaml"
    graph.write_text(GRAPH)
    with running(graph) as run:
        run.wait_for("running")
        command = [sys.executable, "-m", "flowstream", "record", "encode", "-o", "cut.fsrec"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here) as record:
            assert record.stderr is not None
            assert record.stdout is not None
            record.stderr.readline()
            until("something in the file", lambda: (here / "cut.fsrec").stat().st_size > 5_000)
            run.process.kill()
            said = record.stdout.read()
            assert record.wait() == 1
        assert ", cut off\n" in said
        assert re.fullmatch(r"! .*it.sock did not answer as a run does: .*", said.splitlines()[-1])
        assert re.match(r"it is cut off (after|within)", contents_of("cut.fsrec").problem)


def test_what_is_in_a_file(here: Path, call: Call) -> None:
    written(here / "bug.fsrec")
    size = f"{(here / 'bug.fsrec').stat().st_size / 1e6:.3g} MB"
    assert call("record", "--list", "bug.fsrec").out == (
        f"bug.fsrec: it 0123456789ab, 2026-11-26 10:00:00 UTC, 1.0 s, {size}, exact\n"
        "  pattern.video   test-pattern  30 frames                0.97 s  2.59 MB  yuv420p 320x180\n"
        "  encode.packets  hw-encode     30 packets (1 keyframe)  0.97 s  30 kB    h264 640x360\n"
    )
    told = call("record", "--list", "bug.fsrec", "--format", "json").json
    assert (told["graph"], told["exact"], told["seconds"], told["problem"]) == ("it", True, 1.0, None)
    assert [each["count"] for each in told["streams"]] == [30, 30]
    assert call("record", "--list", "bug.fsrec", "--graph").out == GRAPH


def test_what_is_wrong_with_a_file_is_said(here: Path, call: Call) -> None:
    written(here / "bug.fsrec", lost=7, ends=False)
    lines = call("record", "--list", "bug.fsrec").out.splitlines()
    assert lines[0].endswith(", not exact")
    assert lines[-2] == "! 7 of encode.packets are missing: the file was not written fast enough"
    assert re.fullmatch(r"! it is cut off after \d+ bytes, without its end", lines[-1])
    (here / "empty.fsrec").write_bytes(b"")
    said = call("record", "--list", "empty.fsrec")
    assert (said.status, said.err) == (
        1, "empty.fsrec is no recording: it is empty\n  hint: flowstream record makes recordings\n"
    )  # fmt: skip
    said = call("record", "--list", "gone.fsrec")
    assert (said.status, said.err) == (1, "cannot read gone.fsrec: No such file or directory\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what to record: an output such as camera.video, an edge, or a node."),
        (["camera", "--list", "x.fsrec"], "--list shows a file and records nothing; leave WHAT and --output out."),
        (["camera", "--graph"], "--graph goes with --list FILE."),
        (["camera", "--limit", "5"], "'5' is no size in bytes; write it with B, KiB, MiB, MB or GB, such as 64KiB"),
        (["camera", "--seconds", "0"], "0.0 is not in the range 0<x<=86400."),
    ],
)
def test_what_is_called_wrongly(call: Call, arguments: list[str], said: str) -> None:
    called = call("record", *arguments)
    assert called.status == 2
    assert said in called.err


def test_nowhere_to_write(here: Path, call: Call) -> None:
    graph = here / "it.yaml"
    graph.write_text(GRAPH)
    with running(graph) as run:
        run.wait_for("running")
        said = call("record", "encode", "-o", "none/a.fsrec")
        assert said.status == 1
        assert said.err.splitlines()[-1] == "cannot write none/a.fsrec: No such file or directory"
        said = call("record", "encod", "-o", "a.fsrec")
        assert said.err.endswith("  hint: did you mean encode?\n")
        assert not (here / "a.fsrec").exists()
        said = call("record", "encode", "-o", "a.fsrec", "--limit", "20kB")
        assert (here / "a.fsrec").stat().st_size < 21_000
        assert said.status == 0
        run.process.kill()


def test_check_and_plan_tell_what_is_replayed(here: Path, call: Call) -> None:
    (here / "it.yaml").write_text(GRAPH)
    written(here / "bug.fsrec")
    said = call("check", "it.yaml", "--replay", "pattern=bug.fsrec")
    assert said.out == "it.yaml: no errors (3 nodes)\n  pattern is replayed from bug.fsrec in place of test-pattern\n"
    assert call("plan", "it.yaml", "--replay", "bug.fsrec").out == (
        "it: 2 nodes, 1 edge, not live: every edge waits\n"
        "  encode  replay   replayed from bug.fsrec in place of hw-encode\n"
        "  tape    discard  anything from encode.packets (h264 640x360)\n"
        "  left out, since only what is replayed takes from it: pattern\n"
    )
    planned = call("plan", "it.yaml", "--replay", "pattern=bug.fsrec", "--replay-speed", "max").out
    assert planned.splitlines()[:2] == [
        "it: 3 nodes, 2 edges, not live: every edge waits",
        "  pattern  replay     replayed from bug.fsrec in place of test-pattern, as fast as it is taken",
    ]
    told = call("plan", "it.yaml", "--replay", "bug.fsrec", "--format", "json").json
    assert told["left_out"] == ["pattern"]
    assert told["nodes"]["encode"]["replayed"] == "replayed from bug.fsrec in place of hw-encode"
    for command in ("check", "plan", "run"):
        said = call(command, "it.yaml", "--replay", "camera=bug.fsrec")
        assert (said.status, said.err) == (
            1, "bug.fsrec has nothing of a node camera\n  hint: it has pattern.video and encode.packets\n"
        )  # fmt: skip
        said = call(command, "it.yaml", "--replay-speed", "max")
        assert said.status == 2
        assert "--replay-speed goes with --replay FILE." in said.err


def test_a_replay_runs_to_its_end(here: Path) -> None:
    graph = here / "it.yaml"
    graph.write_text(GRAPH)
    written(here / "bug.fsrec")
    with running(graph, "--replay", "pattern=bug.fsrec", "--replay-speed", "max") as run:
        assert run.ended() == 0
    # Which encoder is taken, and why no other, is a line of the log.
    assert [event for event in run.events if event != "log"] == ["plan", "running"]
