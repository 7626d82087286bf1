"""The Containerfile makes an image that runs a graph as it says, is healthy, and drains when it is told to end.

    tools/long container [--base made]

Builds ``tools/deploy/Containerfile`` with buildah and runs the command of the image, in it, as its user, on a graph
that records: its health check fails before and succeeds while it runs, SIGTERM ends it with exit status 0, the
recording plays to its end, and its state is where the image says. The base image is pulled from its registry; with
``--base made`` debootstrap makes one of that name of Debian's own Python, where no registry of images is reached.

Needs root, on Debian or Ubuntu, and the registry of Python packages. Takes five minutes, and 3 GB in ``/var/tmp``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import environment

CONTAINERFILE = environment.ROOT / "tools" / "deploy" / "Containerfile"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
IMAGE = "flowstream-proof"
LIMIT_S = 60.0
GRAPH = """\
nodes:
  pattern: {type: test-pattern, size: 320x180}
  encode: {type: hw-encode, from: pattern}
  out: {type: webrtc-out, from: encode}
  tape: {type: recorder, from: encode, path: kept.mp4}
serve: {listen: "127.0.0.1:0"}
"""


class NotProvenError(Exception):
    """A requirement of this proof does not hold."""


def require(holds: bool, what: str) -> None:
    """Raise `NotProvenError` unless ``holds``."""
    if not holds:
        raise NotProvenError(what)


class Store:
    """Images and containers in a folder of their own; ``isolation=chroot`` works within a container, too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {**os.environ, "BUILDAH_ISOLATION": "chroot"}

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of buildah on this store."""
        places = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "run"), "--storage-driver", "vfs"]
        return ["buildah", *places, *arguments]

    def ask(self, *arguments: str) -> str:
        """Run buildah to its end and return what it printed. Raises NotProvenError when it fails."""
        done = subprocess.run(
            self.command(*arguments), env=self.environ, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        require(done.returncode == 0, f"buildah {arguments[0]}: {(done.stdout + done.stderr)[-2000:]}")
        return done.stdout.strip()


def base_image() -> str:
    """Return the name of the image that ours is made of."""
    found = re.search(r"(?m)^FROM (\S+)", CONTAINERFILE.read_text(encoding="utf-8"))
    require(found is not None, "the Containerfile has no FROM")
    assert found is not None
    return found[1]


def make_base(store: Store, folder: Path) -> None:
    """Make an image of the base image's name, of Debian's own Python and the way to this machine's registries."""
    environment.apt_install(["debootstrap"])
    root = folder / "base"
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm", str(root)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    require(done.returncode == 0, f"debootstrap: {done.stdout[-2000:]}")
    (root / "usr" / "bin" / "python").symlink_to("python3")
    shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
    wheels = [Path(link) for link in os.environ.get("PIP_FIND_LINKS", "").split() if Path(link).is_dir()]
    for each in wheels:
        shutil.copytree(each, root / each.relative_to("/"))
    container = store.ask("from", "scratch")
    store.ask("copy", "--quiet", container, str(root), "/")
    variables = {
        "PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "PIP_CERT": str(CERTIFICATES),
        "PIP_FIND_LINKS": " ".join(map(str, wheels)),
    }  # fmt: skip
    settings = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    store.ask("config", *settings, container)
    store.ask("commit", "--quiet", container, base_image())
    store.ask("rm", container)
    shutil.rmtree(root)


