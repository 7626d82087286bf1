"""Finding runs and asking them."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowstream.control import client
from flowstream.control.client import NobodyThere, ask, choose, runs
from flowstream.control.socket import ControlError, listening

STATUS = {"graph": "desk", "state": "running", "revision": {}, "nodes": {}}


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@contextlib.contextmanager
def answering(name: str, body: bytes | None = None, head: bytes = b"HTTP/1.1 200 OK\r\n") -> Iterator[Path]:
    """A run that gives the same answer to everybody; without a body its status."""
    text = json.dumps({**STATUS, "graph": name}).encode() if body is None else body

    def answer(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                if connection.recv(4096):
                    connection.sendall(head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(text) + text)

    with listening(name) as (listener, path):
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_the_only_run_is_meant() -> None:
    with answering("desk") as path:
        run = choose()
        assert (run.graph, run.name, run.socket) == ("desk", "desk", path)
        assert choose("desk") == choose(path=path) == run


def test_nobody_is_there() -> None:
    with pytest.raises(NobodyThere, match="no graph is running"):
        choose()
    with pytest.raises(ControlError, match="no run named 'desk', nor any other"):
        choose("desk")


def test_a_left_over_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "flowstream").mkdir(mode=0o700)
    path = tmp_path / "flowstream" / "desk.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert runs() == []
    with pytest.raises(NobodyThere, match="no run listens at"):
        choose(path=path)


def test_several_are_listed_and_chosen_by_name() -> None:
    with answering("camera"), answering("desk") as first, answering("desk") as second:
        with pytest.raises(ControlError) as refused:
            choose()
        assert refused.value.message.splitlines() == [
            "3 graphs are running; choose one by --run NAME:",
            "  camera  running",
            "  desk  running",
            f"  {second.stem}  running",
        ]
        assert choose("desk").socket == first
        assert choose(second.stem).socket == second
        with pytest.raises(ControlError, match="no run named 'dask'; there is camera, "):
            choose("dask")


@pytest.mark.parametrize(
    ("body", "head", "message"),
    [
        (b"no JSON", b"HTTP/1.1 200 OK\r\n", "did not answer as a run does"),
        (b"[1, 2]", b"HTTP/1.1 200 OK\r\n", "did not answer as a run does"),
        (b"{}", b"HTTP/1.1 404 Not Found\r\n", "404 Not Found"),
        (b"", b"what?\r\n", "did not answer as a run does"),
    ],
)
def test_a_stranger_answers(body: bytes, head: bytes, message: str) -> None:
    with answering("desk", body, head) as path:
        assert runs() == []
        with pytest.raises(ControlError, match=message):
            ask(path, "/status")


def test_an_answer_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 100)
    with answering("desk", json.dumps({"x": "y" * 200}).encode()) as path, pytest.raises(ControlError):
        ask(path, "/status")


def test_no_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 0.05)
    with listening("desk") as (_, path), pytest.raises(ControlError, match="did not answer within"):
        ask(path, "/status")
