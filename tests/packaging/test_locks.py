"""The lock files are in step with pyproject.toml and with one another, and pyproject.toml with what is imported."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
RUN, DEV, HEADLESS = "requirements.lock", "requirements-dev.lock", "requirements-headless.lock"


def locked(name: str) -> dict[str, str]:
    """Return the versions of a lock file by canonical name."""
    entries = re.findall(r"(?m)^([\w.-]+)==([\w.]+)", (ROOT / name).read_text(encoding="utf-8"))
    assert len(entries) == len({entry[0] for entry in entries}), "one version of each, for every Python"
    return {canonicalize_name(package): version for package, version in entries}


def wanted(group: str) -> list[Requirement]:
    """Return the dependencies and those of a dependency group, the groups that it includes resolved."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    def members(name: str) -> list[str]:
        listed: list[str] = []
        for member in project["dependency-groups"][name]:
            listed += [member] if isinstance(member, str) else members(member["include-group"])
        return listed

    return [Requirement(line) for line in project["project"]["dependencies"] + members(group)]


@pytest.mark.parametrize(("lock", "group"), [(RUN, "install"), (DEV, "dev")])
def test_every_requirement_is_locked_to_a_version_it_allows(lock: str, group: str) -> None:
    versions = locked(lock)
    for requirement in wanted(group):
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{lock} lacks {requirement.name}: run tools/lock.py"
        assert requirement.specifier.contains(versions[name]), f"{lock} has {name} {versions[name]}, not {requirement}"


def test_tests_run_on_the_versions_that_users_get() -> None:
    assert locked(RUN).items() <= locked(DEV).items()


def test_both_builds_of_opencv_are_of_one_version() -> None:
    assert locked(HEADLESS) == {"opencv-python-headless": locked(RUN)["opencv-python"]}


@pytest.mark.parametrize("lock", [RUN, DEV, HEADLESS])
def test_every_entry_has_hashes_and_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    entries = re.split(r"(?m)^(?=\w)", text)[1:]
    assert len(entries) == len(locked(lock))
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text


def imported(*folders: str) -> dict[str, Path]:
    """Return the top-level modules that the Python files of ``folders`` import, each with a file that does."""
    found: dict[str, Path] = {}
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            found |= {name.partition(".")[0]: path for name in names}
    return found


@pytest.mark.parametrize(
    ("group", "folders"), [("install", ("flowstream", "nodes")), ("dev", ("flowstream", "nodes", "tests", "tools"))]
)
def test_everything_imported_is_asked_for_by_name(group: str, folders: tuple[str, ...]) -> None:
    asked = {canonicalize_name(requirement.name) for requirement in wanted(group)}
    asked |= {"flowstream", "opencv-python-headless", "pytest", "trio"}  # the last two where the user has them
    brought = importlib.metadata.packages_distributions()
    for module, path in imported(*folders).items():
        distributions = {canonicalize_name(name) for name in brought.get(module, ())}
        if module not in sys.stdlib_module_names and distributions:
            assert distributions & asked, (
                f"{path.relative_to(ROOT)} imports {module}, which pyproject.toml does not name"
            )
