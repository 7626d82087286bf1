"""Where a run writes: a terminal with a live table below its lines, or lines alone.

Writing happens on a thread of its own. A terminal that was stopped (Ctrl-S), or a pipe that nobody reads, then holds up
nothing but itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

GAP = 2
MAX_LINES = 2000
"""How many lines may wait to be written."""


@dataclass(frozen=True, slots=True)
class Row:
    """A node in the live table."""

    node: str
    type: str
    state: str
    rate: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """What stands below the lines."""

    title: str
    rows: tuple[Row, ...] = ()
    note: str = ""


class Screen:
    """Takes lines and tables from any thread, never waits for the terminal, and says how many lines it had to drop.

    ``is_live`` shows tables; without it they are not shown. ``colour`` tells whether lines may hold ANSI colours.
    """

    def __init__(self, stream: TextIO, *, is_live: bool) -> None:
        self.is_live = is_live
        self.colour = is_live
        self._stream = stream
        self._terminal = _terminal(stream) if is_live else None
        self._lines: deque[str] = deque()
        self._lost = 0
        self._table: Table | None = None
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="screen", daemon=True)
        self._thread.start()

    @property
    def columns(self) -> int:
        """How wide the terminal is; 80 where it does not say."""
        try:
            return os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            return 80

    def line(self, text: str) -> None:
        """Writes a line, or several."""
        with self._changed:
            if len(self._lines) >= MAX_LINES:
                self._lost += 1
            else:
                self._lines.append(text)
            self._changed.notify()

    def show(self, table: Table) -> None:
        """Shows a table in the place of the one before."""
        if self.is_live:
            with self._changed:
                self._table = table
                self._changed.notify()

    def close(self, seconds: float) -> bool:
        """Writes what waits, for at most so long, and leaves the terminal as it was. Whether all was written."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def release(self) -> None:
        """Leaves the terminal as it was although the thread hangs in writing to it."""
        if self._terminal is not None:
            termios.tcflow(self._terminal.number, termios.TCOON)
            termios.tcsetattr(self._terminal.number, termios.TCSANOW, self._terminal.attributes)
            os.write(self._terminal.number, b"\x1b[?25h")  # the table hides the cursor

    def _work(self) -> None:
        try:
            if self.is_live:
                self._work_live()
            else:
                self._write_until_closed(self._write_plain, None)
        except (OSError, ValueError):  # the reader is gone: what runs goes on without being heard
            with self._changed:
                self._lines.clear()

    def _write_plain(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def _work_live(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=self._stream, highlight=False)

        def write(lines: Sequence[str]) -> None:
            for line in lines:
                console.print(Text.from_ansi(line), soft_wrap=True)

        with (
            _quiet_keys(self._terminal),
            Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live,
        ):
            self._write_until_closed(write, lambda table: live.update(_rendered(table, console), refresh=True))

    def _write_until_closed(self, write: Callable[[Sequence[str]], None], show: Callable[[Table], None] | None) -> None:
        while True:
            with self._changed:
                while not (self._lines or self._table or self._is_closing):
                    self._changed.wait()
                lines, table, lost = list(self._lines), self._table, self._lost
                self._lines.clear()
                self._table, self._lost = None, 0
                is_last = self._is_closing
            if lost:
                lines.append(f"({lost} lines were dropped: the terminal did not take them in time)")
            if lines:
                write(lines)
            if table is not None and show is not None:
                show(table)
            if is_last:
                return


@dataclass(frozen=True, slots=True)
class _Terminal:
    number: int
    attributes: list[Any]


def _terminal(stream: TextIO) -> _Terminal | None:
    """The terminal behind a stream, with its attributes as they are now."""
    try:
        return _Terminal(stream.fileno(), termios.tcgetattr(stream.fileno()))
    except (OSError, ValueError, termios.error):
        return None


@contextlib.contextmanager
def _quiet_keys(terminal: _Terminal | None) -> Iterator[None]:
    """Keeps the terminal from writing typed keys (``^C``) into the table."""
    if terminal is None:
        yield
        return
    # Put into the background meanwhile, the process would be stopped for touching the terminal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    quiet = [*terminal.attributes]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(terminal.number, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal.number, termios.TCSANOW, terminal.attributes)


def is_foreground_terminal(stream: TextIO) -> bool:
    """Whether a person looks at the stream: a terminal that can move its cursor and belongs to this process."""
    if not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except OSError:  # not the terminal that controls us
        return True


STATES = {"failed": "bold red", "restarting": "yellow", "ended": "dim", "stopped": "dim"}


def _rendered(table: Table, console: Console) -> RenderableType:
    from rich.console import Group
    from rich.rule import Rule
    from rich.table import Table as Grid
    from rich.text import Text

    room = max(1, console.size.height - (5 if table.note else 4))
    rows = table.rows if len(table.rows) <= room else table.rows[: room - 1]
    columns = [[row.node, row.type, row.state, row.rate] for row in rows]
    taken = sum(max(map(len, column), default=0) + GAP for column in zip(*columns, strict=True))
    room = max(0, console.size.width - taken)
    grid = Grid.grid(padding=(0, GAP, 0, 0))
    for justify in ("left", "left", "left", "right", "left"):
        grid.add_column(justify=justify, no_wrap=True)
    for row in rows:
        grid.add_row(
            Text(row.node, "bold"),
            Text(row.type, "dim"),
            Text(row.state, STATES.get(row.state, "green")),
            row.rate,
            Text(row.detail if len(row.detail) <= room else f"{row.detail[: max(0, room - 1)]}…", "dim"),
        )
    parts: list[RenderableType] = [Rule(Text(f" {table.title} "), align="left", style="dim")]
    if table.note:
        width = max(1, console.size.width)
        parts.append(Text(table.note if len(table.note) <= width else f"{table.note[: width - 1]}…", "yellow"))
    parts.append(grid)
    if len(rows) < len(table.rows):
        parts.append(Text(f"and {len(table.rows) - len(rows)} more", "dim"))
    return Group(*parts)
