"""Small graphs for the tests of the Python API."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np

from flowstream import Graph, Run

PATIENCE_S = 20
SIZE = (90, 160)


def through(**settings: Any) -> Graph:
    """What the program pushes comes back to it."""
    graph = Graph()
    graph.add("app-out", id="out", from_=graph.add("app-in", id="in", **settings))
    return graph


def ticking(**settings: Any) -> Graph:
    """A live picture, for the program and for nobody."""
    graph = Graph()
    pattern = graph.add("test-pattern", id="pattern", size="160x90", fps=100, **settings)
    graph.add("app-out", id="out", from_=pattern)
    graph.add("discard", id="nowhere", from_=pattern)
    return graph


def shown(**settings: Any) -> Graph:
    """A page with a moving picture."""
    graph = Graph()
    pattern = graph.add("test-pattern", id="pattern", size="160x90", fps=30)
    encode = graph.add("hw-encode", id="encode", from_=pattern, bitrate="300k")
    graph.add("webrtc-out", id="out", from_=encode, title="Shown", **settings)
    return graph


def save(file: Path, text: str) -> None:
    """Saves a file, as an editor does."""
    file.write_text(text)


def picture(value: int = 0) -> np.ndarray[Any, Any]:
    return np.full((*SIZE, 3), value, np.uint8)


async def until(condition: Callable[[], bool]) -> None:
    """Returns once something holds; fails the test when it never does."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what runs in real time tells nobody when it got there
            await anyio.sleep(0.01)


async def until_received(run: Run, node: str, count: int = 1) -> None:
    await until(lambda: run.status().nodes[node].received >= count)
