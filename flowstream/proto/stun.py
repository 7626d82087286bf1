"""STUN messages (RFC 8489): the Binding method with short-term credentials, as ICE uses it."""

import functools
import hashlib
import hmac
import ipaddress
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

MAGIC_COOKIE: Final = 0x2112A442
BINDING: Final = 0x001
HEADER_SIZE: Final = 20
MAX_SIZE: Final = 2048
"""Longest message that is looked at, in bytes; ICE messages are a tenth of it."""

USERNAME: Final = 0x0006
MESSAGE_INTEGRITY: Final = 0x0008
ERROR_CODE: Final = 0x0009
UNKNOWN_ATTRIBUTES: Final = 0x000A
XOR_MAPPED_ADDRESS: Final = 0x0020
PRIORITY: Final = 0x0024
USE_CANDIDATE: Final = 0x0025
SOFTWARE: Final = 0x8022
FINGERPRINT: Final = 0x8028
ICE_CONTROLLED: Final = 0x8029
ICE_CONTROLLING: Final = 0x802A

_FINGERPRINT_XOR: Final = 0x5354554E
_DIGEST_SIZE: Final = hashlib.sha1().digest_size
_INTEGRITY_SIZE: Final = 4 + _DIGEST_SIZE
_FINGERPRINT_SIZE: Final = 8
_HEADER: Final = struct.Struct("!HHI12s")
_ATTRIBUTE: Final = struct.Struct("!HH")


class StunError(ValueError):
    """The bytes are no STUN message, or a damaged one."""


class Class(IntEnum):
    """The two class bits of the message type (RFC 8489 section 5), in place."""

    REQUEST = 0x000
    INDICATION = 0x010
    SUCCESS = 0x100
    ERROR = 0x110


