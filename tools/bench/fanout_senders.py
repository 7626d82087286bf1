"""Who sends the stream of the fan-out benchmark in Python: our viewers, and aiortc's connections."""

from __future__ import annotations

import asyncio
import fractions
import itertools
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fanout_stream import FPS, beats, pictures

Answer = Callable[[str], Awaitable[str]]
"""Takes a viewer's offer."""

Serve = Callable[[Answer], Awaitable[None]]
"""Takes what answers, and ends when the sender is to end."""


class Holding:
    """What viewers are opened with."""

    def __init__(self) -> None:
        self.log = logging.LoggerAdapter(logging.getLogger("bench"), {})
        self.now_ns = time.monotonic_ns
        self.wallclock_ns = time.time_ns
        self._tasks: set[asyncio.Task[Any]] = set()

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Run a task."""
        task = asyncio.ensure_future(function(*args))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def send_ours(serve: Serve) -> None:
    """Our viewers, as webrtc-out has them."""
    from flowstream import Caller, EncodedCaps, EncodedPacket, ViewerRegistry
    from flowstream.control.tokens import TokenStore
    from flowstream_nodes.webrtc._viewers import Feeder, open_viewers

    holding = Holding()
    registry = ViewerRegistry(time.monotonic_ns, time.time_ns)
    registry.attend(node=lambda: "out", tell=lambda event: None, tokens=TokenStore(None, time.time_ns))
    caps = EncodedCaps(codec="h264", width=1280, height=720)
    begun_ns = time.monotonic_ns()
    is_wanted = [True]
    addresses = itertools.count(1)

    async with open_viewers(holding, registry, host="127.0.0.1", port=0) as viewers:
        feeder = Feeder(
            lambda: frozenset({"video"}), lambda: 500, lambda index: is_wanted.__setitem__(0, True), lambda: None
        )

        async def answer(offer: str) -> str:
            number = next(addresses)
            return viewers.admit(offer, Caller(f"10.0.{number >> 8}.{number & 255}")).answer

        async def play() -> None:
            units = pictures()
            position = 0
            async for _ in beats():
                if is_wanted[0]:
                    position, is_wanted[0] = 0, False
                data, is_keyframe = units[position]
                position = (position + 1) % len(units)
                now_ns = time.monotonic_ns()
                packet = EncodedPacket(caps, data, time_ns=now_ns - begun_ns, keyframe=is_keyframe, capture_ns=now_ns)
                viewers.send_video(packet, feeder)

        with viewers.feeding(feeder, media_ns=0):
            playing = asyncio.ensure_future(play())
            await serve(answer)
            playing.cancel()


async def send_aiortc(serve: Serve) -> None:
    """A connection of aiortc's for each viewer, and a track that gives encoded packets to it."""
    import aioice.ice
    import av
    from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
    from aiortc.mediastreams import MediaStreamTrack

    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]

    class Track(MediaStreamTrack):
        kind = "video"

        def __init__(self) -> None:
            super().__init__()
            self.packets: asyncio.Queue[Any] = asyncio.Queue(300)

        async def recv(self) -> Any:
            return await self.packets.get()

    tracks: list[Track] = []
    connections: list[RTCPeerConnection] = []

    async def answer(offer: str) -> str:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connections.append(connection)
        await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        track = Track()
        connection.addTrack(track)
        await connection.setLocalDescription(await connection.createAnswer())
        tracks.append(track)
        return str(connection.localDescription.sdp)

    async def play() -> None:
        units = pictures()
        async for number in beats():
            data, _ = units[number % len(units)]
            packet = av.Packet(data)
            packet.pts, packet.time_base = number, fractions.Fraction(1, FPS)
            for track in tracks:
                if not track.packets.full():
                    track.packets.put_nowait(packet)

    playing = asyncio.ensure_future(play())
    await serve(answer)
    playing.cancel()
    await asyncio.gather(*(connection.close() for connection in connections))


async def send(who: str) -> None:
    """Answer what comes on standard input, an offer a line, until it ends."""
    reader = asyncio.StreamReader(1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def serve(answer: Answer) -> None:
        while line := await reader.readline():
            print(json.dumps({"answer": await answer(json.loads(line)["offer"])}), flush=True)

    await {"flowstream": send_ours, "aiortc": send_aiortc}[who](serve)


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1]))
