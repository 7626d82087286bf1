"""RTP packets (RFC 3550 section 5.1), header extensions in the one-byte form (RFC 8285), and wrapping counters."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

HEADER_SIZE: Final = 12
ONE_BYTE_PROFILE: Final = 0xBEDE
MID_URI: Final = "urn:ietf:params:rtp-hdrext:sdes:mid"
TRANSPORT_NUMBER_URI: Final = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
CAPTURE_TIME_URI: Final = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"
PLAYOUT_DELAY_URI: Final = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"

_HEADER: Final = struct.Struct("!BBHII")
_EXTENSION: Final = struct.Struct("!HH")
_COMMON: Final = struct.Struct("!II")


class RtpError(ValueError):
    """The bytes are no RTP packet, or a damaged one."""


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """One RTP packet.

    ``extensions`` are (id 1 to 14, value of 1 to 16 bytes) of the one-byte form, in wire order. A header extension of
    another form is skipped by `parse`. ``padding`` counts the bytes after the payload, the last of which says how many
    there are.
    """

    payload_type: int
    sequence_number: int
    timestamp: int
    ssrc: int
    payload: bytes = b""
    marker: bool = False
    csrcs: tuple[int, ...] = ()
    extensions: tuple[tuple[int, bytes], ...] = ()
    padding: int = 0

    def to_bytes(self) -> bytes:
        """The packet on the wire."""
        extension = pack_extensions(self.extensions)
        first = 0x80 | bool(self.padding) << 5 | bool(extension) << 4 | len(self.csrcs)
        second = self.marker << 7 | self.payload_type
        head = _HEADER.pack(first, second, self.sequence_number, self.timestamp, self.ssrc)
        tail = bytes(self.padding - 1) + bytes((self.padding,)) if self.padding else b""
        return head + struct.pack(f"!{len(self.csrcs)}I", *self.csrcs) + extension + self.payload + tail

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read one packet.

        Raises:
            RtpError: too short, not version 2, or a length inside does not fit.
        """
        if len(data) < HEADER_SIZE:
            raise RtpError(f"{len(data)} bytes are too short for RTP")
        first, second, sequence_number, timestamp, ssrc = _HEADER.unpack_from(data)
        if first >> 6 != 2:
            raise RtpError(f"RTP version {first >> 6} is not 2")
        position = HEADER_SIZE + 4 * (first & 0x0F)
        if position > len(data):
            raise RtpError("the CSRC list is longer than the packet")
        csrcs = struct.unpack_from(f"!{first & 0x0F}I", data, HEADER_SIZE)
        extensions: tuple[tuple[int, bytes], ...] = ()
        if first & 0x10:
            if position + 4 > len(data):
                raise RtpError("the header extension is cut off")
            profile, words = _EXTENSION.unpack_from(data, position)
            start, position = position + 4, position + 4 + 4 * words
            if position > len(data):
                raise RtpError("the header extension is longer than the packet")
            if profile == ONE_BYTE_PROFILE:
                extensions = _parse_one_byte(data[start:position])
        padding = 0
        if first & 0x20:
            padding = data[-1]
            if padding == 0 or position + padding > len(data):
                raise RtpError(f"{padding} bytes of padding do not fit the packet")
        return cls(
            payload_type=second & 0x7F,
            sequence_number=sequence_number,
            timestamp=timestamp,
            ssrc=ssrc,
            payload=data[position : len(data) - padding],
            marker=bool(second & 0x80),
            csrcs=csrcs,
            extensions=extensions,
            padding=padding,
        )


