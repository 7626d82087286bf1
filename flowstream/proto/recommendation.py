"""What a machine and an uplink can hold: speed, size, rungs and rates, and why not more.

Encoding is planned with a share of the processor only, since capture, the system and a busier picture take some too.
What encoding takes goes with the pixels; what serving takes goes with the packets of all viewers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from flowstream.proto.picture import Content, Picture, needed_bps

PLANNED: Final = 0.7
"""Share of the cores that is planned with."""

COMFORT: Final = 2.0
"""Times what a picture needs to look well at all: the rate of a rung where nothing is short."""

_ONE_ENCODER = 0.6  # of a core: a picture then takes that share of the time to the next, and harder ones come
_HEADROOM = 0.95  # of the uplink; headers, and what is sent again
_PAYLOAD_BITS = 1160 * 8  # of a packet
_CORES_PER_PACKET = 25e-6  # seconds of a core for each packet of each viewer, encryption and sending included
_SCALE_MS = 0.8  # per megapixel that is made smaller
_SIDES = (1.0, 3 / 4, 2 / 3, 1 / 2, 3 / 8, 1 / 4)
_RUNG_SIDES = (1.0, 1 / 2, 1 / 4)
_RUNG_NAMES: Final[dict[int, tuple[str, ...]]] = {1: ("only",), 2: ("high", "low"), 3: ("high", "middle", "low")}
_LEAST_HEIGHT = 144


@dataclass(frozen=True, slots=True)
class Machine:
    """Cores, and what encoding a megapixel takes at each speed, in milliseconds of a core, from the slowest on.

    ``taken`` are cores that something else of the graph takes.
    """

    cores: int
    ms_per_megapixel: Mapping[str, float]
    taken: float = 0.0

    @property
    def planned(self) -> float:
        """Cores that are planned with."""
        return max(0.0, self.cores * PLANNED - self.taken)

    def encoding(self, picture: Picture, speed: str) -> float:
        """Cores that encoding takes."""
        return self.ms_per_megapixel[speed] * picture.pixels_per_s / 1e9

    @staticmethod
    def serving(up_bps: int) -> float:
        """Cores that sending so many bits per second to viewers takes."""
        return up_bps / _PAYLOAD_BITS * _CORES_PER_PACKET


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be shown, to how many, over what uplink in bits per second (None: any)."""

    picture: Picture
    viewers: int = 1
    uplink_bps: int | None = None
    content: Content = "camera"


