"""Graphs made by code: what they say in YAML, that it comes back, and what is refused at the call."""

import enum
import inspect
import json
import re
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowstream import Graph, GraphError, Size, edge, format_bitrate
from flowstream.graph import Plan, compile_graph
from flowstream.graph.diagnostics import Findings
from flowstream.graph.load import List, Map, Scalar, Value, load
from flowstream.node.registry import Pack, Registry
from tests.docs.fences import blocks_in
from tests.graph.cases import FOLDER
from tests.graph.compiling import BEGAN, REGISTRY

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
BUILT_IN = Registry([Pack("flowstream", "flowstream", module="flowstream_nodes")])


def values(text: str) -> Any:
    """What a text says, as plain values."""
    findings = Findings()
    root = load("graph.yaml", text.encode(), findings)
    assert root is not None
    assert findings.diagnostics == []
    return plain(root)


def plain(value: Value) -> Any:
    match value:
        case Map():
            return {key: plain(entry.value) for key, entry in value.entries.items()}
        case List():
            return [plain(item) for item in value.items]
        case Scalar():
            return value.value


# --- what is written ------------------------------------------------------------------------------------------------


def desk() -> Graph:
    graph = Graph()
    rate = graph.var("bitrate", "2.5M", description="Rate of the picture, in bits per second")
    graph.serve("127.0.0.1:8080")
    screen = graph.add("screen", fps=30)
    small = graph.add("scale", from_=screen, size="1280x720")
    encode = graph.add("hw-encode", id="encode", from_=small, bitrate=rate)
    voice = graph.add("opus-encode", id="voice", from_=graph.add("tone"))
    graph.add("webrtc-out", inputs={"video": encode, "audio": voice["packets"]}, viewers={"max": 10}, title="The desk")
    graph.add("overlay", id="clock", from_=small, text="%H:%M:%S, local", label="Clock", enabled=False)
    graph.add(
        "recorder",
        from_=edge(encode, overflow="drop-to-keyframe", time="4s"),
        path="recordings/$(date).mp4",
        restart={"on": "any", "backoff": {"first": "1s", "max": "30s"}},
    )
    return graph


def test_the_text_is_what_a_person_would_write() -> None:
    assert (
        desk().to_yaml()
        == """\
flowstream: 1

vars:
  bitrate: {default: 2.5M, description: "Rate of the picture, in bits per second"}

serve: {listen: 127.0.0.1:8080}

nodes:
  screen: {type: screen, fps: 30}
  scale: {type: scale, from: screen, size: 1280x720}
  encode: {type: hw-encode, from: scale, bitrate: $(bitrate)}
  tone: {type: tone}
  voice: {type: opus-encode, from: tone}

  webrtc-out:
    type: webrtc-out
    inputs: {video: encode, audio: voice.packets}
    viewers: {max: 10}
    title: The desk

  clock: {type: overlay, from: scale, text: "%H:%M:%S, local", label: Clock, enabled: false}

  recorder:
    type: recorder
    from: {output: encode, overflow: drop-to-keyframe, limit: {time: 4s}}
    path: recordings/$(date).mp4
    restart: {on: any, backoff: {first: 1s, max: 30s}}
"""
    )


def test_the_plan_is_that_of_the_text() -> None:
    graph = desk()
    text = graph.to_yaml().encode()
    made = graph.plan(registry=BUILT_IN, wallclock=BEGAN)
    assert made == compile_graph("graph.yaml", read=lambda _: text, environ={}, registry=BUILT_IN, wallclock=BEGAN)
    assert made.nodes["recorder"].config.model_dump()["path"] == "recordings/2026-11-22.mp4"
    assert graph.plan(wallclock=BEGAN, sets={"bitrate": "1M"}).nodes["encode"].shown_config()["bitrate"] == "1M"


