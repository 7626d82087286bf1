"""The terminal: lines above, a table below, and nothing that waits for it."""

import io
import os
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from flowstream.cli import screen as screens
from flowstream.cli.screen import Row, Screen, Table, is_foreground_terminal
from flowstream.cli.session import fact_text


class Terminal:
    """The far side of a terminal."""

    def __init__(self, master: int, near: TextIO) -> None:
        self.near = near
        self._master = master

    def seen(self) -> str:
        """What was written, up to the end of it; the near side is closed by then."""
        text = b""
        while True:
            try:
                got = os.read(self._master, 65536)
            except OSError:
                return text.decode()
            if not got:
                return text.decode()
            text += got

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)


@contextmanager
def terminal() -> Iterator[Terminal]:
    master, slave = os.openpty()
    near = os.fdopen(slave, "w", encoding="utf-8")
    try:
        yield Terminal(master, near)
    finally:
        near.close()
        os.close(master)


@pytest.fixture(autouse=True)
def ansi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_lines_without_a_terminal() -> None:
    stream = io.StringIO()
    screen = Screen(stream, is_live=False)
    screen.line("one")
    screen.show(Table("never shown", (Row("a", "b", "running"),)))
    screen.line("two\nthree")
    assert screen.close(5)
    assert stream.getvalue() == "one\ntwo\nthree\n"


def test_a_table_below_the_lines() -> None:
    with terminal() as there:
        screen = Screen(there.near, is_live=True)
        screen.line("\033[1mfirst\033[0m line")
        rows = (
            Row("pattern", "test-pattern", "running", "30 fps", "skipped=2"),
            Row("encode", "hw-encode", "failed", "", "x" * 200),
        )
        screen.show(Table("hello  running  0:01", rows))
        assert screen.close(5)
        there.near.close()
        seen = there.seen()
    assert "first" in seen
    assert "hello  running  0:01" in seen
    for word in ("pattern", "test-pattern", "30 fps", "skipped=2", "encode", "hw-encode", "failed"):
        assert word in seen, word
    assert "x" * 50 in seen
    assert "x" * 90 not in seen, "cut to the width of the terminal"
    assert seen.index("\033[?25l") < seen.rindex("\033[?25h"), "the cursor is back"


def test_a_table_higher_than_the_terminal_says_what_it_leaves_out() -> None:
    with terminal() as there:
        screen = Screen(there.near, is_live=True)
        screen.show(Table("many", tuple(Row(f"node-{n}", "discard", "running") for n in range(50))))
        assert screen.close(5)
        there.near.close()
        seen = there.seen()
    assert "node-10" in seen
    assert "node-40" not in seen
    assert "and 31 more" in seen


def test_typed_keys_are_not_echoed_meanwhile() -> None:
    with terminal() as there:
        assert there.echoes
        screen = Screen(there.near, is_live=True)
        screen.line("begun")
        while there.echoes:
            pass
        assert screen.close(5)
        assert there.echoes


class Stalled(io.StringIO):
    """A stream that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.reached = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.go.wait()
        return super().write(text)


def test_a_terminal_that_takes_nothing_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screens, "MAX_LINES", 10)
    stream = Stalled()
    screen = Screen(stream, is_live=False)
    screen.line("first")
    stream.reached.wait()
    for number in range(100):
        screen.line(f"line {number}")
    assert not screen.close(0.05)
    stream.go.set()
    assert screen.close(5)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "first"
    assert lines[1:11] == [f"line {number}" for number in range(10)]
    assert lines[11] == "(90 lines were dropped: the terminal did not take them in time)"


def test_a_reader_that_is_gone_is_not_missed() -> None:
    near, far = os.pipe()
    os.close(near)
    with os.fdopen(far, "w") as stream:
        screen = Screen(stream, is_live=False)
        screen.line("nobody reads this")
        assert screen.close(5)
        screen.line("nor this")
        with pytest.raises(BrokenPipeError):
            stream.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), far)


def test_what_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_foreground_terminal(io.StringIO())
    with terminal() as there:
        assert is_foreground_terminal(there.near)
        monkeypatch.setenv("TERM", "dumb")
        assert not is_foreground_terminal(there.near)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("viewers", 3, "viewers=3"),
        ("bitrate_bps", 2_500_000, "bitrate=2.5 Mbit/s"),
        ("bytes", 123_456, "bytes=123 kB"),
        ("sent_bytes", 0, "sent=0 B"),
        ("delay_ns", 1_500_000, "delay=1.5 ms"),
        ("delay_ms", 5000, "delay=5 s"),
        ("seconds", 2.0, "seconds=2"),
        ("path", "x.mp4", "path=x.mp4"),
        ("bytes", "many", "bytes=many"),
    ],
)
def test_facts_have_units(name: str, value: str | float, text: str) -> None:
    assert fact_text(name, value) == text
