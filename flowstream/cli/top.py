"""``flowstream top``: a table of a run's numbers, drawn anew each second."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import control_option, run_option

if TYPE_CHECKING:
    from rich.console import RenderableType

INTERVAL_SECONDS = 1.0
KEYS = "q quit   e edges on or off"


@click.command("top", short_help=COMMANDS["top"])
@run_option
@control_option
@click.option("--once", is_flag=True, help="Print the table once and end.")
@click.option("--edges", "shows_edges", is_flag=True, help="Show the edges too.")
def command(name: str | None, control: Path | None, once: bool, shows_edges: bool) -> int:
    """Watch the numbers of a running graph: every node's state, rate, latency, processor time, queue and losses.

    Rates are of the last ten seconds. Latency is from the capture of a picture to where the node takes it: the middle
    one, then the one that 95 of 100 stay below. Keys: q quits, e shows the edges or hides them.
    """
    from flowstream.cli.screen import is_foreground_terminal
    from flowstream.control.client import NobodyThere, choose

    run = choose(name, control)
    if once:
        click.echo("\n".join(plain(*_asked(run.socket), shows_edges=shows_edges)))
        return 0
    try:
        if is_foreground_terminal(sys.stdout) and sys.stdin.isatty():
            _live(run.socket, shows_edges)
        else:
            _lines(run.socket, shows_edges)
    except NobodyThere:
        click.echo(f"{run.name}: the run has ended")
    except KeyboardInterrupt:
        pass
    return 0


def _asked(socket: Path) -> tuple[dict[str, Any], list[str]]:
    """The numbers of a run, and what is wrong with it."""
    from flowstream.control.client import ask

    stats = ask(socket, "/stats")
    return stats, [cause["sentence"] for cause in ask(socket, "/why")["causes"]]


def _lines(socket: Path, shows_edges: bool) -> None:
    """One table below the other, for terminals that cannot move their cursor and for pipes."""
    while True:
        click.echo("\n".join((*plain(*_asked(socket), shows_edges=shows_edges), "")))
        time.sleep(INTERVAL_SECONDS)


def _live(socket: Path, shows_edges: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_drawn(*_asked(socket), shows_edges=shows_edges, height=console.size.height), refresh=True)
            until = time.monotonic() + INTERVAL_SECONDS
            while (left := until - time.monotonic()) > 0:
                key = _key(keys, left)
                if key in ("q", "Q", "\x03", "\x04"):
                    return
                if key in ("e", "E"):
                    shows_edges = not shows_edges
                    break


@contextlib.contextmanager
def _keys() -> Iterator[int]:
    """Gives keys one by one, without Enter and without writing them; Ctrl-C still interrupts."""
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield number
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _key(number: int, seconds: float) -> str:
    """The next key; nothing when none was pressed."""
    ready, _, _ = select.select([number], [], [], seconds)
    return os.read(number, 1).decode(errors="replace") if ready else ""


# --- the table ------------------------------------------------------------------------------------------------------

_HEADS = ("node", "type", "state", "in", "out", "latency 50/95%", "cpu", "queue", "memory", "dropped", "restarts")
_EDGE_HEADS = ("edge", "from", "overflow", "rate", "latency 50/95%", "items", "bytes", "time", "dropped", "idle")
_LEFT = 3  # columns that are words


def rows_of(stats: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table of nodes as texts, a row each; what is not there is empty, and so are outputs that no edge leaves."""
    taken = {(edge["producer"], edge["output"]) for edge in stats["edges"].values()}
    return [
        (
            id,
            node["type"],
            node["state"],
            rate(node["rate_in"]) if node["rate_in"] or node["received"] else "",
            " + ".join(rate(value) for name, value in node["rates_out"].items() if (id, name) in taken),
            latency(node["latency"]),
            f"{node['cpu']:.0%}",
            str(node["queued"]) if node["queued"] else "",
            size(node["memory_bytes"]),
            _dropped(node["dropped"], node["drop_rate"]),
            str(node["restarts"] or ""),
        )
        for id, node in stats["nodes"].items()
    ]


