"""The HTTP side of an output: the WHEP endpoint (draft-ietf-wish-whep) and the page that plays from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import anyio

from flowstream import AsgiApp, Caller, DoorClosed
from flowstream.proto.ice_servers import IceServer
from flowstream.proto.sdp import NothingInCommonError, SdpError
from flowstream.proto.sdpfrag import parse_fragment
from flowstream_nodes.webrtc import _page
from flowstream_nodes.webrtc._page import read_page as read_page
from flowstream_nodes.webrtc._viewers import NothingShownError, Viewers

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

RETRY_AFTER_S: Final = 5

MAX_NAME: Final = 200

SDP: Final = "application/sdp"
TRICKLE: Final = "application/trickle-ice-sdpfrag"
PAGE: Final = "index.html"
PAGE_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class About:
    """What the page shows around the picture, and what its players are told."""

    title: str
    has_video: bool
    has_audio: bool
    origins: tuple[str, ...] = ()
    servers: tuple[IceServer, ...] = ()


def make_app(viewers: Viewers, *, about: Callable[[], About], page: Mapping[str, bytes]) -> AsgiApp:
    """The ASGI application of one output.

    ``/`` is the page, ``/whep`` the endpoint, ``/whep/ID`` a session ``/whep/ID/state`` how its viewer stands and
    ``/whep/ID/quality`` which rendition it gets,
    ``/about`` what the page shows. Requests of other
    origins than the server's own are refused unless ``about().origins`` lists them or ``*``: a picture of a screen is
    not for every page that its owner happens to visit.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    page_headers = {**PAGE_HEADERS, "Content-Security-Policy": _page.policy(page.get(PAGE, b""))}
    session_methods = ("GET", "PATCH", "DELETE", "OPTIONS")

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

    async def read_body(request: Request, kind: str, headers: Mapping[str, str]) -> str:
        given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != kind:
            accept = {f"Accept-{request.method.title()}": kind}
            raise HTTPException(415, f"The body must be {kind}.", {**accept, **headers})
        body = bytearray()
        try:
            with anyio.fail_after(BODY_S):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > MAX_BODY:
                        raise HTTPException(413, f"The body is longer than {MAX_BODY} bytes.", headers)
        except TimeoutError:
            raise HTTPException(408, f"The body did not arrive within {BODY_S:.0f} s.", headers) from None
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise HTTPException(400, "The body is not UTF-8.", headers) from None

    async def endpoint(request: Request) -> Response:
        headers = cross_origin(request)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Accept-Post": SDP, **headers, **_preflight(request, headers)})
        if request.method in ("GET", "HEAD"):
            return Response(media_type=SDP, headers={"Accept-Post": SDP, **headers})
        offer = await read_body(request, SDP, headers)
        await viewers.gathered()
        try:
            admitted = viewers.admit(offer, caller_of(request))
        except NothingInCommonError as error:
            raise HTTPException(406, _sentence(error), headers) from None
        except SdpError as error:
            raise HTTPException(400, f"The offer cannot be answered: {error}.", headers) from None
        except NothingShownError as error:
            again = {"Retry-After": str(RETRY_AFTER_S), **headers}
            raise HTTPException(409, f"{_sentence(error)} Try again in {RETRY_AFTER_S} s.", again) from None
        except DoorClosed as error:
            raise closed(error, headers) from None
        location = f"{request.scope.get('root_path', '')}/whep/{admitted.session_id}"
        found = {"Location": location, "ETag": f'"{admitted.etag}"', **headers}
        if links := _links(about().servers):
            found["Link"] = links
        return Response(admitted.answer, 201, found, SDP)

    async def session(request: Request) -> Response:
        headers = cross_origin(request)
        if request.method == "OPTIONS":
            return Response(
                status_code=204, headers={"Accept-Patch": TRICKLE, **headers, **_preflight(request, headers)}
            )
        current = viewers.sessions.get(request.path_params["id"])
        if current is None or current.closed_because is not None:
            raise HTTPException(404, "There is no such session (any more).", headers)
        if request.method in ("GET", "HEAD"):
            return Response(status_code=204, headers=headers)
        if request.method == "DELETE":
            viewers.dismiss(current.id)
            return Response(headers=headers)
        fragment = await read_body(request, TRICKLE, headers)
        match = request.headers.get("if-match", "").strip()
        if not match:
            raise HTTPException(428, "If-Match must name the session's ETag, or be * to restart ICE.", headers)
        # The draft's own example has the star in quotes.
        if match not in ("*", '"*"') and f'"{current.etag}"' not in [each.strip() for each in match.split(",")]:
            raise HTTPException(412, "If-Match is not the session's ETag.", headers)
        try:
            said = parse_fragment(fragment)
        except SdpError as error:
            raise HTTPException(400, f"The fragment cannot be read: {error}.", headers) from None
        if said.ufrag in ("", current.peer_ufrag):
            current.hear_candidates(said)
            return Response(status_code=204, headers=headers)
        if not said.password:
            raise HTTPException(400, "A restart of ICE needs a=ice-pwd beside a=ice-ufrag.", headers)
        answer = viewers.restart(current, said)
        return Response(answer, 200, {"ETag": f'"{current.etag}"', **headers}, TRICKLE)

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
            name = await read_body(request, "text/plain", headers)
            if len(name) > MAX_NAME:
                raise HTTPException(413, f"A name has at most {MAX_NAME} characters.", headers)
            seat.call(name)
        return JSONResponse(seat.told(), headers=headers)

    async def quality(request: Request) -> Response:
        """What a viewer gets of what there is, and why; it may choose one, or the best that its link carries."""
        headers = {"Cache-Control": "no-store", **cross_origin(request)}
        current = viewers.sessions.get(request.path_params["id"])
        if current is None:
            raise HTTPException(404, "There is no such session (any more).", headers)
        if request.method == "POST":
            wanted = (await read_body(request, "text/plain", headers)).strip()
            try:
                viewers.choose(current, wanted)
            except LookupError as error:
                raise HTTPException(422, f"{error.args[0]}.", headers) from None
        return JSONResponse(viewers.quality(current), headers=headers)

    async def tell_about(request: Request) -> Response:
        if not viewers.registry.may_look(caller_of(request)):
            raise closed(DoorClosed("token", "this needs a link with a token"), {"Cache-Control": "no-store"})
        known = {**_known(about()), "now": viewers.wallclock_ms}
        return JSONResponse(known, headers={"Cache-Control": "no-store"})

    async def page_file(request: Request) -> Response:
        name = request.path_params.get("name", PAGE)
        if name not in page:
            raise HTTPException(404, "There is nothing here.")
        content = page[name]
        if name == PAGE and viewers.registry.may_look(caller_of(request)):
            now = about()
            content = _page.tell(content, now.title, {**_known(now), "servers": bool(now.servers)})
        return Response(content, headers={"Content-Type": _page.TYPES[name], **page_headers})

    async def refuse(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return PlainTextResponse(error.detail + "\n", error.status_code, error.headers)

    application = Starlette(
        routes=[
            Route("/", page_file),
            Route("/whep", endpoint, methods=["GET", "POST", "OPTIONS"]),
            Route("/whep/{id}/quality", quality, methods=["GET", "POST"]),
            Route("/whep/{id}/state", state, methods=["GET", "POST"]),
            Route("/whep/{id}", session, methods=session_methods),
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


def _known(about: About) -> dict[str, object]:
    """What there is to see, as the page reads it."""
    return {"title": about.title, "video": about.has_video, "audio": about.has_audio}


def _preflight(request: Request, cross_origin: Mapping[str, str]) -> dict[str, str]:
    """What a browser is told before it sends a request of another origin (Fetch, section 3.2.4)."""
    if not cross_origin:
        return {}
    methods = "POST, GET, OPTIONS" if request.url.path.endswith("/whep") else "GET, PATCH, DELETE, OPTIONS"
    return {
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
        "Access-Control-Max-Age": "3600",
    }


def _links(servers: Sequence[IceServer]) -> str:
    """The value of Link for servers that players may use (RFC 9725 section 4.6)."""
    links = []
    for server in servers:
        login = ""
        if server.username is not None and server.credential is not None:
            login = f"; username={_quoted(server.username)}; credential={_quoted(server.credential)}"
            login += '; credential-type="password"'
        links += [f'<{url}>; rel="ice-server"{login}' for url in server.urls]
    return ", ".join(links)


def _quoted(text: str) -> str:
    """A quoted string of a header (RFC 9110 section 5.6.4)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[0].upper() + text[1:] + "."
