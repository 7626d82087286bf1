"""Skips are counted, and fail where everything can be installed."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
TESTS = """
import pytest

def test_needs_a_browser():
    pytest.skip("no browser")

@pytest.mark.skipif(True, reason="no X server")
def test_needs_a_screen():
    assert False

@pytest.mark.xfail(reason="known", strict=True)
def test_known_failure():
    assert False
"""
SKIPPING_MODULE = 'import pytest\npytest.importorskip("no_such_library")\n'


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(test_some=TESTS, test_module=SKIPPING_MODULE)
    return pytester


def test_skips_are_counted_elsewhere(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWSTREAM_SKIPS", raising=False)
    result = suite.runpytest_subprocess("-ra")
    result.assert_outcomes(skipped=3, xfailed=1)
    result.stdout.fnmatch_lines(["SKIPPED*no browser*"])


def test_skips_fail_where_all_can_be_installed(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSTREAM_SKIPS", "fail")
    result = suite.runpytest_subprocess("-ra", "--continue-on-collection-errors")
    result.assert_outcomes(failed=1, xfailed=1, errors=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*no browser*", "Skipped where nothing may be*"])
