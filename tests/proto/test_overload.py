"""An encoder that does not keep up is given less, and more again when there is time for it."""

from __future__ import annotations

from flowstream.proto.overload import Overload

S = 1_000_000_000
WHOLE = 1280 * 720 * 30.0
BUDGET_MS = 1000 / 30


class Encoder:
    """Takes ``whole_ms`` for a whole picture, and reports each second."""

    def __init__(self, whole_ms: float) -> None:
        self.whole_ms = whole_ms
        self.overload = Overload()
        self.now_ns = 0
        self.changes = 0

    def run(self, seconds: int) -> float:
        for _ in range(seconds):
            shown = min(self.overload.most_pixels_per_s or WHOLE, WHOLE)
            encode_ms = self.whole_ms * shown / WHOLE
            self.changes += self.overload.handle(
                is_overloaded=encode_ms > BUDGET_MS,
                encode_ms=encode_ms,
                budget_ms=BUDGET_MS,
                pixels_per_s=shown,
                whole_pixels_per_s=WHOLE,
                now_ns=self.now_ns,
            )
            self.now_ns += S
        return (self.overload.most_pixels_per_s or WHOLE) / WHOLE


def test_one_that_keeps_up_has_no_limit() -> None:
    encoder = Encoder(20.0)
    assert encoder.run(60) == 1.0
    assert encoder.overload.most_pixels_per_s is None


def test_one_that_does_not_is_given_what_it_gets_through_by_the_next_report() -> None:
    encoder = Encoder(50.0)
    assert encoder.run(1) * 50.0 <= BUDGET_MS * 0.76


def test_a_single_slow_picture_is_no_overload() -> None:
    overload = Overload()
    for second, is_slow in enumerate([True, False, True, False]):
        overload.handle(
            is_overloaded=is_slow, encode_ms=20.0, budget_ms=BUDGET_MS, pixels_per_s=WHOLE, whole_pixels_per_s=WHOLE,
            now_ns=second * S,
        )  # fmt: skip
    assert overload.most_pixels_per_s is None


def test_much_too_much_is_cut_more_than_once() -> None:
    encoder = Encoder(400.0)
    encoder.run(1)
    assert encoder.changes == 1
    assert encoder.run(8) * 400.0 <= BUDGET_MS


def test_it_stays_where_it_is_while_nothing_changes() -> None:
    encoder = Encoder(60.0)
    encoder.run(5)
    encoder.changes = 0
    encoder.run(120)
    assert encoder.changes == 0


def test_it_gets_more_when_there_is_time_for_it_again() -> None:
    encoder = Encoder(60.0)
    encoder.run(5)
    encoder.whole_ms = 8.0
    assert encoder.run(9) < 1.0
    assert encoder.run(5) == 1.0


def test_more_that_was_too_much_is_tried_ever_later() -> None:
    encoder = Encoder(60.0)
    for _ in range(30):  # ten minutes of a machine that has time for 15 s and none for 5 s
        encoder.whole_ms = 8.0
        encoder.run(15)
        encoder.whole_ms = 60.0
        encoder.run(5)
    assert encoder.changes <= 8
