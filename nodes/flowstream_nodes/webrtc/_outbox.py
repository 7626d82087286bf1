"""Bursts to many viewers: written for all of them, then protected, then handed to the kernel.

One kind of work at a time. Python, the cipher and the kernel are each too large for the processor's innermost caches;
where a viewer is served from beginning to end before the next one, they are fetched anew for each.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from flowstream.proto.ice import Pair
from flowstream_nodes.webrtc._protection import LONGEST, MOST, ROOM, TRAILER, ProtectionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowstream_nodes.webrtc._layout import Even, Layout
    from flowstream_nodes.webrtc._protection import Protection

SLOTS: Final = 32
"""Bursts that are together on their way: about as many as fit the second cache of a processor."""

_SLOT: Final = MOST * ROOM + TRAILER


class Way(Protocol):
    """What sends."""

    def send_evens(self, data: memoryview, runs: Sequence[Even], pair: Pair) -> object:
        """Datagrams that lie one behind the other, to one peer."""


class Leaving(Protocol):
    """Who sends a burst."""

    def leaves(self, layout: Layout, probe: int) -> None:
        """The burst that was put in leaves now."""

    def fails(self, error: ProtectionError) -> None:
        """It could not be protected."""


_Burst = tuple[Leaving, "Protection", "Layout", Pair, int, memoryview]
"""Who sends it, how it is protected, how it lies, where it goes, its probe, and where it was written. (A plain tuple:
one is made for each burst to each viewer.)"""


class Outbox:
    """The bursts of all viewers of one output, at most `SLOTS` at a time.

    What is put in leaves at once, or all together at the end of `gathering`.
    """

    def __init__(self, way: Way) -> None:
        self._way = way
        self._bursts: list[_Burst] = []
        self._is_gathering = False

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """What is put in while the block lasts leaves together, at its end at the latest."""
        was_gathering, self._is_gathering = self._is_gathering, True
        try:
            yield
        finally:
            self._is_gathering = was_gathering
            if not was_gathering:
                self.flush()

    def room(self, layout: Layout) -> memoryview:
        """Where the next burst is to be written: its payloads are in place, and room for headers and trailers.

        Raises:
            ProtectionError: a packet is too long.
        """
        if layout.longest > LONGEST:
            raise ProtectionError(f"a packet of {layout.longest} bytes is too long")
        if len(self._bursts) >= SLOTS:
            self.flush()
        start = len(self._bursts) * _SLOT
        burst = _workspace()[1][start : start + len(layout.template)]
        burst[:] = layout.template
        return burst

    def put(
        self, sender: Leaving, protection: Protection, layout: Layout, data: memoryview, pair: Pair, probe: int
    ) -> None:
        """What was written into `room` is complete: ``sender`` is told when it leaves."""
        self._bursts.append((sender, protection, layout, pair, probe, data))
        if not self._is_gathering:
            self.flush()

    def flush(self) -> None:
        """All that was put in leaves."""
        if not self._bursts:
            return
        bursts, self._bursts = self._bursts, []
        failed = self._protect(bursts)
        for index, (sender, _, layout, pair, probe, data) in enumerate(bursts):
            if index in failed:
                sender.fails(ProtectionError(f"libsrtp says {failed[index]}"))
                continue
            sender.leaves(layout, probe)
            self._way.send_evens(data, layout.runs, pair)

    def _protect(self, bursts: Sequence[_Burst]) -> dict[int, int]:
        """Protects all packets of all bursts in place; gives which could not be, and why."""
        lengths, length_places = _lengths()
        contexts: list[Any] = []
        places: list[Any] = []
        sizes: list[int] = []
        for index, (_, protection, layout, _, _, _) in enumerate(bursts):
            contexts += [protection.context] * len(layout.lengths)
            places += _places(index, layout.offsets)
            sizes += layout.lengths
        lengths[: len(sizes)] = array("i", sizes)
        call = bursts[0][1].call
        statuses = list(map(call, contexts, places, length_places))
        if not any(statuses):
            return {}
        failed: dict[int, int] = {}
        first = 0
        for index, (_, _, layout, _, _, _) in enumerate(bursts):
            end = first + len(layout.lengths)
            status = max(statuses[first:end])
            if status:
                failed[index] = status
            first = end
        return failed


@functools.lru_cache(maxsize=1024)
def _places(slot: int, offsets: tuple[int, ...]) -> list[Any]:
    """Pointers into the workspace."""
    begin = _workspace()[0] + slot * _SLOT
    return [begin + offset for offset in offsets]


@functools.cache
def _workspace() -> tuple[Any, memoryview]:
    """Room for `SLOTS` bursts, for all outputs: each has sent what is in it before another one's turn."""
    from pylibsrtp._binding import ffi

    buffer = ffi.new("char[]", SLOTS * _SLOT)
    return buffer, memoryview(ffi.buffer(buffer))


@functools.cache
def _lengths() -> tuple[memoryview, list[Any]]:
    """The lengths of all packets of all slots, and a pointer to each."""
    from pylibsrtp._binding import ffi

    count = SLOTS * MOST
    lengths = ffi.new("int[]", count)
    return memoryview(ffi.buffer(lengths)).cast("B").cast("i"), [lengths + index for index in range(count)]
