"""The control API: JSON over HTTP, on the control socket and, when the graph asks for it, beside the viewers."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from flowstream.control import models
from flowstream.control.events import CLIENTS
from flowstream.control.openapi import Operation, document
from flowstream.control.state import utc_text
from flowstream.control.viewing import ViewerOperations
from flowstream.errors import FlowstreamError, GraphError
from flowstream.graph.described import patch_to_json
from flowstream.graph.diagnostics import to_json
from flowstream.graph.plan import Override
from flowstream.node.context import AsgiApp

if TYPE_CHECKING:
    from flowstream.control.run import Done, Run
    from flowstream.control.tls import ServerCertificate

_logger = logging.getLogger("flowstream.control")

CONNECTIONS = 64
"""How many connections may be open at a time on the control socket."""

JSON = "application/json"

MAX_BODY_BYTES = 64 * 1024
"""How large what is asked may be; a question is a few paths or a value."""

BODY_SECONDS = 10.0
"""How long the body of a request may take to arrive."""

_Receive = Callable[[], Awaitable[Any]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Owned:
    """The API for whoever reaches it: the control socket, which only its owner can open."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        await self._app({**scope, "flowstream.is_owner": True}, receive, send)


def status(run: Run) -> dict[str, Any]:
    """The run as JSON values, as ``models.Status`` has them; what is being started is shown until it runs."""
    engine = run.engine
    current = engine.plan or run.plan
    nodes: dict[str, Any] = {}
    there = engine.status()
    for id, planned in current.nodes.items():
        node = there.get(id)
        runner = engine.runners.get(id)
        nodes[id] = {
            "type": planned.type_id,
            "state": node.state if node else "starting",
            "config": planned.shown_config(),
            "restarts": node.restarts if node else 0,
            "received": node.received if node else 0,
            "emitted": node.emitted if node else {},
            "dropped": node.dropped if node else {},
            "facts": node.facts if node else {},
            "error": str(runner.error) if runner and runner.error else None,
        }
    return {
        "graph": current.name,
        "file": str(Path(run.file.path).absolute()),
        "state": engine.state,
        "revision": {
            "running": run.revisions.running,
            "file": run.revisions.file,
            "refused": run.revisions.refused,
            "number": run.number or None,
            "difference": run.difference,
            "overrides": [_given(each) for each in run.overrides],
        },
        "nodes": nodes,
        "listen": list(engine.mounts.listen) if engine.mounts.listen else None,
        "tls": _shown(run.certificate) if run.certificate is not None and engine.mounts.is_encrypted else None,
        "api": {"url": run.api_url, "token_file": str(run.token_file) if run.token_file else None}
        if run.api_url
        else None,
    }


def _given(override: Override) -> dict[str, Any]:
    return {"target": override.target, "value": override.text, "file": override.written or None}


def _shown(certificate: ServerCertificate) -> dict[str, Any]:
    return {
        "fingerprint": certificate.fingerprint,
        "ends": utc_text(int(certificate.ends.timestamp()) * 1_000_000_000),
        "is_made": certificate.is_made,
    }


def make_app(run: Run, more: Sequence[BaseRoute] = ()) -> Starlette:
    """The ASGI application of a run's API; ``more`` are routes beside these. ``/openapi.json`` says what there is."""
    operations = _Operations(run)
    there = operations.all()
    routes: list[BaseRoute] = [Route(each.path, _endpoint(each, run), methods=[each.method]) for each in there]
    routes.append(Route("/events", EventStream(run)))

    @lru_cache(maxsize=8)
    def openapi(root: str) -> bytes:
        return json.dumps(document(there, more, root)).encode()

    async def tell_openapi(request: Request) -> Response:
        return Response(await anyio.to_thread.run_sync(openapi, request.scope.get("root_path", "")), media_type=JSON)

    routes.append(Route("/openapi.json", tell_openapi))
    app = Starlette(routes=[*more, *routes], exception_handlers={HTTPException: _refuse_http, Exception: _refuse_bug})
    app.router.redirect_slashes = False
    return app


