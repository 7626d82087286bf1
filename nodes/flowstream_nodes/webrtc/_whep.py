"""The HTTP side of an output: the WHEP endpoint (draft-ietf-wish-whep) and the page that plays from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import anyio

from flowstream import AsgiApp, Caller, DoorClosed
from flowstream.proto.sdp import NothingInCommonError, SdpError
from flowstream_nodes.webrtc._viewers import Viewers

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MAX_BODY: Final = 64 * 1024
"""Longest body of a request, in bytes."""

BODY_S: Final = 10.0
"""How long a body may take to arrive."""

STATUS: Final = {"token": 401, "barred": 403, "too-many": 429, "full": 503, "crowded": 503}
"""What is answered to somebody who is not let in, by why."""

REALM: Final = 'Bearer realm="flowstream"'
VIEWER: Final = "flowstream.viewer"
"""Where a program that serves this application says whom it vouches for."""

MAX_NAME: Final = 200

SDP: Final = "application/sdp"
TRICKLE: Final = "application/trickle-ice-sdpfrag"
PAGE_FOLDER: Final = Path(__file__).parent / "page"
PAGE_TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
    "viewer.css": "text/css; charset=utf-8",
}
PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; media-src blob: mediastream:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class About:
    """What the page shows around the picture."""

    title: str
    has_video: bool
    has_audio: bool
    origins: tuple[str, ...] = ()


def read_page() -> dict[str, bytes]:
    """The page's files; blocks."""
    return {name: (PAGE_FOLDER / name).read_bytes() for name in PAGE_TYPES}


