"""What an encoder measured of itself: the value of a record that it sends to a controller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowstream.media.size import Size


@dataclass(frozen=True, slots=True)
class EncoderStats:
    """What one encoder did since its record before this one, as ``Record[EncoderStats]``.

    ``encoder`` is the id of its node, the name that ``Targets`` have for it. ``frames`` is how many pictures were
    encoded, ``fps`` how many that is per second of media time, ``size`` how large they are. ``encode_ms_mean`` and
    ``encode_ms_p95`` are milliseconds from a picture's arrival at the encoder to its packet, conversion included;
    ``frame_budget_ms`` is the time between two pictures, which each of them has to stay below. ``overload`` says that
    it did not. ``bitrate`` is what came out, in bits per second. ``qp_mean`` is the mean quantiser in the codec's own
    scale, None where the encoder does not tell; ``ssim`` the structural similarity of a sampled picture to what viewers
    get of it, 0 to 1, None where none was sampled. ``cpu_share`` is the processor time that encoding took per second of
    media time: 1.0 is one core. ``content`` is what the pictures seem to show, None where that is not looked at or not
    clear.

    Raises ValueError for a picture rate, time or share below zero.
    """

    encoder: str
    frames: int
    encode_ms_mean: float
    encode_ms_p95: float
    frame_budget_ms: float
    overload: bool
    bitrate: int
    size: Size
    fps: float
    cpu_share: float
    qp_mean: float | None = None
    ssim: float | None = None
    content: Literal["text", "motion", "camera"] | None = None

    def __post_init__(self) -> None:
        for name in ("frames", "encode_ms_mean", "encode_ms_p95", "frame_budget_ms", "bitrate", "fps", "cpu_share"):
            value = getattr(self, name)
            if not value >= 0:
                raise ValueError(f"{name} of an encoder is at least 0, not {value}")