def test_all_of_the_language_can_be_said() -> None:
    graph = Graph()
    graph.include("common.yaml")
    graph.include(Path("more/layers.yaml"))
    graph.var("flag", True)
    top = graph.var("top", type="bitrate", description="The best.")
    graph.log(level="debug", format="json")
    ladder = graph.use(Path("lib/ladder.yaml"), inputs={"video": ["a", "b.left"]}, top=top, settings={"low-rate": "1M"})
    abr = graph.add("abr", was="steer", placement="gpu-box", convert="never", enabled="$(flag)")
    graph.add("hw-encode", inputs={"video": "ladder/scale.scaled", "targets": abr["targets"]})
    graph.connect(ladder["reports"], abr["reports"])
    graph.connect(edge("hw-encode.statistics", items=3, bytes=1 << 20, time=10**9), abr["reports"])
    graph.connect("abr.targets", "ladder.targets")
    sink = graph.add("discard")
    graph.connect(ladder["high"], sink)
    graph.connect(ladder["low"], to="discard")
    graph.input("video", ladder["video"], "hw-encode.video")
    graph.input("sound", "x.audio")
    graph.output("high", ladder["high"])
    graph.place("gpu-box", abr, "hw-encode", address="10.0.0.2:7000")
    graph.place("other")
    assert values(graph.to_yaml()) == {
        "flowstream": 1,
        "include": ["common.yaml", "more/layers.yaml"],
        "vars": {"flag": True, "top": {"type": "bitrate", "description": "The best."}},
        "inputs": {"video": ["ladder.video", "hw-encode.video"], "sound": "x.audio"},
        "outputs": {"high": "ladder.high"},
        "log": {"level": "debug", "format": "json"},
        "placement": {"gpu-box": {"nodes": ["abr", "hw-encode"], "address": "10.0.0.2:7000"}, "other": {}},
        "nodes": {
            "ladder": {
                "use": "lib/ladder.yaml", "inputs": {"video": ["a", "b.left"], "targets": "abr.targets"},
                "top": "$(top)", "low-rate": "1M",
            },
            "abr": {
                "type": "abr", "enabled": "$(flag)", "was": "steer", "convert": "never", "placement": "gpu-box",
                "inputs": {
                    "reports": [
                        "ladder.reports",
                        {"output": "hw-encode.statistics", "limit": {"items": 3, "bytes": "1MiB", "time": "1s"}},
                    ]
                },
            },
            "hw-encode": {"type": "hw-encode", "inputs": {"video": "ladder/scale.scaled", "targets": "abr.targets"}},
            "discard": {"type": "discard", "from": ["ladder.high", "ladder.low"]},
        },
    }  # fmt: skip
    assert Graph.from_yaml(graph.to_yaml()) == graph


class Style(enum.StrEnum):
    BARS = "bars"


class Old(str, enum.Enum):  # noqa: UP042 - what str() makes of it is its name
    RAMP = "ramp"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain words", "plain words"), ("recordings/$(date).mp4", "recordings/$(date).mp4"), ("$(rate)", "$(rate)"),
        ("16:9", "16:9"), ("#ff0000", '"#ff0000"'), ("%H:%M", '"%H:%M"'), ("a: b", '"a: b"'), ("a #b", '"a #b"'),
        ("a#b", "a#b"), ("30", '"30"'), ("1.5", '"1.5"'), ("true", '"true"'), ("null", '"null"'), ("", '""'),
        ("on", "on"), ("0x10", "0x10"), (" x", '" x"'), ("x:", '"x:"'), ("a, b", '"a, b"'), ("it's", "it's"),
        ('say "hi"', 'say "hi"'), ('"hi"', "'\"hi\"'"), ("C:\\tapes", "C:\\tapes"), ("\\\\host, x", "'\\\\host, x'"),
        ("two\nlines", '"two\\nlines"'), ("bell\a", '"bell\\x07"'), ("é 好", "é 好"), ("\u2028", '"\\u2028"'),
        ("\U000e0001", '"\\U000e0001"'), ("*", '"*"'), ("-1dB", '"-1dB"'), ("~/tapes", "~/tapes"), ("<<", '"<<"'),
        (30, "30"), (-5, "-5"), (29.97, "29.97"), (30.0, "30.0"), (1e-7, "0.0000001"), (True, "true"),
        (Path("tapes/x.mp4"), "tapes/x.mp4"), (timedelta(milliseconds=250), "250ms"), (Size(1280, 720), "1280x720"),
        (Fraction(16, 9), "16:9"), ([1, "a"], "[1, a]"), ((1,), "[1]"), ({"a": 1, "b": None}, "{a: 1}"), ({}, "{}"),
        ([], "[]"), ({"true": "x", "a, b": 1}, '{"true": x, "a, b": 1}'), (Style.BARS, "bars"), (Old.RAMP, "ramp"),
        (format_bitrate(2_500_000), "2.5M"),
    ],
)  # fmt: skip
def test_one_setting(value: Any, text: str) -> None:
    graph = Graph()
    graph.add("x", value=value)
    assert graph.to_yaml() == f"flowstream: 1\n\nnodes:\n  x: {{type: x, value: {text}}}\n"
    assert Graph.from_yaml(graph.to_yaml()) == graph