def make_app(viewers: Viewers, *, about: Callable[[], About], page: Mapping[str, bytes]) -> AsgiApp:
    """The ASGI application of one output.

    ``/`` is the page, ``/whep`` the endpoint, ``/whep/ID`` a session and ``/whep/ID/state`` how its viewer stands,
    ``/about`` what the page shows. Requests of other
    origins than the server's own are refused unless ``about().origins`` lists them or ``*``: a picture of a screen is
    not for every page that its owner happens to visit.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    def cross_origin(request: Request) -> dict[str, str]:
        """Headers for the origin of a request, which may be none; 403 for one that is not welcome."""
        origin = request.headers.get("origin")
        if origin is None or urlsplit(origin).netloc == request.headers.get("host"):
            return {}
        allowed = about().origins
        if origin not in allowed and "*" not in allowed:
            raise HTTPException(403, f"Pages of {origin} may not play this. To allow it, list it under 'origins'.")
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": "Location, ETag, Link, Retry-After",
            "Vary": "Origin",
        }

    async def read_body(request: Request, kind: str) -> str:
        given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != kind:
            raise HTTPException(415, f"The body must be {kind}.", {f"Accept-{request.method.title()}": kind})
        body = bytearray()
        try:
            with anyio.fail_after(BODY_S):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > MAX_BODY:
                        raise HTTPException(413, f"The body is longer than {MAX_BODY} bytes.")
        except TimeoutError:
            raise HTTPException(408, f"The body did not arrive within {BODY_S:.0f} s.") from None
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise HTTPException(400, "The body is not UTF-8.") from None

    async def endpoint(request: Request) -> Response:
        headers = cross_origin(request)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Accept-Post": SDP, **headers, **_preflight(request, headers)})
        if request.method in ("GET", "HEAD"):
            return Response(media_type=SDP, headers={"Accept-Post": SDP, **headers})
        offer = await read_body(request, SDP)
        try:
            admitted = viewers.admit(offer, caller_of(request))
        except NothingInCommonError as error:
            raise HTTPException(422, f"{_sentence(error)}", headers) from None
        except SdpError as error:
            raise HTTPException(400, f"The offer cannot be answered: {error}.", headers) from None
        except DoorClosed as error:
            raise closed(error, headers) from None
        location = f"{request.scope.get('root_path', '')}/whep/{admitted.session_id}"
        found = {"Location": location, "ETag": f'"{admitted.etag}"', **headers}
        return Response(admitted.answer, 201, found, SDP)

    async def session(request: Request) -> Response:
        headers = cross_origin(request)
        if request.method == "OPTIONS":
            return Response(
                status_code=204, headers={"Accept-Patch": TRICKLE, **headers, **_preflight(request, headers)}
            )
        current = viewers.sessions.get(request.path_params["id"])
        if current is None:
            raise HTTPException(404, "There is no such session (any more).", headers)
        if request.method == "DELETE":
            viewers.dismiss(current.id)
            return Response(headers=headers)
        fragment = await read_body(request, TRICKLE)
        match = request.headers.get("if-match")
        if match is None:
            raise HTTPException(428, "If-Match must name the session's ETag.", headers)
        ufrags = {
            line[len("a=ice-ufrag:") :].strip() for line in fragment.splitlines() if line.startswith("a=ice-ufrag:")
        }
        if match == "*" or ufrags - {current.peer_ufrag}:
            raise HTTPException(422, "This endpoint cannot restart ICE: make a new session.", headers)
        if match != f'"{current.etag}"':
            raise HTTPException(412, "If-Match is not the session's ETag.", headers)
        # A lite agent answers from wherever a check comes and has no use for candidates.
        return Response(status_code=204, headers=headers)

    def closed(error: DoorClosed, headers: Mapping[str, str]) -> HTTPException:
        more = dict(headers)
        text = _sentence(error)
        if error.retry_s is not None:
            more["Retry-After"] = str(error.retry_s)
            if error.kind != "too-many":
                text += f" Try again in {error.retry_s} s."
        if error.kind == "token":
            more["WWW-Authenticate"] = REALM
        return HTTPException(STATUS[error.kind], text, more)

    async def state(request: Request) -> Response:
        """What a viewer may know about itself; it may say its name. The session's path is known to it alone."""
        headers = {"Cache-Control": "no-store", **cross_origin(request)}
        seat = viewers.seat(request.path_params["id"])
        if seat is None:
            raise HTTPException(404, "There is no such session (any more).", headers)
        if request.method == "POST":
            name = await read_body(request, "text/plain")
            if len(name) > MAX_NAME:
                raise HTTPException(413, f"A name has at most {MAX_NAME} characters.", headers)
            seat.call(name)
        return JSONResponse(seat.told(), headers=headers)

    async def tell_about(request: Request) -> Response:
        if not viewers.registry.may_look(caller_of(request)):
            raise closed(DoorClosed("token", "this needs a link with a token"), {"Cache-Control": "no-store"})
        now = about()
        return JSONResponse(
            {"title": now.title, "video": now.has_video, "audio": now.has_audio}, headers={"Cache-Control": "no-store"}
        )

    async def page_file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in page:
            raise HTTPException(404, "There is nothing here.")
        return Response(page[name], headers={"Content-Type": PAGE_TYPES[name], **PAGE_HEADERS})

    async def refuse(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return PlainTextResponse(error.detail + "\n", error.status_code, error.headers)

    application = Starlette(
        routes=[
            Route("/", page_file),
            Route("/whep", endpoint, methods=["GET", "POST", "OPTIONS"]),
            Route("/whep/{id}/state", state, methods=["GET", "POST"]),
            Route("/whep/{id}", session, methods=["PATCH", "DELETE", "OPTIONS"]),
            Route("/about", tell_about),
            Route("/{name}", page_file),
        ],
        exception_handlers=cast("Any", {HTTPException: refuse}),
    )
    application.router.redirect_slashes = False
    return cast("AsgiApp", application)


def caller_of(request: Request) -> Caller:
    """Who asks: its address, its token (in the header, RFC 6750, or the link), what the program around says of it."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    shown = token.strip() if kind.lower() == "bearer" else request.query_params.get("token")
    return Caller(
        address=request.client.host if request.client else "",
        token=shown or None,
        vouched=request.scope.get(VIEWER),
        name=request.query_params.get("name", "")[:MAX_NAME] or None,
    )


def _preflight(request: Request, cross_origin: Mapping[str, str]) -> dict[str, str]:
    """What a browser is told before it sends a request of another origin (Fetch, section 3.2.4)."""
    if not cross_origin:
        return {}
    methods = "POST, GET, OPTIONS" if request.url.path.endswith("/whep") else "PATCH, DELETE, OPTIONS"
    return {
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
        "Access-Control-Max-Age": "3600",
    }


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[0].upper() + text[1:] + "."
