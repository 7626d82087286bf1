#!/usr/bin/env python3
"""Run flowstream from this checkout, with nothing installed but Python 3.11 and pip.

    python3 tools/start.py               the built-in graph "hello": no camera, no screen, no root needed
    python3 tools/start.py desk          share this desk
    python3 tools/start.py my.yaml       a graph of your own; every argument goes to `flowstream run`

The first start makes ``.venv`` and installs the packages of ``requirements.lock``; later ones start at once. The other
commands are in ``.venv/bin/flowstream --help``.
"""

from __future__ import annotations

import sys

import environment


def main() -> None:
    """Set up and become ``flowstream run``."""
    environment.require_python()
    with environment.plain_ending():
        environment.ready(environment.RUN)
        environment.become("flowstream", ["run", *sys.argv[1:]])


if __name__ == "__main__":
    main()