def test_what_is_long_stands_in_lines() -> None:
    graph = Graph()
    graph.add(
        "mix", a=[{"name": "n" * 60, "b": {"c": 1}}, ["x" * 99], "y"], text="word, " * 20, deep={"a": {"b": {"c": 1}}}
    )
    assert graph.to_yaml().splitlines()[3:] == [
        "  mix:",
        "    type: mix",
        "    a:",
        "      - {name: " + "n" * 60 + ", b: {c: 1}}",
        "      - - " + "x" * 99,
        "      - y",
        '    text: "' + "word, " * 20 + '"',
        "    deep:",
        "      a: {b: {c: 1}}",
    ]
    assert Graph.from_yaml(graph.to_yaml()) == graph


def test_none_leaves_a_setting_out_and_set_changes_one() -> None:
    graph = Graph()
    node = graph.add("pattern", fps=None, size="720p", class_="x", settings={"id": 5})
    assert values(graph.to_yaml())["nodes"]["pattern"] == {"type": "pattern", "size": "720p", "class": "x", "id": 5}
    assert node.set(fps=25, size=None, settings={"id": 6}) is node
    assert values(graph.to_yaml())["nodes"]["pattern"] == {"type": "pattern", "class": "x", "id": 6, "fps": 25}
    node.set(class_=None, fps=None, enabled=False, label="Bars")
    assert values(graph.to_yaml())["nodes"]["pattern"] == {
        "type": "pattern",
        "id": 6,
        "enabled": False,
        "label": "Bars",
    }


def test_the_example_in_the_documentation_works() -> None:
    (example,) = blocks_in(inspect.getdoc(Graph) or "", "Graph")
    names: dict[str, Any] = {"Graph": Graph, "edge": edge}
    exec(example.text, names)
    plan = names["graph"].plan(registry=BUILT_IN, wallclock=BEGAN)
    assert list(plan.nodes) == ["screen", "encode", "out", "recorder"]
    assert plan.warnings == ()


def test_ids_are_made_from_types() -> None:
    graph = Graph()
    made = [
        graph.add("screen"),
        graph.add("screen"),
        graph.add("acme/blur"),
        graph.add("screen"),
        graph.add("Big Type"),
    ]
    assert [each.id for each in made] == ["screen", "screen-2", "blur", "screen-3", "big-type"]
    assert graph.use("lib/Ladder_2.yaml").id == "ladder-2"
    assert list(graph.nodes) == ["screen", "screen-2", "blur", "screen-3", "big-type", "ladder-2"]
    assert graph.nodes["blur"] == made[2]
    assert len({*made, *graph.nodes.values()}) == 6
    assert [repr(made[0]), repr(made[0]["video"]), repr(graph)] == [
        "<node screen>", "<port screen.video>", "<graph of 6 nodes>",
    ]  # fmt: skip


def test_graphs_are_equal_when_they_say_the_same() -> None:
    assert desk() == desk()
    other = desk()
    other.nodes["screen"].set(fps=31)
    assert other != desk()
    assert desk() != desk().to_yaml()
    assert Graph("a.yaml") == Graph("b.yaml")


def test_what_is_given_later_changes_nothing() -> None:
    viewers = {"max": 10}
    graph = Graph()
    graph.add("show", viewers=viewers)
    viewers["max"] = 11
    assert "{max: 10}" in graph.to_yaml()


