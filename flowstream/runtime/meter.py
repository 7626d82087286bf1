"""How long tasks hold the event loop, measured at some of their steps.

``Meter.along`` goes along with a coroutine, at the cost of one more frame at each step. What is woken through a Wakeup
that has a meter is measured without it, see wakeup.py.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from time import perf_counter_ns
from types import coroutine
from typing import Any, TypeVar

R = TypeVar("R")

EVERY = 8
"""Each so many-th step is measured and counts for as many: reading a clock at every step would be felt at every hop."""

LONG_NS = 50_000
"""A step that takes so long counts for itself alone, and the next one is measured too."""


class Meter:
    """Adds up, in ``ns``, what the coroutines that it goes along with spend running; waiting does not count.

    By the wall clock: reading it takes a fifth of the time that asking for processor time does, and a task that keeps
    the loop from others without computing anything has spent it all the same.
    """

    __slots__ = ("ns",)

    def __init__(self) -> None:
        self.ns = 0

    def measured(self, spent_ns: int) -> int:
        """Adds a step that was measured, and gives how many steps on the next one is to be."""
        if spent_ns < LONG_NS:
            self.ns += spent_ns * EVERY
            return EVERY
        self.ns += spent_ns
        return 1

    @coroutine
    def along(self, work: Coroutine[Any, Any, R]) -> Generator[Any, Any, R]:
        """Awaits the coroutine."""
        begun_ns = perf_counter_ns()
        try:
            waits_for = work.send(None)  # often the longest step, so it counts by itself
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            self.ns += perf_counter_ns() - begun_ns
        send, left = work.send, EVERY
        while True:
            try:
                value = yield waits_for
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - it is for the coroutine
                step, argument = work.throw, error  # type: Any, Any
            else:
                step, argument = send, value
            left -= 1
            try:
                if left:
                    waits_for = step(argument)
                else:
                    begun_ns = perf_counter_ns()
                    waits_for = step(argument)
                    left = self.measured(perf_counter_ns() - begun_ns)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
