"""What one path carries, from what its receiver tells: transport-wide feedback, else REMB, else loss reports.

The rate follows draft-ietf-rmcat-gcc-02 section 5.5 (multiplicative, near what the path was found to carry additive
increase; decrease on a growing queue), and differs from it in what libwebrtc has learned since and in two points more:

- What the path carries is measured while a queue keeps it busy, so that one decrease is enough. The queue that has
  built up is then drained by sending less for a moment, in proportion to it: the path stays in use meanwhile.
- A path that shows no queue is probed now and then, so that the estimate finds a wider one in a second or two, and
  without a full sender. What such a sender believes of a much narrower one is found out in the same way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from flowstream.proto.congestion.delay import DelayMeter
from flowstream.proto.congestion.loss import LossMeter
from flowstream.proto.congestion.probing import Found, Probe, Probing
from flowstream.proto.congestion.sent import Glance, SentPackets, Told
from flowstream.proto.rtcp import TransportFeedback, WholeFeedback

MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000

START_BPS: Final = 300_000
LEAST_BPS: Final = 50_000
MOST_BPS: Final = 100_000_000

State = Literal["starting", "rising", "holding", "draining", "silent"]
"""Nothing is known yet; there may be more; a queue is about to empty; a queue is drained; nothing comes back."""

Bound = Literal["nothing", "delay", "loss", "in-flight", "silence", "sender", "most", "receiver"]
"""What keeps the estimate from being higher.

Nothing does, it is on its way up; a queue grew; packets are lost; too much is on its way; no feedback comes; too little
is sent to know more; it is the highest that is wanted; the receiver says so (REMB).
"""

_DECREASE = 0.97  # of what came through while the path was busy
_NEAR = (0.85, 1.1)  # times what the path was found to carry: there it rises by steps
_STEADY = 0.1  # up to this much wavering; a path that wavers more is found out anew each time
_REMEMBERED_NS = 30 * NS_PER_S  # how long what was found is believed
_RISE_PER_S = 1.4
_RISE_WAVERING = 5.0  # more than that, times how much the path wavers
_PACKET_BITS = 1200 * 8
_QUEUE_NS = 60 * MS  # a queue this long is too long even if it no longer grows
_QUEUE_IS_OURS_NS = 2 * NS_PER_S  # a queue that stays longer although less is sent is somebody else's
_EMPTY_NS = 12 * MS
_HELD_UP_NS = 30 * MS
_DRAINS_IN_NS = 400 * MS
_LEAST_DRAINING = 0.5
_BUSY_SPAN_NS = 120 * MS
_RECEIVED_SPAN_NS = 500 * MS
_STANDING_SPAN_NS = 200 * MS
_GROWS = 0.3  # of the time that passes: faster than delays that come and go let it seem
_FAR_LESS = 0.33  # of the estimate: who sends so little hardly fills a queue
_SILENT_AFTER_NS = 500 * MS
_SENDER_BOUND = 0.65  # of the estimate: who sends less does not find out whether it is too low
_ALL_OF_IT = 0.9
_HEADROOM = 1.5  # times what came through: as far as an estimate may rise on it
_REFUTES = 0.62  # of the estimate: others on the path hardly ever hold two trains in a row back that much
_AGREES = 0.85  # of the other: two trains that found so much alike met with the path, not with what came and went
_DOUBT_LASTS_NS = 6 * NS_PER_S  # three of the longest pauses between trains
_IN_FLIGHT_NS = 250 * MS  # of the estimate beyond the round trip
_FEW_LOSSES, _MANY_LOSSES = 0.02, 0.10
_REMB_LASTS_NS = 5 * NS_PER_S
_ROUND_TRIP_MOST_NS = 2 * NS_PER_S
_OVER_FROM_NS = _EMPTY_NS // 2  # of queue: with less, a path is not too full whatever its trend
_LOOKS_BACK_NS = NS_PER_S  # a trend is over about as long
_MOST_KEPT = 64  # feedbacks; a receiver that tells more often than all known ones is then looked back at for less long


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of a path.

    ``bandwidth_bps`` is what it is taken to carry, ``target_bps`` what to send now, IP and UDP headers included:
    less than that while a queue is drained. ``loss`` is a share from 0 to 1.
    """

    bandwidth_bps: int
    target_bps: int
    loss: float
    round_trip_ns: int
    queue_delay_ns: int
    state: State
    bound: Bound

    @property
    def why(self) -> str:
        """The bound as a sentence."""
        return _WHY[self.bound].format(
            loss=f"{100 * self.loss:.1f} %",
            queue=f"{self.queue_delay_ns // MS} ms",
            trip=f"{self.round_trip_ns // MS} ms",
        )


