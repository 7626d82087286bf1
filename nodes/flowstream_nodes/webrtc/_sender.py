"""What goes to one viewer: paced by what its link carries, numbered when it leaves, protected and sent in bursts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flowstream.proto.congestion.estimator import BandwidthEstimator, Estimate
from flowstream.proto.congestion.pacer import Dropped, Pacer, Padding, Urgency
from flowstream.proto.ice import Pair
from flowstream.proto.retransmit import RTX_HEADER, SentPacket
from flowstream.proto.rtcp import ReceiverEstimate, TransportFeedback
from flowstream.proto.sdp import Kind
from flowstream_nodes.webrtc._layout import AccessUnit
from flowstream_nodes.webrtc._protection import MOST, Protection, ProtectionError
from flowstream_nodes.webrtc._stream import PADDING, Line, RtpStream
from flowstream_nodes.webrtc._unison import Voice
from flowstream_nodes.webrtc._wakeups import Wakeups

if TYPE_CHECKING:
    from flowstream_nodes.webrtc._layout import Layout
    from flowstream_nodes.webrtc._mux import UdpMux
    from flowstream_nodes.webrtc._outbox import Outbox
    from flowstream_nodes.webrtc._unison import Owed, Unison, Viewer

START_BPS: Final = 600_000
"""What a link is taken to carry before anything is known of it, at least; a stream of a higher rate is begun with
that, up to `MOST_START_BPS`."""

MOST_START_BPS: Final = 3_000_000

OPENING: Final = 48_000
"""Bytes with which a viewer's picture is begun at once: a keyframe of 720p and a few pictures after it."""

OF_START: Final = 1.25
"""Times the least that can be sent is what a link is begun with, when that turns out to be more."""

OF_USE: Final = 5.0
"""Times the rate of what can be sent: a link that carries so much needs no closer look, and pictures leave at once."""

LEAST_OF_USE_BPS: Final = 5_000_000

ENOUGH: Final = 2.5
"""Times the rate of what can be sent: whether a link that carries so much carries more yet is looked at seldom, since
that is done by sending more than there is to be seen."""

LEAST_ENOUGH_BPS: Final = 2_500_000

WAVERS: Final = 0.2
"""A stream's rate is not the same all the time; it has to change by more than this share before a link that carries
more than enough is looked at again."""

PROMPT: Final = 8 * 20
"""Bits of a byte, and the share of a second in which the link takes what waits to be sent while it carries more than
enough."""

DEAD_NS: Final = 1_000_000_000
"""After so long without feedback pictures are no longer sent: they would only keep the keyframe waiting that must come
when the viewer is back."""

ALIVE_NS: Final = 200_000_000
"""So often something small is sent meanwhile, to which the viewer can answer."""

SETTLES_NS: Final = 500_000_000
"""For this and two round trips after the path has changed or is back, nothing is known of what it carries."""

_TRAILER: Final = 16  # of SRTP; the exact size counts when a packet leaves
_UDP_OVER_IPV4, _UDP_OVER_IPV6 = 28, 48


@dataclass(eq=False, slots=True)
class Waiting:
    """An access unit that waits for its turn to go to one viewer."""

    stream: RtpStream
    unit: AccessUnit
    ticks: int


@dataclass(eq=False, slots=True)
class Again:
    """Packets that are sent once more, while the stream still is in their codec."""

    stream: RtpStream
    codec: str | None
    packets: Sequence[SentPacket]


