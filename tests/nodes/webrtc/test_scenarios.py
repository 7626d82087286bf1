"""What a viewer sees when its link is bad: the real sender and a browser's ways of receiving, on the virtual clock.

Each scenario runs exactly the same every time, so that its expectations are close to what it gives: a picture that
stands still a little longer, a rung that is reached a little later, fails. Times are seconds since the pictures began.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from flowstream.proto.ice import Pair
from flowstream.proto.rtcp import Nack, ReceiverReport, TransportFeedback, WholeFeedback, pack_compound
from flowstream.testing import Change, VirtualClock, run_virtual
from flowstream_nodes.webrtc._viewers import AFTER_NS, ALONG_NS, DECISION_NS
from tests.nodes.webrtc.links import (
    FPS,
    SERVER,
    Story,
    VirtualStage,
    Watcher,
    apply,
    open_virtual_stage,
)
from tests.nodes.webrtc.receiver import MS, NS_PER_S

GOOD = {"rate": "6M", "delay": "25ms", "queue_time": "300ms"}
"""Carries the highest rung twice, 50 ms there and back."""

Play = Callable[[VirtualStage, Watcher], Awaitable[None]]


@dataclass
class Seen:
    """What came of a run with one viewer."""

    story: Story
    stage: VirtualStage
    watcher: Watcher
    stories: list[Story] = field(default_factory=list)


def watch(
    conditions: Mapping[str, Any],
    *,
    seconds: float,
    since: float = 1,
    back: Mapping[str, Any] | None = None,
    changes: tuple[Change, ...] = (),
    play: Play | None = None,
    has_sound: bool = False,
    parts: tuple[tuple[float, float], ...] = (),
    seed: int = 0,
) -> Seen:
    """One viewer behind a link. It joins while that loses nothing; ``changes`` are of both directions."""

    async def main(clock: VirtualClock) -> Seen:
        async with open_virtual_stage(clock, has_sound=has_sound) as stage:
            watcher = stage.watcher({"delay": conditions["delay"]}, seed=seed)
            await watcher.join(audio=has_sound)
            stage.network.change(watcher.down, **conditions)
            if back is not None:
                stage.network.change(watcher.up, **back)
            apply(stage, (watcher.down, watcher.up), changes)
            if play is not None:
                await play(stage, watcher)
            await stage.until(seconds)
            stories = [stage.story(watcher, since=begin, until=end) for begin, end in parts]
            return Seen(stage.story(watcher, since=since, until=seconds), stage, watcher, stories)

    return run_virtual(main)


def first_after(seen: Seen, second: float, *, rung: int | None = None) -> float:
    """How long after a time the next picture appeared, or the next one of a rung."""
    at_ns = seen.stage.begun_ns + round(second * NS_PER_S)
    return min(
        (each.at_ns - at_ns) / NS_PER_S
        for each in seen.watcher.shown
        if each.at_ns > at_ns and rung in (None, each.rung)
    )


LOSSES = {
    # share lost: most freezes, most time frozen, longest, delay p95 in ms
    "0%": (0, 0.0, 0.0, 45),
    "1%": (0, 0.0, 0.0, 95),
    "2%": (0, 0.0, 0.0, 95),
    "5%": (4, 0.9, 0.35, 160),  # what is sent again is lost as well, one in twenty
    "10%": (6, 1.4, 0.4, 220),
    "20%": (18, 4.5, 0.6, 380),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_chance_losses_are_repaired_and_do_not_lower_the_quality(loss: str) -> None:
    """The viewer sees every picture, in the highest rung; with 20 % lost they come haltingly, up to 0.4 s late."""
    freezes, frozen_s, longest_s, delay_ms = LOSSES[loss]
    seen = watch({**GOOD, "loss": loss}, seconds=12, seed=1)
    story = seen.story
    assert story.freezes <= freezes
    assert story.frozen_s <= frozen_s
    assert story.longest_s <= longest_s
    assert story.delay_p95_ms <= delay_ms
    assert story.share == 1
    assert story.rungs == ("low", "high")
    assert story.high >= 0.85
    assert seen.watcher.receiver.keyframes_asked == 0
    lost = seen.watcher.down.counts["lost"]
    resent = seen.watcher.session.streams["video"].packets_resent
    assert resent <= 1.5 * lost + 5, "a packet is sent again about as often as it is lost"


def test_short_bursts_are_repaired_like_chance_losses() -> None:
    """Five packets lost in a row, twice a second: the viewer sees every picture, at most a tenth of a second late."""
    story = watch({**GOOD, "burst_enter": "0.5%", "burst_leave": "20%"}, seconds=12).story
    assert (story.freezes, story.rungs) == (0, ("low", "high"))
    assert story.delay_p95_ms <= 95
    assert story.share >= 0.99


def test_long_bursts_make_the_picture_stop_for_less_than_a_second() -> None:
    """A tenth of a second of packets lost every few seconds: twice in twenty seconds the picture stands, then goes on
    in the same quality, from a keyframe where the packets could not be had any more."""
    seen = watch({**GOOD, "burst_enter": "0.1%", "burst_leave": "3%"}, seconds=20)
    story = seen.story
    assert story.freezes <= 2
    assert story.longest_s <= 0.8
    assert story.rungs == ("low", "high")
    assert story.share >= 0.95
    assert seen.stage.encoders.keyframes <= 7


@pytest.mark.parametrize(
    ("conditions", "delay_ms"),
    [({"reorder": "5%", "reorder_by": "20ms"}, 65), ({"duplicate": "10%"}, 45), ({"jitter": "30ms"}, 75)],
    ids=["reordering", "duplicates", "jitter"],
)
def test_what_the_link_shuffles_is_put_right_unseen(conditions: dict[str, str], delay_ms: int) -> None:
    """The viewer sees nothing of it but the delay of the packet that came last."""
    seen = watch({**GOOD, **conditions}, seconds=12)
    story = seen.story
    assert (story.freezes, story.rungs) == (0, ("low", "high"))
    assert story.delay_p95_ms <= delay_ms
    assert story.share >= 0.99
    assert story.high >= 0.85
    assert seen.watcher.session.sender.dropped_pictures == 0


@pytest.mark.parametrize("seed", range(1, 5))
def test_strong_jitter_costs_quality_but_no_picture(seed: int) -> None:
    """Delays that come and go within 50 ms look like queues: the viewer gets the middle rung, and every picture."""
    story = watch({**GOOD, "jitter": "50ms"}, seconds=12, seed=seed).story
    assert (story.freezes, story.rungs) == (0, ("low", "middle"))
    assert story.share >= 0.99
    assert story.delay_p95_ms <= 90


@pytest.mark.parametrize("seed", range(4))
def test_jitter_of_80_ms_costs_no_picture_either(seed: int) -> None:
    """The viewer gets now the middle rung and now the lowest, and every picture."""
    story = watch({**GOOD, "jitter": "80ms"}, seconds=12, seed=seed).story
    assert (story.freezes, story.rungs[0]) == (0, "low")
    assert {"middle", "high"}.intersection(story.rungs)
    assert story.share >= 0.99
    assert story.delay_p95_ms <= 120


def test_lost_feedback_is_missed_by_nobody() -> None:
    """A fifth of what the viewer says is lost: it sees what it would see without."""
    seen = watch(GOOD, seconds=12, back={"loss": "20%"})
    assert (seen.story.freezes, seen.story.rungs) == (0, ("low", "high"))
    assert seen.story.delay_p95_ms <= 45
    assert seen.watcher.up.counts["lost"] > 30


def test_steps_of_the_rate_are_followed_within_a_second_and_without_a_stop() -> None:
    """6 to 1.5 Mbit/s to 500 kbit/s and back: the viewer sees another sharpness within a second, pictures that are up
    to 0.4 s late while the queue empties, and after 3 s on time; upwards it takes 5 s. Nothing stops."""
    steps = (Change("5s", rate="1.5M"), Change("12s", rate="500k"), Change("18s", rate="6M"))
    seen = watch(GOOD, seconds=26, changes=steps, parts=((5, 8), (8, 12), (12, 15), (15, 18), (18, 26)))
    fall, settled, fall_again, settled_again, rise = seen.stories
    assert sum(part.freezes for part in seen.stories) == 0
    assert max(fall.delay_p95_ms, fall_again.delay_p95_ms) <= 450
    assert max(settled.delay_p95_ms, settled_again.delay_p95_ms) <= 75
    assert fall.rungs == ("high", "middle")
    assert settled.rungs == ("middle",)
    assert fall_again.rungs == ("middle", "low")
    assert settled_again.rungs == ("low",)
    assert rise.rungs == ("low", "high")
    assert rise.delay_p95_ms <= 50
    assert first_after(seen, 5, rung=1) <= 1
    assert first_after(seen, 12, rung=2) <= 1
    assert first_after(seen, 18, rung=0) <= 5
    assert min(part.share for part in seen.stories) >= 0.99


@pytest.mark.parametrize(("lasts_s", "back_s", "keyframes"), [(1, 0.25, 6), (10, 0.5, 7)])
def test_after_a_blackout_the_picture_is_back_at_once(lasts_s: int, back_s: float, keyframes: int) -> None:
    """Nothing gets through, in either direction: the picture stands still for that long, and a quarter to half a second
    after it is there again, in the rung it had, as of now. Nobody else is troubled with keyframes meanwhile."""
    ends_s = 5 + lasts_s
    script = (Change("5s", down="losing"), Change(f"{ends_s}s", down="no"))
    seen = watch(GOOD, seconds=ends_s + 5, changes=script, parts=((ends_s + 0.6, ends_s + 5),))
    (after,) = seen.stories
    assert first_after(seen, ends_s) <= back_s
    assert seen.story.longest_s <= lasts_s + back_s
    assert (after.freezes, after.rungs) == (0, ("high",))
    assert after.delay_p95_ms <= 60
    assert seen.stage.encoders.keyframes <= keyframes
    down_bytes = sum(seen.watcher.session.streams[kind].octets_sent for kind in ("video",))
    assert down_bytes < 2_500_000 / 8 * (5 + 2 + 5), "next to nothing is sent to who is not there"


@pytest.mark.parametrize("lasts_s", [1, 10])
def test_what_a_link_held_back_does_not_delay_what_comes_after(lasts_s: int) -> None:
    """A link that stands still and then delivers what it has kept, as at a change of cells: what was on its way is run
    through in a moment, and two seconds later the viewer is up to date."""
    ends_s = 5 + lasts_s
    script = (Change("5s", down="holding"), Change(f"{ends_s}s", down="no"))
    seen = watch(GOOD, seconds=ends_s + 8, changes=script, parts=((ends_s + 2, ends_s + 8),))
    (after,) = seen.stories
    assert first_after(seen, ends_s) <= 0.1
    assert seen.story.freezes == 1
    assert after.delay_p95_ms <= 60
    assert after.share >= 0.99
    assert seen.watcher.shown[-1].rung == 0


def test_a_new_address_is_followed_with_the_next_check() -> None:
    """The viewer's NAT gives it another port, and it does not know: the picture stands until its next connectivity
    check, 2.3 s later, and 0.3 s more; it comes back in the rung it had."""

    async def play(stage: VirtualStage, watcher: Watcher) -> None:
        await stage.until(5.2)
        watcher.move()

    seen = watch(GOOD, seconds=14, play=play, parts=((8.5, 14),))
    assert 2 < seen.story.longest_s <= 2.7
    assert seen.story.freezes <= 2
    assert seen.stories[0].rungs == ("high",)
    assert seen.stories[0].delay_p95_ms <= 60
    assert seen.watcher.session.ice.selected.remote == seen.watcher.address


def test_a_link_too_narrow_for_any_picture_carries_the_sound_and_the_picture_comes_back() -> None:
    """200 kbit/s for sound and 318 kbit/s of picture: the picture stands still from the third second on, the sound goes
    on as if nothing were; when the link is wide again there is a picture in two seconds, the best in 4.5."""
    seen = watch(
        {**GOOD, "rate": "200k"},
        seconds=18,
        has_sound=True,
        changes=(Change("12s", rate="6M"),),
        parts=((3, 12), (15, 18)),
    )
    narrow, wide = seen.stories
    sound_ns = [at_ns for at_ns in seen.watcher.receiver.sound_ns if at_ns > seen.stage.begun_ns + 6 * NS_PER_S]
    gaps_ms = [(later - earlier) / MS for earlier, later in pairwise(sound_ns)]
    assert max(gaps_ms) <= 100
    assert len(sound_ns) >= 0.99 * 50 * 12
    assert narrow.share < 0.1
    assert first_after(seen, 12) <= 2
    assert first_after(seen, 12, rung=0) <= 4.5
    assert wide.freezes == 0


def test_what_is_told_of_a_wide_link_waits_for_the_next_look_at_the_clock_and_of_a_narrow_one_it_does_not() -> None:
    def delays_ms(rate: str) -> list[float]:
        found: list[float] = []

        async def note(stage: VirtualStage, watcher: Watcher) -> None:
            sender, came = watcher.session.sender, stage.network.mux.arrive
            arrived_ns: dict[int, None] = {}
            take, glance = sender.handle_feedback, sender.estimator.handle_whole

            def arrive(data: bytes, pair: Pair) -> None:
                arrived_ns[stage.clock.now_ns()] = None
                came(data, pair)

            def told(now_ns: int) -> None:
                assert now_ns in arrived_ns, "it counts when it came"
                found.append((stage.clock.now_ns() - now_ns) / MS)

            def handle(packet: Any, *, now_ns: int) -> None:
                if isinstance(packet, TransportFeedback):
                    told(now_ns)
                take(packet, now_ns=now_ns)

            def handle_whole(feedback: WholeFeedback, *, now_ns: int) -> bool:
                is_all = glance(feedback, now_ns=now_ns)
                if is_all:
                    told(now_ns)
                    glances.append(rate)
                return is_all

            stage.network.mux.arrive = arrive  # type: ignore[method-assign]
            await stage.until(4)
            sender.handle_feedback = handle  # type: ignore[method-assign]
            sender.estimator.handle_whole = handle_whole  # type: ignore[method-assign]

        link = {"rate": rate, "delay": "33ms", "queue_time": "300ms"}  # or feedback comes when the clock is looked at
        story = watch(link, seconds=12, play=note).story
        assert story.freezes == 0
        return found

    glances: list[str] = []
    wide, narrow = delays_ms("40M"), delays_ms("3M")
    assert len(wide) > 60
    # A look at the clock comes 12 ms after the first picture that comes 33 ms after the last one.
    assert max(wide) <= ALONG_NS / MS + 1000 / FPS + AFTER_NS / MS
    assert glances.count("40M") > 0.8 * len(wide), "there is no need to look closely at it"
    assert sum(wide) / len(wide) > 5
    assert len(narrow) > 60
    assert max(narrow) == 0


def looks_of(rate: str, play: Play, *, seconds: float) -> tuple[list[float], Seen]:
    """When the viewers' clocks were looked at, in ms since the pictures began."""
    looks: list[float] = []

    async def note(stage: VirtualStage, watcher: Watcher) -> None:
        tick = stage.viewers._tick

        def noted() -> None:
            looks.append((stage.clock.now_ns() - stage.begun_ns) / MS)
            tick()

        stage.viewers._tick = noted  # type: ignore[method-assign]
        await play(stage, watcher)

    seen = watch({"rate": rate, "delay": "33ms", "queue_time": "300ms"}, seconds=seconds, play=note)
    return looks, seen


