"""Who may use the control API where viewers are served: whoever has the owner's token."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from flowstream.node.context import AsgiApp

PREFIX = "/-/"
"""Where the API is on the address of the viewers. No node can be called so."""

OPEN = ("/-/healthz", "/-/readyz")
"""What is answered to anybody, without details: whether it runs. A viewer sees as much."""

FAILURES = 10
WINDOW_SECONDS = 60.0
"""How many wrong tokens an address may show in how long; then none is looked at until that time has passed."""

ADDRESSES = 1024
"""How many addresses are remembered; the ones not seen for longest are forgotten."""

_Receive = Callable[[], Awaitable[Any]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(slots=True)
class Failures:
    """Counts wrong tokens by address, on the monotonic clock: a wallclock that jumps frees or locks out nobody."""

    clock: Callable[[], float] = time.monotonic
    _seen: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)

    def wait_seconds(self, address: str) -> float:
        """How long an address has to wait before it is listened to again; 0 when it need not."""
        times = self._recent(address)
        return times[0] + WINDOW_SECONDS - self.clock() if len(times) >= FAILURES else 0.0

    def add(self, address: str) -> None:
        """An address showed a wrong token."""
        times = self._recent(address)
        times.append(self.clock())
        self._seen[address] = times
        self._seen.move_to_end(address)
        while len(self._seen) > ADDRESSES:
            self._seen.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        since = self.clock() - WINDOW_SECONDS
        return [at for at in self._seen.get(address, ()) if at > since]


class Guard:
    """The API behind its token. ``token`` gives the one that counts now; None while the API is not served."""

    def __init__(self, app: AsgiApp, token: Callable[[], str | None], failures: Failures | None = None) -> None:
        self._app = app
        self._token = token
        self._failures = failures or Failures()

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        answer = self._refusal(Request(scope))
        if answer is None:
            await self._app({**scope, "flowstream.is_owner": scope["path"] not in OPEN}, receive, send)
        else:
            answer.headers["Cache-Control"] = "no-store"
            await answer(scope, receive, send)

    def _refusal(self, request: Request) -> JSONResponse | None:
        token = self._token()
        if token is None:
            return _said(403, "the control API is not served here", "write serve: {api: true} in the graph, or use "
                         "the control socket: flowstream status")  # fmt: skip
        if request.scope["path"] in OPEN:
            return None
        address = request.client.host if request.client else ""
        if (wait := self._failures.wait_seconds(address)) > 0:
            answer = _said(429, "too many wrong tokens came from this address", f"try again in {wait:.0f} s")
            answer.headers["Retry-After"] = f"{wait:.0f}"
            return answer
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not given:
            answer = _said(401, "this needs the owner's token", "send the header Authorization: Bearer TOKEN; "
                           "`flowstream status` says which file has it")  # fmt: skip
            answer.headers["WWW-Authenticate"] = 'Bearer realm="flowstream"'
            return answer
        if not hmac.compare_digest(_digest(given.strip()), _digest(token)):
            self._failures.add(address)
            answer = _said(401, "this is not the owner's token", "`flowstream status` says which file has it")
            answer.headers["WWW-Authenticate"] = 'Bearer realm="flowstream", error="invalid_token"'
            return answer
        return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _said(status: int, error: str, hint: str) -> JSONResponse:
    return JSONResponse({"error": error, "hint": hint}, status)
