"""The private environment: made once, made anew when it must be, never used half-made; what is wrong is told."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
ENTRANCES = ["start.py", "check.py", "long"]
LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-headless.lock"]


def load(path: Path) -> ModuleType:
    """Import a script of ``tools`` under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"tools_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Checkout:
    """A checkout in a temporary folder whose pip only writes down what it is asked for."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ["pyproject.toml", *LOCKS]:
            shutil.copy(ROOT / name, folder / name)
        self.folder = folder
        self.environment = load(TOOLS / "environment.py")
        self.asked: list[str] = []
        self.missing_libraries: list[str] = []
        self.apt_works = False
        self.apt_packages: list[str] = []
        self.failure: BaseException | None = None
        venv = folder / ".venv"
        places = {
            "ROOT": folder, "VENV": venv, "BIN": venv / "bin", "STAMP": venv / "flowstream-setup.json",
            "STATE": folder / ".flowstream",
        }  # fmt: skip
        for name, value in places.items():
            monkeypatch.setattr(self.environment, name, value)
        monkeypatch.setattr(self.environment, "_create", self._create)
        monkeypatch.setattr(self.environment, "_pip", self._pip)
        monkeypatch.setattr(self.environment, "missing_libraries", lambda: self.missing_libraries)
        monkeypatch.setattr(self.environment, "apt_install", self._apt_install)

    def ready(self, lock: str) -> list[str]:
        """Make the environment ready and return what that asked of venv and pip."""
        self.asked.clear()
        self.environment.ready(lock)
        return list(self.asked)

    @property
    def stamp(self) -> Path:
        return self.folder / ".venv" / "flowstream-setup.json"

    def installed_opencv(self) -> str:
        return json.loads(self.stamp.read_text(encoding="utf-8"))["opencv"]

    def _create(self) -> None:
        assert not self.stamp.exists()
        self.asked.append("create")
        (self.folder / ".venv" / "bin").mkdir(parents=True)
        (self.folder / ".venv" / "bin" / "python").touch()

    def _pip(self, _: str, *arguments: str, what: str, total: int = 0) -> None:
        assert not self.stamp.exists(), "the stamp goes before anything is changed"
        if "--requirement" in arguments:
            assert "--require-hashes" in arguments
            text = Path(arguments[arguments.index("--requirement") + 1]).read_text(encoding="utf-8")
            names = re.findall(r"(?m)^([\w.-]+)==", text)
            assert len(names) == total
            if "--no-build-isolation" in arguments:
                self.asked.append(f"build {' '.join(names)}")
                return
            assert "--only-binary=:all:" in arguments
            self.asked.append(f"{'dev' if 'pytest' in names else 'run'}, {next(n for n in names if 'opencv' in n)}")
        else:
            self.asked.append(what)
        if self.failure:
            raise self.failure

    def _apt_install(self, packages: Sequence[str]) -> None:
        self.apt_packages = list(packages)
        if not self.apt_works:
            raise self.environment.SetupError("no network")
        self.missing_libraries = []


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return Checkout(tmp_path, monkeypatch)


ALL = ["create", "run, opencv-python", "flowstream itself"]


def test_second_start_does_nothing(checkout: Checkout) -> None:
    assert checkout.ready("requirements.lock") == ALL
    assert checkout.ready("requirements.lock") == []


def test_tests_add_to_what_running_installed(checkout: Checkout) -> None:
    checkout.ready("requirements.lock")
    assert checkout.ready("requirements-dev.lock") == [
        "dev, opencv-python", "build forbiddenfruit", "flowstream itself",
    ]  # fmt: skip
    assert checkout.ready("requirements.lock") == []


def test_running_needs_nothing_after_tests(checkout: Checkout) -> None:
    checkout.ready("requirements-dev.lock")
    assert checkout.ready("requirements.lock") == []


def test_changed_project_installs_itself_again(checkout: Checkout) -> None:
    checkout.ready("requirements.lock")
    with open(checkout.folder / "pyproject.toml", "a", encoding="utf-8") as project:
        project.write("# changed\n")
    assert checkout.ready("requirements.lock") == ["flowstream itself"]


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-headless.lock"])
def test_changed_lock_makes_the_environment_anew(checkout: Checkout, lock: str) -> None:
    checkout.ready("requirements.lock")
    with open(checkout.folder / lock, "a", encoding="utf-8") as text:
        text.write("# changed\n")
    assert checkout.ready("requirements.lock") == ALL


def test_another_python_or_folder_makes_the_environment_anew(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout.ready("requirements.lock")
    monkeypatch.setattr(checkout.environment, "_base", lambda: "another")
    assert checkout.ready("requirements.lock") == ALL


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_is_broken_off_is_not_used(checkout: Checkout, failure: BaseException) -> None:
    checkout.failure = failure
    with pytest.raises((KeyboardInterrupt, checkout.environment.SetupError)):
        checkout.ready("requirements.lock")
    assert not (checkout.folder / ".venv").exists()
    checkout.failure = None
    assert checkout.ready("requirements.lock") == ALL


@pytest.mark.parametrize("left", ["", "{", "[]"])
def test_environment_without_a_whole_stamp_is_made_anew(checkout: Checkout, left: str) -> None:
    checkout.ready("requirements.lock")
    checkout.stamp.write_text(left, encoding="utf-8")
    assert checkout.ready("requirements.lock") == ALL


def test_full_disk_is_told_in_a_sentence(checkout: Checkout) -> None:
    checkout.failure = OSError(28, "No space left on device")
    with pytest.raises(checkout.environment.SetupError, match="no space left for the packages: free about 1 GB"):
        checkout.ready("requirements.lock")


def test_libraries_for_windows_are_installed_as_root(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    checkout.missing_libraries, checkout.apt_works = ["libGL.so.1"], True
    assert checkout.ready("requirements.lock") == ALL
    assert checkout.apt_packages == ["libgl1", "libglib2.0-0t64|libglib2.0-0", "libsm6"]


@pytest.mark.parametrize("user", [0, 1000])
def test_opencv_without_windows_where_libraries_cannot_be_had(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], user: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    checkout.missing_libraries = ["libGL.so.1", "libxcb.so.1"]
    assert checkout.ready("requirements.lock") == ["create", "run, opencv-python-headless", "flowstream itself"]
    assert "lacks libGL.so.1 and libxcb.so.1: using opencv-python-headless" in capsys.readouterr().err
    assert bool(checkout.apt_packages) == (user == 0)
    checkout.apt_packages.clear()
    assert checkout.ready("requirements.lock") == []
    assert checkout.apt_packages == [], "a later start does not try again"


def test_libraries_that_come_later_bring_windows(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    checkout.missing_libraries = ["libGL.so.1"]
    checkout.ready("requirements.lock")
    assert checkout.installed_opencv() == "opencv-python-headless"
    checkout.missing_libraries = []
    assert checkout.ready("requirements.lock") == ALL
    assert checkout.installed_opencv() == "opencv-python"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "WARNING: Retrying (Retry(total=1 ...)) after connection broken by 'NewConnectionError(...)': /simple/av/\n"
            "ERROR: No matching distribution found for av==18.1.0",
            "the package index cannot be reached: setting up needs the network",
        ),
        ("ERROR: No matching distribution found for av==18.1.0", "there is no ready-made package of av==18.1.0 for"),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "a downloaded package is not the one that the lock file names",
        ),
        ("ERROR: Could not install: [Errno 28] No space left on device", "no space left for the packages"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "a certificate that this machine"),
        ("ERROR: something new", "the packages could not be installed: ERROR: something new"),
        ("something\nodd\n", "the packages could not be installed: odd"),
        ("", "the packages could not be installed: it said nothing"),
    ],
)
def test_sentence_for_what_pip_said(checkout: Checkout, words: str, sentence: str) -> None:
    assert sentence in checkout.environment._sentence(words, "the packages")


@pytest.mark.parametrize("name", ["environment.py", *ENTRANCES])
def test_scripts_parse_on_an_older_python(name: str) -> None:
    ast.parse((TOOLS / name).read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("name", ENTRANCES)
def test_older_python_is_told_what_it_lacks(name: str) -> None:
    older = (
        "import collections, runpy, sys; version = collections.namedtuple('version', 'major minor micro')(3, 9, 2); "
        f"sys.version_info = version; sys.argv = [{name!r}]; sys.path.insert(0, {str(TOOLS)!r}); "
        f"runpy.run_path({str(TOOLS / name)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", older], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: flowstream needs Python 3.11 or newer, and ")
    assert done.stderr.count("\n") == 1


def test_no_network_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    shutil.copytree(TOOLS, tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ["pyproject.toml", *LOCKS]:
        shutil.copy(ROOT / name, tmp_path / name)
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_FIND_LINKS": "", "PIP_NO_CACHE_DIR": "1", "PIP_TIMEOUT": "2",
        "PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": "", "NO_PROXY": "*",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(tmp_path / "tools" / "start.py")],
        cwd=tmp_path, env={**os.environ, **nowhere}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: the package index cannot be reached: setting up needs the network" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".venv").exists()