@dataclass(frozen=True, slots=True)
class Message:
    """One STUN message.

    ``attributes`` are in wire order, values without padding, MESSAGE-INTEGRITY and FINGERPRINT left out: the first is
    checked against ``protected`` by `verify`, the second has been checked by `parse`. What follows MESSAGE-INTEGRITY is
    not covered by it and is dropped (RFC 8489 section 14.5).
    """

    method: int
    kind: Class
    transaction_id: bytes
    attributes: tuple[tuple[int, bytes], ...] = ()
    integrity: bytes | None = None
    protected: bytes = b""
    has_fingerprint: bool = False

    def get(self, attribute: int) -> bytes | None:
        """The first value of an attribute, or None."""
        for number, value in self.attributes:
            if number == attribute:
                return value
        return None

    def __contains__(self, attribute: int) -> bool:
        return any(number == attribute for number, _ in self.attributes)

    def verify(self, key: bytes) -> bool:
        """Whether MESSAGE-INTEGRITY is there and made with ``key`` (the password, for short-term credentials)."""
        if self.integrity is None:
            return False
        return hmac.compare_digest(hmac.digest(key, self.protected, "sha1"), self.integrity)

    def to_bytes(self, key: bytes | None = None, *, fingerprint: bool = True) -> bytes:
        """The message on the wire, with MESSAGE-INTEGRITY when ``key`` is given, FINGERPRINT last."""
        parts = [_pack_attribute(number, value) for number, value in self.attributes]
        body = b"".join(parts)
        if key is not None:
            covered = self._header(len(body) + _INTEGRITY_SIZE) + body
            body += _pack_attribute(MESSAGE_INTEGRITY, hmac.digest(key, covered, "sha1"))
        if fingerprint:
            covered = self._header(len(body) + _FINGERPRINT_SIZE) + body
            body += _pack_attribute(FINGERPRINT, struct.pack("!I", zlib.crc32(covered) ^ _FINGERPRINT_XOR))
        return self._header(len(body)) + body

    def _header(self, length: int) -> bytes:
        return _HEADER.pack(_pack_type(self.method, self.kind), length, MAGIC_COOKIE, self.transaction_id)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read one datagram.

        Raises:
            StunError: it is no STUN message, a length does not fit, or FINGERPRINT does not match.
        """
        if not looks_like_stun(data):
            raise StunError("not a STUN message")
        kind, length, _, transaction_id = _HEADER.unpack_from(data)
        if length != len(data) - HEADER_SIZE or length % 4 or len(data) > MAX_SIZE:
            raise StunError(f"STUN length {length} does not fit a datagram of {len(data)} bytes")
        attributes: list[tuple[int, bytes]] = []
        integrity: bytes | None = None
        protected = b""
        has_fingerprint = False
        position = HEADER_SIZE
        while position < len(data):
            number, size = _ATTRIBUTE.unpack_from(data, position)
            start = position + 4
            if start + size > len(data):
                raise StunError(f"STUN attribute 0x{number:04x} is longer than its message")
            if has_fingerprint:
                raise StunError("STUN attribute after FINGERPRINT")
            value = data[start : start + size]
            if number == FINGERPRINT:
                _check_fingerprint(data, position, value)
                has_fingerprint = True
            elif number == MESSAGE_INTEGRITY and integrity is None:
                if size != _DIGEST_SIZE:
                    raise StunError(f"MESSAGE-INTEGRITY has {size} bytes instead of 20")
                integrity = value
                protected = _with_length(data[:position], position - HEADER_SIZE + _INTEGRITY_SIZE)
            elif integrity is None:
                attributes.append((number, value))
            position = start + size + (-size % 4)
        if position != len(data):
            raise StunError("the last STUN attribute is not padded")
        return cls(
            method=_method_of(kind),
            kind=Class(kind & 0x110),
            transaction_id=transaction_id,
            attributes=tuple(attributes),
            integrity=integrity,
            protected=protected,
            has_fingerprint=has_fingerprint,
        )


def looks_like_stun(data: bytes) -> bool:
    """Whether a datagram on a port shared with DTLS and SRTP is STUN (RFC 7983 section 7, RFC 8489 section 6.3)."""
    return len(data) >= HEADER_SIZE and data[0] < 4 and data[4:8] == b"\x21\x12\xa4\x42"


def is_request(data: bytes) -> bool:
    """Whether a datagram looks like a STUN request."""
    return looks_like_stun(data) and not data[0] & 0x01 and not data[1] & 0x10


def peek(data: bytes, attribute: int) -> bytes | None:
    """The first value of an attribute in what looks like STUN, which need not be sound; None if there is none.

    What follows MESSAGE-INTEGRITY or FINGERPRINT does not count.
    """
    position = HEADER_SIZE
    while position + 4 <= len(data):
        number, size = _ATTRIBUTE.unpack_from(data, position)
        position += 4
        if number == attribute:
            value = data[position : position + size]
            return value if len(value) == size else None
        if number in (MESSAGE_INTEGRITY, FINGERPRINT):
            return None
        position += size + (-size % 4)
    return None


def transaction_of(data: bytes) -> bytes:
    """The transaction id of what looks like STUN, read or not."""
    return data[8:HEADER_SIZE]


def pack_xor_address(address: tuple[str, int], transaction_id: bytes) -> bytes:
    """The value of XOR-MAPPED-ADDRESS for (IP address, port) (RFC 8489 section 14.2)."""
    packed = _packed(address[0])
    family = 1 if len(packed) == 4 else 2
    pad = struct.pack("!I", MAGIC_COOKIE) + transaction_id
    masked = int.from_bytes(packed, "big") ^ int.from_bytes(pad[: len(packed)], "big")
    return struct.pack("!BBH", 0, family, address[1] ^ (MAGIC_COOKIE >> 16)) + masked.to_bytes(len(packed), "big")


@functools.lru_cache(1024)
def _packed(host: str) -> bytes:
    """An IP address as 4 or 16 bytes; peers ask again and again from where they are."""
    return ipaddress.ip_address(host.partition("%")[0]).packed


def unpack_xor_address(value: bytes, transaction_id: bytes) -> tuple[str, int]:
    """Read XOR-MAPPED-ADDRESS into (IP address, port).

    Raises:
        StunError: unknown family or wrong size.
    """
    sizes = {1: 8, 2: 20}
    if len(value) < 4 or sizes.get(value[1]) != len(value):
        raise StunError("XOR-MAPPED-ADDRESS has a wrong family or size")
    port = struct.unpack_from("!H", value, 2)[0] ^ (MAGIC_COOKIE >> 16)
    pad = struct.pack("!I", MAGIC_COOKIE) + transaction_id
    return str(ipaddress.ip_address(bytes(a ^ b for a, b in zip(value[4:], pad, strict=False)))), port


def pack_error(code: int, reason: str) -> bytes:
    """The value of ERROR-CODE (RFC 8489 section 14.8)."""
    return struct.pack("!HBB", 0, code // 100, code % 100) + reason.encode()


def unpack_error(value: bytes) -> int:
    """The code in a value of ERROR-CODE, 300 to 699.

    Raises:
        StunError: it is too short.
    """
    if len(value) < 4:
        raise StunError("ERROR-CODE is too short")
    return (value[2] & 7) * 100 + value[3]


def _pack_attribute(number: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(number, len(value)) + value + bytes(-len(value) % 4)


def _pack_type(method: int, kind: Class) -> int:
    return (method & 0x00F) | (method & 0x070) << 1 | (method & 0xF80) << 2 | kind


def _method_of(kind: int) -> int:
    return (kind & 0x000F) | (kind & 0x00E0) >> 1 | (kind & 0x3E00) >> 2


def _with_length(data: bytes, length: int) -> bytes:
    return data[:2] + struct.pack("!H", length) + data[4:]


def _check_fingerprint(data: bytes, position: int, value: bytes) -> None:
    if len(value) != 4:
        raise StunError(f"FINGERPRINT has {len(value)} bytes instead of 4")
    covered = _with_length(data[:position], position - HEADER_SIZE + _FINGERPRINT_SIZE)
    if struct.unpack("!I", value)[0] != zlib.crc32(covered) ^ _FINGERPRINT_XOR:
        raise StunError("FINGERPRINT does not match")
