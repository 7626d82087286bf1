"""One run of a graph: the engine, the address where it is served, its control socket, its files and their history."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from anyio import from_thread
from anyio.abc import TaskGroup

from flowstream.control import api, door, observe, recordings
from flowstream.control.access import PREFIX, Guard
from flowstream.control.events import EventLog
from flowstream.control.files import GraphFile, Snapshot
from flowstream.control.saving import Edit, edit_for
from flowstream.control.server import require_asyncio, serving
from flowstream.control.settings import require_live
from flowstream.control.socket import ControlError, listening
from flowstream.control.state import History, OwnerToken, Revision, StateError, utc_text
from flowstream.control.viewers import Desk
from flowstream.errors import FlowstreamError, GraphError
from flowstream.graph.described import describe, describe_plan
from flowstream.graph.diagnostics import did_you_mean
from flowstream.graph.overrides import MAX_OVERRIDES, parse_target, parse_value
from flowstream.graph.patch import Patch
from flowstream.graph.plan import Override, Plan
from flowstream.runtime.engine import Engine, ReloadError
from flowstream.runtime.events import Applied, Event, Refused
from flowstream.runtime.log import Secrets
from flowstream.runtime.mounts import Mounts
from flowstream.runtime.reload import Reloader, Revisions, digest
from flowstream.runtime.stalls import Stalls
from flowstream.runtime.stats import Statistics

if TYPE_CHECKING:
    from flowstream.control.tls import ServerCertificate

_logger = logging.getLogger("flowstream.control")

STARTED = "started"
RENEWAL_SECONDS = 600.0
"""How often the certificate is looked at."""


class ChangeError(ReloadError):
    """Raised when a running graph cannot be changed as it was asked to; it goes on as it was."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a change. ``saved`` names the file that was written; without ``patch`` nothing had to be done."""

    revision: str
    patch: Patch | None = None
    saved: str | None = None


@dataclass(frozen=True, slots=True)
class _Pending:
    """What is being applied; with ``file`` that takes the place of the one that is followed."""

    plan: Plan
    snapshot: Snapshot | None
    of: int = 0
    file: GraphFile | None = None


