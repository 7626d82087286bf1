"""Control sockets: private from the start, never in each other's way, found again, gone at the end."""

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from flowstream.control import socket as control
from flowstream.control.socket import ControlError, found_sockets, is_answered, listening


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return folder


def test_only_the_owner_can_open_it(runtime: Path) -> None:
    with listening("desk") as (_, path):
        assert path == runtime / "flowstream" / "desk.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert is_answered(path)
        assert found_sockets() == [path]
    assert not path.exists()
    assert found_sockets() == []


def test_it_is_private_from_the_moment_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    before = os.umask(0)
    try:
        listen = socket.socket.listen

        def spy(self: socket.socket, backlog: int) -> None:
            modes.append(stat.S_IMODE(Path(self.getsockname()).stat().st_mode))
            listen(self, backlog)

        monkeypatch.setattr(socket.socket, "listen", spy)
        with listening("desk"):
            pass
        assert os.umask(0) == 0, "the umask of before"
    finally:
        os.umask(before)
    assert modes == [0o600]


def test_a_second_run_of_a_graph_has_a_name_of_its_own() -> None:
    with listening("desk") as (_, first), listening("desk") as (_, second):
        assert second.name == f"desk-{os.getpid()}.sock"
        assert found_sockets() == [first, second]


def test_many_at_once_all_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(1000, 2000))
    monkeypatch.setattr(os, "getpid", lambda: next(numbers))
    paths: list[Path] = []
    barrier = threading.Barrier(8)

    def run() -> None:
        barrier.wait()
        with listening("desk") as (_, path):
            paths.append(path)
            barrier.wait()
            assert is_answered(path)
            barrier.wait()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 8


def test_a_left_over_is_replaced(runtime: Path) -> None:
    (runtime / "flowstream").mkdir(mode=0o700)
    path = runtime / "flowstream" / "desk.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert not is_answered(path)
    with listening("desk") as (_, found):
        assert found == path
        assert is_answered(path)


def test_a_successor_at_the_same_path_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "my.sock"
    with listening("desk", path):
        path.unlink()
        with listening("desk", path):
            inode = path.stat().st_ino
            path.rename(tmp_path / "kept.sock")
            (tmp_path / "kept.sock").rename(path)
            assert path.stat().st_ino == inode


@pytest.mark.parametrize("name", ["my desk", "../../etc/passwd", "désk", "", "x" * 300])
def test_any_name_makes_a_file_name(name: str, runtime: Path) -> None:
    with listening(name) as (_, path):
        assert path.parent == runtime / "flowstream"


def test_a_path_of_ones_own(tmp_path: Path) -> None:
    with listening("desk", tmp_path / "my.sock") as (_, path):
        assert path == tmp_path / "my.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with (
            pytest.raises(ControlError, match=r"my\.sock: another run listens there"),
            listening("other", tmp_path / "my.sock"),
        ):
            pass


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("dear diary")
    with pytest.raises(ControlError, match="is there already and is no socket"), listening("x", tmp_path / "notes.txt"):
        pass
    assert (tmp_path / "notes.txt").read_text() == "dear diary"


@pytest.mark.parametrize(
    ("path", "message"), [("x" * 200, "too long"), ("no/such/folder/my.sock", "No such file or directory")]
)
def test_a_path_that_cannot_be(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(ControlError, match=message), listening("desk", tmp_path / path):
        pass


def test_without_a_runtime_folder_a_private_one_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    with listening("desk") as (_, path):
        assert path.parent == tmp_path / f"flowstream-{os.getuid()}"
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert found_sockets() == [path]


def test_a_folder_that_is_open_to_others_is_closed(runtime: Path) -> None:
    (runtime / "flowstream").mkdir()
    (runtime / "flowstream").chmod(0o777)
    with listening("desk") as (_, path):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getuid()
    (runtime / "flowstream").symlink_to(tmp_path)  # put there by somebody, to somewhere
    (tmp_path / f"flowstream-{mine + 1}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(ControlError, match="belongs to somebody else"), listening("desk"):
        pass
    assert control.found_sockets() == []
