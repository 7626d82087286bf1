"""Looking at what goes over an edge while it runs, without touching what it carries or holding it up."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import anyio

from flowstream.errors import FlowstreamError
from flowstream.graph.diagnostics import did_you_mean, listed
from flowstream.graph.plan import Edge
from flowstream.media.frames import AudioFrame, VideoFrame
from flowstream.media.packets import EncodedPacket
from flowstream.media.signals import KeyframeRequest
from flowstream.proto.overflow import Limit
from flowstream.runtime.channel import Channel, Feed
from flowstream.runtime.engine import Engine
from flowstream.runtime.wakeup import Turns, Wakeup

LIMIT = Limit(items=16, bytes=64 * 1024 * 1024)
"""How much may wait for whoever looks; what is older is missed."""

LOOK_SECONDS = 0.25
"""How often a tap sees to it that the producer is still the same one."""

VALUE_LENGTH = 200
"""How much of a record's value is told."""


class TapError(FlowstreamError):
    """Raised when there is no such edge, or when it is gone."""


class Tap:
    """Gets what a producer puts on an edge, beside the consumer and before the edge loses any of it.

    An output is tapped as if one more edge took from it. Producers that take another's place are followed. Use as a
    context manager, on the engine's loop.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        """Raises TapError, with the names that there are, when there is no such edge or output."""
        self._begin(engine, find(engine, name))

    def _begin(self, engine: Engine, spot: Spot) -> None:
        self.edge: Edge = spot.edge
        self._is_output = spot.is_output
        self._engine = engine
        self._unseen = 0  # what a new producer gave before it was noticed
        turns = Turns()
        self._wakeup = Wakeup(turns)
        self._channel = Channel(replace(self.edge, overflow="drop-oldest", limit=LIMIT), self._wakeup, turns)

    def __enter__(self) -> Self:
        self._follow()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close("tap")

    @property
    def missed(self) -> int:
        """How many payloads went by because they were not taken in time."""
        return self._channel.losses()["overflow"] + self._unseen

    def request_keyframe(self) -> None:
        """Asks the producer for a picture that can be decoded on its own."""
        self._channel.request(KeyframeRequest(f"{self.edge.name} is tapped"))

    async def next(self, seconds: float) -> Any | None:
        """The next payload; None when none came within so long. Raises TapError when nothing will come any more."""
        clock = self._engine.clock
        until_ns = clock.now_ns() + round(seconds * 1e9)
        while True:
            payload = self._channel.poll()
            if payload is not None:
                return payload
            if not self._follow() and self._channel.ended:
                raise TapError(f"nothing comes on {self.edge.name} any more: {self.edge.producer} has ended")
            left = (until_ns - clock.now_ns()) / 1e9
            if left <= 0:
                return None
            with anyio.move_on_after(min(left, LOOK_SECONDS)):
                await self._wakeup

    def _follow(self) -> bool:
        """Attaches to whoever feeds the edge now; whether that is somebody new. Raises TapError when it is gone."""
        self.edge = self._found()
        runner = self._engine.runners[self.edge.producer]
        outlet = runner.outlets[self.edge.output]
        feeds = self._channel.feeds
        if feeds and feeds[-1].outlet is outlet:
            return False
        self._leave(feeds)
        is_new = bool(feeds)
        feed = self._channel.attach(outlet, continues=True)  # and all is counted that it has emitted
        self._unseen += outlet.emitted if is_new else 0
        if runner.state in ("ended", "stopped"):
            feed.close()
        return True

    def _leave(self, feeds: Iterable[Feed]) -> None:
        """Another producer has come."""
        for feed in feeds:
            feed.close()

    def _found(self) -> Edge:
        edge, plan = self.edge, self._engine.plan
        if self._is_output:
            runner = self._engine.runners.get(edge.producer)
            if runner is None or edge.output not in runner.outlets:
                raise TapError(f"the output {edge.name} was taken out of the graph")
            return edge
        found = next((each for each in plan.edges if each.key == edge.key), None) if plan else None
        if found is None:
            raise TapError(f"the edge {edge.name} was taken out of the graph")
        return found


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a tap goes: on an edge, or on an output, which is then told as an edge into itself."""

    edge: Edge
    is_output: bool = False