def test_clocks_are_looked_at_soon_after_a_picture_while_all_is_well_and_often_where_it_is_not() -> None:
    async def nothing(stage: VirtualStage, watcher: Watcher) -> None:
        pass

    def from_fifth_second(looks: list[float]) -> list[float]:
        return [each for each in looks if each >= 5000]

    wide = from_fifth_second(looks_of("40M", nothing, seconds=9)[0])
    assert {round(later - earlier) for earlier, later in pairwise(wide)} == {67}  # every second picture
    late = [(each - AFTER_NS / MS) % (1000 / FPS) for each in wide]
    assert all(min(each, 1000 / FPS - each) < 0.01 for each in late)
    narrow = from_fifth_second(looks_of("3M", nothing, seconds=9)[0])
    assert max(later - earlier for earlier, later in pairwise(narrow)) <= 51


@pytest.mark.parametrize(("rate", "ticks", "decisions"), [("40M", 7.5, 2), ("3M", 20, 5)])
def test_a_calm_link_is_looked_at_and_decided_on_less_often(rate: str, ticks: float, decisions: float) -> None:
    """``ticks`` and ``decisions`` are a second."""
    counts: Counter[str] = Counter()

    async def count(stage: VirtualStage, watcher: Watcher) -> None:
        await stage.until(5)
        sender, rungs = watcher.session.sender, stage.viewers.rungs
        tick, decide = sender.tick, rungs.decide

        def count_tick(**more: Any) -> None:
            counts["ticks"] += 1
            tick(**more)

        def count_decision(*sessions: Any, **more: Any) -> Any:
            counts["decisions"] += 1
            return decide(*sessions, **more)

        sender.tick = count_tick  # type: ignore[method-assign]
        rungs.decide = count_decision  # type: ignore[method-assign]

    watch({"rate": rate, "delay": "33ms", "queue_time": "300ms"}, seconds=15, play=count)
    assert counts["ticks"] == pytest.approx(10 * ticks, abs=3)
    assert counts["decisions"] == pytest.approx(10 * decisions, abs=3)


