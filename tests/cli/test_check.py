"""check, plan, draw and schema."""

import json
from pathlib import Path

from tests.cli.calling import ODD, TICKS, Call

BROKEN = "flowstream: 1\nnodes:\n  ticks: {type: odd/ticks, cuont: 3}\n  end: {type: discard, from: tocks}\n"


def test_every_finding_with_its_place(call: Call, here: Path) -> None:
    (here / "broken.yaml").write_text(BROKEN)
    called = call("check", "broken.yaml", "--nodes", ODD)
    assert called.status == 1
    assert "broken.yaml:3:28: FS206 unknown setting" in called.out
    assert "did you mean count?" in called.out
    assert "broken.yaml:4:30: FS301 unknown node" in called.out
    assert called.out.endswith("\n\n2 errors. More about them: flowstream explain FS206 FS301\n")
    assert "\033" not in called.out


def test_the_last_line_leads_to_an_explanation(call: Call, here: Path) -> None:
    (here / "one.yaml").write_text(TICKS.replace("from: ticks", "from: tocks"))
    (here / "many.yaml").write_text("flowstream: 2\nserve: {port: 1}\nnodes: {A: 1, b: {}, c: 1}\n")
    said = call("check", "one.yaml", "--nodes", ODD).out.splitlines()[-1]
    assert said == "1 error. More about it: flowstream explain FS301"
    last = call("check", "many.yaml").out.splitlines()[-1]
    assert last == "5 errors. More about them: flowstream explain FS114 FS112 FS201"
    for line in (said, last):
        assert call(*line.partition(": flowstream ")[2].split()).status == 0


def test_findings_for_programs(call: Call, here: Path) -> None:
    (here / "broken.yaml").write_text(BROKEN)
    called = call("check", "broken.yaml", "hello", "--nodes", ODD, "--format", "json")
    assert called.status == 1
    first = called.json["diagnostics"][0]
    assert (first["file"], first["line"], first["column"], first["code"]) == ("broken.yaml", 3, 28, "FS206")


def test_several_graphs(call: Call, here: Path) -> None:
    (here / "ticks.yaml").write_text(TICKS)
    called = call("check", "ticks.yaml", "hello", "--nodes", ODD)
    assert called.status == 0
    assert "ticks.yaml: no errors (2 nodes)" in called.out
    assert "hello.yaml: no errors (6 nodes)" in called.out


def test_warnings_are_no_errors(call: Call, here: Path) -> None:
    (here / "unused.yaml").write_text(TICKS + "vars: {spare: 1}\n")
    called = call("check", "unused.yaml", "--nodes", ODD)
    assert called.status == 0
    assert "FS124" in called.out
    assert "no errors" in called.out


def test_a_plan(call: Call, here: Path) -> None:
    (here / "ticks.yaml").write_text(TICKS)
    called = call("plan", "ticks.yaml", "--nodes", ODD)
    assert called.status == 0
    assert called.out.splitlines() == [
        "ticks: 2 nodes, 1 edge, live",
        "  ticks  odd/ticks",
        "  end    discard    anything from ticks.out",
    ]


def test_what_a_change_would_do(call: Call, here: Path) -> None:
    (here / "old.yaml").write_text(TICKS)
    (here / "new.yaml").write_text(TICKS.replace("every_ms: 1", "every_ms: 2"))
    called = call("plan", "old.yaml", "new.yaml", "--nodes", ODD)
    assert called.status == 0
    assert called.out.splitlines() == ["ticks  changed in place  (every_ms 1 -> 2)", "end    kept"]


def test_a_plan_of_a_broken_graph(call: Call, here: Path) -> None:
    (here / "broken.yaml").write_text(BROKEN)
    called = call("plan", "broken.yaml", "--nodes", ODD)
    assert (called.status, called.out) == (1, "")
    assert "FS206" in called.err


def test_drawings(call: Call, here: Path) -> None:
    (here / "ticks.yaml").write_text(TICKS)
    assert call("draw", "ticks.yaml", "--nodes", ODD).out.startswith("flowchart LR\n")
    assert call("draw", "ticks.yaml", "--nodes", ODD, "--format", "dot").out.startswith("digraph ")


def test_the_schema_knows_the_types_of_folders(call: Call) -> None:
    schema = json.loads(call("schema", "--nodes", ODD).out)
    assert {"const": "odd/ticks", "description": "A source of numbers."} in (schema["definitions"]["type"]["anyOf"])
    alone = json.loads(call("schema", "--node", "odd/ticks", "--nodes", ODD).out)
    assert alone["title"] == "odd/ticks"
    layer = json.loads(call("schema", "--layer", "--nodes", ODD).out)
    assert layer["title"] == "flowstream layer"
    assert layer["definitions"]["type"] == schema["definitions"]["type"]


def test_a_schema_is_of_files_or_of_a_node(call: Call) -> None:
    called = call("schema", "--layer", "--node", "tone")
    assert called.status == 2
    assert "--layer is about whole files and --node about one node: give one of them." in called.err
    called = call("schema", "--node", "tune")
    assert (called.status, called.err) == (1, "there is no node type 'tune'\n  hint: did you mean tone?\n")


def test_the_schema_leaves_out_what_does_not_load(call: Call, here: Path) -> None:
    (here / "bad").mkdir()
    (here / "bad" / "broken.py").write_text("import no_such_module\n")
    called = call("schema", "--nodes", "bad")
    assert called.status == 0
    assert called.json["title"] == "flowstream graph"
    assert "left out: bad: " in called.err
    assert "No module named 'no_such_module'" in called.err


def test_what_can_be_no_path_is_a_missing_file(call: Call, here: Path) -> None:
    (here / "main.yaml").write_text('nodes:\n  a: {use: "x\\0.yaml"}\n  b: {use: "\\ud800.yaml"}\n')
    called = call("check", "main.yaml")
    assert called.status == 1
    assert called.out.count("there is no such file") == 2
