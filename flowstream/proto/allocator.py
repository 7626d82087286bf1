"""Which rung each viewer gets: what its link carries, and of that what the shared uplink has for all.

Nobody starves: before anybody gets more than the lowest rung that it can play, everybody gets that, as far as the
uplink goes. What is left goes to the viewers of the highest priority first, and among equals to who has least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

NS_PER_S: Final = 1_000_000_000

RISE: Final = 1.15
"""A higher rung is taken when the link carries this many times its rate."""

RISES_AFTER_NS: Final = 2 * NS_PER_S
"""For so long without a break; twice as long after each rise that did not last, up to `MOST_PATIENCE_NS`."""

MOST_PATIENCE_NS: Final = 60 * NS_PER_S

LASTS_NS: Final = 10 * NS_PER_S
"""A rise that is taken back sooner did not last."""

FALLS_AFTER_NS: Final = NS_PER_S
"""A rung that the link does not carry is left after this, at once when it is more than `TOO_MUCH` times too large."""

TOO_MUCH: Final = 1.25
PAUSES_AFTER_NS: Final = 2 * NS_PER_S
"""When the lowest rung is more than `TOO_MUCH` times too large for the link, the picture is paused after this."""

RESUMES_AFTER_NS: Final = NS_PER_S // 2
"""A paused picture comes again, in the lowest rung, when the link has carried that for so long."""

SLACK: Final = 0.05
"""Share of the uplink that is left when viewers get more than they have: a rung's rate is never exactly kept."""

SETTLES_NS: Final = 5 * NS_PER_S
"""After the uplink had to take something from a viewer, nobody gets more for so long."""

Reason = Literal["best", "link", "unknown", "settling", "uplink", "cap", "choice", "paused", "codec"]
"""Why a viewer does not get a higher rung, or any.

It has the best one; its link carries no more; nothing is known of its link yet; it carries more, but not for long
enough yet; the uplink has no more for it; its cap; its own choice; it is paused; it can play none.
"""


@dataclass(frozen=True, slots=True)
class Rung:
    """One of the renditions and what it takes now, in bits per second on the wire."""

    name: str
    bitrate_bps: int


@dataclass(frozen=True, slots=True)
class Demand:
    """A viewer, and what may be sent to it.

    ``bandwidth_bps`` is what its link carries for the picture (sound and what else goes there is taken off); None while
    nothing is known. A higher ``priority`` comes first. ``playable`` are the rungs that it can play, None for all;
    ``chosen`` is the one that it asks for, None to have the best.
    """

    viewer: str
    bandwidth_bps: int | None = None
    priority: int = 0
    cap_bps: int | None = None
    playable: frozenset[str] | None = None
    chosen: str | None = None
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """What a viewer gets: a rung, or None for no picture; why not a higher one; and the rung that its link carries.

    ``above`` is the next higher one that it can play; None when there is none.
    """

    rung: str | None
    reason: Reason
    carried: str | None
    above: str | None = None

    def why(self, *, uplink_bps: int | None = None) -> str:
        """The reason as a sentence."""
        uplink = "the uplink" if uplink_bps is None else f"the uplink of {uplink_bps / 1e6:g} Mbit/s"
        what = "no picture is sent" if self.rung is None else f"{self.rung} is sent"
        because = {
            "best": "it is the best there is",
            "link": "the viewer's link carries no more",
            "unknown": "nothing is known of the viewer's link yet",
            "settling": "the viewer's link has not carried more for long enough yet",
            "uplink": f"{uplink} has no more for this viewer",
            "cap": "the viewer's cap allows no more",
            "choice": "the viewer has chosen it",
            "paused": "the viewer is paused",
            "codec": "the viewer can play none of the rungs",
        }[self.reason]
        return f"{what}: {because}"


@dataclass(slots=True)
class _Viewer:
    rung: str | None = None
    carried: str | None = None  # the rung that its link carries, as it has settled
    is_new: bool = True
    rises_since_ns: int | None = None
    falls_since_ns: int | None = None
    rose_ns: int | None = None
    patience_ns: int = RISES_AFTER_NS


