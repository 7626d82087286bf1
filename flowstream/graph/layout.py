"""Where the boxes and lines of a drawn graph go: a layered layout, from left to right. Pure geometry, in pixels.

Boxes stand in columns, by the longest path of media that leads to them. Between two columns of boxes is one for labels.
A line keeps to one height, its lane, all the way from the column after its left box to the column before its right one;
it bends only in the gaps between columns, where nothing else stands. Lanes take room as boxes do, so that no line runs
through a box and no label lies on another. The members of a group share a frame in which nobody else stands: siblings
are ordered once for all columns. The same graph always gives the same layout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from flowstream.graph.heights import Heights
from flowstream.graph.lanes import LABEL_FALL, LABEL_RISE, Box, End, Lanes, Line, Link, layers_of
from flowstream.graph.ordering import Ordering

__all__ = ["Box", "Layout", "Link", "Point", "Rect", "Route", "lay_out", "layers_of"]

Point = tuple[float, float]

FRAME_SIDE = 14.0
"""Room inside a frame at either side."""

MARGIN = 16.0
GAP, STEEP_GAP = 22.0, 48.0
"""Between two columns; what a steep line may add."""


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle by its upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def overlaps(self, other: Rect) -> bool:
        """Whether they share more than an edge."""
        return self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom

    def contains(self, other: Rect) -> bool:
        """Whether the other lies in this one entirely."""
        return self.x <= other.x and other.right <= self.right and self.y <= other.y and other.bottom <= self.bottom


@dataclass(frozen=True, slots=True)
class Route:
    """How a line runs: cubic curves from ``start``, each two control points and its end, and where its label stands."""

    start: Point
    curves: tuple[tuple[Point, Point, Point], ...]
    label: Rect | None = None

    @property
    def end(self) -> Point:
        return self.curves[-1][2]


@dataclass(frozen=True, slots=True)
class Layout:
    """The picture: boxes by id, frames by group, routes in the order of the links, and the layer of each box."""

    width: float
    height: float
    boxes: Mapping[str, Rect]
    frames: Mapping[str, Rect]
    routes: tuple[Route, ...]
    layers: Mapping[str, int]


def lay_out(
    boxes: Sequence[Box],
    links: Sequence[Link],
    groups: Mapping[str, str] | None = None,
    titles: Mapping[str, float] | None = None,
) -> Layout:
    """Places boxes and lines. ``groups`` gives each group's parent ("" for none), ``titles`` how wide their titles are.

    Links that are not feedback must not form a cycle. A group in which no box stands gets no frame.
    """  # fmt: skip
    lanes = Lanes(boxes, links, groups or {}, titles or {})
    ordering = Ordering(lanes)
    ordering.order()
    lanes.spread_ports()
    Heights(lanes, ordering).align()
    return _Picture(lanes).drawn()


class _Picture:
    """A graph whose boxes and lanes have their heights; here they get their widths, and the lines their curves."""

    def __init__(self, lanes: Lanes) -> None:
        self.of = lanes

    def _columns(self) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
        """Where each column begins, how wide it is, and how wide boxes that stretch are in it."""
        widths: dict[int, float] = {}
        stretched: dict[int, float] = {}
        taken = [column for item in self.of.leaves for column in (item.low, item.high)]
        first, last = min(taken, default=0), max(taken, default=0)
        for column in range(first, last + 1):
            widths[column] = stretched[column] = 0.0
        for item in self.of.boxes.values():
            assert item.box is not None
            widths[item.low] = max(widths[item.low], item.box.width)
            if item.box.stretches:
                stretched[item.low] = max(stretched[item.low], item.box.width)
        for line in self.of.lines:
            column = line.lanes[-1].high
            widths[column] = max(widths[column], line.link.label)
        gaps = self._gaps(first, last)
        for group, item in sorted(self.of.groups.items(), key=lambda each: -len(self.of.ancestors(each[0]))):
            room = sum(widths[column] for column in range(item.low, item.high + 1))
            room += sum(gaps[column] for column in range(item.low, item.high))
            widths[item.low] += max(0.0, self.of.titles.get(group, 0.0) - room)
        begins: dict[int, float] = {}
        x = MARGIN + self._frame_sides(first, "low")
        for column in range(first, last + 1):
            begins[column] = x
            x += widths[column] + gaps[column]
        return begins, widths, stretched

    def _frame_sides(self, column: int, side: str) -> float:
        """Room for the sides of the frames that begin or end at a column."""
        deepest = max(
            (
                sum(1 for each in self.of.ancestors(group) if getattr(self.of.groups[each], side) == column)
                for group, item in self.of.groups.items()
                if getattr(item, side) == column
            ),
            default=0,
        )
        return FRAME_SIDE * deepest

    def _gaps(self, first: int, last: int) -> dict[int, float]:
        steep: dict[int, float] = defaultdict(float)
        for line in self.of.lines:
            if line.is_flat:
                steep[line.lanes[0].high] = STEEP_GAP
                continue
            stations = [
                (line.left.box.high, line.left.box.y + line.left.height),
                *((lane.high, lane.y) for lane in line.lanes),
                (line.right.box.high, line.right.box.y + line.right.height),
            ]
            for (column, y), (_, next_y) in pairwise(stations):
                steep[column] = max(steep[column], min(STEEP_GAP, abs(y - next_y) * 0.3))
        return {
            column: GAP + steep[column] + self._frame_sides(column, "high") + self._frame_sides(column + 1, "low")
            for column in range(first, last + 1)
        }

    def drawn(self) -> Layout:
        begins, widths, stretched = self._columns()
        ends = {column: begins[column] + widths[column] for column in begins}
        tops = [item.y - item.rise for item in self.of.leaves] + [item.top for item in self.of.groups.values()]
        up = MARGIN - min(tops, default=0.0)
        for item in (*self.of.leaves, *self.of.groups.values()):
            item.y, item.top, item.bottom = item.y + up, item.top + up, item.bottom + up
        boxes: dict[str, Rect] = {}
        for id_, item in self.of.boxes.items():
            assert item.box is not None
            width = stretched[item.low] if item.box.stretches else item.box.width
            height = 2 * item.rise
            x = begins[item.low] + (widths[item.low] - width) / 2
            boxes[id_] = _rect(x, item.y - item.rise, width, height)
        frames = {}
        for group in (each for each in self.of.parents if each in self.of.groups):
            item = self.of.groups[group]
            lineage = self._within(group)
            x = begins[item.low] - FRAME_SIDE * lineage[0]
            frames[group] = _rect(x, item.top, ends[item.high] + FRAME_SIDE * lineage[1] - x, item.bottom - item.top)
        routes = tuple(self._route(line, boxes, begins, ends) for line in self.of.lines)
        shapes = [*boxes.values(), *frames.values(), *(route.label for route in routes if route.label)]
        points = [point for route in routes for curve in route.curves for point in curve]
        right = max([each.right for each in shapes] + [x for x, _ in points], default=0.0)
        bottom = max([each.bottom for each in shapes] + [y for _, y in points], default=0.0)
        return Layout(round(right + MARGIN, 1), round(bottom + MARGIN, 1), boxes, frames, routes, self.of.layers)

    def _within(self, group: str) -> tuple[int, int]:
        """How many frames, this one included, begin at its left side within it, and end at its right side."""
        item = self.of.groups[group]
        low = high = 0
        for other in self.of.groups:
            lineage = self.of.ancestors(other)
            if group in lineage:
                between = [self.of.groups[each] for each in lineage[: lineage.index(group) + 1]]
                low = max(low, sum(each.low == item.low for each in between))
                high = max(high, sum(each.high == item.high for each in between))
        return low, high

    def _route(self, line: Line, boxes: Mapping[str, Rect], begins: dict[int, float], ends: dict[int, float]) -> Route:
        label = None
        column = line.lanes[-1].high
        if line.link.label:
            middle = (begins[column] + ends[column]) / 2
            y = line.lanes[-1].y
            if line.is_flat:
                middle = ends[column] - line.link.label / 2
            height = LABEL_RISE - 4 + (LABEL_FALL + 2 if line.link.lines > 1 else 0)
            label = _rect(middle - line.link.label / 2, y - LABEL_RISE + 1, line.link.label, height)
        path = _Path()
        if line.is_flat:
            out, into = (line.right, line.left) if line.is_reversed else (line.left, line.right)
            edge = begins[out.box.low]
            path.leave(out, boxes, edge)
            middle = (out.box.y + out.height + into.box.y + into.height) / 2
            path.turn((ends[column] + 4, middle), (begins[into.box.low], into.box.y + into.height))
            path.arrive(into, boxes, edge)
            return Route(path.start, tuple(path.curves), label)
        path.leave(line.left, boxes, ends[line.left.box.high])
        for lane in line.lanes:
            path.to((begins[lane.low], lane.y))
            path.to((ends[lane.high], lane.y))
        path.arrive(line.right, boxes, begins[line.right.box.low])
        return Route(*(path.backwards() if line.is_reversed else (path.start, tuple(path.curves))), label)


class _Path:
    """A line under construction, from left to right."""

    def __init__(self) -> None:
        self.start: Point = (0.0, 0.0)
        self.curves: list[tuple[Point, Point, Point]] = []

    def to(self, point: Point) -> None:
        """On to a point, level at both ends."""
        x, y = self.at
        point = _rounded(point)
        if point != (x, y):
            middle = round((x + point[0]) / 2, 1)
            self.curves.append(((middle, y), (middle, point[1]), point))

    @property
    def at(self) -> Point:
        return self.curves[-1][2] if self.curves else self.start

    def leave(self, end: End, boxes: Mapping[str, Rect], edge: float) -> None:
        """From a box to the edge of its column."""
        assert end.box.box is not None
        rect = boxes[end.box.box.id]
        if end.side == "beneath":
            foot = (rect.x + rect.width / 2 + end.x, rect.bottom)
            self.start = _rounded(foot)
            y = end.box.y + end.height
            corner = (foot[0] + (4 if edge > foot[0] else -4), y)
            self.curves.append((_rounded((foot[0], y - 2)), _rounded((foot[0], y)), _rounded(corner)))
            self.to((edge, y))
            return
        self.start = _rounded((rect.x if end.side == "left" else rect.right, end.box.y + end.offset))
        self.to((edge, end.box.y + end.offset))

    def arrive(self, end: End, boxes: Mapping[str, Rect], edge: float) -> None:
        """From where it is to the edge of a box's column and on to the box."""
        backward = _Path()
        backward.leave(end, boxes, edge)
        self.to(backward.at)
        _, curves = backward.backwards()
        self.curves += curves

    def turn(self, middle: Point, point: Point) -> None:
        """Round a bend to the left and back, upright in the middle."""
        (x, y), (mx, my) = self.at, _rounded(middle)
        px, py = _rounded(point)
        self.curves.append(((round((x + mx) / 2, 1), y), (mx, y), (mx, my)))
        self.curves.append(((mx, py), (round((px + mx) / 2, 1), py), (px, py)))

    def backwards(self) -> tuple[Point, tuple[tuple[Point, Point, Point], ...]]:
        points = [self.start, *(curve[2] for curve in self.curves)]
        turned = [
            (second, first, points[index]) for index, (first, second, _) in enumerate(self.curves)
        ]  # fmt: skip
        return points[-1], tuple(reversed(turned))


def _rounded(point: Point) -> Point:
    return round(point[0], 1), round(point[1], 1)


def _rect(x: float, y: float, width: float, height: float) -> Rect:
    left, top = _rounded((x, y))
    return Rect(left, top, round(round(x + width, 1) - left, 1), round(round(y + height, 1) - top, 1))