def test_a_link_that_becomes_narrow_is_looked_at_and_decided_on_often_at_once() -> None:
    looked: list[tuple[float, bool]] = []

    async def note(stage: VirtualStage, watcher: Watcher) -> None:
        await stage.until(5)
        tick, viewers = watcher.session.sender.tick, stage.viewers

        def noted(**more: Any) -> None:
            looked.append(((stage.clock.now_ns() - stage.begun_ns) / MS, viewers._is_calm))
            tick(**more)
            if not viewers._is_calm:
                assert viewers._next_decision_ns - stage.clock.now_ns() <= DECISION_NS

        watcher.session.sender.tick = noted  # type: ignore[method-assign]

    watch(
        {"rate": "40M", "delay": "33ms", "queue_time": "300ms"},
        seconds=9,
        play=note,
        changes=(Change("7s", rate="800k"),),
    )
    calm_until_ms = max(at_ms for at_ms, is_calm in looked if is_calm)
    assert 7000 < calm_until_ms < 7600
    after = [at_ms for at_ms, _ in looked if at_ms > calm_until_ms]
    assert max(later - earlier for earlier, later in pairwise(after)) <= 51


def test_who_fails_when_clocks_are_looked_at_fails_what_holds_the_viewers() -> None:
    async def fail(stage: VirtualStage, watcher: Watcher) -> None:
        await stage.until(5)
        assert stage.viewers._goes_along

        def tick(*, now_ns: int) -> None:
            raise RuntimeError("the channels fail")

        stage.viewers.channels.tick = tick  # type: ignore[method-assign]

    with pytest.raises(BaseExceptionGroup) as caught:
        watch({"rate": "40M", "delay": "33ms", "queue_time": "300ms"}, seconds=6, play=fail)
    assert caught.group_contains(RuntimeError, match="the channels fail")


