"""Every graph that ships is checked, planned and run as its header says.

So are the graphs in docstrings that need something outside: a screen, a camera, a file, a page. All others run on
virtual time, in the tests of the node types.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from flowstream.cli.graphs import parse_sets, shipped_graphs
from flowstream.control.door import serves
from flowstream.control.files import GraphFile
from flowstream.errors import NodeError
from flowstream.graph.diagnostics import render
from flowstream.node.registry import Registry
from flowstream.testing import graph_of
from tests.docs.graphs import ENOUGH, Watched, checked, compiled, ends_of, run_for_a_moment
from tests.e2e.running import PATIENCE_S, running

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = sorted((ROOT / "graphs").glob("*.yaml"))
DRIVEN = sorted((ROOT / "graphs" / "program").glob("*.yaml"))
PARTS = sorted((ROOT / "graphs" / "lib").glob("*.yaml"))
"""Graphs with a program beside them that drives them."""

TEMPLATES = sorted((ROOT / "flowstream" / "templates").glob("*.yaml"))
NO_CAMERA = "there is no camera on this machine"


def has_camera() -> bool:
    return bool(list(Path("/dev").glob("video*")))


def header(graph: Path) -> list[str]:
    """The lines of the comment that a graph begins with."""
    lines = graph.read_text().splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return [line.removeprefix("#").strip() for line in lines[:end]]


def commands(graph: Path) -> list[list[str]]:
    """The commands in a header: those that run the graph, or the program that does."""
    return [shlex.split(line) for line in header(graph) if line.startswith(("flowstream ", "python "))]


def sets_of(command: list[str]) -> dict[str, str]:
    return parse_sets([value for option, value in pairwise(command) if option == "--set"])


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """An X server of our own."""
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x720x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as number:
            yield f":{number.readline().strip()}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of H.264 and AAC, made by the ffmpeg program."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    inputs = ["testsrc=size=320x180:rate=30:duration=3", "sine=duration=3"]
    named = [word for each in inputs for word in ("-f", "lavfi", "-i", each)]
    subprocess.run(["ffmpeg", "-v", "error", *named, "-c:v", "libx264", "-preset", "ultrafast", path], check=True)
    return path


@pytest.fixture
def folder(tmp_path: Path, display: str, film: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the films that headers and docstrings name, on a machine with a screen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("XDG_SESSION_TYPE", raising=False)
    for name in ("holiday.mp4", "talk.mp4"):
        (tmp_path / name).symlink_to(film)
    return tmp_path


# --- graphs/ --------------------------------------------------------------------------------------------------------


def test_each_is_found_by_its_name() -> None:
    assert shipped_graphs() == {graph.stem: graph for graph in GRAPHS}


@pytest.mark.parametrize("graph", GRAPHS + DRIVEN, ids=lambda path: path.stem)
def test_header_says_what_it_shows_and_how_to_run_it(graph: Path) -> None:
    modeline, what, *_ = header(graph)
    schema = re.fullmatch(r"yaml-language-server: \$schema=(\S+)", modeline)
    assert schema is not None
    assert (graph.parent / schema[1]).is_file()
    assert what.endswith(".")
    assert commands(graph)
    for command in commands(graph):
        if command[0] == "python":
            assert command == ["python", str(graph.with_suffix(".py").relative_to(ROOT))]
        else:
            assert command[:3] == ["flowstream", "run", graph.stem]


@pytest.mark.parametrize("graph", GRAPHS + DRIVEN, ids=lambda path: path.stem)
def test_header_names_keys_that_are_there_or_can_be_added(graph: Path) -> None:
    body = "\n".join(line for line in graph.read_text().splitlines() if not line.startswith("#"))
    named = {key for line in header(graph)[1:] for key in re.findall(r"\b([a-z]+):(?!/)", line)}
    assert named <= {*re.findall(r"\b([a-z]+):", body), "serve", "listen", "tls"}


@pytest.mark.parametrize("part", PARTS, ids=lambda path: path.stem)
def test_a_part_is_used_by_a_graph_and_says_what_it_is(part: Path) -> None:
    modeline, what, *_ = header(part)
    schema = re.fullmatch(r"yaml-language-server: \$schema=(\S+)", modeline)
    assert schema is not None
    assert (part.parent / schema[1]).is_file()
    assert "A part" in what
    assert any(f"use: lib/{part.name}" in graph.read_text() for graph in GRAPHS)
    found = GraphFile(str(part)).examine(as_part=True)
    assert {each.severity for each in found.diagnostics} <= {"note"}


@pytest.mark.parametrize("graph", GRAPHS + DRIVEN, ids=lambda path: path.stem)
def test_it_is_without_findings(graph: Path) -> None:
    for command in commands(graph):
        assert render(checked(graph, sets=sets_of(command))) == ""


@pytest.mark.real
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda path: path.stem)
def test_it_runs_as_its_header_says(graph: Path, folder: Path) -> None:
    _, _, name, *options = commands(graph)[0]
    plan = compiled(graph, sets=sets_of(options))
    camera = next((node for node in plan.nodes.values() if node.type_id == "camera"), None)
    if camera is not None and not has_camera():
        with running(name, folder, "--log", "text", *options) as run:
            run.process.wait()
        assert run.process.returncode == 1
        assert run.text[-2:] == [f"{camera.place}: {camera.id} (camera): {NO_CAMERA}", "  hint: plug one in"]
        return
    with running(name, folder, *options) as run:
        Watched(run, folder, name).until_received(*ends_of(plan))
    assert run.process.returncode == 0, run.text
    assert [line for line in run.lines if line["level"] == "error"] == []


@pytest.mark.parametrize("graph", DRIVEN, ids=lambda path: path.stem)
def test_the_program_beside_it_drives_it(graph: Path, tmp_path: Path) -> None:
    program = graph.with_suffix(".py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) >= ENOUGH


@pytest.mark.real
def test_a_film_without_sound_is_played_without(folder: Path, film: Path) -> None:
    silent = folder / "silent.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-i", film, "-an", "-c", "copy", silent], check=True)
    with running("file", folder, "--set", f"path={silent.name}") as run:
        Watched(run, folder, "file").until_received("out")
    assert run.process.returncode == 0, run.text


# --- templates of `new graph` ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", TEMPLATES, ids=lambda path: path.stem)
def test_header_of_a_template_says_what_it_shows_and_how_to_run_it(graph: Path) -> None:
    what, empty, *_ = header(graph)
    assert what.endswith(".")
    assert empty == ""
    assert commands(graph)
    for command in commands(graph):
        assert command[:3] == ["flowstream", "run", graph.name]
    body = "\n".join(line for line in graph.read_text().splitlines() if not line.startswith("#"))
    named = {key for line in header(graph) for key in re.findall(r"\b([a-z]+):(?!/)", line)}
    assert named <= {*re.findall(r"\b([a-z]+):", body), "serve", "listen", "tls"}


@pytest.mark.parametrize("graph", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_is_without_findings(graph: Path) -> None:
    for command in commands(graph):
        assert render(checked(graph, sets=sets_of(command))) == ""


@pytest.mark.real
@pytest.mark.parametrize("graph", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_runs(graph: Path, folder: Path) -> None:
    _, _, _, *options = commands(graph)[0]
    plan = compiled(graph, sets=sets_of(options))
    if "camera" in {node.type_id for node in plan.nodes.values()} and not has_camera():
        with pytest.raises(NodeError, match=NO_CAMERA):
            anyio.run(run_for_a_moment, plan)
        return
    with running(str(graph), folder, *options) as run:
        if plan.is_live:
            Watched(run, folder, graph.stem).until_received(*ends_of(plan))
        else:
            run.process.wait(PATIENCE_S)
    assert run.process.returncode == 0, run.text
    assert [line for line in run.lines if line["level"] == "error"] == []
    if (small := folder / "small.mp4").exists():
        assert small.stat().st_size > 0
    assert small.exists() is not plan.is_live


# --- docstrings -----------------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("type_id", ["screen", "camera", "display", "file", "webrtc-out", "abr-controller"])
def test_graph_of_a_node_type_runs(type_id: str, folder: Path) -> None:
    graph = folder / "node.yaml"
    graph.write_text(graph_of(Registry.installed().get(type_id)))
    assert render(checked(graph)) == ""
    plan = compiled(graph)
    types = {node.type_id for node in plan.nodes.values()}
    assert type_id in types
    if "camera" in types and not has_camera():
        with pytest.raises(NodeError, match=NO_CAMERA):
            anyio.run(run_for_a_moment, plan)
    elif serves(plan):
        with running(graph.name, folder) as run:
            Watched(run, folder, graph.stem).until_received(*ends_of(plan))
        assert run.process.returncode == 0, run.text
    else:
        anyio.run(run_for_a_moment, plan)
