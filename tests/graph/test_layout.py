"""Where the boxes and lines of a drawn graph go."""

import random
from itertools import combinations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowstream.graph.layout import Box, Layout, Link, Point, Rect, Route, lay_out, layers_of

GROUPS = {"a": "", "a/b": "a", "a/b/c": "a/b", "d": "", "empty": "a"}
NEAR = 0.25
"""Positions are rounded to a tenth of a pixel."""


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Box], list[Link]]:
    count = draw(st.integers(0, 12))
    boxes = [
        Box(
            f"n{number}",
            draw(st.sampled_from([40.0, 90.0, 180.0])),
            draw(st.sampled_from([24.0, 48.0])),
            draw(st.sampled_from(["", "", "a", "a/b", "a/b/c", "d"])),
            draw(st.booleans()),
        )
        for number in range(count)
    ]
    links = []
    for _ in range(draw(st.integers(0, 2 * count))):
        first, second = sorted((draw(st.integers(0, count - 1)), draw(st.integers(0, count - 1))))
        feedback = first == second or draw(st.booleans())
        if feedback and draw(st.booleans()):
            first, second = second, first
        links.append(
            Link(
                f"n{first}", f"n{second}", draw(st.sampled_from("xy")), draw(st.sampled_from([0.0, 60.0, 140.0])),
                feedback, draw(st.sampled_from([1, 2])),
            )
        )  # fmt: skip
    return boxes, links


def points_of(route: Route) -> list[Point]:
    """Points along a line, close to one another."""
    points, start = [route.start], route.start
    for first, second, end in route.curves:
        for step in range(1, 17):
            t = step / 16
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            x, y = (
                sum(weight * point[axis] for weight, point in zip(weights, (start, first, second, end), strict=True))
                for axis in (0, 1)
            )
            points.append((x, y))
        start = end
    return points


def is_on_edge(point: Point, rect: Rect) -> bool:
    x, y = point
    inside_x, inside_y = rect.x - NEAR <= x <= rect.right + NEAR, rect.y - NEAR <= y <= rect.bottom + NEAR
    at_side = min(abs(x - rect.x), abs(x - rect.right)) <= NEAR
    at_foot = abs(y - rect.bottom) <= NEAR
    return inside_x and inside_y and (at_side or at_foot)


def shrunk(rect: Rect) -> Rect:
    return Rect(rect.x + NEAR, rect.y + NEAR, rect.width - 2 * NEAR, rect.height - 2 * NEAR)


def members_of(group: str, boxes: list[Box]) -> set[str]:
    return {box.id for box in boxes if box.group == group or box.group.startswith(f"{group}/")}


def check(boxes: list[Box], links: list[Link], layout: Layout) -> None:
    """Everything that a picture promises."""
    assert list(layout.boxes) == [box.id for box in boxes]
    whole = Rect(0, 0, layout.width, layout.height)
    labels = [route.label for route in layout.routes if route.label]
    for box in boxes:
        rect = layout.boxes[box.id]
        assert rect.width >= box.width - NEAR
        assert rect.height >= box.height - NEAR
    solid = [*layout.boxes.values(), *labels]
    for rect in (*solid, *layout.frames.values()):
        assert whole.contains(rect)
    for one, other in combinations(solid, 2):
        assert not shrunk(one).overlaps(shrunk(other))
    for link, route in zip(links, layout.routes, strict=True):
        assert is_on_edge(route.start, layout.boxes[link.source])
        assert is_on_edge(route.end, layout.boxes[link.target])
        assert bool(route.label) == bool(link.label)
        points = points_of(route)
        for rect in map(shrunk, layout.boxes.values()):
            assert not any(rect.x < x < rect.right and rect.y < y < rect.bottom for x, y in points)
        if not link.feedback:
            assert layout.layers[link.source] < layout.layers[link.target]
            assert layout.boxes[link.source].right < layout.boxes[link.target].x
    assert set(layout.frames) == {group for group in GROUPS if members_of(group, boxes)}
    for group, frame in layout.frames.items():
        members = members_of(group, boxes)
        for id_, rect in layout.boxes.items():
            assert frame.contains(rect) if id_ in members else not frame.overlaps(shrunk(rect))
        for other, inner in layout.frames.items():
            if other.startswith(f"{group}/"):
                assert frame.contains(inner)
                assert frame != inner
            elif not group.startswith(f"{other}/") and other != group:
                assert not frame.overlaps(inner)


