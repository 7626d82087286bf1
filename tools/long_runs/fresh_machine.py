"""A newcomer's first command works on a Debian machine with nothing but Python and pip.

    tools/long fresh-machine [--suites bookworm,trixie] [--tests] [--keep FOLDER]

Makes small Debian roots with debootstrap (python3 and python3-pip, nothing else), puts a copy of this checkout into
each and runs ``python3 tools/start.py`` there by chroot, the way the README says:

- as root, where system libraries may be installed, and as a person who may not;
- with and without the package python3-venv;
- the link answers, Ctrl-C ends it with exit status 0, and the second start is quick;
- what can go wrong is told in one sentence: no network, a full disk, an interrupted set-up;
- with ``--tests``: the test command of the README passes, as root, on a machine that had nothing installed for it.

Needs root, on Debian or Ubuntu, and the package registries. Takes five minutes for a suite, and ten for the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import environment

PERSON = 1000
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
LINK = re.compile(r"watch it at (http://\S+)")
QUICK_S = 15.0
"""Far more than a second start needs and far less than a set-up."""


class Machine:
    """A Debian root with a copy of this checkout in ``/srv/flowstream``. Processes run in it by chroot."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkout = root / "srv" / "flowstream"

    def command(self, arguments: list[str], *, person: bool, network: bool = True) -> list[str]:
        """Return the command line that runs ``arguments`` inside: own mounts, own process ids, /proc and /dev."""
        inside = [
            "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"HOME={'/home/ann' if person else '/root'}",
            "LANG=C.UTF-8", f"PIP_CERT={CERTIFICATES}", *arguments,
        ]  # fmt: skip
        if person:
            inside = ["setpriv", f"--reuid={PERSON}", f"--regid={PERSON}", "--clear-groups", *inside]
        mounts = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
        isolation = ["unshare", "--mount", "--propagation=private", *([] if network else ["--net"])]
        return [*isolation, "sh", "-c", mounts, str(self.root), *inside]

    def run(self, *arguments: str, person: bool = False, network: bool = True, limit_s: float = 600) -> tuple[int, str]:
        """Run a program to its end and return its exit status and what it printed."""
        done = subprocess.run(
            self.command(list(arguments), person=person, network=network),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            timeout=limit_s,
        )  # fmt: skip
        return done.returncode, done.stdout

    def own(self, *, person: bool) -> None:
        """Give the checkout to the person, or to root, without an environment in it."""
        for left in (".venv", ".flowstream", "recordings"):
            shutil.rmtree(self.checkout / left, ignore_errors=True)
        owner = PERSON if person else 0
        for path in [self.checkout, *self.checkout.rglob("*")]:
            os.lchown(path, owner, owner)


