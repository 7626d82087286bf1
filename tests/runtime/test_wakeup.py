"""Waking tasks."""

import asyncio

from flowstream.runtime.wakeup import Wakeup


def test_a_wakeup_that_comes_first_is_not_lost_and_counts_once() -> None:
    async def main() -> None:
        wakeup = Wakeup()
        wakeup.set()
        wakeup.set()
        await wakeup.wait()
        assert not wakeup.wait().done()

    asyncio.run(main())


def test_every_task_that_waits_wakes() -> None:
    async def main() -> None:
        wakeup = Wakeup()
        waiting = [wakeup.wait(), wakeup.wait()]
        wakeup.set()
        await asyncio.gather(*waiting)
        assert not wakeup.wait().done()

    asyncio.run(main())


def test_a_waiter_that_was_cancelled_takes_no_wakeup() -> None:
    async def main() -> None:
        wakeup = Wakeup()
        wakeup.wait().cancel()
        wakeup.set()
        assert wakeup.wait().done()

    asyncio.run(main())


def test_cancelled_waiters_do_not_pile_up() -> None:
    async def main() -> None:
        wakeup = Wakeup()
        for _ in range(100):
            wakeup.wait().cancel()
        assert len(wakeup._waiting) == 1

    asyncio.run(main())


def test_a_function_is_called_in_place_of_waking() -> None:
    async def main() -> None:
        wakeup = Wakeup()
        calls: list[str] = []
        wakeup.called = lambda: calls.append("called")
        wakeup.set()
        assert calls == ["called"]
        assert not wakeup.wait().done()

    asyncio.run(main())
