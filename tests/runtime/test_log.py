"""Log lines: for people, for machines, without repetitions and without secrets."""

import json
import logging
import sys

import pytest

from flowstream.runtime.log import JsonLines, Repeats, Secrets, TextLines, json_line, text_line


def record(
    message: str,
    *args: object,
    node: str | None = None,
    name: str = "flowstream.node",
    level: int = logging.INFO,
    exc_info: bool = False,
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, __file__, 1, message, args, sys.exc_info() if exc_info else None)
    made.created = 1_800_000_000.25
    if node is not None:
        made.node = node
    return made


def test_a_line_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = TextLines(Secrets())
    assert lines.format(record("tape: recording to %s", "x.mp4", node="tape"))[8:] == " tape: recording to x.mp4"
    assert lines.format(record("late", level=logging.WARNING))[8:] == " warning: late"
    assert lines.format(record("lost", name="aioice.ice", level=logging.ERROR))[8:] == " error: aioice.ice: lost"


def test_a_line_for_machines() -> None:
    line = JsonLines(Secrets()).format(record("tape: recording to %s", "x.mp4", node="tape"))
    assert json.loads(line) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "info",
        "event": "log",
        "message": "recording to x.mp4",
        "node": "tape",
    }


def test_tracebacks() -> None:
    try:
        raise LookupError("no such thing")
    except LookupError:
        made = record("it failed", level=logging.ERROR, exc_info=True)
    text = TextLines(Secrets()).format(made)
    assert text.splitlines()[1] == "Traceback (most recent call last):"
    assert text.endswith("LookupError: no such thing")
    assert "LookupError: no such thing" in json.loads(JsonLines(Secrets()).format(made))["traceback"]


def test_secrets_are_shown_by_their_name() -> None:
    secrets = Secrets()
    secrets.update({"PASSWORD": "hunter22", "LONGER": "hunter22-and-more", "SHORT": "abc"})
    assert secrets.scrub("me:hunter22@host hunter22-and-more abc") == "me:$(env:PASSWORD)@host $(env:LONGER) abc"
    secrets.update({"NEW": "another one"})
    assert secrets.scrub("hunter22, another one") == "$(env:PASSWORD), $(env:NEW)"
    assert secrets.scrubbed({"a": ["hunter22", 1, None, {"b": "x hunter22"}]}) == {
        "a": ["$(env:PASSWORD)", 1, None, {"b": "x $(env:PASSWORD)"}]
    }


def test_secrets_that_json_would_write_otherwise() -> None:
    secrets = Secrets()
    secrets.update({"PASSWORD": 'quo"te\\n'})
    line = json_line("log", 'me:quo"te\\n@host', at=0, secrets=secrets, more=['quo"te\\n'])
    assert json.loads(line)["message"] == "me:$(env:PASSWORD)@host"
    assert json.loads(line)["more"] == ["$(env:PASSWORD)"]
    made = record("at %s", 'quo"te\\n')
    assert "quo" not in TextLines(secrets).format(made)


def test_a_repeated_line_is_counted() -> None:
    now = 100.0
    repeats = Repeats(lambda: now)
    passed = []

    def log(message: str, *args: object, node: str = "a") -> None:
        made = record(message, *args, node=node)
        if repeats.filter(made):
            passed.append(TextLines(Secrets()).format(made)[9:])

    for number in range(50):
        log("dropped %s", number)
    log("dropped %s", 1, node="b")
    log("something else")
    assert passed == ["a: dropped 0", "b: dropped 1", "a: something else"]
    now += 1.0
    log("dropped %s", 99)
    assert passed[-1] == "a: dropped 99 (and 49 more like it)"
    now += 1.0
    log("dropped %s", 100)
    assert passed[-1] == "a: dropped 100"


def test_it_remembers_no_more_than_it_must() -> None:
    now = 0.0
    repeats = Repeats(lambda: now)
    for number in range(10_000):
        now += 0.01
        repeats.filter(record(f"line {number}"))
    assert len(repeats._last) <= 400


def test_times_of_day_are_local() -> None:
    line = text_line("x", at=1_800_000_000.0)
    assert line[2] == line[5] == ":"
    assert line.endswith(" x")
