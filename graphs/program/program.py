"""Pushes pictures into the graph beside this file and reads what it makes of them."""

from pathlib import Path

import numpy as np

import flowstream

with flowstream.open_sync(Path(__file__).with_suffix(".yaml")) as run:
    frames = run.frames("out")
    for brightness in range(0, 250, 10):
        run.push("in", np.full((360, 640, 3), brightness, np.uint8))
        frame = next(frames)
        print(f"{frame.width}x{frame.height}, brightness {frame.array('gray').mean():.0f}")
