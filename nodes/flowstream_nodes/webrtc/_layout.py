"""How the packets of a burst lie in memory: worked out once for all viewers that get the same payloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

_KEPT: Final = 64
"""Layouts of a picture differ by what its viewers have agreed on and by how it is paced: a few at a time are in use."""


class Even(NamedTuple):
    """Packets that the kernel may cut from one piece: ``packets`` of ``size`` bytes, the last of which may be shorter.

    They lie from ``start`` to ``stop``.
    """

    start: int
    stop: int
    size: int
    packets: int


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """Packets one behind the other, as they lie once they are protected.

    ``template`` has their payloads in place, and room for what comes before and behind. ``offsets`` is where each
    begins, ``lengths`` its bytes before it is protected, ``on_the_wire`` with protection, UDP and IP.
    """

    template: bytes
    offsets: tuple[int, ...]
    lengths: list[int]
    longest: int
    runs: list[Even]
    on_the_wire: list[int]
    payload_bytes: int
    payloads: Sequence[bytes]


class Layouts:
    """Remembers the layouts that were asked for last."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[int, int, int, int, int, int], tuple[Sequence[bytes], Layout]] = {}
        self._sizes: dict[tuple[int, int], tuple[Sequence[bytes], list[int], int]] = {}

    def sizes(self, payloads: Sequence[bytes], extra: int) -> tuple[list[int], int]:
        """The size of each packet and of all, with ``extra`` bytes each; ``payloads`` must not change any more."""
        key = (id(payloads), extra)
        known = self._sizes.get(key)
        if known is None:
            if len(self._sizes) >= _KEPT:
                self._sizes.clear()
            sizes = [len(payload) + extra for payload in payloads]
            known = self._sizes[key] = (payloads, sizes, sum(sizes))  # what is kept keeps its identity
        return known[1], known[2]

    def layout(
        self, payloads: Sequence[bytes], first: int, end: int, *, header: int, trailer: int, overhead: int
    ) -> Layout:
        """That of packets ``first`` to ``end`` with headers and trailers of so many bytes.

        ``overhead`` is of UDP and IP. ``payloads`` must not change any more.
        """
        key = (id(payloads), first, end, header, trailer, overhead)
        known = self._layouts.get(key)
        if known is None:
            if len(self._layouts) >= _KEPT:
                self._layouts.clear()
            some = payloads if end - first == len(payloads) else payloads[first:end]
            known = self._layouts[key] = (payloads, _lay_out(some, header, trailer, overhead))
        return known[1]


def _lay_out(payloads: Sequence[bytes], header: int, trailer: int, overhead: int) -> Layout:
    lengths = [header + len(payload) for payload in payloads]
    sizes = [length + trailer for length in lengths]
    before, behind = bytes(header), bytes(trailer)
    return Layout(
        template=b"".join([part for payload in payloads for part in (before, payload, behind)]),
        offsets=tuple(accumulate(sizes[:-1], initial=0)),
        lengths=lengths,
        longest=max(lengths),
        runs=evens(sizes),
        on_the_wire=[size + overhead for size in sizes],
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
