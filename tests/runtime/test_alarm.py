"""Sleeping by the kernel's timers."""

import asyncio
import ctypes
import os
import time
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from flowstream.runtime import alarm
from flowstream.runtime.alarm import Alarm, has_alarms
from flowstream.runtime.clock import SystemClock

pytestmark = pytest.mark.skipif(not has_alarms(), reason="timerfd_create is Linux's")

MS = 1_000_000


class Timers:
    """The C library, of which it is noted when it was told to ring."""

    def __init__(self) -> None:
        self.libc: Any = ctypes.PyDLL(None)
        self.set_ns: list[int] = []
        self.timerfd_create: Any = self.libc.timerfd_create

    def timerfd_settime(self, fd: int, flags: int, times: Any, old: None) -> int:
        self.set_ns.append(times._obj.s * 1_000_000_000 + times._obj.ns)
        return int(self.libc.timerfd_settime(fd, flags, times, old))


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    made = Timers()
    monkeypatch.setattr(alarm, "_libc", lambda: made)
    return made


def files() -> int:
    """How many the process has open."""
    return len(os.listdir("/proc/self/fd"))


def test_a_sleeper_wakes_at_its_time_and_not_at_the_millisecond_after(timers: Timers) -> None:
    async def main() -> None:
        due_ns = time.monotonic_ns() + 1_234_567
        await SystemClock().sleep_until_ns(due_ns)
        assert time.monotonic_ns() >= due_ns
        assert timers.set_ns == [due_ns]

    asyncio.run(main())


def test_sleepers_wake_in_the_order_of_their_times_whoever_came_first(timers: Timers) -> None:
    woken: list[int] = []

    async def main() -> None:
        clock, begin_ns = SystemClock(), time.monotonic_ns() + 20 * MS
        before = files()

        async def sleep(number: int) -> None:
            await clock.sleep_until_ns(begin_ns + number // 2 * MS)
            assert time.monotonic_ns() >= begin_ns + number // 2 * MS
            woken.append(number)

        async with anyio.create_task_group() as tasks:
            for number in reversed(range(20)):
                tasks.start_soon(sleep, number)
        assert files() == before  # nobody sleeps any more

    asyncio.run(main())
    assert [number // 2 for number in woken] == sorted(number // 2 for number in woken)


def test_who_is_cancelled_leaves_nothing_and_the_others_wake(timers: Timers) -> None:
    async def main() -> None:
        clock, begin_ns = SystemClock(), time.monotonic_ns()
        before = files()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.sleep_until_ns, begin_ns + 30 * MS)
            with anyio.move_on_after(0.005) as scope:
                await clock.sleep_until_ns(begin_ns + 3_600_000 * MS)
            assert scope.cancelled_caught
            with anyio.move_on_after(0.005) as scope:
                await clock.sleep_until_ns(begin_ns + 20 * MS)
            assert scope.cancelled_caught
        assert time.monotonic_ns() >= begin_ns + 30 * MS
        assert files() == before

    asyncio.run(main())


def test_a_time_that_has_passed_is_no_wait(timers: Timers) -> None:
    async def main() -> None:
        await SystemClock().sleep_until_ns(time.monotonic_ns() - MS)
        await SystemClock().sleep_until_ns(0)
        alarm = Alarm()
        await alarm.sleep_until_ns(0)

    asyncio.run(main())


def test_without_a_file_left_it_is_slept_by_asyncio(timers: Timers) -> None:
    timers.timerfd_create = lambda clock, flags: -1

    async def main() -> None:
        due_ns = time.monotonic_ns() + 2 * MS
        await SystemClock().sleep_until_ns(due_ns)
        assert time.monotonic_ns() >= due_ns
        assert timers.set_ns == []

    asyncio.run(main())


def test_where_the_loop_cannot_wait_for_files_it_is_slept_by_asyncio(timers: Timers) -> None:
    async def main() -> None:
        loop, before = asyncio.get_running_loop(), files()

        def refuse(*args: Any) -> None:
            raise OSError("no space left")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "add_reader", refuse)
            await SystemClock().sleep_until_ns(time.monotonic_ns() + MS)
        assert files() == before
        assert timers.set_ns == []

    asyncio.run(main())


def test_a_sleep_that_is_thrown_away_leaves_nothing_for_the_next_loop(timers: Timers) -> None:
    clock = SystemClock()

    async def main() -> None:
        before = files()
        sleep = clock.sleep_until_ns(time.monotonic_ns() + 3_600_000 * MS)
        sleep.send(None)
        sleep.close()
        assert files() == before

    asyncio.run(main())
    before = files()
    loop = asyncio.new_event_loop()
    sleep = clock.sleep_until_ns(time.monotonic_ns() + 3_600_000 * MS)

    async def begin() -> None:
        sleep.send(None)

    loop.run_until_complete(begin())
    loop.close()
    sleep.close()
    assert files() == before
    asyncio.run(main())


def test_a_clock_is_for_one_loop_at_a_time_and_then_for_another() -> None:
    clock = SystemClock()

    async def main() -> None:
        await clock.sleep_until_ns(time.monotonic_ns() + MS)

    asyncio.run(main())
    asyncio.run(main())

    async def beside() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.sleep_until_ns, time.monotonic_ns() + 3_600_000 * MS)
            await anyio.lowlevel.checkpoint()
            with pytest.raises(RuntimeError, match="one event loop at a time"):
                await anyio.to_thread.run_sync(lambda: asyncio.run(main()))
            tasks.cancel_scope.cancel()

    asyncio.run(beside())
