"""One RTP stream to one viewer: its numbers, its headers, and what is kept of it to be sent again."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple

from flowstream.proto.retransmit import MAX_PACKETS, MAX_PACKETS_BY_RTX, History, Run, SentPacket, wrap
from flowstream.proto.rtcp import ReportBlock, SenderReport, to_ntp
from flowstream.proto.rtp import HeaderWriter, pack_capture_time, pack_playout_delay
from flowstream.proto.sdp import Choice, Kind, Stream, Track
from flowstream_nodes.webrtc._layout import Heading, Layout

PLAYOUT_DELAY: Final = pack_playout_delay(min_ms=0, max_ms=400)
"""The receiver may show a frame as soon as it is decoded, and may hold back up to 400 ms when packets must be sent
again: two round trips of a bad link. Up to 500 ms Chromium keeps to its path for live pictures, which adds no delay."""

CAPTURE_TIME_NS: Final = 1_000_000_000
"""How often a packet says when its picture was taken; receivers interpolate."""


NEVER_NS: Final = 1 << 63

PADDING: Final = 255
"""Bytes of padding in a packet of nothing: its last byte says how many there are (RFC 3550 section 5.1)."""

_PADDED: Final = bytes(PADDING - 1) + bytes((PADDING,))


class Line(NamedTuple):
    """What the next packets of one stream to one viewer are made of: those that begin before ``until_ns``, or do not
    say when they were captured. ``timestamp_offset`` is the timestamp of position 0."""

    kind: Kind
    codec: str
    writer: HeaderWriter
    sequence_number: int
    timestamp_offset: int
    until_ns: int


class RtpStream:
    """Numbers and headers of one stream to one viewer; what is needed to send parts of it again.

    Packets come out unprotected, as headers and payloads, and are numbered when they are written, so that what is given
    up before leaves no gap. Numbers and timestamps go on whatever feeds the stream.
    """

    def __init__(self, track: Track, ssrcs: Stream) -> None:
        self.kind: Kind = track.kind
        self.ssrc = ssrcs.ssrc
        self.rtx_ssrc = ssrcs.rtx_ssrc
        self.packets_sent = 0
        self.octets_sent = 0
        self.packets_resent = 0
        self.last_report: ReportBlock | None = None
        self.codec: str = track.choices[0].codec
        self._track = track
        self.codecs: frozenset[str] = frozenset(choice.codec for choice in track.choices)
        extensions: list[tuple[int, bytes]] = []
        if track.mid_extension is not None:
            extensions.append((track.mid_extension, track.mid.encode()))
        if track.playout_delay_extension is not None:
            extensions.append((track.playout_delay_extension, PLAYOUT_DELAY))
        self._extensions = tuple(extensions)
        self._rtx_header: HeaderWriter | None = None
        self._history: History | None = None
        self._capture_time_id = track.capture_time_extension
        self._next_capture_time_ns = 0
        # A first number below 2**15 keeps both ends' rollover counters the same when early packets are lost.
        self._sequence_number = secrets.randbelow(1 << 15)
        self._rtx_sequence_number = secrets.randbelow(1 << 15)
        self._timestamp_offset = secrets.randbits(32)
        self._take_codec(track.choices[0])
        self._last_timestamp = 0

    def _take_codec(self, choice: Choice) -> None:
        number_id = self._track.transport_number_extension
        self.codec = choice.codec
        self._header = HeaderWriter(
            payload_type=choice.format.payload_type,
            ssrc=self.ssrc,
            extensions=self._extensions,
            transport_number_extension=number_id,
        )
        self.header_size: int = self._header.size
        """Bytes before the payload; a few more in packets that carry a capture time."""
        self._rtx_header = None
        if choice.rtx_payload_type is not None and self.rtx_ssrc is not None:
            self._rtx_header = HeaderWriter(
                payload_type=choice.rtx_payload_type,
                ssrc=self.rtx_ssrc,
                extensions=self._extensions,
                transport_number_extension=number_id,
            )
        # What was sent in another codec would go out under the wrong payload type, and is not needed after a keyframe.
        self._history = None
        if "nack" in self._track.feedback(choice):
            self._history = History(
                max_packets=MAX_PACKETS if self._rtx_header is None else MAX_PACKETS_BY_RTX,
                timestamp_offset=self._timestamp_offset,
            )

    def timestamp_at(self, ticks: int) -> int:
        """The RTP timestamp of a position on the timeline, in ticks of the stream's clock."""
        return (self._timestamp_offset + ticks) & 0xFFFFFFFF

    def is_even(self, codec: str, captured_ns: int | None, now_ns: int) -> bool:
        """Whether `take_numbers` will do for what leaves next: all headers have `header_size` bytes."""
        if codec != self.codec:
            return False
        return captured_ns is None or now_ns < self._next_capture_time_ns or self._capture_time_id is None

    def line(self) -> Line:
        """What goes on as it is while `is_even`."""
        until_ns = NEVER_NS if self._capture_time_id is None else self._next_capture_time_ns
        return Line(self.kind, self.codec, self._header, self._sequence_number, self._timestamp_offset, until_ns)

    def take_numbers(self, layout: Layout, *, ticks: int, is_end: bool, now_ns: int) -> Heading:
        """What stands in the headers of packets that leave now, in the codec of the last ones; with ``is_end`` the last
        one ends its access unit."""
        timestamp = self._last_timestamp = self.timestamp_at(ticks)
        first, count = self._sequence_number, len(layout.offsets)
        marks_last = is_end and self.kind == "video"
        if self._history is not None:
            self._history.store_runs(first, ((now_ns, ticks, layout.payloads, marks_last),))
        self._sequence_number = (first + count) & 0xFFFF
        self.packets_sent += count
        self.octets_sent += layout.payload_bytes
        return Heading(self._header, first, timestamp, marks_last)

    def tell_capture_time(self) -> None:
        """The next packet that is written says when it was captured."""
        self._next_capture_time_ns = 0

    def put_down(self, runs: Sequence[Run], *, packets: int, octets: int) -> None:
        """What `line` told of has left so often."""
        if self._history is not None:
            self._history.store_runs(self._sequence_number, runs)
        self._last_timestamp = self.timestamp_at(runs[-1][1])
        self._sequence_number = (self._sequence_number + packets) & 0xFFFF
        self.packets_sent += packets
        self.octets_sent += octets

    def write(
        self,
        payloads: Sequence[bytes],
        *,
        codec: str,
        ticks: int,
        is_end: bool,
        number: int,
        now_ns: int,
        captured_ns: int | None = None,
    ) -> list[bytes]:
        """RTP packets that leave now; with ``is_end`` the last one ends its access unit.

        ``number`` is the transport-wide number of the first. ``captured_ns`` is when the picture was taken, UTC in ns,
        of packets that begin one.
        """
        if codec != self.codec:
            choice = self._track.choice(codec)
            assert choice is not None, "whoever sends has looked at `codecs`"
            self._take_codec(choice)
        timestamp = self._last_timestamp = self.timestamp_at(ticks)
        first, count = self._sequence_number, len(payloads)
        marks_last = is_end and self.kind == "video"
        headers = self._header.pack_run(
            count, sequence_number=first, timestamp=timestamp, marks_last=marks_last, transport_number=number
        )
        packets = [header + payload for header, payload in zip(headers, payloads, strict=True)]
        if captured_ns is not None and self._capture_time_id is not None and now_ns >= self._next_capture_time_ns:
            self._next_capture_time_ns = now_ns + CAPTURE_TIME_NS
            header = self._header.pack_with(
                ((self._capture_time_id, pack_capture_time(to_ntp(captured_ns))),),
                sequence_number=first,
                timestamp=timestamp,
                marker=marks_last and count == 1,
                transport_number=number,
            )
            packets[0] = header + payloads[0]
        if self._history is not None:
            self._history.store_runs(first, ((now_ns, ticks, payloads, marks_last),))
        self._sequence_number = (first + count) & 0xFFFF
        self.packets_sent += count
        self.octets_sent += sum(map(len, payloads))
        return packets

    def take(self, sequence_numbers: Sequence[int], *, now_ns: int, round_trip_ns: int) -> list[SentPacket]:
        """What may be sent again of ``sequence_numbers``."""
        if self._history is None:
            return []
        found = (self._history.take(each, now_ns=now_ns, round_trip_ns=round_trip_ns) for each in sequence_numbers)
        return [packet for packet in found if packet is not None]

    def forget(self) -> None:
        """Nothing that was written so far is sent again."""
        if self._history is not None:
            self._history.clear()

    def begin_keyframe(self) -> None:
        """What is written next begins a keyframe."""
        if self._history is not None:
            self._history.begin_keyframe()

    def is_gone(self, sequence_numbers: Sequence[int], *, now_ns: int) -> bool:
        """Whether the viewer misses something that it needs and cannot be sent again."""
        history = self._history
        return history is not None and any(history.is_gone(each, now_ns=now_ns) for each in sequence_numbers)

    def newest(self, size: int, *, overhead: int) -> list[SentPacket]:
        """The last packets, together at most ``size`` bytes with an ``overhead`` of each: what fills the path when it
        is probed."""
        if self._history is None or self._rtx_header is None:
            return []
        return self._history.newest(size, overhead=overhead)

    def rewrite(self, sent: Sequence[SentPacket], *, number: int) -> list[bytes]:
        """RTP packets that carry what was sent before: on the retransmission stream, else the very same bytes.

        The same bytes again are safe under SRTP: the same index then protects the same plaintext.
        """
        packets: list[bytes] = []
        for each in sent:
            if self._rtx_header is None:
                header = self._header.pack(
                    sequence_number=each.sequence_number, timestamp=each.timestamp, marker=each.marker
                )
                packets.append(header + each.payload)
                continue
            header = self._rtx_header.pack(
                sequence_number=self._rtx_sequence_number,
                timestamp=each.timestamp,
                marker=each.marker,
                transport_number=number,
            )
            packets.append(header + wrap(each))
            self._rtx_sequence_number = (self._rtx_sequence_number + 1) & 0xFFFF
            number = (number + 1) & 0xFFFF
        return packets

    def fill(self, count: int, *, number: int) -> list[bytes]:
        """``count`` packets of padding alone on the retransmission stream; none without one."""
        if self._rtx_header is None:
            return []
        packets: list[bytes] = []
        for _ in range(count):
            header = self._rtx_header.pack(
                sequence_number=self._rtx_sequence_number,
                timestamp=self._last_timestamp,
                marker=False,
                transport_number=number,
            )
            packets.append(bytes((header[0] | 0x20,)) + header[1:] + _PADDED)
            self._rtx_sequence_number = (self._rtx_sequence_number + 1) & 0xFFFF
            number = (number + 1) & 0xFFFF
        return packets

    def sender_report(self, *, ticks: int, wallclock_ns: int) -> SenderReport:
        """A report that ties the timeline position ``ticks`` to the wallclock."""
        return SenderReport(
            ssrc=self.ssrc,
            ntp_time=to_ntp(wallclock_ns),
            rtp_timestamp=self.timestamp_at(ticks),
            packet_count=self.packets_sent & 0xFFFFFFFF,
            octet_count=self.octets_sent & 0xFFFFFFFF,
        )
