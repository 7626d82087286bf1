"""Folders of the user, as the system has them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path


def cache_folder(environ: Mapping[str, str]) -> Path:
    """The user's folder for what can be found out again: ``flowstream`` beneath the cache folder of the system.

    ``$XDG_CACHE_HOME`` counts everywhere; else it is ``~/.cache``, on macOS ``~/Library/Caches``, on Windows
    ``%LOCALAPPDATA%``. It need not be there.
    """
    if base := environ.get("XDG_CACHE_HOME"):
        folder = Path(base)
    elif sys.platform == "win32":
        folder = Path(environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches"
    else:
        folder = Path.home() / ".cache"
    return folder / "flowstream"