def test_clocks_are_looked_at_when_no_more_pictures_come() -> None:
    async def stop(stage: VirtualStage, watcher: Watcher) -> None:
        await stage.until(5)
        stage.encoders.pictures = lambda *times: []  # type: ignore[assignment, method-assign]

    looks, _ = looks_of("40M", stop, seconds=6)
    gaps = [(later, later - earlier) for earlier, later in pairwise(looks) if later > 5000]
    assert max(gap for _, gap in gaps) <= 250 + 250
    assert all(gap <= 51 for at, gap in gaps if at > 5600)
    assert gaps[-1][0] > 5900


def test_clocks_are_looked_at_often_from_when_somebody_comes() -> None:
    async def invite(stage: VirtualStage, watcher: Watcher) -> None:
        await stage.until(5.01)
        assert stage.viewers._goes_along
        await stage.watcher({"delay": "33ms"}, seed=7).join(audio=False)

    looks, seen = looks_of("40M", invite, seconds=7)
    soon = [each for each in looks if 5000 < each < 5300]
    assert max(later - earlier for earlier, later in pairwise(soon)) <= 67
    assert sum(later - earlier < 51 for earlier, later in pairwise(soon)) >= 3
    assert all(each.session.sender.has_feedback for each in seen.stage.watchers)


