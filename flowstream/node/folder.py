"""A folder of node types under development: each file a module, which is new when it is edited.

The files may import one another by ``from .shapes import Box``. A module's name is made of its content and of that of
the files it imports, so that an edit makes new modules of just those that it concerns, and the others share their
classes with what runs.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.abc
import importlib.util
import re
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType

from flowstream.errors import PackError

PREFIX = "flowstream_folder_"

_PACKAGE = re.compile(PREFIX + r"\w*?_[0-9a-f]{12}")

_ordinary: dict[str, tuple[str, bytes]] = {}  # files that Python has imported in its own way: file and digest, by name


class SiblingError(ImportError):
    """Raised when a file cannot be imported because one that it imports cannot."""


class Folder:
    """The Python files of a folder, read once."""

    def __init__(self, namespace: str, folder: Path) -> None:
        self.folder = folder
        self.files: Mapping[str, bytes] = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.py"))}
        self._namespace = namespace.replace("-", "_")

    @cached_property
    def _imports(self) -> Mapping[str, tuple[str, ...]]:
        return {stem: _siblings(source, self.files) for stem, source in self.files.items()}

    def _concerned(self, stem: str) -> list[str]:
        """The file and all that it imports, directly or not."""
        found = [stem]
        for each in found:
            found += [other for other in self._imports[each] if other not in found]
        return sorted(found)

    def _package(self, stem: str) -> str:
        digest = hashlib.sha256(stem.encode())
        for each in self._concerned(stem):
            digest.update(f"\0{each}\0{len(self.files[each])}\0".encode())
            digest.update(self.files[each])
        return f"{PREFIX}{self._namespace}_{digest.hexdigest()[:12]}"

    def load(self, stem: str) -> ModuleType:
        """The module of a file, imported if it is not there already. Raises what importing it raises."""
        package = self._package(stem)
        name = f"{package}.{stem}"
        if name in sys.modules:
            return sys.modules[name]
        file = self.folder / f"{stem}.py"
        spec = importlib.util.spec_from_file_location(name, file, loader=_Source(file, self.files[stem]))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        made = {package: ModuleType(package), name: module}
        made[package].__path__ = []  # a package, in which nothing is found but what is put there
        sys.modules.update(made)
        try:
            for other in self._imports[stem]:
                try:
                    sibling = self.load(other)  # in a circle one that is still being imported, as everywhere in Python
                except SiblingError:
                    raise
                except Exception as error:
                    raise SiblingError(f"{other}.py: {without_digest(str(error) or type(error).__name__)}") from error
                setattr(made[package], other, sibling)
                sys.modules[f"{package}.{other}"] = made[f"{package}.{other}"] = sibling
            spec.loader.exec_module(module)
        except BaseException:
            for each in made:
                sys.modules.pop(each, None)
            raise
        return module

    def require_fresh(self) -> None:
        """Raises PackError when a file was edited that Python has imported as an ordinary module, and so once for all.

        It is what ``import`` without a dot does, where the folder, or the one that it is in, is on Python's path.
        """
        for name, module in list(sys.modules.items()):
            path = getattr(module, "__file__", None)
            if not isinstance(path, str) or name.startswith(PREFIX) or Path(path).parent != self.folder:
                continue
            source = self.files.get(Path(path).stem)
            if source is None:
                continue
            digest = hashlib.sha256(source).digest()
            known = _ordinary.setdefault(name, (path, digest))
            if known[0] != path:
                known = _ordinary[name] = (path, digest)
            if known[1] != digest:
                raise _not_fresh(self.folder, name, module)


def _not_fresh(folder: Path, name: str, module: ModuleType) -> PackError:
    stem = Path(str(module.__file__)).stem
    own = [each for each, value in vars(module).items() if isinstance(value, type) and value.__module__ == name]
    stays = f"{', '.join(own[:3])}{' ...' if len(own) > 3 else ''} would stay as before" if own else "it would stay so"
    return PackError(
        f"{folder.name}/{stem}.py was changed, but it was imported as {name}, which Python does once: {stays}, in the "
        "nodes that run and in those that come",
        hint=f"import it with a dot (from .{stem} import {own[0] if own else '...'}), or restart flowstream",
    )


def without_digest(text: str) -> str:
    """A text in which modules of folders are called as their files call them: ``.shapes``."""
    return _PACKAGE.sub("", text)


def file_of(module: str) -> str:
    """The file of a folder that a module is, by the module's name: ``shapes.py``; empty for any other module."""
    return f"{module.rpartition('.')[2]}.py" if module.startswith(PREFIX) else ""


class _Source(importlib.abc.SourceLoader):
    """Imports a text that was read before, so that the module is what its name says; keeps no bytecode beside it."""

    def __init__(self, file: Path, source: bytes) -> None:
        self._file = file
        self._source = source

    def get_filename(self, fullname: str) -> str:
        return str(self._file)

    def get_data(self, path: str) -> bytes:
        return self._source


def _siblings(source: bytes, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Which of the files a text imports by ``from .name import ...`` or ``from . import name``, wherever in it."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):  # told when it is imported
        return ()
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module.partition(".")[0]] if node.module else [alias.name for alias in node.names]
            found.update(dict.fromkeys(name for name in names if name in files))
    return tuple(found)
