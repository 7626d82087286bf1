"""What type checkers see: wrong emits are errors before anything runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "typing"
ROOT = Path(__file__).parents[2]
FILES = [str(FOLDER / name) for name in ("right.py", "wrong.py")]

Lines = set[tuple[str, int]]


def refused() -> Lines:
    """Lines that are marked."""
    lines = (FOLDER / "wrong.py").read_text().splitlines()
    return {("wrong.py", number) for number, line in enumerate(lines, 1) if line.endswith("# refused")}


@pytest.mark.timeout(300)
def test_mypy_refuses_what_is_wrong_and_nothing_else() -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", "--no-incremental",
               "--follow-imports=silent", *FILES]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.finditer(r"(\w+\.py):(\d+): error", done.stdout)
    assert {(each[1], int(each[2])) for each in found} == refused()


@pytest.mark.timeout(300)
def test_pyright_refuses_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    settings = {
        "typeCheckingMode": "standard",
        "pythonVersion": "3.11",
        "extraPaths": [str(ROOT), str(ROOT / "nodes")],
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *FILES]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] == len(FILES)
    errors = [each for each in found["generalDiagnostics"] if each["severity"] == "error"]
    assert {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in errors} == refused()
