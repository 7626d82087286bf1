"""``flowstream plan``: what would run, or what a reload would do."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowstream.cli import COMMANDS
from flowstream.cli.asking import tell_refusal
from flowstream.cli.graphs import find_graph, layer_option, nodes_option, replay_options, set_option
from flowstream.control.files import GraphFile

if TYPE_CHECKING:
    from flowstream.graph.patch import Patch
    from flowstream.graph.plan import Plan
    from flowstream.graph.replays import Replay


@click.command("plan", short_help=COMMANDS["plan"])
@click.argument("graph", metavar="GRAPH")
@click.argument("new", metavar="[NEW]", required=False)
@nodes_option
@set_option
@layer_option
@replay_options
@click.option("--run", "name", metavar="NAME", help="Compare GRAPH with what this run runs.")
@click.option("--fresh", is_flag=True, help="Show what a start would run, also when GRAPH is running.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="For people, or for programs."
)
def command(
    graph: str,
    new: str | None,
    folders: tuple[Path, ...],
    sets: dict[str, str],
    layers: tuple[str, ...],
    replays: Mapping[str, Replay],
    name: str | None,
    fresh: bool,
    form: str,
) -> int:
    """Show what GRAPH would run; when it is running, what saving it as it is now would do to the run.

    With NEW, show what saving NEW in the place of GRAPH would do: which node is kept, changed in place, rewired,
    replaced, added or removed, because of what, and who feels it for how long. Nothing is started and nothing changes.
    """
    from flowstream.errors import GraphError
    from flowstream.graph.diagnostics import render
    from flowstream.graph.replays import require_replays

    if new is not None and (name is not None or fresh):
        raise click.UsageError("with NEW two files are compared; --run and --fresh are about one.")
    path = find_graph(graph)
    if new is None and not fresh and not replays and (found := _against_a_run(path, layers, name)) is not None:
        return _tell_answer(found, form)
    plans: list[Plan] = []
    for each in (path, find_graph(new)) if new is not None else (path,):
        try:
            plans.append(GraphFile(each, folders, sets, layers=layers, replays=replays).compile())
            require_replays(plans[-1], replays)
        except GraphError as error:
            click.echo(render(error.diagnostics, colour=sys.stderr.isatty()), err=True)
            return 1
    if len(plans) == 2:
        from flowstream.graph.diff import diff

        _tell_patch(diff(*plans), form)
    else:
        _tell_plan(plans[0], form)
    return 0


def _against_a_run(path: str, layers: tuple[str, ...], name: str | None) -> dict[str, Any] | None:
    """What a run says to the file as it is now; None when no run is meant. Raises ControlError."""
    from flowstream.control.client import Refused, ask, choose, runs

    file = str(Path(path).absolute())
    there = [choose(name)] if name is not None else [run for run in runs() if run.status.get("file") == file]
    if not there:
        return None
    if len(there) > 1:
        names = ", ".join(run.name for run in there)
        raise click.UsageError(f"{path} runs {len(there)} times ({names}); choose one by --run NAME, or --fresh.")
    files = [file, *(str(Path(each).absolute()) for each in layers)]
    try:
        answer = ask(there[0].socket, "/plan", {"files": files})
    except Refused as refused:
        answer = refused.answer
    return {"run": there[0].name, **answer}


def _tell_answer(answer: dict[str, Any], form: str) -> int:
    if "error" in answer:
        return tell_refusal(answer, form)
    if form == "json":
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        click.echo(f"saved now, this would change the run {answer['run']}:")
        click.echo("\n".join(f"  {line}" for line in answer["lines"]))
    return 0


def _tell_patch(patch: Patch, form: str) -> None:
    from flowstream.graph.described import describe, patch_to_json

    if form == "json":
        click.echo(json.dumps(patch_to_json(patch), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(describe(patch)))


def _tell_plan(plan: Plan, form: str) -> None:
    from flowstream.graph.described import describe_plan

    if form != "json":
        click.echo("\n".join(describe_plan(plan)))
        return
    shown = {
        "graph": plan.name,
        "is_live": plan.is_live,
        "left_out": list(plan.left_out),
        "nodes": {
            id: {
                "type": node.type_id,
                "config": node.shown_config(),
                "replayed": node.replayed or None,
                "conversion": node.conversion and {
                    "edge": node.conversion.edge, "does": node.conversion.does, "cost": node.conversion.cost,
                    "certain": node.conversion.certain,
                },
            }
            for id, node in plan.nodes.items()
        },
        "edges": [
            {
                "edge": edge.name,
                "from": f"{edge.producer}.{edge.output}",
                "overflow": edge.overflow,
                "feedback": edge.feedback,
                "caps": str(edge.carried.caps) if edge.carried and edge.carried.caps else None,
            }
            for edge in plan.edges
        ],
    }  # fmt: skip
    click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
