"""Values of programs as the text of a setting: what is read back is the value."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.control.settings import text_for
from flowstream.graph.diagnostics import Findings
from flowstream.graph.load import List, Map, Scalar, Value, load
from flowstream.graph.overrides import parse_value

SCALARS = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(-1e9, 1e9).map(lambda value: round(value, 6))
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
VALUES = st.recursive(
    SCALARS, lambda each: st.lists(each, max_size=4) | st.dictionaries(KEYS, each, max_size=4), max_leaves=10
)


def read(text: str) -> Any:
    findings = Findings()
    tree = load("set", f"node.field: {text}\n".encode(), findings)
    assert not findings.has_errors, findings
    assert isinstance(tree, Map)
    return plain(tree.entries["node.field"].value)


def plain(value: Value) -> Any:
    match value:
        case Map():
            return {key: plain(entry.value) for key, entry in value.entries.items()}
        case List():
            return [plain(item) for item in value.items]
        case Scalar():
            return value.value


@given(VALUES)
def test_it_reads_back_as_what_it_is(value: Any) -> None:
    text = text_for(value, "node.field")
    assert "\n" not in text
    assert read(text) == value
    if "$(" not in text:
        assert parse_value(text) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ("1M", "1M"),
        ("25", '"25"'),
        ("null", '"null"'),
        (True, "true"),
        (1.0, "1.0"),
        (timedelta(milliseconds=250), "250ms"),
        (Fraction(16, 9), "16:9"),
        (PurePosixPath("/x/y.mp4"), "/x/y.mp4"),
        ({"max": 3, "list": [1, "2", "a, b"]}, '{max: 3, list: [1, "2", "a, b"]}'),
    ],
)
def test_the_words_of_python(value: Any, text: str) -> None:
    assert text_for(value, "node.field") == text


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (object, TypeError, "node.field: <class 'object'> cannot stand in a graph"),
        (float("nan"), ValueError, "node.field: nan has no form in plain decimals"),
        ("\ud800", ValueError, "node.field"),
        ({"a": {1, 2}}, TypeError, "node.field.a"),
    ],
)
def test_what_cannot_stand_in_a_graph(value: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as raised:
        text_for(value, "node.field")
    assert said in str(raised.value)