# --- what is refused ------------------------------------------------------------------------------------------------


def loop() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


REFUSED: list[tuple[Callable[[Any], object], type[Exception], str]] = [
    (lambda g: g.add(5), TypeError, "add() takes the name of a node type, such as 'hw-encode', not 5"),
    (lambda g: g.add(" "), ValueError, "add() takes the name of a node type, such as 'hw-encode'; this one is empty"),
    (lambda g: g.add("größe/!"), ValueError, "'!' makes no id; give id= a name"),
    (lambda g: g.add("x", id="a"), ValueError, "a is there already; give id= another name"),
    (lambda g: g.add("x", id="My Node"), ValueError, "'My Node' cannot be the id of a node: lower case letters, digits "
     "and -, a letter first; write 'my-node'"),
    (lambda g: g.add("x", id=5), TypeError, "id= takes text, not 5"),
    (lambda g: g.add("x", from_=3), TypeError, "from_ takes a node, an output of one, text such as 'encode.packets', "
     "edge(...), or a list of those; not 3"),
    (lambda g: g.add("x", from_="A.b"), ValueError, "'A.b' names no output; write 'NODE' or 'NODE.OUTPUT'"),
    (lambda g: g.add("x", from_=[]), ValueError, "from_ is an empty list; leave it out if it takes nothing"),
    (lambda g: g.add("x", from_="a", inputs={"b": "a"}), TypeError, "x is given from_= and inputs=; name in inputs= "
     "the input that from_= was for"),
    (lambda g: g.add("x", inputs="a"), TypeError, "inputs= takes each input with what it takes, {'video': encode}, "
     "not 'a'"),
    (lambda g: g.add("x", from_=Graph().add("y")), ValueError, "y is of another graph; add such a node to this one"),
    (lambda g: g.add("x", from_=edge(Graph().add("y")["o"])), ValueError, "y.o is of another graph; add such a node to "
     "this one"),
    (lambda g: g.add("x", path=g.nodes["a"]), TypeError, "path takes a value, not <node a>; nodes are given to from_= "
     "or inputs="),
    (lambda g: g.add("x", fps=1j), TypeError, "fps: 1j cannot stand in a graph; text, numbers, true and false, lists "
     "and maps can"),
    (lambda g: g.add("x", y={"z": [1, {2}]}), TypeError, "y.z[1]: {2} cannot stand in a graph; text, numbers, true and "
     "false, lists and maps can"),
    (lambda g: g.add("x", y={1: 2}), TypeError, "keys of y are text, not 1"),
    (lambda g: g.add("x", y={"k" * 101: 2}), ValueError, "keys of y have at most 100 characters, not 101"),
    (lambda g: g.add("x", y=float("nan")), ValueError, "y: nan has no form in plain decimals, which a graph takes"),
    (lambda g: g.add("x", y=1e30), ValueError, "y: 1e+30 has no form in plain decimals, which a graph takes"),
    (lambda g: g.add("x", y=10**18), ValueError, "y: 1000000000000000000 has more than 18 digits, which a graph does "
     "not take"),
    (lambda g: g.add("x", y="\ud800"), ValueError, "y: '\\ud800' has half a character (a lone surrogate), which no "
     "file can hold"),
    (lambda g: g.add("x", y=timedelta(-1)), ValueError,
     "a duration is not negative, as datetime.timedelta(days=-1) is"),
    (lambda g: g.add("x", y=loop()), ValueError, "y" + "[0]" * 25 + " is nested more than 24 levels deep"),
    (lambda g: g.add("x", use="y"), TypeError, "use is a word of the graph language and no setting; it is use()"),
    (lambda g: g.add("x", type="y"), TypeError, "type is a word of the graph language and no setting; it is the first "
     "argument of add()"),
    (lambda g: g.add("x", settings={"from": "a"}), TypeError, "from is a word of the graph language and no setting; it "
     "is from_="),
    (lambda g: g.add("x", needs="a"), TypeError, "needs is a word of the graph language and no setting"),
    (lambda g: g.add("x", y=1, settings={"y": 2}), TypeError, "y is given twice"),
    (lambda g: g.add("x", settings=[1]), TypeError, "settings= takes a map of settings, not [1]"),
    (lambda g: g.use(5), TypeError, "use() takes the path of a graph file, not 5"),
    (lambda g: g.use(""), ValueError, "use() takes the path of a graph file; this one is empty"),
    (lambda g: g.nodes["a"]["No"], ValueError, "'No' cannot be the name of a port of a: lower case letters, digits, - "
     "and _, a letter first"),
    (lambda g: g.nodes["a"][0], TypeError, "a port of a is named by text, not 0"),
    (lambda g: g.nodes["a"].set(type="y"), TypeError, "type is a word of the graph language and no setting; it is the "
     "first argument of add()"),
    (lambda g: g.connect("a", "B"), ValueError, "'B' names no output; write 'NODE' or 'NODE.OUTPUT'"),
    (lambda g: g.connect("a", "bb.c"), ValueError, "there is no node bb; did you mean b?"),
    (lambda g: g.connect("a", 5), TypeError, "to= takes a node or an input of one, such as abr['reports'], not 5"),
    (lambda g: g.connect("a", g.nodes["b"]["in"]), ValueError, "b has from: already, and a node has from: or inputs:, "
     "not both; give that one in inputs= too"),
    (lambda g: g.connect("a", "c"), ValueError, "c has inputs: already, and a node has from: or inputs:, not both; "
     "name the input: c.INPUT"),
    (lambda g: edge(5), TypeError, "edge() takes a node, one of its outputs or text such as 'encode.packets', not 5"),
    (lambda g: edge("a", overflow="drop"), ValueError, "overflow takes block, drop-oldest, drop-newest, latest, "
     "drop-to-keyframe, not 'drop'"),
    (lambda g: edge("a", items=0), ValueError, "items takes more than 0, not 0"),
    (lambda g: edge("a", items=True), TypeError, "items takes a whole number, not True"),
    (lambda g: edge("a", time=0.5), TypeError, "time takes a whole number, not 0.5"),
    (lambda g: g.var("v"), ValueError, "v is given nothing; give a default, or a description of what to give"),
    (lambda g: g.var("V", 1), ValueError, "'V' cannot be the name of a variable: lower case letters, digits, - and _, "
     "a letter first"),
    (lambda g: (g.var("v", 1), g.var("v", 1)), ValueError, "the variable v is there already"),
    (lambda g: g.var("v", [1]), TypeError, "a variable is a single value, not [1]"),
    (lambda g: g.include(5), TypeError, "include() takes paths of graph files, not 5"),
    (lambda g: g.input("v"), ValueError, "v stands for no port; name at least one, such as scale['video']"),
    (lambda g: g.output("v", 5), TypeError, "v takes a port of a node, such as scale['video'], not 5"),
    (lambda g: (g.output("v", "a.b"), g.output("v", "a.b")), ValueError, "v is among the outputs already"),
    (lambda g: g.place("w", 5), TypeError, "place() takes nodes, not 5"),
    (lambda g: g.place("", "a"), ValueError, "'' cannot be the name of a worker: lower case letters, digits, - and _, "
     "a letter first"),
    (lambda g: Graph.from_yaml(5), TypeError, "from_yaml() takes the text of a graph, or the Path of a file, not 5"),
    (lambda g: Graph.from_yaml("serve: 5\nnodes: {}\n").serve("x:1"), ValueError, "serve of this graph is 5, which "
     "nothing can be added to"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "said"), REFUSED, ids=[said[:40] for _, _, said in REFUSED])