def find(engine: Engine, name: str) -> Spot:
    """What a name means: an edge by its consumer and input, an output by its node, or a node with one of them.

    Raises TapError, with the names that there are.
    """
    edges, outputs = _names(engine)
    if name in edges:
        return Spot(edges[name])
    if name in outputs:
        return outputs[name]
    into = [edge for edge in dict.fromkeys(edges.values()) if edge.consumer == name]
    given = [spot for spot in outputs.values() if spot.edge.producer == name]
    if len(into or given) == 1:
        return Spot(into[0]) if into else given[0]
    if into:
        raise TapError(f"{name} has {len(into)} inputs: {listed(edge.name for edge in into)}")
    if given:
        raise TapError(f"{name} has {len(given)} outputs: {listed(spot.edge.name for spot in given)}")
    raise _unknown(name, edges, outputs)


def find_all(engine: Engine, name: str) -> list[Spot]:
    """The same, but a node alone means everything that it gives, or takes if it gives nothing."""
    edges, outputs = _names(engine)
    if name in edges or name in outputs:
        return [Spot(edges[name]) if name in edges else outputs[name]]
    given = [spot for spot in outputs.values() if spot.edge.producer == name]
    into = [Spot(edge) for edge in dict.fromkeys(edges.values()) if edge.consumer == name]
    if not given and not into:
        raise _unknown(name, edges, outputs)
    return given or into


def _names(engine: Engine) -> tuple[dict[str, Edge], dict[str, Spot]]:
    """Every edge and every output by its name; no node has an input and an output of one name."""
    plan = engine.plan
    if plan is None:
        raise TapError("the graph is not running yet")
    edges = {edge.name: edge for edge in plan.edges}
    edges |= {f"{edge.consumer}.{edge.input}[{edge.index}]": edge for edge in plan.edges}
    outputs = {
        f"{id}.{output}": Spot(Edge(id, output, id, output, "drop-oldest", LIMIT), is_output=True)
        for id, runner in engine.runners.items()
        for output in runner.outlets
    }
    return edges, outputs


def _unknown(name: str, edges: Mapping[str, Edge], outputs: Mapping[str, Spot]) -> TapError:
    known = list(dict.fromkeys(edge.name for edge in edges.values()))
    nodes = (spot.edge.producer for spot in outputs.values())
    close = did_you_mean(name, [*known, *outputs] if "." in name else dict.fromkeys((*nodes, *known, *outputs)))
    hint = f"did you mean {close}?" if close else f"there is {listed(known)}" if known else "the graph has no edges"
    return TapError(
        f"there is no edge or output {name!r}; an edge is named by its consumer and input, like out.video, "
        "an output by its node, like camera.video",
        hint=hint,
    )


def describe(payload: Any, now_ns: int) -> dict[str, Any]:
    """A payload as JSON values, without what it carries: kind, times, size, caps; times in nanoseconds."""
    captured_ns = getattr(payload, "capture_ns", None)
    said: dict[str, Any] = {
        "kind": type(payload).__name__,
        "time_ns": payload.time_ns,
        "size_bytes": payload.size_bytes,
        "latency_ns": None if captured_ns is None else now_ns - captured_ns,
    }
    if isinstance(payload, EncodedPacket):
        form = payload.caps
        said |= {
            "codec": form.codec, "keyframe": payload.keyframe, "decode_ns": payload.decode_ns,
            "duration_ns": payload.duration_ns, "width": form.width, "height": form.height, "layout": form.layout,
            "extradata": None if form.extradata is None else form.extradata.hex(),
        }  # fmt: skip
    if isinstance(payload, AudioFrame):
        said["samples"] = payload.samples
    caps = getattr(payload, "caps", None)
    said["caps"] = str(caps) if caps is not None else str(getattr(payload, "value", ""))[:VALUE_LENGTH]
    return said


def png_of(frame: VideoFrame) -> bytes:
    """A picture as a PNG file. Takes some 50 ms for a large one. Raises ValueError for one that has no RGB form."""
    pixels = frame.array("rgb24")
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + pixels[row].tobytes() for row in range(height))  # each without a filter
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows, 3)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
