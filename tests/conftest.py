"""Skipped tests are never quiet: where everything a test may need can be installed, a skip is a failure.

The test command sets ``FLOWSTREAM_SKIPS=fail`` as root on Debian. Elsewhere pytest's closing line counts them and its
summary names each with its reason.

Tests that measure real time are marked ``alone``. The test command runs all others side by side, with
``--alone=never``, and these afterwards, with ``--alone=only``; pytest by itself runs all, one after the other.
"""

import os
import shlex
import shutil
import tempfile
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

# The same examples in every run of the test command; `tools/long fuzz` looks for new ones.
settings.register_profile("check", derandomize=True, deadline=None)
settings.register_profile("fuzz", deadline=None)
settings.load_profile("fuzz" if os.environ.get("FLOWSTREAM_FUZZ") else "check")

pytest_plugins = ["flowstream.testing.pytest_plugin"]

collect_ignore = ["pack"]  # somebody else's: its tests run where it is installed
# What runs keep of themselves does not go where the user's runs keep it.
KEPT = ("XDG_STATE_HOME", "XDG_CACHE_HOME")
for variable in KEPT:
    os.environ[variable] = tempfile.mkdtemp(prefix="flowstream-test-")

SKIPS_FAIL = os.environ.get("FLOWSTREAM_SKIPS") == "fail"
NAMED = 20
"""How many tests are named to be run again; beyond that their files are."""


def pytest_unconfigure() -> None:
    """Removes that; not when the interpreter exits, which a process beside others does without much ado."""
    for variable in KEPT:
        shutil.rmtree(os.environ[variable], ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Makes it possible to run the tests that need the machine for themselves, or all others."""
    parser.addoption("--alone", choices=["only", "never"], help="only the tests that are marked alone, or all others")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what belongs into the other pass."""
    from tests.side_by_side import long_first

    if wanted := config.getoption("--alone"):
        chosen = [item for item in items if (item.get_closest_marker("alone") is not None) == (wanted == "only")]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = long_first(chosen) if wanted == "never" else chosen


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hands out the tests, where several processes run them."""
    from tests.side_by_side import Scheduling

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how what failed is run again."""
    failed = {each.nodeid: None for kind in ("failed", "error") for each in terminalreporter.stats.get(kind, [])}
    if len(failed) > NAMED:
        failed = {name.partition("::")[0]: None for name in failed}
    if failed:
        terminalreporter.write_line(f"To run these again: python3 tools/check.py tests -- {shlex.join(failed)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the report of a skipped test into a failure; expected failures stay what they are."""
    report = yield
    if SKIPS_FAIL and report.skipped and not hasattr(report, "wasxfail"):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the report of a module that skips itself while it is imported into a failure."""
    report = yield
    if SKIPS_FAIL and report.skipped:
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    path, line, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, str(report.longrepr))
    report.outcome = "failed"
    report.longrepr = (
        f"{path}:{line}: {reason}\nSkipped where nothing may be: the test command could install what it needs."
    )
