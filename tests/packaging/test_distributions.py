"""What is published: the wheel and the sdist hold everything that belongs in them and nothing else."""

import configparser
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE_SUFFIXES = {".css", ".html", ".ico", ".js", ".svg"}


def files(*folders: str) -> set[str]:
    """Return the files of the checkout under ``folders``, less what running it leaves there."""
    return {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist from the checkout and the wheel from the sdist, offline."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive


def wheel_names(wheel: zipfile.ZipFile) -> set[str]:
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def test_wheel_holds_both_packages_and_the_graphs(wheel: zipfile.ZipFile) -> None:
    expected = files("flowstream")
    expected |= {name.removeprefix("nodes/") for name in files("nodes")}
    expected |= {f"flowstream/{name}" for name in files("graphs")}
    assert wheel_names(wheel) == expected
    assert {"flowstream/py.typed", "flowstream_nodes/py.typed", "flowstream/graphs/hello.yaml"} <= expected
    assert any("/page/" in name and name.endswith(".html") for name in expected)


def test_wheel_holds_no_foreign_kinds_of_file(wheel: zipfile.ZipFile) -> None:
    known = {".py", ".typed", ".yaml"} | PAGE_SUFFIXES
    odd = {name for name in wheel_names(wheel) if Path(name).suffix not in known and Path(name).name != "py.typed"}
    assert odd == set()


def test_wheel_declares_command_and_packs(built: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        (entry_points,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        declared = configparser.ConfigParser()
        declared.read_string(archive.read(entry_points).decode())
        licenses = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
        assert b"Apache License" in archive.read(licenses[0])
    assert declared["console_scripts"]["flowstream"] == "flowstream.cli:main"
    assert declared["flowstream.nodes"]["flowstream"] == "flowstream_nodes"


def test_sdist_holds_what_builds_and_tests_it(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = files("flowstream", "nodes", "graphs", "schemas", "tests", "tools")
    wanted |= {"LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml"}
    wanted |= {path.name for path in ROOT.glob("requirements*.lock")}
    assert wanted <= names
    assert names - wanted <= {"PKG-INFO", ".gitignore"}
