"""A virtual environment in ``.venv``, filled from a lock file and ready to run this checkout.

Standard library only, and nothing here is newer than Python 3.8, so that an older Python is told what it lacks in a
sentence instead of a syntax error.

`ready` is the door: it returns at once when ``.venv`` already is what the lock file, ``pyproject.toml`` and the Python
that runs it ask for, and makes it so otherwise. A stamp in the folder says what it holds. The stamp is removed before
anything is changed and written when everything is in place, so an environment that was interrupted half way is never
used: without a stamp it is made anew.

The environment is made without pip and filled by the pip of the Python that runs this (``pip --python``): on Debian and
Ubuntu ``venv`` with pip needs the package python3-venv, without it does not. Installing into it is not what PEP 668
forbids, and nothing outside the checkout is touched, but for system packages when root.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

OLDEST_PYTHON = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
STAMP = VENV / "flowstream-setup.json"
STATE = ROOT / ".flowstream"

RUN = "requirements.lock"
DEV = "requirements-dev.lock"
"""Everything of `RUN` in the same versions, and what the tests and checks need."""
HEADLESS = "requirements-headless.lock"
"""opencv-python-headless in the version that `RUN` has of opencv-python."""

SOURCE_ONLY = ("forbiddenfruit",)
"""Packages without a wheel. They are built with the setuptools of the lock file, after everything else."""

WINDOW_LIBRARIES = ("libGL.so.1", "libgthread-2.0.so.0", "libxcb.so.1")
"""System libraries that opencv-python, which can open windows, needs to be imported at all."""
WINDOW_PACKAGES = ("libgl1", "libglib2.0-0t64|libglib2.0-0", "libsm6")
"""Debian's and Ubuntu's packages of them, and of what the window itself needs."""

NETWORK_TROUBLE = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|Read timed out|Connection refused|"
    r"Network is unreachable|Temporary failure in name resolution|Failed to establish a new connection|"
    r"ProxyError|RemoteDisconnected|Connection reset by peer|Connection aborted"
)


class SetupError(Exception):
    """Set-up cannot go on. The text is one sentence for the person at the terminal: what is wrong and what helps."""


def say(text: str) -> None:
    """Print one line for the person at the terminal; standard output belongs to the program that is started."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def require_python() -> None:
    """End the process with a sentence when this Python is older than flowstream needs."""
    if sys.version_info[:2] < OLDEST_PYTHON:
        needed = ".".join(str(number) for number in OLDEST_PYTHON)
        say(
            f"error: flowstream needs Python {needed} or newer, and {sys.executable} is {platform.python_version()}: "
            f"start it with a newer one, for example python{needed} {sys.argv[0]}"
        )
        sys.exit(1)


@contextlib.contextmanager
def plain_ending() -> Iterator[None]:
    """Turn what may end a set-up into one sentence and an exit status: 1 for an error, 130 for Ctrl-C and SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except SetupError as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("\nInterrupted. Nothing half-made is kept in use: the same command starts again.")
        sys.exit(130)


def ready(lock: str = RUN) -> None:
    """Make ``.venv`` hold exactly what ``lock`` names and this checkout, editable. Does nothing when it already does.

    Raises:
        SetupError: what is wrong, in a sentence.
    """
    if _current(lock):
        return
    _leave_own_environment()
    try:
        with _alone():
            if not _current(lock):  # another process may have done it while this one waited
                _make(lock)
    except OSError as error:
        raise SetupError(_os_sentence(error)) from error


def variables() -> dict[str, str]:
    """Return the environment variables for a program that is to run inside ``.venv``."""
    inside = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    inside["VIRTUAL_ENV"] = str(VENV)
    inside["PATH"] = os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath)])
    return inside


def become(program: str, arguments: Sequence[str]) -> NoReturn:
    """Turn this process into ``.venv/bin/program``: it keeps the terminal, the process id and the signals."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(BIN / program, [str(BIN / program), *arguments], variables())


# ---------------------------------------------------------------------------------------------- what .venv holds now


def _current(lock: str) -> bool:
    """Tell whether ``.venv`` is finished and holds ``lock``, at the price of reading a few small files."""
    stamp = _stamp()
    return (
        stamp.get("base") == _base()
        and stamp.get("project") == _digest("pyproject.toml")
        and stamp.get("locks", {}).get(lock) == _digest(lock, HEADLESS)
        and not (stamp["opencv"] == "opencv-python-headless" and not missing_libraries())
        and (BIN / "python").exists()
    )


