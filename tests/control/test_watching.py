"""Which way saves are noticed: files on other machines are looked at, since the system says nothing of them."""

import signal
from functools import partial
from pathlib import Path

import pytest

from flowstream.control import watching as module
from flowstream.control.watching import WatchMode, is_remote, watching
from flowstream.runtime.reload import watch_folders
from tests.cli.calling import running
from tests.control.running import TICKS

MOUNTS = r"""
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
23 22 0:30 / /srv/media rw,relatime shared:5 - nfs4 host:/media rw
24 22 0:31 / /srv/media/local rw,relatime - ext4 /dev/sdb1 rw
25 22 0:32 / /srv/two\040words rw,relatime - fuse.sshfs me@host: rw
26 22 0:33 / /srv/mediation rw,relatime - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("file", "is_there"),
    [
        ("/home/ann/graph.yaml", False),
        ("/srv/media/graph.yaml", True),
        ("/srv/media/deep/graph.yaml", True),
        ("/srv/media/local/graph.yaml", False),
        ("/srv/mediation/graph.yaml", False),
        ("/srv/two words/graph.yaml", True),
    ],
)
def test_the_innermost_mount_says_whether_a_file_lies_on_another_machine(
    tmp_path: Path, file: str, is_there: bool
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.lstrip())
    assert is_remote(file, mounts) is is_there


def test_where_the_system_does_not_say_files_are_here(tmp_path: Path) -> None:
    assert not is_remote("/srv/media/graph.yaml", tmp_path / "gone")


@pytest.mark.parametrize(
    ("mode", "remote", "polls"),
    [
        ("auto", (), False),
        ("auto", ("there.yaml",), True),
        ("poll", (), True),
    ],
)
def test_one_file_on_another_machine_is_enough(
    mode: WatchMode, remote: tuple[str, ...], polls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_remote", lambda file: file in remote)
    chosen = watching(mode, ["here.yaml", "there.yaml"])
    assert (chosen is not watch_folders) is polls
    if polls:
        assert isinstance(chosen, partial)
        assert chosen.keywords == {"poll": True}


@pytest.mark.parametrize("how", ["poll", "auto", "off"])
def test_a_save_is_noticed_or_waits_for_a_signal(tmp_path: Path, how: str) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(TICKS)
    with running(file, "--watch", how, "--control", tmp_path / "it.sock") as run:
        assert run.wait_for("running")["watched"] is (how != "off")
        file.write_text(TICKS.replace("every_ms: 5", "every_ms: 7"))
        if how == "off":
            run.interrupt(signal.SIGHUP)
            run.wait_for("reloading")
        assert run.wait_for("applied")["changes"]["ticks"]["action"] == "update"
        run.interrupt()
        assert run.ended() == 0
    assert ("reloading" in run.events) is (how == "off")
