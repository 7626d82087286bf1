"""Viewers who get the same and whose links carry more than enough: a picture is written and sent for all of them at
once, and what it changes for each is put down when somebody next looks at that viewer.

To look after one viewer after the other, for each picture, takes more time than protecting and sending it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from flowstream.proto.congestion.pacer import Pacer
from flowstream_nodes.webrtc._outbox import MANY, SLOTS, Rows
from flowstream_nodes.webrtc._protection import LONGEST, MOST, Protection, ProtectionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from flowstream.proto.ice import Pair
    from flowstream.proto.retransmit import Run
    from flowstream.proto.sdp import Kind
    from flowstream.proto.switching import Picture
    from flowstream_nodes.webrtc._layout import AccessUnit, Layout
    from flowstream_nodes.webrtc._outbox import Outbox
    from flowstream_nodes.webrtc._stream import Line

MOST_OWED: Final = 64
"""Pictures and packets of sound that are put down together at most: more than most streams have between two looks at
the clocks. Who has more is looked after one by one until the next."""

WORTH: Final = 8
"""Who stops after fewer of them than this was not worth the gathering. That happens, but always to a stream of nothing
but keyframes, or of pictures that do not fit."""

OFTEN: Final = 3
"""After so many times in a row the viewers of a rung are left alone for a while."""

RESTS_NS: Final = 1_000_000_000
"""For so long."""


class Departure(NamedTuple):
    """Packets that left to all viewers of a unison: of ``sizes`` on the wire, of ``size`` together.

    They came at ``now_ns``, and left to each viewer at one of ``left_ns``.
    """

    sizes: tuple[int, ...]
    size: int
    now_ns: int
    left_ns: list[int]


@dataclass(slots=True)
class Tally:
    """What left of one stream: its runs, how many packets these are, and bytes of payload."""

    runs: list[Run] = field(default_factory=list)
    packets: int = 0
    octets: int = 0


@dataclass(slots=True)
class Owed:
    """What has left to all viewers of a unison, and is not in their books yet.

    ``pictures`` counts them; ``picture`` is the last one, ``shown`` the position on the timeline of the last one that
    says when it was captured, and when: UTC in ns.
    """

    departures: list[Departure] = field(default_factory=list)
    tallies: dict[Kind, Tally] = field(default_factory=dict)
    pictures: int = 0
    picture: Picture | None = None
    shown: tuple[int, int] | None = None

    def add(
        self,
        kind: Kind,
        unit: AccessUnit,
        layout: Layout,
        picture: Picture | None,
        departure: Departure,
        *,
        ticks: int,
    ) -> None:
        """One more, at a position of the timeline; ``picture`` is None of sound."""
        self.departures.append(departure)
        tally = self.tallies.setdefault(kind, Tally())
        tally.runs.append((departure.now_ns, ticks, layout.payloads, kind == "video"))
        tally.packets += len(layout.lengths)
        tally.octets += layout.payload_bytes
        if picture is not None:
            self.pictures += 1
            self.picture = picture
            if unit.captured_ns is not None:
                self.shown = ticks, unit.captured_ns


class Singer(Protocol):
    """What sends to one viewer."""

    unison: Unison | None

    def tell_capture_time(self, kind: Kind) -> None:
        """The next packet of this kind says when it was captured."""

    def fails(self, error: ProtectionError) -> None:
        """Its packets cannot be protected."""


class Viewer(Protocol):
    """Who is served in unison with others."""

    @property
    def sender(self) -> Singer:
        """What sends to it."""

    def keeps_on(self, size: int) -> bool:
        """Whether it can stay: what its voice was taken from still is so, but for what was put down since; ``size`` is
        that of the last picture, in bytes on the wire."""

    def put_down(self, owed: Owed, place: int) -> None:
        """This has left to it; ``place`` is its own among ``left_ns``."""


class Voice(NamedTuple):
    """What the next packets to one viewer are made of, as long as nothing else is sent to it.

    ``rung`` and ``number`` are of the picture that comes next, ``transport_number`` is the transport-wide number of the
    next packet. Around each payload there are a header, a ``trailer`` and an ``overhead`` of UDP and IP.
    """

    viewer: Viewer
    rung: str
    number: int
    transport_number: int
    protection: Protection
    trailer: int
    overhead: int
    pair: Pair
    pacer: Pacer[Any]
    lines: tuple[Line, ...]

    @property
    def part(self) -> tuple[object, ...]:
        """What those have in common who can be served together."""
        alike = ((line.kind, line.codec, line.writer.size, line.writer.number_at) for line in self.lines)
        return (self.rung, self.trailer, self.overhead, *alike)


class _Lines:
    """One stream to each of many viewers."""

    def __init__(self, lines: Sequence[Line]) -> None:
        import numpy as np

        self.codec = lines[0].codec
        self.writer = lines[0].writer
        self.until_ns = min(line.until_ns for line in lines)
        blanks = b"".join([line.writer.blank for line in lines])
        self.blanks: NDArray[np.uint8] = np.frombuffer(blanks, np.uint8).reshape(len(lines), 1, -1)
        self.sequence_numbers: NDArray[np.uint16] = np.array([line.sequence_number for line in lines], np.uint16)
        self.timestamp_offsets: NDArray[np.uint32] = np.array([line.timestamp_offset for line in lines], np.uint32)

    def extend(self, other: _Lines) -> None:
        """More viewers, behind those there are."""
        import numpy as np

        self.until_ns = min(self.until_ns, other.until_ns)
        self.blanks = np.concatenate((self.blanks, other.blanks))
        self.sequence_numbers = np.concatenate((self.sequence_numbers, other.sequence_numbers))
        self.timestamp_offsets = np.concatenate((self.timestamp_offsets, other.timestamp_offsets))

    def drop(self, place: int) -> None:
        """One viewer less."""
        import numpy as np

        self.blanks = np.delete(self.blanks, place, 0)
        self.sequence_numbers = np.delete(self.sequence_numbers, place)
        self.timestamp_offsets = np.delete(self.timestamp_offsets, place)


class Unison:
    """At most `SLOTS` viewers who get the same."""

    def __init__(self, voices: Sequence[Voice], outbox: Outbox, *, now_ns: Callable[[], int]) -> None:
        """All ``voices`` have the same ``part``, and the same picture comes next to them."""
        import numpy as np

        first = voices[0]
        self.rung = first.rung
        self.part = first.part
        self.next_number = first.number
        self._trailer, self._overhead = first.trailer, first.overhead
        self._outbox = outbox
        self._now_ns = now_ns
        self.sent = 0
        """Access units, since it is there."""
        self._size = 0  # of the last picture
        self._owed = Owed()
        self._viewers: list[Viewer] = []
        self._protections: list[Protection] = []
        self._pairs: list[Pair] = []
        self._pacers: list[Pacer[Any]] = []
        self._contexts: dict[int, list[Any]] = {}  # of each packet, by how many each viewer gets
        self._numbers: NDArray[np.uint16] = np.zeros(0, np.uint16)
        self._lines: dict[Kind, _Lines] = {}
        self.admit(voices)

    def __len__(self) -> int:
        return len(self._viewers)

    def admit(self, voices: Sequence[Voice]) -> None:
        """These join in; they have the same ``part``, `next_number` is theirs too, and nothing is owed."""
        import numpy as np

        assert not self._owed.departures
        self._viewers += [voice.viewer for voice in voices]
        self._protections += [voice.protection for voice in voices]
        self._pairs += [voice.pair for voice in voices]
        self._pacers += [voice.pacer for voice in voices]
        more = np.array([voice.transport_number for voice in voices], np.uint16)
        self._numbers = np.concatenate((self._numbers, more))
        for place, line in enumerate(voices[0].lines):
            lines = _Lines([voice.lines[place] for voice in voices])
            if line.kind in self._lines:
                self._lines[line.kind].extend(lines)
            else:
                self._lines[line.kind] = lines
        self._contexts.clear()
        self._pacer = Pacer.slowest(self._pacers)
        for voice in voices:
            voice.viewer.sender.unison = self

    def has(self, kind: Kind) -> bool:
        """Whether its viewers get that."""
        return kind in self._lines

    def send(self, kind: Kind, unit: AccessUnit, picture: Picture | None, *, ticks: int, now_ns: int) -> bool:
        """Sends it to all, or to nobody: it is not as the last ones were, or does not fit one burst."""
        lines, count, owed = self._lines[kind], len(unit.payloads), self._owed
        if unit.captured_ns is not None and now_ns >= lines.until_ns:
            # One of them is to be told when it was captured. All are, or each would have its own time for it.
            for viewer in self._viewers:
                viewer.sender.tell_capture_time(kind)
            return False
        is_next = picture is None or not (
            picture.is_keyframe or picture.temporal_id or picture.number != self.next_number
        )
        if not is_next or unit.codec != lines.codec or not 0 < count <= MOST or len(owed.departures) >= MOST_OWED:
            return False
        size = lines.writer.size
        sizes, total = unit.sizes(size + self._trailer + self._overhead)
        layout = unit.layout(0, count, size, self._trailer, self._overhead)
        is_fit = self._viewers and layout.stride is not None and layout.longest <= LONGEST
        if not is_fit or not self._pacer.passes(total, sizes[-1], now_ns=now_ns):
            return False
        departure = Departure(layout.on_the_wire, total, now_ns, left_ns=[])
        owed.add(kind, unit, layout, picture, departure, ticks=ticks)
        self.sent += 1
        if picture is not None:
            self._size = total
            self.next_number += 1
        contexts = self._contexts.get(count)
        if contexts is None:
            contexts = self._contexts[count] = [each.context for each in self._protections for _ in range(count)]
        timestamps = lines.timestamp_offsets + (ticks & 0xFFFFFFFF)
        rows = Rows(lines.writer, lines.blanks, lines.sequence_numbers, timestamps, self._numbers, kind == "video")
        lines.sequence_numbers = lines.sequence_numbers + count
        self._numbers = self._numbers + count
        call, left_ns = self._protections[0].call, departure.left_ns
        try:
            failed = self._outbox.send_rows(layout, rows, call, contexts, self._pairs, self._now_ns, left_ns)
        finally:  # what may have left has its numbers for good
            left_ns += [now_ns] * (len(self._viewers) - len(left_ns))
        for place in sorted(failed, reverse=True):
            sender = self._viewers[place].sender
            self._drop(place)
            sender.fails(ProtectionError(f"libsrtp says {failed[place]}"))
        return True

    @property
    def owes(self) -> bool:
        """Whether anything has left that is not put down."""
        return bool(self._owed.departures)

    def put_down(self) -> None:
        """All that has left is put down for all."""
        owed = self._owed
        if owed.departures:
            self._owed = Owed()
            for place, viewer in enumerate(list(self._viewers)):  # whoever fails, leaves
                viewer.put_down(owed, place)

    def keep(self) -> None:
        """Parts with those who cannot stay; nothing is owed."""
        for place in range(len(self._viewers) - 1, -1, -1):
            if not self._viewers[place].keeps_on(self._size):
                self._drop(place)
        if self._viewers:
            self._pacer = Pacer.slowest(self._pacers)

    def follow(self, pacer: Pacer[Any]) -> None:
        """The rate of one of them has changed."""
        if pacer.usual_bps < self._pacer.usual_bps:
            self._pacer.bps, self._pacer.is_calm = pacer.bps, pacer.is_calm

    def part_with(self, sender: Singer) -> None:
        """This one is looked after by itself from now on; what has left is put down."""
        self._drop(next(place for place, viewer in enumerate(self._viewers) if viewer.sender is sender))

    def dissolve(self) -> None:
        """The same for all."""
        self.put_down()
        viewers, self._viewers = self._viewers, []
        for viewer in viewers:
            viewer.sender.unison = None

    def _drop(self, place: int) -> None:
        import numpy as np

        viewer = self._viewers.pop(place)
        viewer.sender.unison = None
        if self._owed.departures:
            viewer.put_down(self._owed, place)
            for departure in self._owed.departures:
                del departure.left_ns[place]
        del self._protections[place], self._pairs[place], self._pacers[place]
        self._contexts.clear()
        self._numbers = np.delete(self._numbers, place)
        for lines in self._lines.values():
            lines.drop(place)


class Chorus:
    """All who can be served together, in as many groups as it takes."""

    def __init__(self, outbox: Outbox, *, now_ns: Callable[[], int]) -> None:
        self._outbox = outbox
        self._now_ns = now_ns
        self._unisons: list[Unison] = []
        self._rests_until_ns: dict[str, int] = {}  # by rung, as the next
        self._in_vain: Counter[str] = Counter()

    def send(self, kind: Kind, unit: AccessUnit, picture: Picture | None, *, ticks: int, now_ns: int) -> None:
        """Sends it to all who are to get it, but for those who are looked after by themselves afterwards."""
        for unison in list(self._unisons):
            is_theirs = unison.has(kind) and (picture is None or picture.rung == unison.rung)
            if is_theirs and not unison.send(kind, unit, picture, ticks=ticks, now_ns=now_ns):
                self._end(unison, now_ns)

    def takes(self, picture: Picture) -> bool:
        """Whether anybody is to get a picture of its rung."""
        return any(unison.rung == picture.rung for unison in self._unisons)

    def put_down(self) -> None:
        """All that has left is put down for everybody."""
        for unison in self._unisons:
            unison.put_down()

    def keep(self) -> None:
        """Parts with those who cannot stay, and with those who are too few; nothing is owed."""
        for unison in list(self._unisons):
            unison.keep()
            if len(unison) < MANY:
                unison.dissolve()
                self._unisons.remove(unison)

    def gather(self, voices: Iterable[Voice], *, now_ns: int) -> None:
        """From now on these are served together, as far as there are enough who get the same; nothing is owed."""
        parts: dict[tuple[object, ...], list[Voice]] = {}
        for voice in voices:
            if now_ns >= self._rests_until_ns.get(voice.rung, 0):
                parts.setdefault((*voice.part, voice.number), []).append(voice)
        for left in parts.values():
            for unison in self._unisons:
                room = SLOTS - len(unison)
                if (unison.part, unison.next_number) == (left[0].part, left[0].number) and left[:room]:
                    unison.admit(left[:room])
                    del left[:room]
                    if not left:
                        break
            while len(left) >= MANY:
                self._unisons.append(Unison(left[:SLOTS], self._outbox, now_ns=self._now_ns))
                del left[:SLOTS]

    def dissolve(self, rung: str, *, now_ns: int) -> None:
        """Everybody who gets this rung is looked after by itself."""
        for unison in [each for each in self._unisons if each.rung == rung]:
            self._end(unison, now_ns)

    def _end(self, unison: Unison, now_ns: int) -> None:
        self._unisons.remove(unison)
        unison.dissolve()
        self._in_vain[unison.rung] = self._in_vain[unison.rung] + 1 if unison.sent < WORTH else 0
        if self._in_vain[unison.rung] >= OFTEN:
            self._rests_until_ns[unison.rung] = now_ns + RESTS_NS