class Started:
    """``python3 tools/start.py`` on a machine, from its start to the Ctrl-C."""

    def __init__(self, machine: Machine, *, person: bool) -> None:
        self.words: list[str] = []
        self._link = threading.Event()
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            machine.command(["sh", "-c", "cd /srv/flowstream && exec python3 tools/start.py"], person=person),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.words.append(line)
            if LINK.search(line):
                self._link.set()
        self._link.set()

    @property
    def text(self) -> str:
        return "".join(self.words)

    def link(self, limit_s: float) -> str:
        """Wait for the printed link and return it."""
        self._link.wait(limit_s)
        found = LINK.search(self.text)
        require(found is not None, f"no link within {limit_s:.0f} s", self.text)
        assert found is not None
        return found.group(1)

    def interrupt(self) -> int:
        """Press Ctrl-C and return the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            require(False, "Ctrl-C did not end it within 30 s", self.text)
            raise
        finally:
            self._reader.join(5)


class NotProvenError(Exception):
    """A requirement of this proof does not hold."""


def require(holds: bool, what: str, words: str = "") -> None:
    """Raise `NotProvenError` with the output that belongs to it unless ``holds``."""
    if not holds:
        raise NotProvenError(f"{what}\n{words}".rstrip())


def first_run(machine: Machine, *, person: bool, opencv: str) -> str:
    """Start twice, look at the page, end by Ctrl-C; return a remark with the times."""
    machine.own(person=person)
    times = []
    for limit_s in (300.0, QUICK_S):
        started = Started(machine, person=person)
        try:
            link = started.link(limit_s)
            times.append(time.monotonic() - started.started)
            with urllib.request.urlopen(link, timeout=10) as answer:
                require(answer.status == 200 and b"<html" in answer.read().lower(), f"no page at {link}", started.text)
        finally:
            status = started.interrupt()
        require(status == 0, f"Ctrl-C ended it with status {status}", started.text)
        require("Traceback" not in started.text, "a traceback", started.text)
    require("Setting up" not in started.text, "the second start set up again", started.text)
    site = next((machine.checkout / ".venv" / "lib").glob("python3*")) / "site-packages"
    found = sorted(path.name for path in site.glob("opencv_python*.dist-info"))
    require(len(found) == 1 and found[0].startswith(f"{opencv}-"), f"{found} instead of {opencv}", started.text)
    recordings = list((machine.checkout / "recordings").rglob("*.mp4"))
    require(any(path.stat().st_size > 10_000 for path in recordings), f"no recording: {recordings}", started.text)
    return f"link after {times[0]:.0f} s, on the second start {times[1]:.1f} s; {found[0].split('-')[0]}"


def no_network(machine: Machine) -> str:
    """Without a network the first start ends at once, with one sentence."""
    machine.own(person=True)
    status, words = machine.run("python3", "/srv/flowstream/tools/start.py", person=True, network=False)
    require(status == 1 and "error: the package index cannot be reached" in words, f"status {status}", words)
    require("Traceback" not in words and not (machine.checkout / ".venv").exists(), "not clean", words)
    return "told in a sentence"


def full_disk(machine: Machine) -> str:
    """On a full disk the first start says so and leaves nothing half-made."""
    machine.own(person=True)
    small = machine.root / "srv" / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=100m,uid={PERSON}", "tmpfs", str(small)], check=True)
    try:
        shutil.copytree(machine.checkout, small / "flowstream")
        subprocess.run(["chown", "-R", str(PERSON), str(small)], check=True)
        status, words = machine.run("python3", "/srv/small/flowstream/tools/start.py", person=True)
        require(status == 1 and "error: no space left for the packages" in words, f"status {status}", words)
        require("Traceback" not in words and not (small / "flowstream" / ".venv").exists(), "not clean", words)
    finally:
        subprocess.run(["umount", str(small)], check=True)
        small.rmdir()
    return "told in a sentence"


def interrupted(machine: Machine) -> str:
    """Killed, terminated or interrupted half way, the set-up is made anew by the next start."""
    machine.own(person=True)
    for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        started = Started(machine, person=True)
        time.sleep(4)  # somewhere in the middle of the downloads
        os.killpg(started.process.pid, wanted)
        status = started.process.wait(60)
        require(status not in (0, 1), f"{wanted.name} ended it with status {status}", started.text)
        require("Traceback" not in started.text, "a traceback", started.text)
        stamp = machine.checkout / ".venv" / "flowstream-setup.json"
        require(not stamp.exists(), f"{wanted.name} left a stamp", started.text)
    return first_run(machine, person=True, opencv="opencv_python_headless")


def passes_tests(machine: Machine) -> str:
    """The test command installs what it needs and passes."""
    machine.own(person=False)
    status, words = machine.run("sh", "-c", "cd /srv/flowstream && python3 tools/check.py", limit_s=1800)
    require(status == 0, f"status {status}", words)
    closing = [line for line in words.splitlines() if re.search(r"=+ .*\d+ passed.* =+", line)]
    require(bool(closing), "no closing line of pytest", words)
    return closing[-1].strip("= ")


def parts(make: Callable[[str], Machine], *, tests: bool) -> Iterator[tuple[str, Callable[[], str]]]:
    """List the proofs in their order; each machine is as new when its first one begins."""
    if tests:
        tested = make("tested")
        yield "the test command", lambda: passes_tests(tested)
    person = make("person")
    yield "no network", lambda: no_network(person)
    yield "full disk", lambda: full_disk(person)
    yield "a person, without python3-venv", lambda: first_run(person, person=True, opencv="opencv_python_headless")
    yield "interrupted", lambda: interrupted(person)
    root = make("root")
    yield "root, without python3-venv", lambda: first_run(root, person=False, opencv="opencv_python")
    yield "a person on a machine that has the libraries", lambda: first_run(root, person=True, opencv="opencv_python")
    status, words = root.run("apt-get", "install", "-q", "-y", "--no-install-recommends", "python3-venv")
    require(status == 0, "python3-venv cannot be installed", words)
    yield "a person, with python3-venv", lambda: first_run(root, person=True, opencv="opencv_python")


def copy_checkout(target: Path) -> None:
    """Copy what is under version control, or would be, to ``target``."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=environment.ROOT, stdout=subprocess.PIPE, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.decode().split("\0")):
        if (environment.ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(environment.ROOT / name, target / name)


def bootstrap(suite: str, folder: Path) -> Path:
    """Make an archive of a small root with Python and pip, unless ``folder`` has it from before."""
    archive = folder / f"{suite}.tar"
    if not archive.exists():
        root = folder / f"{suite}.new"
        shutil.rmtree(root, ignore_errors=True)
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", "--include=python3,python3-pip,ca-certificates", suite, str(root)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        require(done.returncode == 0, f"debootstrap {suite}", done.stdout[-2000:])
        subprocess.run(
            ["tar", "--create", "--file", archive.with_suffix(".part"), "--directory", root, "."], check=True
        )
        archive.with_suffix(".part").rename(archive)
        shutil.rmtree(root)
    return archive


def machine_maker(archive: Path, folder: Path) -> Callable[[str], Machine]:
    """Return what makes a new machine out of the archive, in a folder of its own."""

    def make(name: str) -> Machine:
        root = folder / name
        root.mkdir()
        subprocess.run(["tar", "--extract", "--file", archive, "--directory", root], check=True)
        root.chmod(0o755)
        # The way to the registries is this machine's own: its name server and the certificates it trusts.
        shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
        shutil.copy("/etc/hosts", root / "etc" / "hosts")  # an installer writes it, debootstrap does not
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        (root / "home" / "ann").mkdir()
        os.chown(root / "home" / "ann", PERSON, PERSON)
        machine = Machine(root)
        copy_checkout(machine.checkout)
        return machine

    return make


def main() -> None:
    """Run every proof on every suite; exit 1 when one does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--suites", default="bookworm", help="Debian suites, by name, separated by commas")
    parser.add_argument("--tests", action="store_true", help="run the test command too")
    parser.add_argument("--keep", type=Path, help="folder for the archives of the roots, used again the next time")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("error: a root of Debian's own takes root to make")
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        environment.apt_install(["debootstrap"])
        kept = options.keep or Path(scratch)
        kept.mkdir(parents=True, exist_ok=True)
        failed = 0
        for suite in options.suites.split(","):
            archive = bootstrap(suite, kept)
            folder = Path(scratch) / f"machines-{suite}"
            folder.mkdir()
            for name, proof in parts(machine_maker(archive, folder), tests=options.tests):
                try:
                    print(f"ok      {suite}: {name}: {proof()}", flush=True)
                except NotProvenError as failure:
                    failed += 1
                    print(f"FAILED  {suite}: {name}: {failure}", flush=True)
            shutil.rmtree(folder)
        print(f"{failed} failed" if failed else "all hold")
        sys.exit(1 if failed else 0)
    sys.exit(130)


if __name__ == "__main__":
    main()
