"""The pages of a graph within another web application."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse

from flowstream.control import api
from flowstream.control.door import Door, path_below
from flowstream.control.run import Run as ControlledRun

if TYPE_CHECKING:
    from flowstream.api.running import Authorize

OWN = "/-/"
"""Where the owner's endpoints are; no node has such a name."""

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

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif path_below(scope).startswith(OWN):
            await self._tell_owner(scope, receive, send)
        elif self._authorize is None or scope["method"] == "OPTIONS":  # a browser's preflight carries no credentials
            await self._door(scope, receive, send)
        else:
            viewer = await _asked(self._authorize, Request(scope, receive))
            scope = {**scope, VIEWER: viewer if isinstance(viewer, str) else ""}
            await (self._door if viewer else _refuse)(scope, receive, send)

    async def _tell_owner(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        if self._owner is None or not await _asked(self._owner, Request(scope, receive)):
            await _refuse(scope, receive, send)
        elif path_below(scope) == f"{OWN}status" and scope["method"] in ("GET", "HEAD"):
            run = self._run
            told = run.secrets.scrubbed(api.status(run))
            await JSONResponse(told, headers={"Cache-Control": "no-store"})(scope, receive, send)
        else:
            await PlainTextResponse(f"There is {OWN}status.\n", 404)(scope, receive, send)


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
