"""Somebody else's pack: built, installed, listed, run and tested, with nothing of it known to flowstream.

And one that `flowstream new node --package` has just written.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
PACK = ROOT / "tests" / "pack"
FLOWSTREAM = Path(sys.executable).with_name("flowstream")


def run(*command: str | Path, **variables: str) -> str:
    """Run a command that succeeds."""
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(project: Path, folder: Path) -> Path:
    """Build a wheel offline and give its path."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, project)
    return max(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime_ns)


def install(site: Path, *wheels: Path) -> None:
    """Install wheels into a folder, offline and without what they depend on, which is here."""
    run(sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", site, *wheels)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """flowstream's own wheel."""
    return build(ROOT, tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack's wheel in a folder."""
    folder = tmp_path_factory.mktemp("acme")
    install(folder / "site", build(PACK, folder))
    return folder / "site"


def flowstream(*arguments: str | Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line, with the pack within reach when ``site`` is given."""
    within = [*([str(site)] if site else []), str(ROOT), str(ROOT / "nodes")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(within), "NO_COLOR": "1", "COLUMNS": "120"}
    return subprocess.run(
        [FLOWSTREAM, *arguments], env=variables, capture_output=True, text=True, check=False, timeout=60
    )


def test_both_forms_are_listed(installed: Path) -> None:
    listed = flowstream("nodes", site=installed)
    assert listed.returncode == 0, listed.stderr
    assert re.search(r"(?m)^\s*acme/mirror\s+Mirror each picture", listed.stdout), listed.stdout
    assert re.search(r"(?m)^\s*acme/blur\s+Blur each picture", listed.stdout), listed.stdout
    assert "acme/" not in flowstream("nodes").stdout


def test_one_is_described_with_its_settings(installed: Path) -> None:
    told = flowstream("nodes", "acme/blur", site=installed)
    assert told.returncode == 0, told.stderr
    assert "radius" in told.stdout
    assert "Radius, in pixels." in told.stdout


def test_graph_of_both_runs_to_its_end(installed: Path) -> None:
    run = flowstream("run", PACK / "graph.yaml", site=installed)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr


def test_graph_without_the_pack_says_what_to_install() -> None:
    check = flowstream("check", PACK / "graph.yaml")
    assert check.returncode != 0
    told = check.stdout + check.stderr
    assert "graph.yaml:5:18" in told
    assert "no pack named 'acme' is installed" in told
    assert "Traceback" not in told


# --- its own tests, with the plugin that pytest finds by itself -----------------------------------------------------


def outcome_of(project: Path, site: Path) -> str:
    """What pytest says about the tests of a project whose pack and flowstream are installed in ``site``."""
    return run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", project,
        "-c", project / "pyproject.toml", project / "tests", PYTHONPATH=str(site), COLUMNS="120",
    )  # fmt: skip


def test_its_tests_use_the_kit_and_pass(ours: Path, installed: Path, tmp_path: Path) -> None:
    shutil.copytree(PACK, tmp_path / "acme")
    site = tmp_path / "site"
    shutil.copytree(installed, site)
    install(site, ours)
    assert "4 passed" in outcome_of(tmp_path / "acme", site)


def test_a_leak_in_its_tests_is_found(ours: Path, installed: Path, tmp_path: Path) -> None:
    project, site = tmp_path / "acme", tmp_path / "site"
    shutil.copytree(PACK, project)
    shutil.copytree(installed, site)
    install(site, ours)
    (project / "tests" / "test_nodes.py").write_text(
        "import socket\nkept = []\n\ndef test_leaves():\n    kept.append(socket.socket())\n"
        "\ndef test_tidies_up():\n    kept.pop().close()\n"
    )
    with pytest.raises(AssertionError, match=r"the test leaves open: open socket:"):
        outcome_of(project, site)


# --- a new one ------------------------------------------------------------------------------------------------------


def test_a_new_package_is_built_installed_tested_and_run(ours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    written = run(
        FLOWSTREAM, "new", "node", "deep-dark", "--package", "flowstream-night", "--license", "MIT", "--dir", folder
    )
    project = folder / "flowstream-night"
    assert "the package flowstream-night with the node type night/deep-dark" in written
    site = tmp_path / "site"
    dist = tmp_path / "dist"
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, project)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    assert sdist.name == "flowstream_night-0.1.0.tar.gz"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read("flowstream_night-0.1.0.dist-info/METADATA").decode()
    assert names == {f"flowstream_night/{name}" for name in ("__init__.py", "deep_dark.py", "py.typed")}
    assert "License-Expression: MIT" in metadata
    install(site, wheel, ours)
    assert "2 passed" in outcome_of(project, site)
    described = flowstream("nodes", "night/deep-dark", site=site)
    assert described.returncode == 0, described.stderr
    checked = flowstream("check", project / "deep_dark.yaml", site=site)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    graph = tmp_path / "short.yaml"
    graph.write_text(
        "nodes:\n  pattern: {type: test-pattern, size: 160x90, duration: 1s}\n"
        "  dark: {type: night/deep-dark, from: pattern}\n  end: {type: discard, from: dark}\n"
    )
    ran = flowstream("run", graph, site=site)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert not [name for name in project.rglob("*") if name.suffix == ".pyc" and "__pycache__" not in name.parts]


def test_the_files_of_a_new_package_are_what_their_readers_take(tmp_path: Path) -> None:
    run(FLOWSTREAM, "new", "node", "dark", "--package", "flowstream-night", "--dir", tmp_path)
    project = tmp_path / "flowstream-night"
    declared = tomllib.loads((project / "pyproject.toml").read_text())
    assert declared["project"]["license"] == "Apache-2.0"
    assert declared["project"]["entry-points"]["flowstream.nodes"] == {"night": "flowstream_night"}
    assert (project / "LICENSE").read_text().startswith("SPDX-License-Identifier: Apache-2.0\n")
    ci = YAML(typ="safe", pure=True).load((project / ".github" / "workflows" / "check.yaml").read_text())
    assert [step["run"] for step in ci["jobs"]["check"]["steps"] if "run" in step][-1] == "python -m pytest"
    run(
        sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E,F,I,W,B,UP", "--line-length", "120", project
    )
    readme = (project / "README.md").read_text()
    assert "@" not in readme.replace("https://", "")


def test_a_pack_for_another_node_api_is_one_sentence(installed: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(installed, site)
    init = site / "flowstream_acme" / "__init__.py"
    init.write_text("NODE_API = 2\nfrom flowstream import NotThereYet\n")
    check = flowstream("check", PACK / "graph.yaml", site=site)
    assert check.returncode == 1
    told = check.stdout + check.stderr
    assert (
        "node pack 'acme' (flowstream-acme 1.2.3) is written for version 2 of the node API, "
        "and this flowstream has version 1" in told
    )
    assert "install a newer flowstream" in told
    assert "Traceback" not in told
