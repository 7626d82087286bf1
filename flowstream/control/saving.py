"""Writing a value that was given while the graph runs into the file where it belongs."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from flowstream.control.files import GraphFile, Snapshot
from flowstream.errors import FlowstreamError, GraphError
from flowstream.graph.diagnostics import Findings, Span, listed
from flowstream.graph.edit import EditError, Written, put
from flowstream.graph.load import List, Map, Scalar, Value, load
from flowstream.graph.overrides import SET, setting
from flowstream.graph.plan import Override
from flowstream.graph.spec import GraphSpec
from flowstream.graph.variables import escaped
from flowstream.graph.write import scalar


class SaveError(FlowstreamError):
    """Raised when a value cannot be written into a file; the files are as they were."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A file with one value changed: ``before`` is what it held when that was made, ``after`` what it is to hold."""

    file: str
    before: bytes
    after: bytes

    def carry_out(self) -> None:
        """Writes the file, all or nothing where the folder can be written to. Raises SaveError."""
        path = Path(os.path.realpath(self.file))
        try:
            if path.read_bytes() != self.before:
                raise SaveError(f"{self.file} was saved meanwhile", hint="try again")
            _replace(path, self.after)
        except OSError as error:
            raise SaveError(f"{self.file} cannot be written: {error.strerror or error}") from error


def edit_for(file: GraphFile, override: Override) -> Edit:
    """What writing a value to the files, as they are on disk now, comes to. Blocking. Raises SaveError with the reason.

    The result is held against the value itself: the graph that comes of it is the same, or there is no edit.
    """
    bare = replace(file, overrides=(), texts=None, snapshot=None)
    try:
        plain = bare.compile()
        wanted = replace(bare, overrides=(replace(override, beneath=""),)).compile()
        made = bare.compilation()
    except GraphError as error:
        count = len(error.diagnostics)
        raise SaveError(
            f"there {'are' if count > 1 else 'is'} {count} finding{'s' if count > 1 else ''} in the file as it is now",
            hint="mend it first, or leave out --save",
        ) from error
    assert made.spec is not None
    assert bare.snapshot is not None
    if wanted == plain:
        raise SaveError(f"the file has {override.target} as {override.text} already")
    where, path = _place(made.spec, override)
    if where not in bare.snapshot.files:
        raise SaveError(f"{override.target} stands in no file: a program made the graph", hint="leave out --save")
    before = bare.snapshot.files[where]
    try:
        text = before.decode("utf-8-sig")
        head = before[: len(before) - len(text.encode())]
        for write in _ways(override):
            after = head + put(text, path, write).encode()
            if _comes_to(replace(bare, texts=_with(bare.snapshot, where, after)), wanted):
                return Edit(where, before, after)
    except EditError as error:
        raise SaveError(f"{override.target} cannot be changed in {where}: {error}", hint="edit it by hand") from error
    raise SaveError(
        f"{override.target} cannot be changed in {where} without changing something else", hint="edit it by hand"
    )


def _place(spec: GraphSpec, override: Override) -> tuple[str, list[str]]:
    """The file where a value is to be written, and the keys that lead to it there. Raises SaveError."""
    node = spec.nodes[override.node]
    there = setting(node, override.path)
    if override.text == "null":
        raise SaveError(f"{override.target} is to be as if it was not set", hint="take it out of the file by hand")
    for each in _scalars(there):
        if each.secret or each.origin is not None or each.template is not None:
            origin = each.origin or each.span
            raise SaveError(
                f"{override.target} comes from {_name(each)}, {origin.file}:{origin.line}",
                hint="change it there: other values may hang on it",
            )
    span: Span = node.span if there is None else there.span
    group = max((id_ for id_ in spec.groups if override.node.startswith(f"{id_}/")), key=len, default="")
    if group:
        file = spec.groups[group].file
        users = [id_ for id_, each in spec.groups.items() if each.file == file]
        if len(users) > 1:
            raise SaveError(
                f"{override.target} stands in {file}, which {listed(users)} use",
                hint="edit it by hand, for all of them",
            )
    return span.file, ["nodes", override.node.removeprefix(f"{group}/" if group else ""), *override.path]


def _name(value: Scalar) -> str:
    if value.secret:
        return value.text
    return value.template or "a variable"


def _scalars(value: Value | None) -> Iterator[Scalar]:
    match value:
        case Scalar():
            yield value
        case List():
            for item in value.items:
                yield from _scalars(item)
        case Map():
            for entry in value.entries.values():
                yield from _scalars(entry.value)


def _ways(override: Override) -> Iterator[Written]:
    """The ways to write a value, the plainest first: a number may be meant as text."""
    tree = load(SET, f"value: {override.text}".encode(), Findings())
    value = tree.get("value") if isinstance(tree, Map) else None
    if not isinstance(value, Scalar):
        yield Written(override.text, override.text)
        return
    if not isinstance(value.value, str):
        yield Written(value.text, value.text)
    text = escaped(value.value if isinstance(value.value, str) else value.text)
    yield Written(scalar(text, is_flow=False), scalar(text, is_flow=True))


def _with(snapshot: Snapshot, file: str, content: bytes) -> Snapshot:
    return replace(snapshot, files={**snapshot.files, file: content})


def _comes_to(file: GraphFile, wanted: object) -> bool:
    try:
        return file.compile() == wanted
    except FlowstreamError:
        return False


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            with open(temporary, "xb") as file:
                os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
    except OSError as error:  # the folder is not ours to write in, or the file is mounted by itself
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS):
            raise
        with open(path, "r+b") as file:
            file.write(content)
            file.truncate()
