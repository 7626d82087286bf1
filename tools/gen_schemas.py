"""Writes the JSON Schemas of the graph language and of every built-in node type to schemas/.

python tools/gen_schemas.py          write them
python tools/gen_schemas.py --check  fail when they are not what the code says
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from flowstream.errors import PackError
from flowstream.graph.schema import graph_schema, layer_schema, node_schema
from flowstream.node.base import Node
from flowstream.node.registry import BUILT_IN, Pack, Registry
from flowstream.testing.graph_test import script_schema

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"


def built_in_types() -> list[type[Node[Any]]]:
    """The node types of this repository. Raises PackError when one of them does not load."""
    found = []
    for _, each in Registry([Pack(BUILT_IN, "flowstream", module="flowstream_nodes")]).types():
        if isinstance(each, PackError):
            raise each
        found.append(each)
    return found


def schemas() -> dict[Path, str]:
    """Every schema file with its text."""
    types = built_in_types()
    files = {
        SCHEMAS / "graph.schema.json": graph_schema(types),
        SCHEMAS / "layer.schema.json": layer_schema(types),
        SCHEMAS / "test.schema.json": script_schema(),
    }
    for node_type in types:
        files[SCHEMAS / "nodes" / f"{node_type.type_id.replace('/', '.')}.schema.json"] = node_schema(node_type)
    return {path: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for path, schema in files.items()}


def main(arguments: list[str]) -> int:
    wanted = schemas()
    stale = {path for path in SCHEMAS.rglob("*.json") if path not in wanted}
    drifted = {path for path, text in wanted.items() if not path.exists() or path.read_text() != text}
    if arguments == ["--check"]:
        for path in sorted(stale | drifted):
            print(f"{path.relative_to(SCHEMAS.parent)} is not what the node types say: run tools/gen_schemas.py")
        return 1 if stale or drifted else 0
    if arguments:
        print(__doc__)
        return 2
    for path in stale:
        path.unlink()
    for path in drifted:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
