"""The files of a graph: reads each once, and makes one tree of a file, what it includes and what lies over it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import PurePath

from flowstream.graph.diagnostics import Findings, Span
from flowstream.graph.layers import merge
from flowstream.graph.load import MAX_VALUES, Entry, List, Map, Scalar, Value, load, spoken, weight_of

Read = Callable[[str], bytes]

MAX_FILES = 200
MAX_BYTES = 2 << 20  # of all files together


class Sources:
    """Reads files on demand. ``files`` are those that were asked for, in that order, also what could not be read."""

    def __init__(self, read: Read, findings: Findings) -> None:
        self.files: list[str] = []
        self.contents: list[bytes] = []
        self._read = read
        self._findings = findings
        self._trees: dict[str, Map | None] = {}
        self._unread: dict[str, str] = {}
        self._subgraphs: dict[str, Map | None] = {}
        self._values_left = MAX_VALUES
        self._bytes_left = MAX_BYTES

    @property
    def revision(self) -> str:
        """A digest of the content of all files."""
        if len(self.contents) == 1:
            return hashlib.sha256(self.contents[0]).hexdigest()[:12]
        digests = b"".join(hashlib.sha256(content).digest() for content in self.contents)
        return hashlib.sha256(digests).hexdigest()[:12]

    def layered(self, paths: Sequence[str]) -> Map | None:
        """The files as layers, the first one lowest, each over what it includes; None when one cannot be had."""
        merged: Map | None = None
        included: set[str] = set()
        has_failed = False
        for path in paths:
            included.add(normal(path))
            tree = self._with_includes(path, None, (), included)
            has_failed |= tree is None
            if tree is not None:
                merged = tree if merged is None else merge(merged, tree, self._findings)
        return None if has_failed else merged

    def subgraph(self, path: str, span: Span) -> Map | None:
        """The tree of a file that a node uses, over what it includes. ``span`` is where it is named."""
        if path not in self._subgraphs or path in self._unread:
            self._subgraphs[path] = self._with_includes(path, span, (), set())
        return self._subgraphs[path]

    def _with_includes(
        self, path: str, named_at: Span | None, chain: tuple[str, ...], included: set[str]
    ) -> Map | None:
        tree = self._tree(path, named_at)
        if tree is None or "include" not in tree.entries:
            return tree
        merged: Map | None = None
        is_whole = True
        for value in self._included(tree.entries["include"]):
            target = beside(path, str(value.value))
            if (loop := loop_to(target, (*chain, path))) is not None:
                self._findings.add(
                    "FS131", value.span, f"files include one another: {' -> '.join((*loop, target))}"
                    if len(loop) > 1 else f"{path} includes itself", "take one of these includes out",
                )  # fmt: skip
                is_whole = False
            elif target not in included:  # a file that is reached twice is the same layer both times
                included.add(target)
                lower = self._with_includes(target, value.span, (*chain, path), included)
                is_whole &= lower is not None
                if lower is not None:
                    merged = lower if merged is None else merge(merged, lower, self._findings)
        rest = Map(
            tree.span, {k: e for k, e in tree.entries.items() if k != "include"},
            is_damaged=tree.is_damaged,
        )  # fmt: skip
        if not is_whole:
            return None
        return rest if merged is None else merge(merged, rest, self._findings)

    def _included(self, entry: Entry) -> list[Scalar]:
        values = entry.value.items if isinstance(entry.value, List) else [entry.value]
        found = []
        for value in values:
            if isinstance(value, Scalar) and isinstance(value.value, str):
                if "$(" in value.value:
                    self._findings.add("FS123", value.span, "files to include are read before values are put in",
                                       "write the path itself")  # fmt: skip
                else:
                    found.append(value)
            elif isinstance(value, Scalar) and value.value is None:
                self._findings.add("FS115", entry.key.span, "include has no value", "write include: FILE.yaml")
            else:
                said = f"include takes a path, or a list of paths, not {spoken(value)}"
                self._findings.add("FS111", value.span, said, "write include: FILE.yaml")
        return found

    def _tree(self, path: str, named_at: Span | None) -> Map | None:
        if path not in self._trees:
            self._trees[path] = self._loaded(path, named_at)
        elif path in self._unread:
            self._not_read(path, self._unread[path], named_at)
        return self._trees[path]

    def _loaded(self, path: str, named_at: Span | None) -> Map | None:
        if len(self.files) >= MAX_FILES:
            self._findings.add("FS109", named_at, f"a graph is made of at most {MAX_FILES} files")
            return None
        self.files.append(path)
        content = self._content(path, named_at)
        self.contents.append(content or b"")
        if content is None:
            return None
        self._bytes_left -= len(content)
        if self._bytes_left < 0:
            self._findings.add("FS109", named_at, f"the files of a graph have at most {MAX_BYTES:,} bytes together")
            return None
        root: Value | None = load(path, content, self._findings, self._values_left)
        if isinstance(root, Map):
            self._values_left -= weight_of(root)
            return root
        if root is None or (isinstance(root, Scalar) and root.value is None):
            if not self._findings.has_errors_in(path):
                self._findings.add(
                    "FS111", Span(path, 1, 1), "the file is empty", "nodes: {ID: {type: TYPE}} is the least there is"
                )
        else:
            self._findings.add("FS111", root.span, f"a graph is a map with nodes:, not {spoken(root)}")
        return None

    def _content(self, path: str, named_at: Span | None) -> bytes | None:
        try:
            return self._read(path)
        except (FileNotFoundError, ValueError):  # ValueError: what can be no path, such as text with a zero byte
            reason = "there is no such file"
        except OSError as error:
            reason = error.strerror or str(error)
        self._unread[path] = f"{path}: {reason[:1].lower()}{reason[1:]}"
        self._not_read(path, self._unread[path], named_at)
        return None

    def _not_read(self, path: str, said: str, named_at: Span | None) -> None:
        if named_at is None:
            self._findings.add("FS101", None, said)
            return
        slashed = path.replace("\\", "/")
        hint = "paths count from the file that names them" if slashed == path else "write / between folders"
        self._findings.add("FS130", named_at, said, hint)


def beside(file: str, path: str) -> str:
    """A path as it is named in a file: it counts from that file's folder."""
    return normal(str(PurePath(file).parent / path))


def normal(path: str) -> str:
    """A path in its shortest spelling: ``./a.yaml`` and ``lib/../a.yaml`` are ``a.yaml``."""
    parts: list[str] = []
    whole = PurePath(path)
    for part in whole.parts:
        if part != ".." or not parts or parts[-1] == "..":
            parts.append(part)
        elif parts[-1] != whole.anchor:
            parts.pop()
    return str(PurePath(*parts))


def loop_to(path: str, chain: Sequence[str]) -> tuple[str, ...] | None:
    """The part of a chain of files that naming ``path`` at its end closes to a loop, however each is spelled."""
    for index, each in enumerate(chain):
        if normal(each) == path:
            return tuple(chain[index:])
    return None
