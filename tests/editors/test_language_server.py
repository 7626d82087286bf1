"""The schemas in a real editor's server: what it offers, shows and underlines while a graph is written.

A ``|`` in a text is where the cursor stands.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from flowstream.node.registry import Pack, Registry
from tests.clients import npm_program
from tests.editors.language_server import Document, LanguageServer, Mark

T = TypeVar("T")

pytestmark = pytest.mark.real

ROOT = Path(__file__).parent.parent.parent
SCHEMAS = ROOT / "schemas"
TYPES = {name for name, _ in Registry([Pack("flowstream", "flowstream", module="flowstream_nodes")]).types()}
LAYER = "# yaml-language-server: $schema=../schemas/layer.schema.json\n"


@pytest.fixture(scope="module")
def server() -> Iterator[LanguageServer]:
    command = npm_program("yaml-language-server", "bin/yaml-language-server")
    schemas = {(SCHEMAS / "graph.schema.json").as_uri(): "editing-*.yaml"}
    with LanguageServer(command, ROOT, schemas) as running:
        yield running


class Editing:
    """Texts in the editor: each in a file of its own beside the shipped graphs, open while the test lasts."""

    def __init__(self, server: LanguageServer, name: str) -> None:
        self._server = server
        self._name = name
        self._opened: list[Document] = []

    def write(self, text: str) -> Document:
        path = ROOT / "graphs" / f"editing-{self._name}-{len(self._opened)}.yaml"
        self._opened.append(self._server.open(path, text))
        return self._opened[-1]

    def offered(self, text: str) -> dict[str, dict[str, Any]]:
        return {item["label"]: item for item in self._at_cursor(text, Document.completions)}

    def shown(self, text: str) -> str:
        return self._at_cursor(text, Document.hover)

    def marks(self, text: str) -> list[Mark]:
        return self.write(text).marks()

    def close(self) -> None:
        for each in self._opened:
            each.close()

    def _at_cursor(self, text: str, asked: Callable[[Document, int, int], T]) -> T:
        before, _, after = text.partition("|")
        return asked(self.write(before + after), before.count("\n"), len(before) - before.rfind("\n") - 1)


@pytest.fixture
def editing(server: LanguageServer, request: pytest.FixtureRequest) -> Iterator[Editing]:
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    found = Editing(server, name)
    yield found
    found.close()


def doc(item: dict[str, Any]) -> str:
    said = item.get("documentation") or ""
    return said["value"] if isinstance(said, dict) else said


SHIPPED = [path for path in sorted((ROOT / "graphs").rglob("*.yaml")) if path.parent.name != "tests"]
"""What people read and edit; scripts of tests, and what is beside them, name no schema."""


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_no_shipped_graph_is_underlined(server: LanguageServer, path: Path) -> None:
    """By the schema that the graph's first line names: these paths are in no setting of the editor."""
    opened = server.open(path)
    assert opened.marks() == []
    broken = server.open(path.with_stem(f"{path.stem}-broken"), opened.text.replace("\nnodes:", "\nnods:"))
    assert "nods" in [mark.text for mark in broken.marks()], "the schema was read"
    opened.close()
    broken.close()


@pytest.mark.parametrize("text", ["nodes:\n  a:\n    type: |\n", "nodes:\n  a: {type: |}\n"])
def test_node_types_are_offered(editing: Editing, text: str) -> None:
    items = editing.offered(text)
    assert items.keys() == TYPES
    assert doc(items["hw-encode"]).startswith("Encode pictures to H.264")


def test_a_new_node_is_offered_type_and_use(editing: Editing) -> None:
    items = editing.offered("nodes:\n  a:\n    |\n")
    assert {"type", "use"} <= items.keys()
    assert "name of a node type" in doc(items["type"])