def test_a_request_for_what_is_missed_waits_for_nothing() -> None:
    async def ask(stage: VirtualStage, watcher: Watcher) -> None:
        await stage.until(5)
        session = watcher.session
        while not stage.network.mux.waiting:
            await stage.clock.sleep_until_ns(stage.clock.now_ns() + MS)
        sent = session.streams["video"].packets_sent
        while session.streams["video"].packets_sent == sent:  # it arrives between two pictures
            await stage.clock.sleep_until_ns(stage.clock.now_ns() + MS)
        resent = session.streams["video"].packets_resent
        number = session.streams["video"]._sequence_number - 1
        watcher.send_rtcp(Nack(1, watcher.ssrcs[0], (number & 0xFFFF,)))
        await stage.clock.sleep_until_ns(stage.clock.now_ns() + 21 * MS)
        assert session.streams["video"].packets_resent == resent + 1

    watch({"rate": "40M", "delay": "20ms", "queue_time": "300ms"}, seconds=6, play=ask)


@pytest.mark.parametrize("what", ["request", "check"])
def test_what_was_reported_before_something_else_is_known_before_it(what: str) -> None:
    """Else a report would be taken for one of the path that a check has led to."""

    async def ask(stage: VirtualStage, watcher: Watcher) -> None:
        await stage.until(5)
        mux, session = stage.network.mux, watcher.session
        while not mux.waiting:
            await stage.clock.sleep_until_ns(stage.clock.now_ns() + MS)
        data = watcher.request()
        if what == "request":
            data = watcher.dtls._tx_srtp.protect_rtcp(pack_compound([Nack(1, watcher.ssrcs[0], (1,))]))
        mux.arrive(data, Pair(SERVER, watcher.address))
        assert not mux.waiting
        assert not session._put_off

    watch({"rate": "40M", "delay": "20ms", "queue_time": "300ms"}, seconds=6, play=ask)


