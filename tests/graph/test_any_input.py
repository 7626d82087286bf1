"""Whatever a file holds, there is a plan or a GraphError whose findings can be shown."""

import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowstream.errors import GraphError
from flowstream.graph import describe_plan
from flowstream.graph.catalog import CATALOG
from flowstream.graph.diagnostics import render, to_json
from flowstream.graph.draw import to_dot, to_mermaid
from tests.graph.cases import FOLDER
from tests.graph.compiling import compiled

SECRET = b"hunter2"
CORPUS = [
    path.read_bytes().replace(SECRET, b"")
    for kind in ("valid", "invalid")
    for path in sorted((FOLDER / kind).glob("*.yaml"))
]
ENVIRONMENT = {"PW": "hunter2", "RATE": "2M", "FPS": "25", "TOKEN": "1", "PACED": "true", "HOME": "/root"}
PIECES = [
    b"{", b"}", b"[", b"]", b": ", b", ", b"- ", b"\n", b" ", b"#", b"'", b'"', b"&a ", b"*a", b"<<: ", b"!x ",
    b"|\n", b">-\n", b"? ", b"---\n", b"...\n", b"%YAML 1.1\n", b"\t", b"\r\n", b"\0", b"\xff", b"\xef\xbb\xbf",
    b"$(a)", b"$(", b"${a}", b"$$", b"$(env:PW)", b"$(env:NO)", b"$(date)", b"nodes:", b"vars:", b"type: ",
    b"pattern", b"from: ", b"inputs: ", b"output: ", b"limit: ", b"overflow: block", b"null", b"~", b"true",
    b"1e999", b"-", b"9" * 50, b"0.1", b"encode", b"restart: ", b"was: ", b"enabled: false",
    b"many: [1, [2, {a: b}]]", b"\\x00", b'"\\U0011FFFF"', b'"\\xZZ"', "\u2028\u202e\u0085\ufeff".encode(),
    b"serve: ", b"log: ", b"use: ", b"flowstream: 2", b"a/b.c", b"out.reports", b"marks: ", b"area: ",
]  # fmt: skip


def check(content: bytes) -> None:
    try:
        plan = compiled(content, environ=ENVIRONMENT)
    except GraphError as error:
        found = error.diagnostics
        is_error = True
    else:
        assert plan.nodes
        assert describe_plan(plan)
        assert to_mermaid(plan).startswith("flowchart")
        assert to_dot(plan).endswith("}\n")
        found = plan.warnings
        is_error = False
    assert any(each.severity == "error" for each in found) is is_error
    assert {each.code for each in found} <= set(CATALOG)
    shown = render(found)
    assert re.fullmatch(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f]*", shown), "a control character reaches the terminal"
    assert "hunter2" not in shown
    json.dumps(to_json(found))


@given(st.binary(max_size=60))
@example(b"")
@example(b"\xef\xbb\xbf")
@example(b"nodes: &a {x: *a}")
@example(b"? [a]\n: b")
@example(b"nodes: {x: {type: pattern, from: x}}")
@example(b"a: " + b"[" * 5000)
@example(b"- " * 5000)
@example(b"a: |\n" + b"  x\n" * 5000)
@example(b"nodes:\n" + b"".join(b"  n%d: {type: blur, from: n%d}\n" % (i, i + 1) for i in range(1500)))
@example(b"nodes:\n" + b"".join(b"  n%d: {type: pass, from: n%d}\n" % (i, (i + 1) % 1500) for i in range(1500)))
@example(b"vars:\n" + b"".join(b"  n%d: $(n%d)\n" % (i, i + 1) for i in range(3000)) + b"nodes: {a: {type: $(n0)}}")
@settings(max_examples=200, deadline=None)
def test_any_bytes(content: bytes) -> None:
    check(content)


@given(st.lists(st.sampled_from(PIECES), max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_pieces_of_the_language(pieces: list[bytes]) -> None:
    check(b"".join(pieces))


@given(st.sampled_from(CORPUS), st.data())
@settings(max_examples=300, deadline=None)
def test_graphs_with_something_wrong_in_them(content: bytes, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.integers(0, 12)))
        piece = data.draw(st.sampled_from(PIECES) | st.just(b"") | st.binary(max_size=4))
        content = content[:start] + piece + content[end:]
    check(content)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["pattern", "encode", "$(a)", "$(env:PW)", "5s", "1M", "", "x.y", "block", "720p"])
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["output", "limit", "items", "overflow", "at", "opacity", "max", "default", "on"]),
        inner,
        max_size=3,
    ),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(
    ["type", "from", "inputs", "label", "enabled", "restart", "was", "use", "fps", "size", "text", "style", "bitrate",
     "viewers", "area", "marks", "names", "radius", "path", "keep", "max"]
)  # fmt: skip
TYPES = st.sampled_from(
    ["pattern", "encode", "blur", "show", "tape", "mix", "film", "door", "pass", "exotic", "acme/x"]
)


@given(
    st.fixed_dictionaries(
        {"nodes": VALUES | st.dictionaries(
            st.sampled_from(["a", "b", "c", "pattern"]),
            st.builds(lambda kind, rest: {"type": kind, **rest}, TYPES, st.dictionaries(KEYS, VALUES, max_size=4)),
            max_size=4)},
        optional={"vars": VALUES, "serve": VALUES, "log": VALUES, "flowstream": VALUES, "include": VALUES},
    )
)  # fmt: skip
@example({"nodes": {}, "include": "\x1f"})
@settings(max_examples=150, deadline=None)
def test_any_values_at_any_place(graph: dict[str, object]) -> None:
    check(json.dumps(graph).encode())


@pytest.mark.parametrize("content", CORPUS)
def test_every_beginning_of_a_graph(content: bytes) -> None:
    for end in range(0, len(content), max(1, len(content) // 40)):
        check(content[:end])
