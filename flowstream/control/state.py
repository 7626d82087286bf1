"""What outlives a run: its revisions, each with all its files, in the graph's own folder; and the owner's token."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowstream.control.files import Snapshot
from flowstream.errors import FlowstreamError

if TYPE_CHECKING:
    from flowstream.graph.plan import Plan

FORMAT = 1
MAX_REVISIONS = 50
MAX_BYTES = 64 * 1024 * 1024
"""How much all revisions of a graph may take on disk; the newest is kept whatever it takes."""

TOKEN_BYTES = 32


class StateError(FlowstreamError):
    """Raised when the state folder cannot be used, or does not hold what is asked for."""


def state_folder(paths: Sequence[str], environ: Mapping[str, str] | None = None) -> Path:
    """Where the state of a graph is: its file and the layers over it tell it from other graphs.

    Beneath ``$XDG_STATE_HOME`` (``~/.local/state``), or where systemd says (``StateDirectory=``).
    """
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):
        base = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if not base.startswith("/"):
        base = str(Path(environ.get("HOME") or Path.home()) / ".local" / "state")
    absolute = "\n".join(os.path.abspath(path) for path in paths)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(paths[0]).stem).strip(".-")[:64] or "graph"
    return Path(base) / "flowstream" / f"{stem}-{hashlib.sha256(absolute.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision that ran. ``number`` counts up; ``of`` is the number of the one that was rolled back to, or 0.

    ``revision`` is its digest, ``content`` that of its files alone; ``time`` is UTC; ``cause`` says what made it come,
    ``lines`` what it changed.
    """

    number: int
    revision: str
    content: str
    time: str
    cause: str
    lines: tuple[str, ...]
    of: int
    snapshot: Snapshot


class History:
    """The revisions of a graph, bounded in number and size. Blocking; for worker threads.

    Several runs of a graph may share it. What another run, or an older version, left damaged is passed over.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._revisions = folder / "revisions"

    def add(self, revision: Revision) -> Revision:
        """Keeps a revision under the next number, and forgets the oldest ones. Raises StateError."""
        try:
            private_folder(self._revisions)
            number = max(self._numbers(), default=0)
            while True:
                number += 1
                numbered = replace(revision, number=number)
                if self._write(numbered):
                    break
            self._prune(number)
        except OSError as error:
            raise StateError(f"cannot keep the revision in {self._revisions}: {error.strerror or error}") from error
        return numbered

    def all(self) -> list[Revision]:
        """Those that are kept, the oldest first."""
        found = (self._read(number) for number in sorted(self._numbers()))
        return [each for each in found if each is not None]

    def newest(self) -> Revision | None:
        """The one that ran last."""
        return next((found for number in sorted(self._numbers(), reverse=True) if (found := self._read(number))), None)

    def get(self, number: int) -> Revision:
        """A revision by its number. Raises StateError, which names those there are."""
        found = self._read(number)
        if found is None:
            there = sorted(self._numbers())
            said = f"there are {there[0]} to {there[-1]}" if len(there) > 1 else f"there is {there[0]}" if there else ""
            raise StateError(f"there is no revision {number}", hint=said or "none is kept")
        return found

    def unpacked(self, revision: Revision, folders: Sequence[Path]) -> tuple[Path, ...]:
        """Folders with the node types of a revision: those given where they still hold the same, else made."""
        result = []
        for folder in folders:
            name = folder.resolve().name
            old = {key.partition("/")[2]: text for key, text in revision.snapshot.sources.items()
                   if key.partition("/")[0] == name}  # fmt: skip
            now = {path.name: path.read_bytes() for path in folder.resolve().glob("*.py")}
            if old == now:
                result.append(folder)
                continue
            digest = hashlib.sha256(repr(sorted(old.items())).encode()).hexdigest()[:12]
            made = private_folder(private_folder(self.folder / "sources") / digest) / name
            private_folder(made)
            for file, text in old.items():
                (made / Path(file).name).write_bytes(text)
            result.append(made)
        return tuple(result)

    def _numbers(self) -> Iterator[int]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for path in self._revisions.iterdir():
                if (match := re.fullmatch(r"(\d{1,9})\.json", path.name, re.ASCII)) is not None:
                    yield int(match[1])

    def _path(self, number: int) -> Path:
        return self._revisions / f"{number:06}.json"

    def _write(self, revision: Revision) -> bool:
        """Whether the number was free. The file is whole or not there at all, also after a loss of power."""
        temporary = self._revisions / f".{os.getpid()}-{secrets.token_hex(4)}"
        try:
            with open(temporary, "x", opener=_privately) as file:
                json.dump(_to_json(revision), file)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, self._path(revision.number))
            except FileExistsError:
                return False
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(self._revisions)
        return True

    def _read(self, number: int) -> Revision | None:
        try:
            return _from_json(number, json.loads(self._path(number).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _prune(self, newest: int) -> None:
        room = MAX_BYTES
        for rank, number in enumerate(sorted(self._numbers(), reverse=True)):
            path = self._path(number)
            with contextlib.suppress(FileNotFoundError):
                room -= path.stat().st_size
                if rank >= MAX_REVISIONS or (room < 0 and number != newest):
                    path.unlink()
        for left in self._revisions.glob(".*-*"):  # of a run that was killed in the midst
            with contextlib.suppress(ValueError, OSError):
                pid = int(left.name[1:].partition("-")[0])
                if pid != os.getpid() and not Path(f"/proc/{pid}").exists():
                    left.unlink()


def _to_json(revision: Revision) -> dict[str, Any]:
    from flowstream.graph.overrides import to_json

    snapshot = revision.snapshot
    return {
        "format": FORMAT,
        "revision": revision.revision,
        "content": revision.content,
        "time": revision.time,
        "cause": revision.cause,
        "lines": list(revision.lines),
        "of": revision.of,
        "path": snapshot.path,
        "layers": list(snapshot.layers),
        "sets": dict(snapshot.sets),
        "overrides": [to_json(each) for each in snapshot.overrides],
        "files": {path: _text(content) for path, content in snapshot.files.items()},
        "sources": {path: _text(content) for path, content in snapshot.sources.items()},
    }


def _from_json(number: int, values: Any) -> Revision:
    from flowstream.graph.overrides import from_json

    if values["format"] != FORMAT:
        raise ValueError("another format")
    snapshot = Snapshot(
        path=str(values["path"]),
        layers=tuple(map(str, values["layers"])),
        sets={str(name): str(value) for name, value in values["sets"].items()},
        overrides=tuple(map(from_json, values["overrides"])),
        files={path: _bytes(text) for path, text in values["files"].items()},
        sources={path: _bytes(text) for path, text in values["sources"].items()},
    )
    return Revision(
        number, str(values["revision"]), str(values["content"]), str(values["time"]), str(values["cause"]),
        tuple(map(str, values["lines"])), int(values["of"]), snapshot,
    )  # fmt: skip


def _text(content: bytes) -> Any:
    """A file's content as a person reads it, where it is text."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode("ascii")}


