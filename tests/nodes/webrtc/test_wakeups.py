"""One timer for all who wait."""

from __future__ import annotations

import asyncio

import anyio

from flowstream.testing import VirtualClock, run_virtual
from flowstream_nodes.webrtc._wakeups import Wakeups

MS = 1_000_000


def test_who_is_due_together_is_called_together_and_nobody_early() -> None:
    async def play(clock: VirtualClock) -> list[tuple[str, int]]:
        now_ns = clock.now_ns
        wakeups = Wakeups(now_ns)
        began, called = now_ns(), []
        callbacks = {
            name: (lambda at_ns, name=name: called.append((name, round((at_ns - began) / MS)))) for name in "abcd"
        }
        for name, due_ms in (("a", 20.0), ("b", 5.0), ("c", 5.5), ("d", 7.0)):
            wakeups.ask(callbacks[name], began + round(due_ms * MS), now_ns=began)
        wakeups.ask(callbacks["a"], began + 30 * MS, now_ns=began)  # the last time counts
        wakeups.forget(callbacks["d"])
        await anyio.sleep(0.1)
        wakeups.ask(callbacks["d"], now_ns() + MS, now_ns=now_ns())
        wakeups.close()
        await anyio.sleep(0.1)
        return called

    assert run_virtual(play) == [("b", 5), ("c", 5), ("a", 30)]


def test_a_callback_may_ask_again_and_forget_others() -> None:
    async def play(clock: VirtualClock) -> list[str]:
        wakeups = Wakeups(clock.now_ns)
        called: list[str] = []

        def first(now_ns: int) -> None:
            called.append("first")
            wakeups.forget(second)
            if len(called) < 3:
                wakeups.ask(first, now_ns + MS, now_ns=now_ns)

        def second(now_ns: int) -> None:
            called.append("second")

        now_ns = clock.now_ns()
        wakeups.ask(first, now_ns, now_ns=now_ns)
        wakeups.ask(second, now_ns, now_ns=now_ns)
        await anyio.sleep(0.1)
        wakeups.close()
        return called

    assert run_virtual(play) == ["first", "first", "first"]


def test_who_fails_keeps_nobody_from_being_called() -> None:
    async def play(clock: VirtualClock) -> tuple[list[str], list[str]]:
        called: list[str] = []
        failures: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(str(context["exception"])))
        wakeups, began = Wakeups(clock.now_ns), clock.now_ns()

        def fail(now_ns: int) -> None:
            raise RuntimeError("it fails")

        wakeups.ask(fail, began + 5 * MS, now_ns=began)
        wakeups.ask(lambda now_ns: called.append("with it"), began + 5 * MS, now_ns=began)
        wakeups.ask(lambda now_ns: called.append("later"), began + 20 * MS, now_ns=began)
        await anyio.sleep(0.1)
        wakeups.close()
        return called, failures

    assert run_virtual(play) == (["with it", "later"], ["it fails"])
