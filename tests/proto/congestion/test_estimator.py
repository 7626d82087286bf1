"""The estimate on a scripted clock; what it makes of whole paths is in tests/tools/test_congestion.py."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.congestion.arrivals import Arrivals
from flowstream.proto.congestion.estimator import LEAST_BPS, BandwidthEstimator
from flowstream.proto.rtcp import TransportFeedback, WholeFeedback, read_whole_feedback

MS = 1_000_000
S = 1000 * MS


class Path:
    """A sender at the target rate (or a given one) and a receiver behind a path of one rate, 30 ms away."""

    def __init__(self, estimator: BandwidthEstimator, path_bps: int, *, at_length: bool = False) -> None:
        """``at_length``: all feedback is looked at closely."""
        self.estimator = estimator
        self.at_length = at_length
        self.glances = 0
        self.path_bps = path_bps
        self.now_ms = 0
        self.is_cut = False
        self.drift = 0.0  # how much faster the receiver's clock is, as a share
        self.bunches_ms = 0  # packets come at multiples of this only, as from a radio that sends now and then
        self.probes: list[int] = []
        self._arrivals = Arrivals(ssrc=1)
        self._under_way: list[tuple[int, int]] = []
        self._back: list[tuple[int, TransportFeedback]] = []
        self._free_ns = 0
        self._due = 0.0

    def run(self, seconds: float, *, rate_bps: int | None = None) -> None:
        for _ in range(round(1000 * seconds)):
            now_ns = self.now_ms * MS
            if self.now_ms % 5 == 0:
                self._due += (rate_bps or self.estimator.target_bps) * 0.005 / 8
                count, self._due = int(self._due // 1200), self._due % 1200
                self._send(count, 0, now_ns)
            if self.now_ms % 20 == 0:
                probe = self.estimator.poll(now_ns=now_ns)
                if probe is not None:
                    self.probes.append(probe.bps)
                    self._send(probe.size // 1200, probe.number, now_ns)
            while self._under_way and self._under_way[0][0] <= now_ns:
                arrived_ns, number = self._under_way.pop(0)
                self._arrivals.add(number, now_ns=round(arrived_ns * (1 + self.drift)))
            if self.now_ms % 50 == 0:
                feedback = self._arrivals.take(media_ssrc=2)
                if feedback is not None:
                    self._back.append((now_ns + 30 * MS, feedback))
            while self._back and self._back[0][0] <= now_ns:
                self._tell(self._back.pop(0)[1], now_ns)
            self.now_ms += 1

    def _tell(self, feedback: TransportFeedback, now_ns: int) -> None:
        whole = None if self.at_length else read_whole_feedback(feedback.to_bytes())
        if whole is not None and self.estimator.handle_whole(whole, now_ns=now_ns):
            self.glances += 1
        else:
            self.estimator.handle_feedback(feedback, now_ns=now_ns)
        known = self._conclusions()
        self.estimator._settle()
        assert known == self._conclusions(), "what follows is known at once"

    def _conclusions(self) -> tuple[int, bool, bool]:
        return self.estimator.target_bps, self.estimator.is_calm, self.estimator.is_quiet

    def _send(self, count: int, probe: int, now_ns: int) -> None:
        first = self.estimator.packets.next_number
        self.estimator.sent([1200] * count, now_ns=now_ns, probe=probe)
        for index in range(count):
            if not self.is_cut:
                self._free_ns = max(self._free_ns, now_ns) + 1200 * 8 * S // self.path_bps
                arrives_ns = self._free_ns + 30 * MS
                if self.bunches_ms:
                    arrives_ns += -arrives_ns % (self.bunches_ms * MS)
                self._under_way.append((arrives_ns, (first + index) & 0xFFFF))


def test_it_finds_a_path_in_two_seconds_and_stays_there() -> None:
    estimator = BandwidthEstimator(now_ns=0)
    path = Path(estimator, 3_000_000)
    path.run(2)
    assert 2_400_000 <= estimator.estimate().bandwidth_bps <= 3_300_000
    lowest, highest = 1 << 40, 0
    for _ in range(60):
        path.run(0.5)
        lowest = min(lowest, estimator.target_bps)
        highest = max(highest, estimator.target_bps)
    assert lowest >= 2_100_000
    assert highest <= 3_600_000
    assert estimator.estimate().loss == 0
    assert estimator.round_trip_ns == pytest.approx(70 * MS, rel=0.5)


def test_a_drop_is_followed_within_a_second_and_its_queue_drained() -> None:
    estimator = BandwidthEstimator(now_ns=0)
    path = Path(estimator, 3_000_000)
    path.run(10)
    path.path_bps = 1_000_000
    states = set()
    for _ in range(10):
        path.run(0.1)
        states.add((estimator.estimate().state, estimator.estimate().bound))
    assert ("draining", "delay") in states
    assert estimator.target_bps <= 1_100_000
    path.run(0.5)
    assert estimator.estimate().queue_delay_ns <= 40 * MS
    path.run(5)
    assert 800_000 <= estimator.target_bps <= 1_100_000


def test_a_wider_path_is_found_by_probing_although_the_queue_says_nothing() -> None:
    estimator = BandwidthEstimator(now_ns=0)
    path = Path(estimator, 1_000_000)
    path.run(20)
    path.path_bps = 4_000_000
    path.run(5)
    assert estimator.target_bps >= 3_000_000


def test_who_sends_little_learns_by_probes_only_and_is_told_so() -> None:
    estimator = BandwidthEstimator(now_ns=0, most_bps=5_000_000)
    path = Path(estimator, 20_000_000)
    path.run(20, rate_bps=200_000)
    assert estimator.target_bps == 5_000_000
    assert max(path.probes) <= 5_000_000
    before = len(path.probes)
    path.run(20, rate_bps=200_000)
    assert len(path.probes) == before, "the highest that is of use was found"
    assert estimator.estimate().bound == "most"
    limited = BandwidthEstimator(now_ns=0)
    Path(limited, 2_000_000).run(20, rate_bps=200_000)
    assert limited.estimate().bound == "sender"
    assert 1_500_000 <= limited.target_bps <= 2_200_000


def test_a_queue_of_who_sends_far_less_than_was_thought_is_seen_all_the_same() -> None:
    estimator = BandwidthEstimator(now_ns=0, start_bps=2_000_000)
    path = Path(estimator, 6_000_000)
    path.run(5, rate_bps=300_000)
    assert estimator.target_bps >= 2_000_000
    path.path_bps = 150_000
    path.run(0.7, rate_bps=300_000)
    assert estimator.target_bps <= 150_000


def test_what_a_path_was_begun_with_is_given_up_when_the_first_train_does_not_come_through() -> None:
    estimator = BandwidthEstimator(now_ns=0, start_bps=700_000)
    path = Path(estimator, 400_000)
    path.run(1, rate_bps=200_000)
    assert 340_000 <= estimator.target_bps <= 480_000
    estimator.path_changed(now_ns=path.now_ms * MS)
    assert estimator.target_bps == 700_000
    path.run(1, rate_bps=200_000)
    assert 340_000 <= estimator.target_bps <= 480_000


def test_what_was_sent_on_another_path_says_nothing_about_this_one() -> None:
    estimator = BandwidthEstimator(now_ns=0)
    path = Path(estimator, 8_000_000)
    path.run(10, rate_bps=4_000_000)
    path.path_bps = 250_000
    estimator.path_changed(now_ns=path.now_ms * MS)
    highest = 0
    for _ in range(300):
        path.run(0.02, rate_bps=min(estimator.target_bps, 4_000_000))
        highest = max(highest, estimator.target_bps)
    assert highest <= 500_000


def test_one_train_that_comes_late_says_nothing_about_a_path_that_carries_what_is_sent() -> None:
    estimator = BandwidthEstimator(now_ns=0, most_bps=6_000_000)
    path = Path(estimator, 8_000_000)
    path.bunches_ms = 20
    path.run(10)
    assert estimator.target_bps == 6_000_000
    path.run(10, rate_bps=300_000)
    assert estimator.target_bps == 6_000_000


def test_what_is_believed_of_a_far_narrower_path_is_found_out_although_little_is_sent() -> None:
    estimator = BandwidthEstimator(now_ns=0)
    path = Path(estimator, 1_800_000)
    path.run(10, rate_bps=200_000)
    assert estimator.target_bps >= 1_400_000
    before = len(path.probes)
    path.path_bps = 700_000
    while len(path.probes) == before:
        path.run(0.02, rate_bps=200_000)
    path.run(0.3, rate_bps=200_000)
    assert estimator.target_bps >= 1_400_000, "one train may have met with somebody else's packets"
    path.run(8, rate_bps=200_000)
    assert 500_000 <= estimator.target_bps <= 800_000
    path.path_bps = 3_000_000
    path.run(8, rate_bps=200_000)
    assert estimator.target_bps >= 2_000_000


def test_a_silent_path_halves_the_rate_and_its_return_finds_the_old_one() -> None:
    estimator = BandwidthEstimator(now_ns=0)
    path = Path(estimator, 3_000_000)
    path.run(10)
    path.is_cut = True
    path.run(3)
    assert estimator.estimate().state == "silent"
    assert "tells nothing" in estimator.estimate().why
    assert estimator.target_bps <= 300_000
    path.run(7)
    assert estimator.target_bps == LEAST_BPS
    path.is_cut = False
    path.run(2.5)
    assert estimator.target_bps >= 2_000_000


def test_who_sends_nothing_is_not_silent() -> None:
    estimator = BandwidthEstimator(now_ns=0)
    path = Path(estimator, 3_000_000)
    path.run(5)
    before = estimator.estimate().bandwidth_bps
    for now_ms in range(path.now_ms + 200, path.now_ms + 60_000, 20):
        if not estimator.packets.in_flight_bytes:
            estimator.poll(now_ns=now_ms * MS)
    assert estimator.estimate().bandwidth_bps >= 0.5 * before


def test_another_path_begins_anew_and_asks_for_the_old_rate() -> None:
    estimator = BandwidthEstimator(now_ns=0)
    path = Path(estimator, 3_000_000)
    path.run(10)
    estimator.path_changed(now_ns=path.now_ms * MS)
    assert estimator.target_bps <= 300_000
    assert estimator.estimate().state == "starting"
    path.run(2)
    assert estimator.target_bps >= 2_000_000


def test_too_much_under_way_holds_back_before_any_feedback_says_so() -> None:
    estimator = BandwidthEstimator(now_ns=0)
    path = Path(estimator, 3_000_000)
    path.run(5)
    before = estimator.target_bps
    estimator.sent([1200] * 400, now_ns=path.now_ms * MS)
    estimator.poll(now_ns=path.now_ms * MS)
    assert estimator.target_bps < 0.5 * before
    assert estimator.estimate().bound == "in-flight"


def test_remb_is_the_estimate_without_feedback_and_a_bound_with_it() -> None:
    estimator = BandwidthEstimator(now_ns=0)
    estimator.handle_remb(1_250_000, now_ns=S)
    assert estimator.target_bps == 1_250_000
    assert estimator.estimate().bound == "receiver"
    estimator.handle_report(loss=0.5, round_trip_ns=80 * MS, now_ns=S)
    assert estimator.target_bps == 1_250_000
    assert (estimator.estimate().loss, estimator.estimate().round_trip_ns) == (0.5, 80 * MS)
    estimator.handle_remb(1, now_ns=2 * S)
    assert estimator.target_bps == LEAST_BPS

    bounded = BandwidthEstimator(now_ns=0)
    path = Path(bounded, 3_000_000)
    path.run(5)
    bounded.handle_remb(700_000, now_ns=path.now_ms * MS)
    assert bounded.target_bps == 700_000
    assert bounded.estimate().bound == "receiver"
    path.run(6)
    assert bounded.target_bps > 700_000, "an old REMB bounds nothing"


def test_reports_are_the_last_resort() -> None:
    estimator = BandwidthEstimator(now_ns=0, start_bps=1_000_000, most_bps=1_200_000)
    estimator.handle_report(loss=0.05, round_trip_ns=None, now_ns=S)
    assert estimator.target_bps == 1_000_000
    estimator.handle_report(loss=0.2, round_trip_ns=None, now_ns=2 * S)
    assert estimator.target_bps == 900_000
    assert estimator.estimate().why == "more is lost on the path (now 20.0 %)"
    for second in range(3, 10):
        estimator.handle_report(loss=0.0, round_trip_ns=50 * MS, now_ns=second * S)
    assert estimator.target_bps == 1_200_000


def test_with_reports_alone_what_arrived_is_carried_and_more_is_found_by_sending_more() -> None:
    estimator = BandwidthEstimator(now_ns=0, start_bps=600_000)

    clock = itertools.count(50 * MS, 50 * MS)

    def send(bps: int, seconds: int) -> None:
        for now_ns in itertools.islice(clock, 20 * seconds):
            estimator.sent([bps // 8 // 20], now_ns=now_ns)
            estimator.poll(now_ns=now_ns)

    send(1_500_000, 1)
    estimator.handle_report(loss=0.0, round_trip_ns=None, now_ns=S)
    assert estimator.target_bps == pytest.approx(1_500_000, rel=0.05)
    send(100_000, 1)
    estimator.handle_report(loss=0.9, round_trip_ns=None, now_ns=2 * S)
    assert estimator.target_bps < 1_000_000
    for second in range(3, 13):  # a picture that is paused would else never come back
        send(100_000, 1)
        estimator.handle_report(loss=0.0, round_trip_ns=None, now_ns=second * S)
    assert estimator.target_bps > 1_500_000


def test_a_path_that_carries_enough_is_seldom_probed_for_more() -> None:
    """Padding is sent for it, and nobody waits for what may be found."""

    def probes(enough_bps: int, path_bps: int) -> int:
        path = Path(BandwidthEstimator(now_ns=0, most_bps=20_000_000), path_bps)
        path.estimator.enough_bps = enough_bps
        path.run(10, rate_bps=1_000_000)
        before = len(path.probes)
        path.run(32, rate_bps=1_000_000)
        return len(path.probes) - before

    assert probes(20_000_000, 6_000_000) >= 15
    assert 3 <= probes(2_500_000, 6_000_000) <= 6
    assert probes(2_500_000, 2_000_000) >= 15, "there is not enough"


def test_a_path_is_begun_with_what_is_about_to_be_sent_until_something_has_come_back() -> None:
    estimator = BandwidthEstimator(now_ns=0, start_bps=600_000, most_bps=5_000_000)
    estimator.expect(1_200_000)
    estimator.expect(900_000)
    estimator.poll(now_ns=20 * MS)
    assert estimator.target_bps == 1_200_000
    estimator.handle_report(loss=0.5, round_trip_ns=None, now_ns=S)
    estimator.expect(3_000_000)
    assert estimator.target_bps == 900_000


FEEDBACK = st.builds(
    TransportFeedback,
    st.just(1),
    st.just(2),
    st.integers(0, 0xFFFF) | st.integers(0, 60),
    st.integers(-(1 << 23), (1 << 23) - 1) | st.integers(0, 30),
    st.integers(0, 255),
    st.lists(st.none() | st.integers(0, 255) | st.integers(-0x8000, 0x7FFF), min_size=1, max_size=40).map(tuple),
)


@given(
    st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 20))
        | FEEDBACK
        | st.tuples(st.just("remb"), st.integers(0, 1 << 40))
        | st.tuples(st.just("report"), st.floats(0, 1), st.none() | st.integers(0, 10**10)),
        max_size=40,
    )
)
def test_whatever_a_receiver_tells_the_target_stays_within_its_bounds(steps: list[object]) -> None:
    estimator = BandwidthEstimator(now_ns=0, most_bps=5_000_000)
    now_ns = 0
    for step in steps:
        match step:
            case TransportFeedback():
                estimator.handle_feedback(step, now_ns=now_ns)
            case ("remb", int(bps)):
                estimator.handle_remb(bps, now_ns=now_ns)
            case ("report", float(loss), trip):
                assert trip is None or isinstance(trip, int)
                estimator.handle_report(loss=loss, round_trip_ns=trip, now_ns=now_ns)
            case (int(wait_ms), int(count)):
                now_ns += wait_ms * MS
                probe = estimator.poll(now_ns=now_ns)
                estimator.sent([1200] * count, now_ns=now_ns, probe=probe.number if probe else 0)
        assert LEAST_BPS <= estimator.target_bps <= 5_000_000
        estimate = estimator.estimate()
        assert estimate.bandwidth_bps <= 5_000_000
        assert 0 <= estimate.loss <= 1
        assert min(estimate.queue_delay_ns, estimate.round_trip_ns) >= 0
        assert estimate.why


def test_it_finds_the_path_again_when_nothing_is_sent_any_more() -> None:
    """A picture that was paused for want of a path is not what finds out that the path is back."""
    estimator = BandwidthEstimator(now_ns=0)
    path = Path(estimator, 3_000_000)
    path.run(4)
    path.is_cut = True
    path.run(2)
    path.run(8, rate_bps=1)
    assert estimator.target_bps < 250_000
    before = len(path.probes)
    path.run(10, rate_bps=1)
    assert 3 <= len(path.probes) - before <= 10, "a small train now and then shows when it is back"
    path.is_cut = False
    path.run(8, rate_bps=1)
    assert estimator.estimate().bandwidth_bps > 1_000_000


def test_a_low_estimate_rises_although_nothing_is_sent() -> None:
    estimator = BandwidthEstimator(now_ns=0)
    path = Path(estimator, 3_000_000)
    path.run(4)
    path.path_bps = 180_000
    path.run(30)
    path.path_bps = 3_000_000
    assert estimator.target_bps < 250_000
    path.run(12, rate_bps=1)
    assert estimator.estimate().bandwidth_bps > 1_000_000


def carries(bps: int) -> Callable[[Path], None]:
    def happens(path: Path) -> None:
        path.path_bps = bps

    return happens


def cut(path: Path) -> None:
    path.is_cut = True


def in_bunches(path: Path) -> None:
    path.bunches_ms = 40


@pytest.mark.parametrize("happens", [*map(carries, (300_000, 500_000, 700_000, 900_000, 1_300_000)), cut, in_bunches])
def test_what_happens_to_a_quiet_path_is_seen_as_soon_as_if_all_was_looked_at_closely(
    happens: Callable[[Path], None],
) -> None:
    paths = [
        Path(BandwidthEstimator(now_ns=0, most_bps=5_000_000), 20_000_000, at_length=at_length)
        for at_length in (False, True)
    ]
    for path in paths:
        path.estimator.enough_bps = 2_500_000
        path.run(20, rate_bps=1_000_000)
        assert path.estimator.is_calm
        assert path.estimator.estimate().bandwidth_bps == 5_000_000
    assert paths[0].glances > 200, "nearly all of the feedback since the path was found"
    assert not paths[1].glances
    for path in paths:
        happens(path)
    for _ in range(100):
        for path in paths:
            path.run(0.05, rate_bps=1_000_000)
        quiet, close = (path.estimator.estimate() for path in paths)
        assert paths[0].estimator.is_calm == paths[1].estimator.is_calm
        assert quiet.state == close.state
        assert quiet.target_bps == pytest.approx(close.target_bps, rel=0.1)
        assert quiet.loss == pytest.approx(close.loss, abs=0.02)
        assert paths[0].estimator.packets.in_flight_bytes == paths[1].estimator.packets.in_flight_bytes


def test_on_a_quiet_path_all_that_is_sent_counts_as_received() -> None:
    estimator = BandwidthEstimator(now_ns=0, most_bps=5_000_000)
    path = Path(estimator, 20_000_000)
    path.run(10, rate_bps=1_000_000)
    assert path.glances
    assert estimator.received_bps == pytest.approx(1_000_000, rel=0.05)
    path.run(5, rate_bps=500_000)
    assert estimator.received_bps == pytest.approx(500_000, rel=0.05)


def test_what_is_kept_of_a_quiet_path_is_bounded() -> None:
    estimator = BandwidthEstimator(now_ns=0, most_bps=5_000_000)
    path = Path(estimator, 20_000_000)
    path.run(10, rate_bps=1_000_000)
    assert len(estimator._seen) == pytest.approx(20, abs=2), "a second of feedback"
    assert sum(1 for run in estimator.packets._runs if run[2]) <= 300, "packets"
    now_ns = path.now_ms * MS
    for _ in range(1000):  # by a receiver that tells far more often than it has to
        number = estimator.packets.next_number
        estimator.sent([100], now_ns=now_ns)
        estimator.handle_whole(WholeFeedback(number, now_ns // (64 * MS), b"\0"), now_ns=now_ns)
    assert len(estimator._seen) <= 64


def test_another_path_begins_with_nothing_that_was_seen_of_the_old_one() -> None:
    estimator = BandwidthEstimator(now_ns=0, most_bps=5_000_000)
    path = Path(estimator, 20_000_000)
    path.run(10, rate_bps=1_000_000)
    estimator.path_changed(now_ns=path.now_ms * MS)
    assert not estimator._seen
    assert not estimator.is_quiet
    assert estimator.received_bps == 0


def test_how_far_clocks_drift_apart_on_a_quiet_path_is_no_queue_and_no_end_of_one() -> None:
    estimator = BandwidthEstimator(now_ns=0, most_bps=5_000_000)
    path = Path(estimator, 20_000_000)
    path.drift = -0.001
    estimator.enough_bps = 2_500_000
    path.run(30, rate_bps=1_000_000)
    assert path.glances > 300
    assert estimator._has_gap
    before = TransportFeedback(1, 2, 0, 0, 0, (0,))  # it tells nothing new
    estimator.handle_feedback(before, now_ns=path.now_ms * MS)
    assert estimator._delay.trend.usage == "normal"
    assert estimator.is_calm
    assert estimator._delay.done[0].first_sent_ns > path.now_ms * MS - 1.2 * S, "the trend is of the last second alone"


def test_what_looking_back_shows_counts_at_once_whatever_made_it_look() -> None:
    """Each feedback tells of two packets: the first of them waits longer and longer, the second does not."""
    estimator = BandwidthEstimator(now_ns=0, most_bps=5_000_000)
    path = Path(estimator, 20_000_000)
    estimator.enough_bps = 2_500_000
    path.run(20, rate_bps=1_000_000)
    path.is_cut = True
    path.run(0.2, rate_bps=1)
    now_ns = path.now_ms * MS
    now_ns += (-now_ns - 30 * MS) % (64 * MS)
    glances = 0
    for step in range(8):
        now_ns += 128 * MS
        first = estimator.packets.next_number
        estimator.sent([100], now_ns=now_ns)
        estimator.sent([100], now_ns=now_ns + 60 * MS)
        came = (now_ns + 30 * MS) // (64 * MS)
        ticks = 24 * step, 240 - 24 * step
        glances += estimator.handle_whole(WholeFeedback(first, came, bytes(ticks)), now_ns=now_ns + 100 * MS)
    assert glances == 8
    assert estimator.is_calm
    estimator.handle_feedback(TransportFeedback(1, 2, 0, 0, 0, (0,)), now_ns=now_ns + 101 * MS)
    known = path._conclusions()
    estimator._settle()
    assert path._conclusions() == known
    assert not estimator.is_quiet


def test_what_a_glance_makes_of_losses_counts_at_once() -> None:
    """A stretch without losses after some with: how much the path is taken to carry is judged anew by it."""
    estimator = BandwidthEstimator(now_ns=0, most_bps=5_000_000)
    path = Path(estimator, 20_000_000)
    estimator.enough_bps = 2_500_000
    path.run(20, rate_bps=1_000_000)
    losses = estimator._loss
    losses._received = losses._bytes = 0
    losses._since_ns = (path.now_ms - 780) * MS
    for ago_ms in (520, 260):
        now_ns = (path.now_ms - ago_ms) * MS
        losses.add(received=25, lost=5, size=30_000, estimate_bps=5_000_000, least_bps=LEAST_BPS, now_ns=now_ns)
    estimator._settle()
    assert estimator.is_quiet
    before, known = path.glances, set[bool]()
    for _ in range(20):
        path.run(0.05, rate_bps=1_000_000)
        known.add(estimator.is_calm)
    assert path.glances > before
    assert known == {True, False}
