"""What encoders are to aim at, from what viewers' links carry and what the encoders get through.

Reports come in with ``now``, targets go out; there is no clock in here. A bitrate follows its viewers at once. What
people see as a jump waits until it is worth it: another size or frame rate (`PictureChooser`), another set of rungs or
another viewer on one (`Adaptation`). An encoder that does not keep up is given less by a path of its own (`Overload`):
first a rung fewer, then less of the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from flowstream.proto.budget import Budget
from flowstream.proto.ladder import Rung, fit, worth
from flowstream.proto.overload import Overload
from flowstream.proto.patience import Patience
from flowstream.proto.picture import LASTS_NS, SETTLES_NS, Content, Picture, PictureChooser, needed_bps

NS_PER_S: Final = 1_000_000_000

START_BPS: Final = 1_000_000
"""What a viewer gets of whose link nothing is known yet, at most."""

SILENT_NS: Final = 5 * NS_PER_S
"""An output that has told nothing for this long is not there any more, nor are its viewers."""

Limit = Literal["nothing", "network", "uplink", "processor", "nobody"]
"""What keeps viewers from getting more: nothing does, their links, the shared uplink, an encoder; or there are none."""

_LONGEST_NS = 60 * NS_PER_S
_STARVED = 0.75  # of the rate that a viewer was placed at: waiting would cost it its picture
_STARVED_GAIN = 0.05  # in worth, of another placing, for a viewer that is starved
_LOOKS_EVERY_NS = NS_PER_S  # for another placing: it takes milliseconds to find
_RESCUES_EVERY_NS = NS_PER_S // 5
_LEAST_GAIN, _GAIN_PER_VIEWER = 0.2, 0.03  # in worth, of another placing; below it viewers are left where they are
_RUNG_RECOVERS_NS = 30 * NS_PER_S
_RUNG_LONGEST_NS = 240 * NS_PER_S
_RUNG_LASTS_NS = 60 * NS_PER_S
_SPARE = 0.5  # share of the time between pictures, below which there is time for another rung
_ENOUGH = 2.0  # times what a size needs: more is not seen in it
_VIEWED_FPS = 30.0


class ViewerLike(Protocol):
    """What is known of a viewer's link; see ``flowstream.ViewerReport``."""

    @property
    def viewer(self) -> str: ...
    @property
    def bandwidth_bps(self) -> int | None: ...
    @property
    def loss(self) -> float: ...
    @property
    def queue_delay_ms(self) -> float: ...
    @property
    def rung(self) -> str | None: ...
    @property
    def cap_bps(self) -> int | None: ...
    @property
    def size(self) -> tuple[int, int] | None: ...


class EncoderLike(Protocol):
    """What an encoder measured of itself; see ``flowstream.EncoderStats``."""

    @property
    def encoder(self) -> str: ...
    @property
    def encode_ms_mean(self) -> float: ...
    @property
    def frame_budget_ms(self) -> float: ...
    @property
    def overload(self) -> bool: ...
    @property
    def bitrate(self) -> int: ...
    @property
    def qp_mean(self) -> float | None: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def fps(self) -> float: ...


@dataclass(frozen=True, slots=True)
class EncoderTarget:
    """What one encoder is to do; ``picture`` is None while it shows all that comes in."""

    bitrate_bps: int
    picture: Picture | None = None
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """What is wanted.

    ``rungs`` go from the lowest to the highest. Those named in ``kept`` run also while no viewer takes them.
    ``is_fixed`` turns everything off: each rung runs at its highest rate. ``viewer_most_bps`` bounds what a single
    viewer gets, ``uplink_bps`` what all get together, ``reserve_bps`` is kept free on each link for what else goes over
    it. ``leave_out`` is the share of viewers who may be left with less than the lowest rung.
    """

    rungs: tuple[Rung, ...]
    kept: frozenset[str] = frozenset()
    content: Content = "camera"
    is_fixed: bool = False
    headroom: float = 0.05
    reserve_bps: int = 0
    viewer_most_bps: int | None = None
    uplink_bps: int | None = None
    leave_out: float = 0.0


@dataclass(slots=True)
class _Viewer:
    budget: Budget
    encoder: str = ""
    placed_bps: int = 0  # the rate of its rung when it was placed there
    told: str | None = None  # the rung that it was last said to get
    bandwidth_bps: int | None = None  # of its link, as last told


