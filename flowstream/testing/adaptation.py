"""Scripts for adaptation: conditions of links and of the processor, time that passes, and what is to come of it.

A `Watched` is one picture, its encoders and its viewers on virtual time. The estimator is ideal: each viewer's
bandwidth is known whenever a report is made. The encoder is ideal too: it gives the bitrate that it is asked for, and
takes a time for each picture that goes with its size::

    Watched(Policy(rungs=(Rung("encode", 300_000, 4_000_000),))).play(
        Conditions(bandwidth=3_000_000),
        Run(10),
        Conditions(bandwidth=800_000),
        Run(20),
        Expect(utilisation=0.9, recovery_s=2, switches_a_minute=2),
    )
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flowstream.media.encoder_stats import EncoderStats
from flowstream.media.reports import ViewerReport
from flowstream.media.size import Size
from flowstream.proto.adaptation import Adaptation, EncoderTarget, Policy

TICK_NS = 20_000_000
REPORTS_NS = 200_000_000
STATS_NS = 1_000_000_000
_NS_PER_S = 1_000_000_000
_RECOVERED = 0.9
_QUEUE_S = 0.2

Bandwidth = int | Callable[[float], int]
"""Bits per second, or what gives them for a time in seconds."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What changes; what is None stays. ``viewer`` is whose link it is.

    ``loss`` is the share of packets that are lost, ``cross_bps`` what others send over the same link, ``encode_ms`` how
    long the encoder takes for the whole picture.
    """

    bandwidth: Bandwidth | None = None
    loss: float | None = None
    cross_bps: Bandwidth | None = None
    encode_ms: float | None = None
    viewer: str = "viewer"


@dataclass(frozen=True, slots=True)
class Run:
    """Time that passes, in seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Expect:
    """What is expected of the time since the expectation before; None for what does not matter.

    ``utilisation`` is the least share of what the links carried that was used. ``recovery_s`` is the longest time in
    which less than nine tenths of what a link carries were used, or more than it carries, or an encoder was too slow.
    ``switches_a_minute`` is how often people saw a jump: another size, frame rate or set of rungs. ``holds`` looks at
    the targets there are then.
    """

    utilisation: float | None = None
    recovery_s: float | None = None
    switches_a_minute: float | None = None
    holds: Callable[[Mapping[str, EncoderTarget]], bool] | None = None


Step = Conditions | Run | Expect


@dataclass(slots=True)
class Measured:
    """What came of the time since the last expectation."""

    sent: float = 0.0
    carried: float = 0.0
    switches: int = 0
    recovery_s: float = 0.0
    seconds: float = 0.0

    @property
    def utilisation(self) -> float:
        """Share of what the links carried that was used."""
        return self.sent / self.carried if self.carried else 1.0

    @property
    def switches_a_minute(self) -> float:
        """Jumps per minute."""
        return self.switches * 60 / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class _Link:
    bandwidth: Bandwidth = 10_000_000
    loss: float = 0.0
    cross: Bandwidth = 0
    queued: float = 0.0  # bits
    put: float = 0.0  # bits since the report before
    overflown: float = 0.0  # of those
    off_since_s: float | None = None  # since when not nine tenths of it are used, or too much

    def carries(self, at_s: float) -> float:
        """What is left of it, in bits per second, what is lost and sent again not counted."""
        return max(1.0, (_at(self.bandwidth, at_s) - _at(self.cross, at_s)) * (1 - self.loss))

    def take(self, bits: float, carried: float, most_queued: float) -> None:
        """Time in which so much was put on the link and so much left it."""
        queued = max(0.0, self.queued + bits - carried)
        self.queued = min(queued, most_queued)
        self.put += bits
        self.overflown += queued - self.queued

    def lost_share(self) -> float:
        """Of what was put on it since this was asked before."""
        share = self.overflown / self.put if self.put else 0.0
        self.put = self.overflown = 0.0
        return min(1.0, self.loss + share * (1 - self.loss))


