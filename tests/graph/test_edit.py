"""Editing one value of a file: the rest stays as it is, to the character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.graph.diagnostics import Findings
from flowstream.graph.edit import EditError, Written, put
from flowstream.graph.load import Map, Scalar, load
from flowstream.graph.write import scalar

BLOCK = """\
# The camera in the hall
nodes:
  enc:
    type: encode   # by x264
    bitrate: 1M  # enough

    text: |
      two
      lines
  # the end
  end: {type: discard, from: enc, more: {deep: 1}, }  # nothing
"""


def written(value: str) -> Written:
    return Written(scalar(value, is_flow=False), scalar(value, is_flow=True))


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        ("nodes.enc.bitrate", "600k", "bitrate: 1M  # enough", "bitrate: 600k  # enough"),
        ("nodes.enc.text", "one", "text: |\n      two\n      lines\n", "text: one\n"),
        ("nodes.enc.fps", "25x", "      lines\n", "      lines\n    fps: 25x\n"),
        ("nodes.end.from", "a, b", "from: enc,", 'from: "a, b",'),
        ("nodes.end.label", "End", "1}, }", "1}, label: End }"),
        ("nodes.end.more.deep", "2x", "deep: 1", "deep: 2x"),
        ("nodes.end.more.wide.very", "3x", "deep: 1", "deep: 1, wide: {very: 3x}"),
        ("nodes.end.more", "none", "{deep: 1}", "none"),
        ("nodes.enc.area.at", "1x1", "      lines\n", "      lines\n    area: {at: 1x1}\n"),
        ("log.level", "debug", "# nothing\n", "# nothing\nlog: {level: debug}\n"),
    ],
)
def test_one_place_changes(path: str, value: str, old: str, new: str) -> None:
    assert BLOCK.count(old) == 1
    assert put(BLOCK, path.split("."), written(value)) == BLOCK.replace(old, new)


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("base: &b {x: 1}\nnodes: {a: *b}\n", "nodes.a.x", "nodes.a stands there by an alias"),
        ("base: &b 1\nnodes: {a: {x: *b}}\n", "nodes.a.x", "nodes.a.x stands there by an alias"),
        ("nodes: {a: 5}\n", "nodes.a.x", "nodes.a is no map there"),
        ("nodes: {a: {x: }}\n", "nodes.a.x", "nodes.a.x is empty there"),
        ("nodes: {a: \n", "nodes.a.x", "cannot be read as YAML"),
        ("", "nodes.a.x", "the file is empty"),
    ],
)
def test_what_cannot_be_edited_is_said(text: str, path: str, said: str) -> None:
    with pytest.raises(EditError, match=said):
        put(text, path.split("."), written("1"))


def test_line_ends_stay_what_they_are() -> None:
    text = "nodes:\r\n  a:\r\n    x: 1  # one\r\n"
    assert put(text, ["nodes", "a", "x"], written("two")) == text.replace("1", "two")
    assert put(text, ["nodes", "a", "y"], written("two")) == f"{text}    y: two\r\n"
    assert put("a: {}", ["a", "b"], written("c")) == "a: {b: c}"
    assert put("a:\n  b: 1", ["a", "c"], written("d")) == "a:\n  b: 1\n  c: d\n"


@given(st.sampled_from(["nodes.enc.bitrate", "nodes.enc.new", "nodes.end.from", "nodes.end.new"]), st.text(max_size=40))
def test_any_text_reads_back(path: str, value: str) -> None:
    steps = path.split(".")
    try:
        text = put(BLOCK, steps, written(value))
    except UnicodeEncodeError:
        return
    findings = Findings()
    found = load("it.yaml", text.encode("utf-8", "surrogatepass"), findings)
    if findings.has_errors:
        assert any("\ud800" <= each <= "\udfff" or each == "\0" for each in value)
        return
    for step in steps:
        assert isinstance(found, Map)
        found = found.get(step)
    assert isinstance(found, Scalar)
    assert found.value == value
