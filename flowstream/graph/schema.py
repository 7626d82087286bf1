"""JSON Schema of the graph language, made from the node types that are installed.

For editors: completion of types, keys and values, with descriptions, units and defaults. Draft 7, which is what editors
read. A node is discriminated by ``type``; wherever a value stands, ``$(...)`` may stand too. Two of them: of a graph,
and of a layer, in which nothing is required and ``null`` takes away what the layer beneath says.

Beside the standard's keywords they use those of VS Code's YAML and JSON support: ``markdownDescription``,
``enumDescriptions``, ``errorMessage``, ``patternErrorMessage``; other readers pass over them.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from flowstream.graph.plan import RestartOn
from flowstream.graph.spec import MAX_ITEMS, VERSION
from flowstream.node.base import Node
from flowstream.node.config import is_live, unit_of
from flowstream.node.ports import Input, Output
from flowstream.node.quantities import Bitrate, ByteSize, Duration, PictureSize
from flowstream.proto.overflow import POLICIES

DRAFT = "http://json-schema.org/draft-07/schema#"

Schema = dict[str, Any]

_ID = "^[a-z][a-z0-9-]{0,62}$"
_QUALIFIED_ID = "^[a-z][a-z0-9-]*(/[a-z][a-z0-9-]*)*$"
_PORT_NAME = "^[a-z][a-z0-9_-]*$"
_VARIABLE_NAME = "^[a-z][a-z0-9_-]*$"
_SCALAR: Schema = {"type": ["string", "number", "boolean"]}
_SUBSTITUTION: Schema = {"$ref": "#/definitions/substitution"}
_SUBSTITUTED = r"\$\([^()]+\)"
_QUANTITIES = {"bitrate": Bitrate, "duration": Duration, "bytes": ByteSize, "size": PictureSize}

_OUTSIDE = (
    "description", "markdownDescription", "default", "examples", "enumDescriptions", "x-live", "x-unit",
)  # fmt: skip
"""What describes a value and not its shape: it stands where editors look for it, outside alternatives."""

_OVERFLOW = {
    "block": "The producer waits; nothing is lost.",
    "drop-oldest": "What has waited longest is dropped.",
    "drop-newest": "What comes is dropped.",
    "latest": "Only the newest is kept.",
    "drop-to-keyframe": "Packets are dropped up to the next keyframe, and one is asked for.",
}
_RESTART_ON = {
    "peer": "After the other side failed it.",
    "any": "After every failure.",
    "end": "After every failure, and when it ended.",
}
_CONVERT = {
    "auto": "A converter is put on an edge into the node whose two sides could not meet without it.",
    "never": "An edge whose two sides do not fit is an error.",
}
_VARIABLE_TYPES = {
    "text": "Any text.",
    "integer": "A whole number.",
    "number": "A number.",
    "boolean": "true or false.",
    "bitrate": "Bits per second, such as 2.5M.",
    "duration": "A time span, such as 250ms.",
    "bytes": "A size in bytes, such as 64KiB.",
    "size": "A picture size, such as 1280x720 or 720p.",
    "aspect": "A ratio of width to height, such as 16:9.",
    "percentage": "A share, such as 50%.",
}


def graph_schema(types: Iterable[type[Node[Any]]]) -> Schema:
    """The schema of a graph file that may use these node types.

    A file that includes others is a layer over them, and is taken as `layer_schema` takes it.
    """
    definitions = _language(types)
    return {
        "$schema": DRAFT,
        "title": "flowstream graph",
        "description": "A graph of nodes that capture, process, serve and record live media.",
        "type": "object",
        "if": {"required": ["include"]},
        "then": {"$ref": "#/definitions/layer"},
        "else": {"$ref": "#/definitions/graph"},
        "definitions": _needed({"$ref": "#/definitions/graph"}, {"$ref": "#/definitions/layer"}, among=definitions),
    }


def layer_schema(types: Iterable[type[Node[Any]]]) -> Schema:
    """The schema of a file that is a layer: it changes the graph in the files beneath it.

    Nothing is required. ``null`` takes away a node or a key. A node without a type may have any settings; those of
    the known types are offered.
    """
    return {
        "$schema": DRAFT,
        "title": "flowstream layer",
        "description": "A layer: what it says is laid over the graph in the files beneath it. "
        "Maps are merged, lists replaced, null takes away.",
        "type": "object",
        "$ref": "#/definitions/layer",
        "definitions": _needed({"$ref": "#/definitions/layer"}, among=_language(types)),
    }


def node_schema(node_type: type[Node[Any]]) -> Schema:
    """The schema of one node of this type, by itself."""
    definitions = _shared()
    schema = _node(node_type, definitions)
    return {"$schema": DRAFT, **schema, "definitions": _needed(schema, among=definitions)}


def _language(types: Iterable[type[Node[Any]]]) -> dict[str, Schema]:
    """Every definition of the language: ``graph``, ``layer``, and what they are made of."""
    listed = sorted(types, key=lambda each: each.type_id)
    definitions = _shared()
    for node_type in listed:
        definitions[_name(node_type)] = _node(node_type, definitions)
    definitions["type"] = {
        "description": "What the node is: the name of a node type.",
        "anyOf": [{"const": each.type_id, **_described(_summary(each))} for each in listed],
    }
    definitions["node"] = _any_node(listed, {"required": ["type"], "properties": _undecided()}, definitions)
    definitions["graph"] = {
        "additionalProperties": False,
        "required": ["nodes"],
        "properties": {
            **_top(),
            "nodes": {
                "description": "The nodes, each under its id.",
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": _QUALIFIED_ID, "patternErrorMessage": _PATTERN_SAID["id"]},
                "additionalProperties": {"$ref": "#/definitions/node"},
            },
        },
    }
    loose = {
        f"layer-{name}": _loosened(schema, definitions) for name, schema in definitions.items() if name not in _VALUES
    }
    definitions.update(loose)
    definitions["layer-untyped"] = _untyped(listed, definitions)
    definitions["layer-node"] = _any_node(listed, {"$ref": "#/definitions/layer-untyped"}, definitions, "layer-")
    definitions["layer"] = definitions.pop("layer-graph")
    return definitions


def _needed(*roots: Schema, among: Mapping[str, Schema]) -> dict[str, Schema]:
    """The definitions that these schemas use, and those use in turn."""
    found: set[str] = set()
    waiting: list[Any] = list(roots)
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            name = str(each.get("$ref", "")).removeprefix("#/definitions/").partition("/")[0]
            if name in among and name not in found:
                found.add(name)
                waiting.append(among[name])
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    return {name: among[name] for name in sorted(found)}


# ------------------------------------------------------------------------------------------------------------ pieces


_QUANTITY_NAMES = {
    TypeAdapter(kind).json_schema()["pattern"]: f"#/definitions/{name}" for name, kind in _QUANTITIES.items()
}
_PATTERN_SAID = {
    "id": "An id is lower case letters, digits and -, a letter first.",
    "reference": "An output is written NODE or NODE.OUTPUT, within a group GROUP/NODE.OUTPUT.",
}


def _described(text: str) -> Schema:
    """A description; with its Markdown beside it where that says more than the words."""
    if "`" not in text:
        return {"description": text}
    marked = re.sub("(?<!`)``(?!`)", "`", text)
    return {"description": marked.replace("`", ""), "markdownDescription": marked}


def _name(node_type: type[Node[Any]]) -> str:
    return f"node-{node_type.type_id.replace('/', '.')}"


def _summary(node_type: type[Node[Any]]) -> str:
    return inspect.cleandoc(node_type.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _closed(properties: Schema, description: str, required: Iterable[str] = ()) -> Schema:
    schema: Schema = {
        **_described(description),
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    if required := list(required):
        schema["required"] = required
    return schema


def _any_of(schema: Schema, *more: Schema) -> Schema:
    """A value, or one of ``more`` in its place; what describes it stays outside."""
    outside: Schema = {key: schema[key] for key in _OUTSIDE if key in schema}
    inside = {key: value for key, value in schema.items() if key not in outside}
    if "enumDescriptions" in outside:  # it belongs to the list of choices, wherever that is
        inside["enumDescriptions"] = outside.pop("enumDescriptions")
    return {**outside, "anyOf": [*(inside["anyOf"] if list(inside) == ["anyOf"] else [inside]), *more]}


def _or_substitution(schema: Schema) -> Schema:
    """A value, or ``$(...)`` in its place."""
    if schema.get("type") == "string" and not schema.keys() & {"maxLength", "enum", "const", "format"}:
        if "pattern" not in schema:
            return schema  # any text
        return {**schema, "pattern": f"(?:{schema['pattern']})|{_SUBSTITUTED}"}
    return _any_of(schema, _SUBSTITUTION)


def _choice(values: Iterable[str] | Mapping[str, str], description: str, **more: Any) -> Schema:
    schema: Schema = {"description": description, "enum": list(values), **more}
    if isinstance(values, Mapping):
        schema["enumDescriptions"] = list(values.values())
    return _or_substitution(schema)


def _quantities() -> dict[str, Schema]:
    """What is written with its unit; when it is written wrong, it says how it is written."""
    found = {}
    for name, kind in _QUANTITIES.items():
        schema = TypeAdapter(kind).json_schema()
        said = f"Write it like {' or '.join(schema['examples'])}."
        found[name] = _or_substitution({**schema, "errorMessage": said, "patternErrorMessage": said})
    return found


def _quantity(name: str, description: str, **more: Any) -> Schema:
    return {"$ref": f"#/definitions/{name}", "description": description, **more}


def _reference(description: str) -> Schema:
    return {"$ref": "#/definitions/reference", "description": description}


def _shared() -> dict[str, Schema]:
    """The definitions that do not depend on node types."""
    count: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_ITEMS}
    return {
        **_quantities(),
        "substitution": {
            "$comment": "$(name) of vars, $(env:NAME) of the environment, $(date) or $(time).",
            "title": "$(name)",
            "type": "string",
            "pattern": _SUBSTITUTED,
        },
        "reference": {
            "type": "string",
            "pattern": r"^[a-z][a-z0-9-]*(/[a-z][a-z0-9-]*)*(\.[a-z][a-z0-9_-]*)?$",
            "patternErrorMessage": _PATTERN_SAID["reference"],
        },
        "limit": _closed(
            {
                "items": _or_substitution({**count, "description": "How many may wait.", "examples": [8]}),
                "bytes": _quantity("bytes", "How much may wait, in bytes, such as 16MiB."),
                "time": _quantity("duration", "How much may wait, in time, such as 2s."),
            },
            "How much may wait on the edge; what is reached first counts.",
        ),
        "edge": {
            "anyOf": [
                {"$ref": "#/definitions/reference"},
                _SUBSTITUTION,
                _closed(
                    {
                        "output": _any_of(_reference("The output that it takes: NODE or NODE.OUTPUT."), _SUBSTITUTION),
                        "overflow": _choice(
                            {each: _OVERFLOW.get(each, "") for each in POLICIES}, "What happens when the edge is full."
                        ),
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
        "edge-of-one": {
            "anyOf": [
                {"$ref": "#/definitions/edge"},
                {"type": "array", "minItems": 1, "maxItems": 1, "items": {"$ref": "#/definitions/edge"}},
            ]
        },
        "use": {
            "description": "The file of a graph to use as this node, relative to this file. "
            "Its exports are the node's ports, its vars the node's settings.",
            "type": "string",
            "minLength": 1,
            "examples": ["lib/ladder.yaml"],
        },
        "use-node": _use_node(),
        **_keys(),
    }  # fmt: skip


def _keys() -> dict[str, Schema]:
    """The keys that every node has."""
    return {
        "label": {"type": "string", "description": "What people call the node."},
        "enabled": _or_substitution({"type": "boolean", "default": True, "description": "false takes it out."}),
        "restart": _closed(
            {
                "on": _choice(
                    {each: _RESTART_ON[each] for each in get_args(RestartOn)}, "After what it is started anew.",
                    default="peer",
                ),
                "backoff": _closed(
                    {
                        "first": _quantity("duration", "The first wait.", default="1s"),
                        "max": _quantity("duration", "The longest wait.", default="30s"),
                    },
                    "How long to wait before each new start; waits double.",
                ),
                "limit": _or_substitution({
                    "type": "integer", "minimum": 1, "maximum": 1_000_000,
                    "description": "Failures that it survives: in a row, or within window.", "examples": [5],
                }),
                "window": _quantity("duration", "The time in which limit failures end it, whatever was between."),
            },
            "When the node is started anew after it failed.",
        ),
        "was": _or_substitution({
            "type": "string", "pattern": f"^/?{_QUALIFIED_ID.removeprefix('^')}",
            "patternErrorMessage": "Write the id it had, such as old-name; /old-name counts from the outermost graph.",
            "description": "The id it had before it was renamed or moved: a reload keeps it and its viewers.",
        }),
        "convert": _choice(_CONVERT, "Whether converters may be put on the edges into it.", default="auto"),
        "placement": _or_substitution({
            "type": "string", "pattern": _ID, "patternErrorMessage": _PATTERN_SAID["id"],
            "description": "The worker that runs it, one of placement:. A local run takes no notice.",
        }),
    }  # fmt: skip


def _common() -> Schema:
    return {key: {"$ref": f"#/definitions/{key}"} for key in _keys()}


def _use_node() -> Schema:
    return {
        **_described("A graph used as a node. Every other key gives a value to the variable of that name in the file."),
        "type": "object",
        "required": ["use"],
        "additionalProperties": _SCALAR,
        "properties": {
            "use": {"$ref": "#/definitions/use"},
            "type": False,
            "needs": False,
            **_common(),
            "from": {"$ref": "#/definitions/edges", "description": "What its one input takes: NODE or NODE.OUTPUT."},
            "inputs": {
                "description": "What each input that the file exports takes.",
                "type": "object",
                "propertyNames": {"pattern": _PORT_NAME},
                "additionalProperties": {"$ref": "#/definitions/edges"},
            },
        },
    }


def _undecided() -> Schema:
    """What a node that does not say yet what it is begins with."""
    return {"type": {"$ref": "#/definitions/type"}, "use": {"$ref": "#/definitions/use"}}


def _any_node(
    listed: Iterable[type[Node[Any]]], undecided: Schema, definitions: dict[str, Schema], prefix: str = ""
) -> Schema:
    """A node of any of these types, told apart by ``type`` and ``use``; a disabled one may be of a type unknown."""
    known: Schema = {
        "properties": {"type": {"$ref": "#/definitions/type"}},
        "allOf": [
            {
                "if": {"properties": {"type": {"const": each.type_id}}, "required": ["type"]},
                "then": {"$ref": f"#/definitions/{prefix}{_name(each)}"},
            }
            for each in listed
        ],
    }
    definitions[f"{prefix}enabled-node"] = {
        "if": {"required": ["use"]},
        "then": {"$ref": f"#/definitions/{prefix}use-node"},
        "else": {"if": {"type": "object", "required": ["type"]}, "then": known, "else": undecided},
    }
    enabled: Schema = {"$ref": f"#/definitions/{prefix}enabled-node"}
    switch: Schema = {"$ref": "#/definitions/enabled"}
    return {
        "type": "object",
        "properties": {"enabled": _any_of(switch, _NULL) if prefix else switch},
        "if": {"required": ["enabled"], "properties": {"enabled": {"const": False}}},
        # Whatever it says is right; what is offered is what an enabled one may have.
        "then": {"anyOf": [enabled, {}]},
        "else": enabled,
    }


def _top() -> Schema:
    """The keys of a file beside its nodes."""
    ports: Schema = {"type": "object", "propertyNames": {"pattern": _PORT_NAME}}
    ids: Schema = {"type": "string", "pattern": _QUALIFIED_ID}
    path: Schema = {"type": "string", "minLength": 1}
    return {
        "flowstream": {"const": VERSION, "description": "Version of the graph language."},
        "vars": {
            "description": "Values used as $(name).",
            "type": "object",
            "propertyNames": {"pattern": _VARIABLE_NAME},
            "additionalProperties": {
                "anyOf": [
                    _SCALAR,
                    _closed(
                        {
                            "default": {**_SCALAR, "description": "The value that it has when none is given."},
                            "description": {"type": "string", "description": "What it is for."},
                            "type": {
                                "description": "What may be given.", "enum": list(_VARIABLE_TYPES),
                                "enumDescriptions": list(_VARIABLE_TYPES.values()),
                            },
                        },
                        "A variable.",
                    ),
                ]
            },
        },
        "include": {
            "description": "Files that are layers beneath this one, relative to it: this one changes what they say.",
            "examples": ["common.yaml"],
            "anyOf": [path, {"type": "array", "minItems": 1, "items": path}],
        },
        "inputs": {
            **ports,
            "description": "The inputs of this file where another one uses it: NAME: NODE.INPUT, or a list of those.",
            "additionalProperties": {
                "anyOf": [
                    {"$ref": "#/definitions/reference"},
                    {"type": "array", "minItems": 1, "items": {"$ref": "#/definitions/reference"}},
                ]
            },
        },
        "outputs": {
            **ports,
            "description": "The outputs of this file where another one uses it: NAME: NODE.OUTPUT.",
            "additionalProperties": {"$ref": "#/definitions/reference"},
        },
        "serve": _closed(
            {
                "listen": {
                    "description": "HOST:PORT on which viewers are served.",
                    "type": "string",
                    "default": "127.0.0.1:8080",
                    "examples": ["127.0.0.1:8080"],
                },
                "tls": {
                    "description": "How what is served is encrypted; has to be said where other machines reach it.",
                    "anyOf": [
                        _choice(
                            {
                                "auto": "Over TLS, with a certificate that is made and kept; browsers warn of it once.",
                                "off": "In the clear, because something else encrypts.",
                            },
                            "With a certificate that is made, or not at all.",
                        ),
                        _closed(
                            {
                                "cert": {"description": "The certificate and its chain, a PEM file.", "type": "string"},
                                "key": {"description": "Its key, a PEM file without passphrase.", "type": "string"},
                            },
                            "Over TLS with a certificate of yours, read again when it changes.",
                            ("cert", "key"),
                        ),
                    ],
                },
                "api": _or_substitution(
                    {
                        "description": "Whether the control API is served there too, under /-/, for who has the token.",
                        "type": "boolean",
                        "default": False,
                    }
                ),
                "token": {
                    "description": "The API's token, from the environment; without it each run makes one of its own.",
                    "type": "string",
                    "pattern": r"\$\(",
                    "examples": ["$(env:FLOWSTREAM_TOKEN)"],
                },
            },
            "Where the graph serves viewers, and whether it can be controlled from there.",
        ),
        "log": _closed(
            {
                "level": _choice(("debug", "info", "warning", "error"), "The least that is logged."),
                "format": _choice(("text", "json"), "How a line is written."),
            },
            "What is logged, and how.",
        ),
        "placement": {
            "description": "The workers that nodes may be placed on. A local run runs all nodes itself.",
            "type": "object",
            "propertyNames": {"pattern": _ID},
            "additionalProperties": _closed(
                {
                    "nodes": {"description": "The ids of the nodes that it runs.", "type": "array", "items": ids},
                    "address": {
                        "description": "HOST:PORT at which it is reached.", "type": "string",
                        "examples": ["192.168.1.20:7700"],
                    },
                },
                "A worker.",
            ),
        },
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------- node types


def _node(node_type: type[Node[Any]], definitions: dict[str, Schema]) -> Schema:
    properties: Schema = {"type": {"const": node_type.type_id, **_described(_summary(node_type))}, **_common()}
    media = [port for port in node_type.inputs.values() if not port.feedback]
    if node_type.inputs:
        told = [f"{port.name}: {_port(port)}" for port in media or node_type.inputs.values()]
        properties["from"] = {
            "$ref": "#/definitions/edges",
            **_described("\n".join(["The output that its input takes: NODE or NODE.OUTPUT.", *told])),
        }
        properties["inputs"] = _closed(
            {
                name: {
                    "$ref": f"#/definitions/{'edges' if port.many else 'edge-of-one'}",
                    **_described(_port(port)),
                }
                for name, port in node_type.inputs.items()
            },
            "What each input takes.",
        )
    model = node_type.config_class
    schema = model.model_json_schema(ref_template="#/definitions/{model}")
    prefix = f"{_name(node_type)}."
    inner = schema.pop("$defs", {})
    names = {f"#/definitions/{name}": f"#/definitions/{prefix}{name}" for name in inner}
    models = {each.__name__: each for each in _models_in(model)}
    for name, each in inner.items():
        if name in models:
            defaults = _shown_defaults(models[name])
            for key, field in each["properties"].items():
                field.update({"default": defaults[key]} if key in defaults else {})
                field.update(_with_facts(field, _facts(field, field.get("x-unit"))))
        definitions[prefix + name] = _translated(each, names)
    defaults = _shown_defaults(model)
    required = list(schema.get("required", ()))
    for name, info in model.model_fields.items():
        written = {**schema["properties"][name], "description": info.description or ""}
        if name in defaults:
            written["default"] = defaults[name]
        facts = [*_facts(written, unit_of(info)), "Required." if name in required else "", _change(info)]
        properties[name] = _translated(_with_facts(written, facts), names)
    return {**_closed(properties, _page(node_type), ["type", *required]), "title": node_type.type_id}


def _page(node_type: type[Node[Any]]) -> str:
    """What an editor shows for the node as a whole: its docs and its ports, in Markdown."""
    parts = [inspect.cleandoc(node_type.__doc__ or "")]
    for title, ports in (("Inputs", node_type.inputs), ("Outputs", node_type.outputs)):
        if ports:
            parts.append("\n".join([f"{title}:", "", *(f"- `{name}`: {_port(port)}" for name, port in ports.items())]))
    return "\n\n".join(parts)


def _port(port: Input[Any] | Output[Any]) -> str:
    takes = " or ".join("anything" if each is object else each.__name__ for each in port.payloads)
    marks = [takes]
    if isinstance(port, Input):
        marks.append("feedback" if port.feedback else "optional" if port.optional else "required")
        if port.many:
            marks.append("any number")
    elif port.main:
        marks.append("meant by the bare id of the node")
    return f"{port.doc or port.name.capitalize()} ({', '.join(marks)})"


def _facts(field: Schema, unit: str | None) -> list[str]:
    """How a setting is written, and what it is when it is not: what its description does not say."""
    facts = []
    quantity = next((each for each in (field, *field.get("anyOf", ())) if "pattern" in each and "x-unit" in each), None)
    if quantity is not None:
        # The text of a duration carries its unit; the model's own, nanoseconds, is nobody's who writes one.
        counted = "" if quantity["x-unit"] == "nanoseconds" else f" ({quantity['x-unit']})"
        facts.append(f"Written like {quantity['examples'][0]}{counted}.")
    elif unit is not None:
        facts.append(f"Unit: {unit}.")
    default = field.get("default")
    if default not in (None, "", [], {}) and not isinstance(default, dict):
        if isinstance(default, float):
            default = f"{default:g}"
        facts.append(f"Default: {default if isinstance(default, str) else json.dumps(default)}.")
    return facts


def _with_facts(field: Schema, facts: Iterable[str]) -> Schema:
    said = [str(field.get("description", "")), " ".join(filter(None, facts))]
    return {**field, "description": "\n".join(filter(None, said))}


def _change(info: FieldInfo) -> str:
    return "Live: a change is applied while it runs." if is_live(info) else "A change replaces the node."


def _models_in(model: type[BaseModel]) -> set[type[BaseModel]]:
    """The models that settings of this one are made of, theirs included."""
    found: set[type[BaseModel]] = set()
    waiting: list[Any] = [info.annotation for info in model.model_fields.values()]
    while waiting:
        each = waiting.pop()
        if isinstance(each, type) and issubclass(each, BaseModel) and each not in found:
            found.add(each)
            waiting.extend(info.annotation for info in each.model_fields.values())
        waiting.extend(get_args(each))
    return found


def _shown_defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Defaults as people write them: ``2.5M``, not 2500000."""
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
        elif key == "description":
            result.update(_described(value))
        elif key != "title" and (key, value) != ("x-live", False):
            result[key] = value
    if "pattern" in result and (name := _QUANTITY_NAMES.get(result["pattern"])):
        return {**{key: result[key] for key in _OUTSIDE if key in result and key != "x-unit"}, "$ref": name}
    is_value = result.get("type") in ("string", "integer", "number", "boolean") or "enum" in result or "const" in result
    return _or_substitution(result) if is_value else result


