"""A graph that runs beside a program without async, on a thread and an event loop of its own."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from anyio.from_thread import BlockingPortal, start_blocking_portal

from flowstream.api.events import Events, EventsMissed
from flowstream.api.running import DEFAULT_SPAN_S, Frames, Run, TlsChoice
from flowstream.api.running import open as open_async
from flowstream.api.status import Status, Verdict
from flowstream.api.viewers import SyncViewers
from flowstream.errors import EndedError
from flowstream.graph.builder import Graph, Setting
from flowstream.graph.patch import Patch
from flowstream.media.frames import AudioFrame, VideoFrame
from flowstream.media.packets import EncodedPacket
from flowstream.runtime.engine import DRAIN_SECONDS
from flowstream.runtime.events import Event
from flowstream.runtime.stats import RunStats

if TYPE_CHECKING:
    import numpy as np

E = TypeVar("E")
P = TypeVar("P")
Q = TypeVar("Q")
R = TypeVar("R")


class _Loop:
    """The event loop of a run, on its thread."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self.is_closed = False

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Calls a function there and waits for what it gives; interrupted, it is cancelled there."""
        if self.is_closed:
            raise EndedError("the run is closed")
        future = self._portal.start_task_soon(function, *args)
        try:
            return future.result()
        except CancelledError:
            raise EndedError("the run is closed") from None
        except BaseException:
            future.cancel()
            raise

    def tell(self, function: Callable[[], object]) -> None:
        """Calls a function there, some time soon; not at all when the loop is gone."""
        if not self.is_closed:
            try:
                self._portal.start_task_soon(function)
            except RuntimeError:  # it ended this moment
                pass


class SyncFrames(Generic[P]):
    """The payloads that a program reads out of one node, until there are no more; see `Frames`."""

    def __init__(self, loop: _Loop, frames: Frames[P]) -> None:
        self._loop = loop
        self._frames: Frames[P] | None = frames

    def __iter__(self) -> SyncFrames[P]:
        return self

    def __next__(self) -> P:
        if self._frames is None or self._loop.is_closed:
            raise StopIteration
        return _next(self._loop, self._frames.__anext__)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Reads no more."""
        if self._frames is not None:
            frames, self._frames = self._frames, None
            self._loop.tell(frames.close)

    def __del__(self) -> None:
        self.close()


class SyncEvents:
    """What happens to a run, to iterate over until it ends; see `Events`."""

    def __init__(self, loop: _Loop, events: Events) -> None:
        self._loop = loop
        self._events = events

    def __iter__(self) -> SyncEvents:
        return self

    def __next__(self) -> Event | EventsMissed:
        if self._loop.is_closed:
            try:
                return self._events._next()
            except IndexError:
                raise StopIteration from None
        return _next(self._loop, self._events.__anext__)  # type: ignore[no-any-return]


def _next(loop: _Loop, following: Callable[[], Awaitable[Any]]) -> Any:
    async def take() -> tuple[bool, Any]:  # a StopAsyncIteration does not cross into a future
        try:
            return True, await following()
        except StopAsyncIteration:
            return False, None

    is_one, value = loop.call(take)
    if not is_one:
        raise StopIteration
    return value


