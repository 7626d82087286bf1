"""flowstream fmt: files in place, --check, --diff, standard input."""

import io
import os
from pathlib import Path

import pytest

from tests.cli.calling import Call

ODD = "nodes:\n    a: {from: b,type: t}   # one\n"
USUAL = "nodes:\n  a: {type: t, from: b} # one\n"


class Bytes(io.TextIOWrapper):
    """Standard input or output that holds bytes."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")


def test_files_are_written_in_place(call: Call, here: Path) -> None:
    (here / "odd.yaml").write_text(ODD)
    (here / "usual.yaml").write_text(USUAL)
    before = (here / "usual.yaml").stat()
    called = call("fmt", "odd.yaml", "usual.yaml")
    assert (called.status, called.out, called.err) == (0, "odd.yaml: written in the usual form\n", "")
    assert (here / "odd.yaml").read_text() == USUAL
    after = (here / "usual.yaml").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    again = call("fmt", "odd.yaml", "usual.yaml")
    assert (again.status, again.out) == (0, "nothing to change\n")
    assert sorted(path.name for path in here.glob("*.yaml*")) == ["odd.yaml", "usual.yaml"]


def test_mode_stays_and_links_are_followed(call: Call, here: Path) -> None:
    (here / "there").mkdir()
    target = here / "there" / "graph.yaml"
    target.write_text(ODD)
    target.chmod(0o640)
    (here / "link.yaml").symlink_to(target)
    assert call("fmt", "link.yaml").status == 0
    assert (here / "link.yaml").is_symlink()
    assert target.read_text() == USUAL
    assert target.stat().st_mode & 0o777 == 0o640
    assert os.listdir(here / "there") == ["graph.yaml"]


def test_check_names_what_would_change_and_changes_nothing(call: Call, here: Path) -> None:
    (here / "odd.yaml").write_text(ODD)
    (here / "usual.yaml").write_text(USUAL)
    called = call("fmt", "--check", "usual.yaml", "odd.yaml")
    assert (called.status, called.out) == (1, "odd.yaml: not in the usual form\n")
    assert (here / "odd.yaml").read_text() == ODD
    assert call("fmt", "--check", "usual.yaml").status == 0


def test_a_diff(call: Call, here: Path) -> None:
    (here / "odd.yaml").write_text(ODD[:-1])
    called = call("fmt", "--diff", "odd.yaml")
    assert called.status == 0
    assert called.out == (
        "--- odd.yaml\n+++ odd.yaml (usual form)\n@@ -1,2 +1,2 @@\n nodes:\n"
        "-    a: {from: b,type: t}   # one\n\\ No newline at end of file\n+  a: {type: t, from: b} # one\n"
    )
    assert (here / "odd.yaml").read_text() == ODD[:-1]
    both = call("fmt", "--diff", "--check", "odd.yaml")
    assert (both.status, both.out, both.err) == (1, called.out, "odd.yaml: not in the usual form\n")


def test_a_file_that_cannot_be_read_as_a_graph_is_left_alone(call: Call, here: Path) -> None:
    (here / "bad.yaml").write_text("nodes: {a: 1\n")
    (here / "odd.yaml").write_text(ODD)
    called = call("fmt", "bad.yaml", "odd.yaml", "none.yaml")
    assert called.status == 1
    assert "bad.yaml:2:1: FS104 YAML syntax" in called.err
    assert "FS101 file not readable\n  none.yaml: there is no such file" in called.err
    assert called.out == "odd.yaml: written in the usual form\n"
    assert (here / "bad.yaml").read_text() == "nodes: {a: 1\n"


def test_a_file_without_a_usual_form_is_left_alone(call: Call, here: Path) -> None:
    (here / "graph.yaml").write_text('a:  "\u2028"\n', encoding="utf-8")
    called = call("fmt", "graph.yaml")
    assert called.status == 1
    assert called.err.startswith("graph.yaml:1:6: U+2028 ends a line for some programs")
    assert (here / "graph.yaml").read_text(encoding="utf-8") == 'a:  "\u2028"\n'


def test_a_file_that_cannot_be_written_stays_whole(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "odd.yaml").write_text(ODD)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    called = call("fmt", "odd.yaml")
    assert (called.status, called.err) == (1, "odd.yaml cannot be written: No space left on device\n")
    assert (here / "odd.yaml").read_text() == ODD
    assert [path.name for path in here.iterdir() if path.name != ".run"] == ["odd.yaml"]


def test_a_read_only_file_is_left_alone(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "odd.yaml").write_text(ODD)
    monkeypatch.setattr("os.access", lambda *_: False)
    called = call("fmt", "odd.yaml")
    assert (called.status, called.err) == (1, "odd.yaml cannot be written: the file is read-only\n")
    assert (here / "odd.yaml").read_text() == ODD


@pytest.mark.parametrize(("content", "status", "out"), [(ODD, 0, USUAL), (USUAL, 0, USUAL), ("a: [", 1, "")])
def test_standard_input(content: str, status: int, out: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Bytes(content.encode()))
    called = call("fmt", "-")
    assert (called.status, called.out) == (status, out)
    assert ("<stdin>:1:5: FS104" in called.err) is bool(status)


def test_standard_input_is_checked_too(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Bytes(ODD.encode()))
    called = call("fmt", "--check", "-")
    assert (called.status, called.out) == (1, "<stdin>: not in the usual form\n")


def test_standard_input_stands_alone(call: Call) -> None:
    called = call("fmt", "-", "graph.yaml")
    assert called.status == 2
    assert "stands alone" in called.err
