"""``flowstream viewers``: who watches a running graph, and who may."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from flowstream.cli import COMMANDS
from flowstream.cli.asking import asked_of_run, tell_refusal

node_option: Callable[[Any], Any] = click.option(
    "--node", metavar="NODE", help="The output, where two have a viewer of that id."
)


@click.group("viewers", short_help=COMMANDS["viewers"], invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> int | None:
    """See who watches a running graph, let people in, send them away, pause and bound what they are shown.

    Without a subcommand it lists everybody who is there. Each has an id, which the other subcommands take.
    """
    if ctx.invoked_subcommand is None:
        return _list(None, False, None, None, "text")
    return None


@command.command("list", short_help="List who is there.")
@click.argument("node", metavar="[NODE]", required=False)
@click.option("--all", "everybody", is_flag=True, help="Also those who are gone and may come back.")
@asked_of_run
def list_command(node: str | None, everybody: bool, name: str | None, control: Path | None, form: str) -> int:
    """List who is there, at NODE or everywhere: who waits, who watches, and how its link is."""
    return _list(node, everybody, name, control, form)


def _list(node: str | None, everybody: bool, name: str | None, control: Path | None, form: str) -> int:
    from flowstream.control.client import ask, choose

    told = ask(choose(name, control).socket, "/viewers")
    views = [each for each in told["views"] if node in (None, each["node"])]
    viewers = [
        each
        for each in told["viewers"]
        if node in (None, each["node"]) and (everybody or each["state"] not in ("gone", "rejected"))
    ]
    if form == "json":
        click.echo(json.dumps({"views": views, "viewers": viewers}, indent=2, ensure_ascii=False))
    elif not views:
        where = f"{node} has no viewers" if node else "no node of the graph has viewers"
        click.echo(f"{where}; webrtc-out has", err=True)
        return 1
    else:
        click.echo("\n".join(_lines(views, viewers)))
    return 0


_LIMITED = {"uplink": "the uplink", "link": "its link"}


def _lines(views: list[dict[str, Any]], viewers: list[dict[str, Any]]) -> list[str]:
    lines = []
    for view in views:
        paused = ", paused: everybody sees black" if view["is_paused"] else ""
        waiting = f", {view['waiting']} waiting" if view["waiting"] else ""
        head = f"{view['watching']} of {view['most']} watching{waiting}"
        lines.append(f"{view['node']}: {head}, approval {view['approval']}{paused}")
        rows = [_row(each) for each in viewers if each["node"] == view["node"]]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
        lines += ["  " + "  ".join((*map(str.ljust, row[:4], widths), row[4])).rstrip() for row in rows]
    return lines


def _row(viewer: dict[str, Any]) -> tuple[str, str, str, str, str]:
    name = viewer["name"] or ""
    said = name if viewer["is_verified"] or not name else f"“{name}”"
    facts = []
    if viewer["bitrate_bps"] is not None:
        facts.append(_rate(viewer["bitrate_bps"]))
    if viewer["loss"] is not None:
        facts.append(f"loss {100 * viewer['loss']:.3g} %")
    if viewer["rtt_ms"] is not None:
        facts.append(f"rtt {viewer['rtt_ms']:.3g} ms")
    facts += [f"{key} {viewer[key]}" for key in ("rung", "quality") if viewer[key] is not None]
    facts += [f"no {what}" for what, key in (("picture", "video"), ("sound", "audio")) if not viewer[key]]
    if viewer["cap_bps"] is not None:
        facts.append(f"at most {_rate(viewer['cap_bps'])}")
    if viewer["priority"]:
        facts.append(f"priority {viewer['priority']}")
    if viewer["limit"] is not None and viewer["limit"]["by"] in _LIMITED:
        facts.append(f"limited by {_LIMITED[viewer['limit']['by']]}")
    return viewer["id"], viewer["state"], viewer["address"], said, "  ".join(facts)


def _rate(bps: float) -> str:
    return f"{bps / 1e6:.3g} Mbit/s" if bps >= 1e6 else f"{bps / 1e3:.3g} kbit/s"


def _about_one(subcommand: str, summary: str, text: str, done: str) -> None:
    """A subcommand that does one thing to each of some viewers."""

    @command.command(subcommand, short_help=summary, help=text)
    @click.argument("viewers", metavar="VIEWER...", nargs=-1, required=True)
    @node_option
    @asked_of_run
    def carry_out(
        viewers: tuple[str, ...], node: str | None, name: str | None, control: Path | None, form: str
    ) -> int:  # fmt: skip
        asked = [{"viewer": viewer, "node": node} for viewer in viewers]
        return _change(f"/viewers/{subcommand}", asked, lambda told: f"{_called(told)} {done}", name, control, form)


_about_one("approve", "Let viewers in who wait.", "Let each VIEWER in who waits, or who was sent away.", "may watch")
_about_one("reject", "Do not let viewers in.", "Do not let each VIEWER in.", "is not let in")
_about_one(
    "kick",
    "Send viewers away.",
    "Send each VIEWER away. It does not come back, unless you approve it; whoever else comes from its network in the "
    "next ten minutes waits until you let it in.",
    "is sent away",
)
_about_one(
    "pause",
    "Show viewers a black picture.",
    "Show each VIEWER a black picture in silence, until it is resumed.",
    "sees a black picture",
)
_about_one("resume", "Show viewers the stream again.", "Show each VIEWER the stream again.", "sees the stream again")


@command.command("cap", short_help="Bound what is sent to a viewer.")
@click.argument("viewer", metavar="VIEWER")
@click.argument("bitrate", metavar="BITRATE|off")
@node_option
@asked_of_run
def cap(viewer: str, bitrate: str, node: str | None, name: str | None, control: Path | None, form: str) -> int:
    """Send VIEWER at most BITRATE, such as 600k bits per second; off takes the bound away.

    Pictures are left out where the stream is more than that.
    """
    asked = {"viewer": viewer, "node": node, "bitrate": None if bitrate == "off" else bitrate}

    def said(told: dict[str, Any]) -> str:
        most = told["cap_bps"]
        return f"{_called(told)} gets {'as much as there is' if most is None else f'at most {_rate(most)}'}"

    return _change("/viewers/cap", [asked], said, name, control, form)


@command.command(
    "prioritize",
    short_help="Say who comes first where the uplink is short.",
    context_settings={"ignore_unknown_options": True},  # a priority below 0
)
@click.argument("viewer", metavar="VIEWER")
@click.argument("priority", metavar="PRIORITY", type=click.IntRange(-100, 100))
@node_option
@asked_of_run
def prioritize(viewer: str, priority: int, node: str | None, name: str | None, control: Path | None, form: str) -> int:
    """Give VIEWER a PRIORITY from -100 to 100; everybody has 0 at first.

    Where the uplink is too narrow for all, those with a higher one get their picture, and a better one, before others.
    """
    asked = {"viewer": viewer, "node": node, "priority": priority}

    def said(told: dict[str, Any]) -> str:
        return f"{_called(told)} has priority {told['priority']}"

    return _change("/viewers/prioritize", [asked], said, name, control, form)


@command.command("permit", short_help="Say what a viewer may see and hear.")
@click.argument("viewer", metavar="VIEWER")
@click.option("--video/--no-video", default=None, help="Whether it may see the picture.")
@click.option("--audio/--no-audio", default=None, help="Whether it may hear the sound.")
@node_option
@asked_of_run
def permit(
    viewer: str,
    video: bool | None,
    audio: bool | None,
    node: str | None,
    name: str | None,
    control: Path | None,
    form: str,
) -> int:
    """Say what VIEWER may see and hear: flowstream viewers permit k3fq --no-audio"""
    if video is None and audio is None:
        raise click.UsageError("what may it? --video, --no-video, --audio or --no-audio.")
    asked = {"viewer": viewer, "node": node, "video": video, "audio": audio}

    def said(told: dict[str, Any]) -> str:
        may = [what for what, key in (("see the picture", "video"), ("hear the sound", "audio")) if told[key]]
        return f"{_called(told)} may {' and '.join(may) or 'neither see nor hear'}"

    return _change("/viewers/permit", [asked], said, name, control, form)


@command.command("invite", short_help="Make a link that lets in.")
@click.argument("node", metavar="[NODE]", required=False)
@click.option("--name", "viewer_name", metavar="TEXT", help="What its viewer is called.")
@click.option("--for", "duration", metavar="TIME", default="24h", help="For how long it holds, such as 2h; 24h else.")
@asked_of_run
def invite(
    node: str | None, viewer_name: str | None, duration: str, name: str | None, control: Path | None, form: str
) -> int:
    """Make a link with a token that lets in whoever has it, at NODE or everywhere, also where you let people in.

    On a terminal it is shown as a QR code too. `flowstream viewers revoke ID` takes it back.
    """
    from flowstream.cli.qr import qr_lines
    from flowstream.control.client import Refused, ask, choose
    from flowstream.node.quantities import parse_duration
    from flowstream.proto.hosts import is_loopback

    try:
        seconds = parse_duration(duration) / 1e9
    except ValueError as error:
        raise click.UsageError(f"--for: {error}") from error
    try:
        told = ask(choose(name, control).socket, "/viewers/invite",
                   {"node": node, "name": viewer_name, "seconds": seconds})  # fmt: skip
    except Refused as refused:
        return tell_refusal(refused.answer, form)
    if form == "json":
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return 0
    for link in told["links"]:
        click.echo(link)
    afar = [link for link in told["links"] if not is_loopback(host_of(link))]
    if afar and sys.stdout.isatty():
        for line in qr_lines(afar[0], os.get_terminal_size(sys.stdout.fileno()).columns) or ():
            click.echo(line)
    click.echo(f"until {told['ends']}; flowstream viewers revoke {told['id']} takes it back", err=True)
    return 0


@command.command("revoke", short_help="Take an invitation back.")
@click.argument("invitation", metavar="ID")
@asked_of_run
def revoke(invitation: str, name: str | None, control: Path | None, form: str) -> int:
    """Take an invitation back: it lets nobody in any more, and who came by it is sent away."""
    from flowstream.control.client import Refused, ask, choose

    try:
        told = ask(choose(name, control).socket, "/viewers/revoke", {"id": invitation})
    except Refused as refused:
        return tell_refusal(refused.answer, form)
    if form == "json":
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(f"{invitation} does not count any more; {told['ended'] or 'nobody'} "
                   f"{'were' if told['ended'] > 1 else 'was'} sent away")  # fmt: skip
    return 0


def host_of(link: str) -> str:
    """The host of a link."""
    from urllib.parse import urlsplit

    return urlsplit(link).hostname or ""


def _called(viewer: dict[str, Any]) -> str:
    return f"{viewer['id']} ({viewer['name']})" if viewer["name"] else str(viewer["id"])


def _change(
    resource: str,
    asked: list[dict[str, Any]],
    said: Callable[[dict[str, Any]], str],
    name: str | None,
    control: Path | None,
    form: str,
) -> int:
    from flowstream.control.client import Refused, ask, choose

    socket = choose(name, control).socket
    status, answers = 0, []
    for each in asked:
        try:
            told = ask(socket, resource, each)
        except Refused as refused:
            status = tell_refusal(refused.answer, form)
            continue
        answers.append(told["viewer"])
        if form != "json":
            click.echo(said(told["viewer"]))
    if form == "json" and answers:
        click.echo(json.dumps({"viewers": answers}, indent=2, ensure_ascii=False))
    return status