class Run:
    """A graph with everything that a run of it needs. Made by ``Run.open``; methods are for the loop it was opened on.

    ``plan`` is what it begins with, ``socket`` the path of its control socket, if it has one. ``number`` is that of the
    running revision in its history, 0 while it has none; ``of`` the number of the revision that was gone back to, or 0.
    ``app`` is its API as an ASGI application, for whoever may do everything.
    ``on_stop`` ends the run as its owner ends it: at once when it is called with True.
    """

    def __init__(
        self,
        file: GraphFile,
        plan: Plan,
        engine: Engine,
        secrets: Secrets,
        servers: TaskGroup,
        history: History | None,
        *,
        has_door: bool = True,
    ) -> None:
        self.file = file
        self.plan = plan
        self.engine = engine
        self.mounts = engine.mounts
        self.secrets = secrets
        self.revisions = Revisions(plan.revision, plan.content or plan.revision)
        self.socket: Path | None = None
        self.history = history
        self.events = EventLog(secrets, engine.clock.wallclock_ns)
        self.number = 0
        self.of = 0
        self.is_last_good = False
        self.is_watched = False
        self.snapshot = file.snapshot
        self.on_stop: Callable[[bool], None] = self._stop
        self.reloader = Reloader(engine, self._compile, self.revisions, files=plan.files)
        self.statistics = Statistics(engine)
        self.stalls = Stalls(self.statistics, self.revisions)
        self.has_door = has_door
        more = [
            *observe.routes(self.stalls, secrets),
            *recordings.routes(engine, secrets, lambda: self.snapshot.files if self.snapshot else {}),
        ]
        self.app = api.make_app(self, more)
        self._pending: _Pending | None = None
        self._outcome: Applied | Refused | None = None
        self._servers = servers
        self._token = OwnerToken(history.folder if history is not None else None)
        self.certificate: ServerCertificate | None = None
        self._door: anyio.CancelScope | None = None  # of what serves at the address
        self.desk = Desk(engine, servers)
        self._recording = anyio.Lock()
        engine.listen(self._hear)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        file: GraphFile,
        plan: Plan,
        *,
        secrets: Secrets | None = None,
        control: Path | None = None,
        has_control: bool = True,
        has_door: bool = True,
        state: Path | None = None,
        is_inline: bool = False,
    ) -> AsyncIterator[Run]:
        """A run that has yet to be started; leaving the block ends it.

        It has a control socket, at ``control`` or in the usual place, unless ``has_control`` says otherwise, and keeps
        its revisions in the folder ``state``, if it is given one. Raises ControlError when the socket cannot be made.
        Without ``has_door`` it binds no address for pages, which somebody else serves; media goes to the host that the
        graph names. ``is_inline`` runs on the event loop what nodes do on threads of their own.
        """
        try:
            async with cls._opened(
                file, plan, secrets or Secrets(), control, has_control, has_door, state, is_inline
            ) as run:
                yield run
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:  # what the block raised, not wrapped by the task group
                raise group.exceptions[0] from group.exceptions[0].__cause__
            raise

    @classmethod
    @asynccontextmanager
    async def _opened(
        cls,
        file: GraphFile,
        plan: Plan,
        secrets: Secrets,
        control: Path | None,
        has_control: bool,
        has_door: bool,
        state: Path | None,
        is_inline: bool,
    ) -> AsyncIterator[Run]:
        async with AsyncExitStack() as stack:
            listener = None
            socket: Path | None = None
            if has_control:
                require_asyncio("the control socket needs", ControlError, "open it without control=")
                listener, socket = stack.enter_context(listening(plan.name, control))
            async with anyio.create_task_group() as servers:
                async with Engine.open(mounts=Mounts(), is_inline=is_inline) as engine:
                    history = History(state) if state is not None else None
                    run = cls(file, plan, engine, secrets, servers, history, has_door=has_door)
                    # What was read: the files may have been saved again since.
                    run.reloader.attempted = await anyio.to_thread.run_sync(digest, plan.files, file.contents)
                    run.socket = socket
                    try:
                        with run.mounts.mount(PREFIX, Guard(run.app, run.api_token), page=False):
                            if listener is not None:
                                run._serve(serving(api.Owned(run.app), listener, connections=api.CONNECTIONS))
                            yield run
                    finally:
                        run._token.close()
                servers.cancel_scope.cancel()

    async def start(self) -> None:
        """Starts every node. Raises NodeError when one fails, ServeError when the address cannot be had."""
        await anyio.to_thread.run_sync(self._equip, self.plan)
        self.open_door(self.plan)
        await self.engine.start(self.plan)
        self._servers.start_soon(self.stalls.run)
        self.events.add("running", revision=self.plan.revision, difference=self.difference)
        self._servers.start_soon(self._record, self.plan, STARTED, describe_plan(self.plan))

    async def follow(self) -> None:
        """Applies what is saved to the files, until cancelled."""
        self.is_watched = True
        try:
            await self.reloader.run()
        finally:
            self.is_watched = False

    def open_door(self, plan: Plan) -> None:
        """Binds the address where the graph is served, once it has something to serve."""
        if self.mounts.listen is None and door.serves(plan):
            if not self.has_door:
                self.mounts.listen = (plan.serve or door.DEFAULT).host, 0
                return
            require_asyncio("pages and endpoints need", door.ServeError, "leave out what serves")
            door.require_protected(plan.serve)
            certificate = self.certificate
            socket = door.bind(plan.serve)
            self.mounts.listen = socket.getsockname()[:2]
            self.mounts.is_encrypted = certificate is not None
            tls = certificate.context if certificate is not None else None
            server = serving(door.Door(self.mounts), socket, connections=door.CONNECTIONS, tls=tls)
            self._door = self._serve(server, certificate)

    def _close_unused_door(self, plan: Plan | None = None) -> None:
        """Gives back an address that was bound for an edit which was not applied, unless ``plan`` is served there."""
        running, bound = self.engine.plan, self.mounts.listen
        if self._door is None or running is None or door.serves(running):
            return
        serve = plan.serve if plan is not None else None
        if serve is not None and serve.address == bound and serve.is_encrypted == self.mounts.is_encrypted:
            return
        self._door.cancel()
        self._door = self.mounts.listen = self.certificate = None
        self.mounts.is_encrypted = False

    @property
    def links(self) -> tuple[str, ...]:
        """The addresses of the pages that people open, without what lets in there."""
        return self.desk.links(with_tokens=False)

    @property
    def api_url(self) -> str | None:
        """Where the control API is beside the viewers, when it is."""
        if self.mounts.listen is None or self.api_token() is None:
            return None
        return f"{door.roots(self.mounts)[0]}{PREFIX}"

    def _serve(self, server: Any, certificate: ServerCertificate | None = None) -> anyio.CancelScope:
        scope = anyio.CancelScope()

        async def keep() -> None:
            with scope:
                async with server:
                    await (self._renew(certificate) if certificate is not None else anyio.sleep_forever())

        self._servers.start_soon(keep)
        return scope

    def _stop(self, now: bool) -> None:
        async def stop() -> None:
            await (self.engine.stop(drain_seconds=0) if now else self.engine.stop())

        self._servers.start_soon(stop)

    # --- what runs, and what the files say --------------------------------------------------------------------------

    @property
    def overrides(self) -> tuple[Override, ...]:
        """The values that settings were given while it runs, as far as they count."""
        return (self.engine.plan or self.plan).overrides

    @property
    def difference(self) -> str | None:
        """Why what runs is not what the files say, in words; None when it is."""
        parts = []
        if self.is_last_good:
            parts.append(f"the files could not be run at the start, so revision {self.of}, which ran last, was started")
        elif self.of:
            parts.append(f"revision {self.of} was gone back to")
        if self.revisions.refused is not None:
            parts.append(f"the file holds {self.revisions.file}, which was refused: {self.revisions.refused}")
        parts += [f"{each}, set while it runs" for each in self.overrides]
        return "; ".join(parts) or None

    async def began_with(self, revision: Revision, error: FlowstreamError) -> None:
        """The files cannot be run, and it begins with the revision that ran last. To be said before ``start``."""
        self.of, self.is_last_good = revision.number, True
        self.snapshot = revision.snapshot
        files = error.files if isinstance(error, GraphError) else ()
        self.reloader.files = (*files, *(each for each in self.plan.files if each not in files))
        self.reloader.attempted = await anyio.to_thread.run_sync(digest, self.reloader.files)
        self.revisions.file = self.reloader.attempted
        self.revisions.refused = _reason(error)

    def _hear(self, event: Event) -> None:
        if isinstance(event, Applied):
            self.revisions.running = event.revision
            pending = self._pending
            if pending is not None and pending.plan.revision == event.revision:
                self._pending = None
                self.snapshot, self.of, self.is_last_good = pending.snapshot, pending.of, False
                self.file = pending.file or self.file
                self.file.overrides = pending.plan.overrides
                if not event.cause:
                    self.revisions.refused = None  # it is the files that run
                lines = describe(event.patch)
                self._servers.start_soon(self._record, pending.plan, event.cause or "saved", lines)
        if isinstance(event, Refused):
            self._close_unused_door()
        if isinstance(event, Applied | Refused):
            self._outcome = event
        self.events.hear(event)

    async def _record(self, plan: Plan, cause: str, lines: Iterable[str]) -> None:
        """Keeps a revision that runs. One that cannot be kept runs all the same."""
        if self.history is None or self.snapshot is None:
            return
        history = self.history
        snapshot = replace(self.snapshot, overrides=plan.overrides)
        shown = tuple(self.secrets.scrub(line) for line in lines)
        time = utc_text(self.engine.clock.wallclock_ns())
        entry = Revision(0, plan.revision, plan.content, time, self.secrets.scrub(cause), shown, self.of, snapshot)

        def keep() -> int:
            newest = history.newest()
            is_there = newest is not None and newest.snapshot == snapshot and cause == STARTED
            return newest.number if is_there and newest is not None else history.add(entry).number

        async with self._recording:
            try:
                with anyio.CancelScope(shield=True):
                    self.number = await anyio.to_thread.run_sync(keep)
            except FlowstreamError as error:
                self.number = 0
                _logger.warning("%s", error)
                self.events.add("revision-lost", revision=plan.revision, reason=str(error))
            else:
                self.events.add("revision-kept", revision=plan.revision, number=self.number, cause=entry.cause)

    async def kept(self) -> list[Revision]:
        """The revisions that ran, the oldest first."""
        if self.history is None:
            return []
        async with self._recording:
            return await anyio.to_thread.run_sync(self.history.all)

    # --- changing it ------------------------------------------------------------------------------------------------

    async def reload(self, other: Callable[[GraphFile], GraphFile] | None = None) -> Done:
        """Applies the files as they are now, also when they were refused before or another revision was gone back to.

        ``other`` makes another graph of the one that runs, which is applied in its place and followed from then on.
        What was set stays set, where that still makes sense. Raises GraphError or ReloadError when they cannot be
        applied; the graph then runs on as it was.
        """
        async with self.reloader.lock:
            self._check_runs()
            if other is not None:
                return Done(self.revisions.running, await self._adopt(other(self.file)))
            files = self.reloader.files
            is_known = await anyio.to_thread.run_sync(digest, files) == self.reloader.attempted
            if is_known and not self.of and self.revisions.refused is None:
                return Done(self.revisions.running)
            self._outcome = None
            with self.reloader.attempt() as scope:
                self.reloader.attempted = ""
                await self.reloader.reload()
            if scope.cancelled_caught:
                raise ChangeError("a newer save came in between; it counts")
            outcome = self._last_outcome()
        if isinstance(outcome, Refused):
            if outcome.diagnostics:
                raise GraphError(outcome.diagnostics)
            raise ChangeError(outcome.reason)
        return Done(self.revisions.running, outcome.patch if outcome is not None else None)

    async def _adopt(self, file: GraphFile) -> Patch:
        """Another graph takes the place of the files that are followed."""
        followed = self.reloader.files
        attempted = await anyio.to_thread.run_sync(digest, followed)
        plan = await self._planned(file)
        if plan.files != followed:  # what those hold by now may not be what was read
            attempted = await anyio.to_thread.run_sync(digest, plan.files)
            plan = await self._planned(file)
        self._pending = _Pending(plan, file.snapshot, file=file)
        patch = await self.engine.apply(plan)
        self.reloader.adopt(plan, attempted)
        return patch

    def _last_outcome(self) -> Applied | Refused | None:
        return self._outcome

    async def set(self, target: str, value: str, *, save: bool = False, must_be_live: bool = False) -> Done:
        """Gives a setting, ``NODE.FIELD``, another value; with ``save`` the file gets it too, at its place.

        One that does not change in place is refused when it ``must_be_live``, else its node is replaced. Raises
        GraphError when the value does not fit, SaveError when it cannot be written, FlowstreamError otherwise.
        """
        edit: Edit | None = None
        async with (
            self.reloader.lock
        ):  # from here on, so that changes are made in the order in which they are asked for
            try:
                node, field = parse_target(target)
                fresh = Override(node, field, await anyio.to_thread.run_sync(parse_value, value))
            except ValueError as error:
                raise ChangeError(str(error)) from error
            others = tuple(each for each in self.overrides if each.target != fresh.target)
            if len(others) >= MAX_OVERRIDES:
                raise ChangeError(f"{MAX_OVERRIDES} settings are set already", hint="flowstream set --clear")
            if save:
                edit = await anyio.to_thread.run_sync(edit_for, replace(self.file), fresh)
            files = self.reloader.files
            made = self._running((*others, fresh))
            cause = f"{target} was set to {fresh.text}"
            patch = await self._apply(made, cause, of=self.of, live=target if must_be_live else None)
            is_followed = self.is_watched
            if edit is not None:
                # Unwatched files are read again only where nothing else was saved to them.
                is_followed |= not self.of and await anyio.to_thread.run_sync(digest, files) == self.reloader.attempted
                await anyio.to_thread.run_sync(edit.carry_out)
                self.events.add("saved", file=edit.file, target=target)
        if edit is not None and is_followed:
            await self.reload()
        return Done(self.revisions.running, patch, edit.file if edit is not None else None)

    async def clear(self, target: str | None = None) -> Done:
        """Takes back what was set: one setting, or all. Raises ChangeError when it is not set."""
        async with self.reloader.lock:
            there = [each.target for each in self.overrides]
            if target is not None and target not in there:
                close = did_you_mean(target, there)
                raise ChangeError(f"{target} is not set", hint=f"did you mean {close}?" if close else None)
            if not there:
                return Done(self.revisions.running)
            rest = tuple(each for each in self.overrides if target not in (None, each.target))
            said = f"{target} was taken back" if target else "what was set was taken back"
            patch = await self._apply(self._running(rest), said, of=self.of)
            return Done(self.revisions.running, patch)

    async def rollback(self, number: int | None = None) -> Done:
        """Runs a revision that ran before, as its files were; without a number the one before. No file is touched.

        Raises StateError when there is no such revision, GraphError or ChangeError when it cannot be run any more.
        """
        if self.history is None:
            raise StateError("this run keeps no revisions")
        history = self.history

        def wanted() -> Revision:
            return self._before(history) if number is None else history.get(number)

        async with self.reloader.lock:
            self._check_runs()
            async with self._recording:  # what was applied just now is kept first
                stored = await anyio.to_thread.run_sync(wanted)
            folders = await anyio.to_thread.run_sync(history.unpacked, stored, self.file.folders)
            cause = f"revision {stored.number} was gone back to"
            patch = await self._apply(self.file.of(stored.snapshot, folders=folders), cause, of=stored.number)
            return Done(self.revisions.running, patch)

    def _before(self, history: History) -> Revision:
        """The revision that ran before the running one and is another."""
        now = self.of or self.number
        found = [each for each in history.all() if each.number < now and each.revision != self.revisions.running]
        if not found:
            raise StateError("there is no revision before this one")
        return found[-1]

    def _running(self, overrides: tuple[Override, ...]) -> GraphFile:
        """The files of what runs, with these values over them."""
        if self.snapshot is None:
            raise ChangeError("the files of what runs are not known")
        return replace(self.file.of(self.snapshot), overrides=overrides)

    async def _apply(self, file: GraphFile, cause: str, *, of: int, live: str | None = None) -> Patch:
        """Puts what a file comes to in the place of what runs.

        A newer save cuts it short, since that could take long; not so the change of a ``live`` setting, NODE.FIELD,
        which is raised for when it would not be made in place.
        """
        self._check_runs()
        done: list[Patch] = []
        with self.reloader.attempt() if live is None else nullcontext():
            plan = await self._planned(file)
            if live is not None:
                require_live(self.engine.preview(plan), live)
            self._pending = _Pending(plan, file.snapshot, of)
            done.append(await self.engine.apply(plan, cause=self.secrets.scrub(cause)))
        if not done:
            raise ChangeError("a newer save came in between; it counts")
        return done[0]

    async def _planned(self, file: GraphFile) -> Plan:
        """The plan of a file, with what it needs to be served."""
        plan = await anyio.to_thread.run_sync(file.compile)
        self.secrets.update(file.environment.asked)
        self._close_unused_door(plan)
        await anyio.to_thread.run_sync(self._equip, plan)
        self.open_door(plan)
        return plan

    def _check_runs(self) -> None:
        if self.engine.plan is None or self.engine.state in ("draining", "ended"):
            raise ChangeError("the graph is not running")

    def _compile(self) -> Plan:
        """For the reloader, on a worker thread: the plan of the files, with a door if it needs one now."""
        plan = self.file.compile()
        self.secrets.update(self.file.environment.asked)
        from_thread.run_sync(self._close_unused_door, plan)
        self._equip(plan)
        self._pending = _Pending(plan, self.file.snapshot)
        from_thread.run_sync(self.open_door, plan)
        return plan

    async def preview(self, files: tuple[str, ...]) -> Patch:
        """What saving other files in the place of those that run would do. Raises GraphError, ReloadError."""
        other = replace(self.file, path=files[0], layers=files[1:], snapshot=None)
        plan = await anyio.to_thread.run_sync(other.compile)
        self.secrets.update(self.file.environment.asked)
        return self.engine.preview(plan)

    # --- the API beside the viewers ---------------------------------------------------------------------------------

    @property
    def token_file(self) -> Path | None:
        """Where the owner finds the token, when the graph does not give it."""
        return self._token.file

    def api_token(self) -> str | None:
        """The token that counts now; None while the API is not served beside the viewers."""
        return self._token.of(self.engine.plan or self.plan)

    def _equip(self, plan: Plan) -> None:
        """On a worker thread: has what a plan is served with: tokens, a certificate. Raises StateError, ServeError."""
        self._certify(plan)
        self.desk.prepare(plan, self.history.folder if self.history is not None else None)
        self._token.make(plan, self.socket.stem if self.socket is not None else plan.name)

    def _certify(self, plan: Plan) -> None:
        """On a worker thread: has the certificate that a plan is served with, as it is now. Raises ServeError."""
        if plan.serve is None or not plan.serve.is_encrypted or not self.has_door:
            return
        if self.certificate is not None:
            self.certificate.refresh(plan.serve)
        elif self.mounts.listen is None:
            from flowstream.control.tls import ServerCertificate

            folder = self.history.folder if self.history is not None else None
            self.certificate = ServerCertificate(plan.serve, folder)

    async def _renew(self, certificate: ServerCertificate) -> None:
        """Takes in a certificate that was renewed, and renews one that was made here, for as long as it is served."""
        while True:
            await anyio.sleep(RENEWAL_SECONDS)
            serve = (self.engine.plan or self.plan).serve
            try:
                is_new = serve is not None and await anyio.to_thread.run_sync(certificate.refresh, serve)
            except FlowstreamError as error:
                _logger.warning("the certificate stays as it is: %s", error)
            else:
                if is_new:
                    self.events.add("certificate", fingerprint=certificate.fingerprint, ends=str(certificate.ends))


def _reason(error: FlowstreamError) -> str:
    if not isinstance(error, GraphError):
        return str(error)
    count = len(error.diagnostics)
    return f"{count} finding{'s' if count > 1 else ''} in the file"
