"""why, top and tap: beside a graph that runs."""

import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from flowstream.cli.tap import line_of
from flowstream.cli.top import milliseconds, plain, rate, size
from tests.cli.calling import Call, Running, running

GRAPH = """\
flowstream: 1
nodes:
  pattern: {type: test-pattern, size: 320x180, fps: 30}
  tone: {type: tone}
  encode: {type: hw-encode, from: pattern, bitrate: 500k}
  opus: {type: opus-encode, from: tone}
  tape: {type: discard, from: encode}
  ear: {type: discard, from: opus}
"""


@contextmanager
def shown(here: Path, text: str = GRAPH) -> Iterator[Running]:
    """A run of the graph of which some numbers are there."""
    path = here / "it.yaml"
    path.write_text(text)
    with running(path) as run:
        run.wait_for("running")
        yield run


def until(call: Call, pattern: str, *arguments: str) -> str:
    """Calls until the answer is like that; the test's time limit bounds it."""
    while not re.search(pattern, said := call(*arguments).out):
        pass
    return said


def test_a_graph_that_is_well(here: Path, call: Call) -> None:
    with shown(here) as run:
        said = call("why")
        assert (said.status, said.out, said.err) == (0, "all is well: 6 nodes work and nothing waits for long\n", "")
        assert call("why", "--format", "json").json["healthy"] is True
        said = call("why", "encod")
        assert (said.status, said.out, said.err) == (1, "", "there is no node 'encod'; did you mean encode?\n")
        assert call("status", "--format", "json").json["causes"] == []
        until(call, r"^encode is well: it takes \d+/s from pattern, tape takes \d+/s from it\n$", "why", "encode")
        run.interrupt()
        assert run.ended() == 0
    said = call("why")
    assert (said.status, said.err) == (1, "no graph is running\n  hint: start one: flowstream run GRAPH\n")


def test_a_graph_in_which_something_hangs(here: Path, call: Call) -> None:
    hung = GRAPH.replace("from: pattern,", "from: fault,") + "  fault: {type: fault, from: pattern, stall_after: 30}\n"
    with shown(here, hung) as run:
        stalled = run.wait_for("stalled")
        assert (stalled["level"], stalled["node"], stalled["kind"]) == ("warning", "fault", "slow-consumer")
        assert stalled["chain"] == ["tape", "encode", "fault"]
        expected = (
            r"tape is starved: encode has waited [\d.]+ s for fault, which has taken nothing since \d\d:\d\d:\d\d "
            r"\([\d.]+ s\): it is still busy with what it took last, and 2 wait on fault.anything; "
            r"[\d.]+/s are dropped there"
        )
        assert re.fullmatch(expected, stalled["message"])
        said = call("why")
        assert said.status == 1
        assert re.fullmatch(expected + "\n", said.out)
        assert re.fullmatch(expected + "\n", call("why", "tape").out)
        assert call("why", "ear").status == 0
        (cause,) = call("why", "--format", "json").json["causes"]
        assert (cause["node"], cause["kind"]) == ("fault", "slow-consumer")
        assert re.search(f"^! {expected}$", call("status").out, re.MULTILINE)
        assert re.search(f"^! {expected}$", call("top", "--once").out, re.MULTILINE)
        run.process.kill()


def test_a_table_of_numbers(here: Path, call: Call) -> None:
    with shown(here) as run:
        said = until(call, r"encode .* [1-9]\d*/s +[1-9]\d*/s ", "top", "--once")
        assert "\033" not in said
        title, heads, *rows = said.splitlines()
        assert re.fullmatch(r"it  running  0:\d\d  cpu \d+%  memory [\d.]+ MB at most  \d+ threads", title)
        assert heads.split()[:5] == ["node", "type", "state", "in", "out"]
        assert [row.split()[0] for row in rows] == ["pattern", "tone", "encode", "opus", "tape", "ear"]
        assert re.match(r"encode +hw-encode +running +\d+/s +\d+/s +[\d.]+ m?s / [\d.]+ m?s", rows[2])
        edges = call("top", "--once", "--edges").out.partition("\n\n")[2].splitlines()
        assert edges[0].split()[:3] == ["edge", "from", "overflow"]
        assert any(re.match(r"tape\.anything +encode\.packets +drop-to-keyframe +\d", row) for row in edges)
        run.process.kill()


