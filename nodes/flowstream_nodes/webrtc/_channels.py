"""What goes to viewers and comes from them beside media: how it stands with them, their choice, and records."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import TypeAdapter

from flowstream import Record
from flowstream.proto import viewer_channel as wire
from flowstream.proto.overflow import Limit, OverflowQueue
from flowstream.proto.viewer_channel import Captured, Choose, MessageRefused, Patience, Ping, Standing
from flowstream_nodes.webrtc._rate import RateMeter
from flowstream_nodes.webrtc._seats import Seated

if TYPE_CHECKING:
    from aiortc.rtcdatachannel import RTCDataChannel

    from flowstream_nodes.webrtc._association import Association
    from flowstream_nodes.webrtc._session import ViewerSession

STATS_NS: Final = 1_000_000_000
"""How often a viewer is told how it stands."""

FIRST_STATS_NS: Final = 250_000_000
"""And how soon it is told for the first time."""

QUALITY_NS: Final = 5_000_000_000
"""How often it is told the rates of the rungs, which change all the time."""

LONGEST_RECORD: Final = 16 * 1024
"""Bytes of the longest record that is sent, as JSON."""

MOST_WAITING: Final = 256
"""Records that wait for one viewer."""

HANDED_OVER: Final = 16 * 1024
"""Bytes that may be on their way into a channel: enough to keep it busy, and little to wait behind."""

MOST_NODES: Final = 1000

RECORD_OVERHEAD: Final = 90
"""Bytes around a record: SCTP, DTLS, UDP and IP."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How records go out: all in order, or each once; ``backlog`` bytes may wait for one viewer."""

    how: Literal["ordered", "lossy"]
    backlog: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A record on its way to a viewer."""

    text: str
    time_ns: int

    @property
    def size_bytes(self) -> int:
        """As it is sent; all of it is ASCII."""
        return len(self.text)


@dataclass(frozen=True, slots=True)
class Around:
    """What a viewer's channels ask of all the others' keeper.

    ``delivery`` says how records go out, None while there are none to come. ``choose`` raises LookupError for a rung
    that there is not; ``quality`` is what a viewer is told of its rung.
    """

    now_ns: Callable[[], int]
    wallclock_ns: Callable[[], int]
    delivery: Callable[[], Delivery | None]
    choose: Callable[[ViewerSession, str], None]
    quality: Callable[[ViewerSession], Mapping[str, object]]


class ViewerChannels:
    """The channels of one viewer: ``flowstream``, which it opens, and ``flowstream-data``, which it is given."""

    def __init__(self, session: ViewerSession, seated: Seated, association: Association, around: Around) -> None:
        self.patience = Patience()
        self._session = session
        self._seated = seated
        self._association = association
        self._around = around
        self._control: RTCDataChannel | None = None
        self._records: RTCDataChannel | None = None
        self._delivery: Delivery | None = None
        self._queue: OverflowQueue[Waiting] = OverflowQueue("drop-oldest", Limit(MOST_WAITING))
        self._next_stats_ns = 0
        self._sent_bytes = 0
        self._stats_ns = 0
        self._told: Mapping[str, object] | None = None
        self._next_quality_ns = 0
        association.on_channel = self._opened

    @property
    def dropped_records(self) -> int:
        """Records that this viewer did not get because it took them too slowly."""
        return self._queue.drops.total() - self._queue.drops["withheld"]

    def tick(self, delivery: Delivery | None, *, now_ns: int) -> None:
        """What is due by the clock; ``delivery`` is how records go out now."""
        if not self._association.is_up:
            return
        if delivery != self._delivery:
            self._follow(delivery)
        self._flush()
        if now_ns < self._next_stats_ns or self._control is None or not self._seated.seat.is_admitted:
            return
        self._next_stats_ns = now_ns + STATS_NS
        self._say(wire.stats(self._standing(now_ns)))
        told = self._around.quality(self._session)
        is_news = self._told is None or _gist(told) != _gist(self._told)
        if is_news or (now_ns >= self._next_quality_ns and told != self._told):
            self._say_quality(told)

    def send(self, waiting: Waiting) -> None:
        """One more record, if the viewer may have it."""
        if self._records is None or not self._seated.may_have_records:
            return
        self._queue.offer(waiting)
        self._flush()

    # --- flowstream ---------------------------------------------------------------------------------------------------

    def _opened(self, channel: RTCDataChannel) -> None:
        if channel.label != wire.LABEL or self._control is not None or self.patience.is_over:
            self.patience.refuse()
            channel.close()
            return
        self._control = channel
        channel.on("message", self._heard)
        channel.on("close", self._closed)
        self._next_stats_ns = self._around.now_ns() + FIRST_STATS_NS
        self._stats_ns, self._sent_bytes = self._around.now_ns(), self._session.sent_bytes
        self._say(wire.hello(interval_ms=STATS_NS // 1_000_000))

    def _closed(self) -> None:
        self._control = None

    def _heard(self, text: str | bytes) -> None:
        received_ns = self._around.wallclock_ns()
        if self._control is None or not self.patience.listens(now_ns=self._around.now_ns()):
            self._part_if_over()
            return
        try:
            said = wire.parse_message(text)
        except MessageRefused as error:
            self.patience.refuse()
            self._say(wire.refusal(f"{error}", error.id))
            self._part_if_over()
            return
        match said:
            case Ping(id):
                self._say(wire.pong(id, received_ns=received_ns, sent_ns=self._around.wallclock_ns()))
            case Choose(wanted, id):
                try:
                    self._around.choose(self._session, wanted)
                except LookupError as error:
                    self._say(wire.refusal(f"{error.args[0]}", id))
                else:
                    self._say_quality(self._around.quality(self._session), id)

    def _say_quality(self, told: Mapping[str, object], id: int | None = None) -> None:
        self._say(wire.quality(told, id))
        self._told = told
        self._next_quality_ns = self._around.now_ns() + QUALITY_NS

    def _part_if_over(self) -> None:
        control = self._control
        if control is not None and self.patience.is_over:
            self._say(wire.refusal("too many messages that make no sense, or too many at a time"))
            self._control = None
            control.close()

    def _say(self, text: str) -> None:
        control = self._control
        # Whoever does not take it will hear of the next second.
        if control is not None and control.readyState == "open" and control.bufferedAmount < HANDED_OVER:
            control.send(text)

    def _standing(self, now_ns: int) -> Standing:
        session, link = self._session, self._seated.stats()
        estimate = session.sender.estimate()
        sent_bytes = session.sent_bytes
        span_ns = max(1, now_ns - self._stats_ns)
        bitrate_bps = (sent_bytes - self._sent_bytes) * 8_000_000_000 // span_ns
        self._sent_bytes, self._stats_ns = sent_bytes, now_ns
        captured = session.captured
        return Standing(
            bitrate_bps=bitrate_bps,
            estimate_bps=None if estimate is None else estimate.bandwidth_bps,
            rung=link.rung,
            loss=link.loss,
            rtt_ms=link.rtt_ms,
            frames_dropped=session.sender.dropped_pictures,
            records_dropped=self.dropped_records,
            captured=None if captured is None else Captured(*captured),
        )

    # --- flowstream-data ----------------------------------------------------------------------------------------------

    def _follow(self, delivery: Delivery | None) -> None:
        was, self._delivery = self._delivery, delivery
        if delivery is not None:
            self._queue.change("drop-oldest", Limit(MOST_WAITING, bytes=delivery.backlog))
            if was is not None and was.how == delivery.how:
                return
        if self._records is not None:
            self._records.close()
            self._records = None
        if delivery is not None:
            self._records = self._association.open(wire.DATA_LABEL, is_ordered=delivery.how == "ordered")
            self._records.on("open", self._flush)
            self._records.bufferedAmountLowThreshold = HANDED_OVER // 2
            self._records.on("bufferedamountlow", self._flush)

    def _flush(self) -> None:
        """Hands over what the channel has room for; nothing of what waited while the viewer may not have it."""
        if not self._seated.may_have_records:
            self._queue.flush("withheld")
        channel = self._records
        if channel is None or channel.readyState != "open":
            return
        longest = self._association.longest_message
        while channel.bufferedAmount < HANDED_OVER and (waiting := self._queue.poll()) is not None:
            if longest is not None and waiting.size_bytes > longest:
                self._queue.drops["too-long"] += 1
            else:
                channel.send(waiting.text)


class Channels:
    """The channels of everybody who watches one output, and what goes to all of them."""

    def __init__(self, around: Around, log: logging.LoggerAdapter[logging.Logger]) -> None:
        self._around = around
        self._log = log
        self._viewers: dict[str, ViewerChannels] = {}
        self._gone: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._adapters: dict[type[Any], TypeAdapter[Any]] = {}
        self._unwritable: set[str] = set()
        self._meter = RateMeter()

    @property
    def dropped_records(self) -> int:
        """Records that viewers did not get because they took them too slowly, or that have no form in JSON."""
        return self._gone["dropped"] + sum(each.dropped_records for each in self._viewers.values())

    @property
    def refused_messages(self) -> int:
        """Messages of viewers that made no sense, or were too many."""
        return self._gone["refused"] + sum(each.patience.refused for each in self._viewers.values())

    def bps_at(self, now_ns: int) -> int:
        """What records take of a viewer's link, in bits per second."""
        return self._meter.bps_at(now_ns)

    def attend(self, session: ViewerSession, seated: Seated) -> None:
        """A viewer comes."""
        if session.association is not None:
            self._viewers[session.id] = ViewerChannels(session, seated, session.association, self._around)

    def forget(self, session_id: str) -> None:
        """A viewer has gone; what was counted of it stays."""
        gone = self._viewers.pop(session_id, None)
        if gone is not None:
            self._gone["dropped"] += gone.dropped_records
            self._gone["refused"] += gone.patience.refused

    def tick(self, *, now_ns: int) -> None:
        """What is due by the clock."""
        if not self._viewers:
            return
        delivery = self._around.delivery()
        for each in self._viewers.values():
            each.tick(delivery, now_ns=now_ns)

    def send(self, record: Record[Any], node: str, *, at_ns: int, captured_ns: int | None) -> None:
        """A record of a node, to everybody who may have it: ``at_ns`` is its media time in UTC."""
        number = self._counts[node]
        if len(self._counts) > MOST_NODES:  # of long ago: nobody remembers their numbers
            self._counts.clear()
        self._counts[node] = number + 1
        if not self._viewers:
            return
        text = self._written(record, node, number, at_ns, captured_ns)
        if text is None:
            self._gone["dropped"] += 1
            return
        self._meter.add(len(text) + RECORD_OVERHEAD, now_ns=self._around.now_ns())
        waiting = Waiting(text, record.time_ns)
        for each in self._viewers.values():
            each.send(waiting)

    def _written(self, record: Record[Any], node: str, number: int, at_ns: int, captured_ns: int | None) -> str | None:
        kind = type(record.value)
        try:
            adapter = self._adapters.get(kind)
            if adapter is None:
                if len(self._adapters) >= MOST_WAITING:
                    self._adapters.clear()
                adapter = self._adapters[kind] = TypeAdapter(kind)
            value = adapter.dump_python(record.value, mode="json")
            text = wire.record(node, kind.__name__, number, value, at_ns=at_ns, captured_ns=captured_ns)
        except Exception as error:  # noqa: BLE001
            # Whatever a node gives, its value's own class says what that is as JSON.
            self._warn(f"{node} {kind.__name__}", f"a {kind.__name__} of {node} has no form in JSON: {error}")
            return None
        if len(text) > LONGEST_RECORD:
            self._warn(node, f"a record of {node} has {len(text)} bytes as JSON; {LONGEST_RECORD} are the most")
            return None
        return text

    def _warn(self, what: str, text: str) -> None:
        """Once for each."""
        if what not in self._unwritable and len(self._unwritable) < MOST_NODES:
            self._unwritable.add(what)
            self._log.warning("viewers do not get it: %s", " ".join(text.split())[:300])


def _gist(told: Mapping[str, object]) -> tuple[object, ...]:
    """What is worth being said again; rates change all the time."""
    rungs = told["rungs"]
    assert isinstance(rungs, list)
    return (told["chosen"], told["rung"], told["why"], tuple((each["name"], each["size"]) for each in rungs))
