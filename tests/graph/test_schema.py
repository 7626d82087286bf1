"""The JSON Schema accepts what is accepted, and refuses what an editor should mark."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal
from unittest.mock import ANY

import jsonschema  # type: ignore[import-untyped]
import pytest
from pydantic import WithJsonSchema
from ruamel.yaml import YAML

from flowstream import Config, Output, Source, VideoFrame, field
from flowstream.graph import compile_graph
from flowstream.graph.resolve import CONVERTERS
from flowstream.graph.schema import graph_schema, layer_schema, node_schema
from flowstream.node.base import Node
from flowstream.node.registry import Pack, Registry
from flowstream.proto.overflow import POLICIES
from tests.graph import pack
from tests.graph.cases import FOLDER
from tests.graph.compiling import BEGAN, REGISTRY

ROOT = Path(__file__).parent.parent.parent
TYPES: list[type[Node[Any]]] = [getattr(pack, name) for name in pack.__all__]
SCHEMA = graph_schema(TYPES)
LAYER = layer_schema(TYPES)
BUILT_IN = Registry([Pack("flowstream", "flowstream", module="flowstream_nodes")])


def loaded(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text())


def mistakes(schema: Any, value: Any) -> list[str]:
    return [each.message for each in jsonschema.Draft7Validator(schema).iter_errors(value)]


@pytest.mark.parametrize("schema", [SCHEMA, LAYER])
def test_it_is_a_schema_whose_references_all_lead_somewhere(schema: Any) -> None:
    jsonschema.Draft7Validator.check_schema(schema)
    text = json.dumps(schema)
    targets = set(re.findall(r'"\$ref": "#/([^"]*)"', text))
    for target in targets:
        found = schema
        for part in target.split("/"):
            found = found[part]
    used = {target.split("/")[1] for target in targets}
    assert used == set(schema["definitions"]), "what nothing refers to makes the file larger for nothing"


VALID = sorted((FOLDER / "valid").rglob("*.yaml"))


@pytest.mark.parametrize("path", VALID, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_valid_graphs_are_valid(path: Path) -> None:
    """What lies over another file, or is included by it, may be incomplete."""
    if path.stem not in ("over", "common"):
        assert mistakes(SCHEMA, loaded(path)) == []
    assert mistakes(LAYER, loaded(path)) == []


@pytest.mark.parametrize(
    "name",
    ["FS112-unknown-keys", "FS113-not-yet", "FS114-future", "FS115-empty", "FS126-names", "FS201-ids", "FS202-no-type",
     "FS203-unknown-type", "FS206-unknown-settings", "FS207-missing", "FS208-numbers", "FS208-quantities",
     "FS208-choices", "FS208-odd", "FS208-shares",
     "FS208-nested", "FS208-settings-of-the-graph", "FS303-unknown-input", "FS312-reference", "FS111-shapes"],
)  # fmt: skip
def test_invalid_graphs_are_invalid(name: str) -> None:
    assert mistakes(SCHEMA, loaded(FOLDER / "invalid" / f"{name}.yaml"))


@pytest.mark.parametrize(
    ("node", "is_right"),
    [
        ({"type": "encode", "from": "pattern", "bitrate": "2.5M"}, True),
        ({"type": "encode", "from": "pattern", "bitrate": "$(rate)"}, True),
        ({"type": "encode", "from": "pattern", "bitrate": 2500000}, False),
        ({"type": "encode", "from": "pattern"}, False),
        ({"type": "encode", "from": "pattern", "bitrate": "2.5M", "max": "auto"}, True),
        ({"type": "encode", "from": "pattern", "bitrate": "2.5M", "max": "most"}, False),
        ({"type": "encode", "inputs": {"vidoe": "pattern"}, "bitrate": "2.5M"}, False),
        ({"type": "pattern", "from": "pattern"}, False),
        ({"type": "pattern", "fps": "$(env:FPS)"}, True),
        ({"type": "pattern", "fps": 0}, False),
        ({"type": "show", "viewers": {"max": 3, "idle": "5s"}}, True),
        ({"type": "show", "viewers": {"most": 3}}, False),
        ({"type": "blur", "from": "x", "names": ["a"], "marks": [{"opacity": 0.5}]}, True),
        ({"type": "blur", "from": "x", "marks": [{"opacity": 5}]}, False),
        ({"type": "mix", "from": ["a", {"output": "b.c", "limit": {"items": 3}}]}, True),
    ],
)
def test_one_node(node: dict[str, Any], is_right: bool) -> None:
    alone = node_schema(REGISTRY.get(node["type"]))
    jsonschema.Draft7Validator.check_schema(alone)
    assert (not mistakes(alone, node)) is is_right
    assert (not mistakes(SCHEMA, {"nodes": {"x": node}})) is is_right


NODES = {"pattern": {"type": "pattern"}}
LADDER = {"use": "lib/ladder.yaml"}


@pytest.mark.parametrize(
    "graph",
    [
        {"inputs": {"video": "scale.video"}, "outputs": {"high": "encode-high.packets"}},
        {"inputs": {"video": ["scale.video", "thumb.video"], "sound": "inner/mix"}},
        {"vars": {"a": 1, "rate": {"type": "bitrate"}, "size": {"type": "size", "default": "720p"}}},
        {"placement": {"left": {"nodes": ["pattern", "ladder/high"], "address": "10.0.0.2:7700"}, "right": {}}},
        {"nodes": {"a": LADDER}},
        {"nodes": {"a": {**LADDER, "from": "pattern", "top": "2.5M", "fps": 30, "loud": True, "label": "Ladder"}}},
        {"nodes": {"a": {**LADDER, "inputs": {"video": ["x", "y"]}, "restart": {"on": "any"}, "convert": "never"}}},
        {"nodes": {"a": {"type": "discard", "from": "ladder.high"}, "b": {"type": "discard", "from": "a/b/c.video"}}},
        {"nodes": {"a": {"type": "blur", "from": ["pattern"], "convert": "auto", "placement": "left"}}},
        {"nodes": {"a": {"type": "door", "inputs": {"front": ["x"], "back": {"output": "$(which)"}}}}},
        {"nodes": {"a": {"type": "pattern", "was": "/old/pattern"}, "b": {"type": "pattern", "was": "old/pattern"}}},
        {"nodes": {"a": {"type": "unheard-of", "enabled": False, "colour": "red"}}},
    ],
)  # fmt: skip
def test_the_whole_language_is_valid(graph: dict[str, Any]) -> None:
    assert mistakes(SCHEMA, {"nodes": NODES, **graph}) == []
    assert mistakes(LAYER, graph) == []


@pytest.mark.parametrize(
    "graph",
    [
        {"inputs": {"video": {"output": "x"}}},
        {"inputs": ["video"]},
        {"outputs": {"high": ["a", "b"]}},
        {"outputs": {"High": "a"}},
        {"vars": {"a": {"type": "colour"}}},
        {"vars": {"a": [1]}},
        {"include": {"common": "x.yaml"}},
        {"include": []},
        {"placement": {"left": ["pattern"]}},
        {"placement": {"left": {"node": ["pattern"]}}},
        {"nodes": {"a": {"use": "x.yaml", "type": "pattern"}}},
        {"nodes": {"a": {"use": ["x.yaml"]}}},
        {"nodes": {"a": {"use": "x.yaml", "needs": "b"}}},
        {"nodes": {"a": {"use": "x.yaml", "settings": {"top": 1}}}},
        {"nodes": {"a": {"use": "x.yaml", "inputs": "b"}}},
        {"nodes": {"a": {"type": "discard", "from": "a//b"}}},
        {"nodes": {"a": {"type": "discard", "from": "/a"}}},
        {"nodes": {"a": {"type": "discard", "from": "a", "convert": "sometimes"}}},
        {"nodes": {"a": {"type": "discard", "from": "a", "placement": ["left"]}}},
        {"nodes": {"a": {"type": "discard", "from": "a", "was": "old.video"}}},
        {"nodes": {"a": {"type": "door", "inputs": {"front": ["x", "y"]}}}},
        {"nodes": {"a": {"type": "mix", "inputs": {"sounds": []}}}},
    ],
)  # fmt: skip
def test_wrong_shapes_are_marked_in_a_graph_and_in_a_layer(graph: dict[str, Any]) -> None:
    assert mistakes(SCHEMA, {"nodes": NODES, **graph})
    assert mistakes(LAYER, graph)


@pytest.mark.parametrize(
    "layer",
    [
        {},
        {"nodes": {"gone": None}},
        {"nodes": {"encode": {"bitrate": "600k"}}},
        {"nodes": {"encode": {"bitrate": None, "label": None, "enabled": None, "restart": None, "placement": None}}},
        {"nodes": {"encode": {"type": "encode"}}},
        {"nodes": {"encode": {"type": "encode", "max": None, "codec": None}}},
        {"nodes": {"encode": {"from": None, "inputs": {"video": "small", "targets": None}}}},
        {"nodes": {"encode": {"from": {"overflow": "block", "limit": {"items": None, "time": "1s"}}}}},
        {"nodes": {"out": {"viewers": {"max": None}}, "show": {"type": "show", "viewers": {"idle": None}}}},
        {"nodes": {"ladder": {"top": "2.5M", "bitrate": "high", "style": None}}},
        {"nodes": {"ladder": {"use": "other.yaml", "top": None}}},
        {"nodes": {"blur": {"type": "blur", "marks": [{"opacity": 0.5}], "area": {"at": None}}}},
        {"vars": {"rate": None, "size": {"default": "720p", "description": None}}, "serve": None},
        {"inputs": {"video": None}, "outputs": None, "placement": {"left": None, "right": {"address": None}}},
        {"log": {"level": None}, "flowstream": 1},
    ],
)  # fmt: skip
def test_layers_leave_out_and_take_away(layer: dict[str, Any]) -> None:
    assert mistakes(LAYER, layer) == []
    assert mistakes(SCHEMA, {**layer, "include": "base.yaml"}) == []
    assert mistakes(SCHEMA, layer), "a graph that includes nothing is no layer"


@pytest.mark.parametrize(
    "layer",
    [
        {"nods": {}},
        {"nodes": {"encode": {"type": "encode", "bitrat": "600k"}}},
        {"nodes": {"encode": {"type": "encode", "bitrate": 600}}},
        {"nodes": {"encode": {"type": "encod"}}},
        {"nodes": {"encode": {"type": None}}},
        {"nodes": {"encode": "600k"}},
        {"nodes": {"encode": {"enabled": "no"}}},
        {"nodes": {"encode": {"from": {"overflow": "bloc"}}}},
        {"nodes": {"mix": {"from": [{"overflow": "block"}]}}},
        {"nodes": {"blur": {"type": "blur", "marks": [None]}}},
        {"serve": {"port": 8080}},
    ],
)  # fmt: skip
def test_mistakes_in_layers_are_marked(layer: dict[str, Any]) -> None:
    assert mistakes(LAYER, layer)
    assert mistakes(SCHEMA, {**layer, "include": "base.yaml"})


def test_defaults_and_descriptions_are_what_people_read() -> None:
    properties = node_schema(pack.Encode)["properties"]
    assert properties["keyframe_interval"]["default"] == "2s"
    assert properties["keyframe_interval"]["description"] == (
        "Longest time between keyframes.\n"
        "Written like 250ms. Default: 2s. Live: a change is applied while it runs."
    )  # fmt: skip
    assert properties["bitrate"]["description"] == (
        "Wanted rate, in bits per second.\n"
        "Written like 2.5M (bits per second). Required. Live: a change is applied while it runs."
    )
    assert properties["max"]["description"] == (
        "Highest rate.\nWritten like 2.5M (bits per second). Default: auto. A change replaces the node."
    )
    assert properties["type"]["description"] == "Encode pictures."
    assert "feedback" in properties["inputs"]["properties"]["targets"]["description"]
    assert node_schema(pack.Pattern)["properties"]["size"]["default"] == "1280x720"
    assert node_schema(pack.Pattern)["properties"]["fps"]["description"] == (
        "Frame rate.\nUnit: frames per second. Default: 30. A change replaces the node."
    )
    assert node_schema(pack.Tape)["properties"]["keep"]["default"] == "50GB"
    viewers = node_schema(pack.Show)["definitions"]["node-show.Viewers"]["properties"]
    assert viewers["idle"]["default"] == "1m"
    assert viewers["idle"]["description"] == "How long one may be silent.\nWritten like 250ms. Default: 1m."
    page = node_schema(pack.Encode)["markdownDescription"]
    assert "- `packets`: Packets (EncodedPacket, meant by the bare id of the node)" in page


def test_choices_say_what_they_mean_where_the_node_type_does() -> None:
    class StyleConfig(Config):
        style: Literal["bars", "ramp"] = field(default="bars", description="What is drawn.")
        speed: Annotated[
            Literal["slow", "fast"], WithJsonSchema({"enum": ["slow", "fast"], "enumDescriptions": ["Sharp.", "Soft."]})
        ] = field(default="slow", description="How it is drawn.")

    class Styled(pack.Capturing, Source[StyleConfig], type="styled"):
        """Draw."""

        video = Output(VideoFrame)

    properties = node_schema(Styled)["properties"]
    assert properties["style"]["anyOf"][0] == {"type": "string", "enum": ["bars", "ramp"]}
    assert properties["speed"]["anyOf"][0] == {"enum": ["slow", "fast"], "enumDescriptions": ["Sharp.", "Soft."]}
    overflow = SCHEMA["definitions"]["edge"]["anyOf"][2]["properties"]["overflow"]["anyOf"][0]
    assert (
        dict(zip(overflow["enum"], overflow["enumDescriptions"], strict=True))["latest"] == "Only the newest is kept."
    )
    assert overflow["enum"] == list(POLICIES)
    assert all(overflow["enumDescriptions"])


def test_code_in_docs_is_markdown() -> None:
    class Documented(pack.Capturing, Source, type="documented"):
        """Draw ``it``.

        ```yaml
        nodes: {}
        ```
        """

        video = Output(VideoFrame)

    schema = node_schema(Documented)
    assert schema["markdownDescription"].startswith("Draw `it`.\n\n```yaml\nnodes: {}\n```")
    assert schema["properties"]["type"] == {
        "const": "documented", "description": "Draw it.", "markdownDescription": "Draw `it`."
    }  # fmt: skip


def test_the_files_in_schemas_are_what_the_node_types_say() -> None:
    run = subprocess.run(
        [sys.executable, "tools/gen_schemas.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


@pytest.mark.parametrize("path", sorted((ROOT / "graphs").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_graphs_are_valid(path: Path) -> None:
    schema = json.loads((ROOT / "schemas" / "graph.schema.json").read_text())
    assert mistakes(schema, loaded(path)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "graphs").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_graphs_compile_without_a_word(path: Path) -> None:
    given = {name: "x" for name, each in loaded(path).get("vars", {}).items() if each == {"description": ANY}}
    plan = compile_graph(
        str(path), read=lambda file: Path(file).read_bytes(), environ={}, registry=BUILT_IN, wallclock=BEGAN, sets=given
    )
    assert plan.warnings == ()


def test_hints_name_node_types_that_exist() -> None:
    for hint in CONVERTERS.values():
        assert BUILT_IN.get(hint.rpartition("type: ")[2])


def test_every_built_in_type_has_a_described_schema() -> None:
    for _, node_type in BUILT_IN.types():
        assert isinstance(node_type, type), node_type
        schema = node_schema(node_type)
        jsonschema.Draft7Validator.check_schema(schema)
        for name, each in schema["properties"].items():
            assert each.get("description") or "$ref" in each, f"{node_type.type_id}.{name}"
            if name in node_type.config_class.model_fields:
                assert re.search(r"(Live: a change .*|A change replaces the node)\.$", each["description"])
