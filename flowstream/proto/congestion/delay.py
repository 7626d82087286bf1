"""How long packets wait on the path: the trend of their delay, and how much of it is queues.

The trend is libwebrtc's trendline filter with the adaptive threshold of draft-ietf-rmcat-gcc-02 section 5.4 (Carlucci
et al., "Analysis and design of the Google congestion control for WebRTC", MMSys 2016). The queue is the one-way delay
above the least one of the last 20 to 40 s, which no clock needs to be the same for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Literal

from flowstream.proto.congestion.sent import Arrival

Usage = Literal["normal", "over", "under"]
"""Queues neither grow nor shrink; grow; shrink."""

MS: Final = 1_000_000
GROUP_NS: Final = 5 * MS
"""Packets sent within this are one group, as the pacer sends them."""

_WINDOW: Final = 20  # groups
_KEPT: Final = 200  # points that sums are kept for
_SMOOTHING: Final = 0.9
_GAIN: Final = 4.0
_MOST_DELTAS: Final = 60
_OVERUSE_NS: Final = 10 * MS
_K_UP, _K_DOWN = 0.0087, 0.039
_LEAST_THRESHOLD, _FIRST_THRESHOLD, _MOST_THRESHOLD = 6.0, 12.5, 600.0
_MOST_ADAPTING: Final = 15.0
_BURST_NS: Final = 100 * MS
_JUMP_NS: Final = 3_000 * MS
_BASE_NS: Final = 20_000 * MS


@dataclass(slots=True)
class Group:
    """Packets that were sent together. ``waited_ns`` is what the first of them waited in queues."""

    first_sent_ns: int
    last_sent_ns: int
    first_arrived_ns: int
    last_arrived_ns: int
    size: int
    waited_ns: int
    bytes_to: int = 0  # all that came up to the end of this group


_arrival = attrgetter("last_arrived_ns")


class _Line:
    """The slope of a line through the last points (least squares), by sums that are kept."""

    def __init__(self) -> None:
        self._points: deque[tuple[int, float]] = deque()
        self._origin_ns = 0
        self._x = self._y = self._xx = self._xy = 0.0
        self._kept = _KEPT  # the first point is the origin

    def add(self, time_ns: int, y: float) -> float | None:
        """Takes a point; the slope is in ms a ms, None before the window is full."""
        points = self._points
        points.append((time_ns, y))
        if self._kept >= _KEPT:
            self._recount()
        else:
            self._kept += 1
            x = (time_ns - self._origin_ns) / MS
            self._x += x
            self._y += y
            self._xx += x * x
            self._xy += x * y
        if len(points) > _WINDOW:
            time_ns, y = points.popleft()
            x = (time_ns - self._origin_ns) / MS
            self._x -= x
            self._y -= y
            self._xx -= x * x
            self._xy -= x * y
        elif len(points) < _WINDOW:
            return None
        spread = self._xx - self._x * self._x / _WINDOW
        return (self._xy - self._x * self._y / _WINDOW) / spread if spread > 1e-6 else 0.0

    def _recount(self) -> None:
        """Sums of large numbers lose their last digits: they begin anew, with the first point as their origin."""
        self._origin_ns = self._points[0][0]
        self._x = self._y = self._xx = self._xy = 0.0
        for time_ns, y in self._points:
            x = (time_ns - self._origin_ns) / MS
            self._x += x
            self._y += y
            self._xx += x * x
            self._xy += x * y
        self._kept = 0


class Trend:
    """Says whether the delay grows, from the differences between groups."""

    def __init__(self) -> None:
        self.usage: Usage = "normal"
        self.threshold: float = _FIRST_THRESHOLD
        self.slope: float = 0.0
        self._deltas = 0
        self._sum_ms = 0.0
        self._smoothed_ms = 0.0
        self._points = _Line()
        self._adapted_ns: int | None = None
        self._over_ns = -1
        self._overs = 0

    def add(self, arrival_delta_ns: int, send_delta_ns: int, arrived_ns: int) -> None:
        """Takes the distance between two groups at the receiver and at the sender."""
        if self._deltas < _MOST_DELTAS:
            self._deltas += 1
        self._sum_ms += (arrival_delta_ns - send_delta_ns) / MS
        self._smoothed_ms += (1 - _SMOOTHING) * (self._sum_ms - self._smoothed_ms)
        slope = self._points.add(arrived_ns, self._smoothed_ms)
        if slope is None:
            slope = self.slope
        offset = self._deltas * slope * _GAIN
        size, threshold = abs(offset), self.threshold
        if self._deltas < 2:
            self.usage = "normal"
        elif offset > threshold:
            self._over_ns = send_delta_ns // 2 if self._over_ns < 0 else self._over_ns + send_delta_ns
            self._overs += 1
            if self._over_ns > _OVERUSE_NS and self._overs > 1 and slope >= self.slope:
                self._over_ns = self._overs = 0
                self.usage = "over"
        else:
            self._over_ns, self._overs = -1, 0
            self.usage = "under" if offset < -threshold else "normal"
        self.slope = slope
        # The threshold follows the offset, slowly upwards: or a flow that fills queues would take everything.
        if size <= threshold + _MOST_ADAPTING and self._adapted_ns is not None:
            elapsed_ns = arrived_ns - self._adapted_ns
            if elapsed_ns > 0:
                k = _K_DOWN if size < threshold else _K_UP
                threshold += k * (size - threshold) * (elapsed_ns / MS if elapsed_ns < 100 * MS else 100.0)
                if threshold < _LEAST_THRESHOLD:
                    threshold = _LEAST_THRESHOLD
                self.threshold = threshold if threshold < _MOST_THRESHOLD else _MOST_THRESHOLD
        self._adapted_ns = arrived_ns

    def skip(self) -> None:
        """What is added next does not follow what was added before: how far clocks drifted apart meanwhile is no
        queue."""
        self.slope = self._sum_ms = self._smoothed_ms = 0.0
        self._points = _Line()
        self._adapted_ns = None
        self._over_ns, self._overs = -1, 0


class DelayMeter:
    """Groups packets, follows their trend, and measures the queue. Packets come in the order of their arrival."""

    def __init__(self) -> None:
        self.trend: Trend = Trend()
        self.queue_ns: int = 0
        self.done: deque[Group] = deque(maxlen=256)
        """The last groups that are complete, oldest first."""
        self._done_bytes = 0
        self._group: Group | None = None
        self._base_ns = [0, 0]  # least one-way delay in this stretch of time and in the one before
        self._base_since_ns: int | None = None

    def add(self, arrivals: list[Arrival]) -> None:
        """Takes what one feedback told."""
        group = self._group
        for arrival in arrivals:
            arrived_ns, sent_ns, size, _, last_ns, sizes, _ = arrival
            if group is None:
                group = self._begin(arrived_ns, sent_ns, size, last_ns)
                continue
            since_ns = sent_ns - group.first_sent_ns
            if since_ns < 0:
                continue  # overtaken by the group before: it says nothing about queues
            if since_ns <= GROUP_NS:
                if sent_ns > group.last_sent_ns:
                    group.last_sent_ns = sent_ns
                group.last_arrived_ns = last_ns
                group.size += size
                continue
            if self._is_caught_up(group, sent_ns, arrived_ns):
                if sent_ns > group.last_sent_ns:
                    group.last_sent_ns = sent_ns
                group.last_arrived_ns = arrived_ns
                group.size += sizes[0]
                if len(sizes) == 1:
                    continue
                # How fast the others come after it tells of the path.
                arrived_ns, size = arrival.times_ns[1], size - sizes[0]
            self._complete(group)
            group = self._begin(arrived_ns, sent_ns, size, last_ns)
        self._group = group

    def waits_ns(self, one_way_ns: int) -> int | None:
        """What a packet that took so long waited in queues; None while nothing is known of the path."""
        return None if self._base_since_ns is None else max(0, one_way_ns - min(self._base_ns))

    def glance(self, one_way_ns: int, arrived_ns: int) -> None:
        """Follows the queue, but not its trend, by a packet that took so long."""
        self.queue_ns = (self.queue_ns + self._waited_ns(one_way_ns, arrived_ns)) // 2

    def skip(self) -> None:
        """What is added next does not follow what was added before, but the path is the same."""
        self.trend.skip()
        self.done.clear()
        self._group = None

    def reset(self) -> None:
        """The path is another one, or a clock has jumped."""
        self.trend = Trend()
        self.queue_ns = 0
        self.done.clear()
        self._group = None
        self._base_since_ns = None

    def busy_bps(self, *, span_ns: int, waited_ns: int) -> int | None:
        """What came through while a queue kept the path busy: the rate over the last groups that waited that long.

        At least ``span_ns`` / 2 of them; None when there are not so many.
        """
        size = 0
        newest: Group | None = None
        oldest: Group | None = None
        for group in reversed(self.done):
            if group.waited_ns < waited_ns:
                break
            if newest is None:
                newest = group
            elif newest.last_arrived_ns - group.last_arrived_ns > span_ns:
                break
            if oldest is not None:
                size += oldest.size
            oldest = group
        if newest is None or oldest is None:
            return None
        taken_ns = newest.last_arrived_ns - oldest.last_arrived_ns
        return size * 8_000_000_000 // taken_ns if taken_ns >= span_ns // 2 else None

    def standing_ns(self, *, span_ns: int, ago_ns: int = 0) -> int | None:
        """The queue that was there all the time: the least that a group waited of those that came within ``span_ns``.

        Delays that come and go are not queues of ours, and they leave some of what is sent as early as ever. The time
        ends ``ago_ns`` before the newest group came; None when none came within it.
        """
        group = self._group
        if group is None:
            return None
        until_ns = group.first_arrived_ns - ago_ns
        least_ns = None if ago_ns else group.waited_ns
        for each in reversed(self.done):
            if each.first_arrived_ns <= until_ns - span_ns:
                break
            if each.first_arrived_ns <= until_ns and (least_ns is None or each.waited_ns < least_ns):
                least_ns = each.waited_ns
        return least_ns

    def received_bps(self, *, span_ns: int) -> int | None:
        """What came through in the last ``span_ns`` by the receiver's clock; None before that much time has passed."""
        if not self.done:
            return None
        until_ns = self.done[-1].last_arrived_ns
        since_ns = until_ns - span_ns
        if self.done[0].last_arrived_ns > since_ns:
            return None
        index = bisect_right(self.done, since_ns, key=_arrival)
        return (self._done_bytes - self.done[index - 1].bytes_to) * 8_000_000_000 // span_ns

    def _waited_ns(self, one_way_ns: int, arrived_ns: int) -> int:
        if self._base_since_ns is None:
            self._base_since_ns = arrived_ns
            self._base_ns = [one_way_ns, one_way_ns]
        elif arrived_ns - self._base_since_ns > _BASE_NS:
            self._base_since_ns = arrived_ns
            self._base_ns = [one_way_ns, self._base_ns[0]]
        elif one_way_ns < self._base_ns[0]:
            self._base_ns[0] = one_way_ns
        return max(0, one_way_ns - min(self._base_ns))

    def _begin(self, arrived_ns: int, sent_ns: int, size: int, last_ns: int) -> Group:
        waited_ns = self._waited_ns(arrived_ns - sent_ns, arrived_ns)
        self.queue_ns = (self.queue_ns + waited_ns) // 2
        return Group(sent_ns, sent_ns, arrived_ns, last_ns, size, waited_ns)

    def _is_caught_up(self, group: Group, sent_ns: int, arrived_ns: int) -> bool:
        """Whether a packet was held up with those before it and comes in one burst, as Wi-Fi and LTE give them."""
        arrival_delta_ns = arrived_ns - group.last_arrived_ns
        return (
            arrival_delta_ns <= GROUP_NS
            and arrival_delta_ns < sent_ns - group.last_sent_ns
            and arrived_ns - group.first_arrived_ns < _BURST_NS
        )

    def _complete(self, group: Group) -> None:
        if self.done:
            before = self.done[-1]
            arrival_delta_ns = group.last_arrived_ns - before.last_arrived_ns
            send_delta_ns = group.last_sent_ns - before.last_sent_ns
            if abs(arrival_delta_ns - send_delta_ns) > _JUMP_NS or arrival_delta_ns < 0:
                self.reset()
            else:
                self.trend.add(arrival_delta_ns, send_delta_ns, group.last_arrived_ns)
        self._done_bytes += group.size
        group.bytes_to = self._done_bytes
        self.done.append(group)
