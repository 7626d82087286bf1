"""What a test leaves open fails it: threads, tasks, sockets, files."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowstream.testing import Open

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowstream.testing.leaks.GRACE_SECONDS", 0.01)


@pytest.fixture
def thread() -> Iterator[threading.Thread]:
    """One that runs until the test is over."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait, args=(30,), name="lingering")
    yield thread
    done.set()
    thread.join()


def test_nothing_is_nothing() -> None:
    assert Open.now().left() == []


def test_a_thread(thread: threading.Thread) -> None:
    before = Open.now()
    thread.start()
    assert before.left() == ["thread 'lingering'"]
    assert Open.now().left() == [], "what was there before does not count"


def test_a_thread_that_is_ending_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowstream.testing.leaks.GRACE_SECONDS", 10)
    before = Open.now()
    threading.Thread(target=threading.Event().wait, args=(0.05,)).start()
    assert before.left() == []


def test_a_socket_and_a_file(tmp_path: Path) -> None:
    before = Open.now()
    with socket.socket() as opened, (tmp_path / "x").open("w") as file:
        assert sorted(text.partition(" (")[0] for text in before.left()) == sorted(
            [f"open {tmp_path / 'x'}", f"open socket:[{os.fstat(opened.fileno()).st_ino}]"]
        )
        assert file.writable()
    assert before.left() == []


def test_a_task() -> None:
    before = Open.now()
    loop = asyncio.new_event_loop()

    async def waits() -> None:
        await loop.create_future()

    task = loop.create_task(waits(), name="pending")
    loop.run_until_complete(asyncio.sleep(0))
    left = before.left()
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    assert any(text.startswith("task 'pending' of <coroutine object test_a_task") for text in left)
    assert before.left() == []


def test_garbage_is_no_leak(tmp_path: Path) -> None:
    class Holder:
        def __init__(self) -> None:
            self.me = self
            self.end, self.other = os.pipe()

        def __del__(self) -> None:
            os.close(self.end)
            os.close(self.other)

    before = Open.now()
    Holder()
    assert before.left() == []


def test_the_plugin_fails_the_test_that_leaves_something(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["flowstream.testing.pytest_plugin"]')
    pytester.makeini("[pytest]\nflowstream_leaks = true\n")
    pytester.makepyfile(
        """
        import pytest, socket
        kept = []

        def test_clean():
            socket.socket().close()

        def test_leaves():
            kept.append(socket.socket())

        @pytest.mark.leaves("on purpose")
        def test_may_leave():
            kept.append(socket.socket())

        @pytest.fixture(scope="module")
        def server():
            with socket.socket() as opened:
                yield opened

        def test_wider_fixture(server):
            assert server.fileno() > 0

        def test_tidies_up():
            for each in kept:
                each.close()
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers")
    result.assert_outcomes(passed=5, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaves*", "the test leaves open: open socket:*"])
