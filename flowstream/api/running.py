"""A graph that runs within an async program, on its own event loop."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import anyio
import anyio.to_thread

from flowstream.api.events import Dispatch, Events
from flowstream.api.status import Status, Verdict
from flowstream.api.viewers import Viewers
from flowstream.control import api, observe
from flowstream.control.files import GraphFile
from flowstream.control.run import Done
from flowstream.control.run import Run as ControlledRun
from flowstream.control.settings import require_setting, text_for
from flowstream.errors import EndedError, FlowstreamError
from flowstream.graph.builder import Graph, Setting
from flowstream.graph.diagnostics import did_you_mean, listed
from flowstream.graph.patch import Patch
from flowstream.graph.plan import CertificateFiles, Serve, Tls
from flowstream.graph.spec import listen_of
from flowstream.media.frames import AudioFrame, VideoFrame
from flowstream.media.packets import EncodedPacket
from flowstream.node.context import AsgiApp, EndOfInput
from flowstream.runtime.engine import DRAIN_SECONDS, Engine
from flowstream.runtime.events import NodeFailed
from flowstream.runtime.program import PROGRAM, ProgramInput, ProgramOutput
from flowstream.runtime.runner import Runner, node_error
from flowstream.runtime.stats import DEFAULT_SPAN_NS, SECOND_NS, RunStats

if TYPE_CHECKING:
    import numpy as np
    from starlette.requests import Request

E = TypeVar("E")
P = TypeVar("P")
Q = TypeVar("Q")

Authorize = Callable[["Request"], "bool | str | Awaitable[bool | str | None] | None"]
"""Says whether a request may pass: True or the viewer's name, else False or None. May be async."""

TlsChoice = Literal["auto", "off"] | tuple[str | os.PathLike[str], str | os.PathLike[str]]
"""How an address is served: with a certificate that is made, in the clear, or with these files: certificate, key."""

_EVENTS = 1000

DEFAULT_SPAN_S = DEFAULT_SPAN_NS / SECOND_NS
"""Over how many of the last seconds `Run.stats` tells rates and latencies, unless it is asked otherwise."""

_logger = logging.getLogger("flowstream.api")


class Frames(Generic[P]):
    """The payloads that a program reads out of one node, until there are no more.

    What is read by one is read by no other; the node takes from its edge only what is asked for.
    """

    def __init__(self, node: str, output: ProgramOutput, kind: type[P]) -> None:
        self._node = node
        self._output: ProgramOutput | None = output
        self._kind = kind
        output.join()

    def __aiter__(self) -> Frames[P]:
        return self

    async def __anext__(self) -> P:
        output = self._output
        if output is None:
            raise StopAsyncIteration
        try:
            payload = await output.read()
        except EndOfInput:
            self.close()
            raise StopAsyncIteration from None
        if not isinstance(payload, self._kind):
            given = type(payload).__name__
            raise TypeError(
                f"{self._node} gives {given}, not {self._kind.__name__}; ask for it: frames({self._node!r}, {given})"
            )
        return payload

    def close(self) -> None:
        """Reads no more; what comes to the node then is thrown away, unless somebody else reads."""
        if self._output is not None:
            output, self._output = self._output, None
            output.leave()

    def __del__(self) -> None:
        self.close()


