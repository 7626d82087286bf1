"""When trains are sent, and what their arrival says."""

from itertools import pairwise

from flowstream.proto.congestion.probing import Found, Probe, Probing
from flowstream.proto.congestion.sent import Arrival

MS = 1_000_000
MOST = 10_000_000


def train(probe: Probe, *, path_bps: int, packets: int = 0, since_ns: int = 0) -> list[Arrival]:
    """The train's packets as a path of this rate gives them."""
    count = packets or -(-probe.size // 1200)
    arrivals = []
    free_ns = 0
    for index in range(count):
        sent_ns = since_ns + index * 1200 * 8 * 1_000_000_000 // probe.bps
        free_ns = max(free_ns, sent_ns) + 1200 * 8 * 1_000_000_000 // path_bps
        arrivals.append(Arrival.alone(free_ns + 20 * MS, sent_ns, 1200, probe.number))
    return arrivals


def poll(probing: Probing, now_ms: int, *, estimate_bps: int = 300_000, is_quiet: bool = True) -> Probe | None:
    return probing.poll(estimate_bps=estimate_bps, most_bps=MOST, is_quiet=is_quiet, now_ns=now_ms * MS)


def test_the_first_trains_have_three_and_six_times_the_first_rate_then_twice_what_came_through() -> None:
    probing = Probing(start_bps=300_000)
    first = poll(probing, 0)
    assert first == Probe(1, 900_000, 6000)
    assert poll(probing, 1) is None
    assert probing.add(train(first, path_bps=50_000_000), estimate_bps=300_000) == Found(900_000, False)
    second = poll(probing, 20, estimate_bps=900_000)
    assert second == Probe(2, 1_800_000, 6000)
    assert probing.add(train(second, path_bps=50_000_000), estimate_bps=900_000) == Found(1_800_000, False)
    third = poll(probing, 40, estimate_bps=1_800_000)
    assert third is not None
    assert (third.bps, third.size) == (2_700_000, 6000)


def test_a_train_that_is_held_back_measures_the_path() -> None:
    probing = Probing(start_bps=1_000_000)
    first = poll(probing, 0, estimate_bps=1_000_000)
    assert first is not None
    found = probing.add(train(first, path_bps=2_000_000), estimate_bps=1_000_000)
    assert found is not None
    assert found.is_bound
    assert 1_800_000 <= found.bps <= 2_000_000
    # What is twice as fast is not tried then.
    assert poll(probing, 20, estimate_bps=found.bps) is None


def test_later_trains_wait_for_a_quiet_path_and_for_longer_when_they_find_nothing() -> None:
    probing = Probing(start_bps=300_000)
    first = poll(probing, 0)
    assert first is not None
    probing.add(train(first, path_bps=400_000), estimate_bps=400_000)
    times = []
    for now_ms in range(100, 12_000, 10):
        later = poll(probing, now_ms, estimate_bps=400_000)
        if later is not None:
            times.append(now_ms)
            probing.add(train(later, path_bps=400_000), estimate_bps=400_000)
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 2000
    assert poll(probing, 20_000, estimate_bps=400_000, is_quiet=False) is None
    probing.sooner()
    assert poll(probing, 20_000, estimate_bps=400_000) is None
    assert poll(probing, 20_500, estimate_bps=400_000) is not None


def test_a_train_that_does_not_arrive_is_given_up() -> None:
    probing = Probing(start_bps=300_000)
    assert poll(probing, 0) is not None
    assert poll(probing, 900) is None
    assert poll(probing, 1001) is not None
    assert probing.is_open


def test_half_a_train_says_nothing_and_one_in_no_time_nothing_either() -> None:
    probing = Probing(start_bps=300_000)
    first = poll(probing, 0)
    assert first is not None
    assert probing.add(train(first, path_bps=10**7)[:3], estimate_bps=300_000) is None
    assert probing.add([Arrival.alone(5, 0, 9000, first.number)] * 5, estimate_bps=300_000) is None
    assert probing.add([Arrival.alone(5, 0, 9000, 99)], estimate_bps=300_000) is None


def test_nothing_is_tried_beyond_what_is_wanted_or_below_what_it_costs() -> None:
    probing = Probing(start_bps=4_000_000)
    first = poll(probing, 0, estimate_bps=4_000_000)
    assert first is not None
    assert first.bps == MOST
    full = Probing(start_bps=MOST)
    assert poll(full, 0, estimate_bps=MOST) is None
    assert poll(full, 60_000, estimate_bps=MOST) is None
    slow = Probing(start_bps=10_000)
    assert poll(slow, 0, estimate_bps=200_000) is None
    assert poll(slow, 60_000, estimate_bps=200_000) is None


def test_what_could_find_no_more_than_a_twentieth_is_not_sent() -> None:
    nearly = Probing(start_bps=MOST)
    assert poll(nearly, 0, estimate_bps=int(0.96 * MOST)) is not None
    nearly.failed()
    nearly.restart()
    assert poll(nearly, 10_000, estimate_bps=int(0.96 * MOST)) is None
    assert poll(nearly, 60_000, estimate_bps=int(0.96 * MOST)) is None
    idle = Probing(start_bps=100_000)
    idle.failed()
    for now_ms in (0, 60_000):
        wanted = idle.poll(
            estimate_bps=int(0.96 * MOST), most_bps=MOST, is_quiet=True, is_idle=True, now_ns=now_ms * MS
        )
        assert wanted is None
    assert poll(nearly, 60_000, estimate_bps=int(0.95 * MOST)) is not None


def test_what_is_asked_for_is_tried_at_once() -> None:
    probing = Probing(start_bps=10_000)
    poll(probing, 0, estimate_bps=500_000)
    probing.ask(1_500_000)
    asked = poll(probing, 10, estimate_bps=500_000, is_quiet=False)
    assert asked is not None
    assert asked.bps == 1_500_000
