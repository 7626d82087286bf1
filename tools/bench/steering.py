"""One viewer behind a bottleneck, on virtual time: an encoder that is steered, and what the path makes of it.

The path is a `flowstream.testing.Link` that follows a trace of tools/traces. Two senders are at hand: ours (estimator,
pacer, transport-wide feedback every 50 ms) and aiortc's loop (no pacer; its receiver's REMB).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flowstream.proto.congestion.arrivals import Arrivals
from flowstream.proto.congestion.estimator import BandwidthEstimator
from flowstream.proto.congestion.pacer import Pacer, Padding, Urgency
from flowstream.proto.rtcp import TransportFeedback, parse_compound, read_whole_feedback
from flowstream.testing import Change, Delivery, Link

MS = 1_000_000
NS_PER_S = 1_000_000_000
FPS = 30
PACKET = 1200  # bytes of a full packet, without IP and UDP
OVERHEAD = 28  # IP and UDP
MOST_BPS = 8_000_000
ONE_WAY_MS = 25
QUEUE_MS = 400
FEEDBACK_MS = 50


class StretchLike(Protocol):
    """See traces.Stretch."""

    @property
    def time_ms(self) -> int: ...
    @property
    def rate_bps(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def cross_bps(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Tag:
    """What a packet on the link is: its number in the media stream, or None for padding and others' traffic."""

    flow: str
    number: int | None = None
    transport_number: int = 0
    made_ns: int = 0


@dataclass(slots=True)
class Outcome:
    """What came of a run.

    ``waits_ms`` are (arrival in ms, what the packet waited on the path), ``ages_ms`` how long after its picture was
    made each media packet arrived, ``rates`` (time in ms, bits per second) as the encoder was told them, ``received``
    media bytes by second.
    """

    waits_ms: list[tuple[float, float]] = field(default_factory=list)
    ages_ms: list[float] = field(default_factory=list)
    rates: list[tuple[int, int]] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    padding_bytes: int = 0
    dropped: int = 0


class Sender(Protocol):
    """What is compared: it gets pictures and the receiver's packets, and puts packets on the link."""

    rate_bps: int

    def picture(self, sizes: Sequence[int], first: int, now_ns: int) -> None: ...
    def tick(self, now_ns: int) -> None: ...
    def arrived(self, delivery: Delivery) -> None: ...
    def resend(self, number: int, size: int, now_ns: int) -> None: ...


