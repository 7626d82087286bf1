"""Every test of the command line has its own folder, and sockets of its own."""

from pathlib import Path

import pytest

from tests.cli.calling import Call


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return Call(capsys)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    runtime = tmp_path / ".run"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ".state"))
    monkeypatch.setenv("TMPDIR", str(runtime))  # where runs of others may be, which nothing here should see
    monkeypatch.setattr("tempfile.tempdir", str(runtime))
    return tmp_path
