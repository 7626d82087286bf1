"""set, reload, revisions, rollback, events and stop: changing a run from another terminal."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.calling import Call, running

TEXT = """\
# What ticks
nodes:
  ticks: {type: odd/ticks, every_ms: 5}  # often
  end: {type: discard, from: ticks}
"""


@pytest.fixture
def file(here: Path) -> Path:
    path = here / "it.yaml"
    path.write_text(TEXT)
    return path


def test_a_run_is_changed_and_goes_back(call: Call, file: Path) -> None:
    with running(file, "--no-watch") as run:
        run.wait_for("running")

        called = call("set", "ticks.every_ms", "7")
        assert called.status == 0
        assert called.out.splitlines() == [
            "ticks  changed in place  (every_ms 5 -> 7)",
            "what runs is not what the file says: ticks.every_ms is 7 (the file says 5), set while it runs",
        ]
        assert file.read_text() == TEXT
        assert "ticks.every_ms is 7" in call("status").out
        called = call("set", "--clear", "ticks.every_ms")
        assert (called.status, called.out) == (0, "ticks  changed in place  (every_ms 7 -> 5)\n")
        assert call("set", "--clear").out == "nothing is set\n"

        called = call("set", "ticks.every_ms", "9", "--save")
        assert called.status == 0
        assert called.out.splitlines() == ["ticks  changed in place  (every_ms 5 -> 9)", f"written into {file}"]
        assert file.read_text() == TEXT.replace("every_ms: 5", "every_ms: 9")
        assert call("reload").out == "the files are as they run\n"

        file.write_text(TEXT.replace("discard", "probe"))
        assert call("reload").out.splitlines() == [
            "ticks  changed in place  (every_ms 9 -> 5)",
            "end    replaced  (type discard -> probe)",
        ]
        file.write_text(TEXT.replace("discard", "discrad"))
        called = call("reload")
        assert called.status == 1
        assert f"{file}:4:15: FS203 " in called.err
        assert "hint: did you mean discard?" in called.err

        found = json.loads(call("revisions", "--format", "json").out)
        assert [each["number"] for each in found] == list(range(1, len(found) + 1))
        assert [each["is_running"] for each in found].count(True) == 1
        listed = call("revisions").out
        assert next(line for line in listed.splitlines() if line.startswith("*")).split()[1] == str(len(found))

        called = call("rollback", "1")
        assert called.status == 0
        assert "what runs is not what the file says: revision 1 was gone back to" in called.out
        called = call("rollback", "99")
        assert (called.status, called.err.splitlines()[0]) == (1, "there is no revision 99")

        called = call("stop")
        assert (called.status, called.out) == (0, "it is draining\n")
        assert run.ended() == 0
    assert call("stop").status == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ticks.every_ms", "often"), "every_ms takes a whole number"),
        (("tocks.every_ms", "7"), "did you mean ticks?"),
        (("ticks", "7"), "'ticks' is not NODE.FIELD, such as encode.bitrate"),
        (("ticks.type", "x"), "type belongs to the graph language"),
        (("--clear", "ticks.every_ms"), "ticks.every_ms is not set"),
    ],
)
def test_what_cannot_be_set(call: Call, file: Path, arguments: tuple[str, ...], said: str) -> None:
    with running(file) as run:
        run.wait_for("running")
        called = call("set", *arguments)
        assert (called.status, called.out) == (1, "")
        assert said in called.err
        told = call("set", *arguments, "--format", "json")
        assert told.status == 1
        assert said in told.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("set",), "what to set? flowstream set NODE.FIELD VALUE"),
        (("set", "ticks.every_ms"), "what to set?"),
        (("set", "--clear", "a.b", "7"), "--clear takes NODE.FIELD at most."),
        (("set", "--clear", "--save"), "--clear takes NODE.FIELD at most."),
        (("rollback", "0"), "0 is not in the range x>=1"),
    ],
)
def test_what_makes_no_sense(call: Call, arguments: tuple[str, ...], said: str) -> None:
    called = call(*arguments)
    assert called.status == 2
    assert said in called.err


def test_events_are_followed_from_one_on_to_the_end_of_the_run(call: Call, file: Path) -> None:
    command = [sys.executable, "-m", "flowstream", "events", "--after", "none-0", "--format", "json"]
    with running(file, "--no-watch") as run:
        run.wait_for("running")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            events = [json.loads(following.stdout.readline())]
            call("set", "ticks.every_ms", "7")
            call("stop")
            events += [json.loads(line) for line in following.stdout]
        assert following.returncode == 0
        assert run.ended() == 0
    names = [each["event"] for each in events]
    assert names[0] == "running"
    assert {"applied", "draining"} <= set(names)
    assert events[names.index("applied")]["cause"] == "ticks.every_ms was set to 7"
    assert all(re.fullmatch(r"[0-9a-f]{8}-\d+", each["id"]) for each in events)


@pytest.mark.parametrize(
    "command", [("set", "a.b", "1"), ("reload",), ("revisions",), ("rollback",), ("events",), ("stop",)]
)
def test_nobody_is_there_to_ask(call: Call, command: tuple[str, ...]) -> None:
    called = call(*command)
    assert called.status == 1
    assert "no graph is running" in called.err
    assert "start one: flowstream run GRAPH" in called.err