def test_a_mistake_is_refused_where_it_is_made(
    call: Callable[[Graph], object], error: type[Exception], said: str
) -> None:
    graph = Graph()
    graph.add("x", id="a")
    graph.add("x", id="b", from_="a")
    graph.add("x", id="c", inputs={"y": "a"})
    with pytest.raises(error) as caught:
        call(graph)
    assert type(caught.value) is error
    assert str(caught.value) == said


def test_what_only_the_whole_graph_shows_is_found_in_its_text() -> None:
    graph = Graph("studio.yaml")
    graph.add("pattern")
    graph.add("encode", from_="patern", bitrate=2_500_000)
    with pytest.raises(GraphError) as caught:
        graph.plan(registry=REGISTRY)
    unit, unknown = sorted(caught.value.diagnostics, key=lambda each: each.code)
    assert (unit.code, str(unit.place)) == ("FS208", "studio.yaml:5:49")
    assert (unknown.code, unknown.hint, str(unknown.place)) == ("FS301", "did you mean pattern?", "studio.yaml:5:32")
    assert unknown.source == "  encode: {type: encode, from: patern, bitrate: 2500000}"


def test_the_time_of_the_run_is_asked_for_when_it_is_used() -> None:
    graph = Graph()
    graph.add("tape", from_=graph.add("encode", from_=graph.add("pattern"), bitrate="1M"), path="$$(date)")
    assert graph.plan(registry=REGISTRY).nodes["tape"].shown_config()["path"] == "$(date)"
    graph.nodes["tape"].set(path="$$$(date)")
    with pytest.raises(ValueError, match=r"graph.yaml says \$\(date\) or \$\(time\); give plan\(\) the wallclock="):
        graph.plan(registry=REGISTRY)
    assert graph.plan(registry=REGISTRY, wallclock=BEGAN).nodes["tape"].shown_config()["path"] == "$2026-11-22"


