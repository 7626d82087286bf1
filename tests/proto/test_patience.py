"""Trying for more: after a while, and later each time that it did not last."""

from flowstream.proto.patience import Patience


def test_it_is_due_when_it_was_possible_all_the_time() -> None:
    patience = Patience(100, longest_ns=400, lasts_ns=50)
    assert not patience.is_due(True, now_ns=0)
    assert not patience.is_due(False, now_ns=60)
    assert not patience.is_due(True, now_ns=70)
    assert not patience.is_due(True, now_ns=169)
    assert patience.is_due(True, now_ns=170)
    assert not patience.is_due(True, now_ns=171), "the next one waits anew"


def test_what_did_not_last_makes_the_next_wait_longer_up_to_a_bound() -> None:
    patience = Patience(100, longest_ns=350, lasts_ns=50)
    now_ns, waits = 0, []
    for _ in range(4):
        begin_ns = now_ns
        while not patience.is_due(True, now_ns=now_ns):
            now_ns += 10
        waits.append(now_ns - begin_ns)
        now_ns += 40
        patience.undone(now_ns=now_ns)
    assert waits == [100, 200, 350, 350]


def test_what_lasted_makes_it_short_again() -> None:
    patience = Patience(100, longest_ns=400, lasts_ns=50)
    patience.is_due(True, now_ns=0)
    assert patience.is_due(True, now_ns=100)
    patience.undone(now_ns=120)
    patience.is_due(True, now_ns=200)
    assert not patience.is_due(True, now_ns=399)
    assert patience.is_due(True, now_ns=400)
    patience.undone(now_ns=450)
    patience.is_due(True, now_ns=500)
    assert patience.is_due(True, now_ns=600)


def test_what_nobody_tried_cannot_fail() -> None:
    patience = Patience(100, longest_ns=400, lasts_ns=50)
    patience.undone(now_ns=0)
    patience.is_due(True, now_ns=0)
    assert patience.is_due(True, now_ns=100)
