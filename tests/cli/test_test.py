"""test: the report, JUnit, and exit statuses."""

import xml.etree.ElementTree as ET
from pathlib import Path

from tests.cli.calling import Call

GRAPH = "nodes:\n  pattern: {type: test-pattern, size: 160x90, fps: 30}\n  end: {type: discard, from: pattern}\n"
HEAD = "graph: graph.yaml\nclock: virtual\nsteps:\n"


def written(here: Path, name: str, steps: str) -> None:
    (here / "graph.yaml").write_text(GRAPH)
    (here / name).write_text(HEAD + steps)


def test_a_script_that_passes(call: Call, here: Path) -> None:
    written(here, "a.test.yaml", '  - wait: 1s\n  - expect: {node: end, count: ">= 30"}\n')
    called = call("test", "a.test.yaml")
    assert (called.status, called.err) == (0, "")
    assert called.out == (
        "a.test.yaml: graph.yaml, virtual time\n"
        "  ok     4  wait 1s\n"
        "  ok     5  expect end: count 30 (>= 30)\n"
        "1 passed\n"
    )


def test_a_script_that_fails_and_one_that_cannot_be_read(call: Call, here: Path) -> None:
    written(here, "a.test.yaml", "  - wait: 1s\n  - expect: {node: end, count: 3, state: ended}\n")
    written(here, "b.test.yaml", "  - wiat: 1s\n")
    called = call("test", "a.test.yaml", "b.test.yaml", "--junit", "out.xml")
    assert called.status == 1
    assert "  FAIL   5  expect end: count 30 (3); state running (ended)\n" in called.out
    assert "a.test.yaml:5:32: expected count of end 3, measured 30\n" in called.out
    assert "a.test.yaml:5:42: expected state of end ended, measured running\n" in called.out
    assert "b.test.yaml:4:5: FS112 unknown key\n" in called.out
    assert called.out.endswith("0 passed, 2 failed\n")
    first, second = ET.parse(here / "out.xml").getroot()
    assert (first.get("name"), first.get("tests"), first.get("failures")) == ("a.test.yaml", "2", "1")
    assert [each.text for each in first.iter("failure")] == [
        "a.test.yaml:5:32: expected count of end 3, measured 30",
        "a.test.yaml:5:42: expected state of end ended, measured running",
    ]
    assert (second.get("tests"), second.get("errors")) == ("1", "1")


def test_a_script_that_is_not_there(call: Call, here: Path) -> None:
    called = call("test", "no.test.yaml")
    assert called.status == 1
    assert "no.test.yaml: No such file or directory" in called.err