def _stamp() -> dict[str, Any]:
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _base() -> str:
    """Name what an environment is bound to: the Python it was made with and the folder it lies in."""
    return f"{sys.implementation.name} {sys.version} {sys.base_prefix} {ROOT}"


def _digest(*names: str) -> str:
    """Return the digest of files of the checkout; naming a lock file that is missing is an error of the checkout."""
    digest = hashlib.sha256()
    for name in names:
        try:
            digest.update((ROOT / name).read_bytes())
        except FileNotFoundError:
            raise SetupError(f"{ROOT / name} is missing: this checkout is incomplete") from None
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------------ making


def _make(lock: str) -> None:
    _require_tools()
    stamp = _stamp()
    opencv = _opencv(stamp)
    kept = (
        stamp.get("base") == _base()
        and stamp["opencv"] == opencv
        and all(digest == _digest(name, HEADLESS) for name, digest in stamp["locks"].items())
    )
    STAMP.unlink(missing_ok=True)
    if not kept:
        again = " again, for it was made for something else" if stamp else ""
        price = "a minute and a gigabyte" if lock == DEV else "half a minute and half a gigabyte"
        say(f"Setting up flowstream in {_short(VENV)}{again}: {price}, once.")
        _remove()
        _create()
        stamp = {"base": _base(), "opencv": opencv, "locks": {}}
    try:
        if lock not in stamp["locks"]:
            _install_lock(lock, opencv)
        itself = ["--no-deps", "--no-build-isolation", "--no-index", "--editable", str(ROOT)]
        _pip("install", *itself, what="flowstream itself")
    except BaseException:
        _remove()
        raise
    stamp["project"] = _digest("pyproject.toml")
    stamp["locks"][lock] = _digest(lock, HEADLESS)
    if lock == DEV:
        stamp["locks"][RUN] = _digest(RUN, HEADLESS)
    unfinished = STAMP.with_suffix(".part")
    unfinished.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    unfinished.replace(STAMP)


