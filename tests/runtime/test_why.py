"""Each kind of cause from a view made by hand, in its exact words."""

import dataclasses
import itertools
from typing import Any

import pytest

from flowstream.runtime.audience import Limit, Limited
from flowstream.runtime.cause import Cause, Kind
from flowstream.runtime.view import EdgeView, Hold, NodeView, View
from flowstream.runtime.why import causes, duration, verdict

S = 1_000_000_000
NOW = 1_000 * S
NOON = 1_767_268_991 * S  # 2026-01-01 12:03:11 UTC
STATES = ("running", "ready")


def node(id: str, state: str = "running", **more: Any) -> NodeView:
    return NodeView(id, state, **{"since_ns": NOW - 600 * S, **more})


def edge(wiring: str, name: str = "", **more: Any) -> EdgeView:
    """``"screen > encode"``; flows at 30 a second unless told otherwise."""
    producer, consumer = wiring.split(" > ")
    flowing = {"output": "out", "overflow": "drop-oldest", "begun_ns": NOW - 600 * S, "last_ns": NOW - S // 30}
    flowing |= {"usual_ns": S // 30, "rate": 30.0, "most": 4}
    return EdgeView(name=name or f"{consumer}.video", producer=producer, consumer=consumer, **{**flowing, **more})


def view(nodes: list[NodeView], edges: list[EdgeView], **more: Any) -> View:
    return View(NOW, NOON, {each.id: each for each in nodes}, tuple(edges), **more)


def still(wiring: str, seconds: float = 4.1, **more: Any) -> EdgeView:
    return edge(wiring, **{"last_ns": NOW - round(seconds * S), "rate": 0.0, **more})


SCREEN = node("screen", is_source=True)
CHAIN = [SCREEN, node("encode"), node("out")]
SILENT = [still("screen > encode"), still("encode > out", 4.0)]
DOWN = {"is_source": True, "error": "the X server closed the connection", "is_peer_error": True}
AV = [node("film", is_source=True), node("tape")]


def blocked(wiring: str, seconds: float = 4.1, **more: Any) -> EdgeView:
    """Full, and its producer waits."""
    full = {"overflow": "block", "queued": 4, "waits": True, "blocked_since_ns": NOW - round(seconds * S)}
    return still(wiring, seconds, **{**full, **more})


CASES: dict[str, tuple[View, list[tuple[str, Kind, str]]]] = {
    "silent source": (
        view(CHAIN, SILENT),
        [
            (
                "screen",
                "silent-source",
                "out is starved: encode has waited 4.1 s for screen, which has delivered nothing since 12:03:06",
            )
        ],
    ),
    "silent from the start": (
        view(
            [SCREEN, node("out")],
            [still("screen > out", last_ns=None, usual_ns=None, begun_ns=NOW - 6 * S)],
        ),
        [
            (
                "screen",
                "silent-source",
                "out is starved: it has waited 6 s for screen, which has delivered nothing "
                "since it was started at 12:03:05",
            )
        ],
    ),
    "one of two outputs is silent": (
        view(
            AV,
            [
                edge("film > tape", "tape.video", output="video"),
                still("film > tape", name="tape.audio", output="audio"),
            ],
        ),
        [
            (
                "film",
                "silent-source",
                "tape is starved: it has waited 4.1 s for film, which has delivered nothing on audio since 12:03:06",
            )
        ],
    ),
    "starvation in the middle": (
        view(CHAIN, [edge("screen > encode"), still("encode > out")]),
        [
            (
                "encode",
                "starvation",
                "out is starved: it has waited 4.1 s for encode, which takes what screen gives "
                "and has delivered nothing since 12:03:06",
            )
        ],
    ),
    "refused peer": (
        view(
            [node("screen", "restarting", since_ns=NOW - 4 * S, retry_at_ns=NOW + 2 * S, **DOWN), *CHAIN[1:]], SILENT
        ),
        [
            (
                "screen",
                "refused-peer",
                "out is starved: encode has waited 4.1 s for screen, which has delivered nothing since 12:03:06; "
                "the X server closed the connection; next attempt in 2 s",
            )
        ],
    ),
    "refused peer that nobody waits for": (
        view([SCREEN, node("tape", "failed", since_ns=NOW - 4 * S, error="the disk is full")], [edge("screen > tape")]),
        [
            (
                "tape",
                "failed",
                "tape failed at 12:03:07: the disk is full; it stays down until it is changed in the graph",
            )
        ],
    ),
    "restart loop": (
        view(
            [
                node(
                    "screen", "restarting", since_ns=NOW - 3 * S, retry_at_ns=NOW - 1,
                    failures=(NOW - 300 * S, NOW - 40 * S, NOW - 20 * S, NOW - 3 * S), **DOWN,
                ),
                *CHAIN[1:],
            ],
            SILENT,
        ),
        [
            (
                "screen",
                "restart-loop",
                "out is starved: encode has waited 4.1 s for screen, which has failed 3 times in the last minute, "
                "last at 12:03:08: the X server closed the connection; an attempt is under way",
            )
        ],
    ),
    "restart loop between two failures": (
        view(
            [
                node(
                    "screen", since_ns=NOW - 2 * S, failures=(NOW - 40 * S, NOW - 20 * S, NOW - 3 * S),
                    is_source=True, error="unplugged",
                ),
                *CHAIN[1:],
            ],
            [edge("screen > encode"), edge("encode > out")],
        ),
        [
            (
                "screen",
                "restart-loop",
                "screen has failed 3 times in the last minute, last at 12:03:08: unplugged; "
                "it runs again since 12:03:09",
            )
        ],
    ),
    "does not come up": (
        view([SCREEN, node("out", "starting", since_ns=NOW - 20 * S)], [edge("screen > out")]),
        [("out", "starting", "out has been starting for 20 s")],
    ),
    "a consumer that takes nothing": (
        view(
            [SCREEN, node("encode"), node("tape", is_waiting=False)],
            [edge("screen > encode"), still("encode > tape", queued=4, losses={"overflow": 30.0})],
        ),
        [
            (
                "tape",
                "slow-consumer",
                "tape has taken nothing since 12:03:06 (4.1 s): it is still busy with what it took last, "
                "and 4 wait on tape.video; 30/s are dropped there",
            )
        ],
    ),
    "a transform that takes nothing": (
        view(
            [SCREEN, node("encode", is_waiting=False), node("out")],
            [still("screen > encode", queued=4, losses={"overflow": 30.0}), still("encode > out", 4.0)],
        ),
        [
            (
                "encode",
                "slow-consumer",
                "out is starved: it has waited 4.1 s for encode, which has taken nothing since 12:03:06 (4.1 s): "
                "it is still busy with what it took last, and 4 wait on encode.video; 30/s are dropped there",
            )
        ],
    ),
    "a consumer that takes nothing and is waited for": (
        view([SCREEN, node("tape", is_waiting=False)], [blocked("screen > tape", queued=1)]),
        [
            (
                "tape",
                "slow-consumer",
                "tape has taken nothing since 12:03:06 (4.1 s): it is still busy with what it took last, "
                "and 1 waits on tape.video, so screen waits too",
            )
        ],
    ),
    "a slow consumer": (
        view(
            [SCREEN, node("tape", is_waiting=False)],
            [edge("screen > tape", overflow="block", rate=3.2, waits=True, queued=4, blocked_since_ns=NOW - 65 * S)],
        ),
        [
            (
                "tape",
                "slow-consumer",
                "tape is slow: it takes 3.2/s, and screen has waited for it for 1 min 5 s (tape.video is full)",
            )
        ],
    ),
    "one that blocks stops its siblings": (
        view(
            [SCREEN, node("encode"), node("out"), node("tape", is_waiting=False)],
            [blocked("screen > encode"), still("encode > out"), blocked("encode > tape")],
        ),
        [
            (
                "tape",
                "blocked-siblings",
                "tape holds up out: it has taken nothing since 12:03:06 (4.1 s): it is still busy with what it took "
                "last, and 4 wait on tape.video; tape.video makes encode wait (overflow: block), "
                "and with it all that take from it",
            )
        ],
    ),
    "one that blocks slows its siblings": (
        view(
            [SCREEN, node("out"), node("tape", is_waiting=False)],
            [
                edge("screen > out"),
                edge("screen > tape", overflow="block", rate=5.0, waits=True, queued=4, blocked_since_ns=NOW - 9 * S),
            ],
        ),
        [
            (
                "tape",
                "blocked-siblings",
                "tape holds up out: it takes only 5.0/s; tape.video makes screen wait (overflow: block), "
                "and with it all that take from it",
            )
        ],
    ),
    "deadlock": (
        view(
            [SCREEN, node("left"), node("right"), node("join")],
            [
                blocked("screen > left"),
                still("screen > right"),
                blocked("left > join", name="join.left"),
                still("right > join", name="join.right"),
            ],
        ),
        [
            (
                "screen",
                "deadlock",
                "nothing moves since 12:03:06: screen waits for left to take what is on left.video, "
                "left waits for join to take what is on join.left, join waits for right and right waits for screen; "
                "raise limit: of left.video, or let it drop (overflow: drop-oldest)",
            )
        ],
    ),
    "drop storm": (
        view([SCREEN, node("view")], [edge("screen > view", rate=12.0, queued=4, losses={"overflow": 18.0})]),
        [
            (
                "view",
                "drop-storm",
                "view takes 12/s of the 30/s that screen gives; view.video drops 18/s (overflow)",
            )
        ],
    ),
    "nothing but waiting for a keyframe": (
        view([SCREEN, node("view")], [still("screen > view", losses={"waiting-for-keyframe": 30.0})]),
        [
            (
                "view",
                "drop-storm",
                "view takes 0/s of the 30/s that screen gives; view.video drops 30/s (waiting-for-keyframe)",
            )
        ],
    ),
    "the loop was held": (
        view(
            [SCREEN, node("blur")], [edge("screen > blur")], holds=(Hold("blur", 180_000_000, NOW - S),)
        ),
        [
            (
                "blur",
                "held-loop",
                "blur kept everything waiting for 180 ms at 12:03:10: its work is done between that of all others; "
                "thread = True in its class gives it a thread of its own",
            )
        ],
    ),
    "the loop was held by a life of its own": (
        view(
            [SCREEN, node("blur")],
            [edge("screen > blur")],
            holds=(Hold("blur", 180_000_000, NOW - S, has_run=True),),
        ),
        [
            (
                "blur",
                "held-loop",
                "blur kept everything waiting for 180 ms at 12:03:10: its work is done between that of all others; "
                "await ctx.in_thread(...) in its run() takes what computes or blocks to a thread of its own",
            )
        ],
    ),
    "a slow consumer that computes": (
        view(
            [SCREEN, node("encode", cpu=0.97)],
            [edge("screen > encode", rate=12.0, overflow="block", queued=4, waits=True, blocked_since_ns=NOW - 9 * S)],
        ),
        [
            (
                "encode",
                "slow-consumer",
                "encode is slow: it takes 12/s (computing without a pause: 97% of a processor), "
                "and screen has waited for it for 9 s (encode.video is full)",
            )
        ],
    ),
    "a drop storm before one that computes": (
        view(
            [SCREEN, node("encode", cpu=1.0)],
            [edge("screen > encode", rate=12.0, losses={"overflow": 18.0})],
        ),
        [
            (
                "encode",
                "drop-storm",
                "encode takes 12/s of the 30/s that screen gives (computing without a pause: 100% of a processor); "
                "encode.video drops 18/s (overflow)",
            )
        ],
    ),
    "a refused file": (
        view(
            CHAIN,
            [edge("screen > encode"), edge("encode > out")],
            running="6dfc9a0e1b2c", file="0a1b2c3d4e5f", refused="2 findings in the file", refused_ns=NOW - 4 * S,
        ),
        [
            (
                "",
                "refused-file",
                "the file holds 0a1b2c3d4e5f, which was refused at 12:03:07: 2 findings in the file; "
                "6dfc9a0e1b2c goes on",
            )
        ],
    ),
}  # fmt: skip


def test_nobody_waits_in_vain_for_a_node_that_is_paused_nor_for_those_behind_it() -> None:
    nodes = [SCREEN, node("encode", is_paused=True), node("probe"), node("out")]
    flows = [edge("screen > encode"), still("encode > probe"), still("probe > out")]
    found = causes(view(nodes, flows))
    assert found == ()
    assert verdict(view(nodes, flows), found, "encode") == ["encode is paused, and means to be"]
    awake = [SCREEN, node("encode"), node("probe"), node("out")]
    assert [cause.node for cause in causes(view(awake, flows))] == ["encode"]


def test_a_second_input_of_what_is_behind_a_paused_node_is_waited_for() -> None:
    nodes = [SCREEN, node("encode", is_paused=True), node("voice"), node("out")]
    flows = [
        edge("screen > encode"),
        still("encode > out"),
        edge("screen > voice"),
        still("voice > out", name="out.audio"),
    ]
    assert [cause.node for cause in causes(view(nodes, flows))] == ["voice"]


@pytest.mark.parametrize("case", CASES)
def test_a_cause_is_one_sentence(case: str) -> None:
    standing, expected = CASES[case]
    found = causes(standing)
    assert [(cause.node, cause.kind, cause.sentence) for cause in found] == expected
    assert all(cause.node in cause.chain for cause in found)


HEALTHY: dict[str, View] = {
    "all flows": view(CHAIN, [edge("screen > encode"), edge("encode > out")]),
    "a slide each ten seconds": view(CHAIN[:2], [still("screen > encode", 25, usual_ns=10 * S)]),
    "it has only begun": view(CHAIN[:2], [still("screen > encode", last_ns=None, begun_ns=NOW - 4 * S)]),
    "records come when there is something to say": view(CHAIN[:2], [still("screen > encode", 900, is_media=False)]),
    "feedback comes or not": view(CHAIN[:2], [still("screen > encode", 900, feedback=True)]),
    "latest is meant to lose": view(CHAIN[:2], [edge("screen > encode", overflow="latest", losses={"overflow": 25.0})]),
    "a lost one here and there": view(CHAIN[:2], [edge("screen > encode", losses={"overflow": 2.0})]),
    "it has ended": view([node("screen", "ended"), node("out")], [still("screen > out", ended=True)]),
    "a file waits for the encoder, as it should": view(
        [SCREEN, node("encode", is_waiting=False)],
        [edge("screen > encode", overflow="block", queued=4, waits=True, blocked_since_ns=NOW - 60 * S)],
        is_live=False,
    ),
    "a step of four seconds, offline": view(
        [SCREEN, node("encode", is_waiting=False)], [blocked("screen > encode")], is_live=False
    ),
}


@pytest.mark.parametrize("case", HEALTHY)
def test_what_is_as_it_should_be_is_no_cause(case: str) -> None:
    assert causes(HEALTHY[case]) == ()


def test_those_who_suffer_come_first_and_the_one_to_mend_last() -> None:
    (cause,) = causes(CASES["silent source"][0])
    assert cause.chain == ("out", "encode", "screen")
    assert cause.since_ns == NOW - 4_100_000_000
    assert cause.to_json() == {
        "node": "screen", "kind": "silent-source", "sentence": cause.sentence, "since_ns": cause.since_ns,
        "chain": ["out", "encode", "screen"], "is_fault": True,
    }  # fmt: skip


def test_a_long_way_is_told_node_by_node() -> None:
    nodes = [SCREEN, node("small"), node("encode"), node("out"), node("tape")]
    edges = [still("screen > small"), still("small > encode"), still("encode > out"), still("encode > tape")]
    (cause,) = causes(view(nodes, edges))
    assert cause.sentence == (
        "out and tape are starved: encode waits for small, which has waited 4.1 s for screen, "
        "which has delivered nothing since 12:03:06"
    )


def test_a_longer_way_is_one_sentence_still() -> None:
    nodes = [SCREEN, node("small"), node("titled"), node("encode"), node("out")]
    edges = [still(f"{each.id} > {after.id}") for each, after in itertools.pairwise(nodes)]
    (cause,) = causes(view(nodes, edges))
    assert cause.sentence == (
        "out is starved: encode waits for titled, which waits for small, which has waited 4.1 s for screen, "
        "which has delivered nothing since 12:03:06"
    )


def test_two_things_that_are_wrong_are_two_causes() -> None:
    nodes = [SCREEN, node("mic", "failed", is_source=True, error="gone"), node("out"), node("ear")]
    found = causes(view(nodes, [still("screen > out"), edge("mic > ear")]))
    assert [(cause.kind, cause.node) for cause in found] == [("failed", "mic"), ("silent-source", "screen")]


def test_a_verdict_is_never_silent() -> None:
    well = HEALTHY["all flows"]
    assert verdict(well, ()) == ["all is well: 3 nodes work and nothing waits for long"]
    assert verdict(well, (), "encode") == ["encode is well: it takes 30/s from screen, out takes 30/s from it"]
    ill, _ = CASES["silent source"]
    assert verdict(ill, causes(ill), "out") == [causes(ill)[0].sentence]
    ended = dataclasses.replace(well, state="ended", nodes={"screen": node("screen", "ended")}, edges=())
    assert verdict(ended, ()) == ["the graph has come to its end"]
    assert verdict(ended, (), "screen") == ["screen has ended"]
    assert verdict(dataclasses.replace(well, state="draining"), ()) == [
        "the graph is draining, and nothing is in its way"
    ]
    with pytest.raises(KeyError):
        verdict(well, (), "nobody")


def test_what_happened_long_ago_has_its_day() -> None:
    (cause,) = causes(view([node("tape", "failed", since_ns=NOW - 100_000 * S, error="gone")], [], zone_s=3600))
    assert "tape failed at 2025-12-31 09:16:31: gone" in cause.sentence


@pytest.mark.parametrize(
    ("span_ns", "said"),
    [
        (-5, "0 ms"),
        (180_000_000, "180 ms"),
        (S, "1 s"),
        (4_123_000_000, "4.1 s"),
        (125 * S, "2 min 5 s"),
        (120 * S, "2 min"),
        (12_000 * S, "3 h 20 min"),
        (7200 * S, "2 h"),
    ],
)
def test_durations(span_ns: int, said: str) -> None:
    assert duration(span_ns) == said


def test_a_cause_is_the_same_one_a_moment_later() -> None:
    one = Cause("screen", "silent-source", "4 s", 5, ("out", "screen"))
    assert one.key == dataclasses.replace(one, sentence="5 s", chain=("tape", "screen")).key
    assert one.key != dataclasses.replace(one, node="mic").key


K, M = 1_000, 1_000_000
SHARED = Limit("uplink", 20 * M, 7, "middle", 636 * K)
NARROW = Limit("link", 483_217, 7, "middle", 731_400)


def limited(called: str, rung: str | None, limit: Limit, seconds: float = 5, on: str = "out") -> Limited:
    return Limited(on, called, rung, limit, NOW - round(seconds * S))


LIMITED: dict[str, tuple[list[Limited], Kind, bool, str]] = {
    "one by the uplink": (
        [limited("Anna", "low", SHARED)],
        "narrow-uplink",
        False,
        "viewer Anna is on low: the uplink of 20M is shared by 7 viewers",
    ),
    "many by the uplink": (
        [limited("Anna", "low", SHARED), limited("Carl", None, SHARED), limited("Bob", "low", SHARED, 9)],
        "narrow-uplink",
        True,
        "viewer Carl gets no picture and viewers Anna and Bob are on low: the uplink of 20M is shared by 7 viewers",
    ),
    "a crowd": (
        [limited(each, "low", SHARED) for each in "abcde"],
        "narrow-uplink",
        False,
        "viewers a, b, c and 2 more are on low: the uplink of 20M is shared by 7 viewers",
    ),
    "alone": (
        [limited("Anna", "low", Limit("uplink", 500 * K, 1, "middle", 636 * K))],
        "narrow-uplink",
        False,
        "viewer Anna is on low: the uplink of 500k is too narrow for it",
    ),
    "one by its link": (
        [limited("Anna", "low", NARROW)],
        "narrow-link",
        False,
        "viewer Anna is on low: its link carries 483k, and middle needs 731k",
    ),
    "no picture over its link": (
        [limited("Anna", None, Limit("link", 100 * K, 1, "low", 244 * K))],
        "narrow-link",
        True,
        "viewer Anna gets no picture: its link carries 100k, and low needs 244k",
    ),
    "many by their links": (
        [limited(each, "low", NARROW) for each in "abcde"],
        "narrow-link",
        False,
        "viewer a is on low (its link carries 483k, and middle needs 731k), "
        "viewer b is on low (its link carries 483k, and middle needs 731k), "
        "viewer c is on low (its link carries 483k, and middle needs 731k) and 2 more are held up by their links",
    ),
}


@pytest.mark.parametrize("case", LIMITED)
def test_viewers_who_get_less_than_the_best_are_named(case: str) -> None:
    who, kind, is_fault, said = LIMITED[case]
    standing = view([SCREEN, node("out")], [edge("screen > out")], limited=tuple(who))
    (cause,) = causes(standing)
    assert (cause.node, cause.kind, cause.sentence, cause.is_fault) == ("out", kind, said, is_fault)
    assert cause.since_ns == min(each.since_ns for each in who)
    well = [] if is_fault else ["all is well: 2 nodes work and nothing waits for long"]
    assert verdict(standing, (cause,)) == [*well, said]
    assert verdict(standing, (cause,), "screen") == ["screen is well: out takes 30/s from it"]


def test_each_output_has_an_uplink_and_viewers_of_its_own() -> None:
    nodes = [SCREEN, node("out"), node("wall"), node("off", "failed", error="gone")]
    standing = view(
        nodes,
        [edge("screen > out"), edge("screen > wall")],
        limited=(
            limited("Anna", "low", NARROW),
            limited("Bob", "low", SHARED),
            limited("Carl", "low", SHARED, on="wall"),
            limited("Dora", "low", SHARED, on="off"),
        ),
    )
    assert [(cause.node, cause.kind) for cause in causes(standing) if not cause.is_fault] == [
        ("out", "narrow-uplink"), ("out", "narrow-link"), ("wall", "narrow-uplink"),
    ]  # fmt: skip
