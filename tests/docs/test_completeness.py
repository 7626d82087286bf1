"""Nothing is left out: what there is, is documented; what is documented, is there."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

import flowstream
import flowstream.testing
from flowstream.cli import COMMANDS
from flowstream_nodes import NODES

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["flowstream", "nodes", "graphs", "schemas", "tests", "tools", ".ci"]
FILES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", ".gitignore"]
LEFT_OVER = re.compile(
    "|".join(
        [
            r"/wor[k]/",  # where somebody once built it
            r"\bshare[d]/",
            r"\b(DESIG[N]|STYL[E]|BRIE[F])\b",  # texts that are not here
            r"(?<!\.)\b[Pp]rototyp[e]",  # but not JavaScript's .prototype
            r"\b(TOD[O]|FIXM[E]|XX[X])\b",
            r"\b[Ii]ssue \d",
        ]
    )
)


def files() -> Iterator[Path]:
    """The text files of the repository, without what tools left there."""
    yield from (ROOT / name for name in FILES)
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            parts = path.relative_to(ROOT).parts
            if path.is_file() and not any(part == "__pycache__" or part.endswith("egg-info") for part in parts):
                yield path


def modules(*folders: str) -> list[Path]:
    inside = [ROOT / folder for folder in folders]
    return [path for path in files() if path.suffix == ".py" and any(map(path.is_relative_to, inside))]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


# --- node types -----------------------------------------------------------------------------------------------------


def declared(path: Path) -> Iterator[tuple[str, str]]:
    """Type id and name of each node type that a file defines."""
    for each in parsed(path).body:
        match each:
            case ast.ClassDef(name=name, keywords=keywords):
                for keyword in keywords:
                    if keyword.arg == "type" and isinstance(keyword.value, ast.Constant):
                        yield str(keyword.value.value), name
            case ast.FunctionDef(name=name, decorator_list=[ast.Call(func=ast.Name("node"), args=[ast.Constant(id)])]):
                yield str(id), name


def test_the_index_has_every_node_type_of_every_file() -> None:
    nodes = ROOT / "nodes"
    found = {
        type_id: f"{'.'.join(path.relative_to(nodes).with_suffix('').parts)}:{name}"
        for path in modules("nodes")
        for type_id, name in declared(path)
    }
    assert found == NODES


def test_every_node_type_has_its_schema_and_nothing_else_has_one() -> None:
    assert {path.name for path in (ROOT / "schemas" / "nodes").iterdir()} == {f"{id}.schema.json" for id in NODES}


# --- names ----------------------------------------------------------------------------------------------------------


def described(name: str, module: ModuleType) -> bool:
    """Whether a public name says what it is: in its docstring, or for a value in the text below it where it is set."""
    value = getattr(module, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return bool(vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__)
    return any(name in values_described_in(path) for path in modules("flowstream"))


@cache
def values_described_in(path: Path) -> frozenset[str]:
    body = parsed(path).body
    return frozenset(
        target.id
        for each, below in pairwise(body)
        if isinstance(each, ast.Assign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        for target in each.targets
        if isinstance(target, ast.Name)
    )


@pytest.mark.parametrize("module", [flowstream, flowstream.testing], ids=lambda module: module.__name__)
def test_every_public_name_says_what_it_is(module: ModuleType) -> None:
    assert sorted(module.__all__) == sorted(set(module.__all__))
    assert [name for name in module.__all__ if name != "__version__" and not described(name, module)] == []


@pytest.mark.parametrize("module", [flowstream, flowstream.testing], ids=lambda module: module.__name__)
def test_every_public_method_says_what_it_does(module: ModuleType) -> None:
    silent = []
    for name in module.__all__:
        value = getattr(module, name)
        for member, given in vars(value).items() if inspect.isclass(value) else ():
            is_method = inspect.isfunction(given) or isinstance(given, property | classmethod | staticmethod)
            if is_method and not member.startswith("_") and not inspect.getdoc(getattr(value, member)):
                silent.append(f"{name}.{member}")
    assert silent == []


def test_every_module_says_what_it_is() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in modules("flowstream", "nodes", "tools")}
    assert [str(path) for path, text in texts.items() if text.strip() and not ast.get_docstring(parsed(path))] == []


# --- files ----------------------------------------------------------------------------------------------------------


def test_no_file_speaks_of_how_it_came_about() -> None:
    found = []
    for path in files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:  # a picture, or a case of bytes that are no text
            continue
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
            for number, line in enumerate(lines, 1)
            if LEFT_OVER.search(line)
        ]
    assert found == []


def test_the_version_is_the_same_everywhere() -> None:
    declared_version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared_version is not None
    assert declared_version[1] == flowstream.__version__


# --- changelog ------------------------------------------------------------------------------------------------------

SECTIONS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def changelog() -> list[tuple[str, str, str]]:
    """Release, section and text of every entry."""
    found, release, section = [], "", ""
    for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            release = line.removeprefix("## ")
        elif line.startswith("### "):
            section = line.removeprefix("### ")
        elif line.startswith("- "):
            found.append((release, section, line.removeprefix("- ")))
    return found


def exists(name: str) -> bool:
    """Whether an entry's name means something: a node type, a command, a module, or a path of the repository."""
    if name.startswith("flowstream "):
        return name.removeprefix("flowstream ") in COMMANDS
    if name.startswith("flowstream."):
        return importlib.import_module(name) is not None
    return name in NODES or (ROOT / name).exists()


def test_the_changelog_has_an_unreleased_part_and_known_sections() -> None:
    entries = changelog()
    assert entries[0][0] == "[Unreleased]"
    assert {section for _, section, _ in entries} <= set(SECTIONS)
    for release in {release for release, _, _ in entries} - {"[Unreleased]"}:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", release)


def test_every_entry_of_the_changelog_begins_with_what_it_is_about() -> None:
    for _, section, text in changelog():
        named = re.match(r"`([^`]+)`: \S", text)
        assert named is not None, text
        assert section == "Removed" or exists(named[1]), text


def test_every_node_type_and_command_is_in_the_changelog() -> None:
    named = {text.split("`")[1] for _, _, text in changelog()}
    assert {*NODES, *(f"flowstream {name}" for name in COMMANDS)} - named == set()
