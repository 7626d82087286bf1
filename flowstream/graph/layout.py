"""Where the boxes and lines of a drawn graph go: a layered layout, from left to right. Pure geometry, in pixels.

Boxes stand in columns, by the longest path of media that leads to them. Between two columns of boxes is one for labels.
A line keeps to one height, its lane, all the way from the column after its left box to the column before its right one;
it bends only in the gaps between columns, where nothing else stands. Lanes take room as boxes do, so that no line runs
through a box and no label lies on another. The members of a group share a frame in which nobody else stands: siblings
are ordered once for all columns. The same graph always gives the same layout.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Point = tuple[float, float]

BOX_GAP, LANE_GAP, MIXED_GAP, FRAME_GAP = 26.0, 3.0, 9.0, 18.0
"""Between two boxes above one another, two lanes, a box and a lane, a frame and whatever."""

FRAME_HEAD, FRAME_FOOT, FRAME_SIDE = 34.0, 14.0, 14.0
"""Room inside a frame above, below and beside what stands in it; the head holds its title."""

PORT = 16.0
"""Between two lines that meet the same side of a box."""

APRON = 9.0
"""Between two lines that run beneath a box to its lower edge."""

LABEL_RISE, LABEL_FALL, LANE_ROOM = 17.0, 16.0, 4.0
"""What a lane takes: above for its label, below for a second line of it, and where there is none."""

MARGIN = 16.0
GAP, STEEP_GAP = 22.0, 48.0
"""Between two columns; what a steep line may add."""

SHRINK = 0.96
"""How far the picture draws together, round by round, where nothing holds it apart."""

SWEEPS, ROUNDS = 24, 40
SWAPS, SWAPPED = 4, 120
"""How often neighbours may change places, in graphs of up to that many boxes and lanes."""

STRAIGHTENING = 2_000_000
"""How many steps may go into making lines straight; beyond that the rest of a very large graph stays crooked."""


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
    return _Picture(boxes, links, groups or {}, titles or {}).drawn()


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
class _Item:
    """A box, a lane or a group: the columns it takes, and how far it reaches above and below its height."""

    low: int
    high: int
    parent: str
    rise: float = 0.0
    fall: float = 0.0
    box: Box | None = None
    group: str = ""
    y: float = 0.0
    left: list[_Item] = field(default_factory=list)
    right: list[_Item] = field(default_factory=list)
    top: float = 0.0
    bottom: float = 0.0


@dataclass(slots=True, eq=False)
class _End:
    """Where a line meets a box: on its left or right at an offset from the middle, or beneath it, ``depth`` deep."""

    box: _Item
    side: str
    offset: float = 0.0
    depth: float = 0.0
    x: float = 0.0

    @property
    def height(self) -> float:
        """How far from the middle of the box the line leaves its column."""
        return self.offset + self.depth


@dataclass(slots=True, eq=False)
class _Line:
    """A link with its lanes from left to right, and its two ends."""

    link: Link
    left: _End
    right: _End
    lanes: list[_Item]
    is_flat: bool
    is_reversed: bool


Constraint = tuple[int, int, float]


class _Picture:
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
            box.id: _Item(2 * self.layers[box.id], 2 * self.layers[box.id], box.group, box=box) for box in boxes
        }
        self.groups = self._spans()
        self.lines = [self._line(link) for link in links]
        self.lanes = [lane for line in self.lines for lane in line.lanes]
        self._size_boxes()
        self.children: dict[str, list[_Item]] = defaultdict(list)
        self.leaves = [*self.boxes.values(), *self.lanes]
        for item in (*self.leaves, *self.groups.values()):
            self.children[item.parent].append(item)
        self._join()

    # What there is to place.

    def _ancestors(self, group: str) -> list[str]:
        found = []
        while group:
            found.append(group)
            group = self.parents.get(group, "")
        return found

    def _spans(self) -> dict[str, _Item]:
        spans: dict[str, _Item] = {}
        for item in self.boxes.values():
            for group in self._ancestors(item.parent):
                span = spans.setdefault(group, _Item(item.low, item.high, self.parents.get(group, ""), group=group))
                span.low, span.high = min(span.low, item.low), max(span.high, item.high)
        return spans

    def _line(self, link: Link) -> _Line:
        source, target = self.boxes[link.source], self.boxes[link.target]
        is_reversed = source.low > target.low
        left, right = (target, source) if is_reversed else (source, target)
        is_flat = left.low == right.low
        if is_flat:
            lanes = [_Item(left.low - 1, left.low - 1, self._around(left, right, left.low - 1))]
            ends = _End(left, "beneath"), _End(right, "beneath")
        else:
            lanes = self._segments(left, right)
            ends = self._end(left, link, "right", is_reversed), self._end(right, link, "left", is_reversed)
        for lane in lanes:
            lane.rise = lane.fall = LANE_ROOM
        if link.label:
            lanes[-1].rise = LABEL_RISE
            if link.lines > 1:
                lanes[-1].fall = LABEL_FALL
        return _Line(link, *ends, lanes, is_flat, is_reversed)

    def _end(self, item: _Item, link: Link, side: str, is_reversed: bool) -> _End:
        assert item.box is not None
        return _End(item, side if not is_reversed or item.box.id in self.steering else "beneath")

    def _common(self, one: _Item, other: _Item) -> str:
        theirs = set(self._ancestors(other.parent))
        return next((group for group in self._ancestors(one.parent) if group in theirs), "")

    def _around(self, one: _Item, other: _Item, column: int) -> str:
        group = self._common(one, other)
        while group and not self.groups[group].low <= column <= self.groups[group].high:
            group = self.parents.get(group, "")
        return group

    def _segments(self, left: _Item, right: _Item) -> list[_Item]:
        """The lanes of a line: it leaves the groups of its left box at their right sides, and enters likewise."""
        common = self._common(left, right)
        first, last = left.low + 1, right.low - 1
        low, high = first, last
        leaving: list[_Item] = []
        entering: list[_Item] = []
        for group in self._ancestors(left.parent):
            if group == common:
                break
            if (end := self.groups[group].high) >= low:
                leaving.append(_Item(low, end, group))
                low = end + 1
        for group in self._ancestors(right.parent):
            if group == common:
                break
            if (begin := self.groups[group].low) <= high:
                entering.insert(0, _Item(begin, high, group))
                high = begin - 1
        if low > high:
            return [_Item(first, last, common)]
        return [*leaving, _Item(low, high, common), *entering]

    def _size_boxes(self) -> None:
        """Boxes as high as their lines need."""
        ends: dict[_Item, dict[str, set[object]]] = defaultdict(lambda: defaultdict(set))
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
    def _is_source(line: _Line, end: _End) -> bool:
        return (end is line.right) == line.is_reversed

    @staticmethod
    def _side(line: _Line, end: _End) -> str:
        """The side of the box that a line meets; from beneath, where it runs on to."""
        if end.side != "beneath":
            return end.side
        return "to the left" if line.is_flat or end is line.right else "to the right"

    def _port(self, line: _Line, end: _End, index: int) -> object:
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

    # In which order.

    def _from_neighbours(self) -> None:
        """Neighbours next to one another, whole components one after the other, in the order of the graph."""
        rank: dict[_Item, int] = {}
        for start in self.boxes.values():
            stack = [start]
            while stack:
                item = stack.pop()
                if item not in rank:
                    rank[item] = len(rank)
                    stack.extend(each for each in reversed([*item.right, *item.left]) if each not in rank)
        for item, number in rank.items():
            item.y = 30.0 * number
        self._sort()

    def _from_file(self) -> None:
        """Boxes as the graph lists them, lines between their boxes."""
        for number, item in enumerate(self.boxes.values()):
            item.y = 60.0 * number
        for line in self.lines:
            for lane in line.lanes:
                lane.y = (line.left.box.y + line.right.box.y) / 2
        self._sort()

    def _sort(self) -> None:
        keys: dict[_Item, float] = {}

        def key(item: _Item) -> float:
            if item not in keys:
                members = self.children[item.group] if item.group else []
                keys[item] = sum(map(key, members)) / len(members) if members else item.y
            return keys[item]

        for group in ("", *self.groups):
            self.children[group].sort(key=key)

    def _constraints(self) -> tuple[dict[_Item, tuple[int, int]], list[Constraint]]:
        """For each item the numbers of its first and last variable, and how far apart variables must be.

        Numbers go up along constraints. A box or lane has one variable, its height; a group has two, top and bottom.
        """
        numbers: dict[_Item, tuple[int, int]] = {}
        constraints: list[Constraint] = []
        count = 0

        def visit(group: str, frame: int | None) -> None:
            nonlocal count
            last: dict[int, _Item] = {}
            inside: list[tuple[int, float]] = []
            for item in self.children[group]:
                begin = count
                count += 1
                if item.group:
                    visit(item.group, begin)
                    count += 1
                numbers[item] = (begin, count - 1)
                columns = range(item.low, item.high + 1)
                nearest = dict.fromkeys(last[column] for column in columns if column in last)
                constraints.extend(
                    (numbers[above][1], begin, above.fall + item.rise + _gap(above, item)) for above in nearest
                )
                last.update(dict.fromkeys(columns, item))
                if frame is not None:
                    constraints.append((frame, begin, FRAME_HEAD + item.rise))
                    inside.append((count - 1, FRAME_FOOT + item.fall))
            if frame is not None:
                constraints.extend((number, count, room) for number, room in inside)

        visit("", None)
        return numbers, constraints

    def _frames(self, group: str) -> None:
        """Each frame as tight as what stands in it lets it be."""
        for item in self.children[group]:
            if item.group:
                self._frames(item.group)
                inside = self.children[item.group]
                item.top = min(each.top if each.group else each.y - each.rise for each in inside) - FRAME_HEAD
                item.bottom = max(each.bottom if each.group else each.y + each.fall for each in inside) + FRAME_FOOT

    def _settle(self) -> None:
        """Heights that satisfy the order, as near as they can be to what they are."""
        numbers, constraints = self._constraints()
        self._frames("")
        wanted = [0.0] * (2 * len(numbers))
        for item, (first, last) in numbers.items():
            wanted[first], wanted[last] = (item.top, item.bottom) if item.group else (item.y, item.y)
        heights = _feasible(wanted, constraints)
        for item, (first, last) in numbers.items():
            item.y, item.top, item.bottom = heights[first], heights[first], heights[last]
        self._frames("")

    def _cost(self) -> tuple[int, float]:
        """How many lines cross one another or a frame, and how far they climb."""
        gaps: dict[int, list[Point]] = defaultdict(list)
        climbed = 0.0
        for item in self.leaves:
            for column in range(item.low, item.high):
                gaps[column].append((item.y, item.y))
            for after in item.right:
                gaps[item.high].append((item.y, after.y))
                climbed += abs(item.y - after.y)
        for group in self.groups.values():
            for column in range(group.low, group.high):
                gaps[column] += [(group.top, group.top), (group.bottom, group.bottom)]
        crossings = 0
        for lines in gaps.values():
            lines.sort()
            seen: list[float] = []
            for _, end in lines:
                crossings += len(seen) - bisect_right(seen, end)
                insort(seen, end)
        return crossings, round(climbed, 3)

    def _order(self) -> None:
        """The best of two beginnings, each swept to and fro over the columns and then improved by exchanges."""
        is_small = len(self.leaves) <= SWAPPED
        outcomes = []
        for start in (self._from_neighbours, self._from_file) if is_small else (self._from_neighbours,):
            start()
            self._settle()
            self._sweep()
            if is_small:
                self._swap()
            outcomes.append((self._cost(), self._state()))
        self._restore(min(outcomes, key=lambda each: each[0])[1])
        self._frames("")

    def _sweep(self) -> None:
        """Each item to the mean of its neighbours, column by column; the best order stays."""
        forth = sorted(self.leaves, key=lambda item: item.low)
        back = sorted(self.leaves, key=lambda item: -item.high)
        best = (self._cost(), self._state())
        sweeps = SWEEPS if len(self.leaves) < 600 else SWEEPS // 3
        for sweep in range(sweeps):
            for item in back if sweep % 2 else forth:
                if neighbours := item.right if sweep % 2 else item.left:
                    item.y = sum(each.y for each in neighbours) / len(neighbours)
            self._sort()
            self._settle()
            best = min(best, (self._cost(), self._state()), key=lambda each: each[0])
        self._restore(best[1])
        self._frames("")

    def _swap(self) -> None:
        """Neighbours change places, alone or with the whole chains they are part of, where that saves crossings."""
        cost = self._cost()
        for _ in range(SWAPS):
            before = cost
            for group in ("", *self.groups):
                for item in list(self.children[group]):
                    siblings = self.children[group]
                    place = siblings.index(item)
                    below = next((each for each in siblings[place + 1 :] if _share(item, each)), None)
                    if below is None:
                        continue
                    chains = [(item, below)], _paired(item, below)
                    for pairs in chains[: 2 if len(chains[1]) > 1 else 1]:
                        state = self._state()
                        for one, other in pairs:
                            self._exchange(one, other)
                        self._settle()
                        if (changed := self._cost()) < cost:
                            cost = changed
                            break
                        self._restore(state)
            if cost == before:
                break
        self._settle()

    def _exchange(self, one: _Item, other: _Item) -> None:
        """Each in the other's place."""
        siblings = self.children[one.parent]
        first, second = siblings.index(one), siblings.index(other)
        siblings[first], siblings[second] = other, one
        one.y, other.y = other.y, one.y

    def _state(self) -> tuple[dict[str, list[_Item]], list[float]]:
        return {group: list(items) for group, items in self.children.items()}, [item.y for item in self.leaves]

    def _restore(self, state: tuple[dict[str, list[_Item]], list[float]]) -> None:
        self.children.update({group: list(items) for group, items in state[0].items()})
        for item, y in zip(self.leaves, state[1], strict=True):
            item.y = y

    # How high.

    def _spread_ports(self) -> None:
        """Each line's place on its boxes, in the order in which lines arrive."""
        at: dict[tuple[_Item, str], list[tuple[float, int, _Line, _End]]] = defaultdict(list)
        for index, line in enumerate(self.lines):
            for end, lane in ((line.left, line.lanes[0]), (line.right, line.lanes[-1])):
                at[end.box, self._side(line, end)].append((lane.y, index, line, end))
        for (item, side), ends in at.items():
            assert item.box is not None
            half = item.rise
            if side in ("left", "right"):
                ports: dict[object, list[tuple[float, _End]]] = defaultdict(list)
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

    def _straighten(self) -> list[tuple[int, float]]:
        """Joins what can stand at one height: for each leaf the number of its block, and its offset in it."""
        numbers, constraints = self._constraints()
        count = 2 * len(numbers)
        block = list(range(count))
        offset = [0.0] * count
        members = [[number] for number in range(count)]
        after: list[dict[int, float]] = [{} for _ in range(count)]
        for above, below, apart in constraints:
            after[above][below] = max(apart, after[above].get(below, apart))
        steps = 0

        def reaches(start: int, goal: int) -> bool:
            """Whether a chain of constraints leads from one block to another."""
            nonlocal steps
            seen, stack = {start}, [start]
            while stack:
                current = stack.pop()
                for member in members[current]:
                    for below in after[member]:
                        steps += 1
                        to = block[below]
                        if to == goal:
                            return True
                        if to not in seen:
                            seen.add(to)
                            stack.append(to)
            return False

        def join(one: _Item, other: _Item, rise: float) -> None:
            """The other's height is the one's plus ``rise``, if nothing stands against it."""
            first, second = block[numbers[one][0]], block[numbers[other][0]]
            if first == second or steps > STRAIGHTENING or reaches(first, second) or reaches(second, first):
                return
            shift = offset[numbers[one][0]] + rise - offset[numbers[other][0]]
            for member in members[second]:
                block[member] = first
                offset[member] += shift
            members[first] += members[second]
            members[second] = []

        beside: dict[tuple[_Item, str], list[tuple[float, int]]] = defaultdict(list)
        for index, line in enumerate(self.lines):
            for end, lane in ((line.left, line.lanes[0]), (line.right, line.lanes[-1])):
                if end.side != "beneath":
                    beside[end.box, end.side].append((lane.y, index))
        rank = {
            (*at, index): abs(place - (len(ends) - 1) / 2) + len(ends)
            for at, ends in beside.items()
            for place, (_, index) in enumerate(sorted(ends))
        }

        def importance(index: int) -> tuple[float, float, int]:
            line = self.lines[index]
            ranks = (rank.get((end.box, end.side, index), 50.0) for end in (line.left, line.right))
            return sum(ranks), line.lanes[0].y, index

        for index in sorted(range(len(self.lines)), key=importance):
            line = self.lines[index]
            if line.is_flat:
                continue
            for lane, following in pairwise(line.lanes):
                join(lane, following, 0.0)
            if line.left.side == "right":
                join(line.left.box, line.lanes[0], line.left.offset)
            if line.right.side == "left":
                join(line.lanes[-1], line.right.box, -line.right.offset)
        self._numbers, self._limits = numbers, constraints
        return list(zip(block, offset, strict=True))

    def _align(self) -> None:
        """Blocks of what stands at one height, each to the middle of what it is joined to, as far as there is room."""
        placed = self._straighten()
        numbers = self._numbers
        limits: dict[tuple[int, int], float] = {}
        for above, below, apart in self._limits:
            (one, up), (other, down) = placed[above], placed[below]
            if one != other:
                limits[one, other] = max(apart + up - down, limits.get((one, other), -1e9))
        order = _sorted({each for each, _ in placed}, limits)
        place = {number: index for index, number in enumerate(order)}
        constraints = sorted((place[one], place[other], apart) for (one, other), apart in limits.items())
        pulls: list[list[tuple[_Item, float, _Item, float]]] = [[] for _ in order]
        for line in self.lines:
            joints = [
                (line.left.box, line.left.height, line.lanes[0], 0.0),
                *((one, 0.0, other, 0.0) for one, other in pairwise(line.lanes)),
                (line.lanes[-1], 0.0, line.right.box, line.right.height),
            ]
            for before, up, after, down in joints:
                near, far = place[placed[numbers[before][0]][0]], place[placed[numbers[after][0]][0]]
                if near != far:
                    pulls[near].append((before, up, after, down))
                    pulls[far].append((after, down, before, up))
        leaves = [(item, *placed[numbers[item][0]]) for item in self.leaves]
        held: list[list[float]] = [[] for _ in order]
        for item, number, offset in leaves:
            held[place[number]].append(item.y - offset)
        wanted = [sum(each) / len(each) if each else 0.0 for each in held]
        rounds = ROUNDS if len(self.leaves) < 600 else ROUNDS // 2
        for turn in range(rounds):
            self._want_frames(wanted, place, placed)
            heights = _feasible(wanted, constraints)
            for item, number, offset in leaves:
                item.y = heights[place[number]] + offset
            self._frames("")
            wanted = list(heights)
            for number, pulled in enumerate(pulls):
                if pulled:
                    shift = sum(other.y + down - one.y - up for one, up, other, down in pulled) / len(pulled)
                    wanted[number] += 0.6 * shift
            if turn < rounds // 2:
                wanted = [height * SHRINK for height in wanted]
        self._frames("")

    def _want_frames(self, wanted: list[float], place: dict[int, int], placed: list[tuple[int, float]]) -> None:
        def visit(group: str) -> tuple[float, float]:
            top, bottom = float("inf"), float("-inf")
            for item in self.children[group]:
                first, last = self._numbers[item]
                if item.group:
                    high, low = visit(item.group)
                    wanted[place[placed[first][0]]], wanted[place[placed[last][0]]] = high, low
                else:
                    y = wanted[place[placed[first][0]]] + placed[first][1]
                    high, low = y - item.rise, y + item.fall
                top, bottom = min(top, high), max(bottom, low)
            return top - FRAME_HEAD, bottom + FRAME_FOOT

        visit("")

    # How wide, and the lines.

    def _columns(self) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
        """Where each column begins, how wide it is, and how wide boxes that stretch are in it."""
        widths: dict[int, float] = {}
        stretched: dict[int, float] = {}
        taken = [column for item in self.leaves for column in (item.low, item.high)]
        first, last = min(taken, default=0), max(taken, default=0)
        for column in range(first, last + 1):
            widths[column] = stretched[column] = 0.0
        for item in self.boxes.values():
            assert item.box is not None
            widths[item.low] = max(widths[item.low], item.box.width)
            if item.box.stretches:
                stretched[item.low] = max(stretched[item.low], item.box.width)
        for line in self.lines:
            column = line.lanes[-1].high
            widths[column] = max(widths[column], line.link.label)
        gaps = self._gaps(first, last)
        for group, item in sorted(self.groups.items(), key=lambda each: -len(self._ancestors(each[0]))):
            room = sum(widths[column] for column in range(item.low, item.high + 1))
            room += sum(gaps[column] for column in range(item.low, item.high))
            widths[item.low] += max(0.0, self.titles.get(group, 0.0) - room)
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
                sum(1 for each in self._ancestors(group) if getattr(self.groups[each], side) == column)
                for group, item in self.groups.items()
                if getattr(item, side) == column
            ),
            default=0,
        )
        return FRAME_SIDE * deepest

    def _gaps(self, first: int, last: int) -> dict[int, float]:
        steep: dict[int, float] = defaultdict(float)
        for line in self.lines:
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
        self._order()
        self._spread_ports()
        self._align()
        begins, widths, stretched = self._columns()
        ends = {column: begins[column] + widths[column] for column in begins}
        tops = [item.y - item.rise for item in self.leaves] + [item.top for item in self.groups.values()]
        up = MARGIN - min(tops, default=0.0)
        for item in (*self.leaves, *self.groups.values()):
            item.y, item.top, item.bottom = item.y + up, item.top + up, item.bottom + up
        boxes: dict[str, Rect] = {}
        for id_, item in self.boxes.items():
            assert item.box is not None
            width = stretched[item.low] if item.box.stretches else item.box.width
            height = 2 * item.rise
            x = begins[item.low] + (widths[item.low] - width) / 2
            boxes[id_] = _rect(x, item.y - item.rise, width, height)
        frames = {}
        for group in (each for each in self.parents if each in self.groups):
            item = self.groups[group]
            lineage = self._within(group)
            x = begins[item.low] - FRAME_SIDE * lineage[0]
            frames[group] = _rect(x, item.top, ends[item.high] + FRAME_SIDE * lineage[1] - x, item.bottom - item.top)
        routes = tuple(self._route(line, boxes, begins, ends) for line in self.lines)
        shapes = [*boxes.values(), *frames.values(), *(route.label for route in routes if route.label)]
        points = [point for route in routes for curve in route.curves for point in curve]
        right = max([each.right for each in shapes] + [x for x, _ in points], default=0.0)
        bottom = max([each.bottom for each in shapes] + [y for _, y in points], default=0.0)
        return Layout(round(right + MARGIN, 1), round(bottom + MARGIN, 1), boxes, frames, routes, self.layers)

    def _within(self, group: str) -> tuple[int, int]:
        """How many frames, this one included, begin at its left side within it, and end at its right side."""
        item = self.groups[group]
        low = high = 0
        for other in self.groups:
            lineage = self._ancestors(other)
            if group in lineage:
                between = [self.groups[each] for each in lineage[: lineage.index(group) + 1]]
                low = max(low, sum(each.low == item.low for each in between))
                high = max(high, sum(each.high == item.high for each in between))
        return low, high

    def _route(self, line: _Line, boxes: Mapping[str, Rect], begins: dict[int, float], ends: dict[int, float]) -> Route:
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

    def leave(self, end: _End, boxes: Mapping[str, Rect], edge: float) -> None:
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

    def arrive(self, end: _End, boxes: Mapping[str, Rect], edge: float) -> None:
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