# --- reading files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("", "FS111", "the file is empty"),
        ("graphs/hello.yaml", "FS111", "a graph is a map with nodes:, not text"),
        ("[1]", "FS111", "a graph is a map with nodes:, not a list"),
        ("nodes: 5", "FS111", "nodes takes a map (each node by its id), not a number"),
        ("nodes: {x: screen}", "FS111", "a node is a map of its settings, not text"),
        ("nodes: {x: {type: a}, x: {type: b}}", "FS106", "x stands here a second time"),
        ("nodes: {a: [}", "FS104", "the file cannot be read as YAML here"),
        ("a: \ud800", "FS102", "byte 0xED is not UTF-8"),
    ],
)
def test_a_text_that_is_no_graph(text: str, code: str, said: str) -> None:
    with pytest.raises(GraphError) as caught:
        Graph.from_yaml(text)
    assert [(each.code, each.message) for each in caught.value.diagnostics] == [(code, said)]
    if text.startswith("graphs/"):
        assert caught.value.diagnostics[0].hint == "give a file as a Path: from_yaml(Path(...))"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Graph.from_yaml(tmp_path / "none.yaml")


def test_a_file_is_read_changed_and_planned(tmp_path: Path) -> None:
    path = tmp_path / "studio.yaml"
    path.write_text("nodes:\n  pattern: {type: pattern, fps: 25}  # slow\n  end: {type: discard, from: pattern}\n")
    graph = Graph.from_yaml(path)
    graph.nodes["pattern"].set(fps=50)
    plan = graph.plan(registry=REGISTRY)
    assert (plan.name, plan.files, plan.nodes["pattern"].shown_config()["fps"]) == ("studio", (str(path),), 50.0)


@pytest.mark.parametrize("written", ["1.10", "TRUE", "-0", "0.50", "False", "007", "30", "true", '"30"', "1e3"])
def test_numbers_keep_how_they_are_written(written: str) -> None:
    text = f"flowstream: 1\n\nvars:\n  v: {written}\n\nnodes:\n  x: {{type: x, text: v$(v)}}\n"
    assert Graph.from_yaml(text).to_yaml() == text


def test_a_layer_may_take_nodes_away() -> None:
    text = "flowstream: 1\n\nnodes:\n  a: null\n  b: {type: x, fps: null}\n"
    graph = Graph.from_yaml(text)
    assert graph.to_yaml() == text
    assert list(graph.nodes) == ["b"]


def outcome(call: Callable[[], T]) -> T | list[str]:
    """What a call gives, or the codes of what is found instead."""
    try:
        return call()
    except GraphError as error:
        return sorted({each.code for each in error.diagnostics})


