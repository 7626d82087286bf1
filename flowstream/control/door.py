"""The door of a graph: one address where the pages and endpoints of all its nodes are."""

from __future__ import annotations

import errno
import html
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ifaddr
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from flowstream.errors import FlowstreamError
from flowstream.graph.plan import Plan, Serve
from flowstream.proto.hosts import is_loopback, is_wildcard
from flowstream.runtime.mounts import Mounts

CONNECTIONS = 512
"""How many connections may be open at a time."""

BACKLOG = 128
MOST_ADDRESSES = 8
"""How many addresses of this machine are named."""

DEFAULT = Serve()
DEFAULT_PORTS = 20
"""How many ports from the default one on are tried when the graph does not name one."""

_logger = logging.getLogger("flowstream.door")

_Receive = Callable[[], Awaitable[Any]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ServeError(FlowstreamError):
    """Raised when the graph cannot serve at the address that it names."""


def serves(plan: Plan) -> bool:
    """Whether the plan needs an address: it names one, or a node of it mounts something."""
    return plan.serve is not None or any(planned.node_type.serves for planned in plan.nodes.values())


def require_protected(serve: Serve | None) -> None:
    """Raises ServeError where other machines reach the address and nobody has said how it is protected."""
    if serve is not None and serve.is_exposed:
        raise ServeError(
            f"serve: other machines reach {serve.host}, and nothing says whether it is served over TLS",
            hint="tls: auto makes a certificate, tls: off serves in the clear",
        )


def bind(serve: Serve | None) -> socket.socket:
    """A listening socket at the address; without one at the default address, or at the next free port after it.

    Raises ServeError with the reason and the way out.
    """
    if serve is not None:
        return _listen(serve.host, serve.port)
    for port in (*range(DEFAULT.port, DEFAULT.port + DEFAULT_PORTS), 0):
        try:
            return _listen(DEFAULT.host, port)
        except ServeError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("port 0 is never taken")


def _listen(host: str, port: int) -> socket.socket:
    at = address(host, port)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ServeError(
            f"serve: listen: there is no address for {host!r}",
            hint="write 127.0.0.1 for this machine alone, 0.0.0.0 for every machine that reaches it",
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _refusal(error, host, port, at) from error
    return listener


def _refusal(error: OSError, host: str, port: int, at: str) -> ServeError:
    if error.errno == errno.EADDRINUSE:
        elsewhere = address(host, port + 1 if port < 65535 else DEFAULT.port)
        return ServeError(
            f"serve: {at} is taken by {holder_of(port) or 'another program'}",
            hint=f'stop it, or serve elsewhere: serve: {{listen: "{elsewhere}"}}',
        )
    if error.errno == errno.EACCES:
        return ServeError(
            f"serve: port {port} is for root alone",
            hint=f'take a port from 1024 on: serve: {{listen: "{address(host, 8080)}"}}',
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return ServeError(
            f"serve: {host} is no address of this machine",
            hint="write 127.0.0.1 for this machine alone, 0.0.0.0 for every machine that reaches it",
        )
    return ServeError(f"serve: cannot listen at {at}: {error.strerror or error}")


def holder_of(port: int) -> str | None:
    """Who listens on a TCP port, as ``NAME (process PID)``; None where the system does not say. Linux only."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:  # 0A: listening
                inodes.add(f"socket:[{columns[9]}]")
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if any(str(link.readlink()) in inodes for link in (process / "fd").iterdir()):
                    return f"{(process / 'comm').read_text().strip()} (process {process.name})"
            except OSError:  # somebody else's process, or one that has ended
                continue
    return None


def address(host: str, port: int) -> str:
    """``HOST:PORT`` as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def roots(mounts: Mounts) -> list[str]:
    """The URLs at which the graph is reached, that for other machines first; none while it is not served."""
    if mounts.listen is None:
        return []
    host, port = mounts.listen
    hosts = reachable_addresses(host) if is_wildcard(host) else [host]
    return [f"{'https' if mounts.is_encrypted else 'http'}://{address(each, port)}" for each in hosts]


def links(mounts: Mounts) -> Iterator[tuple[str, str]]:
    """The path and the URLs of every page, by which other machines reach it first. The only one is at the root too."""
    pages = mounts.pages
    for path in pages:
        for root in roots(mounts):
            yield path, f"{root}/" if len(pages) == 1 else f"{root}{path}"


def reachable_addresses(wildcard: str) -> list[str]:
    """The addresses of this machine that a wildcard stands for: the one of the way out first, loopback last.

    No link-local ones, which other machines can only use with a zone that is theirs.
    """
    found: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for adapter in ifaddr.get_adapters():
        for each in adapter.ips:
            ip = ipaddress.ip_address(each.ip if isinstance(each.ip, str) else each.ip[0])
            if not ip.is_link_local and (ip.version == 4 or ":" in wildcard):
                found.append(ip)
    ways_out = [_way_out("0.0.0.0"), _way_out("::")]
    found.sort(key=lambda ip: (ip.is_loopback, str(ip) not in ways_out, ip.version))
    kept = list(dict.fromkeys(str(ip) for ip in found))[:MOST_ADDRESSES]
    return kept or ["::1" if ":" in wildcard else "127.0.0.1"]


def _way_out(wildcard: str) -> str | None:
    """The address from which this machine reaches others; nothing is sent to find out. None where it reaches none."""
    family, elsewhere = (socket.AF_INET6, "2001:db8::1") if ":" in wildcard else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None


class Door:
    """The ASGI application in front of all mounts.

    The only page is at ``/`` too; several are listed there. The former path of a node that was renamed leads to its
    new one. Where only this machine is served, requests must name it: a page of another site whose name was pointed to
    127.0.0.1 (DNS rebinding) gets nothing. With ``is_mounted`` the application stands in another one, at any path,
    whose business that is.
    """

    def __init__(self, mounts: Mounts, *, is_mounted: bool = False) -> None:
        self._mounts = mounts
        self._is_mounted = is_mounted

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        started = False

        async def send_safely(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = list(message.get("headers", ()))
                if not any(name.lower() == b"x-content-type-options" for name, _ in headers):
                    headers.append((b"x-content-type-options", b"nosniff"))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._route(scope, receive, send_safely)
        except Exception as error:
            _logger.error("%s %s failed", scope.get("method"), scope.get("path"), exc_info=error)
            if started:
                raise
            await PlainTextResponse("Something went wrong here; the log says what.\n", 500)(scope, receive, send_safely)

    async def _route(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        request = Request(scope)
        root, path = scope.get("root_path", ""), path_below(scope)
        response: Response
        if not self._is_meant(request):
            response = PlainTextResponse("This address is served to this machine alone, under its own name.\n", 403)
        else:
            mount = self._mounts.find(path)
            moved = self._mounts.moved(path) if mount is None else None
            if moved is not None and not _is_redirected(request):
                scope = {key: value for key, value in scope.items() if key != "raw_path"} | {"path": root + moved}
                path, mount = moved, self._mounts.find(moved)
            if moved is not None and mount is None:
                response = self._redirect(request, root + moved)
            elif mount is None:
                response = self._index(request, root) if path in ("", "/") else self._nothing(path)
            elif f"{path}/" == mount.path:
                response = self._redirect(request, root + mount.path)
            else:
                await mount.app({**scope, "root_path": root + mount.path.rstrip("/")}, receive, send)
                return
        response.headers["Cache-Control"] = "no-store"
        await response(scope, receive, send)

    def _redirect(self, request: Request, path: str) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{path}{query}", 307)

    def _is_meant(self, request: Request) -> bool:
        if self._is_mounted or self._mounts.listen is None or not is_loopback(self._mounts.listen[0]):
            return True
        host = request.headers.get("host")
        return host is None or is_loopback(_name_of(host))

    def _index(self, request: Request, root: str) -> Response:
        pages = self._mounts.pages
        if not pages:
            return PlainTextResponse("No page is up at the moment.\n", 503, {"Retry-After": "2"})
        if len(pages) == 1:
            return self._redirect(request, root + pages[0])
        query = html.escape(f"?{request.url.query}") if request.url.query else ""
        items = "\n".join(
            f'<li><a href="{html.escape(root + page)}{query}">{html.escape(page.strip("/"))}</a></li>' for page in pages
        )
        return HTMLResponse(_INDEX.format(items=items), headers={"Content-Security-Policy": _INDEX_POLICY})

    def _nothing(self, path: str) -> Response:
        pages = self._mounts.pages
        where = f" There is {', '.join(pages)}." if pages else ""
        return PlainTextResponse(f"There is nothing at {path[:200]!r}.{where}\n", 404)


def _is_redirected(request: Request) -> bool:
    """Whether a request for a node's former path is sent to the new one; any other is answered where it comes.

    Players that watch have an address of their session: few follow a redirect when they change or end it, and a browser
    follows none of its preflights. A page of another origin sees no redirect that does not admit it, which is the
    node's business.
    """
    origin = request.headers.get("origin")
    is_own = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    return is_own and request.method in ("GET", "HEAD", "POST")


def path_below(scope: MutableMapping[str, Any]) -> str:
    """The path of a request below where the application is mounted; servers differ in whether it holds that too."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    below = path.removeprefix(root)
    return below if root and (not below or below.startswith("/")) else path


def _name_of(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


_INDEX_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_INDEX = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>flowstream</title>
<style>
  body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 30rem; margin: 4rem auto; padding: 0 1rem }}
  li {{ margin: .4rem 0 }}
</style>
<h1>Pages</h1>
<ul>
{items}
</ul>
</html>
"""
