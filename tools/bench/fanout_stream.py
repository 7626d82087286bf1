"""The stream of the fan-out benchmark: 720p30 at 2.5 Mbit/s, encoded beforehand. Nobody decodes it."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator
from typing import Final

FPS: Final = 30
BITRATE: Final = 2_500_000
PAYLOAD: Final = 1_160
"""Bytes of media in a packet, whoever sends it."""

PACKETS_PER_S: Final = BITRATE / 8 / PAYLOAD
KEYFRAMES_EVERY: Final = 60
KEYFRAME_TIMES: Final = 4  # as large as another picture


def pictures() -> list[tuple[bytes, bool]]:
    """Two seconds of access units (H.264, Annex B), and which of them are keyframes."""
    rng = random.Random(1)
    size = BITRATE // 8 // FPS * KEYFRAMES_EVERY // (KEYFRAMES_EVERY - 1 + KEYFRAME_TIMES)

    def unit(head: bytes, length: int) -> bytes:
        return head + bytes(rng.choices(range(1, 256), k=length))

    key = unit(b"\0\0\0\1\x67\x42\xe0\x1f\xda\0\0\0\1\x68\xce\x06\xe2\0\0\0\1\x65", size * KEYFRAME_TIMES)
    return [(key, True), *((unit(b"\0\0\0\1\x41", size), False) for _ in range(KEYFRAMES_EVERY - 1))]


async def beats() -> AsyncIterator[int]:
    """The numbers of pictures, when they are due."""
    began = time.monotonic()
    for number in itertools.count():
        await asyncio.sleep(max(0.0, began + number / FPS - time.monotonic()))
        yield number