@given(graphs())
@settings(max_examples=60, deadline=None)
@example(([Box("n0", 90, 48)], [Link("n0", "n0", "x", 60, feedback=True), Link("n0", "n0", "y", 60, feedback=True)]))
@example(([Box("n0", 90, 48, "a"), Box("n1", 90, 48), Box("n2", 90, 48, "a")], [Link("n0", "n1"), Link("n1", "n2")]))
def test_any_graph(graph: tuple[list[Box], list[Link]]) -> None:
    boxes, links = graph
    titles = {"a": 120.0, "a/b": 200.0}
    layout = lay_out(boxes, links, GROUPS, titles)
    check(boxes, links, layout)
    assert lay_out(boxes, links, GROUPS, titles) == layout


def test_nothing_to_draw() -> None:
    layout = lay_out([], [])
    assert (layout.boxes, layout.routes) == ({}, ())


def test_layers_are_longest_paths_and_sources_stand_beside_what_reads_them() -> None:
    links = [Link("camera", "scale"), Link("scale", "encode"), Link("camera", "encode"), Link("encode", "out")]
    links += [Link("tone", "out")]
    assert layers_of(["camera", "scale", "encode", "tone", "out"], links) == {
        "camera": 0, "scale": 1, "encode": 2, "tone": 2, "out": 3,
    }  # fmt: skip


def test_what_only_steers_stands_between_what_it_hears_and_what_it_steers() -> None:
    links = [Link("camera", "encode"), Link("encode", "out")]
    links += [Link("out", "abr", feedback=True), Link("abr", "encode", feedback=True)]
    layers = layers_of(["abr", "camera", "encode", "out"], links)
    assert layers == {"camera": 0, "encode": 1, "abr": 2, "out": 3}


@pytest.mark.parametrize("length", [2, 5, 9])
def test_a_chain_is_straight(length: int) -> None:
    boxes = [Box(f"n{number}", 60 + 13 * number, 24 if number % 2 else 48) for number in range(length)]
    links = [Link(f"n{number}", f"n{number + 1}", label=50) for number in range(length - 1)]
    layout = lay_out(boxes, links)
    assert len({rect.y + rect.height / 2 for rect in layout.boxes.values()}) == 1
    assert {y for route in layout.routes for _, y in points_of(route)} == {layout.routes[0].start[1]}


def test_a_long_line_keeps_clear_of_what_it_passes() -> None:
    boxes = [Box(name, 80, 48) for name in ("a", "b", "c", "d")]
    links = [Link("a", "b"), Link("b", "c"), Link("c", "d"), Link("a", "d", label=60)]
    layout = lay_out(boxes, links)
    for line in layout.routes[:3]:
        assert line.start[1] == line.end[1]
    label = layout.routes[3].label
    assert label is not None
    assert layout.boxes["c"].right < label.x
    assert not any(label.overlaps(rect) for rect in layout.boxes.values())
    links[3] = Link("a", "d")
    check(boxes, links, lay_out(boxes, links))