class Sender:
    """Sends the streams of one viewer. ``now_ns`` is monotonic.

    Nothing leaves before `open`. What it gives up, because the link carries less than comes, it gives up as whole
    pictures; ``on_break`` is then called as soon as there is room for the keyframe that must come next. ``on_failure``
    is called when its packets cannot be protected; it is closed then.
    """

    def __init__(
        self,
        streams: Mapping[Kind, RtpStream],
        *,
        mux: UdpMux,
        outbox: Outbox,
        wakeups: Wakeups,
        start_bps: int,
        now_ns: int,
        on_break: Callable[[], None],
        on_failure: Callable[[ProtectionError], None],
    ) -> None:
        start_bps = min(max(start_bps, START_BPS), MOST_START_BPS)
        self.estimator: BandwidthEstimator = BandwidthEstimator(
            now_ns=now_ns, start_bps=start_bps, most_bps=LEAST_OF_USE_BPS
        )
        self.pair: Pair | None = None
        self.dropped_pictures: int = 0
        self.has_feedback: bool = False
        self.is_broken: bool = False
        """Whether pictures were given up and there is no room for the keyframe yet that must come next."""
        self.may_repeat: bool = True
        """Whether what was sent before may be sent again, if only to find out what the link carries."""
        self.is_dead: bool = False
        """Whether nothing has been heard of the viewer for so long that no picture is sent."""
        self._has_reports = False
        self._begins_anew = False  # a keyframe was asked for, because the viewer cannot have what it misses
        self._anew_ns = now_ns
        self._silent_ns: int | None = None  # since when nothing is heard
        self._known_ns = 0  # when what the path carries may be known again
        self._next_alive_ns = 0
        self._now_ns = now_ns
        self._most_bps = LEAST_OF_USE_BPS
        self._pacer: Pacer[Waiting | Again] = Pacer(now_ns=now_ns, bps=start_bps, opening=OPENING)
        self._streams = streams
        self._mux = mux
        self._outbox = outbox
        self._is_leaving = False  # something of it is in the outbox
        self.unison: Unison | None = None
        """With whom it is served together; `go_alone` comes before anything else is sent, `settle` before anybody asks
        for what was."""
        self._wakeups = wakeups
        self._on_break = on_break
        self._on_failure = on_failure
        self._protection: Protection | None = None
        self._overhead = _UDP_OVER_IPV4
        self._call = self._poll

    def settle(self) -> None:
        """What has left in unison with others is put down."""
        if self.unison is not None and self.unison.owes:
            self.unison.put_down()

    def go_alone(self) -> None:
        """The same; it is looked after by itself from now on."""
        if self.unison is not None:
            self.unison.part_with(self)

    def voice(
        self, viewer: Viewer, rung: str, number: int, *, codec: str, size: int, kinds: Collection[Kind]
    ) -> Voice | None:
        """What the next packets of streams of these kinds are made of, if pictures are of about this size; None while
        it has to be looked after by itself."""
        protection, pair = self._protection, self.pair
        if protection is None or not protection.trailer or pair is None or self._is_leaving or self.is_dead:
            return None
        if not self.is_calm or not self._pacer.is_free or not self._pacer.carries(size):
            return None
        lines: list[Line] = []
        for kind in kinds:
            line = self._streams[kind].line()
            if kind == "video" and line.codec != codec:
                return None
            lines.append(line)
        return Voice(
            viewer,
            rung,
            number,
            self.estimator.packets.next_number,
            protection,
            protection.trailer,
            self._overhead,
            pair,
            self._pacer,
            tuple(lines),
        )

    def keeps_on(self, size: int) -> bool:
        """Whether a voice of it is good still; pictures are of about this size, in bytes on the wire."""
        return self.is_calm and self._pacer.is_free and self._pacer.carries(size)

    def put_down(self, owed: Owed, place: int) -> None:
        """This has left in unison with others."""
        sent, pacer = self.estimator.sent, self._pacer
        for kind, tally in owed.tallies.items():  # numbers first: none must be used twice, whatever fails
            self._streams[kind].put_down(tally.runs, packets=tally.packets, octets=tally.octets)
        for sizes, size, now_ns, left_ns in owed.departures:
            sent(sizes, now_ns=left_ns[place])
            pacer.passed(size, now_ns=now_ns)

    def tell_capture_time(self, kind: Kind) -> None:
        """The next packet of this kind says when it was captured."""
        self._streams[kind].tell_capture_time()

    def open(self, protection: Protection) -> None:
        """From now on packets leave."""
        self._protection = protection

    def close(self) -> None:
        """Nothing leaves any more."""
        self.go_alone()
        self._protection = None
        self._pacer.clear()
        self._wakeups.forget(self._call)

    def go_by(self, pair: Pair, *, now_ns: int) -> None:
        """The viewer is reached this way from now on."""
        is_other = self.pair is not None and pair != self.pair
        self.pair = pair
        if is_other:
            self.look_anew(now_ns=now_ns)
        self._overhead = _UDP_OVER_IPV6 if ":" in pair.local[0] else _UDP_OVER_IPV4

    def look_anew(self, *, now_ns: int) -> None:
        """The viewer may be reached through another network now, be it at the same address."""
        self.go_alone()
        self._pacer.is_calm = False
        was_silent = self.estimator.is_silent
        self.estimator.path_changed(now_ns=now_ns)
        self._known_ns = now_ns + SETTLES_NS + 2 * self.estimator.round_trip_ns
        if was_silent:
            self._begin_anew(now_ns)

    # --- what is to be sent -------------------------------------------------------------------------------------------

    def send(self, kind: Kind, unit: AccessUnit, *, ticks: int, now_ns: int) -> bool:
        """An access unit at a position of the timeline; whether it will be sent, as far as that can be said now."""
        self.go_alone()
        protection = self._protection
        if protection is None or (self.is_dead and kind == "video"):
            return False
        stream, count = self._streams[kind], len(unit.payloads)
        sizes, total = unit.sizes(stream.header_size + (protection.trailer or _TRAILER) + self._overhead)
        if count and not self.is_broken and self._pacer.passes(total, sizes[-1], now_ns=now_ns):
            self._send_packets(stream, unit, ticks, 0, count, 0, now_ns)
            return True
        waiting = Waiting(stream, unit, ticks)
        dropped = self._pacer.enqueue(
            waiting,
            sizes,
            Urgency.VIDEO if kind == "video" else Urgency.AUDIO,
            now_ns=now_ns,
            is_keyframe=unit.is_keyframe,
            is_droppable=unit.is_droppable,
        )
        if kind == "video" and unit.is_keyframe:
            self.is_broken = False
        if dropped:
            self._give_up(dropped)
        self._poll(now_ns)
        return not any(each.item is waiting for each in dropped)

    def resend(self, stream: RtpStream, sequence_numbers: Sequence[int], *, round_trip_ns: int, now_ns: int) -> None:
        """What the viewer misses. What it cannot have any more makes it begin anew."""
        self.go_alone()
        if self._protection is None:
            return
        if not self._begins_anew and stream.kind == "video" and stream.is_gone(sequence_numbers, now_ns=now_ns):
            self._begin_anew(now_ns)
            return
        packets = stream.take(sequence_numbers, now_ns=now_ns, round_trip_ns=round_trip_ns)
        if not packets:
            return
        extra = stream.header_size + _TRAILER + self._overhead + RTX_HEADER
        sizes = [len(packet.payload) + extra for packet in packets]
        self._give_up(
            self._pacer.enqueue(Again(stream, stream.codec, packets), sizes, Urgency.RETRANSMISSION, now_ns=now_ns)
        )
        self._poll(now_ns)

    def clear(self) -> None:
        """Forgets what waits; the next picture must be a keyframe.

        A picture that had left in part stays without an end: the next one's timestamp tells that it is over.
        """
        self.go_alone()
        self._pacer.clear()

    # --- what comes back ----------------------------------------------------------------------------------------------

    @property
    def is_calm(self) -> bool:
        """Whether the link carries more than enough, so that what the viewer tells of it can wait until others are
        looked after."""
        pacer = self._pacer
        is_prompt = pacer.waiting_bytes * PROMPT <= pacer.bps  # what waits is the rest of a burst, if anything
        return self.has_feedback and is_prompt and not self.is_broken and self.estimator.is_calm

    def handle_feedback(self, packet: TransportFeedback | ReceiverEstimate, *, now_ns: int) -> None:
        """What the viewer tells of its link; it came at ``now_ns``, maybe a while ago."""
        self.settle()
        self.has_feedback = True
        if isinstance(packet, TransportFeedback):
            was_silent = self.estimator.is_silent
            self.estimator.handle_feedback(packet, now_ns=now_ns)
            if was_silent and not self.estimator.is_silent:
                self._known_ns = now_ns + SETTLES_NS + 2 * self.estimator.round_trip_ns
                if self.is_dead or (None in packet.deltas and now_ns >= self._anew_ns + SETTLES_NS):
                    self._begin_anew(now_ns)
        else:
            self.estimator.handle_remb(packet.bitrate_bps, now_ns=now_ns)
        self._follow_target(self._wakeups.now_ns())

    def handle_report(self, *, loss: float, round_trip_ns: int | None, now_ns: int) -> None:
        """What a receiver report tells; it counts where nothing better comes, and came at ``now_ns``, maybe a while
        ago."""
        self.settle()
        self._has_reports = True
        self.estimator.handle_report(loss=loss, round_trip_ns=round_trip_ns, now_ns=now_ns)
        self._follow_target(self._wakeups.now_ns())

    def tick(self, *, stream_bps: int, least_bps: int, share_bps: int | None = None, now_ns: int) -> None:
        """What is due by the clock.

        ``stream_bps`` is the most that could be sent to this viewer now, ``least_bps`` the least, ``share_bps`` what it
        could have of an uplink that others use too: to find out whether its own link carries more would only take from
        them.
        """
        self.settle()
        if self._protection is None:
            return
        most_bps = max(LEAST_OF_USE_BPS, int(OF_USE * stream_bps))
        if abs(most_bps - self._most_bps) > WAVERS * self._most_bps:
            self._most_bps = most_bps
        self.estimator.most_bps = self._most_bps if share_bps is None else min(self._most_bps, share_bps)
        self.estimator.enough_bps = max(LEAST_ENOUGH_BPS, int(ENOUGH * stream_bps))
        self.estimator.expect(min(int(OF_START * least_bps), MOST_START_BPS))
        self._now_ns = now_ns
        probe = self.estimator.poll(now_ns=now_ns)
        self._watch_silence(now_ns)
        if probe is not None and not self.is_dead:
            self._pacer.start_probe(probe)
        self._follow_target(now_ns)

    def estimate(self) -> Estimate | None:
        """What is known of the link; None while nothing is."""
        self.settle()
        return self.estimator.estimate() if self.has_feedback else None

    @property
    def bandwidth_bps(self) -> int | None:
        """What the link is taken to carry, be it only by receiver reports.

        None while nothing has come back, while nothing does, and for a moment after the path has changed.
        """
        if not self.has_feedback and not self._has_reports:
            return None
        if self.estimator.is_silent or self._now_ns < self._known_ns:
            return None
        return self.estimator.bandwidth_bps

    # --- inside -------------------------------------------------------------------------------------------------------

    def _begin_anew(self, now_ns: int) -> None:
        """The viewer lacks what it cannot get any more: all that waits is of no use to it, but a keyframe is."""
        self.go_alone()
        self._anew_ns = now_ns
        self.is_dead, self._silent_ns = False, None
        self._begins_anew = True
        self._pacer.clear()
        for stream in self._streams.values():
            stream.forget()
        self.is_broken = False
        self._on_break()

    def _watch_silence(self, now_ns: int) -> None:
        if not self.estimator.is_silent:
            self._silent_ns = None
            return
        if self._silent_ns is None:
            self._silent_ns = now_ns
        if not self.is_dead and now_ns - self._silent_ns >= DEAD_NS:
            self.is_dead = True
            self._pacer.clear()
        stream = self._streams.get("video")
        if stream is not None and now_ns >= self._next_alive_ns:
            self._next_alive_ns = now_ns + ALIVE_NS
            if empty := stream.fill(1, number=self._next_number()):
                self._transmit(empty, 0, now_ns)

    def _follow_target(self, now_ns: int) -> None:
        self._pacer.bps, self._pacer.is_calm = self.estimator.target_bps, self.estimator.is_calm
        if self.unison is not None:
            if self.is_calm and self._pacer.is_free:
                self.unison.follow(self._pacer)
            else:
                self.go_alone()
        if not self._pacer.is_empty:
            self._poll(now_ns)

    def _poll(self, now_ns: int) -> None:
        due_ns = self._pacer.next_ns()
        if due_ns is not None and due_ns <= now_ns:
            bursts, dropped = self._pacer.poll(now_ns=now_ns)
            for burst in bursts:
                if isinstance(burst, Padding):
                    self._pad(burst, now_ns)
                    continue
                item, first, end, probe = burst
                if isinstance(item, Waiting):
                    self._send_packets(item.stream, item.unit, item.ticks, first, end, probe, now_ns)
                elif item.codec == item.stream.codec:
                    self._send_again(item.stream, item.packets[first:end], probe, now_ns)
            if dropped:
                self._give_up(dropped)
            due_ns = self._pacer.next_ns()
        if due_ns is not None:
            self._wakeups.ask(self._call, due_ns, now_ns=now_ns)
        elif self.is_broken and not self.is_dead:
            self.is_broken = False
            self._on_break()

    def _send_packets(
        self, stream: RtpStream, unit: AccessUnit, ticks: int, first: int, end: int, probe: int, now_ns: int
    ) -> None:
        """Packets ``first`` to ``end`` leave."""
        if unit.is_keyframe and not first:
            self._begins_anew = False
            stream.begin_keyframe()
        for start in range(first, end, MOST):
            stop = min(start + MOST, end)
            captured_ns = None if start else unit.captured_ns
            # Nearly always; not before it is known how long protected packets are, nor with a header that is longer
            # than the others.
            protection = self._protection
            if protection is not None and protection.trailer and stream.is_even(unit.codec, captured_ns, now_ns):
                self._send_even(protection, stream, unit, ticks, start, stop, probe, now_ns)
                continue
            packets = stream.write(
                unit.payloads[start:stop],
                codec=unit.codec,
                ticks=ticks,
                is_end=stop == len(unit.payloads),
                number=self._next_number(),
                now_ns=now_ns,
                captured_ns=captured_ns,
            )
            self._transmit(packets, probe, now_ns)

    def _send_even(
        self,
        protection: Protection,
        stream: RtpStream,
        unit: AccessUnit,
        ticks: int,
        first: int,
        end: int,
        probe: int,
        now_ns: int,
    ) -> None:
        """The short way: by the outbox, together with what other viewers get."""
        pair = self.pair
        if pair is None:
            return
        assert protection.trailer is not None
        layout = unit.layout(first, end, stream.header_size, protection.trailer, self._overhead)
        number = self._next_number()
        heading = stream.take_numbers(layout, ticks=ticks, is_end=end == len(unit.payloads), now_ns=now_ns)
        self._is_leaving = True
        try:
            self._outbox.put(self, protection, layout, heading, number, pair, probe)
        except ProtectionError as error:
            self.fails(error)

    def _next_number(self) -> int:
        """The transport-wide number of what is written next."""
        self.go_alone()
        if self._is_leaving:
            self._outbox.flush()  # or it would get the same
        return self.estimator.packets.next_number

    def leaves(self, layout: Layout, probe: int) -> None:
        """What was put into the outbox leaves now."""
        # Others had their turn since it was put there: what they took must not look like a queue on this one's path.
        self._is_leaving = False
        self.estimator.sent(layout.on_the_wire, now_ns=self._wakeups.now_ns(), probe=probe)

    def fails(self, error: ProtectionError) -> None:
        """Packets cannot be protected: it is over."""
        self._is_leaving = False
        self.close()
        self._on_failure(error)

    def _send_again(self, stream: RtpStream, packets: Sequence[SentPacket], probe: int, now_ns: int) -> None:
        for start in range(0, len(packets), MOST):
            some = packets[start : start + MOST]
            stream.packets_resent += len(some)
            self._transmit(stream.rewrite(some, number=self._next_number()), probe, now_ns)

    def _pad(self, padding: Padding, now_ns: int) -> None:
        """Fills the path for a probe: with what was sent before, else with packets of nothing."""
        stream = self._streams.get("video")
        if stream is None:
            return
        overhead = stream.header_size + _TRAILER + self._overhead
        packets = stream.newest(padding.size, overhead=overhead + RTX_HEADER) if self.may_repeat else []
        left = padding.size - sum(len(each.payload) + overhead + RTX_HEADER for each in packets)
        for start in range(0, len(packets), MOST):
            some = packets[start : start + MOST]
            self._transmit(stream.rewrite(some, number=self._next_number()), padding.probe, now_ns)
        empty = max(round(left / (PADDING + overhead)), 0 if packets else 1)
        for start in range(0, empty, MOST):
            nothing = stream.fill(min(empty - start, MOST), number=self._next_number())
            self._transmit(nothing, padding.probe, now_ns)

    def _transmit(self, packets: Sequence[bytes], probe: int, now_ns: int) -> None:
        if self._protection is None or self.pair is None:
            return
        try:
            data, sizes = self._protection.protect(packets)
        except ProtectionError as error:
            self.fails(error)
            return
        overhead = self._overhead
        self.estimator.sent(tuple([size + overhead for size in sizes]), now_ns=self._wakeups.now_ns(), probe=probe)
        self._mux.send_run(data, sizes, self.pair)

    def _give_up(self, dropped: Sequence[Dropped[Waiting | Again]]) -> None:
        for each in dropped:
            if each.urgency != Urgency.VIDEO:
                continue
            self.dropped_pictures += 1
            self.is_broken = self.is_broken or each.breaks
