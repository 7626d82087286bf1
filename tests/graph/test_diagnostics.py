"""How findings are collected and shown."""

from flowstream.errors import Diagnostic, Place, Related
from flowstream.graph.diagnostics import MAX_FINDINGS, Findings, Span, did_you_mean, listed, printable, render, to_json

FINDING = Diagnostic(
    code="FS305",
    title="payload mismatch",
    message="out.video takes EncodedPacket, but pattern.video gives VideoFrame",
    place=Place("g.yaml", 4, 12),
    hint="put an encoder between them",
    length=7,
    related=(Related(Place("g.yaml", 2, 3), "pattern is here", "  pattern: {type: pattern}"),),
    source="out: {from: pattern}",
)


def test_text() -> None:
    assert render([FINDING]) == (
        "g.yaml:4:12: FS305 payload mismatch\n"
        "    4 | out: {from: pattern}\n"
        "      |            ^^^^^^^\n"
        "  out.video takes EncodedPacket, but pattern.video gives VideoFrame\n"
        "  g.yaml:2:3: pattern is here\n"
        "    2 |   pattern: {type: pattern}\n"
        "      |   ^\n"
        "  hint: put an encoder between them"
    )


def test_colours_change_nothing_else() -> None:
    import re

    coloured = render([FINDING, FINDING], colour=True)
    assert "\033[31m" in coloured
    assert re.sub(r"\033\[\d*m", "", coloured) == render([FINDING, FINDING])


def test_a_finding_without_a_place() -> None:
    assert render([Diagnostic("FS101", "file not readable", "g.yaml: there is no such file")]) == (
        "FS101 file not readable\n  g.yaml: there is no such file"
    )


def test_a_long_line_is_shown_around_the_caret() -> None:
    source = "x" * 1000 + "HERE" + "y" * 1000
    shown = render([Diagnostic("FS104", "t", "m", Place("g", 1, 1001), length=4, source=source)]).split("\n")
    assert len(shown[1]) < 180
    start = shown[1].index("HERE")
    assert shown[2][start : start + 5] == "^^^^"


def test_a_caret_stands_under_its_column_behind_tabs_and_controls() -> None:
    source = "\ta\x1b[31m: value"
    shown = render([Diagnostic("FS104", "t", "m", Place("g", 1, 10), length=5, source=source)]).split("\n")
    assert shown[1][shown[2].index("^") :] == "value"
    assert "\x1b" not in shown[1]


def test_json() -> None:
    assert to_json([FINDING]) == {
        "diagnostics": [
            {
                "code": "FS305",
                "severity": "error",
                "file": "g.yaml",
                "line": 4,
                "column": 12,
                "title": "payload mismatch",
                "message": "out.video takes EncodedPacket, but pattern.video gives VideoFrame",
                "hint": "put an encoder between them",
                "related": [{"file": "g.yaml", "line": 2, "column": 3, "message": "pattern is here"}],
            }
        ]
    }
    assert to_json([])["diagnostics"] == []


def test_findings_are_kept_once_and_sorted() -> None:
    findings = Findings()
    findings.add("FS105", Span("g", 2, 1), "b")
    findings.add("FS105", Span("g", 1, 9), "a")
    findings.add("FS105", Span("g", 1, 9), "a")
    findings.add("FS101", None, "first")
    assert [each.message for each in findings.sorted()] == ["first", "a", "b"]


def test_warnings_never_crowd_out_errors() -> None:
    findings = Findings()
    for line in range(MAX_FINDINGS + 5):
        findings.add("FS124", Span("g", line + 1, 1), "unused")
    assert not findings.has_errors
    findings.add("FS105", Span("g", 1, 1), "tab")
    assert findings.has_errors
    found = findings.sorted()
    assert "FS105" in {each.code for each in found}
    assert found[-1].message == "5 more findings of this file are not shown"


def test_secrets_are_hidden_in_every_text() -> None:
    findings = Findings()
    findings.secrets["hunter2"] = "$(env:PW)"
    findings.secrets["ab"] = "$(env:SHORT)"
    findings.add("FS208", Span("g", 1, 1), "hunter2 cab", "not hunter2", [(Span("g", 1, 1), "hunter2")])
    (found,) = findings.sorted()
    assert found.message == "$(env:PW) cab"
    assert found.hint == "not $(env:PW)"
    assert found.related[0].message == "$(env:PW)"


def test_words() -> None:
    assert listed(["a", "b", "c"], "or") == "a, b or c"
    assert listed(["a"]) == "a"
    assert listed([]) == ""
    assert did_you_mean("Max_FPS", ["max_fps", "min_fps"]) == "max_fps"
    assert did_you_mean("zebra", ["max_fps"]) is None
    assert printable("a\tb\x07\n") == "a b\N{REPLACEMENT CHARACTER}\n"
