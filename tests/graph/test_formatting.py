"""The usual form of graph files: every rule, and whatever is written, meaning and comments stay."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowstream.errors import GraphError
from flowstream.graph.diagnostics import Findings
from flowstream.graph.formatting import WIDTH, FormattingError, formatted
from flowstream.graph.load import List, Map, Scalar, Value, load
from tests.docs.fences import blocks_of
from tests.graph.cases import FOLDER
from tests.graph.test_any_input import PIECES

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = sorted((ROOT / "graphs").glob("*.yaml"))
DOCUMENTED = [
    block for name in ("README.md", "CONTRIBUTING.md") for block in blocks_of(ROOT / name) if block.language == "yaml"
]
LONG = ", ".join(f"setting-{number}: {number}" for number in range(10))


def usual(text: str) -> str:
    """The usual form, which has itself for its usual form."""
    result = formatted("g.yaml", text.encode())
    assert formatted("g.yaml", result.encode()) == result
    return result


RULES = {
    "colons and commas": ("b:   {x: 1 , y : 2 ,z: [ 1,2, ] , }\n", "b: {x: 1, y: 2, z: [1, 2]}\n"),
    "key and colon": ("a :  1\n", "a: 1\n"),
    "indentation": ("a:\n     b:\n       - c\n       -   d: 1\n           e: 2\n", "a:\n  b:\n    - c\n    - d: 1\n      e: 2\n"),
    "a list as deep as its key": ("a:\n- 1\n- - 2\n  - 3\n", "a:\n  - 1\n  - - 2\n    - 3\n"),
    "blank lines": ("\n\na: 1\n\n\n\nb: 2\nc: 3\n\n\n", "a: 1\n\nb: 2\nc: 3\n"),
    "blank lines at the start of a block": ("a:\n\n  b: 1\n\n\n  c: 2\n", "a:\n  b: 1\n\n  c: 2\n"),
    "ending spaces": ("a: 1   \nb: # c   \n  c: x  \n", "a: 1\nb: # c\n  c: x\n"),
    "no line break at the end": ("a: 1", "a: 1\n"),
    "line breaks of Windows": ("a: 1\r\n\r\n# c\r\nb: |\r\n  x\r\n  y\r\n", "a: 1\n\n# c\nb: |\n  x\n  y\n"),
    "a byte order mark": ("\ufeffa: 1\n", "a: 1\n"),
    "nothing": ("", ""),
    "nothing but blank lines": ("\n \n\n", ""),
    "nothing but comments": ("\n  # one\n\n\n# two\n\n", "# one\n\n# two\n"),
    "marks of the document": ("--- # c\na: 1\n...\n# d\n", "# c\na: 1\n# d\n"),
    "quotes": ("a: 'x'\nb: \"y\\n\"\n'c': z\n", "a: 'x'\nb: \"y\\n\"\n'c': z\n"),
    "scalars of several lines": (
        "a: 'x\n     y'\nb:\n      plain\n      text # c\nc: [\"x   \n y\\ \n z\"]\n",
        "a: 'x\n  y'\nb: plain\n  text # c\nc:\n  - \"x\n    y\\ \n    z\"\n",
    ),
    "block scalars": (
        "a:\n    x: |\n          one\n            two  \n\n          three\n    y: >-\n     folded\n     text\n    z: 1\n",
        "a:\n  x: |\n    one\n      two  \n\n    three\n  y: >-\n    folded\n    text\n  z: 1\n",
    ),
    "block scalars that say their indentation": ("a:\n    x: |3-\n         one\n        two\n", "a:\n  x: |2-\n      one\n     two\n"),
    "a block scalar that keeps blank lines": ("a: |+ # c\n x\n\n\nb: 1\n", "a: |+ # c\n  x\n\n\nb: 1\n"),
    "a block scalar that keeps blank lines, at the end": ("a: |+\n x\n\n\n", "a: |+\n  x\n\n\n"),
    "a block scalar that the file ends in": ("a: |\n x", "a: |-\n  x\n"),
    "an empty block scalar": ("a: |\n\n\nb: >\n", "a: |\n\nb: >\n"),
    "comments above and behind": (
        "a: 1 # a\n   # b\n# b too\nb: 2\n\n# c\n\nc: 3    # three\n",
        "a: 1 # a\n# b\n# b too\nb: 2\n\n# c\n\nc: 3 # three\n",
    ),
    "a comment that goes on beneath itself": ("a: 1   # one\n       # two\nb: 2\n", "a: 1 # one\n     # two\nb: 2\n"),
    "comments at the end of a block stay in it": (
        "a:\n    b: 1\n    # in a\n# above c\nc: 2\n  # still c\n",
        "a:\n  b: 1\n  # in a\n# above c\nc: 2\n# still c\n",
    ),
    "comments at the end of a list": (
        "a:\n- 1\n# above b\nb:\n- 2\n # in b\n# end\n",
        "a:\n  - 1\n# above b\nb:\n  - 2\n  # in b\n# end\n",
    ),
    "comments in place of a value": ("a:\n  # b: 1\nc:\n# d\nd:\n  - # e\n", "a:\n  # b: 1\nc:\n# d\nd:\n  - # e\n"),
    "comments between a key and its value": ("a: # one\n  # two\n  1 # three\n", "# two\n# three\na: 1 # one\n"),
    "comments at dashes": (
        "a:\n- # one\n  b: 1\n  c: 2\n# two\n-\n  # three\n  d: 1\n",
        "a:\n  - # one\n    b: 1\n    c: 2\n  # two\n  # three\n  - d: 1\n",
    ),
    "comments in brackets": (
        "a: { # head\n  b: 1, # one\n  # above c\n  c: [2], # two\n  # foot\n} # behind\n",
        "# behind\na: # head\n  b: 1 # one\n  # above c\n  c: [2] # two\n  # foot\n",
    ),
    "comments before commas": ("a: [1 # one\n , 2 # two\n , # three\n 3]\n", "a:\n  - 1 # one\n  # three\n  - 2 # two\n  - 3\n"),
    "comments in empty brackets": ("a: [ # none\n  # yet\n]\n", "# yet\na: [] # none\n"),
    "brackets of several lines that fit in one": ("a: {b: 1,\n    c: 2}\nd: [\n  1,\n  2,\n]\n", "a: {b: 1, c: 2}\nd: [1, 2]\n"),
    "brackets that do not fit": (
        f"a: {{x: {{{LONG}}}, y: [1]}} # c\n",
        "a: # c\n  x:\n" + "".join(f"    setting-{n}: {n}\n" for n in range(10)) + "  y: [1]\n",
    ),
    "a map of one entry in a list": ("a: [b: 1]\n", "a: [{b: 1}]\n"),
    "the whole file in brackets": ("# c\n{nodes: {}, vars: {}}\n# d\n", "# c\n{vars: {}, nodes: {}}\n# d\n"),
    "no value": ('a:\nb: {"c":, d: ~}\n', 'a:\nb: {"c":, d: ~}\n'),
    "keys on a line of their own": ("? a # one\n: # two\n  b: 1\n", "# two\na: # one\n  b: 1\n"),
    "a list as the file": ("- 1\n- a:   2\n", "- 1\n- a: 2\n"),
    "a text as the file": ("# c\n'x'   # d\n", "# c\n'x' # d\n"),
    "anchors and aliases": (
        "a: &x  # c\n    b: 1\nc: *x\nd: [ &y k,*y ]\n*y : 3\n&z e: *y\n",
        "a: &x # c\n  b: 1\nc: *x\nd: [&y k, *y]\n*y : 3\n&z e: *y\n",
    ),
    "top-level keys": (
        "nodes: {}\nz: 1\nplacement: {}\nlog: {}\nserve: {}\noutputs: {}\ninputs: {}\ninclude: []\nvars: {}\nflowstream: 1\n",
        "flowstream: 1\nvars: {}\ninclude: []\ninputs: {}\noutputs: {}\nserve: {}\nlog: {}\nplacement: {}\nnodes: {}\nz: 1\n",
    ),
    "keys of nodes": (
        "nodes:\n  b: {needs: a, was: c, enabled: true, placement: x, restart: {}, convert: auto, z: 1, from: a, y: 2, "
        "label: L, type: t}\n  a: {x: 1, inputs: {}, use: f.yaml}\n",
        "nodes:\n  b: {type: t, label: L, from: a, z: 1, y: 2, convert: auto, restart: {}, placement: x, enabled: true, "
        "was: c, needs: a}\n  a: {use: f.yaml, inputs: {}, x: 1}\n",
    ),
    "keys of edges": (
        "nodes:\n  a:\n    from: {limit: {time: 1s, bytes: 1B, items: 1}, overflow: block, output: b}\n"
        "  c:\n    inputs: {video: [{overflow: block, output: b}, {limit: 1, output: c}], a: {overflow: x, output: y}}\n",
        "nodes:\n  a:\n    from: {output: b, overflow: block, limit: {items: 1, bytes: 1B, time: 1s}}\n"
        "  c:\n    inputs: {video: [{output: b, overflow: block}, {output: c, limit: 1}], a: {output: y, overflow: x}}\n",
    ),
    "keys of restart": (
        "nodes: {a: {restart: {limit: 3, backoff: {max: 2s, first: 1s}, on: any}}}\n",
        "nodes: {a: {restart: {on: any, backoff: {first: 1s, max: 2s}, limit: 3}}}\n",
    ),
    "keys of variables": (
        "vars:\n  b: {description: d, default: 1, type: integer}\n  a: 1\n",
        "vars:\n  b: {type: integer, default: 1, description: d}\n  a: 1\n",
    ),
    "keys of settings stay": ("nodes: {a: {type: t, area: {type: 1, b: 2, a: 1}}}\n", None),
    "comments go with their keys": (
        "nodes:\n  a:\n    # x\n    x: 1 # one\n\n    # from\n    from: b # b\n    # type\n    type: t\n    # end\n",
        "nodes:\n  a:\n    # type\n    type: t\n\n    # from\n    from: b # b\n    # x\n    x: 1 # one\n    # end\n",
    ),
    "a header stays at the top": (
        "# header\n# of two lines\nnodes: {}\nvars: {}\n",
        "# header\n# of two lines\n\nvars: {}\nnodes: {}\n",
    ),
    "a header, and a comment of the first key": (
        "# header\n\n# more\n\n# nodes\nnodes: {}\n\n# vars\nvars: {}\n",
        "# header\n\n# more\n\n# vars\nvars: {}\n\n# nodes\nnodes: {}\n",
    ),
    "what is above the first key of an item is above the item": (
        "nodes:\n  a:\n    from:\n      - overflow: block\n        # b\n        output: b\n",
        "nodes:\n  a:\n    from:\n      # b\n      - output: b\n        overflow: block\n",
    ),
    "no key moves before its anchor": (
        "nodes: {a: &n {z: 1, type: t}}\nserve: *n\nvars: {}\n",
        "nodes: {a: &n {type: t, z: 1}}\nserve: *n\nvars: {}\n",
    ),
    "keys move where anchors stay in front": (
        "serve: {listen: x}\nvars: {a: &n 1}\nnodes: {a: {z: *n, type: t}}\n",
        "vars: {a: &n 1}\nserve: {listen: x}\nnodes: {a: {type: t, z: *n}}\n",
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_rule(name: str) -> None:
    before, after = RULES[name]
    assert usual(before) == (before if after is None else after)


def test_width_counts_what_stands_before_the_brackets_but_no_comment() -> None:
    text = "b" * (WIDTH - len("a: [[1], ]"))
    assert usual(f"a: [[1], {text}] # comment\n") == f"a: [[1], {text}] # comment\n"
    assert usual(f"a: [[1], b{text}]\n") == f"a:\n  - [1]\n  - b{text}\n"
    assert usual(f"- a: [[1], {text[2:]}]\n") == f"- a: [[1], {text[2:]}]\n"
    assert usual(f"- a: [[1], {text[1:]}]\n") == f"- a:\n    - [1]\n    - {text[1:]}\n"


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_graphs_that_ship_have_the_usual_form(path: Path) -> None:
    assert usual(path.read_text()) == path.read_text()


@pytest.mark.parametrize("block", DOCUMENTED, ids=str)
def test_documented_graphs_have_the_usual_form(block: object) -> None:
    text = getattr(block, "text")  # noqa: B009
    assert usual(text) == text


def test_what_cannot_be_read_is_told_as_check_tells_it() -> None:
    with pytest.raises(GraphError) as caught:
        formatted("g.yaml", b"a: [1\nb: 2\n")
    (found,) = caught.value.diagnostics
    assert (found.code, str(found.place)) == ("FS104", "g.yaml:2:2")


@pytest.mark.parametrize("content", [b"a: 1\na: 2\n", b"1: a\n", b"a: {b:1}\n", b"a: !t 1\n", b"a: \xff\n"])
def test_what_is_lost_in_reading_is_refused(content: bytes) -> None:
    with pytest.raises(GraphError):
        formatted("g.yaml", content)


def test_mistakes_of_the_graph_do_not_matter() -> None:
    assert usual("nodes:\n  a: {from: nobody, type: no-such-type}\n") == "nodes:\n  a: {type: no-such-type, from: nobody}\n"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('a: 1\n? "b\n  c"\n: 1\n', "g.yaml:2:3", "a key has one line"),
        (f"? {'k' * 1001}\n: 1\n", "g.yaml:1:3", "a key has one line"),
        ("? |\n  b\n: 1\n", "g.yaml:1:3", "a key has one line"),
        ('a: "x\u2028y"\n', "g.yaml:1:6", "U+2028 ends a line for some programs"),
        ("a: 1 # x\u0085\n", "g.yaml:1:9", "U+0085 ends a line for some programs"),
    ],
)
def test_what_has_no_usual_form_is_refused(text: str, place: str, words: str) -> None:
    with pytest.raises((FormattingError, GraphError)) as caught:
        formatted("g.yaml", text.encode())
    assert isinstance(caught.value, FormattingError)
    assert str(caught.value.place) == place
    assert words in caught.value.message


def test_a_result_that_means_something_else_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowstream.graph import formatting

    monkeypatch.setattr(formatting._Writer, "written", lambda *_: "a: 2\n")
    with pytest.raises(FormattingError, match="would not mean the same"):
        formatted("g.yaml", b"a:  1\n")


def test_a_result_that_lost_a_comment_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowstream.graph import formatting

    monkeypatch.setattr(formatting._Writer, "_inline", lambda *_: None)
    with pytest.raises(FormattingError, match="comments would not stay"):
        formatted("g.yaml", b"a:  1 # c\n")