def test_a_table_below_the_other_where_the_terminal_cannot_more(here: Path) -> None:
    with (
        shown(here) as run,
        subprocess.Popen(
            [sys.executable, "-m", "flowstream", "top"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        ) as top,
    ):
        assert top.stdout is not None
        titles = 0
        for line in top.stdout:
            titles += line.startswith("it  running")
            assert "\033" not in line
            if titles == 2:
                break
        run.interrupt()
        run.ended()
        assert top.stdout.read().endswith("it: the run has ended\n")
        assert top.wait() == 0


def test_a_live_table_and_its_keys(here: Path) -> None:
    with shown(here) as run:
        master, slave = os.openpty()
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
        with subprocess.Popen(
            [sys.executable, "-m", "flowstream", "top"], stdin=slave, stdout=slave, start_new_session=True, env=environ
        ) as top:
            os.close(slave)
            seen = read_until(master, "q quit")
            assert "encode" in seen
            assert "drop-to-keyframe" not in seen
            os.write(master, b"e")
            assert "tape.anything" in read_until(master, "drop-to-keyframe")
            os.write(master, b"q")
            read_until(master, "\033[?1049l")  # the screen that was there before
            assert top.wait() == 0
        os.close(master)
        run.process.kill()


def read_until(master: int, wanted: str) -> str:
    text = ""
    while wanted not in text:
        ready, _, _ = select.select([master], [], [], 60)
        assert ready, text
        text += os.read(master, 65536).decode(errors="replace")
    return text


def test_looking_at_edges(here: Path, call: Call) -> None:
    with shown(here) as run:
        said = call("tap", "encode.video", "--frames", "3")
        head, *lines = said.out.splitlines()
        assert (said.status, head) == (0, "encode.video, from pattern.video")
        frame = r" +\d+\.\d{3} s  frame +86\.4 kB  format yuv420p, width 320, height 180  captured [\d.]+ m?s ago"
        assert len(lines) == 3
        assert all(re.fullmatch(frame, line) for line in lines)
        lines = call("tap", "ear.anything", "-n", "2").out.splitlines()[1:]
        assert all(re.search(r" s  packet +\d+ B  codec opus, rate 48000, layout stereo  captured", x) for x in lines)
        assert re.search(r"sound +7\.68 kB  .* 960 samples", call("tap", "opus", "-n", "1").out)
        said = call("tap", "tape.anythin")
        assert (said.status, said.out) == (1, "")
        assert said.err.startswith(
            "there is no edge or output 'tape.anythin'; an edge is named by its consumer and input"
        )
        assert "did you mean tape.anything?" in said.err
        run.interrupt()
        assert run.ended() == 0, "nothing of it is left behind"


def test_saving_what_goes_over_edges(here: Path, call: Call) -> None:
    with shown(here) as run:
        said = call("tap", "encode.video", "--save", "shot.png")
        assert (said.status, said.out.splitlines()[-1]) == (0, "saved 1 to shot.png")
        with av.open("shot.png") as picture:
            frame = next(picture.decode(video=0))
            assert (frame.width, frame.height) == (320, 180)
        said = call("tap", "encode.video", "--save", "more.png", "-n", "3")
        assert said.out.splitlines()[-1] == "saved 3 to more-1.png ... more-3.png"
        assert sorted(path.name for path in here.glob("more*")) == ["more-1.png", "more-2.png", "more-3.png"]
        for name, edge, codec in (
            ("a.h264", "tape.anything", "h264"), ("a.mkv", "tape.anything", "h264"), ("a.mp4", "tape", "h264"),
            ("a.opus", "ear", "opus"), ("a.mka", "ear", "opus"),
        ):  # fmt: skip
            said = call("tap", edge, "--save", name, "-n", "20")
            assert (said.status, said.out.splitlines()[-1]) == (0, f"saved 20 to {name}")
            with av.open(name) as file:
                (stream,) = file.streams
                assert stream.codec_context.name == codec
                decoded = list(file.decode(stream))
                assert len(decoded) >= 19
                times = [frame.time for frame in decoded if frame.time is not None]
                assert times == sorted(times)
                if codec == "h264":
                    assert decoded[0].key_frame
        run.process.kill()


def test_what_cannot_be_saved_is_said(here: Path, call: Call) -> None:
    sound, picture = "codec opus, rate 48000, layout stereo", "format yuv420p, width 320, height 180"
    cases = [
        ("ear", "a.png", "nothing was saved: no picture comes there; packets go to .h264, .mkv or .opus"),
        ("ear", "a.h264", f"nothing was saved: .h264 is for packets of h264; what comes there is a packet ({sound})"),
        ("encode", "a.mkv", f"nothing was saved: packets go into a file like that; what comes there is a frame "
                            f"({picture})"),
        ("tape", "none/a.h264", "cannot write none/a.h264: No such file or directory"),
        ("tape", "none/a.mkv", "cannot write none/a.mkv: No such file or directory"),
        ("encode", "none/a.png", "cannot write none/a.png: No such file or directory"),
    ]  # fmt: skip
    with shown(here) as run:
        for edge, name, said in cases:
            called = call("tap", edge, "--save", name)
            assert (called.status, called.err.rstrip()) == (1, said)
            assert not list(here.glob("**/a.*"))
        run.process.kill()


def test_a_file_of_no_known_kind(call: Call) -> None:
    said = call("tap", "out.video", "--save", "x.foo")
    assert said.status == 2
    assert "what goes into a .foo is not known; pictures go to .png, packets to .h264" in said.err


def test_numbers_for_people() -> None:
    assert [rate(each) for each in (0, 0.25, 9.96, 30.4)] == ["0/s", "0.2/s", "10/s", "30/s"]
    assert [milliseconds(each) for each in (3_140_000, 25e6, 1.25e9)] == ["3.1 ms", "25 ms", "1.2 s"]
    assert [size(each) for each in (0, 512, 4_200_000, 1.5e9, 86_400)] == ["", "512 B", "4.2 MB", "1.5 GB", "86.4 kB"]
    head = {"time_ns": 5_000_000_000, "kind": "Record", "size_bytes": 0, "caps": "bitrate=5", "latency_ns": None}
    assert line_of(head) == "      5.000 s  record            bitrate=5"
    stats = {"graph": "it", "state": "starting", "up_ns": 3_725e9, "cpu": 0.5, "peak_memory_bytes": 1e8, "threads": 3}
    assert plain({**stats, "nodes": {}, "edges": {}}, ["a cause"], shows_edges=True) == [
        "it  starting  1:02:05  cpu 50%  memory 100 MB at most  3 threads",
        "! a cause",
        "node  type  state",
        "",
        "edge  from  overflow",
    ]
