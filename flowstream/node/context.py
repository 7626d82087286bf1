"""What a running node may ask of the runtime. A node asks its context for everything and owns no task by itself."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from flowstream.media.signals import KeyframeRequest
from flowstream.node.ports import Emit, Input, Output

P = TypeVar("P")
Q = TypeVar("Q")
R = TypeVar("R")

AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[MutableMapping[str, Any]], Awaitable[None]]],
    Awaitable[None],
]
"""An ASGI 3 application."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a payload comes from: the input, which of its edges (counted from 0), and the node that gives it."""

    port: str
    index: int
    node: str


class Holding(Protocol):
    """What a holding is opened with: a task group and a context of its own, which outlive the node object."""

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logger that names the node."""
        ...

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Runs a task for as long as the holding lives; its failure fails the node that holds it."""

    def now_ns(self) -> int:
        """The monotonic clock."""
        ...

    def wallclock_ns(self) -> int:
        """UTC, in nanoseconds since 1970."""
        ...


class Context(Protocol):
    """The runtime as one node sees it. Methods are for the event loop unless they say otherwise."""

    @property
    def name(self) -> str:
        """The node's id in the graph."""
        ...

    @property
    def label(self) -> str:
        """What the user calls the node: its ``label``, else its id."""
        ...

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logger that names the node; may be used from any thread."""
        ...

    @property
    def is_live(self) -> bool:
        """Whether the graph has a source that cannot be slowed down."""
        ...

    @property
    def listen(self) -> tuple[str, int] | None:
        """Host and port where the graph serves viewers, once bound; None when it serves nobody."""
        ...

    def now_ns(self) -> int:
        """The monotonic clock, in nanoseconds; any thread."""
        ...

    def wallclock_ns(self) -> int:
        """UTC, in nanoseconds since 1970; any thread."""
        ...

    def media_ns(self) -> int:
        """The graph's running time: the media time of something captured right now; any thread."""
        ...

    async def sleep_until_ns(self, now_ns: int) -> None:
        """Waits until the monotonic clock reads ``now_ns``; returns at once when it has passed."""

    def ready(self) -> None:
        """Says that the node's own resources are open. A node with ``run`` calls it; the others need not."""

    async def receive(self, port: Input[P]) -> P:
        """The next payload of an input. Raises EndOfInput when there will be none."""
        ...

    def stream(self, port: Input[P]) -> AsyncIterator[P]:
        """The payloads of an input, to its end."""
        ...

    def merge(self, *ports: Input[Any]) -> AsyncIterator[tuple[str, Any]]:
        """``(port name, payload)`` of several inputs as they come, until all have ended."""
        ...

    def each(self, *ports: Input[Any]) -> AsyncIterator[tuple[Origin, Any]]:
        """As ``merge``, and tells the edges of an input apart that takes many."""
        ...

    def origins(self, port: Input[Any]) -> tuple[Origin, ...]:
        """The edges that are attached to an input now, in the graph's order."""
        ...

    def latest(self, port: Input[P]) -> P | None:
        """The newest payload of a feedback input; None before the first.

        For nodes with a ``run`` of their own; others mark a handler for the input.
        """
        ...

    def is_connected(self, port: Input[Any] | Output[Any]) -> bool:
        """Whether an edge is attached to the port; any thread."""
        ...

    async def emit(self, item: Emit[Any]) -> None:
        """Offers the payload to every edge of its output first, then waits for those that block."""

    def request(self, port: Input[Any], signal: KeyframeRequest, *, index: int | None = None) -> None:
        """Sends a request upstream through an input, by all of its edges or by one; any thread."""

    def requests(self, port: Output[Any]) -> AsyncIterator[KeyframeRequest]:
        """Requests that came up to an output, newest only; for nodes with a ``run`` of their own."""
        ...

    async def in_thread(self, function: Callable[..., R], *args: Any) -> R:
        """Runs a blocking call on this node's own thread, in order with its other calls."""
        ...

    def mount(self, app: AsgiApp, *, page: bool = False) -> AbstractAsyncContextManager[str]:
        """Serves an ASGI application at ``/<node>/`` while the block lasts; gives its path.

        ``page`` marks one that people open in a browser: its link is printed.
        """
        ...

    def hold(
        self, key: str, open: Callable[[Holding], AbstractAsyncContextManager[R]]
    ) -> AbstractAsyncContextManager[R]:
        """Something that outlives this node object at a reload: a socket, a device, viewers.

        Opened once for the node's id and ``key``; the successor of this node that holds the same key gets the same
        object. It is closed when the node leaves the graph, or a successor became ready without holding it.
        """
        ...

    def report(self, **facts: str | int | float | None) -> None:
        """Facts about the node for status and the terminal, such as ``viewers=3``; any thread.

        ``paused``, with the reason, says that nothing comes and that this is meant: nobody then waits for it in vain.
        None takes a fact back.
        """


class EndOfInput(Exception):  # noqa: N818 - an end is not an error
    """Raised by ``Context.receive`` when the input has ended."""
