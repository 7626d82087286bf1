"""One run of a graph: the engine, the address where it is served, its control socket, and its files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio import from_thread
from anyio.abc import TaskGroup

from flowstream.control import api, door
from flowstream.control.files import GraphFile
from flowstream.control.server import serving
from flowstream.control.socket import listening
from flowstream.graph.builder import Setting
from flowstream.graph.diff import Patch
from flowstream.graph.overlay import require_live, require_setting
from flowstream.graph.plan import Plan
from flowstream.runtime.engine import Engine
from flowstream.runtime.log import Secrets
from flowstream.runtime.mounts import Mounts
from flowstream.runtime.reload import Reloader, Revisions, digest
from flowstream.runtime.stalls import Stalls
from flowstream.runtime.stats import Statistics


class Run:
    """A graph with everything that a run of it needs. Made by ``Run.open``; methods are for the loop it was opened on.

    ``plan`` is what it begins with, ``socket`` the path of its control socket, if it has one.
    """

    def __init__(
        self,
        file: GraphFile,
        plan: Plan,
        engine: Engine,
        secrets: Secrets,
        servers: TaskGroup,
        *,
        has_door: bool = True,
    ) -> None:
        self.file = file
        self.plan = plan
        self.engine = engine
        self.mounts = engine.mounts
        self.secrets = secrets
        self.revisions = Revisions(plan.revision, plan.revision)
        self.socket: Path | None = None
        self.reloader = Reloader(engine, self._compile, self.revisions)
        self.statistics = Statistics(engine)
        self.stalls = Stalls(self.statistics, self.revisions)
        self._servers = servers
        self.has_door = has_door
        self._replanning = anyio.Lock()

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
    ) -> AsyncIterator[Run]:
        """A run that has yet to be started; leaving the block ends it.

        It has a control socket, at ``control`` or in the usual place, unless ``has_control`` says otherwise. Raises
        ControlError when that cannot be made. Without ``has_door`` it binds no address for pages, which somebody else
        serves; media goes to the host that the graph names.
        """
        async with AsyncExitStack() as stack:
            listener = None
            socket: Path | None = None
            if has_control:
                listener, socket = stack.enter_context(listening(plan.name, control))
            async with anyio.create_task_group() as servers:
                async with Engine.open(mounts=Mounts()) as engine:
                    run = cls(file, plan, engine, secrets or Secrets(), servers, has_door=has_door)
                    run.reloader.attempted = await anyio.to_thread.run_sync(digest, plan.files)
                    run.socket = socket
                    if listener is not None:
                        app = api.make_app(engine, plan, run.revisions, run.secrets, run.compile_others, run.stalls)
                        run._serve(serving(app, listener, connections=api.CONNECTIONS))
                    yield run
                servers.cancel_scope.cancel()

    async def start(self) -> None:
        """Starts every node. Raises NodeError when one fails, ServeError when the address cannot be had."""
        self.open_door(self.plan)
        await self.engine.start(self.plan)
        self._servers.start_soon(self.stalls.run)

    async def follow(self) -> None:
        """Applies what is saved to the files, until cancelled."""
        await self.reloader.run()

    def open_door(self, plan: Plan) -> None:
        """Binds the address where the graph is served, once it has something to serve."""
        if self.mounts.listen is None and door.serves(plan):
            if not self.has_door:
                self.mounts.listen = (plan.serve or door.DEFAULT).host, 0
                return
            socket = door.bind(plan.serve)
            self.mounts.listen = socket.getsockname()[:2]
            self._serve(serving(door.Door(self.mounts), socket, connections=door.CONNECTIONS))

    async def reload(self, other: Callable[[GraphFile], GraphFile] = lambda file: file) -> Patch:
        """Applies the files as they are now, and gives what was done.

        ``other`` makes another graph of the one that runs, which is followed from then on. Raises GraphError,
        ReloadError and what else is in its way; the graph then runs on as it was.
        """
        return await self._replan(other, lambda plan: None)

    async def set(self, name: str, value: Setting) -> Patch:
        """Gives a live setting, NODE.FIELD, another value over the files, and gives what was done.

        Raises FlowstreamError for what is no setting, or none that changes in place, and what ``reload`` raises.
        """
        require_setting(self.engine.plan or self.plan, name)
        return await self._replan(
            lambda file: replace(file, settings={**file.settings, name: value}),
            lambda plan: require_live(self.engine.preview(plan), name),
        )

    async def _replan(self, change: Callable[[GraphFile], GraphFile], check: Callable[[Plan], None]) -> Patch:
        async with self._replanning:
            file = change(self.file)
            files = self.reloader.files or self.plan.files
            attempted = await anyio.to_thread.run_sync(digest, files)
            plan = await anyio.to_thread.run_sync(file.compile)
            if plan.files != files:  # what those hold by now may not be what was read
                attempted = await anyio.to_thread.run_sync(digest, plan.files)
                plan = await anyio.to_thread.run_sync(file.compile)
            self.secrets.update(file.environment.asked)
            check(plan)
            self.open_door(plan)
            patch = await self.engine.apply(plan)
            self.file = file
            self.reloader.adopt(plan, attempted)
            return patch

    @property
    def links(self) -> tuple[str, ...]:
        """The addresses of the pages that people open."""
        return tuple(link for _, link in door.links(self.mounts))

    def _serve(self, server: Any) -> None:
        async def keep() -> None:
            async with server:
                await anyio.sleep_forever()

        self._servers.start_soon(keep)

    def _compile(self) -> Plan:
        """For the reloader, on a worker thread: the plan of the files, with a door if it needs one now."""
        plan = self.file.compile()
        self.secrets.update(self.file.environment.asked)
        from_thread.run_sync(self.open_door, plan)
        return plan

    async def compile_others(self, files: tuple[str, ...]) -> Plan:
        """The plan of other files, as if they stood in the place of those that run. Raises GraphError."""
        other = replace(self.file, path=files[0], layers=files[1:])
        plan = await anyio.to_thread.run_sync(other.compile)
        self.secrets.update(self.file.environment.asked)
        return plan
