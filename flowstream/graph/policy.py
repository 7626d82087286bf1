"""How much may wait on an edge, and what is dropped when it is full, unless the graph says so itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from flowstream.graph.resolve import ResolvedEdge
from flowstream.media.caps import EncodedCaps
from flowstream.media.frames import AudioFrame, VideoFrame
from flowstream.media.packets import EncodedPacket
from flowstream.media.records import Record
from flowstream.proto.overflow import Limit, Overflow

_S = 1_000_000_000
_MIB = 1 << 20

Kind = Literal["video", "audio", "encoded video", "encoded audio", "record"]

LIVE: dict[Kind, tuple[Overflow, Limit]] = {
    "video": ("drop-oldest", Limit(items=2)),
    "audio": ("drop-oldest", Limit(items=50, time_ns=_S // 2)),
    "encoded video": ("drop-to-keyframe", Limit(items=120, bytes=16 * _MIB, time_ns=2 * _S)),
    "encoded audio": ("drop-oldest", Limit(items=200, time_ns=2 * _S)),
    "record": ("drop-oldest", Limit(items=64)),
}
"""A live graph keeps what is new: pictures short, sound counted, coded pictures by whole groups."""

OFFLINE: dict[Kind, tuple[Overflow, Limit]] = {
    "video": ("block", Limit(items=4)),
    "audio": ("block", Limit(items=32)),
    "encoded video": ("block", Limit(items=32, bytes=64 * _MIB)),
    "encoded audio": ("block", Limit(items=32)),
    "record": ("block", Limit(items=64)),
}
"""Without a live source nothing is lost: every edge waits."""

FEEDBACK: tuple[Overflow, Limit] = ("latest", Limit(items=1))

_MANY = 1024  # items, where the graph limits bytes or time: those decide then


def kind_of(edge: ResolvedEdge) -> Kind:
    """What kind of payload an edge carries; coded media of an unknown codec counts as pictures."""
    payloads = edge.carried.payloads if edge.carried else edge.output.payloads
    caps = edge.carried.caps if edge.carried else edge.output.caps
    if any(issubclass(p, VideoFrame) for p in payloads):
        return "video"
    if any(issubclass(p, EncodedPacket) for p in payloads):
        return "encoded audio" if isinstance(caps, EncodedCaps) and caps.is_audio else "encoded video"
    if any(issubclass(p, AudioFrame) for p in payloads):
        return "audio"
    if any(issubclass(p, Record) for p in payloads):
        return "record"
    return "encoded video" if any(issubclass(EncodedPacket, p) for p in payloads) else "record"


def defaults(edge: ResolvedEdge, is_live: bool) -> tuple[Overflow, Limit]:
    """The overflow policy and limit of an edge: what the graph says, and the defaults of its payload for the rest."""
    if edge.input.feedback:
        return FEEDBACK
    spec = edge.spec
    policy, limit = (LIVE if is_live else OFFLINE)[kind_of(edge)]
    if is_live and edge.input.items is not None:
        limit = replace(limit, items=min(limit.items, edge.input.items))
    policy = spec.overflow or policy
    if policy == "latest":
        return policy, Limit(items=1)
    if spec.items is None and (spec.bytes or spec.time_ns):
        limit = replace(limit, items=max(limit.items, _MANY))
    return policy, Limit(
        items=spec.items or limit.items,
        bytes=spec.bytes or limit.bytes,
        time_ns=spec.time_ns or limit.time_ns,
    )