@dataclass(slots=True)
class Watched:
    """A picture that is watched; ``measured`` is what came of the time since the last expectation.

    Without an estimate viewers only tell what they lost, what did not fit a queue of 200 ms included.
    """

    policy: Policy
    size: tuple[int, int] = (1280, 720)
    fps: float = 30.0
    qp: float | None = None
    has_estimate: bool = True
    measured: Measured = field(default_factory=Measured)
    targets: Mapping[str, EncoderTarget] = field(default_factory=dict)
    now_ns: int = 0
    _encode_ms: float = 8.0
    _links: dict[str, _Link] = field(default_factory=dict)
    _late_since_s: float | None = None
    _adaptation: Adaptation = field(init=False)

    def __post_init__(self) -> None:
        self._adaptation = Adaptation(self.policy)

    @property
    def adaptation(self) -> Adaptation:
        """What is tested."""
        return self._adaptation

    def play(self, *steps: Step) -> Measured:
        """Takes the steps in order. Raises AssertionError for the first expectation that is not met."""
        last = self.measured
        for step in steps:
            match step:
                case Conditions():
                    self._change(step)
                case Run():
                    self._run(step.seconds)
                case Expect():
                    last = self._judge(step)
        return last

    def _change(self, step: Conditions) -> None:
        if step.encode_ms is not None:
            self._encode_ms = step.encode_ms
        if step.bandwidth is None and step.loss is None and step.cross_bps is None:
            return
        link = self._links.setdefault(step.viewer, _Link())
        link.bandwidth = link.bandwidth if step.bandwidth is None else step.bandwidth
        link.loss = link.loss if step.loss is None else step.loss
        link.cross = link.cross if step.cross_bps is None else step.cross_bps

    def _run(self, seconds: float) -> None:
        until_ns = self.now_ns + round(seconds * _NS_PER_S)
        while self.now_ns < until_ns:
            if self.now_ns % STATS_NS == 0 and self.targets:
                self._tell_stats()
            if self.now_ns % REPORTS_NS == 0:
                self._tell_reports()
                self._take(self._adaptation.targets(now_ns=self.now_ns))
            self._send()
            self.now_ns += TICK_NS

    def _tell_reports(self) -> None:
        at_s = self.now_ns / _NS_PER_S
        reports = []
        for name, link in self._links.items():
            left = max(1, int(_at(link.bandwidth, at_s) - _at(link.cross, at_s)))
            reports.append(
                ViewerReport(
                    viewer=name,
                    bandwidth_bps=left if self.has_estimate else None,
                    loss=link.loss if self.has_estimate else link.lost_share(),
                    rtt_ms=50.0,
                    queue_delay_ms=1000 * link.queued / max(left, 1),
                )
            )
        self._adaptation.handle_viewers("out", reports, now_ns=self.now_ns)

    def _tell_stats(self) -> None:
        for name, target in self.targets.items():
            if target.is_paused:
                continue
            (width, height), fps = self._shown(target)
            encode_ms = self._encode_ms * width * height / (self.size[0] * self.size[1])
            budget_ms = 1000 / fps
            self._note_load(encode_ms > budget_ms)
            stats = EncoderStats(
                encoder=name,
                frames=round(fps),
                encode_ms_mean=encode_ms,
                encode_ms_p95=encode_ms * 1.3,
                frame_budget_ms=budget_ms,
                overload=encode_ms * 1.3 > budget_ms,
                bitrate=target.bitrate_bps,
                size=Size(width, height),
                fps=fps,
                cpu_share=encode_ms * fps / 1000,
                qp_mean=self.qp,
            )
            self._adaptation.handle_encoder(stats, now_ns=self.now_ns)

    def _note_load(self, is_late: bool) -> None:
        at_s = self.now_ns / _NS_PER_S
        if is_late and self._late_since_s is None:
            self._late_since_s = at_s
        elif not is_late and self._late_since_s is not None:
            self.measured.recovery_s = max(self.measured.recovery_s, at_s - self._late_since_s)
            self._late_since_s = None

    def _shown(self, target: EncoderTarget) -> tuple[tuple[int, int], float]:
        picture = target.picture
        return (self.size, self.fps) if picture is None else ((picture.width, picture.height), picture.fps)

    def _take(self, targets: Mapping[str, EncoderTarget]) -> None:
        def seen(given: Mapping[str, EncoderTarget]) -> list[object]:
            return [(name, each.picture, each.is_paused) for name, each in given.items()]

        if self.targets and seen(targets) != seen(self.targets):
            self.measured.switches += 1
        self.targets = targets

    def _send(self) -> None:
        at_s, tick_s = self.now_ns / _NS_PER_S, TICK_NS / _NS_PER_S
        self.measured.seconds += tick_s
        most = max(rung.max_bps for rung in self.policy.rungs)
        rates = [each.bitrate_bps for each in self.targets.values() if not each.is_paused]
        for link in self._links.values():
            carries = link.carries(at_s)
            sent = max((rate for rate in rates if rate <= carries), default=min(rates, default=0))
            self.measured.carried += min(carries, most) * tick_s
            self.measured.sent += min(sent, carries, most) * tick_s
            link.take(sent * tick_s, carries * tick_s, carries * _QUEUE_S)
            if _RECOVERED * min(carries, most) <= sent <= carries:
                link.off_since_s = None
            elif link.off_since_s is None:
                link.off_since_s = at_s
            if link.off_since_s is not None:
                self.measured.recovery_s = max(self.measured.recovery_s, at_s + tick_s - link.off_since_s)

    def _judge(self, step: Expect) -> Measured:
        found, self.measured = self.measured, Measured()
        at_s = self.now_ns / _NS_PER_S
        if self._late_since_s is not None:
            found.recovery_s = max(found.recovery_s, at_s - self._late_since_s)
        missed = []
        if step.utilisation is not None and found.utilisation < step.utilisation:
            missed.append(f"utilisation is {found.utilisation:.3f}, below {step.utilisation:g}")
        if step.recovery_s is not None and found.recovery_s > step.recovery_s:
            missed.append(f"recovery took {found.recovery_s:.2f} s, more than {step.recovery_s:g} s")
        if step.switches_a_minute is not None and found.switches_a_minute > step.switches_a_minute:
            missed.append(f"{found.switches_a_minute:.1f} switches a minute, more than {step.switches_a_minute:g}")
        if step.holds is not None and not step.holds(self.targets):
            missed.append(f"what was to hold does not: the targets are {dict(self.targets)}")
        if missed:
            raise AssertionError(f"at {at_s:.2f} s: {'; '.join(missed)}")
        return found


