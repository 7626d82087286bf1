"""Access units as all viewers share them: their packets, and how these lie in memory, worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from flowstream.proto.rtp import HeaderWriter

_KEPT: Final = 64
"""Layouts of an access unit differ by what its viewers have agreed on and by how it is paced: most have few."""


class Even(NamedTuple):
    """Packets that the kernel may cut from one piece: ``packets`` of ``size`` bytes, the last of which may be shorter.

    They lie from ``start`` to ``stop``.
    """

    start: int
    stop: int
    size: int
    packets: int


class Heading(NamedTuple):
    """What stands in the headers of packets of one run, but for their transport-wide numbers.

    ``sequence_number`` is that of the first; ``marks_last`` says that the last one carries the marker.
    """

    writer: HeaderWriter
    sequence_number: int
    timestamp: int
    marks_last: bool


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """Packets one behind the other, as they lie once they are protected.

    ``template`` has their payloads in place, and room for what comes before and behind. ``offsets`` is where each
    begins, ``stride`` the distance between any two of these (None if it is not always the same), ``lengths`` their
    bytes before they are protected, ``on_the_wire`` with protection, UDP and IP.
    """

    template: bytes
    offsets: tuple[int, ...]
    stride: int | None
    lengths: list[int]
    longest: int
    runs: list[Even]
    on_the_wire: tuple[int, ...]
    payload_bytes: int
    payloads: Sequence[bytes]


@dataclass(eq=False, slots=True)
class AccessUnit:
    """An access unit in packets, and how these lie in memory: what all viewers share who get it.

    ``payloads`` must not change any more. ``captured_ns`` is when it was captured, UTC in ns; ``is_droppable`` says
    that no other picture needs it.
    """

    payloads: Sequence[bytes]
    codec: str
    _: KW_ONLY
    captured_ns: int | None = None
    is_keyframe: bool = False
    is_droppable: bool = False
    _layouts: dict[tuple[int, int, int, int, int], Layout] = field(default_factory=dict, init=False)
    _sizes: dict[int, tuple[list[int], int]] = field(default_factory=dict, init=False)

    def sizes(self, extra: int) -> tuple[list[int], int]:
        """The size of each packet and of all, with ``extra`` bytes each."""
        known = self._sizes.get(extra)
        if known is None:
            sizes = [len(payload) + extra for payload in self.payloads]
            known = self._sizes[extra] = (sizes, sum(sizes))
        return known

    def layout(self, first: int, end: int, header: int, trailer: int, overhead: int) -> Layout:
        """That of packets ``first`` to ``end`` with headers and trailers of so many bytes; ``overhead`` is of UDP and
        IP."""
        key = (first, end, header, trailer, overhead)
        known = self._layouts.get(key)
        if known is None:
            if len(self._layouts) >= _KEPT:
                self._layouts.clear()
            payloads = self.payloads if end - first == len(self.payloads) else self.payloads[first:end]
            known = self._layouts[key] = _lay_out(payloads, header, trailer, overhead)
        return known


def _lay_out(payloads: Sequence[bytes], header: int, trailer: int, overhead: int) -> Layout:
    lengths = [header + len(payload) for payload in payloads]
    sizes = [length + trailer for length in lengths]
    before, behind = bytes(header), bytes(trailer)
    runs = evens(sizes)
    return Layout(
        template=b"".join([part for payload in payloads for part in (before, payload, behind)]),
        offsets=tuple(accumulate(sizes[:-1], initial=0)),
        stride=sizes[0] if len(runs) == 1 else None,
        lengths=lengths,
        longest=max(lengths),
        runs=runs,
        on_the_wire=tuple([size + overhead for size in sizes]),
        payload_bytes=sum(map(len, payloads)),
        payloads=payloads,
    )


def evens(sizes: Sequence[int]) -> list[Even]:
    """The packets of ``sizes`` in as few pieces as the kernel can cut up again: of equal size but for the last."""
    found: list[Even] = []
    start = first = 0
    while first < len(sizes):
        size = sizes[first]
        end, stop = first + 1, start + size
        while end < len(sizes) and sizes[end] <= size:
            stop += sizes[end]
            end += 1
            if sizes[end - 1] < size:
                break
        found.append(Even(start, stop, size, end - first))
        first, start = end, stop
    return found
