"""The description of the API for programs: OpenAPI 3.1, from the same models that requests are held against."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from flowstream.control.models import Problem

VERSION = "3.1.0"
_WHERE = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked: where, with what, and what is answered. ``others`` are answers by other statuses."""

    method: str
    path: str
    summary: str
    handler: Callable[[Request, Any], Awaitable[Any]]
    asks: type[BaseModel] | None = None
    answers: type[BaseModel] | None = None
    status: int = 200
    others: Mapping[int, type[BaseModel]] = field(default_factory=dict)


def document(operations: Sequence[Operation], more: Iterable[BaseRoute] = (), root: str = "") -> dict[str, Any]:
    """The description of these operations, and of routes of which no more is known than where they are.

    ``root`` is the path that the API is mounted at.
    """
    from flowstream import __version__

    used = {each for op in operations for each in (op.asks, op.answers, *op.others.values()) if each is not None}
    wanted = sorted((used | {Problem}), key=lambda model: model.__name__)
    _, schemas = models_json_schema([(model, "validation") for model in wanted], ref_template=_WHERE)
    paths: dict[str, Any] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    paths["/events"] = {"get": _EVENTS}
    paths["/openapi.json"] = {"get": _simple("openapi", "This description", "application/json")}
    for route in more:
        if isinstance(route, Route):
            for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
                said = (inspect.getdoc(route.endpoint) or route.name).split("\n", 1)[0].rstrip(".")
                described = _simple(f"{method.lower()}-{route.name}", said, "*/*")
                names = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                         for name in route.param_convertors]  # fmt: skip
                if names:
                    described["parameters"] = names
                path = route.path_format
                paths.setdefault(path, {})[method.lower()] = described
    return {
        "openapi": VERSION,
        "info": {
            "title": "flowstream control",
            "version": __version__,
            "description": "Over the control socket of a run for whoever can open it; beside the viewers, under /-/, "
            "for whoever has the owner's token.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": root or "/"}],
        "security": [{}, {"owner": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"owner": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.path.strip("/").replace("/", "-"),
        "summary": operation.summary,
        "responses": {
            str(operation.status): _answer("Done." if operation.asks else "What it is.", operation.answers),
            **{str(code): _answer("It is not.", model) for code, model in operation.others.items()},
            "401": _answer("The owner's token is missing or wrong.", Problem),
            "403": _answer("The API is not served there.", Problem),
            "429": _answer("Too many wrong tokens came from this address.", Problem),
        },
    }
    if operation.asks is not None:
        described["requestBody"] = {
            "required": any(each.is_required() for each in operation.asks.model_fields.values()),
            "content": {"application/json": {"schema": _ref(operation.asks)}},
        }
        described["responses"] |= {
            "400": _answer("What is asked makes no sense.", Problem),
            "408": _answer("What is asked did not come in time.", Problem),
            "413": _answer("What is asked is too large.", Problem),
            "415": _answer("What is asked does not say that it is application/json.", Problem),
            "422": _answer("It was not done, and nothing has changed.", Problem),
        }
    return described


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _WHERE.format(model=model.__name__)}


def _answer(description: str, model: type[BaseModel] | None) -> dict[str, Any]:
    schema = _ref(model) if model is not None else {"type": "object"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _simple(name: str, summary: str, media: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": "What it is.", "content": {media: {"schema": {}}}}},
    }


_EVENTS = {
    "operationId": "events",
    "summary": "What happens, as server-sent events",
    "parameters": [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The id of the event that was had last: what came after it is told first.",
            "schema": {"type": "string"},
        }
    ],
    "responses": {
        "200": {"description": "Events without end.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        "503": _answer("Too many clients follow.", Problem),
    },
}
