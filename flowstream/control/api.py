"""What a run says about itself over its control socket: JSON over HTTP."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flowstream.control import observe
from flowstream.errors import FlowstreamError, GraphError
from flowstream.graph.diagnostics import to_json
from flowstream.graph.diff import patch_to_json
from flowstream.graph.plan import Plan
from flowstream.graph.sources import MAX_FILES
from flowstream.runtime.engine import Engine
from flowstream.runtime.log import Secrets
from flowstream.runtime.reload import Revisions
from flowstream.runtime.stalls import Stalls

CONNECTIONS = 32
"""How many connections may be open at a time."""

MAX_BODY_BYTES = 64 * 1024
"""How large what is asked may be; a question is a few paths."""

Compile = Callable[[tuple[str, ...]], Awaitable[Plan]]
"""Makes a plan of files, the lowest layer first, with everything else as the run was started."""


def status(engine: Engine, plan: Plan, revisions: Revisions) -> dict[str, Any]:
    """The run as JSON values. ``plan`` is what is being started, shown until the engine has one.

    ``{"graph", "file", "state", "revision": {"running", "file", "refused"}, "nodes": {NAME: {"type", "state", "config",
    "restarts", "received", "emitted", "dropped", "facts", "error"}}, "listen"}``. Settings that hold secrets are shown
    as written in the file.
    """
    current = engine.plan or plan
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
        "file": str(Path(current.files[0]).absolute()) if current.files else None,
        "state": engine.state,
        "revision": {"running": revisions.running, "file": revisions.file, "refused": revisions.refused},
        "nodes": nodes,
        "listen": list(engine.mounts.listen) if engine.mounts.listen else None,
    }


def make_app(
    engine: Engine, plan: Plan, revisions: Revisions, secrets: Secrets, compile: Compile, stalls: Stalls
) -> Starlette:
    """The ASGI application behind a control socket: ``GET /status`` and ``POST /plan``, and what ``observe`` tells.

    ``POST /plan`` takes ``{"files": [PATH, LAYER, ...]}`` and says what saving that would do to what runs; 422 with
    ``{"diagnostics"}`` or ``{"error"}`` when it cannot be run.
    """

    async def tell_status(_: Request) -> Response:
        return JSONResponse(secrets.scrubbed(status(engine, plan, revisions)))

    async def tell_plan(request: Request) -> Response:
        files = await _files(request)
        if files is None:
            return JSONResponse({"error": 'the body is {"files": [PATH, ...]}'}, 400)
        try:
            patch = engine.preview(await compile(files))
        except GraphError as error:
            return JSONResponse(secrets.scrubbed(to_json(error.diagnostics)), 422)
        except FlowstreamError as error:
            return JSONResponse(secrets.scrubbed({"error": str(error)}), 422)
        return JSONResponse(secrets.scrubbed(patch_to_json(patch)))

    routes = [Route("/status", tell_status), Route("/plan", tell_plan, methods=["POST"])]
    return Starlette(routes=[*routes, *observe.routes(stalls, secrets)])


async def _files(request: Request) -> tuple[str, ...] | None:
    """The paths that are asked about; None when the question makes no sense."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    try:
        files = json.loads(body)["files"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    is_right = isinstance(files, list) and 0 < len(files) <= MAX_FILES and all(isinstance(each, str) for each in files)
    return tuple(files) if is_right else None