class SyncRun:
    """A graph that runs beside the program, whose methods block; made by `flowstream.open_sync`.

    For any thread. A context manager: leaving the block closes it.
    """

    def __init__(self, run: Run, loop: _Loop, stack: ExitStack) -> None:
        self._run = run
        self._loop = loop
        self._stack = stack
        self._closing = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(drain=DRAIN_SECONDS if kind is None else 0)

    @property
    def links(self) -> tuple[str, ...]:
        """See `Run.links`."""
        return self._call(lambda: self._run.links)  # type: ignore[no-any-return]

    @property
    def viewers(self) -> SyncViewers:
        """See `Run.viewers`."""
        return SyncViewers._of(self._run.viewers, self._loop)

    @property
    def control(self) -> Path | None:
        """See `Run.control`."""
        return self._run.control

    def status(self) -> Status:
        """See `Run.status`."""
        return self._call(self._run.status)  # type: ignore[no-any-return]

    def stats(self, *, over: float = DEFAULT_SPAN_S) -> RunStats:
        """See `Run.stats`."""
        return self._call(partial(self._run.stats, over=over))  # type: ignore[no-any-return]

    def why(self, node: str | None = None) -> Verdict:
        """See `Run.why`."""
        return self._call(self._run.why, node)  # type: ignore[no-any-return]

    def events(self, *, limit: int = 1000) -> SyncEvents:
        """See `Run.events`."""
        return SyncEvents(self._loop, self._call(lambda: self._run.events(limit=limit)))

    def on(self, kind: type[E], callback: Callable[[E], object]) -> Callable[[], None]:
        """See `Run.on`. The callback is called on the thread of the run."""
        forget = self._call(lambda: self._run.on(kind, callback))
        return lambda: self._loop.tell(forget)

    def reload(self, source: str | os.PathLike[str] | Graph | None = None) -> Patch:
        """See `Run.reload`."""
        return self._call(self._run.reload, source)  # type: ignore[no-any-return]

    def set(self, name: str, value: Setting, *, save: bool = False) -> Patch:
        """See `Run.set`."""
        return self._call(partial(self._run.set, name, value, save=save))  # type: ignore[no-any-return]

    def clear(self, name: str | None = None) -> Patch:
        """See `Run.clear`."""
        return self._call(self._run.clear, name)  # type: ignore[no-any-return]

    def push(
        self,
        node: str,
        payload: np.ndarray[Any, Any] | VideoFrame | AudioFrame | EncodedPacket,
        *,
        time_ns: int | None = None,
    ) -> None:
        """See `Run.push`."""

        async def push() -> None:
            await self._run.push(node, payload, time_ns=time_ns)

        self._call(push)

    def end(self, node: str) -> None:
        """See `Run.end`."""
        self._call(self._run.end, node)

    @overload
    def frames(self, node: str) -> SyncFrames[VideoFrame]: ...
    @overload
    def frames(self, node: str, kind: type[Q]) -> SyncFrames[Q]: ...
    def frames(self, node: str, kind: type[Any] = VideoFrame) -> SyncFrames[Any]:
        """See `Run.frames`."""
        return SyncFrames(self._loop, self._call(self._run.frames, node, kind))

    def wait(self) -> None:
        """See `Run.wait`. Ctrl-C interrupts it."""
        self._call(self._run.wait)

    def stop(self, *, drain: float = DRAIN_SECONDS) -> bool:
        """See `Run.stop`. The run can still be asked afterwards, until it is closed."""

        async def stop() -> bool:
            return await self._run.stop(drain=drain)

        return self._call(stop)  # type: ignore[no-any-return]

    def close(self, *, drain: float = DRAIN_SECONDS) -> None:
        """Stops the run as `stop` does, and ends its thread. Harmless when that has happened already."""
        with self._closing:
            if self._loop.is_closed:
                return
            atexit.unregister(self.close)
            try:
                self._call(self._run._finish, drain)
            finally:
                self._loop.is_closed = True
                self._stack.close()

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._loop.call(function, *args)


def open_sync(
    graph: str | os.PathLike[str] | Graph,
    *,
    sets: Mapping[str, str | int | float | bool] | None = None,
    layers: Iterable[str | os.PathLike[str]] = (),
    nodes: Iterable[str | os.PathLike[str]] = (),
    watch: bool = False,
    control: bool | str | os.PathLike[str] = False,
    serve: str | bool = True,
    tls: TlsChoice | None = None,
) -> SyncRun:
    """Runs a graph beside a program without async: ``with flowstream.open_sync("graph.yaml") as run``.

    The run has a thread with an event loop of its own; everything else is as for `flowstream.open`. It runs when this
    returns. A run that nobody closes is closed when the process ends.
    """
    opening = open_async(
        graph, sets=sets, layers=layers, nodes=nodes, watch=watch, control=control, serve=serve, tls=tls
    )  # fmt: skip
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal("asyncio", name="flowstream"))
        run = stack.enter_context(portal.wrap_async_context_manager(opening))
        made = SyncRun(run, _Loop(portal), stack.pop_all())
        atexit.register(made.close)
        return made
