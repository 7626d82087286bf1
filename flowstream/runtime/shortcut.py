"""From one node's thread straight to the next one's, past the event loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from flowstream.runtime.channel import Feed
    from flowstream.runtime.executor import NodeThread


Look = tuple[int | None, int]
"""A payload that was looked at: when it was captured, and when it was taken, by the graph's clock."""

MOST_LOOKS: Final = 256
"""Between two counts; of more the newest."""


class Giver(Protocol):
    """The lane of the node from which a shortcut leads."""

    thread: NodeThread
    now_ns: Callable[[], int]


class Taker(Protocol):
    """The lane of the node to which a shortcut leads."""

    thread: NodeThread
    free: list[None]
    """Whoever takes it out, from any thread, may give the node a payload."""

    def do(self, port: str, payload: Any, /) -> None:
        """On the node's thread: works on a payload, and frees the node."""

    def leave_free(self, thread: NodeThread, /) -> None:
        """On some thread: gives back what was taken out of ``free``, and has the loop look if it could not."""

    def count(self, feed: Feed, number: int, looks: Iterable[Look]) -> None:
        """On the loop: counts so many payloads that were taken, of which some were looked at."""


class Shortcut:
    """What is in the way of the loop: an output's only edge, to a node on a thread that gets nothing by any other.

    The thread that has a payload takes the next node's turn and leaves it the payload. It counts them for itself:
    whoever wants to know has the loop ``count`` first. Once ``close`` has returned, what was given is counted and
    nothing more is given: whoever changes the edge, or ends a node at one of its ends, closes it first.
    """

    __slots__ = (
        "_bells", "_countdown", "_do", "_feed", "_free", "_gate", "_given", "_giver", "_is_open", "_jobs", "_looks",
        "_taker",
    )  # fmt: skip

    def __init__(self, giver: Giver, feed: Feed, taker: Taker) -> None:
        self._giver = giver
        self._feed = feed
        self._taker = taker
        self._free = taker.free
        self._do = taker.do
        self._jobs = taker.thread.jobs
        self._bells = giver.thread.bells
        self._gate = threading.Lock()  # nobody waits for it, but for the loop while a thread is within ``give``
        self._is_open = True
        self._given = 0  # since it was counted
        self._looks: deque[Look] = deque(maxlen=MOST_LOOKS)
        self._countdown = feed.channel.stride

    def give(self, payload: Any) -> bool:
        """On the giver's thread: hands a payload on, if the node is free and neither its caps nor a keyframe matter.

        All in one function, since each thread comes here once for every payload and finds nothing of it in the
        processor's caches.
        """
        with self._gate:
            if not self._is_open:
                return False
            try:
                self._free.pop()
            except IndexError:
                return False
            feed = self._feed
            channel, queue = feed.channel, feed.queue  # not before: the loop may have had the node's turn until now
            if queue.items or queue.needs_keyframe or getattr(payload, "caps", None) is not channel.caps:
                self._taker.leave_free(self._giver.thread)
                return False
            self._jobs.leave_after(self._bells, self._do, (channel.port, payload))
            self._given += 1
            self._countdown -= 1
            if not self._countdown:
                self._countdown = channel.stride
                self._looks.append((getattr(payload, "capture_ns", None), self._giver.now_ns()))
            return True

    def count(self) -> None:
        """On the loop: counts what was given since the last time."""
        with self._gate:  # who gives may be about to write it down
            given, self._given = self._given, 0
            looks = list(self._looks)
            self._looks.clear()
            stride = self._feed.channel.stride
            if not 0 < self._countdown <= stride:
                self._countdown = stride
        self._taker.count(self._feed, given, looks)

    def close(self) -> None:
        """On the loop."""
        with self._gate:
            self._is_open = False
        feed = self._feed
        feed.outlet.shortcut = None
        if feed.channel.inbox is not None:
            feed.channel.inbox.shortcut = None
        self.count()
