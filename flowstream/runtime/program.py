"""Where a graph and the program that it runs in meet: payloads into a node, and payloads out of one.

A node holds one of the two under the key `PROGRAM`; a program finds it by the node's id, also after a reload.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio

from flowstream.errors import EndedError
from flowstream.node.context import EndOfInput, Holding

PROGRAM = "program"
"""The key under which a node holds a `ProgramInput` or a `ProgramOutput`."""


class _Changes:
    """Wakes everybody who waits for something to change."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def tell(self) -> None:
        event, self._event = self._event, anyio.Event()
        event.set()

    async def wait(self) -> None:
        await self._event.wait()


class Delivery:
    """Something that a program pushed, on its way into a node. ``time_ns`` is the media time that it named, if any."""

    __slots__ = ("_error", "_settled", "item", "time_ns")

    def __init__(self, item: Any, time_ns: int | None) -> None:
        self.item: Any = item
        self.time_ns: int | None = time_ns
        self._error: Exception | None = None
        self._settled = anyio.Event()

    def settle(self, error: Exception | None = None) -> None:
        """The node has passed it on, or refuses it with what the program then gets to see. The first word counts."""
        if not self._settled.is_set():
            self._error = error
            self._settled.set()

    async def wait(self) -> None:
        """Waits until it is settled. Raises what it was refused with."""
        await self._settled.wait()
        if self._error is not None:
            raise self._error


class ProgramInput:
    """Where a program pushes payloads into a node, one at a time and in order.

    A node holds it: ``ctx.hold(PROGRAM, ProgramInput.open)``. It takes what comes by ``take`` and settles each.
    """

    def __init__(self) -> None:
        self.is_attended: bool = False
        self._turn = anyio.Lock()
        self._changes = _Changes()
        self._waiting: Delivery | None = None
        self._is_ending = False
        self._over: Exception | None = None

    @staticmethod
    @asynccontextmanager
    async def open(holding: Holding) -> AsyncIterator[ProgramInput]:
        """One for a node to hold; what is pushed after it was closed is refused."""
        made = ProgramInput()
        try:
            yield made
        finally:
            made.abandon(EndedError("the graph has ended, or the node has left it; it takes nothing more"))

    # --- the program's side -----------------------------------------------------------------------------------------

    def attend(self) -> None:
        """There is a program that may push."""
        self.is_attended = True

    async def push(self, item: Any, time_ns: int | None = None) -> None:
        """Gives the node something and waits until it has passed it on; several who push take turns.

        Cancelled before the node took it, nothing was pushed. Raises what the node refuses it with, and EndedError
        when the node takes nothing more.
        """
        async with self._turn:
            if self._over is not None:
                raise self._over
            if self._is_ending:
                raise EndedError("the program has said that nothing more comes")
            delivery = self._waiting = Delivery(item, time_ns)
            self._changes.tell()
            try:
                await delivery.wait()
            finally:
                if self._waiting is delivery:
                    self._waiting = None

    async def end(self) -> None:
        """Says that nothing more comes, once all that is being pushed has been passed on."""
        async with self._turn:
            self._is_ending = True
            self._changes.tell()

    def abandon(self, error: Exception) -> None:
        """The node takes nothing more: whoever pushes gets the error, until a node begins anew."""
        self._over = error
        if self._waiting is not None:
            self._waiting.settle(error)
        self._changes.tell()

    # --- the node's side --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A node takes from now on."""
        self._over, self._is_ending = None, False

    async def take(self) -> Delivery:
        """What is pushed next. Raises EndOfInput when nothing more will be."""
        while True:
            if self._waiting is not None:
                delivery, self._waiting = self._waiting, None
                return delivery
            if self._is_ending:
                raise EndOfInput
            await self._changes.wait()


class ProgramOutput:
    """Where a program reads payloads out of a node, as fast as it asks for them.

    A node holds it: ``ctx.hold(PROGRAM, ProgramOutput.open)``. It takes a payload from its input only when one is
    wanted, so that what waits, waits on the edge and under the edge's policy.
    """

    def __init__(self) -> None:
        self.is_attended: bool = False
        self._changes = _Changes()
        self._thread = threading.get_ident()
        self._given: deque[Any] = deque()
        self._givers: list[object] = []
        self._readers = 0
        self._asked = 0
        self._waits_for_reader = False
        self._is_dismissed = False
        self._is_over = False
        self._error: Exception | None = None

    @staticmethod
    @asynccontextmanager
    async def open(holding: Holding) -> AsyncIterator[ProgramOutput]:
        """One for a node to hold; who still reads when it is closed comes to the end."""
        made = ProgramOutput()
        try:
            yield made
        finally:
            made.finish()

    # --- the program's side -----------------------------------------------------------------------------------------

    def attend(self) -> None:
        """There is a program that may read."""
        self.is_attended = True

    def let_go(self, *, readers: bool = False) -> None:
        """The first who reads is not waited for any more; with ``readers`` nobody is."""
        self._waits_for_reader = False
        self._is_dismissed = self._is_dismissed or readers
        self._changes.tell()

    def join(self) -> None:
        """Somebody reads from now on. What is given goes to one of those who read."""
        self._readers += 1
        self._waits_for_reader = False
        self._changes.tell()

    def leave(self) -> None:
        """Somebody does not read any more."""
        self._readers -= 1
        if threading.get_ident() == self._thread:  # a reader may be collected as garbage anywhere
            self._changes.tell()

    async def read(self) -> Any:
        """The next payload. Raises EndOfInput at the end, and what the node failed with."""
        self._asked += 1
        self._changes.tell()
        try:
            while not self._given:
                if self._error is not None:
                    raise self._error
                if self._is_over:
                    raise EndOfInput
                await self._changes.wait()
            return self._given.popleft()
        finally:
            self._asked -= 1

    def abandon(self, error: Exception) -> None:
        """The node failed for good: whoever reads gets the error, until a node begins anew."""
        self._error = error
        self._changes.tell()

    # --- the node's side --------------------------------------------------------------------------------------------

    @contextmanager
    def giving(self, *, waits: bool) -> Iterator[object]:
        """A node gives while the block lasts; gives what it names itself by in ``wanted``.

        ``waits``: for the first who reads, if there is a program at all; otherwise what nobody reads is not kept. Of
        two nodes, a successor and the one before it, the older one gives first.
        """
        giver = object()
        self._givers.append(giver)
        self._is_over, self._error = False, None
        self._waits_for_reader = waits and not self._readers
        try:
            yield giver
        finally:
            self._givers.remove(giver)
            self._changes.tell()

    async def wanted(self, giver: object) -> None:
        """Returns when the node should take its next payload: somebody asks for it, or nobody will."""
        while self._givers[0] is not giver or self._holds_back():
            await self._changes.wait()

    def _holds_back(self) -> bool:
        if not self.is_attended or self._is_dismissed:
            return False
        return self._asked <= len(self._given) if self._readers else self._waits_for_reader

    def give(self, payload: Any) -> bool:
        """Gives a payload to who reads; whether there is anybody."""
        if not self._readers or self._is_dismissed:
            return False
        self._given.append(payload)
        self._changes.tell()
        return True

    def finish(self) -> None:
        """Nothing more will be given, unless another node still gives; what was given, is still read."""
        if not self._givers:
            self._is_over = True
            self._changes.tell()