def _bytes(text: Any) -> bytes:
    return text.encode("utf-8") if isinstance(text, str) else base64.b64decode(text["base64"])


def utc_text(wallclock_ns: int) -> str:
    """``2026-11-22T13:05:59Z``"""
    return datetime.fromtimestamp(wallclock_ns // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")


@contextlib.contextmanager
def own_token(folder: Path, name: str) -> Iterator[tuple[str, Path]]:
    """A token that nobody can guess, and the file where the owner finds it while the block lasts. Raises StateError."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        path = private_folder(folder) / f"{name}.token"
        path.unlink(missing_ok=True)
        with open(path, "x", opener=_privately) as file:
            file.write(f"{token}\n")
    except OSError as error:
        raise StateError(
            f"cannot keep the token of the API in {folder}: {error.strerror or error}",
            hint="give one: serve: {token: $(env:NAME)}, or set XDG_STATE_HOME to a folder that can be written",
        ) from error
    try:
        yield token, path
    finally:
        with contextlib.suppress(OSError):
            if path.read_text() == f"{token}\n":
                path.unlink()


class OwnerToken:
    """What opens the API beside the viewers: the token that the graph gives, or else one of the run's own.

    The run's own is made once a plan asks for it, and its ``file`` kept in ``folder`` until this is closed.
    """

    def __init__(self, folder: Path | None) -> None:
        self.file: Path | None = None
        self._folder = folder
        self._own: str | None = None
        self._keep = contextlib.ExitStack()

    def of(self, plan: Plan) -> str | None:
        """The token that counts with a plan; None while the API is not served beside the viewers."""
        if plan.serve is None or not plan.serve.api:
            return None
        return plan.serve.token or self._own

    def make(self, plan: Plan, name: str) -> None:
        """Makes the run's own, if the plan asks for it. Blocking. Raises StateError."""
        if plan.serve is None or not plan.serve.api or plan.serve.token is not None or self._own is not None:
            return
        if self._folder is None:
            raise StateError("the control API needs a token here", hint="write serve: {token: $(env:NAME)}")
        self._own, self.file = self._keep.enter_context(own_token(self._folder, name))

    def close(self) -> None:
        """Takes the file away."""
        self._keep.close()


def private_folder(folder: Path) -> Path:
    """Makes a folder that only its owner can enter. Raises StateError when it is somebody else's, OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise StateError(f"{folder} belongs to somebody else", hint="set XDG_STATE_HOME to a folder of your own")
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
