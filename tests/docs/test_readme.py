"""README and CONTRIBUTING are true: every fenced block is executed, by what its info string says it is.

=====================  ===============================================================================================
``sh``                 executed in a checkout whose environment is ready
``sh start``           the first command: prints a link that opens, ends on Ctrl-C, leaves a recording
``sh run=FILE``        runs a graph of the document until pictures have arrived at its end, and through its reload
``sh beside=FILE``     commands beside a run of FILE, except those that run a graph: after it
``sh owner=FILE``      commands of who runs FILE at another terminal; k3fq stands for a viewer who is there
``sh checks``          steps of the check command exist, tests that are named can be collected
``sh test``            the test command: what ``.ci/run`` executes
``console``            commands after ``$``, each followed by exactly what it prints; ``status`` is theirs, else 1
``yaml file=FILE``     a graph without findings; with ``error``, one that has some
``yaml part file=``    a graph that others use
``yaml layer file=``   a file over the graph above
``python graph``       a program that prints a graph, which makes the plan of the console block above
``yaml reload=FILE``   replaces FILE while it runs
``text applied=FILE``  what the run says about that, compared there
``mermaid``            the graph above, drawn
``python file=FILE``   a file of a folder of node types
``python run``         a program, run to its end
``python type=NAME``   a node type as the repository has them: passes the rules and does what it says
``sh author``          commands of an author of a pack, in a folder of their own
``python author=FILE`` a test of that pack, which passes; ``yaml author=FILE`` a graph or a script beside it
``console author``     commands there, each followed by exactly what it prints
``text same=FILE``     commands that need another machine, as they stand in the comment at the head of FILE
``text tree``          folders and files that exist
=====================  ===============================================================================================
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import httpx
import numpy as np
import pytest

from flowstream import VideoFrame
from flowstream.cli import COMMANDS
from flowstream.control.files import GraphFile
from flowstream.graph.diagnostics import render
from flowstream.node.registry import Registry
from flowstream.testing import Harness, check_node, graph_of, make_frame
from tests.docs.fences import Block, blocks_in, blocks_of, prose_of
from tests.docs.graphs import Watched, checked, compiled, run_for_a_moment
from tests.e2e.running import Run, running, until

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
OFFER = ROOT / "tests" / "proto" / "offers" / "chromium.sdp"
BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as its reader has it: with an environment that is ready, and the files that the documents give."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "tools").mkdir()
    for name in ["tools/start.py", "tools/environment.py", "pyproject.toml", *map(str, ROOT.glob("*.lock"))]:
        shutil.copy(ROOT / name, folder / Path(name).relative_to(ROOT if name.startswith("/") else "."))
    (folder / "graphs").symlink_to(ROOT / "graphs")
    _make_ready(_imported(folder / "tools" / "environment.py"))
    for block in BLOCKS:
        if name := block.value("file"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(block.text, encoding="utf-8")
    return folder


class Authored:
    """The folder in which an author of a pack works. What is installed there comes from this machine alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "site"

    def execute(self, text: str, status: int = 0) -> str:
        """Runs commands, and gives what they print."""
        here = (
            f"{sys.executable} -m pip install --quiet --no-index --no-deps --no-build-isolation --target {self.site} ."
        )
        for said, done in (
            (r"^pip install .*", here),
            (r"^pytest", f"{sys.executable} -m pytest -q -p no:cacheprovider"),
            (r"^python -m build", f"{sys.executable} -m build --no-isolation"),
        ):
            text = re.sub(said, done, text, flags=re.MULTILINE)
        found_here = os.pathsep.join([str(self.site), *(each for each in sys.path if each)])
        environ = {**_environ(), "PYTHONPATH": found_here, "PYTEST_ADDOPTS": "-p flowstream.testing.pytest_plugin"}
        done_ = subprocess.run(
            ["bash", "-euc", text], cwd=self.folder, env=environ, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done_.returncode == status, done_.stdout + done_.stderr
        return done_.stdout

    def begin(self, blocks: list[Block]) -> None:
        """Runs the first commands, which make the pack, and puts the files of the document into it."""
        self.first = next(each.text for each in blocks if each.kind == "sh author")
        self.began = self.execute(self.first)
        for block in blocks:
            if block.kind in ("python author", "yaml author"):
                (self.folder / "flowstream-night" / block.value("author")).write_text(block.text, encoding="utf-8")


AUTHOR = ("sh author", "python author", "yaml author", "console author status")


def _author(block: Block, authored: Authored) -> None:
    match block.kind:
        case "sh author":
            if block.text == authored.first:
                assert "2 passed" in authored.began
            else:
                assert "Successfully built flowstream_night-0.1.0" in authored.execute(block.text)
        case "python author":
            assert "passed" in authored.execute(f"cd flowstream-night\npytest {block.value('author')}")
        case "yaml author":
            authored.execute("cd flowstream-night\nflowstream check dark.yaml")
        case "console author status":
            command, _, expected = block.text.removeprefix("$ ").partition("\n")
            assert authored.execute(f"cd flowstream-night\n{command}", status=1) == expected


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> Authored:
    """An author's folder, with the pack that the document makes."""
    authored = Authored(tmp_path_factory.mktemp("author"))
    authored.begin(BLOCKS)
    return authored


def _make_ready(environment: Any) -> None:
    """Lets the checkout's environment be the one that the tests run in."""

    def create() -> None:
        environment.VENV.mkdir()
        environment.BIN.symlink_to(Path(sys.prefix, "bin"))

    environment._create = create
    environment._pip = lambda *_, **__: None
    environment.ready(environment.RUN)


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"checkout_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block(
    block: Block, checkout: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if block.kind in AUTHOR:
        _author(block, request.getfixturevalue("author"))
        return
    match block.kind:
        case "sh":
            _execute(block, checkout)
        case "sh start":
            _start(block, checkout)
        case "sh run":
            _run(block, checkout, tmp_path)
        case "sh beside":
            _beside(block, checkout, tmp_path)
        case "sh owner":
            _own(block, checkout, tmp_path)
        case "sh checks":
            _parse_checks(block, monkeypatch)
        case "sh test":
            assert f"exec {block.text}" in (ROOT / ".ci" / "run").read_text()
        case "console" | "console status":
            _compare_console(block, checkout)
        case "yaml part file":
            path = checkout / block.value("file")
            found = GraphFile(str(path)).examine(as_part=True)
            assert {each.severity for each in found.diagnostics} <= {"note"}
        case "yaml layer file":
            (above,) = [each for each in BLOCKS if each.end < block.line and each.kind == "yaml file"][-1:]
            file = GraphFile(str(checkout / above.value("file")), layers=(str(checkout / block.value("file")),))
            assert render(file.compile().warnings) == ""
        case "python graph":
            _build(block, checkout)
        case "yaml file":
            assert render(checked(checkout / block.value("file"), _packs(checkout))) == ""
        case "yaml error file":
            assert any(each.severity == "error" for each in checked(checkout / block.value("file"), _packs(checkout)))
        case "yaml reload":
            assert render(checked(_written(tmp_path, block), _packs(checkout))) == ""
        case "text applied":
            assert any(each.value("run") == block.value("applied") for each in BLOCKS)
        case "mermaid":
            (above,) = [each for each in BLOCKS if each.end < block.line and each.kind == "yaml file"][-1:]
            assert _said(["flowstream", "draw", above.value("file")], checkout) == block.text
        case "python file":
            _blur(block, checkout)
        case "python run":
            _said([sys.executable, "-c", block.text], checkout)
        case "python type":
            _contribute(block, tmp_path, monkeypatch)
        case "text same":
            comment = (ROOT / block.value("same")).read_text().partition("\n\n")[0]
            assert set(block.text.splitlines()) <= {line.lstrip("# ") for line in comment.splitlines()}
        case "text tree":
            _look_for(block)
        case _:
            pytest.fail(f"{block}: a block that no test knows; the kinds are in the docstring of this module")


# --- shells ---------------------------------------------------------------------------------------------------------


def _environ() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def _said(command: list[str], folder: Path, status: int = 0) -> str:
    done = subprocess.run(
        command, cwd=folder, env=_environ(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def _execute(block: Block, checkout: Path) -> None:
    said = _said(["bash", "-euo", "pipefail", "-c", block.text], checkout)
    assert "webrtc-out" in said
    assert "no errors" in said


def _compare_console(block: Block, checkout: Path) -> None:
    commands = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert commands.pop(0) == "", "a console block begins with a command"
    for each in commands:
        command, _, expected = each.partition("\n")
        assert _said(shlex.split(command), checkout, status=int(block.value("status") or 1)) == expected


def _build(block: Block, checkout: Path) -> None:
    (above,) = [each for each in BLOCKS if each.end < block.line and each.kind == "console status"][-1:]
    (checkout / "built.py").write_text(block.text)
    (checkout / "two-built.yaml").write_text(_said([sys.executable, "built.py"], checkout))
    planned = _said(["flowstream", "plan", "two-built.yaml"], checkout)
    assert planned.partition("\n")[2] == above.text.partition("live\n")[2]


def _opens(link: str) -> None:
    with urllib.request.urlopen(link) as page:
        assert "<video" in page.read().decode()


def _start(block: Block, checkout: Path) -> None:
    run = Run(
        subprocess.Popen(
            shlex.split(block.text), cwd=checkout, env={**_environ(), "XDG_RUNTIME_DIR": str(checkout)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
    )  # fmt: skip
    try:
        link = until("a link", lambda: re.search(r"http://\S+", "\n".join(run.text)) or run.process.poll())
        assert isinstance(link, re.Match), run.text
        _opens(link[0])
        Watched(run, checkout, "hello").until_received("out", "tape")
    finally:
        status = run.end()
    assert status == 0, run.text
    assert not any("etting up" in line for line in run.text), run.text
    assert [path.suffix for path in (checkout / "recordings").iterdir()] == [".mp4"]


def _run(block: Block, checkout: Path, folder: Path) -> None:
    words, name = shlex.split(block.text), block.value("run")
    assert words[:2] == ["flowstream", "run"]
    assert words[-1] == name
    for file in {block.value("file") for block in BLOCKS} - {""}:
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copy(checkout / file, folder / file)
    with running(name, folder, "--log", "text", *words[2:-1]) as run:
        said = Said(run)
        _opens(said.lines("watch it at", 1)[0].split()[-1])
        watched = Watched(run, folder, Path(name).stem)
        watched.until_received("out")
        for applied in BLOCKS:
            if applied.value("applied") == name:
                (saved,) = [each for each in BLOCKS if each.value("reload") == name]
                _reload(applied, saved, folder / name, said, watched)
    assert run.process.returncode == 0, run.text


def _beside(block: Block, checkout: Path, folder: Path) -> None:
    name = block.value("beside")
    shutil.copy(checkout / name, folder / name)
    commands = block.text.splitlines()
    later = [line for line in commands if line.startswith("flowstream run ")]
    environ = {**_environ(), "XDG_RUNTIME_DIR": str(folder)}
    with running(name, folder, "--log", "text") as run:
        Said(run).lines("running;", 1)
        said = [_called(line, folder, environ) for line in commands if line not in later]
    assert run.process.returncode == 0, run.text
    assert "exact" in "".join(said)
    assert "is replayed from" in "".join(said)
    for line in later:
        _called(line, folder, environ)


def _called(line: str, folder: Path, environ: dict[str, str]) -> str:
    done = subprocess.run(
        shlex.split(line), cwd=folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    return done.stdout


def _own(block: Block, checkout: Path, folder: Path) -> None:
    """Runs a graph that somebody visits, at a port of its own, and the commands beside it."""
    file = folder / block.value("owner")
    file.write_text((checkout / file.name).read_text().replace(":8443", ":0"), encoding="utf-8")
    there = {"XDG_RUNTIME_DIR": str(folder), "XDG_STATE_HOME": str(folder)}
    with running(file.name, folder, **there) as run:
        run.wait_for("running")
        url = next(line["url"] for line in run.lines if "127.0.0.1" in line.get("url", ""))
        with httpx.Client(verify=False, follow_redirects=True) as client:
            answer = client.post(
                client.get(url).url.join("whep"),
                content=OFFER.read_bytes(),
                headers={"Content-Type": "application/sdp"},
            )
            assert answer.status_code == 201
            viewer = client.get(f"{client.get(url).url.join(answer.headers['location'])}/state").json()["viewer"]
            done = subprocess.run(
                ["bash", "-euc", block.text.replace("k3fq", viewer)], cwd=folder, env={**_environ(), **there},
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{viewer} may watch" in done.stdout
    assert f"{viewer} is sent away" in done.stdout


def _parse_checks(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    check = _imported(ROOT / "tools" / "check.py")
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        match words:
            case [".", ".venv/bin/activate"]:
                assert Path(sys.prefix, "bin", "activate").exists()
            case ["python3", "tools/check.py", *steps]:
                monkeypatch.setattr(sys, "argv", words[1:])
                assert check.arguments().step == steps
            case ["pytest", *arguments]:
                collected = _said([*words[:1], "--collect-only", "-p", "no:cacheprovider", *arguments], ROOT)
                assert "::" in collected
            case _:
                pytest.fail(f"{block}: {line} is not known here")


# --- graphs ---------------------------------------------------------------------------------------------------------


def _packs(checkout: Path) -> list[Path]:
    return [checkout / Path(block.value("file")).parent for block in BLOCKS if block.kind == "python file"]


def _written(folder: Path, block: Block) -> Path:
    path = folder / block.value("reload")
    path.write_text(block.text, encoding="utf-8")
    return path


class Said:
    """What a run prints for people, with every time of day as 00:00:00."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._begin = 0

    def lines(self, words: str, count: int) -> list[str]:
        """So many lines from the first one that has the words and was not given yet."""

        def found() -> list[str]:
            said = [_timeless(line) for line in self._run.text]
            at = next((i for i in range(self._begin, len(said)) if words in said[i]), len(said))
            if len(said) < at + count:
                assert self._run.process.poll() is None, said
                return []
            self._begin = at + count
            return said[at : self._begin]

        found_lines: list[str] = until(words, found)
        return found_lines


def _timeless(text: str) -> str:
    return re.sub(r"^\d\d:\d\d:\d\d", "00:00:00", text, flags=re.MULTILINE)


def _reload(applied: Block, saved: Block, file: Path, said: Said, watched: Watched) -> None:
    """What the text says about three saves: of a live setting, of the second version, and with a mistake in it."""
    said.lines("running;", 1)
    first = file.read_text()
    assert first.count("bitrate: 2.5M") == 1
    file.write_text(first.replace("bitrate: 2.5M", "bitrate: 600k"))
    assert "  encode   changed in place  (bitrate 2.5M -> 600k)" in said.lines("applied", 6)

    file.write_text(saved.text)
    expected = _timeless(applied.text).splitlines()
    assert said.lines("applied", len(expected)) == expected

    file.write_text(saved.text.replace("type: overlay", "type: overlya"))
    said.lines("did you mean overlay?", 1)
    revision = watched.status()["revision"]
    assert revision["running"] != revision["file"]
    assert revision["refused"]


# --- node types -----------------------------------------------------------------------------------------------------


def _blur(block: Block, checkout: Path) -> None:
    """The documented node type smooths pictures, as a node and in a graph that needs no browser."""
    path = checkout / block.value("file")
    pack = path.parent
    (blur,) = [each for _, each in Registry.installed([pack]).types() if getattr(each, "type_id", "") == "acme/blur"]
    assert isinstance(blur, type)
    noise = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    frame = VideoFrame.from_array(noise, time_ns=7)
    with Harness(blur, {"radius": 9}) as node:
        (soft,) = node.push(frame)
    assert (soft.width, soft.height, soft.time_ns) == (64, 48, 7)
    assert soft.array("bgr24").std() < 0.2 * noise.std()
    assert (frame.array("bgr24") == noise).all(), "the frame is shared, so it stays as it was"

    graph = checkout / "smoothed.yaml"
    graph.write_text(
        "nodes:\n"
        "  pattern: {type: test-pattern, size: 320x180}\n"
        "  soft: {type: acme/blur, from: pattern, radius: 25}\n"
        "  end: {type: discard, from: soft}\n"
    )
    status = anyio.run(run_for_a_moment, compiled(graph, [pack]))
    assert status["soft"].emitted["out"] >= 5


def _contribute(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented node type, in a folder instead of in the repository: only its namespace is another."""
    name = block.value("type")
    pack = folder / "mine"
    pack.mkdir()
    (pack / f"{name}.py").write_text(
        block.text.replace(f'type="{name}"', f'type="mine/{name}"').replace(f"type: {name},", f"type: mine/{name},")
    )
    node_type = Registry.installed([pack]).get(f"mine/{name}")
    check_node(node_type)
    frame = make_frame(width=64, height=48)
    before = frame.array("bgr24").copy()
    for amount, expected in ((100, 255.0 - before), (50, np.full_like(before, 127)), (0, before)):
        with Harness(node_type, {"amount": amount}) as node:
            (negative,) = node.push(frame)
        assert np.abs(negative.array("bgr24") - expected.astype(float)).max() <= 1
    assert (frame.array("bgr24") == before).all(), "the frame is shared, so it stays as it was"
    graph = folder / "graph.yaml"
    graph.write_text(graph_of(node_type))
    monkeypatch.chdir(folder)
    assert render(checked(graph, [pack])) == ""
    anyio.run(run_for_a_moment, compiled(graph, [pack]))


# --- everything else that can be looked up --------------------------------------------------------------------------


def _look_for(block: Block) -> None:
    above: list[str] = []
    for line in block.text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        if name.endswith("/") or "." in name:
            above[depth:] = [name]
            assert ROOT.joinpath(*above).exists(), f"{block}: there is no {'/'.join(above)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", prose_of(document))
    for link in links:
        if not re.match(r"[a-z]+:", link):
            assert (document.parent / link).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_stands_in_code_exists(document: Path) -> None:
    """Commands, and paths of the repository, that are named in the text."""
    words = [words for words in re.findall(r"`([^`\n]+)`", prose_of(document)) if words.strip()]
    for each in words:
        match each.split():
            case ["flowstream", command, *_]:
                assert command in COMMANDS, each
            case ["python3", path, *_] | [path] if re.match(r"(tools|tests|graphs|nodes|schemas)/\S+", path):
                if "NAME" not in path and "*" not in path and not path.endswith("invert.py"):
                    assert (ROOT / path).exists(), each


def test_the_table_of_node_types_is_complete() -> None:
    from flowstream_nodes import NODES

    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row)]
    assert sorted(listed) == sorted(NODES)


def test_every_command_is_shown() -> None:
    text = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if f"flowstream {name}" not in text] == []


# --- the reading of blocks itself -----------------------------------------------------------------------------------


def test_a_fence_closes_with_as_many_backticks_as_it_opened() -> None:
    text = "1. one\n\n   ````python type=x\n   '''\n   ```yaml\n   a: 1\n   ```\n   '''\n   ````\n\n```\nlast\n```\n"
    inner, last = blocks_in(text, "x.md")
    assert (inner.line, inner.end, inner.kind, inner.value("type")) == (3, 9, "python type", "x")
    assert inner.text == "'''\n```yaml\na: 1\n```\n'''\n"
    assert (last.kind, last.language, last.text) == ("", "", "last\n")


def test_a_fence_that_is_not_closed_is_found() -> None:
    with pytest.raises(ValueError, match=r"x\.md:2: the fence is not closed"):
        blocks_in("\n```sh\nls\n", "x.md")
