"""recommend: what this machine can hold for a graph."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowstream.cli import speed
from flowstream.cli.speed import SPEEDS, Speeds, cache_file, measured, speeds
from tests.cli.calling import Call, running

MS = {"medium": 20.0, "fast": 16.0, "faster": 14.0, "veryfast": 9.0, "superfast": 6.0, "ultrafast": 4.0}
GRAPH = """\
nodes:
  pattern: {type: test-pattern, size: 1280x720, fps: 30}
  encode: {type: hw-encode, from: pattern}
  end: {type: discard, from: encode}
"""


@pytest.fixture
def known(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of two cores of which the speeds are kept already."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    monkeypatch.setattr(speed, "cores", lambda: 2)
    speeds({"XDG_CACHE_HOME": str(here / "cache")}, measure=lambda name: (MS[name], "libx264"))
    (here / "it.yaml").write_text(GRAPH)
    return here


def test_it_says_preset_and_ladder_and_why(call: Call, known: Path) -> None:
    called = call("recommend", "it.yaml", "--viewers", "10", "--uplink", "15M")
    assert (called.status, called.err) == (0, "")
    assert (
        called.out
        == """\
graph    it.yaml: encode is given 1280x720 at 30 fps
viewers  10 viewers, 15M up for all
machine  2 cores, 1.40 planned with; libx264 takes 20.0 ms a megapixel at medium (measured before; --measure does it \
anew)
preset   low: 640x360, 15 fps, 0.4M, veryfast
ladder   speed medium, 3 rungs, 0.79 cores with serving, at most 14M up
  high    1280x720  30 fps  1.4M  0.55 cores
  middle  640x360   30 fps  610k  0.14 cores
  low     320x180   30 fps  180k  0.03 cores
why
  even medium, the slowest speed, holds
  2M would be better for 1280x720 at 30 fps; the uplink, shared by 10 viewers, leaves 1.4M for each
write
  use: lib/ladder.yaml, high: 1280x720, middle: 640x360, low: 320x180, high-bitrate: 1.4M, middle-bitrate: 610k, \