# ------------------------------------------------------------------------------------------------------------- layers

_VALUES = ("substitution", "reference", *_QUANTITIES)
"""Definitions of single values, which are the same in a layer."""
_NULL: Schema = {"type": "null", "description": "Takes away what the layers beneath say."}


def _loosened(schema: Any, definitions: Mapping[str, Schema]) -> Any:
    """The schema of what a layer may say in this place: nothing is required, and null stands for any key's value.

    Lists are replaced whole, so that what stands in one is as strict as ever.
    """
    if isinstance(schema, list):
        return [_loosened(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result: Schema = {}
    for key, value in schema.items():
        if key == "$ref":
            name = value.removeprefix("#/definitions/")
            result[key] = value if name in _VALUES else f"#/definitions/layer-{name}"
        elif key == "properties":
            result[key] = {
                name: each if name in ("type", "use") or each is False else _or_null(each, definitions)
                for name, each in value.items()
            }
        elif key == "additionalProperties" and isinstance(value, dict):
            result[key] = _or_null(value, definitions)
        elif key in ("anyOf", "allOf", "oneOf", "then", "else"):
            result[key] = _loosened(value, definitions)
        elif key not in ("required", "minProperties"):
            result[key] = value
    return result


def _or_null(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    referred = definitions.get(str(schema.get("$ref", "")).removeprefix("#/definitions/"), {})
    described: Schema = {key: referred[key] for key in ("description", "markdownDescription") if key in referred}
    return _any_of({**described, **_loosened(schema, definitions)}, _NULL)


def _untyped(listed: Iterable[type[Node[Any]]], definitions: Mapping[str, Schema]) -> Schema:
    """A node in a layer that leaves its type to the layers beneath: it may have the settings of any."""
    settings: dict[str, dict[str, Schema]] = {}
    for node_type in listed:
        for name, field in definitions[f"layer-{_name(node_type)}"]["properties"].items():
            if name in node_type.config_class.model_fields:
                settings.setdefault(name, {})[node_type.type_id] = field
    offered: Schema = {}
    for name, fields in settings.items():
        told = [f"{type_id}: {field.get('description', '').partition(chr(10))[0]}" for type_id, field in fields.items()]
        pointers = [f"#/definitions/layer-node-{type_id.replace('/', '.')}/properties/{name}" for type_id in fields]
        # Nothing is refused: the node may be a graph that is used, whose settings are its own.
        offered[name] = {"description": "\n".join(told), "anyOf": [*({"$ref": each} for each in pointers), {}]}
    common = {
        key: value for key, value in definitions["layer-use-node"]["properties"].items() if isinstance(value, dict)
    }
    return {"properties": {**_undecided(), **offered, **common}}
