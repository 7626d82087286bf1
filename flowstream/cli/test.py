"""``flowstream test``: scripted runs of graphs, held against what their files expect."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowstream.cli import COMMANDS

if TYPE_CHECKING:
    from flowstream.testing.graph_run import Result


@click.command("test", short_help=COMMANDS["test"])
@click.argument("tests", metavar="TEST...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path), help="Write the results as JUnit XML too.")
def command(tests: tuple[Path, ...], junit: Path | None) -> int:
    """Run each TEST, a file that names a graph and says what is done to it and what is to be seen.

    \b
      graph: hello.yaml
      clock: virtual
      steps:
        - wait: 2s
        - expect: {node: out, fps: ">= 25", drops: 0}
        - save: {replace: {"fps: 30": "fps: 15"}}
        - expect: {reload: applied}

    What a script saves is applied and not written. Exit status 1 when something expected was not seen.
    """
    from flowstream.control.files import read
    from flowstream.errors import GraphError
    from flowstream.graph.diagnostics import render
    from flowstream.testing.graph_run import run_test
    from flowstream.testing.graph_test import read_test

    results: list[tuple[Path, Result | None, str]] = []
    for path in tests:
        try:
            test = read_test(str(path), path.read_bytes())
        except OSError as error:
            raise click.ClickException(f"{path}: {error.strerror}") from error
        except GraphError as error:
            said = render(error.diagnostics)
            click.echo(said)
            results.append((path, None, said))
            continue
        result = run_test(test, read)
        results.append((path, result, result.error))
        _report(path, result)
    if junit is not None:
        try:
            _write_junit(junit, results)
        except OSError as error:
            raise click.ClickException(f"{junit}: {error.strerror}") from error
    failed = sum(result is None or not result.has_passed for _, result, _ in results)
    click.echo(f"{len(results) - failed} passed, {failed} failed" if failed else f"{len(results)} passed")
    return 1 if failed else 0


def _report(path: Path, result: Result) -> None:
    click.echo(f"{path}: {result.test.head.graph}, {result.test.head.clock} time")
    for step in result.steps:
        mark = "FAIL" if step.missed else "ok"
        seen = f": {step.seen}" if step.seen else ""
        click.echo(f"  {mark:4} {step.place.line:>3}  {step.said}{seen}")
    if result.error:
        click.echo(result.error)
    for missed in result.missed:
        click.echo(str(missed))


def _write_junit(file: Path, results: list[tuple[Path, Result | None, str]]) -> None:
    """One test case for each step, in the form that build servers read."""
    suites = ET.Element("testsuites")
    for path, result, error in results:
        steps = result.steps if result is not None else []
        failures = sum(bool(step.missed) for step in steps)
        suite = ET.SubElement(
            suites, "testsuite", name=str(path), tests=str(len(steps) + bool(error)), failures=str(failures),
            errors=str(int(bool(error))),
        )  # fmt: skip
        for step in steps:
            case = ET.SubElement(suite, "testcase", classname=str(path), name=f"{step.place.line}: {step.said}")
            for missed in step.missed:
                ET.SubElement(case, "failure", message=f"expected {missed.expected}").text = str(missed)
        if error:
            case = ET.SubElement(suite, "testcase", classname=str(path), name="the test runs")
            ET.SubElement(case, "error", message="it does not run").text = error
    ET.indent(suites)
    ET.ElementTree(suites).write(file, encoding="unicode", xml_declaration=True)