_WHY: Final[dict[Bound, str]] = {
    "nothing": "the path has carried all so far",
    "delay": "more makes packets wait on the path (now {queue})",
    "loss": "more is lost on the path (now {loss})",
    "in-flight": "what was sent has not been seen to arrive yet (round trip {trip})",
    "silence": "the receiver tells nothing any more",
    "sender": "too little is sent to find out whether the path carries more",
    "most": "no more is wanted",
    "receiver": "the receiver asks for no more",
}


class BandwidthEstimator:
    """Follows one path. ``now_ns`` does not go back.

    `sent` is told of every packet, the ``handle`` methods of what comes back; `poll` is due now and then (every 20 to
    50 ms; more seldom while `is_calm`) and gives the probe to send. `target_bps` is as of the last that came back or
    `poll`; `estimate` has the rest.
    """

    def __init__(
        self, *, now_ns: int, start_bps: int = START_BPS, least_bps: int = LEAST_BPS, most_bps: int = MOST_BPS
    ) -> None:
        self.target_bps: int = start_bps
        self.most_bps: int = most_bps
        """The highest rate that is of use: no probe goes beyond it."""
        self.packets: SentPackets = SentPackets()
        self._is_calm = self._is_quiet = False
        self._seen: deque[tuple[Glance, int]] = deque()  # what the trend was not told of, and when it came
        self._has_gap = False  # something that was seen before these will never be told to the trend
        self.enough_bps: int = most_bps
        """A path that carries so much is probed for more only now and then. Whether it is calm is found out at the next
        `poll` or feedback."""
        self._bps = float(start_bps)
        self._start_bps = start_bps
        self._least_bps = least_bps
        self._delay = DelayMeter()
        self._loss = LossMeter()
        self._probing = Probing(start_bps=start_bps)
        self._state: State = "starting"
        self._bound: Bound = "nothing"
        self._round_trip_ns = 100 * MS
        self._least_trip_ns = 0
        self._capacity_bps: float | None = None
        self._capacity_ns = 0
        self._wavers = 0.0  # how much one measure differs from what was known, as a share
        self._now_ns = now_ns
        self._fed_ns: int | None = None  # when feedback last came
        self._silent_ns: int | None = None  # when the rate was last halved for want of it
        self._before_silence_bps = 0.0
        self._fell_ns: int | None = None
        self._draining_since_ns = now_ns
        self._over_since_ns: int | None = None
        self._patience_ns = _QUEUE_NS
        self._jumped_ns: int | None = None
        self._doubt: tuple[int, int] | None = None  # what a train was held back to, below the estimate, and when
        self._is_guess = True
        self._remb: tuple[int, int] | None = None
        self._reported_loss = 0.0
        self._is_reported = False
        self._sent_since_ns = now_ns
        self._sent_bytes = 0
        self._sent_bps: float | None = None

    # --- what is sent -----------------------------------------------------------------------------------------------

    def sent(self, sizes: Sequence[int], *, now_ns: int, probe: int = 0) -> None:
        """Packets that were sent at ``now_ns``, numbered from ``packets.next_number`` on.

        ``sizes`` are in bytes as on the wire, IP and UDP headers included; ``probe`` is the `Probe.number` that the
        pacer gave with them.
        """
        self._sent_bytes += self.packets.add(sizes, now_ns=now_ns, probe=probe)

    def expect(self, bps: int) -> None:
        """A stream of this rate is about to be sent: the path is taken to carry it until something has come back."""
        if self._fed_ns is None and self._remb is None and not self._is_reported:
            self._bps = max(self._bps, float(min(bps, self.most_bps)))

    def poll(self, *, now_ns: int) -> Probe | None:
        """What is due by the clock; gives the probe to send now, if any."""
        self._now_ns = now_ns
        self._measure_sending(now_ns)
        self._watch_silence(now_ns)
        probe = self._probe(now_ns)
        self._settle()
        return probe

    def _probe(self, now_ns: int) -> Probe | None:
        if self._fed_ns is None:
            # Before anything comes back nothing can be found; the first packets of media show that it does.
            return None
        is_idle = self._sent_bps is not None and self._sent_bps < _SENDER_BOUND * self._bps
        if self._silent_ns is not None:
            # Where something is sent, that shows when the path is back; else a train has to, now and then.
            return self._probing.poll(
                estimate_bps=int(self._bps), most_bps=self.most_bps, is_quiet=is_idle, is_idle=is_idle, now_ns=now_ns
            )
        is_quiet = self._state in ("starting", "rising") and self._delay.queue_ns < _EMPTY_NS
        is_enough = self._bounded_bps() >= self.enough_bps and self._doubt is None
        limit_bps = self._loss.limit_bps
        is_quiet = is_quiet and (limit_bps is None or limit_bps > self._bps)
        if is_idle and not self.packets.in_flight_bytes:
            is_quiet = True  # all has arrived, and what was known of the queue before that is out of date
        return self._probing.poll(
            estimate_bps=int(self._bps),
            most_bps=self.most_bps,
            is_quiet=is_quiet,
            is_idle=is_idle,
            is_enough=is_enough,
            now_ns=now_ns,
        )

    # --- what comes back --------------------------------------------------------------------------------------------

    def handle_whole(self, feedback: WholeFeedback, *, now_ns: int) -> bool:
        """Feedback on packets that have all arrived, while the path `is_quiet`; whether that was all there is to it.

        If not, `handle_feedback` is to be called with it. As long as packets hardly wait, nothing depends on the trend
        of their delays; it is made up for when something does.
        """
        if not self._is_quiet:
            return False
        seen = self.packets.glance(feedback)
        if seen is None:
            return False
        one_way_ns = seen.arrived_ns - seen.sent_ns
        waits_ns = self._delay.waits_ns(one_way_ns)
        if waits_ns is None or waits_ns >= _OVER_FROM_NS:
            return False
        self.packets.pass_over(seen)
        self._delay.glance(one_way_ns, seen.arrived_ns)
        self._now_ns = self._fed_ns = now_ns
        self._bound = "most" if self._bps >= self.most_bps else "sender"
        self._follow_round_trip(max(0, now_ns - seen.sent_ns))
        count, packets = len(seen.deltas), self._seen
        is_news = self._loss.add(
            received=count,
            lost=0,
            size=seen.size,
            estimate_bps=int(self._bps),
            least_bps=self._least_bps,
            now_ns=now_ns,
        )
        packets.append((seen, now_ns))
        while now_ns - packets[0][1] > _LOOKS_BACK_NS or len(packets) > _MOST_KEPT:
            oldest, _ = packets.popleft()
            self.packets.let_go(oldest.number, len(oldest.deltas))
            self._has_gap = True
        if is_news:
            self._settle()
        return True

    def handle_feedback(self, feedback: TransportFeedback, *, now_ns: int) -> None:
        """Transport-wide feedback."""
        self._look_back()
        told = self.packets.take(feedback, now_ns=now_ns)
        if not told.arrivals and not told.lost:
            self._settle()
            return
        self._now_ns = now_ns
        is_back = self._silent_ns is not None and bool(told.arrivals)
        if is_back:
            self._end_silence()
        elapsed_ns = min(now_ns - self._fed_ns, NS_PER_S) if self._fed_ns is not None else 0
        self._fed_ns = now_ns
        if told.round_trip_ns is not None:
            self._follow_round_trip(told.round_trip_ns)
        arrivals = told.arrivals
        self._delay.add(arrivals)
        if not is_back:  # what was lost while the path was dead says nothing about it either
            self._count_losses(told, now_ns)
        found = self._probing.add(arrivals, estimate_bps=int(self._bps))
        refuted_bps = self._refute(found, now_ns)
        is_over = self._is_over(now_ns)
        if is_over and not self._is_carried():
            self._decrease(now_ns)
        elif found is not None and found.bps > self._bps and self._state != "draining":
            self._bps = float(found.bps)
            self._jumped_ns = now_ns
            self._loss.lift(found.bps)
            if found.is_bound:
                self._learn_capacity(float(found.bps), now_ns)
            elif self._capacity_bps is not None and found.bps > self._capacity_bps:
                self._capacity_bps = None
        elif refuted_bps is not None:
            self._bps = min(self._bps, max(float(refuted_bps), float(self.received_bps), float(self._least_bps)))
            self._bound = "delay"
            self._learn_capacity(self._bps, now_ns)
        else:
            self._increase(elapsed_ns, now_ns)
        self._is_guess = self._is_guess and found is None and self._fell_ns is None
        self._settle()

    def handle_remb(self, bps: int, *, now_ns: int) -> None:
        """What the receiver estimates (REMB): a bound where there is transport-wide feedback, else the estimate."""
        self._now_ns = now_ns
        self._remb = (max(bps, self._least_bps), now_ns)
        if self._fed_ns is None:
            self._bps = float(min(self._remb[0], self.most_bps))
            self._state, self._bound = "rising", "receiver"
        self._settle()

    def handle_report(self, *, loss: float, round_trip_ns: int | None, now_ns: int) -> None:
        """A receiver report: ``loss`` is a share. It counts only where there is neither feedback nor REMB.

        Then the rate follows it as in draft-ietf-rmcat-gcc-02 section 6: up by 8 % a report without losses, to what was
        sent at least, and down by half the share that is lost beyond 10 %. It rises also while less is sent: there is
        nothing to probe with, so that more is found out by sending more.
        """
        self._now_ns = now_ns
        if round_trip_ns is not None and self._fed_ns is None:
            self._follow_round_trip(round_trip_ns)
        if self._fed_ns is not None:
            self._settle()
            return
        self._reported_loss, self._is_reported = loss, True
        if self._remb is None or now_ns - self._remb[1] > _REMB_LASTS_NS:
            if loss > _MANY_LOSSES:
                self._bps *= 1 - 0.5 * loss
                self._state, self._bound = "holding", "loss"
            elif loss < _FEW_LOSSES:
                self._bps = max(self._bps * 1.08, self._sent_bps or 0.0)
                self._state, self._bound = "rising", "nothing"
            self._bps = min(max(self._bps, self._least_bps), self.most_bps)
        self._settle()

    def path_changed(self, *, now_ns: int) -> None:
        """The peer is reached by another path: what was learned of the old one says nothing about it."""
        self._now_ns = now_ns
        self._look_back()
        self.packets.forget()
        self._delay.reset()
        self._loss.reset()
        self._capacity_bps = None
        self._least_trip_ns = 0
        self._over_since_ns = self._fell_ns = self._doubt = self._sent_bps = None
        self._sent_since_ns, self._sent_bytes = now_ns, 0
        before_bps = self._bps if self._silent_ns is None else self._before_silence_bps
        self._silent_ns = None
        self._fed_ns = self._fed_ns and now_ns  # what the old path did not tell does not count against the new one
        self._bps = float(self._start_bps)
        self._state, self._bound = "starting", "nothing"
        self._is_guess = True
        self._probing.restart()
        self._probing.ask(int(before_bps))
        self._settle()

    # --- what is known ----------------------------------------------------------------------------------------------

    @property
    def is_silent(self) -> bool:
        """Whether the receiver has stopped to tell anything although something is sent."""
        return self._silent_ns is not None

    @property
    def is_calm(self) -> bool:
        """Whether the path carries more than enough and nothing is on its way to become worse."""
        return self._is_calm

    @property
    def is_quiet(self) -> bool:
        """Whether `handle_whole` may do for feedback."""
        return self._is_quiet

    @property
    def is_held_up(self) -> bool:
        """Whether a queue keeps packets on the path, and less is sent so that it empties."""
        return self._state == "draining" and self._delay.queue_ns >= _HELD_UP_NS

    @property
    def received_bps(self) -> int:
        """What came through lately, of all that was sent."""
        if self._seen:  # as far as the receiver tells, all that was sent came through
            return int(self._sent_bps or 0)
        return self._delay.received_bps(span_ns=_RECEIVED_SPAN_NS) or 0

    @property
    def round_trip_ns(self) -> int:
        """Smoothed."""
        return self._round_trip_ns

    @property
    def bandwidth_bps(self) -> int:
        """What the path is taken to carry; as in `estimate`."""
        return int(self._bounded_bps())

    def estimate(self) -> Estimate:
        """All that is known now."""
        has_feedback = self._fed_ns is not None
        return Estimate(
            bandwidth_bps=self.bandwidth_bps,
            target_bps=self.target_bps,
            loss=self._loss.share if has_feedback else self._reported_loss,
            round_trip_ns=self._round_trip_ns,
            queue_delay_ns=self._delay.queue_ns,
            state=self._state,
            bound=self._bound_now(),
        )

    # --- inside -----------------------------------------------------------------------------------------------------

    def _follow_round_trip(self, round_trip_ns: int) -> None:
        round_trip_ns = min(round_trip_ns, _ROUND_TRIP_MOST_NS)
        is_first = not self._least_trip_ns
        self._round_trip_ns += (round_trip_ns - self._round_trip_ns) // (1 if is_first else 8)
        if is_first or round_trip_ns < self._least_trip_ns:
            self._least_trip_ns = max(round_trip_ns, 1)

    def _count_losses(self, told: Told, now_ns: int) -> None:
        self._loss.add(
            received=told.received,
            lost=told.lost - told.late,
            size=told.size,
            estimate_bps=int(self._bps),
            least_bps=self._least_bps,
            now_ns=now_ns,
        )

    def _is_over(self, now_ns: int) -> bool:
        """Whether a queue grows, or is too long and does not shrink although less is sent."""
        queue_ns, trend = self._delay.queue_ns, self._delay.trend
        if queue_ns <= self._patience_ns:
            if queue_ns < _EMPTY_NS:
                self._patience_ns = _QUEUE_NS
            self._over_since_ns = None
        elif self._over_since_ns is None:
            self._over_since_ns = now_ns
        elif now_ns - self._over_since_ns > _QUEUE_IS_OURS_NS:
            self._patience_ns = queue_ns + queue_ns // 4
            self._over_since_ns = None
        if self._fell_ns is not None and now_ns - self._fell_ns < self._round_trip_ns + 100 * MS:
            return False
        is_long = self._over_since_ns is not None and trend.slope >= 0
        # Where a queue stays that is not of our making, only one that is longer yet may be.
        is_theirs = self._patience_ns > _QUEUE_NS and queue_ns <= self._patience_ns
        return (trend.usage == "over" and queue_ns >= _OVER_FROM_NS and not is_theirs) or is_long

    def _is_carried(self) -> bool:
        """Whether far less is sent than is thought to be possible, and all of it comes through: delays that come and go
        are then not of our making, and what comes through says nothing about the path."""
        sent_bps, received_bps = self._sent_bps, self._delay.received_bps(span_ns=_RECEIVED_SPAN_NS)
        if sent_bps is not None and sent_bps >= _SENDER_BOUND * self._bps:
            return False
        if sent_bps is not None and received_bps is not None and received_bps >= _ALL_OF_IT * sent_bps:
            return True
        return (sent_bps or 0.0) < _FAR_LESS * self._bps and not self._grows()

    def _refute(self, found: Found | None, now_ns: int) -> int | None:
        """What the path carries where too little is sent to see it, and trains were held back to less than is believed.

        One is enough where the path was begun with that; else two in a row have to agree, since one may have met with
        somebody else's packets, or with delays that come and go.
        """
        if found is None:
            return None
        before, self._doubt = self._doubt, None
        if not found.is_bound or (self._sent_bps is not None and self._sent_bps >= _SENDER_BOUND * self._bps):
            return None
        if self._is_guess and found.bps < self._bps:
            return found.bps
        if found.bps >= _REFUTES * self._bps:
            return None
        self._doubt = found.bps, now_ns
        if before is None or now_ns - before[1] > _DOUBT_LASTS_NS:
            return None
        lower_bps, higher_bps = sorted((before[0], found.bps))
        return higher_bps if lower_bps >= _AGREES * higher_bps else None

    def _grows(self) -> bool:
        """Whether the least that packets wait becomes more: a queue makes it so, delays that come and go do not."""
        before_ns = self._delay.standing_ns(span_ns=_STANDING_SPAN_NS, ago_ns=_STANDING_SPAN_NS)
        standing_ns = self._delay.standing_ns(span_ns=_STANDING_SPAN_NS)
        if before_ns is None or standing_ns is None:
            return True
        return standing_ns - before_ns >= _GROWS * _STANDING_SPAN_NS

    def _decrease(self, now_ns: int) -> None:
        busy_bps = self._delay.busy_bps(span_ns=_BUSY_SPAN_NS, waited_ns=_EMPTY_NS // 2)
        passed_bps = busy_bps or self._delay.received_bps(span_ns=_BUSY_SPAN_NS)
        if passed_bps is None:
            lowered_bps = self._bps * 0.85
        else:
            self._learn_capacity(float(passed_bps), now_ns)
            lowered_bps = _DECREASE * passed_bps
        if self._jumped_ns is not None and now_ns - self._jumped_ns < NS_PER_S:
            self._probing.failed()
        elif lowered_bps < 0.7 * self._bps:
            self._probing.sooner()
        self._bps = max(min(self._bps, lowered_bps), float(self._least_bps))
        self._jumped_ns = self._doubt = None
        self._fell_ns = now_ns
        if self._state != "draining":
            self._draining_since_ns = now_ns
        self._state, self._bound = "draining", "delay"

    def _learn_capacity(self, bps: float, now_ns: int) -> None:
        known = self._capacity_bps
        if known is None:
            self._capacity_bps = bps
        else:
            error = abs(bps - known) / known
            self._wavers += 0.3 * (min(error, 0.5) - self._wavers)
            self._capacity_bps = 0.7 * known + 0.3 * bps if error < 0.25 else bps
        self._capacity_ns = now_ns

    def _increase(self, elapsed_ns: int, now_ns: int) -> None:
        queue_ns, usage = self._delay.queue_ns, self._delay.trend.usage
        if self._state == "draining":
            if queue_ns > _EMPTY_NS:
                if now_ns - self._draining_since_ns <= _QUEUE_IS_OURS_NS:
                    return
                self._patience_ns = max(self._patience_ns, queue_ns + queue_ns // 4)
            self._state = "holding"
        if usage == "under":
            self._state = "holding"
            return
        if usage == "over":
            return
        if self._state != "starting" or queue_ns < _EMPTY_NS:
            self._state = "rising"
        seconds = elapsed_ns / NS_PER_S
        capacity = self._capacity_bps
        if capacity is not None and now_ns - self._capacity_ns > _REMEMBERED_NS:
            capacity = self._capacity_bps = None
        if capacity is not None and self._bps > _NEAR[1] * capacity:
            capacity = self._capacity_bps = None
        if capacity is not None and self._bps >= _NEAR[0] * capacity and self._wavers < _STEADY:
            step = max(4000.0, _PACKET_BITS * NS_PER_S / (self._round_trip_ns + 100 * MS))
            raised = self._bps + min(step, 0.08 * self._bps) * seconds
        else:
            raised = self._bps * (_RISE_PER_S + _RISE_WAVERING * self._wavers) ** seconds
        bound = self._app_bound()
        if raised > bound:
            self._bound = "sender"
            raised = max(self._bps, bound)
        elif self._bound != "delay" or (capacity is None):
            self._bound = "nothing"
        if raised >= self.most_bps:
            raised, self._bound = float(self.most_bps), "most"
        self._bps = raised

    def _app_bound(self) -> float:
        """How far the estimate may rise: what is not sent tells nothing."""
        if self._sent_bps is not None and self._sent_bps < _SENDER_BOUND * self._bps:
            return self._bps
        received_bps = self._delay.received_bps(span_ns=_RECEIVED_SPAN_NS)
        return float(self.most_bps) if received_bps is None else _HEADROOM * received_bps + 10_000

    def _measure_sending(self, now_ns: int) -> None:
        elapsed_ns = now_ns - self._sent_since_ns
        if elapsed_ns >= _RECEIVED_SPAN_NS:
            self._sent_bps = self._sent_bytes * 8e9 / elapsed_ns
            self._sent_since_ns, self._sent_bytes = now_ns, 0

    def _watch_silence(self, now_ns: int) -> None:
        if self._fed_ns is None or not self.packets.in_flight_bytes:
            if self._silent_ns is None:
                self._fed_ns = self._fed_ns and now_ns  # an idle sender hears nothing, and that is no silence
            return
        since_ns = max(self._fed_ns, self._silent_ns or 0)
        if now_ns - since_ns < max(_SILENT_AFTER_NS, 3 * self._round_trip_ns):
            return
        if self._silent_ns is None:
            self._before_silence_bps = self._bps
        self._silent_ns = now_ns
        self._bps = max(self._bps / 2, float(self._least_bps))
        self._state, self._bound = "silent", "silence"

    def _end_silence(self) -> None:
        """Something arrives again: what was queued in the meantime says nothing about the path as it is now."""
        self._silent_ns = None
        self._delay.reset()
        self._loss.reset()
        self.packets.forget()
        self._state, self._bound = "rising", "nothing"
        self._capacity_bps = None
        self._fell_ns = self._doubt = None
        self._probing.restart()
        self._probing.ask(int(0.85 * self._before_silence_bps))

    def _bounded_bps(self) -> float:
        bps = self._bps
        if self._loss.limit_bps is not None:
            bps = min(bps, self._loss.limit_bps)
        if self._remb is not None and self._now_ns - self._remb[1] <= _REMB_LASTS_NS:
            bps = min(bps, self._remb[0])
        return max(bps, float(self._least_bps))

    def _look_back(self) -> None:
        """Makes up for what the trend was not told of, as far as that is still of use to it."""
        if self._has_gap:
            self._has_gap = False
            self._delay.skip()
        while self._seen:
            seen, _ = self._seen.popleft()
            self._delay.add(self.packets.look_back(seen))
            self.packets.let_go(seen.number, len(seen.deltas))

    def _window_bytes(self) -> float:
        return self._bps * (self._least_trip_ns + _IN_FLIGHT_NS) / 8e9

    def _settle(self) -> None:
        """What follows from all that is known."""
        bps = self._bounded_bps()
        self._is_calm = (
            self._state == "rising"
            and bps >= self.enough_bps
            and self._delay.queue_ns < _EMPTY_NS
            and self._doubt is None
        )
        self._is_quiet = (
            self._is_calm
            and self._sent_bps is not None
            and self._sent_bps < _SENDER_BOUND * self._bps <= _SENDER_BOUND * self.most_bps
            and self._delay.trend.usage == "normal"
            and not self._probing.is_open
        )
        if self._state == "draining":
            bps *= max(_LEAST_DRAINING, 1 - self._delay.queue_ns / _DRAINS_IN_NS)
        if self._fed_ns is not None:
            in_flight, window = self.packets.in_flight_bytes, self._window_bytes()
            if in_flight > window:
                bps *= window / in_flight
        self.target_bps = max(int(bps), self._least_bps)

    def _bound_now(self) -> Bound:
        if self._bound == "silence":
            return "silence"
        if self._fed_ns is not None and self.packets.in_flight_bytes > self._window_bytes():
            return "in-flight"
        bounded_bps = self._bounded_bps()
        if bounded_bps < self._bps:
            limit_bps = self._loss.limit_bps
            return "loss" if limit_bps is not None and limit_bps <= bounded_bps else "receiver"
        return self._bound
