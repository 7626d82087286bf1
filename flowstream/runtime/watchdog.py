"""Who keeps the event loop to itself: found from a thread that asks the loop for a sign and looks when none comes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from flowstream.runtime.executor import this_loop

EVERY_SECONDS = 0.05
"""How often the loop is asked for a sign; a sign costs it one turn."""

HELD_SECONDS = 0.02
"""How late the sign may be before somebody is to blame."""

QUIET_SECONDS = 60.0
"""How long nothing more is said of the same node."""

Found = Callable[[Any, int], None]


class Watchdog:
    """Watches the loop that it is made on. ``nodes`` gives what may be found, by the ``id`` of the node object.

    ``found`` is called on the loop with what was found and for how long it held the loop, in nanoseconds. A node that
    never lets go is not told of, since the loop cannot: whoever ends the process asks ``who``.
    """

    def __init__(self, nodes: Callable[[], Mapping[int, Any]], found: Found) -> None:
        self._nodes = nodes
        self._found = found
        self._loop = this_loop()
        self._loop_thread = threading.get_ident()
        self._sign = threading.Event()
        self._stopped = threading.Event()
        self._told: dict[int, float] = {}  # when, by the id of the node object
        threading.Thread(target=self._watch, name="flowstream watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watches no more; the thread ends by itself."""
        self._stopped.set()
        self._sign.set()

    def who(self) -> Any | None:
        """What the loop is in right now, if it is something that was asked for; any other thread."""
        return holder(self._loop_thread, self._nodes())

    def _watch(self) -> None:
        while not self._stopped.wait(EVERY_SECONDS):
            self._sign.clear()
            asked = time.perf_counter()
            try:
                self._loop.call_soon(self._sign.set)
            except RuntimeError:  # the loop is over
                return
            if self._sign.wait(HELD_SECONDS):
                continue
            node = self.who()
            while not self._sign.wait(1.0):
                if self._stopped.is_set():
                    return
            if node is not None and not self._stopped.is_set():
                self._tell(node, time.perf_counter() - asked)

    def _tell(self, node: Any, seconds: float) -> None:
        now = time.monotonic()
        if now - self._told.get(id(node), -QUIET_SECONDS) < QUIET_SECONDS:
            return
        self._told = {key: at for key, at in self._told.items() if now - at < QUIET_SECONDS}
        self._told[id(node)] = now
        try:
            self._loop.call_soon(lambda: self._found(node, round(seconds * 1e9)))
        except RuntimeError:  # the loop is over
            pass


def holder(thread: int, nodes: Mapping[int, Any]) -> Any | None:
    """Which of the objects a thread is in a method of, the innermost; for any other thread."""
    frame: FrameType | None = sys._current_frames().get(thread)
    while frame is not None:
        found = nodes.get(id(frame.f_locals.get("self")))
        if found is not None:
            return found
        frame = frame.f_back
    return None