low-bitrate: 180k, speed: medium
"""
    )


def test_what_it_writes_is_a_graph(call: Call, known: Path) -> None:
    ladder = (Path(__file__).parents[2] / "graphs" / "lib" / "ladder.yaml").read_text()
    (known / "lib").mkdir()
    (known / "lib" / "ladder.yaml").write_text(ladder)
    for options in (["--viewers", "10"], []):
        written = call("recommend", "it.yaml", "--format", "json", *options).json["write"]
        encode = f"{{{written}, inputs: {{video: pattern}}}}"
        output = "encode.high" if "use:" in written else "encode"
        text = GRAPH.replace("{type: hw-encode, from: pattern}", encode).replace("from: encode}", f"from: {output}}}")
        (known / "new.yaml").write_text(text)
        assert call("check", "new.yaml").out == f"new.yaml: no errors ({8 if 'use:' in written else 3} nodes)\n"


def test_for_programs(call: Call, known: Path) -> None:
    told = call("recommend", "it.yaml", "--format", "json").json
    assert told["picture"] == {"width": 1280, "height": 720, "fps": 30.0, "is_assumed": False}
    assert (told["viewers"], told["uplink_bps"], told["run"], told["preset"]) == (1, None, None, "medium")
    assert told["rungs"] == [
        {
            "name": "only",
            "picture": {"width": 1280, "height": 720, "fps": 30.0},
            "bitrate_bps": 2_000_000,
            "cores": 0.553,
        }
    ]
    assert told["machine"]["ms_per_megapixel"] == MS
    assert told["is_held"] is True


def test_a_size_that_only_the_run_will_show_is_assumed_and_said(call: Call, known: Path) -> None:
    (known / "pushed.yaml").write_text(
        "nodes:\n  in: {type: app-in}\n  encode: {type: hw-encode, from: in}\n  end: {type: discard, from: encode}\n"
    )
    said = call("recommend", "pushed.yaml").out
    assert "encode is given 1280x720 at 30 fps (assumed: the graph does not say)" in said


def test_other_encoders_of_the_graph_take_their_share(call: Call, known: Path) -> None:
    text = GRAPH + "  small: {type: scale, from: pattern, size: 640x360}\n"
    text += "  other: {type: hw-encode, from: small}\n  other-end: {type: discard, from: other}\n"
    (known / "two.yaml").write_text(text)
    assert "1.36 planned with beside 0.04 for its other encoders" in call("recommend", "two.yaml").out


def test_nothing_that_holds_is_a_failure(call: Call, known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "cores", lambda: 1)
    called = call("recommend", "it.yaml", "--viewers", "9000")
    assert called.status == 1
    assert "preset   none of them holds; see the ladder\n" in called.out
    assert called.out.endswith("nothing holds on this machine\n")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["it.yaml", "--uplink", "20"], 2, "'20' is no bitrate; write it with k or M"),
        (["it.yaml", "--uplink", "0k"], 2, "an uplink of 0 carries nothing to anybody."),
        (["it.yaml", "--viewers", "0"], 2, "0 is not in the range"),
        (["none.yaml"], 1, "FS101 file not readable\n  none.yaml: there is no such file"),
        (["silent.yaml"], 1, "silent.yaml encodes no pictures: it has no node of type hw-encode"),
    ],
)
def test_what_is_wrong_is_said(call: Call, known: Path, arguments: list[str], status: int, said: str) -> None:
    (known / "silent.yaml").write_text("nodes:\n  tone: {type: tone}\n  end: {type: discard, from: tone}\n")
    called = call("recommend", *arguments)
    assert called.status == status
    assert said in called.err


def test_a_run_says_what_its_encoder_takes_and_how_many_watch(call: Call, known: Path) -> None:
    text = GRAPH.replace("1280x720", "320x180") + "  out: {type: webrtc-out, from: encode}\n"
    (known / "it.yaml").write_text(text)
    with running(known / "it.yaml") as run:
        run.wait_for("running")
        while (told := call("recommend", "it.yaml", "--format", "json").json)["machine"]["ms_per_megapixel"] == MS:
            pass  # until the encoder has measured itself; the test's time limit bounds it
        assert told["run"] == "it"
        assert told["viewers"] == 1, "nobody watches yet, so it is planned for one"
        measured_there = told["machine"]["ms_per_megapixel"]
        assert len({round(measured_there[name] / MS[name], 2) for name in MS}) == 1
        assert " times that in the run it)" in call("recommend", "it.yaml").out
        run.interrupt()
        assert run.ended() == 0
    assert call("recommend", "it.yaml", "--format", "json").json["run"] is None


LINKS = '''
from flowstream import EncodedPacket, Input, Output, Record, Transform, ViewerReport, ViewerReports

class Links(Transform, type="links/two"):
    """Two viewers, whose links carry 1 and 2 Mbit/s.

    ```yaml
    flowstream: 1
    nodes: {two: {type: links/two}}
    ```
    """
    video = Input(EncodedPacket)
    reports = Output(Record[ViewerReports])

    def process(self, packet):
        links = (ViewerReport("one", 1_000_000), ViewerReport("other", 2_000_000))
        yield self.reports(Record(ViewerReports("two", links), packet.time_ns))
'''


def test_a_run_says_what_the_links_of_its_viewers_carry(call: Call, known: Path) -> None:
    (known / "links").mkdir()
    (known / "links" / "nodes.py").write_text(LINKS)
    text = GRAPH.replace("1280x720", "320x180") + "  two: {type: links/two, from: encode}\n"
    (known / "it.yaml").write_text(text + "  abr: {type: abr-controller, inputs: {reports: two.reports}, max: 2.5M}\n")
    asked = ("recommend", "it.yaml", "--nodes", "links", "--format", "json")
    with running(known / "it.yaml", "--nodes", known / "links") as run:
        run.wait_for("running")
        while (told := call(*asked).json)["uplink_bps"] is None:
            pass  # until they have been told; the test's time limit bounds it
        assert (told["viewers"], told["uplink_bps"], told["is_uplink_estimated"]) == (2, 3_000_000, True)
        told = call(*asked, "--viewers", "10").json
        assert (told["viewers"], told["uplink_bps"]) == (10, 15_000_000), "as many as there are on the mean"
        told = call(*asked, "--uplink", "1M").json
        assert (told["uplink_bps"], told["is_uplink_estimated"]) == (1_000_000, False)
        said = call(*asked[:-2]).out
        assert "viewers  2 viewers, 3M up for all, as the run it estimates its viewers' links\n" in said
        run.interrupt()
        assert run.ended() == 0


# --- measuring ------------------------------------------------------------------------------------------------------


def test_it_really_encodes() -> None:
    taken, encoder = measured("ultrafast")
    assert 0 < taken < 1000
    assert encoder


def test_what_was_measured_is_kept_until_something_else_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    asked: list[str] = []

    def measure(name: str) -> tuple[float, str]:
        asked.append(name)
        return MS[name], "libx264"

    assert speeds(environ, measure=measure) == Speeds(MS, "libx264", is_fresh=True)
    assert speeds(environ, measure=measure) == Speeds(MS, "libx264", is_fresh=False)
    assert asked == list(SPEEDS)
    speeds(environ, is_fresh=True, measure=measure)
    assert len(asked) == 2 * len(SPEEDS)
    monkeypatch.setattr(speed, "cores", lambda: 77)
    assert speeds(environ, measure=measure).is_fresh


@pytest.mark.parametrize("content", ["", "[]", '{"of": 1}', "{", '{"of": {}, "ms_per_megapixel": 5}'])
def test_a_damaged_file_is_measured_anew(tmp_path: Path, content: str) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    path = cache_file(environ)
    path.parent.mkdir()
    path.write_text(content)
    assert speeds(environ, measure=lambda name: (MS[name], "libx264")).is_fresh
    assert json.loads(path.read_text())["encoder"] == "libx264"


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    (tmp_path / "flowstream").write_text("a file")
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    assert speeds(environ, measure=lambda name: (MS[name], "libx264")).is_fresh
    assert speeds(environ, measure=lambda name: (MS[name], "libx264")).is_fresh


def test_a_slower_speed_never_seems_to_take_less(tmp_path: Path) -> None:
    disturbed = {**MS, "superfast": 50.0}
    found = speeds({"XDG_CACHE_HOME": str(tmp_path)}, measure=lambda name: (disturbed[name], "x"))
    taken = list(found.ms_per_megapixel.values())
    assert taken == sorted(taken, reverse=True)
