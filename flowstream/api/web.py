"""The pages of a graph within another web application."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from flowstream.control import api
from flowstream.control.access import PREFIX
from flowstream.control.door import Door, path_below
from flowstream.control.run import Run as ControlledRun

if TYPE_CHECKING:
    from flowstream.api.running import Authorize

VIEWER = "flowstream.viewer"
"""The key of the scope under which a node finds the viewer's name; empty when the program gave none."""

_Receive = Callable[[], Awaitable[Any]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Pages:
    """The ASGI application behind `flowstream.Run.asgi`."""

    def __init__(self, run: ControlledRun, authorize: Authorize | None, owner: Authorize | None) -> None:
        self._run = run
        self._door = Door(run.mounts, is_mounted=True)
        self._authorize = authorize
        self._owner = owner
        self._api = api.Owned(run.app)

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif f"{path_below(scope)}/".startswith(PREFIX):
            await self._answer_owner(scope, receive, send)
        elif self._authorize is None or scope["method"] == "OPTIONS":  # a browser's preflight carries no credentials
            await self._door(scope, receive, send)
        else:
            viewer = await _asked(self._authorize, Request(scope, receive))
            scope = {**scope, VIEWER: viewer if isinstance(viewer, str) else ""}
            await (self._door if viewer else _refuse)(scope, receive, send)

    async def _answer_owner(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        if self._owner is None or not await _asked(self._owner, Request(scope, receive)):
            await _refuse(scope, receive, send)
            return
        root = f"{scope.get('root_path', '')}{PREFIX.rstrip('/')}"
        below = path_below(scope).removeprefix(PREFIX.rstrip("/"))
        await self._api({**scope, "root_path": root, "path": f"{root}{below}"}, receive, send)


async def _asked(authorize: Authorize, request: Request) -> bool | str | None:
    said = authorize(request)
    return await said if inspect.isawaitable(said) else said


async def _refuse(scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
    response = PlainTextResponse("This is not for you.\n", 403, {"Cache-Control": "no-store"})
    await response(scope, receive, send)


async def _live(receive: _Receive, send: _Send) -> None:
    """Nothing begins or ends with the server: the run is opened by the program."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
