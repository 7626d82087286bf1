"""``flowstream schema``: the JSON Schema of graph files that may use every installed node type."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import nodes_option


@click.command("schema", short_help=COMMANDS["schema"])
@nodes_option
def command(folders: tuple[Path, ...]) -> int:
    """Print the JSON Schema of graph files, with the node types of every installed pack.

    Write it to a file and name that in a graph's first line, for completion and checks while you type:

    \b
      flowstream schema > graph.schema.json
      # yaml-language-server: $schema=graph.schema.json
    """
    from flowstream.errors import PackError
    from flowstream.graph.schema import graph_schema
    from flowstream.node.registry import Registry

    types = []
    for name, found in Registry.installed(folders).types():
        if isinstance(found, PackError):
            click.echo(f"left out: {name}: {found.message}", err=True)
        else:
            types.append(found)
    click.echo(json.dumps(graph_schema(types), indent=2, ensure_ascii=False))
    return 0
