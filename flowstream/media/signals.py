"""What travels on an edge beside payloads: the end downstream, requests upstream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EndOfStream:
    """Nothing more will come on this edge."""


@dataclass(frozen=True, slots=True)
class KeyframeRequest:
    """Upstream: the next picture should be independently decodable. ``reason`` is for people."""

    reason: str = "asked for"


END_OF_STREAM = EndOfStream()
