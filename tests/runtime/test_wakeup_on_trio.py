"""Waking tasks on trio: the same promises as on asyncio."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from flowstream.runtime.wakeup import Turns, Wakeup


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Runs on trio, and not for ever."""

    async def bounded() -> None:
        with trio.fail_after(10):
            await main()

    trio.run(bounded)


async def wait(wakeup: Wakeup, woken: list[int], number: int) -> None:
    try:
        await wakeup
    except trio.Cancelled:
        woken.append(-number)
        raise
    woken.append(number)


def test_a_wakeup_that_comes_first_is_not_lost_and_counts_once() -> None:
    async def main() -> None:
        wakeup, woken = Wakeup(Turns()), []  # type: tuple[Wakeup, list[int]]
        wakeup.set()
        wakeup.set()
        await wakeup
        async with trio.open_nursery() as tasks:
            tasks.start_soon(wait, wakeup, woken, 1)
            await trio.testing.wait_all_tasks_blocked()
            assert woken == []
            wakeup.set()
        assert woken == [1]

    run(main)


def test_every_task_that_waits_wakes() -> None:
    async def main() -> None:
        wakeup, woken = Wakeup(), []  # type: tuple[Wakeup, list[int]]
        async with trio.open_nursery() as tasks:
            for number in (1, 2, 3):
                tasks.start_soon(wait, wakeup, woken, number)
            await trio.testing.wait_all_tasks_blocked()
            wakeup.set()
        assert sorted(woken) == [1, 2, 3]

    run(main)


@pytest.mark.parametrize("cancelled", [1, 2])
def test_cancelling_one_task_leaves_the_others_waiting_and_takes_no_wakeup(cancelled: int) -> None:
    async def main() -> None:
        wakeup, woken = Wakeup(), []  # type: tuple[Wakeup, list[int]]
        scopes = {1: trio.CancelScope(), 2: trio.CancelScope()}

        async def waiting(number: int) -> None:
            with scopes[number]:
                await wait(wakeup, woken, number)

        async with trio.open_nursery() as tasks:
            for number in scopes:
                tasks.start_soon(waiting, number)
            await trio.testing.wait_all_tasks_blocked()
            scopes[cancelled].cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert woken == [-cancelled]
            scopes[3 - cancelled].cancel()
            await trio.testing.wait_all_tasks_blocked()
        wakeup.set()
        await wakeup
        assert sorted(woken) == [-2, -1]

    run(main)


def test_a_function_is_called_in_place_of_waking() -> None:
    async def main() -> None:
        wakeup = Wakeup()
        calls: list[str] = []
        wakeup.called = lambda: calls.append("called")
        wakeup.set()
        assert calls == ["called"]
        with trio.move_on_after(0.001) as scope:
            await wakeup
        assert scope.cancelled_caught

    run(main)
