"""The usual form of graph files: every rule, and whatever is written, meaning and comments stay."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowstream.errors import GraphError
from flowstream.graph.diagnostics import Findings
from flowstream.graph.formatting import WIDTH, FormattingError, formatted
from flowstream.graph.load import List, Map, Scalar, Value, load
from tests.docs.fences import Block, blocks_of
from tests.graph.cases import FOLDER
from tests.graph.test_any_input import PIECES

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = sorted((ROOT / "graphs").glob("*.yaml"))
DOCUMENTED = [
    block for name in ("README.md", "CONTRIBUTING.md") for block in blocks_of(ROOT / name) if block.language == "yaml"
]
CORPUS = [
    path.read_bytes()
    for path in [*GRAPHS, *sorted((FOLDER / "valid").glob("*.yaml")), *sorted((FOLDER / "invalid").glob("*.yaml"))]
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
    "indentation": (
        "a:\n     b:\n       - c\n       -   d: 1\n           e: 2\n",
        "a:\n  b:\n    - c\n    - d: 1\n      e: 2\n",
    ),
    "a list as deep as its key": ("a:\n- 1\n- - 2\n  - 3\n", "a:\n  - 1\n  - - 2\n    - 3\n"),
    "blank lines": ("\n\na: 1\n\n\n\nb: 2\nc: 3\n\n\n", "a: 1\n\nb: 2\nc: 3\n"),
    "blank lines at the start of a block": ("a:\n\n  b: 1\n\n\n  c: 2\n", "a:\n  b: 1\n\n  c: 2\n"),
    "ending spaces": ("a: 1   \nb: # c   \n  c: x  \n", "a: 1\nb: # c\n  c: x\n"),
    "no line break at the end": ("a: 1", "a: 1\n"),
    "line breaks of Windows": ("a: 1\r\n\r\n# c\r\nb: |\r\n  x\r\n  y\r\n", "a: 1\n\n# c\nb: |\n  x\n  y\n"),
    "a byte order mark": ("\ufeffa: 1\n", "a: 1\n"),
    "nothing": ("", ""),
    "nothing but blank lines": ("\n \n\n", ""),
    "nothing but comments": ("\n \n\n  # one\n\n\n# two\n\n", "# one\n\n# two\n"),
    "marks of the document": ("--- # c\na: 1\n...\n# d\n", "# c\na: 1\n# d\n"),
    "nothing but marks of the document": ("---\n# c\n...\n", "# c\n"),
    "quotes": ("a: 'x'\nb: \"y\\n\"\n'c': z\n", "a: 'x'\nb: \"y\\n\"\n'c': z\n"),
    "scalars of several lines": (
        "a: 'x\n     y'\nb:\n      plain\n      text # c\nc: [\"x   \n y\\ \n z\"]\n",
        "a: 'x\n  y'\nb: plain\n  text # c\nc:\n  - \"x\n    y\\ \n    z\"\n",
    ),
    "block scalars": (
        "a:\n    x: |\n          one\n            two  \n\n          three\n"
        "    y: >-\n     folded\n     text\n    z: 1\n",
        "a:\n  x: |\n    one\n      two  \n\n    three\n  y: >-\n    folded\n    text\n  z: 1\n",
    ),
    "block scalars that say their indentation": (
        "a:\n    x: |3-\n         one\n        two\n",
        "a:\n  x: |2-\n      one\n     two\n",
    ),
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
    "comments before commas": (
        "a: [1 # one\n , 2 # two\n , # three\n 3]\n",
        "a:\n  - 1 # one\n  # three\n  - 2 # two\n  - 3\n",
    ),
    "a comment behind the last comma": ("a: {b: 1\n , # b\n}\n", "a:\n  b: 1 # b\n"),
    "comments in empty brackets": ("a: [ # none\n  # yet\n]\n", "# yet\na: [] # none\n"),
    "brackets of several lines that fit in one": (
        "a: {b: 1,\n    c: 2}\nd: [\n  1,\n  2,\n]\n",
        "a: {b: 1, c: 2}\nd: [1, 2]\n",
    ),
    "blank lines in brackets that fit in one": ("a: {\n\n  b: [1,\n\n 2], c: 1}\n", "a: {b: [1, 2], c: 1}\n"),
    "brackets that do not fit": (
        f"a: {{x: {{{LONG}}}, y: [1]}} # c\n",
        "a: # c\n  x:\n" + "".join(f"    setting-{n}: {n}\n" for n in range(10)) + "  y: [1]\n",
    ),
    "a map of one entry in a list": ("a: [b: 1]\n", "a: [{b: 1}]\n"),
    "the whole file in brackets": ("# c\n{nodes: {}, vars: {}}\n# d\n", "# c\n{vars: {}, nodes: {}}\n# d\n"),
    "no value": ('a:\nb: {"c":, d: ~}\n', 'a:\nb: {"c":, d: ~}\n'),
    "keys on a line of their own": ("? a # one\n: # two\n  b: 1\n", "# two\na: # one\n  b: 1\n"),
    "an anchor before brackets of several lines": ("a: &x [\n # c\n\n 1]\n", "a: &x\n  # c\n\n  - 1\n"),
    "a list as the file": ("- 1\n- a:   2\n", "- 1\n- a: 2\n"),
    "a text as the file": ("# c\n'x'   # d\n", "# c\n'x' # d\n"),
    "anchors and aliases": (
        "a: &x  # c\n    b: 1\nc: *x\nd: [ &y k,*y ]\n*y : 3\n&z e: *y\n",
        "a: &x # c\n  b: 1\nc: *x\nd: [&y k, *y]\n*y : 3\n&z e: *y\n",
    ),
    "top-level keys": (
        "nodes: {}\nz: 1\nplacement: {}\nlog: {}\n"
        "serve: {}\noutputs: {}\ninputs: {}\ninclude: []\nvars: {}\nflowstream: 1\n",
        "flowstream: 1\nvars: {}\ninclude: []\ninputs: {}\noutputs: {}\n"
        "serve: {}\nlog: {}\nplacement: {}\nnodes: {}\nz: 1\n",
    ),
    "keys of nodes": (
        "nodes:\n  b: {needs: a, was: c, enabled: true, placement: x, restart: {}, convert: auto, z: 1, from: a, y: 2, "
        "label: L, type: t}\n  a: {x: 1, inputs: {}, use: f.yaml}\n",
        "nodes:\n  b: {type: t, label: L, from: a, z: 1, y: 2, convert: auto, restart: {}, placement: x, "
        "enabled: true, was: c, needs: a}\n  a: {use: f.yaml, inputs: {}, x: 1}\n",
    ),
    "keys of edges": (
        "nodes:\n  a:\n    from: {limit: {time: 1s, bytes: 1B, items: 1}, overflow: block, output: b}\n"
        "  c:\n    inputs: {video: [{overflow: block, output: b}, {limit: 1, output: c}], "
        "a: {overflow: x, output: y}}\n",
        "nodes:\n  a:\n    from: {output: b, overflow: block, limit: {items: 1, bytes: 1B, time: 1s}}\n"
        "  c:\n    inputs: {video: [{output: b, overflow: block}, {output: c, limit: 1}], "
        "a: {output: y, overflow: x}}\n",
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
    "what is below a dash goes with its key": (
        "nodes:\n  a:\n    from:\n      -\n        # block\n        overflow: block\n        output: b\n",
        "nodes:\n  a:\n    from:\n      - output: b\n        # block\n        overflow: block\n",
    ),
    "a comment after blank lines that are kept": (
        "- |+\n x\n- {a: 1, # a\n b: 1} # b\n",
        "- |+\n  x\n- # b\n  a: 1 # a\n  b: 1\n",
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
def test_documented_graphs_have_the_usual_form(block: Block) -> None:
    assert usual(block.text) == block.text


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
    assert (
        usual("nodes:\n  a: {from: nobody, type: no-such-type}\n")
        == "nodes:\n  a: {type: no-such-type, from: nobody}\n"
    )


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


# --- whatever is written --------------------------------------------------------------------------------------------


def meaning(value: Value | None) -> object:
    """What a tree means, with the keys of each map sorted: which maps have an order is no matter here."""
    match value:
        case Map():
            entries = [(key, entry.key.plain, meaning(entry.value)) for key, entry in value.entries.items()]
            return "map", sorted(entries, key=lambda entry: entry[0])
        case List():
            return "list", [meaning(each) for each in value.items]
        case Scalar():
            return type(value.value).__name__, value.value, value.plain
    return None


def loaded(text: str) -> object:
    findings = Findings()
    root = load("g.yaml", text.encode(), findings)
    assert not findings.diagnostics, (text, findings.diagnostics)
    return meaning(root)


KNOWN = ["type", "from", "inputs", "output", "limit", "restart", "backoff"]
NAMES = [*KNOWN, "label", "x", "video", "use", "'q'", '"q r"']
TOP_NAMES = ["nodes", "vars", "serve", "flowstream", "log", "z"]
PLAIN = ["1", "2.5M", "text", "a b", "$(x)", "http://x#y", "null", "true", "16:9", "-1", "a'b"]
QUOTED = ["'it''s # no comment'", '"a: {b}"', '"\\t\\" #"', "''", '"&x *y"']


@dataclass
class Writing:
    """Writes some graph-like file, carelessly: any indentation, style and spacing, with comments wherever they may be.

    A comment says what it must stay with: ``# N above KEY``, ``# N at KEY``, or just ``# N``.
    """

    random: Random
    lines: list[str] = field(default_factory=list)
    anchors: list[str] = field(default_factory=list)
    comments: int = 0
    marks: int = 0
    count: int = 0

    def one(self, *choices: str) -> str:
        return self.random.choice(choices)

    def chance(self, percent: int) -> bool:
        return self.random.random() * 100 < percent

    def number(self, least: int, most: int) -> int:
        return self.random.randint(least, most)

    def comment(self, about: str = "") -> str:
        self.comments += 1
        return f"# {self.comments} {about}".strip()

    def behind(self, about: str = "", percent: int = 25) -> str:
        return f"{' ' * self.number(1, 3)}{self.comment(about)}" if self.chance(percent) else " " * self.number(0, 2)

    def blank(self) -> None:
        self.lines += ["", "  "][: self.number(0, 2)] if self.chance(25) else []

    def above(self, indent: int, about: str) -> None:
        for _ in range(self.number(1, 2) if self.chance(30) else 0):
            self.blank()
            self.lines.append(f"{' ' * indent}{self.comment(about)}")
        self.blank()

    def file(self) -> str:
        if self.chance(10):
            self.lines.append("---")
        if self.chance(30):
            self.lines += [self.comment(), ""]
        if self.chance(10):
            self.lines.append(f"{self.flow(2, True)}{self.behind()}")
        else:
            self.map(0, 0, TOP_NAMES)
        if self.chance(30):
            self.blank()
            self.lines.append(f"{self.comment()}")
        ending = self.one("\n", "\n", "", "\n\n\n")
        return self.one("\n", "\r\n").join(self.lines) + ending

    def keys(self, names: list[str]) -> list[str]:
        """Some keys; one of the same name never stands twice in a file beneath the top, so that it is found again."""
        found = self.random.sample(names, self.number(1, 4))
        if names is TOP_NAMES:
            return found
        self.count += 1
        return [key if key in KNOWN else re.sub(r"(\w)('|\"|)$", rf"\g<1>{self.count}\2", key) for key in found]

    def map(self, indent: int, depth: int, names: list[str], is_item: bool = False) -> None:
        for number, key in enumerate(self.keys(names)):
            lead = ""
            if is_item and number == 0:
                lead = self.lines.pop()
            else:
                # What the file begins with is about the file.
                self.above(indent, "" if names is TOP_NAMES and number == 0 else f"above {key}")
                lead = " " * indent
            self.value(f"{lead}{key}{self.one('', '', ' ')}:", key, indent, depth)
        if self.chance(15):
            self.lines.append(f"{' ' * indent}{self.comment()}")

    def value(self, lead: str, key: str, indent: int, depth: int) -> None:
        """The value of a key, or of an item when there is none."""
        about = f"at {key}" if key else ""
        mark = " "
        if self.chance(10):
            self.marks += 1
            mark = f" &n{self.marks} "
        kind = self.one("scalar", "scalar", "map", "list", "flow", "flow", "block", "long", "empty", "alias")
        deeper = indent + self.number(1, 4)
        if kind in ("map", "list") and depth < 4:
            if key or mark != " ":
                self.lines.append(f"{lead}{mark.rstrip()}{self.behind(about)}")
                is_inline = False
            else:
                is_inline = kind == "map"
                self.lines.append(f"{lead} " if is_inline else f"{lead}{self.behind()}")
                deeper = len(lead) + 1 if is_inline else deeper
            if kind == "map":
                self.map(deeper, depth + 1, NAMES, is_item=is_inline)
            else:
                self.list(indent if key and self.chance(40) else deeper, depth + 1)
        elif kind == "flow":
            self.lines += f"{lead}{mark}{self.flow(depth, not key)}{self.behind(about)}".split("\n")
        elif kind == "block":
            self.block(f"{lead}{mark}", about, indent)
        elif kind == "long":
            quote = self.one("", "'", '"')
            between = "\n" * self.number(1, 2) + " " * deeper
            text = f"{quote}one{between}two{self.one('', ' ', ', three')}".rstrip(" ") + quote
            self.lines += f"{lead}{mark}{text}{self.behind()}".split("\n")
        elif kind == "alias" and mark == " " and self.anchors:
            self.lines.append(f"{lead} *{self.one(*self.anchors)}{self.behind(about)}")
        elif kind == "empty" and key:
            self.lines.append(f"{lead}{mark.rstrip()}{self.behind(about)}")
        else:
            self.lines.append(f"{lead}{mark}{' ' * self.number(0, 2)}{self.one(*PLAIN, *QUOTED)}{self.behind(about)}")
        if mark != " ":
            self.anchors.append(mark.strip()[1:])

    def block(self, lead: str, about: str, indent: int) -> None:
        depth = self.number(1, 4)
        says = self.chance(30)
        header = f"{self.one('|', '>')}{depth if says else ''}{self.one('', '', '-', '+')}"
        self.lines.append(f"{lead}{header}{self.behind(about)}")
        for number in range(self.number(0, 4)):
            text = self.one("text", "# no comment", "", "  deeper", "a: b", "ends  ")
            if number == 0 and not says:
                text = text.lstrip() or "text"
            self.lines.append(f"{' ' * (indent + depth)}{text}" if text else "")

    def list(self, indent: int, depth: int) -> None:
        for _ in range(self.number(1, 3)):
            self.above(indent, "")
            self.value(f"{' ' * indent}-", "", indent, depth)

    def flow(self, depth: int, is_map: bool) -> str:
        """A map or a list in brackets, on any number of lines."""
        is_map |= self.chance(60)
        has_lines = self.chance(40)

        def between(said: str = "") -> str:
            if not has_lines:
                return " " * self.number(0, 2)
            comment = f" {self.comment(said)}" if self.chance(30) else ""
            own = f"\n     {self.comment()}" if self.chance(20) else ""
            return f"{comment}{own}\n{self.one('', '', chr(10))}{' ' * self.number(6, 12)}"

        if self.chance(10):
            return "{" + between() + "}" if is_map else "[" + between() + "]"
        parts = []
        keys = self.keys(NAMES)
        for number, key in enumerate(keys):
            value = self.flow(depth + 1, False) if depth < 4 and self.chance(25) else self.one(*PLAIN, *QUOTED)
            colon = self.one(":", ": ") if key[0] in "'\"" else self.one(": ", ":  ")
            lead = f"{key}{colon}" if is_map else ""
            comma = "," if number < len(keys) - 1 or self.chance(20) else ""
            parts.append(f"{lead}{value}{between() if self.chance(10) else ''}{comma}"
                         f"{between(f'at {key}' if is_map and comma else '')}")  # fmt: skip
        opening = between()
        return "{" + opening + "".join(parts) + "}" if is_map else "[" + opening + "".join(parts) + "]"


BETWEEN = re.compile(r" *(# .*|(- *)*-( &n\d+)?( # .*)?)?")
COMMENT = re.compile(r"# (\d+)(?: (above|at) (\S.*))?$")


def keeps(before: str, after: str) -> None:
    """What must hold of a file and its usual form."""
    assert loaded(after) == loaded(before)
    assert formatted("g.yaml", after.encode()) == after
    lines = after.split("\n")
    found = {}
    for number, line in enumerate(lines):
        if (match := COMMENT.search(line)) is None:
            continue
        found[int(match[1])] = line
        is_own = line.strip() == match[0]
        if match[2] and is_own:  # above, or moved there from a place where it cannot be
            below = (each for each in lines[number + 1 :] if not BETWEEN.fullmatch(each))
            if not line_goes_on(lines, number):
                assert match[3] in next(below, match[3]) or match[2] == "at", (match[0], after)
        elif match[2] == "at":
            assert match[3] in line[: match.start()], (match[0], after)
    assert set(range(1, 1 + len(found))) == set(found), after


def line_goes_on(lines: list[str], number: int) -> bool:
    """Whether the comment on a line goes on with one in the same column above it."""
    above = lines[number - 1] if number else ""
    column = lines[number].index("#")
    return above[column : column + 2] == "# " and above.strip() != above[column:]


@given(st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_meaning_and_comments_stay_however_a_file_is_written(seed: int) -> None:
    writing = Writing(Random(seed))
    text = writing.file()
    loaded(text)
    after = usual(text)
    keeps(text, after)
    written = {int(match[1]) for line in after.split("\n") if (match := COMMENT.search(line))}
    assert written >= set(range(1, writing.comments + 1))


@given(st.sampled_from(CORPUS), st.data())
@settings(max_examples=200, deadline=None)
@example(b"a: " + b"[" * 5000, None)
@example(b"a: |\n" + b"  x\n" * 5000, None)
@example(b'a: "' + b"\\" * 20_000 + b'"\n', None)
@example(b"a: [" + b"#\n" * 5000 + b"]", None)
@example(b"a: [" + b"1 # c\n," * 2000 + b"]", None)
@example(b"a: 1\n" + b"  # c\n\n" * 5000, None)
def test_whatever_a_file_holds_it_is_written_or_refused(content: bytes, data: st.DataObject | None) -> None:
    for _ in range(data.draw(st.integers(1, 4)) if data else 0):
        assert data is not None
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.integers(0, 12)))
        piece = data.draw(st.sampled_from([*PIECES, b" # c\n", b"\n\n"]) | st.just(b"") | st.binary(max_size=4))
        content = content[:start] + piece + content[end:]
    try:
        text = formatted("g.yaml", content)
    except (GraphError, FormattingError):
        return
    assert formatted("g.yaml", text.encode()) == text
