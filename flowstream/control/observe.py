"""What a run says about how it is doing: why nothing comes, its numbers, and what goes over an edge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from flowstream.control import metrics
from flowstream.control.records import pack
from flowstream.graph.diagnostics import did_you_mean
from flowstream.media.frames import VideoFrame
from flowstream.media.packets import EncodedPacket
from flowstream.runtime.cause import Cause
from flowstream.runtime.engine import Engine
from flowstream.runtime.log import Secrets
from flowstream.runtime.stalls import Stalls
from flowstream.runtime.stats import DEFAULT_SPAN_NS
from flowstream.runtime.tap import Tap, TapError, describe, png_of
from flowstream.runtime.why import verdict

MOST_TAPS = 8
"""How many edges may be looked at at a time."""

MOST_PAYLOADS = 1_000_000
MOST_SPAN_SECONDS = 3600

BEAT_SECONDS = 1.0
"""How often a tap says that nothing came; a reader that is gone is found out by it."""


def why(stalls: Stalls, node: str | None = None) -> dict[str, Any]:
    """What is wrong, as JSON values: ``{"healthy", "verdict": [SENTENCE, ...], "causes": [...]}``.

    A cause is ``{"node", "kind", "sentence", "chain", "since", "for_seconds", "is_fault"}``; one that is no fault
    leaves the graph healthy. Raises KeyError for an unknown node.
    """
    view = stalls.view()
    found = stalls.causes(view)
    said = verdict(view, found, node)
    concerned = [cause for cause in found if node is None or node in cause.chain]

    def values(cause: Cause) -> dict[str, Any]:
        ago_ns = view.now_ns - cause.since_ns
        since = datetime.fromtimestamp((view.wallclock_ns - ago_ns) / 1e9, UTC)
        json = cause.to_json()
        del json["since_ns"]
        return json | {"since": f"{since:%Y-%m-%dT%H:%M:%S}Z", "for_seconds": round(ago_ns / 1e9, 3)}

    return {
        "healthy": not any(cause.is_fault for cause in concerned),
        "verdict": said,
        "causes": [values(cause) for cause in concerned],
    }


def routes(stalls: Stalls, secrets: Secrets) -> list[Route]:
    """``GET /why?node=``, ``/stats?over=SECONDS``, ``/metrics`` and ``/tap?edge=&frames=&data=none|raw|png``.

    ``/tap`` is a stream of records (see ``records``): a head that names the edge, then each payload's description with
    ``missed`` so far, and with ``data`` its bytes (packets; pictures begin at a keyframe, also after a miss) or the
    picture as PNG; ``{"waiting"}`` each second without one; ``{"end"}`` at last. What is asked wrongly gets 422 with
    ``{"error"}``.
    """
    engine, statistics = stalls.engine, stalls.statistics
    taps = _Taps(engine, secrets)

    async def tell_why(request: Request) -> Response:
        node = request.query_params.get("node") or None
        try:
            return JSONResponse(secrets.scrubbed(why(stalls, node)))
        except KeyError:
            known = list(engine.runners)
            close = did_you_mean(node or "", known)
            hint = f"did you mean {close}?" if close else f"there is {', '.join(known) or 'none yet'}"
            return _wrong(f"there is no node {node!r}; {hint}")

    async def tell_stats(request: Request) -> Response:
        try:
            seconds = float(request.query_params.get("over", DEFAULT_SPAN_NS / 1e9))
        except ValueError:
            seconds = 0
        if not 1 <= seconds <= MOST_SPAN_SECONDS:
            return _wrong(f"over= is a number of seconds from 1 to {MOST_SPAN_SECONDS}")
        return JSONResponse(secrets.scrubbed(statistics.snapshot(round(seconds * 1e9)).to_json()))

    async def tell_metrics(_: Request) -> Response:
        view = stalls.view()
        text = metrics.to_text(statistics.snapshot(), stalls.causes(view), is_refused=view.refused is not None)
        return PlainTextResponse(secrets.scrub(text), media_type=metrics.CONTENT_TYPE)

    async def tell_tap(request: Request) -> Response:
        data = request.query_params.get("data", "none")
        try:
            frames = int(request.query_params.get("frames", "100"))
        except ValueError:
            frames = 0
        if not 1 <= frames <= MOST_PAYLOADS:
            return _wrong(f"frames= is a number from 1 to {MOST_PAYLOADS}")
        if data not in ("none", "raw", "png"):
            return _wrong("data= is none, raw or png")
        try:
            tap = taps.open(request.query_params.get("edge", ""))
        except TapError as error:
            return _wrong(str(error))
        return StreamingResponse(taps.records(tap, frames, data), media_type="application/octet-stream")

    return [
        Route("/why", tell_why),
        Route("/stats", tell_stats),
        Route("/metrics", tell_metrics),
        Route("/tap", tell_tap),
    ]


def _wrong(message: str) -> Response:
    return JSONResponse({"error": message}, 422)


@dataclass(slots=True)
class _Taps:
    """The taps that are open."""

    engine: Engine
    secrets: Secrets
    count: int = 0

    def open(self, edge: str) -> Tap:
        """Raises TapError when there is no such edge, or when there are enough."""
        if self.count >= MOST_TAPS:
            raise TapError(f"{MOST_TAPS} edges are looked at already", hint="end one of the others")
        return Tap(self.engine, edge)

    async def records(self, tap: Tap, frames: int, data: str) -> AsyncIterator[bytes]:
        self.count += 1
        try:
            with tap:
                yield pack({"edge": tap.edge.name, "producer": tap.edge.producer, "output": tap.edge.output})
                given, missed, is_whole, is_asked = 0, 0, False, False
                while given < frames:
                    try:
                        payload = await tap.next(BEAT_SECONDS)
                    except TapError as error:
                        yield pack({"end": str(error), "missed": tap.missed})
                        return
                    if payload is None:
                        yield pack({"waiting": BEAT_SECONDS, "missed": tap.missed})
                        continue
                    if data == "raw" and getattr(payload, "is_video", False):
                        is_whole = payload.keyframe or (is_whole and tap.missed == missed)
                        if not is_whole:
                            if not is_asked or tap.missed > missed:
                                tap.request_keyframe()
                                is_asked = True
                            missed = tap.missed
                            continue
                    missed = tap.missed
                    head = describe(payload, self.engine.clock.now_ns()) | {"missed": missed}
                    body = await _body(payload, data, head)
                    yield pack(self.secrets.scrubbed(head), body)
                    given += 1
                yield pack({"end": f"{frames} came", "missed": tap.missed})
        finally:
            self.count -= 1


async def _body(payload: Any, data: str, head: dict[str, Any]) -> bytes:
    if data == "raw" and isinstance(payload, EncodedPacket):
        return payload.data
    if data == "png" and isinstance(payload, VideoFrame):
        try:
            return await anyio.to_thread.run_sync(png_of, payload)
        except (ValueError, ImportError) as error:
            head["problem"] = f"it has no form as a PNG: {error}"
    return b""
