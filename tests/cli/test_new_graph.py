"""new graph."""

import shlex
from pathlib import Path

import pytest

from flowstream.cli.new import templates
from tests.cli.calling import Call


def commands(out: str) -> dict[str, list[str]]:
    """The commands that are printed, by their name."""
    lines = [line.strip().rpartition("  ")[0] for line in out.splitlines() if line.startswith("  flowstream ")]
    return {words[1]: words[2:] for words in map(shlex.split, lines)}


def test_without_a_word_it_needs_no_device(call: Call, here: Path) -> None:
    called = call("new", "graph", "studio")
    assert called.status == 0
    assert called.out.splitlines() == [
        "studio.yaml  A moving test picture with a tone, shown in a browser. It needs no camera and no screen.",
        "  flowstream check studio.yaml  finds every mistake in it",
        "  flowstream plan studio.yaml  shows what would run",
        "  flowstream run studio.yaml  runs it",
        "For completion in editors: flowstream schema > graph.schema.json, and as the first line of the graph",
        "  # yaml-language-server: $schema=graph.schema.json",
    ]
    text = (here / "studio.yaml").read_text()
    assert text == templates()["pattern"].read_text().replace("pattern.yaml", "studio.yaml")
    assert "flowstream run studio.yaml" in text


@pytest.mark.parametrize("template", templates())
def test_what_is_printed_works(template: str, call: Call, here: Path) -> None:
    called = call("new", "graph", "mine", "--template", template, "--dir", "my graphs")
    assert called.status == 0
    printed = commands(called.out)
    for name in ("check", "plan"):
        done = call(name, *printed[name])
        assert done.status == 0, done.err
        assert "warning" not in done.out
    assert call("check", *printed["check"]).out.startswith("my graphs/mine.yaml: no errors")
    assert printed["run"] == printed["check"]
    assert f"flowstream run {shlex.join(printed['run'])}" in (here / "my graphs" / "mine.yaml").read_text()


def test_a_schema_that_is_there_is_named(call: Call, here: Path) -> None:
    (here / "graph.schema.json").write_text(call("schema").out)
    called = call("new", "graph", "studio.yaml")
    assert called.status == 0
    assert "schema" not in called.out
    assert (
        (here / "studio.yaml").read_text().startswith("# yaml-language-server: $schema=graph.schema.json\n# A moving")
    )
    assert call("check", "studio.yaml").status == 0


def test_the_list_has_every_template(call: Call, here: Path) -> None:
    called = call("new", "graph", "--list")
    assert called.status == 0
    assert [line.split()[0] for line in called.out.splitlines()] == list(templates())
    assert called.out.startswith("pattern  A moving test picture")
    assert list(here.glob("*.yaml")) == []


def test_nothing_is_overwritten(call: Call, here: Path) -> None:
    (here / "studio.yaml").write_text("mine\n")
    called = call("new", "graph", "studio")
    assert called.status == 2
    assert "studio.yaml: there already; nothing was written." in called.err
    assert (here / "studio.yaml").read_text() == "mine\n"
    (here / "dangling.yaml").symlink_to("nowhere")
    assert call("new", "graph", "dangling").status == 2
    assert not (here / "nowhere").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My Studio", "Write 'my-studio'."), ("../x", "A folder is given by --dir. Write 'x'."), ("", "is no name"),
        ("-x", "Write 'x'."), ("a" * 80, "is no name"), ("ä", "is no name"), ("a.b", "Write 'a-b'."),
    ],
)  # fmt: skip
def test_names_that_cannot_be(name: str, said: str, call: Call, here: Path) -> None:
    called = call("new", "graph", "--", name)
    assert called.status == 2
    assert said in " ".join(called.err.split())
    assert list(here.glob("*.yaml")) == []


def test_a_template_that_is_not_there(call: Call, here: Path) -> None:
    assert (
        "there is no template 'scren'. Did you mean 'screen'?" in call("new", "graph", "x", "--template", "scren").err
    )
    assert "There are pattern, camera," in call("new", "graph", "x", "--template", "quux").err
    assert call("new", "graph").status == 2
    assert "Missing argument 'NAME'." in call("new", "graph").err


def test_a_file_in_the_place_of_the_folder(call: Call, here: Path) -> None:
    (here / "mine").write_text("")
    called = call("new", "graph", "x", "--dir", "mine")
    assert (called.status, "mine: " in called.err) == (1, True)
