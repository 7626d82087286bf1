"""Skipped tests are never quiet: where everything a test may need can be installed, a skip is a failure.

The test command sets ``FLOWSTREAM_SKIPS=fail`` as root on Debian. Elsewhere pytest's closing line counts them and its
summary names each with its reason.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Generator

import pytest
from hypothesis import settings

# The same examples in every run of the test command; `tools/long fuzz` looks for new ones.
settings.register_profile("check", derandomize=True, deadline=None)
settings.register_profile("fuzz", deadline=None)
settings.load_profile("fuzz" if os.environ.get("FLOWSTREAM_FUZZ") else "check")

pytest_plugins = ["flowstream.testing.pytest_plugin"]

collect_ignore = ["pack"]  # somebody else's: its tests run where it is installed
# What runs keep of themselves does not go where the user's runs keep it.
for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
    os.environ[variable] = tempfile.mkdtemp(prefix="flowstream-test-")
    atexit.register(shutil.rmtree, os.environ[variable], ignore_errors=True)

SKIPS_FAIL = os.environ.get("FLOWSTREAM_SKIPS") == "fail"


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
