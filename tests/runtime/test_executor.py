"""A node's own thread."""

import os
import threading
from collections.abc import Awaitable, Callable

import anyio
import anyio.to_thread
import pytest

from flowstream.runtime.clock import SystemClock
from flowstream.runtime.executor import NodeThread
from tests.runtime.parts import run_real

pytestmark = pytest.mark.usefixtures("backend")


@pytest.fixture(autouse=True, params=["eventfd", "sockets"])
def bell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bell of Linux, and with that of systems that have no eventfd."""
    if request.param == "sockets":
        monkeypatch.delattr(os, "eventfd")


def run(main: Callable[[NodeThread, list[BaseException]], Awaitable[None]]) -> None:
    """Runs ``main(thread, errors)`` and ends the thread, which must have nothing open afterwards."""

    async def call() -> None:
        errors: list[BaseException] = []
        thread = NodeThread("blur", SystemClock(), errors.append)
        try:
            await main(thread, errors)
        finally:
            thread.end()
            assert await thread.join(10)

    run_real(call)


def test_calls_run_in_order_on_one_thread() -> None:
    async def main(thread: NodeThread, errors: list[BaseException]) -> None:
        order: list[int] = []
        for number in range(3):
            thread.post(order.append, number)
        assert await thread.call(lambda: list(order)) == [0, 1, 2]
        names = {await thread.call(lambda: threading.current_thread().name) for _ in range(2)}
        assert names == {"flowstream blur"}
        assert not thread.is_current()
        assert await thread.call(thread.is_current)

    run(main)


def test_a_process_that_is_stopped_and_goes_on_keeps_its_threads(bell: None, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted: list[int] = []
    if hasattr(os, "eventfd"):
        read = os.eventfd_read

        def stop_once(fd: int) -> int:
            if threading.current_thread() is not threading.main_thread() and not interrupted:
                interrupted.append(fd)
                raise InterruptedError  # as the system does where a read was under way when the process was stopped
            return read(fd)

        monkeypatch.setattr(os, "eventfd_read", stop_once)

    async def main(thread: NodeThread, errors: list[BaseException]) -> None:
        assert await thread.call(lambda: "here") == "here"
        assert errors == []

    run(main)
    assert len(interrupted) == hasattr(os, "eventfd")


@pytest.mark.parametrize(("raised", "seen"), [(ValueError("odd"), ValueError), (StopIteration(), RuntimeError)])
def test_what_a_call_raises_is_raised_where_it_is_awaited(raised: Exception, seen: type[Exception]) -> None:
    async def main(thread: NodeThread, errors: list[BaseException]) -> None:
        def fail() -> None:
            raise raised

        with pytest.raises(seen):
            await thread.call(fail)
        assert await thread.call(lambda: "goes on") == "goes on"
        assert errors == []

    run(main)


def test_what_nobody_waits_for_is_told_to_the_owner() -> None:
    async def main(thread: NodeThread, errors: list[BaseException]) -> None:
        thread.post(lambda: 1 // 0)
        await thread.call(lambda: None)
        assert [type(error) for error in errors] == [ZeroDivisionError]

    run(main)


def test_the_thread_tells_the_loop_in_order_whatever_a_function_raises() -> None:
    async def main(thread: NodeThread, errors: list[BaseException]) -> None:
        told: list[object] = []

        def work() -> None:
            thread.tell(told.append, 1)
            thread.tell(lambda: told.append(1 // 0))
            thread.tell(told.append, threading.current_thread())

        loop_thread = threading.current_thread()
        await thread.call(work)
        assert told == [1, await thread.call(threading.current_thread)]
        assert [type(error) for error in errors] == [ZeroDivisionError]
        ran: list[threading.Thread] = []
        await thread.call(thread.tell, lambda: ran.append(threading.current_thread()))
        assert ran == [loop_thread]

    run(main)


def test_a_call_that_is_given_up_is_left_to_itself() -> None:
    async def main(thread: NodeThread, errors: list[BaseException]) -> None:
        begun, let_go = threading.Event(), threading.Event()

        def work() -> str:
            begun.set()
            let_go.wait(10)
            return "too late"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(thread.call, work)
            await anyio.to_thread.run_sync(begun.wait, 10)
            tasks.cancel_scope.cancel()
        assert not let_go.is_set()
        let_go.set()
        assert await thread.call(lambda: "next") == "next"
        assert errors == []

    run(main)


def test_a_thread_that_was_told_to_end_takes_no_calls() -> None:
    async def main() -> None:
        thread = NodeThread("over", SystemClock(), print)
        heard: list[object] = []
        thread.submit(lambda result, error: heard.append(result), lambda: "last")
        thread.end()
        with pytest.raises(RuntimeError, match="has ended"):
            await thread.call(lambda: None)
        thread.post(lambda: None)
        assert await thread.join(10)
        assert heard == ["last"]
        thread.post(lambda: None)

    run_real(main)


def test_a_thread_that_hangs_is_not_waited_for() -> None:
    async def main() -> None:
        thread = NodeThread("stuck", SystemClock(), print)
        let_go = threading.Event()
        thread.post(let_go.wait, 10)
        thread.end()
        assert not await thread.join(0)
        let_go.set()
        assert await thread.join(10)

    run_real(main)


def test_nothing_is_lost_between_many_threads_and_the_loop() -> None:
    async def main() -> None:
        threads = [NodeThread(f"{number}", SystemClock(), print) for number in range(4)]
        heard: list[int] = []

        async def drive(thread: NodeThread) -> None:
            for number in range(500):
                await thread.call(thread.tell, heard.append, number)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for thread in threads:
                    tasks.start_soon(drive, thread)
        assert sorted(heard) == sorted([*range(500)] * 4)
        for thread in threads:
            thread.end()
            assert await thread.join(10)

    run_real(main)
