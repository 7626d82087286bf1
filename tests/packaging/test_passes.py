"""The tests in two passes: every test is in one of them, skips of both are counted, and nothing is lost."""

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import os

import pytest

@pytest.mark.alone
def test_measures():
    pass

def test_thinks():
    pass

@pytest.mark.parametrize("what", ["one thing", "another"])
def test_fails(what):
    assert not what
"""
CRASH = """
import os

def test_before():
    pass

def test_takes_the_process_with_it():
    os._exit(3)

def test_after():
    pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    pytester.makeini("[pytest]\nmarkers = alone\naddopts = --strict-markers -ra -p no:cacheprovider\n")
    return pytester


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script of the test command."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    spec = importlib.util.spec_from_file_location("tools_check", ROOT / "tools" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_test_is_in_one_pass_and_what_failed_can_be_run_again(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_some=TESTS)
    everything = suite.runpytest_subprocess()
    everything.assert_outcomes(passed=2, failed=2)
    failed = "'test_some.py::test_fails[[]one thing]' 'test_some.py::test_fails[[]another]'"
    everything.stdout.fnmatch_lines([f"To run these again: python3 tools/check.py tests -- {failed}"])
    suite.runpytest_subprocess("--alone=never", "-n1", "--dist=loadfile").assert_outcomes(passed=1, failed=2)
    suite.runpytest_subprocess("--alone=only").assert_outcomes(passed=1, deselected=3)


def test_a_crash_is_a_failure_and_what_follows_is_run(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_crash=CRASH)
    result = suite.runpytest_subprocess("-n1", "--dist=loadfile", "--alone=never")
    result.assert_outcomes(passed=2, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*crashed while running 'test_crash.py::test_takes_the_process_with_it'*"])


@pytest.mark.parametrize(
    ("statuses", "passed"),
    [((0, 0), True), ((0, 5), True), ((5, 0), True), ((5, 5), False), ((1, 0), False), ((5,), False)],
)
def test_a_pass_without_tests_is_fine_when_the_other_has_some(
    check: ModuleType, statuses: tuple[int, ...], passed: bool
) -> None:
    step = check.Step("tests", [(sys.executable, "-c", f"raise SystemExit({status})") for status in statuses])
    step.run(until=time.monotonic() + 60, variables={})
    assert step.passed is passed


def test_skips_of_all_passes_are_counted(check: ModuleType) -> None:
    said = ("= 3 passed, 2 skipped in 1 s =", "= 1 passed in 1 s =", "= 1 passed, 5 skipped in 2 s =")
    step = check.Step("tests", [(sys.executable, "-c", f"print({words!r})") for words in said])
    step.run(until=time.monotonic() + 60, variables={})
    assert step.line().endswith("7 skipped: not everything was tested")


def test_what_is_not_done_in_time_is_stopped_and_has_failed(check: ModuleType) -> None:
    step = check.Step("tests", [(sys.executable, "-c", "import threading; threading.Event().wait()")] * 2)
    step.run(until=time.monotonic() + 0.5, variables={})
    assert not step.passed
    assert "stopped: all steps together have 25 minutes" in step.line()


def test_the_passes_of_the_test_command_are_all_tests(check: ModuleType) -> None:
    together, alone = check.STEPS["tests"]
    assert ("--alone=never" in together, "--alone=only" in alone) == (True, True)
    assert check.WORKERS >= 2
