"""RTCP (RFC 3550 section 6) with the feedback a sender of video answers or goes by.

NACK and PLI (RFC 4585), FIR (RFC 5104), transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01)
and REMB (draft-alvestrand-rmcat-remb-03).
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, Final, NamedTuple

MAX_SIZE: Final = 1500
"""Longest compound packet that is looked at, in bytes."""

_NTP_EPOCH_S: Final = 2_208_988_800
"""Seconds from 1900 to 1970."""

_HEAD: Final = struct.Struct("!BBH")
_FEEDBACK: Final = struct.Struct("!IIHHI")
_FEEDBACK_ALONE: Final = struct.Struct("!BBHIIHHIH")
_SENDER_INFO: Final = struct.Struct("!IQIII")
_REPORT: Final = struct.Struct("!IIIIII")


MOST_TRAILER: Final = 20
"""Bytes that SRTCP adds, at most: its index and a tag (RFC 3711 section 3.4, RFC 7714 section 9)."""


class RtcpError(ValueError):
    """The bytes are no RTCP compound packet, or a damaged one."""


_FIRST_OF_FEEDBACK: Final = 0x8F  # version 2, format 15, whether padded or not
_ALL_ARRIVED: Final = 0x2000  # a run of packets with deltas of one byte


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """What a receiver says about one stream (RFC 3550 section 6.4.1).

    ``fraction_lost`` is in 1/256, ``packets_lost`` signed, ``jitter`` in RTP ticks, ``last_sender_report`` the middle
    32 bits of its NTP time, ``delay_since`` that report in 1/65536 s.
    """

    ssrc: int
    fraction_lost: int
    packets_lost: int
    highest_sequence_number: int
    jitter: int
    last_sender_report: int
    delay_since: int

    def round_trip_ns(self, *, wallclock_ns: int) -> int | None:
        """Round trip time for a report that arrived at ``wallclock_ns``; None before the first sender report."""
        if not self.last_sender_report:
            return None
        arrival = (to_ntp(wallclock_ns) >> 16) & 0xFFFFFFFF
        units = (arrival - self.last_sender_report - self.delay_since) & 0xFFFFFFFF
        if units >= 1 << 31:  # a clock step or rounding below zero
            return 0
        return units * 1_000_000_000 >> 16

    def to_bytes(self) -> bytes:
        """24 bytes."""
        lost = self.fraction_lost << 24 | self.packets_lost & 0xFFFFFF
        return _REPORT.pack(
            self.ssrc, lost, self.highest_sequence_number, self.jitter, self.last_sender_report, self.delay_since
        )


@dataclass(frozen=True, slots=True)
class SenderReport:
    """SR: ties RTP time to NTP time (64-bit fixed point, `to_ntp`), and counts what was sent."""

    kind: ClassVar[int] = 200
    ssrc: int
    ntp_time: int
    rtp_timestamp: int
    packet_count: int
    octet_count: int
    reports: tuple[ReportBlock, ...] = ()

    def to_bytes(self) -> bytes:
        """The packet on the wire."""
        info = _SENDER_INFO.pack(self.ssrc, self.ntp_time, self.rtp_timestamp, self.packet_count, self.octet_count)
        return _pack(self.kind, len(self.reports), info + b"".join(block.to_bytes() for block in self.reports))


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    """RR."""

    kind: ClassVar[int] = 201
    ssrc: int
    reports: tuple[ReportBlock, ...] = ()

    def to_bytes(self) -> bytes:
        """The packet on the wire."""
        body = self.ssrc.to_bytes(4, "big") + b"".join(block.to_bytes() for block in self.reports)
        return _pack(self.kind, len(self.reports), body)


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """SDES with the one item that is mandatory: a CNAME for each source."""

    kind: ClassVar[int] = 202
    cnames: tuple[tuple[int, str], ...]

    def to_bytes(self) -> bytes:
        """The packet on the wire.

        Raises:
            RtcpError: a CNAME is longer than 255 bytes.
        """
        body = b""
        for ssrc, cname in self.cnames:
            text = cname.encode()
            if len(text) > 255:
                raise RtcpError(f"a CNAME of {len(text)} bytes is too long")
            chunk = ssrc.to_bytes(4, "big") + bytes((1, len(text))) + text
            body += chunk + bytes(4 - len(chunk) % 4)  # at least one zero ends the list of items
        return _pack(self.kind, len(self.cnames), body)


@dataclass(frozen=True, slots=True)
class Bye:
    """BYE: these sources end."""

    kind: ClassVar[int] = 203
    ssrcs: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """The packet on the wire."""
        return _pack(self.kind, len(self.ssrcs), struct.pack(f"!{len(self.ssrcs)}I", *self.ssrcs))


@dataclass(frozen=True, slots=True)
class Nack:
    """Generic NACK (RFC 4585 section 6.2.1): sequence numbers of ``media_ssrc`` that did not arrive, in wire order."""

    kind: ClassVar[int] = 205
    sender_ssrc: int
    media_ssrc: int
    lost: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """The packet on the wire; numbers up to 16 apart share an entry."""
        body = struct.pack("!II", self.sender_ssrc, self.media_ssrc)
        pending = list(self.lost)
        while pending:
            base, mask = pending.pop(0), 0
            while pending and 1 <= (distance := (pending[0] - base) & 0xFFFF) <= 16:
                mask |= 1 << (distance - 1)
                pending.pop(0)
            body += struct.pack("!HH", base, mask)
        return _pack(self.kind, 1, body)


@dataclass(frozen=True, slots=True)
class PictureLossIndication:
    """PLI (RFC 4585 section 6.3.1)."""

    kind: ClassVar[int] = 206
    sender_ssrc: int
    media_ssrc: int

    def to_bytes(self) -> bytes:
        """The packet on the wire."""
        return _pack(self.kind, 1, struct.pack("!II", self.sender_ssrc, self.media_ssrc))


@dataclass(frozen=True, slots=True)
class FullIntraRequest:
    """FIR (RFC 5104 section 4.3.1): (media source, command sequence number) entries."""

    kind: ClassVar[int] = 206
    sender_ssrc: int
    entries: tuple[tuple[int, int], ...]

    def to_bytes(self) -> bytes:
        """The packet on the wire."""
        body = struct.pack("!II", self.sender_ssrc, 0)
        return _pack(self.kind, 4, body + b"".join(struct.pack("!IB3x", ssrc, number) for ssrc, number in self.entries))


@dataclass(frozen=True, slots=True)
class TransportFeedback:
    """Transport-wide feedback: when the packets from ``base_number`` on arrived.

    ``reference_time`` counts 64 ms (signed, 24 bits) on the receiver's clock. ``deltas`` has an entry for each packet
    in the order of their numbers: units of 250 us since the packet that arrived before it in this order, for the first
    one since the reference time; None for one that has not arrived. ``feedback_count`` (8 bits) numbers the feedback.
    """

    kind: ClassVar[int] = 205
    format: ClassVar[int] = 15
    sender_ssrc: int
    media_ssrc: int
    base_number: int
    reference_time: int
    feedback_count: int
    deltas: tuple[int | None, ...]

    def to_bytes(self) -> bytes:
        """The packet on the wire, padded to words as Chromium does.

        Raises:
            RtcpError: there is no packet or more than 65535, or a delta does not fit 16 bits.
        """
        if not 1 <= len(self.deltas) <= 0xFFFF:
            raise RtcpError(f"feedback on {len(self.deltas)} packets cannot be written")
        arrived = [delta for delta in self.deltas if delta is not None]
        if any(not -0x8000 <= delta <= 0x7FFF for delta in arrived):
            raise RtcpError("packets arrived too far apart for one feedback")
        head = _FEEDBACK.pack(
            self.sender_ssrc,
            self.media_ssrc,
            self.base_number,
            len(self.deltas),
            (self.reference_time & 0xFFFFFF) << 8 | self.feedback_count & 0xFF,
        )
        deltas = b"".join(
            bytes((each,)) if 0 <= each <= 0xFF else each.to_bytes(2, "big", signed=True) for each in arrived
        )
        body = head + _pack_symbols([_symbol(delta) for delta in self.deltas]) + deltas
        padding = -len(body) % 4
        if not padding:
            return _pack(self.kind, self.format, body)
        padded = body + bytes(padding - 1) + bytes((padding,))
        return _HEAD.pack(0xA0 | self.format, self.kind, len(padded) // 4) + padded


@dataclass(frozen=True, slots=True)
class ReceiverEstimate:
    """REMB: what the receiver takes the link to carry, in bits per second, for ``ssrcs`` together."""

    kind: ClassVar[int] = 206
    sender_ssrc: int
    bitrate_bps: int
    ssrcs: tuple[int, ...] = ()

    def to_bytes(self) -> bytes:
        """The packet on the wire; the rate is cut to its 18 highest bits."""
        exponent = max(0, self.bitrate_bps.bit_length() - 18)
        rate = len(self.ssrcs) << 24 | exponent << 18 | self.bitrate_bps >> exponent
        body = struct.pack("!II4sI", self.sender_ssrc, 0, b"REMB", rate)
        return _pack(self.kind, 15, body + struct.pack(f"!{len(self.ssrcs)}I", *self.ssrcs))


RtcpPacket = (
    SenderReport
    | ReceiverReport
    | SourceDescription
    | Bye
    | Nack
    | PictureLossIndication
    | FullIntraRequest
    | TransportFeedback
    | ReceiverEstimate
)


def parse_compound(data: bytes) -> list[RtcpPacket]:
    """Read a compound or reduced-size (RFC 5506) packet.

    Packets of kinds that this module does not know (XR, APP, application layer feedback other than REMB ...) are
    skipped by their length alone, so that nothing inside them can spoil the rest; the same holds for padding, and for
    SDES items other than CNAME.

    Raises:
        RtcpError: a length does not fit, the version is not 2, or a packet of a known kind is damaged.
    """
    if not 4 <= len(data) <= MAX_SIZE:
        raise RtcpError(f"{len(data)} bytes are no RTCP packet")
    packets: list[RtcpPacket] = []
    position = 0
    while position < len(data):
        if position + 4 > len(data):
            raise RtcpError(f"{len(data) - position} stray bytes after an RTCP packet")
        first, kind, words = _HEAD.unpack_from(data, position)
        if first >> 6 != 2:
            raise RtcpError(f"RTCP version {first >> 6} is not 2")
        end = position + 4 + 4 * words
        if end > len(data):
            raise RtcpError(f"RTCP packet {kind} is longer than its datagram")
        count = first & 0x1F
        parse = _PARSERS.get((kind, count)) or _PARSERS.get((kind, None))
        if parse is not None:
            body = data[position + 4 : end]
            if first & 0x20:
                body = _unpad(kind, body)
            packet = parse(count, body)
            if packet is not None:
                packets.append(packet)
        position = end
    return packets


class WholeFeedback(NamedTuple):
    """`TransportFeedback` of packets that have all arrived, in their order, and none of them long after another.

    Its ``deltas`` are a byte each.
    """

    base_number: int
    reference_time: int
    deltas: bytes


def read_whole_feedback(data: bytes) -> WholeFeedback | None:
    """What `parse_compound` reads of most feedback, in less time; None for all that is not just one of these."""
    if not _FEEDBACK_ALONE.size <= len(data) <= MAX_SIZE:
        return None
    first, kind, words, _, _, base_number, count, rest, chunk = _FEEDBACK_ALONE.unpack_from(data)
    if first & 0xDF != _FIRST_OF_FEEDBACK or kind != TransportFeedback.kind or 4 * words + 4 != len(data):
        return None
    end = len(data)
    if first & 0x20:
        if not data[-1]:
            return None
        end -= data[-1]
    deltas_end = _FEEDBACK_ALONE.size + count
    if not count or chunk != _ALL_ARRIVED | count or deltas_end > end:
        return None
    reference = rest >> 8
    reference -= (reference & 0x800000) << 1
    return WholeFeedback(base_number, reference, data[_FEEDBACK_ALONE.size : deltas_end])


def pack_compound(packets: Sequence[RtcpPacket]) -> bytes:
    """The packets one after the other; by RFC 3550 section 6.1 the first should be a report."""
    return b"".join(packet.to_bytes() for packet in packets)


def is_report_alone(data: bytes) -> bool:
    """Whether a protected datagram is transport-wide feedback or receiver reports and nothing else, as far as its clear
    header tells.

    The header of the first packet is not encrypted (RFC 3711 section 3.4), and nothing that is answered fits into what
    SRTCP adds.
    """
    if len(data) < 4 or data[0] >> 6 != 2:
        return False
    is_feedback = data[1] == TransportFeedback.kind and data[0] & 0x1F == TransportFeedback.format
    if not is_feedback and data[1] != ReceiverReport.kind:
        return False
    rest = len(data) - 4 * ((data[2] << 8 | data[3]) + 1)
    return 0 <= rest <= MOST_TRAILER


def looks_like_rtcp(data: bytes) -> bool:
    """Whether a datagram on a port shared by RTP and RTCP is RTCP (RFC 5761 section 4)."""
    return len(data) >= 4 and data[0] >> 6 == 2 and 192 <= data[1] <= 223


def to_ntp(wallclock_ns: int) -> int:
    """Unix time in ns as a 64-bit NTP timestamp: seconds since 1900 (wrapping) and 32 bits of fraction."""
    seconds, rest_ns = divmod(wallclock_ns, 1_000_000_000)
    return (seconds + _NTP_EPOCH_S & 0xFFFFFFFF) << 32 | (rest_ns << 32) // 1_000_000_000


def _pack(kind: int, count: int, body: bytes) -> bytes:
    return _HEAD.pack(0x80 | count, kind, len(body) // 4) + body


def _unpad(kind: int, body: bytes) -> bytes:
    if not body or not 1 <= body[-1] <= len(body):
        raise RtcpError(f"RTCP packet {kind} has wrong padding")
    return body[: -body[-1]]


def _need(name: str, body: bytes, size: int) -> None:
    if len(body) < size:
        raise RtcpError(f"{name} is cut off: {len(body)} bytes instead of {size}")


def _parse_reports(name: str, count: int, body: bytes, start: int) -> tuple[ReportBlock, ...]:
    _need(name, body, start + 24 * count)
    blocks: list[ReportBlock] = []
    for index in range(count):
        ssrc, lost, highest, jitter, last, delay = _REPORT.unpack_from(body, start + 24 * index)
        packets_lost = lost & 0xFFFFFF
        packets_lost -= (packets_lost & 0x800000) << 1
        blocks.append(ReportBlock(ssrc, lost >> 24, packets_lost, highest, jitter, last, delay))
    return tuple(blocks)


def _parse_sender_report(count: int, body: bytes) -> SenderReport:
    _need("SR", body, _SENDER_INFO.size)
    ssrc, ntp_time, rtp_timestamp, packet_count, octet_count = _SENDER_INFO.unpack_from(body)
    reports = _parse_reports("SR", count, body, _SENDER_INFO.size)
    return SenderReport(ssrc, ntp_time, rtp_timestamp, packet_count, octet_count, reports)


def _parse_receiver_report(count: int, body: bytes) -> ReceiverReport:
    _need("RR", body, 4)
    return ReceiverReport(int.from_bytes(body[:4], "big"), _parse_reports("RR", count, body, 4))


def _parse_source_description(count: int, body: bytes) -> SourceDescription:
    cnames: list[tuple[int, str]] = []
    position = 0
    for _ in range(count):
        _need("SDES", body, position + 5)
        ssrc = int.from_bytes(body[position : position + 4], "big")
        start = position
        position += 4
        while body[position]:
            _need("SDES", body, position + 2)
            end = position + 2 + body[position + 1]
            _need("SDES", body, end + 1)
            if body[position] == 1:
                cnames.append((ssrc, body[position + 2 : end].decode(errors="replace")))
            position = end
        position += 4 - (position - start) % 4
    return SourceDescription(tuple(cnames))


def _parse_bye(count: int, body: bytes) -> Bye:
    _need("BYE", body, 4 * count)
    return Bye(struct.unpack_from(f"!{count}I", body))


def _parse_nack(_: int, body: bytes) -> Nack:
    _need("NACK", body, 8)
    sender, media = struct.unpack_from("!II", body)
    lost: list[int] = []
    for position in range(8, len(body) - 3, 4):
        base, mask = struct.unpack_from("!HH", body, position)
        lost.append(base)
        lost.extend((base + 1 + bit) & 0xFFFF for bit in range(16) if mask >> bit & 1)
    return Nack(sender, media, tuple(lost))


def _parse_pli(_: int, body: bytes) -> PictureLossIndication:
    _need("PLI", body, 8)
    return PictureLossIndication(*struct.unpack_from("!II", body))


def _parse_fir(_: int, body: bytes) -> FullIntraRequest:
    _need("FIR", body, 8)
    entries = [struct.unpack_from("!IB", body, position) for position in range(8, len(body) - 7, 8)]
    return FullIntraRequest(int.from_bytes(body[:4], "big"), tuple((ssrc, number) for ssrc, number in entries))


def _symbol(delta: int | None) -> int:
    """What a status chunk says of a packet: 0 not arrived, 1 with a delta of one byte, 2 with one of two."""
    if delta is None:
        return 0
    return 1 if 0 <= delta <= 0xFF else 2


def _pack_symbols(symbols: list[int]) -> bytes:
    """Status chunks (section 3.1.2 to 3.1.4): runs where they are long, else vectors of 14 or 7."""
    runs = [[symbol, len(list(group))] for symbol, group in groupby(symbols)]
    chunks: list[int] = []
    position, index = 0, 0
    while index < len(runs):
        symbol, length = runs[index]
        if length >= 14 or position + length == len(symbols):
            taken = min(length, 0x1FFF)
            chunks.append(symbol << 13 | taken)
        elif 2 not in symbols[position : position + 14]:
            taken = min(14, len(symbols) - position)
            bits = symbols[position : position + taken] + [0] * (14 - taken)
            chunks.append(0x8000 | sum(bit << 13 - place for place, bit in enumerate(bits)))
        else:
            taken = min(7, len(symbols) - position)
            pairs = symbols[position : position + taken] + [0] * (7 - taken)
            chunks.append(0xC000 | sum(pair << 12 - 2 * place for place, pair in enumerate(pairs)))
        position += taken
        while index < len(runs) and taken:
            step = min(taken, runs[index][1])
            runs[index][1] -= step
            taken -= step
            if not runs[index][1]:
                index += 1
    return struct.pack(f"!{len(chunks)}H", *chunks)


def _parse_transport_feedback(_: int, body: bytes) -> TransportFeedback:
    _need("transport-wide feedback", body, _FEEDBACK.size)
    sender, media, base, count, rest = _FEEDBACK.unpack_from(body)
    runs: list[tuple[int, int]] = []
    left = count
    position = _FEEDBACK.size
    while left > 0:
        _need("transport-wide feedback", body, position + 2)
        chunk = body[position] << 8 | body[position + 1]
        position += 2
        if not chunk & 0x8000:
            run = min(chunk & 0x1FFF, left)
            if not run:
                raise RtcpError("transport-wide feedback has an empty run")
            runs.append((chunk >> 13, run))
            left -= run
        elif chunk & 0x4000:
            runs += [(chunk >> shift & 3, 1) for shift in (12, 10, 8, 6, 4, 2, 0)[:left]]
            left -= 7
        else:
            runs += [(chunk >> shift & 1, 1) for shift in range(13, max(-1, 13 - left), -1)]
            left -= 14
    deltas: list[int | None] = []
    end = len(body)
    for symbol, run in runs:
        if symbol == 0:
            deltas += [None] * run
            continue
        if symbol == 3:
            raise RtcpError("transport-wide feedback has a reserved symbol")
        if position + symbol * run > end:
            raise RtcpError("transport-wide feedback is cut off in its deltas")
        if symbol == 1:
            deltas += body[position : position + run]
        else:
            deltas += struct.unpack_from(f"!{run}h", body, position)
        position += symbol * run
    reference = rest >> 8
    reference -= (reference & 0x800000) << 1
    return TransportFeedback(sender, media, base, reference, rest & 0xFF, tuple(deltas))


def _parse_application_feedback(_: int, body: bytes) -> ReceiverEstimate | None:
    if body[8:12] != b"REMB":
        return None
    _need("REMB", body, 16)
    rate = int.from_bytes(body[12:16], "big")
    _need("REMB", body, 16 + 4 * (rate >> 24))
    ssrcs = struct.unpack_from(f"!{rate >> 24}I", body, 16)
    return ReceiverEstimate(int.from_bytes(body[:4], "big"), (rate & 0x3FFFF) << (rate >> 18 & 0x3F), ssrcs)


# Keyed by packet type and, for feedback, by its format (RFC 4585 section 6.1).
_PARSERS: Final[dict[tuple[int, int | None], Callable[[int, bytes], RtcpPacket | None]]] = {
    (200, None): _parse_sender_report,
    (201, None): _parse_receiver_report,
    (202, None): _parse_source_description,
    (203, None): _parse_bye,
    (205, 1): _parse_nack,
    (205, 15): _parse_transport_feedback,
    (206, 1): _parse_pli,
    (206, 4): _parse_fir,
    (206, 15): _parse_application_feedback,
}