def edge_rows_of(stats: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table of edges."""
    rows: list[tuple[str, ...]] = []
    for name, edge in stats["edges"].items():
        queue = edge["queue"]
        idle_ns = edge["idle_ns"]
        rows.append(
            (
                name,
                f"{edge['producer']}.{edge['output']}",
                edge["overflow"],
                rate(edge["rate"]),
                latency(edge["latency"]),
                f"{queue['items']}/{queue['most_items']}",
                _of(size(queue["bytes"]), queue["most_bytes"], size),
                _of(milliseconds(queue["time_ns"]) if queue["time_ns"] else "", queue["most_time_ns"], milliseconds),
                _dropped(sum(edge["dropped"].values()), edge["drop_rate"]),
                "" if idle_ns is None or idle_ns < 1e9 else f"{idle_ns / 1e9:.0f} s",
            )
        )
    return rows


def title_of(stats: dict[str, Any]) -> str:
    """Graph, state, how long it has been up, and what the process uses."""
    minutes, seconds = divmod(int(stats["up_ns"] / 1e9), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return (
        f"{stats['graph']}  {stats['state']}  {clock}  cpu {stats['cpu']:.0%}  "
        f"memory {size(stats['peak_memory_bytes'])} at most  {stats['threads']} threads"
    )


def plain(stats: dict[str, Any], causes: list[str], *, shows_edges: bool) -> list[str]:
    """Everything as lines without colours."""
    lines = [title_of(stats), *(f"! {cause}" for cause in causes), *_aligned(_HEADS, rows_of(stats))]
    if shows_edges:
        lines += ["", *_aligned(_EDGE_HEADS, edge_rows_of(stats))]
    return lines


def _aligned(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    kept = _used(heads, rows)
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in kept]
    return [
        "  ".join(
            row[column].ljust(width) if column < _LEFT else row[column].rjust(width)
            for column, width in zip(kept, widths, strict=True)
        ).rstrip()
        for row in (heads, *rows)
    ]


def _used(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[int]:
    """The columns in which something stands."""
    return [column for column in range(len(heads)) if column < _LEFT or any(row[column] for row in rows)]


def _drawn(stats: dict[str, Any], causes: list[str], *, shows_edges: bool, height: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from flowstream.cli.screen import STATES

    parts: list[RenderableType] = [Text(title_of(stats), "bold")]
    parts += [Text(f"! {cause}", "yellow") for cause in causes]
    parts.append(Text(""))
    parts.append(_grid(_HEADS, rows_of(stats), STATES))
    if shows_edges:
        parts += [Text(""), _grid(_EDGE_HEADS, edge_rows_of(stats), {})]
    parts += [Text(""), Text(KEYS, "dim")]
    return Group(*parts)


def _grid(heads: tuple[str, ...], rows: list[tuple[str, ...]], states: dict[str, str]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    kept = _used(heads, rows)
    for column in kept:
        grid.add_column(justify="left" if column < _LEFT else "right", no_wrap=True)
    grid.add_row(*(Text(heads[column], "dim") for column in kept))
    for row in rows:
        styles = {0: "bold", 1: "dim", 2: states.get(row[2], "green") if states else "dim"}
        grid.add_row(*(Text(row[column], styles.get(column, "")) for column in kept))
    return grid


def rate(per_second: float) -> str:
    """``30/s``, ``0.2/s``."""
    return f"{per_second:.0f}/s" if per_second >= 9.95 or per_second == 0 else f"{per_second:.1f}/s"


def latency(values: dict[str, Any] | None) -> str:
    """The middle one and the one that 95 of 100 stay below."""
    return "" if values is None else f"{milliseconds(values['p50_ns'])} / {milliseconds(values['p95_ns'])}"


def milliseconds(value_ns: float) -> str:
    """``3.1 ms``, ``25 ms``, ``1.2 s``."""
    value = value_ns / 1e6
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def size(value_bytes: float) -> str:
    """``4.2 MB``; nothing for nothing."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value_bytes >= factor:
            return f"{value_bytes / factor:.3g} {unit}"
    return f"{value_bytes:.0f} B" if value_bytes else ""


def _of(value: str, most: float | None, form: Any) -> str:
    return value if most is None else f"{value or 0}/{form(most)}"


def _dropped(count: int, per_second: float) -> str:
    if not count:
        return ""
    return f"{count} ({rate(per_second)})" if per_second else str(count)
