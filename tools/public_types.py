"""Check the types that node authors see, with pyright: free of errors, and every public name's type complete.

Programs and authors import from ``flowstream``, ``flowstream.proto`` and ``flowstream.testing``; what those re-export
is defined in the packages and modules named in `PUBLIC` and the classes in `CLASSES`. Complete means that a type
checker knows each parameter, result and attribute without inferring it, so that two checkers cannot disagree.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PUBLIC = (
    "flowstream.api.blocking", "flowstream.api.events", "flowstream.api.running", "flowstream.api.sharing",
    "flowstream.api.status", "flowstream.errors", "flowstream.graph.builder", "flowstream.graph.patch",
    "flowstream.media", "flowstream.node", "flowstream.proto", "flowstream.runtime.events",
    "flowstream.runtime.program", "flowstream.testing",
)  # fmt: skip
CLASSES = tuple(
    f"flowstream.runtime.{name}"
    for name in ("stats.EdgeStats", "stats.Fill", "stats.Latency", "stats.NodeStats", "stats.RunStats", "why.Cause")
)
"""Public classes of modules that are otherwise the runtime's own."""


def main() -> None:
    """Run both checks; exit 1 when one finds something."""
    paths = [Path(name.replace(".", "/")) for name in PUBLIC]
    paths = [path if path.is_dir() else path.with_suffix(".py") for path in paths]
    failed = subprocess.run(["pyright", "flowstream/__init__.py", *paths], check=False).returncode != 0
    told = subprocess.run(
        ["pyright", "--verifytypes", "flowstream", "--ignoreexternal", "--outputjson"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        report = json.loads(told.stdout)["typeCompleteness"]
    except (ValueError, KeyError):
        sys.exit(f"pyright --verifytypes gave no report:\n{told.stdout}{told.stderr}")
    public = [symbol for symbol in report["symbols"] if symbol["isExported"] and is_public(symbol["name"])]
    incomplete = [symbol for symbol in public if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]]
    for symbol in incomplete:
        print(f"{symbol['name']}: type not complete")
        for diagnostic in symbol["diagnostics"]:
            start = diagnostic.get("range", {}).get("start", {})
            place = f"{diagnostic.get('file', '')}:{start.get('line', -1) + 1}"
            print(f"  {place}: {diagnostic['message']}")
    if not public:
        sys.exit("pyright --verifytypes names no public symbol: is flowstream/py.typed there?")
    print(f"{len(public) - len(incomplete)} of {len(public)} public names have complete types")
    sys.exit(1 if failed or incomplete else 0)


def is_public(name: str) -> bool:
    """Tell whether a full name belongs to what node authors import."""
    return name.count(".") == 1 or name.startswith(tuple(f"{each}." for each in (*PUBLIC, *CLASSES)))


if __name__ == "__main__":
    main()
