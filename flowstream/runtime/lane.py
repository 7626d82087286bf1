"""The lane of a node that works on a thread of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any

from flowstream.node.ports import Emit
from flowstream.runtime.channel import Channel, Feed, Inbox, give_up, wait_for_room
from flowstream.runtime.executor import Settled
from flowstream.runtime.wakeup import Wakeup


class ThreadLane:
    """Brings payloads to the thread and what comes of them to the edges, one payload at a time.

    A payload goes to the thread within the call that put it on its edge, and its emits go to their edges within the
    call that hears of them: waking a task for either would cost a turn of the event loop. The task of ``run`` is there
    for what is rare: an edge that makes the node wait, an error, the end.

    ``start`` submits a payload of a channel to the thread, ``offer`` gives the edges that make the node wait.
    """

    def __init__(
        self,
        inbox: Inbox,
        ports: Collection[str],
        *,
        start: Callable[[Settled, Channel, Any], None],
        offer: Callable[[Emit[Any]], list[Feed] | None],
        emit: Callable[[Emit[Any]], Awaitable[None]],
    ) -> None:
        self._inbox = inbox
        self._ports = ports
        self._start = start
        self._offer = offer
        self._emit = emit
        self._turn = Wakeup(inbox.turns)  # of the task
        self._is_busy = False
        self._is_over = False
        self._error: BaseException | None = None
        self._blocked: tuple[list[Feed], Emit[Any], Iterator[Emit[Any]]] | None = None

    async def run(self) -> None:
        """Returns at the end of the input. Raises what the node raised; a call under way is then left to itself."""
        self._inbox.wakeup.called = self._advance
        try:
            self._advance()
            while self._is_busy or not self._inbox.ended(self._ports):
                await self._turn
                if self._error is not None:
                    raise self._error
                if self._blocked is not None:
                    feeds, item, rest = self._blocked
                    self._blocked = None
                    await wait_for_room(feeds, item.payload)
                    for item in rest:
                        await self._emit(item)
                    self._is_busy = False
                    self._advance()
        finally:
            self._is_over = True
            if self._blocked is not None:
                give_up(self._blocked[0], self._blocked[1].payload)
            self._inbox.wakeup.called = None

    def _advance(self) -> None:
        if self._is_busy:
            return
        got = self._inbox.poll(self._ports)
        if got is not None:
            self._is_busy = True
            self._start(self._settled, *got)
        elif self._inbox.ended(self._ports):
            self._turn.set()

    def _settled(self, emits: list[Emit[Any]], error: BaseException | None) -> None:
        if self._is_over:
            return
        if error is None:
            try:
                rest = iter(emits)
                for item in rest:
                    if (feeds := self._offer(item)) is not None:
                        self._blocked = (feeds, item, rest)
                        self._turn.set()
                        return
            except Exception as caught:  # noqa: BLE001 - raised by the task
                error = caught
        if error is not None:
            self._error = error
            self._turn.set()
            return
        self._is_busy = False
        self._advance()