@dataclass(frozen=True, slots=True)
class Step:
    """A rung: its picture, its rate in bits per second, and what encoding it takes, in cores."""

    name: str
    picture: Picture
    bitrate_bps: int
    cores: float


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What holds. ``is_held`` is false when not even the least does; ``reasons`` are sentences.

    ``cores`` is everything that encoding, scaling and serving take, ``up_bps`` what goes up when all viewers take the
    highest rung.
    """

    speed: str
    rungs: tuple[Step, ...]
    cores: float
    up_bps: int
    is_held: bool
    reasons: tuple[str, ...]


def recommend(machine: Machine, wish: Wish) -> Recommendation:
    """The largest picture that the uplink carries, then as many rungs as hold, then the slowest speed that does.

    The fastest speed of all looks bad and is taken only where a single rung does not hold otherwise.
    """
    reasons: list[str] = []
    speeds = list(machine.ms_per_megapixel)
    pictures = list(_pictures(wish, reasons))
    refused: Recommendation | None = None
    tries = [(count, speed) for count in _counts(wish) for speed in speeds[:-1]] + [(1, speeds[-1])]
    for picture in pictures:
        passed: list[str] = []
        for count, speed in tries:
            found = _plan(machine, wish, picture, speed, count)
            if (said := _too_much(machine, found)) is None:
                why = f"{passed[-1]}" if passed else f"even {speed}, the slowest speed, holds"
                reasons += [why, *_rates(wish, found)]
                return Recommendation(
                    found.speed, found.rungs, found.cores, found.up_bps, found.is_held, tuple(reasons)
                )
            passed.append(said)
            refused = found
        reasons.append(f"{_size(picture)} does not hold at any speed: {passed[-1]}")
    assert refused is not None
    reasons.append("nothing holds; this is the least, and pictures will be left out")
    return Recommendation(refused.speed, refused.rungs, refused.cores, refused.up_bps, False, tuple(reasons))


def _counts(wish: Wish) -> tuple[int, ...]:
    return (3, 2, 1) if wish.viewers > 1 else (1,)


def _share_bps(wish: Wish) -> int | None:
    return None if wish.uplink_bps is None else int(wish.uplink_bps * _HEADROOM) // max(1, wish.viewers)


def _pictures(wish: Wish, reasons: list[str]) -> Iterator[Picture]:
    """The pictures whose needs the uplink carries to every viewer, the largest first; the smallest in any case."""
    share_bps = _share_bps(wish)
    whole = wish.picture
    sides = [side for side in _SIDES if side == 1 or whole.height * side >= _LEAST_HEIGHT]
    for side in sides:
        picture = _scaled(whole, side)
        needed = needed_bps(picture, wish.content)
        if share_bps is not None and needed > share_bps and side != sides[-1]:
            reasons.append(
                f"{_size(picture)} needs {_rate(needed)} for each viewer; the uplink has {_rate(share_bps)} for each"
            )
            continue
        yield picture


def _plan(machine: Machine, wish: Wish, picture: Picture, speed: str, count: int) -> Recommendation:
    share_bps = _share_bps(wish)
    pictures = [_scaled(picture, side) for side in _RUNG_SIDES[:count]]
    pictures = [each for each in pictures if each.height >= _LEAST_HEIGHT or each == picture]
    names = _RUNG_NAMES[len(pictures)]
    rungs = []
    above_bps: int | None = share_bps
    for name, each in zip(names, pictures, strict=True):
        rate = _rounded(COMFORT * needed_bps(each, wish.content))
        if above_bps is not None:
            rate = min(rate, _rounded(above_bps))
        rungs.append(Step(name, each, rate, machine.encoding(each, speed)))
        above_bps = int(0.6 * rate)
    scaling = sum(_SCALE_MS * each.pixels_per_s / 1e9 for each in pictures[:-1])
    if picture != wish.picture:
        scaling += _SCALE_MS * wish.picture.pixels_per_s / 1e9
    up_bps = rungs[0].bitrate_bps * wish.viewers
    cores = sum(each.cores for each in rungs) + scaling + machine.serving(up_bps)
    return Recommendation(speed, tuple(rungs), cores, up_bps, True, ())


def _too_much(machine: Machine, found: Recommendation) -> str | None:
    """Why a plan does not hold; None when it does."""
    what = f"{found.speed} with {_rungs(len(found.rungs))} would take"
    if found.cores > machine.planned:
        return f"{what} {_cores(found.cores)}, more than the {_cores(machine.planned)} planned with"
    if (most := max(each.cores for each in found.rungs)) > _ONE_ENCODER:
        return f"{what} {most:.0%} of the time between two pictures for the largest, more than {_ONE_ENCODER:.0%}"
    return None


def _rates(wish: Wish, found: Recommendation) -> list[str]:
    top = found.rungs[0]
    comfort = _rounded(COMFORT * needed_bps(top.picture, wish.content))
    said = []
    if top.bitrate_bps < comfort:
        said.append(
            f"{_rate(comfort)} would be better for {_size(top.picture)}; the uplink, shared by "
            f"{_viewers(wish.viewers)}, leaves {_rate(top.bitrate_bps)} for each"
        )
    if wish.viewers == 1:
        said.append("one viewer takes one rung; more rungs are for viewers whose links differ")
    return said


def _scaled(picture: Picture, side: float) -> Picture:
    if side == 1:
        return picture
    width, height = (max(16, round(each * side / 2) * 2) for each in (picture.width, picture.height))
    return Picture(width, height, picture.fps)


def _rounded(bps: float) -> int:
    """Two digits: 1900000 of 1938204."""
    step = int(10 ** max(0, len(str(int(bps))) - 2))
    return max(1, int(bps) // step * step)


def _size(picture: Picture) -> str:
    return f"{picture.width}x{picture.height} at {picture.fps:g} fps"


def _rate(bps: float) -> str:
    whole = _rounded(bps)
    return f"{whole / 1e6:g}M" if whole >= 1_000_000 else f"{whole / 1e3:g}k"


def _cores(cores: float) -> str:
    return f"{cores:.2f} cores"


def _rungs(count: int) -> str:
    return "1 rung" if count == 1 else f"{count} rungs"


def _viewers(count: int) -> str:
    return "1 viewer" if count == 1 else f"{count} viewers"
