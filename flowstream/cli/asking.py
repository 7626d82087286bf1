"""What the commands that change a running graph have in common: which run is meant, and how its answer is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Option = Callable[[Any], Any]

run_option: Option = click.option("--run", "name", metavar="NAME", help="Which run, when there are several.")

control_option: Option = click.option(
    "--control", metavar="PATH", type=click.Path(path_type=Path), help="The run's control socket, by its path."
)

format_option: Option = click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="For people, or for programs."
)


def asked_of_run(command: Any) -> Any:
    """The options of a command that asks a run: which one, and how its answer is told."""
    return run_option(control_option(format_option(command)))


def change(
    name: str | None, control: Path | None, form: str, resource: str, body: dict[str, Any], *, nothing: str
) -> int:
    """Asks a run for a change, tells what came of it, and gives the exit status.

    ``nothing`` is said when nothing had to be done. Raises ControlError when no run answers.
    """
    from flowstream.control.client import CHANGE_SECONDS, Refused, ask, choose

    try:
        answer = ask(choose(name, control).socket, resource, body, seconds=CHANGE_SECONDS)
    except Refused as refused:
        return tell_refusal(refused.answer, form)
    if form == "json":
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return 0
    patch = answer["patch"]
    changed = [each for each in patch["changes"] if each["action"] != "keep"] if patch is not None else []
    if patch is None:
        click.echo(nothing)
    elif not changed:
        click.echo("no node is changed by it")
    else:
        width = max(len(each["node"]) for each in changed)
        for each in changed:
            causes = f"  ({'; '.join(each['causes'])})" if each["causes"] else ""
            click.echo(f"{each['node'].ljust(width)}  {each['effect']}{causes}")
    if answer["saved"] is not None:
        click.echo(f"written into {answer['saved']}")
    if answer["difference"] is not None:
        click.echo(f"what runs is not what the file says: {answer['difference']}")
    return 0


def change_view(
    name: str | None, control: Path | None, form: str, resource: str, node: str | None, said: str
) -> int:  # fmt: skip
    """Asks a run to show its viewers something else, and tells where that is new. Raises ControlError."""
    from flowstream.control.client import Refused, ask, choose

    try:
        answer = ask(choose(name, control).socket, resource, {"node": node})
    except Refused as refused:
        return tell_refusal(refused.answer, form)
    if form == "json":
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(f"{each}: {said}" for each in answer["nodes"]) or f"{said} already")
    return 0


def tell_refusal(answer: dict[str, Any], form: str) -> int:
    """Says why a run did not do what it was asked; the exit status of that."""
    if form == "json":
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return 1
    for each in answer.get("diagnostics") or ():
        where = f"{each['file']}:{each['line']}:{each['column']}: " if each["file"] else ""
        hint = f"\n  hint: {each['hint']}" if each["hint"] else ""
        click.echo(f"{where}{each['code']} {each['title']}\n  {each['message']}{hint}", err=True)
    if not answer.get("diagnostics"):
        hint = f"\n  hint: {answer['hint']}" if answer.get("hint") else ""
        click.echo(f"{answer['error']}{hint}", err=True)
    return 1
