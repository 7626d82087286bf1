"""A ladder of renditions in a graph that is made by code: what ``lib/ladder.yaml`` is in a file, with any rungs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from flowstream.graph.builder import Graph, GraphEdge, GraphNode, GraphPort, Setting, Source
from flowstream.media.size import Size
from flowstream.node.quantities import format_bitrate, parse_bitrate, parse_size


@dataclass(frozen=True, slots=True)
class Rendition:
    """One rung: a name, a size (``"1280x720"``, ``"720p"`` or a Size) and a rate (``"2.5M"`` or bits per second)."""

    name: str
    size: str | Size
    bitrate: str | int


RENDITIONS = (
    Rendition("high", "1280x720", "2.5M"),
    Rendition("middle", "640x360", "800k"),
    Rendition("low", "320x180", "250k"),
)
"""The rungs of ``lib/ladder.yaml``, as it is unless told otherwise."""


def ladder(
    graph: Graph,
    from_: GraphNode | GraphPort | GraphEdge | str,
    renditions: Sequence[Rendition] = RENDITIONS,
    *,
    id: str = "ladder",
    targets: Source | None = None,
    speed: str = "superfast",
    keyframe_interval: str | timedelta = "2s",
    encode: Mapping[str, Setting] | None = None,
) -> dict[str, GraphNode]:
    """Adds the nodes of a ladder to a graph, and gives its encoders by the names of their rungs.

    Every rung is scaled once, from the next larger one, and encoded once; all have their keyframes at the same
    pictures. ``renditions`` go from the largest to the smallest. Ids begin with ``id``: ``ladder-high``, and
    ``ladder-high-size`` for what scales. ``targets`` is the node that steers the encoders; ``encode`` are more settings
    of every hw-encode.

    Raises TypeError or ValueError for rungs that do not get smaller, two of one name, and what `Graph.add` refuses.
    """
    _check(renditions)
    encoders: dict[str, GraphNode] = {}
    source: GraphNode | GraphPort | GraphEdge | str = from_
    for rung in renditions:
        source = graph.add("scale", id=f"{id}-{rung.name}-size", from_=source, size=str(rung.size))
        bitrate = rung.bitrate if isinstance(rung.bitrate, str) else format_bitrate(rung.bitrate)
        inputs: dict[str, Source] = {"video": source} if targets is None else {"video": source, "targets": targets}
        encoders[rung.name] = graph.add(
            "hw-encode",
            id=f"{id}-{rung.name}",
            inputs=inputs,
            bitrate=bitrate,
            settings={"speed": speed, "keyframe_interval": keyframe_interval, **(encode or {})},
        )
    return encoders


def _check(renditions: Sequence[Rendition]) -> None:
    if not renditions:
        raise ValueError("a ladder has at least one rung")
    last: tuple[Rendition, Size] | None = None
    seen: set[str] = set()
    for rung in renditions:
        if rung.name in seen:
            raise ValueError(f"two rungs are called {rung.name}; give each a name of its own")
        seen.add(rung.name)
        size = parse_size(rung.size) if isinstance(rung.size, str) else rung.size
        if isinstance(rung.bitrate, str):
            parse_bitrate(rung.bitrate)
        if last is not None and (size.width > last[1].width or size.height > last[1].height):
            raise ValueError(
                f"rung {rung.name} ({size}) is larger than {last[0].name} ({last[1]}) before it; "
                "each is made from the one before, so they go from the largest to the smallest"
            )
        last = (rung, size)
