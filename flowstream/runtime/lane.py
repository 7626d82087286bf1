"""The lane of a node that works on a thread of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from flowstream.errors import NegotiationError
from flowstream.node.ports import Emit
from flowstream.runtime.channel import Channel, Feed, Inbox, Outlet, give_up, wait_for_room
from flowstream.runtime.executor import NodeThread
from flowstream.runtime.shortcut import Look
from flowstream.runtime.wakeup import Wakeup


class ThreadLane:
    """Brings payloads to the thread and what comes of them to the edges, one payload at a time.

    A payload goes to the thread within the call that put it on its edge, and its emits go to their edges within the
    call that hears of them: waking a task for either would cost a turn of the event loop. The task of ``run`` is there
    for what is rare: an edge that makes the node wait, an error, the end.

    Where one such node follows on another and is idle, the payload need not come by the loop at all: one thread leaves
    it to the next (``Shortcut``), and the loop hears of it when it asks. What waits on an edge is for the loop: a node
    for which something came while it was busy, or behind which something waits, goes on by the loop, so that nothing
    overtakes.

    ``handlers`` are the node's, by port, and ``outlets`` by output; ``took`` counts a payload and gives its caps if
    they are new, ``count`` only counts so many, ``now_ns`` is the graph's clock, ``offer`` gives the edges that make
    the node wait.
    """

    def __init__(
        self,
        inbox: Inbox,
        handlers: Mapping[str, Callable[[Any], Iterable[Emit[Any]] | None]],
        outlets: Mapping[Any, Outlet],
        thread: NodeThread,
        *,
        caps_changed: Callable[[str, Any], None],
        took: Callable[[Channel, Any], Any],
        count: Callable[[int], None],
        now_ns: Callable[[], int],
        offer: Callable[[Emit[Any]], list[Feed] | None],
        emit: Callable[[Emit[Any]], Awaitable[None]],
    ) -> None:
        self._inbox = inbox
        self._ports: Collection[str] = handlers.keys()
        self._handlers = handlers
        self._outlets = outlets
        self.thread = thread
        self.now_ns = now_ns
        self._caps_changed = caps_changed
        self._took = took
        self._count = count
        self._offer = offer
        self._emit = emit
        self._turn = Wakeup(inbox.turns)  # of the task
        self.free: list[None] = [None]  # whoever takes it out, the loop or a thread, may give the node a payload
        self._is_wanted = False  # whether there is something for the loop to do when the node is free
        self._is_over = False
        self._error: BaseException | None = None
        self._blocked: tuple[list[Feed], Emit[Any], Iterator[Emit[Any]]] | None = None

    async def run(self) -> None:
        """Returns at the end of the input. Raises what the node raised; a call under way is then left to itself."""
        self._inbox.wakeup.called = self._advance
        if self.thread.hands_on:
            self._inbox.taker = self
        try:
            self._advance()
            while not self.free or not self._inbox.ended(self._ports):
                await self._turn
                if self._error is not None:
                    raise self._error
                if self._blocked is not None:
                    feeds, item, rest = self._blocked
                    self._blocked = None
                    await wait_for_room(feeds, item.payload)
                    for item in rest:
                        await self._emit(item)
                    self._free_up()
        finally:
            self._is_over = True
            self._inbox.taker = None
            self._inbox.cut()
            for outlet in self._outlets.values():
                outlet.cut()
            if self._blocked is not None:
                give_up(self._blocked[0], self._blocked[1].payload)
            self._inbox.wakeup.called = None

    # --- on the loop ------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        if not self._seize():
            self._is_wanted = True
            if not self._seize():  # else it has become free before it could see that
                return
        got = self._inbox.poll(self._ports)
        self._is_wanted = got is not None and self._inbox.may_go_on
        if got is not None:
            self._start(*got)
            return
        self.free.append(None)
        if self._inbox.ended(self._ports):
            self._turn.set()

    def _seize(self) -> bool:
        """Any thread: takes the node's turn, unless somebody has it."""
        try:
            self.free.pop()
        except IndexError:
            return False
        return True

    def _start(self, channel: Channel, payload: Any) -> None:
        try:
            new_caps = self._took(channel, payload)
        except NegotiationError as error:  # this runs within the producer's call, whose error it is not
            self._settled([], error)
            return
        self.thread.start(self.do, channel.port, payload, new_caps)

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
                    outlet = self._outlets[item.output]
                    if outlet.shortcut is None and self.thread.hands_on:
                        outlet.shorten(self)
            except Exception as caught:  # noqa: BLE001 - raised by the task
                error = caught
        if error is not None:
            self._error = error
            self._turn.set()
            return
        self._free_up()

    def _free_up(self) -> None:
        self.free.append(None)
        self._advance()

    def _go_on(self) -> None:
        """The thread passed on what it had, and there is something for the node."""
        if not self._is_over:
            self._free_up()

    def _look(self) -> None:
        """Something came when the loop could not see that the node was free."""
        if not self._is_over:
            self._advance()

    def count(self, feed: Feed, number: int, looks: Iterable[Look]) -> None:
        """Counts payloads that did not come by the loop."""
        feed.channel.passed(feed, number, looks)
        self._count(number)

    # --- on the thread ----------------------------------------------------------------------------------------------

    def do(self, port: str, payload: Any, new_caps: Any = None) -> None:
        """One payload's work; its emits go to the next thread, or cross to the loop in one hop."""
        emits: list[Emit[Any]] = []
        error: BaseException | None = None
        try:
            if new_caps is not None:
                self._caps_changed(port, new_caps)
            made = self._handlers[port](payload)
            if made is not None:
                emits = list(made)
            if len(emits) == 1:
                item = emits[0]
                outlet = self._outlets.get(item.output)
                if (
                    outlet is not None
                    and (shortcut := outlet.shortcut) is not None
                    and isinstance(item.payload, outlet.payloads)
                    and shortcut.give(item.payload)
                ):
                    if self._is_wanted:
                        self.thread.tell_after(self._go_on)
                    else:
                        self.leave_free(self.thread)
                    return
        except BaseException as caught:  # noqa: BLE001 - raised by the task
            error = caught
        self.thread.settle(self._settled, emits, error)

    def leave_free(self, thread: NodeThread) -> None:
        """Any thread: whoever comes first may give the node a payload; the loop, if it could not see that."""
        self.free.append(None)
        if self._is_wanted:
            thread.tell_after(self._look)
