"""``flowstream new``: the beginnings of something of one's own, complete and working."""

from __future__ import annotations

import keyword
import re
import shlex
import sys
from pathlib import Path

import click

from flowstream.cli import COMMANDS
from flowstream.cli.package import LICENSES, Distribution, files_of

SCHEMA = "graph.schema.json"
MODELINE = f"# yaml-language-server: $schema={SCHEMA}"


@click.group("new", short_help=COMMANDS["new"])
def command() -> None:
    """Write the beginnings of something of your own."""


@command.command("node")
@click.argument("name")
@click.option(
    "--dir",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder to write to, my_nodes unless given; its name becomes the namespace of the node type. With --package "
    "the folder in which the package's own is made, unless given the current one.",
)
@click.option(
    "--package",
    metavar="NAME",
    help="Write a package to publish, such as flowstream-acme: what comes after flowstream- is the namespace.",
)
@click.option(
    "--license",
    "spdx",
    metavar="SPDX",
    help=f"With --package: the licence, {LICENSES[0]} unless given; one of {', '.join(LICENSES)}.",
)
def new_node(name: str, folder: Path | None, package: str | None, spdx: str | None) -> int:
    """Write a node type called NAME, a graph that uses it, and a test that passes. Nothing is overwritten."""
    module = _module_of(name)
    if package is not None:
        return _new_package(module, folder or Path("."), package, spdx)
    if spdx is not None:
        raise click.UsageError("--license is about a package: give --package too.")
    folder = folder or Path("my_nodes")
    texts = _texts(_namespace_of(folder), module)
    files = {folder / file: text for file, text in texts.items()}
    _write(files)
    node, graph, test = (shlex.quote(str(path)) for path in files)
    click.echo(f"{node}  the node type {_type_id(_namespace_of(folder), module)}")
    click.echo(f"{graph}  a graph that uses it:  flowstream run --nodes {shlex.quote(str(folder))} {graph}")
    click.echo(f"{test}  a test:  pytest {test}")
    return 0


def _new_package(module: str, folder: Path, name: str, spdx: str | None) -> int:
    """Writes a distribution with the node type in it."""
    try:
        distribution = Distribution.named(name)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param_hint="--package") from None
    if spdx is not None and spdx not in LICENSES:
        raise click.BadParameter(f"{spdx!r} is not one of {', '.join(LICENSES)}.", param_hint="--license")
    node, graph, test = _texts(distribution.namespace, module).values()
    inside = files_of(distribution, module, node, graph, test, spdx or LICENSES[0])
    home = folder / distribution.name
    _write({home / path: text for path, text in inside.items()})
    here = shlex.quote(str(home))
    click.echo(f"{here}  the package {distribution.name} with the node type {_type_id(distribution.namespace, module)}")
    click.echo(f"  pip install --group test --editable {here}  installs it here, as it stands there")
    click.echo(f"  pytest {here}  runs its tests")
    click.echo(f"  flowstream run {shlex.quote(str(home / f'{module}.yaml'))}  runs a graph that uses it")
    click.echo(f"  python -m build {here}  makes what is published; its README says how")
    return 0


def _type_id(namespace: str, module: str) -> str:
    return f"{namespace}/{module.replace('_', '-')}"


def _texts(namespace: str, module: str) -> dict[str, str]:
    """The node type, a graph and a test, by the names of their files."""
    words = {"name": module.replace("_", "-"), "module": module, "type": _type_id(namespace, module)}
    texts = {f"{module}.py": NODE, f"{module}.yaml": GRAPH, f"test_{module}.py": TEST}
    return {file: _filled(text, words) for file, text in texts.items()}


def _write(files: dict[Path, str]) -> None:
    """Writes new files, or none of them. Raises UsageError when one is there, ClickException when it cannot."""
    if there := [str(path) for path in files if path.exists() or path.is_symlink()]:
        raise click.UsageError(f"{', '.join(there)}: there already; nothing was written.")
    path = Path()
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise click.ClickException(f"{error.filename or path}: {error.strerror}") from error


@command.command("graph")
@click.argument("name", required=False)
@click.option(
    "--template", metavar="TEMPLATE", default="pattern", show_default=True, help="What it begins with; see --list."
)
@click.option(
    "--dir",
    "folder",
    metavar="DIR",
    default=".",
    type=click.Path(path_type=Path),
    help="Folder to write to; the current one unless given.",
)
@click.option("--list", "lists", is_flag=True, help="List the templates and write nothing.")
def new_graph(name: str | None, template: str, folder: Path, lists: bool) -> int:
    """Write a graph to the file NAME.yaml, ready to run and to change. Nothing is overwritten."""
    known = templates()
    if lists:
        width = max(map(len, known))
        click.echo("\n".join(f"{each.ljust(width)}  {_first_line(path)}" for each, path in known.items()))
        return 0
    if name is None:
        raise click.UsageError("Missing argument 'NAME'.")
    if template not in known:
        from flowstream.graph.diagnostics import did_you_mean, listed

        close = did_you_mean(template, known)
        guess = f" Did you mean {close!r}?" if close else f" There are {listed(known)}."
        raise click.BadParameter(f"there is no template {template!r}.{guess}", param_hint="--template")
    path = folder / f"{_graph_name(name)}.yaml"
    if path.exists() or path.is_symlink():
        raise click.UsageError(f"{path}: there already; nothing was written.")
    given = shlex.quote(str(path))
    text = known[template].read_text(encoding="utf-8").replace(f" {template}.yaml", f" {given}")
    has_schema = (folder / SCHEMA).is_file()
    if has_schema:
        text = f"{MODELINE}\n{text}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise click.ClickException(f"{error.filename or folder}: {error.strerror}") from error
    options = _options_of(text)
    click.echo(f"{given}  {_first_line(known[template])}")
    for line, does in (("check", "finds every mistake in it"), ("plan", "shows what would run"), ("run", "runs it")):
        click.echo(f"  flowstream {line} {given}{options}  {does}")
    if not has_schema:
        schema = shlex.quote(str(folder / SCHEMA))
        click.echo(f"For completion in editors: flowstream schema > {schema}, and as the first line of the graph")
        click.echo(f"  {MODELINE}")
    return 0


