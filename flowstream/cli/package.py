"""The files of a distribution of node types, as ``flowstream new node --package`` writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

LICENSES = ("Apache-2.0", "MIT", "BSD-3-Clause", "MPL-2.0", "LGPL-3.0-or-later", "GPL-3.0-or-later")
"""SPDX identifiers that a new distribution may begin with."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PREFIX = "flowstream-"


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a distribution is called: on the index, as a module, and before the ids of its node types."""

    name: str

    @classmethod
    def named(cls, name: str) -> Distribution:
        """Raises ValueError, with a better name where there is one."""
        if not _NAME.fullmatch(name) or len(name) > 60:
            better = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            hint = f"; write {better!r}" if _NAME.fullmatch(better) and len(better) <= 60 else ""
            raise ValueError(f"{name!r} is no name for a package: lower case words joined by hyphens{hint}")
        if name in ("flowstream", "flowstream-nodes"):
            raise ValueError(f"{name!r} is flowstream's own; write for example 'flowstream-acme'")
        return cls(name)

    @property
    def module(self) -> str:
        """``flowstream_acme``."""
        return self.name.replace("-", "_")

    @property
    def namespace(self) -> str:
        """``acme``: the name without the prefix that says whose packs these are."""
        return self.name.removeprefix(_PREFIX)


def files_of(distribution: Distribution, module: str, node: str, graph: str, test: str, spdx: str) -> dict[str, str]:
    """Path in the folder, and text, of every file; ``node``, ``graph`` and ``test`` are those of the node type.

    ``module`` is the node type's, ``spdx`` the licence's identifier.
    """
    words = {
        "dist": distribution.name,
        "package": distribution.module,
        "namespace": distribution.namespace,
        "module": module,
        "type": f"{distribution.namespace}/{module.replace('_', '-')}",
        "spdx": spdx,
    }
    package = f"src/{distribution.module}"
    texts = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        "LICENSE": LICENSE,
        ".github/workflows/check.yaml": CI,
        f"{package}/__init__.py": INIT,
    }
    files = {path: _filled(text, words) for path, text in texts.items()}
    return {
        **files,
        f"{package}/py.typed": "",
        f"{package}/{module}.py": node,
        f"tests/test_{module}.py": test.replace(f"from {module} import", f"from {distribution.module}.{module} import"),
        f"{module}.yaml": graph,
    }


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(rf"@({'|'.join(words)})@", lambda match: words[match[1]], text)


PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "@dist@"
version = "0.1.0"
description = "Node types for flowstream."
readme = "README.md"
license = "@spdx@"
license-files = ["LICENSE"]
requires-python = ">=3.11"
dependencies = ["flowstream>=0.1", "numpy>=2.0"]

# The name is the namespace of the node types, the value the module that has them.
[project.entry-points."flowstream.nodes"]
@namespace@ = "@package@"

[dependency-groups]
test = ["pytest>=8.3"]

[tool.hatch.build.targets.wheel]
packages = ["src/@package@"]

[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = ["--strict-markers"]
filterwarnings = ["error"]
# A test that leaves a thread, a task, a socket or a file behind fails.
flowstream_leaks = true
"""

README = """\
# @dist@

Node types for [flowstream](https://pypi.org/project/flowstream/): `@type@`.

    pip install @dist@
    flowstream nodes @type@
    flowstream run @module@.yaml

To work on it:

    pip install --group test --editable .
    pytest

To publish it: write the text of the licence into `LICENSE`, choose a version in `pyproject.toml`, then

    python -m build
    python -m twine upload dist/*
"""

LICENSE = """\
SPDX-License-Identifier: @spdx@

This file is to hold the text of the licence, which is at https://spdx.org/licenses/@spdx@.html
"""

INIT = '''\
"""Node types under @namespace@/: an index, so that a module is imported when a graph names its type."""

# What these are written for; a flowstream with another version says so instead of failing in the middle.
NODE_API = 1

NODES = {"@type@": "@package@.@module@:@module@"}
'''

CI = """\
name: check
on: [push, pull_request]
jobs:
  check:
    runs-on: ubuntu-latest
    strategy:
      matrix:
        python: ["3.11", "3.12", "3.13"]
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: ${{ matrix.python }}
      - run: python -m pip install --upgrade pip
      - run: python -m pip install --group test --editable .
      - run: flowstream check @module@.yaml
      - run: python -m pytest
"""