def test_more_reports_than_viewers_can_have_are_read_as_they_come() -> None:
    """A stranger's flood must not leave those that count without room."""

    async def flood(stage: VirtualStage, watcher: Watcher) -> None:
        await stage.until(5)
        mux, looked_ns = stage.network.mux, stage.viewers._looked_ns
        while stage.viewers._looked_ns == looked_ns:
            await stage.clock.sleep_until_ns(stage.clock.now_ns() + MS)
        fake = ReceiverReport(1).to_bytes() + bytes(14)
        until_ns = stage.clock.now_ns() + 2 * NS_PER_S
        most = 0
        while stage.clock.now_ns() < until_ns:
            for _ in range(5):
                mux.arrive(fake, Pair(SERVER, ("203.0.113.7", 7)))
            most = max(most, len(mux.waiting))
            await stage.clock.sleep_until_ns(stage.clock.now_ns() + MS)
            if stage.clock.now_ns() > until_ns - NS_PER_S:
                assert not mux.waiting
        assert most > 100, "at first they wait"
        await stage.until(13)
        while not mux.waiting:
            await stage.clock.sleep_until_ns(stage.clock.now_ns() + MS)

    watch({"rate": "40M", "delay": "20ms", "queue_time": "300ms"}, seconds=14, play=flood)


