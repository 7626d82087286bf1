"""What is kept of what happened, for whoever follows it."""

import itertools

import anyio
import anyio.abc
import anyio.lowlevel

from flowstream.control.events import EventLog
from flowstream.runtime.log import Secrets


def test_who_reads_a_long_history_lets_others_go_on() -> None:
    log = EventLog(Secrets(), lambda: 0)
    for number in range(300):
        log.add("test", number=number)
    turns: list[int] = []  # of others, at each event that was sent
    others = 0

    async def count() -> None:
        nonlocal others
        while True:
            await anyio.lowlevel.checkpoint()
            others += 1

    async def send(data: bytes) -> None:  # takes everything at once, as a connection does that has room
        turns.append(others)
        if len(turns) == 301:
            tasks.cancel_scope.cancel()

    async def main() -> None:
        nonlocal tasks
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            await log.follow(0, send)

    tasks: anyio.abc.TaskGroup
    anyio.run(main)
    assert len(turns) == 301
    assert all(after > before for before, after in itertools.pairwise(turns[1:]))
