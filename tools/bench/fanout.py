#!/usr/bin/env python3
"""One encoded stream to many viewers: CPU time for each packet to each viewer, everything included.

    python tools/bench/fanout.py [--quick]

The stream is 720p30 at 2.5 Mbit/s, encoded beforehand. What is measured is the whole process that sends: ICE, DTLS,
RTCP, feedback on every packet, estimate, pacing, protection and system calls; the handshakes come before. The viewers
are a process of their own, which decrypts nothing and tells of every packet every 100 ms. The peer is aiortc, which
passes encoded packets on too: one packetisation for each viewer, no pacing and no feedback on packets.
"""

from __future__ import annotations

import asyncio
import fractions
import itertools
import json
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FPS = 30
BITRATE = 2_500_000
KEYFRAMES_EVERY = 60
KEYFRAME_TIMES = 4  # as large as another picture
SETTLES_S = 3.0
"""After the last handshake: links are estimated and the first keyframe has gone out."""

VIEWERS = {"few": 10, "many": 50}
TELLS_S = 0.1


def pictures() -> list[tuple[bytes, bool]]:
    """Two seconds of access units (H.264, Annex B), and which of them are keyframes. Nobody decodes them."""
    rng = random.Random(1)
    size = BITRATE // 8 // FPS * KEYFRAMES_EVERY // (KEYFRAMES_EVERY - 1 + KEYFRAME_TIMES)

    def unit(head: bytes, length: int) -> bytes:
        return head + bytes(rng.choices(range(1, 256), k=length))

    key = unit(b"\0\0\0\1\x67\x42\xe0\x1f\xda\0\0\0\1\x68\xce\x06\xe2\0\0\0\1\x65", size * KEYFRAME_TIMES)
    return [(key, True), *((unit(b"\0\0\0\1\x41", size), False) for _ in range(KEYFRAMES_EVERY - 1))]


async def beats(seconds: float | None = None) -> Any:
    """The numbers of pictures, when they are due."""
    began = time.monotonic()
    for number in itertools.count():
        due = began + number / FPS
        if seconds is not None and due - began > seconds:
            return
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        yield number


# --- who sends ------------------------------------------------------------------------------------------------------

Answer = Callable[[str], Awaitable[str]]
"""Takes a viewer's offer."""


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


async def send_ours(serve: Callable[[Answer, Callable[[], int]], Awaitable[None]]) -> None:
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

        def sent() -> int:
            return sum(session.streams["video"].packets_sent for session in viewers.sessions.values())

        with viewers.feeding(feeder, media_ns=0):
            playing = asyncio.ensure_future(play())
            await serve(answer, sent)
            playing.cancel()


async def send_aiortc(serve: Callable[[Answer, Callable[[], int]], Awaitable[None]]) -> None:
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

    def sent() -> int:
        return sum(
            sender._RTCRtpSender__packet_count  # type: ignore[attr-defined]
            for connection in connections
            for sender in connection.getSenders()
        )

    playing = asyncio.ensure_future(play())
    await serve(answer, sent)
    playing.cancel()
    await asyncio.gather(*(connection.close() for connection in connections))


async def send(who: str) -> None:
    """Answer what comes on standard input, an offer a line; then measure for so many seconds."""
    reader = asyncio.StreamReader(1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def serve(answer: Answer, sent: Callable[[], int]) -> None:
        while line := await reader.readline():
            said = json.loads(line)
            if "offer" in said:
                print(json.dumps({"answer": await answer(said["offer"])}), flush=True)
                continue
            before, began = sent(), os.times()
            await asyncio.sleep(said["seconds"])
            ended, packets = os.times(), sent() - before
            user_s, system_s = ended.user - began.user, ended.system - began.system
            print(json.dumps({"cpu_s": user_s + system_s, "system_s": system_s, "packets": packets}), flush=True)
            return

    await {"ours": send_ours, "aiortc": send_aiortc}[who](serve)


# --- who watches ----------------------------------------------------------------------------------------------------


async def watch(who: str, count: int, seconds: float) -> dict[str, float]:
    """So many viewers of a sender; what it used, and what arrived."""
    from tests.nodes.webrtc.player import LoopbackViewer

    server = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "send", who, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 20
    )
    assert server.stdin is not None
    assert server.stdout is not None
    viewers: list[LoopbackViewer] = []
    try:
        for _ in range(count):
            viewer = LoopbackViewer()
            viewer.counts_only = True
            server.stdin.write(json.dumps({"offer": viewer.offer(numbers=who == "ours", audio=False)}).encode() + b"\n")
            await viewer.connect(json.loads(await server.stdout.readline())["answer"])
            viewers.append(viewer)

        async def tell() -> None:
            while True:
                await asyncio.sleep(TELLS_S)
                for viewer in viewers:
                    viewer.tell()

        telling = asyncio.ensure_future(tell())
        await asyncio.sleep(SETTLES_S)
        server.stdin.write(json.dumps({"seconds": seconds}).encode() + b"\n")
        before = sum(viewer.received for viewer in viewers)
        measured: dict[str, float] = json.loads(await server.stdout.readline())
        measured["received"] = sum(viewer.received for viewer in viewers) - before
        telling.cancel()
        return measured
    finally:
        for viewer in viewers:
            await viewer.leave()
            viewer.vanish()
        server.stdin.close()
        await server.wait()


def cost_us(who: str, count: int, seconds: float) -> float:
    """CPU time of the sender for each packet to each viewer, in microseconds."""
    measured = asyncio.run(watch(who, count, seconds))
    wanted = BITRATE / 8 / 1_160 * seconds * count
    if not 0.7 * wanted < measured["packets"]:
        raise RuntimeError(f"{who} sent {measured['packets']:.0f} packets to {count} viewers, not about {wanted:.0f}")
    if measured["received"] < 0.9 * measured["packets"]:
        raise RuntimeError(f"of {measured['packets']:.0f} packets of {who} {measured['received']:.0f} arrived")
    return measured["cpu_s"] / measured["packets"] * 1e6


def main() -> None:
    """Measure and tell."""
    from measuring import RUNS, is_quick, medians, tell, tell_ratio

    quick = is_quick(__doc__)
    for name, count in ({"few": 2, "many": 3} if quick else VIEWERS).items():
        found = medians(
            {
                "aiortc": lambda count=count: cost_us("aiortc", count, 1.0 if quick else 6.0),  # type: ignore[misc]
                "ours": lambda count=count: cost_us("ours", count, 1.0 if quick else 6.0),  # type: ignore[misc]
            },
            runs=1 if quick else RUNS,
        )
        tell([("aiortc", found["aiortc"]), ("flowstream", found["ours"])], f"us a packet, {count} viewers")
        tell_ratio(f"fanout_{name}", found["ours"] / found["aiortc"])


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "nodes")]
    if sys.argv[1:2] == ["send"]:
        os.environ.setdefault("PYTHONPATH", os.pathsep.join(sys.path[:2]))
        asyncio.run(send(sys.argv[2]))
    else:
        main()
