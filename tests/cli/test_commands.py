"""The program as a whole: help, mistakes, and what it takes to start."""

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest

from flowstream import __version__
from flowstream.cli import COMMANDS
from tests.cli.calling import ODD, Call


def test_help_lists_every_command(call: Call) -> None:
    called = call("--help")
    assert called.status == 0
    for name, line in COMMANDS.items():
        assert f"  {name} " in called.out
        assert line in " ".join(called.out.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, call: Call) -> None:
    command: click.Command = importlib.import_module(f"flowstream.cli.{name.replace('-', '_')}").command
    assert (command.name, command.short_help) == (name, COMMANDS[name])
    called = call(name, "--help")
    assert called.status == 0
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name}"


def test_version(call: Call) -> None:
    assert call("--version").out == f"flowstream {__version__}\n"


def test_an_unknown_command_is_told_what_was_meant(call: Call) -> None:
    called = call("chekc", "graph.yaml")
    assert called.status == 2
    assert "there is no command 'chekc'. Did you mean 'check'?" in called.err


def test_a_graph_in_the_place_of_a_command(call: Call) -> None:
    called = call("desk.yaml")
    assert called.status == 2
    assert "To run a graph: flowstream run desk.yaml" in called.err


def test_ctrl_c_at_a_command(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flowstream.control.client.choose", interrupted)
    assert call("status").status == 130


def test_a_reader_that_has_seen_enough(here: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m flowstream schema | head -c 10", shell=True, capture_output=True, text=True, check=True
    )
    assert done.stdout == '{\n  "$sche'
    assert done.stderr == ""


def imported_by(*arguments: str) -> set[str]:
    code = f"""
import sys
from flowstream.cli import outcome
status = outcome({list(arguments)!r})
print(); print("MODULES", *sys.modules); sys.exit(status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("MODULES ")[2].split())


def test_help_loads_nothing_but_click() -> None:
    modules = imported_by("--help")
    assert not modules & {"pydantic", "networkx", "ruamel", "anyio", "rich", "flowstream.graph", "importlib.metadata"}
    assert {name for name in modules if name.startswith("flowstream")} == {"flowstream", "flowstream.cli"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "hello", "desk", "camera"],
        ["plan", "hello"],
        ["plan", "hello", "desk"],
        ["expand", "hello"],
        ["nodes"],
        ["nodes", "webrtc-out"],
        ["schema"],
        ["draw", "hello"],
        ["explain"],
        ["explain", "FS305", "FS205"],
    ],
)
def test_nothing_that_does_not_run_loads_what_runs(arguments: list[str]) -> None:
    heavy = {"av", "aiortc", "aioice", "cv2", "numpy", "mss", "pylibsrtp", "cryptography", "starlette", "uvicorn"}
    assert not imported_by(*arguments) & (heavy | {"anyio", "flowstream.runtime"})


def test_python_m_flowstream() -> None:
    done = subprocess.run([sys.executable, "-m", "flowstream", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"flowstream {__version__}\n"


@pytest.mark.parametrize("command", ["check", "plan", "draw", "run"])
def test_what_is_no_graph(command: str, call: Call, here: Path) -> None:
    (here / "folder.yaml").mkdir()
    (here / "binary.yaml").write_bytes(b"\x00\xff\xfe")
    (here / "empty.yaml").write_text("")
    for name, said in (
        ("missing.yaml", "missing.yaml: there is no such file"),
        ("folder.yaml", "folder.yaml: is a directory"),
        ("binary.yaml", "FS102"),
        ("empty.yaml", "the file is empty"),
        ("/dev/zero", "FS10"),
    ):
        called = call(command, name)
        assert called.status == 1
        assert said in called.out + called.err


@pytest.mark.parametrize("command", ["check", "plan", "draw", "run"])
def test_a_graph_that_does_not_exist(command: str, call: Call, here: Path) -> None:
    (here / "studio.yaml").write_text("")
    assert "there is no file 'helo'. Did you mean 'hello'?" in call(command, "helo").err
    assert "Did you mean 'studio.yaml'?" in call(command, "studoi").err
    called = call(command, "xyzzy")
    assert called.status == 2
    assert (
        "Graphs that come with flowstream: adaptive, camera, data, desk, file, hello, ladder, rooms and viewers."
        in called.err
    )


@pytest.mark.parametrize("command", ["check", "plan", "draw", "run"])
def test_bad_options(command: str, call: Call) -> None:
    called = call(command, "hello", "--set", "bitrate")
    assert called.status == 2
    assert "'bitrate' is not NAME=VALUE." in called.err
    called = call(command, "hello", "--set", "bitrat=1M")
    assert called.status == 1
    assert "FS125" in called.out + called.err
    called = call(command, "hello", "--nodes", "nowhere")
    assert called.status == 1
    assert "--nodes nowhere: there is no such folder" in called.out + called.err


def test_variables_are_set(call: Call) -> None:
    assert call("check", "hello", "--set", "bitrate=600k").status == 0
    assert call("check", "hello", "--set", "bitrate=many").status == 1


def test_unreadable(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str) -> bytes:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("flowstream.control.files.read", denied)
    called = call("check", "secret.yaml")
    assert called.status == 1
    assert "secret.yaml: permission denied" in called.out


def test_the_pack_of_the_tests_is_good(call: Call) -> None:
    assert "odd/ticks" in call("nodes", "--nodes", ODD).out