@dataclass(slots=True)
class _Encoder:
    overload: Overload = field(default_factory=Overload)
    chooser: PictureChooser | None = None
    has_spare: bool = True


class Adaptation:
    """Steers the encoders of one picture for all who watch it. ``now_ns`` does not go back."""

    def __init__(self, policy: Policy) -> None:
        self.policy: Policy = policy
        self.content: Content | None = None
        self.limit: Limit = "nobody"
        self._viewers: dict[tuple[str, str], _Viewer] = {}
        self._told_ns: dict[str, int] = {}  # by output
        self._encoders: dict[str, _Encoder] = {}
        self._rates: dict[str, int] = {}
        self._looked_ns = 0
        self._is_heard = False  # whether anybody has told yet who watches
        self._most_rungs = len(policy.rungs)
        self._regroups = Patience(SETTLES_NS, longest_ns=_LONGEST_NS, lasts_ns=LASTS_NS)
        self._drops = {rung.encoder: Patience(SETTLES_NS, longest_ns=_LONGEST_NS, lasts_ns=0) for rung in policy.rungs}
        self._more_rungs = Patience(_RUNG_RECOVERS_NS, longest_ns=_RUNG_LONGEST_NS, lasts_ns=_RUNG_LASTS_NS)

    # --- what comes in ----------------------------------------------------------------------------------------------

    def set_policy(self, policy: Policy) -> None:
        """Something else is wanted from now on; what is known of viewers and encoders stays."""
        if policy.rungs != self.policy.rungs:
            self._rates.clear()
            self._most_rungs = len(policy.rungs)
            self._drops = {
                rung.encoder: Patience(SETTLES_NS, longest_ns=_LONGEST_NS, lasts_ns=0) for rung in policy.rungs
            }
        self.policy = policy

    def handle_viewers(self, output: str, reports: Iterable[ViewerLike], *, now_ns: int) -> None:
        """Everybody who watches by one output, as it is now; who is not named any more has left."""
        self._is_heard = True
        self._told_ns[output] = now_ns
        there = set()
        for report in reports:
            key = (output, report.viewer)
            there.add(key)
            viewer = self._viewers.get(key)
            if viewer is None:
                start_bps = min(START_BPS, self.policy.rungs[-1].max_bps)
                viewer = self._viewers[key] = _Viewer(Budget(start_bps=start_bps, headroom=self.policy.headroom))
            bandwidth_bps = viewer.bandwidth_bps = report.bandwidth_bps
            viewer.budget.handle(
                bandwidth_bps=None if bandwidth_bps is None else max(1, bandwidth_bps - self.policy.reserve_bps),
                loss=report.loss,
                queue_delay_ms=report.queue_delay_ms,
                most_bps=self._most_bps(report),
                now_ns=now_ns,
            )
            if report.rung != viewer.told:  # who serves it has put it there
                viewer.told = report.rung
                if report.rung in self._rates:
                    viewer.encoder, viewer.placed_bps = report.rung, self._rates[report.rung]
        for key in [key for key in self._viewers if key[0] == output and key not in there]:
            del self._viewers[key]

    def handle_encoder(self, stats: EncoderLike, *, now_ns: int) -> None:
        """What an encoder has measured."""
        encoder = self._encoders.setdefault(stats.encoder, _Encoder())
        content = self.content or self.policy.content
        came = Picture(*stats.size, round(1000 / stats.frame_budget_ms, 2) if stats.frame_budget_ms else stats.fps)
        if came.fps <= 0:
            return
        chooser = encoder.chooser
        if chooser is None or (chooser.step == 0 and _differs(chooser.whole, came)):
            chooser = encoder.chooser = PictureChooser(came, content)
        if stats.qp_mean is not None:
            chooser.learn(bitrate_bps=stats.bitrate, qp_mean=stats.qp_mean, size=stats.size, fps=stats.fps)
        encoder.has_spare = not stats.overload and stats.encode_ms_mean <= _SPARE * stats.frame_budget_ms
        before = encoder.overload.most_pixels_per_s
        has_changed = encoder.overload.handle(
            is_overloaded=stats.overload,
            encode_ms=stats.encode_ms_mean,
            budget_ms=stats.frame_budget_ms,
            pixels_per_s=came.pixels_per_s,
            whole_pixels_per_s=chooser.whole.pixels_per_s,
            now_ns=now_ns,
        )
        if has_changed and stats.overload and len(self._rates) > 1:
            encoder.overload.most_pixels_per_s = before
            self._most_rungs = len(self._rates) - 1
            self._more_rungs.undone(now_ns=now_ns)
            self._place(now_ns)

    def handle_content(self, content: Content) -> None:
        """What the picture shows has been found out."""
        self.content = content

    # --- what goes out ----------------------------------------------------------------------------------------------

    def targets(self, *, now_ns: int) -> Mapping[str, EncoderTarget]:
        """What each encoder is to aim at now, by its name."""
        if self.policy.is_fixed:
            self.limit = "nothing"
            return {rung.encoder: EncoderTarget(rung.max_bps) for rung in self.policy.rungs}
        self._update(now_ns)
        rates = self._tracked()
        targets = {rung.encoder: self._target(rung, rates.get(rung.encoder), now_ns) for rung in self.policy.rungs}
        self.limit = self._limit(rates)
        return targets

    def viewers_of(self, encoder: str) -> int:
        """How many viewers are placed on a rung."""
        return sum(viewer.encoder == encoder for viewer in self._viewers.values())

    @property
    def rates(self) -> Mapping[str, int]:
        """The rates of the encoders that viewers get, from the lowest to the highest, in bits per second."""
        return self._tracked()

    @property
    def estimate_bps(self) -> int | None:
        """What the links of all viewers together carry, in bits per second; None while one of them is not estimated."""
        known = [viewer.bandwidth_bps for viewer in self._viewers.values() if viewer.bandwidth_bps is not None]
        return sum(known) if known and len(known) == len(self._viewers) else None

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _most_bps(self, report: ViewerLike) -> int:
        bounds = [self.policy.rungs[-1].max_bps]
        bounds += [bound for bound in (report.cap_bps, self.policy.viewer_most_bps) if bound is not None]
        if report.size is not None:
            seen = Picture(*report.size, _VIEWED_FPS)
            bounds.append(int(_ENOUGH * needed_bps(seen, self.content or self.policy.content)))
        return max(1, min(bounds))

    def _update(self, now_ns: int) -> None:
        """Puts viewers on other rungs where that is due."""
        self._forget_silent(now_ns)
        if not self._viewers:
            self._rates.clear()
            return
        self._settle_newcomers(now_ns)
        self._drop_unused(now_ns)
        is_possible = self._most_rungs < len(self.policy.rungs) and all(
            encoder.has_spare and encoder.overload.most_pixels_per_s is None
            for name, encoder in self._encoders.items()
            if name in self._rates
        )
        if self._more_rungs.is_due(is_possible, now_ns=now_ns):
            self._most_rungs += 1
        if len(self.policy.rungs) > 1:
            self._regroup(now_ns)

    def _forget_silent(self, now_ns: int) -> None:
        for output in [output for output, told_ns in self._told_ns.items() if now_ns - told_ns > SILENT_NS]:
            del self._told_ns[output]
            for key in [key for key in self._viewers if key[0] == output]:
                del self._viewers[key]

    def _regroup(self, now_ns: int) -> None:
        """Looks for a better placing: soon for a viewer whose link does not carry its rung, else now and then."""
        is_starved = any(viewer.budget.bps < _STARVED * viewer.placed_bps for viewer in self._viewers.values())
        if now_ns - self._looked_ns < (_RESCUES_EVERY_NS if is_starved else _LOOKS_EVERY_NS):
            return
        self._looked_ns = now_ns
        best = self._fit()
        gain = self._value(best) - self._value(self._tracked())
        enough = max(_LEAST_GAIN, _GAIN_PER_VIEWER * len(self._viewers))
        if is_starved and gain > _STARVED_GAIN:
            self._regroups.undone(now_ns=now_ns)
            self._place(now_ns, best)
        elif self._regroups.is_due(gain > enough, now_ns=now_ns):
            self._place(now_ns, best)

    def _settle_newcomers(self, now_ns: int) -> None:
        rates = self._tracked()
        for viewer in self._viewers.values():
            if viewer.encoder in rates:
                continue
            carried = [name for name, rate in rates.items() if rate <= viewer.budget.bps]
            if not carried:
                self._place(now_ns)
                return
            viewer.encoder = max(carried, key=lambda name: rates[name])
            viewer.placed_bps = rates[viewer.encoder]

    def _drop_unused(self, now_ns: int) -> None:
        for encoder in list(self._rates):
            is_unused = self.viewers_of(encoder) == 0
            if self._drops[encoder].is_due(is_unused, now_ns=now_ns):
                del self._rates[encoder]

    def _fit(self) -> dict[str, int]:
        return fit(
            self.policy.rungs,
            [viewer.budget.bps for viewer in self._viewers.values()],
            uplink_bps=self.policy.uplink_bps,
            leave_out=self.policy.leave_out,
            most=self._most_rungs,
        )

    def _place(self, now_ns: int, rates: dict[str, int] | None = None) -> None:
        """Every viewer onto the highest rung that it carries, on the lowest where none is carried."""
        self._rates = self._fit() if rates is None else dict(rates)
        if not self._rates:
            return
        lowest = min(self._rates, key=lambda name: self._rates[name])
        for viewer in self._viewers.values():
            carried = [name for name, rate in self._rates.items() if rate <= viewer.budget.bps]
            viewer.encoder = max(carried, key=lambda name: self._rates[name], default=lowest)
            viewer.placed_bps = self._rates[viewer.encoder]

    def _tracked(self) -> dict[str, int]:
        """The rates of the rungs in use: each is what everybody on it carries, as far as the uplink goes."""
        if not self._rates:
            return {}
        rates: dict[str, int] = {}
        counts: dict[str, int] = {}
        for rung in self.policy.rungs:
            if rung.encoder not in self._rates:
                continue
            on_it = sorted(viewer.budget.bps for viewer in self._viewers.values() if viewer.encoder == rung.encoder)
            # Those who may be left out are on the lowest rung, for want of a lower one.
            may_miss = min(int(len(self._viewers) * self.policy.leave_out), len(on_it) - 1) if not rates else 0
            rates[rung.encoder] = min(max(on_it[may_miss], rung.min_bps), rung.max_bps) if on_it else rung.min_bps
            counts[rung.encoder] = len(on_it)
        uplink_bps = self.policy.uplink_bps
        cost = sum(rates[name] * counts[name] for name in rates)
        if uplink_bps is not None and cost > uplink_bps:
            least = {rung.encoder: rung.min_bps for rung in self.policy.rungs}
            rates = {name: max(least[name], rate * uplink_bps // cost) for name, rate in rates.items()}
        return rates

    def _value(self, rates: Mapping[str, int]) -> float:
        """What these rates are worth to all viewers together, when each takes the highest that it carries."""
        least = min(rung.min_bps for rung in self.policy.rungs)
        total = 0.0
        for viewer in self._viewers.values():
            budget_bps = max(least, viewer.budget.bps)
            rate = max((rate for rate in rates.values() if rate <= budget_bps), default=0)
            total += worth(rate, least)
        return total

    def _target(self, rung: Rung, rate: int | None, now_ns: int) -> EncoderTarget:
        is_used = rate is not None
        if rate is None:
            # Before anybody has said who watches, and where others than viewers take it, it runs as it is wanted.
            is_needed = not self._is_heard or rung.encoder in self.policy.kept
            rate = rung.max_bps if is_needed else rung.min_bps
            if not is_needed:
                return EncoderTarget(rate, is_paused=True)
        encoder = self._encoders.get(rung.encoder)
        if encoder is None or encoder.chooser is None:
            return EncoderTarget(rate)
        encoder.chooser.set_content(self.content or self.policy.content)
        picture = encoder.chooser.choose(
            rate if is_used else rung.max_bps,
            most_pixels_per_s=encoder.overload.most_pixels_per_s,
            now_ns=now_ns,
        )
        return EncoderTarget(rate, picture if encoder.chooser.step else None)

    def _limit(self, rates: Mapping[str, int]) -> Limit:
        slow = {name for name, each in self._encoders.items() if each.overload.most_pixels_per_s is not None}
        at_work = rates.keys() | self.policy.kept if self._is_heard else self._encoders.keys()
        if slow & at_work:
            return "processor"
        if self._most_rungs < len(self.policy.rungs):
            return "processor"
        if not self._viewers:
            return "nobody"
        cost = sum(rate * self.viewers_of(name) for name, rate in rates.items())
        if self.policy.uplink_bps is not None and cost > 0.95 * self.policy.uplink_bps:
            return "uplink"
        highest = self.policy.rungs[-1]
        return "nothing" if rates.get(highest.encoder, 0) >= highest.max_bps else "network"


def _differs(whole: Picture, came: Picture) -> bool:
    """Whether another picture comes in now; measured frame rates waver."""
    is_size = (whole.width, whole.height) == (came.width, came.height)
    return not is_size or not 0.85 < came.fps / whole.fps < 1.15