@pytest.mark.parametrize(
    "text", ["nodes:\n  a:\n    type: hw-encode\n    from: b\n    |\n", "nodes:\n  a: {type: hw-encode, from: b, b|}\n"]
)
def test_keys_of_the_type_are_offered_with_their_docs(editing: Editing, text: str) -> None:
    items = editing.offered(text)
    assert {"bitrate", "codec", "preset", "inputs", "label", "restart", "convert", "was"} <= items.keys()
    assert not items.keys() & {"from", "type", "format", "path", "viewers"}, "written already, or of other types"
    assert doc(items["bitrate"]).startswith("Wanted rate, in bits per second")
    assert "Default: 2.5M. Live: a change is applied while it runs." in doc(items["bitrate"])
    assert "Default: baseline. A change replaces the node." in doc(items["profile"])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("nodes:\n  a:\n    type: hw-encode\n    codec: |\n", {"h264", "hevc", "vp8", "vp9", "av1"}),
        ("nodes:\n  a:\n    type: file\n    loop: |\n", {"true", "false"}),
        ("nodes:\n  a: {type: discard, enabled: |}\n", {"true", "false"}),
        ("nodes:\n  a:\n    type: discard\n    convert: |\n", {"auto", "never"}),
        ("log:\n  level: |\n", {"debug", "info", "warning", "error"}),
        ("nodes:\n  a:\n    type: hw-encode\n    restart: {on: |}\n", {"peer", "any", "end"}),
    ],
)
def test_values_are_offered(editing: Editing, text: str, values: set[str]) -> None:
    assert editing.offered(text).keys() == values


@pytest.mark.parametrize(
    "text",
    [
        "nodes:\n  a:\n    type: recorder\n    from: {output: b, overflow: |}\n",
        "nodes:\n  a:\n    type: webrtc-out\n    inputs:\n      video:\n        output: b\n        overflow: |\n",
    ],
)
def test_overflow_policies_are_offered_with_what_they_mean(editing: Editing, text: str) -> None:
    items = editing.offered(text)
    assert items.keys() == {"block", "drop-oldest", "drop-newest", "latest", "drop-to-keyframe"}
    assert doc(items["block"]) == "The producer waits; nothing is lost."


def test_the_inputs_of_the_type_are_offered(editing: Editing) -> None:
    items = editing.offered("nodes:\n  a:\n    type: webrtc-out\n    inputs:\n      |\n")
    assert items.keys() == {"video", "audio", "data"}
    assert "EncodedPacket, optional" in doc(items["video"])


def test_keys_of_the_file_are_offered(editing: Editing) -> None:
    keys = editing.offered("|\n").keys()
    assert {"flowstream", "vars", "include", "inputs", "outputs", "serve", "log", "placement", "nodes"} <= keys


