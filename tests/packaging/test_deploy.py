"""What runs flowstream unattended: the unit for systemd and the container do what they and the README say."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from flowstream.cli import cli
from flowstream.cli.session import GIVE_UP_SECONDS
from tests.cli.calling import running
from tests.control.running import TICKS

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "tools" / "deploy" / "flowstream.service"
CONTAINERFILE = ROOT / "tools" / "deploy" / "Containerfile"
INSTALLED = "/opt/flowstream/bin/flowstream"
PATIENCE_S = 30.0


# --- systemd --------------------------------------------------------------------------------------------------------


class _Sections(dict[str, object]):
    """Keeps every value of a key that stands several times."""

    def __setitem__(self, key: str, value: object) -> None:
        if isinstance(value, list) and isinstance(self.get(key), list):
            value = [*self[key], *value]  # type: ignore[misc]
        super().__setitem__(key, value)


def unit(section: str) -> dict[str, list[str]]:
    """The values of a section of the unit, by key."""
    parser = configparser.RawConfigParser(dict_type=_Sections, strict=False, comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return {key: value.split("\n") for key, value in parser.items(section)}


def verify(text: str, folder: Path) -> str:
    """What systemd finds wrong with a unit whose program is there."""
    program = folder / "flowstream"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = folder / UNIT.name
    path.write_text(text.replace(INSTALLED, str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
    )
    found = "\n".join(line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line)
    assert found or done.returncode == 0, done.stderr
    return found


@pytest.fixture
def systemd() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")


@pytest.mark.usefixtures("systemd")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    assert verify(UNIT.read_text(), tmp_path) == ""


@pytest.mark.usefixtures("systemd")
@pytest.mark.parametrize(
    ("there", "broken", "said"),
    [
        ("WatchdogSec=30s", "WatchdogSec=soon", "Failed to parse sec value, ignoring: soon"),
        ("Type=notify\n", "Type=notify\nNoNewPriviliges=yes\n", "NoNewPriviliges"),
        ("ExecStart=", "ExecStrat=", "ExecStart="),
        (f"ExecStart={INSTALLED}", "ExecStart=/nowhere/flowstream", "/nowhere/flowstream"),
        ("@system-service", "@sytem-service", "sytem-service"),
    ],
)
def test_what_is_wrong_with_a_unit_is_found(tmp_path: Path, there: str, broken: str, said: str) -> None:
    text = UNIT.read_text()
    assert there in text
    assert said in verify(text.replace(there, broken), tmp_path)


@pytest.mark.usefixtures("systemd")
def test_little_of_the_machine_lies_open_to_it(tmp_path: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", str(UNIT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-400:]
    assert "Overall exposure level for flowstream.service: 1." in done.stdout


def test_what_a_graph_needs_is_left_open() -> None:
    service = unit("Service")
    assert set(service["SupplementaryGroups"][0].split()) == {"video", "render", "audio"}
    devices = {value.split()[0] for value in service["DeviceAllow"]}
    assert {"char-video4linux", "char-drm", "char-nvidia*", "char-alsa"} <= devices
    families = set(service["RestrictAddressFamilies"][0].split())
    assert families == {"AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"}
    assert service["BindReadOnlyPaths"] == ["-/tmp/.X11-unix"]
    for forbidding in ("PrivateDevices", "PrivateNetwork", "PrivateUsers", "IPAddressDeny", "MemoryDenyWriteExecute"):
        assert forbidding not in service


def test_the_unit_waits_for_as_long_as_the_run_takes() -> None:
    service = unit("Service")
    assert service["Type"] == ["notify"]
    assert seconds(service["WatchdogSec"][0]) >= 10, "a busy machine is no hang"
    assert seconds(service["TimeoutStopSec"][0]) > GIVE_UP_SECONDS
    assert service["Restart"] == ["on-failure"]
    assert "--last-good" in service["ExecStart"][0].split()
    assert f"it ends within {GIVE_UP_SECONDS:g} seconds" in CONTAINERFILE.read_text()
    assert f"after {GIVE_UP_SECONDS:g} s it ends by itself" in UNIT.read_text()


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


def test_what_the_unit_runs_runs_as_systemd_runs_it(tmp_path: Path) -> None:
    """Its own command lines, with its folders below another root and the other end of its socket here."""
    service = unit("Service")
    for key in ("StateDirectory", "RuntimeDirectory", "CacheDirectory"):
        assert service[key] == ["flowstream"]
    folders = {"%t": tmp_path / "run", "%S": tmp_path / "state", "%C": tmp_path / "cache", "/etc": tmp_path / "etc"}
    for folder in folders.values():
        (folder / "flowstream").mkdir(parents=True)
    graph = tmp_path / "etc" / "flowstream" / "graph.yaml"
    graph.write_text("nodes:\n  pattern: {type: test-pattern, size: 160x90}\n  end: {type: discard, from: pattern}\n")

    def command(key: str) -> list[str]:
        (line,) = service[key]
        words = line.replace(INSTALLED, f"{sys.executable} -m flowstream")
        return shlex.split(re.sub("%[tSC]|/etc(?=/flowstream)", lambda match: str(folders[match[0]]), words))

    environ = {
        "PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'nodes'}", "LANG": "C.UTF-8",
        "STATE_DIRECTORY": str(tmp_path / "state" / "flowstream"), "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": str(round(seconds(service["WatchdogSec"][0]) * 1e6)),
    }  # fmt: skip
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, started(command("ExecStart"), environ) as run:
        manager.bind(environ["NOTIFY_SOCKET"])
        manager.settimeout(PATIENCE_S)
        while "READY=1" not in manager.recv(65536).decode():
            pass
        done = subprocess.run(command("ExecReload"), env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "the files are as they run\n"), done.stderr
        graph.write_text("nodes: {end: {type: discrad}}\n")
        done = subprocess.run(command("ExecReload"), env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "did you mean discard?" in done.stderr
        run.send_signal(signal.SIGTERM)
        assert run.wait(PATIENCE_S) == 0
    assert list((tmp_path / "state" / "flowstream").rglob("000001.json")), "what ran last is there for the next boot"


@contextmanager
def started(command: list[str], environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


# --- container ------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Containerfile with what follows them, continued lines put together."""
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if line and not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in whole.splitlines())]