def test_a_viewer_on_a_bad_link_troubles_nobody_else() -> None:
    """One viewer loses a tenth of everything and is cut off twice: another sees every picture on time, and no more than
    a few keyframes for the first one's sake."""

    async def main(clock: VirtualClock) -> tuple[Story, Story, int]:
        async with open_virtual_stage(clock) as stage:
            bad, good = stage.watcher({"delay": "25ms"}, seed=1), stage.watcher(GOOD, seed=2)
            for watcher in (bad, good):
                await watcher.join()
            stage.network.change(bad.down, **{**GOOD, "loss": "10%"})
            cuts = [Change("5s", down="losing"), Change("6s", down="no")]
            cuts += [Change("9s", down="losing"), Change("10s", down="no")]
            apply(stage, (bad.down, bad.up), cuts)
            await stage.until(14)
            stories = [stage.story(watcher, since=1, until=14) for watcher in (bad, good)]
            return stories[0], stories[1], stage.encoders.keyframes

    bad, good, keyframes = run_virtual(main)
    assert (good.freezes, good.rungs[-1]) == (0, "high")
    assert good.share >= 0.99
    assert good.delay_p95_ms <= 60
    assert bad.longest_s <= 1.6
    assert bad.frozen_s <= 5
    assert keyframes <= 12


UPLINK = {"rate": "12M", "delay": "20ms", "queue_time": "300ms"}


@pytest.mark.parametrize("uplink_bps", [12_000_000, None], ids=["set", "not set"])
def test_ten_viewers_share_an_uplink_of_12_mbit_and_none_starves(uplink_bps: int | None) -> None:
    """Ten viewers come within three seconds, behind one uplink that would carry the highest rung for four: each sees at
    least twenty pictures in every second, packets wait no longer than 100 ms, and most of the uplink is used, whether
    ``uplink`` says what it carries or nobody knows."""
    seconds = 14

    async def main(clock: VirtualClock) -> tuple[VirtualStage, list[list[Story]], list[float], int]:
        async with open_virtual_stage(clock) as stage:
            stage.uplink_bps = uplink_bps
            shared = stage.network.add(UPLINK, stage.arrive_down, seed=1)
            for number in range(10):
                await stage.watcher_on(shared, seed=number).join()
                await stage.until(0.3 * (number + 1))
            await stage.until(seconds)
            stories = [
                [stage.story(watcher, since=second, until=second + 1) for second in range(4, seconds)]
                for watcher in stage.watchers
            ]
            since_ns = stage.begun_ns + 4 * NS_PER_S
            waits_ms = sorted(
                (wait - 20 * MS) / MS for each in stage.watchers for at_ns, wait in each.waits_ns if at_ns >= since_ns
            )
            late_ns = stage.begun_ns + (seconds - 4) * NS_PER_S
            packets = sum(at_ns >= late_ns for each in stage.watchers for at_ns, _ in each.waits_ns)
            return stage, stories, waits_ms, packets

    stage, stories, waits_ms, packets = run_virtual(main)
    assert waits_ms[int(0.95 * len(waits_ms))] <= 100
    assert min(story.pictures for viewer in stories for story in viewer) >= 2 * FPS // 3
    assert sum(story.freezes for viewer in stories for story in viewer) == 0
    assert packets * 1_228 * 8 / 4 >= 0.6 * 12_000_000
    assert {watcher.shown[-1].rung for watcher in stage.watchers} & {0, 1}, "not all of them stay on the lowest"