class _Operations:
    """What can be asked of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def all(self) -> list[Operation]:
        return [
            Operation("GET", "/status", "How the run is doing", self.status, answers=models.Status),
            Operation("POST", "/plan", "What saving files would change", self.plan, models.AskPlan, models.PatchMade),
            Operation("POST", "/reload", "Apply the files as they are now", self.reload, models.Nothing,
                      models.Changed),
            Operation("POST", "/set", "Give a setting another value", self.set, models.AskSet, models.Changed),
            Operation("POST", "/clear", "Take back what was set", self.clear, models.AskClear, models.Changed),
            Operation("POST", "/rollback", "Go back to a revision that ran", self.rollback, models.AskRollback,
                      models.Changed),
            *ViewerOperations(self._run).all(),
            Operation("GET", "/revisions", "The revisions that ran", self.revisions, answers=models.RevisionsKept),
            Operation("GET", "/schema", "The JSON Schema of graph files here", self.schema),
            Operation("GET", "/healthz", "Whether the process answers", self.healthz, answers=models.Alive),
            Operation("GET", "/readyz", "Whether the graph runs whole", self.readyz, answers=models.Ready,
                      others={503: models.Ready}),
            Operation("POST", "/stop", "End the run", self.stop, models.AskStop, models.Stopping, status=202),
        ]  # fmt: skip

    async def status(self, _: Request, __: Any) -> Any:
        return status(self._run)

    async def plan(self, _: Request, asked: models.AskPlan) -> Any:
        return patch_to_json(await self._run.preview(tuple(asked.files)))

    async def reload(self, _: Request, __: Any) -> Any:
        return self._done(await self._run.reload())

    async def set(self, _: Request, asked: models.AskSet) -> Any:
        return self._done(await self._run.set(asked.target, asked.value, save=asked.save))

    async def clear(self, _: Request, asked: models.AskClear) -> Any:
        return self._done(await self._run.clear(asked.target))

    async def rollback(self, _: Request, asked: models.AskRollback) -> Any:
        return self._done(await self._run.rollback(asked.number))

    def _done(self, done: Done) -> dict[str, Any]:
        return {
            "revision": done.revision,
            "patch": patch_to_json(done.patch) if done.patch is not None else None,
            "saved": done.saved,
            "difference": self._run.difference,
        }

    async def revisions(self, _: Request, __: Any) -> Any:
        run = self._run
        found = await run.kept()
        return {
            "revisions": [
                {
                    "number": each.number,
                    "revision": each.revision,
                    "time": each.time,
                    "cause": each.cause,
                    "lines": list(each.lines),
                    "overrides": [_given(override) for override in each.snapshot.overrides],
                    "is_running": each.number == run.number,
                }
                for each in found
            ]
        }

    async def schema(self, _: Request, __: Any) -> Any:
        return await anyio.to_thread.run_sync(_schema, self._run.file.folders)

    async def healthz(self, _: Request, __: Any) -> Any:
        return {"alive": True}

    async def readyz(self, request: Request, _: Any) -> Any:
        state = self._run.engine.state
        found: dict[str, Any] = {"ready": state == "running"}
        if request.scope.get("flowstream.is_owner"):
            broken = [id for id, each in self._run.engine.runners.items() if each.state in ("failed", "restarting")]
            found |= {"state": state, "difference": self._run.difference, "failed": broken}
        return found if found["ready"] else (503, found)

    async def stop(self, _: Request, asked: models.AskStop) -> Any:
        self._run.on_stop(asked.now)
        return {"state": "stopping" if asked.now else "draining"}


def _schema(folders: tuple[Path, ...]) -> dict[str, Any]:
    from flowstream.graph.schema import graph_schema
    from flowstream.node.registry import Registry

    types = [found for _, found in Registry.installed(folders).types() if isinstance(found, type)]
    return graph_schema(types)


def _endpoint(operation: Operation, run: Run) -> Callable[[Request], Awaitable[Response]]:
    """Holds what is asked against its model, and says what went wrong in JSON."""

    async def answer(request: Request) -> Response:
        try:
            asked = await _asked(request, operation.asks) if operation.asks is not None else None
            told = await operation.handler(request, asked)
        except _Unfit as error:
            return _problem(error.status, str(error), error.hint)
        except GraphError as error:
            count = len(error.diagnostics)
            said = f"{count} finding{'s' if count > 1 else ''} in the graph"
            return JSONResponse(run.secrets.scrubbed({"error": said, "hint": None, **to_json(error.diagnostics)}), 422)
        except FlowstreamError as error:
            where = f"{error.place}: " if error.place else ""
            return _problem(422, run.secrets.scrub(f"{where}{error.message}"), error.hint)
        code = operation.status
        if isinstance(told, tuple):
            code, told = told
        return JSONResponse(run.secrets.scrubbed(told), code, {"Cache-Control": "no-store"})

    answer.__doc__ = operation.summary
    return answer


class _Unfit(Exception):  # noqa: N818 - what was asked makes no sense
    def __init__(self, status: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.hint = hint


async def _asked(request: Request, model: type[BaseModel]) -> BaseModel:
    """What is asked. Only JSON that says so, also without a body: a page of another site cannot send that unasked."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != JSON:
        said = f"not {kind[:100]}" if kind else "and the request does not say what it is"
        raise _Unfit(415, f"what is asked is taken as {JSON}, {said}", f"send the header Content-Type: {JSON}")
    body = bytearray()
    try:
        with anyio.fail_after(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise _Unfit(413, f"what is asked has more than {MAX_BODY_BYTES:,} bytes")
    except TimeoutError:
        raise _Unfit(408, f"what is asked did not come within {BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise _Unfit(400, "what is asked was not sent whole") from None
    try:
        return model.model_validate_json(bytes(body) or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(model.model_fields) or "no keys"
        raise _Unfit(400, f"{where}: {first['msg']}" if where else first["msg"], f"it takes {known}") from None


def _problem(status: int, message: str, hint: str | None, **headers: str) -> Response:
    return JSONResponse({"error": message, "hint": hint}, status, {"Cache-Control": "no-store", **headers})


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return _problem(405, f"{path} does not take {request.method[:20]}", f"it takes {allowed}", Allow=allowed)
    return _problem(error.status_code, f"there is nothing at {path}", "GET /openapi.json says what there is")


async def _refuse_bug(request: Request, error: Exception) -> Response:
    _logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _problem(500, "something went wrong here", "the log of the run says what")


class EventStream:
    """``GET /events``: what happens, as server-sent events, from now on or from the header Last-Event-ID on.

    Each event's data is JSON with ``event`` and ``time``; ids say the run and a number. A comment comes when nothing
    else does; an event ``lost`` counts what was forgotten before the client came to it.
    """

    methods = ("GET",)

    def __init__(self, run: Run) -> None:
        self._run = run

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        log = self._run.events
        request = Request(scope)
        if request.method != "GET":
            answer = _problem(
                405, f"{request.url.path} does not take {request.method[:20]}", "it takes GET", Allow="GET"
            )
            await answer(scope, receive, send)
        elif log.clients >= CLIENTS:
            answer = _problem(503, f"{CLIENTS} clients follow already", "try again later", **{"Retry-After": "5"})
            await answer(scope, receive, send)
        else:
            log.clients += 1
            try:
                await self._follow(request.headers.get("last-event-id"), receive, send)
            finally:
                log.clients -= 1

    async def _follow(self, last: str | None, receive: _Receive, send: _Send) -> None:
        head = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": head})

        async def send_body(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        async def follow() -> None:
            try:
                await self._run.events.follow(self._run.events.resumed(last), send_body)
            except TimeoutError:  # it takes nothing any more: the connection is closed without an end
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()
