"""``flowstream draw``: what is drawn, and where it is written."""

from pathlib import Path

import pytest

from tests.cli.calling import Call
from tests.cli.test_commands import imported_by

BEGINNINGS = {"mermaid": "flowchart LR\n", "dot": 'digraph "hello" {\n', "svg": "<svg "}


def test_mermaid_unless_told_otherwise(call: Call) -> None:
    called = call("draw", "hello")
    assert called.status == 0
    assert called.out.startswith(BEGINNINGS["mermaid"])


@pytest.mark.parametrize("form", BEGINNINGS)
def test_formats(form: str, call: Call) -> None:
    assert call("draw", "hello", "--format", form).out.startswith(BEGINNINGS[form])


@pytest.mark.parametrize(
    ("name", "options", "form"),
    [
        ("hello.svg", [], "svg"),
        ("hello.SVG", [], "svg"),
        ("hello.mmd", [], "mermaid"),
        ("hello.dot", [], "dot"),
        ("hello.txt", ["--format", "svg"], "svg"),
        ("hello.svg", ["--format", "dot"], "dot"),
    ],
)
def test_files(name: str, options: list[str], form: str, call: Call, here: Path) -> None:
    (here / name).write_text("what was there before")
    called = call("draw", "hello", "-o", name, *options)
    assert (called.status, called.out) == (0, "")
    assert (here / name).read_text().startswith(BEGINNINGS[form])


def test_an_ending_that_says_nothing(call: Call, here: Path) -> None:
    called = call("draw", "hello", "-o", "hello.png")
    assert called.status == 2
    assert "hello.png: no format is known by this ending. End it in .svg, .mmd, .dot, or say --format." in called.err
    assert not (here / "hello.png").exists()


def test_a_file_that_cannot_be_written(call: Call) -> None:
    called = call("draw", "hello", "-o", "nowhere/hello.svg")
    assert called.status == 1
    assert "nowhere/hello.svg: No such file or directory" in called.err


def test_a_graph_with_a_mistake_leaves_no_file(call: Call, here: Path) -> None:
    (here / "graph.yaml").write_text("nodes: {a: {type: nothing-like-it}}")
    called = call("draw", "graph.yaml", "-o", "graph.svg")
    assert called.status == 1
    assert "graph.yaml:1:" in called.err
    assert not (here / "graph.svg").exists()


def test_check_does_not_load_what_draws() -> None:
    drawing = {f"flowstream.graph.{module}" for module in ("draw", "svg", "layout", "lanes", "ordering", "heights")}
    assert not imported_by("check", "hello") & drawing
    assert drawing <= imported_by("draw", "hello", "--format", "svg")