def _require_tools() -> None:
    """Look for what makes and fills an environment before anything is changed."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if "venv" in missing:
        raise SetupError(f"{sys.executable} has no module venv; on Debian or Ubuntu: apt-get install python3-venv")
    if not _outer_pip() and "ensurepip" in missing:
        raise SetupError(f"{sys.executable} has no pip; on Debian or Ubuntu: apt-get install python3-pip")


def _create() -> None:
    """Create an empty environment, without pip where the running Python has one that can fill it from outside."""
    command = [sys.executable, "-m", "venv", *(["--without-pip"] if _outer_pip() else []), str(VENV)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(_sentence(done.stdout + done.stderr, f"the virtual environment {VENV}"))


def _install_lock(lock: str, opencv: str) -> None:
    """Install every package of ``lock``, each checked by its hash, with the build of OpenCV that loads here."""
    wanted = _entries(lock)
    if opencv == "opencv-python-headless":
        wanted = {name: text for name, text in wanted.items() if name != "opencv-python"}
        wanted.update(_entries(HEADLESS))
    ready_made = {name: text for name, text in wanted.items() if name not in SOURCE_ONLY}
    _install_entries(ready_made, "--only-binary=:all:")
    if len(ready_made) < len(wanted):
        rest = {name: text for name, text in wanted.items() if name in SOURCE_ONLY}
        _install_entries(rest, "--no-build-isolation")


def _install_entries(entries: dict[str, str], option: str) -> None:
    with tempfile.TemporaryDirectory(dir=STATE) as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text("".join(entries.values()), encoding="utf-8")
        _pip(
            "install", "--require-hashes", "--no-deps", option, "--requirement", str(requirements),
            what="the packages", total=len(entries),
        )  # fmt: skip


def _entries(lock: str) -> dict[str, str]:
    """Split a lock file into its entries, ``name==version ; marker \\`` with the lines of hashes under it, by name."""
    entries = {}
    for entry in re.split(r"(?m)^(?=[A-Za-z0-9])", (ROOT / lock).read_text(encoding="utf-8")):
        if "==" in entry:
            entries[entry.split("==")[0]] = entry
    return entries


def _outer_pip() -> bool:
    """Tell whether the running Python has a pip; every one that comes with Python 3.11 knows ``--python``."""
    return importlib.util.find_spec("pip") is not None


def _pip(command: str, *arguments: str, what: str, total: int = 0) -> None:
    """Run pip on ``.venv``, quietly: its own words go to a log file, the terminal sees which package it is at.

    Raises:
        SetupError: pip failed; the cause as far as its words tell it.
    """
    pip = [sys.executable, "-m", "pip", "--python", str(BIN / "python")]
    if not _outer_pip():
        pip = [str(BIN / "python"), "-m", "pip"]
    settings = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    # A person's own defaults that would put packages elsewhere. Mirrors, proxies and certificates are theirs to set.
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIREMENT", "PIP_CONSTRAINT", "PIP_REQUIRE_VIRTUALENV"):
        settings.pop(name, None)
    settings.update(PIP_USER="0", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PYTHONUNBUFFERED="1")
    counted = sys.stderr.isatty() and total > 0
    words: list[str] = []
    with subprocess.Popen(
        [*pip, command, "--retries=2", "--progress-bar=off", *arguments],
        env=settings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, encoding="utf-8", errors="replace",
        close_fds=False,  # it holds the lock of `_alone` on, should this process be killed
    ) as running:  # fmt: skip
        assert running.stdout is not None
        seen = 0
        try:
            for line in running.stdout:
                words.append(line)
                found = re.match(r"Collecting ([\w.-]+)", line)
                if found and counted:
                    seen += 1
                    sys.stderr.write(f"\r\x1b[K  {seen} of {total}: {found.group(1)}")
                    sys.stderr.flush()
                elif line.startswith("Installing collected") and counted:
                    sys.stderr.write("\r\x1b[K  unpacking")
                    sys.stderr.flush()
        except BaseException:
            running.send_signal(signal.SIGINT)  # it removes its temporary files
            running.wait()
            raise
        finally:
            if counted:
                sys.stderr.write("\r\x1b[K")
    log = STATE / "setup.log"
    log.write_text("".join(words), encoding="utf-8")
    if running.returncode != 0:
        raise SetupError(_sentence("".join(words), what) + f" ({_short(log)} has all that pip said)")


def _remove() -> None:
    """Remove ``.venv``, whatever state it is in."""
    if VENV.is_symlink() or VENV.is_file():
        VENV.unlink()
    elif VENV.exists():
        shutil.rmtree(VENV)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock that lets one process at a time change ``.venv``; waiting says so."""
    import fcntl

    STATE.mkdir(exist_ok=True)
    with open(STATE / "setup.lock", "w", encoding="utf-8") as handle:
        os.set_inheritable(handle.fileno(), True)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another process is setting this checkout up; waiting for it.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _leave_own_environment() -> None:
    """Go on with the Python that ``.venv`` was made from when this process runs inside it: it may be removed."""
    if Path(sys.prefix).resolve() == VENV.resolve() and sys.prefix != sys.base_prefix:
        outer = Path(sys.base_prefix) / "bin" / "python{}.{}".format(*sys.version_info[:2])
        os.execv(outer, [str(outer), *sys.argv])


# ------------------------------------------------------------------------------------------------- system packages


def missing_libraries() -> list[str]:
    """Name the system libraries that opencv-python needs and this machine lacks."""
    if not sys.platform.startswith("linux"):
        return []
    missing = []
    for library in WINDOW_LIBRARIES:
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(library)
    return missing


def _opencv(stamp: dict[str, Any]) -> str:
    """Choose the build of OpenCV: the one with windows where its system libraries are, or can be installed."""
    missing = missing_libraries()
    if missing and stamp.get("opencv") != "opencv-python-headless" and os.geteuid() == 0:
        say(f"This machine lacks {_listed(missing)}, which OpenCV needs to open windows; installing with apt-get.")
        try:
            apt_install(WINDOW_PACKAGES)
        except SetupError as error:
            say(f"That failed: {error}.")
        missing = missing_libraries()
    if not missing:
        return "opencv-python"
    packages = " ".join(alternatives.split("|")[-1] for alternatives in WINDOW_PACKAGES)
    say(
        f"This machine lacks {_listed(missing)}: using opencv-python-headless, with which all works except the node "
        f"type display. To have that too: sudo apt-get install {packages}, then start again."
    )
    return "opencv-python-headless"


