"""Loading large libraries beside a graph that runs."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

RTLD_NOW: Final = 2
"""Finds every symbol at once, as Python itself loads extension modules; the same number on Linux and macOS."""


def load_ahead(module: str) -> None:
    """Has the system load a package's own extension module while all other threads go on; does not import it.

    An import loads it under Python's lock: 70 MB of OpenCV take 40 ms, and a multiple of that where the thread that
    imports has to wait for a processor. Whatever cannot be loaded like this is left for the import to load, or to say
    what is wrong with it. For packages that have a module of their own name inside, and where the system has
    ``dlopen``.
    """
    if module in sys.modules or sys.platform == "win32":
        return
    try:
        spec = importlib.util.find_spec(module)
        folders = spec.submodule_search_locations if spec is not None else None
        system = ctypes.CDLL(None)
        load = system.dlopen
    except (ImportError, ValueError, OSError, AttributeError):
        return
    load.restype, load.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
    for folder in folders or ():
        for suffix in EXTENSION_SUFFIXES:
            library = Path(folder) / f"{module}{suffix}"
            if library.is_file():
                load(str(library).encode(), RTLD_NOW)
