"""Records in a stream of bytes: each a head of JSON values and a body, both with their length before them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

_LENGTHS = struct.Struct(">II")
MAX_HEAD_BYTES = 1024 * 1024
MAX_BODY_BYTES = 256 * 1024 * 1024


def pack(head: dict[str, Any], body: bytes = b"") -> bytes:
    """A record as it goes into the stream."""
    text = json.dumps(head, ensure_ascii=False, default=str).encode()
    return _LENGTHS.pack(len(text), len(body)) + text + body


def unpack(read: Callable[[int], bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next record, None at the end; ``read(n)`` gives n bytes, or fewer at the end. Raises ValueError else."""
    lengths = read(_LENGTHS.size)
    if not lengths:
        return None
    if len(lengths) < _LENGTHS.size:
        raise ValueError("the stream ended within a record")
    head_size, body_size = _LENGTHS.unpack(lengths)
    if head_size > MAX_HEAD_BYTES or body_size > MAX_BODY_BYTES:
        raise ValueError("what came is no record")
    text, body = read(head_size), read(body_size) if body_size else b""
    if len(text) < head_size or len(body) < body_size:
        raise ValueError("the stream ended within a record")
    head = json.loads(text)
    if not isinstance(head, dict):
        raise ValueError("what came is no record")
    return head, body
