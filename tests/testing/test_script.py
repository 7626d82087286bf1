"""Scripts for one node: steps are taken at their times, and what is not seen is said."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from flowstream import Config, Context, Emit, Input, KeyframeRequest, Node, Output, Record, Source, Transform, live
from flowstream.testing import Emission, End, Expect, Give, Harness, Reconfigure, Replace, Request


class AddConfig(Config):
    add: int = live(default=1, description="Number that is added.")


class Add(Transform[AddConfig], type="acme/add"):
    """Adds."""

    numbers = Input(Record)
    sums = Output(Record)
    total = 0
    asked = 0
    restores = (2,)

    def process(self, item: Record[int]) -> Iterator[Emit[Record[int]]]:
        self.total += item.value + self.config.add
        self.ctx.report(total=self.total)
        yield self.sums(Record(self.total, item.time_ns))

    def finish(self) -> Iterator[Emit[Record[int]]]:
        yield self.sums(Record(-1, 0))

    def snapshot(self) -> Any:
        return Left(2, {"total": self.total})

    def restore(self, left: Any) -> None:
        self.total = left.values["total"]


@dataclass
class Left:
    version: int
    values: dict[str, int]


class Ticks(Source, type="acme/ticks"):
    """Ticks each 10 ms."""

    out = Output(Record)

    async def run(self, ctx: Context) -> None:
        begin_ns = ctx.now_ns()
        for number in range(100):
            await ctx.sleep_until_ns(begin_ns + number * 10_000_000)
            await ctx.emit(self.out(Record(number, ctx.media_ns())))


class Follow(Node, type="acme/follow"):
    """Passes on, and asks when it is told something."""

    numbers = Input(Record)
    hint: Input[Record[int]] = Input(Record, feedback=True)
    out = Output(Record)

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        async for item in ctx.stream(self.numbers):
            if ctx.latest(self.hint) is not None:
                ctx.request(self.numbers, KeyframeRequest())
            await ctx.emit(self.out(item))


def test_what_happens_when() -> None:
    with Harness(Add) as add:
        came = add.play(
            Give("0s", Record(1, 0)),
            Expect("5ms", emitted=1, last=Record(2, 0), facts={"total": 2}),
            Reconfigure("10ms", add=100),
            Give(20_000_000, Record(1, 1)),
            Expect("20ms", emitted=2, output="sums", last=lambda item: item.value == 103),
            Request("30ms", Add.sums),
            Expect("30ms", requests=1),
            End("40ms"),
        )
    assert came == [
        Emission(0, "sums", Record(2, 0)),
        Emission(20_000_000, "sums", Record(103, 1)),
        Emission(40_000_000, "sums", Record(-1, 0)),
    ]


def test_a_source_goes_on_between_the_steps() -> None:
    with Harness(Ticks) as ticks:
        came = ticks.play(Expect("95ms", emitted=10), Expect("100ms", emitted=11))
    assert [each.at_ns for each in came] == [number * 10_000_000 for number in range(11)]


def test_feedback_is_given_by_name_and_an_input_may_end_alone() -> None:
    with Harness(Follow) as follow:
        follow.play(
            Give("0s", Record(1, 0), "numbers"),
            Expect("0s", emitted=1, requests=0),
            Give("10ms", Record(7, 0), "hint"),
            Give("20ms", Record(2, 0)),
            Expect("20ms", emitted=2, requests=1),
            End("30ms", "numbers"),
        )
        assert not follow.is_running


def test_plain_state_passes_to_a_replacement_that_knows_its_version() -> None:
    with Harness(Add) as add:
        add.play(Give("0s", Record(1, 0)), Replace("10ms", {"add": 10}), Give("20ms", Record(0, 0)))
        assert add.payloads()[-1].value == 12
        Add.restores = (1,)
        try:
            add.play(Replace("0s"), Give("0s", Record(0, 0)))
        finally:
            Add.restores = (2,)
        assert add.payloads()[-1].value == 1


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (Expect("1s", emitted=2), "at 1s: 1 payloads came, not 2"),
        (Expect("1s", emitted=2, output="sums"), "at 1s: 1 payloads of sums came, not 2"),
        (Expect("1s", last=Record(3, 0)), "at 1s: the last payload is Record(value=2, time_ns=0"),
        (Expect("1s", output="other", last=3), "at 1s: no payload of other came"),
        (Expect("1s", facts={"total": 3}, requests=1), "at 1s: total is 2, not 3; 0 requests went up, not 1"),
    ],
)
def test_what_is_not_seen_is_said(expected: Expect, said: str) -> None:
    with Harness(Add) as add, pytest.raises(AssertionError) as caught:
        add.play(Give("0s", Record(1, 0)), expected)
    assert str(caught.value).startswith(said)


def test_steps_stand_in_the_order_of_their_times() -> None:
    with Harness(Add) as add, pytest.raises(ValueError, match="comes too late: it is 1s already"):
        add.play(Give("1s", Record(1, 0)), Expect("900ms", emitted=1))
