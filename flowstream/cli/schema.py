"""``flowstream schema``: the JSON Schema of graph files that may use every installed node type."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import nodes_option


@click.command("schema", short_help=COMMANDS["schema"])
@nodes_option
@click.option("--layer", is_flag=True, help="Of a file that changes the graph beneath it: nothing is required there.")
@click.option("--node", "type_id", metavar="TYPE", help="Of one node of this type, by itself.")
def command(folders: tuple[Path, ...], layer: bool, type_id: str | None) -> int:
    """Print the JSON Schema of graph files, with the node types of every installed pack.

    Write it to a file and name that in a graph's first line, for completion and checks while you type:

    \b
      flowstream schema > graph.schema.json
      # yaml-language-server: $schema=graph.schema.json

    A file that is run over another one, as in `flowstream run base.yaml over.yaml`, names the schema of --layer.
    """
    from flowstream.errors import PackError
    from flowstream.graph.schema import graph_schema, layer_schema, node_schema
    from flowstream.node.registry import Registry

    if layer and type_id is not None:
        raise click.UsageError("--layer is about whole files and --node about one node: give one of them.")
    registry = Registry.installed(folders)
    if type_id is not None:
        schema = node_schema(registry.get(type_id))
    else:
        types = []
        for name, found in registry.types():
            if isinstance(found, PackError):
                click.echo(f"left out: {name}: {found.message}", err=True)
            else:
                types.append(found)
        schema = layer_schema(types) if layer else graph_schema(types)
    click.echo(json.dumps(schema, indent=2, ensure_ascii=False))
    return 0