FILES = sorted((ROOT / "graphs").rglob("*.yaml")) + sorted(FOLDER.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_graph_file_comes_back_with_the_same_plan(path: Path) -> None:
    content = path.read_bytes()
    head = content.decode("utf-8", "replace")
    registry = BUILT_IN if path.is_relative_to(ROOT / "graphs") else REGISTRY
    sets = dict(re.findall(r"--set (\w+)=(\S+)", head))
    environ = dict(
        pair.split("=", 1) for line in re.findall(r"^# env: (.*)", head, re.MULTILINE) for pair in line.split()
    )

    def read(name: str) -> bytes:
        return content if name == str(path) else Path(name).read_bytes()

    def of_the_file() -> Plan:
        return compile_graph(str(path), read=read, environ=environ, registry=registry, wallclock=BEGAN, sets=sets)

    expected = outcome(of_the_file)
    graph = outcome(lambda: Graph.from_yaml(path))
    if isinstance(graph, list):  # it is not even a graph file, so it is no plan for the same reasons
        assert isinstance(expected, list)
        assert set(graph) <= set(expected)
        return
    again = outcome(lambda: graph.plan(registry=registry, environ=environ, wallclock=BEGAN, sets=sets))
    assert again == expected
    assert Graph.from_yaml(graph.to_yaml()) == graph
    assert Graph.from_yaml(graph.to_yaml()).to_yaml() == graph.to_yaml()


# --- any graph ------------------------------------------------------------------------------------------------------

IDS = st.from_regex(r"[a-z][a-z0-9-]{0,6}", fullmatch=True)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(
    alphabet=" :#,-?!&*|>'\"%@`{}[]$()\\\n\t~=<.x1é", max_size=8
)
NUMBERS = st.integers(-(10**18) + 1, 10**18 - 1) | st.decimals(-(10**9), 10**9, places=6).map(float)
SINGLE = TEXTS | NUMBERS | st.booleans()
SETTINGS = st.recursive(
    SINGLE, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph = Graph()
    for name in draw(st.lists(NAMES, unique=True, max_size=2)):
        if name not in ("date", "time"):
            graph.var(name, draw(SINGLE), description=draw(st.none() | TEXTS))
    if draw(st.booleans()):
        graph.serve(draw(TEXTS))
    for id_ in draw(st.lists(IDS, unique=True, max_size=4)):
        refs = st.sampled_from(["later.out", "g/x.y", *graph.nodes])
        sources = refs | st.builds(edge, refs, items=st.none() | st.integers(1, 9), time=st.none() | st.just("2s"))
        several = sources | st.lists(sources, min_size=1, max_size=3)
        how = draw(st.sampled_from(["", "from_", "inputs"]))
        given = {"from_": draw(several)} if how == "from_" else {}
        given |= {"inputs": draw(st.dictionaries(NAMES, several, max_size=3))} if how == "inputs" else {}
        own = {f"s-{key}": value for key, value in draw(st.dictionaries(TEXTS, SETTINGS, max_size=4)).items()}
        add = graph.use if draw(st.booleans()) else graph.add
        add(draw(TEXTS.filter(str.strip)), id=id_, label=draw(st.none() | TEXTS), settings=own, **given)
    return graph


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_any_graph_is_read_as_it_was_made(graph: Graph) -> None:
    text = graph.to_yaml()
    # As JSON, in which 1, 1.0 and true differ.
    assert json.dumps(values(text)) == json.dumps({key: graph._tree[key] for key in values(text)})
    assert graph._tree.keys() == values(text).keys()
    again = Graph.from_yaml(text)
    assert again == graph
    assert again.to_yaml() == text


@settings(max_examples=150, deadline=None)
@given(st.lists(SETTINGS, max_size=3), st.dictionaries(TEXTS, SETTINGS, max_size=3))
def test_any_value_is_read_as_it_was_given(items: list[Any], entries: dict[str, Any]) -> None:
    graph = Graph()
    graph.add("x", items=items, entries=entries)
    assert json.dumps(values(graph.to_yaml())["nodes"]["x"]) == json.dumps(
        {"type": "x", "items": items, "entries": entries}
    )