def templates() -> dict[str, Path]:
    """The graphs that ``new graph`` begins with, by name; the one without devices comes first."""
    found = sorted((Path(__file__).resolve().parent.parent / "templates").glob("*.yaml"))
    return {path.stem: path for path in sorted(found, key=lambda path: path.stem != "pattern")}


def _first_line(path: Path) -> str:
    """What a template shows: its first comment."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def _options_of(text: str) -> str:
    """What the command in a graph's header gives besides the file, with the space before it."""
    found = re.search(r"^# +flowstream run (?:'[^']*'|\S)+( .*)?$", text, re.MULTILINE)
    return found[1] or "" if found else ""


def _graph_name(name: str) -> str:
    stem = name.removesuffix(".yaml").removesuffix(".yml")
    if not re.fullmatch(r"[a-z0-9]+([-_][a-z0-9]+)*", stem) or len(stem) > 60:
        better = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:60].strip("-")
        hint = f" Write {better!r}." if better else ""
        if "/" in name or "\\" in name:
            hint = f" A folder is given by --dir.{hint}"
        raise click.BadParameter(f"{name!r} is no name: lower case words joined by hyphens.{hint}", param_hint="NAME")
    return stem


def _module_of(name: str) -> str:
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name) or len(name) > 60:
        better = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        hint = f" Write {better!r}." if re.fullmatch(r"[a-z][a-z0-9-]{,59}", better) else ""
        raise click.BadParameter(f"{name!r} is no name: lower case words joined by hyphens.{hint}", param_hint="NAME")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module in ("flowstream", "node"):
        raise click.BadParameter(f"Python has a {module!r} of its own; choose another name.", param_hint="NAME")
    if module.startswith("test_"):
        raise click.BadParameter("a file called test_... would be taken for a test.", param_hint="NAME")
    return module


def _namespace_of(folder: Path) -> str:
    from flowstream.node.registry import BUILT_IN

    if folder.exists() and not folder.is_dir():
        raise click.BadParameter(f"{folder} is a file.", param_hint="--dir")
    namespace = folder.resolve().name.replace("_", "-")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", namespace) or namespace == BUILT_IN:
        raise click.BadParameter(
            f"{folder}: the folder's name becomes the namespace of the node type, and {namespace!r} cannot be one: "
            "lower case letters, digits and _.",
            param_hint="--dir",
        )
    return namespace


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"@(name|module|type)@", lambda match: words[match[1]], text)


NODE = '''\
"""A node type of your own: @type@."""

from flowstream import VideoFrame, live, node


@node("@type@")
def @module@(
    frame: VideoFrame,
    *,
    brightness: int = live(100, ge=0, le=400, description="Brightness, in percent of what it was."),
) -> VideoFrame:
    """Make pictures brighter or darker.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, duration: 2s}
      @name@: {type: @type@, from: pattern, brightness: 50}
      nowhere: {type: discard, from: @name@}
    ```
    """
    picture = frame.array(format="bgr24")  # height x width x 3 numbers from 0 to 255: blue, green, red
    changed = (picture * (brightness / 100)).clip(0, 255).astype("uint8")
    return VideoFrame.from_array(changed, format="bgr24", like=frame)
'''

GRAPH = """\
# The node type @type@ at work. Change brightness while you watch, and save.
flowstream: 1

nodes:
  pattern: {type: test-pattern, size: 640x360, fps: 30}
  @name@: {type: @type@, from: pattern, brightness: 50}
  encode: {type: hw-encode, from: @name@, bitrate: 1M}
  out: {type: webrtc-out, from: encode}
"""

TEST = '''\
"""The node type @type@, by itself: a node function is called like any other."""

from @module@ import @module@

from flowstream.testing import check_node, make_frame


def test_half_the_brightness() -> None:
    frame = make_frame(width=64, height=48)
    darker = @module@(frame, brightness=50)
    assert (darker.width, darker.height) == (64, 48)
    assert darker.array("bgr24").mean() < 0.6 * frame.array("bgr24").mean()


def test_the_rules_of_node_types() -> None:
    check_node(@module@)
'''
