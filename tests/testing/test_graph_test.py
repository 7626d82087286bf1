"""Scripted runs of graphs: every mistake of a file at its place, and every expectation held against the run."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from flowstream.errors import GraphError
from flowstream.graph.diagnostics import render
from flowstream.testing.graph_run import Result, run_test
from flowstream.testing.graph_test import read_test, script_schema

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "graphs" / "tests").glob("*.test.yaml"))
GRAPH = b"""\
nodes:
  pattern: {type: test-pattern, size: 160x90, fps: 30}
  bad: {type: fault, from: pattern}
  end: {type: discard, from: bad}
"""


def play(steps: str, *, clock: str = "virtual", graph: bytes = GRAPH, head: str = "", **files: bytes) -> Result:
    """Runs a script on a graph."""
    held = {"t/graph.yaml": graph, **{f"t/{name}.yaml": text for name, text in files.items()}}

    def read(path: str) -> bytes:
        if path not in held:
            raise FileNotFoundError(2, "No such file or directory", path)
        return held[path]

    text = f"graph: graph.yaml\nclock: {clock}\n{head}steps:\n" + "".join(
        f"  - {line}\n" for line in steps.splitlines()
    )
    return run_test(read_test("t/graph.test.yaml", text.encode()), read)


def refused(text: str) -> str:
    with pytest.raises(GraphError) as caught:
        read_test("a.test.yaml", text.encode())
    return render(caught.value.diagnostics)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_that_ship_pass(script: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flowstream", "test", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("1 passed\n")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_schema_takes_them(script: Path) -> None:
    jsonschema.validate(YAML(typ="safe", pure=True).load(script.read_text()), script_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"graph": "x.yaml", "steps": [{"wiat": "2s"}]}, script_schema())


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: [{wait: 2s}]\n",
         "a.test.yaml:1:1: FS207 missing value\n    1 | steps: [{wait: 2s}]\n      | ^\n"
         "  the test needs graph (the graph to run, as a path from the test's own folder)\n"
         "  hint: for example graph: TEXT"),
        ("graph: x.yaml\n", "a.test.yaml:1:1: FS111 wrong shape\n    1 | graph: x.yaml\n      | ^\n"
         "  steps: takes a list of steps\n  hint: for example - wait: 2s"),
        ("- wait: 2s\n", "a.test.yaml:1:1: FS111 wrong shape\n    1 | - wait: 2s\n      | ^\n"
         "  a test is a map with graph: and steps:, not a list"),
        ("graph: x.yaml\nsteps:\n  - wiat: 2s\n",
         "a.test.yaml:3:5: FS112 unknown key\n    3 |   - wiat: 2s\n      |     ^^^^\n"
         "  there is no step wiat; there are wait, save, set and expect\n  hint: did you mean wait?"),
        ("graph: x.yaml\nsteps:\n  - wait: 2\n",
         "a.test.yaml:3:11: FS208 bad value\n    3 |   - wait: 2\n      |           ^\n"
         "  wait: 2 has no unit: write 2s or 2ms, whichever is meant"),
        ("graph: x.yaml\nsteps:\n  - expect: {node: end, fps: many}\n",
         "a.test.yaml:3:30: FS208 bad value\n    3 |   - expect: {node: end, fps: many}\n"
         "      |                              ^^^^\n"
         "  fps: 'many' is nothing to compare with; write \">= 25\", \"< 3\" or 0"),
        ("graph: x.yaml\nsteps:\n  - expect: {fps: 30}\n",
         "a.test.yaml:3:5: FS208 bad value\n    3 |   - expect: {fps: 30}\n      |     ^^^^^^\n"
         "  expect: fps is measured at a node; add node: NODE"),
        ("graph: x.yaml\nsteps:\n  - expect: {node: end, fsp: 30}\n",
         "a.test.yaml:3:25: FS206 unknown setting\n    3 |   - expect: {node: end, fsp: 30}\n"
         "      |                         ^^^\n  expect has no setting fsp\n  hint: did you mean fps?"),
        ("graph: x.yaml\nsteps:\n  - set: {drop: 5%}\n",
         "a.test.yaml:3:11: FS208 bad value\n    3 |   - set: {drop: 5%}\n      |           ^^^^\n"
         "  'drop' is not NODE.FIELD, such as encode.bitrate"),
        ("graph: x.yaml\nsteps:\n  - save: {text: a, copy_of: b}\n",
         "a.test.yaml:3:5: FS208 bad value\n    3 |   - save: {text: a, copy_of: b}\n      |     ^^^^\n"
         "  save: give one of text, copy_of and replace"),
    ],
)  # fmt: skip
def test_mistakes_are_found_at_their_places(text: str, said: str) -> None:
    assert refused(text) == said


def test_all_mistakes_are_found_at_once() -> None:
    said = refused("graph: x.yaml\nclock: fast\nsteps:\n  - wait: 2\n  - expect: {node: a, gap: 5}\n  - stop\n")
    assert [line.split(":")[1] for line in said.splitlines() if line.startswith("a.test")] == ["2", "4", "5", "6"]


# --- running --------------------------------------------------------------------------------------------------------


def test_what_is_measured() -> None:
    result = play(
        'wait: 1s\nexpect: {node: end, fps: ">= 29", gap: "< 50ms", drops: 0, restarts: 0, state: running}\n'
        'wait: 2s\nexpect: {node: pattern, count: "> 55"}\nexpect: {state: running}'
    )
    assert result.has_passed, result.missed
    assert len(result.steps) == 5


def test_what_is_missed_is_said_with_its_place_and_both_sides() -> None:
    result = play('wait: 1s\nexpect: {node: end, fps: ">= 60", restarts: 1}\nexpect: {node: nobody, drops: 0}')
    assert [str(each) for each in result.missed] == [
        "t/graph.test.yaml:5:30: expected fps of end >= 60, measured 30.0",
        "t/graph.test.yaml:5:49: expected restarts of end 1, measured 0",
        "t/graph.test.yaml:6:20: expected a node nobody, there is none in what runs",
    ]


def test_a_gap_counts_across_a_change_and_measuring_begins_anew_after_expectations() -> None:
    result = play(
        "wait: 1s\nset: {bad.delay: 400ms}\nwait: 1s\nset: {bad.delay: null}\nwait: 1s\n"
        'expect: {node: end, gap: ">= 300ms"}\nwait: 2s\nexpect: {node: end, gap: "< 50ms"}'
    )
    assert result.has_passed, result.missed


def test_saves_are_applied_or_refused_and_files_stay_as_they_are() -> None:
    result = play(
        "save: {replace: {'fps: 30': 'fps: 10'}}\nexpect: {reload: applied, contains: fps}\nwait: 2s\n"
        'expect: {node: end, fps: "<= 11"}\nsave: {text: "nodes: {}"}\nexpect: {reload: refused, contains: FS111}\n'
        "save: {copy_of: other.yaml}\nexpect: {reload: applied}\nwait: 1s\nexpect: {node: last, count: '> 10'}",
        other=GRAPH.replace(b"end:", b"last:"),
    )
    assert result.has_passed, result.missed


def test_a_save_that_finds_nothing_to_replace_ends_the_script() -> None:
    result = play("save: {replace: {'fps: 31': 'fps: 10'}}\nwait: 1h")
    assert [str(each) for each in result.missed] == [
        "t/graph.test.yaml:4:5: expected save the graph, graph.yaml holds no 'fps: 31'"
    ]
    assert len(result.steps) == 1
    assert play("save: {copy_of: no.yaml}").missed[0].measured == "t/no.yaml: No such file or directory"


def test_a_set_that_is_refused_is_taken_back() -> None:
    result = play(
        "set: {bad.drop: much}\nexpect: {reload: refused, contains: FS208}\n"
        "set: {end.x: 1}\nexpect: {reload: refused}\nset: {bad.drop: 100%}\nexpect: {reload: applied}\n"
        "wait: 1s\nexpect: {node: end, count: '<= 1'}"
    )
    assert result.has_passed, result.missed


def test_restarts_and_states() -> None:
    graph = GRAPH.replace(b"from: pattern}", b"from: pattern, restart: {on: peer, backoff: {first: 100ms}}}")
    result = play(
        "set: {bad.leave_after: 5}\nwait: 2s\nexpect: {node: bad, restarts: '>= 1'}\n"
        "set: {bad.leave_after: 0, bad.fail_after: 1}\nwait: 3s\nexpect: {node: bad, state: failed}\n"
        "expect: {state: degraded}",
        graph=graph,
    )
    assert result.has_passed, result.missed


def test_a_graph_that_does_not_run() -> None:
    result = play("wait: 1s", graph=GRAPH.replace(b"discard", b"discart"))
    assert not result.has_passed
    assert "t/graph.yaml:4:15: FS203 unknown node type" in result.error
    result = play(
        "wait: 1s", graph=b"nodes:\n  tape: {type: file, path: /nowhere.mp4}\n  end: {type: discard, from: tape}\n"
    )
    assert "nowhere.mp4" in result.error


def test_a_node_of_the_real_world_refuses_virtual_time() -> None:
    graph = GRAPH + b"  show: {type: display, from: bad}\n"
    result = play("wait: 1s", graph=graph)
    assert result.error == (
        "show (display) goes by the real clock, so the test cannot run on a virtual one (write clock: real)"
    )


def test_real_time() -> None:
    result = play('wait: 300ms\nexpect: {node: end, count: ">= 1", state: running}', clock="real")
    assert result.has_passed, result.missed


def test_variables_layers_and_node_folders(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "half.py").write_text(
        "from flowstream import VideoFrame, node\n\n"
        '@node("mine/half")\ndef half(frame: VideoFrame) -> VideoFrame:\n    """Passes."""\n    return frame\n'
    )
    (tmp_path / "g.yaml").write_text(
        "vars: {rate: {type: number}}\n"
        "nodes:\n  a: {type: test-pattern, size: 160x90, fps: $(rate)}\n  h: {type: mine/half, from: a}\n"
        "  end: {type: discard, from: h}\n"
    )
    (tmp_path / "over.yaml").write_text("nodes: {more: {type: discard, from: h}}\n")
    script = tmp_path / "t.test.yaml"
    script.write_text(
        'graph: g.yaml\nlayers: [over.yaml]\nnodes: [mine]\nsets: {rate: "10"}\nclock: virtual\nsteps:\n'
        "  - wait: 2s\n  - expect: {node: more, fps: '<= 11', count: '> 18'}\n"
    )
    result = run_test(read_test(str(script), script.read_bytes()), lambda path: Path(path).read_bytes())
    assert result.has_passed, (result.error, result.missed)


def test_the_schema_file_is_what_the_words_are() -> None:
    assert json.loads((ROOT / "schemas" / "test.schema.json").read_text()) == script_schema()
