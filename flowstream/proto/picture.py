"""Which size and frame rate a bitrate is worth, by what the picture shows.

A bitrate that falls makes a picture coarse first. Below a point it is better to show less of it: text keeps its size
and comes more rarely, motion keeps its frame rate and becomes smaller, a camera gives up some of both. What is needed
is a power law of size and frame rate (Ma, Xu, Wang: Modeling of rate and perceptual quality of compressed video as
functions of frame rate and quantization stepsize, 2012); how much this content needs is learned from the quantiser
that the encoder ends up with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from flowstream.proto.patience import Patience

NS_PER_S: Final = 1_000_000_000

Content = Literal["text", "motion", "camera"]

SETTLES_NS: Final = 4 * NS_PER_S
"""How long a bitrate has to be worth more before more is shown; twice as long each time that it did not last."""

LASTS_NS: Final = 20 * NS_PER_S
"""More that is shown for less than this did not last."""

_LONGEST_NS = 60 * NS_PER_S
_FALLS_AFTER_NS = 600_000_000  # shorter dips only make the picture coarse
_MARGIN = 1.3  # of what more needs, before it is shown

# Bits per second that 1280x720 at 30 frames per second needs to look well at all.
_NEEDED_BPS: dict[Content, int] = {"text": 500_000, "camera": 1_000_000, "motion": 1_600_000}
_REFERENCE = 1280 * 720, 30.0
_PIXELS_POWER, _FPS_POWER = 0.85, 0.6
_COARSE_QP = 36.0  # at which that is so; 6 more halve the bits (ITU-T H.264, the step doubles every 6)
_QP_PER_DOUBLING = 6.0
_LEARNS_OVER = 8  # records of an encoder
_LEAST_EASY, _MOST_HARD = 0.1, 3.0

# Shares of the size's sides and of the frame rate, from all down to what is left at last.
_STEPS: dict[Content, tuple[tuple[float, float], ...]] = {
    "text": ((1, 1), (1, 2 / 3), (1, 1 / 2), (1, 1 / 3), (1, 1 / 6), (3 / 4, 1 / 6), (1 / 2, 1 / 6)),
    "motion": ((1, 1), (3 / 4, 1), (2 / 3, 1), (1 / 2, 1), (3 / 8, 1), (1 / 4, 1), (1 / 4, 1 / 2)),
    "camera": ((1, 1), (3 / 4, 1), (2 / 3, 1), (1 / 2, 1), (1 / 2, 2 / 3), (3 / 8, 1 / 2), (1 / 4, 1 / 2)),
}


@dataclass(frozen=True, slots=True)
class Picture:
    """Width and height in pixels, both even, and frames per second."""

    width: int
    height: int
    fps: float

    @property
    def pixels_per_s(self) -> float:
        """What an encoder has to get through in a second."""
        return self.width * self.height * self.fps


def steps(content: Content, whole: Picture) -> tuple[Picture, ...]:
    """What of the whole picture is shown, from everything down."""
    return tuple(
        Picture(
            min(whole.width, max(16, round(whole.width * side / 2) * 2)),
            min(whole.height, max(16, round(whole.height * side / 2) * 2)),
            min(whole.fps, max(1.0, round(whole.fps * rate, 3))),
        )
        for side, rate in _STEPS[content]
    )


def needed_bps(picture: Picture, content: Content = "camera", hardness: float = 1.0) -> float:
    """Bits per second below which less of the picture is better. ``hardness`` is 1 for what is usual of the content."""
    pixels, fps = _REFERENCE
    share: float = (picture.width * picture.height / pixels) ** _PIXELS_POWER * (picture.fps / fps) ** _FPS_POWER
    return _NEEDED_BPS[content] * hardness * share


class PictureChooser:
    """Chooses what is shown of a picture for a bitrate that changes, without going back and forth."""

    def __init__(self, whole: Picture, content: Content) -> None:
        self.whole = whole
        self.content: Content = content
        self.hardness: float = 1.0
        self.step: int = 0
        self._steps = steps(content, whole)
        self._low_since_ns: int | None = None
        self._patience = Patience(SETTLES_NS, longest_ns=_LONGEST_NS, lasts_ns=LASTS_NS)

    @property
    def picture(self) -> Picture:
        """What is shown now."""
        return self._steps[self.step]

    def set_content(self, content: Content) -> None:
        """The picture shows something else now: as much of it as before, by the steps of that."""
        if content != self.content:
            self.content, self.hardness = content, 1.0
            self._steps = steps(content, self.whole)

    def learn(self, *, bitrate_bps: int, qp_mean: float, size: tuple[int, int], fps: float) -> None:
        """What an encoder made of the content: so many bits per second at this mean quantiser, size and rate."""
        if bitrate_bps <= 0 or fps <= 0:
            return
        usual = needed_bps(Picture(*size, fps), self.content)
        if usual <= 0:  # pictures so rare that a float does not tell them from none
            return
        seen = bitrate_bps * 2 ** ((qp_mean - _COARSE_QP) / _QP_PER_DOUBLING) / usual
        seen = min(max(seen, _LEAST_EASY), _MOST_HARD)
        self.hardness *= (seen / self.hardness) ** (1 / _LEARNS_OVER)

    def choose(self, bitrate_bps: int, *, most_pixels_per_s: float | None, now_ns: int) -> Picture:
        """What to show for a bitrate, when an encoder gets through ``most_pixels_per_s``."""
        limit = self._first_within(most_pixels_per_s)
        self.step = max(self.step, limit)  # the processor does not wait
        fitting = max(limit, self._first_for(bitrate_bps, 1.0))
        if fitting > self.step:
            if self._low_since_ns is None:
                self._low_since_ns = now_ns
            if now_ns - self._low_since_ns >= _FALLS_AFTER_NS:
                self.step, self._low_since_ns = fitting, None
                self._patience.undone(now_ns=now_ns)
            return self.picture
        self._low_since_ns = None
        better = max(limit, self._first_for(bitrate_bps, _MARGIN))
        if self._patience.is_due(better < self.step, now_ns=now_ns):
            self.step = better
        return self.picture

    def _first_for(self, bitrate_bps: int, margin: float) -> int:
        for step, picture in enumerate(self._steps):
            if needed_bps(picture, self.content, self.hardness) * margin <= bitrate_bps:
                return step
        return len(self._steps) - 1

    def _first_within(self, most_pixels_per_s: float | None) -> int:
        for step, picture in enumerate(self._steps):
            if most_pixels_per_s is None or picture.pixels_per_s <= most_pixels_per_s * 1.001:
                return step
        return len(self._steps) - 1
