"""In which order the boxes and lanes of a drawn graph stand: such that few lines cross."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Sequence

from flowstream.graph.lanes import FRAME_FOOT, FRAME_HEAD, Item, Lanes

BOX_GAP, LANE_GAP, MIXED_GAP, FRAME_GAP = 26.0, 3.0, 9.0, 18.0
"""Between two boxes above one another, two lanes, a box and a lane, a frame and whatever."""

SWEEPS, LARGE = 24, 600
"""How often all columns are swept; a third of it in graphs of more boxes and lanes than that."""

SWAPS, SWAPPED = 4, 120
"""How often neighbours may change places, in graphs of up to that many boxes and lanes."""

Point = tuple[float, float]
Constraint = tuple[int, int, float]
"""Two variables, and how much more the second must be."""


class Ordering:
    """Sorts the children of every group, and gives everything a height that goes with that order."""

    def __init__(self, lanes: Lanes) -> None:
        self.of = lanes

    def order(self) -> None:
        """The best of two beginnings, each swept to and fro over the columns and then improved by exchanges."""
        is_small = len(self.of.leaves) <= SWAPPED
        outcomes = []
        for start in (self._from_neighbours, self._from_file) if is_small else (self._from_neighbours,):
            start()
            self._settle()
            self._sweep()
            if is_small:
                self._swap()
            outcomes.append((self._cost(), self._state()))
        self._restore(min(outcomes, key=lambda each: each[0])[1])
        self.of.frames("")

    def _sweep(self) -> None:
        """Each item to the mean of its neighbours, column by column; the best order stays."""
        forth = sorted(self.of.leaves, key=lambda item: item.low)
        back = sorted(self.of.leaves, key=lambda item: -item.high)
        best = (self._cost(), self._state())
        sweeps = SWEEPS if len(self.of.leaves) < LARGE else SWEEPS // 3
        for sweep in range(sweeps):
            for item in back if sweep % 2 else forth:
                if neighbours := item.right if sweep % 2 else item.left:
                    item.y = sum(each.y for each in neighbours) / len(neighbours)
            self._sort()
            self._settle()
            best = min(best, (self._cost(), self._state()), key=lambda each: each[0])
        self._restore(best[1])
        self.of.frames("")

    def _swap(self) -> None:
        """Neighbours change places, alone or with the whole chains they are part of, where that saves crossings."""
        cost = self._cost()
        for _ in range(SWAPS):
            before = cost
            for group in ("", *self.of.groups):
                for item in list(self.of.children[group]):
                    siblings = self.of.children[group]
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

    def _exchange(self, one: Item, other: Item) -> None:
        """Each in the other's place."""
        siblings = self.of.children[one.parent]
        first, second = siblings.index(one), siblings.index(other)
        siblings[first], siblings[second] = other, one
        one.y, other.y = other.y, one.y

    def _state(self) -> tuple[dict[str, list[Item]], list[float]]:
        return {group: list(items) for group, items in self.of.children.items()}, [item.y for item in self.of.leaves]

    def _restore(self, state: tuple[dict[str, list[Item]], list[float]]) -> None:
        self.of.children.update({group: list(items) for group, items in state[0].items()})
        for item, y in zip(self.of.leaves, state[1], strict=True):
            item.y = y

    def _from_neighbours(self) -> None:
        """Neighbours next to one another, whole components one after the other, in the order of the graph."""
        rank: dict[Item, int] = {}
        for start in self.of.boxes.values():
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
        for number, item in enumerate(self.of.boxes.values()):
            item.y = 60.0 * number
        for line in self.of.lines:
            for lane in line.lanes:
                lane.y = (line.left.box.y + line.right.box.y) / 2
        self._sort()

    def _sort(self) -> None:
        keys: dict[Item, float] = {}

        def key(item: Item) -> float:
            if item not in keys:
                members = self.of.children[item.group] if item.group else []
                keys[item] = sum(map(key, members)) / len(members) if members else item.y
            return keys[item]

        for group in ("", *self.of.groups):
            self.of.children[group].sort(key=key)

    def constraints(self) -> tuple[dict[Item, tuple[int, int]], list[Constraint]]:
        """For each item the numbers of its first and last variable, and how far apart variables must be.

        Numbers go up along constraints. A box or lane has one variable, its height; a group has two, top and bottom.
        """
        numbers: dict[Item, tuple[int, int]] = {}
        constraints: list[Constraint] = []
        count = 0

        def visit(group: str, frame: int | None) -> None:
            nonlocal count
            last: dict[int, Item] = {}
            inside: list[tuple[int, float]] = []
            for item in self.of.children[group]:
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

    def _settle(self) -> None:
        """Heights that satisfy the order, as near as they can be to what they are."""
        numbers, constraints = self.constraints()
        self.of.frames("")
        wanted = [0.0] * (2 * len(numbers))
        for item, (first, last) in numbers.items():
            wanted[first], wanted[last] = (item.top, item.bottom) if item.group else (item.y, item.y)
        heights = feasible(wanted, constraints)
        for item, (first, last) in numbers.items():
            item.y, item.top, item.bottom = heights[first], heights[first], heights[last]
        self.of.frames("")

    def _cost(self) -> tuple[int, float]:
        """How many lines cross one another or a frame, and how far they climb."""
        gaps: dict[int, list[Point]] = defaultdict(list)
        climbed = 0.0
        for item in self.of.leaves:
            for column in range(item.low, item.high):
                gaps[column].append((item.y, item.y))
            for after in item.right:
                gaps[item.high].append((item.y, after.y))
                climbed += abs(item.y - after.y)
        for group in self.of.groups.values():
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


def _gap(above: Item, below: Item) -> float:
    if above.group or below.group:
        return FRAME_GAP
    if above.box and below.box:
        return BOX_GAP
    return MIXED_GAP if above.box or below.box else LANE_GAP


def _share(one: Item, other: Item) -> bool:
    """Whether they stand in a column both."""
    return one.low <= other.high and other.low <= one.high


def _chain(item: Item) -> list[Item]:
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


def _paired(one: Item, other: Item) -> list[tuple[Item, Item]]:
    """The parts of two chains that stand in the same columns of the same group."""
    theirs = {(each.low, each.high, each.parent): each for each in _chain(other)}
    pairs = [(each, theirs.get((each.low, each.high, each.parent))) for each in _chain(one)]
    return [(mine, their) for mine, their in pairs if their is not None and their is not mine]


def feasible(wanted: Sequence[float], constraints: Sequence[Constraint]) -> list[float]:
    """Heights that keep all distances. The mean of pushing everything down and pushing everything up keeps them too."""
    down, up = list(wanted), list(wanted)
    for above, below, apart in sorted(constraints):
        if down[above] + apart > down[below]:
            down[below] = down[above] + apart
    for above, below, apart in sorted(constraints, key=lambda each: -each[1]):
        if up[below] - apart < up[above]:
            up[above] = up[below] - apart
    return [(one + other) / 2 for one, other in zip(down, up, strict=True)]