class Ours:
    """Our estimator and pacer."""

    def __init__(self, link: Link, outcome: Outcome, *, now_ns: int = 0) -> None:
        self.estimator = BandwidthEstimator(now_ns=now_ns, most_bps=MOST_BPS)
        self.pacer: Pacer[tuple[int, int, Sequence[int]]] = Pacer(now_ns=now_ns, bps=self.estimator.target_bps)
        self.rate_bps = self.estimator.target_bps
        self.is_broken = False
        self._link = link
        self._outcome = outcome
        self._arrivals = Arrivals(ssrc=1)
        self._back: deque[tuple[int, bytes]] = deque()
        self._next_feedback_ns = FEEDBACK_MS * MS
        self._next_poll_ns = 0

    def picture(self, sizes: Sequence[int], first: int, now_ns: int) -> None:
        """Queues it."""
        dropped = self.pacer.enqueue(
            (first, now_ns, sizes), sizes, Urgency.VIDEO, now_ns=now_ns, is_keyframe=self.is_broken
        )
        self.is_broken = any(each.breaks for each in dropped)
        self._outcome.dropped += len(dropped)

    def resend(self, number: int, size: int, now_ns: int) -> None:
        """Queues it as a retransmission."""
        self.pacer.enqueue((number, now_ns, (size,)), (size,), Urgency.RETRANSMISSION, now_ns=now_ns)

    def arrived(self, delivery: Delivery) -> None:
        """The receiver notes it."""
        self._arrivals.add(delivery.tag.transport_number, now_ns=delivery.at_ns)

    def tick(self, now_ns: int) -> None:
        """Feedback, estimate, and what the pacer lets go."""
        if now_ns >= self._next_feedback_ns:
            self._next_feedback_ns += FEEDBACK_MS * MS
            while (feedback := self._arrivals.take(media_ssrc=2)) is not None:
                self._back.append((now_ns + ONE_WAY_MS * MS, feedback.to_bytes()))
        while self._back and self._back[0][0] <= now_ns:
            data = self._back.popleft()[1]
            whole = read_whole_feedback(data)
            if whole is not None and self.estimator.handle_whole(whole, now_ns=now_ns):
                continue
            for packet in parse_compound(data):
                assert isinstance(packet, TransportFeedback)
                self.estimator.handle_feedback(packet, now_ns=now_ns)
        if now_ns >= self._next_poll_ns:
            self._next_poll_ns = now_ns + 20 * MS
            probe = self.estimator.poll(now_ns=now_ns)
            if probe is not None:
                self.pacer.start_probe(probe)
        self.pacer.bps = self.rate_bps = self.estimator.target_bps
        due_ns = self.pacer.next_ns()
        if due_ns is None or due_ns > now_ns:
            return
        out, dropped = self.pacer.poll(now_ns=now_ns)
        self._outcome.dropped += len(dropped)
        self.is_broken = self.is_broken or any(each.breaks for each in dropped)
        for each in out:
            if isinstance(each, Padding):
                sizes: list[int] = [PACKET + OVERHEAD] * max(1, each.size // (PACKET + OVERHEAD))
                self._send(sizes, [None] * len(sizes), now_ns, now_ns, each.probe)
                self._outcome.padding_bytes += sum(sizes)
            else:
                first, made_ns, all_sizes = each.item
                numbers = [first + index for index in range(each.first, each.end)]
                self._send(all_sizes[each.first : each.end], numbers, made_ns, now_ns, each.probe)

    def _send(self, sizes: Sequence[int], numbers: Sequence[int | None], made_ns: int, now_ns: int, probe: int) -> None:
        transport_number = self.estimator.packets.next_number
        for size, number in zip(sizes, numbers, strict=True):
            self._link.send(bytes(size - OVERHEAD), now_ns, Tag("ours", number, transport_number & 0xFFFF, made_ns))
            transport_number += 1
        self.estimator.sent(sizes, now_ns=now_ns, probe=probe)


class Aiortc:
    """aiortc's loop: pictures leave at once, its receiver estimates from abs-send-time and sends REMB.

    The encoder's bounds are those of its H.264 encoder.
    """

    def __init__(self, link: Link, outcome: Outcome) -> None:
        from aiortc.codecs import h264
        from aiortc.rate import RemoteBitrateEstimator

        self.rate_bps: int = h264.DEFAULT_BITRATE
        self.is_broken = False
        self._bounds = (h264.MIN_BITRATE, h264.MAX_BITRATE)
        self._link = link
        self._remote = RemoteBitrateEstimator()
        self._back: deque[tuple[int, int]] = deque()
        self._told_ns = 0

    def picture(self, sizes: Sequence[int], first: int, now_ns: int) -> None:
        """All of it at once."""
        for index, size in enumerate(sizes):
            self._link.send(bytes(size - OVERHEAD), now_ns, Tag("ours", first + index, 0, now_ns))

    def resend(self, number: int, size: int, now_ns: int) -> None:
        """At once."""
        self._link.send(bytes(size - OVERHEAD), now_ns, Tag("ours", number, 0, now_ns))

    def arrived(self, delivery: Delivery) -> None:
        """The receiver's estimate; it goes back at most twice a second, as rtcrtpreceiver does."""
        send_time = ((delivery.sent_ns << 18) // NS_PER_S) & 0xFFFFFF
        found = self._remote.add(delivery.at_ns // MS, send_time, len(delivery.data), 1)
        if found is not None and delivery.at_ns - self._told_ns >= 500 * MS:
            self._told_ns = delivery.at_ns
            self._back.append((delivery.at_ns + ONE_WAY_MS * MS, found[0]))

    def tick(self, now_ns: int) -> None:
        """What REMB says, within the encoder's bounds."""
        while self._back and self._back[0][0] <= now_ns:
            self.rate_bps = max(self._bounds[0], min(self._back.popleft()[1], self._bounds[1]))


def run(
    trace: Sequence[StretchLike],
    make: Callable[[Link, Outcome], Sender],
    *,
    lasts_ms: int,
    seed: int = 1,
    fps: int = FPS,
    content: float = 0.15,
    also: Mapping[str, object] | None = None,
    changes: Sequence[Change] = (),
) -> Outcome:
    """Plays a trace. ``content`` is how much the sizes of pictures differ (the deviation, as a share of their mean).

    ``also`` are further conditions of the link, ``changes`` further changes to it.
    """
    first = trace[0]
    script = [Change(each.time_ms * MS, rate=each.rate_bps, loss=each.loss) for each in trace[1:]] + list(changes)
    conditions = {
        "rate": first.rate_bps,
        "loss": first.loss,
        "delay": ONE_WAY_MS * MS,
        "queue_time": QUEUE_MS * MS,
        "overhead": OVERHEAD,
        **(also or {}),
    }
    link = Link(conditions, seed=seed, script=script)
    outcome = Outcome(received=[0] * (lasts_ms // 1000 + 2))
    sender = make(link, outcome)
    chance = random.Random(seed)
    number = 0
    sizes_of: dict[int, int] = {}
    seen: set[int] = set()
    expected = 0
    nacks: deque[tuple[int, int]] = deque()
    next_picture_ns, cross_due = 0.0, 0.0
    stretch = 0
    for now_ms in range(lasts_ms):
        now_ns = now_ms * MS
        while stretch + 1 < len(trace) and trace[stretch + 1].time_ms <= now_ms:
            stretch += 1
        cross_due += trace[stretch].cross_bps / 8 / 1000
        while cross_due >= PACKET + OVERHEAD:
            link.send(bytes(PACKET), now_ns, Tag("cross"))
            cross_due -= PACKET + OVERHEAD
        if now_ns >= next_picture_ns:
            next_picture_ns += NS_PER_S / fps
            outcome.rates.append((now_ms, sender.rate_bps))
            size = sender.rate_bps / 8 / fps * 0.97 * min(max(chance.gauss(1, content), 0.5), 1.5)
            if number == 0:
                size *= 3
            count = max(1, round(size / (PACKET + OVERHEAD)))
            each = max(120, int(size / count))
            sizes = [each] * count
            sizes_of.update((number + index, each) for index in range(count))
            sender.picture(sizes, number, now_ns)
            number += count
        while nacks and nacks[0][0] <= now_ns:
            lost = nacks.popleft()[1]
            if lost not in seen:
                sender.resend(lost, sizes_of[lost], now_ns)
        sender.tick(now_ns)
        for delivery in link.poll(now_ns):
            tag: Tag = delivery.tag
            if tag.flow != "ours":
                continue
            sender.arrived(delivery)
            waited_ms = (delivery.at_ns - delivery.sent_ns) / MS - ONE_WAY_MS
            outcome.waits_ms.append((delivery.at_ns / MS, waited_ms))
            if tag.number is None or tag.number in seen:
                continue
            seen.add(tag.number)
            outcome.received[now_ms // 1000] += len(delivery.data) + OVERHEAD
            outcome.ages_ms.append((delivery.at_ns - tag.made_ns) / MS - ONE_WAY_MS)
            # What is missing before it is asked for once, one way later.
            for missing in range(expected, tag.number):
                nacks.append((delivery.at_ns + ONE_WAY_MS * MS, missing))
            expected = max(expected, tag.number + 1)
    return outcome


# --- what is judged -------------------------------------------------------------------------------------------------


def utilisation(outcome: Outcome, trace: Sequence[StretchLike], *, lasts_ms: int) -> float:
    """The share of what the path would have carried besides others' traffic that arrived as media."""
    carried = 0.0
    for index, stretch in enumerate(trace):
        until_ms = trace[index + 1].time_ms if index + 1 < len(trace) else lasts_ms
        rate_bps = min(MOST_BPS, stretch.rate_bps - stretch.cross_bps) * (1 - stretch.loss)
        carried += rate_bps / 8 * max(0, min(until_ms, lasts_ms) - stretch.time_ms) / 1000
    return sum(outcome.received) / carried


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def recoveries_s(outcome: Outcome, trace: Sequence[StretchLike], *, lasts_ms: int, wait_ms: float = 100) -> list[float]:
    """For each drop of the rate by a quarter or more: how long until nothing waits longer than ``wait_ms`` any more."""
    found: list[float] = []
    for index in range(1, len(trace)):
        if trace[index].rate_bps > 0.75 * trace[index - 1].rate_bps:
            continue
        since_ms = trace[index].time_ms
        until_ms = trace[index + 1].time_ms if index + 1 < len(trace) else lasts_ms
        late = [at for at, waited in outcome.waits_ms if since_ms <= at < until_ms and waited > wait_ms]
        found.append((max(late) - since_ms) / 1000 if late else 0.0)
    return found


def switches(outcome: Outcome, *, since_ms: int, change: float = 0.2) -> int:
    """How often the steered bitrate has left what it was by a fifth: what a viewer may see as another quality."""
    counted = 0
    settled: int | None = None
    for at_ms, rate_bps in outcome.rates:
        if at_ms < since_ms:
            continue
        if settled is None:
            settled = rate_bps
        elif abs(rate_bps - settled) > change * settled:
            counted += 1
            settled = rate_bps
    return counted
