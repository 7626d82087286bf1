"""People who watch: players that join, leave, or are gone without a word."""

from __future__ import annotations

import random
import time
from typing import Any

import anyio
import httpx
from anyio.abc import TaskGroup

from tests.nodes.webrtc.conftest import LoopbackViewer

CHECK_S = 2.0
JOIN_S = 30.0
STRAY_BYTES = (b"\x16\xfe\xfd" + bytes(40), b"\x80\x60" + bytes(30), b"\x81\xcd" + bytes(20), bytes(3))
"""What no player sends: a broken handshake, media, a report, noise."""


class Watcher:
    """One player and its session. ``pictures`` counts what it got to see, ``sounds`` what it heard."""

    def __init__(self, url: str, chance: random.Random) -> None:
        self._url = url
        self._chance = chance
        self._player = LoopbackViewer()
        self._session = ""
        self._is_gone = False
        self.pictures = 0
        self.sounds = 0
        self.longest_s = 0.0  # between two pictures
        self._last: float | None = None

    async def join(self, http: httpx.AsyncClient) -> bool:
        """Connects; false when there is no room, or nothing there now."""
        offer = self._player.offer(rtx=self._chance.random() < 0.7)
        answer = await http.post(f"{self._url}whep", content=offer, headers={"Content-Type": "application/sdp"})
        if answer.status_code != 201:
            return False
        self._session = answer.headers["Location"]
        with anyio.fail_after(JOIN_S):
            await self._player.connect(answer.text)
        return True

    async def watch(self) -> None:
        """Takes what comes until it is gone, and says now and then that it is there."""
        beat = 0.0
        while not self._is_gone:
            now = time.monotonic()
            if now - beat > CHECK_S:
                beat = now
                self._player._transactions.clear()
                self._player.check(nominate=False)
            with anyio.move_on_after(0.5):
                await self._player.until(lambda: bool(self._player.rtp))
            packets, self._player.rtp = self._player.rtp, []
            self._player.rtcp.clear()
            for packet in packets:
                if packet.ssrc != self._player.ssrcs[0]:
                    self.sounds += 1
                elif packet.marker:
                    self.pictures += 1
                    if self._last is not None:
                        self.longest_s = max(self.longest_s, now - self._last)
                    self._last = now
            await anyio.sleep(0.1)

    def disturb(self) -> None:
        """Sends what no player sends."""
        if not self._is_gone:
            self._player.socket.send(self._chance.choice(STRAY_BYTES))

    async def leave(self, http: httpx.AsyncClient, way: str) -> None:
        """Ends: by ``alert``, as a browser does that is closed, by ``delete``, as a page does, or it ``vanish``es."""
        self._is_gone = True
        if way == "alert":
            await self._player.leave()
        else:
            pump: Any = getattr(self._player, "dtls", None) and self._player.dtls._task
            if pump is not None:
                pump.cancel()
            if way == "delete":
                base = self._url.split("/", 3)
                await http.delete(f"{base[0]}//{base[2]}{self._session}")
        self._player.vanish()


class Audience:
    """All who watch. ``steady`` is there all the time; the others come and go."""

    def __init__(self, host: str, chance: random.Random, tasks: TaskGroup, http: httpx.AsyncClient) -> None:
        self._host = host
        self._chance = chance
        self._tasks = tasks
        self._http = http
        self.steady: Watcher | None = None
        self.watchers: list[Watcher] = []
        self.joined = self.refused = 0

    async def settle(self) -> None:
        """The one who stays takes a seat. Raises TimeoutError when that does not work."""
        steady = Watcher(f"{self._host}/out/", self._chance)
        if not await steady.join(self._http):
            raise TimeoutError("nobody can watch")
        self._tasks.start_soon(steady.watch)
        self.steady = steady

    async def join(self, node: str = "out") -> str:
        """Somebody comes."""
        watcher = Watcher(f"{self._host}/{node}/", self._chance)
        if not await watcher.join(self._http):
            self.refused += 1
            return "refused"
        self.joined += 1
        self.watchers.append(watcher)
        self._tasks.start_soon(watcher.watch)
        return f"{len(self.watchers)} watch"

    async def leave(self, *ways: str) -> str:
        """Somebody goes."""
        if not self.watchers:
            return "nobody there"
        watcher = self.watchers.pop(self._chance.randrange(len(self.watchers)))
        way = self._chance.choice(ways)
        await watcher.leave(self._http, way)
        return way

    async def clear(self, way: str = "alert") -> None:
        """All but the steady one go."""
        while self.watchers:
            await self.leave(way)
