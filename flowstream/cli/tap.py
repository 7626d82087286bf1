"""``flowstream tap``: looks at what goes over an edge of a run, line by line, and saves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import control_option, run_option
from flowstream.cli.saving import KINDS, Pictures, saving_to

_LINES = 10


@click.command("tap", short_help=COMMANDS["tap"])
@click.argument("edge")
@click.option("--frames", "-n", metavar="N", type=click.IntRange(1, 1_000_000), help="How many; 10, or one picture.")
@click.option(
    "--save", "path", metavar="FILE", type=click.Path(path_type=Path),
    help="A picture as FILE.png (several are numbered); packets as FILE.h264, .mkv, .mp4, .opus ...",
)  # fmt: skip
@run_option
@control_option
def command(edge: str, frames: int | None, path: Path | None, name: str | None, control: Path | None) -> int:
    """Look at what goes over EDGE, a line for each frame or packet.

    An edge is named by who takes from it: out.video, or mix.video[1] where an input takes several; an output by the
    node that gives: camera.video. What is seen is what the producer gives, before any of it is dropped. Looking does
    not slow the graph: what cannot be shown in time is missed, and counted. Packets of pictures are saved from a
    keyframe on, which the producer is asked for. To record everything as it is: flowstream record.

    A line tells the media time, what it is, its size, and how long ago it was captured.
    """
    from urllib.parse import urlencode

    from flowstream.control.client import choose, follow

    saving = None if path is None else saving_to(path)
    count = frames or (1 if isinstance(saving, Pictures) else _LINES)
    run = choose(name, control)
    query = urlencode({"edge": edge, "frames": count, "data": "none" if saving is None else saving.data})
    quiet, missed = 0, 0
    try:
        for head, body in follow(run.socket, f"/tap?{query}"):
            if "waiting" in head:
                quiet += 1
                click.echo(f"nothing came for {quiet} s", err=True)
                continue
            quiet = 0
            if head.get("missed", 0) > missed:
                click.echo(f"({head['missed'] - missed} were missed)")
                missed = head["missed"]
            if "edge" in head:
                click.echo(f"{head['edge']}, from {head['producer']}.{head['output']}")
            elif "end" not in head:
                click.echo(line_of(head))
                if saving is not None:
                    saving.take(head, body)
                    if not saving.count:
                        break  # what comes does not go into such a file
            elif not head["end"].endswith(" came"):
                click.echo(head["end"], err=True)
    except KeyboardInterrupt:
        pass
    finally:
        if saving is not None:
            saving.close()
    if saving is None:
        return 0
    if not saving.count:
        click.echo(f"nothing was saved: {saving.excuse}", err=True)
        return 1
    click.echo(f"saved {saving.count} to {saving.saved}")
    return 0


def line_of(head: dict[str, Any]) -> str:
    """A payload in a line: media time, kind, size, caps, and what else is known."""
    from flowstream.cli.top import milliseconds, size

    parts = [f"{head['time_ns'] / 1e9:11.3f} s", f"{KINDS.get(head['kind'], head['kind']):6}"]
    parts.append(f"{size(head['size_bytes']):>8}")
    parts.append("keyframe" if head.get("keyframe") and head.get("width") else "")
    parts.append(head["caps"])
    if head.get("samples"):
        parts.append(f"{head['samples']} samples")
    if head["latency_ns"] is not None:
        parts.append(f"captured {milliseconds(head['latency_ns'])} ago")
    return "  ".join(part for part in parts if part)