def _at(value: Bandwidth, at_s: float) -> float:
    return value(at_s) if callable(value) else value


# --- conditions that adaptation is measured by ----------------------------------------------------------------------


def cellular(seed: int, *, mean_bps: int = 2_500_000, seconds: int = 240) -> Callable[[float], int]:
    """Bandwidth as of a mobile network: it wanders around a mean, every 100 ms, and falls to a third at times."""
    chance = random.Random(seed)
    value = float(mean_bps)
    values = []
    for _ in range(seconds * 10):
        value *= 1 + chance.gauss(0, 0.06)
        value += (mean_bps - value) * 0.02
        if chance.random() < 0.003:
            value *= 0.35
        value = min(max(value, 0.16 * mean_bps), 2.4 * mean_bps)
        values.append(int(value))
    return lambda at_s: values[min(int(at_s * 10 + 1e-6), len(values) - 1)]


def wavering(seed: int, *, mean_bps: int, share: float = 0.08) -> Callable[[float], int]:
    """A steady bandwidth of which every estimate, 100 ms apart, is off by up to a share."""
    chance = random.Random(seed)
    values = [int(mean_bps * (1 + chance.uniform(-share, share))) for _ in range(1_000)]
    return lambda at_s: values[int(at_s * 10 + 1e-6) % len(values)]


CONDITIONS: dict[str, tuple[Conditions | Run, ...]] = {
    "step": (
        Conditions(bandwidth=3_000_000),
        Run(20),
        Conditions(bandwidth=800_000),
        Run(40),
        Conditions(bandwidth=3_000_000),
        Run(60),
    ),
    "lte": (Conditions(bandwidth=cellular(1)), Run(120)),
    "lossy": (
        Conditions(bandwidth=2_500_000, loss=0.05),
        Run(40),
        Conditions(loss=0.12),
        Run(40),
        Conditions(loss=0.0),
        Run(40),
    ),
    "cross_traffic": (
        Conditions(bandwidth=4_000_000),
        Run(20),
        Conditions(cross_bps=2_500_000),
        Run(40),
        Conditions(cross_bps=0),
        Run(60),
    ),
    "cpu_overload": (
        Conditions(bandwidth=2_500_000),
        Run(20.4),
        Conditions(encode_ms=60.0),
        Run(60),
        Conditions(encode_ms=8.0),
        Run(40),
    ),
}
"""Two minutes each, for one viewer."""
