"""Recording what flows in a graph while it runs, bit for bit, without holding anything up.

What comes is put into a bounded queue within the producer's own call, in the order in which it comes over all
outputs. Whoever writes the file takes from there as fast as they can; what finds the queue full is lost, counted, and
told at its place in the file.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import anyio
import anyio.to_thread

from flowstream.graph.diagnostics import listed
from flowstream.graph.plan import Plan
from flowstream.media.byte_form import PAYLOADS, ByteFormError, caps_to_json
from flowstream.media.packets import EncodedPacket
from flowstream.media.recording import MOST_STREAMS, Header, Stream, Writer
from flowstream.media.signals import KeyframeRequest
from flowstream.node.quantities import format_bytes
from flowstream.proto.overflow import Limit, Offered, OverflowQueue
from flowstream.runtime.channel import Feed
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Applied, Event, NodeRestarted
from flowstream.runtime.tap import LOOK_SECONDS, Spot, Tap, TapError, find_all
from flowstream.runtime.wakeup import Turns, Wakeup

if TYPE_CHECKING:
    from typing_extensions import Buffer

R = TypeVar("R")

QUEUE = Limit(items=2048, bytes=256 * 1024 * 1024)
"""How much may wait to be written."""

BEAT_SECONDS = 1.0
"""How often it is told that nothing came."""

LARGE_BYTES = 64 * 1024
"""From what size on a payload is brought into its form in a worker thread."""

TOO_SLOW = "the file was not written fast enough"
UNSEEN = "its producer was replaced"


@dataclass(slots=True)
class _Entry:
    """Something that waits to be written: a payload, or how many are missing here because of what."""

    stream: int
    now_ns: int
    payload: Any = None
    missing: int = 0
    cause: str = ""


class _Queue:
    """What waits to be written, of all streams in the order in which it came."""

    def __init__(self, limit: Limit) -> None:
        self.wakeup: Wakeup = Wakeup(Turns())
        self.lost: Counter[int] = Counter()
        self._limit = limit
        self._entries: deque[_Entry] = deque()
        self._bytes = 0
        self._payloads = 0
        self._gaps: dict[int, _Entry] = {}  # those of each stream after which nothing of it was taken

    def put(self, stream: int, now_ns: int, payload: Any) -> bool:
        """Takes a payload unless it is full; whether it did."""
        if not self.has_room(payload):
            self.lose(stream, now_ns, 1, TOO_SLOW)
            return False
        self._gaps.pop(stream, None)
        self._payloads += 1
        self._bytes += payload.size_bytes
        self._append(_Entry(stream, now_ns, payload))
        return True

    def has_room(self, payload: Any) -> bool:
        """Whether a payload may wait here; one that is alone always may."""
        if not self._payloads:
            return True
        most = self._limit.bytes
        return self._payloads < self._limit.items and (most is None or self._bytes + payload.size_bytes <= most)

    def lose(self, stream: int, now_ns: int, count: int, cause: str) -> None:
        """Notes that so many of a stream are missing here."""
        self.lost[stream] += count
        gap = self._gaps.get(stream)
        if gap is not None and gap.cause == cause:
            gap.missing += count
            return
        self._gaps[stream] = gap = _Entry(stream, now_ns, missing=count, cause=cause)
        self._append(gap)

    def _append(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self.wakeup.set()

    def take(self) -> _Entry | None:
        """What waits longest; None when nothing does."""
        if not self._entries:
            return None
        entry = self._entries.popleft()
        if entry.payload is not None:
            self._payloads -= 1
            self._bytes -= entry.payload.size_bytes
        elif self._gaps.get(entry.stream) is entry:
            del self._gaps[entry.stream]
        return entry


class _Entrance(OverflowQueue[Any]):
    """Where an output puts what it gives: nothing stays here, and nobody ever waits."""

    __slots__ = ("_stream",)

    def __init__(self, stream: _Stream) -> None:
        super().__init__("drop-newest", Limit(items=1))
        self._stream = stream

    def offer(self, item: Any) -> int:
        self.received += 1
        self.delivered += 1
        self._stream.came(item)
        return Offered.TAKEN


class _Stream(Tap):
    """One output that is recorded."""

    def __init__(self, engine: Engine, spot: Spot, index: int, queue: _Queue, *, asks: bool) -> None:
        self._begin(engine, spot)
        self.index: int = index
        self.is_over: bool = False
        self._queue = queue
        self._asks = asks
        self._needs_keyframe = asks
        self._has_asked = False

    def follow(self) -> None:
        """Sees to it that whoever gives now is recorded; what it gave before that was missed."""
        if self.is_over:
            return
        before = self._unseen
        try:
            if not self._follow() and self._channel.ended:
                self.is_over = True
        except TapError:
            self.is_over = True
            return
        newest = self._channel.feeds[-1]
        if not isinstance(newest.queue, _Entrance):
            newest.queue = _Entrance(self)
        if self._unseen > before:
            self._queue.lose(self.index, self._engine.clock.now_ns(), self._unseen - before, UNSEEN)

    def request_keyframe(self) -> None:
        """Asks the producer for a picture that can be decoded on its own, if that is wanted."""
        if self._asks:
            self._channel.request(KeyframeRequest(f"{self.edge.name} is recorded"))

    def _leave(self, feeds: Iterable[Feed]) -> None:
        """What the one before still gives is recorded too, until it ends."""

    def came(self, payload: Any) -> None:
        """Takes what the output gives; coded pictures from a keyframe on, unless they are wanted as they come."""
        now_ns = self._engine.clock.now_ns()
        if self._asks and isinstance(payload, EncodedPacket) and payload.is_video:
            if self._needs_keyframe and not payload.keyframe:
                self._passed_by(payload, now_ns)
                return
            self._needs_keyframe = self._has_asked = False
        if not self._queue.put(self.index, now_ns, payload):
            self._needs_keyframe = self._asks

    def _passed_by(self, payload: EncodedPacket, now_ns: int) -> None:
        """A packet that builds on one that is not in the file: asks for a keyframe, once there is room for it."""
        if self._queue.lost[self.index]:
            self._queue.lose(self.index, now_ns, 1, TOO_SLOW)
        if not self._has_asked and self._queue.has_room(payload):
            self._has_asked = True
            self.request_keyframe()


class Recorder:
    """Records outputs of a running graph. A context manager, on the engine's loop; ``pieces`` gives the file.

    ``names`` are outputs (``camera.video``), edges (``out.video``: what its producer puts on it), or nodes: everything
    that one gives, or takes if it gives nothing. Coded pictures begin at a keyframe, for which the encoder is asked;
    with ``as_is`` they are recorded as they come, and nobody is asked for anything. ``files`` are those of the graph,
    path to text. Raises TapError, with the names that there are, when there is nothing of such a name.
    """

    def __init__(
        self,
        engine: Engine,
        names: Sequence[str],
        *,
        files: Mapping[str, str] | None = None,
        as_is: bool = False,
        queue: Limit = QUEUE,
    ) -> None:
        spots: dict[tuple[str, str], Spot] = {}
        for name in names:
            for spot in find_all(engine, name):
                spots.setdefault((spot.edge.producer, spot.edge.output), spot)
        if not spots:
            raise TapError("nothing to record was named", hint="name an output like camera.video, an edge, or a node")
        if len(spots) > MOST_STREAMS:
            raise TapError(f"a recording has at most {MOST_STREAMS} outputs, and {len(spots)} were named")
        assert engine.plan is not None
        self.header: Header = _header(engine, engine.plan, list(spots.values()), files or {})
        self._engine: Engine = engine
        self._queue: _Queue = _Queue(queue)
        self._streams: list[_Stream] = [
            _Stream(engine, spot, index, self._queue, asks=not as_is) for index, spot in enumerate(spots.values())
        ]
        self._began_ns: int = 0
        self._idle: anyio.Event = anyio.Event()
        self._is_written: bool = False
        self._unlisten: Callable[[], None] = lambda: None

    def __enter__(self) -> Recorder:
        self._began_ns = self._engine.clock.now_ns()
        self._unlisten = self._engine.listen(self._heard)
        for stream in self._streams:
            stream.follow()
            stream.request_keyframe()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unlisten()
        for stream in self._streams:
            stream.__exit__(kind, error, trace)

    @property
    def lost(self) -> int:
        """How many payloads are missing so far."""
        return self._queue.lost.total()

    def _heard(self, event: Event) -> None:
        """Another instance gives from now on; it has given nothing yet."""
        if isinstance(event, Applied | NodeRestarted):
            for stream in self._streams:
                stream.follow()

    async def pieces(
        self, *, seconds: float | None = None, max_bytes: int | None = None
    ) -> AsyncGenerator[list[Buffer], None]:  # fmt: skip
        """The file, in pieces to be written one after the other, as it comes about.

        It is ended after ``seconds``, before it has more than ``max_bytes``, or when nothing comes any more.
        """
        try:
            async with aclosing(self._pieces(seconds, max_bytes)) as made:
                async for pieces in made:
                    yield pieces
        finally:
            self._is_written = True
            self._idle.set()

    async def _pieces(self, seconds: float | None, max_bytes: int | None) -> AsyncGenerator[list[Buffer], None]:
        clock, writer = self._engine.clock, Writer(self.header, self._began_ns)
        until_ns = None if seconds is None else self._began_ns + round(seconds * 1e9)
        pieces = writer.begin()
        size = _size(pieces)
        yield pieces
        beat_ns = clock.now_ns()
        while True:
            entry, now_ns = self._queue.take(), clock.now_ns()
            if until_ns is not None and (now_ns if entry is None else entry.now_ns) >= until_ns:
                yield writer.end(f"{seconds:g} s were asked for", until_ns)
                return
            if entry is None:
                self._idle.set()
                for stream in self._streams:
                    stream.follow()
                if all(stream.is_over for stream in self._streams):
                    yield writer.end(f"{listed(_producers(self.header))} ended", now_ns)
                    return
                wait_ns = round(LOOK_SECONDS * 1e9) if until_ns is None else until_ns - now_ns
                with anyio.move_on_after(min(LOOK_SECONDS, wait_ns / 1e9)):
                    await self._queue.wakeup
                if clock.now_ns() - beat_ns >= BEAT_SECONDS * 1e9:
                    beat_ns = clock.now_ns()
                    yield writer.tick(beat_ns)
                continue
            pieces = await self._formed(writer, entry)
            size += _size(pieces)
            if max_bytes is not None and size > max_bytes:
                yield writer.end(f"it has the {format_bytes(max_bytes)} that it may have", entry.now_ns)
                return
            beat_ns = now_ns
            yield pieces

    async def write(
        self, file: BinaryIO, *, seconds: float | None = None, max_bytes: int | None = None
    ) -> None:  # fmt: skip
        """Writes ``pieces`` into an open file, in worker threads. Raises OSError."""
        async with aclosing(self.pieces(seconds=seconds, max_bytes=max_bytes)) as made:
            async for pieces in made:
                await self._in_thread(file.writelines, pieces)

    async def settled(self) -> None:
        """Waits until all that has come so far has been taken from ``pieces``, or these have ended."""
        if not self._is_written:
            self._idle = anyio.Event()
            self._queue.wakeup.set()
            await self._idle.wait()

    async def _in_thread(self, call: Callable[..., R], *arguments: Any) -> R:
        self._engine.clock.hold()
        try:
            return await anyio.to_thread.run_sync(call, *arguments)
        finally:
            self._engine.clock.release()

    async def _formed(self, writer: Writer, entry: _Entry) -> list[Buffer]:
        if entry.payload is None:
            return writer.lost(entry.stream, entry.missing, entry.cause, entry.now_ns)
        try:
            if entry.payload.size_bytes < LARGE_BYTES:
                return writer.payload(entry.stream, entry.payload, entry.now_ns)
            return await self._in_thread(writer.payload, entry.stream, entry.payload, entry.now_ns)
        except ByteFormError as error:
            self._queue.lost[entry.stream] += 1
            return writer.lost(entry.stream, 1, str(error), entry.now_ns)


def _size(pieces: Iterable[Buffer]) -> int:
    return sum(memoryview(piece).nbytes for piece in pieces)


def _producers(header: Header) -> list[str]:
    return list(dict.fromkeys(stream.node for stream in header.streams))


def _header(engine: Engine, plan: Plan, spots: Sequence[Spot], files: Mapping[str, str]) -> Header:
    from flowstream import __version__

    began = datetime.fromtimestamp(engine.clock.wallclock_ns() / 1e9, UTC)
    return Header(
        graph=plan.name,
        revision=plan.revision,
        files=files,
        began=f"{began:%Y-%m-%dT%H:%M:%S.%f}Z",
        software=f"flowstream {__version__}",
        streams=tuple(_described(plan, spot) for spot in spots),
    )


def _described(plan: Plan, spot: Spot) -> Stream:
    edge = spot.edge
    node = plan.nodes[edge.producer]
    port = node.node_type.outputs[edge.output]
    carried = next(
        (each.carried for each in plan.outputs_of(edge.producer) if each.output == edge.output and each.carried), None
    )
    return Stream(
        name=edge.name,
        node=edge.producer,
        output=edge.output,
        type=node.type_id,
        payloads=tuple(name for name, kind in PAYLOADS.items() if issubclass(kind, port.payloads)),
        live=node.node_type.live_with(node.config),
        main=port.main,
        declared=caps_to_json(carried.caps) if carried is not None and carried.caps is not None else None,
    )
