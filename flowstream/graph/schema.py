"""JSON Schema of the graph language, made from the node types that are installed.

For editors: completion of types, keys and values, with descriptions, units and defaults. Draft 7, which is what editors
read. A node is discriminated by ``type``; wherever a value stands, ``$(...)`` may stand too.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from flowstream.graph.plan import RestartOn
from flowstream.graph.spec import MAX_ITEMS, VERSION
from flowstream.node.base import Node
from flowstream.node.config import is_live
from flowstream.node.ports import Input
from flowstream.proto.overflow import POLICIES

DRAFT = "http://json-schema.org/draft-07/schema#"

Schema = dict[str, Any]

_ID = "^[a-z][a-z0-9-]{0,62}$"
_REFERENCE = r"^[a-z][a-z0-9-]*(\.[a-z][a-z0-9_]*)?$"
_DURATION: Schema = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ns|us|ms|s|m|min|h)$", "examples": ["250ms"]}
_BYTES: Schema = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*([kKMGT]i?)?B$", "examples": ["16MiB"]}
_SUBSTITUTION: Schema = {"$ref": "#/definitions/substitution"}


def graph_schema(types: Iterable[type[Node[Any]]]) -> Schema:
    """The schema of a graph file that may use these node types."""
    listed = sorted(types, key=lambda each: each.type_id)
    definitions = _shared()
    for node_type in listed:
        definitions[_name(node_type)] = _node(node_type, definitions)
    definitions["node"] = {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {
                "description": "What the node is.",
                "anyOf": [
                    {"const": each.type_id, "description": _summary(each)} for each in listed
                ],
            }
        },
        "allOf": [
            {
                "if": {"properties": {"type": {"const": each.type_id}}, "required": ["type"]},
                "then": {"$ref": f"#/definitions/{_name(each)}"},
            }
            for each in listed
        ],
    }  # fmt: skip
    return {
        "$schema": DRAFT,
        "title": "flowstream graph",
        "description": "A graph of nodes that capture, process, serve and record live media.",
        "type": "object",
        "required": ["nodes"],
        "additionalProperties": False,
        "properties": {
            "flowstream": {"const": VERSION, "description": "Version of the graph language."},
            "vars": {"$ref": "#/definitions/vars"},
            "serve": {"$ref": "#/definitions/serve"},
            "log": {"$ref": "#/definitions/log"},
            "nodes": {
                "description": "The nodes, each under its id.",
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": _ID},
                "additionalProperties": {"$ref": "#/definitions/node"},
            },
        },
        "definitions": definitions,
    }


def node_schema(node_type: type[Node[Any]]) -> Schema:
    """The schema of one node of this type, by itself."""
    definitions = _shared()
    schema = _node(node_type, definitions)
    needed = {name: definitions[name] for name in _referenced(schema, definitions)}
    return {"$schema": DRAFT, "title": node_type.type_id, **schema, "definitions": dict(sorted(needed.items()))}


def _referenced(schema: Any, definitions: Mapping[str, Schema]) -> set[str]:
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            name = str(each.get("$ref", "")).removeprefix("#/definitions/")
            if name in definitions and name not in found:
                found.add(name)
                waiting.append(definitions[name])
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    return found


def _name(node_type: type[Node[Any]]) -> str:
    return f"node-{node_type.type_id.replace('/', '.')}"


def _summary(node_type: type[Node[Any]]) -> str:
    return inspect.cleandoc(node_type.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _closed(properties: Schema, description: str, required: Iterable[str] = ()) -> Schema:
    schema: Schema = {
        "description": description,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    if required := list(required):
        schema["required"] = required
    return schema


def _or_substitution(schema: Schema) -> Schema:
    """A value, or ``$(...)`` in its place; what describes it stays outside, where editors look for it."""
    outside: Schema = {key: schema[key] for key in ("description", "default", "examples") if key in schema}
    inside = {key: value for key, value in schema.items() if key not in outside}
    return {**outside, "anyOf": [*(inside["anyOf"] if list(inside) == ["anyOf"] else [inside]), _SUBSTITUTION]}


def _choice(values: Iterable[str], description: str, **more: Any) -> Schema:
    return {"description": description, "enum": list(values), **more}


def _shared() -> dict[str, Schema]:
    """The definitions that do not depend on node types."""
    count: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_ITEMS}
    return {
        "substitution": {
            "description": "$(name) of vars, $(env:NAME) of the environment, $(date) or $(time).",
            "type": "string",
            "pattern": r"\$\([^()]+\)",
        },
        "reference": {"description": "NODE, or NODE.OUTPUT.", "type": "string", "pattern": _REFERENCE},
        "limit": _closed(
            {
                "items": {**count, "description": "How many may wait."},
                "bytes": {**_BYTES, "description": "How much may wait, in bytes, such as 16MiB."},
                "time": {**_DURATION, "description": "How much may wait, in time, such as 2s."},
            },
            "How much may wait on the edge; what is reached first counts.",
        ),
        "edge": {
            "anyOf": [
                {"$ref": "#/definitions/reference"},
                _SUBSTITUTION,
                _closed(
                    {
                        "output": {"$ref": "#/definitions/reference"},
                        "overflow": _choice(POLICIES, "What happens when the edge is full."),
                        "limit": {"$ref": "#/definitions/limit"},
                    },
                    "An output, with how much may wait and what happens then.",
                    ["output"],
                ),
            ]
        },
        "edges": {
            "anyOf": [
                {"$ref": "#/definitions/edge"},
                {"type": "array", "minItems": 1, "items": {"$ref": "#/definitions/edge"}},
            ]
        },
        "restart": _closed(
            {
                "on": _choice(
                    get_args(RestartOn),
                    "peer: after the other side failed it; any: after every failure; end: also when it ended.",
                    default="peer",
                ),
                "backoff": _closed(
                    {
                        "first": {**_DURATION, "description": "The first wait.", "default": "1s"},
                        "max": {**_DURATION, "description": "The longest wait.", "default": "30s"},
                    },
                    "How long to wait before each new start; waits double.",
                ),
                "limit": {**count, "maximum": 1_000_000, "description": "Failures in a row that it survives."},
            },
            "When the node is started anew after it failed.",
        ),
        "vars": {
            "description": "Values used as $(name).",
            "type": "object",
            "propertyNames": {"pattern": "^[a-z][a-z0-9_-]*$"},
            "additionalProperties": {
                "anyOf": [
                    {"type": ["string", "number", "boolean"]},
                    _closed(
                        {
                            "default": {"type": ["string", "number", "boolean"], "description": "The value."},
                            "description": {"type": "string", "description": "What it is for."},
                        },
                        "A variable.",
                    ),
                ]
            },
        },
        "serve": _closed(
            {
                "listen": {
                    "description": "HOST:PORT on which viewers are served.",
                    "type": "string",
                    "default": "127.0.0.1:8080",
                    "examples": ["127.0.0.1:8080"],
                }
            },
            "Where the graph serves viewers.",
        ),
        "log": _closed(
            {
                "level": _choice(("debug", "info", "warning", "error"), "The least that is logged."),
                "format": _choice(("text", "json"), "How a line is written."),
            },
            "What is logged, and how.",
        ),
    }  # fmt: skip


def _node(node_type: type[Node[Any]], definitions: dict[str, Schema]) -> Schema:
    properties: Schema = {
        "type": {"const": node_type.type_id, "description": _summary(node_type)},
        "label": {"type": "string", "description": "What people call the node."},
        "enabled": _or_substitution({"type": "boolean", "default": True, "description": "false takes it out."}),
        "restart": {"$ref": "#/definitions/restart"},
        "was": {"type": "string", "pattern": _ID, "description": "The id it had before it was renamed."},
    }
    media = [port for port in node_type.inputs.values() if not port.feedback]
    if node_type.inputs:
        first = media[0] if media else next(iter(node_type.inputs.values()))
        properties["from"] = {"$ref": "#/definitions/edges", "description": f"What it takes. {_port(first)}"}
        properties["inputs"] = _closed(
            {
                name: {
                    "$ref": f"#/definitions/{'edges' if port.many else 'edge'}",
                    "description": _port(port),
                }
                for name, port in node_type.inputs.items()
            },
            "What each input takes.",
        )  # fmt: skip
    model = node_type.config_class
    schema = model.model_json_schema(ref_template="#/definitions/{model}")
    prefix = f"{_name(node_type)}."
    inner = schema.pop("$defs", {})
    names = {f"#/definitions/{name}": f"#/definitions/{prefix}{name}" for name in inner}
    for name, each in inner.items():
        definitions[prefix + name] = _translated(each, names)
    defaults = _shown_defaults(node_type)
    for name, info in model.model_fields.items():
        field = _translated(schema["properties"][name], names)
        if name in defaults:
            field["default"] = defaults[name]
        if is_live(info):
            field["description"] = f"{field.get('description', '')} Changes while running.".strip()
        properties[name] = field
    required = ["type", *schema.get("required", ())]
    return _closed(properties, inspect.cleandoc(node_type.__doc__ or ""), required)


def _port(port: Input[Any]) -> str:
    takes = " or ".join("anything" if each is object else each.__name__ for each in port.payloads)
    kind = "feedback" if port.feedback else "optional" if port.optional else "required"
    return f"{port.doc or port.name.capitalize()} ({takes}, {kind})".strip()


def _shown_defaults(node_type: type[Node[Any]]) -> dict[str, Any]:
    """Defaults as people write them: ``2.5M``, not 2500000."""
    model = node_type.config_class
    given = {
        name: info.get_default(call_default_factory=True, validated_data={})
        for name, info in model.model_fields.items()
        if not info.is_required()
    }
    return model.model_construct(None, **given).model_dump(mode="json", include=set(given), warnings=False)


def _translated(schema: Any, names: Mapping[str, str]) -> Any:
    """pydantic's schema in ours: its references under their new names, and values that ``$(...)`` may stand for."""
    if isinstance(schema, list):
        return [_translated(each, names) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result: Schema = {}
    for key, value in schema.items():
        if key == "$ref":
            result[key] = names.get(value, value)
        elif key == "properties":
            result[key] = {name: _translated(each, names) for name, each in value.items()}
        elif key in ("anyOf", "oneOf", "allOf", "items", "additionalProperties", "prefixItems"):
            result[key] = _translated(value, names)
        elif key not in ("title", "x-live"):
            result[key] = value
    is_value = result.get("type") in ("string", "integer", "number", "boolean") or "enum" in result or "const" in result
    return _or_substitution(result) if is_value else result
