"""Bursts to many viewers: written for all of them, then protected, then handed to the kernel.

One kind of work at a time. Python, the cipher and the kernel are each too large for the processor's innermost caches;
where a viewer is served from beginning to end before the next one, they are fetched anew for each.
"""

from __future__ import annotations

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
_MOST_PLACES: Final = 1024


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
        self._workspace: _Workspace | None = None

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
        if self._workspace is None:
            self._workspace = _Workspace()
        start = len(self._bursts) * _SLOT
        burst = self._workspace.view[start : start + len(layout.template)]
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
            if index not in failed:
                sender.leaves(layout, probe)
                self._way.send_evens(data, layout.runs, pair)
        for index, status in failed.items():  # last: whatever comes of it may put something in
            bursts[index][0].fails(ProtectionError(f"libsrtp says {status}"))

    def _protect(self, bursts: Sequence[_Burst]) -> dict[int, int]:
        """Protects all packets of all bursts in place; gives which could not be, and why."""
        workspace = self._workspace
        assert workspace is not None, "something was written"
        contexts: list[Any] = []
        places: list[Any] = []
        sizes: list[int] = []
        for index, (_, protection, layout, _, _, _) in enumerate(bursts):
            contexts += [protection.context] * len(layout.lengths)
            places += workspace.places(index, layout.offsets)
            sizes += layout.lengths
        workspace.lengths[: len(sizes)] = array("i", sizes)
        call = bursts[0][1].call
        statuses = list(map(call, contexts, places, workspace.length_places))
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


class _Workspace:
    """Room for `SLOTS` bursts of `MOST` packets, and for the lengths of all these."""

    def __init__(self) -> None:
        from pylibsrtp._binding import ffi

        self._buffer: Any = ffi.new("char[]", SLOTS * _SLOT)  # what is never used takes no memory
        self.view = memoryview(ffi.buffer(self._buffer))
        self._lengths: Any = ffi.new("int[]", SLOTS * MOST)
        self.lengths = memoryview(ffi.buffer(self._lengths)).cast("B").cast("i")
        self.length_places: list[Any] = [self._lengths + index for index in range(SLOTS * MOST)]
        self._places: dict[tuple[int, tuple[int, ...]], list[Any]] = {}

    def places(self, slot: int, offsets: tuple[int, ...]) -> list[Any]:
        """Pointers to where the packets of a slot begin."""
        key = (slot, offsets)
        known = self._places.get(key)
        if known is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            begin = self._buffer + slot * _SLOT
            known = self._places[key] = [begin + offset for offset in offsets]
        return known
