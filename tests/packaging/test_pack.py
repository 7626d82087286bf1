"""Somebody else's pack: built, installed, listed and run, with nothing of it known to flowstream."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[1] / "pack"
FLOWSTREAM = Path(sys.executable).with_name("flowstream")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the pack's wheel and install it into a folder, both offline."""
    folder = tmp_path_factory.mktemp("acme")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(PACK)]
    install = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", str(folder / "site")]
    for command in (build, install):
        if command is install:
            command += map(str, folder.glob("flowstream_acme-1.2.3-*.whl"))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def flowstream(*arguments: str | Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line, with the pack within reach when ``site`` is given."""
    variables = {**os.environ, "PYTHONPATH": str(site or ""), "NO_COLOR": "1", "COLUMNS": "120"}
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
