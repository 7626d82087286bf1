"""``flowstream nodes``: the node types within reach, and what each takes, gives and is set by."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import nodes_option

if TYPE_CHECKING:
    from flowstream.errors import PackError
    from flowstream.node.base import Node
    from flowstream.node.ports import Port
    from flowstream.node.registry import Registry


@click.command("nodes", short_help=COMMANDS["nodes"])
@click.argument("type_id", metavar="[TYPE]", required=False)
@nodes_option
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="For people, or for programs."
)
def command(type_id: str | None, folders: tuple[Path, ...], form: str) -> int:
    """List the node types of every pack, or show TYPE: its ports, its settings with units and defaults, an example.

    Settings marked live change while the graph runs; a change of any other replaces the node.
    """
    from flowstream.node.registry import Registry

    registry = Registry.installed(folders)
    if type_id is not None:
        shown = described_type(registry.get(type_id), _source(registry, type_id))
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False) if form == "json" else "\n".join(_page(shown)))
        return 0
    listed = [_entry(registry, name, found) for name, found in registry.types()]
    if form == "json":
        click.echo(json.dumps(listed, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_list(listed)))
    return 0


def _entry(registry: Registry, name: str, found: type[Node[Any]] | PackError) -> dict[str, Any]:
    pack = _source(registry, name)
    if isinstance(found, Exception):
        return {"type": name, "pack": pack, "error": found.message}
    return {"type": name, "pack": pack, "summary": inspect.getdoc(found).partition("\n")[0]}  # type: ignore[union-attr]


def _source(registry: Registry, name: str) -> str:
    from flowstream.node.registry import BUILT_IN

    namespace = name.partition("/")[0]
    known = {pack.namespace: pack.source for pack in registry.packs}
    return known.get(namespace if "/" in name or namespace in known else BUILT_IN, "")


def _list(listed: list[dict[str, Any]]) -> Iterator[str]:
    good = [each for each in listed if "error" not in each]
    width = max((len(each["type"]) for each in good), default=0)
    for pack in dict.fromkeys(each["pack"] for each in good):
        yield f"{pack}:"
        for each in good:
            if each["pack"] == pack:
                yield f"  {each['type'].ljust(width)}  {each['summary']}"
    broken = [each for each in listed if "error" in each]
    if broken:
        yield "broken:"
    for each in broken:
        yield f"  {each['type'].ljust(width)}  {each['error']}"


def described_type(node_type: type[Node[Any]], pack: str) -> dict[str, Any]:
    """A node type as JSON values: docs, ports and settings as people read them."""
    from flowstream.node.registry import missing_needs

    return {
        "type": node_type.type_id,
        "pack": pack,
        "doc": inspect.getdoc(node_type),
        "inputs": [_port(port) for port in node_type.inputs.values()],
        "outputs": [_port(port) for port in node_type.outputs.values()],
        "settings": list(_settings(node_type)),
        "missing": [need.install for need in missing_needs(node_type)],
    }


def _port(port: Port) -> dict[str, Any]:
    flags = [flag for flag in ("optional", "feedback", "many", "main") if getattr(port, flag, False)]
    payloads = [payload.__name__ for payload in port.payloads]  # type: ignore[attr-defined]
    caps = getattr(port, "caps", None)
    return {
        "name": port.name,
        "payloads": payloads,
        "caps": str(caps) if caps is not None else None,
        "flags": [flag for flag in flags if not (flag == "optional" and "feedback" in flags)],
        "doc": getattr(port, "doc", ""),
    }


def _settings(node_type: type[Node[Any]]) -> Iterator[dict[str, Any]]:
    schema = node_type.config_class.model_json_schema()
    # The defaults as people write them: 2.5M, not 2500000.
    defaults = node_type.config_class.model_construct().model_dump(mode="json", warnings=False)
    yield from _fields(schema, schema.get("$defs", {}), defaults, "", None)


def _fields(
    schema: Mapping[str, Any],
    definitions: Mapping[str, Any],
    defaults: Mapping[str, Any],
    prefix: str,
    live: bool | None,
) -> Iterator[dict[str, Any]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        inner = _resolved(field, definitions)
        is_live = bool(field.get("x-live")) if live is None else live
        if "properties" in inner:
            yield from _fields(inner, definitions, defaults.get(name) or {}, f"{prefix}{name}.", is_live)
            continue
        yield {
            "name": f"{prefix}{name}",
            "takes": _takes(field, definitions),
            "default": defaults.get(name),
            "required": name in required,
            "live": is_live,
            "description": field.get("description", ""),
        }


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if reference is None and len(schema.get("allOf", ())) == 1:
        reference = schema["allOf"][0].get("$ref")
    return definitions[reference.rpartition("/")[2]] if reference else schema


def _takes(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a setting takes, in a few words: ``a number from 1 to 500``, ``like 2.5M``, ``h264 or vp8``."""
    schema = {**_resolved(schema, definitions), **schema}
    if "anyOf" in schema:
        return " or ".join(
            dict.fromkeys(_takes(each, definitions) for each in schema["anyOf"] if each.get("type") != "null")
        )
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type")
    if kind in ("number", "integer"):
        return _range("a number" if kind == "number" else "a whole number", schema)
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        items = schema.get("items")
        return f"a list ({_takes(items, definitions)})" if items else "a list"
    if schema.get("examples") and "pattern" in schema:
        return f"like {schema['examples'][0]}"
    return "text" if kind == "string" else "a map" if kind == "object" else "a value"


def _range(what: str, schema: Mapping[str, Any]) -> str:
    words = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "to"}
    bounds = [f"{word} {schema[key]:g}" for key, word in words.items() if key in schema]
    return " ".join([what, *bounds])


def _page(shown: Mapping[str, Any]) -> Iterator[str]:
    yield f"{shown['type']}  ({shown['pack']})"
    yield ""
    yield shown["doc"]
    for title in ("inputs", "outputs"):
        if shown[title]:
            yield ""
            yield f"{title}:"
        for port in shown[title]:
            marks = "".join(f", {flag}" for flag in port["flags"])
            caps = f" {port['caps']}" if port["caps"] else ""
            doc = f"  {port['doc']}" if port["doc"] else ""
            yield f"  {port['name']}: {' or '.join(port['payloads'])}{caps}{marks}{doc}"
    if shown["settings"]:
        yield ""
        yield "settings:"
    for field in shown["settings"]:
        default = "required" if field["required"] else _default(field["default"])
        marks = ", ".join(filter(None, (field["takes"], default, "live" if field["live"] else "")))
        yield f"  {field['name']}: {marks}"
        yield f"      {field['description']}"
    if shown["missing"]:
        yield ""
        yield f"it needs what is not installed: pip install {' '.join(shown['missing'])}"


def _default(value: Any) -> str:
    if value in (None, "", [], {}):
        return ""
    return f"default {json.dumps(value) if isinstance(value, bool | list | dict) else value}"
