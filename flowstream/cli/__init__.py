"""The command line. Each command is a module of its own, loaded when it is used."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

COMMANDS = {
    "run": "Run a graph; without a name the one that needs no device.",
    "check": "Find everything that is wrong with graph files.",
    "explain": "Say what a code of an error means, with an example.",
    "fmt": "Write graph files in their usual form.",
    "plan": "Show what a graph would run, or what a change of it would do.",
    "recommend": "Say which preset and ladder this machine can hold.",
    "expand": "Write a graph out, with the place that each value came from.",
    "status": "Show how a running graph is doing.",
    "why": "Say why nothing comes, or that all is well.",
    "top": "Watch the numbers of a running graph.",
    "tap": "Look at what goes over an edge of a running graph, or save it.",
    "record": "Record what flows in a running graph, to be replayed.",
    "test": "Run graphs by a script, and check what is to be seen.",
    "events": "Follow what happens to a running graph.",
    "viewers": "See who watches a running graph; let in, send away, invite.",
    "pause-view": "Show every viewer a black picture.",
    "resume-view": "Show every viewer the stream again.",
    "set": "Give a setting of a running graph another value.",
    "reload": "Make a running graph read its files now.",
    "revisions": "List the revisions of a running graph that ran.",
    "rollback": "Go back to a revision that ran.",
    "stop": "End a running graph.",
    "nodes": "List the node types, or show one.",
    "doctor": "Show what this machine can do, and what to do about what it cannot.",
    "new": "Write the beginnings of something of your own.",
    "schema": "Print the JSON Schema of graph files, for editors.",
    "draw": "Draw a graph as a diagram.",
}
"""Each command with its line in the list; the module of the same name has it as ``command``."""

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    """Loads a command's module when the command is used, not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"flowstream.cli.{name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"there is no command {args[0]!r}.{_guess(args[0])}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _guess(word: str) -> str:
    import difflib

    if close := difflib.get_close_matches(word, COMMANDS, 1):
        return f" Did you mean {close[0]!r}?"
    if word.endswith((".yaml", ".yml")):
        return f" To run a graph: flowstream run {word}"
    return ""


def _version(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        from flowstream import __version__

        click.echo(f"flowstream {__version__}")
        ctx.exit()


@click.group(
    cls=_Commands, context_settings=CONTEXT, epilog="First steps:  flowstream run   then open the link it prints."
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def cli() -> None:
    """Live video as a graph: capture, encode, serve to browsers and record, edited while people watch."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The program. Exit status: 0 when all went well, 1 when something failed, 2 when it was called wrongly."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # started with the stream closed
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character shows its number
            stream.reconfigure(errors="backslashreplace")
    sys.exit(outcome(arguments))


def outcome(arguments: Sequence[str] | None) -> int:
    """Runs the program and gives its exit status; what a user did wrong is said, not raised."""
    try:
        status: Any = cli.main(arguments, "flowstream", standalone_mode=False)
    except click.exceptions.Abort:  # Ctrl-C where nothing runs
        click.echo(err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:  # the reader has seen enough
        sys.stderr.close()
        return 1
    except Exception as error:
        from flowstream.errors import FlowstreamError

        if not isinstance(error, FlowstreamError):
            raise
        click.echo(described(error), err=True)
        return 1
    return status if isinstance(status, int) else 0


def described(error: Any) -> str:
    """A FlowstreamError for a person: place and message, then the hint on a line of its own."""
    where = f"{error.place}: " if error.place else ""
    hint = f"\n  hint: {error.hint}" if error.hint else ""
    return f"{where}{error.message}{hint}"
