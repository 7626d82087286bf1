"""What a drawn graph is made of, before anything has a place: boxes in layers, lines in lanes, groups around them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

FRAME_HEAD, FRAME_FOOT = 34.0, 14.0
"""Room inside a frame above and below what stands in it; the head holds its title."""

PORT = 16.0
"""Between two lines that meet the same side of a box."""

APRON = 9.0
"""Between two lines that run beneath a box to its lower edge."""

LABEL_RISE, LABEL_FALL, LANE_ROOM = 17.0, 16.0, 4.0
"""What a lane takes: above for its label, below for a second line of it, and where there is none."""


@dataclass(frozen=True, slots=True)
class Box:
    """What to place: its least size and the group it stands in. One that stretches is as wide as its column."""

    id: str
    width: float
    height: float
    group: str = ""
    stretches: bool = True


@dataclass(frozen=True, slots=True)
class Link:
    """A line from the right of one box to the left of another; feedback runs back, beneath the boxes.

    ``output`` tells the outputs of the source apart: lines of one output leave at one point. ``label`` is the width of
    the label, 0 for none; ``lines`` is 2 for one that goes on beneath the line.
    """

    source: str
    target: str
    output: str = ""
    label: float = 0.0
    feedback: bool = False
    lines: int = 1


def layers_of(ids: Iterable[str], links: Sequence[Link]) -> dict[str, int]:
    """The layer of each box: the longest path of media from a source; what has few inputs moves right, to its readers.

    A box with feedback lines only (it steers others) stands between those it steers and those it hears.
    """
    import networkx

    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(ids)
    graph.add_edges_from((link.source, link.target) for link in links if not link.feedback)
    steering = {id_ for id_ in graph if graph.degree(id_) == 0}
    for link in links:
        steers = link.feedback and (link.source in steering or link.target in steering)
        if steers and not networkx.has_path(graph, link.source, link.target):
            graph.add_edge(link.target, link.source)
    layers: dict[str, int] = {}
    order = list(networkx.topological_sort(graph))
    for id_ in order:
        layers[id_] = max((layers[before] + 1 for before in graph.pred[id_]), default=0)
    for id_ in reversed(order):
        if len(graph.pred[id_]) < len(graph.succ[id_]):
            layers[id_] = min(layers[after] for after in graph.succ[id_]) - 1
    return layers


@dataclass(slots=True, eq=False)
class Item:
    """A box, a lane or a group: the columns it takes, and how far it reaches above and below its height."""

    low: int
    high: int
    parent: str
    rise: float = 0.0
    fall: float = 0.0
    box: Box | None = None
    group: str = ""
    y: float = 0.0
    left: list[Item] = field(default_factory=list)
    right: list[Item] = field(default_factory=list)
    top: float = 0.0
    bottom: float = 0.0


@dataclass(slots=True, eq=False)
class End:
    """Where a line meets a box: on its left or right at an offset from the middle, or beneath it, ``depth`` deep."""

    box: Item
    side: str
    offset: float = 0.0
    depth: float = 0.0
    x: float = 0.0

    @property
    def height(self) -> float:
        """How far from the middle of the box the line leaves its column."""
        return self.offset + self.depth


@dataclass(slots=True, eq=False)
class Line:
    """A link with its lanes from left to right, and its two ends."""

    link: Link
    left: End
    right: End
    lanes: list[Item]
    is_flat: bool
    is_reversed: bool


class Lanes:
    """Boxes, lanes and groups, what hangs on what, and in which order the members of each group stand.

    Columns with even numbers hold boxes, those with odd numbers the labels between them. ``children`` lists the members
    of each group from top to bottom, once for all columns.
    """

    def __init__(
        self, boxes: Sequence[Box], links: Sequence[Link], groups: Mapping[str, str], titles: Mapping[str, float]
    ) -> None:
        self.layers = layers_of((box.id for box in boxes), links)
        least = min(self.layers.values(), default=0)
        self.layers = {id_: layer - least for id_, layer in self.layers.items()}
        self.parents = groups
        self.titles = titles
        self.steering = {box.id for box in boxes} - {
            id_ for link in links if not link.feedback for id_ in (link.source, link.target)
        }
        self.boxes = {
            box.id: Item(2 * self.layers[box.id], 2 * self.layers[box.id], box.group, box=box) for box in boxes
        }
        self.groups = self._spans()
        self.lines = [self._line(link) for link in links]
        self.lanes = [lane for line in self.lines for lane in line.lanes]
        self._size_boxes()
        self.children: dict[str, list[Item]] = defaultdict(list)
        self.leaves = [*self.boxes.values(), *self.lanes]
        for item in (*self.leaves, *self.groups.values()):
            self.children[item.parent].append(item)
        self._join()

    def ancestors(self, group: str) -> list[str]:
        """A group and those around it, from the inside out."""
        found = []
        while group:
            found.append(group)
            group = self.parents.get(group, "")
        return found

    def _spans(self) -> dict[str, Item]:
        spans: dict[str, Item] = {}
        for item in self.boxes.values():
            for group in self.ancestors(item.parent):
                span = spans.setdefault(group, Item(item.low, item.high, self.parents.get(group, ""), group=group))
                span.low, span.high = min(span.low, item.low), max(span.high, item.high)
        return spans

    def _line(self, link: Link) -> Line:
        source, target = self.boxes[link.source], self.boxes[link.target]
        is_reversed = source.low > target.low
        left, right = (target, source) if is_reversed else (source, target)
        is_flat = left.low == right.low
        if is_flat:
            lanes = [Item(left.low - 1, left.low - 1, self._around(left, right, left.low - 1))]
            ends = End(left, "beneath"), End(right, "beneath")
        else:
            lanes = self._segments(left, right)
            ends = self._end(left, link, "right", is_reversed), self._end(right, link, "left", is_reversed)
        for lane in lanes:
            lane.rise = lane.fall = LANE_ROOM
        if link.label:
            lanes[-1].rise = LABEL_RISE
            if link.lines > 1:
                lanes[-1].fall = LABEL_FALL
        return Line(link, *ends, lanes, is_flat, is_reversed)

    def _end(self, item: Item, link: Link, side: str, is_reversed: bool) -> End:
        assert item.box is not None
        return End(item, side if not is_reversed or item.box.id in self.steering else "beneath")

    def _common(self, one: Item, other: Item) -> str:
        theirs = set(self.ancestors(other.parent))
        return next((group for group in self.ancestors(one.parent) if group in theirs), "")

    def _around(self, one: Item, other: Item, column: int) -> str:
        group = self._common(one, other)
        while group and not self.groups[group].low <= column <= self.groups[group].high:
            group = self.parents.get(group, "")
        return group

    def _segments(self, left: Item, right: Item) -> list[Item]:
        """The lanes of a line: it leaves the groups of its left box at their right sides, and enters likewise."""
        common = self._common(left, right)
        first, last = left.low + 1, right.low - 1
        low, high = first, last
        leaving: list[Item] = []
        entering: list[Item] = []
        for group in self.ancestors(left.parent):
            if group == common:
                break
            if (end := self.groups[group].high) >= low:
                leaving.append(Item(low, end, group))
                low = end + 1
        for group in self.ancestors(right.parent):
            if group == common:
                break
            if (begin := self.groups[group].low) <= high:
                entering.insert(0, Item(begin, high, group))
                high = begin - 1
        if low > high:
            return [Item(first, last, common)]
        return [*leaving, Item(low, high, common), *entering]

    def _size_boxes(self) -> None:
        """Boxes as high as their lines need."""
        ends: dict[Item, dict[str, set[object]]] = defaultdict(lambda: defaultdict(set))
        for index, line in enumerate(self.lines):
            for place, end in enumerate((line.left, line.right)):
                ends[end.box][self._side(line, end)].add((self._port(line, end, index), line.is_flat and place))
        for item in self.boxes.values():
            assert item.box is not None
            sides = ends[item]
            ports = max(len(sides["left"]), len(sides["right"]))
            item.rise = item.fall = max(item.box.height, PORT * ports + 8) / 2
            if depth := max(len(sides["to the left"]), len(sides["to the right"])):
                item.fall += APRON * depth + 4

    @staticmethod
    def _is_source(line: Line, end: End) -> bool:
        return (end is line.right) == line.is_reversed

    @staticmethod
    def _side(line: Line, end: End) -> str:
        """The side of the box that a line meets; from beneath, where it runs on to."""
        if end.side != "beneath":
            return end.side
        return "to the left" if line.is_flat or end is line.right else "to the right"

    def _port(self, line: Line, end: End, index: int) -> object:
        """Lines of one output leave at one point; every input is a point of its own."""
        return line.link.output if self._is_source(line, end) and end.side in ("left", "right") else index

    def _join(self) -> None:
        for line in self.lines:
            if line.is_flat:
                for end in (line.left, line.right):
                    line.lanes[0].right.append(end.box)
                    end.box.left.append(line.lanes[0])
                continue
            chain = [line.left.box, *line.lanes, line.right.box]
            for before, after in pairwise(chain):
                before.right.append(after)
                after.left.append(before)

    def frames(self, group: str) -> None:
        """Each frame as tight as what stands in it lets it be."""
        for item in self.children[group]:
            if item.group:
                self.frames(item.group)
                inside = self.children[item.group]
                item.top = min(each.top if each.group else each.y - each.rise for each in inside) - FRAME_HEAD
                item.bottom = max(each.bottom if each.group else each.y + each.fall for each in inside) + FRAME_FOOT

    def spread_ports(self) -> None:
        """Each line's place on its boxes, in the order in which lines arrive."""
        at: dict[tuple[Item, str], list[tuple[float, int, Line, End]]] = defaultdict(list)
        for index, line in enumerate(self.lines):
            for end, lane in ((line.left, line.lanes[0]), (line.right, line.lanes[-1])):
                at[end.box, self._side(line, end)].append((lane.y, index, line, end))
        for (item, side), ends in at.items():
            assert item.box is not None
            half = item.rise
            if side in ("left", "right"):
                ports: dict[object, list[tuple[float, End]]] = defaultdict(list)
                for y, index, line, end in ends:
                    ports[self._port(line, end, index)].append((y, end))
                ordered = sorted(ports.values(), key=lambda port: sum(y for y, _ in port) / len(port))
                for place, port in enumerate(ordered):
                    for _, end in port:
                        end.offset = PORT * (place - (len(ordered) - 1) / 2)
                continue
            step = min(12.0, (item.box.width / 2 - 16) / len(ends))
            for place, (_, _, _, end) in enumerate(sorted(ends, key=lambda each: each[:2])):
                outward = 8 + step * (len(ends) - 1 - place)
                end.offset, end.depth, end.x = half, 8 + APRON * place, -outward if side == "to the left" else outward
