"""What encoders are to aim at: the value of a record that a controller sends up to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flowstream.media.size import Size


@dataclass(frozen=True, slots=True)
class Target:
    """What one encoder is to aim at: bits per second, frames per second and picture size.

    None of a rate or size is what comes in, as far as the encoder's own settings go. One that is ``paused`` encodes
    nothing, and begins with a keyframe when it is not paused any more. Raises ValueError for what no encoder can give.
    """

    bitrate_bps: int
    fps: float | None = None
    size: Size | None = None
    paused: bool = False

    def __post_init__(self) -> None:
        if self.bitrate_bps <= 0:
            raise ValueError(f"a target bitrate is at least 1 bit per second, not {self.bitrate_bps}")
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"a target frame rate is above 0 frames per second, not {self.fps:g}")


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets by the id of the node that each is for, as ``Record[Targets]``.

    One edge of them may go to every encoder: each takes the entry with its own name and leaves the others alone. For
    an encoder without an entry ``rest`` counts; without that, nothing changes.
    """

    of: Mapping[str, Target]
    rest: Target | None = None

    def target_of(self, encoder: str) -> Target | None:
        """The target of the encoder with this id."""
        return self.of.get(encoder, self.rest)