def test_a_layer_is_offered_settings_without_a_type(editing: Editing) -> None:
    items = editing.offered(LAYER + "nodes:\n  a:\n    |\n")
    assert {"bitrate", "viewers", "type", "from", "label"} <= items.keys()
    assert "hw-encode: Wanted rate" in doc(items["bitrate"])
    assert "null" in editing.offered(LAYER + "nodes:\n  a:\n    type: hw-encode\n    preset: |\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes:\n  a:\n    type: hw-encode\n    keyframe_|interval: 2s\n",
         ["Longest time between keyframes", "Default: auto. Live"]),
        ("nodes:\n  a: {type: tone, fre|quency: 440}\n", ["Pitch, in hertz.", "Unit: Hz. Default: 440."]),
        ("nodes:\n  a: {type: webrtc-out, viewers: {ma|x: 3}}\n", ["How many may watch", "Default: 10."]),
        ("nodes:\n  a: {type: webrtc-out, vie|wers: {max: 3}}\n", ["Who may watch."]),
        ("nodes:\n  a: {type: hw-e|ncode}\n", ["Encode pictures to H.264"]),
        ("nodes:\n  a|: {type: hw-encode}\n", ["```yaml\nflowstream: 1", "- `packets`: "]),
        ("nodes:\n  a: {type: recorder, fr|om: b}\n", ["NODE or NODE.OUTPUT", "video: "]),
        ("nodes:\n  a: {type: webrtc-out, inputs: {vid|eo: b}}\n", ["(EncodedPacket, optional, any number)"]),
        ("nodes:\n  a: {type: discard, from: {output: b, over|flow: latest}}\n",
         ["What happens when the edge is full.", "`latest`: Only the newest is kept."]),
    ],
)  # fmt: skip
def test_hovering_shows_what_a_key_does(editing: Editing, text: str, said: list[str]) -> None:
    found = editing.shown(text)
    for each in said:
        # Plain descriptions come with their punctuation escaped.
        assert each in found.replace("\\", ""), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nodes:\n  a:\n    type: tone\n    colour: red\n", Mark(4, "colour", "Property colour is not allowed.")),
        ("nodes:\n  a:\n    type: tone\nnods: {}\n", Mark(4, "nods", "Property nods is not allowed.")),
        ("nodes:\n  a:\n    type: hw-encode\n    from: b\n    preset: fastest\n",
         Mark(5, "fastest", 'Value is not accepted. Valid values: "off", "low", "medium", "high", "ultra".')),
        ("nodes:\n  b: {type: tone}\n  a:\n    from: b\n", Mark(3, "a", 'Missing property "type".')),
        ("nodes:\n  a: {type: recorder, from: b}\n", Mark(2, "a", 'Missing property "path".')),
        ("nodes:\n  a: hw-encode\n", Mark(2, "hw-encode", 'Incorrect type. Expected "node".')),
        ("nodes:\n  - a\n", Mark(2, "- a", 'Incorrect type. Expected "object(flowstream graph)".')),
        ("nodes:\n  a: {type: hw-encode, from: b, bitrate: 25}\n", Mark(2, "25", "Write it like 2.5M.")),
        ("nodes:\n  a: {type: hw-encode, from: b, bitrate: fast}\n", Mark(2, "fast", "Write it like 2.5M.")),
        ("nodes:\n  A: {type: tone}\n",
         Mark(2, "A", "An id is lower case letters, digits and -, a letter first.")),
        ("nodes:\n  a:\n    type: discard\n    from: b.c.d\n",
         Mark(4, "b.c.d", "An output is written NODE or NODE.OUTPUT, within a group GROUP/NODE.OUTPUT.")),
        ("nodes:\n  a: {type: webrtc-out, inputs: {vidoe: b}}\n",
         Mark(2, "vidoe", "Property vidoe is not allowed.")),
        ("nodes:\n  a: {type: webrtc-out, inputs: {audio: [b, c]}}\n",
         Mark(2, "[b, c]", "Array has too many items. Expected 1 or fewer.")),
        ("nodes:\n  a:\n    use: lib/x.yaml\n    type: tone\n", Mark(4, "type", "Property type is not allowed.")),
        ("include: base.yaml\nnodes:\n  a: {type: tone, freq: 3}\n", Mark(3, "freq", "Property freq is not allowed.")),
        (LAYER + "nodes:\n  a: {type: hw-encode, preset: fastest}\n",
         Mark(3, "fastest", 'Value is not accepted. Valid values: "off", "low", "medium", "high", "ultra".')),
    ],
)  # fmt: skip
def test_mistakes_are_underlined_where_they_are(editing: Editing, text: str, expected: Mark) -> None:
    assert editing.marks(text) == [expected]


def test_an_unknown_type_is_underlined_with_those_there_are(editing: Editing) -> None:
    [mark] = editing.marks("nodes:\n  a: {type: tone}\n  b:\n    type: tune\n")
    assert (mark.line, mark.text) == (4, "tune")
    assert {f'"{name}"' for name in TYPES} == set(
        mark.message.removeprefix("Value must be ").removesuffix(".").split(" | ")
    )


@pytest.mark.parametrize(
    "text",
    [
        "include: base.yaml\nnodes:\n  a: {bitrate: 600k}\n  b:\n  c: null\n",
        LAYER + "nodes:\n  a: {bitrate: 600k, label: null}\n  b:\nserve: null\n",
        LAYER + "vars: {top: 5M}\n",
        "nodes:\n  a: {use: lib/ladder.yaml, from: b, top: 2.5M}\n  b: {type: discard, from: a.high}\n",
        "vars: {rate: {type: bitrate}}\ninputs: {video: a}\noutputs: {high: a.packets}\n"
        "nodes: {a: {type: hw-encode, bitrate: $(rate)}}\n",
        "nodes:\n  a: {type: of-somebody-else, enabled: false, colour: red}\n",
    ],
)
def test_what_is_right_is_not_underlined(editing: Editing, text: str) -> None:
    assert editing.marks(text) == []