def told(name: str) -> list[str]:
    return [rest for each, rest in instructions() if each == name]


def test_the_container_is_made_of_what_is_there() -> None:
    known = {
        "FROM", "WORKDIR", "COPY", "RUN", "ENV", "VOLUME", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT",
        "CMD",
    }  # fmt: skip
    assert {name for name, _ in instructions()} <= known
    for rest in told("COPY"):
        *sources, _ = rest.split()
        for source in sources[1:] if sources[0] == "--from=build" else sources:
            if sources[0] != "--from=build":
                assert (ROOT / source).exists(), source
    copied = {source for rest in told("COPY") if "--from" not in rest for source in rest.split()[:-1]}
    build = (ROOT / "pyproject.toml").read_text()
    assert {"pyproject.toml", "README.md", "LICENSE", "flowstream", "nodes", "graphs"} <= copied
    assert 'readme = "README.md"' in build
    assert 'license-files = ["LICENSE"]' in build


def test_what_is_put_in_has_the_hashes_of_the_lock_files() -> None:
    installs = re.findall(r"pip install (.*?)(?: &&|\n|$)", "\n".join(told("RUN")))
    assert installs == [
        "--no-cache-dir --no-deps --require-hashes -r requirements.lock",
        "--no-cache-dir --no-deps --require-hashes -r requirements-headless.lock",
        "--no-cache-dir --no-deps --no-build-isolation .",
    ]


def test_it_is_small_and_of_a_python_that_is_supported() -> None:
    images = [rest.split()[0] for rest in told("FROM")]
    assert len(set(images)) == 1, "the environment is made for the Python that it runs on"
    match = re.fullmatch(r"docker\.io/library/python:(3\.\d+)-slim-bookworm", images[0])
    assert match
    assert f"Python :: {match[1]}" in (ROOT / "pyproject.toml").read_text()


def test_it_runs_as_nobody_in_particular_and_keeps_its_state() -> None:
    order = [name for name, _ in instructions()]
    assert told("USER") == ["flowstream"]
    assert "useradd --system" in "\n".join(told("RUN"))
    assert order.index("USER") > max(index for index, name in enumerate(order) if name == "RUN")
    environ = dict(pair.split("=", 1) for pair in shlex.split(told("ENV")[0]))
    assert told("VOLUME") == [environ["XDG_STATE_HOME"]] == [told("WORKDIR")[-1]]
    assert told("STOPSIGNAL") == ["SIGTERM"]


def test_what_it_runs_is_a_command_with_these_options() -> None:
    assert json.loads(told("ENTRYPOINT")[0]) == ["flowstream"]
    assert json.loads(told("CMD")[0]) == ["run", "--last-good", "/etc/flowstream/graph.yaml"]
    for line in (told("CMD")[0], *(unit("Service")[key][0] for key in ("ExecStart", "ExecReload"))):
        words = json.loads(line) if line.startswith("[") else shlex.split(line)[1:]
        command = cli.get_command(click.Context(cli), words[0])
        assert command is not None
        options = {name for option in command.params for name in option.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_its_health_is_that_of_the_run(tmp_path: Path) -> None:
    (check,) = told("HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    assert command[0] == "python"
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}

    def health() -> int:
        return subprocess.run(
            [sys.executable, *command[1:]], env=environ, stderr=subprocess.DEVNULL, check=False
        ).returncode

    assert health() == 1
    (tmp_path / "it.yaml").write_text(TICKS)
    with running(tmp_path / "it.yaml", **environ) as run:
        run.wait_for("running")
        assert health() == 0
        run.interrupt(signal.SIGTERM)
        assert run.ended() == 0
    assert health() == 1
