"""YAML text to values with places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.graph.diagnostics import Findings
from flowstream.graph.load import MAX_BYTES, List, Map, Scalar, load, plain_value


def loaded(text: str) -> Map:
    findings = Findings()
    root = load("g.yaml", text.encode(), findings)
    assert not findings.diagnostics
    assert isinstance(root, Map)
    return root


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("30", 30), ("-5", -5), ("0", 0), ("29.97", 29.97), ("-0.5", -0.5), ("true", True), ("FALSE", False),
        # None of these is what older YAML makes of it.
        ("2026-11-22", "2026-11-22"), ("0x720", "0x720"), ("1_000", "1_000"), ("007", "007"), ("1e3", "1e3"),
        ("on", "on"),
        ("no", "no"), ("y", "y"), ("12:30:45", "12:30:45"), (".5", ".5"), ("5.", "5."), ("+5", "+5"), (".inf", ".inf"),
        (".nan", ".nan"), ("1" * 30, "1" * 30), ("0o17", "0o17"), ("16:9", "16:9"), ("2.5M", "2.5M"), ("null", None),
        ("~", None), ("", None), ("Null", None), ("nil", "nil"), ("\uff11", "\uff11"),
    ],
)  # fmt: skip
def test_plain_text_means_little(text: str, value: object) -> None:
    found = plain_value(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["30", "true", "null", "1.10", ""])
def test_quoted_text_stays_text(text: str) -> None:
    value = loaded(f'a: "{text}"').get("a")
    assert isinstance(value, Scalar)
    assert value.value == text


def test_places_of_keys_and_values() -> None:
    root = loaded("a: 1\nnodes:\n  x: {k: 'v w', l: [1, two]}\n")
    nodes = root.get("nodes")
    assert isinstance(nodes, Map)
    x = nodes.entries["x"]
    assert (x.key.span.line, x.key.span.column, x.key.span.length) == (3, 3, 1)
    assert isinstance(x.value, Map)
    k = x.value.entries["k"].value
    assert (k.span.line, k.span.column, k.span.length) == (3, 10, 5)
    items = x.value.get("l")
    assert isinstance(items, List)
    assert [(item.span.line, item.span.column) for item in items.items] == [(3, 21), (3, 24)]


def test_columns_count_characters_and_a_byte_order_mark_counts_nothing() -> None:
    findings = Findings()
    root = load("g.yaml", "é: 'ü'\n".encode("utf-8-sig"), findings)
    assert isinstance(root, Map)
    assert root.entries["é"].value.span.column == 4


def test_an_alias_is_the_value_of_its_anchor() -> None:
    root = loaded("a: &x {k: 1}\nb: *x\n")
    assert root.get("a") is root.get("b")


def test_an_alias_within_its_own_anchor_is_refused() -> None:
    findings = Findings()
    assert load("g.yaml", b"a: &x [*x]\n", findings) is None
    assert [each.code for each in findings.diagnostics] == ["FS104"]


def test_exactly_the_largest_file_is_read() -> None:
    comment = b"a: 1\n" + b"#" * (MAX_BYTES - 6) + b"\n"
    findings = Findings()
    assert load("g.yaml", comment, findings) is not None
    assert load("g.yaml", comment + b"\n", findings) is None
    assert [each.code for each in findings.diagnostics] == ["FS103"]


@given(st.text(max_size=40))
def test_a_single_quoted_text_comes_back(text: str) -> None:
    printable = "".join(c for c in text if c.isprintable() and c not in "\ufeff\ufffe\uffff")
    quoted = printable.replace("'", "''")
    value = loaded(f"a: '{quoted}'").get("a")
    assert isinstance(value, Scalar)
    assert value.value == printable
