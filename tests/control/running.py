"""A run in this process, and its API as a client sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx

from flowstream.control.files import GraphFile
from flowstream.control.run import Run

ODD = Path(__file__).parent.parent / "packs" / "odd"

TICKS = """\
# What ticks
nodes:
  ticks: {type: odd/ticks, every_ms: 5}  # often
  end: {type: discard, from: ticks}
"""


@dataclass(frozen=True, slots=True)
class Opened:
    """A run, a client of its control socket, and its file."""

    run: Run
    client: httpx.AsyncClient
    file: Path

    async def get(self, path: str) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, status: int = 200, **body: Any) -> Any:
        answer = await self.client.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def kept(self, count: int) -> list[dict[str, Any]]:
        """The revisions, once there are so many."""
        while len(found := (await self.get("/revisions"))["revisions"]) < count:
            await anyio.lowlevel.checkpoint()
        return list(found)

    def every_ms(self) -> int:
        """How often it ticks."""
        return int(self.run.engine.status()["ticks"].config["every_ms"])


@asynccontextmanager
async def opened(folder: Path, text: str = TICKS, **files: str) -> AsyncIterator[Opened]:
    """Runs a graph in a folder, with its history beside it. Nothing watches its file."""
    file = folder / "it.yaml"
    file.write_text(text)
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(content)
    graph = GraphFile(str(file), (ODD,))
    plan = await anyio.to_thread.run_sync(graph.compile)
    async with Run.open(graph, plan, control=folder / "it.sock", state=folder / "state") as run:
        await run.start()
        transport = httpx.AsyncHTTPTransport(uds=str(run.socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://it", timeout=20) as client:
            yield Opened(run, client, file)


def in_run(
    folder: Path, main: Callable[[Opened], Awaitable[None]], text: str = TICKS, **files: str
) -> None:  # fmt: skip
    """Calls ``main`` beside a run of the graph."""

    async def call() -> None:
        with anyio.fail_after(60):
            async with opened(folder, text, **files) as there:
                await main(there)

    anyio.run(call)