def test_parallel_chains_do_not_cross() -> None:
    """Three ways from a camera to one page, listed in a confusing order."""
    names = ["out", "encode-2", "scale-1", "camera", "encode-3", "scale-3", "encode-1", "scale-2"]
    links = [Link("camera", f"scale-{way}", label=100) for way in (3, 1, 2)]
    links += [Link(f"scale-{way}", f"encode-{way}", label=100) for way in (2, 1, 3)]
    links += [Link(f"encode-{way}", "out", label=60) for way in (1, 3, 2)]
    layout = lay_out([Box(name, 90, 48) for name in names], links)
    orders = [sorted((1, 2, 3), key=lambda way: layout.boxes[f"{kind}-{way}"].y) for kind in ("scale", "encode")]
    assert orders[0] == orders[1]
    arrivals = sorted((1, 2, 3), key=lambda way: next(
        route.end[1] for link, route in zip(links, layout.routes, strict=True)
        if (link.source, link.target) == (f"encode-{way}", "out")
    ))  # fmt: skip
    assert arrivals == orders[0]


def test_a_ladder_with_feedback_does_not_tangle() -> None:
    """The sweeps alone leave the scalers crosswise here; exchanging neighbours does not."""
    ways = ("high", "mid", "low")
    boxes = [Box(name, 90, 48) for name in ("camera", "high", "scale-mid", "mid", "scale-low", "low", "out", "abr")]
    links = [Link("camera", "high"), Link("camera", "scale-mid"), Link("camera", "scale-low")]
    links += [Link("scale-mid", "mid"), Link("scale-low", "low"), *(Link(way, "out") for way in ways)]
    links += [Link("out", "abr", feedback=True), *(Link("abr", way, feedback=True) for way in ways)]
    places = lay_out(boxes, links).boxes
    assert (places["scale-mid"].y < places["scale-low"].y) == (places["mid"].y < places["low"].y)


def test_lines_of_one_output_leave_at_one_point_and_arrive_at_points_of_their_own() -> None:
    boxes = [Box(name, 80, 48) for name in ("film", "one", "two")]
    links = [Link("film", "one", "video"), Link("film", "one", "audio"), Link("film", "two", "video")]
    video, audio, other = lay_out(boxes, links).routes
    assert video.start == other.start != audio.start
    assert video.end != audio.end


def test_feedback_runs_beneath() -> None:
    layout = lay_out(
        [Box("encode", 80, 48), Box("out", 80, 48)],
        [Link("encode", "out", label=50), Link("out", "encode", label=80, feedback=True)],
    )
    back = layout.routes[1]
    assert back.start[1] == layout.boxes["out"].bottom
    assert back.end[1] == layout.boxes["encode"].bottom
    lowest = max(rect.bottom for rect in layout.boxes.values())
    assert all(y >= lowest - 1 for _, y in points_of(back))


def test_a_frame_is_wide_enough_for_its_title() -> None:
    boxes = [Box("in", 80, 48), Box("a/x", 80, 48, "a"), Box("out", 80, 48)]
    links = [Link("in", "a/x"), Link("a/x", "out")]
    assert lay_out(boxes, links, {"a": ""}, {"a": 240}).frames["a"].width >= 240
    assert lay_out(boxes, links, {"a": ""}, {"a": 40}).frames["a"].width < 240


@pytest.mark.parametrize("groups", [[""], ["", "a", "a/b", "d"]], ids=["flat", "grouped"])
def test_a_large_graph(groups: list[str]) -> None:
    """200 nodes and 1,000 edges take about a second."""
    dice = random.Random(7)
    boxes = [Box(f"n{number}", 100, 48, dice.choice(groups)) for number in range(200)]
    links = []
    for _ in range(1000):
        first, second = sorted(dice.sample(range(200), 2))
        back = dice.random() < 0.05
        links.append(Link(f"n{second if back else first}", f"n{first if back else second}", "x", 80, back))
    layout = lay_out(boxes, links, GROUPS)
    for one, other in combinations([*layout.boxes.values(), *(r.label for r in layout.routes if r.label)], 2):
        assert not one.overlaps(other)
    assert all(layout.layers[link.source] < layout.layers[link.target] for link in links if not link.feedback)
