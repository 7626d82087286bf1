"""A graph that runs beside a program without async, on a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import atexit
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from inspect import isawaitable
from pathlib import Path
from threading import Lock, RLock, get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

import anyio
from anyio.from_thread import start_blocking_portal

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
    """The event loop of a run, on its thread, where this is made."""

    def __init__(self) -> None:
        self._soon: Callable[[Callable[[], object]], object] = asyncio.get_running_loop().call_soon_threadsafe
        self._thread: int = get_ident()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._posting = RLock()  # a signal or the garbage collector may have the thread post something else meanwhile
        self.is_closed: bool = False

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Calls a function there and waits for what it gives; interrupted, it is cancelled there."""
        if not self.is_closed and get_ident() == self._thread:
            raise RuntimeError(
                "a callback is called on the thread of the run and cannot wait for the run: have another thread ask it"
            )
        call = _Call(function, args)
        is_done = Lock()
        is_done.acquire()
        try:
            if not self._post(lambda: self._begin(call, is_done.release)):
                raise EndedError("the run is closed")
            # Not for a condition, as futures and portals do: a Ctrl-C may come when it has given up its lock and not
            # got it back, and then that is what is complained of.
            is_done.acquire()
        except BaseException:
            self._post(call.cancel)
            raise
        try:
            return call.result()
        except asyncio.CancelledError:
            raise EndedError("the run is closed") from None

    def tell(self, function: Callable[[], object]) -> None:
        """Calls a function there, some time soon; not at all when the loop is gone."""
        self._post(function)

    def close(self) -> None:
        """Takes no more calls."""
        with self._posting:
            self.is_closed = True

    async def join(self) -> None:
        """On the loop: waits for the calls that are under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, call: _Call, done: Callable[[], object]) -> None:
        task = call.begin()
        self._tasks.add(task)

        def ended(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                task.exception()  # is not complained of where nobody waits for it any more
            done()

        task.add_done_callback(ended)

    def _post(self, function: Callable[[], object]) -> bool:
        with self._posting:
            if self.is_closed:
                return False
            try:
                self._soon(function)
            except RuntimeError:  # the loop ended by itself, or this moment
                return False
            return True


class _Call:
    """A function that is called on the loop, by a task that can be cancelled but for what it shields."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        self._task: asyncio.Task[Any] | None = None
        self._scope: anyio.CancelScope | None = None

    def begin(self) -> asyncio.Task[Any]:
        """On the loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self._task

    def cancel(self) -> None:
        """On the loop."""
        if self._task is None or self._task.done():
            return
        if self._scope is None:
            self._task.cancel()
        else:
            self._scope.cancel()

    def result(self) -> Any:
        """What it gave or raised; from any thread, once it is done. Raises CancelledError when it was cancelled."""
        task, self._task = self._task, None
        assert task is not None
        try:
            return task.result()
        finally:
            del task  # no cycle with what it has raised

    async def _run(self) -> Any:
        with anyio.CancelScope() as self._scope:
            value = self._function(*self._args)
            return await value if isawaitable(value) else value
        raise asyncio.CancelledError


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
        self._closing = Lock()

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
        """See `Run.on`. The callback is called on the thread of the run, and cannot ask the run anything itself."""
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
                self._loop.close()
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
        loop = portal.call(_Loop)
        stack.callback(portal.call, loop.join)  # when the run has ended, and so all that was asked of it
        run = stack.enter_context(portal.wrap_async_context_manager(opening))
        made = SyncRun(run, loop, stack.pop_all())
        atexit.register(made.close)
        return made
