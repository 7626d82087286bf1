"""What is done to the run: edits, good and bad, and everything else that happens to a run in a long life."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from flowstream.control import client
from flowstream.errors import FlowstreamError
from soaking import edits
from soaking.process import WEAR, Process, SoakError
from soaking.watchers import Audience

MEAN_PAUSE_S = 0.9
MOST_WATCHERS = 4
VARIANTS = 3
RESOURCES = ("/status", "/why", "/stats", "/revisions", "/schema", "/openapi.json")
JOURNAL = 40
VANISH_S = 36.0
"""How long before a look nobody vanishes any more: a run holds on to somebody who may be back for 30 s."""


class Faults:
    """Everything that is done at random. ``done`` counts it, ``journal`` has the last of it."""

    def __init__(self, process: Process, graph: Path, audience: Audience, chance: random.Random) -> None:
        self.process = process
        self.graph = graph
        self.audience = audience
        self.chance = chance
        self.done: Counter[str] = Counter()
        self.journal: deque[str] = deque(maxlen=JOURNAL)
        self.nodes = edits.CALM
        self.vanish_until = 0.0
        self._begun = time.monotonic()
        self._variant = 0
        self._weighted: dict[Callable[[], Awaitable[str]], int] = {
            self.edit: 9, self.spoil: 4, self.twice: 1, self.hang_up: 1, self.set: 4, self.take_back: 1,
            self.roll_back: 1, self.come: 4, self.go: 3, self.stray: 1, self.tap: 3, self.follow: 1, self.ask: 2,
            self.tidy: 1, self.develop: 1,
        }  # fmt: skip

    async def storm(self, until: float) -> None:
        """Does something now and then until so many seconds of the monotonic clock."""
        while (left := until - time.monotonic()) > 0:
            await anyio.sleep(min(left, self.chance.expovariate(1 / MEAN_PAUSE_S)))
            (action,) = self.chance.choices(list(self._weighted), list(self._weighted.values()))
            name = action.__name__
            try:
                came = await action()
            except FlowstreamError as error:
                came = f"refused: {error}"
            self.done[name] += 1
            self.note(f"{name}: {came}")

    def note(self, what: str) -> None:
        """Keeps what was done."""
        line = f"{time.monotonic() - self._begun:8.2f} s  {what}"
        self.journal.append(line)
        with (self.process.folder / "journal.txt").open("a") as journal:
            journal.write(line + "\n")

    async def tour(self) -> None:
        """Has everything there that may be there, once: what is made when it is first needed is made then."""
        for _ in range(VARIANTS):
            await self.apply(edits.everything(self.chance))
            await self.come()
            for edge in ("breaks.video", "out.audio"):
                await self._tap(edge, "png" if edge == "breaks.video" else "raw", 3, 3)
        for resource in RESOURCES:
            await self._ask(resource)
        for action in (self.set, self.take_back, self.spoil, self.hang_up, self.follow):
            with contextlib.suppress(FlowstreamError):
                await action()

    # --- files ------------------------------------------------------------------------------------------------------

    def write(self, text: str, way: str) -> None:
        """Saves as editors do."""
        if way == "in place":
            self.graph.write_text(text)
        else:
            beside = self.graph.with_suffix(".new")
            beside.write_text(text)
            beside.replace(self.graph)

    async def edit(self) -> str:
        """A graph that can be run."""
        self.nodes = edits.graph(self.chance)
        way = self.chance.choice(("in place", "renamed"))
        self.write(edits.text_of(self.nodes), way)
        return f"{way}: {', '.join(sorted(self.nodes.keys() - edits.CALM.keys())) or 'calm'}"

    async def spoil(self) -> str:
        """A graph that cannot."""
        text, kind = edits.broken(self.nodes, self.chance)
        self.write(text, "renamed")
        return kind

    async def twice(self) -> str:
        """Saves that follow at once."""
        for _ in range(self.chance.randint(2, 5)):
            await self.edit()
            await anyio.sleep(self.chance.random() * 0.15)
        return "a few saves"

    async def develop(self, *, is_broken: bool | None = None) -> str:
        """The node types under development are saved, sometimes with a mistake."""
        self._variant = (self._variant + 1) % VARIANTS
        text = (WEAR / "breaks.py").read_text() + f"\n# variant {self._variant}\n"
        if is_broken is None:
            is_broken = self.chance.random() < 0.3
        (self.process.folder / "wear" / "breaks.py").write_text(text + ("def (" if is_broken else ""))
        return "broken" if is_broken else f"variant {self._variant}"

    async def hang_up(self) -> str:
        """SIGHUP."""
        os.kill(self.process.process.pid, signal.SIGHUP)
        return "sent"

    # --- the control socket -----------------------------------------------------------------------------------------

    async def _ask(self, resource: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return await anyio.to_thread.run_sync(self.process.ask, resource, body)

    async def set(self) -> str:
        """A live value over the file, as ``flowstream set`` does."""
        target = self.chance.choice(list(edits.LIVE_VALUES))
        value = self.chance.choice(edits.LIVE_VALUES[target])
        await self._ask("/set", {"target": target, "value": value})
        return f"{target} {value}"

    async def take_back(self) -> str:
        """All that was set, as ``flowstream set --clear``."""
        await self._ask("/clear", {})
        return "all"

    async def roll_back(self) -> str:
        """To a revision before."""
        kept = (await self._ask("/revisions"))["revisions"]
        number = self.chance.choice(kept[-6:])["number"] if kept else None
        await self._ask("/rollback", {"number": number})
        return f"to {number}"

    async def ask(self) -> str:
        """Looks at it as an operator does."""
        resource = self.chance.choice(RESOURCES)
        await self._ask(resource)
        return resource

    async def tap(self) -> str:
        """A tap that is read to its end, or left in the middle."""
        edges = list((await self._ask("/stats"))["edges"])
        if not edges:
            return "no edges"
        edge, data = self.chance.choice(edges), self.chance.choice(("none", "raw", "png"))
        frames, most = self.chance.choice((1, 5, 1000)), self.chance.randint(1, 12)

        return f"{edge} {data}: {await self._tap(edge, data, frames, most)} records"

    async def _tap(self, edge: str, data: str, frames: int, most: int) -> int:
        def look() -> int:
            records = client.follow(self.process.socket, f"/tap?edge={edge}&frames={frames}&data={data}")
            seen = sum(1 for _ in itertools.islice(records, most))
            records.close()  # type: ignore[attr-defined]
            return seen

        return await anyio.to_thread.run_sync(look)

    async def follow(self) -> str:
        """Somebody who follows the events for a while."""

        def look() -> int:
            events = client.follow_events(self.process.socket, "0")
            seen = sum(1 for _ in itertools.islice(events, 5))
            events.close()  # type: ignore[attr-defined]
            return seen

        with anyio.move_on_after(20):
            return f"{await anyio.to_thread.run_sync(look, abandon_on_cancel=True)} events"
        return "nothing came"

    # --- who watches, and the disk ----------------------------------------------------------------------------------

    async def come(self) -> str:
        """A viewer, of the one output or of the other, which may not be there."""
        if len(self.audience.watchers) >= MOST_WATCHERS:
            return "enough"
        return await self.audience.join("aside" if self.chance.random() < 0.15 else "out")

    async def go(self) -> str:
        """A viewer leaves, or vanishes where there is time to notice."""
        ways = ("alert", "delete", "vanish") if time.monotonic() < self.vanish_until else ("alert", "delete")
        return await self.audience.leave(*ways)

    async def stray(self) -> str:
        """Bytes that nobody should send."""
        for watcher in self.audience.watchers:
            watcher.disturb()
        return f"to {len(self.audience.watchers)} sessions"

    async def tidy(self) -> str:
        """The recordings are taken away, so that there is room on the disk again."""
        return f"{clear(self.process.root())} recordings"

    # --- calm -------------------------------------------------------------------------------------------------------

    async def apply(self, nodes: dict[str, dict[str, Any]], seconds: float = 90.0) -> dict[str, Any]:
        """Saves a graph that can be run and waits until it runs; gives the status. Raises SoakError."""
        await self.develop(is_broken=False)
        self.nodes = nodes
        self.write(edits.text_of(nodes), "renamed")
        until = time.monotonic() + seconds
        while True:
            said = ""
            try:
                await self._ask("/clear", {})
                await self._ask("/reload", {})
            except FlowstreamError as error:  # a call that hangs may keep it from being applied, for a while
                said = str(error)
            status = await self._ask("/status")
            if not said and status["revision"]["difference"] is None:
                return status
            if time.monotonic() > until:
                raise SoakError(f"a good save was not applied within {seconds:.0f} s: {said or status['revision']}")
            await anyio.sleep(1)


def clear(folder: Path) -> int:
    """Takes away what was recorded; gives how many files."""
    files = list(folder.glob("*.mp4"))
    for each in files:
        with contextlib.suppress(OSError):
            each.unlink()
    return len(files)


def take_pack(folder: Path) -> None:
    """The node types that go wrong, where they can be edited."""
    shutil.copytree(WEAR, folder / "wear", ignore=shutil.ignore_patterns("__pycache__"))
