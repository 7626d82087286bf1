"""The control socket of a run: a unix socket that only its owner can open, found by the name of the graph."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from flowstream.errors import FlowstreamError

BACKLOG = 16
_MAX_PATH_BYTES = 107  # sun_path holds 108 with the zero at its end (unix(7))


class ControlError(FlowstreamError):
    """Raised when a control socket cannot be opened or reached."""


def folders(environ: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Where runs of this user put their sockets, the preferred folder first."""
    environ = os.environ if environ is None else environ
    private = Path(tempfile.gettempdir()) / f"flowstream-{os.getuid()}"
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    return (Path(runtime) / "flowstream", private) if runtime.startswith("/") else (private,)


@contextlib.contextmanager
def listening(name: str, path: Path | None = None) -> Iterator[tuple[socket.socket, Path]]:
    """A listening socket for the run of the graph ``name``, and its path; removed when the block ends.

    At ``path``, or in the first of ``folders()`` that can be used: as ``NAME.sock``, or ``NAME-PID.sock`` beside
    another run of that name. Nobody but the owner can open it, from the moment it exists. Raises ControlError.
    """
    if path is not None:
        listener = _bind(path)
        if listener is None:
            raise ControlError(
                f"--control {path}: another run listens there", hint="choose another path, or stop that run"
            )
    else:
        folder = _private_folder()
        room = _MAX_PATH_BYTES - len(os.fsencode(folder / f"-{os.getpid()}.sock"))
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[: max(1, room)].strip(".-") or "graph"
        with _locked(folder):  # or two runs would each take the other's socket for a left-over
            path = folder / f"{stem}.sock"
            listener = _bind(path)
            if listener is None:
                path = folder / f"{stem}-{os.getpid()}.sock"
                listener = _bind(path)
        if listener is None:
            raise ControlError(f"{path} is in use")
    inode = path.stat().st_ino
    try:
        with listener:
            yield listener, path
    finally:
        with contextlib.suppress(OSError):  # gone already, or the folder is
            if path.stat().st_ino == inode:
                path.unlink()


def is_answered(path: Path) -> bool:
    """Whether somebody listens on the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # busy, or not ours: there is somebody
            return True
    return True


def _bind(path: Path) -> socket.socket | None:
    """Listens at a path; None when somebody else does. A socket that nobody answers is replaced."""
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise ControlError(f"the path of the control socket is too long: {path}", hint="choose one by --control PATH")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() or path.is_symlink():
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise ControlError(f"{path} is there already and is no socket", hint="choose another path")
            if is_answered(path):
                listener.close()
                return None
            path.unlink()
        old = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(old)
        listener.listen(BACKLOG)
    except BaseException as error:
        listener.close()
        if isinstance(error, OSError):
            raise ControlError(f"cannot open the control socket {path}: {error.strerror or error}") from error
        raise
    return listener


def _private_folder() -> Path:
    """The first of ``folders()`` that is ours alone, made if need be."""
    problem: ControlError | None = None
    for folder in folders():
        try:
            return _made_private(folder)
        except ControlError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _made_private(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise ControlError(f"cannot make the folder {folder}: {error.strerror}") from error
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ControlError(f"{folder} belongs to somebody else", hint="choose a path by --control PATH")
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ControlError(f"{folder} cannot be written to", hint="choose a path by --control PATH")
    return folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def found_sockets() -> list[Path]:
    """The sockets in our folders, by name; some may be left-overs. Folders of somebody else are not looked at."""
    found: dict[str, Path] = {}
    for folder in folders():
        try:
            if folder.lstat().st_uid == os.getuid():
                for path in folder.glob("*.sock"):
                    found.setdefault(path.stem, path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
                raise
    return [found[stem] for stem in sorted(found)]
