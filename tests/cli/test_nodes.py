"""nodes and new node."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.calling import ODD, Call


def test_the_list(call: Call) -> None:
    called = call("nodes", "--nodes", ODD)
    assert called.status == 0
    assert "flowstream 0.1.0:\n" in called.out
    assert "test-pattern" in called.out
    assert "A source of numbers." in called.out
    assert "broken:" not in called.out


def test_a_broken_pack_hides_no_other(call: Call, here: Path) -> None:
    (here / "bad").mkdir()
    (here / "bad" / "one.py").write_text("import no_such_module\n")
    (here / "bad" / "two.py").write_text("raise RuntimeError('on a bad day')\n")
    (here / "bad" / "good.py").write_text((ODD / "nodes.py").read_text().replace("odd/", "bad/"))
    called = call("nodes", "--nodes", "bad")
    assert called.status == 0
    assert "one.py: No module named 'no_such_module'" in called.out
    assert "two.py: RuntimeError: on a bad day" in called.out
    assert "bad/ticks" in called.out
    listed = call("nodes", "--nodes", "bad", "--format", "json").json
    assert {"type", "pack", "summary"} == set(next(each for each in listed if each["type"] == "bad/ticks"))
    assert sum("error" in each for each in listed) == 2


def test_one_type(call: Call) -> None:
    called = call("nodes", "odd/ticks", "--nodes", ODD)
    assert called.status == 0
    assert called.out.splitlines() == [
        f"odd/ticks  ({ODD})",
        "",
        "A source of numbers.",
        "",
        "outputs:",
        "  out: Record",
        "",
        "settings:",
        "  count: a whole number from 0, default 0",
        "      How many ticks; 0 for ever.",
        "  every_ms: a whole number from 1, default 10, live",
        "      Time between ticks, in milliseconds.",
    ]


def test_settings_are_shown_as_people_write_them(call: Call) -> None:
    shown = {each["name"]: each for each in call("nodes", "hw-encode", "--format", "json").json["settings"]}
    assert shown["bitrate"]["default"] == "2.5M"
    assert shown["bitrate"]["live"] is True
    assert shown["codec"]["live"] is False
    nested = {each["name"]: each for each in call("nodes", "webrtc-out", "--format", "json").json["settings"]}
    assert nested["viewers.max"]["default"] == 10


@pytest.mark.parametrize("type_id", ["tets-pattern", "acmee/blur", "odd/tick"])
def test_an_unknown_type(type_id: str, call: Call) -> None:
    called = call("nodes", type_id, "--nodes", ODD)
    assert called.status == 1
    assert "hint:" in called.err


def test_every_type_can_be_shown(call: Call) -> None:
    for each in call("nodes", "--format", "json").json:
        assert call("nodes", each["type"]).status == 0, each["type"]


def test_a_new_node_is_complete_and_its_test_passes(call: Call, here: Path) -> None:
    called = call("new", "node", "deep-dark")
    assert called.status == 0
    assert "flowstream run --nodes my_nodes my_nodes/deep_dark.yaml" in called.out
    assert sorted(path.name for path in (here / "my_nodes").iterdir()) == [
        "deep_dark.py",
        "deep_dark.yaml",
        "test_deep_dark.py",
    ]
    assert call("check", "my_nodes/deep_dark.yaml", "--nodes", "my_nodes").status == 0
    assert "my-nodes/deep-dark" in call("nodes", "--nodes", "my_nodes").out
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "my_nodes"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_a_new_node_overwrites_nothing(call: Call, here: Path) -> None:
    (here / "my_nodes").mkdir()
    (here / "my_nodes" / "test_blur.py").write_text("mine\n")
    called = call("new", "node", "blur")
    assert called.status == 2
    assert "my_nodes/test_blur.py: there already; nothing was written." in called.err
    assert [path.name for path in (here / "my_nodes").iterdir()] == ["test_blur.py"]


@pytest.mark.parametrize("name", ["Blur", "my blur", "1st", "-x", "for", "random", "test-it", "../x", "a" * 80, "ä"])
def test_names_that_cannot_be(name: str, call: Call, here: Path) -> None:
    assert call("new", "node", "--", name).status == 2
    assert not (here / "my_nodes").exists()


@pytest.mark.parametrize("folder", ["flowstream", "My Nodes", "a.b", "1"])
def test_folders_that_cannot_be(folder: str, call: Call, here: Path) -> None:
    called = call("new", "node", "blur", "--dir", folder)
    assert called.status == 2
    assert "namespace" in called.err


def test_a_file_in_the_place_of_the_folder(call: Call, here: Path) -> None:
    (here / "mine").write_text("")
    assert "mine is a file." in call("new", "node", "blur", "--dir", "mine").err
