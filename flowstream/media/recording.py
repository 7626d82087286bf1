r"""The file of a recording: what went over chosen outputs and edges of a graph, bit for bit, and when.

It is read and written here as bytes, without a file: ``Writer`` gives pieces to be written one after the other,
``Reader`` asks for so many bytes at a time.

Form, version 1; numbers are big-endian::

    file    = magic version chunk*
    magic   = 89 "FSREC" 0D 0A 1A 0A        a transfer as text, or cut short, spoils it
    version = u16                           1; a reader refuses a higher one
    chunk   = length:u32 kind:u8 body[length] crc:u32
                                            crc is CRC-32 (as in zlib and PNG) of kind and body

    'H' header   JSON: graph, revision, files, began, streams; the first chunk
    'C' caps     JSON: stream, caps; before the first payload that has them
    'P' payload  stream:u16 head_length:u32 head[head_length] data[...]
                 head is JSON: at_ns (when it came, from the beginning of the recording), time_ns (media time), and what
                 else is told of it: duration_ns, decode_ns, capture_ns (on the same clock as at_ns), keyframe ...
                 data is that of ``byte_form``: planes without padding, the packet, a record's value as JSON
    'L' lost     JSON: stream, count, cause, at_ns; what could not be written, at the place where it is missing
    'T' tick     JSON: at_ns; nothing came for a while
    'E' end      JSON: at_ns, reason; the last chunk of a recording that was ended and not cut off

A chunk of another kind is passed over when its letter is a small one. What is newer than a reader in a JSON map is
left out by it. A recording is exact when it has its end and nothing was lost.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flowstream.errors import FlowstreamError
from flowstream.media.byte_form import (
    PAYLOADS,
    ByteFormError,
    Forms,
    caps_from_json,
    caps_to_json,
    from_bytes,
    loaded_form,
    to_bytes,
)
from flowstream.media.caps import Caps

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAGIC = b"\x89FSREC\r\n\x1a\n"
VERSION = 1

MAX_CHUNK_BYTES = 256 * 1024 * 1024
"""How large a chunk may be: a picture of 16 bytes for each pixel of 4096x4096."""

MAX_JSON_BYTES = 16 * 1024 * 1024
"""How large the JSON of a chunk may be; the header holds the files of a graph."""

MOST_STREAMS = 64

_VERSION = struct.Struct(">H")
_CHUNK = struct.Struct(">IB")
_CRC = struct.Struct(">I")
_PAYLOAD = struct.Struct(">HI")
_HEADER, _CAPS, _PAYLOAD_KIND, _LOST, _TICK, _END = (ord(each) for each in "HCPLTE")


class RecordingError(FlowstreamError):
    """Raised when bytes are no recording that can be read, or a recording is not what it is taken for."""


class Stream(BaseModel):
    """One output of a recording. ``name`` is what was asked for: the output, or an edge that takes from it.

    ``payloads`` are the names of the classes that it may give, ``type`` is the node's type, ``live`` whether the node
    could not be slowed down, ``main`` whether the output is the one that the node's bare name means. ``declared`` are
    the caps that were known before the graph ran.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")

    name: str
    node: str
    output: str
    type: str = ""
    payloads: tuple[str, ...] = ()
    live: bool = False
    main: bool = False
    declared: Mapping[str, Any] | None = None

    @property
    def source(self) -> str:
        """``NODE.OUTPUT``."""
        return f"{self.node}.{self.output}"


class Header(BaseModel):
    """What stands at the beginning: the graph's name, revision and files (path to text, without secrets) and streams.

    ``began`` is the wallclock at its beginning, as ISO 8601 in UTC; ``software`` what wrote it.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")

    graph: str = ""
    revision: str = ""
    files: Mapping[str, str] = Field(default_factory=dict)
    began: str = ""
    software: str = ""
    streams: tuple[Stream, ...] = Field(min_length=1, max_length=MOST_STREAMS)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A payload that was recorded, not made yet. ``place`` is where its chunk begins in the file."""

    stream: Stream
    at_ns: int
    payload_type: str
    caps: Caps | None
    head: Mapping[str, Any] = field(repr=False)
    data: bytes = field(repr=False)
    place: int = 0

    @property
    def time_ns(self) -> int:
        """Its media time."""
        return int(self.head["time_ns"])

    @property
    def size_bytes(self) -> int:
        """Bytes of what it carries."""
        return len(self.data)

    def payload(self, forms: Forms = loaded_form) -> Any:
        """The payload; ``capture_ns`` counts from the beginning of the recording. Raises RecordingError."""
        try:
            return from_bytes(self.payload_type, self.caps, self.head, self.data, forms=forms)
        except ByteFormError as error:
            raise RecordingError(
                f"what was recorded of {self.stream.source} at byte {self.place} is no {self.payload_type}: {error}"
            ) from error


