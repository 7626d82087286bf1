"""Bursts to many viewers: written for all of them, then protected, then handed to the kernel.

One kind of work at a time. Python, the cipher and the kernel are each too large for the processor's innermost caches;
where a viewer is served from beginning to end before the next one, they are fetched anew for each.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from flowstream.proto.ice import Pair
from flowstream_nodes.webrtc._protection import LONGEST, MOST, ROOM, TRAILER, ProtectionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from flowstream.proto.rtp import HeaderWriter
    from flowstream_nodes.webrtc._layout import Even, Heading, Layout
    from flowstream_nodes.webrtc._protection import Protection

SLOTS: Final = 64
"""Bursts that are together on their way. The more, the later the first leaves, and with it those who watch on this
machine begin to take their share of its processors."""

_SLOT: Final = MOST * ROOM + TRAILER
_MOST_PLACES: Final = 1024
_KEPT_PLACES: Final = 32
MANY: Final = 4
"""Below that many, one after the other takes less time."""


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


class Burst(NamedTuple):
    """Packets to one viewer.

    ``number`` is the transport-wide number of the first, ``probe`` that of the probe they belong to, 0 for none.
    """

    sender: Leaving
    protection: Protection
    layout: Layout
    heading: Heading
    number: int
    pair: Pair
    probe: int


class Rows(NamedTuple):
    """What the headers of bursts to many viewers are made of, which lie alike.

    ``writer`` stands for all of theirs, of which ``blanks`` are headers whose numbers are 0; ``sequence_numbers`` and
    ``numbers`` are of the first packet to each viewer, these transport-wide.
    """

    writer: HeaderWriter
    blanks: NDArray[np.uint8]
    sequence_numbers: NDArray[np.uint16]
    timestamps: NDArray[np.uint32]
    numbers: NDArray[np.uint16]
    marks_last: bool


class Outbox:
    """The bursts of all viewers of one output, at most `SLOTS` at a time.

    What is put in leaves at once, or all together at the end of `gathering`.
    """

    def __init__(self, way: Way) -> None:
        self._way = way
        self._bursts: list[Burst] = []
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

    def put(
        self,
        sender: Leaving,
        protection: Protection,
        layout: Layout,
        heading: Heading,
        number: int,
        pair: Pair,
        probe: int,
    ) -> None:
        """What a `Burst` has; ``sender`` is told when it leaves.

        Raises:
            ProtectionError: a packet is too long.
        """
        if layout.longest > LONGEST:
            raise ProtectionError(f"a packet of {layout.longest} bytes is too long")
        bursts = self._bursts
        bursts.append(Burst(sender, protection, layout, heading, number, pair, probe))
        if not self._is_gathering or len(bursts) >= SLOTS:
            self.flush()

    def flush(self) -> None:
        """All that was put in leaves."""
        if not self._bursts:
            return
        bursts, self._bursts = self._bursts, []
        workspace = self._room()
        workspace.write(bursts)
        failed = self._protect(bursts, workspace)
        view, way, start = workspace.view, self._way, 0
        for index, (sender, _, layout, _, _, pair, probe) in enumerate(bursts):
            if index not in failed:
                sender.leaves(layout, probe)
                way.send_evens(view[start : start + len(layout.template)], layout.runs, pair)
            start += _SLOT
        for index, status in failed.items():  # last: whatever comes of it may put something in
            bursts[index].sender.fails(ProtectionError(f"libsrtp says {status}"))

    def send_rows(
        self,
        layout: Layout,
        rows: Rows,
        call: Any,
        contexts: list[Any],
        pairs: Sequence[Pair],
        now_ns: Callable[[], int],
        left_ns: list[int],
    ) -> Mapping[int, int]:
        """Sends one burst to each of at most `SLOTS` viewers, and adds to ``left_ns`` when.

        There is one of ``contexts``, which ``call`` takes, for each packet. Gives the places of those whose packets
        could not be protected, and why.
        """
        self.flush()
        workspace, count = self._room(), len(pairs)
        workspace.write_rows(slice(0, count), layout, rows)
        each = len(layout.lengths)
        places = workspace.all_places(count, layout.offsets)
        failed = workspace.protect(call, contexts, places, layout.lengths * count, [each] * count)
        view, send, start, size, runs = workspace.view, self._way.send_evens, 0, len(layout.template), layout.runs
        for place, pair in enumerate(pairs):
            left_ns.append(now_ns())
            if place not in failed:
                send(view[start : start + size], runs, pair)
            start += _SLOT
        return failed

    def _room(self) -> _Workspace:
        if self._workspace is None:
            self._workspace = _Workspace()
        return self._workspace

    def _protect(self, bursts: Sequence[Burst], workspace: _Workspace) -> dict[int, int]:
        """Protects all packets of all bursts in place; gives which could not be, and why."""
        contexts: list[Any] = []
        places: list[Any] = []
        sizes: list[int] = []
        for index, (_, protection, layout, _, _, _, _) in enumerate(bursts):
            contexts += [protection.context] * len(layout.lengths)
            places += workspace.places(index, layout.offsets)
            sizes += layout.lengths
        return workspace.protect(
            bursts[0].protection.call, contexts, places, sizes, [len(burst.layout.lengths) for burst in bursts]
        )


class _Workspace:
    """Room for `SLOTS` bursts of `MOST` packets, and for the lengths of all these."""

    def __init__(self) -> None:
        import numpy as np
        from pylibsrtp._binding import ffi

        self._buffer: Any = ffi.new("char[]", SLOTS * _SLOT)  # what is never used takes no memory
        self.view = memoryview(ffi.buffer(self._buffer))
        self._slots = np.frombuffer(self.view, np.uint8).reshape(SLOTS, _SLOT)
        self._lengths: Any = ffi.new("int[]", SLOTS * MOST)
        self.lengths = memoryview(ffi.buffer(self._lengths)).cast("B").cast("i")
        self.length_places: list[Any] = [self._lengths + index for index in range(SLOTS * MOST)]
        self._places: dict[tuple[int, tuple[int, ...]], list[Any]] = {}
        self._all_places: dict[tuple[int, tuple[int, ...]], list[Any]] = {}
        self._steps = np.arange(MOST, dtype=np.uint16)
        self._headers: dict[tuple[int, int, int, int | None], _Headers] = {}

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

    def all_places(self, count: int, offsets: tuple[int, ...]) -> list[Any]:
        """The same for the first ``count`` slots."""
        key = (count, offsets)
        known = self._all_places.get(key)
        if known is None:
            if len(self._all_places) >= _KEPT_PLACES:
                self._all_places.clear()
            known = self._all_places[key] = [place for slot in range(count) for place in self.places(slot, offsets)]
        return known

    def protect(
        self, call: Any, contexts: list[Any], places: list[Any], sizes: Sequence[int], counts: Sequence[int]
    ) -> dict[int, int]:
        """Protects packets in place; ``counts`` says how many each burst has. Gives which bursts could not be, and
        why."""
        self.lengths[: len(sizes)] = array("i", sizes)
        statuses = list(map(call, contexts, places, self.length_places))
        if not any(statuses):
            return {}
        failed: dict[int, int] = {}
        first = 0
        for index, count in enumerate(counts):
            status = max(statuses[first : first + count])
            if status:
                failed[index] = status
            first += count
        return failed

    def write(self, bursts: Sequence[Burst]) -> None:
        """Writes each into its slot: those that lie alike all together."""
        alike: dict[tuple[int, bool, int | None], list[int]] = {}
        for slot, burst in enumerate(bursts):
            writer = burst.heading.writer
            key = (id(burst.layout), burst.heading.marks_last, writer.number_at)
            alike.setdefault(key, []).append(slot)
        for slots in alike.values():
            if len(slots) >= MANY and bursts[slots[0]].layout.stride is not None:
                self._write_alike([bursts[slot] for slot in slots], slots)
                continue
            for slot in slots:
                _, _, layout, heading, number, _, _ = bursts[slot]
                room = self.view[slot * _SLOT : slot * _SLOT + len(layout.template)]
                room[:] = layout.template
                heading.writer.write_run(
                    room,
                    layout.offsets,
                    sequence_number=heading.sequence_number,
                    timestamp=heading.timestamp,
                    marks_last=heading.marks_last,
                    transport_number=number,
                )

    def _write_alike(self, bursts: Sequence[Burst], slots: list[int]) -> None:
        import numpy as np

        headings = [burst.heading for burst in bursts]
        blanks = b"".join([heading.writer.blank for heading in headings])
        is_dense = slots[-1] - slots[0] + 1 == len(slots)
        self.write_rows(
            slice(slots[0], slots[-1] + 1) if is_dense else np.array(slots),
            bursts[0].layout,
            Rows(
                headings[0].writer,
                np.frombuffer(blanks, np.uint8).reshape(len(bursts), 1, -1),
                np.array([heading.sequence_number for heading in headings], np.uint16),
                np.array([heading.timestamp for heading in headings], np.uint32),
                np.array([burst.number for burst in bursts], np.uint16),
                headings[0].marks_last,
            ),
        )

    def write_rows(self, slots: slice | NDArray[Any], layout: Layout, rows: Rows) -> None:
        """Writes bursts that lie alike into these slots, in a few steps for all: an array has an entry for each packet
        of each of them."""
        import numpy as np

        assert layout.stride is not None
        self._slots[slots, : len(layout.template)] = np.frombuffer(layout.template, np.uint8)
        headers = self._headers_at(layout.stride, len(layout.offsets), rows.writer)
        headers.whole[slots] = rows.blanks
        steps = self._steps[: len(layout.offsets)]
        headers.sequence_numbers[slots] = rows.sequence_numbers[:, None] + steps
        headers.timestamps[slots] = rows.timestamps[:, None]
        if headers.numbers is not None:
            headers.numbers[slots] = rows.numbers[:, None] + steps
        if rows.marks_last:
            self._slots[slots, layout.offsets[-1] + 1] |= 0x80

    def _headers_at(self, stride: int, count: int, writer: HeaderWriter) -> _Headers:
        import numpy as np

        key = (stride, count, writer.size, writer.number_at)
        known = self._headers.get(key)
        if known is None:
            if len(self._headers) >= _MOST_PLACES:
                self._headers.clear()

            def fields(kind: str, place: int) -> NDArray[Any]:
                return np.ndarray((SLOTS, count), kind, self._slots, place, (_SLOT, stride))

            known = self._headers[key] = _Headers(
                np.ndarray((SLOTS, count, writer.size), np.uint8, self._slots, 0, (_SLOT, stride, 1)),
                fields(">u2", 2),
                fields(">u4", 4),
                None if writer.number_at is None else fields(">u2", writer.number_at),
            )
        return known


class _Headers(NamedTuple):
    """The headers of packets that lie alike in all slots, as they are, and their fields (RFC 3550 section 5.1)."""

    whole: NDArray[np.uint8]
    sequence_numbers: NDArray[Any]
    timestamps: NDArray[Any]
    numbers: NDArray[Any] | None
