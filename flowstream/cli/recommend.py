"""``flowstream recommend``: the preset and the ladder that this machine and this uplink can hold, and why."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import find_graph, layer_option, nodes_option, set_option
from flowstream.control.files import GraphFile

if TYPE_CHECKING:
    from flowstream.cli.speed import Speeds
    from flowstream.graph.plan import Plan, PlannedNode
    from flowstream.proto.picture import Content, Picture
    from flowstream.proto.recommendation import Machine, Recommendation, Wish

ENCODER = "hw-encode"
PRESETS = ("ultra", "high", "medium", "low")
_ASSUMED = (1280, 720, 30.0)
_MOST_VIEWERS = 10_000


def _bitrate(_: click.Context, __: click.Parameter, given: str | None) -> int | None:
    from flowstream.node.quantities import parse_bitrate

    if given is None:
        return None
    try:
        value = parse_bitrate(given)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error
    if value < 1:
        raise click.BadParameter("an uplink of 0 carries nothing to anybody.")
    return value


@dataclass(frozen=True, slots=True)
class _Given:
    """What the encoder is given to encode, and how that is known."""

    encoder: str
    picture: Picture
    is_assumed: bool


@dataclass(frozen=True, slots=True)
class _Run:
    """What a run of the graph has measured."""

    name: str
    viewers: int | None
    encode_ms: float | None
    size: tuple[int, int] | None
    estimate_bps: float | None  # of a viewer's link, the mean of all


@click.command("recommend", short_help=COMMANDS["recommend"])
@click.argument("graph", metavar="GRAPH")
@click.option(
    "--viewers", type=click.IntRange(1, _MOST_VIEWERS), metavar="N",
    help="How many watch; as many as do where GRAPH is running, else 1.",
)  # fmt: skip
@click.option("--uplink", metavar="BITRATE", callback=_bitrate, help="What goes up, for all viewers, such as 20M.")
@click.option("--measure", is_flag=True, help="Measure this machine anew, not by what was kept.")
@nodes_option
@set_option
@layer_option
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="For people, or for programs."
)
def command(
    graph: str,
    viewers: int | None,
    uplink: int | None,
    measure: bool,
    folders: tuple[Path, ...],
    sets: dict[str, str],
    layers: tuple[str, ...],
    form: str,
) -> int:
    """Say which preset and which ladder hold for GRAPH on this machine, and why.

    Measures how fast this machine encodes, by a few pictures at each speed, and keeps that for the next time. Where
    GRAPH is running, what its encoder takes, how many watch and what its abr-controller knows of their links come from
    there. Nothing is changed.

    The exit status is 1 when nothing holds.
    """
    from flowstream.cli import speed
    from flowstream.errors import GraphError
    from flowstream.graph.diagnostics import render
    from flowstream.proto.recommendation import Machine, Wish, recommend

    path = find_graph(graph)
    try:
        plan = GraphFile(path, folders, sets, layers=layers).compile()
    except GraphError as error:
        click.echo(render(error.diagnostics, colour=sys.stderr.isatty()), err=True)
        return 1
    run = _running(path, plan)
    pictures = _pictures(plan, run)
    given = max(pictures, key=lambda each: each.picture.pixels_per_s, default=None)
    if given is None:
        click.echo(
            f"{path} encodes no pictures: it has no node of type {ENCODER}, so there is nothing to recommend", err=True
        )
        return 1
    found = speed.speeds(os.environ, is_fresh=measure)
    machine = Machine(speed.cores(), found.ms_per_megapixel)
    factor = _factor(plan.nodes[given.encoder], run, machine)
    if factor is not None:
        machine = replace(machine, ms_per_megapixel={k: v * factor for k, v in found.ms_per_megapixel.items()})
    others = [each for each in pictures if each is not given]
    taken = sum(machine.encoding(each.picture, _speed(plan.nodes[each.encoder])) for each in others)
    machine = replace(machine, taken=taken)
    watching = viewers or (run.viewers if run is not None and run.viewers else 1)
    is_estimated = uplink is None and run is not None and run.estimate_bps is not None
    if run is not None and run.estimate_bps is not None and uplink is None:
        uplink = int(run.estimate_bps * watching)
    wish = Wish(given.picture, watching, uplink, _content(plan.nodes[given.encoder]))
    made = recommend(machine, wish)
    preset = _preset(plan.nodes[given.encoder], machine, wish)
    told = _Told(path, given, run, found, factor, machine, wish, is_estimated, made, preset)
    click.echo(json.dumps(told.values(), indent=2) if form == "json" else "\n".join(told.lines()))
    return 0 if made.is_held else 1


def _running(path: str, plan: Plan) -> _Run | None:
    """What the newest run of this file has measured; None when it does not run."""
    from flowstream.control.client import ask, runs
    from flowstream.control.socket import ControlError

    file = str(Path(path).absolute())
    there = [run for run in runs() if run.status.get("file") == file]
    if not there:
        return None
    run = there[-1]
    try:
        status = ask(run.socket, "/status")
    except ControlError:  # it has ended
        return None
    facts: dict[str, dict[str, Any]] = {id: each.get("facts") or {} for id, each in status["nodes"].items()}
    counts = [each["viewers"] for id, each in facts.items() if id in plan.nodes and plan.nodes[id].node_type.serves]
    encoder = next((facts[id] for id in _encoders(plan) if "encode_ms" in facts.get(id, {})), {})
    links = next((each for each in facts.values() if each.get("estimate_bps") and each.get("viewers")), None)
    size = str(encoder.get("size", "")).partition("x")
    if not counts and links is not None:
        counts = [links["viewers"]]
    return _Run(
        run.name,
        viewers=sum(int(each) for each in counts) if counts else None,
        encode_ms=float(encoder["encode_ms"]) if encoder else None,
        size=(int(size[0]), int(size[2])) if size[0].isdigit() and size[2].isdigit() else None,
        estimate_bps=float(links["estimate_bps"]) / int(links["viewers"]) if links is not None else None,
    )


def _encoders(plan: Plan) -> list[str]:
    return [id for id, node in plan.nodes.items() if node.type_id == ENCODER]


def _pictures(plan: Plan, run: _Run | None) -> list[_Given]:
    """What each encoder of the graph is given."""
    from flowstream.media.caps import VideoCaps
    from flowstream.proto.picture import Picture

    found: list[_Given] = []
    for id in _encoders(plan):
        edge = next((each for each in plan.inputs_of(id) if each.input == "video"), None)
        caps = edge.carried.caps if edge is not None and edge.carried is not None else None
        sides = (caps.width, caps.height) if isinstance(caps, VideoCaps) else (None, None)
        fps = caps.fps if isinstance(caps, VideoCaps) and isinstance(caps.fps, int | float) else _ASSUMED[2]
        if isinstance(sides[0], int) and isinstance(sides[1], int):
            found.append(_Given(id, Picture(sides[0], sides[1], float(fps)), False))
        elif run is not None and run.size is not None:
            found.append(_Given(id, Picture(*run.size, float(fps)), False))
        else:
            found.append(_Given(id, Picture(_ASSUMED[0], _ASSUMED[1], float(fps)), True))
    return found


def _speed(node: PlannedNode) -> str:
    return str(getattr(getattr(node.config, "aim", None), "speed", "superfast"))


def _factor(node: PlannedNode, run: _Run | None, machine: Machine) -> float | None:
    """How much more a megapixel takes in the run than was measured here; None where no run tells."""
    if run is None or not run.encode_ms or run.size is None:
        return None
    expected_ms = machine.ms_per_megapixel[_speed(node)] * run.size[0] * run.size[1] / 1e6
    return min(max(run.encode_ms / expected_ms, 0.25), 4.0) if expected_ms else None


def _content(node: PlannedNode) -> Content:
    content = getattr(node.config, "content", "auto")
    return cast("Content", content) if content in ("text", "motion", "camera") else "camera"


def _preset(node: PlannedNode, machine: Machine, wish: Wish) -> tuple[str, str] | None:
    """The largest preset that is no larger than what comes in and holds, with what it stands for."""
    from flowstream.proto.picture import Picture

    for name in PRESETS:
        aim = cast("Any", type(node.config).model_validate({"preset": name})).aim
        width, height = aim.size
        picture = Picture(width, height, min(aim.fps, wish.picture.fps))
        is_larger = width > wish.picture.width or height > wish.picture.height
        up_bps = aim.bitrate_bps * wish.viewers
        is_carried = wish.uplink_bps is None or up_bps <= wish.uplink_bps
        cores = machine.encoding(picture, aim.speed) + machine.serving(up_bps)
        if not is_larger and is_carried and cores <= machine.planned:
            return name, str(aim)
    return None


@dataclass(frozen=True, slots=True)
class _Told:
    path: str
    given: _Given
    run: _Run | None
    speeds: Speeds
    factor: float | None
    machine: Machine
    wish: Wish
    is_estimated: bool  # the uplink, by the run
    made: Recommendation
    preset: tuple[str, str] | None

    def values(self) -> dict[str, Any]:
        """For programs."""
        made = asdict(self.made)
        return {
            "graph": self.path,
            "encoder": self.given.encoder,
            "picture": asdict(self.given.picture) | {"is_assumed": self.given.is_assumed},
            "viewers": self.wish.viewers,
            "uplink_bps": self.wish.uplink_bps,
            "is_uplink_estimated": self.is_estimated,
            "run": self.run.name if self.run is not None else None,
            "machine": {
                "cores": self.machine.cores,
                "planned_cores": round(self.machine.planned, 3),
                "encoder": self.speeds.encoder,
                "ms_per_megapixel": {name: round(ms, 3) for name, ms in self.machine.ms_per_megapixel.items()},
                "is_fresh": self.speeds.is_fresh,
            },
            "preset": self.preset[0] if self.preset is not None else None,
            "speed": made["speed"],
            "rungs": [{**each, "cores": round(each["cores"], 3)} for each in made["rungs"]],
            "cores": round(made["cores"], 3),
            "up_bps": made["up_bps"],
            "is_held": made["is_held"],
            "reasons": list(made["reasons"]),
            "write": self.written(),
        }

    def written(self) -> str:
        """What to write into a graph for it."""
        from flowstream.node.quantities import format_bitrate

        rungs, speed = self.made.rungs, self.made.speed
        if len(rungs) == 3:
            sizes = [f"{each.name}: {each.picture.width}x{each.picture.height}" for each in rungs]
            rates = [f"{each.name}-bitrate: {format_bitrate(each.bitrate_bps)}" for each in rungs]
            return f"use: lib/ladder.yaml, {', '.join([*sizes, *rates, f'speed: {speed}'])}"
        return "; ".join(
            f"type: hw-encode, size: {each.picture.width}x{each.picture.height}, "
            f"bitrate: {format_bitrate(each.bitrate_bps)}, speed: {speed}"
            for each in rungs
        )

    def lines(self) -> list[str]:
        """For people."""
        from flowstream.node.quantities import format_bitrate

        picture, made = self.given.picture, self.made
        assumed = " (assumed: the graph does not say)" if self.given.is_assumed else ""
        viewers = "1 viewer" if self.wish.viewers == 1 else f"{self.wish.viewers} viewers"
        uplink = f", {format_bitrate(self.wish.uplink_bps)} up for all" if self.wish.uplink_bps is not None else ""
        if self.is_estimated and self.run is not None:
            uplink += f", as the run {self.run.name} estimates its viewers' links"
        ms = self.machine.ms_per_megapixel[made.speed]
        when = "measured now" if self.speeds.is_fresh else "measured before; --measure does it anew"
        if self.factor is not None and self.run is not None:
            when += f"; {self.factor:.1f} times that in the run {self.run.name}"
        taken = f" beside {self.machine.taken:.2f} for its other encoders" if self.machine.taken else ""
        head = [
            ("graph", f"{self.path}: {self.given.encoder} is given {_size(picture)}{assumed}"),
            ("viewers", f"{viewers}{uplink}"),
            (
                "machine",
                f"{self.machine.cores} cores, {self.machine.planned:.2f} planned with{taken}; "
                f"{self.speeds.encoder} takes {ms:.1f} ms a megapixel at {made.speed} ({when})",
            ),
            ("preset", f"{self.preset[0]}: {self.preset[1]}" if self.preset else "none of them holds; see the ladder"),
            (
                "ladder",
                f"speed {made.speed}, {len(made.rungs)} rung{'s' if len(made.rungs) > 1 else ''}, "
                f"{made.cores:.2f} cores with serving, at most {format_bitrate(made.up_bps)} up",
            ),
        ]
        lines = [f"{name:<9}{said}" for name, said in head]
        rows = [
            (each.name, f"{each.picture.width}x{each.picture.height}", f"{each.picture.fps:g} fps",
             format_bitrate(each.bitrate_bps), f"{each.cores:.2f} cores")
            for each in made.rungs
        ]  # fmt: skip
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines += ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += ["why", *(f"  {reason}" for reason in made.reasons), "write", f"  {self.written()}"]
        if not made.is_held:
            lines.append("nothing holds on this machine")
        return lines


def _size(picture: Picture) -> str:
    return f"{picture.width}x{picture.height} at {picture.fps:g} fps"