class Allocator:
    """Decides for all viewers of an output at once; ``now_ns`` does not go back."""

    def __init__(self, *, uplink_bps: int | None = None) -> None:
        self.uplink_bps: int | None = uplink_bps
        """What all viewers get together, at most; None is no bound."""
        self._viewers: dict[str, _Viewer] = {}
        self._is_tight = False
        self._tight_until_ns: int | None = None  # when viewers may get more again, after some had to get less

    def decide(
        self, rungs: Sequence[Rung], demands: Sequence[Demand], *, now_ns: int, is_tight: bool = False
    ) -> Mapping[str, Choice]:
        """What each viewer gets from now on.

        ``demands`` are all viewers there are, in the order in which they came. ``is_tight`` says that what their links
        seem to carry is what others leave them: nobody then loses the lowest rung.
        """
        self._is_tight = is_tight
        ladder = sorted(rungs, key=lambda rung: (rung.bitrate_bps, rung.name))
        there = {demand.viewer for demand in demands}
        for name in self._viewers.keys() - there:
            del self._viewers[name]
        limits: dict[str, tuple[int, Reason]] = {}
        playable: dict[str, list[int]] = {}
        for demand in demands:
            viewer = self._viewers.setdefault(demand.viewer, _Viewer())
            playable[demand.viewer] = [
                level for level, rung in enumerate(ladder) if demand.playable is None or rung.name in demand.playable
            ]
            limits[demand.viewer] = self._limit(viewer, demand, ladder, playable[demand.viewer], now_ns)
        most = {name: limit for name, (limit, _) in limits.items()}
        levels = self._share(ladder, demands, playable, most, now_ns)
        choices: dict[str, Choice] = {}
        for demand in demands:
            viewer = self._viewers[demand.viewer]
            limit, reason = limits[demand.viewer]
            level = levels[demand.viewer]
            viewer.rung = ladder[level].name if level >= 0 else None
            above = next((ladder[each].name for each in playable[demand.viewer] if each > level), None)
            choices[demand.viewer] = Choice(viewer.rung, "uplink" if level < limit else reason, viewer.carried, above)
        return choices

    # --- one viewer -------------------------------------------------------------------------------------------------

    def _limit(
        self, viewer: _Viewer, demand: Demand, ladder: Sequence[Rung], playable: Sequence[int], now_ns: int
    ) -> tuple[int, Reason]:
        """The highest level that a viewer may get, uplink aside, -1 for none; and what keeps it from more."""
        level, reason = self._settle(viewer, demand, ladder, playable, now_ns)
        viewer.carried = ladder[level].name if level >= 0 else None
        if demand.is_paused:
            return -1, "paused"
        if not playable:
            return -1, "codec"
        if demand.cap_bps is not None:
            allowed = [each for each in playable if ladder[each].bitrate_bps <= demand.cap_bps]
            # The lowest rung goes to everybody: a cap says how much, not whether.
            most = max(allowed, default=playable[0])
            if most < level:
                level, reason = most, "cap"
        chosen = next((each for each in playable if ladder[each].name == demand.chosen), None)
        if chosen is not None and chosen <= level:
            return chosen, "choice" if chosen < playable[-1] else "best"
        return level, reason

    def _settle(
        self, viewer: _Viewer, demand: Demand, ladder: Sequence[Rung], playable: Sequence[int], now_ns: int
    ) -> tuple[int, Reason]:
        """The level that the link carries, with patience: down soon, up after a while."""
        if not playable:
            return -1, "codec"
        budget = demand.bandwidth_bps
        if budget is None:
            # Nothing is known: the lowest does least harm. What was known before stays.
            level = next((each for each in playable if ladder[each].name == viewer.carried), playable[0])
            viewer.is_new = False
            return level, "unknown" if level < playable[-1] else "best"
        carried = max((each for each in playable if ladder[each].bitrate_bps <= budget), default=-1)
        now = next((each for each in playable if ladder[each].name == viewer.carried), None)
        if viewer.is_new or (now is None and viewer.carried is not None):
            # At the beginning, and when its rung is gone, there is nothing to see that could jump. The lowest rung
            # shows whether it is carried.
            viewer.is_new = False
            level = max(carried, playable[0])
            return level, "link" if level < playable[-1] else "best"
        current = -1 if now is None else now
        higher = max((each for each in playable if ladder[each].bitrate_bps * RISE <= budget), default=-1)
        if higher > current:
            viewer.falls_since_ns = None
            if viewer.rises_since_ns is None:
                viewer.rises_since_ns = now_ns
            if current < 0:
                # Whoever sees nothing gets the lowest soon: it was left only when it was by far too much.
                if now_ns - viewer.rises_since_ns < RESUMES_AFTER_NS:
                    return -1, "settling"
                viewer.rises_since_ns = None
                return playable[0], "settling" if playable[0] < higher else "link"
            if now_ns - viewer.rises_since_ns < viewer.patience_ns:
                return current, "settling"
            viewer.rises_since_ns, viewer.rose_ns = None, now_ns
            return higher, "link" if higher < playable[-1] else "best"
        viewer.rises_since_ns = None
        if viewer.rose_ns is not None and now_ns - viewer.rose_ns >= LASTS_NS:
            viewer.rose_ns, viewer.patience_ns = None, RISES_AFTER_NS
        if carried >= current:
            viewer.falls_since_ns = None
            return current, "link" if current < playable[-1] else "best"
        if viewer.falls_since_ns is None:
            viewer.falls_since_ns = now_ns
        waited_ns = now_ns - viewer.falls_since_ns
        is_far_too_much = ladder[current].bitrate_bps > TOO_MUCH * budget
        if carried < 0:
            # Down to the lowest first; that is left only when it has shown that it does not go, and by far: a link that
            # almost carries it shows most of the pictures, and one that is taken for a little less than it is, all.
            lowest = playable[0]
            if current > lowest and (is_far_too_much or waited_ns >= FALLS_AFTER_NS):
                self._fell(viewer, now_ns)
                viewer.falls_since_ns = now_ns
                return lowest, "link"
            if current == lowest and is_far_too_much and waited_ns >= PAUSES_AFTER_NS and not self._is_tight:
                self._fell(viewer, now_ns)
                return -1, "link"
            return current, "link"
        if is_far_too_much or waited_ns >= FALLS_AFTER_NS:
            self._fell(viewer, now_ns)
            return carried, "link"
        return current, "link"

    def _fell(self, viewer: _Viewer, now_ns: int) -> None:
        viewer.falls_since_ns = None
        if viewer.rose_ns is not None and now_ns - viewer.rose_ns < LASTS_NS:
            viewer.patience_ns = min(2 * viewer.patience_ns, MOST_PATIENCE_NS)
        viewer.rose_ns = None

    # --- all viewers ------------------------------------------------------------------------------------------------

    def _share(
        self,
        ladder: Sequence[Rung],
        demands: Sequence[Demand],
        playable: Mapping[str, Sequence[int]],
        limits: Mapping[str, int],
        now_ns: int,
    ) -> dict[str, int]:
        """The level of each viewer, none above its limit and all together within the uplink."""
        uplink_bps = self.uplink_bps
        if uplink_bps is None:
            return dict(limits)
        before = {
            name: next((level for level, rung in enumerate(ladder) if rung.name == viewer.rung), -1)
            for name, viewer in self._viewers.items()
        }
        levels = dict.fromkeys(limits, -1)
        spent = 0

        def fits(name: str, level: int) -> bool:
            """Who keeps what it had may use the last of the uplink, who gets more must leave some."""
            cost = spent + ladder[level].bitrate_bps
            if levels[name] >= 0:
                cost -= ladder[levels[name]].bitrate_bps
            if level <= before[name]:
                return cost <= uplink_bps
            is_settling = self._tight_until_ns is not None and now_ns < self._tight_until_ns
            return cost <= (1 - SLACK) * uplink_bps and not (is_settling and level > playable[name][0])

        def raise_to(name: str, level: int) -> None:
            nonlocal spent
            if levels[name] >= 0:
                spent -= ladder[levels[name]].bitrate_bps
            spent += ladder[level].bitrate_bps
            levels[name] = level

        order = sorted(demands, key=lambda demand: (-demand.priority, before[demand.viewer] < 0))
        for demand in order:
            name = demand.viewer
            if limits[name] >= 0 and fits(name, playable[name][0]):
                raise_to(name, playable[name][0])
        for priority in sorted({demand.priority for demand in demands}, reverse=True):
            names = [demand.viewer for demand in demands if demand.priority == priority and levels[demand.viewer] >= 0]
            while True:
                steps = []
                for place, name in enumerate(names):
                    above = next((each for each in playable[name] if each > levels[name]), None)
                    if above is not None and above <= limits[name] and fits(name, above):
                        steps.append((levels[name], above > before[name], place, name, above))
                if not steps:
                    break
                *_, name, above = min(steps)
                raise_to(name, above)
        if any(levels[name] < min(before[name], limits[name]) for name in levels):
            self._tight_until_ns = now_ns + SETTLES_NS
        return levels
