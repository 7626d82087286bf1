"""Every case file gives its exact text, and every code of the catalog has one."""

import re

import pytest

from flowstream.errors import GraphError
from flowstream.graph.catalog import CATALOG
from tests.graph.cases import FOLDER, case_names, outcome


@pytest.mark.parametrize("kind_and_name", [(kind, name) for kind in ("valid", "invalid") for name in case_names(kind)])
def test_case_gives_its_text(kind_and_name: tuple[str, str]) -> None:
    kind, name = kind_and_name
    expected = (FOLDER / kind / f"{name}.txt").read_text()
    assert outcome(name) == expected


@pytest.mark.parametrize("kind", ["valid", "invalid"])
def test_case_names_say_what_is_found(kind: str) -> None:
    for name in case_names(kind):
        text = (FOLDER / kind / f"{name}.txt").read_text()
        for code in re.findall(r"FS\d{3}", name):
            assert re.search(rf"\b{code}\b", text.replace(name, "")), name


def test_every_code_has_a_case() -> None:
    found: set[str] = set()
    for kind in ("valid", "invalid"):
        for name in case_names(kind):
            text = (FOLDER / kind / f"{name}.txt").read_text().replace(name, "")
            found |= set(re.findall(r"\bFS\d{3}\b", text))
    assert found == set(CATALOG)


def test_catalog_entries_are_sentences() -> None:
    for code, kind in CATALOG.items():
        assert re.fullmatch(r"FS[123]\d\d", code)
        assert kind.title.strip(), code
        assert not kind.title.endswith("."), code
        assert kind.explanation.endswith("."), code


def test_a_graph_error_lists_all_its_findings() -> None:
    text = str(GraphError(()))
    assert text == ""