def build(store: Store, *, pull: bool) -> dict[str, Any]:
    """Build the image and return its configuration."""
    store.ask(
        "bud", "--pull" if pull else "--pull-never", "--format", "docker", "--tag", IMAGE, "--file", str(CONTAINERFILE),
        str(environment.ROOT),
    )  # fmt: skip
    told: dict[str, Any] = json.loads(store.ask("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    return told


@contextlib.contextmanager
def started(command: list[str], environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command while the block lasts."""
    with subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for each in psutil.Process(process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
                process.kill()


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds. Raises NotProvenError when it does not in time."""
    end = time.monotonic() + LIMIT_S
    while not holds():
        require(time.monotonic() < end, f"not within {LIMIT_S:.0f} s: {what}")
        time.sleep(0.2)


def run(store: Store, config: dict[str, Any]) -> str:
    """Run what the image says; return a remark."""
    require(config["User"] == "flowstream", f"it runs as {config['User']!r}")
    require(config["StopSignal"] == "SIGTERM", f"it is ended by {config['StopSignal']!r}")
    (state,) = config["Volumes"]
    kind, *check = config["Healthcheck"]["Test"]
    require(kind == "CMD", f"its health check is a {kind}")
    container = store.ask("from", "--pull-never", IMAGE)
    # Or buildah mounts a volume of its own there too, before or after the one that is asked for.
    store.ask("config", "--volume", f"{state}-", container)
    root = Path(store.ask("mount", container))
    account = re.search(r"(?m)^flowstream:x:(\d+):(\d+):", (root / "etc" / "passwd").read_text())
    require(account is not None, "it has no account of that name")
    assert account is not None
    kept, graph = store.folder / "kept", store.folder / "graph.yaml"
    kept.mkdir(mode=0o700)
    os.chown(kept, int(account[1]), int(account[2]))
    graph.write_text(GRAPH)

    def inside(*words: str) -> list[str]:
        as_told = ["--user", config["User"], "--workingdir", config["WorkingDir"]]
        mounts = ["--volume", f"{graph}:/etc/flowstream/graph.yaml:ro", "--volume", f"{kept}:{state}:rw"]
        return store.command("run", *as_told, *mounts, container, "--", *words)

    def is_healthy() -> bool:
        done = subprocess.run(inside(*check), env=store.environ, capture_output=True, check=False)
        return done.returncode == 0

    require(not is_healthy(), "it is healthy before it runs")
    tape = kept / "kept.mp4"
    with started(inside(*config["Entrypoint"], *config["Cmd"]), store.environ) as process:
        until(is_healthy, "its health check succeeds")
        until(lambda: tape.exists() and tape.stat().st_size > 50_000, "it records")
        require(tape.stat().st_uid != 0, "it runs as root")
        for each in _flowstreams(process.pid):
            each.send_signal(signal.SIGTERM)
        require(process.wait(LIMIT_S) == 0, f"SIGTERM ended it with status {process.returncode}")
    require(not is_healthy(), "it is healthy after its end")
    revisions = list(kept.rglob("000001.json"))
    require(len(revisions) == 1, f"its history is not in {state}: {revisions}")
    played = subprocess.run(["ffmpeg", "-v", "error", "-i", tape, "-f", "null", "-"], capture_output=True, check=False)
    require(played.returncode == 0 and not played.stderr, f"the recording does not play: {played.stderr!r}")
    store.ask("umount", container)
    return f"{tape.stat().st_size:,} bytes recorded as user {tape.stat().st_uid}"


def _flowstreams(pid: int) -> list[psutil.Process]:
    """The processes beneath buildah that run the program itself."""
    beneath = psutil.Process(pid).children(recursive=True)
    return [each for each in beneath if not each.children() and "flowstream" in " ".join(each.cmdline())]


def main() -> None:
    """Build and run; exit 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", choices=["pulled", "made"], default="pulled", help="where the base image comes from")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("error: the roots of containers take root to make here")
    environment.apt_install(["buildah"])
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        store = Store(Path(scratch))
        try:
            if options.base == "made":
                make_base(store, Path(scratch))
            began = time.monotonic()
            config = build(store, pull=options.base == "pulled")
            print(f"ok      built in {time.monotonic() - began:.0f} s on the {options.base} base image", flush=True)
            print(f"ok      runs, is healthy, drains: {run(store, config)}", flush=True)
        except NotProvenError as failure:
            sys.exit(f"FAILED  {failure}")
    print("all hold")


if __name__ == "__main__":
    main()
