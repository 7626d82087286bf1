"""What a browser does with one picture stream, as a machine without I/O: it assembles, asks again, tells, and shows.

After libwebrtc: a gap is asked for at once and again every 100 ms, ten times at most (NackRequester); a picture appears
as soon as it is complete and the one before it has been shown, as with a playout delay of 0 to 400 ms; a complete
keyframe goes before all that is missing (FrameBuffer); a keyframe is asked for after 200 ms without the first one,
after 3 s without any picture, and when 1,000 packets are missing (VideoReceiveStream2); feedback goes every 50 ms, a
report every second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from flowstream.proto.congestion.arrivals import Arrivals
from flowstream.proto.rtcp import (
    Nack,
    PictureLossIndication,
    ReceiverReport,
    ReportBlock,
    RtcpPacket,
    SenderReport,
)
from flowstream.proto.rtp import RtpPacket, Unwrapper

MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000

NACK_EVERY_NS: Final = 100 * MS
NACK_LIMIT: Final = 10
MOST_MISSING: Final = 1_000
FIRST_KEYFRAME_NS: Final = 200 * MS
NEXT_PICTURE_NS: Final = 3 * NS_PER_S
FEEDBACK_NS: Final = 50 * MS
REPORT_NS: Final = NS_PER_S

FREEZE_NS: Final = 200 * MS
"""A picture that stands for longer than this is seen to stand still: six times what it should at 30 a second."""

NAMED: Final = re.compile(rb"<(\d+) (\d)>")
"""What a picture of these tests carries: its number, and its rung."""

MEDIA, RTX, SOUND = 96, 97, 111
NUMBERS: Final = 6  # the header extension with the transport-wide number
SSRC: Final = 1


def name_picture(number: int, rung: int) -> bytes:
    """What stands at the beginning of a picture's data."""
    return b"<%d %d>" % (number, rung)


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture on screen: its number, its rung, and when it appeared."""

    number: int
    rung: int
    at_ns: int
    is_keyframe: bool


@dataclass(slots=True)
class _Missing:
    asked_ns: int
    times: int = 1


@dataclass(slots=True)
class _Run:
    """A stretch of pictures that can be decoded one after the other: complete up to ``end``."""

    begin: int
    end: int


@dataclass(slots=True)
class Receiver:
    """Takes RTP packets (unprotected) and gives RTCP packets; ``shown`` is what the viewer saw."""

    media_ssrc: int
    shown: list[Shown] = field(default_factory=list)
    sound_ns: list[int] = field(default_factory=list)
    """When packets of sound came."""
    asked_again: int = 0
    keyframes_asked: int = 0
    received: int = 0
    repeated: int = 0
    """Packets of the picture that came although they were there."""

    _arrivals: Arrivals = field(default_factory=lambda: Arrivals(ssrc=SSRC))
    _numbers: Unwrapper = field(default_factory=lambda: Unwrapper(16))
    _packets: dict[int, RtpPacket] = field(default_factory=dict)
    _first: int | None = None
    _newest: int = -1
    _missing: dict[int, _Missing] = field(default_factory=dict)
    _run: _Run | None = None
    _keys: dict[int, _Run] = field(default_factory=dict)  # keyframes that begin beyond a gap
    _out: list[RtcpPacket] = field(default_factory=list)
    _moved_ns: int | None = None  # when a picture last appeared, or a keyframe was last asked for
    _came_ns: int = 0
    _next_feedback_ns: int = 0
    _next_report_ns: int = 0
    _heard: tuple[int, int] | None = None  # the last sender report: middle of its time, when it came
    _told: tuple[int, int] = (0, 0)  # expected and received at the last report

    def take(self, packet: RtpPacket, now_ns: int) -> None:
        """A packet that came in, of any stream."""
        number = dict(packet.extensions).get(NUMBERS)
        if number is not None:
            self._arrivals.add(int.from_bytes(number, "big"), now_ns=now_ns)
        if packet.payload_type == SOUND:
            self.sound_ns.append(now_ns)
        elif packet.payload_type == MEDIA:
            self.received += 1
            self._insert(self._numbers.unwrap(packet.sequence_number), packet, now_ns)
        elif len(packet.payload) > 2:  # less is a packet of padding alone
            original, payload = int.from_bytes(packet.payload[:2], "big"), packet.payload[2:]
            inside = RtpPacket(MEDIA, original, packet.timestamp, self.media_ssrc, payload, packet.marker)
            self._insert(self._numbers.unwrap(original), inside, now_ns)

    def hear(self, report: SenderReport, now_ns: int) -> None:
        """A sender report of the picture."""
        if report.ssrc == self.media_ssrc:
            self._heard = ((report.ntp_time >> 16) & 0xFFFFFFFF, now_ns)

    def poll(self, now_ns: int) -> Iterator[tuple[RtcpPacket, ...]]:
        """What is to be sent now, each as a packet of its own."""
        again: list[int] = []
        for number, missing in list(self._missing.items()):
            if now_ns - missing.asked_ns >= NACK_EVERY_NS:
                if missing.times >= NACK_LIMIT:
                    del self._missing[number]
                    continue
                missing.asked_ns, missing.times = now_ns, missing.times + 1
                again.append(number)
        if again:
            self._nack(again)
        if self._moved_ns is not None:
            patience_ns = NEXT_PICTURE_NS if self.shown else FIRST_KEYFRAME_NS
            if now_ns - self._moved_ns >= patience_ns and now_ns - self._came_ns < NEXT_PICTURE_NS:
                self._ask_keyframe(now_ns)
        while self._out:
            yield (self._out.pop(0),)
        if now_ns >= self._next_feedback_ns:
            self._next_feedback_ns = now_ns + FEEDBACK_NS
            while (feedback := self._arrivals.take(media_ssrc=self.media_ssrc)) is not None:
                yield (feedback,)
        if now_ns >= self._next_report_ns and self._first is not None:
            self._next_report_ns = now_ns + REPORT_NS
            yield (ReceiverReport(SSRC, (self._block(now_ns),)),)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _insert(self, number: int, packet: RtpPacket, now_ns: int) -> None:
        if number in self._packets or (self._run is not None and number < self._run.begin):
            self.repeated += 1
            return
        self._came_ns = now_ns
        if self._first is None:
            self._first, self._newest, self._moved_ns = number, number - 1, now_ns
        self._packets[number] = packet
        self._missing.pop(number, None)
        new = [each for each in range(self._newest + 1, number) if each not in self._packets]
        if new:
            self._missing.update((each, _Missing(now_ns)) for each in new)
            self._nack(new)
        self._newest = max(self._newest, number)
        if len(self._missing) > MOST_MISSING:
            self._missing.clear()
            self._ask_keyframe(now_ns)
        if _begins_keyframe(packet.payload):
            self._keys[number] = _Run(number, number)
        self._show(now_ns)

    def _show(self, now_ns: int) -> None:
        """Shows what is complete now: in order, else from the newest complete keyframe on."""
        if self._run is not None and self._go_on(self._run, now_ns):
            return
        for begin in sorted(self._keys, reverse=True):
            run = self._keys[begin]
            if self._run is not None and begin < self._run.begin:
                del self._keys[begin]
            elif self._go_on(run, now_ns):
                self._run = run
                return

    def _go_on(self, run: _Run, now_ns: int) -> bool:
        """Shows the pictures of a run that are complete; whether there was one."""
        has_shown = False
        while (packet := self._packets.get(run.end)) is not None:
            run.end += 1
            if not packet.marker:
                continue
            numbers = range(run.begin, run.end)
            data = b"".join(self._packets[each].payload for each in numbers)
            found = NAMED.search(data)
            assert found is not None, "each picture of these tests says which it is"
            is_keyframe = _begins_keyframe(self._packets[run.begin].payload)
            self.shown.append(Shown(int(found[1]), int(found[2]), now_ns, is_keyframe))
            self._moved_ns = now_ns
            self._forget(run.end)
            self._keys.pop(run.begin, None)
            run.begin = run.end
            has_shown = True
        return has_shown

    def _forget(self, end: int) -> None:
        for each in [number for number in self._packets if number < end]:
            del self._packets[each]
        for each in [number for number in self._missing if number < end]:
            del self._missing[each]

    def _nack(self, numbers: list[int]) -> None:
        self.asked_again += len(numbers)
        self._out.append(Nack(SSRC, self.media_ssrc, tuple(number & 0xFFFF for number in numbers)))

    def _ask_keyframe(self, now_ns: int) -> None:
        self.keyframes_asked += 1
        self._moved_ns = now_ns
        self._out.append(PictureLossIndication(SSRC, self.media_ssrc))

    def _block(self, now_ns: int) -> ReportBlock:
        assert self._first is not None
        expected, (expected_before, received_before) = self._newest + 1 - self._first, self._told
        self._told = (expected, self.received)
        new, came = expected - expected_before, self.received - received_before
        lost = max(0, min(255, (new - came) * 256 // new)) if new else 0
        middle, heard_ns = self._heard or (0, now_ns)
        return ReportBlock(
            self.media_ssrc,
            lost,
            max(0, expected - self.received),
            self._newest & 0xFFFFFFFF,
            0,
            middle,
            (now_ns - heard_ns) * 65536 // NS_PER_S if middle else 0,
        )


def _begins_keyframe(payload: bytes) -> bool:
    """Whether an H.264 payload begins with a parameter set, alone or in an aggregate (RFC 6184 section 5.4)."""
    return payload[0] & 31 == 7 or (payload[0] & 31 == 24 and payload[3] & 31 == 7)


def freezes_ns(shown: list[Shown], *, since_ns: int, until_ns: int) -> list[int]:
    """How long the picture stood still, each time that it was seen to."""
    times = [since_ns, *(each.at_ns for each in shown if since_ns <= each.at_ns < until_ns), until_ns]
    return [later - earlier for earlier, later in pairwise(times) if later - earlier > FREEZE_NS]
