"""Steering encoders by scripts: conditions, time that passes, what is expected of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowstream import EncoderStats, Size, ViewerReport
from flowstream.proto.adaptation import START_BPS, Adaptation, EncoderTarget, Policy
from flowstream.proto.ladder import Rung
from flowstream.testing.adaptation import CONDITIONS, Conditions, Expect, Run, Watched, cellular, wavering

S = 1_000_000_000
K, M = 1_000, 1_000_000
ONE = Policy(rungs=(Rung("encode", 300 * K, 4 * M),))
LADDER = Policy(rungs=(Rung("low", 150 * K, 600 * K), Rung("middle", 400 * K, 1_500 * K), Rung("high", M, 4 * M)))

Targets = Mapping[str, EncoderTarget]


def running(*names: str) -> Callable[[Targets], bool]:
    return lambda targets: {name for name, each in targets.items() if not each.is_paused} == set(names)


# --- the numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_link_is_used_and_recovers_within_two_seconds(name: str) -> None:
    Watched(ONE).play(*CONDITIONS[name], Expect(utilisation=0.9, recovery_s=2.0))


@pytest.mark.parametrize("seed", range(8))
def test_so_it_is_on_every_mobile_network(seed: int) -> None:
    Watched(ONE).play(Conditions(bandwidth=cellular(seed)), Run(120), Expect(utilisation=0.9, recovery_s=2.0))


@pytest.mark.parametrize("policy", [ONE, LADDER], ids=["one", "ladder"])
@pytest.mark.parametrize("mean_bps", [250 * K, 400 * K, 620 * K, 800 * K, 1_050 * K, 1_300 * K, 1_700 * K, 4 * M])
def test_nothing_flaps_at_a_steady_rate_however_estimates_waver(policy: Policy, mean_bps: int) -> None:
    watched = Watched(policy)
    watched.play(Conditions(bandwidth=wavering(3, mean_bps=mean_bps)), Run(10), Expect())
    for _ in range(5):
        watched.play(Run(60), Expect(switches_a_minute=2))


@pytest.mark.parametrize("encode_ms", [20.0, 30.0, 34.0, 45.0, 80.0, 200.0])
def test_nothing_flaps_on_a_processor_that_is_steady(encode_ms: float) -> None:
    watched = Watched(ONE)
    watched.play(Conditions(bandwidth=3 * M, encode_ms=encode_ms), Run(20), Expect())
    for _ in range(3):
        watched.play(Run(60), Expect(switches_a_minute=2))


@pytest.mark.parametrize("mean_bps", [500 * K, 1_200 * K, 2_500 * K])
def test_without_an_estimate_losses_find_the_rate(mean_bps: int) -> None:
    watched = Watched(ONE, has_estimate=False)
    watched.play(Conditions(bandwidth=mean_bps), Run(30), Expect())
    watched.play(Run(120), Expect(utilisation=0.85, switches_a_minute=2))


# --- one encoder ----------------------------------------------------------------------------------------------------


def test_bounds_and_caps_hold() -> None:
    watched = Watched(Policy(rungs=ONE.rungs, viewer_most_bps=900 * K))
    watched.play(Conditions(bandwidth=3 * M), Run(5), Expect(holds=lambda t: t["encode"].bitrate_bps == 900 * K))
    watched = Watched(ONE)
    watched.play(
        Conditions(bandwidth=50 * M), Run(5), Expect(holds=lambda t: t["encode"].bitrate_bps == 4 * M),
        Conditions(bandwidth=100 * K), Run(5), Expect(holds=lambda t: t["encode"].bitrate_bps == 300 * K),
    )  # fmt: skip


def test_the_weakest_link_decides_for_everybody_on_a_rung_unless_it_may_be_left_out() -> None:
    script = (
        *(Conditions(bandwidth=3 * M, viewer=f"viewer-{number}") for number in range(9)),
        Conditions(bandwidth=500 * K, viewer="weak"),
        Run(10),
    )
    Watched(ONE).play(*script, Expect(holds=lambda t: t["encode"].bitrate_bps == 475 * K))
    lenient = Policy(rungs=ONE.rungs, leave_out=0.1)
    Watched(lenient).play(*script, Expect(holds=lambda t: t["encode"].bitrate_bps == 2_850 * K))


def test_a_fixed_rate_is_fixed() -> None:
    watched = Watched(Policy(rungs=LADDER.rungs, is_fixed=True))
    watched.play(
        Conditions(bandwidth=300 * K, encode_ms=100.0), Run(10),
        Expect(holds=lambda t: [each.bitrate_bps for each in t.values()] == [600 * K, 1_500 * K, 4 * M]),
        Expect(holds=running("low", "middle", "high")),
    )  # fmt: skip
    assert watched.adaptation.limit == "nothing"


def test_text_and_motion_give_up_different_things() -> None:
    def shown(content: str) -> Callable[[Targets], bool]:
        def holds(targets: Targets) -> bool:
            picture = targets["encode"].picture
            assert picture is not None
            is_whole = (picture.width, picture.height) == (1280, 720)
            return is_whole and picture.fps < 30 if content == "text" else not is_whole and picture.fps == 30

        return holds

    rungs = (Rung("encode", 100 * K, 4 * M),)
    for content, bandwidth in (("text", 300 * K), ("motion", 800 * K)):
        watched = Watched(Policy(rungs=rungs, content="text" if content == "text" else "motion"))
        watched.play(Conditions(bandwidth=bandwidth), Run(10), Expect(holds=shown(content)))


def test_content_that_is_found_out_counts_over_what_was_said() -> None:
    watched = Watched(Policy(rungs=(Rung("encode", 100 * K, 4 * M),), content="motion"))
    watched.adaptation.handle_content("text")
    watched.play(Conditions(bandwidth=300 * K), Run(10))
    picture = watched.targets["encode"].picture
    assert picture is not None
    assert (picture.width, picture.height) == (1280, 720)


def test_what_an_overload_takes_is_the_picture_and_not_the_bitrate() -> None:
    watched = Watched(ONE)
    watched.play(
        Conditions(bandwidth=3 * M), Run(10), Conditions(encode_ms=60.0), Run(10),
        Expect(utilisation=0.9, holds=lambda t: t["encode"].picture is not None),
    )  # fmt: skip
    assert watched.adaptation.limit == "processor"
    watched.play(Conditions(encode_ms=5.0), Run(30), Expect(holds=lambda t: t["encode"].picture is None))
    assert watched.adaptation.limit == "network"


def test_a_picture_of_another_size_is_known_from_the_encoder() -> None:
    watched = Watched(ONE, size=(1920, 1080))
    watched.play(Conditions(bandwidth=3 * M), Run(10))
    watched.size = (640, 360)
    watched.play(Run(5), Conditions(bandwidth=500 * K), Run(10), Expect(holds=lambda t: t["encode"].picture is None))


def test_a_small_window_gets_what_can_be_seen_in_it() -> None:
    adaptation = Adaptation(ONE)
    report = ViewerReport("phone", bandwidth_bps=20 * M, size=None)
    adaptation.handle_viewers("out", [report], now_ns=0)
    whole = adaptation.targets(now_ns=0)["encode"].bitrate_bps
    adaptation.handle_viewers("out", [ViewerReport("phone", bandwidth_bps=20 * M, size=Size(320, 180))], now_ns=S)
    assert adaptation.targets(now_ns=S)["encode"].bitrate_bps < whole / 5


def test_a_link_of_which_nothing_is_known_begins_low() -> None:
    adaptation = Adaptation(ONE)
    adaptation.handle_viewers("out", [ViewerReport("new")], now_ns=0)
    assert adaptation.targets(now_ns=0)["encode"].bitrate_bps == START_BPS
    for second in range(1, 30):
        adaptation.handle_viewers("out", [ViewerReport("new", loss=0.0)], now_ns=second * S)
        adaptation.targets(now_ns=second * S)
    assert adaptation.targets(now_ns=30 * S)["encode"].bitrate_bps == 4 * M


def test_what_all_links_together_carry_is_known_when_each_is() -> None:
    adaptation = Adaptation(ONE)
    assert adaptation.estimate_bps is None
    adaptation.handle_viewers("out", [ViewerReport("a", bandwidth_bps=2 * M), ViewerReport("b")], now_ns=0)
    assert adaptation.estimate_bps is None
    adaptation.handle_viewers("out", [ViewerReport("a", bandwidth_bps=2 * M)], now_ns=S)
    adaptation.handle_viewers("other", [ViewerReport("a", bandwidth_bps=M)], now_ns=S)
    assert adaptation.estimate_bps == 3 * M


def test_what_else_goes_over_the_link_is_kept_free() -> None:
    adaptation = Adaptation(Policy(rungs=ONE.rungs, reserve_bps=100 * K, headroom=0.0))
    adaptation.handle_viewers("out", [ViewerReport("viewer", bandwidth_bps=M)], now_ns=0)
    assert adaptation.targets(now_ns=0)["encode"].bitrate_bps == 900 * K


# --- whatever comes -------------------------------------------------------------------------------------------------

viewers = st.builds(
    ViewerReport,
    st.sampled_from(["a", "b", "c", "d"]),
    bandwidth_bps=st.one_of(st.none(), st.integers(1, 50_000_000)),
    loss=st.floats(0, 1),
    queue_delay_ms=st.floats(0, 5_000),
    rung=st.sampled_from([None, "low", "high", "elsewhere"]),
    cap_bps=st.one_of(st.none(), st.integers(1, 50_000_000)),
    size=st.one_of(st.none(), st.builds(Size, st.integers(1, 4_000), st.integers(1, 4_000))),
)
measured = st.builds(
    EncoderStats,
    st.sampled_from(["low", "middle", "high", "elsewhere"]),
    frames=st.integers(0, 100),
    encode_ms_mean=st.floats(0, 500),
    encode_ms_p95=st.floats(0, 500),
    frame_budget_ms=st.floats(0, 500),
    overload=st.booleans(),
    bitrate=st.integers(0, 10_000_000),
    size=st.builds(Size, st.integers(1, 4_000), st.integers(1, 4_000)),
    fps=st.floats(0, 240),
    cpu_share=st.floats(0, 4),
    qp_mean=st.one_of(st.none(), st.floats(0, 51)),
)
comes = st.one_of(
    st.lists(viewers, max_size=4, unique_by=lambda each: each.viewer),
    measured,
    st.sampled_from(["text", "motion", "camera"]),
)


@given(st.lists(st.tuples(comes, st.integers(0, 5 * S)), max_size=30), st.sampled_from([None, 500 * K, 5 * M]))
@settings(max_examples=150, deadline=None)
def test_targets_are_always_within_bounds(script: list[tuple[Any, int]], uplink_bps: int | None) -> None:
    adaptation = Adaptation(Policy(rungs=LADDER.rungs, uplink_bps=uplink_bps))
    bounds = {rung.encoder: (rung.min_bps, rung.max_bps) for rung in LADDER.rungs}
    now_ns = 0
    for each, wait_ns in script:
        now_ns += wait_ns
        if isinstance(each, list):
            adaptation.handle_viewers("out", each, now_ns=now_ns)
        elif isinstance(each, EncoderStats):
            adaptation.handle_encoder(each, now_ns=now_ns)
        else:
            adaptation.handle_content(each)
        targets = adaptation.targets(now_ns=now_ns)
        assert set(targets) == set(bounds)
        for name, target in targets.items():
            assert bounds[name][0] <= target.bitrate_bps <= bounds[name][1]
            assert target.picture is None or (min(target.picture.width, target.picture.height) > 0 < target.picture.fps)
        if adaptation.viewers:
            assert not all(target.is_paused for target in targets.values())
            assert sum(map(adaptation.viewers_of, targets)) == adaptation.viewers
            at_work = {name for name, target in targets.items() if not target.is_paused}
            assert {name for name in targets if adaptation.viewers_of(name)} <= at_work


# --- a ladder -------------------------------------------------------------------------------------------------------


def test_rungs_that_nobody_takes_are_not_encoded() -> None:
    watched = Watched(LADDER)
    watched.play(
        Conditions(bandwidth=3 * M, viewer="strong"), Run(5), Expect(holds=running("high")),
        Conditions(bandwidth=500 * K, viewer="weak"), Run(5), Expect(holds=running("high", "middle")),
        Conditions(bandwidth=200 * K, viewer="weakest"), Run(5), Expect(holds=running("high", "middle", "low")),
    )  # fmt: skip
    adaptation = watched.adaptation
    assert [adaptation.viewers_of(name) for name in ("low", "middle", "high")] == [1, 1, 1]


def test_before_anybody_told_who_watches_all_run_and_without_viewers_none() -> None:
    adaptation = Adaptation(LADDER)
    assert running("low", "middle", "high")(adaptation.targets(now_ns=0))
    adaptation.handle_viewers("out", [], now_ns=S)
    assert running()(adaptation.targets(now_ns=S))
    assert adaptation.limit == "nobody"


def test_what_others_take_runs_at_its_best_whoever_watches() -> None:
    adaptation = Adaptation(Policy(rungs=LADDER.rungs, kept=frozenset({"high"})))
    adaptation.handle_viewers("out", [], now_ns=0)
    targets = adaptation.targets(now_ns=0)
    assert running("high")(targets)
    assert targets["high"].bitrate_bps == 4 * M


def test_who_left_is_not_waited_for() -> None:
    adaptation = Adaptation(ONE)
    links = [ViewerReport("strong", bandwidth_bps=3 * M), ViewerReport("weak", bandwidth_bps=400 * K)]
    adaptation.handle_viewers("out", links, now_ns=0)
    adaptation.handle_viewers("other", [ViewerReport("strong", bandwidth_bps=2 * M)], now_ns=0)
    assert adaptation.targets(now_ns=0)["encode"].bitrate_bps == 380 * K
    adaptation.handle_viewers("out", links[:1], now_ns=S)
    assert adaptation.targets(now_ns=S)["encode"].bitrate_bps == 1_900 * K
    assert adaptation.viewers == 2


def test_an_output_that_is_gone_takes_its_viewers_along() -> None:
    adaptation = Adaptation(ONE)
    adaptation.handle_viewers("gone", [ViewerReport("weak", bandwidth_bps=400 * K)], now_ns=0)
    for second in range(7):
        adaptation.handle_viewers("out", [ViewerReport("strong", bandwidth_bps=2 * M)], now_ns=second * S)
        expected = 380 * K if second <= 5 else 1_900 * K
        assert adaptation.targets(now_ns=second * S)["encode"].bitrate_bps == expected
    assert adaptation.viewers == 1


def test_a_viewer_whose_link_falls_does_not_take_the_others_down() -> None:
    watched = Watched(LADDER)
    watched.play(
        Conditions(bandwidth=3 * M, viewer="a"), Conditions(bandwidth=3 * M, viewer="b"), Run(5),
        Conditions(bandwidth=300 * K, viewer="b"), Run(1),
        Expect(holds=lambda t: t["high"].bitrate_bps > 2 * M and t["low"].bitrate_bps < 300 * K),
    )  # fmt: skip


def test_the_uplink_is_kept_to() -> None:
    policy = Policy(rungs=LADDER.rungs, uplink_bps=4 * M)
    watched = Watched(policy)
    links = [Conditions(bandwidth=wavering(number, mean_bps=3 * M), viewer=str(number)) for number in range(4)]
    watched.play(*links, Run(10))
    adaptation = watched.adaptation
    for _ in range(20):
        watched.play(Run(1))
        cost = sum(each.bitrate_bps * adaptation.viewers_of(name) for name, each in watched.targets.items())
        assert 0.85 * 4 * M < cost <= 4 * M
    assert adaptation.limit == "uplink"


def test_viewers_on_the_edge_between_two_placings_stay_where_they_are() -> None:
    watched = Watched(Policy(rungs=(Rung("low", 300 * K, 4 * M), Rung("high", 300 * K, 4 * M))))
    for name, mean in (("a", 1_000 * K), ("b", 1_500 * K), ("c", 2_250 * K)):
        watched.play(Conditions(bandwidth=wavering(5, mean_bps=mean, share=0.05), viewer=name))
    watched.play(Run(5), Expect())
    rates = []
    for _ in range(60):
        watched.play(Run(1))
        rates.append(watched.targets["high"].bitrate_bps)
    assert max(rates) < 1.25 * min(rates)


def test_an_overload_takes_a_rung_first() -> None:
    watched = Watched(LADDER)
    for name, mean in (("a", 3 * M), ("b", 900 * K), ("c", 300 * K)):
        watched.play(Conditions(bandwidth=mean, viewer=name))
    watched.play(Run(5), Expect(holds=running("low", "middle", "high")))
    watched.play(Conditions(encode_ms=45.0), Run(3))
    assert sum(not each.is_paused for each in watched.targets.values()) < 3
    assert watched.adaptation.limit == "processor"
    watched.play(Conditions(encode_ms=3.0), Run(120), Expect(holds=running("low", "middle", "high")))


def test_who_serves_says_which_rung_a_viewer_gets() -> None:
    adaptation = Adaptation(LADDER)
    links = [ViewerReport("a", bandwidth_bps=3 * M), ViewerReport("b", bandwidth_bps=600 * K)]
    adaptation.handle_viewers("out", links, now_ns=0)
    adaptation.targets(now_ns=0)
    assert adaptation.viewers_of("high") == 1
    moved = [ViewerReport("a", bandwidth_bps=3 * M, rung="middle"), links[1]]
    adaptation.handle_viewers("out", moved, now_ns=S)
    adaptation.targets(now_ns=S)
    assert adaptation.viewers_of("middle") == 2


def test_what_is_wanted_can_change_while_it_runs() -> None:
    adaptation = Adaptation(ONE)
    adaptation.handle_viewers("out", [ViewerReport("viewer", bandwidth_bps=3 * M)], now_ns=0)
    assert set(adaptation.targets(now_ns=0)) == {"encode"}
    adaptation.set_policy(LADDER)
    assert running("high")(adaptation.targets(now_ns=S))
