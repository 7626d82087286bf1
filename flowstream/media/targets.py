"""What encoders are to aim at: the value of a record that a controller sends up to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flowstream.media.size import Size


@dataclass(frozen=True, slots=True)
class Target:
    """What one encoder is to aim at: bits per second, frames per second and picture size.

    None leaves a rate or size as it is. Raises ValueError for what no encoder can give.
    """

    bitrate_bps: int
    fps: float | None = None
    size: Size | None = None

    def __post_init__(self) -> None:
        if self.bitrate_bps <= 0:
            raise ValueError(f"a target bitrate is at least 1 bit per second, not {self.bitrate_bps}")
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"a target frame rate is above 0 frames per second, not {self.fps:g}")


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets by the id of the node that each is for, as ``Record[Targets]``.

    One edge of them may go to every encoder: each takes the entry with its own name and leaves the others alone; for
    an encoder without an entry nothing changes.
    """

    of: Mapping[str, Target]
