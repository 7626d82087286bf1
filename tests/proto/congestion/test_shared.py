"""What viewers get together grows step by step, and no further than their common uplink has shown."""

from flowstream.proto.congestion.shared import GROWS, KEPT, Flow, SharedUplink

MS = 1_000_000
S = 1_000 * MS
LOW, HIGH = 300_000, 2_500_000


def follow(
    uplink: SharedUplink, flows: list[Flow], *, since_s: float, seconds: float, step_bps: int = HIGH - LOW
) -> list[int]:
    """What all may get, every 200 ms."""
    found = []
    for tick in range(round(seconds * 5)):
        bound = uplink.follow(flows, step_bps=step_bps, now_ns=round((since_s + tick / 5) * S))
        assert bound is not None
        found.append(bound.bps)
    return found


def test_one_viewer_has_all_it_can_get() -> None:
    assert SharedUplink().follow([Flow(HIGH, HIGH, True)], step_bps=HIGH, now_ns=0) is None


def test_a_few_rise_one_after_the_other_and_many_by_a_share_of_what_they_get() -> None:
    few = [Flow(LOW, LOW, False)] * 4
    assert max(follow(SharedUplink(), few, since_s=0, seconds=1)) == 4 * LOW + HIGH - LOW
    many = [Flow(LOW, LOW, False)] * 100
    assert max(follow(SharedUplink(), many, since_s=0, seconds=1)) == int(100 * LOW * (1 + GROWS))


def test_most_held_up_together_is_the_uplink_and_one_alone_is_its_own_link() -> None:
    uplink = SharedUplink()
    own = [Flow(LOW, LOW, False)] * 4 + [Flow(HIGH, 1_000_000, True)]
    follow(uplink, own, since_s=0, seconds=4)
    assert not uplink.is_tight
    together = [Flow(HIGH, 1_200_000, True)] * 4 + [Flow(LOW, 200_000, False)]
    assert follow(uplink, together, since_s=4, seconds=0.2) == [int(KEPT * 5_000_000)]
    assert uplink.is_tight


def test_what_was_found_is_tried_again_later_each_time() -> None:
    uplink = SharedUplink()
    full = [Flow(HIGH, 2_000_000, True)] * 5
    calm = [Flow(1_900_000, 1_900_000, False)] * 5
    follow(uplink, calm, since_s=0, seconds=3)
    now_s, rests = 3.0, []
    for _ in range(3):
        (found_bps,) = follow(uplink, full, since_s=now_s, seconds=0.2)
        began_s = now_s
        while follow(uplink, calm, since_s=now_s + 0.2, seconds=0.2) == [found_bps]:
            now_s += 0.2
        rests.append(now_s - began_s)
        now_s += 0.4
    assert rests[0] < 3.5
    assert rests[1] > 1.8 * rests[0]
    assert rests[2] > 1.8 * rests[1]


def test_viewers_that_come_hold_each_other_up_and_say_nothing_of_the_uplink() -> None:
    uplink = SharedUplink()
    for count in range(2, 8):
        follow(uplink, [Flow(LOW, LOW, True)] * count, since_s=count, seconds=1)
    assert not uplink.is_tight
    follow(uplink, [Flow(LOW, LOW, True)] * 7, since_s=8, seconds=2)
    assert uplink.is_tight
