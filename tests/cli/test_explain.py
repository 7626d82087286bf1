"""explain: one code, several, all of them, and words that are none."""

import textwrap
from pathlib import Path

import pytest

from flowstream.graph.catalog import CATALOG
from flowstream.graph.examples import EXAMPLES
from tests.cli.calling import Call
from tests.cli.test_commands import imported_by


def test_a_code(call: Call) -> None:
    called = call("explain", "FS301")
    assert called.status == 0
    assert called.err == ""
    title, _, rest = called.out.partition("\n\n")
    assert title == "FS301 unknown node"
    said, wrong, right = (part.strip("\n") for part in rest.replace("right:\n", "wrong:\n").split("wrong:\n"))
    assert " ".join(said.split()) == CATALOG["FS301"].explanation
    assert "    encode: {type: hw-encode, from: patern}\n" in wrong
    assert "    hint: did you mean pattern?" in wrong
    assert right.splitlines() == [
        "  nodes:",
        "    pattern: {type: test-pattern}",
        "    encode: {type: hw-encode, from: pattern}",
        "    out: {type: webrtc-out, from: encode}",
        "",
        "  $ flowstream check graph.yaml",
        "  no errors",
    ]
    assert "\033" not in called.out


@pytest.mark.parametrize("code", ["FS102", "FS105", "FS208", "FS301", "FS321"])
def test_a_finding_is_what_check_says(code: str, call: Call, here: Path) -> None:
    content = EXAMPLES[code][0].files["graph.yaml"]
    (here / "graph.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    finding = call("check", "graph.yaml").out.partition("\n\n")[0]
    assert textwrap.indent(finding, "  ") in call("explain", code).out


def test_a_warning_is_called_one(call: Call) -> None:
    assert call("explain", "FS322").out.startswith("FS322 output not used (warning)\n")


def test_lower_case_and_several(call: Call) -> None:
    called = call("explain", "fs305", "FS120", "FS305")
    assert called.status == 0
    assert [line for line in called.out.splitlines() if line in ("FS305 payload mismatch", "FS120 unset variable")] == [
        "FS305 payload mismatch",
        "FS120 unset variable",
    ]


def test_what_cannot_be_seen_is_said(call: Call) -> None:
    assert "wrong (the last two lines begin with a tab):" in call("explain", "FS105").out
    assert "  ... and 24,998 more lines like these\n" in call("explain", "FS103").out
    assert "  (and 200 x FS301 unknown node)\n" in call("explain", "FS199").out


def test_files_that_the_right_example_has_from_the_wrong_one_are_not_repeated(call: Call) -> None:
    out = call("explain", "FS304").out
    assert (out.count("# acme/nodes.py"), out.count("# graph.yaml")) == (1, 2)
    assert out.count("$ flowstream check --nodes acme graph.yaml") == 2
    assert "right:\n\n  $ STUDIO='Studio 1' flowstream check graph.yaml\n" in call("explain", "FS121").out


def test_the_text_fits_the_terminal(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, most in ((50, 50), (300, 100)):
        monkeypatch.setenv("COLUMNS", str(columns))
        text = call("explain", "FS208").out.partition("wrong:")[0]
        assert most - 15 < max(map(len, text.splitlines())) <= most


def test_colours_on_a_terminal(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    out = call("explain", "FS301").out
    assert "\033[31m^^^^^^\033[0m" in out
    assert "\033[32m  encode: {type: hw-encode, from: pattern}\033[0m" in out
    assert out.count("\033[32m") == 1


def test_all_codes(call: Call) -> None:
    called = call("explain")
    assert called.status == 0
    for code, kind in CATALOG.items():
        assert f"\n  {code}  {kind.title}" in called.out
    assert "\nFS2xx  nodes and their settings\n  FS201  node id\n" in called.out
    assert "\n  FS322  output not used  (warning)\n" in called.out


@pytest.mark.parametrize(
    ("word", "guess"),
    [
        ("FS-305", "Did you mean FS305 (payload mismatch)?"),
        ("payload", "Did you mean FS305 (payload mismatch)?"),
        ("loops", "Did you mean FS309 (loop)?"),
        ("qwertz", "`flowstream explain` lists them all."),
    ],
)
def test_what_is_no_code(word: str, guess: str, call: Call) -> None:
    called = call("explain", "FS301", word)
    assert (called.status, called.out) == (2, "")
    assert f"there is no code '{word}'. {guess}" in " ".join(called.err.split())


def test_for_programs(call: Call) -> None:
    listed = call("explain", "--format", "json").json
    assert [each["code"] for each in listed] == list(CATALOG)
    assert set(listed[0]) == {"code", "title", "severity", "explanation"}
    (one,) = call("explain", "fs125", "--format", "json").json
    assert (one["code"], one["title"], one["severity"]) == ("FS125", "--set names no variable", "error")
    assert one["wrong"]["command"] == "flowstream check --set bit-rate=1M graph.yaml"
    assert one["wrong"]["files"] == EXAMPLES["FS125"][0].files
    assert [each["code"] for each in one["wrong"]["diagnostics"]] == ["FS125"]
    assert one["right"]["diagnostics"] == []


def test_check_does_not_load_the_examples() -> None:
    assert "flowstream.graph.examples" not in imported_by("check", "hello")
