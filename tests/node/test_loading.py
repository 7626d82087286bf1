"""Large libraries are loaded beside threads that go on."""

import subprocess
import sys

import pytest

from flowstream.node.loading import load_ahead

SCRIPT = """
import sys
from pathlib import Path
from flowstream.node.loading import load_ahead

def loaded():
    return "cv2.abi3.so" in Path("/proc/self/maps").read_text()

assert not loaded()
load_ahead("cv2")
assert loaded() and "cv2" not in sys.modules
import cv2
assert cv2.resize is not None
load_ahead("cv2")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_opencv_is_there_before_it_is_imported() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


@pytest.mark.parametrize("module", ["no_such", "no_such.inner", "json", "math", "sys"])
def test_what_cannot_be_loaded_like_this_is_left_alone(module: str) -> None:
    before = set(sys.modules)
    load_ahead(module)
    assert set(sys.modules) == before
