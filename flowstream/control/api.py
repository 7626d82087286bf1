"""What a run says about itself over its control socket: JSON over HTTP."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flowstream.graph.plan import Plan
from flowstream.runtime.engine import Engine
from flowstream.runtime.log import Secrets
from flowstream.runtime.reload import Revisions

CONNECTIONS = 32
"""How many connections may be open at a time."""


def status(engine: Engine, plan: Plan, revisions: Revisions) -> dict[str, Any]:
    """The run as JSON values. ``plan`` is what is being started, shown until the engine has one.

    ``{"graph", "state", "revision": {"running", "file", "refused"}, "nodes": {NAME: {"type", "state", "config",
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
        "state": engine.state,
        "revision": {"running": revisions.running, "file": revisions.file, "refused": revisions.refused},
        "nodes": nodes,
        "listen": list(engine.mounts.listen) if engine.mounts.listen else None,
    }


def make_app(engine: Engine, plan: Plan, revisions: Revisions, secrets: Secrets) -> Starlette:
    """The ASGI application behind a control socket: ``GET /status``."""

    async def tell_status(_: Request) -> Response:
        return JSONResponse(secrets.scrubbed(status(engine, plan, revisions)))

    return Starlette(routes=[Route("/status", tell_status)])
