"""The JSON Schema accepts what is accepted, and refuses what an editor should mark."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import jsonschema  # type: ignore[import-untyped]
import pytest
from ruamel.yaml import YAML

from flowstream.graph import compile_graph
from flowstream.graph.resolve import CONVERTERS
from flowstream.graph.schema import graph_schema, node_schema
from flowstream.node.base import Node
from flowstream.node.registry import Pack, Registry
from tests.graph import pack
from tests.graph.cases import FOLDER
from tests.graph.compiling import BEGAN, REGISTRY

ROOT = Path(__file__).parent.parent.parent
TYPES: list[type[Node[Any]]] = [getattr(pack, name) for name in pack.__all__]
SCHEMA = graph_schema(TYPES)
BUILT_IN = Registry([Pack("flowstream", "flowstream", module="flowstream_nodes")])


def loaded(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text())


def mistakes(schema: Any, value: Any) -> list[str]:
    return [each.message for each in jsonschema.Draft7Validator(schema).iter_errors(value)]


def test_it_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", sorted((FOLDER / "valid").glob("*.yaml")), ids=lambda path: path.stem)
def test_valid_graphs_are_valid(path: Path) -> None:
    graph = loaded(path)
    graph["nodes"] = {id_: node for id_, node in graph["nodes"].items() if node.get("enabled", True)}
    assert mistakes(SCHEMA, graph) == []


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


def test_defaults_and_descriptions_are_what_people_read() -> None:
    properties = node_schema(pack.Encode)["properties"]
    assert properties["keyframe_interval"]["default"] == "2s"
    assert properties["bitrate"]["description"] == "Wanted rate, in bits per second. Changes while running."
    assert properties["type"]["description"] == "Encode pictures."
    assert "feedback" in properties["inputs"]["properties"]["targets"]["description"]
    assert node_schema(pack.Pattern)["properties"]["size"]["default"] == "1280x720"
    assert node_schema(pack.Tape)["properties"]["keep"]["default"] == "50GB"


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
        path.name, read=lambda _: path.read_bytes(), environ={}, registry=BUILT_IN, wallclock=BEGAN, sets=given
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
        for name, field in schema["properties"].items():
            assert field.get("description") or "$ref" in field, f"{node_type.type_id}.{name}"
