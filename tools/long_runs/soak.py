"""A graph runs for an hour under everything that happens to a run, and is at the end what it was at the beginning.

    tools/long soak [--minutes 60] [--seed N] [--trace] [--keep FOLDER]

A real ``flowstream run`` in a process of its own: pictures and sound encoded, served to real players, recorded to a
small disk, read by a program. To it are done, at random, in rounds: saves that can be run and saves that cannot, by
all ways of saving; nodes that fail, lose their peer, end, hang in a call, hold the loop; consumers that are slow;
viewers that come, leave, vanish, send noise; a full disk; SIGHUP; values set and taken back; rollbacks; node types
edited; taps and readers of events that leave in the middle. One viewer watches all the time. A second program in the
same process opens and closes graphs of its own.

After each round the calm graph is saved, and when all has settled:

- no thread, descriptor (socket, file, pipe) or task is there that was not there after the first round;
- on every edge, what came in went out, was dropped and counted, or waits;
- the one who watches is still connected and sees pictures;
- nothing stands in the log that tells of a bug.

At the end: the slopes of the resident set and of what malloc has given out (both less what statistics and event log
hold, which fill up by design), and that of the number of objects, by Theil and Sen over the second half of the rounds,
are not above zero: the lower end of the 95 % interval, unless it adds up to less than 8 MB resident, 1.5 MB given out
or 600 objects; in a run of a few minutes only growth that is five times as large tells. After a good save and then a
bad one, what runs equals a fresh start of the good one. Ctrl-C drains it, with exit status 0.

``--trace`` has Python say where the memory came from that is held (twice the processor time). The journal of what was
done, the log and the graph are kept when something does not hold. The same seed does the same in the same order; when
exactly, differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import anyio
import anyio.to_thread
import httpx
from soaking import edits, verdict
from soaking.faults import VANISH_S, Faults, clear, take_pack
from soaking.process import Process, SoakError, can_mount
from soaking.watchers import Audience

from flowstream.errors import FlowstreamError

ROUND_S = 60.0
SHORTEST_ROUND_S = 40.0
SETTLE_S = 45.0
CALM_S = 3.0
"""How long the calm graph runs before it is looked at: queues and statistics are what they usually are."""

EXTRA_LIFE_S = 600.0
PICTURES_S = 20.0


class Soak:
    """One soak, from the start of the process to the verdict."""

    def __init__(self, folder: Path, *, minutes: float, seed: int, trace: bool) -> None:
        self.folder = folder
        self.seconds = minutes * 60
        self.seed = seed
        self.trace = trace
        self.small_disk = can_mount()
        self.looks: list[dict[str, Any]] = []
        self.peak: dict[str, int] = {"resident": 0, "threads": 0, "descriptors": 0}
        self.process: Process | None = None
        self.faults: Faults | None = None
        self.begun = 0.0

    def start(self, nodes: dict[str, dict[str, Any]], folder: Path, listen: str) -> Process:
        """Start a process on a graph."""
        (folder / "graph.yaml").write_text(edits.text_of(nodes))
        return Process(
            folder, folder / "graph.yaml", listen, life_s=self.seconds + EXTRA_LIFE_S, small_disk=self.small_disk,
            trace=self.trace,
        )  # fmt: skip

    async def run(self) -> None:
        """Soak. Raises SoakError when something does not hold."""
        take_pack(self.folder)
        chance = random.Random(self.seed)
        listen = f"127.0.0.1:{free_port()}"
        process = self.process = self.start(edits.CALM, self.folder, listen)
        try:
            await anyio.to_thread.run_sync(process.started)
            async with httpx.AsyncClient(timeout=60) as http, anyio.create_task_group() as tasks:
                audience = Audience(f"http://{listen}", chance, tasks, http)
                self.faults = Faults(process, self.folder / "graph.yaml", audience, chance)
                await audience.settle()
                sampler = anyio.CancelScope()
                tasks.start_soon(self.sample, process, sampler)
                self.begun = time.monotonic()
                rounds = max(2, int(self.seconds / max(SHORTEST_ROUND_S, min(ROUND_S, self.seconds / 4))))
                for number in range(1, rounds + 1):
                    end = self.begun + self.seconds * number / rounds
                    await self.round(number, end)
                await self.fresh(chance)
                await self.calm()  # a node that has failed on purpose makes the status another one
                sampler.cancel()
                watched = audience.steady
                assert watched is not None
                await watched.leave(http, "alert")
            self.tell_end(watched.pictures, watched.sounds, watched.longest_s)
            self.check_growth()
            status = await anyio.to_thread.run_sync(process.stop)
            if status != 0:
                raise SoakError(f"Ctrl-C ended it with status {status}:\n{process.tail()}")
            if bad := process.bad_lines():
                raise SoakError("the log tells of a bug:\n" + "\n".join(bad[:10]))
        finally:
            process.close()

    async def sample(self, process: Process, scope: anyio.CancelScope) -> None:
        """Look from outside, once a second, for what it uses at most."""
        proc = Path(f"/proc/{process.process.pid}")
        with scope:
            while True:
                with contextlib.suppress(OSError):
                    now = {
                        "resident": process.resident_bytes(),
                        "threads": len(os.listdir(proc / "task")),
                        "descriptors": len(os.listdir(proc / "fd")),
                    }
                    self.peak = {name: max(value, now[name]) for name, value in self.peak.items()}
                await anyio.sleep(1)

    async def round(self, number: int, end: float) -> None:
        """Break things until a few seconds before ``end``, then have calm and look."""
        faults = self.faults
        assert faults is not None
        if number == 1:
            await faults.tour()
        faults.vanish_until = end - VANISH_S
        await faults.storm(end - CALM_S - 4)
        await self.calm()
        await self.settled(number)
        process = faults.process
        look = await anyio.to_thread.run_sync(process.witness, "look")
        stats = await anyio.to_thread.run_sync(process.ask, "/stats")
        look["at"] = time.monotonic() - self.begun
        look["waiting"] = sum(edge["queue"]["bytes"] for edge in stats["edges"].values())
        self.looks.append(look)
        with (self.folder / "looks.jsonl").open("a") as looks:
            looks.write(json.dumps(look) + "\n")
        if lost := verdict.unaccounted(stats):
            raise SoakError("edges do not account for everything:\n" + "\n".join(lost))
        await self.sees_pictures()
        self.tell_round(number, look)

    async def calm(self) -> None:
        """The calm graph, only the steady viewer, room on the disk."""
        faults = self.faults
        assert faults is not None
        await faults.audience.clear()
        clear(faults.process.root())
        await faults.apply(edits.CALM)
        await anyio.sleep(CALM_S)

    async def settled(self, number: int) -> None:
        """Wait until nothing is left that was not there after the first round. Raises SoakError when something is."""
        faults = self.faults
        assert faults is not None
        until = time.monotonic() + SETTLE_S
        before: dict[str, Any] | None = None
        while True:
            count = await anyio.to_thread.run_sync(faults.process.witness, "count")
            if number == 1:  # the first time, settled is what does not change any more
                left = ["it has just begun"] if before is None else verdict.left(before, count)
                pause_s = 4.0
            else:
                left = verdict.left(self.looks[0], count)
                pause_s = 0.5
            if not left:
                return
            if time.monotonic() > until:
                raise SoakError(f"left behind, {SETTLE_S:.0f} s after round {number}:\n" + "\n".join(left))
            before = count
            await anyio.sleep(pause_s)

    async def sees_pictures(self) -> None:
        """The steady viewer gets pictures and sound. Raises SoakError when it does not."""
        assert self.faults is not None
        watched = self.faults.audience.steady
        assert watched is not None
        pictures, sounds = watched.pictures, watched.sounds
        for _ in range(round(PICTURES_S / 0.1)):
            if watched.pictures >= pictures + 10 and watched.sounds >= sounds + 10:
                return
            await anyio.sleep(0.1)
        raise SoakError(
            f"the viewer that watches all the time got {watched.pictures - pictures} pictures and "
            f"{watched.sounds - sounds} packets of sound in {PICTURES_S:.0f} s of calm"
        )

    async def fresh(self, chance: random.Random) -> None:
        """After a good save and a bad one, compare what runs with a fresh start of the good one."""
        faults = self.faults
        assert faults is not None
        good = edits.graph(chance)
        await faults.apply(good)
        (self.folder / "graph.yaml").write_text(edits.text_of(good).replace("hw-encode", "hw-decode"))

        def refused() -> dict[str, Any] | None:
            status = faults.process.ask("/status")
            return status if status["revision"]["refused"] else None

        ran = await anyio.to_thread.run_sync(lambda: faults.process.wait_for("a bad save is refused", refused))
        stats = await anyio.to_thread.run_sync(faults.process.ask, "/stats")
        other = self.folder / "fresh"
        other.mkdir()
        shutil.copytree(self.folder / "wear", other / "wear", ignore=shutil.ignore_patterns("__pycache__"))

        def started() -> dict[str, Any]:
            started = self.start(good, other, f"127.0.0.1:{free_port()}")
            try:
                status = started.started()
                return verdict.shape(status, started.ask("/stats"))
            finally:
                started.close()

        fresh = await anyio.to_thread.run_sync(started)
        if found := verdict.differences(verdict.shape(ran, stats), fresh):
            raise SoakError("what ran is not what a fresh start gives:\n" + "\n".join(found))

    def check_growth(self) -> None:
        """Raises SoakError when memory grew."""
        found = []
        for name, (slope, most) in verdict.grown(self.looks).items():
            print(
                f"{name}: slope {slope.per_second * 3600:+,.0f} an hour, 95 % interval {slope.low * 3600:+,.0f} to "
                f"{slope.high * 3600:+,.0f}; {slope.growth:+,.0f} over {len(verdict.judged(self.looks))} rounds",
                flush=True,
            )
            if slope.grows(most):
                found.append(f"{name} grow by {slope.growth:,.0f} ({most:,} would be none)")
        if found:
            first, last = verdict.judged(self.looks)[0], self.looks[-1]
            kinds = verdict.commonest(first["kinds"], last["kinds"])
            raise SoakError("\n".join([*found, *kinds, *last.get("traced", [])]))

    # --- what is told -----------------------------------------------------------------------------------------------

    def tell_round(self, number: int, look: dict[str, Any]) -> None:
        """Print a line."""
        counts = {name: sum(look[name].values()) for name in ("threads", "libraries", "descriptors", "tasks")}
        print(
            f"round {number}: {look['at']:.0f} s, {sum(self.faults.done.values()) if self.faults else 0} things done; "
            f"resident {look['resident'] / 1e6:.1f} MB, allocated {look['allocated'] / 1e6:.2f} MB "
            f"({look['kept'] / 1e6:.2f} MB of it statistics and events), "
            f"{look['objects']} objects, {look['blocks']} blocks, {look['waiting'] / 1e3:.0f} kB in queues; "
            f"{counts['threads']} threads and {counts['libraries']} of libraries, {counts['descriptors']} descriptors, "
            f"{counts['tasks']} tasks",
            flush=True,
        )

    def tell_end(self, pictures: int, sounds: int, longest_s: float) -> None:
        """Print what was done and what was used at most."""
        faults = self.faults
        assert faults is not None
        done = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in faults.done.most_common())
        audience = faults.audience
        print(f"done: {done}")
        print(
            f"viewers: {audience.joined} came, {audience.refused} found no room or no such output; the steady one got "
            f"{pictures} pictures (longest time without: {longest_s:.1f} s) and {sounds} packets of sound"
        )
        print(
            f"at most: resident {self.peak['resident'] / 1e6:.0f} MB, {self.peak['threads']} threads, "
            f"{self.peak['descriptors']} descriptors; "
            + (
                f"the disk was full {self.faults.process.full_disks()} times"
                if self.small_disk
                else "no small disk here"
            ),
            flush=True,
        )


def free_port() -> int:
    """A port that is free for TCP and UDP on loopback right now."""
    with socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        return int(tcp.getsockname()[1])


def reason(error: BaseException) -> str:
    """What ended a soak, in words."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return str(error) if isinstance(error, SoakError | FlowstreamError) else repr(error)


def main() -> int:
    """Soak, and say what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60, help="how long, from 1 (default: 60)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="what is done")
    parser.add_argument("--trace", action="store_true", help="say where memory that is held came from")
    parser.add_argument("--keep", type=Path, help="folder for journal, log and graph, kept whatever comes of it")
    wanted = parser.parse_args()
    folder = wanted.keep or Path(tempfile.mkdtemp(prefix="flowstream-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    again = f"tools/long soak --minutes {wanted.minutes:g} --seed {wanted.seed}"
    print(again, flush=True)
    soak = Soak(folder.absolute(), minutes=wanted.minutes, seed=wanted.seed, trace=wanted.trace)
    try:
        anyio.run(soak.run)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is told with the way to have it again
        print(f"FAILED: {reason(error)}", flush=True)
        if soak.faults is not None:
            print("done last:", *soak.faults.journal, sep="\n  ")
        print(f"journal, log and graph are in {folder}; to have it again: {again}")
        return 1
    if wanted.keep is None:
        shutil.rmtree(folder)
    print(f"holds (seed {wanted.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