def _gap(above: _Item, below: _Item) -> float:
    if above.group or below.group:
        return FRAME_GAP
    if above.box and below.box:
        return BOX_GAP
    return MIXED_GAP if above.box or below.box else LANE_GAP


def _share(one: _Item, other: _Item) -> bool:
    """Whether they stand in a column both."""
    return one.low <= other.high and other.low <= one.high


def _chain(item: _Item) -> list[_Item]:
    """What hangs on an item without a branch, to both sides."""
    chain = [item]
    for onward in ("left", "right"):
        current = item
        while len(current.left) == len(current.right) == 1:
            current = getattr(current, onward)[0]
            if current in chain:
                break
            chain.append(current)
    return [each for each in chain if len(each.left) == len(each.right) == 1]


def _paired(one: _Item, other: _Item) -> list[tuple[_Item, _Item]]:
    """The parts of two chains that stand in the same columns of the same group."""
    theirs = {(each.low, each.high, each.parent): each for each in _chain(other)}
    pairs = [(each, theirs.get((each.low, each.high, each.parent))) for each in _chain(one)]
    return [(mine, their) for mine, their in pairs if their is not None and their is not mine]


def _feasible(wanted: Sequence[float], constraints: Sequence[Constraint]) -> list[float]:
    """Heights that keep all distances. The mean of pushing everything down and pushing everything up keeps them too."""
    down, up = list(wanted), list(wanted)
    for above, below, apart in sorted(constraints):
        if down[above] + apart > down[below]:
            down[below] = down[above] + apart
    for above, below, apart in sorted(constraints, key=lambda each: -each[1]):
        if up[below] - apart < up[above]:
            up[above] = up[below] - apart
    return [(one + other) / 2 for one, other in zip(down, up, strict=True)]


def _sorted(numbers: Iterable[int], limits: Mapping[tuple[int, int], float]) -> list[int]:
    """Numbers such that whatever must be above comes first."""
    import networkx

    graph: networkx.DiGraph[int] = networkx.DiGraph()
    graph.add_nodes_from(sorted(numbers))
    graph.add_edges_from(limits)
    return list(networkx.lexicographical_topological_sort(graph))
