"""``flowstream record``: records what flows in a run, bit for bit, and shows what is in a recording."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import control_option, run_option
from flowstream.cli.saving import guarded, unwritable

if TYPE_CHECKING:
    from flowstream.media.recording import Contents, StreamContents

SUFFIX = ".fsrec"
_LIMIT = "4GB"


@click.command("record", short_help=COMMANDS["record"])
@click.argument("what", nargs=-1, metavar="[WHAT]...")
@click.option(
    "--output", "-o", "path", metavar="FILE", type=click.Path(path_type=Path),
    help="The file; by default named after the graph and the time, and ending in .fsrec.",
)  # fmt: skip
@click.option(
    "--seconds", "-s", metavar="N", type=click.FloatRange(0, 86_400, min_open=True),
    help="For how long; else until Ctrl-C.",
)  # fmt: skip
@click.option("--limit", metavar="SIZE", default=_LIMIT, show_default=True, help="How large the file may become.")
@click.option(
    "--as-is", is_flag=True, help="Ask no encoder for a keyframe to begin with, and record packets as they come."
)
@click.option("--list", "listed", metavar="FILE", type=click.Path(path_type=Path), help="Show what is in a recording.")
@click.option("--graph", "shows_graph", is_flag=True, help="With --list: print the graph that was recorded.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="For people, or for programs."
)
@run_option
@control_option
def command(
    what: tuple[str, ...],
    path: Path | None,
    seconds: float | None,
    limit: str,
    as_is: bool,
    listed: Path | None,
    shows_graph: bool,
    form: str,
    name: str | None,
    control: Path | None,
) -> int:
    """Record WHAT flows in a running graph to a file, bit for bit, for a bug report or a regression test.

    WHAT is an output (camera.video), an edge by who takes from it (out.video), or a node: everything that it gives.
    Several are recorded together. Nothing waits for the file: what it cannot take in time is lost, counted, and told in
    the file, which is then not exact. The graph itself stands in the file too, without its secrets.

    \b
      flowstream record camera mic -o bug.fsrec --seconds 10
      flowstream record --list bug.fsrec
      flowstream run graph.yaml --replay camera=bug.fsrec
    """
    if listed is not None:
        if what or path is not None:
            raise click.UsageError("--list shows a file and records nothing; leave WHAT and --output out.")
        return _tell(listed, shows_graph, form)
    if shows_graph:
        raise click.UsageError("--graph goes with --list FILE.")
    names = [each for word in what for each in word.split(",") if each]
    if not names:
        raise click.UsageError("say what to record: an output such as camera.video, an edge, or a node.")
    return _record(names, path, seconds, _bytes(limit), as_is, form, name, control)


def _bytes(text: str) -> int:
    from flowstream.node.quantities import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--limit") from error


def _record(
    names: list[str], path: Path | None, seconds: float | None, limit: int, as_is: bool, form: str,
    name: str | None, control: Path | None,
) -> int:  # fmt: skip
    from urllib.parse import urlencode

    from flowstream.control.client import choose, reading
    from flowstream.control.socket import ControlError
    from flowstream.media.recording import Contents, Reader, Tally, end_chunk

    run = choose(name, control)
    asked: list[tuple[str, Any]] = [("what", each) for each in names]
    asked += [("bytes", limit), *([("seconds", seconds)] if seconds else []), *([("as_is", 1)] if as_is else [])]
    path = path or Path(f"{run.graph}-{datetime.now():%Y%m%d-%H%M%S}{SUFFIX}")
    broken: ControlError | None = None
    with reading(run.socket, f"/record?{urlencode(asked)}") as source, _interruptible() as is_interrupted:
        taken: list[bytes] = []

        def read(count: int) -> bytes:
            taken.append(source(count))
            return taken[-1]

        reader = Reader(read, f"what {run.name} answers")
        tally = Tally(reader.header)
        file = guarded(path, lambda: path.open("wb"))
        if form == "text":
            recorded = ", ".join(each.name for each in reader.header.streams)
            click.echo(f"recording {recorded} to {path}; Ctrl-C ends it", err=True)
        try:
            with file:
                try:
                    for item in reader:
                        file.writelines(taken)
                        file.flush()  # what was recorded is there, whatever becomes of this process
                        taken.clear()
                        tally.add(item)
                        if is_interrupted():
                            break
                except ControlError as error:  # the run is gone: what was read before it is kept
                    broken = error
                if reader.end is None and broken is None and not reader.problem:
                    file.writelines(end_chunk("it was stopped", reader.at_ns))
        except OSError as error:
            raise unwritable(path, error) from error
    problem = str(broken) if broken is not None else reader.problem
    end = None if problem else reader.end
    found = Contents(reader.header, tally.streams, tally.first_ns or 0, reader.at_ns, end, problem)
    _show(path, found, form, is_stopped=not problem)
    return 1 if problem or not any(each.count for each in found.streams) else 0


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C once is asked for, and ends nothing by itself; the second time it does."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def _tell(path: Path, shows_graph: bool, form: str) -> int:
    from flowstream.runtime.replay import contents_of

    found = contents_of(str(path))
    if shows_graph:
        files = found.header.files
        if not files:
            click.echo(f"{path} has no graph in it", err=True)
            return 1
        for name, text in files.items():
            click.echo(f"# {name}\n{text}" if len(files) > 1 else text, nl=not text.endswith("\n"))
        return 0
    _show(path, found, form)
    return 0


def _show(path: Path, found: Contents, form: str, *, is_stopped: bool = False) -> None:
    if form == "json":
        click.echo(json.dumps(_values(path, found, is_stopped), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(path, found, is_stopped)))


def _lines(path: Path, found: Contents, is_stopped: bool) -> list[str]:
    from flowstream.cli.top import size

    header = found.header
    began = header.began[:19].replace("T", " ")
    facts = [f"{header.graph} {header.revision}".strip(), f"{began} UTC" if began else ""]
    facts += [f"{found.duration_ns / 1e9:.1f} s", size(path.stat().st_size) or "0 B"]
    lines = [f"{path}: {', '.join(each for each in facts if each)}, {_exactness(found, is_stopped)}"]
    rows = [_row(each) for each in found.streams]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    for each in found.streams:
        lines += [f"! {count} of {each.stream.source} are missing: {cause}" for cause, count in each.lost.items()]
    if found.problem:
        lines.append(f"! {found.problem}")
    return lines


def _exactness(found: Contents, is_stopped: bool) -> str:
    if any(each.lost for each in found.streams):
        return "not exact"
    return "exact" if found.end is not None or is_stopped else "cut off"


def _row(found: StreamContents) -> tuple[str, ...]:
    from flowstream.cli.saving import KINDS
    from flowstream.cli.top import size
    from flowstream.graph.carried import carried_text
    from flowstream.graph.negotiate import Carried
    from flowstream.media.byte_form import PAYLOADS

    stream = found.stream
    if not found.count:
        return stream.source, stream.type, "nothing came", "", "", ""
    kind = KINDS[found.payload]
    key = (
        f" ({found.keyframes} keyframe{'' if found.keyframes == 1 else 's'})" if found.keyframes != found.count else ""
    )
    key = key if found.payload == "EncodedPacket" else ""
    span = (found.last_ns - (found.first_ns or 0)) / 1e9
    texts = dict.fromkeys(carried_text(Carried((PAYLOADS[found.payload],), caps)) for caps in found.caps)
    return (
        stream.source, stream.type, f"{found.count} {kind}{'' if found.count == 1 else 's'}{key}", f"{span:.2f} s",
        size(found.bytes), ", then ".join(list(texts)[:3]) + (" ..." if len(texts) > 3 else ""),
    )  # fmt: skip


def _values(path: Path, found: Contents, is_stopped: bool) -> dict[str, Any]:
    return {
        "file": str(path),
        "graph": found.header.graph,
        "revision": found.header.revision,
        "began": found.header.began,
        "software": found.header.software,
        "seconds": round(found.duration_ns / 1e9, 3),
        "exact": _exactness(found, is_stopped) == "exact",
        "problem": found.problem or None,
        "end": found.end.reason if found.end else None,
        "files": list(found.header.files),
        "streams": [
            {
                "name": each.stream.name, "node": each.stream.node, "output": each.stream.output,
                "type": each.stream.type, "live": each.stream.live, "payload": each.payload or None,
                "caps": [str(caps) for caps in each.caps], "count": each.count, "keyframes": each.keyframes,
                "bytes": each.bytes, "lost": each.lost, "first_ns": each.first_ns,
                "last_ns": each.last_ns if each.count else None,
            }
            for each in found.streams
        ],
    }  # fmt: skip