@dataclass(frozen=True, slots=True)
class Lost:
    """Payloads of a stream that are missing here, and why."""

    stream: Stream
    count: int
    cause: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing came for a while."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The recording was ended, for this reason."""

    reason: str
    at_ns: int


Item = Arrived | Lost | Tick | Ended


def _chunk(kind: int, body: Sequence[Buffer]) -> list[Buffer]:
    size, crc = 0, zlib.crc32(bytes((kind,)))
    for piece in body:
        size += memoryview(piece).nbytes
        crc = zlib.crc32(piece, crc)
    if size > MAX_CHUNK_BYTES:
        raise ByteFormError(f"it has {size} bytes, and {MAX_CHUNK_BYTES} is the most that a recording takes")
    return [_CHUNK.pack(size, kind), *body, _CRC.pack(crc)]


def _json(kind: int, told: Mapping[str, Any]) -> list[Buffer]:
    return _chunk(kind, [json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")])


class Writer:
    """Makes the pieces of a recording. ``origin_ns`` is the now at which it begins.

    Pieces share the memory of payloads and are to be written in the order in which they were asked for.
    """

    def __init__(self, header: Header, origin_ns: int) -> None:
        self.header = header
        self._origin_ns = origin_ns
        self._caps: list[Caps | None] = [None] * len(header.streams)
        self._types: list[str] = [""] * len(header.streams)

    def begin(self) -> list[Buffer]:
        """What the file begins with."""
        return [MAGIC + _VERSION.pack(VERSION), *_json(_HEADER, self.header.model_dump(mode="json"))]

    def payload(self, stream: int, payload: Any, now_ns: int) -> list[Buffer]:
        """A payload that came at ``now_ns``. Raises ByteFormError for one that cannot be written."""
        head, data = to_bytes(payload, self._origin_ns)
        head = {"at_ns": now_ns - self._origin_ns, **head}
        kind, caps = type(payload).__name__, getattr(payload, "caps", None)
        told = json.dumps(head, separators=(",", ":"), default=lambda value: value.item()).encode()  # NumPy's numbers
        pieces = _chunk(_PAYLOAD_KIND, [_PAYLOAD.pack(stream, len(told)) + told, *data])
        if caps != self._caps[stream] or kind != self._types[stream]:
            self._caps[stream], self._types[stream] = caps, kind
            caps_told = caps_to_json(caps) if caps is not None else None
            pieces = [*_json(_CAPS, {"stream": stream, "payload": kind, "caps": caps_told}), *pieces]
        return pieces

    def lost(self, stream: int, count: int, cause: str, now_ns: int) -> list[Buffer]:
        """So many payloads are missing here."""
        return _json(
            _LOST, {"stream": stream, "count": count, "cause": cause, "at_ns": now_ns - self._origin_ns}
        )  # fmt: skip

    def tick(self, now_ns: int) -> list[Buffer]:
        """Nothing has come for a while."""
        return _json(_TICK, {"at_ns": now_ns - self._origin_ns})

    def end(self, reason: str, now_ns: int) -> list[Buffer]:
        """Nothing follows."""
        return end_chunk(reason, now_ns - self._origin_ns)


def end_chunk(reason: str, at_ns: int) -> list[Buffer]:
    """The last chunk, ``at_ns`` from the beginning: for whoever ends a recording that somebody else writes."""
    return _json(_END, {"reason": reason, "at_ns": at_ns})


class _Damage(Exception):  # noqa: N818 - not for anybody outside
    """What keeps a recording from being read on; the text says it, with the place."""


class Reader:
    """Reads a recording from the beginning on: iterate over it for what it holds.

    ``read(n)`` gives n bytes, fewer at the end only. ``header`` is there at once; RecordingError is raised when there
    is none. Where the file is cut off or damaged the iteration ends: ``problem`` then says what and where, and all
    before that was given. ``end`` is the proper end, if it was come to.
    """

    def __init__(self, read: Callable[[int], bytes], name: str = "the file") -> None:
        self.problem: str = ""
        self.end: Ended | None = None
        self.at_ns: int = 0
        """When the last thing in it was, from its beginning."""
        self._read = read
        self._name = name
        self._place = 0  # where the next chunk begins
        self._caps: dict[int, tuple[str, Caps | None]] = {}
        self.header: Header = self._begin()

    def __iter__(self) -> Iterator[Item]:
        while self.end is None and not self.problem:
            try:
                item = self._next()
            except _Damage as damage:
                self.problem = str(damage)
                return
            if item is not None:
                self.at_ns = max(self.at_ns, item.at_ns)
                yield item

    def _begin(self) -> Header:
        begin = self._read(len(MAGIC) + _VERSION.size)
        if not begin.startswith(MAGIC) or len(begin) < len(MAGIC) + _VERSION.size:
            said = "it is empty" if not begin else f"it begins with {begin[: len(MAGIC)]!r}"
            if begin and MAGIC.startswith(begin):
                said = f"it is cut off after {len(begin)} bytes"
            raise RecordingError(f"{self._name} is no recording: {said}", hint="flowstream record makes recordings")
        (version,) = _VERSION.unpack_from(begin, len(MAGIC))
        if version != VERSION:
            raise RecordingError(
                f"{self._name} is a recording of version {version}, and this flowstream reads version {VERSION}",
                hint="install a newer flowstream" if version > VERSION else None,
            )
        self._place = len(begin)
        try:
            found = self._take()
            if found is None or found[0] != _HEADER:
                raise _Damage(f"it has no header at byte {len(begin)}")
            return Header.model_validate(_parsed(found[1], len(begin)))
        except (_Damage, ValidationError) as error:
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise RecordingError(f"{self._name} is a recording without a header that can be read: {said}") from error

    def _take(self) -> tuple[int, bytes] | None:
        """The kind and the body of the next chunk; None at the end of the file."""
        place = self._place
        start = self._read(_CHUNK.size)
        if not start:
            return None
        if len(start) < _CHUNK.size:
            raise _Damage(f"it is cut off within the chunk at byte {place}")
        size, kind = _CHUNK.unpack(start)
        if size > MAX_CHUNK_BYTES:
            raise _Damage(f"it is damaged at byte {place}: no chunk has {size} bytes")
        body = self._read(size)
        end = self._read(_CRC.size) if len(body) == size else b""
        if len(end) < _CRC.size:
            raise _Damage(f"it is cut off within the chunk at byte {place}")
        if _CRC.unpack(end)[0] != zlib.crc32(body, zlib.crc32(start[-1:])):
            raise _Damage(f"it is damaged at byte {place}: the checksum is another")
        self._place = place + _CHUNK.size + size + _CRC.size
        return kind, body

    def _next(self) -> Item | None:
        place = self._place
        found = self._take()
        if found is None:
            raise _Damage(f"it is cut off after {place} bytes, without its end")
        kind, body = found
        if kind == _PAYLOAD_KIND:
            return self._arrived(body, place)
        if kind not in (_CAPS, _LOST, _TICK, _END):
            if chr(kind).islower():
                return None
            raise _Damage(f"it has a chunk of the kind {chr(kind)!r} at byte {place}, which is not known here")
        told = _parsed(body, place)
        if kind == _CAPS:
            self._take_caps(told, place)
            return None
        at_ns = _whole(told, "at_ns", place)
        if kind == _TICK:
            return Tick(at_ns)
        if kind == _END:
            self.end = Ended(str(told.get("reason", "")), at_ns)
            return self.end
        stream = self._stream(told.get("stream"), place)
        return Lost(stream, max(1, _whole(told, "count", place)), str(told.get("cause", "")), at_ns)

    def _take_caps(self, told: Mapping[str, Any], place: int) -> None:
        self._stream(told.get("stream"), place)
        payload, caps = str(told.get("payload")), told.get("caps")
        if payload not in PAYLOADS:
            raise _Damage(f"it tells at byte {place} of a payload {payload!r}, which is not known here")
        try:
            self._caps[told["stream"]] = (payload, caps_from_json(caps) if caps is not None else None)
        except ByteFormError as error:
            raise _Damage(f"it is damaged at byte {place}: {error}") from error

    def _arrived(self, body: bytes, place: int) -> Arrived:
        if len(body) < _PAYLOAD.size:
            raise _Damage(f"it is damaged at byte {place}: a payload without a head")
        number, size = _PAYLOAD.unpack_from(body)
        begin = _PAYLOAD.size + size
        if size > MAX_JSON_BYTES or begin > len(body):
            raise _Damage(f"it is damaged at byte {place}: a head of {size} bytes")
        stream = self._stream(number, place)
        if number not in self._caps:
            raise _Damage(f"it is damaged at byte {place}: nothing tells what the payload is")
        head = _parsed(body[_PAYLOAD.size : begin], place)
        _whole(head, "time_ns", place)
        payload, caps = self._caps[number]
        return Arrived(stream, _whole(head, "at_ns", place), payload, caps, head, body[begin:], place)

    def _stream(self, number: Any, place: int) -> Stream:
        streams = self.header.streams
        if type(number) is not int or not 0 <= number < len(streams):
            raise _Damage(f"it is damaged at byte {place}: there is no stream {number!r}")
        return streams[number]


def _parsed(body: bytes, place: int) -> dict[str, Any]:
    if len(body) <= MAX_JSON_BYTES:
        try:
            told = json.loads(body)
        except (ValueError, RecursionError):
            told = None
        if isinstance(told, dict):
            return told
    raise _Damage(f"it is damaged at byte {place}: what stands there is no JSON map")


def _whole(told: Mapping[str, Any], name: str, place: int) -> int:
    value = told.get(name)
    if type(value) is not int or abs(value) >= 1 << 62:
        raise _Damage(f"it is damaged at byte {place}: {name} is {str(value)[:40]!r}")
    return value


# --- what is in a file ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class StreamContents:
    """What a recording has of one stream. Times are media times; ``caps`` all that it had, in order."""

    stream: Stream
    payload: str = ""
    caps: list[Caps] = field(default_factory=list)
    count: int = 0
    keyframes: int = 0
    bytes: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    first_ns: int | None = None
    last_ns: int = 0

    def add(self, item: Arrived) -> None:
        """Counts a payload."""
        self.payload = item.payload_type
        if item.caps is not None and (not self.caps or self.caps[-1] != item.caps):
            self.caps.append(item.caps)
        self.count += 1
        self.bytes += item.size_bytes
        self.keyframes += item.payload_type == "EncodedPacket" and item.head.get("keyframe", True)
        if self.first_ns is None:
            self.first_ns = item.time_ns
        self.last_ns = item.time_ns


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a recording. ``problem`` says why it could not be read to its end, if so.

    ``first_ns`` is when the first payload came, from the beginning, ``duration_ns`` when its last chunk was written.
    """

    header: Header
    streams: tuple[StreamContents, ...]
    first_ns: int
    duration_ns: int
    end: Ended | None
    problem: str

    @property
    def is_exact(self) -> bool:
        """Whether nothing is missing."""
        return self.end is not None and not any(each.lost for each in self.streams)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes whose outputs it has."""
        return tuple(dict.fromkeys(each.stream.node for each in self.streams))

    def of(self, node: str) -> tuple[StreamContents, ...]:
        """What it has of a node."""
        return tuple(each for each in self.streams if each.stream.node == node)


class Tally:
    """Counts what a recording holds while it is read or written past it."""

    def __init__(self, header: Header) -> None:
        self.first_ns: int | None = None
        self._streams = [StreamContents(stream) for stream in header.streams]
        self._index = {id(each.stream): each for each in self._streams}

    def add(self, item: Item) -> None:
        """Counts an item."""
        if isinstance(item, Arrived):
            self.first_ns = item.at_ns if self.first_ns is None else self.first_ns
            self._index[id(item.stream)].add(item)
        elif isinstance(item, Lost):
            lost = self._index[id(item.stream)].lost
            lost[item.cause] = lost.get(item.cause, 0) + item.count

    @property
    def streams(self) -> tuple[StreamContents, ...]:
        """What was counted of each stream."""
        return tuple(self._streams)


def contents(read: Callable[[int], bytes], name: str = "the file") -> Contents:
    """What is in a recording, every byte of it checked. Raises RecordingError when it is none."""
    reader = Reader(read, name)
    tally = Tally(reader.header)
    for item in reader:
        tally.add(item)
    return Contents(
        reader.header, tally.streams, tally.first_ns or 0, reader.at_ns, reader.end, reader.problem
    )  # fmt: skip


# --- comparing ------------------------------------------------------------------------------------------------------


def difference(found: Sequence[Arrived], wanted: Sequence[Arrived]) -> str:
    """What first tells two runs of payloads apart, in words; nothing when they are the same, bit for bit.

    When something came, or was captured, does not count; its media time does.
    """
    for index, (one, other) in enumerate(zip(found, wanted, strict=False)):
        if said := _apart(one, other):
            return f"number {index + 1} of {len(wanted)} differs: {said}"
    if len(found) != len(wanted):
        return f"{len(found)} came, not {len(wanted)}"
    return ""


def _apart(one: Arrived, other: Arrived) -> str:
    if one.payload_type != other.payload_type:
        return f"a {one.payload_type}, not a {other.payload_type}"
    if one.caps != other.caps:
        return f"{one.caps}, not {other.caps}"
    mine, theirs = ({k: v for k, v in each.head.items() if k not in ("at_ns", "capture_ns")} for each in (one, other))
    unsaid = {each.name: each.default for each in fields(PAYLOADS[one.payload_type])}
    for name in sorted({*mine, *theirs}):
        ours, other_has = mine.get(name, unsaid.get(name)), theirs.get(name, unsaid.get(name))
        if ours != other_has:
            return f"{name} is {ours}, not {other_has}"
    if len(one.data) != len(other.data):
        return f"{len(one.data)} bytes, not {len(other.data)}"
    if one.data != other.data:
        place = next(index for index, (a, b) in enumerate(zip(one.data, other.data, strict=True)) if a != b)
        return f"byte {place} of {len(one.data)} is {one.data[place]}, not {other.data[place]}"
    return ""
