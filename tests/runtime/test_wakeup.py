"""Waking tasks."""

import asyncio
import contextvars

import anyio
import pytest

from flowstream.runtime.wakeup import MOST_IN_A_TURN, Turns, Wakeup


async def settled() -> None:
    """Lets everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def wait(wakeup: Wakeup) -> None:
    await wakeup


def test_a_wakeup_that_comes_first_is_not_lost_and_counts_once() -> None:
    async def main() -> None:
        wakeup = Wakeup()
        wakeup.set()
        wakeup.set()
        await wakeup
        waiting = asyncio.create_task(wait(wakeup))
        await settled()
        assert not waiting.done()
        wakeup.set()
        await waiting

    asyncio.run(main())


def test_every_task_that_waits_wakes() -> None:
    async def main() -> None:
        wakeup = Wakeup()
        for _ in range(3):
            waiting = [asyncio.create_task(wait(wakeup)) for _ in range(3)]
            await settled()
            assert not any(task.done() for task in waiting)
            wakeup.set()
            await asyncio.gather(*waiting)

    asyncio.run(main())


@pytest.mark.parametrize("cancelled", [0, 1])
def test_cancelling_one_task_leaves_the_others_waiting(cancelled: int) -> None:
    async def main() -> None:
        wakeup = Wakeup()
        waiting = [asyncio.create_task(wait(wakeup)) for _ in range(2)]
        await settled()
        waiting[cancelled].cancel()
        await settled()
        assert [task.cancelled() for task in waiting] == [index == cancelled for index in range(2)]
        assert not waiting[1 - cancelled].done()
        wakeup.set()
        await waiting[1 - cancelled]

    asyncio.run(main())


def test_a_task_is_cancelled_between_being_woken_and_going_on() -> None:
    async def main() -> None:
        wakeup = Wakeup()
        waiting = asyncio.create_task(wait(wakeup))
        await settled()
        wakeup.set()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        again = asyncio.create_task(wait(wakeup))
        await settled()
        assert not again.done()
        wakeup.set()
        await again

    asyncio.run(main())


def test_a_waiter_that_was_cancelled_takes_no_wakeup() -> None:
    async def main() -> None:
        wakeup = Wakeup()
        waiting = [asyncio.create_task(wait(wakeup)) for _ in range(2)]
        await settled()
        for task in waiting:
            task.cancel()
        await settled()
        wakeup.set()
        await wakeup

    asyncio.run(main())


def test_cancel_scopes_know_their_own_cancellation() -> None:
    async def main() -> None:
        wakeup = Wakeup()
        with anyio.move_on_after(0.001) as scope:
            await wakeup
        assert scope.cancelled_caught
        with anyio.CancelScope() as outer, anyio.CancelScope() as inner:
            asyncio.get_running_loop().call_soon(outer.cancel)
            await wakeup
        assert (outer.cancelled_caught, inner.cancelled_caught) == (True, False)

    anyio.run(main)


def test_cancelled_waiters_do_not_pile_up() -> None:
    async def main() -> None:
        wakeup = Wakeup()
        first = asyncio.create_task(wait(wakeup))
        for _ in range(20):
            waiting = asyncio.create_task(wait(wakeup))
            await settled()
            waiting.cancel()
            await settled()
        assert len(wakeup._others) <= 1
        wakeup.set()
        await first

    asyncio.run(main())


def test_a_task_goes_on_in_its_own_context() -> None:
    async def main() -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
        wakeup = Wakeup()
        seen: list[str] = []

        async def waiting(value: str) -> None:
            variable.set(value)
            await wakeup
            seen.append(variable.get())

        tasks = [asyncio.create_task(waiting(value)) for value in ("a", "b")]
        await settled()
        variable.set("main")
        wakeup.set()
        await asyncio.gather(*tasks)
        assert sorted(seen) == ["a", "b"]

    asyncio.run(main())


def test_a_chain_of_tasks_takes_few_turns_and_keeps_nobody_out() -> None:
    async def main() -> None:
        turns = Turns()
        chain = [Wakeup(turns) for _ in range(MOST_IN_A_TURN * 2 + 1)]
        passed: list[int] = []

        async def link(number: int) -> None:
            await chain[number]
            passed.append(number)
            if number + 1 < len(chain):
                chain[number + 1].set()

        tasks = [asyncio.create_task(link(number)) for number in range(len(chain))]
        await settled()
        chain[0].set()
        seen = []
        for _ in range(4):
            await asyncio.sleep(0)
            seen.append(len(passed))
        assert seen == [MOST_IN_A_TURN, MOST_IN_A_TURN * 2, len(chain), len(chain)]
        assert passed == list(range(len(chain)))
        await asyncio.gather(*tasks)

    asyncio.run(main())


def test_a_function_is_called_in_place_of_waking() -> None:
    async def main() -> None:
        wakeup = Wakeup()
        calls: list[str] = []
        wakeup.called = lambda: calls.append("called")
        wakeup.set()
        assert calls == ["called"]
        waiting = asyncio.create_task(wait(wakeup))
        await settled()
        assert not waiting.done()
        waiting.cancel()

    asyncio.run(main())


def test_what_the_loop_calls_wakes_tasks_within_that_call_unless_a_turn_is_coming_anyway() -> None:
    async def main() -> None:
        turns = Turns()
        wakeups = [Wakeup(turns) for _ in range(2)]
        order: list[str] = []

        async def follow(number: int) -> None:
            await wakeups[number]
            order.append(f"woken {number}")
            if number == 0:
                wakeups[1].set()

        tasks = [asyncio.create_task(follow(number)) for number in range(2)]
        await settled()

        def ring() -> None:
            wakeups[0].set()
            order.append("rung")

        done = asyncio.Event()

        def call() -> None:
            turns.along(ring)
            order.append("over")
            done.set()

        asyncio.get_running_loop().call_soon(call)
        await done.wait()
        assert order == ["rung", "woken 0", "woken 1", "over"]
        await asyncio.gather(*tasks)
        order.clear()
        tasks = [asyncio.create_task(follow(number)) for number in range(2)]
        await settled()
        turns.become_due()  # type: ignore[attr-defined]
        done.clear()
        call()
        assert order == ["rung", "over"]
        await asyncio.gather(*tasks)
        assert order == ["rung", "over", "woken 0", "woken 1"]

    asyncio.run(main())
