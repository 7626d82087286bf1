"""Ten viewers with links of their own watch a real run: three encoders for all, and each viewer on what it can have."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from flowstream.control.client import ask
from flowstream.proto.rtcp import ReceiverEstimate
from tests.e2e.running import running
from tests.nodes.webrtc.player import LoopbackViewer

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

GRAPH = """\
nodes:
  pattern: {type: test-pattern, size: 320x180, fps: 30}
  middle-size: {type: scale, from: pattern, size: 240x136}
  low-size: {type: scale, from: middle-size, size: 160x90}
  high: {type: hw-encode, from: pattern, bitrate: 600k, keyframe_interval: 2s}
  middle: {type: hw-encode, from: middle-size, bitrate: 250k, keyframe_interval: 2s}
  low: {type: hw-encode, from: low-size, bitrate: 80k, keyframe_interval: 2s}
  out: {type: webrtc-out, inputs: {video: [high, middle, low]}}
"""
UPLINK = GRAPH.replace("low]}}", "low]}, uplink: 1200k}")
RUNGS = ("low", "middle", "high")
SETTLES_S = 60

Seen = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Watch:
    """A run and its viewers; it is asked over its control socket."""

    def __init__(self, url: str, socket: Path) -> None:
        self._url = url
        self._socket = socket
        self._players: dict[LoopbackViewer, int] = {}

    async def ask(self, path: str, **body: Any) -> Any:
        return await anyio.to_thread.run_sync(ask, self._socket, path, body or None)

    async def viewers(self) -> Seen:
        """What the run says of each, by name."""
        return {each["name"]: each for each in (await self.ask("/viewers"))["viewers"]}

    @asynccontextmanager
    async def viewer(self, name: str, estimate_bps: int) -> AsyncIterator[None]:
        """A player that takes its link to carry so much, and tells of it (REMB)."""
        player = LoopbackViewer()
        player.counts_only = True
        offer = player.offer(numbers=True, rtx=False, audio=False).replace("a=rtcp-fb:96 transport-cc\n", "")
        async with httpx.AsyncClient() as http:
            answer = await http.post(
                f"{self._url}out/whep?name={name}", content=offer, headers={"Content-Type": "application/sdp"}
            )
        assert answer.status_code == 201, answer.text
        with anyio.fail_after(20):
            await player.connect(answer.text)
        self._players[player] = estimate_bps
        try:
            yield
        finally:
            del self._players[player]
            with anyio.CancelScope(shield=True):
                await player.leave()
            player.vanish()

    async def keep_telling(self) -> None:
        """Every player tells its estimate, and now and then that it is still there (RFC 7675)."""
        for count in itertools.count(1):
            await anyio.sleep(0.2)
            for player, estimate_bps in self._players.items():
                player.send_rtcp(ReceiverEstimate(1, estimate_bps, (player.ssrcs[0],)))
                if count % 25 == 0:
                    player.check()

    async def until(self, what: str, condition: Callable[[Seen, str], bool]) -> Seen:
        """What the run says of its viewers once it is so, by that and by what ``why`` says."""
        for _ in range(round(SETTLES_S / 0.25)):
            seen, said = await self.viewers(), await self.why()
            if condition(seen, said):
                return seen
            await anyio.sleep(0.25)
        pytest.fail(f"{what}: {[(name, each['rung'], each['limit']) for name, each in seen.items()]}; {said}")

    async def why(self) -> str:
        """All that is to be known of its viewers."""
        told = await self.ask("/why?node=out")
        assert told["healthy"] is True, told
        return "\n".join(each["sentence"] for each in told["causes"])


async def with_viewers(
    folder: Path, graph: str, estimates: dict[str, int], test: Callable[[Watch], Awaitable[None]]
) -> None:
    """Runs a graph with viewers, by name, each with what its link carries, in bits per second."""
    (folder / "graph.yaml").write_text(graph)
    with running("graph.yaml", folder) as run:
        watch = Watch(await anyio.to_thread.run_sync(run.link), folder / "flowstream" / "graph.sock")
        async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
            tasks.start_soon(watch.keep_telling)
            for name, estimate_bps in estimates.items():
                await stack.enter_async_context(watch.viewer(name, estimate_bps))
            await test(watch)
            tasks.cancel_scope.cancel()


@pytest.mark.timeout(200)
async def test_three_encoders_serve_ten_viewers_each_on_the_highest_rung_that_its_estimate_carries(
    tmp_path: Path,
) -> None:
    rates = {"high": 2_000_000, "middle": 450_000, "low": 180_000}
    counts = {"high": 4, "middle": 3, "low": 3}
    wanted = {f"{rung}{number}": rung for rung, count in counts.items() for number in range(count)}

    def is_settled(seen: Seen, said: str) -> bool:
        is_on_it = {name: each["rung"] for name, each in seen.items()} == wanted
        return is_on_it and said.endswith(" and 3 more are held up by their links")

    async def test(watch: Watch) -> None:
        seen = await watch.until("each on the highest that its link carries", is_settled)
        for name, each in seen.items():
            rung, limit = each["rung"], each["limit"]
            if rung == "high":
                assert limit is None
                continue
            assert (limit["by"], limit["above"]) == ("link", RUNGS[RUNGS.index(rung) + 1])
            assert limit["rate_bps"] == rates[wanted[name]] < limit["above_bps"]
            assert each["bitrate_bps"] < limit["rate_bps"]
        assert (await watch.why()).startswith("viewer low0 is on low (its link carries 180k, and middle needs ")
        stats = await watch.ask("/stats?over=5")
        assert [id for id, each in stats["nodes"].items() if each["type"] == "hw-encode"] == ["high", "middle", "low"]

    await with_viewers(tmp_path, GRAPH, {name: rates[rung] for name, rung in wanted.items()}, test)


@pytest.mark.timeout(200)
async def test_why_names_the_uplink_that_viewers_share_and_who_comes_first_gets_more(tmp_path: Path) -> None:
    def is_told(seen: Seen, said: str) -> bool:
        low = [name for name, each in seen.items() if each["rung"] == "low"]
        named, _, because = said.rpartition(" on low: ")
        is_because = because == "the uplink of 1.2M is shared by 5 viewers"
        return is_because and bool(low) and all(name in named for name in low)

    async def test(watch: Watch) -> None:
        seen = await watch.until("the uplink is named", is_told)
        assert all(each["rung"] is not None for each in seen.values()), "nobody starves"
        name, last = next((name, each) for name, each in seen.items() if each["rung"] == "low")
        await watch.ask("/viewers/prioritize", viewer=last["id"], priority=1)
        await watch.until("who comes first gets more", lambda seen, said: seen[name]["rung"] == "high")

    await with_viewers(tmp_path, UPLINK, dict.fromkeys(("Anna", "Bob", "Carl", "Dora", "Emil"), 5_000_000), test)