class Run:
    """A graph that runs, as the program around it sees it. Made by `flowstream.open`; for the loop it was opened on."""

    _run: ControlledRun
    _engine: Engine
    _dispatch: Dispatch
    _follow: Callable[[], None]

    @classmethod
    def _of(cls, run: ControlledRun, dispatch: Dispatch, follow: Callable[[], None]) -> Run:
        made = cls()
        made._run, made._engine, made._dispatch, made._follow = run, run.engine, dispatch, follow
        return made

    # --- what there is to know --------------------------------------------------------------------------------------

    @property
    def links(self) -> tuple[str, ...]:
        """The addresses of the pages that people open, with a token where one is needed; empty when there are none."""
        return self._run.desk.links()

    @property
    def viewers(self) -> Viewers:
        """Who watches and who waits; lets in, sends away, pauses and invites."""
        return Viewers._of(self._run.desk)

    @property
    def control(self) -> Path | None:
        """The control socket, by which ``flowstream status`` finds the run; None when it has none."""
        return self._run.socket

    def status(self) -> Status:
        """The run and every node of it as they stand. What is secret shows as the graph writes it."""
        told = api.status(self._run)
        return Status.of(self._run.secrets.scrubbed(told), self.links)

    async def stats(self, *, over: float = DEFAULT_SPAN_S) -> RunStats:
        """What goes through every node and every edge: rates, latencies, queues, drops, processor time, restarts.

        Counters are over the whole run, rates and latencies over the last ``over`` seconds (1 to 3600), as far as the
        run is that old; they are taken once a second. The same as ``flowstream top --json`` shows. Raises ValueError
        for a span out of bounds.
        """
        if not 1 <= over <= observe.MOST_SPAN_SECONDS:
            raise ValueError(f"over= is a number of seconds from 1 to {observe.MOST_SPAN_SECONDS}, not {over!r}")
        return self._run.statistics.snapshot(round(over * SECOND_NS))

    async def why(self, node: str | None = None) -> Verdict:
        """Why nothing comes, or not what should: each cause in a sentence, with the nodes that suffer from it.

        With ``node`` only what concerns that one. The same as ``flowstream why`` says. Raises FlowstreamError when
        there is no such node.
        """
        if node is not None:
            self._runner(node)
        return Verdict.of(self._run.secrets.scrubbed(observe.why(self._run.stalls, node)))

    def events(self, *, limit: int = _EVENTS) -> Events:
        """What happens from now on, to iterate over: `NodeFailed`, `NodeRestarted`, `Applied`, `Refused` ...

        ``limit`` is how many may wait; the oldest are then lost, and an `EventsMissed` says how many.
        """
        return self._dispatch.iterate(limit)

    def on(self, kind: type[E], callback: Callable[[E], object]) -> Callable[[], None]:
        """Calls back for each event of a class, on the event loop, so it must not block. Gives what ends that."""
        return self._dispatch.call(kind, callback)

    # --- changing it ------------------------------------------------------------------------------------------------

    async def reload(self, source: str | os.PathLike[str] | Graph | None = None) -> Patch:
        """Applies the files as they are now, or another graph in their place, and gives what was done to each node.

        Variables and layers stay those that the run was opened with. Raises GraphError when the graph has mistakes,
        ReloadError when it cannot be applied; what runs then goes on as it was.
        """
        if source is None:
            done = await self._run.reload()
        else:
            path, text = _source(source)
            done = await self._run.reload(lambda file: replace(file, path=path, text=text))
        self._follow()
        return self._patch(done)

    async def set(self, name: str, value: Setting, *, save: bool = False) -> Patch:
        """Gives a live setting another value: ``set("encode.bitrate", "1M")``, as ``flowstream set`` does.

        ``name`` is NODE.FIELD, also of a node in a subgraph: ``left/titled.text``. None stands for the default. The
        value lies over the files: a save that leaves the setting alone keeps it, one that changes it wins; until then
        `status` tells the difference. ``save`` writes it into the file where it belongs, too.

        Raises FlowstreamError when there is no such setting, when the node would have to be replaced for it, or when
        the file cannot be written; GraphError when it does not take the value; TypeError or ValueError for a value
        that cannot stand in a graph. Nothing has changed then.
        """
        text = text_for(value, name)
        require_setting(self._engine.plan or self._run.plan, name)
        return self._patch(await self._run.set(name, text, save=save, must_be_live=True))

    async def clear(self, name: str | None = None) -> Patch:
        """Takes back what `set` gave: a setting, or all of them. Raises FlowstreamError when it was not set."""
        return self._patch(await self._run.clear(name))

    def _patch(self, done: Done) -> Patch:
        """What was done; nothing, when nothing had to be."""
        return done.patch if done.patch is not None else self._engine.preview(self._engine.plan or self._run.plan)

    # --- frames -----------------------------------------------------------------------------------------------------

    async def push(
        self,
        node: str,
        payload: np.ndarray[Any, Any] | VideoFrame | AudioFrame | EncodedPacket,
        *,
        time_ns: int | None = None,
    ) -> None:
        """Puts a frame into the graph, through a node of type ``app-in``; returns when the graph has taken it.

        It waits for an edge that blocks; one that drops, drops and counts. ``time_ns`` is its media time; see
        ``app-in`` for when it is left out. Raises TypeError or ValueError for what the node does not take, EndedError
        when it takes nothing more, NodeError when it failed, and FlowstreamError when it is no such node.
        """
        await self._met(node, ProgramInput).push(payload, time_ns)

    async def end(self, node: str) -> None:
        """Ends the stream of a node of type ``app-in``, after all that was pushed. Raises as ``push``."""
        await self._met(node, ProgramInput).end()

    @overload
    def frames(self, node: str) -> Frames[VideoFrame]: ...
    @overload
    def frames(self, node: str, kind: type[Q]) -> Frames[Q]: ...
    def frames(self, node: str, kind: type[Any] = VideoFrame) -> Frames[Any]:
        """Frames out of the graph, through a node of type ``app-out``: ``async for frame in run.frames("out")``.

        ``kind`` is their class when they are no pictures. Ends with the stream. Raises TypeError for a payload of
        another class, NodeError when the node failed, and FlowstreamError when it is no such node.
        """
        return Frames(node, self._met(node, ProgramOutput), kind)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Returns when the graph has ended by itself or was stopped. Raises NodeError when a node had failed."""
        await self._engine.wait()
        for runner in self._engine.runners.values():
            if runner.state == "failed":
                raise node_error(runner)

    async def stop(self, *, drain: float = DRAIN_SECONDS) -> bool:
        """Stops the sources, lets the rest finish what it has for at most ``drain`` seconds, then ends what is left.

        Gives whether everything came to its end by itself.
        """
        self._let_go(readers=False)
        return await self._engine.stop(drain_seconds=drain)

    # --- in another web application ---------------------------------------------------------------------------------

    def asgi(
        self, *, authorize: Authorize | None = None, owner: Authorize | None = None, url: str | None = None
    ) -> AsgiApp:
        """The pages and endpoints of the graph as an ASGI application, to be mounted in another one at any path.

        ``authorize`` is asked before every request of a viewer and says whether it may pass; it gives True, or the
        viewer's name, which ``viewers`` then shows. Who passes needs no token, and waits where ``approval`` is
        ``manual``. ``owner`` is asked in the same way for what only the owner of the graph may see, under
        ``/-/status``; without it there is no such thing. Open the graph with ``serve=False``, or it is served at an
        address of its own too. ``url`` is where the application is reached from outside, for `links`. Media goes to
        viewers by UDP, from the host that ``serve: listen`` of the graph names, 127.0.0.1 unless it does.
        """
        from flowstream.api.web import Pages

        if url is not None:
            self._run.desk.base = url.rstrip("/")
        return Pages(self._run, authorize, owner)

    # --- behind it --------------------------------------------------------------------------------------------------

    def _met(self, node: str, kind: type[P]) -> P:
        """What a node holds for the program. Raises as `push` and `frames`."""
        met = self._engine.held(node, PROGRAM)
        if isinstance(met, kind):
            return met
        is_push = issubclass(kind, ProgramInput)
        runner = self._runner(node)
        if runner.error is not None:
            raise node_error(runner)
        type_id = "app-in" if is_push else "app-out"
        if runner.planned.type_id == type_id:
            raise EndedError(f"{node} has come to its end")
        there = [id for id in self._engine.runners if isinstance(self._engine.held(id, PROGRAM), kind)]
        raise FlowstreamError(
            f"{node} ({runner.planned.type_id}) {'takes nothing from' if is_push else 'gives nothing to'} the program",
            hint=f"{listed(there)} does" if there else f"add a node of type {type_id}",
        )

    def _stop_soon(self, start_soon: Callable[..., object]) -> Callable[[bool], None]:
        """What stops it when the owner asks for that from outside, at once when it is called with True."""

        async def stop(drain: float) -> None:
            await self.stop(drain=drain)

        def ask(now: bool) -> None:
            start_soon(stop, 0 if now else DRAIN_SECONDS)

        return ask

    def _runner(self, node: str) -> Runner:
        """Raises FlowstreamError when there is no such node."""
        runner = self._engine.runners.get(node)
        if runner is None:
            close = did_you_mean(node, self._engine.runners)
            raise FlowstreamError(f"there is no node {node}", hint=f"did you mean {close}?" if close else None)
        return runner

    async def _finish(self, drain: float) -> None:
        """Stops as ``stop`` does, and waits for nobody who reads: the program is through with the run."""
        self._let_go(readers=True)
        await self._engine.stop(drain_seconds=drain)

    def _let_go(self, *, readers: bool) -> None:
        """The graph stops: nothing is pushed any more, and nobody is waited for who does not read."""
        for id in self._engine.runners:
            match self._engine.held(id, PROGRAM):
                case ProgramInput() as met:
                    met.abandon(EndedError(f"{id} takes nothing more: the graph is stopping"))
                case ProgramOutput() as met:
                    met.let_go(readers=readers)

    def _abandon(self, event: NodeFailed) -> None:
        """Whoever waits for a node that will not come back learns of it."""
        met = self._engine.held(event.node, PROGRAM)
        if event.retry_in_ns is None and isinstance(met, ProgramInput | ProgramOutput):
            met.abandon(event.error)


def open(
    graph: str | os.PathLike[str] | Graph,
    *,
    sets: Mapping[str, str | int | float | bool] | None = None,
    layers: Iterable[str | os.PathLike[str]] = (),
    nodes: Iterable[str | os.PathLike[str]] = (),
    watch: bool = False,
    control: bool | str | os.PathLike[str] = False,
    serve: str | bool = True,
    tls: TlsChoice | None = None,
) -> AbstractAsyncContextManager[Run]:
    """Runs a graph within an async program: ``async with flowstream.open("graph.yaml") as run``.

    ``graph`` is the path of a file, or a `Graph`. ``sets`` gives variables other values, ``layers`` are files over it,
    lowest first, ``nodes`` folders with node types. ``watch`` applies what is saved to the files while it runs,
    ``control`` makes a control socket, at a path if one is given. ``serve`` is HOST:PORT in the place of what the graph
    says; False serves no address, for a graph whose pages are mounted elsewhere by `Run.asgi`. ``tls`` is ``"auto"``
    (a certificate that is made), the paths of a certificate and its key, or ``"off"``; an address that other machines
    reach is served only when it, or the graph, says one of these.

    When the block is entered, everything runs; when it is left, the graph is drained as by `Run.stop`, or stopped at
    once when an exception or a cancellation leaves it. Nothing outlives the block: no task, thread or socket. No signal
    handler is set and no logging configured. To be entered and left by one task.

    On asyncio everything works; on trio all but what rests on asyncio: an address of its own for pages and endpoints,
    a control socket, and node types that need asyncio themselves, as ``webrtc-out`` does. Each is refused in a sentence
    there. `open_sync` has all of it within any program, on a thread of its own.

    Raises GraphError when the graph has mistakes, PackError, NodeError when a node does not start, ServeError and
    ControlError when an address cannot be had.
    """
    file = _file(graph, sets=sets or {}, layers=layers, nodes=nodes, serve=serve, tls=tls)
    path = None if isinstance(control, bool) else Path(control)
    return _opened(file, watch=watch, control=path, has_control=control is not False, has_door=serve is not False)


def _file(
    graph: str | os.PathLike[str] | Graph,
    *,
    sets: Mapping[str, Any],
    layers: Iterable[str | os.PathLike[str]],
    nodes: Iterable[str | os.PathLike[str]],
    serve: str | bool,
    tls: TlsChoice | None,
) -> GraphFile:
    path, text = _source(graph)
    if isinstance(layers, str) or isinstance(nodes, str):
        raise TypeError("layers= and nodes= take lists of paths, also for one: ['path']")
    return GraphFile(
        path,
        tuple(Path(folder) for folder in nodes),
        {name: _text(value) for name, value in sets.items()},
        layers=tuple(os.fspath(layer) for layer in layers),
        text=text,
        serve=_serve(serve) if isinstance(serve, str) else None,
        tls=_tls(tls),
    )


def _source(graph: str | os.PathLike[str] | Graph) -> tuple[str, str | None]:
    """The path of a graph, and its text when that is not on disk. Raises TypeError."""
    if isinstance(graph, Graph):
        return graph.path, graph.to_yaml()
    if isinstance(graph, str | os.PathLike):
        return os.fspath(graph), None
    raise TypeError(f"a graph is the path of a file or a Graph, not {graph!r}")


def _serve(listen: str) -> Serve:
    serve = listen_of(listen)
    if serve is None:
        raise ValueError(f"serve= takes HOST:PORT, such as '127.0.0.1:8080', not {listen!r}")
    return serve


def _tls(choice: TlsChoice | None) -> Tls | None:
    match choice:
        case None | "auto" | "off":
            return choice
        case (str() | os.PathLike() as cert, str() | os.PathLike() as key):
            return CertificateFiles(os.fspath(cert), os.fspath(key))
    raise ValueError(f"tls= takes 'auto', 'off' or the paths (certificate, key), not {choice!r}")


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@asynccontextmanager
async def _opened(
    file: GraphFile, *, watch: bool, control: Path | None, has_control: bool, has_door: bool
) -> AsyncIterator[Run]:
    dispatch = Dispatch()
    raised: BaseException | None = None  # what the task groups would wrap
    plan = await anyio.to_thread.run_sync(file.compile)
    async with ControlledRun.open(
        file, plan, control=control, has_control=has_control, has_door=has_door
    ) as controlled:
        controlled.secrets.update(file.environment.asked)
        async with anyio.create_task_group() as tasks:
            follower = _Follower(controlled, tasks.start_soon) if watch else None
            run = Run._of(controlled, dispatch, follower.begin if follower else lambda: None)
            controlled.engine.listen(dispatch.tell)
            controlled.engine.greet(_attend)
            controlled.on_stop = run._stop_soon(tasks.start_soon)
            try:
                await controlled.start()
                tasks.start_soon(_end_with, controlled.engine, dispatch)
                dispatch.call(NodeFailed, run._abandon)
                if follower is not None:
                    follower.begin()
                yield run
                await run._finish(DRAIN_SECONDS)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001 - raised below
                raised = error
            finally:
                with anyio.CancelScope(shield=True):
                    await run._finish(0)
                dispatch.end()
            tasks.cancel_scope.cancel()
    if raised is not None:
        raise raised


def _attend(key: str, held: object, _: Callable[[], str]) -> None:
    """Tells what a node holds for a program that there is one."""
    if key == PROGRAM and isinstance(held, ProgramInput | ProgramOutput):
        held.attend()


async def _end_with(engine: Engine, dispatch: Dispatch) -> None:
    await engine.wait()
    dispatch.end()


class _Follower:
    """Follows the files of a run, if it has any, from the first time that it is told to."""

    def __init__(self, run: ControlledRun, start_soon: Callable[..., object]) -> None:
        self._run = run
        self._start_soon = start_soon
        self._has_begun = False

    def begin(self) -> None:
        plan = self._run.engine.plan
        if not self._has_begun and plan is not None and plan.files:
            self._has_begun = True
            self._start_soon(self._keep_following)

    async def _keep_following(self) -> None:
        try:
            await self._run.follow()
        except Exception:
            _logger.exception("the graph's files are not watched any more")
