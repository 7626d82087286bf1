#!/usr/bin/env python3
"""One encoded stream to many viewers: CPU time for each packet to each viewer, everything included.

    python tools/bench/fanout.py [--quick]

The stream is 720p30 at 2.5 Mbit/s, encoded beforehand. What is measured is the whole process that sends: ICE, DTLS,
RTCP, feedback on packets, estimate, pacing, protection and system calls; the handshakes come before. The viewers are
the same whoever sends. They decrypt nothing, report once a second, tell of every packet every 100 ms where the sender
numbers them, and keep up their consent. They have a processor to themselves, and whoever sends has the others: else the
kernel wakes them up where the packet came from, and they interrupt who sends some hundred times a second, which no
viewer on another machine can.

Peers: Janus (its streaming plugin) and GStreamer's webrtcbin, both as Debian has them, and aiortc, which passes
encoded packets on too. None of them paces, and none takes feedback on packets. As root on Debian, what is missing is
installed with apt-get; elsewhere it is left out. What is written in Python runs on Debian's own where that has our
version, as the others' builds are Debian's: Python built without profile-guided optimisation is a fifth slower.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTLES_S = 4.0
"""After the last handshake: links are estimated and the first keyframe has gone out."""

VIEWERS = {"few": 10, "many": 50}
HUNDRED = 100

JOIN_S = 30.0
"""How long a viewer may take to connect."""


async def watch(who: str, count: int, seconds: float, settles_s: float = SETTLES_S) -> tuple[float, int]:
    """So many viewers of a sender: the CPU time that it used, and the packets of media that arrived."""
    from fanout_peers import SENDERS, apart
    from fanout_viewers import CountingViewer, tell_forever

    viewers = [CountingViewer() for _ in range(count)]
    joined: list[CountingViewer] = []
    async with apart(SENDERS[who](count)) as sender:
        telling = asyncio.ensure_future(tell_forever(joined))
        try:
            for viewer in viewers:
                try:
                    async with asyncio.timeout(JOIN_S):
                        await sender.join(viewer)
                except TimeoutError:
                    number = len(joined) + 1
                    raise RuntimeError(f"{who} has not connected viewer {number} within {JOIN_S:.0f} s") from None
                joined.append(viewer)
            await asyncio.sleep(settles_s)
            before, used_s = sum(viewer.received for viewer in viewers), sender.cpu_s()
            await asyncio.sleep(seconds)
            return sender.cpu_s() - used_s, sum(viewer.received for viewer in viewers) - before
        finally:
            telling.cancel()
            for viewer in joined:
                await viewer.leave()
                viewer.vanish()


def used(who: str, count: int, seconds: float, settles_s: float) -> tuple[float, float]:
    """CPU time of the sender for each packet to each viewer, in microseconds, and its share of a core."""
    from fanout_stream import PACKETS_PER_S

    cpu_s, packets = asyncio.run(watch(who, count, seconds, settles_s))
    wanted = PACKETS_PER_S * seconds * count
    if not 0.8 * wanted < packets < 1.3 * wanted:
        raise RuntimeError(f"of {who} {packets} packets arrived at {count} viewers, not about {wanted:.0f}")
    return cpu_s / packets * 1e6, cpu_s / seconds


def main() -> None:
    """Measure and tell."""
    from fanout_peers import present, python_of_senders
    from fanout_viewers import accept_rsa
    from measuring import RUNS, is_quick, medians, tell, tell_ratio

    quick = is_quick(__doc__)
    runs, times = (1, (1.0, 0.5)) if quick else (RUNS, (6.0, SETTLES_S))
    accept_rsa()
    names = ["flowstream", *present(install=not quick)]
    print(f"what is written in Python sends on {python_of_senders()}")
    ratios: dict[str, float] = {}
    for name, count in ({"few": 2, "many": 3} if quick else VIEWERS).items():
        found = medians(
            {who: lambda who=who, count=count: used(who, count, *times)[0] for who in names},  # type: ignore[misc]
            runs=runs,
        )
        tell([(who, found[who]) for who in reversed(names)], f"us a packet, {count} viewers")
        ratios |= {f"fanout_{name}_{who}": found["flowstream"] / found[who] for who in names[1:]}
    count = 4 if quick else HUNDRED
    shares = medians({"flowstream": lambda: used("flowstream", count, *times)[1]}, runs=runs)
    tell([("flowstream", shares["flowstream"])], f"of a core, {count} viewers")
    for name, value in ratios.items():
        tell_ratio(name, value)
    tell_ratio("fanout_hundred_of_a_core", shares["flowstream"])


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "nodes")]
    main()