def apt_install(packages: Sequence[str]) -> None:
    """Install the Debian or Ubuntu packages that are not there. Alternatives in one entry are separated by ``|``.

    Raises:
        SetupError: not root, no apt-get, or apt-get failed.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-query") is None:
        raise SetupError("this is not Debian or Ubuntu: there is no apt-get")
    missing = missing_packages(packages)
    if not missing:
        return
    if os.geteuid() != 0:
        raise SetupError(f"only root can install {' '.join(missing)}")
    settings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    choices = ("DPkg::Lock::Timeout=300", "Acquire::Retries=2", "Acquire::http::Timeout=30")
    options = ["-q", "-y", *(f"-o{choice}" for choice in choices)]
    said = ""
    for command in (["update"], ["install", "--no-install-recommends", *missing]):
        try:
            done = subprocess.run(
                ["apt-get", *options, *command], env=settings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace", check=False, timeout=900,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise SetupError(f"apt-get {command[0]} took longer than 15 minutes") from None
        said += done.stdout
    still = missing_packages(packages)
    if still:
        trouble = [line for line in said.splitlines() if line.startswith(("E:", "Err:", "W:"))]
        cause = f" ({trouble[-1]})" if trouble else ""
        raise SetupError(f"apt-get could not install {' '.join(still)}{cause}")


def missing_packages(packages: Sequence[str]) -> list[str]:
    """Return which of the packages are not installed, each under the name this system's package lists know."""
    names = [name for alternatives in packages for name in alternatives.split("|")]
    listed = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *names],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    ).stdout.splitlines()  # fmt: skip
    installed = {line.split()[0] for line in listed if line.endswith(" installed")}
    return [
        alternatives.split("|")[-1] for alternatives in packages if not installed.intersection(alternatives.split("|"))
    ]


def distribution() -> str:
    """Return the id of this system's distribution (``debian``, ``ubuntu`` ...), empty when it does not say."""
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r'(?m)^ID="?([^"\n]*)', text)
    return found.group(1) if found else ""


# --------------------------------------------------------------------------------------------------------- sentences


def _sentence(words: str, what: str) -> str:
    """Say in one sentence why a tool that printed ``words`` could not make or install ``what``."""
    last = [line for line in words.splitlines() if line.startswith(("ERROR:", "Error:", "OSError"))]
    if os.strerror(errno.ENOSPC) in words:
        return _space_sentence(what)
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return (
            "the package index showed a certificate that this machine does not trust: "
            "install ca-certificates, or name yours in PIP_CERT"
        )
    if NETWORK_TROUBLE.search(words):
        return (
            "the package index cannot be reached: setting up needs the network (proxies and mirrors are set as for pip)"
        )
    if "DO NOT MATCH THE HASHES" in words:
        return f"a downloaded package is not the one that the lock file names, so {what} were not installed"
    if "No matching distribution found" in words:
        name = re.search(r"No matching distribution found for ([\w.-]+==[\w.]+)", words)
        return (
            f"there is no ready-made package of {name.group(1) if name else what} for "
            f"{platform.python_implementation()} {platform.python_version()} on {sys.platform} {platform.machine()}"
        )
    said = last or [line for line in words.splitlines() if line.strip()] or ["it said nothing"]
    return f"{what} could not be installed: {said[-1].strip()}"


def _os_sentence(error: OSError) -> str:
    """Say in one sentence what the system refused while ``.venv`` was made."""
    if error.errno == errno.ENOSPC:
        return _space_sentence("the packages")
    place = f" ({error.filename})" if error.filename else ""
    if isinstance(error, PermissionError):
        return f"{ROOT} cannot be written to by this user{place}: use a checkout of your own"
    return f"setting up {VENV} failed: {error.strerror or error}{place}"


def _space_sentence(what: str) -> str:
    return f"no space left for {what}: free about 1 GB on the disks of {VENV} and {tempfile.gettempdir()}"


def _short(path: Path) -> str:
    """Return ``path`` as seen from the working directory where that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