def pack_extensions(extensions: tuple[tuple[int, bytes], ...]) -> bytes:
    """The header extension with its own four-byte head, padded to words; empty for none (RFC 8285 section 4.2).

    Raises:
        RtpError: an id is not 1 to 14, or a value not 1 to 16 bytes.
    """
    if not extensions:
        return b""
    parts: list[bytes] = []
    for number, value in extensions:
        if not 1 <= number <= 14 or not 1 <= len(value) <= 16:
            raise RtpError(f"header extension {number} with {len(value)} bytes does not fit the one-byte form")
        parts.append(bytes((number << 4 | len(value) - 1,)) + value)
    body = b"".join(parts)
    body += bytes(-len(body) % 4)
    return _EXTENSION.pack(ONE_BYTE_PROFILE, len(body) // 4) + body


def pack_playout_delay(*, min_ms: int, max_ms: int) -> bytes:
    """The value of the playout-delay extension: two 12-bit counts of 10 ms each.

    Raises:
        RtpError: a bound is not 0 to 40950 ms, or they are in the wrong order.
    """
    if not 0 <= min_ms <= max_ms <= 40_950:
        raise RtpError(f"playout delay from {min_ms} to {max_ms} ms does not fit")
    return (min_ms // 10 << 12 | max_ms // 10).to_bytes(3, "big")


def pack_capture_time(ntp_time: int, *, offset: int | None = None) -> bytes:
    """The value of the abs-capture-time extension: when a picture was taken, as a 64-bit NTP time (`rtcp.to_ntp`).

    ``offset`` is the estimated difference, in the same units and signed, between the capturing clock and this
    sender's; 0 says that it is the same clock. A receiver interpolates between the packets that carry it: the first
    packet of a picture about once a second is enough.

    Raises:
        RtpError: a value does not fit its 64 bits.
    """
    try:
        value = ntp_time.to_bytes(8, "big")
        return value if offset is None else value + offset.to_bytes(8, "big", signed=True)
    except OverflowError:
        raise RtpError(f"capture time {ntp_time} or its offset {offset} does not fit 64 bits") from None


class HeaderWriter:
    """Writes the headers of one stream: all that stays the same from packet to packet is packed once.

    With ``transport_number_extension`` each header carries its transport-wide sequence number under that id, as the
    last extension. All headers have ``size`` bytes, but those with extensions of their own.

    Raises:
        RtpError: an extension does not fit the one-byte form.
    """

    def __init__(
        self,
        *,
        payload_type: int,
        ssrc: int,
        extensions: tuple[tuple[int, bytes], ...] = (),
        transport_number_extension: int | None = None,
    ) -> None:
        self._extensions = extensions
        self._number_id = transport_number_extension
        self._payload_type = payload_type
        self._ssrc = ssrc
        last = () if transport_number_extension is None else ((transport_number_extension, b"\0\0"),)
        block = pack_extensions(extensions + last)
        self._first = 0x80 | bool(block) << 4
        self.size: int = HEADER_SIZE + len(block)
        if transport_number_extension is None:
            self._before, after = block, 0
        else:
            end = 4 + sum(1 + len(value) for _, value in extensions) + 1
            self._before, after = block[:end], len(block) - end - 2
        self.number_at: int | None = None if transport_number_extension is None else HEADER_SIZE + len(self._before)
        """Where the transport-wide number is."""
        number = "H" if transport_number_extension is not None else ""
        self._pack = struct.Struct(f"!BBHII{len(self._before)}s{number}{after}x").pack
        # For many at a time: a word that counts, what they have in common, and their number.
        self._put = struct.Struct(f"!I{8 + len(self._before)}s{number}{after}x").pack_into
        self.blank: bytes = self.pack(sequence_number=0, timestamp=0, marker=False)
        """A header whose numbers and timestamp are 0."""

    def pack(self, *, sequence_number: int, timestamp: int, marker: bool, transport_number: int = 0) -> bytes:
        """The header of one packet, `size` bytes; the payload follows it."""
        second = marker << 7 | self._payload_type
        if self._number_id is None:
            return self._pack(self._first, second, sequence_number, timestamp, self._ssrc, self._before)
        return self._pack(self._first, second, sequence_number, timestamp, self._ssrc, self._before, transport_number)

    def pack_run(
        self, count: int, *, sequence_number: int, timestamp: int, marks_last: bool, transport_number: int = 0
    ) -> list[bytes]:
        """The headers of ``count`` packets of one timestamp, whose numbers go on from the first one's."""
        pack, first, ssrc, before = self._pack, self._first, self._ssrc, self._before
        kinds = [self._payload_type] * count
        if marks_last and count:
            kinds[-1] |= 0x80
        numbers = range(sequence_number, sequence_number + count)
        if self._number_id is None:
            return [
                pack(first, kind, number & 0xFFFF, timestamp, ssrc, before)
                for kind, number in zip(kinds, numbers, strict=True)
            ]
        ahead = transport_number - sequence_number
        return [
            pack(first, kind, number & 0xFFFF, timestamp, ssrc, before, (number + ahead) & 0xFFFF)
            for kind, number in zip(kinds, numbers, strict=True)
        ]

    def write_run(
        self,
        buffer: bytearray | memoryview,
        offsets: Sequence[int],
        *,
        sequence_number: int,
        timestamp: int,
        marks_last: bool,
        transport_number: int = 0,
    ) -> None:
        """As `pack_run`, into ``buffer`` at ``offsets``, one for each packet."""
        put, count = self._put, len(offsets)
        common = _COMMON.pack(timestamp, self._ssrc) + self._before
        word = self._first << 24 | self._payload_type << 16
        words: Sequence[int] = range(word | sequence_number, (word | sequence_number) + count)
        if sequence_number + count > 0x10000:
            words = [word | (sequence_number + index) & 0xFFFF for index in range(count)]
        if self._number_id is None:
            for offset, word in zip(offsets, words, strict=True):
                put(buffer, offset, word, common)
        else:
            numbers: Sequence[int] = range(transport_number, transport_number + count)
            if transport_number + count > 0x10000:
                numbers = [number & 0xFFFF for number in numbers]
            for offset, word, number in zip(offsets, words, numbers, strict=True):
                put(buffer, offset, word, common, number)
        if marks_last and count:
            buffer[offsets[-1] + 1] |= 0x80

    def pack_with(
        self,
        extensions: tuple[tuple[int, bytes], ...],
        *,
        sequence_number: int,
        timestamp: int,
        marker: bool,
        transport_number: int = 0,
    ) -> bytes:
        """The header of a packet with ``extensions`` of its own, such as a capture time; it is longer than `size`.

        Raises:
            RtpError: an extension does not fit the one-byte form.
        """
        last = () if self._number_id is None else ((self._number_id, transport_number.to_bytes(2, "big")),)
        block = pack_extensions(self._extensions + extensions + last)
        second = marker << 7 | self._payload_type
        return _HEADER.pack(0x80 | bool(block) << 4, second, sequence_number, timestamp, self._ssrc) + block


class Unwrapper:
    """Follows a counter of ``bits`` bits that wraps, such as a sequence number (16) or a timestamp (32)."""

    def __init__(self, bits: int) -> None:
        self._span = 1 << bits
        self._last: int | None = None

    def unwrap(self, value: int) -> int:
        """The unwrapped value: the one nearest to the last (a step of exactly half the range counts as forward)."""
        if self._last is None:
            self._last = value
            return value
        step = (value - self._last) % self._span
        if step > self._span // 2:
            step -= self._span
        self._last += step
        return self._last


def _parse_one_byte(data: bytes) -> tuple[tuple[int, bytes], ...]:
    found: list[tuple[int, bytes]] = []
    position = 0
    while position < len(data):
        number, size = data[position] >> 4, (data[position] & 0x0F) + 1
        if number == 15:  # reserved: the rest must be ignored
            break
        if number == 0:  # padding, whatever its length bits say
            position += 1
            continue
        value = data[position + 1 : position + 1 + size]
        if len(value) != size:
            raise RtpError(f"header extension {number} is longer than its block")
        found.append((number, value))
        position += 1 + size
    return tuple(found)
