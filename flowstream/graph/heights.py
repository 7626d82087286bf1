"""How high the boxes and lanes of a drawn graph stand, in the order they have: such that lines are straight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

from flowstream.graph.lanes import FRAME_FOOT, FRAME_HEAD, Item, Lanes
from flowstream.graph.ordering import LARGE, Ordering, feasible

ROUNDS = 40
"""How often everything moves to the middle of what it is joined to; half as often in large graphs."""

SHRINK = 0.96
"""How far the picture draws together, round by round, where nothing holds it apart."""

STRAIGHTENING = 2_000_000
"""How many steps may go into making lines straight; beyond that the rest of a very large graph stays crooked."""


class Heights:
    """Joins what can stand at one height to blocks, and moves those."""

    def __init__(self, lanes: Lanes, ordering: Ordering) -> None:
        self.of = lanes
        self._numbers, self._limits = ordering.constraints()

    def align(self) -> None:
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
        pulls: list[list[tuple[Item, float, Item, float]]] = [[] for _ in order]
        for line in self.of.lines:
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
        leaves = [(item, *placed[numbers[item][0]]) for item in self.of.leaves]
        held: list[list[float]] = [[] for _ in order]
        for item, number, offset in leaves:
            held[place[number]].append(item.y - offset)
        wanted = [sum(each) / len(each) if each else 0.0 for each in held]
        rounds = ROUNDS if len(self.of.leaves) < LARGE else ROUNDS // 2
        for turn in range(rounds):
            self._want_frames(wanted, place, placed)
            heights = feasible(wanted, constraints)
            for item, number, offset in leaves:
                item.y = heights[place[number]] + offset
            self.of.frames("")
            wanted = list(heights)
            for number, pulled in enumerate(pulls):
                if pulled:
                    shift = sum(other.y + down - one.y - up for one, up, other, down in pulled) / len(pulled)
                    wanted[number] += 0.6 * shift
            if turn < rounds // 2:
                wanted = [height * SHRINK for height in wanted]
        self.of.frames("")

    def _want_frames(self, wanted: list[float], place: dict[int, int], placed: list[tuple[int, float]]) -> None:
        def visit(group: str) -> tuple[float, float]:
            top, bottom = float("inf"), float("-inf")
            for item in self.of.children[group]:
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

    def _straighten(self) -> list[tuple[int, float]]:
        """Joins what can stand at one height: for each leaf the number of its block, and its offset in it."""
        numbers, constraints = self._numbers, self._limits
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

        def join(one: Item, other: Item, rise: float) -> None:
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

        beside: dict[tuple[Item, str], list[tuple[float, int]]] = defaultdict(list)
        for index, line in enumerate(self.of.lines):
            for end, lane in ((line.left, line.lanes[0]), (line.right, line.lanes[-1])):
                if end.side != "beneath":
                    beside[end.box, end.side].append((lane.y, index))
        rank = {
            (*at, index): abs(place - (len(ends) - 1) / 2) + len(ends)
            for at, ends in beside.items()
            for place, (_, index) in enumerate(sorted(ends))
        }

        def importance(index: int) -> tuple[float, float, int]:
            line = self.of.lines[index]
            ranks = (rank.get((end.box, end.side, index), 50.0) for end in (line.left, line.right))
            return sum(ranks), line.lanes[0].y, index

        for index in sorted(range(len(self.of.lines)), key=importance):
            line = self.of.lines[index]
            if line.is_flat:
                continue
            for lane, following in pairwise(line.lanes):
                join(lane, following, 0.0)
            if line.left.side == "right":
                join(line.left.box, line.lanes[0], line.left.offset)
            if line.right.side == "left":
                join(line.lanes[-1], line.right.box, -line.right.offset)
        return list(zip(block, offset, strict=True))


def _sorted(numbers: Iterable[int], limits: Mapping[tuple[int, int], float]) -> list[int]:
    """Numbers such that whatever must be above comes first."""
    import networkx

    graph: networkx.DiGraph[int] = networkx.DiGraph()
    graph.add_nodes_from(sorted(numbers))
    graph.add_edges_from(limits)
    return list(networkx.lexicographical_topological_sort(graph))
