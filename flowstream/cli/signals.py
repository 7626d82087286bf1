"""Ending a run from outside: once to drain, twice to stop now, and in bounded time whatever is stuck."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import anyio

from flowstream.runtime.wakeup import Wakeup

STOP_SECONDS = 2.0
"""How long a run that must stop now may take."""


class Stopping:
    """What the user has asked for: ``asked`` to drain, ``insisted`` to stop now.

    The handlers run in the main thread even while the event loop is blocked, so the last resort, ``give_up`` on a
    thread of its own, needs nothing of the loop.
    """

    def __init__(self, *, drain_seconds: float, give_up: Callable[[bool], None]) -> None:
        self.reload = Wakeup()
        """Set by SIGHUP, unless the terminal hung up."""
        self.asked = anyio.Event()
        self.insisted = anyio.Event()
        self.count = 0
        self._drain_seconds = drain_seconds
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._timer: threading.Timer | None = None
        self._has_terminal = has_terminal()
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Stopping:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:
                self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._timer is not None:
            self._timer.cancel()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        # A terminal that was closed ends what ran in it; in any other case SIGHUP is what it is to services.
        if number == signal.SIGHUP and (not self._has_terminal or has_terminal()):
            self._loop.call_soon_threadsafe(self.reload.set)
        else:
            self.ask()

    def ask(self, *, now: bool = False) -> None:
        """Asks for a drain; asked again or ``now``, for a stop; asked a third time, the process ends here."""
        if now and self.count == 0:
            self.count = 1
            self._loop.call_soon_threadsafe(self.asked.set)
        self.count += 1
        if self.count > 2:
            os._exit(130)
        insists = self.count == 2
        if self._timer is not None:
            self._timer.cancel()
        seconds = STOP_SECONDS if insists else self._drain_seconds
        self._timer = threading.Timer(seconds, self._give_up, (insists,))
        self._timer.daemon = True
        self._timer.start()
        self._loop.call_soon_threadsafe((self.insisted if insists else self.asked).set)


def has_terminal() -> bool:
    """Whether this process belongs to a terminal, and that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
